"""Pictures as measurements: those of an image in [0, 1], brought to the scale of [-1, 1]."""

from __future__ import annotations

import torch
from torch import Tensor

from iagan_lightning.data.images import quantisation, read_image
from iagan_lightning.operators import LinearOperator, Operator
from iagan_lightning.safety import PictureFile


def from_picture(picture: Tensor, A: Operator) -> Tensor:
    r"""Return y ``(1, *A.measurement_shape)`` of a picture ``(C, h, w)`` in [-1, 1].

    A picture in [0, 1] is A applied to an image in [0, 1]; on [-1, 1] that is :math:`2 y - A(1)`.

    Raises:
        ValueError: where A is not linear, so that nothing follows from a picture.

    Example:
        >>> from iagan_lightning.operators import BicubicDownsampling
        >>> A = BicubicDownsampling((1, 8, 8), scale=4, padding="zero")  # A(1) is less than 1 at the borders
        >>> x = torch.full((1, 1, 8, 8), 0.5)
        >>> bool(torch.allclose(from_picture(A((x + 1) / 2)[0] * 2 - 1, A), A(x)))
        True
    """
    if not isinstance(A, LinearOperator):
        raise ValueError(
            "a picture is measured on [0, 1]; measurements on [-1, 1] follow from it for a linear operator only, and "
            f"{type(A).__name__} is none: give .pt or .npy, on its own scale"
        )
    return A.measured(picture[None] + 1 - A(torch.ones(1, *A.image_shape)))


def read_measurement(source: PictureFile, A: Operator) -> tuple[Tensor, float]:
    """Return y ``(1, *A.measurement_shape)`` of a picture and the standard deviation of its rounding, on [0, 1].

    Args:
        source: file, or an image of Pillow's.
        A: the operator that made it.

    Raises:
        OSError: for a file that is missing or no picture.
        ValueError: for a picture of another size than A makes, or where measurements are no pictures.
    """
    if len(A.measurement_shape) != 3 or A.measurement_shape[0] not in (1, 3):
        raise ValueError(
            f"the measurements of {type(A).__name__} are no pictures: give y as a tensor (batch, "
            f"{', '.join(map(str, A.measurement_shape))})"
        )
    channels, height, width = A.measurement_shape
    picture = read_image(source, channels)
    if tuple(picture.shape) != A.measurement_shape:
        raise ValueError(
            f"a picture of {picture.shape[2]} x {picture.shape[1]} pixels was given as y, and {type(A).__name__} makes "
            f"{width} x {height}: make the operator for it, or bring the picture to that size"
        )
    return from_picture(picture, A), quantisation(source)
