"""The identity: denoising, and how well a generator can show a picture at all."""

from __future__ import annotations

from torch import Tensor

from iagan_lightning.operators.linear import LinearOperator


class Identity(LinearOperator):
    r"""Measure every pixel: :math:`A = I`, so :math:`A^T = A^+ = I`.

    Shapes: images ``(B, C, H, W)`` -> ``(B, C, H, W)``.

    Example:
        >>> import torch
        >>> A = Identity((3, 4, 4))
        >>> x = torch.rand(1, 3, 4, 4)
        >>> torch.equal(A.pseudo_inverse(A(x)), x)
        True
    """

    def forward(self, x: Tensor) -> Tensor:
        """Return x."""
        return x

    def adjoint(self, y: Tensor) -> Tensor:
        """Return a copy of y."""
        return self._check_measurement(y).clone()

    def pseudo_inverse(self, y: Tensor, noise_std: float = 0.0) -> Tensor:
        """Return a copy of y."""
        del noise_std
        return self._check_measurement(y).clone()
