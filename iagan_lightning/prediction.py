"""The whole method as Lightning's ``Trainer.predict`` calls it, for measurements that a data module brings."""

from __future__ import annotations

import os
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor

from iagan_lightning.generators import Generator, load_generator
from iagan_lightning.methods import TestTimeModule
from iagan_lightning.methods.trainers import place_of
from iagan_lightning.operators import Operator
from iagan_lightning.reconstruction import Reconstruction, reconstruct


class Predictor(pl.LightningModule):
    """Reconstructs the measurements of each batch: ``Trainer.predict`` returns a ``Reconstruction`` for every one.

    Each is what ``reconstruct`` makes of the same batch, to the last bit on the same device: a fit of its own, with
    gradients, whatever mode Lightning predicts in. Image i, in the order in which the data come, starts from seed + i,
    whichever batch it is in; of several processes too, to which Lightning deals the images out in turn.

    Args:
        A: the operator.
        G: the generator, its name or file, or a method with its generator; it is not changed.
        noise_std: standard deviation of the noise on the [0, 1] scale; None where it is unknown.
        seed: where the seeds begin.
        **settings: further ones of ``reconstruct``, such as ``preset``, ``joint`` or ``views``.

    Example:
        >>> from iagan_lightning import Stage
        >>> from iagan_lightning.generators import BEGAN
        >>> from iagan_lightning.operators import Identity
        >>> model = Predictor(Identity((3, 16, 16)), BEGAN(16, 4, 8), latent=Stage(steps=2), joint=Stage(steps=2))
        >>> results = pl.Trainer().predict(model, datamodule=measurements)  # doctest: +SKIP
    """

    def __init__(
        self,
        A: Operator,
        G: Generator | TestTimeModule | str | os.PathLike[str],
        noise_std: float | None = 0.0,
        seed: int = 0,
        **settings: Any,
    ) -> None:
        super().__init__()
        self.operator, self.noise_std, self.seed, self.settings = A, noise_std, seed, settings
        # Not as a part of this module: what Lightning moves while it predicts has no gradients ever after.
        self._method = [load_generator(G) if isinstance(G, str | os.PathLike) else G]
        self._seen = 0

    def on_predict_start(self) -> None:
        """Begin to count the images."""
        self._seen = 0

    def predict_step(self, batch: Tensor | list[Tensor], batch_idx: int = 0, dataloader_idx: int = 0) -> Reconstruction:
        """Reconstruct a batch.

        Args:
            batch: measurements ``(B, *A.measurement_shape)``, alone or the first of several tensors.
            batch_idx, dataloader_idx: which one it is.
        """
        given = batch if isinstance(batch, Tensor) else batch[0]
        positions = range(self._seen, self._seen + len(given))
        self._seen += len(given)
        seeds = [self.seed + self.trainer.global_rank + self.trainer.world_size * position for position in positions]
        with torch.inference_mode(False), torch.enable_grad():
            return reconstruct(
                given.cpu().clone(),
                self.operator,
                self._method[0],
                self.noise_std,
                seed=seeds,
                progress=False,
                precision=self.trainer.precision,
                **self.settings,
                **place_of(self.device),
            )
