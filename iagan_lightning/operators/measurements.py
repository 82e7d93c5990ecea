"""Measurements that somebody brings: are they of the shape and kind that A makes, and if not, what is the matter."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from iagan_lightning.operators.operator import Operator


def as_measurement(y: Tensor, A: Operator) -> Tensor:
    """Return one measurement as A makes it: of its shape, complex where A is, 0 where A measures nothing.

    What stands there, the paint over a damage perhaps, is no measurement: fitted, it would make the picture worse.
    Complex numbers may be stated as pairs of real and imaginary parts on a last axis of 2. The real part alone, or the
    absolute value, is refused: each fits some image, and not the one that was measured.

    Args:
        y: ``measurement_shape``, or for complex measurements real numbers ``(*measurement_shape, 2)``.
        A: the operator.

    Raises:
        ValueError: for another shape or kind, saying what is expected and what looks to be the matter.

    Example:
        >>> from iagan_lightning.operators import FourierSensing, Identity
        >>> as_measurement(torch.ones(1, 8, 2), FourierSensing((1, 4, 4), ratio=0.5)).dtype
        torch.complex64
        >>> as_measurement(torch.ones(4, 5, 3), Identity((3, 4, 5)))
        Traceback (most recent call last):
        ...
        ValueError: measurements of shape (4, 5, 3) were given, the operator makes (3, 4, 5): the channels come last...
    """
    y = join_parts(y, A)
    if tuple(y.shape) != A.measurement_shape:
        raise ValueError(misfit(tuple(y.shape), A.measurement_shape))
    if reason := wrong_kind(y.is_complex(), A):
        raise ValueError(reason)
    return A.measured(y[None])[0]


def join_parts(y: Tensor, A: Operator, axis: int = 0) -> Tensor:
    """Return pairs of real and imaginary parts as complex numbers, where A makes such; anything else as it is.

    Args:
        y: measurements.
        A: the operator.
        axis: where one measurement begins, 1 behind a batch axis.
    """
    pairs = tuple(y.shape[axis:]) == (*A.measurement_shape, 2)
    if pairs and not y.is_complex() and A.complex_valued:
        return torch.view_as_complex(y.contiguous())
    return y


def wrong_kind(is_complex: bool, A: Operator) -> str:
    """Return what is wrong with measurements that are real where A makes complex ones, or the other way round."""
    name = type(A).__name__
    if A.complex_valued and not is_complex:
        return (
            f"{name} makes complex measurements; real numbers were given. The real part or the absolute value does not "
            "tell the image: give complex numbers, or both parts as pairs on a last axis of 2"
        )
    if is_complex and not A.complex_valued:
        return f"{name} makes real measurements; complex numbers were given: give the part that was measured"
    return ""


def misfit(given: Sequence[int], wanted: Sequence[int | str]) -> str:
    """Return what was given, what is expected, and what looks to be the matter.

    Example:
        >>> misfit((1, 5), (5,))
        'measurements of shape (1, 5) were given, the operator makes (5,): a batch axis is in front, give y[0]'
        >>> misfit((48,), (3, "height", "width"))
        'measurements of shape (48,) were given, the operator makes (3, height, width)'
    """
    made = f"({', '.join(map(str, wanted))}{',' if len(wanted) == 1 else ''})"
    said = f"measurements of shape {tuple(given)} were given, the operator makes {made}"
    matter = likely_matter(tuple(given), tuple(wanted))
    return f"{said}: {matter}" if matter else said


def likely_matter(given: tuple[int, ...], wanted: tuple[int | str, ...], axis: int = 0) -> str:
    """Return what looks to be the matter with the shape of one measurement; empty where nothing does.

    Args:
        given: its shape.
        wanted: what A makes; words stand for any size.
        axis: where it begins in y, 1 behind a batch axis.
    """

    def fits(shape: tuple[int, ...], pattern: tuple[int | str, ...]) -> bool:
        pairs = zip(shape, pattern, strict=False)
        return len(shape) == len(pattern) and all(isinstance(b, str) or a == b for a, b in pairs)

    if fits(given[1:], wanted):
        if given[0] == 1:
            return "a batch axis is in front, give y[0]"
        if given[0] == 2:
            return f"two parts are in front, give real and imaginary ones on the last axis: np.moveaxis(y, {axis}, -1)"
        return f"a batch of {given[0]} is in front, give the measurements of each picture by themselves"
    if len(wanted) == 3 and fits(given, (*wanted[1:], wanted[0])):
        return f"the channels come last, give np.moveaxis(y, -1, {axis})"
    if len(wanted) == 3 and wanted[0] == 1 and fits(given, wanted[1:]):
        return f"the channel axis is missing, give np.expand_dims(y, {axis})"
    if len(wanted) == 3 and fits(given, wanted[1:]):
        return f"these are grey, and {wanted[0]} channels are measured"
    if len(wanted) > 1 and fits(given, (*wanted[:-2], wanted[-1], wanted[-2])):
        return "the last two axes are exchanged, give np.swapaxes(y, -2, -1)"
    if len(given) == len(wanted) + 1 and given[0] == 1 and (inner := likely_matter(given[1:], wanted, axis)):
        return f"a batch axis is in front (y[0] is without), and {inner}"
    numbers = [n for n in wanted if not isinstance(n, str)]
    if len(numbers) == len(wanted) and math.prod(given) == math.prod(numbers):
        return "there are as many numbers in other axes, reshape them in the order in which they were measured"
    return ""
