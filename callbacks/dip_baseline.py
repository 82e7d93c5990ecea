"""Deep Image Prior beside every other method: same y, same A."""

from __future__ import annotations

import gc
import warnings
from collections.abc import Sequence

import pytorch_lightning as pl

from iagan_lightning.methods.dip import DIP, DIPSettings
from iagan_lightning.methods.iagan import IAGAN, adapt


class DIPBaseline(pl.Callback):
    """Add the result ``dip`` when the joint stage has ended, by a fit of ``DIP`` on a Trainer of its own.

    The schedule comes from the module's preset; where it is shorter than the official one, the result is entitled
    ``DIP (short)``. There are official settings for super-resolution, denoising and inpainting; all other tasks use
    those of x4 super-resolution. Where DIP fails on a single image, out of memory perhaps, a warning says so and the
    other results stay; several images are then tried in smaller batches by the run.

    Args:
        settings: what replaces the preset's settings.
        callbacks: Lightning callbacks for the fit of DIP, which see each of its evaluations.
    """

    def __init__(self, settings: DIPSettings = DIPSettings(), callbacks: Sequence[pl.Callback] = ()) -> None:  # noqa: B008
        self.settings, self.callbacks = settings, callbacks

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Fit DIP after the joint stage."""
        from iagan_lightning.methods.trainers import quiet_trainer  # which imports all callbacks

        assert isinstance(pl_module, IAGAN)
        if pl_module.stage != "joint":
            return
        device = pl_module.y.device
        dip = DIP(pl_module.preset, self.settings)
        dip.begin(pl_module.y, pl_module.operator, pl_module.noise_std, pl_module.seeds, pl_module.names)
        own = quiet_trainer(
            accelerator={"cuda": "gpu"}.get(device.type, device.type),
            devices=1 if device.index is None else [device.index],
            precision=trainer.precision,
            callbacks=list(self.callbacks),
        )
        try:
            adapt(dip, own)
        except (RuntimeError, MemoryError) as error:
            if len(pl_module.y) > 1:
                raise
            warnings.warn(f"no dip: {error}", stacklevel=2)
            return
        finally:
            pl_module.operator.to(device)  # Lightning takes a module to the CPU when its fit has ended
        pl_module.results["dip"] = dip.results["dip"].to(device)
        pl_module.titles["dip"] = dip.title
        pl_module.objective |= dip.objective
        pl_module.evaluations |= dip.evaluations
        pl_module.seconds |= dip.seconds
        del dip, own  # they refer to each other: weights and moments would stay until Python happens to look for cycles
        gc.collect()
