r"""Does the prior know this picture? From what it leaves unexplained of y by itself, before its weights adapt.

Beside the contrast of y and not beside y itself: every prior explains a plain colour, of which a dark sky is made.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from iagan_lightning.devices import in_float64
from iagan_lightning.operators import LinearOperator, Operator

# Unknown is what fewer than one in a hundred known pictures would be; without a calibration, what leaves more than the
# limit. From the middle of w a short search leaves more, which the weights explain.
RARE = 0.01
NOISE, ROUNDING = 0.1, 1e-10  # contrast that may be chance, beside what noise adds and beside |y|^2
LIMIT, LIMIT_BY_SPACE = 0.5, {"w": 0.9, "w+": 0.9}


@dataclass(frozen=True)
class Familiarity:
    """How well a prior explains a picture.

    Attributes:
        unexplained: part of the contrast of y that the prior alone leaves, see ``unexplained``.
        percentile: part of the pictures that the prior was calibrated on, in per cent, of which it leaves more; None
            without a calibration for such measurements.
        known: whether the prior knows such pictures.
    """

    unexplained: float
    percentile: float | None
    known: bool

    def record(self) -> dict[str, Any]:
        """Return what metrics.json says."""
        share = {} if self.percentile is None else {"percentile": round(self.percentile, 2)}
        return {"unexplained": self.unexplained, **share, "known": self.known}


def familiarity(left: float, typical: tuple[float, float] | None = None, space: str | None = "z") -> Familiarity:
    r"""Return how familiar a picture is that leaves so much unexplained.

    The logarithm of what known pictures leave is taken as normal: the percentile is
    :math:`100\,(1 - \Phi((\log u - \mu) / \sigma))`.

    Args:
        left: u, see ``unexplained``.
        typical: :math:`\mu` and :math:`\sigma` (``Calibration.typical``).
        space: latent space that was searched.

    Example:
        >>> familiarity(0.2, (math.log(0.2), 0.25)).percentile, familiarity(0.4, (math.log(0.2), 0.25)).known
        (50.0, False)
        >>> familiarity(0.4)
        Familiarity(unexplained=0.4, percentile=None, known=True)
    """
    if typical is None:
        return Familiarity(left, None, left <= LIMIT_BY_SPACE.get(str(space), LIMIT))
    mean, std = typical
    above = 0.5 * math.erfc((math.log(left) - mean) / std / math.sqrt(2)) if left > 0 else 1.0
    return Familiarity(left, 100 * above, above >= RARE)


@torch.no_grad()
def unexplained(x: Tensor, y: Tensor, operator: Operator, noise_std: float | None) -> Tensor:
    r"""Return what part of the contrast of y pictures leave unexplained, ``(B,)``; nan where y
    shows nothing but noise or one colour.

    .. math:: u^2 = \frac{|A x - y|^2 - v}{\min_c |A c - y|^2 - v}, \quad v = 4 \sigma^2 m,

    c over pictures of one colour, v what noise is expected to add (twice that for complex y). 0 where the picture fits
    as closely as noise allows. A that is not linear has 0 in place of A c.

    Args:
        x: pictures ``(B, C, H, W)`` in [-1, 1].
        y: measurements ``(B, *operator.measurement_shape)``.
        operator: A.
        noise_std: noise level of y on the [0, 1] scale; None, as 0, where it is unknown.

    Example:
        >>> from iagan_lightning.operators import Identity
        >>> y = torch.tensor([0.5, 0.7]).repeat(32).expand(1, 3, 8, 64) + 0.0
        >>> round(unexplained(y + 0.05, y, Identity((3, 8, 64)), 0.0).item(), 6)  # the contrast is .1
        0.5
    """
    A = operator
    noise = (2 * (noise_std or 0.0)) ** 2 * A.num_measurements * (2 if y.is_complex() else 1)
    left, contrast = _squares(A.difference(x, y)) - noise, _contrast(y, A) - noise
    share = (left.clamp(min=0) / contrast).sqrt()
    seen = contrast > torch.clamp(ROUNDING * _squares(y), min=NOISE * noise)
    return torch.where(seen, share, torch.full_like(share, torch.nan)).float().to(y.device)


def _contrast(y: Tensor, A: Operator) -> Tensor:
    """Return the squared distance of y from the measurements of the nearest picture of one colour, ``(B,)``."""
    if not isinstance(A, LinearOperator):
        return _squares(y)
    channels = A.image_shape[0]
    plain = torch.eye(channels, device=y.device, dtype=y.real.dtype)[:, :, None, None].expand(-1, *A.image_shape)
    columns = in_float64(_real(A(plain)))
    right = in_float64(_real(y)) @ columns.T
    coefficients = right @ torch.linalg.pinv(columns @ columns.T, hermitian=True)
    return (_squares(y) - (coefficients * right).sum(1)).clamp(min=0)


def _real(y: Tensor) -> Tensor:
    return (torch.view_as_real(y) if y.is_complex() else y).flatten(1)


def _squares(y: Tensor) -> Tensor:
    return in_float64(_real(y)).square().sum(1)
