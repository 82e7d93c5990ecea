"""The table at the end of a run."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from iagan_lightning.results.folder import OutputFolder
from iagan_lightning.results.registry import shown
from iagan_lightning.results.shards import ShardedOutput
from iagan_lightning.results.sheet import TITLES
from iagan_lightning.results.summary import comparable, left_out
from iagan_lightning.safety import printable

ROUNDING = 1e-6
HEADINGS = {"psnr": "PSNR in dB", "residual": "residual |Ax-y|/|y|"}


def print_summary(
    summary: dict[str, Any], folder: OutputFolder | ShardedOutput, noisy: bool = False, console: Console | None = None
) -> None:
    """Print means over all finished images, best in bold where all are over the same ones, and where the pictures are.

    Where none is finished it says where the reasons are.

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
    for line in summary.get("remarks", ()):
        console.print(line, markup=False, highlight=False, soft_wrap=True)
    for name, reason in summary["failed"].items():
        console.print(f"failed: {printable(name)}: {printable(reason)}", markup=False, highlight=False, soft_wrap=True)
    sharded = isinstance(folder, ShardedOutput)
    if summary["failed"] and not summary["images"]:  # there is no picture to show
        reasons = f"{folder.root}/failed" if sharded else f"{folder.root / 'images'}"
        console.print(f"in full: error.txt of each image in {reasons}", markup=False, highlight=False, soft_wrap=True)
        return
    where = f"shards: {folder.root}/shards" if sharded else f"pictures: {folder.root / 'images'}"
    console.print(where, markup=False, highlight=False, soft_wrap=True)
    console.print(f"page: iagan report {shlex.quote(str(folder.root))}", markup=False, highlight=False, soft_wrap=True)
    board = Path(folder.root) / "tensorboard"
    if not sharded and board.is_dir():
        command = f"tensorboard --logdir {shlex.quote(str(board))}"
        console.print(command, markup=False, highlight=False, soft_wrap=True)


def _floored(key: str, value: float) -> str:
    """Return what is compared: the digits that are shown."""
    return _format(key, max(value, ROUNDING) if key == "residual" else value)


def _format(key: str, value: float) -> str:
    return {"psnr": f"{value:.2f}", "residual": f"{value:.1e}"}.get(key, f"{value:.4f}")
