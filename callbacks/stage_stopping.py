"""Ending a fit early: at the noise level, on a plateau, after a decrease, on held-out measurements, or converged."""

from __future__ import annotations

from collections import deque
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor

from iagan_lightning.methods.phases import require_method
from iagan_lightning.methods.settings import FitSettings
from iagan_lightning.methods.test_time_module import TestTimeModule
from iagan_lightning.optim import BatchedLBFGS, better_half, decreased, noise_power, reached_plateau


class StageStopping(pl.Callback):
    """Apply the ``stop`` rule of the fit, and the module's own, to each image; end the fit when all images have ended.

    Images that have ended leave the batch: they cost no more evaluations.

    Args:
        check_every: evaluations between two looks from the host at an accelerator, where a look costs a
            synchronisation. Results do not depend on it: ended problems are no longer ``active`` at once.
    """

    phase = "make"

    def __init__(self, check_every: int = 8) -> None:
        self.check_every = check_every
        self._best: deque[Tensor] = deque()
        self._lowest: Tensor | None = None
        self._first: Tensor | None = None
        self._validated: tuple[Tensor, Tensor] | None = None

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Forget the previous fit."""
        self._best = deque(maxlen=require_method(pl_module, self).settings.patience + 1)
        self._validated, self._first, self._lowest = None, None, None

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Judge the evaluation that has just been made."""
        module = require_method(pl_module, self)
        assert module.evaluation is not None
        objective, misfit = module.evaluation.objective, module.evaluation.misfit
        settings = module.settings
        rule = settings.stop
        self._best.append(torch.fmin(objective, self._best[-1]) if self._best else objective.clone())
        self._lowest = misfit.clone() if self._lowest is None else torch.fmin(misfit, self._lowest)
        if self._first is None:
            self._first = objective.clone()

        ended: Tensor | bool = False
        if module.validation is not None:
            ended = self._validate(module, batch_idx + 1)
        elif module.limit is not None and rule == "held-out":
            ended = module.spent >= module.limit
        elif rule == "noise":
            assert module.noise_std is not None
            level = noise_power(module.noise_std, module.y.is_complex())
            ended = self._plateau(settings) | (self._lowest <= settings.tau * level)
        elif rule == "plateau":
            ended = self._plateau(settings)
        elif rule == "decrease":
            ended = decreased(self._first, self._best[-1], settings.decrease)
        if module.quantisation and rule != "never":  # closer than that only the rounding of y is fitted
            ended = ended | (self._lowest <= noise_power(module.quantisation, module.y.is_complex()))
        own = module.ended(batch_idx)
        if own is not None:
            ended = own | ended
        optimizer = trainer.optimizers[0]
        if isinstance(optimizer, BatchedLBFGS) and optimizer.finished is not None:
            ended = optimizer.finished | ended
        halves = settings.halve and module.starts > 1 and (batch_idx + 1) % settings.halve == 0
        if isinstance(ended, bool) and not halves:
            return
        if not isinstance(ended, bool):
            module.active &= ~ended
        if halves:
            attempts = (len(module.y), module.starts)
            going_on = better_half(self._best[-1].reshape(attempts), module.active.reshape(attempts))
            module.active &= going_on.flatten()
        if objective.device.type == "cpu" or batch_idx % self.check_every == 0:
            rows = module.active.nonzero().squeeze(1)
            module.rows = None if len(rows) == len(module.active) else rows
            if len(rows) == 0:
                trainer.should_stop = True

    def _plateau(self, settings: FitSettings) -> Tensor | bool:
        return reached_plateau(tuple(self._best), settings.patience, settings.tolerance)

    def _validate(self, module: TestTimeModule, step: int) -> Tensor:
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
        return step - limit >= module.settings.patience
