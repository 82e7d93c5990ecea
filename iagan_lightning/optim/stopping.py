"""Stopping rules as pure functions of objective values."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def noise_power(noise_std: float, is_complex: bool = False) -> float:
    r"""Return the objective that the truth itself is expected to have, where discrepancy stopping ends.

    With :math:`y = A x + e` and the objective :math:`|y - A x|^2 / m`, the noise alone gives
    :math:`(2\,\sigma)^2`, since sigma is on the [0, 1] scale and images span [-1, 1]; twice that for complex y,
    whose real and imaginary parts are both noisy. Fitting y more closely fits the noise (Morozov's principle).

    Example:
        >>> round(noise_power(10 / 255), 6)
        0.006151
    """
    return (2 * noise_std) ** 2 * (2 if is_complex else 1)


def reached_plateau(best: Sequence[Tensor], patience: int, tolerance: float) -> Tensor | bool:
    r"""Tell for each problem whether its best objective fell by less than ``tolerance`` over ``patience`` steps.

    Args:
        best: the lowest objective so far after each evaluation, oldest first, each of shape ``(B,)``.
        patience: number of evaluations to look back.
        tolerance: relative decrease that counts as progress.

    Example:
        >>> import torch
        >>> history = [torch.tensor([1.0, 1.0]), torch.tensor([0.5, 0.999])]
        >>> reached_plateau(history, patience=1, tolerance=0.01).tolist()
        [False, True]
    """
    if len(best) <= patience:
        return False
    return best[-1] > (1 - tolerance) * best[-1 - patience]


def better_half(best: Tensor, active: Tensor) -> Tensor:
    r"""Return which of several attempts at each problem go on: the better half of those still active (halving).

    Args:
        best: the lowest objective so far of every attempt, ``(B, S)``.
        active: which attempts are still made, ``(B, S)``.

    Source: Jamieson and Talwalkar, Non-stochastic Best Arm Identification, AISTATS 2016 (successive halving).

    Example:
        >>> import torch
        >>> best = torch.tensor([[3.0, 1.0, 2.0, 0.5]])
        >>> better_half(best, torch.tensor([[True, True, True, False]])).tolist()
        [[False, True, True, False]]
    """
    rank = best.masked_fill(~active | best.isnan(), torch.inf).argsort(1).argsort(1)
    return active & (rank < (active.sum(1, keepdim=True) + 1) // 2)
