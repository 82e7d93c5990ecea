"""Faces of photographs, level and cut out as a prior knows them from its training.

A prior knows faces only as it saw them. ``tight`` is the framing of the bundled priors' training faces, to which eyes
and mouth were related once (``docs/measure_framing.py``); ``ffhq`` is that of FFHQ and CelebA-HQ.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from iagan_lightning.data.faces import Face, Point, find_faces
from iagan_lightning.generators.base import Framing

TIGHT_SIDE, TIGHT_CENTRE = 2.155, 0.33  # side over the hypotenuse of both distances; way from the eyes to the mouth
FFHQ_EYES, FFHQ_MOUTH, FFHQ_CENTRE = 4.0, 3.6, 0.1  # arXiv:1710.10196, Appendix C
AROUND, CLOSE = 1.5, 320  # what is looked at again: sides of the tight frame, and pixels across it
SMALLEST = 16  # pixels of a side


class Frame(NamedTuple):
    """A square around a face: centre (x, y) and side in pixels; angle in degrees by which its upper side falls."""

    x: float
    y: float
    side: float
    angle: float


class Sight(NamedTuple):
    """How sure the detector was of the face that was cut out, how many faces there were, and what part of the frame
    lies outside the picture.
    """

    score: float
    faces: int
    outside: float


def align_face(x: Tensor, framing: Framing = "tight") -> Tensor:
    """Return the part of a picture that shows its largest face, level and in the framing of a prior.

    Args:
        x: picture ``(C, H, W)`` in [-1, 1], C 1 or 3.
        framing: ``tight`` or ``ffhq``, as ``Generator.framing``.

    Returns:
        ``(C, n, n)`` at the picture's own resolution; parts outside the picture repeat its border.

    Raises:
        ValueError: where no face is found, or facenet-pytorch is not installed.
    """
    return cut_face(x, framing)[0]


def cut_face(x: Tensor, framing: Framing = "tight") -> tuple[Tensor, Sight]:
    """Return what ``align_face`` does, and what else is to be said of it."""
    face, faces = largest_face(x)
    frame = frame_of(face, framing)
    if round(frame.side) < SMALLEST:
        raise ValueError(f"the face found is only {round(frame.side)} pixels wide; at least {SMALLEST} are needed")
    return cut(x, frame), Sight(face.score, faces, outside(frame, (x.shape[1], x.shape[2])))


def largest_face(x: Tensor) -> tuple[Face, int]:
    """Return the largest face of a picture, and how many there are.

    It is looked at twice, the second time level and always as large: that halves the error of the eye line, and takes
    a third of that of the side.

    Raises:
        ValueError: where no face is found, or facenet-pytorch is not installed.
    """
    faces = find_faces(x)
    if not faces:
        raise ValueError("no face was found in the picture: crop it by hand, and leave --data.align out")
    return look_again(x, faces[0]), len(faces)


def look_again(x: Tensor, face: Face) -> Face:
    """Return a face of a picture as it is seen level, and always as large; its score stays that of the first look."""
    around = frame_of(face, "tight")
    around = around._replace(side=AROUND * around.side)
    again = find_faces(cut(x, around), CLOSE)
    if not again:
        return face
    middle = (round(around.side) - 1) / 2
    nearest = min(again, key=lambda face: math.dist(between(*face.eyes), (middle, middle)))
    turn = math.radians(around.angle)

    def in_picture(point: Point) -> Point:
        across, down = point[0] - middle, point[1] - middle
        return (
            around.x + math.cos(turn) * across - math.sin(turn) * down,
            around.y + math.sin(turn) * across + math.cos(turn) * down,
        )

    (left, right), (from_left, to_right) = nearest.eyes, nearest.mouth
    return nearest._replace(
        eyes=(in_picture(left), in_picture(right)), mouth=(in_picture(from_left), in_picture(to_right)),
        score=face.score,
    )  # fmt: skip


def frame_of(face: Face, framing: Framing) -> Frame:
    """Return the frame of a face: by the distances of its eyes and from there to its mouth, level with its eyes.

    Example:
        >>> face = Face(((40.0, 50.0), (60.0, 50.0)), ((43.0, 72.0), (57.0, 72.0)), size=50, score=1.0)
        >>> frame_of(face, "ffhq")
        Frame(x=50.0, y=52.2, side=80.0, angle=0.0)
    """
    (left, right), eyes, mouth = face.eyes, between(*face.eyes), between(*face.mouth)
    apart, down = math.dist(left, right), math.dist(eyes, mouth)
    if framing == "ffhq":
        side, way = max(FFHQ_EYES * apart, FFHQ_MOUTH * down), FFHQ_CENTRE
    else:
        side, way = TIGHT_SIDE * math.hypot(apart, down), TIGHT_CENTRE
    angle = math.degrees(math.atan2(right[1] - left[1], right[0] - left[0]))
    return Frame(eyes[0] + way * (mouth[0] - eyes[0]), eyes[1] + way * (mouth[1] - eyes[1]), side, angle)


def cut(x: Tensor, frame: Frame) -> Tensor:
    """Return what a frame shows of a picture ``(C, H, W)``, pixel for pixel, by bicubic interpolation.

    Example:
        >>> x = torch.arange(16.0).view(1, 4, 4) / 16
        >>> torch.allclose(cut(x, Frame(1.5, 1.5, 2, 0)), x[:, 1:3, 1:3])
        True
    """
    columns, rows = _places(frame)
    height, width = x.shape[1:]
    grid = torch.stack([(2 * columns + 1) / width - 1, (2 * rows + 1) / height - 1], dim=-1).to(x.dtype)
    return F.grid_sample(x[None], grid[None], "bicubic", "border", align_corners=False)[0].clamp(-1, 1)


def outside(frame: Frame, size: tuple[int, int]) -> float:
    """Return the part of a frame that lies outside a picture of ``(H, W)`` pixels.

    Example:
        >>> outside(Frame(1.5, 1.5, 4, 0), (4, 4)), outside(Frame(3.5, 1.5, 4, 0), (4, 4))
        (0.0, 0.5)
    """
    columns, rows = _places(frame)
    height, width = size
    within = (columns >= -0.5) & (columns <= width - 0.5) & (rows >= -0.5) & (rows <= height - 0.5)
    return 1 - float(within.double().mean())


def _places(frame: Frame) -> tuple[Tensor, Tensor]:
    """Return the columns and rows of a picture that the pixels of a frame show."""
    side, turn = round(frame.side), math.radians(frame.angle)
    steps = torch.arange(side, dtype=torch.float64) - (side - 1) / 2
    down, across = torch.meshgrid(steps, steps, indexing="ij")
    columns = frame.x + math.cos(turn) * across - math.sin(turn) * down
    rows = frame.y + math.sin(turn) * across + math.cos(turn) * down
    return columns, rows


def between(a: Point, b: Point) -> Point:
    """Return the point halfway between two."""
    return (a[0] + b[0]) / 2, (a[1] + b[1]) / 2
