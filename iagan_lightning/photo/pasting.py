r"""A face put back into the enlarged photograph, without a seam and without a word against the photograph's pixels.

The difference between face and plain enlargement is feathered and then freed of what A_s sees of it: only its part in
the null space is added, so that the sum still agrees with the photograph.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from iagan_lightning.data.framing import Frame
from iagan_lightning.photo.enlarging import enlarged, reduced

FEATHER = 0.3  # of half a side, over which a face comes in
ROUNDED = 4.0  # exponent: 2 is a circle, infinity a square
LOUDER = 1.05  # than the noise a difference may be before it counts


def feathered(frame: Frame, size: tuple[int, int]) -> Tensor:
    """Return how much of a face counts at each pixel, ``(h, w)`` in [0, 1]: 0 outside its frame, 1 well inside.

    Args:
        frame: of the face in pixels of the picture.
        size: height and width of the picture.

    Example:
        >>> feathered(Frame(3.5, 3.5, 8.0, 0.0), (8, 8))[3].mul(100).round().tolist()
        [38.0, 100.0, 100.0, 100.0, 100.0, 100.0, 100.0, 38.0]
    """
    turn = math.radians(frame.angle)
    down = torch.arange(size[0], dtype=torch.float64)[:, None] - frame.y
    across = torch.arange(size[1], dtype=torch.float64) - frame.x
    u = (math.cos(turn) * across + math.sin(turn) * down) / (frame.side / 2)
    v = (math.cos(turn) * down - math.sin(turn) * across) / (frame.side / 2)
    inwards = 1 - (u.abs() ** ROUNDED + v.abs() ** ROUNDED) ** (1 / ROUNDED)
    t = (inwards / FEATHER).clamp(0, 1)
    return (t * t * (3 - 2 * t)).float()


def pasted(
    X: Tensor, face: Tensor, weight: Tensor, scale: int, noise_std: float = 0.0, blurred: bool = False
) -> Tensor:
    r"""Return X + d, d being what the face adds: :math:`d = w (x - X)`, of it what A_s does not see.

    With noise, A_s d may be as large as the noise, and of d no more is taken away than that needs: a face that was
    reconstructed differs from its photograph by the noise. Of a blurred photograph nothing is taken away: a sharp face
    agrees with it when it is blurred, and not as it is.

    Args:
        X: plain enlargement of a part of the photograph, ``(C, s h, s w)``; A_s X are the photograph's pixels there.
        face: ``(C, s h, s w)``.
        weight: how much of the face counts, ``(s h, s w)``.
        scale: s.
        noise_std: of the photograph, on the scale of X.
        blurred: whether the photograph is, and the face is not.

    Example:
        >>> X, face, weight = torch.rand(3, 16, 16), torch.rand(3, 16, 16), torch.ones(16, 16)
        >>> bool(reduced(pasted(X, face, weight, 2), 2).allclose(reduced(X, 2), atol=1e-5))
        True
    """
    d = weight * (face - X)
    if blurred:
        return X + d
    seen = reduced(d, scale)
    taken = 1.0
    if noise_std:
        inside = reduced(weight[None], scale)[0] > 0.99
        size = float(seen[:, inside].square().mean().sqrt()) if bool(inside.any()) else 0.0
        taken = 0.0 if size <= LOUDER * noise_std else 1 - noise_std / size
    return X + d - taken * enlarged(seen, scale) if taken else X + d
