"""Faces of photographs, brought to the framing of the bundled priors: level, and filling the picture.

A prior knows faces only as it saw them in training. The detector is OpenCV's own cascade, an optional extra
(``pip install 'iagan-lightning[align]'``) that needs no download; what it calls a face was related once to the framing
of the training faces (``docs/measure_framing.py``).
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

# The cascade's box beside the frame of the training faces, as fractions of the frame's side.
BOX_SIDE, BOX_CENTRE = 0.84, (0.50, 0.48)

ANGLES = range(-30, 31, 10)  # degrees at which a face is looked for
LONGEST = 640  # longer side of the picture that the detector gets


class Face(NamedTuple):
    """A frame around a face: centre (x, y) and side in pixels, angle in degrees by which turning levels it.

    ``seen`` counts the angles at which it was found, of the seven that are looked at: faces are at three or more, what
    only looks like one is at one or two.
    """

    x: float
    y: float
    side: float
    angle: float
    seen: int


class _Found(NamedTuple):
    """What the cascade reported: box in the picture before it was turned, and how sure it is."""

    x: float
    y: float
    side: float
    weight: float


def align_face(x: Tensor) -> Tensor:
    """Return the part of a picture that shows its most prominent face as the training faces are framed.

    Args:
        x: picture ``(C, H, W)`` in [-1, 1], C 1 or 3.

    Returns:
        ``(C, n, n)`` at the picture's own resolution; parts outside the picture repeat its border.

    Raises:
        ValueError: where no face is found, or OpenCV is not installed.
    """
    return cut_face(x)[0]


def cut_face(x: Tensor) -> tuple[Tensor, int]:
    """Return what ``align_face`` does, and at how many angles the face was found."""
    cv2 = _opencv()
    pixels = ((x.permute(1, 2, 0).clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8).numpy()
    face = find_face(pixels)
    side = round(face.side)
    if side < 16:
        raise ValueError(f"the face found is only {side} pixels wide; at least 16 are needed")
    # Turn about the face's centre and bring it to the centre of the new picture.
    turn = cv2.getRotationMatrix2D((face.x, face.y), face.angle, 1.0)
    turn[:, 2] += (side - 1) / 2 - np.array([face.x, face.y])
    source = np.ascontiguousarray(x.permute(1, 2, 0).numpy())
    turned = cv2.warpAffine(source, turn, (side, side), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
    return torch.from_numpy(turned).reshape(side, side, -1).permute(2, 0, 1).contiguous().clamp(-1, 1), face.seen


def find_face(pixels: np.ndarray) -> Face:
    """Return the frame of the most prominent face of a picture ``(H, W, C)`` of 8 bits.

    The picture is searched at several angles; the cascade is surest where the face is level, so the mean of the
    angles, weighted by a high power of its sureness, is the face's angle within about three degrees.
    """
    cv2 = _opencv()
    grey = cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY) if pixels.shape[-1] == 3 else pixels.reshape(pixels.shape[:2])
    # A face that fills the picture is only seen with something around it.
    margin = max(grey.shape) // 4
    grey = cv2.copyMakeBorder(grey, margin, margin, margin, margin, cv2.BORDER_REPLICATE)
    scale = LONGEST / max(grey.shape)
    grey = cv2.resize(grey, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC)
    found = {angle: _detect(grey, angle, 1.1) for angle in ANGLES}
    everything = [box for boxes in found.values() for box in boxes]
    if not everything:
        raise ValueError("no face was found in the picture: crop it by hand, and leave --data.align out")
    best = max(everything, key=lambda box: box.weight * box.side)
    votes = {
        angle: max((box.weight for box in boxes if _same(box, best)), default=0.0) ** 4
        for angle, boxes in found.items()
    }
    angle = sum(angle * vote for angle, vote in votes.items()) / sum(votes.values())
    level = [box for box in _detect(grey, angle, 1.04) if _same(box, best)]
    face = max(level, key=lambda box: box.weight) if level else best
    side = face.side / BOX_SIDE
    offset = side * (0.5 - np.array(BOX_CENTRE))
    radians = np.deg2rad(angle)  # the offset is known in the level picture
    dx = np.cos(radians) * offset[0] - np.sin(radians) * offset[1]
    dy = np.sin(radians) * offset[0] + np.cos(radians) * offset[1]
    return Face(
        float((face.x + dx) / scale - margin), float((face.y + dy) / scale - margin), float(side / scale), float(angle),
        sum(vote > 0 for vote in votes.values()),
    )  # fmt: skip


def _detect(grey: np.ndarray, angle: float, step: float) -> list[_Found]:
    """Return the faces of a picture turned by an angle, in the coordinates of the picture that is not turned."""
    cv2 = _opencv()
    height, width = grey.shape
    turn = cv2.getRotationMatrix2D((width / 2, height / 2), angle, 1.0)
    turned = cv2.warpAffine(grey, turn, (width, height), borderMode=cv2.BORDER_REPLICATE) if angle else grey
    boxes, _, weights = _cascade().detectMultiScale3(
        turned, scaleFactor=step, minNeighbors=3, minSize=(LONGEST // 16, LONGEST // 16), outputRejectLevels=True
    )
    back = cv2.invertAffineTransform(turn)
    found = []
    for (left, top, side, _), weight in zip(boxes, np.ravel(weights), strict=True):
        x, y = back @ np.array([left + side / 2, top + side / 2, 1.0])
        found.append(_Found(float(x), float(y), float(side), max(float(weight), 1e-6)))
    return found


def _same(a: _Found, b: _Found) -> bool:
    """Tell whether two boxes are of one face."""
    near = max(abs(a.x - b.x), abs(a.y - b.y)) < 0.3 * b.side
    return near and 0.6 < a.side / b.side < 1.6


def require_detector() -> None:
    """Raise ValueError where OpenCV's cascades are missing."""
    _opencv()


def _opencv() -> Any:
    try:
        import cv2
    except ImportError as error:
        raise ValueError("data.align needs OpenCV: pip install 'iagan-lightning[align]'") from error
    if not hasattr(cv2, "CascadeClassifier"):
        raise ValueError(
            f"data.align needs the cascades of OpenCV 4, {cv2.__version__} is installed: "
            "pip install 'opencv-python-headless<5'"
        )
    return cv2


@lru_cache(maxsize=1)
def _cascade() -> Any:
    cv2 = _opencv()
    return cv2.CascadeClassifier(cv2.data.haarcascades + "haarcascade_frontalface_alt2.xml")
