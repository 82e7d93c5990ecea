"""Hard compliance with the measurements as a post-processing step."""

from __future__ import annotations

import warnings
from typing import Literal

import pytorch_lightning as pl
import torch

from iagan_lightning.methods.iagan import IAGAN, METHOD


class BackProjection(pl.Callback):
    r"""Add :math:`\hat x_{bp} = \hat x + A^+ (y - A \hat x)` beside each stage's result: ``csgm_bp``, ``iagan_bp``.

    Where A^+ cannot be computed (conjugate gradients on an ill-conditioned operator), a warning says so and nothing is
    added.

    Args:
        enabled: None (default) adds them when ``noise_std`` is 0 (and known), because back-projection copies the noise
            of y into the image; True adds them always, with a warning where there is noise; False never;
            ``"discrepancy"`` always, but with noise only as far as the residual falls to the noise's, with the
            regularised A^+; ``"naive"`` always, with the plain reconstruction in place of A^+: bicubic enlargement,
            the zero-filled inverse transform. It only approaches agreement with y; kept to compare with.

    Source: Abu Hussein, Tirer and Giryes, AAAI 2020, Eq. (10); ``"naive"`` is what their public code does.
    """

    def __init__(self, enabled: bool | Literal["discrepancy", "naive"] | None = None) -> None:
        self.enabled = enabled

    @torch.no_grad()
    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Back-project the result of the stage that has ended."""
        assert isinstance(pl_module, IAGAN)
        if pl_module.stage == "probe":
            return
        noisy = pl_module.noise_std != 0
        if self.enabled is False or (self.enabled is None and noisy):
            return
        if noisy and self.enabled is True and pl_module.stage == "latent":
            warnings.warn(
                f"back-projection of measurements with noise_std {_level(pl_module.noise_std)} amplifies the noise",
                stacklevel=2,
            )
        method = METHOD[pl_module.stage]
        level = (pl_module.noise_std or 0.0) if self.enabled == "discrepancy" else 0.0
        x, y, A = pl_module.results[method], pl_module.y, pl_module.operator
        try:
            result = x + A.naive(y - A(x)) if self.enabled == "naive" else A.back_project(x, y, level)
        except RuntimeError as error:
            warnings.warn(f"no {method}_bp: {error}", stacklevel=2)
        else:
            pl_module.results[f"{method}_bp"] = result


def _level(noise_std: float | None) -> str:
    return "unknown" if noise_std is None else f"{noise_std:.4g}"
