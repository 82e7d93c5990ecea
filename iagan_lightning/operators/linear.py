"""Linear operators: adjoint, pseudo-inverse and back-projection, with working defaults for all of them.

A subclass writes ``forward``. Without ``adjoint`` it gets one by automatic differentiation, without
``pseudo_inverse`` one by conjugate gradients whose residual is checked.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from iagan_lightning.operators.conjugate_gradients import solve_normal_equations
from iagan_lightning.operators.linear_map import LinearMap
from iagan_lightning.operators.operator import Operator


class LinearOperator(Operator):
    r"""A linear map :math:`y = A x` from images to measurements.

    The inner product of complex measurements is :math:`\mathrm{Re}\langle\cdot,\cdot\rangle`, so ``adjoint`` and
    ``pseudo_inverse`` return real images.

    Args:
        image_shape: ``(C, H, W)`` of the images that the operator takes.

    Example:
        >>> class Mirror(LinearOperator):
        ...     def forward(self, x):
        ...         return x.flip(-1)
        >>> A = Mirror((1, 2, 2))
        >>> x = torch.arange(4.0).reshape(1, 1, 2, 2)
        >>> bool(A.pseudo_inverse(A(x)).allclose(x))
        True
    """

    def adjoint(self, y: Tensor) -> Tensor:
        r"""Return :math:`A^T y`, here by differentiating :math:`\mathrm{Re}\langle y, A x\rangle` with respect to x.

        Exact for every linear ``forward`` that PyTorch can differentiate; a subclass with a closed form is faster.
        """
        y = self._check_measurement(y)

        def apply(y: Tensor) -> Tensor:
            return self.vjp(torch.zeros(len(y), *self.image_shape, device=y.device), y)

        def product(y: Tensor, x: Tensor) -> Tensor:
            return _inner(self(x), y)

        return LinearMap(apply, self.__call__, self._trained, product, twice=True)(y)

    def pseudo_inverse(self, y: Tensor, noise_std: float = 0.0) -> Tensor:
        r"""Return :math:`A^+ y`, the image of least norm among those that fit y best, by conjugate gradients.

        Args:
            y: measurements ``(B, *measurement_shape)``.
            noise_std: noise level on the [0, 1] scale, for operators whose pseudo-inverse is regularised. This one
                is not.

        Raises:
            ValueError: for a noise_std that is no number from 0 to 1.
            RuntimeError: where the iterations did not reach the accuracy of the precision in use, which means that
                A is too ill-conditioned for an unregularised inverse, not linear, or has a wrong adjoint.
        """
        del noise_std
        return self._solved(self._check_measurement(y))

    def _solved(self, v: Tensor, damping: float = 0.0, transposed: bool = False) -> Tensor:
        r"""Return :math:`(A^T A + \lambda)^{-1} A^T y` by conjugate gradients, A^+ y without damping.

        Differentiable: the transpose, :math:`(A A^T + \lambda)^{-1} A x`, is the same problem with A and A^T exchanged.
        """

        def inverse(y: Tensor) -> Tensor:
            return solve_normal_equations(self, self.adjoint, y, damping=damping)

        def inverse_transposed(x: Tensor) -> Tensor:
            return solve_normal_equations(self.adjoint, self, x, damping=damping)

        def product(y: Tensor, x: Tensor) -> Tensor:
            # The derivative of A^+ by that of A (Golub and Pereyra 1973), or of the damped equations.
            with torch.no_grad():
                inverted, u = inverse(y), inverse_transposed(x)
                residual = y - self(inverted)
                w = (x - self.adjoint(u)) / damping if damping else inverse(u)
            value = _inner(self(w), residual) - _inner(self(inverted), u)
            if damping:
                return value
            with torch.no_grad():
                null, back = x - inverse(self(x)), inverse_transposed(inverted)
            return value + _inner(self(null), back)

        return LinearMap(
            inverse_transposed if transposed else inverse,
            lambda g: self._solved(g, damping, not transposed),
            self._trained,
            (lambda x, y: product(y, x)) if transposed else product,
        )(v)

    def _trained(self) -> list[Tensor]:
        return [p for p in self.parameters() if p.requires_grad]

    def naive(self, y: Tensor) -> Tensor:
        """Return the plain reconstruction that results are compared with; here A^+ y, or A^T y where that fails."""
        try:
            return self.pseudo_inverse(y)
        except RuntimeError:  # conjugate gradients on an ill-conditioned operator
            return self.adjoint(y)

    def back_project(self, x_hat: Tensor, y: Tensor, noise_std: float = 0.0) -> Tensor:
        r"""Return :math:`\hat x + A^+ (y - A \hat x)`, the image nearest to x_hat that agrees with y.

        With ``noise_std`` agreement is only wanted up to the noise: the step is :math:`t A^+ (y - A \hat x)`, A^+
        regularised for that noise, with the least t in [0, 1] at which the residual's mean square reaches the noise's
        (or comes nearest to it). An image that is already as near as that is left alone.

        Args:
            x_hat: images ``(B, C, H, W)``.
            y: measurements ``(B, *measurement_shape)``.
            noise_std: standard deviation of the noise in y on the [0, 1] scale.

        Raises:
            ValueError: for a noise_std that is no number from 0 to 1.

        Source: Abu Hussein, Tirer and Giryes, AAAI 2020, Eq. (10).
        """
        residual = self._check_measurement(y) - self(x_hat)
        step = self.pseudo_inverse(residual, noise_std)
        if noise_std == 0:
            return x_hat + step
        # |residual - t A step|^2 is a parabola in t; its first crossing of the noise's energy is wanted.
        moved = self(step)
        a, c = _energy(moved), _energy(residual)
        b = (residual.conj() * moved).real.flatten(1).sum(1)
        allowed = self.num_measurements * (2 * noise_std) ** 2 * (2 if y.is_complex() else 1)
        best = b / a.clamp(min=torch.finfo(a.dtype).tiny)
        t = best - (best.square() - (c - allowed) / a.clamp(min=torch.finfo(a.dtype).tiny)).clamp(min=0).sqrt()
        t = torch.where(c <= allowed, 0, t).clamp(0, 1)
        return x_hat + t.reshape(-1, 1, 1, 1) * step

    def back_project_rounded(self, x_hat: Tensor, y: Tensor, quantisation: float) -> Tensor:
        """Return the back-projection for measurements that were rounded, and are exact otherwise.

        That is ``back_project`` itself, but for operators that would amplify the rounding (``Blur``).

        Args:
            x_hat: images ``(B, C, H, W)``.
            y: measurements ``(B, *measurement_shape)``.
            quantisation: standard deviation of the rounding, on the [0, 1] scale: of 8 bits 1 / 255 / sqrt(12).

        Raises:
            ValueError: for a quantisation that is no number from 0 to 1.
        """
        del quantisation
        return self.back_project(x_hat, y)


def _inner(a: Tensor, b: Tensor) -> Tensor:
    return (a * b.conj()).real.sum()


def _energy(y: Tensor) -> Tensor:
    return y.abs().square().flatten(1).sum(1)


def bicubic_upsampling(y: Tensor, size: tuple[int, int]) -> Tensor:
    """Plain bicubic interpolation of pictures to ``size``, as image viewers do it."""
    return F.interpolate(y, size=size, mode="bicubic", align_corners=False)
