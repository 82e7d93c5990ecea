"""The faces of a photograph, whichever way up it lies, and which of them can be reconstructed from it at all."""

from __future__ import annotations

import math
from typing import NamedTuple

from torch import Tensor

from iagan_lightning.data.faces import LONGEST, Face, find_faces
from iagan_lightning.data.framing import between, look_again

FINEST = 1600  # longer side of the picture that the detector gets of a large photograph: groups have small faces
UPRIGHT = 0.99  # score: upside down or lying, faces reach .975
APART = 6.0  # pixels between eyes, and from there to the mouth: of fewer a prior makes a face, but not this one
PROFILE = 0.6  # distance of the eyes over that from there to the mouth: 1 from the front, less the more it is turned


class Sight(NamedTuple):
    """The faces of a photograph, the largest first, after so many quarters of a circle to the left."""

    quarters: int
    faces: list[Face]


def see(pixels: Tensor) -> Sight:
    """Return the faces of a photograph; where none surely stands upright, of the quarter turn that has most of them.

    Args:
        pixels: ``(1 or 3, H, W)`` in [0, 1].

    Raises:
        ValueError: where facenet-pytorch is not installed.
    """
    seen = [Sight(0, _faces(pixels))]
    if max((face.score for face in seen[0].faces), default=0.0) < UPRIGHT:
        seen += [Sight(quarters, _faces(pixels.rot90(quarters, (1, 2)))) for quarters in (1, 3, 2)]
    return max(seen, key=lambda sight: sum(face.score for face in sight.faces))


def _faces(pixels: Tensor) -> list[Face]:
    x = pixels * 2 - 1
    return [look_again(x, face) for face in find_faces(x, min(max(*x.shape[1:], LONGEST), FINEST))]


def distances(face: Face) -> tuple[float, float]:
    """Return how far apart the eyes are, and how far the mouth is from between them, in pixels."""
    return math.dist(*face.eyes), math.dist(between(*face.eyes), between(*face.mouth))


def unfit(face: Face) -> str | None:
    """Return why a face cannot be reconstructed from what the photograph shows of it; None where it can.

    Example:
        >>> unfit(Face(((40.0, 50.0), (44.0, 50.0)), ((40.0, 54.0), (44.0, 54.0)), size=10, score=1.0))
        'too small: eyes and mouth are 4.0 pixels apart, at least 6 are needed'
        >>> unfit(Face(((40.0, 50.0), (50.0, 50.0)), ((40.0, 70.0), (44.0, 70.0)), size=40, score=1.0))
        'turned too far away'
    """
    apart, down = distances(face)
    mean = math.hypot(apart, down) / math.sqrt(2)
    if mean < APART:
        shown = math.floor(10 * mean) / 10
        return f"too small: eyes and mouth are {shown:.1f} pixels apart, at least {APART:.0f} are needed"
    return "turned too far away" if apart < PROFILE * down else None
