import io
import struct
import subprocess
import zlib

import numpy as np
import PIL
import pytest
import torch
from PIL import Image, ImageCms

from iagan_lightning.data.images import fit_image, picture_size, read_image, to_pillow
from iagan_lightning.operators import Blur, FourierSensing, Inpainting
from iagan_lightning.operators.files import read_kernel, read_picture
from iagan_lightning.safety import _eight_bits, picture_formats, picture_suffixes

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


# Every type of pixel ------------------------------------------------------------------------------------------------

DEEP = {
    "u1": (1, 8),
    "u2": (1, 16),
    "i2": (2, 16),
    "u4": (1, 32),
    "i4": (2, 32),
    "f4": (3, 32),
}  # TIFF's words for them


def tiff(path, values, kind, black_is_zero=True, bits=None, order="<"):
    """Write a grey TIFF by hand: Pillow writes few of those that it reads."""
    values = np.asarray(values, dtype=np.float64)
    height, width = values.shape
    sample, depth = DEEP[kind]
    if bits == 12:
        a, b = values.reshape(-1, 2).astype(int).T
        data = np.stack([a >> 4, (a & 15) << 4 | b >> 8, b & 255], 1).astype(np.uint8).tobytes()
    else:
        data = values.astype(order + kind).tobytes()
    tags = {
        256: width, 257: height, 258: bits or depth, 259: 1, 262: int(black_is_zero), 273: 8, 277: 1, 278: height,
        279: len(data), 339: sample,
    }  # fmt: skip
    entries = b"".join(struct.pack(f"{order}HHI", tag, 4, 1) + struct.pack(f"{order}I", n) for tag, n in tags.items())
    head = (b"II" if order == "<" else b"MM") + struct.pack(f"{order}HI", 42, 8 + len(data))
    path.write_bytes(head + data + struct.pack(f"{order}H", len(tags)) + entries + bytes(4))
    return path


@pytest.mark.parametrize(
    ("kind", "stored", "grey"),
    [
        ("u1", [[0, 51, 255]], [[0, 0.2, 1]]),
        ("u2", [[0, 13107, 65535]], [[0, 0.2, 1]]),
        ("u2", [[3, 13107, 655]], [[3 / 65535, 0.2, 655 / 65535]]),  # a dark picture is no stretched one
        ("f4", [[0, 0.2, 1]], [[0, 0.2, 1]]),
        ("f4", [[0, 0.2, 0.4]], [[0, 0.2, 0.4]]),
    ],
)
@pytest.mark.parametrize("black_is_zero", [True, False])
def test_grey_of_any_depth(tmp_path, kind, stored, grey, black_is_zero):
    path = tiff(tmp_path / "grey.tif", stored, kind, black_is_zero)
    expected = torch.tensor(grey) if black_is_zero else 1 - torch.tensor(grey)
    assert torch.allclose(read_image(path, 1)[0], expected * 2 - 1, atol=1e-6)
    assert torch.allclose(read_image(path), (expected * 2 - 1).expand(3, 1, 3), atol=1e-6)
    assert torch.allclose(read_picture(path), expected.double(), atol=1e-7)


def test_twelve_bits_are_no_sixteen(tmp_path):
    path = tiff(tmp_path / "grey.tif", [[0, 819, 4095, 2048]], "u2", bits=12)
    assert torch.allclose(read_picture(path)[0], torch.tensor([0, 0.2, 1, 2048 / 4095], dtype=torch.double), atol=1e-7)


@pytest.mark.parametrize(
    ("kind", "stored", "reason"),
    [
        ("f4", [[0, 60, 120]], "floats from 0 to 120, and floats are taken as 0 black, 1 white"),
        ("f4", [[-1, 0, 1]], "floats from -1 to 1, and"),
        ("f4", [[0, np.nan, 1]], "NaN or infinite"),
        ("f4", [[0, np.inf, 1]], "NaN or infinite"),
        ("i4", [[0, 128, 255]], "integers from 0 to 255 of a type whose white is not known: save it with 8 bits"),
        ("u4", [[0, 1, 2]], "integers from 0 to 2"),
        ("i2", [[-5, 0, 300]], "integers from -5 to 300"),
    ],
)
def test_a_range_that_is_not_known_is_refused(tmp_path, kind, stored, reason):
    path = tiff(tmp_path / "grey.tif", stored, kind)
    with pytest.raises(ValueError, match=reason):
        read_image(path)
    with pytest.raises(ValueError, match=f"grey.tif cannot be read.*{reason}"):
        Inpainting((3, 1, 3), mask=str(path))


def test_a_float_may_go_as_far_beyond_as_rounding(tmp_path):
    x = read_image(tiff(tmp_path / "grey.tif", [[-1e-7, 0.5, 1.0000002]], "f4"))
    assert x[0].tolist() == [[-1, 0, 1]]


@pytest.mark.parametrize(
    "mode", ["1", "L", "P", "RGB", "RGBA", "LA", "PA", "La", "RGBa", "CMYK", "YCbCr", "LAB", "HSV"]
)
@pytest.mark.parametrize("channels", [1, 3])
def test_every_mode_of_eight_bits(tmp_path, mode, channels):
    """Black, mid-grey and white survive in every way of storing colours that a TIFF or PNG has."""
    grey = Image.fromarray(np.array([[0, 128, 255]] * 2, dtype=np.uint8))
    if mode == "1":
        grey = grey.point([0] * 129 + [255] * 127)
    path = tmp_path / ("grey.png" if mode in ("1", "P") else "grey.tif")
    if mode in ("La", "RGBa", "PA", "HSV"):  # not to be written as they are: as if read
        steps = {"La": ("LA",), "RGBa": ("RGBA",), "PA": ("P",), "HSV": ("RGB",)}[mode]
        picture = grey.convert(steps[0]).convert(mode)
        values = torch.from_numpy(np.asarray(_eight_bits(picture, channels, "picture")).astype(float))
        assert values.shape == ((2, 3, 3) if channels == 3 else (2, 3))
        assert torch.allclose(values.reshape(2, 3, -1)[0, :, 0], torch.tensor([0, 128, 255.0]).double(), atol=1)
        return
    if mode == "LAB":
        to_lab = ImageCms.buildTransform(ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), "RGB", "LAB")
        to_lab.apply(grey.convert("RGB")).save(path)
    else:
        grey.convert(mode).save(path)
    if mode == "YCbCr" and int(PIL.__version__.split(".")[0]) < 13:  # which takes it for four bytes a pixel
        with pytest.raises(OSError, match="truncated"):
            read_image(path, channels)
        return
    x = read_image(path, channels)
    assert x.shape == (channels, 2, 3)
    expected = torch.tensor([0, 0, 1.0] if mode == "1" else [0, 128 / 255, 1]) * 2 - 1
    assert torch.allclose(x, expected.expand(channels, 2, 3), atol=2.5 / 127.5)


def test_sixteen_bits_with_transparency(tmp_path):
    values = np.array([[0, 1000, 1001, 65535]], dtype=np.uint16)
    Image.fromarray(values).save(tmp_path / "grey.png", transparency=1000)
    for channels in (1, 3):
        assert read_image(tmp_path / "grey.png", channels)[0, 0].tolist() == pytest.approx(
            [-1, 1, -0.96945, 1], abs=1e-5
        )
    assert read_picture(tmp_path / "grey.png")[0].tolist() == pytest.approx([0, 0, 1001 / 65535, 1])


def png(path, depth, colour, rows, transparent):
    """Write a PNG by hand, of depths that Pillow does not write."""

    def chunk(name, data):
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    width = {(4, 0): 2, (2, 0): 4, (16, 2): 2}[depth, colour]
    head = struct.pack(">IIBBBBB", width, 1, depth, colour, 0, 0, 0)
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"tRNS", transparent)
        + chunk(b"IDAT", zlib.compress(b"\0" + rows)) + chunk(b"IEND", b"")
    )  # fmt: skip
    return path


@pytest.mark.parametrize(
    ("depth", "colour", "rows", "transparent", "expected"),
    [
        (4, 0, bytes([0x05]), b"\0\x05", [0, 1]),
        (2, 0, bytes([0b00_01_10_11]), b"\0\x01", [0, 1, 170 / 255, 1]),
        (16, 2, struct.pack(">6H", 0, 0, 0, 1000, 2000, 3000), struct.pack(">3H", 1000, 2000, 3000), [0, 1]),
    ],
)
def test_the_transparent_colour_is_said_in_the_depth_of_the_file(tmp_path, depth, colour, rows, transparent, expected):
    x = (read_image(png(tmp_path / "few.png", depth, colour, rows, transparent)) + 1) / 2
    assert torch.allclose(x[:, 0], torch.tensor(expected, dtype=torch.float).expand(3, -1), atol=1e-6)


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
@pytest.mark.parametrize("suffix", ["png", "jpg", "tif", "webp"])
def test_sizes_are_those_of_what_is_read(tmp_path, suffix, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / f"turned.{suffix}"
    Image.fromarray(RGB).save(path, exif=exif)
    size = picture_size(path)
    assert size == ((6, 8) if orientation in (1, 3) else (8, 6))
    assert read_image(path).shape[1:] == size
    assert read_picture(path).shape == size


# Colour profiles ----------------------------------------------------------------------------------------------------

SRGB = np.array(
    [[0.4360747, 0.3850649, 0.1430804], [0.2225045, 0.7168786, 0.0606169], [0.0139322, 0.0971045, 0.7141733]]
)
WIDE = np.array(
    [[0.5151187, 0.2919778, 0.1571035], [0.2411892, 0.6922441, 0.0665668], [-0.0010505, 0.0418791, 0.7840713]]
)


def profile(space, gamma, matrix=None):
    """Make an ICC profile of version 2: primaries in the D50 connection space, and a power for a curve."""

    def xyz(values):
        return b"XYZ \0\0\0\0" + b"".join(struct.pack(">i", round(65536 * value)) for value in values)

    curve = b"curv\0\0\0\0" + struct.pack(">IHH", 1, round(256 * gamma), 0)
    tags = {
        b"wtpt": xyz((0.9642, 1.0, 0.8249)),
        b"desc": b"desc" + bytes(4) + struct.pack(">I", 2) + b"x\0" + bytes(78),
    }
    if space == b"GRAY":
        tags[b"kTRC"] = curve
    else:
        tags |= {name + b"XYZ": xyz(column) for name, column in zip((b"r", b"g", b"b"), matrix.T, strict=True)}
        tags |= {name + b"TRC": curve for name in (b"r", b"g", b"b")}
    table, data, offset = b"", b"", 128 + 4 + 12 * len(tags)
    for name, content in tags.items():
        content += bytes(-len(content) % 4)
        table += name + struct.pack(">II", offset + len(data), len(content))
        data += content
    header = struct.pack(">I4sI4s4s4s", offset + len(data), bytes(4), 0x02100000, b"mntr", space, b"XYZ ")
    header += bytes(12) + b"acsp" + bytes(28) + struct.pack(">3i", 63190, 65536, 54061)
    return header.ljust(128, b"\0") + struct.pack(">I", len(tags)) + table + data


def encoded(linear):
    return np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * np.maximum(linear, 0.0031308) ** (1 / 2.4) - 0.055)


@pytest.mark.parametrize("suffix", ["png", "tif", "webp"])
@pytest.mark.parametrize("opaque", [True, False])
def test_colours_come_out_as_srgb(tmp_path, suffix, opaque):
    """Against the definition: linear light, to XYZ by the profile's primaries, from there to sRGB."""
    pixels = np.random.default_rng(0).integers(90, 170, (6, 8, 3), dtype=np.uint8)  # within sRGB's gamut
    expected = encoded((pixels / 255.0) ** 2.2 @ (np.linalg.inv(SRGB) @ WIDE).T)
    assert np.abs(expected * 255 - pixels).max() > 8, "a profile that does something"
    picture = Image.fromarray(pixels if opaque else np.dstack([pixels, np.full((6, 8), 255, np.uint8)]))
    options = {"lossless": True} if suffix == "webp" else {}
    picture.save(tmp_path / f"wide.{suffix}", icc_profile=profile(b"RGB ", 2.2, WIDE), **options)
    x = (read_image(tmp_path / f"wide.{suffix}") + 1) / 2
    assert np.abs(x.permute(1, 2, 0).numpy() - expected).max() < 2 / 255
    mask = read_picture(tmp_path / f"wide.{suffix}")  # numbers, no colours
    assert torch.equal(mask, torch.from_numpy(np.asarray(Image.fromarray(pixels).convert("L")) / 255.0))


def test_grey_profiles_of_both_depths(tmp_path):
    grey = np.linspace(0.1, 1, 8)[None]
    for kind, white in ((np.uint8, 255), (np.uint16, 65535)):
        stored = (grey * white).round().astype(kind)
        Image.fromarray(stored).save(tmp_path / "grey.tif", icc_profile=profile(b"GRAY", 1.8))
        x = (read_image(tmp_path / "grey.tif") + 1) / 2
        assert np.abs(x[0].numpy() - encoded((stored / white) ** 1.8)).max() < 1.5 / 255
        assert torch.equal(x[:1], (read_image(tmp_path / "grey.tif", 1) + 1) / 2)
        assert np.allclose(read_picture(tmp_path / "grey.tif"), stored / white)


def test_a_profile_of_srgb_changes_nothing(tmp_path):
    own = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    for content in (own, None):
        Image.fromarray(RGB).save(tmp_path / "own.png", icc_profile=content)
        assert torch.equal(read_image(tmp_path / "own.png"), torch.from_numpy(RGB).permute(2, 0, 1) / 255.0 * 2 - 1)


@pytest.mark.parametrize(
    ("content", "reason"), [(b"nothing", "profile is damaged"), (profile(b"GRAY", 1.8), "is for GRAY pictures")]
)
def test_a_profile_that_cannot_be_applied_is_refused(tmp_path, content, reason):
    Image.fromarray(RGB).save(tmp_path / "own.png", icc_profile=content)
    with pytest.raises(ValueError, match=f"{reason}.*remove the profile"):
        read_image(tmp_path / "own.png")


# Masks and kernels --------------------------------------------------------------------------------------------------

ROW = np.array([[0.05, 0.2, 0.5, 0.2, 0.05]])


@pytest.mark.parametrize(
    ("kind", "stored"),
    [("u1", ROW * 200), ("u2", ROW * 60000), ("f4", ROW), ("f4", ROW * 120), ("i4", ROW * 1000), ("i2", ROW * 20)],
)
def test_kernels_of_any_depth_and_scale(tmp_path, kind, stored):
    path = tiff(tmp_path / "kernel.tif", stored, kind)
    for given in (path, str(path)):
        weights = Blur((1, 8, 8), kernel=given).get_buffer("weights")
        assert np.allclose(weights, ROW, atol=1e-7)


def test_a_sixteen_bit_kernel_as_png(tmp_path):
    Image.fromarray((ROW * 60000).round().astype(np.uint16)).save(tmp_path / "kernel.PNG")
    assert np.allclose(read_kernel(tmp_path / "kernel.PNG"), ROW)
    np.save(tmp_path / "kernel.npy", 2 * ROW)
    assert read_kernel(tmp_path / "kernel.npy").sum() == pytest.approx(2), "an array is taken as it is"


@pytest.mark.parametrize(("kind", "value"), [("u1", 0), ("u2", 0), ("f4", 0), ("f4", -1), ("f4", np.nan), ("i4", -1)])
def test_kernels_without_weight_are_refused(tmp_path, kind, value):
    path = tiff(tmp_path / "kernel.tif", [[value] * 3] * 3, kind)
    with pytest.raises(ValueError, match=r"kernel\.tif"):
        Blur((1, 8, 8), kernel=path)


@pytest.mark.parametrize("kind", [Inpainting, FourierSensing])
def test_masks_of_any_depth(tmp_path, kind):
    known = np.random.default_rng(0).random((6, 8)) > 0.5
    kinds = {"u1": 255, "u2": 65535, "f4": 1}
    for depth, white in kinds.items():
        A = kind((3, 6, 8), mask=str(tiff(tmp_path / "mask.tif", known * white, depth)))
        assert (A.mask.numpy().reshape(6, 8) == known).all()
    Image.fromarray((known * 65535).astype(np.uint16)).save(tmp_path / "mask.png")
    assert (kind((3, 6, 8), mask=tmp_path / "mask.png").mask.numpy().reshape(6, 8) == known).all()


def test_holes_of_a_mask_are_not_measured(tmp_path):
    known = np.random.default_rng(0).random((6, 8)) > 0.5
    opacity = (known * 255).astype(np.uint8)
    white = np.full((6, 8), 255, np.uint8)
    Image.fromarray(np.dstack([white, opacity])).save(tmp_path / "mask.png")
    assert (Inpainting((3, 6, 8), mask=tmp_path / "mask.png").mask[0].numpy() == known).all()
    palette = Image.fromarray(known.astype(np.uint8), mode=None).convert("P")
    palette.putpalette([255] * 768)
    palette.save(tmp_path / "palette.png", transparency=0)
    assert (Inpainting((3, 6, 8), mask=tmp_path / "palette.png").mask[0].numpy() == known).all()


# Every ending -------------------------------------------------------------------------------------------------------

REGISTERED = Image.registered_extensions()
WRITTEN = sorted(suffix for suffix, name in REGISTERED.items() if name in Image.SAVE)


@pytest.mark.filterwarnings("ignore:.*image format is deprecated:DeprecationWarning")  # read as long as Pillow does
@pytest.mark.parametrize("suffix", WRITTEN)
def test_every_ending_that_pillow_writes(tmp_path, suffix):
    """A white picture with a black corner is read as that, or its ending is none of a picture's."""
    path = tmp_path / f"corner{suffix}"
    corner = np.full((64, 64), 255, np.uint8)
    corner[:32, :32] = 0
    grey = Image.fromarray(corner)
    for mode in ("RGB", "P", "L", "1", "F"):
        try:
            (grey.convert(mode).point(lambda v: v / 255) if mode == "F" else grey.convert(mode)).save(path)
            break
        except (OSError, ValueError, KeyError):
            continue
    else:
        pytest.skip(f"Pillow cannot write {suffix} here")
    if suffix not in picture_suffixes():
        assert REGISTERED[suffix] in ("EPS", "PDF", "PALM", "WMF", "BUFR", "GRIB", "HDF5"), "what is no picture to read"
        return
    x = fit_image(read_image(path), (64, 64), "resize")
    expected = torch.from_numpy(corner / 127.5 - 1).expand(3, 64, 64)
    inside = (expected[:, 4:60, 4:60] - x[:, 4:60, 4:60]).abs()  # lossy ones ring where black meets white
    inside[:, 24:32] = inside[:, :, 24:32] = 0
    assert inside.max() < 0.1


def test_what_would_run_another_program_is_not_read(tmp_path, monkeypatch):
    """Whatever the ending says: Pillow goes by the content, and hands PostScript to Ghostscript."""
    monkeypatch.setattr(subprocess, "check_call", lambda *_, **__: pytest.fail("a program was run"))
    Image.new("RGB", (4, 4)).save(tmp_path / "script.eps")
    (tmp_path / "script.eps").rename(tmp_path / "script.png")
    with pytest.raises(OSError, match="cannot identify"):
        read_image(tmp_path / "script.png")
    assert not {"EPS", "WMF", "PDF"} & set(picture_formats())
    assert {".jfif", ".jpe", ".tga", ".j2k", ".jpf", ".apng", ".pbm", ".dib", ".qoi", ".mpo"} <= picture_suffixes()
    assert not {".ps", ".eps", ".pdf", ".wmf", ".emf", ".mpg", ".h5"} & picture_suffixes()


def test_a_file_in_memory(tmp_path):
    buffer = io.BytesIO()
    Image.fromarray(RGB).save(buffer, format="PNG")
    assert torch.allclose(read_image(buffer), EXPECTED, atol=1e-6)
