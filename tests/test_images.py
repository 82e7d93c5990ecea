import numpy as np
import pytest
import torch
from PIL import Image

from iagan_lightning.data.images import fit_image, picture_size, read_image, to_pillow

RGB = np.random.default_rng(0).integers(0, 256, (6, 8, 3), dtype=np.uint8)
EXPECTED = torch.from_numpy(RGB).permute(2, 0, 1).float() / 127.5 - 1


@pytest.mark.parametrize("suffix", ["png", "bmp", "tiff", "ppm", "webp", "gif"])
def test_lossless_formats(tmp_path, suffix):
    path = tmp_path / f"picture.{suffix}"
    few = RGB // 128 * 255  # few colours, so that a palette loses nothing
    Image.fromarray(few).save(path, **({"lossless": True} if suffix == "webp" else {}))
    assert torch.allclose(read_image(path), torch.from_numpy(few).permute(2, 0, 1).float() / 127.5 - 1, atol=1e-6)


def test_eight_bit_colour_grey_and_back(tmp_path):
    Image.fromarray(RGB).save(tmp_path / "rgb.png")
    x = read_image(tmp_path / "rgb.png")
    assert torch.allclose(x, EXPECTED, atol=1e-6)
    assert (np.asarray(to_pillow(x)) == RGB).all()
    Image.fromarray(RGB[..., 0]).save(tmp_path / "grey.png")
    assert torch.allclose(read_image(tmp_path / "grey.png"), EXPECTED[:1].expand(3, -1, -1), atol=1e-6)
    assert torch.allclose(read_image(tmp_path / "grey.png", channels=1), EXPECTED[:1], atol=1e-6)
    assert (np.asarray(to_pillow(read_image(tmp_path / "grey.png", channels=1))) == RGB[..., 0]).all()


def test_sixteen_bit(tmp_path):
    values = np.array([[0, 1, 32768, 65535]], dtype=np.uint16)
    for suffix in ("png", "tiff"):
        Image.fromarray(values).save(tmp_path / f"deep.{suffix}")
        expected = torch.from_numpy(values.astype(np.float32)) / 65535 * 2 - 1
        assert torch.allclose(read_image(tmp_path / f"deep.{suffix}"), expected.expand(3, 1, 4), atol=1e-6)


def test_palette_with_and_without_transparency(tmp_path):
    picture = Image.new("P", (2, 1))
    picture.putpalette([255, 0, 0, 0, 0, 255])
    picture.putpixel((1, 0), 1)
    picture.save(tmp_path / "palette.png")
    assert read_image(tmp_path / "palette.png")[:, 0].T.tolist() == [[1, -1, -1], [-1, -1, 1]]
    picture.save(tmp_path / "transparent.png", transparency=1)
    assert read_image(tmp_path / "transparent.png")[:, 0].T.tolist() == [[1, -1, -1], [1, 1, 1]]


def test_alpha_becomes_white(tmp_path):
    Image.fromarray(np.array([[[10, 20, 30, 0], [10, 20, 30, 255]]], dtype=np.uint8)).save(tmp_path / "alpha.png")
    x = (read_image(tmp_path / "alpha.png") + 1) * 127.5
    assert x[:, 0].T.round().tolist() == [[255, 255, 255], [10, 20, 30]]


def test_exif_orientation(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # stored lying on its side
    Image.fromarray(np.rot90(RGB).copy()).save(tmp_path / "turned.png", exif=exif)
    assert torch.allclose(read_image(tmp_path / "turned.png"), EXPECTED, atol=1e-6)
    assert picture_size(tmp_path / "turned.png") == (6, 8)


def test_halving_is_the_mean_of_two_by_two():
    x = torch.rand(3, 8, 8)
    blocks = x.reshape(3, 4, 2, 4, 2).mean((2, 4))
    assert torch.allclose(fit_image(x, (4, 4)), blocks, atol=1e-6)


def test_crop_takes_the_centre():
    x = torch.arange(10.0).expand(1, 4, 10) / 10
    assert torch.allclose(fit_image(x, (4, 4)), x[:, :, 3:7])
    assert fit_image(torch.rand(3, 13, 7), (5, 5)).shape == (3, 5, 5)
    assert fit_image(torch.rand(3, 200, 133), (64, 64)).shape == (3, 64, 64)


def test_resize_and_pad():
    x = torch.rand(3, 3, 6)
    assert fit_image(x, (8, 8), "resize").shape == (3, 8, 8)
    padded = fit_image(x, (8, 8), "pad")
    assert torch.equal(padded[:, 2:5, 1:7], x)
    assert padded.count_nonzero() == x.numel()
    assert fit_image(torch.rand(3, 40, 20), (8, 8), "pad")[:, :, 2:6].abs().min() > 0


def test_too_small_for_a_crop():
    with pytest.raises(ValueError, match=r"8 x 6 pixels is smaller than the generator's 7 x 7.*--data\.fit resize"):
        fit_image(torch.zeros(3, 6, 8), (7, 7))
    with pytest.raises(ValueError, match="fit is one of crop, resize, pad"):
        fit_image(torch.zeros(3, 6, 8), (7, 7), "stretch")
