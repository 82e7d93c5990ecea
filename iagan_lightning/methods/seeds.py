"""Random numbers that depend on an image's seed and a purpose alone."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager

import torch


def derived_seed(seed: int, purpose: str) -> int:
    """Return a seed for one purpose: no two of them, nor the noise drawn from the seed itself, share random numbers.

    Example:
        >>> derived_seed(0, "latent") == derived_seed(0, "latent"), derived_seed(0, "latent") == derived_seed(0, "dip")
        (True, False)
    """
    return int.from_bytes(hashlib.sha256(f"{purpose} {seed}".encode()).digest()[:7], "big")


@contextmanager
def the_same_everywhere() -> Iterator[None]:
    """Let random numbers be drawn on the CPU and in float32, so that a seed means the same in any precision.

    Example:
        >>> torch.set_default_dtype(torch.float64)
        >>> with the_same_everywhere():
        ...     drawn = torch.rand(2)
        >>> torch.set_default_dtype(torch.float32)
        >>> drawn.dtype
        torch.float32
    """
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float32)
    try:
        with torch.device("cpu"):
            yield
    finally:
        torch.set_default_dtype(before)
