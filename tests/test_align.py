"""Faces are found where they are, levelled and cut as the generator's training faces are."""

import csv
import json
import math
import pickle
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from iagan_lightning.cli import main
from iagan_lightning.data import faces
from iagan_lightning.data.faces import Face, find_faces
from iagan_lightning.data.framing import Frame, align_face, cut, cut_face, frame_of, largest_face
from iagan_lightning.data.images import fit_image, read_image
from iagan_lightning.data.samples import EXAMPLES

facenet_pytorch = pytest.importorskip("facenet_pytorch", reason="needs facenet-pytorch: pip install '.[align]'")


def portrait(which=0):
    return Image.open(sorted(EXAMPLES.glob("*.png"))[which]).convert("RGB")


def inside(face, angle=0.0, size=420, corner=(120, 180)):
    """Return a larger picture with a framed face in it, turned to the left about its centre, and that centre."""
    picture = Image.new("RGB", (size, size), (128, 128, 128))
    picture.paste(face, corner)
    x, y = (place + length / 2 for place, length in zip(corner, face.size, strict=True))
    turned = picture.rotate(angle, Image.Resampling.BICUBIC, center=(x, y), fillcolor=(128, 128, 128))
    return turned, (x - 0.5, y - 0.5)


def tensor(picture):
    return torch.from_numpy(np.array(picture)).permute(2, 0, 1) / 127.5 - 1


def framed(picture, framing="tight"):
    return frame_of(largest_face(tensor(picture))[0], framing)


# Finding -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("which", "angle"), [(0, -25), (1, 0), (1, 10)])
def test_a_framed_face_is_found_again(which, angle):
    picture, centre = inside(portrait(which), angle)
    found = framed(picture)
    assert (found.x, found.y) == pytest.approx(centre, abs=0.05 * 128)
    assert found.side == pytest.approx(128, rel=0.1)  # one training face in three is 4.6 % off
    assert found.angle == pytest.approx(-angle, abs=5)


def test_scale_and_place_do_not_matter():
    small, centre = inside(portrait())
    large, elsewhere = inside(portrait().resize((320, 320), Image.Resampling.BICUBIC), 0, 900, (30, 500))
    one, other = framed(small), framed(large)
    assert other.side == pytest.approx(2.5 * one.side, rel=0.03)
    assert other.x - elsewhere[0] == pytest.approx(2.5 * (one.x - centre[0]), abs=8)
    assert other.y - elsewhere[1] == pytest.approx(2.5 * (one.y - centre[1]), abs=8)


def test_the_largest_of_several():
    picture, _ = inside(portrait(0))
    picture.paste(portrait(1).resize((80, 80)), (10, 20))
    x = tensor(picture)
    found = find_faces(x)
    assert [face.size > found[-1].size for face in found] == [True, False]
    assert framed(picture).y > 180
    assert cut_face(x)[1].faces == 2


def test_a_frame_beyond_the_picture_is_told_of():
    """A quarter of the picture cut away on the left: as much of the frame as the cut took lies outside."""
    picture, _ = inside(portrait())
    whole = framed(picture)
    assert cut_face(tensor(picture))[1].outside == 0
    away = round(whole.x - 0.3 * whole.side)
    cropped = tensor(picture.crop((away, 0, picture.width, picture.height)))
    assert cut_face(cropped)[1].outside == pytest.approx(0.2, abs=0.04)


def test_no_face():
    clouds = np.random.default_rng(1).standard_normal((60, 60)).cumsum(0).cumsum(1)
    clouds = (255 * (clouds - clouds.min()) / np.ptp(clouds)).astype(np.uint8)
    for picture in (torch.zeros(3, 80, 100), torch.zeros(1, 1, 1), torch.zeros(3, 2, 900), tensor(clouds[..., None])):
        with pytest.raises(ValueError, match="no face was found"):
            align_face(picture)


def test_the_same_each_time_and_no_random_number_is_drawn():
    x = tensor(inside(portrait())[0])
    faces._detector.cache_clear()
    before = torch.get_rng_state()
    first = find_faces(x)
    assert torch.equal(torch.get_rng_state(), before)
    assert find_faces(x) == first


def test_a_grey_picture_is_as_good():
    grey = inside(portrait())[0].convert("L")
    assert find_faces(tensor(grey.convert("RGB"))) == find_faces(tensor(np.array(grey)[..., None]))


# Framing -----------------------------------------------------------------------------------------------------------

LEVEL = Face(((40.0, 50.0), (60.0, 50.0)), ((42.0, 70.0), (58.0, 70.0)), 50.0, 1.0)


@pytest.mark.parametrize(
    ("mouth", "side"),
    [(70.0, 80.0), (80.0, 108.0)],  # four distances of the eyes, 20; 3.6 times from there to the mouth, 30
)
def test_the_frame_of_ffhq(mouth, side):
    """By the words of its authors: the larger of both lengths, a tenth of the way down, the eyes at .46 or .47."""
    face = LEVEL._replace(mouth=((42.0, mouth), (58.0, mouth)))
    frame = frame_of(face, "ffhq")
    assert frame == pytest.approx((50, 50 + 0.1 * (mouth - 50), side, 0))
    assert 0.5 + (50 - frame.y) / side == pytest.approx(0.47, abs=0.01)


@pytest.mark.parametrize("framing", ["tight", "ffhq"])
def test_a_frame_moves_turns_and_grows_with_its_face(framing):
    turn, scale, shift = 0.3, 1.7, complex(12, -5)
    move = scale * complex(math.cos(turn), math.sin(turn))

    def moved(point):
        z = complex(*point) * move + shift
        return z.real, z.imag

    before = frame_of(LEVEL, framing)
    face = LEVEL._replace(eyes=tuple(map(moved, LEVEL.eyes)), mouth=tuple(map(moved, LEVEL.mouth)))
    after = frame_of(face, framing)
    assert after == pytest.approx((*moved((before.x, before.y)), scale * before.side, math.degrees(turn)))


def test_a_cut_is_exact_where_no_pixel_is_interpolated():
    x = torch.rand(3, 9, 12) * 2 - 1
    assert torch.allclose(cut(x, Frame(5.5, 4.5, 4, 0)), x[:, 3:7, 4:8], atol=1e-5)
    assert torch.allclose(cut(x, Frame(5.5, 4.5, 4, 90)), x[:, 3:7, 4:8].rot90(1, (1, 2)), atol=1e-5)
    outside = cut(x, Frame(-20, 4, 3, 0))
    assert torch.allclose(outside, x[:, 3:6, :1].expand(3, 3, 3), atol=1e-5)  # the border repeated


@pytest.mark.parametrize("framing", ["tight", "ffhq"])
def test_a_cut_needs_no_other(framing):
    """Of what was turned and is cut out, the frame is all of it, level."""
    x = align_face(tensor(inside(portrait(1), 12)[0]), framing)
    n = x.shape[-1]
    frame = frame_of(largest_face(x)[0], framing)
    assert (frame.x, frame.y) == pytest.approx(((n - 1) / 2, (n - 1) / 2), abs=0.03 * n)
    assert frame.side == pytest.approx(n, rel=0.05)
    assert abs(frame.angle) < 3


def test_training_faces_keep_their_framing(shared):
    """Faces framed as those of the bundled priors come back as they are, but for little: the constants fit them."""
    frames = []
    for path in sorted((shared / "data" / "faces128-test").glob("*.png"))[:12]:
        frames.append(frame_of(largest_face(read_image(path))[0], "tight"))
    x, y, side, angle = np.mean(frames, axis=0)
    assert (x, y) == pytest.approx((63.5, 63.5), abs=0.02 * 128)
    assert side == pytest.approx(128, rel=0.03)
    assert abs(angle) < 1.5


def test_photographs_in_the_framing_of_ffhq(shared):
    """Eyes, mouths and frames as they were marked by hand; in the first of them a tie had passed for the face."""
    folder = shared / "data" / "photos"
    with (folder / "index.csv").open(encoding="utf-8") as file:
        marked = {row["name"]: row for row in csv.DictReader(file)}
    for name in ("james_pavur", "kamala_harris"):
        about = marked[name]
        face, faces = largest_face(read_image(folder / about["photo"]))
        assert faces == 1
        eyes = [tuple(map(float, about[key].split())) for key in ("eye_left", "eye_right")]
        mouth = tuple(map(float, about["mouth"].split()))
        for found, known in zip((*face.eyes, np.mean(face.mouth, axis=0)), (*eyes, mouth), strict=True):
            assert math.dist(found, known) < 0.08 * math.dist(*eyes)
        frame, side = frame_of(face, "ffhq"), float(about["crop_side"])
        middle = [float(about[key]) + (side - 1) / 2 for key in ("crop_left", "crop_top")]
        assert math.dist((frame.x, frame.y), middle) < 0.02 * side
        assert frame.side == pytest.approx(side, rel=0.05)
        across, down = np.subtract(eyes[1], eyes[0])
        assert frame.angle == pytest.approx(math.degrees(math.atan2(down, across)), abs=2)


# In a run ----------------------------------------------------------------------------------------------------------

SETTINGS = ["--lpips", "none", "--model.latent.steps", "2", "--model.joint.steps", "2", "--trainer.accelerator", "cpu"]


def test_command(tiny_weights, tmp_path, capsys):
    folder = tmp_path / "photos"
    folder.mkdir()
    picture, _ = inside(portrait())
    picture.save(folder / "face.png")
    Image.new("RGB", (60, 60), (90, 90, 90)).save(folder / "wall.png")
    lying = Image.Exif()
    lying[274] = 6  # orientation: to be turned to the right by a quarter
    picture.paste(portrait(1).resize((80, 80)), (10, 20))
    picture.transpose(Image.Transpose.ROTATE_90).save(folder / "two.png", exif=lying)
    align = ["--data.align", "true", "--data.root", str(folder), "--out", str(tmp_path / "out"), *SETTINGS]
    generator = ["--model.generator.weights", str(tiny_weights)]
    assert main(["super-resolution", *generator, "--model.generator.framing", "ffhq", *align]) == 1
    said = capsys.readouterr()
    assert "wall: ValueError: no face was found" in said.out
    assert "1 of 2 pictures show several faces, of which the largest was cut out (two)" in said.out
    assert "does not say how its faces are framed" not in said.err
    expected = fit_image(align_face(read_image(folder / "face.png"), "ffhq"), (16, 16))
    for name in ("face", "two"):
        truth = read_image(tmp_path / "out" / "images" / name / "truth.png")
        assert (truth - expected).abs().mean() < (0.01 if name == "face" else 0.1)
    assert json.loads((tmp_path / "out" / "settings.json").read_text())["data"]["align"] == "ffhq"
    record = json.loads((tmp_path / "out" / "images" / "two" / "metrics.json").read_text())
    assert record["faces"] == 2
    assert record["face_score"] > 0.95
    assert record["face_outside"] == 0
    assert "at their border" not in said.out

    # Weights that say nothing of it: tightly, which is said; and not in the folder of the other framing.
    assert main(["super-resolution", "--model.generator", str(tiny_weights), *align]) == 2
    said = capsys.readouterr().err
    assert "the generator does not say how its faces are framed" in said
    assert "'ffhq'" in said
    assert "'tight'" in said


def test_a_small_photo_of_ones_own_is_aligned_too(tmp_path, capsys):
    """Without a truth, the cut is the measurement: its size sets the operator."""
    picture = Image.new("RGB", (80, 70), (128, 128, 128))
    picture.paste(portrait().resize((32, 32), Image.Resampling.BOX), (25, 20))
    picture.save(tmp_path / "small.png")
    common = ["super-resolution", "--data.measurements", str(tmp_path / "small.png"), "--data.align", "true", *SETTINGS]
    assert main([*common, "--out", str(tmp_path / "out")]) == 0
    with Image.open(tmp_path / "out" / "images" / "small" / "measurement.png") as y:
        assert y.width == y.height == pytest.approx(32, abs=5)
    assert "at their border" not in capsys.readouterr().out
    picture.crop((30, 0, 80, 70)).save(tmp_path / "small.png")
    assert main([*common, "--out", str(tmp_path / "other")]) == 0
    said = capsys.readouterr().out
    assert "1 of 1 pictures show a face at their border, so that its frame shows more than they do" in said


def test_pairs_cannot_be_aligned(tmp_path, capsys):
    both = ["--data.root", str(tmp_path), "--data.measurements", str(tmp_path)]
    assert main(["super-resolution", "--data.align", "true", *both]) == 2
    assert "data.align cannot cut pairs" in capsys.readouterr().err


# The detector ------------------------------------------------------------------------------------------------------


@pytest.fixture
def anew():
    """The detector is looked for again, in the test and after it."""
    faces._detector.cache_clear()
    yield
    faces._detector.cache_clear()


def test_without_the_detector(monkeypatch, capsys, anew):
    monkeypatch.setitem(sys.modules, "facenet_pytorch", None)
    assert main(["super-resolution", "--data.align", "true"]) == 2
    said = capsys.readouterr().err
    assert "data.align needs facenet-pytorch: pip install 'iagan-lightning[align]'" in said
    assert said.count("\n") == 1


class Writes:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (self.path, "w")


def test_weights_of_the_detector_execute_nothing(monkeypatch, tmp_path, capsys, anew):
    shutil.copytree(Path(facenet_pytorch.__file__).parent / "data", tmp_path / "data")
    (tmp_path / "data" / "rnet.pt").write_bytes(pickle.dumps(Writes(str(tmp_path / "executed")), protocol=2))
    monkeypatch.setattr(facenet_pytorch, "__file__", str(tmp_path / "__init__.py"))
    assert main(["super-resolution", "--data.align", "true"]) == 2
    assert "rnet.pt is damaged: install facenet-pytorch anew" in capsys.readouterr().err
    assert not (tmp_path / "executed").exists()
