"""A training that a signal ends: the step that is under way is made whole and kept."""

from __future__ import annotations

from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback

from iagan_lightning import signals


class EndAfterStep(Callback):
    """Let signals end a training after the step that is under way, on all its processes after the same one.

    A step cut through would leave networks of which one has been moved and the other not. Once the steps have begun
    signals are therefore only noted (``signals.hold``), and whoever called ``fit`` releases them.
    """

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Pass signals on to the processes that the Trainer has started."""
        signals.pass_on(getattr(trainer.strategy.launcher, "procs", []))

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Hold signals, also those that the Trainer has taken for itself by now."""
        signals.hold()

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Stop where any process was asked to end."""
        ending = signals.asked() is not None
        if trainer.world_size > 1:
            ending = trainer.strategy.reduce_boolean_decision(ending, all=False)
        if ending:
            trainer.fit_loop.min_epochs = trainer.fit_loop.epoch_loop.min_steps = None  # they would have it go on
            trainer.should_stop = True
