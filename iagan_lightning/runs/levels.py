"""Noise levels as people write them; imports nothing, so that a wrong one is told of at once."""

from __future__ import annotations


def parse_fraction(noise_std: float | str) -> float:
    """Return a noise level given as a number or as a fraction.

    Raises:
        ValueError: for anything else.

    Example:
        >>> parse_fraction("10/255") == 10 / 255
        True
    """
    try:
        numerator, _, denominator = str(noise_std).partition("/")
        return float(numerator) / float(denominator or 1)
    except (ValueError, ZeroDivisionError):
        raise ValueError(
            f"noise_std is a standard deviation on the [0, 1] scale, such as 0.04 or 10/255, or unknown; "
            f"{noise_std!r} was given"
        ) from None
