"""What the paper ran: tables, their rows and columns, and the figures that it published."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from iagan_lightning.operators.fourier import Design

Dataset = Literal["CelebA", "CelebA-HQ"]
IMAGES = 100  # over which the paper averages
SIZES: dict[Dataset, int] = {"CelebA": 128, "CelebA-HQ": 1024}
MISALIGNED = 0.04  # "a few pixels", as a share of the height: 5 of 128

# Seconds per image on an RTX 2080 Ti, "Inference run-time": of one row only, though for all "the same behavior holds".
TIMED_ROW = "fourier-0.5"
RUN_TIMES: dict[str, dict[str, float]] = {
    "CelebA": {"dip": 100.0, "csgm": 30.0, "iagan": 35.0},
    "CelebA-HQ": {"dip": 1400.0, "csgm": 120.0, "iagan": 140.0},
}


@dataclass(frozen=True)
class Row:
    """One row of a table: a task with its operator and noise.

    Attributes:
        name: as in published.csv, and the folder's name.
        title: as in the paper.
        task: the command that runs it.
        options: its options.
    """

    name: str
    title: str
    task: str
    options: tuple[str, ...]


@dataclass(frozen=True)
class Figure:
    """A figure of the paper that shows pictures of some rows.

    Attributes:
        number: its number in the paper.
        rows: names of the rows that it shows, from top to bottom.
        lines: the pictures of an image, from left to right and top to bottom. Where the caption of the paper names
            several lines without saying where each one ends, that is our choice.
    """

    number: int
    rows: tuple[str, ...]
    lines: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class Experiment:
    """A table, or the runs behind a figure.

    Attributes:
        title: what it shows.
        methods: its columns.
        rows: its rows for each data set.
        figures: the paper's figure of the same runs for each data set that has one.
    """

    title: str
    methods: tuple[str, ...]
    rows: dict[Dataset, tuple[Row, ...]]
    figures: dict[Dataset, Figure]

    @property
    def dip(self) -> bool:
        """Tell whether Deep Image Prior is one of the columns."""
        return "dip" in self.methods

    def arrangement(self, dataset: Dataset) -> Figure:
        """Return the figure after which sheets are arranged: the other data set's where this one has none."""
        return self.figures.get(dataset) or next(iter(self.figures.values()))


def super_resolution(scale: int, noise_std: str = "0") -> Row:
    """Return a row of Tables 2 and 3; the public code pads with zeros."""
    operator = ("--operator", "BicubicDownsampling", "--operator.scale", str(scale), "--operator.padding", "zero")
    return Row(f"sr-{scale}", f"SR x{scale}", "super-resolution", (*operator, "--noise_std", noise_std))


def fourier(ratio: float, design: Design = "quadrant") -> Row:
    """Return a row of Table 1; the public code's mask is easier than the published figures of the plain pictures."""
    operator = ("--operator", "FourierSensing", "--operator.ratio", str(ratio), "--operator.design", design)
    options = (*operator, "--noise_std", "10/255")
    return Row(f"fourier-{ratio}", f"CS ratio {ratio}", "compressed-sensing", options)


def gaussian(ratio: float) -> Row:
    """Return a point of Figure 2."""
    operator = ("--operator", "GaussianSensing", "--operator.ratio", str(ratio))
    options = (*operator, "--noise_std", "0")
    return Row(f"gaussian-{ratio}", f"m/n {ratio}", "compressed-sensing", options)


def misaligned(height: int) -> Row:
    """Return the row of the super-resolution of misaligned images: moved down by a few pixels."""
    row = super_resolution(4)
    shift = max(1, round(MISALIGNED * height))
    return Row("sr-4-misaligned", f"SR x4, {shift} px down", row.task, (*row.options, "--data.shift", str(shift)))


_BLUR = ("--operator", "Blur", "--operator.kernel", "uniform", "--operator.size", "9", "--noise_std", "10/255")
_UNIFORM_9 = Row("deblur-uniform-9", "Deb U(9x9)", "deblurring", _BLUR)

LINE = (("truth", "naive", "dip", "csgm", "iagan"),)
GROUP = (("truth", "naive", "dip"), ("csgm", "iagan"))

RATIOS = (0.03, 0.061, 0.122, 0.244, 0.366, 0.488, 0.61, 0.75, 0.9)
CALIBRATED = "1-calibrated"
NOISY = ("naive", "dip", "csgm", "iagan")
EXACT = ("naive", "dip", "csgm", "csgm_bp", "iagan", "iagan_bp")

EXPERIMENTS: dict[str, Experiment] = {
    "1": Experiment(
        "Compressed sensing with subsampled Fourier measurements, noise 10/255",
        NOISY,
        {"CelebA": (fourier(0.3), fourier(0.5)), "CelebA-HQ": (fourier(0.3), fourier(0.5))},
        {
            "CelebA": Figure(3, ("fourier-0.3", "fourier-0.5"), LINE),
            "CelebA-HQ": Figure(4, ("fourier-0.3", "fourier-0.5"), GROUP),
        },
    ),
    CALIBRATED: Experiment(
        "Compressed sensing as in Table 1, with masks under which plain pictures are as poor as published (they "
        "are calibrated on that column alone)",
        NOISY,
        {dataset: tuple(fourier(ratio, "published-difficulty") for ratio in (0.3, 0.5)) for dataset in SIZES},
        {
            "CelebA": Figure(3, ("fourier-0.3", "fourier-0.5"), LINE),
            "CelebA-HQ": Figure(4, ("fourier-0.3", "fourier-0.5"), GROUP),
        },
    ),
    "2": Experiment(
        "Super-resolution with bicubic kernel, no noise",
        EXACT,
        {
            "CelebA": (super_resolution(4), super_resolution(8)),
            "CelebA-HQ": (super_resolution(8), super_resolution(16)),
        },
        {
            "CelebA": Figure(6, ("sr-4",), (("truth", "naive", "dip", "csgm"), ("csgm_bp", "iagan", "iagan_bp"))),
            "CelebA-HQ": Figure(8, ("sr-16",), (("truth", "naive", "dip", "csgm"), ("iagan", "csgm_bp", "iagan_bp"))),
        },
    ),
    "3": Experiment(
        "Super-resolution with bicubic kernel, noise 10/255",
        NOISY,
        {
            "CelebA": (super_resolution(4, "10/255"), super_resolution(8, "10/255")),
            "CelebA-HQ": (super_resolution(8, "10/255"), super_resolution(16, "10/255")),
        },
        {"CelebA-HQ": Figure(7, ("sr-8",), GROUP)},
    ),
    "4": Experiment(
        "Deblurring with 9x9 uniform filter, noise 10/255",
        NOISY,
        {"CelebA": (_UNIFORM_9,), "CelebA-HQ": (_UNIFORM_9,)},
        {"CelebA-HQ": Figure(10, ("deblur-uniform-9",), GROUP)},
    ),
    "fig2": Experiment(
        "Compressed sensing with Gaussian measurement matrix, no noise",
        ("csgm", "csgm_bp", "iagan", "iagan_bp"),
        {},  # its rows are the ratios that are asked for
        # of every ratio; the original stands to the left of both lines
        {"CelebA": Figure(1, ("gaussian-0.122", "gaussian-0.61"), (("csgm", "csgm_bp"), ("iagan", "iagan_bp")))},
    ),
    "misaligned": Experiment(
        "Super-resolution of misaligned images, scale 4, no noise",
        ("naive", "csgm", "iagan"),
        {},  # its row depends on the size of the images
        {"CelebA": Figure(9, ("sr-4-misaligned",), (("truth", "naive", "csgm", "iagan"),))},
    ),
}


def rows_of(table: str, dataset: Dataset, height: int, ratios: Sequence[float] = RATIOS) -> tuple[Row, ...]:
    """Return the rows of a table for a data set and images of a height.

    Example:
        >>> [row.name for row in rows_of("2", "CelebA-HQ", 1024)]
        ['sr-8', 'sr-16']
    """
    if table == "fig2":
        return tuple(gaussian(ratio) for ratio in sorted(set(ratios)))
    return (misaligned(height),) if table == "misaligned" else EXPERIMENTS[table].rows[dataset]


def published_figures(table: str, dataset: str) -> dict[tuple[str, str], tuple[float, float]]:
    """Return the published PSNR in dB (of the mean MSE) and PS (LPIPS, AlexNet) by row and method.

    Example:
        >>> published_figures("2", "CelebA")["sr-4", "iagan_bp"]
        (27.14, 0.092)
    """
    text = (Path(__file__).parent / "published.csv").read_text(encoding="utf-8")
    return {
        (line["task"], line["method"]): (float(line["psnr_db"]), float(line["ps"]))
        for line in csv.DictReader(text.splitlines())
        if (line["table"], line["dataset"]) == (table.removesuffix("-calibrated"), dataset)
    }
