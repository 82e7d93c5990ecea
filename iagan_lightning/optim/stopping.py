"""Stopping rules as pure functions of objective values, or of the outputs themselves."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

import torch
from torch import Tensor

from iagan_lightning.devices import in_float64


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


def decreased(first: Tensor, best: Tensor, factor: float) -> Tensor:
    r"""Tell for each problem whether its best objective is at least ``factor`` times smaller than its first.

    Without noise the joint stage has no level to stop at. It begins with what the prior leaves unexplained; once
    little of that is left, back-projection supplies the rest, and further steps change the picture no more. How many
    steps that takes depends on the operator: more where many measurements constrain the image.

    Example:
        >>> import torch
        >>> decreased(torch.tensor([4.0, 4.0]), torch.tensor([1.0, 0.1]), factor=40).tolist()
        [False, True]
    """
    return best * factor <= first


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


def window_variance(total: Tensor, energy: Tensor, count: int) -> Tensor:
    r"""Return the variance of the last W outputs of each image, from sums over the window.

    :math:`\frac{1}{W} \sum_w |x_w - \bar x|^2 / n = \frac{1}{W} \sum_w |x_w|^2 / n - |\bar x|^2 / n`, so that a step
    costs one addition and one subtraction whatever W is. Give the sums in float64: large numbers are subtracted.

    Args:
        total: sum of the outputs in the window, ``(B, ...)``.
        energy: sum of their mean squares, ``(B,)``.
        count: W, the number of outputs in the window.

    Source: Wang et al., Early Stopping for Deep Image Prior, 2021 (arXiv:2112.06074), Eq. (3), per pixel.

    Example:
        >>> import torch
        >>> x = torch.tensor([[1.0], [3.0]], dtype=torch.float64)  # two outputs of one image of one pixel
        >>> window_variance(x.sum(0, keepdim=True), x.square().sum(0), 2).tolist()
        [1.0]
    """
    return (energy / count - (total / count).square().flatten(1).mean(1)).clamp_min(0)


class MovingVariance:
    """The last W outputs of a batch of images and the variance of each image over them.

    Args:
        window: W.

    Example:
        >>> import torch
        >>> variance = MovingVariance(2)
        >>> [variance.push(torch.tensor([[value]])) for value in (1.0, 3.0, 3.0)]
        [None, tensor([1.], dtype=torch.float64), tensor([0.], dtype=torch.float64)]
    """

    def __init__(self, window: int) -> None:
        self.window = window
        self._outputs: deque[Tensor] = deque()
        self._total: Tensor | None = None
        self._energy: Tensor | None = None

    def push(self, x: Tensor) -> Tensor | None:
        """Take the next outputs ``(B, ...)``; return the variances ``(B,)``, None while the window fills."""
        self._add(x, 1)
        self._outputs.append(x.clone())
        if len(self._outputs) > self.window:
            self._add(self._outputs.popleft(), -1)
        if len(self._outputs) < self.window:
            return None
        assert self._total is not None and self._energy is not None
        variance = window_variance(self._total, self._energy, self.window)
        return variance if variance.device == x.device else variance.float().to(x.device)

    def _add(self, x: Tensor, sign: int) -> None:
        x = in_float64(x)
        energy = x.square().flatten(1).mean(1)
        self._total = x * sign if self._total is None else self._total.add_(x, alpha=sign)
        self._energy = energy * sign if self._energy is None else self._energy + sign * energy
