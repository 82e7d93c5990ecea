"""Trainings that go wrong: bad pictures, other pictures, divergence, damaged checkpoints, full and shared folders."""

import contextlib
import csv
import json
import os
import resource
import shutil
import stat
import subprocess
import sys
import tarfile
import tempfile
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open

from iagan_lightning.cli import main
from iagan_lightning.generators import BEGAN, WeightsError, load_generator, save_generator
from iagan_lightning.runs.sharing import lock
from iagan_lightning.training.pictures import StepSampler

ROOT = Path(__file__).parent.parent


@pytest.fixture
def folder(tmp_path):
    """Six pictures in a folder."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    for i in range(6):
        save(folder / f"{i}.png", seed=i)
    return folder


def save(path, seed, size=20):
    pixels = np.random.default_rng(seed).integers(0, 256, (size, size, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)


def spoil(path):
    """Damage the pixels of a PNG: its header and its end are as they were, and only decoding tells."""
    content = bytearray(path.read_bytes())
    content[200:260] = bytes(60)
    path.write_bytes(content)


def arguments_of(folder, out, steps, *more):
    return ["train-prior", "--data.root", str(folder), "--out", str(out), "--steps", str(steps),
            "--trainer.accelerator", "cpu", "--model.resolution", "8", "--model.channels", "2", "--model.latent", "3",
            "--data.batch_size", "2", *more]  # fmt: skip


def train(*arguments):
    return main(arguments_of(*arguments))


def state(out, name="last.ckpt"):
    return torch.load(out / name, weights_only=True)


def same(a, b):
    a, b = state(a)["state_dict"], state(b)["state_dict"]
    return a.keys() == b.keys() and all(torch.equal(value, b[key]) for key, value in a.items())


def files(out):
    return {path.name: path.read_bytes() for path in out.iterdir() if path.is_file()}


def error_of(capsys):
    """What was said, which is one line."""
    errors = [line for line in capsys.readouterr().err.splitlines() if "iagan" in line or "Traceback" in line]
    assert len(errors) == 1, errors
    assert errors[0].startswith("iagan: error: ")
    return errors[0]


@contextlib.contextmanager
def small_disk(path, size):
    """A file system of its own; None where this machine allows no such thing."""
    path.mkdir()
    mounted = shutil.which("mount") and subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size}", "none", str(path)], capture_output=True
    )
    try:
        yield path if mounted and mounted.returncode == 0 else None
    finally:
        if mounted and mounted.returncode == 0:
            subprocess.run(["umount", "-l", str(path)], check=True)


# Pictures --------------------------------------------------------------------------------------------------------


def add_bad(folder):
    """Put in pictures that cannot be used; return their names with a word of why."""
    save(folder / "small.png", 7, size=5)
    (folder / "text.png").write_text("no picture")
    (folder / "cut.png").write_bytes((folder / "0.png").read_bytes()[:-400])
    save(folder / "cut.jpg", 8, size=64)
    (folder / "cut.jpg").write_bytes((folder / "cut.jpg").read_bytes()[:-1000])
    Image.fromarray(np.full((20, 20), 70_000, np.int32)).save(folder / "deep.tif")
    first, second = (Image.new("RGB", (20, 20), colour) for colour in ("red", "blue"))
    moving = ("moving.gif", "moving.webp", "moving.png", "pages.tif")
    for name in moving:
        first.save(folder / name, save_all=True, append_images=[second])
    several = dict.fromkeys(moving, "it holds 2 frames or pages")
    single = {"small.png": "5 x 5", "text.png": "identify", "cut.png": "", "cut.jpg": "truncated", "deep.tif": "white"}
    return single | several


def test_bad_pictures_are_named_before_the_first_step(folder, tmp_path, capsys):
    bad = add_bad(folder)
    assert train(folder, tmp_path / "out", 1) == 2
    error = error_of(capsys)
    assert "9 of 15 pictures" in error
    assert "--data.skip_bad true" in error
    for name, reason in bad.items():
        assert f"{name}: " in error
        assert reason in error.partition(f"{name}: ")[2]
    assert not (tmp_path / "out").exists()


def test_bad_pictures_are_left_out_when_asked_for(folder, tmp_path, capsys):
    assert train(folder, tmp_path / "without", 2) == 0
    bad = add_bad(folder)
    assert train(folder, tmp_path / "with", 2, "--data.skip_bad", "true") == 0
    said = capsys.readouterr().err
    assert all(name in said for name in bad)
    assert same(tmp_path / "with", tmp_path / "without")
    with (tmp_path / "with" / "bad_pictures.csv").open(newline="") as table:
        assert {row["picture"] for row in csv.DictReader(table)} == set(bad)


def test_a_check_decodes_all_pictures(folder, tmp_path, capsys):
    check = arguments_of(folder, tmp_path / "out", 1, "--check", "true")
    assert main(check) == 0
    spoil(folder / "3.png")
    assert main(check) == 1
    assert "3.png" in error_line(capsys)
    assert not (tmp_path / "out").exists()


def error_line(capsys):
    errors = capsys.readouterr().err.splitlines()
    assert len(errors) == 1, errors
    return errors[0]


@pytest.mark.parametrize("workers", ["0", "1"])
def test_a_picture_that_fails_in_mid_training(folder, tmp_path, capfd, workers):
    """It stops the training with a checkpoint; without it training goes on as if it had been left out before."""
    batches = iter(StepSampler(6, 2, seed=0))
    name = f"{[next(batches) for _ in range(3)][2][0][0]}.png"  # shown at the third step
    spoil(folder / name)
    more = ["--data.workers", workers, "--checkpoint_every", "100"]
    assert train(folder, tmp_path / "skipping", 3, *more, "--data.skip_bad", "true") == 0
    assert capfd.readouterr().err.count(name) == 1
    out = tmp_path / "out"
    assert train(folder, out, 3, *more) == 2
    error = error_of(capfd)
    assert f"{name}: " in error
    assert "last.ckpt of step 2" in error
    assert "DataLoader" not in error
    assert state(out)["global_step"] == 2
    assert train(folder, out, 3, *more) == 2  # known now: told before anything is done
    assert "1 of 6 pictures" in error_of(capfd)
    (folder / name).unlink()
    assert train(folder, out, 3, *more) == 0
    assert same(out, tmp_path / "skipping")


# Resuming --------------------------------------------------------------------------------------------------------


def test_other_pictures_are_refused_by_name(folder, tmp_path, capsys):
    out = tmp_path / "out"
    assert train(folder, out, 1) == 0
    before = files(out)
    save(folder / "1.png", seed=10)
    (folder / "2.png").rename(folder / "other.png")
    capsys.readouterr()
    assert train(folder, out, 2) == 2
    error = error_of(capsys)
    assert "1 gone (2.png), 1 changed (1.png), 1 added (other.png)" in error
    assert files(out) == before
    (folder / "3.png").unlink()
    assert train(folder, out, 2, "--data.accept_changes", "true") == 0
    assert state(out)["global_step"] == 2
    assert train(folder, out, 3) == 0  # they are its pictures now


def test_the_same_pictures_may_lie_elsewhere(folder, tmp_path):
    whole, moved, path = tmp_path / "whole", tmp_path / "moved", tmp_path / "pictures.tar"
    with tarfile.open(path, "w") as archive:
        for picture in sorted(folder.iterdir()):
            archive.add(picture, arcname=f"faces/{picture.name}")
    assert train(folder, whole, 2) == 0
    assert train(folder, moved, 1) == 0
    assert train(path, moved, 2) == 0
    assert same(moved, whole)


def test_a_folder_of_an_earlier_version_goes_on(folder, tmp_path, capsys):
    """It holds no list of pictures, only how many there were."""
    out = tmp_path / "out"
    assert train(folder, out, 1) == 0
    (out / "pictures.csv").unlink()
    (folder / "0.png").rename(tmp_path / "0.png")
    capsys.readouterr()
    assert train(folder, out, 2) == 2
    assert "pictures was 6, now 5" in error_of(capsys)
    (tmp_path / "0.png").rename(folder / "0.png")
    assert train(folder, out, 2) == 0
    assert (out / "pictures.csv").exists()


# Divergence ------------------------------------------------------------------------------------------------------


def test_a_diverging_training_keeps_what_was_good(folder, tmp_path, capsys):
    """The first step of 60,000 gives large weights, the second none that are finite."""
    out, more = tmp_path / "out", ["--model.lr", "6e4", "--model.average", "0", "--checkpoint_every", "1"]
    assert train(folder, out, 20, *more) == 2
    error = error_of(capsys)
    kept = state(out)
    assert kept["global_step"] == 1
    assert "diverged at step 2: " in error
    assert "last.ckpt of step 1" in error
    assert "lower --model.lr (60000.0 was given)" in error
    assert all(value.isfinite().all() for key, value in kept["state_dict"].items() if key != "best_m")
    with safe_open(out / "prior.safetensors", framework="pt") as file:
        header = json.loads(file.metadata()["iagan_lightning"])
    assert header["training"]["steps"] == 1
    load_generator(out / "prior.safetensors")  # which refuses what is not finite
    before = files(out)
    assert train(folder, out, 20, *more) == 2  # again at the same step
    assert "diverged at step" in error_of(capsys)
    assert files(out) == before


def test_losses_that_are_not_finite_stop_a_training(folder, tmp_path, capsys):
    assert train(folder, tmp_path / "out", 20, "--model.lr", "1e30") == 2
    error = error_of(capsys)
    assert "diverged at step 1: its losses are not finite" in error
    assert "before its first checkpoint" in error
    assert not list((tmp_path / "out").glob("*.ckpt"))
    assert not (tmp_path / "out" / "prior.safetensors").exists()


def test_weights_that_are_not_finite_are_not_stored(tmp_path):
    G = BEGAN(resolution=8, channels=2, latent=3)
    path = tmp_path / "G.safetensors"
    save_generator(G, path)
    before = path.read_bytes()
    for value, half, words in (
        (torch.nan, False, "not finite"),
        (torch.inf, True, "not finite"),
        (7e4, True, "65,504"),
    ):
        with torch.no_grad():
            G.l1.weight[0, 0, 0, 0] = value
        with pytest.raises(WeightsError, match=rf"l1\.weight .*{words}"):
            save_generator(G, path, half=half)
        assert files(tmp_path) == {path.name: before}
    save_generator(G, path)
    assert torch.equal(load_generator(path).l1.weight, G.l1.weight)


def test_import_in_half_precision_refuses_what_overflows(tmp_path, capsys):
    G = BEGAN(resolution=8, channels=2, latent=3)
    with torch.no_grad():
        G.l1.weight[0, 0, 0, 0] = 1e5
    torch.save(G.state_dict(), tmp_path / "G.pth")
    out = tmp_path / "G.safetensors"
    arguments = ["import-prior", str(tmp_path / "G.pth"), "--out", str(out)]
    assert main([*arguments, "--half", "true"]) == 2
    error = error_of(capsys)
    assert "l1.weight reaches 1e+05" in error
    assert "leave out --half" in error
    assert not out.exists()
    assert main(arguments) == 0


# Checkpoints -----------------------------------------------------------------------------------------------------


def cut(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def empty(path):
    path.write_bytes(b"")


def flip(path):
    """Change one bit of a weight."""
    content, weight = bytearray(path.read_bytes()), state(path.parent, path.name)["state_dict"]["generator.l0.weight"]
    content[content.index(weight.numpy().tobytes()) + 5] ^= 1
    path.write_bytes(content)


def turn_infinite(path):
    """What earlier versions kept of a training that had diverged."""
    content = state(path.parent, path.name)
    content["state_dict"]["generator.l1.weight"][:] = torch.inf
    torch.save(content, path)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A training of two steps with both its checkpoints, its pictures, and one of three steps."""
    place = tmp_path_factory.mktemp("trained")
    (place / "pictures").mkdir()
    for i in range(6):
        save(place / "pictures" / f"{i}.png", seed=i)
    assert train(place / "pictures", place / "out", 2, "--checkpoint_every", "1") == 0
    shutil.copytree(place / "out", place / "whole")
    assert train(place / "pictures", place / "whole", 3) == 0
    return place


@pytest.mark.parametrize("damage", [cut, empty, flip, turn_infinite, Path.unlink])
def test_a_damaged_checkpoint_falls_back_on_the_one_before(trained, tmp_path, capsys, damage):
    out = shutil.copytree(trained / "out", tmp_path / "out")
    assert [state(out, name)["global_step"] for name in ("previous.ckpt", "last.ckpt")] == [1, 2]
    damage(out / "last.ckpt")
    assert train(trained / "pictures", out, 3) == 0
    said = [line for line in capsys.readouterr().err.splitlines() if "iagan" in line]
    assert len(said) == 1
    assert "last.ckpt" in said[0]
    assert "going on from previous.ckpt, step 1" in said[0]
    assert same(out, trained / "whole")
    assert state(out, "previous.ckpt")["global_step"] == 1  # not the damaged one


def test_without_a_whole_checkpoint_nothing_begins_anew(trained, tmp_path, capsys):
    out = shutil.copytree(trained / "out", tmp_path / "out")
    for name in ("last.ckpt", "previous.ckpt"):
        cut(out / name)
    before = files(out)
    assert train(trained / "pictures", out, 3) == 2
    error = error_of(capsys)
    assert "last.ckpt is damaged" in error
    assert "previous.ckpt is damaged" in error
    assert files(out) == before


def test_a_checkpoint_of_another_model_is_refused(trained, tmp_path, capsys):
    out = shutil.copytree(trained / "out", tmp_path / "out")
    (out / "settings.json").unlink()
    assert train(trained / "pictures", out, 3, "--model.channels", "3") == 2
    assert "last.ckpt is of another model" in error_of(capsys)


# The folder ------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def no_room(path, disk):
    """Fill a disk; where it could not be mounted, let no file of this process grow."""
    if disk is not None:
        with (path / "filling").open("wb", buffering=0) as file, contextlib.suppress(OSError):
            while True:
                file.write(bytes(1024))
        try:
            yield
        finally:
            (path / "filling").unlink()
    else:
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1024, hard))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_full_disk(trained, tmp_path, capfd):
    with small_disk(tmp_path / "disk", "3m") as disk:
        out = shutil.copytree(trained / "out", tmp_path / "disk" / "out")
        before = files(out)
        with no_room(tmp_path / "disk", disk):
            assert train(trained / "pictures", out, 3) == 2
            error = error_of(capfd)
        assert os.strerror(28 if disk else 27) in error
        assert "last.ckpt of step 2" in error
        assert files(out) == before
        assert train(trained / "pictures", out, 3) == 0
        assert same(out, trained / "whole")


def test_the_temporary_folder_may_be_full(trained, tmp_path, monkeypatch):
    with small_disk(tmp_path / "temporary", "8k") as disk:
        if disk is None:
            pytest.skip("needs the right to mount a small file system")
        monkeypatch.setenv("TMPDIR", str(disk))
        monkeypatch.setattr(tempfile, "tempdir", None)
        out = shutil.copytree(trained / "out", tmp_path / "out")
        assert train(trained / "pictures", out, 3, "--data.workers", "1") == 0
        assert same(out, trained / "whole")


@pytest.mark.slow
def test_without_shared_memory_pictures_are_read_in_the_process(trained, tmp_path):
    out = shutil.copytree(trained / "out", tmp_path / "out")
    command = 'mount -t tmpfs -o ro none /dev/shm && exec "$@"'
    own = ["unshare", "--mount", "sh", "-c", command, "sh"]
    if not shutil.which("unshare") or subprocess.run([*own, "true"], capture_output=True).returncode:
        pytest.skip("needs the right to mount a file system")
    done = subprocess.run(
        [*own, sys.executable, "-m", "iagan_lightning",
         *arguments_of(trained / "pictures", out, 3, "--data.workers", "2")],
        cwd=ROOT, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert sum("--data.workers 2 is not possible" in line for line in done.stderr.splitlines()) == 1
    assert same(out, trained / "whole")


def hold(path, answer):
    """Take the lock of a training and keep it."""
    file = path.open("ab")
    answer.send(lock(file, "train-prior"))
    time.sleep(60)


def test_one_training_at_a_time_in_a_folder(trained, processes, tmp_path, capsys):
    """The lock is another process's; it goes with it, and so does what it left half-written."""
    out = shutil.copytree(trained / "out", tmp_path / "out")
    here, there = processes.Pipe()
    other = processes.Process(target=hold, args=(out / ".lock", there))
    other.start()
    assert here.recv()
    (out / ".last.ckpt.1234.part").write_bytes(b"half")
    before = files(out)
    assert train(trained / "pictures", out, 3) == 2
    assert "another training is at work" in error_of(capsys)
    assert files(out) == before
    other.kill()
    other.join()
    assert train(trained / "pictures", out, 3) == 0
    assert same(out, trained / "whole")
    assert not list(out.glob(".*.part"))


def test_files_have_the_rights_that_the_user_gives(trained, tmp_path):
    before = os.umask(0o027)
    try:
        assert train(trained / "pictures", tmp_path / "out", 2, "--checkpoint_every", "1") == 0
        save_generator(BEGAN(resolution=8, channels=2, latent=3), tmp_path / "out" / "other.safetensors")
    finally:
        os.umask(before)
    rights = {path: stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "out").rglob("*") if path.is_file()}
    assert len(rights) > 6
    assert set(rights.values()) == {0o640}
