"""Our figures beside the published ones: as CSV, Markdown and LaTeX."""

from __future__ import annotations

import csv
import io
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from iagan_lightning.paper.experiments import (
    IMAGES,
    RUN_TIMES,
    SIZES,
    TIMED_ROW,
    Dataset,
    Row,
    published_figures,
)
from iagan_lightning.results.folder import OutputFolder
from iagan_lightning.results.sheet import TITLES
from iagan_lightning.results.summary import summarise

TIMED = ("dip", "csgm", "iagan")
LPIPS = ("lpips_alex", "lpips_vgg", "lpips_squeeze")


@dataclass(frozen=True)
class Cell:
    """What became of one method in one row.

    Attributes:
        row, method: where it stands.
        title: what the method is called there: DIP, or DIP (short).
        n: number of images.
        psnr_of_mean_mse: 10 log10(1 / mean MSE) in dB, the paper's average.
        psnr: mean of the PSNRs in dB.
        mse: mean, on the [0, 1] scale.
        lpips: means by backbone, ``lpips_alex`` for example.
        left_out: number of values by metric that are in no mean, being no finite numbers.
        seconds: mean per image, where the method was timed.
        published: PSNR and PS of the paper.
        published_seconds: the paper's seconds per image.
    """

    row: Row
    method: str
    title: str
    n: int = 0
    psnr_of_mean_mse: float | None = None
    psnr: float | None = None
    mse: float | None = None
    lpips: dict[str, float] | None = None
    seconds: float | None = None
    published: tuple[float, float] | None = None
    published_seconds: float | None = None
    left_out: Mapping[str, int] = field(default_factory=dict)


def cells_of(row: Row, methods: Sequence[str], folder: OutputFolder, table: str, dataset: Dataset) -> list[Cell]:
    """Return the cells of a row of a table from the images that are done."""
    published = published_figures(table, dataset)
    done = list(folder.done())
    titles = {method: title for record in done for method, title in record.get("titles", {}).items()}
    rows = [
        {"image": record["image"], "method": method, **metrics}
        for record in done
        for method, metrics in record["methods"].items()
        if "mse" in metrics
    ]
    summary = summarise(rows)["methods"]
    cells = []
    for method in methods:
        own = summary.get(method, {})
        times = [seconds for record in done if (seconds := seconds_of(record, method)) is not None]
        cells.append(
            Cell(
                row,
                method,
                titles.get(method, TITLES[method]),
                own.get("n", 0),
                own.get("psnr_of_mean_mse"),
                own.get("psnr", {}).get("mean"),
                own.get("mse", {}).get("mean"),
                {key: own[key]["mean"] for key in LPIPS if key in own and own[key]["mean"] is not None},
                statistics.fmean(times) if times else None,
                published.get((row.name, method)),
                RUN_TIMES[dataset].get(method) if row.name == TIMED_ROW else None,
                {key: number for key in ("mse", "psnr", *LPIPS) if (number := own.get(key, {}).get("left_out"))},
            )
        )
    return cells


def seconds_of(record: dict[str, Any], method: str) -> float | None:
    """Return the seconds that a method took for an image, those of the stages before it included.

    Example:
        >>> seconds_of({"seconds": {"latent": 2.0, "joint": 1.0, "total": 3.0}}, "iagan")
        3.0
    """
    parts = {"csgm": ("latent",), "iagan": ("latent", "probe", "joint"), "dip": ("dip",)}.get(method, ())
    spent = [record["seconds"][part] for part in parts if part in record["seconds"]]
    return sum(spent) if spent else None


# Grids: a header and lines of text, however they are then written ------------------------------------------------


def headings(cells: Sequence[Cell]) -> dict[str, str]:
    """Return what each method is called in all rows; in rows that call it otherwise its cells say so."""
    called: dict[str, set[str]] = {}
    for cell in cells:
        called.setdefault(cell.method, set()).update([cell.title] if cell.n else [])
    return {method: next(iter(titles)) if len(titles) == 1 else TITLES[method] for method, titles in called.items()}


def _count(cell: Cell, heading: str, metrics: Sequence[str] = ()) -> str:
    notes = [cell.title] if cell.title != heading else []
    notes += [f"{number} left out" for key, number in cell.left_out.items() if key in metrics]
    return f"({', '.join([f'N={cell.n}', *notes])})"


def quality(cells: Sequence[Cell], methods: Sequence[str], dataset: Dataset) -> list[list[str]]:
    """Return the table of PSNR and LPIPS: ours, the mean of the PSNRs, and the published figures below them."""
    titles = headings(cells)
    grid = [["", "", *(titles[method] for method in methods)]]
    for row in dict.fromkeys(cell.row for cell in cells):
        own = {cell.method: cell for cell in cells if cell.row == row}
        line = [own[method] for method in methods]
        backbones = list(dict.fromkeys(key for cell in line for key in cell.lpips or {}))
        units = " / ".join(["PSNR", *(key.replace("lpips_", "LPIPS ") for key in backbones)])
        grid.append([row.title, f"ours: {units}", *(_ours(cell, backbones, titles[cell.method]) for cell in line)])
        grid.append(["", "ours: mean of PSNRs", *(_mean(cell, titles[cell.method]) for cell in line)])
        if any(cell.published for cell in line):
            label = f"published: PSNR / LPIPS alex, {SIZES[dataset]} px"
            grid.append(["", label, *(_published(cell) for cell in line)])
    return grid


def _ours(cell: Cell, backbones: Sequence[str], heading: str) -> str:
    if cell.psnr_of_mean_mse is None:
        return "not run"
    distances = [f"{(cell.lpips or {})[key]:.3f}" for key in backbones if key in (cell.lpips or {})]
    return f"{' / '.join([f'{cell.psnr_of_mean_mse:.2f}', *distances])} {_count(cell, heading, ['mse', *backbones])}"


def _mean(cell: Cell, heading: str) -> str:
    return "" if cell.psnr is None else f"{cell.psnr:.2f} {_count(cell, heading, ['psnr'])}"


def _published(cell: Cell) -> str:
    return f"{cell.published[0]:.2f} / {cell.published[1]:.3f} (N={IMAGES})" if cell.published else ""


def run_time(cells: Sequence[Cell], device: str) -> list[list[str]]:
    """Return the table of seconds per image, in the paper's order: DIP, CSGM, IAGAN with its latent stage."""
    titles = headings(cells)
    methods = [method for method in TIMED if method in titles]
    grid = [["seconds per image", "", *(titles[method] for method in methods)]]
    for row in dict.fromkeys(cell.row for cell in cells):
        own = {cell.method: cell for cell in cells if cell.row == row}
        line = [own[method] for method in methods]
        times = [
            "not run" if cell.seconds is None else f"{cell.seconds:.1f} {_count(cell, titles[cell.method])}"
            for cell in line
        ]
        grid.append([row.title, f"ours, {device}", *times])
        published = [f"~{cell.published_seconds:.0f}" for cell in line if cell.published_seconds is not None]
        if published:
            grid.append(["", "published, RTX 2080 Ti", *published])
    return grid


def curves(cells: Sequence[Cell], methods: Sequence[str]) -> list[list[str]]:
    """Return the mean MSE of every ratio, which is what Figure 2 shows."""
    grid = [["", *(f"{TITLES[method]}, MSE" for method in methods)]]
    for row in dict.fromkeys(cell.row for cell in cells):
        own = {cell.method: cell for cell in cells if cell.row == row}
        values = ["not run" if own[m].mse is None else f"{own[m].mse:.2e} (N={own[m].n})" for m in methods]
        grid.append([row.title, *values])
    return grid


# Formats ----------------------------------------------------------------------------------------------------------


def as_csv(table: str, dataset: str, cells: Sequence[Cell], about: dict[str, Any]) -> str:
    """Return one line per row and method, everything in it."""
    lines = []
    for cell in cells:
        psnr, ps = cell.published or ("", "")
        lines.append(
            {
                "table": table,
                "dataset": dataset,
                "task": cell.row.name,
                "method": cell.method,
                "title": cell.title,
                "n": cell.n,
                "psnr_of_mean_mse": cell.psnr_of_mean_mse,
                "mean_psnr": cell.psnr,
                "mse": cell.mse,
                **(cell.lpips or {}),
                "seconds": cell.seconds,
                "published_psnr": psnr,
                "published_lpips_alex": ps,
                "published_seconds": cell.published_seconds,
                **{f"{key}_left_out": number for key, number in cell.left_out.items()},
                **about,
            }
        )
    text = io.StringIO(newline="")
    columns = [key for key in dict.fromkeys(key for line in lines for key in line) if key not in about]
    writer = csv.DictWriter(text, [*columns, *about], lineterminator="\n", restval="")
    writer.writeheader()
    writer.writerows(lines)
    return text.getvalue()


def as_curves(cells: Sequence[Cell], methods: Sequence[str]) -> str:
    """Return Figure 2 as CSV: one line per ratio, the mean MSE of every method on the [0, 1] scale."""
    lines = [",".join(["ratio", "n", *methods])]
    for row in dict.fromkeys(cell.row for cell in cells):
        own = {cell.method: cell for cell in cells if cell.row == row}
        values = ["" if (mse := own[method].mse) is None else f"{mse:.6g}" for method in methods]
        ratio = row.name.removeprefix("gaussian-")
        lines.append(",".join([ratio, str(max(cell.n for cell in own.values())), *values]))
    return "\n".join(lines) + "\n"


def as_markdown(grid: Sequence[Sequence[str]]) -> str:
    """Return a grid as a Markdown table.

    Example:
        >>> print(as_markdown([["", "DIP"], ["SR x4", "27.35"]]))
        |       | DIP   |
        |-------|-------|
        | SR x4 | 27.35 |
    """
    widths = [max(len(line[i]) for line in grid) for i in range(len(grid[0]))]
    lines = ["| " + " | ".join(text.ljust(w) for text, w in zip(line, widths, strict=True)) + " |" for line in grid]
    return "\n".join([lines[0], "|" + "|".join("-" * (w + 2) for w in widths) + "|", *lines[1:]])


def as_latex(grid: Sequence[Sequence[str]]) -> str:
    r"""Return a grid as a LaTeX tabular, which needs no package.

    Example:
        >>> print(as_latex([["", "DIP_1"], ["x", "~27"]]))
        \begin{tabular}{ll}
        \hline
         & DIP\_1 \\
        \hline
        x & $\sim$27 \\
        \hline
        \end{tabular}
    """
    lines = [" & ".join(_escape(text) for text in line) + r" \\" for line in grid]
    body = [r"\hline", lines[0], r"\hline", *lines[1:], r"\hline"]
    return "\n".join([rf"\begin{{tabular}}{{{'l' * len(grid[0])}}}", *body, r"\end{tabular}"])


def _escape(text: str) -> str:
    for sign in "&%$#_{}":
        text = text.replace(sign, f"\\{sign}")
    return text.replace("~", r"$\sim$")
