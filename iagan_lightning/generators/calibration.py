"""What was measured of a prior on pictures that it was not trained on."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

NEAR = 2.0  # how many times more or fewer numbers may be measured than in the nearest of those that were tried


@dataclass(frozen=True)
class Calibration:
    """Figures of a prior, by kind of measurements (``results.uncertainty.kind_of``).

    Attributes:
        factors: how many times larger the errors of the mean of two views are than their spread.
        unexplained: by how many numbers were measured, mean and standard deviation of the logarithm of what the prior
            alone leaves unexplained (``results.familiarity``).
    """

    factors: Mapping[str, float] = field(default_factory=dict)
    unexplained: Mapping[str, Mapping[int, tuple[float, float]]] = field(default_factory=dict)

    def typical(self, kind: str, measured: int) -> tuple[float, float] | None:
        """Return mean and standard deviation of what is left unexplained, interpolated; None far from what was tried.

        Example:
            >>> known = Calibration(unexplained={"Blur": {100: (-2.0, 0.2), 400: (-1.0, 0.4)}})
            >>> [round(figure, 6) for figure in known.typical("Blur", 200)]
            [-1.5, 0.3]
            >>> known.typical("Blur", 900), known.typical("Identity", 200)
            (None, None)
        """
        tried = self.unexplained.get(kind, {})
        if not tried or not min(tried) / NEAR <= measured <= max(tried) * NEAR:
            return None
        low = max((numbers for numbers in tried if numbers <= measured), default=min(tried))
        high = min((numbers for numbers in tried if numbers >= measured), default=max(tried))
        share = math.log(measured / low) / math.log(high / low) if low < measured < high else 0.0
        mean, std = (a + share * (b - a) for a, b in zip(tried[low], tried[high], strict=True))
        return mean, std
