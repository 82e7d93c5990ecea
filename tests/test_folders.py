"""Which files of a folder are taken, what they are called, and where their results lie."""

import itertools
import json
import os
import shutil
import tarfile

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from iagan_lightning.cli import main
from iagan_lightning.data import ImageData
from iagan_lightning.data.folders import list_pictures, suffix_of
from iagan_lightning.data.names import names_of, pair, same_place
from iagan_lightning.data.samples import image_seed
from iagan_lightning.results.folder import OutputFolder
from iagan_lightning.safety import picture_suffixes
from iagan_lightning.training.pictures import PictureSet

SUFFIXES = sorted(picture_suffixes() | {".pt", ".npy", ".PNG"})


def draw(path, seed=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = Image.fromarray(np.random.default_rng(seed).integers(0, 256, (20, 24, 3), dtype=np.uint8))
    picture.save(path, format=Image.registered_extensions()[suffix_of(path.name)])
    return path


def run(weights, root, out, *more):
    steps = ["--model.latent.steps", "2", "--model.joint.steps", "2", "--tensorboard", "0", "--lpips", "none"]
    given = ["--model.generator", str(weights), "--data.root", str(root), "--out", str(out)]
    return main(["super-resolution", *given, *steps, *map(str, more)])


def finished(out):
    return {done["image"]: done for done in OutputFolder(out).done()}


# What is taken ------------------------------------------------------------------------------------------------------


def test_what_is_left_out_is_named(tmp_path):
    for name in ("a.png", "below/b.jfif", "below/c.TGA"):
        draw(tmp_path / name)
    for name in ("._a.png", ".git/x.png", "@eaDir/a.png", "__MACOSX/a.png"):
        draw(tmp_path / name)
    for name in ("notes.txt", "a.eps", "figure.pdf", "b.csv", "c.md"):
        (tmp_path / name).write_text("x")
    (tmp_path / "empty.png").touch()
    (tmp_path / "nowhere.png").symlink_to(tmp_path / "gone.png")
    listing = list_pictures(tmp_path)
    assert list(listing.files) == ["a.png", "below/b.jfif", "below/c.TGA"]
    assert "\n" not in listing.left_out
    assert listing.left_out.startswith(f"left out of {tmp_path}: ")
    for part in (
        "4 hidden or of the system (._a.png, .git, @eaDir ...)",
        "5 without the ending of a picture (a.eps, b.csv, c.md ...)",
        "1 empty (empty.png)",
        "1 a link that leads nowhere (nowhere.png)",
    ):
        assert part in listing.left_out
    shutil.rmtree(tmp_path / "below")
    (tmp_path / "a.png").unlink()
    with pytest.raises(ValueError, match=r"no pictures in .*\.tga.*; left out of .*1 empty \(empty\.png\)"):
        list_pictures(tmp_path)


@pytest.mark.parametrize("ours", [False, True])
def test_a_link_to_itself_is_left_out(tmp_path, ours):
    """Which no system call can follow, whatever it is called, and beside results of ours too."""
    draw(tmp_path / "a.png")
    if ours:
        (tmp_path / "a.iagan.json").write_text('{"image": "b.png", "output": "c.png", "faces": []}')
    for name in ("loop", "loop.png", ".loop"):
        (tmp_path / name).symlink_to(tmp_path / name)
    listing = list_pictures(tmp_path)
    assert list(listing.files) == ["a.png"]
    assert "2 a link that leads nowhere (loop, loop.png)" in listing.left_out
    assert "1 hidden or of the system (.loop)" in listing.left_out


def test_a_folder_of_pictures_alone_has_nothing_to_say(tmp_path):
    draw(tmp_path / "a.png")
    assert list_pictures(tmp_path).left_out == ""


def test_linked_folders_are_followed_once(tmp_path):
    root, elsewhere = tmp_path / "root", tmp_path / "elsewhere"
    draw(root / "own" / "a.png")
    draw(elsewhere / "deep" / "b.png")
    (elsewhere / "back").symlink_to(root)
    (root / "alias").symlink_to(root / "own")  # sorts before it: what needs no link keeps its name
    (root / "linked").symlink_to(elsewhere)
    (root / "twice").symlink_to(elsewhere / "deep")
    listing = list_pictures(root)
    assert list(listing.files) == ["linked/deep/b.png", "own/a.png"]
    assert "3 a link to a folder that is read already (alias, linked/back, twice)" in listing.left_out
    assert list(list_pictures(elsewhere / "back").files) == list(listing.files), "the root may be a link itself"


def test_training_pictures_are_listed_by_the_same_rules(tmp_path):
    for name in ("a.png", "b.jfif", "._a.png", "@eaDir/b.png"):
        draw(tmp_path / "faces" / name)
    (tmp_path / "faces" / "empty.png").touch()
    with tarfile.open(tmp_path / "faces.tar", "w") as archive:
        archive.add(tmp_path / "faces", ".")
    for root in (tmp_path / "faces", tmp_path / "faces.tar"):
        pictures = PictureSet(str(root), 16)
        assert len(pictures) == 2
        assert pictures[0, False].shape == (3, 16, 16)
        assert "2 hidden or of the system" in pictures.left_out
        assert "1 empty" in pictures.left_out


def test_a_run_says_what_it_leaves_out(tiny_weights, tmp_path, capsys):
    draw(tmp_path / "in" / "a.tga")
    (tmp_path / "in" / "b.png").touch()
    assert run(tiny_weights, tmp_path / "in", tmp_path / "out") == 0
    errors = capsys.readouterr().err.splitlines()
    assert [line for line in errors if "left out of" in line] == [
        f"iagan: left out of {tmp_path / 'in'}: 1 empty (b.png)"
    ]
    assert list(finished(tmp_path / "out")) == ["a"]


# Names --------------------------------------------------------------------------------------------------------------


def test_files_that_differ_only_in_their_endings_lose_nothing(tiny_weights, tmp_path):
    names = ("face.jpg", "face.png", "face.png.jpg")
    for seed, name in enumerate(names):
        draw(tmp_path / "in" / name, seed)
    assert run(tiny_weights, tmp_path / "in", tmp_path / "out") == 0
    done = finished(tmp_path / "out")
    assert sorted(done) == sorted(names)
    assert [done[name]["seed"] for name in names] == [image_seed(0, name) for name in names]
    truths = [np.asarray(Image.open(tmp_path / "out" / "images" / name / "truth.png")) for name in names]
    assert not any((a == b).all() for a, b in itertools.pairwise(truths))
    assert json.loads((tmp_path / "out" / "summary.json").read_text())["images"] == 3


def test_a_file_added_later_renames_nothing(tiny_weights, tmp_path, capsys):
    pictures, out = tmp_path / "in", tmp_path / "out"
    draw(pictures / "face.jpg", 0)
    assert run(tiny_weights, pictures, out) == 0
    before = finished(out)
    draw(pictures / "face.png", 1)
    draw(pictures / "face.jpg.png", 2)
    capsys.readouterr()
    assert run(tiny_weights, pictures, out) == 0
    assert "1 of 3 images are done already" in capsys.readouterr().err
    after = finished(out)
    assert sorted(after) == ["face", "face.jpg.png", "face.png"]
    assert after["face"] == before["face"]
    assert json.loads((out / "summary.json").read_text())["images"] == 3
    (pictures / "face.jpg").unlink()  # and one taken away gives its place to no other
    (pictures / "face.jpg.png").unlink()
    assert run(tiny_weights, pictures, out) == 0
    assert finished(out) == after


def test_a_single_file_named_by_dots_stays_below_images(tiny_weights, tmp_path):
    out = tmp_path / "out"
    for name in ("..png", "...png", "face..png"):
        assert run(tiny_weights, draw(tmp_path / "in" / name), out) == 0
    assert sorted(path.name for path in (out / "images").iterdir()) == ["...png", "..png", "face..png"]
    assert not list(out.glob("*.png"))


def test_names_that_differ_only_by_case(tiny_weights, tmp_path, capsys, monkeypatch):
    draw(tmp_path / "in" / "Face.png", 0)
    draw(tmp_path / "in" / "face.png", 1)
    if len(os.listdir(tmp_path / "in")) == 1:
        pytest.skip("needs a file system that tells upper case from lower")
    with monkeypatch.context() as patch:  # such a file system needs rights to mount it
        patch.setattr(OutputFolder, "merges_case", lambda self: True)
        assert run(tiny_weights, tmp_path / "in", tmp_path / "merging") == 2
        error = capsys.readouterr().err
        assert error.count("\n") == 1
        assert "Face.png and face.png would have their results in the same place" in error
    assert run(tiny_weights, tmp_path / "in", tmp_path / "out") == 0
    assert sorted(finished(tmp_path / "out")) == ["Face", "face"]
    assert not OutputFolder(tmp_path / "out").merges_case()


def test_long_names(tiny_weights, tmp_path, capsys):
    draw(tmp_path / "in" / ("x" * 251 + ".png"))
    assert run(tiny_weights, tmp_path / "in", tmp_path / "out") == 0
    assert list(finished(tmp_path / "out")) == ["x" * 251]
    capsys.readouterr()
    deep = tmp_path / "/".join(["deep" * 50] * ((3990 - len(str(tmp_path))) // 201))
    assert run(tiny_weights, tmp_path / "in", deep) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "have no place in" in error
    assert "Choose an --out with a shorter path" in error


def test_damaged_names_are_one_line(tiny_weights, tmp_path, capsys):
    draw(tmp_path / "in" / "a.png")
    out = tmp_path / "out"
    out.mkdir()
    for content in ("{", "[1]"):
        (out / ".names.json").write_text(content)
        assert run(tiny_weights, tmp_path / "in", out) == 2
        error = capsys.readouterr().err
        assert error.count("\n") == 1
        assert ".names.json cannot be read" in error


def test_pairs():
    assert pair(["a.png", "b.jpg"], ["b.png", "a.pt"]) == {"a.png": "a.pt", "b.jpg": "b.png"}
    both = ["a.jpg", "a.png"]
    assert pair(both, both) == {"a.jpg": "a.jpg", "a.png": "a.png"}
    for theirs in (["a.jpg"], ["a.jpg", "a.pt"]):
        with pytest.raises(KeyError):
            pair(both, theirs)


def test_pairs_that_are_ambiguous_are_refused(tmp_path):
    for name in ("a.png", "a.jpg"):
        draw(tmp_path / "true" / name)
    draw(tmp_path / "mine" / "a.jpg")
    torch.save(torch.zeros(3, 4, 4), tmp_path / "mine" / "a.pt")
    data = ImageData(str(tmp_path / "true"), str(tmp_path / "mine"))
    with pytest.raises(ValueError, match=r"must be pairs of the same names: a\.png is not in .*mine"):
        data.samples(0, (3, 16, 16))


# Whatever files are called ------------------------------------------------------------------------------------------

parts = st.text(st.sampled_from("aA.~ é\N{COMBINING ACUTE ACCENT}\\\n\udcff-"), min_size=1, max_size=4)
paths = st.builds(
    lambda folders, stem, suffix: "/".join([*folders, stem + suffix]),
    st.lists(parts.filter(lambda part: part not in (".", "..")), max_size=2),
    st.one_of(parts, st.builds(str.__add__, parts, st.sampled_from(SUFFIXES))),
    st.sampled_from(SUFFIXES),
)  # fmt: skip
files = st.lists(paths, unique=True, max_size=8)


@settings(deadline=None, derandomize=True, max_examples=300)
@given(files)
def test_no_two_files_meet(files):
    names = names_of(files)
    assert list(names) == files
    assert len(set(names.values())) == len(files)


@settings(deadline=None, derandomize=True, max_examples=300)
@given(files, files)
def test_later_files_rename_nothing(files, later):
    before = names_of(files)
    known = {name: path for path, name in before.items()}
    after = names_of(dict.fromkeys([*later, *files]), known)
    assert {path: after[path] for path in files} == before
    assert len(set(after.values())) == len(after)
    again = names_of(after, {**known, **{name: path for path, name in after.items()}})
    assert again == after, "a process that starts later calls them the same"
    assert names_of(files[1:], known).items() <= before.items(), "nor do files that are taken away"


@settings(deadline=None, derandomize=True, max_examples=300)
@given(files)
def test_every_name_is_a_folder_below_images(files):
    for path, name in names_of(files).items():
        assert name.rpartition("/")[0] == path.rpartition("/")[0]
        last = name.rpartition("/")[2]
        assert last not in ("", ".", "..")
        assert last[-1] not in ". ", "which some file systems cut off"
        assert len(os.fsencode(last)) <= len(os.fsencode(path.rpartition("/")[2]))


@settings(deadline=None, derandomize=True)
@given(paths)
def test_one_place_whatever_the_case(path):
    assert same_place(path.upper()) == same_place(path.lower()) or "\udcff" in path


def test_names_in_latin_1_and_names_of_our_own_files(tiny_weights, tmp_path, capsys):
    """All pictures are done, with TensorBoard; the report shows them all, and links to the files as they are called."""
    pictures, out = tmp_path / "pictures", tmp_path / "out"
    pictures.mkdir()
    for name in (b"caf\xe9.png", b"metrics.json.png", b"error.txt.png", b"below/metrics.json.png"):
        place = os.path.join(os.fsencode(pictures), name)
        os.makedirs(os.path.dirname(place), exist_ok=True)
        with open(place, "wb") as file:
            Image.fromarray(np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)).save(file, "PNG")
    steps = ["--model.latent.steps", "3", "--model.joint.steps", "2", "--trainer.accelerator", "cpu", "--lpips", "none"]
    words = ["super-resolution", "--data.root", pictures, "--model.generator", tiny_weights, "--out", out, *steps]
    assert main([str(word) for word in words]) == 0
    names = ["below/metrics.json", "caf\udce9", "error.txt", "metrics.json"]
    assert all((out / "images" / name / "metrics.json").is_file() for name in names)
    runs = {path.parent.relative_to(out / "tensorboard").as_posix() for path in out.rglob("events*")}
    assert runs == {"below/metrics.json", r"caf\udce9", "error.txt", "metrics.json"}
    assert main(["report", str(out)]) == 0
    page = (out / "report.html").read_text(encoding="utf-8")
    assert "images/caf%E9/" in page
    data = json.loads(page.partition('id="data">')[2].partition("</script>")[0])
    assert sorted(image["name"] for image in data["images"]) == names
