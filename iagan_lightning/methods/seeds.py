"""Random numbers that depend on an image's seed and a purpose alone."""

from __future__ import annotations

import hashlib


def derived_seed(seed: int, purpose: str) -> int:
    """Return a seed for one purpose: no two of them, nor the noise drawn from the seed itself, share random numbers.

    Example:
        >>> derived_seed(0, "latent") == derived_seed(0, "latent"), derived_seed(0, "latent") == derived_seed(0, "dip")
        (True, False)
    """
    return int.from_bytes(hashlib.sha256(f"{purpose} {seed}".encode()).digest()[:7], "big")
