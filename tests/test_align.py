"""Faces are found where they are, levelled and cut as the training faces are."""

import json
import sys

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from iagan_lightning.cli import main
from iagan_lightning.data.framing import align_face, find_face
from iagan_lightning.data.images import fit_image
from iagan_lightning.data.samples import EXAMPLES


def inside(face, angle, size=420, corner=(120, 180)):
    """Return a larger picture with a framed face in it, turned about the face's centre, and that centre."""
    x, y = corner
    picture = np.full((size, size, 3), 128, np.uint8)
    side = face.shape[0]
    picture[y : y + side, x : x + side] = face
    centre = (x + side / 2, y + side / 2)
    turn = cv2.getRotationMatrix2D(centre, angle, 1.0)
    return cv2.warpAffine(picture, turn, (size, size), borderValue=(128, 128, 128)), centre


def portraits():
    return [np.array(Image.open(path).convert("RGB")) for path in sorted(EXAMPLES.glob("*.png"))]


@pytest.mark.parametrize("angle", [-15, 0, 10])
@pytest.mark.parametrize("which", [0, 1])
def test_a_framed_face_is_found_again(which, angle):
    picture, centre = inside(portraits()[which], angle)
    found = find_face(picture)
    assert (found.x, found.y) == pytest.approx(centre, abs=0.06 * 128)
    assert found.side == pytest.approx(128, rel=0.12)
    assert found.angle == pytest.approx(-angle, abs=8)
    assert found.seen >= 3


def test_scale_and_place_do_not_matter():
    face = portraits()[0]
    large = cv2.resize(face, None, fx=2.5, fy=2.5, interpolation=cv2.INTER_CUBIC)
    picture, centre = inside(large, 0, size=900, corner=(30, 500))
    found = find_face(picture)
    assert (found.x, found.y) == pytest.approx(centre, abs=0.06 * 320)
    assert found.side == pytest.approx(320, rel=0.12)


def test_the_cut_shows_the_face():
    """Embedded, turned and cut again, a portrait is near itself; the picture it was put in is not."""
    face = portraits()[0]
    picture, _ = inside(face, 12)
    x = torch.from_numpy(picture).permute(2, 0, 1) / 127.5 - 1
    truth = fit_image(torch.from_numpy(face).permute(2, 0, 1) / 127.5 - 1, (32, 32))
    error = (fit_image(align_face(x), (32, 32)) - truth).abs().mean()
    assert error < 0.12
    assert error < 0.5 * (fit_image(x, (32, 32)) - truth).abs().mean()


def test_real_faces_keep_their_framing(shared):
    """Test faces put into grey pictures come back with little bias: the constants fit these data."""
    sides, heights = [], []
    for path in sorted((shared / "data" / "faces128-test").glob("*.png"))[:16]:
        picture, centre = inside(np.array(Image.open(path).convert("RGB")), 0)
        found = find_face(picture)
        sides.append(found.side / 128)
        heights.append((found.y - centre[1]) / 128)
    assert np.mean(sides) == pytest.approx(1, abs=0.06)
    assert np.mean(heights) == pytest.approx(0, abs=0.03)


def test_no_face():
    with pytest.raises(ValueError, match="no face was found"):
        find_face(np.full((80, 100, 3), 90, np.uint8))


SETTINGS = ["--lpips", "none", "--model.latent.steps", "2", "--model.joint.steps", "2", "--trainer.accelerator", "cpu"]


def test_command(tiny_weights, tmp_path, capsys):
    folder = tmp_path / "photos"
    folder.mkdir()
    Image.fromarray(inside(portraits()[0], 0)[0]).save(folder / "face.png")
    Image.fromarray(np.full((60, 60, 3), 90, np.uint8)).save(folder / "wall.png")
    common = ["super-resolution", "--model.generator", str(tiny_weights), "--data.align", "true", *SETTINGS]
    assert main([*common, "--data.root", str(folder), "--out", str(tmp_path / "out")]) == 1
    assert "wall: ValueError: no face was found" in capsys.readouterr().out
    with Image.open(tmp_path / "out" / "images" / "face" / "truth.png") as truth:
        face = Image.fromarray(portraits()[0]).resize((16, 16), Image.Resampling.BOX)
        assert np.abs(np.asarray(truth, float) - np.asarray(face, float)).mean() < 20
    assert json.loads((tmp_path / "out" / "settings.json").read_text())["data"]["align"] is True


def test_a_small_photo_of_ones_own_is_aligned_too(tmp_path):
    """Without a truth, the cut is the measurement: its size sets the operator."""
    small = np.array(Image.fromarray(portraits()[0]).resize((32, 32), Image.Resampling.BOX))
    picture = np.full((70, 80, 3), 128, np.uint8)
    picture[20:52, 25:57] = small
    Image.fromarray(picture).save(tmp_path / "small.png")
    common = ["super-resolution", "--data.measurements", str(tmp_path / "small.png"), "--data.align", "true", *SETTINGS]
    assert main([*common, "--out", str(tmp_path / "out")]) == 0
    with Image.open(tmp_path / "out" / "images" / "small" / "measurement.png") as y:
        assert y.width == y.height == pytest.approx(32, abs=5)


def test_without_opencv(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "cv2", None)
    assert main(["super-resolution", "--data.align", "true"]) == 2
    assert "pip install 'iagan-lightning[align]'" in capsys.readouterr().err


def test_pairs_cannot_be_aligned(tmp_path, capsys):
    both = ["--data.root", str(tmp_path), "--data.measurements", str(tmp_path)]
    assert main(["super-resolution", "--data.align", "true", *both]) == 2
    assert "data.align cannot cut pairs" in capsys.readouterr().err
