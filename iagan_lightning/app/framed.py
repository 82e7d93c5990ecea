"""A user's picture as a prior sees it: the face cut out, of the prior's size, and what is left of it."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from iagan_lightning.app.choices import Job, finds_faces, prior_named
from iagan_lightning.data.framing import SMALLEST, Frame, cut, frame_of, largest_face
from iagan_lightning.data.images import OPAQUE, fit_image, read_image
from iagan_lightning.generators.base import Framing
from iagan_lightning.safety import PictureFile, read_pixels


@dataclass(frozen=True)
class Framed:
    """A picture that is ready.

    Attributes:
        x: ``(C, H, W)`` in [-1, 1].
        intact: bool ``(H, W)``, False where the file is transparent; None where it is opaque everywhere.
        remark: what was done to it; empty where these are the very pixels of the file.
    """

    x: Tensor
    intact: Tensor | None = None
    remark: str = ""


def framed(job: Job) -> Framed:
    """Return the picture of a job: as it is where it is small or of the prior's size, or else brought to that.

    Raises:
        OSError: for a file that is no picture.
        ValueError: for one that is too large to be read, and for a small picture to be enlarged that is none.
    """
    prior = prior_named(job.prior)
    channels, height, width = prior.image_shape
    x = read_image(job.picture, channels)
    if job.task == "super-resolution" and not job.known:
        if x.shape[1] >= height or x.shape[2] >= width:
            raise ValueError(
                f"a picture of {x.shape[2]} x {x.shape[1]} pixels is not smaller than the {width} x {height} of "
                f"{job.prior}: choose a prior of more pixels, or the task Photograph, for pictures of any size"
            )
        return Framed(x)
    opacity = _opacity(job.picture)
    if x.shape[1:] == (height, width):
        return Framed(x, None if opacity is None else opacity > OPAQUE)
    both = x if opacity is None else torch.cat([x, opacity[None] * 2 - 1])
    part = "The whole picture"
    if job.align and prior.framing and finds_faces():
        frame = _frame(x, prior.framing)
        both = both if frame is None else cut(both, frame)
        part = "The middle of the picture, in which no face was found," if frame is None else "Its largest face"
    elif x.shape[1] != x.shape[2]:
        part = "The middle of the picture"
    before = f"{both.shape[2]} x {both.shape[1]}"
    large = both.shape[1] >= height and both.shape[2] >= width
    both = fit_image(both, (height, width), "crop" if large else "resize")
    remark = f"{part} is brought from {before} to {width} x {height} pixels, those of the prior."
    return Framed(both[:channels], None if opacity is None else (both[channels] + 1) / 2 > OPAQUE, remark)


def _frame(x: Tensor, framing: Framing) -> Frame | None:
    """Return the frame of the largest face; None where there is none of enough pixels."""
    try:
        frame = frame_of(largest_face(x)[0], framing)
    except ValueError:
        return None
    return inside(frame, (x.shape[1], x.shape[2])) if round(frame.side) >= SMALLEST else None


def inside(frame: Frame, size: tuple[int, int]) -> Frame:
    """Return a frame as it is where it lies inside a picture, else the nearest one that does: beyond nothing is known.

    Example:
        >>> inside(Frame(10.0, 30.0, 40.0, 5.0), (60, 60))
        Frame(x=19.5, y=30.0, side=40, angle=0.0)
    """
    turn = math.radians(frame.angle)
    reach = (frame.side - 1) / 2 * (abs(math.cos(turn)) + abs(math.sin(turn)))
    if all(
        reach - 0.5 <= middle <= length - 0.5 - reach for middle, length in zip((frame.y, frame.x), size, strict=True)
    ):
        return frame
    side = min(round(frame.side), *size)
    y, x = (
        min(max(middle, (side - 1) / 2), length - (side + 1) / 2)
        for middle, length in zip((frame.y, frame.x), size, strict=True)
    )
    return Frame(x, y, side, 0.0)


def _opacity(picture: PictureFile) -> Tensor | None:
    """Return the opacity of a picture in [0, 1], ``(H, W)``; None where it is opaque everywhere."""
    opacity = torch.from_numpy(read_pixels(picture, 1, "opacity")).float()
    return None if bool((opacity > OPAQUE).all()) else opacity
