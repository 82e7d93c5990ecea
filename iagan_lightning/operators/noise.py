"""The noise level: a standard deviation on the [0, 1] scale, whatever the scale of the images."""

from __future__ import annotations

from iagan_lightning.checks import check_number


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
    check_number(name, noise_std)
    if not 0 <= noise_std <= 1:
        meant = f": {noise_std:g}/255 is meant?" if 1 < noise_std <= 255 else ""
        raise ValueError(f"{name} is on the [0, 1] scale, at least 0 and at most 1; {noise_std:g} was given{meant}")
