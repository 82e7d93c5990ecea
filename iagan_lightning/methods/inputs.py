"""What users hand over: arrays and tensors on the scale of this package."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from iagan_lightning.checks import in_words
from iagan_lightning.operators import Operator
from iagan_lightning.operators.measurements import join_parts, likely_matter, wrong_kind

BEYOND = 10.0  # no picture in [-1, 1] has such values, and hardly one of 0 ... 255 is without


def tensor_of(name: str, given: Any, finite: bool = True) -> Tensor:
    """Return measurements or images as a floating-point tensor of their own precision, at least float32.

    Args:
        name: what they are called in an error.
        given: a tensor or a NumPy array.
        finite: refuse values that are no numbers.

    Raises:
        ValueError: for whole numbers, which are a picture of 0 ... 255 almost surely; for what is not finite or not
            numbers at all.

    Example:
        >>> tensor_of("y", np.zeros((1, 3, 4, 4), np.float32)).dtype
        torch.float32
        >>> tensor_of("y", torch.zeros(1, 3, 4, 4, dtype=torch.uint8))
        Traceback (most recent call last):
        ...
        ValueError: y holds whole numbers (uint8); images are in [-1, 1] here: give x / 127.5 - 1 of a picture of 0 ...
    """
    if isinstance(given, np.ndarray):
        try:  # a copy: one that is reversed or read-only cannot be shared
            given = torch.from_numpy(np.array(given, given.dtype.newbyteorder("="), order="C"))
        except TypeError:
            raise ValueError(f"{name} is an array of numbers; one of {given.dtype} was given") from None
    if not isinstance(given, Tensor):
        raise ValueError(f"{name} is a tensor or a NumPy array; {type(given).__name__} was given")
    if not (given.is_floating_point() or given.is_complex()):
        kind = str(given.dtype).removeprefix("torch.")
        raise ValueError(
            f"{name} holds whole numbers ({kind}); images are in [-1, 1] here: give x / 127.5 - 1 of a picture of "
            "0 ... 255, and measurements of such images, A(x)"
        )
    full = given.to(torch.promote_types(given.dtype, torch.float32)).detach()
    if finite and not bool(full.isfinite().all()):
        raise ValueError(f"{name} has values that are infinite or not a number")
    return full


def require_operator(A: Any) -> Operator:
    """Return A.

    Raises:
        ValueError: for what is no operator.
    """
    if not isinstance(A, Operator):
        raise ValueError(
            f"A is an operator, such as BicubicDownsampling((3, 64, 64), scale=4); {in_words(A)} was given"
        )
    return A


def measurements_of(y: Any, A: Operator) -> Tensor:
    """Return measurements of several images, ``(B, *measurement_shape)``, as A makes them: 0 where it measures nothing.

    Raises:
        ValueError: for what is none, saying what is expected and what looks to be the matter.

    Example:
        >>> from iagan_lightning.operators import Identity
        >>> measurements_of(torch.zeros(3, 4, 4), Identity((3, 4, 4)))
        Traceback (most recent call last):
        ...
        ValueError: y must have shape (batch, 3, 4, 4); (3, 4, 4) was given (for one image add a batch axis: y[None])
    """
    y = join_parts(tensor_of("y", y), require_operator(A), axis=1)
    if tuple(y.shape[1:]) != A.measurement_shape or len(y) == 0:
        alone = "for one image add a batch axis: y[None]"
        single = not len(y) or tuple(y.shape) == A.measurement_shape
        matter = "" if single else likely_matter(tuple(y.shape[1:]), A.measurement_shape, axis=1)
        raise ValueError(
            f"y must have shape (batch, {', '.join(map(str, A.measurement_shape))}); {tuple(y.shape)} was given "
            f"({matter or alone})"
        )
    if reason := wrong_kind(y.is_complex(), A):
        raise ValueError(f"y: {reason}")
    return A.measured(y)


def truths_of(truth: Any, count: int, A: Operator) -> Tensor:
    """Return true images, ``(count, C, H, W)``, one for each measurement.

    Raises:
        ValueError: for another shape, and for another scale.

    Example:
        >>> from iagan_lightning.operators import Identity
        >>> truths_of(np.full((1, 3, 4, 4), 255.0), 1, Identity((3, 4, 4)))
        Traceback (most recent call last):
        ...
        ValueError: truth has values up to 255; images are in [-1, 1] here: give x / 127.5 - 1 of a picture of 0 ... 255
    """
    truth = tensor_of("truth", truth)
    if truth.shape != (count, *A.image_shape):
        raise ValueError(
            f"truth must have shape ({count}, {', '.join(map(str, A.image_shape))}), an image for each of y; "
            f"{tuple(truth.shape)} was given"
        )
    if (largest := float(truth.abs().max())) > BEYOND:
        raise ValueError(
            f"truth has values up to {largest:.4g}; images are in [-1, 1] here: give x / 127.5 - 1 of a picture of "
            "0 ... 255"
        )
    return truth


def images_of(x: Any, A: Operator) -> Tensor:
    """Return reconstructions, ``(B, C, H, W)``; values of any size and none are theirs to have.

    Raises:
        ValueError: for another shape, and for whole numbers.
    """
    x = tensor_of("x", x, finite=False)
    if tuple(x.shape[1:]) != A.image_shape or len(x) == 0:
        raise ValueError(f"x must have shape (batch, {', '.join(map(str, A.image_shape))}); {tuple(x.shape)} was given")
    return x
