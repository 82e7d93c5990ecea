"""Ending a stage early: at the noise level, on a plateau, or when the optimiser has converged."""

from __future__ import annotations

from collections import deque
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor

from iagan_lightning.module import IAGAN
from iagan_lightning.optim import BatchedLBFGS, noise_power, reached_plateau


class StageStopping(pl.Callback):
    """Apply the ``stop`` rule of the stage to each image, and end the stage when all images have ended.

    Args:
        check_every: evaluations between two looks from the host at an accelerator, where a look costs a
            synchronisation. Results do not depend on it: ended problems are no longer ``active`` at once.
    """

    def __init__(self, check_every: int = 8) -> None:
        self.check_every = check_every
        self._best: deque[Tensor] = deque()

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Forget the previous stage."""
        assert isinstance(pl_module, IAGAN)
        self._best = deque(maxlen=(pl_module.settings.patience or 1) + 1)

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Judge the evaluation that has just been made."""
        assert isinstance(pl_module, IAGAN) and pl_module.evaluation is not None
        objective = pl_module.evaluation.objective
        settings = pl_module.settings
        rule = settings.stop
        if rule == "auto":
            rule = "noise" if pl_module.noise_std > 0 else "plateau"
        self._best.append(torch.fmin(objective, self._best[-1]) if self._best else objective.clone())

        ended: Tensor | bool = False
        if rule == "noise":
            ended = self._best[-1] <= noise_power(pl_module.noise_std, pl_module.y.is_complex())
        elif rule == "plateau":
            ended = reached_plateau(tuple(self._best), settings.patience or 1, settings.tolerance or 0.0)
        optimizer = trainer.optimizers[0]
        if isinstance(optimizer, BatchedLBFGS) and optimizer.finished is not None:
            ended = optimizer.finished | ended
        if isinstance(ended, bool):
            return
        pl_module.active &= ~ended
        looks = objective.device.type == "cpu" or batch_idx % self.check_every == 0
        if looks and not bool(pl_module.active.any()):
            trainer.should_stop = True
