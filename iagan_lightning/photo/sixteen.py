"""Colours of 16 bits, of which Pillow holds 8: read in two halves, and written as PNG."""

from __future__ import annotations

import os
import struct
import sys
import zlib
from typing import Any

import numpy as np
from PIL import Image, ImageOps

from iagan_lightning.safety import in_planes, open_picture

LITTLE = "L" if sys.byteorder == "little" else "B"
SIGNATURE = b"\x89PNG\r\n\x1a\n"
UP = 2  # filter of PNG: each byte less the one above it


def is_deep(file: Image.Image) -> bool:
    """Tell whether a file that has been opened holds more than 8 bits of each channel."""
    return in_planes(file) or any(map(_is_deep, getattr(file, "tile", ())))


def deep_colours(file: Image.Image) -> bool:
    """Tell whether a file that has been opened holds colours of 16 bits that ``read_deep`` reads."""
    if in_planes(file) or "transparency" in file.info or getattr(file, "n_frames", 1) > 1:
        return False
    packings = {_packing(tile) for tile in getattr(file, "tile", ())}
    known = {f"{mode};16{order}" for mode in ("RGB", "RGBA") for order in "BLN"}
    return bool(packings) and packings <= known


def read_deep(path: str | os.PathLike[str] | Any) -> np.ndarray:
    """Return the colours of a picture of 16 bits, float32 ``(H, W, 3)`` in [0, 1], upright, transparent parts white.

    Pillow takes one byte of each two. Told that the other one comes first, it takes the other one.
    """
    upper, lower = (_bytes(path, other).astype(np.uint16) for other in (False, True))
    values = ((upper << 8) + lower).astype(np.float32) / 65535
    colours, opacity = values[..., :3], values[..., 3:]
    return colours if opacity.shape[2] == 0 else colours * opacity + (1 - opacity)


def _bytes(path: Any, other: bool) -> np.ndarray:
    if hasattr(path, "seek"):
        path.seek(0)
    with open_picture(path) as file:
        if other:
            file.tile = [_swapped(tile) for tile in file.tile]  # type: ignore[attr-defined]
        return np.asarray(ImageOps.exif_transpose(file))


def _packing(tile: Any) -> str:
    """Return how the pixels of a tile are packed, as Pillow names it."""
    arguments = tile[3]
    return str(arguments[0] if isinstance(arguments, tuple) else arguments)


def _is_deep(tile: Any) -> bool:
    if tile[0].startswith("ppm") and isinstance(tile[3], tuple):  # mode and largest value
        return bool(tile[3][1] > 255)
    return _packing(tile).partition(";")[2].startswith("16")


def _swapped(tile: Any) -> Any:
    """Return a tile with the bytes of each number in the other order."""
    arguments, packing = tile[3], _packing(tile)
    order = packing[-1] if packing[-1] in "BL" else LITTLE
    packing = packing[:-1] + ("L" if order == "B" else "B")
    arguments = (packing, *arguments[1:]) if isinstance(arguments, tuple) else packing
    return tile._replace(args=arguments) if hasattr(tile, "_replace") else (*tile[:3], arguments)  # since Pillow 11.1


def deep_png(values: np.ndarray, icc_profile: bytes = b"", exif: bytes = b"") -> bytes:
    """Return the content of a PNG of colours of 16 bits, uint16 ``(H, W, 3)``, which Pillow does not write.

    Source: W3C, Portable Network Graphics (PNG) Specification.

    Example:
        >>> import io
        >>> values = np.arange(24, dtype=np.uint16).reshape(2, 4, 3) * 2001
        >>> bool((np.round(read_deep(io.BytesIO(deep_png(values))) * 65535) == values).all())
        True
    """
    height, width, _ = values.shape
    rows = np.ascontiguousarray(values, dtype=">u2").view(np.uint8).reshape(height, -1)
    above = np.concatenate([np.zeros_like(rows[:1]), rows[:-1]])
    filtered = np.concatenate([np.full((height, 1), UP, np.uint8), rows - above], 1)
    chunks = [(b"IHDR", struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0))]
    if icc_profile:
        chunks.append((b"iCCP", b"ICC Profile\0\0" + zlib.compress(icc_profile)))
    if exif:
        chunks.append((b"eXIf", exif.removeprefix(b"Exif\0\0")))
    chunks += [(b"IDAT", zlib.compress(filtered.tobytes())), (b"IEND", b"")]
    return SIGNATURE + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    )
