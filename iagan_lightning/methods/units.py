"""The scale of the measurements, so that a fit does not depend on that of A. Pure torch."""

from __future__ import annotations

import torch
from torch import Tensor

from iagan_lightning.devices import has_float64

ORDINARY = 2.0**-7, 2.0**7  # powers |y|^2 / m with which optimisers work as they are
USUAL = 0.25  # of pictures in [-1, 1] and of measurements as large as they


def power(y: Tensor, m: int) -> tuple[Tensor, Tensor | None]:
    r"""Return the power :math:`|y|^2 / m` of each of B measurements, and the unit in which its objective is minimised.

    Tolerances of optimisers are absolute: L-BFGS ends at a small gradient, and Adam's eps drowns one. Gradients go with
    the square of A's scale, so an A of 1e-3 would end a fit before it has begun. An objective is minimised in units of
    its own, powers of four, by which no digit changes: A and y times 1 / 1024 take the path of A and y.

    Args:
        y: measurements ``(B, ...)``.
        m: number of measured entries.

    Returns:
        the powers ``(B,)``; the units ``(B,)``, or None where all are 1, as of measurements that are as large as
        pictures.

    Example:
        >>> power(torch.tensor([[0.5, 0.5]]), 2)
        (tensor([0.2500]), None)
        >>> power(torch.tensor([[0.5, 0.5], [0.001, 0.0]]), 2)[1].tolist() == [1.0, 4.0**-9]
        True
    """
    energy = y.abs().square().flatten(1).sum(1) / m
    wide = torch.float64 if has_float64(y.device) else torch.float32
    exact = y.abs().to(wide).square().flatten(1).sum(1) / m  # of y of 1e-20 float32 would have nothing left
    ordinary = (exact == 0) | ((exact >= ORDINARY[0]) & (exact <= ORDINARY[1]))
    if bool(ordinary.all()):
        return energy, None
    return exact, torch.where(ordinary, 1, 4 ** ((exact / USUAL).log2() / 2).round())
