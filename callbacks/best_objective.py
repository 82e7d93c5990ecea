"""Keeping the best iterate of each stage, for each image of the batch."""

from __future__ import annotations

import pytorch_lightning as pl
import torch
from torch import Tensor

from iagan_lightning.methods.iagan import IAGAN, Iterate


class BestObjective(pl.Callback):
    """End each stage with the iterate of lowest objective: z, weights and image of one and the same forward pass.

    A snapshot is taken before the optimiser moves on; one taken after the update would pair an objective with
    weights that never had it. Problems that are no longer ``active`` keep the iterate they ended with. A stage whose
    ``keep`` is ``last``, like all stages without this callback, ends with its last iterate.
    """

    def __init__(self) -> None:
        self._best: Iterate | None = None

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Forget the previous stage."""
        self._best = None

    def on_before_backward(self, trainer: pl.Trainer, pl_module: pl.LightningModule, loss: Tensor) -> None:
        """Compare the evaluation at hand with the best so far."""
        assert isinstance(pl_module, IAGAN) and pl_module.evaluation is not None
        if pl_module.settings.keep == "last":
            return
        now = pl_module.evaluation
        if self._best is None:
            self._best = now.map(Tensor.clone)
            return
        better = (now.objective < self._best.objective) | self._best.objective.isnan()
        better &= pl_module.active
        if better.device.type == "cpu" and not bool(better.any()):
            return
        everything = bool(better.all()) if better.device.type == "cpu" else False
        for best, current in zip(self._best.tensors, now.tensors, strict=True):
            if everything:
                best.copy_(current)
            else:
                torch.where(better.reshape(-1, *[1] * (best.ndim - 1)), current, best, out=best)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Hand the best iterate to the module."""
        assert isinstance(pl_module, IAGAN)
        if self._best is not None:
            pl_module.keep(self._best)
            self._best = None
