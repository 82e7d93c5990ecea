"""What a file from a stranger may do, and the one reader of pictures, masks and kernels.

Pictures and archives can claim far more memory than they weigh, pickles name what they want to build, and numbers in a
picture mean nothing before it is known which of them is white. The one module of ours that operators and generators
import: it imports none itself.
"""

from __future__ import annotations

import io
import os
import re
import warnings
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import IO, Any, Literal

import numpy as np
from PIL import Image, ImageCms, ImageOps
from torch import Tensor

MAX_PIXELS = 64_000_000  # 8000 x 8000, about 2.5 GB while it is read

# Formats that Pillow registers and that are not read here: EPS runs Ghostscript and WMF the system's renderer, IPTC
# opens whatever lies inside it, and the others are no pictures, or none that Pillow can decode by itself.
NOT_READ = {"EPS", "WMF", "IPTC", "BUFR", "GRIB", "HDF5", "MPEG"}

SAME_COLOUR = 2  # levels of 255 by which a profile may move a colour and still count as sRGB's

PictureFile = str | os.PathLike[str] | IO[bytes] | Image.Image  # the last one is open already
Use = Literal["picture", "mask", "kernel", "opacity"]


@lru_cache(maxsize=1)
def picture_formats() -> tuple[str, ...]:
    """Return the formats that are read: those that this Pillow decodes without running another program."""
    named = set(Image.registered_extensions().values())  # one without an ending of its own is found by accident only
    return tuple(name for name in Image.ID if name in named - NOT_READ)


@lru_cache(maxsize=1)
def picture_suffixes() -> frozenset[str]:
    """Return the endings of pictures, in lower case.

    Example:
        >>> sorted({".png", ".jfif", ".tga", ".eps", ".pdf", ".txt"} & picture_suffixes())
        ['.jfif', '.png', '.tga']
    """
    formats = {*picture_formats(), "MPO"}  # of several JPEGs: JPEG's reader opens it
    return frozenset(suffix for suffix, name in Image.registered_extensions().items() if name in formats)


@contextmanager
def open_picture(path: PictureFile) -> Iterator[Image.Image]:
    """Open a picture of which only the header has been read so far; an image of Pillow's is taken as it is.

    Raises:
        OSError: for a file that is missing or no picture.
        ValueError: for one too large to decode.
    """
    if isinstance(path, Image.Image):  # not closed: it is not ours
        _check_pixels(path)
        yield path
        return
    with warnings.catch_warnings():  # Pillow's own limits are wider: it warns, and refuses only twice as much
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        try:
            picture = Image.open(path, formats=picture_formats())  # by content: a .png can be an EPS file
        except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
            raise ValueError(f"a picture of more pixels than are read ({MAX_PIXELS:,}): shrink it first") from error
    with picture:
        _check_pixels(picture)
        yield picture


def _check_pixels(picture: Image.Image) -> None:
    width, height = picture.size
    if width * height > MAX_PIXELS:
        raise ValueError(
            f"a picture of {width} x {height} pixels is more than is read ({MAX_PIXELS:,} pixels): shrink it first"
        )


def read_pixels(source: PictureFile, channels: int = 3, use: Use = "picture", first: bool = False) -> np.ndarray:
    """Return the pixels of a picture, a mask or a kernel as floats ``(H, W, 3)``, or ``(H, W)`` where channels is 1.

    Its opacity likewise, 1 everywhere where the file says nothing of it.

    One rule for each type of pixel, whatever is read from it; 0 is black and 1 white:

    ========================================  ============================================================
    pixels in the file                        value
    ========================================  ============================================================
    1 to 8 bits, grey, palette or colour      v / 255 (fewer bits are spread over 0 ... 255)
    16 bits unsigned, grey                    v / 65535
    12 bits unsigned, grey (TIFF)             v / 4095
    16 bits, colour, or grey with opacity     its upper 8 bits / 255: Pillow holds no more
    floats                                    v, which must lie in [0, 1]
    signed 16 bits, 32 bits, 16-bit FITS      refused: the file does not say which value is white
    TIFF where 0 is white                     as above, turned round
    CMYK, YCbCr, CIELAB                       converted to RGB
    NaN, infinity                             refused
    ========================================  ============================================================

    Grey is 0.299 R + 0.587 G + 0.114 B. A kernel is known up to a factor, so that floats and integers of any range are
    taken as they are. What the EXIF or TIFF orientation says is followed. Several frames or pages are refused.

    Transparent parts of a picture become white; in a mask they are not measured and in a kernel 0. Colours of a picture
    with an embedded profile are converted to sRGB (relative colorimetric, black point compensated, in 8 bits); a
    profile that moves no colour by more than 2 levels of 255 is sRGB's, and nothing is changed. The numbers of masks
    and kernels are no colours, profiles do not touch them.

    Args:
        source: a file, or an image of Pillow's.
        channels: 3, or 1 for grey.
        use: what it is read as.
        first: take the first of several frames or pages.

    Returns:
        float32 for a picture, float64 for everything else.

    Raises:
        OSError: for a file that is missing, damaged or no picture.
        ValueError: for one too large, for values whose range is not known, or for a profile that cannot be applied.
    """
    dtype = np.dtype(np.float32 if use == "picture" else np.float64)
    try:
        with open_picture(source) as file:
            if not first:
                require_one_frame(file)
            _mend_planes(file)
            inverted = file.format == "TIFF" and _tag(file, 262) == 0  # Pillow sees to this for 8 bits only
            white, curious = white_of(file), _transparent(file)
            picture: Image.Image = ImageOps.exif_transpose(file)
        if curious is not None:
            picture.info["transparency"] = curious
        if not all(picture.size):
            raise ValueError("a picture without a pixel")
        if picture.mode in ("I", "F") or picture.mode.startswith("I;16"):
            values = _deep(picture, white, inverted, use).astype(dtype)
            return np.repeat(values[..., None], 3, axis=-1) if channels == 3 else values
        values = np.asarray(_eight_bits(picture, channels, use)).astype(dtype)
        values /= 255
        return values
    except (OSError, ValueError, MemoryError):
        raise
    except Exception as error:  # Pillow's readers raise a different kind for each way in which a file can be broken
        raise OSError(f"a damaged picture ({type(error).__name__}: {error})") from error


def require_one_frame(picture: Any) -> None:
    """Raise ValueError for a picture of several frames or pages of which any could be meant.

    Reduced versions of a TIFF's first page are none of them; nor are the layers of a PSD, whose first frame is all of
    them together, and what a camera hides behind its JPEG.
    """
    if picture.format in ("MPO", "PSD") or not getattr(picture, "is_animated", False):
        return
    frames = picture.n_frames
    if picture.format == "TIFF":
        reduced = []
        for page in range(frames):
            picture.seek(page)
            reduced.append(bool(int(_tag(picture, 254) or 0) & 0b101))  # a smaller version, or a mask
        picture.seek(0)
        if reduced.count(False) == 1 and not reduced[0]:
            return
    raise ValueError(f"it holds {frames} frames or pages, and one picture is needed: save the right one by itself")


def in_planes(picture: Any) -> bool:
    """Tell whether a TIFF holds one colour after the other, each of 16 bits."""
    return picture.format == "TIFF" and _tag(picture, 284) == 2 and _tag(picture, 258) == 16


def _mend_planes(picture: Any) -> None:
    """Have planes of 16 bits read as such; where they are not compressed, Pillow takes their bytes for pixels."""
    if in_planes(picture):
        order = "B" if picture.tag_v2.prefix == b"MM" else "L"
        for number, tile in enumerate(picture.tile):
            if tile[0] == "raw" and ";" not in tile[3][0]:
                arguments = (f"{tile[3][0]};16{order}", *tile[3][1:])
                mended = tile._replace(args=arguments) if hasattr(tile, "_replace") else (*tile[:3], arguments)
                picture.tile[number] = mended


def picture_size(path: str | os.PathLike[str]) -> tuple[int, int] | None:
    """Return (height, width) after orientation, read from the header alone; None where it cannot be read."""
    try:
        with open_picture(path) as picture:
            width, height = picture.size
            # Not picture.getexif(): for a PNG that decodes all of it, and here a whole data set is looked through.
            turned = width != height and Image.Image.getexif(picture).get(0x0112, 1) in (5, 6, 7, 8)
            if picture.format == "TIFF" and (_tag(picture, 256), _tag(picture, 257)) != (width, height):
                turned = False  # present Pillow gives the size of a TIFF as it is shown
    except Exception:  # a damaged file is this picture's own failure, found again and recorded when it is read
        return None
    return (width, height) if turned else (height, width)


def _tag(picture: Any, number: int) -> Any:
    """Return a tag of a TIFF, the first value of one that has several."""
    value = picture.tag_v2.get(number)
    return value[0] if isinstance(value, tuple) else value


def white_of(picture: Image.Image) -> int | None:
    """Return the value that is white in a grey picture of more than 8 bits; None where the file does not say."""
    if picture.mode.startswith("I;16") and picture.format != "FITS":  # FITS counts from -32768
        return 2 ** int(_tag(picture, 258)) - 1 if picture.format == "TIFF" else 65535
    return 65535 if picture.mode == "I" and picture.format in ("PNG", "PPM") else None


def _transparent(picture: Image.Image) -> Any:
    """Return the colour that a PNG calls transparent where Pillow's pixels are not of the depth in which it is said."""
    colour = picture.info.get("transparency")
    tiles = getattr(picture, "tile", None)
    depth = tiles[0][3] if picture.format == "PNG" and tiles else None
    if colour is None or depth not in ("RGB;16B", "L;4", "L;2"):
        return None
    return tuple(value >> 8 for value in colour) if depth == "RGB;16B" else colour * {"L;4": 17, "L;2": 85}[depth]


def _deep(picture: Image.Image, white: int | None, inverted: bool, use: Use) -> np.ndarray:
    """Return the values of a grey picture of more than 8 bits, float64 ``(H, W)``."""
    pixels = np.asarray(picture)
    transparent = picture.info.get("transparency")
    if use == "opacity":
        return np.ones(pixels.shape) if transparent is None else np.where(pixels == transparent, 0.0, 1.0)
    values = pixels.astype(np.float64)
    if not np.isfinite(values).all():
        raise ValueError("it holds pixels that are NaN or infinite: replace them, or take them out of the picture")
    if white is not None:
        values = values / white
    elif use == "kernel":
        if picture.mode != "F" and values.min() < 0:
            raise ValueError(f"it holds integers down to {values.min():.0f}: give a kernel that is negative as .npy")
    else:
        low, high = float(values.min()), float(values.max())
        if picture.mode != "F":
            raise ValueError(
                f"it holds integers from {low:.0f} to {high:.0f} of a type whose white is not known: save it with 8 "
                "bits (0 to 255), with 16 bits unsigned (0 to 65535), or as floats in [0, 1]"
            )
        if low < -1e-5 or high > 1 + 1e-5:  # by as much as rounding may go beyond
            raise ValueError(
                f"it holds floats from {low:.4g} to {high:.4g}, and floats are taken as 0 black, 1 white: save it with "
                "its values brought to [0, 1]"
            )
        values = values.clip(0, 1)
    if inverted:
        values = 1 - values
    if use == "picture" and (profile := picture.info.get("icc_profile")):
        curve = _grey_curve(profile)
        values = values if curve is None else np.interp(values, np.linspace(0, 1, 256), curve / 255)
    if transparent is not None:
        values[pixels == transparent] = 1.0 if use == "picture" else 0.0
    return values


def _eight_bits(picture: Image.Image, channels: int, use: Use) -> Image.Image:
    """Return a picture of 8 bits as grey or RGB, transparent parts filled."""
    profile = picture.info.get("icc_profile") if use == "picture" and picture.mode != "LAB" else None
    if picture.mode in ("La", "RGBa"):
        picture = picture.convert("LA" if picture.mode == "La" else "RGBA")
    opacity = None
    if picture.mode in ("LA", "PA", "RGBA") or "transparency" in picture.info:
        grey = picture.mode in ("1", "L", "LA")
        picture = picture.convert("RGBA")
        opacity = picture.getchannel("A")
        picture = picture.convert("RGB")
        picture = picture.getchannel(0) if grey else picture
    if use == "opacity":
        return Image.new("L", picture.size, 255) if opacity is None else opacity
    if profile:
        picture = _in_srgb(picture, profile)
    if opacity is not None:
        picture = picture.convert("RGB")
        picture.putalpha(opacity)
        background = Image.new("RGBA", picture.size, "white" if use == "picture" else "black")
        picture = Image.alpha_composite(background, picture)
    if channels == 1 and picture.mode not in ("1", "L"):
        picture = picture.convert("RGB")  # CIELAB and CMYK have no way of their own to grey
    return picture.convert("RGB" if channels == 3 else "L")


def _in_srgb(picture: Image.Image, profile: bytes) -> Image.Image:
    """Return a picture of 8 bits with the colours that its profile gives them, grey or RGB."""
    if picture.mode in ("1", "L"):
        curve = _grey_curve(profile)
        return picture if curve is None else picture.convert("L").point(curve.round().astype(int).tolist())
    if picture.mode != "CMYK":
        picture = picture.convert("RGB")
    transform = _transform(profile, picture.mode)
    return picture if transform is None else transform.apply(picture)


@lru_cache(maxsize=8)
def _grey_curve(profile: bytes) -> np.ndarray | None:
    """Return the sRGB level of each of a profile's 256 levels of grey or neutral colours; None where they agree."""
    space = _space(profile)
    ramp = Image.fromarray(np.arange(256, dtype=np.uint8)[None])
    transform = _transform(profile, "RGB" if space == "RGB" else "L")
    if transform is None:
        return None
    levels = np.asarray(transform.apply(ramp if space == "GRAY" else ramp.convert("RGB")), dtype=np.float64)
    return levels.mean(-1)[0]


@lru_cache(maxsize=8)
def _transform(profile: bytes, mode: str) -> Any:
    """Return the transform of a profile's colours into sRGB's; None where it would change nothing.

    Raises:
        ValueError: for a profile that is damaged, or made for other pictures.
    """
    wanted = {"L": "GRAY", "RGB": "RGB", "CMYK": "CMYK"}[mode]
    if (space := _space(profile)) != wanted:
        raise ValueError(
            f"its colour profile is for {space} pictures, and this one is {wanted}: convert it to sRGB, or remove the "
            "profile"
        )
    try:
        transform = ImageCms.buildTransform(
            ImageCms.ImageCmsProfile(io.BytesIO(profile)),
            ImageCms.createProfile("sRGB"),
            mode,
            "RGB",
            renderingIntent=ImageCms.Intent.RELATIVE_COLORIMETRIC,
            flags=ImageCms.Flags.BLACKPOINTCOMPENSATION,
        )
    except (OSError, ImageCms.PyCMSError) as error:
        raise ValueError("its colour profile cannot be used: convert it to sRGB, or remove the profile") from error
    if mode == "CMYK":
        return transform
    steps = np.linspace(0, 255, 9).round().astype(np.uint8)
    colours = np.stack(np.meshgrid(steps, steps, steps), -1).reshape(9, 81, 3) if mode == "RGB" else steps[None]
    after = np.asarray(transform.apply(Image.fromarray(colours))).astype(int)
    moved = np.abs(after - (colours if mode == "RGB" else colours[..., None])).max()
    return None if moved <= SAME_COLOUR else transform


def _space(profile: bytes) -> str:
    """Return the kind of colours that a profile describes: RGB, GRAY, CMYK, Lab ..."""
    try:
        return ImageCms.ImageCmsProfile(io.BytesIO(profile)).profile.xcolor_space.strip()
    except (OSError, ImageCms.PyCMSError) as error:
        raise ValueError("its colour profile is damaged: convert it to sRGB, or remove the profile") from error


def check_archive(path: Path) -> None:
    """Raise ValueError for a .pt file that unpacks to more than it weighs; ``torch.save`` never compresses."""
    try:
        with zipfile.ZipFile(path) as archive:
            unpacked = sum(member.file_size for member in archive.infolist())
    except (OSError, zipfile.BadZipFile):  # none, or a damaged one: reading it will tell
        return
    packed = path.stat().st_size
    if unpacked > packed:
        raise ValueError(f"it unpacks to {unpacked:,} bytes from {packed:,}, which torch.save never does")


def refused_name(error: Exception) -> str | None:
    """Return what a pickle wanted to build, from the error of PyTorch's restricted unpickler; None for other errors.

    Example:
        >>> refused_name(ValueError("Unsupported global: GLOBAL builtins.print was not an allowed global by default."))
        'builtins.print'
    """
    found = re.search(r"unsupported global(?:: GLOBAL)? (\S+)", str(error), re.IGNORECASE)
    return found[1] if found else None


def check_dense(tensor: Tensor) -> None:
    """Raise ValueError for a tensor that stands for more values than it holds, sparse or expanded."""
    if str(tensor.layout) != "torch.strided" or tensor.is_quantized:
        raise ValueError(f"it holds a tensor of layout {tensor.layout}; a plain dense one is needed")
    if tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
        raise ValueError(f"it holds {tuple(tensor.shape)} values that share memory; save tensor.contiguous()")


def printable(text: str) -> str:
    r"""Return a text without control characters: a file's name must not steer the terminal.

    Example:
        >>> print(printable("a\x1b[2Jb\udcff"))
        a\x1b[2Jb\udcff
    """
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)
