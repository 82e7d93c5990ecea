"""Saying that something will not fit before it is allocated."""

from __future__ import annotations

from pathlib import Path


def free_memory() -> int | None:
    """Return the bytes that can still be allocated on this machine, or None where that cannot be found out."""
    try:
        for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    except (OSError, ValueError):
        pass
    return None


def require_memory(wanted: int, what: str, instead: str) -> None:
    """Raise ValueError where ``wanted`` bytes are more than is free.

    Example:
        >>> require_memory(10**18, "a very large matrix takes 1e9 GB", "take a smaller one")  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        ...
        ValueError: a very large matrix takes 1e9 GB, and ... GB are free: take a smaller one
    """
    free = free_memory()
    if free is not None and wanted > free:
        raise ValueError(f"{what}, and {free / 1e9:.1f} GB are free: {instead}")
