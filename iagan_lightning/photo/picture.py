"""Photographs as files: pixels in the file's own colours, and what else of the file must survive."""

from __future__ import annotations

import io
import os
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageCms, UnidentifiedImageError
from torch import Tensor

from iagan_lightning.data.folders import HEIC_ENDINGS, suffix_of
from iagan_lightning.photo.sixteen import deep_colours, deep_png, is_deep, read_deep
from iagan_lightning.safety import open_picture, picture_formats, picture_suffixes, read_pixels, white_of

ORIENTATION, EXIF_IFD, WIDTH, HEIGHT = 0x0112, 0x8769, 0xA002, 0xA003  # tags of EXIF


@dataclass(frozen=True)
class Photograph:
    """The pixels of a photograph, and what of its file belongs to a file of the result.

    Attributes:
        pixels: float32 ``(1 or 3, H, W)`` in [0, 1], upright by the file's orientation, in the file's own colours.
        levels: values that a pixel can have in a file: 256, or 65536 for one of more than 8 bits that are all read.
        profile: ICC profile of these colours; None where the file has none, or was converted to sRGB (CMYK, CIELAB).
        exif: EXIF data, the orientation taken out because it has been followed; empty where there is none.
        kind: format of the file.
        tables: quantisation tables of a JPEG, the luma's first.
        content: of the file of a JPEG.
        orientation: by which the file says how its pixels are to be turned, 1 to 8 as EXIF has it.
        remarks: what is not as the user may think.
    """

    pixels: Tensor
    levels: int = 256
    profile: bytes | None = None
    exif: bytes = b""
    kind: str = ""
    tables: tuple[tuple[int, ...], ...] = ()
    remarks: tuple[str, ...] = ()
    content: bytes = field(default=b"", repr=False)
    orientation: int = 1

    @property
    def size(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return self.pixels.shape[1], self.pixels.shape[2]

    def turned(self, quarters: int) -> Photograph:
        """Return it turned by quarters of a circle, to the left."""
        return replace(self, pixels=self.pixels.rot90(quarters, (1, 2)).contiguous())


@lru_cache(maxsize=1)
def know_heic() -> bool:
    """Let Pillow read HEIC where pillow-heif is installed, and tell whether it is."""
    try:
        import pillow_heif
    except ImportError:
        return False
    pillow_heif.register_heif_opener()
    picture_formats.cache_clear()
    picture_suffixes.cache_clear()
    return True


def read_photograph(path: str | os.PathLike[str]) -> Photograph:
    """Return a photograph of any format that is read; of several frames the first.

    Values are those of ``safety.read_pixels``, but for the profile, which is kept and not applied: the result is to
    agree with the pixels of the file. Transparent parts become white.

    Raises:
        OSError: for a file that is missing, cut off or no picture.
        ValueError: for one too large, or of values whose range is not known.
    """
    heic = know_heic()
    try:
        with open_picture(path) as file:
            kind, frames, remarks = file.format or "", int(getattr(file, "n_frames", 1)), []
            deep = deep_colours(file)
            floats = file.mode == "F"
            levels = 65536 if deep or floats or white_of(file) else 256
            tables = tuple(map(tuple, getattr(file, "quantization", {}).values()))
            if levels == 256 and is_deep(file):
                remarks.append("of more than 8 bits per colour the upper 8 are read, and written")
            if floats:
                remarks.append("its floats are written with 16 bits")
            exif = _exif(file)
            content = _content(path) if kind in ("JPEG", "MPO") else b""
            orientation = int(file.getexif().get(ORIENTATION, 1)) if content else 1
            if frames > 1 and kind not in ("MPO", "PSD"):
                remarks.append(f"the first of {frames} frames")
                file.seek(0)
            grey = file.mode in ("1", "L", "LA", "La", "I", "F") or file.mode.startswith("I;16")
            profile = file.info.get("icc_profile")
            if file.mode in ("CMYK", "LAB"):
                profile = None  # converted by it
            elif profile:
                file.info.pop("icc_profile")
                if (kind_of_colours := _colours(profile)) != ("GRAY" if grey else "RGB"):
                    remarks.append(f"its colour profile ({kind_of_colours}) is not for such pictures, and left out")
                    profile = None
            pixels = torch.from_numpy(read_deep(path) if deep else read_pixels(file, 1 if grey else 3, first=True))
    except UnidentifiedImageError as error:
        if heic or suffix_of(str(path)) not in HEIC_ENDINGS:
            raise
        raise OSError("a photograph in HEIC is read with pip install 'iagan-lightning[heic]'") from error
    except (OSError, ValueError, MemoryError):
        raise
    except Exception as error:  # Pillow's readers raise a different kind for each way in which a file can be broken
        raise OSError(f"a damaged picture ({type(error).__name__}: {error})") from error
    pixels = pixels[None] if grey else pixels.permute(2, 0, 1).contiguous()
    return Photograph(pixels, levels, profile, exif, kind, tables, tuple(remarks), content, orientation)


def as_png(photograph: Photograph) -> bytes:
    """Return a photograph as the content of a PNG: the same depth, colours, profile and EXIF data."""
    pixels = to_levels(photograph.pixels, photograph.levels)
    values = np.ascontiguousarray(pixels[0] if len(pixels) == 1 else pixels.transpose(1, 2, 0))
    about = {}
    if photograph.profile:
        about["icc_profile"] = photograph.profile
    if photograph.exif:
        about["exif"] = _resized(photograph.exif, photograph.size)
    if values.ndim == 3 and values.dtype == np.uint16:
        return deep_png(values, **about)
    buffer = io.BytesIO()
    Image.fromarray(values).save(buffer, "PNG", **about)
    return buffer.getvalue()


def to_levels(pixels: Tensor, levels: int) -> np.ndarray:
    """Return pixels of [0, 1] as whole numbers below ``levels``, clamped and rounded.

    Example:
        >>> to_levels(torch.tensor([-0.5, 0.5, 1.0]), 256).tolist()
        [0, 128, 255]
    """
    whole = (pixels.clamp(0, 1).double() * (levels - 1)).round()
    return whole.numpy().astype(np.uint8 if levels == 256 else np.uint16)


def _content(path: Any) -> bytes:
    """Return what a file holds, of a stream without moving it; nothing of what is no file any more."""
    if isinstance(path, str | os.PathLike):
        with open(path, "rb") as file:
            return file.read()
    if not hasattr(path, "seek"):
        return b""
    place = path.tell()
    path.seek(0)
    content: bytes = path.read()
    path.seek(place)
    return content


def _exif(file: Image.Image) -> bytes:
    """Return the EXIF data of a file without its orientation; nothing where they are damaged."""
    try:
        found, exif = file.getexif(), Image.Exif()
        exif.load(found.tobytes())  # a copy: the file's own still says how to turn it
        exif.pop(ORIENTATION, None)
        return exif.tobytes() if len(exif) else b""
    except Exception:  # nothing of the picture depends on it
        return b""


def _resized(data: bytes, size: tuple[int, int]) -> bytes:
    """Return EXIF data with the size that they state, if they do, replaced."""
    exif = Image.Exif()
    exif.load(data)
    stated: Any = exif.get_ifd(EXIF_IFD)
    for tag, pixels in ((HEIGHT, size[0]), (WIDTH, size[1])):
        if tag in stated:
            stated[tag] = pixels
    return exif.tobytes()


def _colours(profile: bytes) -> str:
    try:
        return ImageCms.ImageCmsProfile(io.BytesIO(profile)).profile.xcolor_space.strip()
    except (OSError, ImageCms.PyCMSError):
        return "damaged"
