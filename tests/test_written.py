"""What runs and trainings have written is never input, wherever it lies; one's own pictures beside it are."""

import json
import shutil
import tarfile

import numpy as np
import pytest
import torch
from PIL import Image

from iagan_lightning.cli import main
from iagan_lightning.commands.photo import files_of
from iagan_lightning.data.folders import list_pictures
from iagan_lightning.data.members import list_members
from iagan_lightning.results.folder import OutputFolder
from iagan_lightning.training.pictures import PictureSet

STEPS = ["--model.latent.steps", "2", "--model.joint.steps", "2", "--lpips", "none"]
TINY = ["--model.resolution", "16", "--model.channels", "4", "--model.latent", "8", "--data.batch_size", "1"]


def draw(path, seed=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (16, 16, 3), dtype=np.uint8)).save(path)
    return path


@pytest.fixture
def run(tiny_weights):
    def command(root, *more):
        given = ["--model.generator", str(tiny_weights), "--data.root", str(root), "--trainer.accelerator", "cpu"]
        return main(["super-resolution", *given, *STEPS, *map(str, more)])

    return command


def train(root, out, steps=2):
    given = ["--data.root", str(root), "--out", str(out), "--steps", str(steps), "--trainer.accelerator", "cpu"]
    return main(["train-prior", *given, *TINY])


def refused(capsys, status):
    error = capsys.readouterr().err
    assert status == 2, error
    assert error.count("\n") == 1, error
    return error


def finished(out):
    return [done["image"] for done in OutputFolder(out).done()]


def test_a_run_within_its_input_goes_on_and_others_leave_it_out(run, tmp_path, capsys, monkeypatch):
    draw(tmp_path / "a.png", 0)
    monkeypatch.chdir(tmp_path)
    assert run(".", "--out", "results") == 0
    draw(tmp_path / "b" / "b.png", 1)
    capsys.readouterr()
    assert run(".", "--out", "results") == 0
    errors = capsys.readouterr().err
    assert "1 of 2 images are done already" in errors
    assert "iagan: left out of .: 1 with what iagan has written (results)\n" in errors
    assert finished("results") == ["a", "b/b"]
    assert run(".") == 0  # in runs/super-resolution-DATE-TIME
    assert run(".") == 0
    assert [finished(out) for out in tmp_path.glob("runs/*")] == [["a", "b/b"]] * 2


def test_pictures_that_a_run_has_saved_by_themselves(run, tmp_path):
    """They lie in a folder that is the run's only where it says so: others call theirs pictures too."""
    draw(tmp_path / "a.png")
    for out, saved in (("results", ["--save", "pictures"]), ("own", [])):
        for _ in range(2):
            assert run(tmp_path / "a.png", "--out", tmp_path / out, *saved) == 0
    assert (tmp_path / "results" / "pictures" / "a.png").is_file()
    draw(tmp_path / "own" / "pictures" / "b.png", 1)
    assert list(list_pictures(tmp_path).files) == ["a.png", "own/pictures/b.png"]
    with tarfile.open(tmp_path / "all.tar", "w") as archive:
        archive.add(tmp_path / "results", "results")
        archive.add(tmp_path / "a.png", "a.png")
    assert list(list_members(tmp_path / "all.tar").files) == ["a.png"]
    assert list(list_pictures(tmp_path / "results" / "pictures").files) == ["a.png"], "named by itself it is meant"


def test_a_training_within_its_pictures_goes_on_with_them_alone(tmp_path, capsys):
    for seed in range(3):
        draw(tmp_path / "faces" / f"{seed}.png", seed)
    out = tmp_path / "faces" / "prior"
    assert train(tmp_path / "faces", out) == 0
    assert (out / "samples.png").is_file()
    assert train(tmp_path / "faces", out, 4) == 0
    assert torch.load(out / "last.ckpt", weights_only=True)["global_step"] == 4
    assert "1 with what iagan has written (prior)" in capsys.readouterr().err
    assert len(PictureSet(str(tmp_path / "faces"), 16)) == 3


def test_a_tar_file_of_pictures_and_results(run, tmp_path):
    draw(tmp_path / "faces" / "below" / "a.png")
    assert run(tmp_path / "faces", "--out", tmp_path / "faces" / "results") == 0
    assert train(tmp_path / "faces", tmp_path / "faces" / "prior") == 0
    draw(tmp_path / "faces" / "prior" / "mine.png")
    for name in (".", "faces"):
        with tarfile.open(tmp_path / "faces.tar", "w") as archive:
            archive.add(tmp_path / "faces", name)
        pictures = PictureSet(str(tmp_path / "faces.tar"), 16)
        assert len(pictures) == 2
        assert "2 with what iagan has written" in pictures.left_out


@pytest.mark.parametrize("out", [None, "large.png"])
def test_results_of_iagan_photo(tmp_path, out):
    """Result, sheet and map are left out wherever pictures are looked for; what else lies there stays."""
    own = tmp_path / "own"
    photograph = draw(own / "a[1].png")
    options = ["--out", str(own / out)] if out else []
    assert main(["photo", str(photograph), "--sheet", "--map", *options]) == 0
    shutil.copy(photograph, own / f"{'large' if out else 'a[1]'}_iagan_sheet.png")  # as if there had been a face
    others = ["a[1]_iagan.png"] if out else []
    for name in ("a[1]_iagan_more.png", "other.png", *others):
        draw(own / name)
    (own / "other.iagan.json").write_text('{"image": "other.png"}')  # nobody's
    mine = sorted(["a[1].png", "a[1]_iagan_more.png", "other.png", *others])
    assert sorted(list_pictures(own).files) == mine
    assert sorted(file.photograph.name for file in files_of([str(own)], str(tmp_path / "out"))[0]) == mine
    with tarfile.open(tmp_path / "own.tar", "w") as archive:
        archive.add(own, "below")
    names = [f"below/{name}" for name in mine]
    assert sorted(PictureSet(str(tmp_path / "own.tar"), 16).names) == names
    assert sorted(list_members(tmp_path / "own.tar").files) == names
    for path in own.glob("*.png"):
        if path.name in mine:
            path.unlink()
    with pytest.raises(ValueError, match=r"no pictures in .*with what iagan has written \(\.\)"):
        files_of([str(own)], None)


def test_tables_of_the_paper(tiny_weights, tmp_path):
    draw(tmp_path / "a.png")
    given = ["--table", "1", "--preset", "fast", "--generator", tiny_weights, "--dip", "false", *STEPS]
    assert main(["reproduce", "--data.root", str(tmp_path), "--out", str(tmp_path / "paper"), *map(str, given)]) == 0
    assert list((tmp_path / "paper" / "table-1").glob("*.png"))
    assert list(list_pictures(tmp_path).files) == ["a.png"]


def test_results_cannot_be_written_among_the_pictures(run, tmp_path, capsys):
    draw(tmp_path / "x" / "images" / "a.png")
    shutil.copy(draw(tmp_path / "x" / "a.png"), tmp_path / "x" / "tensorboard.png")
    before = sorted((tmp_path / "x").rglob("*"))
    for root in (tmp_path / "x", tmp_path / "x" / "images"):
        error = refused(capsys, run(root, "--out", tmp_path / "x"))
        assert f"the results would lie among the pictures of {root}: choose another --out" in error
    (tmp_path / "alias").symlink_to(tmp_path / "x")
    refused(capsys, run(tmp_path / "x", "--out", tmp_path / "alias"))
    refused(capsys, train(tmp_path / "x", tmp_path / "x"))
    assert sorted((tmp_path / "x").rglob("*")) == before
    assert run(tmp_path / "x" / "a.png", "--out", tmp_path / "x") == 0, "a single file is taken alone"
    assert run(tmp_path / "x" / "a.png", "--out", tmp_path / "x") == 0


def test_a_folder_of_results_is_no_input(run, tmp_path, capsys):
    assert run(draw(tmp_path / "in" / "a.png"), "--out", tmp_path / "out") == 0
    image = tmp_path / "out" / "images" / "a"
    capsys.readouterr()
    for root in (image.parent, image):
        error = refused(capsys, run(root, "--out", tmp_path / "again"))
        assert f"{root} lies among what a run or training has written in {tmp_path / 'out'}" in error
    assert run(image / "truth.png", "--out", tmp_path / "again") == 0
    shutil.move(image, tmp_path / "moved")
    with pytest.raises(ValueError, match=r"no pictures in .*1 with what iagan has written \(\.\)"):
        list_pictures(tmp_path / "moved")


def test_what_only_looks_like_results_is_input(run, tmp_path):
    """Pictures of one's own in a folder of results, and folders of other programs with files of the same names."""
    out = tmp_path / "out"
    assert run(draw(tmp_path / "in" / "a.png"), "--out", out) == 0
    draw(out / "mine.png")
    draw(out / "more" / "mine.png")
    other = tmp_path / "other"
    for name in ("images/a.png", "samples.png", "figure1.png"):
        draw(other / name)
    for name, content in (("settings.json", {"task": "label", "seed": 1}), ("metrics.json", {"methods": 1})):
        (other / name).write_text(json.dumps(content))
    (other / "table.csv").write_text("a,b")
    draw(tmp_path / "broken" / "images" / "a.png")
    (tmp_path / "broken" / "settings.json").write_text("{")
    (tmp_path / "linked").mkdir()
    (tmp_path / "linked" / "out").symlink_to(out)
    assert list(list_pictures(out).files) == ["mine.png", "more/mine.png"]
    assert list(list_pictures(tmp_path / "linked").files) == ["out/mine.png", "out/more/mine.png"]
    assert list(list_pictures(other).files) == ["figure1.png", "images/a.png", "samples.png"]
    assert list(list_pictures(tmp_path / "broken" / "images").files) == ["a.png"]
    (out / "settings.json").write_text("")
    assert list(list_pictures(out).files) == ["mine.png", "more/mine.png"]
