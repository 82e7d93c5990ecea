"""The paper's figures from finished runs: comparison sheets, sampling masks, the curve of MSE against m/n."""

from __future__ import annotations

import io
from collections.abc import Sequence

import torch
from PIL import Image

from iagan_lightning.images import read_image
from iagan_lightning.operators import FourierSensing
from iagan_lightning.output import OutputFolder
from iagan_lightning.paper.tables import Cell
from iagan_lightning.sheet import CELL, TITLES, captions_of, comparison_sheet, stack_sheets

IMAGES = 5  # rows of a sheet


def sheet(runs: dict[str, OutputFolder], methods: Sequence[str]) -> Image.Image | None:
    """Return images as rows, and as columns the truth and every method of every run; None before any is done.

    Args:
        runs: finished runs of the same images, by what follows a method's title (empty for a single run).
        methods: the columns of each.
    """
    first = next(iter(runs.values()))
    names = [record["image"] for record in first.done() if all(run.is_done(record["image"]) for run in runs.values())]
    sheets = []
    for name in names[:IMAGES]:
        pictures = {"truth": read_image(first.image(name) / "truth.png")}
        captions: dict[str, str] = {}
        titles: dict[str, str] = {}
        for label, run in runs.items():
            record = run.metrics(name)
            decibels = captions_of(record["methods"])
            for method in methods:
                path = run.image(name) / f"{method}.png"
                if path.is_file():
                    key = f"{method} {label}"
                    pictures[key] = read_image(path)
                    captions[key] = decibels.get(method, "")
                    titles[key] = f"{record.get('titles', {}).get(method, TITLES[method])} {label}".strip()
        sheets.append(comparison_sheet(pictures, captions, titles=titles))
    return stack_sheets(sheets) if sheets else None


def masks(image_shape: tuple[int, int, int], ratios: Sequence[float] = (0.3, 0.5)) -> Image.Image:
    """Return Figure 5: the Fourier coefficients that are sampled, white, with frequency 0 in the middle.

    Example:
        >>> masks((3, 16, 16)).size
        (408, 230)
    """
    pictures = {}
    for ratio in ratios:
        mask = FourierSensing(image_shape, ratio=ratio, design="quadrant").mask
        pictures[f"{ratio:.0%} of the coefficients"] = torch.fft.fftshift(mask)[None].float() * 2 - 1
    height = image_shape[1]
    return comparison_sheet(pictures, {}, cell=height * -(-CELL // height))  # whole pixels, all of one size


def curve(cells: Sequence[Cell], methods: Sequence[str], titles: dict[str, str]) -> bytes:
    """Return Figure 2 as a PNG: mean MSE on the [0, 1] scale against m/n.

    Raises:
        ImportError: without matplotlib, which is an extra.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    for method in methods:
        points = [
            (float(cell.row.name.removeprefix("gaussian-")), cell.mse)
            for cell in cells
            if cell.method == method and cell.mse is not None
        ]
        if points:
            axes.plot(*zip(*sorted(points), strict=True), marker="o", label=titles.get(method, TITLES[method]))
    axes.set_yscale("log")
    axes.set_xlabel("compression ratio m/n")
    axes.set_ylabel("reconstruction MSE")
    axes.grid(True, which="both", alpha=0.3)
    counts = sorted({cell.n for cell in cells if cell.n})
    axes.set_title(f"N = {' to '.join(str(n) for n in dict.fromkeys((counts[0], counts[-1])))}" if counts else "")
    if axes.lines:
        axes.legend()
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=150)
    return picture.getvalue()
