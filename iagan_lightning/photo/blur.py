r"""The blur of a photograph at a face, and its width where nobody knows it: the one with which the prior explains most.

A Gaussian is the same in every direction, so blurring the prior's picture and then scaling, turning and averaging it is
blurring what the photograph's pixels are averages of: ``Composition`` of ``Blur`` and ``Similarity``.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from iagan_lightning.generators import Generator
from iagan_lightning.methods import CSGM, Stage
from iagan_lightning.methods.fit import Init
from iagan_lightning.operators import Blur, Composition, LinearOperator, Similarity
from iagan_lightning.reconstruction import reconstruct

REACH = 3.0  # standard deviations to which a kernel reaches
LEAST = 0.3  # pixels of the prior's picture: less blur is none
WIDEST = 20.0  # pixels of the photograph: no face of some 100 pixels is seen through more
WIDTHS = (0.0, 0.6, 1.2, 1.8, 2.4, 3.2, 4.5)  # that are tried, in pixels of the photograph
STEPS = 30  # evaluations for each
# What is lowest lies at 0.58, 1.24 and 2.05 pixels for blurs of 0.8, 1.6 and 2.4 (three faces of 32 pixels, faces64): a
# search this short explains smooth faces best.
SHORT = 0.3


def check_blur(width: float) -> None:
    """Raise ValueError for what is no width of a blur."""
    if not 0 <= width <= WIDEST:
        raise ValueError(
            f"blur is the standard deviation of a Gaussian in pixels of the photograph, from 0 to {WIDEST:.0f}, or "
            f"auto; {width:g} was given"
        )


def blurred(A: Similarity, width: float) -> LinearOperator:
    """Return A of a picture that has been blurred, by so many pixels of the photograph (standard deviation).

    Example:
        >>> A = Similarity((3, 32, 32), size=(16, 16))
        >>> type(blurred(A, 0.0)).__name__, type(blurred(A, 1.0)).__name__
        ('Similarity', 'Composition')
    """
    std, size = width * A.image_shape[2] / A.side, min(A.image_shape[1:])
    if std < LEAST:
        return A
    reach = min(math.ceil(REACH * std), (size - 1) // 2)
    blur = Blur(A.image_shape, "gaussian", size=2 * reach + 1, std=std, padding="replicate")
    return Composition(A.image_shape, [blur, A])


def blur_width(y: Tensor, A: Similarity, generator: Generator, noise_std: float, **settings: Any) -> float:
    """Return the standard deviation of the blur of a face, in pixels of the photograph.

    Of several widths the one is taken with which the prior alone, its weights fixed, comes nearest to y, and what it
    is too small by is added, measured once: on three other faces blurs of 0.8 and 1.6 come out within some 0.1 pixels.

    Args:
        y: the measured pixels, ``(1, 3, h, w)`` in [-1, 1].
        A: from the prior's picture to them, without blur.
        generator: the prior.
        noise_std: of y, on the [0, 1] scale.
        **settings: further arguments of ``reconstruct``.
    """
    init: Init | None = "encoder" if generator.encoder is not None else None
    method = CSGM(generator, latent=Stage(steps=STEPS, stop="never"), init=init)
    errors = []
    for width in WIDTHS:
        result = reconstruct(y, blurred(A, width), method, noise_std, back_projection=False, **settings)
        errors.append(float(result.misfit["latent"][0]))
    width = lowest(WIDTHS, errors)
    return width + SHORT if width > 0 else 0.0


def lowest(places: tuple[float, ...], values: list[float]) -> float:
    """Return where a curve through points is lowest: in the middle of three, of the parabola through them.

    Example:
        >>> round(lowest((0.0, 1.0, 2.0, 4.0), [(x - 1.3) ** 2 for x in (0.0, 1.0, 2.0, 4.0)]), 6)
        1.3
    """
    at = min(range(len(values)), key=values.__getitem__)
    if at in (0, len(values) - 1):
        return places[at]
    points = torch.tensor(places[at - 1 : at + 2], dtype=torch.float64)
    a, b, _ = torch.linalg.solve(
        points[:, None] ** torch.tensor([2, 1, 0]), torch.tensor(values[at - 1 : at + 2]).double()
    )
    return float(-b / (2 * a)) if a > 0 else places[at]
