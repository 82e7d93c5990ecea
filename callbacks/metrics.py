"""Measuring every reconstruction of an image when its last stage has ended."""

from __future__ import annotations

import pytorch_lightning as pl

from iagan_lightning.methods.phases import require_method
from iagan_lightning.results.lpips import Backbone
from iagan_lightning.results.metrics import evaluate_all


class ImageMetrics(pl.Callback):
    """Fill ``module.metrics`` with the metrics of all results, and of the plain reconstruction ``naive``.

    Args:
        lpips: backbone of LPIPS: ``alex``, ``vgg``, ``squeeze`` or ``none``.
    """

    phase = "measure"

    def __init__(self, lpips: Backbone = "none") -> None:
        self.lpips: Backbone = lpips

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Measure after the last fit."""
        module = require_method(pl_module, self)
        if module.is_last:
            module.results, module.metrics = evaluate_all(
                module.results, module.y, module.operator, module.truth, module.noise_std, self.lpips
            )
