"""Progress of one reconstruction in a notebook: a line that changes in place."""

from __future__ import annotations

import time
from typing import Any

import pytorch_lightning as pl

from iagan_lightning.methods.phases import require_method

REDRAW_SECONDS = 0.25


def in_notebook() -> bool:
    """Tell whether this is the kernel of a notebook, whose cells can show more than text."""
    try:
        shell = get_ipython()  # type: ignore[name-defined]  # IPython puts it among the builtins
    except NameError:
        return False
    return hasattr(shell, "kernel")


class NotebookProgress(pl.Callback):
    """Show the fit at hand, its evaluations and its objective below the cell; the last line stays."""

    phase = "write"

    def __init__(self) -> None:
        self._shown: Any = None
        self._start = self._drawn = time.perf_counter()

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Change the line, a few times a second at most."""
        now = time.perf_counter()
        if self._shown is None or now - self._drawn >= REDRAW_SECONDS:
            self._drawn = now
            self._show(pl_module, batch_idx + 1)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Leave what the fit came to."""
        self._show(pl_module, None)

    def _show(self, pl_module: pl.LightningModule, evaluations: int | None) -> None:
        from IPython.display import display

        module = require_method(pl_module, self)
        fit = module.current
        done = evaluations or int(module.evaluations[fit.name].max())
        at = f"{fit.name}, evaluation {done} of at most {fit.settings.steps}"
        value = f"objective {float(module.evaluation.objective.mean()):.2e}" if module.evaluation is not None else ""
        text = f"{at}, {value}, {time.perf_counter() - self._start:.1f} s"
        if self._shown is None:
            self._shown = display({"text/plain": text}, raw=True, display_id=True)
        else:
            self._shown.update({"text/plain": text}, raw=True)
