"""Hard compliance with the measurements as a post-processing step."""

from __future__ import annotations

import warnings
from typing import Literal

import pytorch_lightning as pl
import torch

from iagan_lightning.checks import check_kind
from iagan_lightning.methods.phases import require_method
from iagan_lightning.operators import LinearOperator, Operator
from iagan_lightning.terminal import Notice

Projection = bool | Literal["discrepancy", "naive"] | None  # whether, and how far, results are back-projected


class BackProjection(pl.Callback):
    r"""Add :math:`\hat x_{bp} = \hat x + A^+ (y - A \hat x)` beside each fit's result: ``csgm_bp``, ``iagan_bp``.

    Where A^+ cannot be computed (conjugate gradients on an ill-conditioned operator), a warning says so and nothing is
    added. An operator that is not linear has no A^+. Where y was rounded (``quantisation``) and A is an
    ill-conditioned blur, y is agreed with as far as its rounding leaves it known (``back_project_rounded``).

    Args:
        enabled: None (default) adds them when ``noise_std`` is 0 (and known), because back-projection copies the noise
            of y into the image; True adds them always, with a warning where there is noise; False never;
            ``"discrepancy"`` always, but with noise only as far as the residual falls to the noise's, with the
            regularised A^+; ``"naive"`` always, with the plain reconstruction in place of A^+: bicubic enlargement,
            the zero-filled inverse transform. It only approaches agreement with y; kept to compare with.

    Raises:
        ValueError: before the first fit, where it is asked for and the operator is not linear, and for
            ``"discrepancy"`` where the level of the noise is unknown.

    Source: Abu Hussein, Tirer and Giryes, AAAI 2020, Eq. (10); ``"naive"`` is what their public code does.
    """

    def __init__(self, enabled: Projection = None) -> None:
        check_kind("back_projection", enabled, Projection)
        self.enabled = enabled

    phase = "make"

    def wanted(self, noise_std: float | None) -> bool:
        """Tell whether results of measurements with such noise (None: unknown) are back-projected.

        Example:
            >>> BackProjection().wanted(0.0), BackProjection().wanted(None), BackProjection(True).wanted(0.1)
            (True, False, True)
        """
        return noise_std == 0 if self.enabled is None else self.enabled is not False

    def check(self, noise_std: float | None, operator: Operator | None = None) -> None:
        """Raise ValueError where results of such measurements cannot be back-projected as it is asked for.

        Example:
            >>> BackProjection("discrepancy").check(None)
            Traceback (most recent call last):
            ValueError: back_projection discrepancy stops at the noise level: it needs a noise_std that is known
        """
        if self.enabled == "discrepancy" and noise_std is None:
            raise ValueError("back_projection discrepancy stops at the noise level: it needs a noise_std that is known")
        if self.enabled not in (None, False) and not isinstance(operator, LinearOperator | None):
            raise ValueError(
                f"back_projection needs a linear operator; {type(operator).__name__} is none: leave it out, or set it "
                "to false"
            )

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Refuse what cannot be done before the first fit is made."""
        module = require_method(pl_module, self)
        self.check(module.noise_std, module.operator)

    @torch.no_grad()
    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Back-project the result of the fit that has ended."""
        module = require_method(pl_module, self)
        result, noisy = module.current.result, module.noise_std != 0
        if result is None or not self.wanted(module.noise_std) or not isinstance(module.operator, LinearOperator):
            return
        if noisy and self.enabled is True and module.is_first:
            warnings.warn(
                f"back-projection of measurements with noise_std {_level(module.noise_std)} amplifies the noise",
                Notice,
                stacklevel=2,
            )
        level = (module.noise_std or 0.0) if self.enabled == "discrepancy" else 0.0
        x, y, A = module.results[result], module.y, module.operator
        try:
            if self.enabled == "naive":
                back_projected = x + A.naive(y - A(x))
            elif module.quantisation and not noisy:
                back_projected = A.back_project_rounded(x, y, module.quantisation)
            else:
                back_projected = A.back_project(x, y, level)
        except RuntimeError as error:
            warnings.warn(f"no {result}_bp: {error}", Notice, stacklevel=2)
        else:
            module.results[f"{result}_bp"] = back_projected


def _level(noise_std: float | None) -> str:
    return "unknown" if noise_std is None else f"{noise_std:.4g}"
