"""Picture files to tensors in [-1, 1] and back."""

from __future__ import annotations

import math
from typing import Literal

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from iagan_lightning.checks import check_choice
from iagan_lightning.safety import PictureFile, open_picture, picture_size, read_pixels, white_of

__all__ = [
    "Fit",
    "check_large_enough",
    "fit_image",
    "opaque",
    "picture_size",
    "read_image",
    "shift_rows",
    "to_8bit",
    "to_pillow",
]

Fit = Literal["crop", "resize", "pad"]
OPAQUE = 0.99  # opacity of a pixel that counts as seen


def read_image(path: PictureFile, channels: int = 3) -> Tensor:
    """Return a picture as float32 ``(channels, H, W)`` in [-1, 1].

    Grey, palette or colour of any depth whose white is known, colours in sRGB; the rule for each type of pixel stands
    with ``safety.read_pixels``.

    Raises:
        OSError: for a file that is missing, cut off or no picture.
        ValueError: for one of more than 64 million pixels, or of values whose range is not known.
    """
    pixels = torch.from_numpy(read_pixels(path, channels)) * 2 - 1
    return (pixels if channels == 3 else pixels[..., None]).permute(2, 0, 1).contiguous()


def opaque(path: PictureFile) -> Tensor:
    """Return which pixels of a picture are wholly opaque, bool ``(H, W)``.

    What is half transparent at the rim of an erased part is no longer what was seen there, and does not count.

    Raises:
        OSError, ValueError: as for ``read_image``, and for a picture that is opaque or transparent everywhere.
    """
    mask = torch.from_numpy(read_pixels(path, 1, "opacity")) > OPAQUE
    if bool(mask.all()):
        raise ValueError("nothing in the picture is transparent, so nothing is missing: erase what is damaged")
    if not bool(mask.any()):
        raise ValueError("the picture is transparent everywhere: nothing of it is left")
    return mask


def fit_image(x: Tensor, size: tuple[int, int], how: Fit = "crop") -> Tensor:
    """Return an image ``(C, H, W)`` at exactly ``size``.

    ``crop`` cuts the largest centred part of the right proportions and shrinks it; ``resize`` stretches the whole
    image, enlarging it if need be; ``pad`` shrinks it to fit if need be and surrounds it with mid-grey. Shrinking by
    a whole number averages blocks of pixels, by anything else it is anti-aliased bicubic.

    Raises:
        ValueError: when ``crop`` gets an image smaller than ``size``.

    Example:
        >>> fit_image(torch.tensor([[[0.0, 1.0, 0.5], [0.0, 1.0, 0.5]]]), (1, 1))
        tensor([[[0.5000]]])
    """
    check_choice("fit", how, Fit)
    height, width = x.shape[-2:]
    if how == "crop":
        check_large_enough((height, width), size)
        factor = min(height / size[0], width / size[1])
        rows, columns = min(round(size[0] * factor), height), min(round(size[1] * factor), width)
        top, left = (height - rows) // 2, (width - columns) // 2
        x = x[:, top : top + rows, left : left + columns]
    elif how == "pad":
        shrink = max(height / size[0], width / size[1], 1.0)
        x = _resample(x, (max(round(height / shrink), 1), max(round(width / shrink), 1)))
        rows, columns = size[0] - x.shape[-2], size[1] - x.shape[-1]
        return F.pad(x, (columns // 2, columns - columns // 2, rows // 2, rows - rows // 2))
    return _resample(x, size)


def shift_rows(x: Tensor, pixels: int) -> Tensor:
    """Return images ``(..., H, W)`` moved down (or up), the row that is left at the border repeated.

    Raises:
        ValueError: where nothing of the images would be left.

    Example:
        >>> shift_rows(torch.tensor([[1.0], [2.0], [3.0]]), 1).tolist()
        [[1.0], [1.0], [2.0]]
    """
    height = x.shape[-2]
    if abs(pixels) >= height:
        raise ValueError(f"a shift of {pixels} pixels leaves nothing of a picture of {height} rows: choose less")
    return x[..., (torch.arange(height) - pixels).clamp(0, height - 1), :]


def check_large_enough(given: tuple[int, int], size: tuple[int, int]) -> None:
    """Raise ValueError for a picture that cropping cannot bring to ``size``."""
    if given[0] < size[0] or given[1] < size[1]:
        raise ValueError(
            f"a picture of {given[1]} x {given[0]} pixels is smaller than the generator's {size[1]} x {size[0]}: "
            "enlarge it with --data.fit resize, or surround it with --data.fit pad (to super-resolve it as it is, "
            "give it with --data.measurements)"
        )


def _resample(x: Tensor, size: tuple[int, int]) -> Tensor:
    height, width = x.shape[-2:]
    if (height, width) == size:
        return x
    if height % size[0] == 0 and width % size[1] == 0:
        return F.avg_pool2d(x[None], (height // size[0], width // size[1]))[0]
    return F.interpolate(x[None], size=size, mode="bicubic", antialias=True)[0].clamp(-1, 1)


def to_8bit(x: Tensor) -> Tensor:
    """Return images of [-1, 1] as uint8, clamped and rounded.

    Example:
        >>> to_8bit(torch.tensor([-1.5, -1.0, 0.0, 1.0])).tolist()
        [0, 0, 128, 255]
    """
    return ((x.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)


def to_pillow(x: Tensor) -> Image.Image:
    """Return an image ``(C, H, W)`` in [-1, 1] as an 8-bit picture, clamped and rounded."""
    pixels = to_8bit(x.detach().cpu().float()).permute(1, 2, 0).numpy()
    return Image.fromarray(pixels if pixels.shape[-1] == 3 else pixels[..., 0])


def quantisation(path: PictureFile) -> float:
    """Return the standard deviation of the rounding in a picture, on the [0, 1] scale; 0 for floats.

    Rounding errors are uniform, so it is the step between two values over the square root of 12.
    """
    with open_picture(path) as picture:
        if picture.mode == "F":
            return 0.0
        return 1 / (white_of(picture) or 255) / math.sqrt(12)
