"""Pictures about a result: each face before and after, and what the prior has added to the photograph."""

from __future__ import annotations

import torch
from PIL import Image
from torch import Tensor

from iagan_lightning.data.images import to_pillow
from iagan_lightning.photo.enlarging import reduced
from iagan_lightning.photo.restoring import Restored
from iagan_lightning.results.finished import WHITE
from iagan_lightning.results.sheet import comparison_sheet, stack_sheets

CELL = 384  # pixels of a face


def sheet_of_faces(done: Restored) -> Image.Image:
    """Return a row for each restored face: its pixels in the photograph, the plain enlargement, and the result.

    Raises:
        ValueError: where no face was restored.
    """
    scale = done.record["scale"]
    sheets = []
    for patch in done.patches:
        pixels = patch.place.of(done.photograph.turned(done.quarters).pixels, scale)
        seen, added = reduced(patch.before, scale), _added(patch.after - patch.before)
        pictures = {"photograph": seen, "plain": patch.before, "result": pixels, "added": added}
        titles = {"plain": "plain enlargement", "result": "result", "added": "added by the prior"}
        sheets.append(comparison_sheet({name: 2 * x - 1 for name, x in pictures.items()}, {}, CELL, titles))
    if not sheets:
        raise ValueError("no face was restored, so there is none to show")
    return stack_sheets(sheets)


def what_was_invented(done: Restored) -> Image.Image:
    """Return by how much each pixel differs from the plain enlargement: from black, not at all, to white, a quarter.

    A photograph without noise says nothing about these differences: A_s sees none of them.
    """
    return _map(done, [_added(patch.after - patch.before) for patch in done.patches])


def how_unsure(done: Restored) -> Image.Image:
    """Return the standard deviation of each pixel's error, by several views: from black, 0, to white, a quarter."""
    unsure = [patch.unsure for patch in done.patches if patch.unsure is not None]
    if len(unsure) < len(done.patches):
        raise ValueError("how sure a face is only several views of it tell: --views 2")
    return _map(done, [(std / WHITE).clamp(0, 1) for std in unsure])


def _map(done: Restored, values: list[Tensor]) -> Image.Image:
    """Return values ``(1, s h, s w)`` in [0, 1] of each face, where it lies in the photograph, as a picture."""
    upright = done.photograph.turned(done.quarters).pixels
    whole, scale = torch.zeros(1, *upright.shape[1:]), done.record["scale"]
    for patch, value in zip(done.patches, values, strict=True):
        part = patch.place.of(whole, scale)
        part.copy_(torch.maximum(part, value))
    return to_pillow(2 * whole.rot90(-done.quarters, (1, 2)) - 1)


def _added(difference: Tensor) -> Tensor:
    return (difference.abs().mean(0, keepdim=True) / WHITE).clamp(0, 1)
