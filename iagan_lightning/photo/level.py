"""How far the pixels of a photograph are from what the lens showed: its noise, and what compression changed."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

BLOCK = 8  # pixels of a side
SMOOTHEST = 0.25  # of the blocks: of a photograph of 200 pixels half already have detail
BIAS = 0.9  # what that quarter of pure noise reads
FEWEST = 60  # blocks: of fewer none may be without detail
CLIPPED = 0.02  # from black or white: noise is cut off there
LUMA = (0.299, 0.587, 0.114)
CLEAN = 1.5 / 255  # clean photographs read .7 at most, their rounding .3
FINE = 160 / 255  # over the pixels of the shorter side: with few pixels, detail is everywhere and reads as noise
MOST = 25 / 255  # up to there the estimate is right within a tenth
STANDARD = 57.625  # mean of the luma table of ITU-T T.81, Annex K, which is quality 50


def noise_level(p: Tensor, luma: bool = False) -> float | None:
    """Return the standard deviation of the noise of a photograph, on the [0, 1] scale; 0 for one without.

    None where it has too few pixels to tell.

    Immerkaer's filter sees noise and detail alike, so the quarter of its blocks with least of both counts, without
    those that touch black or white. On seven portraits of 200 and 400 pixels' height, 2, 5, 10 and 25 levels of 255
    read 2.2, 5.2, 10.0 and 24.5; without noise they read .7 at most, but 2.3 at 60 pixels' height.

    Args:
        p: ``(1 or 3, H, W)`` in [0, 1].
        luma: go by the luma alone, as where the colours have been averaged over neighbours (JPEG); the noise of three
            colours is taken as independent then.

    Source: Immerkaer, Fast noise variance estimation, 1996.

    Example:
        >>> noise = torch.randn(3, 200, 200, generator=torch.Generator().manual_seed(0))
        >>> round(255 * noise_level(0.5 + 10 / 255 * noise)), noise_level(torch.full((3, 200, 200), 0.5))
        (10, 0.0)
    """
    spread = 1.0
    if luma and len(p) == 3:
        grey = bool((p[0] == p[1]).all())
        spread = 1.0 if grey else math.sqrt(sum(weight**2 for weight in LUMA))
        p = torch.einsum("c,chw->hw", torch.tensor(LUMA), p)[None]
    if ((p.shape[1] - 2) // BLOCK) * ((p.shape[2] - 2) // BLOCK) < FEWEST:
        return None
    filter_ = torch.tensor([[1.0, -2.0, 1.0], [-2.0, 4.0, -2.0], [1.0, -2.0, 1.0]]) / 6
    size = F.conv2d(p[:, None], filter_[None, None]).abs() * math.sqrt(math.pi / 2)
    blocks = F.avg_pool2d(size, BLOCK)
    within = ((p > CLIPPED) & (p < 1 - CLIPPED)).float()[:, None, 1:-1, 1:-1]
    unclipped = F.avg_pool2d(within, BLOCK) == 1
    read = []
    for block, counts in zip(blocks, unclipped, strict=True):
        some = block[counts] if int(counts.sum()) > 8 else block.flatten()
        read.append(float(some.sort().values[int(SMOOTHEST * (len(some) - 1))]) / BIAS)
    level = math.sqrt(sum(value**2 for value in read) / len(read)) / spread
    return level if level >= max(CLEAN, FINE / min(p.shape[1:])) else 0.0


def jpeg_quality(tables: Sequence[Sequence[int]]) -> int:
    """Return the quality, 1 to 100, on the scale of the Independent JPEG Group, by the mean of the luma's table.

    Example:
        >>> jpeg_quality([[16, 11] * 32]), jpeg_quality([[1] * 64])
        (88, 99)
    """
    percent = 100 * sum(tables[0]) / len(tables[0]) / STANDARD
    return max(1, round(100 - percent / 2 if percent <= 100 else 5000 / percent))


def jpeg_level(tables: Sequence[Sequence[int]]) -> float:
    """Return how much compression has changed a photograph by, as a standard deviation on the [0, 1] scale.

    Measured on four portraits, of the mean over three colours sampled 4:2:0: 2.0, 2.6, 3.6, 4.6 and 5.6 levels of 255
    at quality 95, 90, 75, 50 and 30. Rounding of all coefficients would give 1.9, 3.9, 9.7, 19 and 32: most of them
    are next to nothing.

    Example:
        >>> round(255 * jpeg_level([[29] * 64]), 1)
        3.5
    """
    step = math.sqrt(sum(value**2 for value in tables[0]) / len(tables[0]) / 12)
    level = 1.58 * step**0.37 / 255
    return level if level >= CLEAN else 0.0
