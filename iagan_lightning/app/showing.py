"""What the page shows, as text and pictures that any browser knows; everything of a user's is escaped."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from html import escape

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from iagan_lightning.data.images import to_pillow
from iagan_lightning.results.files import png_of

SIDE, SEEN = 1024, 384  # pixels of the longer side of what is shown, at most and at least
DRAWN = 0.05  # share of a pixel that is drawn over, for it to be missing


def paragraphs(lines: Sequence[str]) -> str:
    """Return lines as HTML, those that are empty left out.

    Example:
        >>> paragraphs(["<b>.png", ""])
        '<div role="status"><p>&lt;b&gt;.png</p></div>'
    """
    return f'<div role="status">{"".join(f"<p>{escape(line)}</p>" for line in lines if line)}</div>'


def problem(error: Exception) -> str:
    """Return what went wrong as HTML, in one line.

    Example:
        >>> problem(ValueError("no picture yet"))
        '<div role="alert"><p class="problem">No picture yet.</p></div>'
    """
    text = " ".join(str(error).split())
    if not isinstance(error, OSError | ValueError):
        text = f"{type(error).__name__}: {text}".removesuffix(": ")
    return f'<div role="alert"><p class="problem">{escape(sentence(text))}</p></div>'


def sentence(text: str) -> str:
    """Return a message as a sentence; what begins with a name stays as it is written.

    Example:
        >>> sentence("no picture yet"), sentence("ratio: 2")
        ('No picture yet.', 'Ratio: 2.')
    """
    return f"{text[:1].upper()}{text[1:]}".rstrip(".") + "."


def waiting(before: int) -> str:
    """Return what somebody who waits is told.

    Example:
        >>> waiting(1)
        'Waiting: 1 reconstruction is before yours, which begins by itself.'
    """
    number = f"{before} reconstruction{' is' if before == 1 else 's are'}"
    return f"Waiting: {number} before yours, which begins by itself."


def fitted(picture: Image.Image) -> Image.Image:
    """Return a picture of a size to be looked at: small ones in whole pixels, as coarse as they are.

    Example:
        >>> fitted(Image.new("L", (100, 50))).size, fitted(Image.new("L", (4096, 2048))).size
        ((400, 200), (1024, 512))
    """
    picture, longer = picture.convert("RGB"), max(picture.size)
    if longer > SIDE:
        size = (max(picture.width * SIDE // longer, 1), max(picture.height * SIDE // longer, 1))
        return picture.resize(size, Image.Resampling.LANCZOS)
    times = -(-SEEN // longer)
    return picture.resize((picture.width * times, picture.height * times), Image.Resampling.NEAREST)


def picture_of(x: Tensor | Image.Image, alternative: str) -> str:
    """Return an image ``(C, H, W)`` in [-1, 1] or a picture as HTML, which needs no file."""
    picture = to_pillow(x) if isinstance(x, Tensor) else x
    if max(picture.size) > SIDE:
        picture = fitted(picture)
    data = base64.b64encode(png_of(picture)).decode("ascii")
    return f'<img alt="{escape(alternative)}" src="data:image/png;base64,{data}">'


def intact(layers: Sequence[Image.Image], size: tuple[int, int]) -> Tensor | None:
    """Return where nothing was drawn, bool ``(H, W)``; None without a drawing.

    Args:
        layers: what was drawn, transparent elsewhere, at any scale.
        size: height and width.
    """
    drawn = np.zeros(size, dtype=bool)
    for layer in layers:
        opacity = layer.convert("RGBA").getchannel("A").point(lambda value: 255 * (value > 0))
        share = np.asarray(opacity.resize((size[1], size[0]), Image.Resampling.BOX))
        drawn |= share > 255 * DRAWN
    return torch.from_numpy(~drawn) if drawn.any() else None
