"""Progress of a run over its images: two lines that change in a terminal, a line per image elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from datetime import timedelta
from types import TracebackType
from typing import Any

import pytorch_lightning as pl
from rich.console import Console, RenderableType
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.text import Text

from iagan_lightning.methods.phases import require_method
from iagan_lightning.safety import printable

REDRAW_SECONDS = 0.25
LOOK_SECONDS = 1.0


class Display(Progress):
    """The whole run on a line with a bar; below it what this process is doing, cut off where the terminal ends."""

    doing = ""

    def get_renderables(self) -> Iterable[RenderableType]:
        """Return both lines."""
        yield self.make_tasks_table(self.tasks)
        yield Text(self.doing, no_wrap=True, overflow="ellipsis")


class RunProgress(pl.Callback):
    """Show images done (by all processes), images per second, failures, remaining time; image name, stage, objective.

    One instance serves all Trainers of a run; use it as a context manager around them.

    Args:
        total: images to do.
        console: where to print; standard error by default, so that standard output stays for results.
        shown: False for processes that leave the display to another one.
        quiet: show failures only.

    Attributes:
        look: called about once a second while an image is being adapted, to hear of other processes.
    """

    phase = "write"

    def __init__(self, total: int, console: Console | None = None, shown: bool = True, quiet: bool = False) -> None:
        self.total, self.done, self.failed = total, 0, 0
        self.console = console or Console(stderr=True, quiet=not shown)
        self.shown, self.quiet = shown, quiet
        self.look: Callable[[], None] = lambda: None
        self._progress: Display | None = None
        self._task: TaskID | None = None
        self._start = self._drawn = self._looked = time.perf_counter()

    def __enter__(self) -> RunProgress:
        if self.shown and self.console.is_terminal and not self.quiet:
            self._progress = Display(
                TextColumn("{task.fields[tally]}", markup=False),
                BarColumn(bar_width=None),
                TimeElapsedColumn(),
                TextColumn("left:"),
                TimeRemainingColumn(),
                console=self.console,
                transient=True,
                expand=True,
            )
            self._task = self._progress.add_task("", total=self.total, tally=self._tally())
            self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._progress is not None:
            self._progress.stop()
            self._progress = None

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Redraw the bar, a few times a second at most."""
        now = time.perf_counter()
        if now - self._looked >= LOOK_SECONDS:
            self._looked = now
            self.look()
        if self._progress is None or self._task is None or now - self._drawn < REDRAW_SECONDS:
            return
        self._drawn = now
        module = require_method(pl_module, self)
        assert module.evaluation is not None
        at = module.fits.index(module.current)
        steps = [fit.settings.steps for fit in module.fits]
        share = len(module.names) * (sum(steps[:at]) + batch_idx + 1) / sum(steps)
        doing = f"{module.current.result or module.stage} {batch_idx + 1}/{steps[at]}"
        objective = float(module.evaluation.objective.mean())
        more = f" +{len(module.names) - 1}" if len(module.names) > 1 else ""
        self._progress.doing = f"{doing}  objective {objective:.2e}  {printable(module.names[0])}{more}"
        # A baseline's fits come within those of the method: they are told, and the bar waits for them.
        completed = max(self.done + share, self._progress.tasks[self._task].completed)
        self._progress.update(self._task, completed=completed, tally=self._tally())

    def finish(self, name: str, text: str, failed: bool = False) -> None:
        """Count an image as done and say how it went."""
        self.done, self.failed = self.done + 1, self.failed + failed
        self.total = max(self.total, self.done)  # another run may be at work in the same folder
        if self._progress is not None and self._task is not None:
            self._progress.update(self._task, completed=self.done, total=self.total, tally=self._tally())
        if self.quiet and not failed:
            return
        left = (time.perf_counter() - self._start) / self.done * (self.total - self.done)
        rest = f", about {timedelta(seconds=round(left))} left" if self.done < self.total else ""
        self.console.print(
            f"[{self.done}/{self.total}] {printable(name)}: {'failed: ' if failed else ''}{printable(text)}{rest}",
            style="red" if failed else None,
            markup=False,
            highlight=False,
            soft_wrap=True,
        )

    def _tally(self) -> str:
        rate = self.done / max(time.perf_counter() - self._start, 1e-9)
        return f"{self.done}/{self.total} images  {rate:.2g}/s  {self.failed} failed"
