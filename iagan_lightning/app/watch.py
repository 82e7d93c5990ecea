"""Looking on while a reconstruction forms, and ending it in the middle."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import pytorch_lightning as pl
from torch import Tensor

from iagan_lightning.methods.phases import require_method

EVERY = 0.5  # seconds from one picture to the next


class StoppedError(Exception):
    """The user wants no more of it."""


class Watch(pl.Callback):
    """Hand on the iterate that is best at the moment, every half second, and end the fit when asked to.

    Args:
        tell: called with a line, and with the iterate ``(C, H, W)`` in [-1, 1], None where only the line is new.
        stop: set from outside; the evaluation at hand is the last one, and ``StoppedError`` is raised.
    """

    phase = "write"

    def __init__(self, tell: Callable[[str, Tensor | None], object], stop: threading.Event) -> None:
        self.tell, self.stop, self.head = tell, stop, ""
        self._told = 0.0

    def line(self, text: str) -> None:
        """Note what is worked on, and tell it.

        Raises:
            StoppedError: where nobody wants it any more.
        """
        self.check()
        self.head = text
        self.tell(text, None)

    def check(self) -> None:
        """Raise StoppedError where nobody wants the result any more."""
        if self.stop.is_set():
            raise StoppedError

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Tell of an evaluation, if the last one that was told of was long enough ago."""
        self.check()
        now = time.monotonic()
        module = require_method(pl_module, self)
        if module.evaluation is None or now - self._told < EVERY:
            return
        self._told = now
        fit = module.current
        best = int(module.evaluation.objective.argmin())
        text = f"{fit.name}, evaluation {batch_idx + 1} of at most {fit.settings.steps}"
        image = module.evaluation.image[best].detach().float().cpu().clone()
        self.tell(f"{self.head}: {text}" if self.head else text, image)
