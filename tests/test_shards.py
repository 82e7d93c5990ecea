"""Pictures in tar and Parquet shards, results in Parquet: the same as with folders, whatever happens on the way."""

import io
import json
import os
import pickle
import shutil
import subprocess
import sys
import tarfile
from operator import itemgetter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from safetensors.torch import load
from test_scaling import ROOT, Payload, arguments, draw, end, start

from iagan_lightning.cli import main
from iagan_lightning.data.members import list_members
from iagan_lightning.results import shards
from iagan_lightning.results.shards import ShardedOutput, open_results
from iagan_lightning.runs import on_ray

pa = pytest.importorskip("pyarrow", reason="needs pyarrow: pip install '.[ray]'")
pq = pytest.importorskip("pyarrow.parquet")
fsspec = pytest.importorskip("fsspec")
STEPS = ["--model.latent.steps", "2", "--model.joint.steps", "2", "--trainer.accelerator", "cpu", "--tensorboard", "0"]


@pytest.fixture
def run(tiny_weights):
    def run(root, out, *more, form="parquet"):
        given = ["--model.generator", tiny_weights, "--lpips", "none", "--data.root", root, "--out", out]
        return main([*map(str, ("super-resolution", *given, *STEPS, "--out_format", form, *more))])

    return run


@pytest.fixture
def store():
    """An object store in memory, empty before and after."""
    files = fsspec.filesystem("memory")
    files.store.clear()
    yield files
    files.store.clear()


def results(out):
    """The files of every image by its name, times aside."""
    where = open_results(out)
    if where.sharded:
        images = list(where.images())
    else:
        folders = [path.parent for path in (where.root / "images").rglob("metrics.json")]
        names = [folder.relative_to(where.root / "images").as_posix() for folder in folders]
        images = [
            (name, {file.name: file.read_bytes() for file in folder.iterdir()})
            for name, folder in zip(names, folders, strict=True)
        ]
    assert len({name for name, _ in images}) == len(images)
    found = {}
    for name, files in sorted(images, key=itemgetter(0)):
        record = json.loads(files.pop("metrics.json"))
        assert record["image"] == name
        if "weights.safetensors" in files:  # whose header is in any order
            tensors = load(files["weights.safetensors"])
            files["weights.safetensors"] = {key: value.numpy().tobytes() for key, value in sorted(tensors.items())}
        found[name] = ({key: value for key, value in record.items() if key != "seconds"}, files)
    return found


def names_in(out):
    """The names in all shards, as a stranger's program reads them."""
    files = sorted((Path(out) / "shards").glob("*.parquet"))
    return [name for file in files for name in pq.read_table(file, columns=["image"])["image"].to_pylist()]


def one_line(capsys, *parts):
    error = capsys.readouterr().err
    assert error.count("\n") == 1, error
    for part in parts:
        assert part in error


# Results -----------------------------------------------------------------------------------------------------------


def test_shards_hold_what_folders_hold(run, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(shards, "IMAGES", 2)
    pictures = draw(tmp_path / "pictures", 5)
    assert run(pictures, tmp_path / "folders", "--save", "weights", form="folders") == 0
    assert run(pictures, tmp_path / "out", "--save", "weights") == 0
    assert results(tmp_path / "out") == results(tmp_path / "folders")
    assert sorted(names_in(tmp_path / "out")) == ["000", "001", "002", "003", "004"]
    assert len(list((tmp_path / "out" / "shards").iterdir())) == 3
    assert not (tmp_path / "out" / "images").exists()
    for name in ("summary.json", "summary.csv"):
        assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "folders" / name).read_bytes()
    table = pq.read_table(sorted((tmp_path / "out" / "shards").iterdir())[0])
    record = json.loads(table["metrics"][0].as_py())
    assert record["methods"][table["result"][0].as_py()]["psnr"] == table["psnr"][0].as_py()
    assert Image.open(io.BytesIO(table["iagan_bp"][0].as_py())).size == (16, 16)
    assert main(["export", str(tmp_path / "out"), "--to", str(tmp_path / "exported")]) == 0
    monkeypatch.chdir(tmp_path / "out")
    assert main(["export", "."]) == 0
    assert len(list((tmp_path / "out-folders" / "images").iterdir())) == len(names_in(tmp_path / "out"))
    assert results(tmp_path / "exported") == results(tmp_path / "folders")
    capsys.readouterr()
    assert run(pictures, tmp_path / "exported", "--save", "weights", form="folders") == 0
    assert "5 of 5 images are done already" in capsys.readouterr().err
    assert main(["export", str(tmp_path / "folders")]) == 2
    one_line(capsys, "holds no Parquet shards")


def test_two_runs_are_not_exported_into_one_folder(run, tmp_path, capsys):
    pictures, to = draw(tmp_path / "pictures", 2), tmp_path / "exported"
    assert run(pictures, tmp_path / "one", "--data.limit", "1") == 0
    assert run(pictures, tmp_path / "two", "--seed_everything", "5") == 0
    export = ["export", str(tmp_path / "one"), "--to", str(to)]
    assert main(export) == 0
    before = {path: path.read_bytes() for path in to.rglob("*") if path.is_file()}
    capsys.readouterr()
    assert main(["export", str(tmp_path / "two"), "--to", str(to)]) == 2
    one_line(capsys, "holds results of other settings (seed_everything was 0, now 5)")
    assert {path: path.read_bytes() for path in to.rglob("*") if path.is_file()} == before
    assert run(pictures, tmp_path / "one") == 0
    assert main(export) == 0, "what has been added since comes along"
    assert len(list((to / "images").iterdir())) == 2


def test_what_a_complete_shard_holds_is_skipped(run, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(shards, "IMAGES", 2)
    pictures, out = draw(tmp_path / "pictures", 4), tmp_path / "out"
    assert run(pictures, out, "--data.limit", "3") == 0
    before = {path: path.read_bytes() for path in (out / "shards").iterdir()}
    capsys.readouterr()
    assert run(pictures, out) == 0
    assert "3 of 4 images are done already" in capsys.readouterr().err
    assert {path: path.read_bytes() for path in before} == before
    assert sorted(names_in(out)) == ["000", "001", "002", "003"]
    assert run(pictures, out, "--operator.scale", "2") == 2
    one_line(capsys, "holds results of other settings (operator.init_args.scale was None, now 2")
    Image.new("RGB", (16, 16)).save(pictures / "001.png")
    assert run(pictures, out) == 2
    one_line(capsys, "001.png: 1 of 4 finished images were made from other files of these names")


def test_an_image_is_in_one_shard_whoever_made_it(tmp_path):
    """Two runs by mistake: the later one leaves out what the other has written meanwhile."""
    files = {"metrics.json": b'{"methods": {"iagan": {"psnr": 20.0}}}', "iagan.png": b"x"}
    one, two = ShardedOutput(tmp_path), ShardedOutput(tmp_path)
    one.prepare(), two.prepare()
    for out, names in ((one, "ab"), (two, "bc")):
        for name in names:
            assert out.add(name, files) == []
    assert one.flush() == ["a", "b"]
    assert two.flush() == ["b", "c"], "all are safe"
    assert sorted(names_in(tmp_path)) == ["a", "b", "c"]
    assert one.is_done("c") and two.is_done("a")
    assert [name for name, _ in ShardedOutput(tmp_path).images()] in (["a", "b", "c"], ["c", "a", "b"])


def test_images_do_not_wait_for_ever(tmp_path, monkeypatch):
    files = {"metrics.json": b'{"methods": {"iagan": {}}}', "iagan.png": b"x" * 1000}
    out = ShardedOutput(tmp_path)
    out.prepare()
    monkeypatch.setattr(shards, "BYTES", 2500)
    assert [out.add(name, files) for name in "abcd"] == [[], [], ["a", "b", "c"], []]
    monkeypatch.setattr(shards, "SECONDS", 0.0)
    assert out.add("e", files) == ["d", "e"]


def test_an_unreadable_shard_is_named(run, tmp_path, capsys):
    pictures, out = draw(tmp_path / "pictures", 2), tmp_path / "out"
    assert run(pictures, out) == 0
    expected = results(out)
    (shard,) = (out / "shards").iterdir()
    content = shard.read_bytes()
    other = io.BytesIO()
    pq.write_table(pa.table({"a": [1]}), other)
    for damage in (content[:200], b"", other.getvalue()):
        shard.write_bytes(damage)
        capsys.readouterr()
        for command in (lambda: run(pictures, out), lambda: main(["report", str(out)])):
            assert command() == 2
            one_line(capsys, shard.name, "is damaged", "delete it and run the same command again")
    shard.unlink()
    assert run(pictures, out) == 0
    assert results(out) == expected


def test_failed_images_are_named_and_tried_again(run, tmp_path, capsys):
    pictures, out = draw(tmp_path / "pictures", 3), tmp_path / "out"
    (pictures / "001.png").write_bytes(b"no picture")
    assert run(pictures, out) == 1
    failed = json.loads((out / "summary.json").read_text())["failed"]
    assert list(failed) == ["001"]
    assert "UnidentifiedImageError" in failed["001"]
    assert "UnidentifiedImageError" in (out / "failed" / "001" / "error.txt").read_text()
    assert sorted(names_in(out)) == ["000", "002"]
    assert main(["report", str(out)]) == 0
    assert "UnidentifiedImageError" in (out / "report.html").read_text()
    (pictures / "001.png").unlink()
    Image.new("RGB", (16, 16), "red").save(pictures / "001.png")
    assert run(pictures, out) == 0
    assert sorted(names_in(out)) == ["000", "001", "002"]
    assert not list((out / "failed").rglob("error.txt"))


def test_an_object_store_takes_and_gives_everything(run, tmp_path, capsys, store):
    pictures, out = draw(tmp_path / "pictures", 3), "memory://bucket/run"
    assert run(pictures, tmp_path / "folders", form="folders") == 0
    assert run(pictures, out, "--data.limit", "2") == 0
    capsys.readouterr()
    assert run(pictures, out) == 0
    assert "2 of 3 images are done already" in capsys.readouterr().err
    assert results(out) == results(tmp_path / "folders")
    assert not [path for path in store.find("bucket") if ".part" in path]
    assert {"/bucket/run/config.yaml", "/bucket/run/settings.json"} <= set(store.find("bucket"))
    assert store.cat("/bucket/run/summary.json") == (tmp_path / "folders" / "summary.json").read_bytes()
    assert run(pictures, out, "--seed_everything", "1") == 2
    one_line(capsys, "holds results of other settings", "seed_everything")
    assert main(["export", out, "--to", str(tmp_path / "exported")]) == 0
    assert results(tmp_path / "exported") == results(tmp_path / "folders")
    assert main(["report", out, "--out", str(tmp_path / "page.html")]) == 0
    capsys.readouterr()
    assert run(pictures, out, form="folders") == 2
    one_line(capsys, "an object store takes --out_format parquet")
    assert run(pictures, "nowhere://bucket/run") == 2
    one_line(capsys, "nowhere://bucket/run cannot be opened")


def test_a_shard_that_cannot_be_moved_into_place_leaves_nothing(tmp_path, store, monkeypatch):
    out = ShardedOutput("memory://bucket/run")
    out.prepare()
    out.add("a", {"metrics.json": b'{"methods": {"iagan": {}}}'})
    with monkeypatch.context() as patch:
        patch.setattr(type(store), "mv", lambda *_, **__: (_ for _ in ()).throw(OSError("lost the connection")))
        with pytest.raises(OSError, match="lost the connection"):
            out.flush()
    assert store.find("bucket") == []
    assert out.flush() == ["a"], "it went on waiting"


@pytest.mark.slow
def test_two_processes_share_a_folder_of_shards(tiny_weights, tmp_path):
    pictures = draw(tmp_path / "pictures", 16)
    end(start(arguments(tiny_weights, pictures, tmp_path / "one")))
    more = ["--out_format", "parquet", "--trainer.devices", "2", "--trainer.callbacks+=user_callback.SmallShards"]
    end(start(arguments(tiny_weights, pictures, tmp_path / "two", *more)))
    assert results(tmp_path / "two") == results(tmp_path / "one")
    assert sorted(names_in(tmp_path / "two")) == [f"{i:03}" for i in range(16)]


@pytest.mark.slow
def test_a_full_disk_keeps_the_shards_that_are_there(tiny_weights, tmp_path):
    room = tmp_path / "room"
    room.mkdir()
    more = ["--out_format", "parquet", "--trainer.callbacks+=user_callback.SmallShards"]
    args = arguments(tiny_weights, draw(tmp_path / "pictures", 30), room / "out", *more)
    mount = f"mount -t tmpfs -o size=200k none {room}"
    if subprocess.run(["unshare", "-rm", "sh", "-c", mount], capture_output=True).returncode:
        pytest.skip("needs a file system of its own")
    command = " ".join([sys.executable, "-m", "iagan_lightning", *args])
    script = f"{mount} && {{ {command}; echo status $?; cp -r {room}/out {tmp_path}/kept; }}"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests")])}
    ran = subprocess.run(["unshare", "-rm", "sh", "-c", script], capture_output=True, text=True, env=environment)
    assert "status 2" in ran.stdout
    assert "No space left on device" in ran.stderr
    assert "Traceback" not in ran.stderr
    assert 0 < len(names_in(tmp_path / "kept")) < 30
    shutil.copytree(tmp_path / "kept", room / "out")
    assert "images are done already" in end(start(args))
    assert sorted(names_in(room / "out")) == [f"{i:03}" for i in range(30)]


def test_folders_and_shards_are_not_mixed(run, tmp_path, capsys):
    pictures = draw(tmp_path / "pictures", 1)
    for first, second in (("folders", "parquet"), ("parquet", "folders")):
        assert run(pictures, tmp_path / first, form=first) == 0
        capsys.readouterr()
        assert run(pictures, tmp_path / first, form=second) == 2
        one_line(capsys, "holds results as", "choose another --out")


def test_pictures_that_are_not_wanted_are_not_kept(run, tmp_path, capsys):
    pictures = draw(tmp_path / "pictures", 1)
    wanted = ["--pictures", "[iagan_bp,truth]"]
    assert run(pictures, tmp_path / "folders", *wanted, form="folders") == 0
    assert run(pictures, tmp_path / "out", *wanted) == 0
    assert results(tmp_path / "out") == results(tmp_path / "folders")
    ((_, files),) = results(tmp_path / "out").values()
    assert sorted(files) == ["curves.csv", "iagan_bp.png", "measurement.pt", "truth.png"]
    assert main(["report", str(tmp_path / "out")]) == 0


@pytest.mark.parametrize(
    ("more", "name", "there"),
    [
        ([], "iagan_pb", "measurement, mask, truth, naive, csgm, iagan, csgm_bp, iagan_bp, comparison"),
        (["--noise_std", "0.1"], "iagan_bp", "measurement, mask, truth, naive, csgm, iagan, comparison"),
        (["--views", "1"], "iagan_mean", "csgm_bp, iagan_bp, comparison"),
        (["--views", "2"], "dip", "iagan_mirror_bp, iagan_mean, uncertainty, comparison"),
    ],
)
def test_a_picture_that_there_will_be_none_of_is_refused_at_once(run, tmp_path, capsys, more, name, there):
    pictures = draw(tmp_path / "pictures", 1)
    for form in ("folders", "parquet"):
        assert run(pictures, tmp_path / form, "--pictures", f"[truth,{name}]", *more, form=form) == 2
        one_line(capsys, f"pictures: there will be no {name}; there will be", there)
        assert not (tmp_path / form).exists()


@pytest.mark.parametrize("views", ["1", "2"])
def test_every_picture_that_is_foretold_is_made(run, tmp_path, views):
    """All that a run of this kind writes can be named, and what can be named is written."""
    pictures, every = draw(tmp_path / "pictures", 1), ["--views", views, "--dip", "true", "--dip_settings.steps", "2"]
    assert run(pictures, tmp_path / "all", *every) == 0
    ((_, files),) = results(tmp_path / "all").values()
    made = {name.removesuffix(".png") for name in files if name.endswith(".png")}
    assert run(pictures, tmp_path / "named", *every, "--pictures", f"[{','.join(sorted(made))}]") == 0
    assert results(tmp_path / "named") == results(tmp_path / "all")


def test_a_picture_that_there_was_no_time_for_is_left_out(run, tmp_path):
    pictures, late = draw(tmp_path / "pictures", 1), ["--views", "2", "--time", "1e-9"]
    with pytest.warns(UserWarning, match="there is no iagan_mean; there are"):
        assert run(pictures, tmp_path / "out", *late, "--pictures", "[iagan_bp,iagan_mean]") == 0
    ((_, files),) = results(tmp_path / "out").values()
    assert "iagan_bp.png" in files and "iagan_mean.png" not in files


def test_an_image_in_a_shard_is_rebuilt(run, tmp_path, capsys, tiny_weights):
    pictures, out = draw(tmp_path / "pictures", 2), tmp_path / "out"
    assert run(pictures, out, "--save", "weights") == 0
    to = tmp_path / "rebuilt.png"
    assert main(["rebuild", f"{out}/images/001/", "--to", str(to)]) == 0
    ours = Image.open(io.BytesIO(results(out)["001"][1]["iagan.png"]))
    assert np.abs(np.asarray(Image.open(to), int) - np.asarray(ours, int)).max() <= 1
    capsys.readouterr()
    assert main(["rebuild", str(out / "images" / "002"), "--to", str(to)]) == 2
    one_line(capsys, "no shard of", "holds 002")
    assert main(["rebuild", str(out / "images" / "001")]) == 2
    one_line(capsys, "give --to")


def test_names_that_parquet_cannot_hold_are_refused(run, tmp_path, capsys):
    pictures = draw(tmp_path / "pictures", 1)
    (pictures / "000.png").rename(pictures / "caf\udce9.png")
    assert run(pictures, tmp_path / "out") == 2
    one_line(capsys, "not in UTF-8")


def test_without_ray_one_line_names_the_extra(run, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(on_ray, "find_spec", lambda name: None)
    assert run(draw(tmp_path / "pictures", 1), tmp_path / "out", "--engine", "ray") == 2
    one_line(capsys, "--engine ray needs Ray: pip install 'iagan-lightning[ray]'")


# Pictures ----------------------------------------------------------------------------------------------------------


def pack(path, pictures, *more):
    """Pack pictures as WebDataset does, with further members of names and contents."""
    with tarfile.open(path, "w") as archive:
        for file in sorted(Path(pictures).iterdir()):
            archive.add(file, file.name)
        for name, content in more:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


@pytest.fixture
def expected(run, tmp_path):
    pictures = draw(tmp_path / "pictures", 3)
    assert run(pictures, tmp_path / "expected", form="folders") == 0
    return results(tmp_path / "expected")


def test_a_tar_shard_is_read_and_nothing_in_it_executed(run, tmp_path, expected, capsys, store):
    mark = tmp_path / "executed"
    payload = pickle.dumps(Payload(mark))
    hostile = [("000.pkl", payload), ("001.pt", payload), ("001.json", b"{}"), ("../out.png", b"x"), ("002.cls", b"1")]
    tar = pack(tmp_path / "faces.tar", tmp_path / "pictures", *hostile)
    assert run(tar, tmp_path / "out", form="folders") == 0
    assert results(tmp_path / "out") == expected
    assert not mark.exists()
    assert "4 without the ending of a picture (000.pkl, 001.json, 001.pt ...)" in capsys.readouterr().err
    store.pipe("/bucket/faces-0.tar", tar.read_bytes())
    for url in ("memory://bucket/faces-0.tar", "memory://bucket/faces-*.tar", "memory://bucket"):
        assert sorted(list_members(url).files) == ["000.png", "001.png", "002.png"]
    assert run("memory://bucket/faces-0.tar", tmp_path / "remote") == 0
    assert results(tmp_path / "remote") == expected


def test_several_shards_are_one_set(tmp_path, run, expected, capsys):
    pictures = sorted((tmp_path / "pictures").iterdir())
    folder = tmp_path / "shards"
    folder.mkdir()
    for number, part in enumerate((pictures[:2], pictures[2:])):
        own = tmp_path / f"part{number}"
        own.mkdir()
        for file in part:
            file.rename(own / file.name)
        pack(folder / f"{number}.tar", own)
    assert run(folder, tmp_path / "out") == 0
    assert results(tmp_path / "out") == expected
    assert results(tmp_path / "out").keys() == {"000", "001", "002"}
    pack(folder / "2.tar", tmp_path / "part0")
    capsys.readouterr()
    assert run(folder, tmp_path / "other") == 2
    one_line(capsys, "000.png is in", "0.tar and in", "2.tar")


@pytest.mark.parametrize("layout", ["plain", "within", "numbered"])
def test_parquet_shards_of_pictures(run, tmp_path, expected, layout):
    content = [(file.name, file.read_bytes()) for file in sorted((tmp_path / "pictures").iterdir())]
    columns = {
        "plain": {"file_name": [name for name, _ in content], "jpg": [data for _, data in content]},
        "within": {"image": [{"bytes": data, "path": name} for name, data in content], "label": [1, 2, 3]},
        "numbered": {"anything": [data for _, data in content]},
    }
    file = tmp_path / "faces.parquet"
    pq.write_table(pa.table(columns[layout]), file, row_group_size=2)
    assert run(file, tmp_path / "out") == 0
    found = results(tmp_path / "out")
    if layout == "numbered":
        assert list(found) == ["faces/000000", "faces/000001", "faces/000002"]
        truths = [files["truth.png"] for _, files in found.values()]
        assert truths == [files["truth.png"] for _, files in expected.values()]
    else:
        assert found == expected


@pytest.mark.parametrize(
    ("column", "names"),
    [("image.path", ["1.jpg", "2.jpg", "1.jpg"]), ("id", [7, 7, 7]), ("name", ["a/b", "a//b", None])],
)
def test_rows_that_are_named_alike_are_numbered(run, tmp_path, expected, capsys, column, names):
    """By persons, classes, or files of several folders: all rows are reconstructed, and a line says how called."""
    content = [file.read_bytes() for file in sorted((tmp_path / "pictures").iterdir())]
    within = {"image": [{"bytes": data, "path": name} for data, name in zip(content, names, strict=True)]}
    table = within if column == "image.path" else {"image": content, column: names}
    pq.write_table(pa.table(table), tmp_path / "cls.parquet", row_group_size=2)
    assert run(tmp_path / "cls.parquet", tmp_path / "out") == 0
    said = f"iagan: {column} names several pictures of {tmp_path}/cls.parquet alike: they are called cls/000000 ...\n"
    assert said in capsys.readouterr().err
    found = results(tmp_path / "out")
    assert list(found) == ["cls/000000", "cls/000001", "cls/000002"]
    assert [files["truth.png"] for _, files in found.values()] == [f["truth.png"] for _, f in expected.values()]


def test_a_member_that_is_twice_in_a_tar_file(run, tmp_path, capsys):
    picture = draw(tmp_path / "pictures", 1) / "000.png"
    with tarfile.open(tmp_path / "faces.tar", "w") as archive:
        for _ in range(2):
            archive.add(picture, "000.png")
    assert run(tmp_path / "faces.tar", tmp_path / "out") == 2
    one_line(capsys, f"000.png is twice in {tmp_path}/faces.tar", "pack it anew")


def test_shards_that_cannot_be_used_are_one_line(run, tmp_path, capsys):
    draw(tmp_path / "pictures", 2)
    tar = pack(tmp_path / "faces.tar", tmp_path / "pictures")
    content = tar.read_bytes()
    cases = {
        "cut.tar": content[:700], "none.tar": b"x" * 2000, "cut.parquet": b"PAR1", "empty.tar": b"\0" * 10240,
    }  # fmt: skip
    for name, damage in cases.items():
        (tmp_path / name).write_bytes(damage)
        assert run(tmp_path / name, tmp_path / "out") == 2
        one_line(capsys, name)
    pq.write_table(pa.table({"a": [1]}), tmp_path / "other.parquet")
    assert run(tmp_path / "other.parquet", tmp_path / "out") == 2
    one_line(capsys, "other.parquet", "no column of pictures")
    assert run(tmp_path / "gone.tar", tmp_path / "out") == 2
    one_line(capsys, "gone.tar")
    pq.write_table(pa.table({"image": [b"no picture", None], "key": ["../../a", "b"]}), tmp_path / "hostile.parquet")
    assert run(tmp_path / "hostile.parquet", tmp_path / "out") == 1, "its pictures are each its own failure"
    assert list(json.loads((tmp_path / "out" / "summary.json").read_text())["failed"]) == ["b"]
