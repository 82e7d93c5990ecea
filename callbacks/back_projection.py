"""Hard compliance with the measurements as a post-processing step."""

from __future__ import annotations

import warnings

import pytorch_lightning as pl
import torch

from iagan_lightning.module import IAGAN, METHOD


class BackProjection(pl.Callback):
    r"""Add :math:`\hat x_{bp} = \hat x + A^+ (y - A \hat x)` beside each stage's result: ``csgm_bp``, ``iagan_bp``.

    Args:
        enabled: None (default) adds them when ``noise_std`` is 0, because back-projection copies the noise of y into
            the image; True adds them always, with a warning where there is noise; False never.

    Source: Abu Hussein, Tirer and Giryes, AAAI 2020, Eq. (10).
    """

    def __init__(self, enabled: bool | None = None) -> None:
        self.enabled = enabled

    @torch.no_grad()
    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Back-project the result of the stage that has ended."""
        assert isinstance(pl_module, IAGAN)
        noisy = pl_module.noise_std > 0
        if self.enabled is False or (self.enabled is None and noisy):
            return
        if noisy and pl_module.stage == "latent":
            warnings.warn(
                f"back-projection of measurements with noise_std {pl_module.noise_std:.4g} amplifies the noise",
                stacklevel=2,
            )
        method = METHOD[pl_module.stage]
        pl_module.results[f"{method}_bp"] = pl_module.operator.back_project(pl_module.results[method], pl_module.y)
