"""Whether a prior knows a face, told as soon as the search among its own faces has ended."""

from __future__ import annotations

import math

import pytorch_lightning as pl

from iagan_lightning.methods.phases import require_method
from iagan_lightning.results.remarks import unknown_to_the_prior


class KnownOrNot(pl.Callback):
    """After the latent stage, leave out all other fits where it has left too much of y unexplained.

    By the same residual as the remark that a run makes (``results.remarks``): the result is that of CSGM then, and the
    weights, whose fit takes most of the time, never adapt to what is no face for this prior.

    Attributes:
        known: the verdict; True until there is one.
    """

    phase = "make"

    def __init__(self) -> None:
        self.known = True

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Judge, and end the plan where that is the end of it."""
        module = require_method(pl_module, self)
        if not module.is_first or module.current.result != "csgm":
            return
        misfit, energy = float(module.misfits[module.stage][0]), float(module.energy[0])
        residual = {"residual": math.sqrt(misfit / max(energy, 1e-12))}
        if module.noise_std:
            residual["residual_sigma"] = math.sqrt(misfit) / (2 * module.noise_std)
        self.known = not unknown_to_the_prior({"methods": {"csgm": residual}, "space": module.current.space})
        if not self.known:
            module.conclude_now()
