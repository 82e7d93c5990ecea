"""The noise level: a standard deviation on the [0, 1] scale, whatever the scale of the images."""

from __future__ import annotations


def check_noise_std(noise_std: float) -> None:
    """Raise ValueError for what is no standard deviation on the [0, 1] scale.

    Above 1 noise drowns every picture: such a number counts the 255 grey levels.

    Example:
        >>> check_noise_std(25)
        Traceback (most recent call last):
        ...
        ValueError: noise_std is on the [0, 1] scale, at least 0 and at most 1; 25 was given: 25/255 is meant?
    """
    if not 0 <= noise_std <= 1:
        meant = f": {noise_std:g}/255 is meant?" if 1 < noise_std <= 255 else ""
        raise ValueError(f"noise_std is on the [0, 1] scale, at least 0 and at most 1; {noise_std:g} was given{meant}")
