r"""How sure a picture is, pixel by pixel: from the spread of its views.

Where views differ, y has left it open and each has guessed. Without noise back-projected views differ in the null space
of A alone, as do their errors. The spread is smaller than the error, because views share what the prior does not know:
by how much is measured once for each prior and kind of measurements (``Generator.calibration``).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

from iagan_lightning.methods.views import smoothed
from iagan_lightning.operators import Inpainting, Operator

SMOOTHING = 1.5 / 64  # standard deviation of the window, relative to the picture's height: errors come in patches
FLOOR = 0.005  # views may agree by chance, on the [0, 1] scale
KNOWN = 1e-5  # views that differ by less do so by rounding
AREAS = 0.25  # of the hidden pixels: at random .4 % of half of them lie within others, of a box of 20 x 20 four fifths
TYPICAL = 2.0  # of the factors of all priors and kinds that were measured
NINETY = 1.6449  # 90 % of a normal distribution lie within so many standard deviations


def spread(views: Tensor) -> Tensor:
    r"""Return by how much views of a picture differ, ``(B, 1, H, W)`` on the [0, 1] scale.

    .. math:: s = \sqrt{\frac{g * v}{g * m}\, m + 0.005^2}, \quad v = \tfrac1C \sum_c \mathrm{var}_v(x_v / 2),

    g a Gaussian window, the variance unbiased, m 1 where views differ at all and 0 where y tells the pixel itself.

    Args:
        views: ``(V, B, C, H, W)`` in [-1, 1], V at least 2.

    Example:
        >>> x = torch.zeros(1, 3, 32, 32)
        >>> spread(torch.stack([x, x + 0.2])).mean().item()  # the standard deviation of two is their distance / sqrt(2)
        0.0708...
    """
    variance = (views / 2).var(0).mean(1, keepdim=True)
    open_ = (variance > KNOWN**2).to(variance)
    std = SMOOTHING * views.shape[-2]
    smooth = smoothed(variance * open_, std) / smoothed(open_, std).clamp(min=1e-6)
    return (smooth * open_ + FLOOR**2).sqrt()


def factor_of(factor: float, views: int) -> float:
    r"""Return by what the spread of several views is multiplied, given the factor of two.

    With :math:`f^2` times the variance :math:`s^2` of a single view's own error, the mean of V has a common part
    :math:`c` and a :math:`V`-th of its own: :math:`f_V^2 s^2 = c + s^2 / V`.

    Example:
        >>> factor_of(2.0, 2), round(factor_of(2.0, 4), 3)
        (2.0, 1.936)
    """
    return math.sqrt(max(factor**2 - 1 / 2 + 1 / views, 1 / views))


def kind_of(operator: Operator, noise_std: float | None) -> str:
    """Return the kind of measurements, for which errors are alike.

    Of inpainting there are two: where pixels are missing here and there, and where whole areas are.

    Example:
        >>> from iagan_lightning.operators import Identity, Inpainting
        >>> kind_of(Identity((3, 8, 8)), 0.1), kind_of(Inpainting((3, 8, 8), box=[1, 1, 6, 6]), 0.0)
        ('Identity, noise', 'Inpainting, areas')
    """
    areas = ", areas" if isinstance(operator, Inpainting) and _in_areas(operator.mask) else ""
    return type(operator).__name__ + areas + ("" if noise_std == 0 else ", noise")


def _in_areas(mask: Tensor) -> bool:
    """Tell whether many of the pixels that a mask ``(..., H, W)`` hides have hidden ones all around."""
    hidden = (mask == 0).float().reshape(-1, 1, *mask.shape[-2:])
    around = -functional.max_pool2d(-functional.pad(hidden, (1, 1, 1, 1), value=1.0), 3, stride=1)
    return bool((around * hidden).sum() > AREAS * hidden.sum())


def coverage(x: Tensor, truth: Tensor, std: Tensor) -> Tensor:
    """Return the share of values that lie within the interval of 90 %, ``x +- 1.645 std``, ``(B,)``.

    Of pixels that y leaves open: those that it tells, of least std, are right without merit. 1 where none is open.

    Args:
        x, truth: ``(B, C, H, W)`` in [-1, 1].
        std: ``(B, 1, H, W)`` on the [0, 1] scale.

    Example:
        >>> truth = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0)) * 0.2
        >>> std = torch.full((1, 1, 64, 64), 0.1)
        >>> std[..., 0, 0] = 0.005  # measured
        >>> round(coverage(torch.zeros_like(truth), truth, std).item(), 2)
        0.9
    """
    inside = ((x - truth).abs() / 2 <= NINETY * std).float()
    left = (std > (1 + 1e-4) * std.flatten(1).amin(1)[:, None, None, None]).expand_as(inside)
    counted = left.flatten(1).sum(1)
    share = (inside * left).flatten(1).sum(1) / counted.clamp(min=1)
    return torch.where(counted > 0, share, torch.ones_like(share))
