"""Colour to grey: the operator of colourisation."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from numbers import Real

import torch
from torch import Tensor

from iagan_lightning.operators.linear import LinearOperator

WEIGHTS = (0.299, 0.587, 0.114)  # ITU-R BT.601, as in most software


class Grayscale(LinearOperator):
    r"""Weighted sum of the channels, :math:`y = \sum_c w_c x_c`.

    Args:
        image_shape: ``(C, H, W)``.
        weights: one per channel; those of ITU-R BT.601 for three channels, the mean for any other number.

    Shapes: x ``(B, C, H, W)`` in [-1, 1] -> y ``(B, 1, H, W)``.

    Example:
        >>> A = Grayscale((3, 2, 2))
        >>> y = A(torch.ones(1, 3, 2, 2))
        >>> tuple(y.shape), bool(torch.allclose(A(A.pseudo_inverse(y)), y))
        ((1, 1, 2, 2), True)
    """

    weights: Tensor

    def __init__(self, image_shape: Sequence[int], weights: Sequence[float] | None = None) -> None:
        super().__init__(image_shape)
        channels, height, width = self.image_shape
        if weights is None:
            weights = WEIGHTS if channels == 3 else [1 / channels] * channels
        numbers = [float(w) for w in weights if isinstance(w, Real)] if isinstance(weights, Iterable) else []
        if not len(numbers) == channels == len(weights) or not any(numbers) or not all(map(math.isfinite, numbers)):
            raise ValueError(f"Grayscale needs {channels} finite weights, not all 0; {weights} was given")
        self.register_buffer("weights", torch.tensor(numbers, dtype=torch.float64, device="cpu"))
        self._measurement_shape = (1, height, width)

    def forward(self, x: Tensor) -> Tensor:
        """Return the grey image."""
        return torch.einsum("c,bchw->bhw", self.constant("weights", x), x)[:, None]

    def adjoint(self, y: Tensor) -> Tensor:
        """Return w_c y in every channel c."""
        y = self._check_measurement(y)
        return y * self.constant("weights", y)[:, None, None]

    def pseudo_inverse(self, y: Tensor, noise_std: float = 0.0) -> Tensor:
        r"""Return :math:`w\, y / |w|^2`."""
        del noise_std
        return self.adjoint(y) / self.constant("weights", y).square().sum()

    def naive(self, y: Tensor) -> Tensor:
        """Return the grey image in all channels."""
        return self._check_measurement(y).expand(-1, self.image_shape[0], -1, -1).contiguous()

    def extra_repr(self) -> str:
        """Return the settings that ``repr`` shows."""
        return f"image_shape={self.image_shape}, weights={self.weights.tolist()}"
