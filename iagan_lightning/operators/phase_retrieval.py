"""Measurements that have lost their phase: the modulus of a linear operator's."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from iagan_lightning.checks import check_choice, check_seed
from iagan_lightning.operators.fourier import FourierSensing
from iagan_lightning.operators.gaussian import number_of_measurements
from iagan_lightning.operators.memory import require_memory
from iagan_lightning.operators.operator import Operator

Kind = Literal["gaussian", "fourier"]


class PhaseRetrieval(Operator):
    r"""Phase retrieval, :math:`y = |B x|` for a complex linear B. Not linear: x and -x give the same y.

    ``kind="gaussian"`` draws B with independent complex entries, :math:`N(0, 1/2m)` on both parts, so that
    :math:`|y|^2 \approx |x|^2`. ``kind="fourier"`` is the modulus of each channel's orthonormal Fourier transform at
    random frequencies; it also loses where the image lies and whether it is turned upside down, so that a search may
    end at either.

    Searches from a single start often end in a wrong image that explains y almost as well: use several,
    ``Stage(restarts=8)``.

    Args:
        image_shape: ``(C, H, W)``; n = C H W.
        ratio: m / n.
        seed: of B, drawn on the CPU.
        kind: ``"gaussian"`` or ``"fourier"``.

    Shapes: x ``(B, C, H, W)`` in [-1, 1] -> y ``(B, m)`` (gaussian) or ``(B, C, K)`` (fourier), at least 0.

    Raises:
        ValueError: for a ratio outside (0, 1], or a matrix that does not fit memory.

    Source: Hand, Leong and Voroninski, Phase Retrieval Under a Generative Prior, NeurIPS 2018.

    Example:
        >>> A = PhaseRetrieval((3, 8, 8), ratio=0.5)
        >>> x = torch.rand(1, 3, 8, 8) * 2 - 1
        >>> tuple(A(x).shape), bool(torch.allclose(A(x), A(-x))), bool(torch.allclose(A(2 * x), A(x)))
        ((1, 96), True, False)
    """

    compressed_sensing = True

    def __init__(self, image_shape: Sequence[int], ratio: float = 0.5, seed: int = 0, kind: Kind = "gaussian") -> None:
        super().__init__(image_shape)
        check_choice("kind", kind, Kind)
        self.ratio, self.seed, self.kind = ratio, seed, kind
        n = math.prod(self.image_shape)
        if kind == "fourier":
            self.transform = FourierSensing(self.image_shape, ratio=ratio, seed=seed)
            return
        m = number_of_measurements(ratio, n)
        what = f"a complex matrix of {m} x {n} for images of {self.image_shape} takes {16e-9 * m * n:.1f} GB"
        require_memory(16 * m * n, what, 'choose kind="fourier", a smaller ratio, or smaller images')
        draw = torch.Generator().manual_seed(check_seed(seed))
        parts = torch.randn(m, n, 2, generator=draw, dtype=torch.float64, device="cpu") / math.sqrt(2 * m)
        # Real parts above imaginary ones: one product, and no copy of the matrix in each evaluation.
        self.register_buffer("matrix", parts.permute(2, 0, 1).reshape(2 * m, n))

    def forward(self, x: Tensor) -> Tensor:
        """Return |B x|."""
        if self.kind == "fourier":
            return self.transform(x).abs()
        parts = (x.flatten(1) @ self.constant("matrix", x).T).unflatten(1, (2, -1))
        # The derivative of a modulus at 0 does not exist; that of this is 0.
        return (parts.square().sum(1) + torch.finfo(x.dtype).tiny).sqrt()

    @property
    def measurement_shape(self) -> tuple[int, ...]:
        """Shape of one measurement, without the batch axis."""
        if self.kind == "fourier":
            return self.transform.measurement_shape
        return (len(self.get_buffer("matrix")) // 2,)

    def _scores(self, draw: torch.Generator) -> Tensor:
        # |X(k)| is |X(-k)|: kept back alone, an entry would be told by its twin.
        return self.transform._scores(draw) if self.kind == "fourier" else super()._scores(draw)

    def extra_repr(self) -> str:
        """Return the settings that ``repr`` shows."""
        return f"image_shape={self.image_shape}, ratio={self.ratio}, seed={self.seed}, kind={self.kind!r}"
