"""Conjugate gradients for A^+ y when an operator has no closed form."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from iagan_lightning.operators.modes import has_values


@torch.no_grad()
def solve_normal_equations(
    forward: Callable[[Tensor], Tensor],
    adjoint: Callable[[Tensor], Tensor],
    y: Tensor,
    max_iterations: int = 1000,
    damping: float = 0.0,
) -> Tensor:
    r"""Return the least-norm solution of :math:`\min_x |A x - y|^2 + \lambda |x|^2`, each item of the batch on its own.

    Conjugate gradients on :math:`(A^T A + \lambda) x = A^T y`, lambda being the damping, in the form of CGLS (Hestenes
    and Stiefel 1952). Started from zero, every iterate stays in the row space of A, so without damping the limit is
    :math:`A^+ y`. With eps the precision of y (2e-16 in float64, 1e-7 in float32), iterations end at
    :math:`|A^T (y - A x) - \lambda x| \le eps^{0.75} |A^T y|`.

    The size of y does not matter, and an item that is not finite becomes NaN; the others know nothing of it. Tensors
    without values (of a ``FakeTensorMode``, or on the meta device) go through one iteration.

    Raises:
        RuntimeError: where the result, its residual computed afresh, is worse than :math:`eps^{0.6}`.
    """
    eps = torch.finfo(y.dtype).eps
    unit, finite = _unit(y)
    y = y / _per_item(unit, y)
    residual = y
    gradient = adjoint(residual)
    x = torch.zeros_like(gradient)
    direction = gradient
    norm = start = _square(gradient)
    known = has_values(y)
    # Where y has nothing that A can give, or A^T is not its adjoint.
    if known and bool(((start == 0) & (_square(y) > 0)).any()):
        _require_adjoint(forward, adjoint, torch.ones_like(gradient))
    for _ in range(max_iterations if known else 1):
        active = norm > start * eps**1.5
        if known and not bool(active.any()):
            break
        image = forward(direction)
        # A finished item must not divide zero by zero, nor move on.
        step = torch.where(active, norm / (_square(image) + damping * _square(direction)), 0)
        x = x + _per_item(step, x) * direction
        residual = residual - _per_item(step, image) * image
        gradient = adjoint(residual) - damping * x
        new_norm = torch.where(active, _square(gradient), norm)
        direction = gradient + _per_item(torch.where(active, new_norm / norm, 0), gradient) * direction
        norm = new_norm
    # The recursion can drift away from the truth; the residual is computed afresh before it is believed.
    left = (_square(adjoint(y - forward(x)) - damping * x) / start.where(start > 0, 1)).sqrt()
    if known and not bool(((left <= eps**0.6) | ~finite).all()):
        raise RuntimeError(
            f"conjugate gradients left |A^T(y - Ax)| at {float(left[finite].max()):.1e} of |A^T y| after at most "
            f"{max_iterations} iterations: the operator is ill-conditioned, not linear, or has a wrong adjoint. "
            "Give it a pseudo_inverse of its own."
        )
    return torch.where(_per_item(finite, x), x * _per_item(unit, x), torch.nan)


def _unit(y: Tensor) -> tuple[Tensor, Tensor]:
    """Return a power of two near the largest number of each item, and whether the item is finite.

    In such units squares neither vanish nor overflow, and no digit changes.
    """
    largest = y.abs().flatten(1).amax(1)
    finite = largest.isfinite()
    exponent = largest.where(finite & (largest > 0), 1).log2().floor()
    least = math.log2(torch.finfo(y.dtype).tiny)
    return exponent.clamp(min=least).exp2(), finite


def _require_adjoint(forward: Callable[[Tensor], Tensor], adjoint: Callable[[Tensor], Tensor], x: Tensor) -> None:
    r"""Raise RuntimeError where :math:`A^T A x = 0` though :math:`A x \neq 0`: no adjoint of A gives that."""
    image = forward(x)
    if bool(((_square(image) > 0) & (_square(adjoint(image)) == 0)).any()):
        raise RuntimeError(
            "the adjoint of A x is zero although A x is not: the operator is not linear, or has a wrong adjoint"
        )


def _square(x: Tensor) -> Tensor:
    return x.abs().square().flatten(1).sum(1)


def _per_item(value: Tensor, like: Tensor) -> Tensor:
    return value.reshape(-1, *[1] * (like.ndim - 1))
