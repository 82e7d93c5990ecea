"""What is given for a setting: a value of the wrong kind is refused where it is given, not where it would be used.

A command line checks its options; settings that Python builds came through, and a rule that nobody knows was no rule.
Lowest of all modules.
"""

from __future__ import annotations

from numbers import Integral, Real
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


def in_words(value: object) -> str:
    """Return a value as a message shows it: what is no number or text by its kind alone, a tensor is long.

    Example:
        >>> in_words("mirror"), in_words(None), in_words([1, 2])
        ("'mirror'", 'None', 'a list')
    """
    return repr(value) if isinstance(value, str | int | float | None) else f"a {type(value).__name__}"


def check_fields(settings: Any, of: str) -> None:
    """Raise ValueError where a field of a dataclass holds no number of its kind, or none of its choices.

    Fields of other kinds, and None where it is allowed, are left to others.

    Args:
        settings: the dataclass.
        of: what it is about, for the message: ``steps of a stage is a whole number``.
    """
    for name, hint in get_type_hints(type(settings)).items():
        value = getattr(settings, name)
        kinds = [hint] if get_origin(hint) is Literal else list(get_args(hint)) or [hint]
        if value is None and type(None) in kinds:
            continue
        kinds = [kind for kind in kinds if kind is not type(None)]
        if all(get_origin(kind) is Literal for kind in kinds):
            check_choice(f"{name} {of}", value, [choice for kind in kinds for choice in get_args(kind)])
        elif len(kinds) == 1 and kinds[0] in NUMBERS:
            kind, words = NUMBERS[kinds[0]]
            if not isinstance(value, kind) or (isinstance(value, bool) and kinds[0] is not bool):
                raise ValueError(f"{name} {of} is {words}; {in_words(value)} was given")
