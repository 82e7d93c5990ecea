"""Seconds that the reconstruction of an image may take."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytorch_lightning as pl

from iagan_lightning.checks import check_number
from iagan_lightning.methods.phases import require_method


class TimeLimit(pl.Callback):
    """End the fits of an image, or of those side by side, in time; the best iterates so far are the results.

    Each fit of a view may take its part of what is left, and the last one all of it. A further view begins where as
    much time is left as the first one took; otherwise the mean is that of the views there are. An evaluation is not
    interrupted, and each fit makes one. What happens within the limit depends on the machine: results with a limit
    cannot be reproduced elsewhere.

    Args:
        seconds: for all fits, back-projection included; metrics and files come after them.
        clock: tells the time in seconds.

    Raises:
        ValueError: for a limit that is not above 0.
    """

    phase = "make"

    def __init__(self, seconds: float, clock: Callable[[], float] = time.perf_counter) -> None:
        check_number("time", seconds)
        if not seconds > 0:
            raise ValueError(f"time is a number of seconds above 0; {seconds} was given")
        self.seconds, self.clock = seconds, clock
        self._begun = self._until = 0.0

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Note when the image began, and give the fit its part."""
        module = require_method(pl_module, self)
        now = self.clock()
        if module.is_first:
            self._begun = now
        each = module.fits_of_a_view
        left = each - module.fits.index(module.current) % each  # fits of this view, with the one at hand
        self._until = now + (self._begun + self.seconds - now) / left

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """End the fit when its time is over."""
        if self.clock() >= self._until:
            trainer.should_stop = True

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """After the last fit of a view leave out the others where they would come too late."""
        module = require_method(pl_module, self)
        each = module.fits_of_a_view
        views, rest = divmod(module.fits.index(module.current) + 1, each)
        spent = self.clock() - self._begun
        if rest == 0 and spent + spent / views > self.seconds:
            module.conclude()
