"""Choices that have names: what is none of them is refused where it is given, not where it would be used.

A command line checks its options; settings that Python builds came through, and a rule that nobody knows was no rule.
Lowest of all modules.
"""

from __future__ import annotations

from typing import Any, Literal, get_args, get_origin, get_type_hints


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


def in_words(value: object) -> str:
    """Return a value as a message shows it: what is no number or text by its kind alone, a tensor is long.

    Example:
        >>> in_words("mirror"), in_words(None), in_words([1, 2])
        ("'mirror'", 'None', 'a list')
    """
    return repr(value) if isinstance(value, str | int | float | None) else f"a {type(value).__name__}"


def check_choices(settings: Any, of: str) -> None:
    """Raise ValueError where a dataclass holds a value that is none of its field's ``Literal``; None is left open.

    Args:
        settings: the dataclass.
        of: what it is about, for the message: ``stop of a stage``.
    """
    for name, allowed in _literals(type(settings)).items():
        if (value := getattr(settings, name)) is not None:
            check_choice(f"{name} {of}", value, allowed)


def _literals(kind: type) -> dict[str, tuple[object, ...]]:
    """The values of each field of a dataclass that allows nothing but those, and None."""
    found = {}
    for name, hint in get_type_hints(kind).items():
        parts = [hint] if get_origin(hint) is Literal else [part for part in get_args(hint) if part is not type(None)]
        if parts and all(get_origin(part) is Literal for part in parts):
            found[name] = tuple(value for part in parts for value in get_args(part))
    return found
