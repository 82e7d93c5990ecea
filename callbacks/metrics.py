"""Measuring every reconstruction of an image when its last stage has ended."""

from __future__ import annotations

import pytorch_lightning as pl

from iagan_lightning.methods.iagan import IAGAN
from iagan_lightning.results.lpips import Backbone
from iagan_lightning.results.metrics import evaluate


class ImageMetrics(pl.Callback):
    """Fill ``module.metrics`` with the metrics of all results, and of the plain reconstruction ``naive``.

    Args:
        lpips: backbone of LPIPS: ``alex``, ``vgg``, ``squeeze`` or ``none``.
    """

    def __init__(self, lpips: Backbone = "none") -> None:
        self.lpips: Backbone = lpips

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Measure after the joint stage."""
        assert isinstance(pl_module, IAGAN)
        if pl_module.stage != "joint":
            return
        module, operator = pl_module, pl_module.operator
        module.results = {"naive": operator.naive(module.y), **module.results}
        module.metrics = [{} for _ in module.names]
        for method, images in module.results.items():
            rows = evaluate(images, module.y, operator, module.truth, module.noise_std or 0.0, self.lpips)
            for metrics, row in zip(module.metrics, rows, strict=True):
                metrics[method] = row
