"""What plain reconstructions of pictures look like: from these an encoder learns where a search for pictures begins."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor

SIGMAS = (0.0, 0.0, 0.02, 0.04, 0.1)  # noise levels, on the [0, 1] scale
SCALES = (2, 4, 4, 4, 8, 8)
WIDTHS = (5, 9, 13)  # of boxes that blur
RATIOS = (0.122, 0.3, 0.61)  # random projections per pixel

Choice = TypeVar("Choice", int, float)
Share = Callable[[Callable[[int], Tensor], int], Tensor]


def alone(draws: Callable[[int], Tensor], n: int) -> Tensor:
    """Return what is drawn for n pictures, which one process has for itself."""
    return draws(n)


def degraded(x: Tensor, draw: torch.Generator, share: Share = alone) -> Tensor:
    """Return what a plain reconstruction of pictures looks like, for a kind of measurements drawn at random.

    Of eight kinds, for all pictures the same: whole; some of the pixels; noise alone; blurred by a box; random
    projections; few frequencies, mostly low ones; made smaller and larger again, twice as often as the others.

    Args:
        x: pictures ``(n, C, H, W)`` in [-1, 1].
        draw: of all random numbers, on the CPU.
        share: which part of the numbers that are drawn for all pictures is this process's (``PriorTraining.share``).

    Example:
        >>> degraded(torch.zeros(2, 3, 16, 16), torch.Generator().manual_seed(0)).shape
        torch.Size([2, 3, 16, 16])
    """
    noise = share(lambda n: torch.randn(n, *x.shape[1:], generator=draw, dtype=torch.float32), len(x)).to(x)
    chance = share(lambda n: torch.rand(n, 1, *x.shape[2:], generator=draw, dtype=torch.float32), len(x)).to(x)
    kind, sigma = int(torch.randint(8, (), generator=draw)), _one_of(SIGMAS, draw)
    strength = float(torch.rand((), generator=draw, dtype=torch.float32))
    if kind == 0:
        return x
    if kind == 1:
        return noisy(x, sigma, noise) * (chance < 0.1 + 0.6 * strength)
    if kind == 2:
        return noisy(x, 0.25 * strength, noise)
    if kind == 3:
        width = min(_one_of(WIDTHS, draw), min(x.shape[-2:]) // 2 * 2 - 1)
        return noisy(F.avg_pool2d(F.pad(x, [width // 2] * 4, mode="circular"), width, 1), sigma, noise)
    if kind == 4:
        return projected(x, _one_of(RATIOS, draw), noise)
    if kind == 5:
        return noisy(_low_frequencies(x, strength, draw), sigma, noise)
    return enlarged(x, _one_of(SCALES, draw), sigma, noise)


def noisy(x: Tensor, sigma: float, noise: Tensor) -> Tensor:
    """Return pictures with noise, its standard deviation on the [0, 1] scale."""
    return x + 2 * sigma * noise[..., : x.shape[-2], : x.shape[-1]]


def projected(x: Tensor, ratio: float, noise: Tensor) -> Tensor:
    """Return pictures as random projections of so many numbers per pixel show them, by their mean and variance."""
    power = x.square().flatten(1).mean(1)[:, None, None, None]
    return ratio * x + (ratio * (1 - ratio) * power).sqrt() * noise


def enlarged(x: Tensor, factor: int, sigma: float, noise: Tensor) -> Tensor:
    """Return pictures made smaller and larger again, noise between."""
    small = F.interpolate(x, scale_factor=1 / factor, mode="bicubic", antialias=True)
    return F.interpolate(noisy(small, sigma, noise), size=x.shape[-2:], mode="bicubic")


def _low_frequencies(x: Tensor, strength: float, draw: torch.Generator) -> Tensor:
    """Return what few frequencies tell of pictures, mostly low ones; which are drawn on the CPU."""
    height, width = x.shape[-2:]
    down, across = torch.fft.fftfreq(height)[:, None], torch.fft.rfftfreq(width)[None]
    likely = torch.exp(-(down**2 + across**2).sqrt() / (0.05 + 0.25 * strength)) + 0.02
    kept = torch.rand(likely.shape, generator=draw, dtype=torch.float32) < likely
    return torch.fft.irfft2(torch.fft.rfft2(x) * kept.to(x.device), s=(height, width))


def _one_of(choices: Sequence[Choice], draw: torch.Generator) -> Choice:
    return choices[int(torch.randint(len(choices), (), generator=draw))]
