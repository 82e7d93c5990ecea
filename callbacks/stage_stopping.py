"""Ending a stage early: at the noise level, on a plateau, after a decrease, on held-out measurements, or converged."""

from __future__ import annotations

from collections import deque
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor

from iagan_lightning.methods.iagan import IAGAN
from iagan_lightning.methods.settings import Stage
from iagan_lightning.optim import BatchedLBFGS, better_half, decreased, noise_power, reached_plateau


class StageStopping(pl.Callback):
    """Apply the ``stop`` rule of the stage to each image, and end the stage when all images have ended.

    Images that have ended leave the batch: they cost no more evaluations.

    Args:
        check_every: evaluations between two looks from the host at an accelerator, where a look costs a
            synchronisation. Results do not depend on it: ended problems are no longer ``active`` at once.
    """

    def __init__(self, check_every: int = 8) -> None:
        self.check_every = check_every
        self._best: deque[Tensor] = deque()
        self._first: Tensor | None = None
        self._validated: tuple[Tensor, Tensor] | None = None

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Forget the previous stage."""
        assert isinstance(pl_module, IAGAN)
        self._best = deque(maxlen=(pl_module.settings.patience or 1) + 1)
        self._validated, self._first = None, None

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Judge the evaluation that has just been made."""
        assert isinstance(pl_module, IAGAN) and pl_module.evaluation is not None
        objective = pl_module.evaluation.objective
        settings = pl_module.settings
        rule = settings.stop
        self._best.append(torch.fmin(objective, self._best[-1]) if self._best else objective.clone())

        if self._first is None:
            self._first = objective.clone()

        ended: Tensor | bool = False
        if pl_module.validation is not None:
            ended = self._validate(pl_module, batch_idx + 1)
        elif pl_module.limit is not None and rule == "held-out":
            ended = pl_module.spent >= pl_module.limit
        elif rule == "noise":
            assert pl_module.noise_std is not None
            level = noise_power(pl_module.noise_std, pl_module.y.is_complex())
            ended = self._plateau(settings) | (self._best[-1] <= (settings.tau or 1.0) * level)
        elif rule == "plateau":
            ended = self._plateau(settings)
        elif rule == "decrease":
            ended = decreased(self._first, self._best[-1], settings.decrease or 1.0)
        optimizer = trainer.optimizers[0]
        if isinstance(optimizer, BatchedLBFGS) and optimizer.finished is not None:
            ended = optimizer.finished | ended
        halves = settings.halve and pl_module.starts > 1 and (batch_idx + 1) % settings.halve == 0
        if isinstance(ended, bool) and not halves:
            return
        if not isinstance(ended, bool):
            pl_module.active &= ~ended
        if halves:
            attempts = (len(pl_module.y), pl_module.starts)
            going_on = better_half(self._best[-1].reshape(attempts), pl_module.active.reshape(attempts))
            pl_module.active &= going_on.flatten()
        if objective.device.type == "cpu" or batch_idx % self.check_every == 0:
            rows = pl_module.active.nonzero().squeeze(1)
            pl_module.rows = None if len(rows) == len(pl_module.active) else rows
            if len(rows) == 0:
                trainer.should_stop = True

    def _plateau(self, settings: Stage) -> Tensor | bool:
        return reached_plateau(tuple(self._best), settings.patience or 1, settings.tolerance or 0.0)

    def _validate(self, module: IAGAN, step: int) -> Tensor:
        """Note in ``limit`` after how many evaluations held-out measurements were explained best."""
        now = module.validation
        assert now is not None
        if self._validated is None:
            module.limit = torch.ones_like(module.spent)
            self._validated = now.clone(), module.limit
        best, limit = self._validated
        better = (now < best) & module.active
        best = torch.where(better, now, best)
        limit = torch.where(better, step, limit)
        self._validated, module.limit = (best, limit), limit
        return step - limit >= (module.settings.patience or 1)
