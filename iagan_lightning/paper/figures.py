"""The paper's figures from finished runs: comparison sheets, sampling masks, the curve of MSE against m/n."""

from __future__ import annotations

import io
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from PIL import Image

from iagan_lightning.data.images import read_image
from iagan_lightning.operators import FourierSensing
from iagan_lightning.operators.fourier import Design
from iagan_lightning.paper.experiments import Figure
from iagan_lightning.paper.tables import Cell
from iagan_lightning.results.folder import OutputFolder
from iagan_lightning.results.sheet import CELL, TITLES, captions_of, comparison_sheet, stack_sheets

IMAGES = 5  # on a sheet


@dataclass(frozen=True)
class Picture:
    """A picture on a sheet: a method of a run, or its truth, and what is added to its title."""

    run: OutputFolder
    method: str
    label: str = ""


def sheet(lines: Sequence[Sequence[Picture | None]]) -> Image.Image | None:
    """Return the lines of one image after the other; None before any image is done in all of their runs.

    Args:
        lines: the pictures of an image; nothing is drawn for None, nor where a run has no picture of a method.
    """
    runs = list(dict.fromkeys(picture.run for line in lines for picture in line if picture))
    done = (record["image"] for record in runs[0].done() if all(run.is_done(record["image"]) for run in runs))
    sheets = [_line(line, name) for name in itertools.islice(done, IMAGES) for line in lines]
    return stack_sheets(sheets) if sheets else None


def _line(line: Sequence[Picture | None], name: str) -> Image.Image:
    pictures: dict[str, torch.Tensor] = {}
    captions: dict[str, str] = {}
    titles: dict[str, str] = {}
    for place, picture in enumerate(line):
        key = str(place)
        pictures[key], titles[key] = torch.ones(3, 1, 1), ""  # white
        if picture is None or not (path := picture.run.image(name) / f"{picture.method}.png").is_file():
            continue
        record = picture.run.metrics(name)
        title = record.get("titles", {}).get(picture.method, TITLES[picture.method])
        pictures[key], titles[key] = read_image(path), ", ".join(filter(None, (title, picture.label)))
        captions[key] = captions_of(record["methods"]).get(picture.method, "")
    return comparison_sheet(pictures, captions, titles=titles)


def lines_of(figure: Figure, run: OutputFolder, methods: Sequence[str], label: str = "") -> list[list[Picture]]:
    """Return the lines of one run as a figure has them, without methods that were left out; label tells the truth's."""
    return [
        [Picture(run, method, label if method == "truth" else "") for method in line if method in ("truth", *methods)]
        for line in figure.lines
    ]


def lines_of_figure_1(figure: Figure, runs: Mapping[str, OutputFolder]) -> list[list[Picture | None]]:
    """Return the truth, then every method at every ratio, one stage to a line.

    Args:
        figure: methods by line.
        runs: by what is added to the methods' titles, ``m/n 0.122`` for example.
    """
    truth = Picture(next(iter(runs.values())), "truth")
    return [
        [None if place else truth, *(Picture(run, method, label) for label, run in runs.items() for method in line)]
        for place, line in enumerate(figure.lines)
    ]


def masks(
    image_shape: tuple[int, int, int], ratios: Sequence[float] = (0.3, 0.5), design: Design = "quadrant"
) -> Image.Image:
    """Return Figure 5: the Fourier coefficients that are sampled, white, with frequency 0 in the middle.

    Example:
        >>> masks((3, 16, 16)).size
        (408, 232)
    """
    pictures = {}
    for ratio in ratios:
        mask = FourierSensing(image_shape, ratio=ratio, design=design).mask
        pictures[f"{ratio:.0%} of the coefficients"] = torch.fft.fftshift(mask)[None].float() * 2 - 1
    height = image_shape[1]
    return comparison_sheet(pictures, {}, cell=height * -(-CELL // height))  # whole pixels, all of one size


def curve(cells: Sequence[Cell], methods: Sequence[str]) -> bytes:
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
            axes.plot(*zip(*sorted(points), strict=True), marker="o", label=TITLES[method])
    axes.set_yscale("log")
    axes.set_xlabel("compression ratio m/n")
    axes.set_ylabel("reconstruction MSE, images in [0, 1]")
    axes.grid(True, which="both", alpha=0.3)
    counts = sorted({cell.n for cell in cells if cell.n})
    axes.set_title(f"N = {' to '.join(str(n) for n in dict.fromkeys((counts[0], counts[-1])))}" if counts else "")
    if axes.lines:
        axes.legend()
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=150)
    return picture.getvalue()
