"""What is given for a setting: a value of the wrong kind is refused where it is given, not where it would be used.

A command line checks its options; settings that Python builds came through, and a rule that nobody knows was no rule.
Lowest of all modules.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache
from numbers import Integral, Real
from types import NoneType
from typing import Any, Literal, get_args, get_origin, get_type_hints

NUMBERS: dict[Any, tuple[type, str]] = {
    int: (Integral, "a whole number"),
    float: (Real, "a number"),
    bool: (bool, "True or False"),
}


def check_choice(name: str, value: object, allowed: Any) -> None:
    """Raise ValueError for a value that is not allowed.

    Args:
        name: of what was given, for the message.
        value: what was given.
        allowed: a ``Literal``, or the values themselves.

    Example:
        >>> check_choice("padding", "mirror", Literal["circular", "zero"])
        Traceback (most recent call last):
        ValueError: padding is one of circular, zero; 'mirror' was given
    """
    values = get_args(allowed) if get_origin(allowed) is Literal else tuple(allowed)
    if value not in values:
        raise ValueError(f"{name} is one of {', '.join(map(str, values))}; {in_words(value)} was given")


def check_number(name: str, value: object, kind: type = float) -> None:
    """Raise ValueError for a value that is no number of a kind: ``float`` (any real one), ``int`` or ``bool``.

    Example:
        >>> check_number("size", 1.5, int)
        Traceback (most recent call last):
        ValueError: size is a whole number; 1.5 was given
    """
    if not _is(value, kind):
        raise ValueError(f"{name} is {NUMBERS[kind][1]}; {in_words(value)} was given")


def check_integers(name: str, values: Any, parts: Sequence[str], lowest: int = 1) -> tuple[int, ...]:
    """Return whole numbers as Python's, or raise ValueError unless one is given for each of the parts.

    Example:
        >>> check_integers("size", [8, 3], ["height", "width"])
        (8, 3)
        >>> check_integers("size", (1.5, 3), ["height", "width"])
        Traceback (most recent call last):
        ValueError: size is (height, width), whole numbers from 1; (1.5, 3) was given
    """
    given = tuple(values) if isinstance(values, Iterable) else ()
    if len(given) != len(parts) or not all(_is(value, int) and value >= lowest for value in given):
        raise ValueError(f"{name} is ({', '.join(parts)}), whole numbers from {lowest}; {values} was given")
    return tuple(map(int, given))


def check_numbers(name: str, values: Any, parts: Sequence[str]) -> tuple[float, ...]:
    """Return finite numbers as Python's, or raise ValueError unless one is given for each of the parts.

    Example:
        >>> check_numbers("centre", [8, 3.5], ["x", "y"])
        (8.0, 3.5)
        >>> check_numbers("centre", 5, ["x", "y"])
        Traceback (most recent call last):
        ValueError: centre is (x, y), finite numbers; 5 was given
    """
    given = tuple(values) if isinstance(values, Iterable) else ()
    if len(given) != len(parts) or not all(_is(value, float) and math.isfinite(value) for value in given):
        raise ValueError(f"{name} is ({', '.join(parts)}), finite numbers; {values} was given")
    return tuple(map(float, given))


def check_seed(seed: Any) -> int:
    """Return a seed, NumPy's whole numbers and PyTorch's too, as Python's, or raise ValueError.

    Example:
        >>> check_seed(3)
        3
        >>> check_seed(1.5)
        Traceback (most recent call last):
        ValueError: seed is a whole number of at most 64 bits; 1.5 was given
    """
    try:
        number = None if isinstance(seed, bool) else operator.index(seed)
    except TypeError:
        number = None
    if number is None or not -(2**63) <= number < 2**64:
        raise ValueError(f"seed is a whole number of at most 64 bits; {in_words(seed)} was given")
    return number


def check_seeds(seeds: Any, count: int) -> list[int]:
    """Return a seed for each of several images as Python's integers, or raise ValueError.

    Args:
        seeds: a whole number s for s, s + 1, ..., or one for each image, NumPy's and PyTorch's among them.
        count: number of images.

    Example:
        >>> check_seeds(3, 2), check_seeds([5, 7], 2)
        ([3, 4], [5, 7])
        >>> check_seeds([5], 2)
        Traceback (most recent call last):
        ValueError: one seed per image is needed; 2 images came with 1 seed
    """
    plain = seeds.tolist() if hasattr(seeds, "tolist") else seeds
    if isinstance(plain, str) or not isinstance(plain, Iterable):
        first = check_seed(plain)
        return [first + i for i in range(count)]
    checked = [check_seed(seed) for seed in plain]
    if len(checked) != count:
        plural = "s" * (len(checked) != 1)
        raise ValueError(f"one seed per image is needed; {count} images came with {len(checked)} seed{plural}")
    return checked


def in_words(value: object) -> str:
    """Return a value as a message shows it: what is no number or text by its kind alone, a tensor is long.

    Example:
        >>> in_words("mirror"), in_words(None), in_words([1, 2])
        ("'mirror'", 'None', 'a list')
    """
    return repr(value) if isinstance(value, str | int | float | None) else f"a {type(value).__name__}"


def check_fields(settings: Any, of: str) -> None:
    """Raise ValueError where a field of a dataclass holds no number of its kind, or none of its choices.

    Args:
        settings: the dataclass.
        of: what it is about, for the message: ``steps of a stage is a whole number``.
    """
    for name, hint in _hints(settings.__class__).items():
        check_kind(f"{name} {of}", getattr(settings, name), hint)


def check_given(function: Callable[..., Any], given: Mapping[str, Any], prefix: str = "") -> None:
    """Raise ValueError where an argument of a function is no number of its kind, or none of its choices.

    Args:
        function: whose annotations say what is allowed.
        given: the arguments by their names, and whatever else (``locals()``).
        prefix: of the names, for the message.
    """
    for name, hint in _hints(function).items():
        if name in given:
            check_kind(f"{prefix}{name}", given[name], hint)


def check_kind(name: str, value: object, hint: Any) -> None:
    """Raise ValueError for a value that a hint of numbers, choices and None does not allow; others allow all.

    Example:
        >>> check_kind("images_per_fit", 2.5, int | Literal["auto"])
        Traceback (most recent call last):
        ValueError: images_per_fit is a whole number, or one of auto; 2.5 was given
    """
    parts = [hint] if get_origin(hint) is Literal else list(get_args(hint)) or [hint]
    kinds = [part for part in parts if part in NUMBERS]
    choices = [choice for part in parts if get_origin(part) is Literal for choice in get_args(part)]
    free = [part for part in parts if part not in NUMBERS and get_origin(part) is not Literal and part is not NoneType]
    if free or (value is None and NoneType in parts) or (isinstance(value, str) and value in choices):
        return
    if not kinds:
        check_choice(name, value, choices)
    elif not any(_is(value, kind) for kind in kinds):
        words = " or ".join(NUMBERS[kind][1] for kind in kinds)
        words += f", or one of {', '.join(map(str, choices))}" if choices else ""
        raise ValueError(f"{name} is {words}; {in_words(value)} was given")


_hints = cache(get_type_hints)  # they are text until then, and presets are many


def _is(value: object, kind: type) -> bool:
    return isinstance(value, NUMBERS[kind][0]) and (kind is bool or not isinstance(value, bool))
