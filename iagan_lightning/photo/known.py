"""Whether a prior knows a face, told as soon as the search among its own faces has ended."""

from __future__ import annotations

import pytorch_lightning as pl

from iagan_lightning.callbacks.result_writer import familiar
from iagan_lightning.methods.phases import require_method


class KnownOrNot(pl.Callback):
    """After the latent stage, leave out all other fits where it has left too much of y unexplained.

    By what a run says of its pictures too (``results.familiarity``): the result is that of CSGM then, and the weights,
    whose fit takes most of the time, never adapt to what is no face for this prior.

    Attributes:
        known: the verdict; True until there is one.
    """

    phase = "make"

    def __init__(self) -> None:
        self.known = True

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Judge, and end the plan where that is the end of it."""
        module = require_method(pl_module, self)
        if not module.is_first:
            return
        found = familiar(module, 0)
        self.known = found is None or found.known
        if not self.known:
            module.conclude()
