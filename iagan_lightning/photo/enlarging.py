r"""The whole photograph p at s times its size: A_s averages s x s pixels, and A_s X = p holds, also for 8 bits.

Of all enlargements that agree with p, A_s^+ p repeats each pixel s times, which looks like it. ``enlarged`` is the
smooth one, :math:`U (A_s U)^{-1} p`, U being bicubic interpolation: separable, and local but for what fades away within
a few pixels.
"""

from __future__ import annotations

import functools

import torch
import torch.nn.functional as F
from torch import Tensor

from iagan_lightning.operators.bicubic import keys_kernel

BAND, AROUND = 96, 16  # pixels that are enlarged at a time, and those around them that they still depend on
ROUNDS = 50
MISSING = 1e-4  # of a mean, on the [0, 1] scale: less than 16 bits would show in its last digits


def reduced(X: Tensor, scale: int) -> Tensor:
    """Return A_s X, the means of s x s pixels: ``(C, s H, s W)`` to ``(C, H, W)``.

    Example:
        >>> reduced(torch.tensor([[[0.0, 1.0], [0.5, 0.5]]]), 2)
        tensor([[[0.5000]]])
    """
    return X if scale == 1 else F.avg_pool2d(X[None], scale)[0]


def enlarged(p: Tensor, scale: int) -> Tensor:
    """Return the smooth enlargement that agrees with a photograph, ``(C, H, W)`` to ``(C, s H, s W)``.

    Not clamped: beside strong edges it may leave [0, 1], by as much as the edges need.

    Example:
        >>> p = torch.rand(3, 20, 24)
        >>> bool(reduced(enlarged(p, 4), 4).allclose(p, atol=1e-5))
        True
    """
    if scale == 1:
        return p.clone()
    return _along_rows(_along_rows(p, scale).mT, scale).mT.contiguous()


def _along_rows(p: Tensor, scale: int) -> Tensor:
    """Return p with s times as many rows."""
    height, parts = p.shape[1], []
    for top in range(0, height, BAND):
        first, last = max(top - AROUND, 0), min(top + BAND + AROUND, height)
        rows = _enlargement(last - first, scale).to(p.dtype)
        parts.append(rows[(top - first) * scale : (top - first + BAND) * scale] @ p[:, first:last])
    return torch.cat(parts, 1)


@functools.lru_cache(maxsize=8)
def _enlargement(length: int, scale: int) -> Tensor:
    """Return U (A U)^-1 along one axis, ``(scale * length, length)`` in float64; U repeats the border."""
    places = (torch.arange(scale * length, dtype=torch.float64) + 0.5) / scale - 0.5
    near = places.floor()[:, None] + torch.arange(-1, 3)
    U = torch.zeros(scale * length, length, dtype=torch.float64)
    U.scatter_add_(1, near.clamp(0, length - 1).long(), keys_kernel(places[:, None] - near))
    return U @ torch.linalg.inv(U.view(length, scale, length).mean(1))


def agreeing(X: Tensor, p: Tensor, scale: int) -> Tensor:
    """Return the picture within [0, 1] near X with A_s X = p.

    A block whose mean is not p's pixel is moved by what it lacks, and clamped; where a part of it is at its end then,
    the others take the rest.

    Example:
        >>> p = torch.tensor([[[0.9, 0.0]]])
        >>> X = agreeing(torch.tensor([[[1.4, 0.0, 0.3, -0.1], [0.9, 0.8, 0.1, 0.0]]]), p, 2)
        >>> bool(reduced(X, 2).allclose(p, atol=1e-4)), 0 <= float(X.min()) <= float(X.max()) <= 1
        (True, True)
    """
    X = X.clamp(0, 1)
    channels, height, width = p.shape
    wrong = (p - reduced(X, scale)).abs() > MISSING
    cells = X.view(channels, height, scale, width, scale).transpose(2, 3)
    blocks, wanted = cells[wrong], p[wrong][:, None, None]  # most of a photograph needs nothing
    for _ in range(ROUNDS):
        missing = wanted - blocks.mean((1, 2), keepdim=True)
        if not len(blocks) or float(missing.abs().max()) < MISSING / 10:
            break
        blocks = (blocks + missing).clamp_(0, 1)
    missing = (wanted - blocks.mean((1, 2), keepdim=True)).abs() > MISSING
    cells[wrong] = torch.where(missing, wanted, blocks)  # repeated pixels always agree
    return X
