"""Comparison sheets: the pictures of one image side by side, captioned."""

from __future__ import annotations

import functools
from collections.abc import Iterable

import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from iagan_lightning.data.images import to_pillow

TITLES = {
    "truth": "truth",
    "measurement": "measurement",
    "naive": "naive",
    "csgm": "CSGM",
    "csgm_bp": "CSGM-BP",
    "ilo": "ILO",
    "ilo_bp": "ILO-BP",
    "iagan": "IAGAN",
    "iagan_bp": "IAGAN-BP",
    "iagan_mean": "IAGAN, views",
    "dip": "DIP",
    "dip_bp": "DIP-BP",
    "uncertainty": "uncertainty",
}
CELL, MARGIN = 192, 8


def comparison_sheet(
    pictures: dict[str, Tensor],
    captions: dict[str, str],
    cell: int = CELL,
    titles: dict[str, str] | None = None,
    columns: int | None = None,
) -> Image.Image:
    """Return one row of pictures, or several, with a caption under each.

    Args:
        pictures: images ``(C, h, w)`` in [-1, 1] by name, in the order of the row; smaller ones are enlarged in
            whole pixels, so that a measurement looks as coarse as it is.
        captions: a line for some of the names, shown after the title.
        cell: width and height of a picture in pixels.
        titles: what to call some of the names instead of their usual titles.
        columns: pictures side by side, at most; where rows are filled evenly fewer. Captions then have two lines and
            larger letters, for a sheet that is shown small. None puts all into one row.
    """
    called = TITLES | (titles or {})
    texts = {
        name: ("\n" if columns else " ").join(filter(None, (called.get(name, name), captions.get(name))))
        for name in pictures
    }
    rows = -(-len(pictures) // columns) if columns else 1
    across = -(-len(pictures) // rows)
    font = fitting_font((line for text in texts.values() for line in text.split("\n")), cell, 6 if columns else 10)
    high = cell + (cell * 7 // 16 if columns else cell // 8) + 2 * MARGIN
    sheet = Image.new("RGB", (across * (cell + MARGIN) + MARGIN, rows * high), "white")
    draw = ImageDraw.Draw(sheet)
    for place, (name, image) in enumerate(pictures.items()):
        left, top = MARGIN + place % across * (cell + MARGIN), MARGIN + place // across * high
        picture = to_pillow(image).convert("RGB")
        enlarge = cell / max(picture.size)
        size = (round(picture.width * enlarge), round(picture.height * enlarge))
        picture = picture.resize(size, Image.Resampling.NEAREST if enlarge >= 1 else Image.Resampling.LANCZOS)
        sheet.paste(picture, (left + (cell - size[0]) // 2, top + (cell - size[1]) // 2))
        draw.text((left, top + cell + 3), texts[name], fill="black", font=font)
    return sheet


def fitting_font(texts: Iterable[str], width: int, largest: int = 10) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """Return the font in which each of the texts is no wider than ``width``, up to width / ``largest`` high."""
    texts = list(texts)
    sizes = range(max(width // largest, 8), 8, -1)
    return next((font for font in map(_font, sizes) if all(font.getlength(text) <= width for text in texts)), _font(8))


_font = functools.lru_cache(ImageFont.load_default)  # it unpacks the font at each call


def stack_sheets(sheets: list[Image.Image]) -> Image.Image:
    """Return sheets below each other."""
    width, height = max(s.width for s in sheets), sum(s.height for s in sheets)
    whole = Image.new("RGB", (width, height), "white")
    top = 0
    for sheet in sheets:
        whole.paste(sheet, (0, top))
        top += sheet.height
    return whole


def captions_of(methods: dict[str, dict[str, float]]) -> dict[str, str]:
    """Return ``21.3 dB`` for each method that has a PSNR.

    Example:
        >>> captions_of({"csgm": {"psnr": 21.31}, "naive": {}})
        {'csgm': '21.3 dB'}
    """
    return {name: f"{metrics['psnr']:.1f} dB" for name, metrics in methods.items() if "psnr" in metrics}


def sheet_of(
    results: dict[str, Tensor],
    truth: Tensor | None,
    measurement: Tensor | None,
    methods: dict[str, dict[str, float]],
    titles: dict[str, str] | None = None,
    cell: int = CELL,
    columns: int | None = None,
) -> Image.Image:
    """Return the comparison sheet of one image: truth, measurement where it is a picture, then every method."""
    pictures: dict[str, Tensor] = {} if truth is None else {"truth": truth}
    if measurement is not None:
        pictures["measurement"] = measurement
    order = [name for name in TITLES if name in results] + [name for name in results if name not in TITLES]
    pictures.update({name: results[name] for name in order})
    images = {name: torch.as_tensor(x) for name, x in pictures.items()}
    return comparison_sheet(images, captions_of(methods), cell, titles, columns)
