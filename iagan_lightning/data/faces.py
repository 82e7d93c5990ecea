"""Where the faces of a picture are: their eyes, their mouths, and how sure the detector is.

The detector is MTCNN (Zhang, Zhang, Li and Qiao 2016, arXiv:1604.02878) from facenet-pytorch, an optional extra
(``pip install 'iagan-lightning[align]'``) whose wheel holds the weights. Nothing outside this module knows of it.
"""

from __future__ import annotations

import pickle
import warnings
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

Point = tuple[float, float]

LONGEST = 640  # longer side of the picture that the detector gets
SMALLEST = 20  # pixels across a face there
STAGES = (0.6, 0.7, 0.7)  # what each of its three networks lets pass, as published
PYRAMID = 0.709  # from one size of the picture to the next: half as many pixels, as published
SURE = 0.9  # pictures without a face score .84 at most, portraits .97 and more


class Face(NamedTuple):
    """A face in a picture.

    Attributes:
        eyes: the middles of the eyes, (x, y) in pixels, the one on the left of the picture first.
        mouth: the corners of the mouth, likewise.
        size: width of the face in pixels.
        score: of the detector, from ``SURE`` to 1.

    (0, 0) is the middle of the first pixel.
    """

    eyes: tuple[Point, Point]
    mouth: tuple[Point, Point]
    size: float
    score: float


def find_faces(x: Tensor, longest: int = LONGEST) -> list[Face]:
    """Return the faces of a picture, the largest first.

    Args:
        x: picture ``(C, H, W)`` in [-1, 1], C 1 or 3.
        longest: the picture's longer side as the detector gets it, which finds no face of less than ``SMALLEST`` there.

    Raises:
        ValueError: where facenet-pytorch is not installed.
    """
    networks, detect = _detector()
    height, width = x.shape[1:]
    scale = longest / max(height, width)
    rows, columns = max(round(height * scale), 1), max(round(width * scale), 1)
    picture = F.interpolate(x[None].float(), size=(rows, columns), mode="bicubic", antialias=scale < 1)
    # A face that fills the picture is only seen with something around it.
    margin = longest // 4
    picture = F.pad(picture, (margin, margin, margin, margin), mode="replicate")
    pixels = ((picture[0].clamp(-1, 1) + 1) * 127.5).round().permute(1, 2, 0).expand(-1, -1, 3)
    with torch.no_grad():
        boxes, points = detect(pixels, SMALLEST, *networks, STAGES, PYRAMID, torch.device("cpu"))

    def in_picture(point: Any) -> Point:
        across, down = float(point[0]) - margin, float(point[1]) - margin
        return (across + 0.5) * width / columns - 0.5, (down + 0.5) * height / rows - 0.5

    faces = []
    for (left, _, right, _, score), marks in zip(boxes[0], points[0], strict=True):
        if score >= SURE:
            first, second, _, *mouth = map(in_picture, marks)  # between eyes and mouth, the nose
            faces.append(Face((first, second), (mouth[0], mouth[1]), float(right - left) / scale, float(score)))
    return sorted(faces, key=lambda face: face.size, reverse=True)


def require_detector(wanted_by: str = "data.align") -> None:
    """Raise ValueError where facenet-pytorch is not installed, naming what needs it."""
    try:
        _detector()
    except ValueError as error:
        raise ValueError(str(error).replace("data.align", wanted_by, 1)) from error


@lru_cache(maxsize=1)
def _detector() -> tuple[list[torch.nn.Module], Any]:
    """Return the three networks, and the function that looks through a picture with them."""
    try:
        with warnings.catch_warnings():  # it changes the filters of the whole process
            import facenet_pytorch
            from facenet_pytorch.models.mtcnn import ONet, PNet, RNet
            from facenet_pytorch.models.utils.detect_face import detect_face
    except ImportError as error:
        raise ValueError(f"data.align needs facenet-pytorch: pip install 'iagan-lightning[align]' ({error})") from error
    folder, networks = Path(facenet_pytorch.__file__).parent / "data", []
    for kind in (PNet, RNet, ONet):
        with torch.device("meta"):  # no random numbers are drawn
            network = kind(pretrained=False)
        path = folder / f"{kind.__name__.lower()}.pt"
        try:  # not by the library, which leaves it to the default of torch.load whether code may run
            network.load_state_dict(torch.load(path, map_location="cpu", weights_only=True), assign=True)
        except (OSError, RuntimeError, TypeError, ValueError, EOFError, pickle.UnpicklingError) as error:
            raise ValueError(f"{path} is damaged: install facenet-pytorch anew") from error
        networks.append(network.eval().requires_grad_(False))
    return networks, detect_face
