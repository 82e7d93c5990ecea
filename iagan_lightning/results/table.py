"""The table at the end of a run."""

from __future__ import annotations

import math
import shlex
from typing import Any

from rich.console import Console
from rich.table import Table

from iagan_lightning.results.folder import OutputFolder
from iagan_lightning.results.registry import shown
from iagan_lightning.results.sheet import TITLES
from iagan_lightning.results.summary import comparable, left_out
from iagan_lightning.safety import printable

MISFIT = 0.35
ROUNDING = 1e-6
HEADINGS = {"psnr": "PSNR in dB", "residual": "residual |Ax-y|/|y|"}


def print_summary(
    summary: dict[str, Any], folder: OutputFolder, noisy: bool = False, console: Console | None = None
) -> None:
    """Print means over all finished images, best in bold where all are over the same ones, and where the pictures are.

    No residual is the best of ``noisy`` measurements, where the truth leaves one too; those of rounding are alike.
    """
    console = console or Console()
    methods = summary["methods"]
    metrics = {key: about for key, about in shown(summary.get("about", {})).items() if about.better}
    columns = [key for key in metrics if any(key in table for table in methods.values())]
    if methods:
        table = Table(title=f"mean over {summary['images']} images")
        table.add_column("method")
        for key in columns:
            table.add_column(HEADINGS.get(key, metrics[key].title), justify="right")
        best = {}
        for key in columns:
            means = [table[key]["mean"] for table in methods.values() if key in table]
            if comparable(methods, key) and not (noisy and key == "residual"):
                best[key] = _floored(key, max(means) if metrics[key].better == "high" else min(means))
        for name, values in methods.items():
            cells = []
            for key in columns:
                mean = values.get(key, {}).get("mean")
                text = "" if mean is None else _format(key, mean)
                cells.append(f"[bold]{text}[/bold]" if text and _floored(key, mean) == best.get(key) else text)
            table.add_row((TITLES | summary["titles"]).get(name, name), *cells)
        console.print(table)
        if text := left_out(methods, TITLES | summary["titles"], {key: metrics[key].title for key in columns}):
            console.print(text, markup=False, highlight=False, soft_wrap=True)
    number, strangers = 0, []  # of many pictures only the first are named
    for row in folder.rows():
        if row["method"] == "csgm" and unexplained({"methods": {"csgm": row}}) > MISFIT:
            number += 1
            strangers += [printable(row["image"])] if number <= 3 else []
    if number:
        names = ", ".join(strangers) + (" ..." if number > 3 else "")
        console.print(
            f"{number} of {summary['images']} pictures are none that the prior can show: CSGM leaves more than "
            f"{MISFIT:.0%} of y unexplained ({names}). A prior knows only the subjects and the framing that it was "
            "trained on; for photographs of faces try --data.align true.",
            markup=False,
            highlight=False,
            soft_wrap=True,
        )
    for name, reason in summary["failed"].items():
        console.print(f"failed: {printable(name)}: {printable(reason)}", markup=False, highlight=False, soft_wrap=True)
    console.print(f"pictures: {folder.root / 'images'}", markup=False, highlight=False, soft_wrap=True)
    console.print(f"page: iagan report {shlex.quote(str(folder.root))}", markup=False, highlight=False, soft_wrap=True)
    board = folder.root / "tensorboard"
    if board.is_dir():
        command = f"tensorboard --logdir {shlex.quote(str(board))}"
        console.print(command, markup=False, highlight=False, soft_wrap=True)


def unexplained(record: dict[str, Any]) -> float:
    r"""Return the part of y that CSGM leaves unexplained, :math:`|A x - y| / |y|` without what noise is expected in it.

    Example:
        >>> unexplained({"methods": {"csgm": {"residual": 0.5}}})
        0.5
        >>> unexplained({"methods": {"csgm": {"residual": 0.5, "residual_sigma": 1.25}}})
        0.3
    """
    csgm = record["methods"].get("csgm", {})
    sigmas = csgm.get("residual_sigma", math.inf)
    return round(csgm.get("residual", 0.0) * math.sqrt(max(0.0, 1 - max(sigmas, 1e-9) ** -2)), 6)


def _floored(key: str, value: float) -> str:
    """Return what is compared: the digits that are shown."""
    return _format(key, max(value, ROUNDING) if key == "residual" else value)


def _format(key: str, value: float) -> str:
    return {"psnr": f"{value:.2f}", "residual": f"{value:.1e}"}.get(key, f"{value:.4f}")
