"""One face of a photograph: the operator from a prior's picture to the photograph's pixels, and its reconstruction."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from iagan_lightning.data.framing import Frame
from iagan_lightning.generators import Generator
from iagan_lightning.operators import Similarity
from iagan_lightning.photo.blur import blur_width, blurred
from iagan_lightning.photo.known import KnownOrNot
from iagan_lightning.photo.pasting import pasted
from iagan_lightning.reconstruction import reconstruct

AROUND = 8  # pixels of the photograph around a frame: what a face adds fades away there


@dataclass(frozen=True)
class Place:
    """Where a face lies: the part of the photograph around its frame, and the frame in pixels of that part.

    Attributes:
        rows, columns: of the photograph.
        frame: the square that the prior's picture fills.
    """

    rows: slice
    columns: slice
    frame: Frame

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the part."""
        return self.rows.stop - self.rows.start, self.columns.stop - self.columns.start

    def of(self, p: Tensor, scale: int = 1) -> Tensor:
        """Return this part of a photograph ``(C, H, W)``, or of one enlarged."""
        rows, columns = (slice(scale * part.start, scale * part.stop) for part in (self.rows, self.columns))
        return p[:, rows, columns]


def place_of(frame: Frame, size: tuple[int, int]) -> Place:
    """Return where a frame lies in a photograph of a size (height, width); it may reach beyond.

    Example:
        >>> place_of(Frame(50.0, 20.0, 32.0, 0.0), (100, 100))
        Place(rows=slice(0, 45, None), columns=slice(26, 75, None), frame=Frame(x=24.0, y=20.0, side=32.0, angle=0.0))
    """
    turn = math.radians(frame.angle)
    reach = frame.side / 2 * (abs(math.cos(turn)) + abs(math.sin(turn))) + AROUND
    spans = [
        slice(max(math.floor(middle - reach), 0), min(math.ceil(middle + reach) + 1, length))
        for middle, length in ((frame.y, size[0]), (frame.x, size[1]))
    ]
    rows, columns = spans
    return Place(rows, columns, frame._replace(x=frame.x - columns.start, y=frame.y - rows.start))


def enlarged_frame(frame: Frame, scale: int) -> Frame:
    """Return a frame of the photograph in pixels of the enlargement."""
    return Frame(frame.x * scale + (scale - 1) / 2, frame.y * scale + (scale - 1) / 2, frame.side * scale, frame.angle)


def operators(
    frame: Frame, size: tuple[int, int], image_shape: tuple[int, int, int], scale: int
) -> tuple[Similarity, Similarity]:
    """Return the operators from a prior's picture to a part of the photograph, and to the same part enlarged.

    Means of s x s pixels of the second are the first, exactly.

    Args:
        frame: in pixels of the part.
        size: of the part.
        image_shape: of the prior's picture.
        scale: s.
    """
    samples = max(math.ceil(image_shape[2] / (frame.side * scale) - 1e-9), 1)
    fine, finer = enlarged_frame(frame, scale), (size[0] * scale, size[1] * scale)
    return (
        Similarity(image_shape, size, frame.side, (frame.x, frame.y), frame.angle, samples * scale),
        Similarity(image_shape, finer, fine.side, (fine.x, fine.y), fine.angle, samples),
    )


def reconstructed(
    X: Tensor,
    p: Tensor,
    weight: Tensor,
    frame: Frame,
    generator: Generator,
    scale: int,
    noise_std: float,
    levels: int,
    blur: float | None = 0.0,
    **settings: Any,
) -> tuple[Tensor, dict[str, Any], Tensor | None]:
    """Return the enlargement of a part of a photograph with its face reconstructed, and what is to be said of that.

    Args:
        X: plain enlargement of the part, ``(C, s h, s w)``.
        p: its pixels in the photograph, ``(C, h, w)`` in [0, 1]; grey ones are taken as three colours alike.
        weight: how much of the face counts, ``(s h, s w)``.
        frame: of the face.
        generator: the prior.
        scale: s.
        noise_std: of p, on the [0, 1] scale.
        levels: values that a pixel of p can have.
        blur: standard deviation in pixels of p of the Gaussian through which it was seen; None to estimate it.
        **settings: further arguments of ``reconstruct``.

    Returns:
        The enlargement, X itself where the prior does not know the face; and a record: ``done``, ``why`` it was not,
        ``residual`` of the result before it is brought to agreement, ``prior_residual`` of the prior alone, ``sigmas``
        (residual over noise), ``blur`` where there is any, ``evaluations`` and ``seconds``. With several views also how
        sure the face is, the standard deviation of its error, ``(1, s h, s w)`` on the [0, 1] scale, 0 where the face
        does not count; else None.
    """
    A, T = operators(frame, p.shape[1:], generator.image_shape, scale)  # type: ignore[arg-type]
    y = A.measured(p.expand(3, -1, -1)[None] * 2 - 1)
    rounding = 1 / (levels - 1) / 12**0.5
    if blur is None:
        own = {name: value for name, value in settings.items() if name in ("seed", "accelerator")}
        blur = blur_width(y, A, generator, noise_std, **own)
    seen_by = blurred(A, blur)
    soft = seen_by is not A
    familiar = KnownOrNot()
    callbacks = [familiar, *settings.pop("callbacks", ())]
    result = reconstruct(
        y, seen_by, generator, noise_std, back_projection=False, quantisation=rounding, callbacks=callbacks, **settings
    )
    finished = result.images[0].with_metrics()
    record, metrics = finished.record(), finished.metrics[finished.final]
    about: dict[str, Any] = {
        **({"blur": blur} if soft else {}),
        "residual": metrics["residual"],
        **({"sigmas": metrics["residual_sigma"]} if "residual_sigma" in metrics else {}),
        **({"prior_residual": alone["residual"]} if (alone := finished.metrics.get("csgm")) else {}),
        "evaluations": record["evaluations"],
        "seconds": record["seconds"]["total"],
    }
    x = result[finished.final]
    if not bool(x.isfinite().all()):
        return X, {"done": False, "why": "the fit ended in no number", **about}, None
    if not familiar.known:
        return X, {"done": False, "why": "the prior does not know such a face", **about}, None
    weight = weight * T.mask
    unsure = result.uncertainty
    with torch.no_grad():
        face = (T(x)[0] + 1) / 2
        if unsure is not None:
            unsure = weight * T(unsure.expand_as(x))[0, :1].clamp(min=0)
            about["uncertainty"] = finished.sureness()
    if len(p) == 1:
        face = face.mean(0, keepdim=True)
    return pasted(X, face, weight, scale, noise_std, soft), {"done": True, **about}, unsure
