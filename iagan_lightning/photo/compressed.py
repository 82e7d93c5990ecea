"""Agreement with a compressed photograph: what its file says are intervals, and not the pixels that a decoder shows."""

from __future__ import annotations

from torch import Tensor

from iagan_lightning.operators.jpeg import read_jpeg
from iagan_lightning.photo.picture import Photograph

LARGEST = 16_000_000  # pixels of a photograph whose coefficients are looked at: some 2 GB


def share_within(p: Tensor, photograph: Photograph) -> float | None:
    """Return the share of the coefficients of a JPEG's file in whose intervals a picture of its size lies.

    None for another file, or one whose coefficients are not told by its pixels (other colours, too large).

    Args:
        p: ``(1 or 3, H, W)`` in [0, 1], upright.
        photograph: as it was read from the file.
    """
    if not photograph.content or p.shape[1] * p.shape[2] > LARGEST:
        return None
    try:
        A, y = read_jpeg(photograph.content)
    except (OSError, ValueError):
        return None
    x = as_stored(p, photograph.orientation)[None] * 2 - 1
    return float(A.within(x, y)) if tuple(x.shape[1:]) == A.image_shape else None


def as_stored(p: Tensor, orientation: int) -> Tensor:
    """Return upright pixels as they lie in a file that says by its EXIF orientation how to turn them."""
    if orientation in (5, 7):
        p = p.mT.flip(1, 2) if orientation == 7 else p.mT
    elif orientation in (6, 8):
        p = p.rot90(1 if orientation == 6 else -1, (1, 2))
    elif orientation in (2, 3, 4):
        p = p.flip({2: (2,), 3: (1, 2), 4: (1,)}[orientation])
    return p
