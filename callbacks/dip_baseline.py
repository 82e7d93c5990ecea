"""Deep Image Prior beside every other method: same y, same A."""

from __future__ import annotations

import gc
import warnings
from collections.abc import Sequence

import pytorch_lightning as pl
from iagan_lightning.callbacks.stage_stopping import StageStopping

from iagan_lightning.methods.adaptation import adapt_alone
from iagan_lightning.methods.dip import DIP, DIPSettings, resolve_dip
from iagan_lightning.methods.phases import require_method
from iagan_lightning.methods.presets import Preset
from iagan_lightning.methods.test_time_module import TestTimeModule
from iagan_lightning.methods.trainers import place_of
from iagan_lightning.terminal import Notice


class DIPBaseline(pl.Callback):
    """Add the result ``dip`` when the last fit has ended, by a fit of ``DIP`` on a Trainer of its own.

    The schedule comes from the module's preset (``fast`` where it has none); where it is shorter than the official one,
    the result is entitled ``DIP (short)``. There are official settings for super-resolution, denoising and inpainting;
    all other tasks use those of x4 super-resolution. Where DIP fails on a single image, out of memory perhaps, a
    warning says so and the other results stay; several images are then tried in smaller batches by the run.

    Args:
        settings: what replaces the preset's settings.
        callbacks: Lightning callbacks for the fit of DIP, which see each of its evaluations.

    Raises:
        ValueError: before the first fit, for settings that do not fit the noise, and beside ``DIP`` itself.
    """

    phase = "make"

    def __init__(self, settings: DIPSettings = DIPSettings(), callbacks: Sequence[pl.Callback] = ()) -> None:  # noqa: B008
        self.settings, self.callbacks = settings, callbacks

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Refuse what cannot be done before the first fit is made."""
        module = require_method(pl_module, self)
        if isinstance(module, DIP):
            raise ValueError("the method is Deep Image Prior already: leave the baseline out")
        resolve_dip(self.settings, self._preset(module), module.noise_std, module.operator)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Fit DIP after the last fit."""
        module = require_method(pl_module, self)
        if not module.is_last:
            return
        device = module.y.device
        dip = DIP(self._preset(module), self.settings)
        dip.begin(module.y, module.operator, module.noise_std, module.seeds, None, module.names, module.quantisation)
        try:
            adapt_alone(
                dip, **place_of(device), precision=trainer.precision, callbacks=[StageStopping(), *self.callbacks]
            )
        except (RuntimeError, MemoryError) as error:
            if len(module.y) > 1:
                raise
            warnings.warn(f"no dip: {error}", Notice, stacklevel=2)
            return
        finally:
            module.operator.to(device)  # Lightning takes a module to the CPU when its fit has ended
        module.results["dip"] = dip.results["dip"].to(device)
        module.titles |= dip.titles
        module.objective |= dip.objective
        module.misfits |= dip.misfits
        module.evaluations |= dip.evaluations
        module.seconds |= dip.seconds
        module.broken |= dip.broken
        del dip  # refers to its Trainer and that to it: weights would stay until Python happens to look for cycles
        gc.collect()

    @staticmethod
    def _preset(module: TestTimeModule) -> Preset:
        return module.preset or "fast"
