"""The operators of a run: made for each size of picture once, a task's defaults filled in, checked."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any

from iagan_lightning.data import OperatorFactory
from iagan_lightning.operators import LinearOperator, Operator
from iagan_lightning.operators.checks import require_linear


class Operators:
    """Makes the operator of a picture; one serves all of a size, since building one can cost more than using it.

    A task's defaults count where the user gave neither them nor what replaces them. They are no defaults of the options
    themselves: a low-resolution picture of one's own sets the size, for example, and only a scale that the user gave
    can contradict it.

    Args:
        factory: called with an ``image_shape`` and settings, returns an operator.
        given: settings that the user could give, None where they are left open.
        defaults: the task's.
        instead: settings that make them needless.

    Example:
        >>> from iagan_lightning.operators import BicubicDownsampling
        >>> operators = Operators(BicubicDownsampling, {"scale": None, "size": None}, {"scale": 4}, ["size"])
        >>> operators((3, 16, 16)).measurement_shape, operators((3, 16, 16)) is operators((3, 16, 16))
        ((3, 4, 4), True)
        >>> operators((3, 16, 16), size=(5, 7)).measurement_shape
        (3, 5, 7)
    """

    def __init__(
        self,
        factory: OperatorFactory,
        given: Mapping[str, Any] | None = None,
        defaults: Mapping[str, Any] | None = None,
        instead: Sequence[str] = (),
    ) -> None:
        given = given or {}
        usable = {key: value for key, value in (defaults or {}).items() if key in given}
        stated = any(given.get(key) is not None for key in (*usable, *instead))
        self.factory, self.defaults = factory, {} if stated else usable
        self._made = functools.lru_cache(maxsize=4)(self._make)

    def __reduce__(self) -> tuple[Any, ...]:
        """Leave what has been made behind: it is made again where it is needed."""
        return _operators, (self.factory, self.defaults)

    def __call__(self, image_shape: tuple[int, int, int], **settings: Any) -> Operator:
        """Return the operator for images of a shape.

        Raises:
            ValueError: for settings that do not fit, and for a linear operator that is not linear.
        """
        return self._made(image_shape, **settings)

    def _make(self, image_shape: tuple[int, int, int], **settings: Any) -> Operator:
        A = build(self.factory, image_shape, **(settings or self.defaults))
        if isinstance(A, LinearOperator):
            require_linear(A)
        return A


def _operators(factory: OperatorFactory, defaults: Mapping[str, Any]) -> Operators:
    return Operators(factory, dict.fromkeys(defaults), defaults)


def build(factory: OperatorFactory, image_shape: tuple[int, int, int], **settings: Any) -> Operator:
    """Return the operator that a factory makes for images of a shape: the one place where commands make one.

    Raises:
        ValueError: for settings that do not fit, and whatever else goes wrong in a user's own class.

    Example:
        >>> from iagan_lightning.operators import Identity
        >>> build(Identity, (3, 8, 8), scale=2)
        Traceback (most recent call last):
        ...
        ValueError: no operator for images of (3, 8, 8): Operator.__init__() got an unexpected keyword argument 'scale'
    """
    try:
        A = factory(image_shape, **settings)
    except (ValueError, OSError):
        raise
    except Exception as error:  # a user's own class can raise whatever it likes
        kind = "" if isinstance(error, TypeError | RuntimeError) else f"{type(error).__name__}: "
        raise ValueError(f"no operator for images of {image_shape}: {kind}{error}") from error
    if not isinstance(A, Operator):
        raise ValueError(f"no operator for images of {image_shape}: {type(A).__name__} is not one")
    if A.image_shape != image_shape:
        raise ValueError(f"no operator for images of {image_shape}: {type(A).__name__} takes those of {A.image_shape}")
    return A
