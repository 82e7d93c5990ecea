"""Keeping the best iterate of each fit, for each image of the batch."""

from __future__ import annotations

import pytorch_lightning as pl
import torch
from torch import Tensor

from iagan_lightning.methods.phases import require_method


class BestObjective(pl.Callback):
    """End each fit with the iterate of lowest objective: z, weights and image of one and the same forward pass.

    A snapshot is taken before the optimiser moves on; one taken after the update would pair an objective with
    weights that never had it. Problems that are no longer ``active`` keep the iterate they ended with. A fit whose
    ``keep`` is ``last``, like all fits without this callback, ends with its last iterate.
    """

    phase = "make"

    def on_before_backward(self, trainer: pl.Trainer, pl_module: pl.LightningModule, loss: Tensor) -> None:
        """Compare the evaluation at hand with the best so far."""
        module = require_method(pl_module, self)
        now, best = module.evaluation, module.best
        assert now is not None
        if module.settings.keep == "last":
            return
        if best is None:
            module.best = now.map(Tensor.clone)
            return
        better = (now.objective < best.objective) | best.objective.isnan()
        better &= module.active
        if better.device.type == "cpu" and not bool(better.any()):
            return
        everything = bool(better.all()) if better.device.type == "cpu" else False
        for kept, current in zip(best.tensors, now.tensors, strict=True):
            if everything:
                kept.copy_(current)
            else:
                torch.where(better.reshape(-1, *[1] * (kept.ndim - 1)), current, kept, out=kept)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """End the fit with the best iterate."""
        module = require_method(pl_module, self)
        if module.best is not None:
            module.keep(module.best)
            module.best = None
