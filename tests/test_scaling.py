"""Several processes on one data set: locks, faults, summary, files from strangers. Real runs of several are slow."""

import errno
import io
import json
import os
import random
import re
import shutil
import signal
import statistics
import subprocess
import sys
import time
import types
import zipfile
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
import torch
from iagan_lightning.callbacks import BestObjective, ResultWriter, RunProgress
from PIL import Image
from pytorch_lightning.utilities import rank_zero_only
from rich.console import Console

from iagan_lightning import IAGAN, Stage, adapt
from iagan_lightning.cli import main
from iagan_lightning.commands.rebuild import rebuild
from iagan_lightning.data.images import picture_size, read_image
from iagan_lightning.data.samples import read_array
from iagan_lightning.generators import load_generator
from iagan_lightning.methods.trainers import quiet_trainer
from iagan_lightning.operators import BicubicDownsampling
from iagan_lightning.operators.files import read_picture
from iagan_lightning.results.files import write_once, write_text
from iagan_lightning.results.folder import OutputFolder
from iagan_lightning.results.page.collect import Embedding, embed
from iagan_lightning.results.summary import summarise
from iagan_lightning.runs.processes import Place, find_place, own_device
from iagan_lightning.runs.sharing import WorkList, lock
from iagan_lightning.safety import MAX_PIXELS

ROOT = Path(__file__).parent.parent
STEPS = ["--model.latent.steps", "4", "--model.joint.steps", "3", "--trainer.accelerator", "cpu", "--tensorboard", "0"]

MEDIUM = ["--model.preset", "paper", "--model.latent.steps", "60", "--model.joint.steps", "40"]
# Long enough that the second process, too, has work left when it has started.
LONG = ["--model.preset", "paper", "--model.latent.steps", "300", "--model.joint.steps", "150"]


def draw(folder, count):
    folder.mkdir()
    for i in range(count):
        pixels = np.random.default_rng(i).integers(0, 256, (16, 16, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{i:03}.png")
    return folder


def arguments(weights, pictures, out, *more):
    common = ["super-resolution", "--model.generator", weights, "--lpips", "none", "--data.root", pictures]
    return [*map(str, (*common, "--out", out, *STEPS, *more))]


def start(args, launcher=(), **environment):
    command = [sys.executable, *launcher, "-m", "iagan_lightning", *args]
    path = os.pathsep.join([str(ROOT), str(ROOT / "tests")])  # the latter for user_callback
    environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", **environment}
    return subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )


def end(process, status=0):
    output, errors = process.communicate(timeout=280)
    assert process.returncode == status, errors
    return output + errors


def results(out):
    """All that an image's result consists of, times aside."""
    found = {}
    for path in sorted((out / "images").rglob("metrics.json")):
        content = json.loads(path.read_text())
        content.pop("seconds")
        pictures = {p.name: p.read_bytes() for p in path.parent.glob("*.png")}
        y = torch.load(path.parent / "measurement.pt")
        found[content["image"]] = (content, pictures, y.numpy().tobytes())
    return found


def workers(out):
    """The numbers of the processes that hold a lock on an image."""
    try:
        inode = (out / ".lock").stat().st_ino
    except FileNotFoundError:
        return set()
    held = [line.split() for line in Path("/proc/locks").read_text().splitlines()]
    return {int(words[4]) for words in held if len(words) == 8 and words[5].endswith(f":{inode}")}


def wait_for(condition, process):
    while not condition():
        assert process.poll() is None, "it ended too soon"
        time.sleep(0.01)


def leftovers(out):
    return [path for path in out.rglob(".*") if path not in (out / ".lock", out / ".names.json")]


# Locks ------------------------------------------------------------------------------------------------------------


def hold(path, names, answer):
    """Take the locks on some names, and keep those that could be had."""
    file = path.open("ab")
    answer.send([lock(file, name) for name in names])
    time.sleep(60)


def test_a_lock_ends_with_its_process_however_that_ends(processes, tmp_path):
    path = tmp_path / ".lock"

    def begin(names):
        here, there = processes.Pipe()
        process = processes.Process(target=hold, args=(path, names, there))
        process.start()
        return process, here.recv()

    with path.open("ab") as file:
        other, had = begin("ab")
        assert had == [True, True]
        assert [lock(file, name) for name in "abc"] == [False, False, True]
        third, had = begin("cd")
        assert had == [False, True]
        lock(file, "c", held=False)
        other.kill()
        other.join()
        assert [lock(file, name) for name in "abcd"] == [True, True, True, False]
        third.kill()
        third.join()
    assert path.stat().st_size == 0


def work(folder, rank, size, since, answer=None):
    """Do all images that are left, three at a time, and return their names; those that end in 7 fail."""
    out, done = OutputFolder(folder), []
    out.prepare()
    share = WorkList([f"{i:03}" for i in range(200)], out, rank, size, since=since)
    while taken := share.take(3):
        for name in [share.names[index] for index in taken]:
            if name.endswith("7"):
                write_text(out.make(name) / "error.txt", "broken\n\n")
            else:
                write_text(out.make(name) / "metrics.json", json.dumps({"image": name, "methods": {}}))
            share.settle(name)
            done.append(name)
    share.close()
    if answer is not None:
        answer.send(done)
    return done


def test_two_processes_do_each_image_once(processes, tmp_path):
    """Whatever their shares: each other's failures of this run are known, those of an earlier one tried again."""
    since = time.time()
    old = OutputFolder(tmp_path / "out").image("000")
    old.mkdir(parents=True)
    (old / "error.txt").write_text("of an earlier run")
    os.utime(old / "error.txt", (since - 10, since - 10))
    pair = []
    for rank, size in ((0, 1), (1, 3)):
        here, there = processes.Pipe()
        processes.Process(target=work, args=(tmp_path / "out", rank, size, since, there)).start()
        pair.append(here)
    done = [here.recv() for here in pair]
    assert sorted(done[0] + done[1]) == [f"{i:03}" for i in range(200)]
    assert all(done), "both had something to do"
    assert work(tmp_path / "out", 0, 1, time.time()) == [f"{i:03}" for i in range(200) if i % 10 == 7]


def test_a_file_system_without_locks_hinders_nobody(tmp_path, monkeypatch):
    monkeypatch.setattr("fcntl.lockf", mock.Mock(side_effect=OSError(errno.ENOLCK, "No locks available")))
    with (tmp_path / ".lock").open("ab") as file:
        assert lock(file, "a") and lock(file, "a", held=False)


def test_the_display_hears_of_other_processes(tmp_path):
    out, news = OutputFolder(tmp_path), []
    out.prepare()
    work = WorkList([f"{i:03}" for i in range(10)], out, since=time.time() - 1, on_news=lambda *told: news.append(told))
    assert work.take() == [0]
    write_text(out.make("004") / "metrics.json", "{}")
    write_text(out.make("007") / "error.txt", "broken\n\nTraceback ...")
    work.look()
    work.look()
    assert sorted(news) == [("004", None), ("007", "broken")]
    work.settle("000")
    assert [index for taken in iter(work.take, []) for index in taken] == [1, 2, 3, 5, 6, 8, 9]
    work.close()


def test_settings_are_written_by_one_process_only(tmp_path):
    assert write_once(tmp_path / "settings.json", "one")
    assert not write_once(tmp_path / "settings.json", "two")
    assert (tmp_path / "settings.json").read_text() == "one"
    assert len(list(tmp_path.iterdir())) == 1


# Progress ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("width", [80, 200])
def test_one_display_tells_of_all_processes(tiny, width):
    """Images done, images per second, failures and time left, in a terminal of the usual width too."""
    terminal = io.StringIO()
    A = BicubicDownsampling((3, 16, 16), scale=4)
    with RunProgress(30_000, Console(file=terminal, force_terminal=True, width=width, color_system=None)) as progress:
        progress.finish("a", "done by another process")
        progress.finish("b", "broken", failed=True)
        progress._drawn = 0.0
        module = IAGAN(tiny, latent=Stage(steps=3), joint=Stage(steps=40, stop="never"))
        module.begin(torch.zeros(1, 3, 4, 4), A, seeds=[0], names=["c"])
        adapt(module, quiet_trainer(accelerator="cpu", callbacks=[BestObjective(), progress]))
        time.sleep(0.3)
    text = terminal.getvalue()
    assert re.search(r"2/30000 images  [\d.e+]+/s  1 failed .* \d:\d\d:\d\d left: \d+:\d\d:\d\d", text)
    assert re.search(r"(csgm|iagan) \d+/\d+  objective [\d.e+-]+  c", text)


def test_without_a_terminal_there_is_a_line_per_image():
    log = io.StringIO()
    with RunProgress(3, Console(file=log, width=80)) as progress:
        progress.finish("a", "PSNR 20.00 dB")
        progress.finish("b", "broken " * 20, failed=True)
        progress.finish("c", "PSNR 21.00 dB")
    lines = log.getvalue().splitlines()
    assert len(lines) == 3
    assert re.fullmatch(r"\[1/3\] a: PSNR 20.00 dB, about 0:00:0\d left", lines[0])
    assert lines[1].startswith("[2/3] b: failed: broken")
    assert lines[2] == "[3/3] c: PSNR 21.00 dB"


# Places -----------------------------------------------------------------------------------------------------------


def test_places_come_from_the_launchers(monkeypatch):
    for variable in ("LOCAL_RANK", "NODE_RANK", "WORLD_SIZE", "RANK"):
        monkeypatch.delenv(variable, raising=False)
    alone = find_place(1, 1)
    assert (alone.rank, alone.size, alone.external) == (0, 1, False)
    both = find_place(2, 1)
    assert (both.rank, both.size, both.local_size, both.external) == (0, 2, 2, False)
    with pytest.raises(ValueError, match="started by torchrun or SLURM"):
        find_place(2, 2)
    with monkeypatch.context() as companion:
        companion.setenv("IAGAN_COMPANION", "1 2 1700000000.5")
        assert find_place(2, 1) == Place(1, 2, 1, 2, external=True, since=1700000000.5)
    with monkeypatch.context() as torchrun:
        for key, value in {
            "TORCHELASTIC_RUN_ID": "x", "RANK": "3", "LOCAL_RANK": "1", "WORLD_SIZE": "4", "LOCAL_WORLD_SIZE": "2",
            "GROUP_RANK": "1",
        }.items():  # fmt: skip
            torchrun.setenv(key, value)
        place = find_place(1, 1)
        assert (place.rank, place.size, place.local_rank, place.local_size) == (3, 4, 1, 2)
        with pytest.raises(ValueError, match=r"4 processes were started.*trainer.devices 3"):
            find_place(3, 1)
    with monkeypatch.context() as slurm:
        for key, value in {
            "SLURM_NTASKS": "8", "SLURM_PROCID": "5", "SLURM_LOCALID": "1", "SLURM_NNODES": "2", "SLURM_NODEID": "1",
            "SLURM_JOB_NAME": "faces", "SLURM_NTASKS_PER_NODE": "4",
        }.items():  # fmt: skip
            slurm.setenv(key, value)
        place = find_place(1, 1)
        assert (place.rank, place.size, place.local_rank, place.local_size) == (5, 8, 1, 4)


@pytest.mark.parametrize(("ids", "devices"), [([0, 1], [1]), ([4, 6, 7], [6]), ([4, 6], [6])])
def test_a_process_takes_the_device_of_its_place_on_the_machine(ids, devices, monkeypatch):
    """Not of its place among all: the fifth of six processes on two machines is the second one of its machine."""

    class Accelerator:
        def auto_device_count(self):
            return 2

    trainer = types.SimpleNamespace(accelerator=Accelerator(), device_ids=ids)
    monkeypatch.setattr(rank_zero_only, "rank", 0, raising=False)
    given = own_device(trainer, Place(rank=4, size=6, local_rank=1, local_size=3, external=True))
    assert given["devices"] == devices


# The summary ------------------------------------------------------------------------------------------------------


def test_the_streamed_summary_is_that_of_the_whole(tmp_path):
    out = OutputFolder(tmp_path)
    values = [random.Random(i).gauss(20, 3) for i in range(50)]
    for i, value in enumerate(values):
        methods = {"naive": {"mse": 10 ** (-value / 10), "psnr": value}, "iagan": {"residual": value / 1e3}}
        if i == 49:
            methods["naive"]["ssim"] = 0.5  # a column that the first rows do not know
        name = f"a,\n{i:02}"
        write_text(out.make(name) / "metrics.json", json.dumps({"image": name, "methods": methods}))
    summary = out.write_summary({"b": "damaged"})
    psnr = summary["methods"]["naive"]["psnr"]
    assert psnr["mean"] == pytest.approx(statistics.fmean(values), rel=1e-12)
    assert psnr["std"] == pytest.approx(statistics.stdev(values), rel=1e-12)
    assert psnr["median"] == statistics.median(values)
    assert (summary["images"], summary["failed"]) == (50, {"b": "damaged"})
    rows = list(out.rows())
    assert [row["image"] for row in rows[::2]] == [f"a,\n{i:02}" for i in range(50)]
    assert rows[0]["psnr"] == values[0]
    assert "ssim" not in rows[0]
    assert rows[98]["ssim"] == 0.5
    assert json.loads((tmp_path / "summary.json").read_text()) == summary


def test_medians_of_many_images_come_from_a_sample(monkeypatch):
    monkeypatch.setattr("iagan_lightning.results.summary.EXACT_MEDIANS", 1000)
    rows = ({"image": str(i), "method": "iagan", "psnr": i / 1e4} for i in range(10_000))
    assert summarise(rows)["methods"]["iagan"]["psnr"]["median"] == pytest.approx(0.5, abs=0.08)


# Storage ----------------------------------------------------------------------------------------------------------


def test_an_image_is_rebuilt_from_what_was_kept_of_it(tiny_weights, tmp_path, capsys, monkeypatch):
    out = tmp_path / "out"
    args = arguments(
        tiny_weights,
        draw(tmp_path / "pictures", 1),
        out,
        "--save",
        "weights",
        "--operator.scale",
        "2",
        "--model.joint.lr_weights",
        "1e-3",
    )
    args[args.index("--model.joint.steps") + 1] = "60"
    assert main(args) == 0
    folder = out / "images" / "000"
    G = load_generator(tiny_weights)
    image = rebuild(folder / "weights.safetensors", G)
    y, A_mse = torch.load(folder / "measurement.pt"), json.loads((folder / "metrics.json").read_text())["objective"]
    objective = float((BicubicDownsampling((3, 16, 16), scale=2)(image) - y).square().mean())
    assert objective == pytest.approx(A_mse["joint"], rel=1e-3)
    assert objective < 0.9 * A_mse["latent"], "the weights did change"
    monkeypatch.chdir(tmp_path)
    for given in (str(folder), f"{folder}/", "./out/images/000"):
        assert main(["rebuild", given]) == 0
        difference = read_image(folder / "rebuilt.png") - read_image(folder / "iagan.png")
        assert difference.abs().max() <= 2 / 255 + 1e-6, "one grey level where rounding falls the other way"
        (folder / "rebuilt.png").unlink()
    assert (folder / "weights.safetensors").stat().st_size < 0.6 * tiny_weights.stat().st_size + 10_000
    assert main(["rebuild", str(out)]) == 2
    assert main(["rebuild", str(folder), "--generator", "began64"]) == 2
    assert "belongs to another generator" in capsys.readouterr().err


def test_a_rebuilt_image_is_within_a_thousandth(tiny, tmp_path):
    A = BicubicDownsampling((3, 16, 16), scale=2)
    y = A(torch.rand(1, 3, 16, 16) * 2 - 1)
    module = IAGAN(tiny, latent=Stage(steps=5), joint=Stage(steps=80, lr_weights=3e-3, frozen="none", stop="never"))
    module.begin(y, A, seeds=[0], names=["a"])
    writer = ResultWriter(tmp_path, "weights")
    adapt(module, quiet_trainer(accelerator="cpu", callbacks=[BestObjective(), writer]))
    image = rebuild(tmp_path / "images" / "a" / "weights.safetensors", tiny)
    assert (image - module.results["iagan"]).abs().max() <= 1e-3
    assert (image - module.results["csgm"]).abs().max() > 0.1, "the weights did change"


# Faults -----------------------------------------------------------------------------------------------------------


def test_a_vanished_output_folder_ends_the_run(tiny_weights, tmp_path, capsys, monkeypatch):
    out, moved = tmp_path / "out", tmp_path / "moved"
    original = OutputFolder.metrics
    monkeypatch.setattr(OutputFolder, "metrics", lambda self, name: vanish(self, name))

    def vanish(self, name):
        record = original(self, name)
        if name == "001" and not moved.exists():
            os.rename(out, moved)
        return record

    args = arguments(tiny_weights, draw(tmp_path / "pictures", 3), out)
    assert main(args) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert "vanished" in error
    assert "Finished images are safe" in error
    assert not out.exists(), "not made anew"
    os.rename(moved, out)
    monkeypatch.setattr(OutputFolder, "metrics", original)
    assert main(args) == 0
    assert "2 of 3 images are done already" in capsys.readouterr().err


@pytest.mark.slow
def test_a_folder_that_vanishes_under_two_processes_is_not_made_anew(tiny_weights, tmp_path):
    pictures, out, moved = draw(tmp_path / "pictures", 40), tmp_path / "out", tmp_path / "moved"
    args = arguments(tiny_weights, pictures, out, "--trainer.devices", "2", *LONG)
    process = start(args)
    wait_for(lambda: len(workers(out)) == 2, process)
    os.rename(out, moved)
    text = end(process, status=2)
    assert "vanished" in text
    assert "Traceback" not in text
    assert not out.exists()
    assert len(results(moved)) < 40
    os.rename(moved, out)
    end(start(args))
    assert len(results(out)) == 40
    assert not leftovers(out)


@pytest.mark.slow
def test_a_full_disk_ends_the_run_and_the_next_one_goes_on(tiny_weights, tmp_path):
    room = tmp_path / "room"
    room.mkdir()
    pictures = draw(tmp_path / "pictures", 30)
    args = arguments(tiny_weights, pictures, room / "out", "--trainer.devices", "2")
    command = " ".join([sys.executable, "-m", "iagan_lightning", *args])
    mount = f"mount -t tmpfs -o size=300k none {room}"
    if subprocess.run(["unshare", "-rm", "sh", "-c", mount], capture_output=True).returncode:
        pytest.skip("needs a file system of its own")
    script = (
        f"{mount} && {{ {command}; echo status $?; rm -r {room}/out/images/000; cp -r {room}/out {tmp_path}/kept; }}"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    ran = subprocess.run(["unshare", "-rm", "sh", "-c", script], capture_output=True, text=True, env=environment)
    assert "status 2" in ran.stdout
    assert "No space left on device" in ran.stderr
    assert "Traceback" not in ran.stderr
    done = len(list((tmp_path / "kept" / "images").rglob("metrics.json")))
    assert 0 < done < 29
    shutil.copytree(tmp_path / "kept", room / "out")
    assert main(args) == 0
    assert len(results(room / "out")) == 30


# Files from strangers ---------------------------------------------------------------------------------------------


def test_image_bombs_are_refused_by_their_header(tmp_path):
    path = tmp_path / "bomb.png"
    for width in (MAX_PIXELS // 8000 + 1, 12_000, 30_000):  # of which Pillow lets pass, warns of, and refuses one
        Image.new("1", (width, 8000)).save(path)
        assert path.stat().st_size < 100_000
        with pytest.raises(ValueError, match="shrink it first"):
            read_image(path)
        with pytest.raises(ValueError, match=r"bomb\.png cannot be read.*shrink it first"):
            read_picture(path)  # a mask
        assert picture_size(path) is None
        assert embed(path, Embedding(64, False)) is None  # the report, of somebody's results


def test_sizes_are_read_without_decoding(tmp_path):
    """A data set is looked through at the start: only the header counts, even of a PNG."""
    path = tmp_path / "cut.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)).save(path)
    path.write_bytes(path.read_bytes()[:200])
    assert picture_size(path) == (20, 30)
    with pytest.raises(OSError, match="truncated"):
        read_image(path)


class Payload:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def test_measurements_from_strangers_execute_nothing_and_stay_small(tmp_path):
    mark = tmp_path / "executed"
    torch.save(Payload(mark), tmp_path / "pickle.pt")
    np.save(tmp_path / "pickle.npy", np.array([Payload(mark)], dtype=object), allow_pickle=True)
    torch.save(torch.zeros(1).expand(1 << 20, 1 << 20), tmp_path / "expanded.pt")
    torch.save(torch.sparse_coo_tensor(size=(1 << 20, 1 << 20), check_invariants=True), tmp_path / "sparse.pt")
    torch.save(torch.zeros(1 << 20), tmp_path / "plain.pt")
    with (
        zipfile.ZipFile(tmp_path / "plain.pt") as plain,
        zipfile.ZipFile(tmp_path / "zip.pt", "w", zipfile.ZIP_DEFLATED) as packed,
    ):
        for member in plain.infolist():
            packed.writestr(member.filename, plain.read(member))
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "<f4", "fortran_order": False, "shape": (1 << 20, 1 << 20)})
    (tmp_path / "promise.npy").write_bytes(header.getvalue() + b"0000")
    for name in ("pickle.pt", "pickle.npy", "expanded.pt", "sparse.pt", "zip.pt", "promise.npy"):
        with pytest.raises(ValueError, match=name):
            read_array(tmp_path / name)
    assert not mark.exists()
    assert read_array(tmp_path / "plain.pt").shape == (1 << 20,)
    with pytest.raises(ValueError, match=r"zip\.pt is refused"):
        load_generator(tmp_path / "zip.pt")


def test_hostile_file_names_stay_in_their_folder(tiny_weights, tmp_path, capsys):
    pictures = draw(tmp_path / "pictures", 1)
    content = (pictures / "000.png").read_bytes()
    hostile = [b"x\\..\\up.png", b"a\x1b[2Jb.png", b"\xff.png", b"new\nline.png", b"...png", b"[red].png"]
    for name in hostile:
        Path(os.fsdecode(os.path.join(os.fsencode(pictures), name))).write_bytes(content)
    before = set(tmp_path.iterdir())
    assert main(arguments(tiny_weights, pictures, tmp_path / "out")) == 0
    assert set(tmp_path.iterdir()) == before | {tmp_path / "out"}
    assert len(results(tmp_path / "out")) == 6, "dot files are left out, everything else is done"
    printed = capsys.readouterr()
    assert "\x1b[2J" not in printed.out + printed.err


def test_a_picture_is_no_file_of_another_ones_results(tiny_weights, tmp_path, capsys):
    pictures = draw(tmp_path / "pictures", 1)
    (pictures / "000").mkdir()
    shutil.copy(pictures / "000.png", pictures / "000" / "metrics.json.png")
    assert main(arguments(tiny_weights, pictures, tmp_path / "out")) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert re.search(r"metrics\.json\.png would lie where those of .*000\.png do: rename one of them", error)
    assert not (tmp_path / "out").exists()
    (pictures / "000.png").rename(pictures / "001.png")
    assert main(arguments(tiny_weights, pictures, tmp_path / "out")) == 0
    assert [done["image"] for done in OutputFolder(tmp_path / "out").done()] == ["000/metrics.json", "001"]


def test_rebuilding_from_a_strangers_folder_runs_nothing(tmp_path, monkeypatch, capsys):
    folder = tmp_path / "out" / "images" / "a"
    folder.mkdir(parents=True)
    (folder / "weights.safetensors").write_bytes(b"\xff" * 8 + b"{" + b" " * 100)
    config = tmp_path / "out" / "config.yaml"
    mark = tmp_path / "executed"
    (tmp_path / "strange_module.py").write_text(f"open({str(mark)!r}, 'w')")
    monkeypatch.syspath_prepend(tmp_path)
    for hostile in (
        f"model: {{generator: {{class_path: os.mkdir, init_args: {{path: {mark}}}}}}}",
        f"model: {{generator: !!python/object/apply:os.mkdir ['{mark}']}}",
        "model: {generator: began64}",
        "model: {generator: strange_module.Net}",
        "model: {generator: {weights: strange_module.Net}}",
    ):
        config.write_text(hostile)
        assert main(["rebuild", str(folder)]) == 2
        assert capsys.readouterr().err.count("\n") == 1
    assert not mark.exists()


# Real processes ---------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_any_layout_gives_the_same_files(tiny_weights, tmp_path):
    """One process, two, torchrun, SLURM (pretended), two runs by mistake: the same to the last bit."""
    pictures = draw(tmp_path / "pictures", 16)
    end(start(arguments(tiny_weights, pictures, tmp_path / "one")))
    one = results(tmp_path / "one")
    assert len(one) == 16
    text = end(start(arguments(tiny_weights, pictures, tmp_path / "two", "--trainer.devices", "2")))
    assert "[16/16]" in text
    assert results(tmp_path / "two") == one
    torchrun = ("-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2")
    end(start(arguments(tiny_weights, pictures, tmp_path / "torchrun"), torchrun))
    assert results(tmp_path / "torchrun") == one
    job = {"SLURM_NTASKS": "2", "SLURM_NNODES": "2", "SLURM_JOB_NAME": "faces", "SLURM_NTASKS_PER_NODE": "1"}
    tasks = [
        start(arguments(tiny_weights, pictures, tmp_path / "slurm"), **job, SLURM_LOCALID="0", **of_task)
        for of_task in ({"SLURM_PROCID": "0", "SLURM_NODEID": "0"}, {"SLURM_PROCID": "1", "SLURM_NODEID": "1"})
    ]
    [end(task) for task in tasks]
    assert results(tmp_path / "slurm") == one
    twice = [start(arguments(tiny_weights, pictures, tmp_path / "twice")) for _ in range(2)]
    [end(run) for run in twice]
    assert results(tmp_path / "twice") == one
    for layout in ("two", "torchrun", "slurm", "twice"):
        summary = json.loads((tmp_path / layout / "summary.json").read_text())
        assert summary == json.loads((tmp_path / "one" / "summary.json").read_text())
        assert not leftovers(tmp_path / layout)


@pytest.mark.slow
def test_images_that_fail_are_named_whichever_process_had_them(tiny_weights, tmp_path):
    """Two files that cannot be read, an objective that is not a number, and memory that runs out, in two processes."""
    pictures, out = draw(tmp_path / "pictures", 12), tmp_path / "out"
    for name in ("002", "007"):
        (pictures / f"{name}.png").write_bytes(b"no picture")
    args = arguments(tiny_weights, pictures, out, "--trainer.devices", "2")
    text = end(start([*args, "--trainer.callbacks+=user_callback.Faults"]), status=1)
    reasons = {"002": "UnidentifiedImageError", "005": "not a number", "007": "UnidentifiedImageError",
               "010": "OutOfMemoryError"}  # fmt: skip
    failed = json.loads((out / "summary.json").read_text())["failed"]
    assert set(failed) == set(reasons)
    for name, reason in reasons.items():
        assert reason in failed[name]
        assert reason in (out / "images" / name / "error.txt").read_text()
        assert f"failed: {name}" in text
    assert len(results(out)) == 8
    shutil.rmtree(pictures)
    draw(pictures, 12)
    end(start(args))
    assert len(results(out)) == 12
    assert not list(out.rglob("error.txt"))


@pytest.mark.slow
def test_twenty_kills_lose_nothing(tiny_weights, tmp_path):
    """SIGKILL of two processes at random moments of their work, one before the other; then a run finishes the rest."""
    pictures, out, chance = draw(tmp_path / "pictures", 120), tmp_path / "out", random.Random(0)
    end(start(arguments(tiny_weights, pictures, tmp_path / "expected", *MEDIUM)))
    ended = sorted(path.stat().st_mtime for path in (tmp_path / "expected").rglob("metrics.json"))
    pace = (ended[-1] - ended[0]) / (len(ended) - 1)  # seconds per image, so that any machine has work left at the end
    args = arguments(tiny_weights, pictures, out, *MEDIUM)
    for _ in range(20):
        pair = [start(args) for _ in range(2)]
        chance.shuffle(pair)
        wait_for(lambda pair=pair: pair[0].pid in workers(out), pair[0])
        for process in pair:
            time.sleep(chance.uniform(0, 2 * pace))
            assert process.poll() is None, "it ended before it was killed"
            os.killpg(process.pid, signal.SIGKILL)
        for process in pair:
            process.communicate()
        for path in out.rglob("metrics.json"):
            assert json.loads(path.read_text())["methods"], "whole or not there"
    assert 0 < len(results(out)) < 120
    end(start(args))
    assert results(out) == results(tmp_path / "expected")
    rows = [(row["image"], row["method"]) for row in OutputFolder(out).rows()]
    assert len(rows) == len(set(rows)) == 5 * 120
    assert not leftovers(out / "images")


@pytest.mark.slow
@pytest.mark.parametrize("victim", ["first", "second"])
def test_the_others_do_the_work_of_a_killed_process(tiny_weights, tmp_path, victim):
    pictures, out = draw(tmp_path / "pictures", 40), tmp_path / "out"
    args = arguments(tiny_weights, pictures, out, "--trainer.devices", "2", *LONG)
    process = start(args)
    wait_for(lambda: len(workers(out)) == 2, process)
    if victim == "first":
        process.kill()
        process.communicate(timeout=280)  # until the second one, too, has closed its standard error
        assert len(results(out)) == 40
        assert not (out / "summary.json").exists()
        assert "40 of 40 images are done already" in end(start(args))
    else:
        (second,) = workers(out) - {process.pid}
        os.kill(second, signal.SIGKILL)
        assert "ended by signal 9" in end(process)
    assert len(results(out)) == 40
    assert json.loads((out / "summary.json").read_text())["images"] == 40
    assert not leftovers(out / "images")
