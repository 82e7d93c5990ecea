"""The noise level: a standard deviation on the [0, 1] scale, whatever the scale of the images."""

from __future__ import annotations

import math

from iagan_lightning.checks import in_words


def check_noise_std(noise_std: float, name: str = "noise_std") -> None:
    """Raise ValueError for what is no standard deviation on the [0, 1] scale.

    Above 1 noise drowns every picture: such a number counts the 255 grey levels.

    Args:
        noise_std: what was given.
        name: of what was given, for the message.

    Example:
        >>> check_noise_std(25)
        Traceback (most recent call last):
        ...
        ValueError: noise_std is on the [0, 1] scale, at least 0 and at most 1; 25 was given: 25/255 is meant?
    """
    try:
        level = math.nan if isinstance(noise_std, str | bool) else float(noise_std)
    except (TypeError, ValueError, RuntimeError):
        level = math.nan
    if math.isnan(level) and not isinstance(noise_std, float):
        raise ValueError(f"{name} is a number on the [0, 1] scale, such as 10 / 255; {in_words(noise_std)} was given")
    if not 0 <= level <= 1:
        meant = f": {level:g}/255 is meant?" if 1 < level <= 255 else ""
        raise ValueError(f"{name} is on the [0, 1] scale, at least 0 and at most 1; {level:g} was given{meant}")
