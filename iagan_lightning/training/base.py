"""What every way of training a prior shares: the generator, its moving average, reproducible draws, the stored file."""

from __future__ import annotations

import copy
import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
import torch.distributed as dist
from torch import Tensor

from iagan_lightning.generators import BEGAN, Pyramid, save_generator


class PriorTraining(pl.LightningModule, ABC):
    """Train a generator; subclasses say which, and how.

    A subclass calls ``super().__init__``, writes ``training_step``, which steps the optimisers itself (only the
    generator's counts as a ``global_step``), and ends it with ``self.update_average()``. Everything that decides about
    the next step must be in the checkpoint or follow from seed and step, so that a resumed run repeats the
    steps of one that was never interrupted.

    Args:
        generator: as it begins.
        average: decay of the exponential moving average of the generator, which is what is stored; 0 stores the
            generator itself.
    """

    method: str

    def __init__(self, generator: BEGAN | Pyramid, average: float) -> None:
        super().__init__()
        if not 0 <= average < 1:
            raise ValueError(f"model.average lies in [0, 1); {average} was given")
        self.automatic_optimization = False
        self.seed = 0
        self.generator = generator
        self.averaged = copy.deepcopy(generator).requires_grad_(False)

    def setup(self, stage: str) -> None:
        """Bring all weights into the layout in which convolutions are fastest, before the optimisers see them."""
        self.to(memory_format=torch.channels_last)

    @abstractmethod
    def training_step(self, batch: Tensor, batch_idx: int) -> dict[str, Tensor]:
        """Make one step of all networks and return what is logged."""

    def draw(self, name: str) -> torch.Generator:
        """Return a source of random numbers that depends on the name, the seed and the step alone."""
        words = f"{name} {self.seed} {self.global_step}".encode()
        return torch.Generator().manual_seed(int.from_bytes(hashlib.sha256(words).digest()[:7], "big"))

    def share(self, draws: Callable[[int], Tensor], n: int) -> Tensor:
        """Return this process's n of the numbers that all processes draw together.

        Two processes with n each thus see what one with 2 n sees.
        """
        world, rank = (dist.get_world_size(), dist.get_rank()) if _distributed() else (1, 0)
        return draws(n * world)[rank * n : (rank + 1) * n].to(next(self.generator.parameters()))

    def latents(self, n: int) -> Tensor:
        """Return this step's latents."""
        seed = self.draw("z").initial_seed()
        return self.share(lambda count: self.generator.sample_latent(count, seed), n)

    def update_average(self) -> None:
        """Move the averaged generator towards the present one, faster in the first steps."""
        decay = min(float(self.hparams["average"]), (1 + self.global_step) / (10 + self.global_step))
        for kept, new in zip(self.averaged.parameters(), self.generator.parameters(), strict=True):
            kept.detach().lerp_(new.detach(), 1 - decay)

    def on_train_batch_end(self, outputs: Any, batch: Tensor, batch_idx: int) -> None:
        """Log now and then; a value read every step would make the device wait."""
        step = self.global_step
        if self.logger is not None and step % 50 == 0:
            self.logger.log_metrics({name: float(value) for name, value in outputs.items()}, step=step)

    @torch.no_grad()
    def prior(self) -> BEGAN | Pyramid:
        """Return the generator to store, on the CPU."""
        return copy.deepcopy(self.averaged).cpu().eval()

    def save(self, path: str | Path, data: str, half: bool = True) -> None:
        """Write the prior with everything that ``load_generator`` and a reader need in the header."""
        settings = {key: value for key, value in self.hparams.items() if not key.startswith("_")}
        if settings.get("start"):  # a prior travels: no folders of the machine that made it
            settings["start"] = "/".join(Path(settings["start"]).parts[-2:])
        note = {"method": self.method, "data": data, "steps": self.global_step, "settings": settings}
        network = self.prior()
        save_generator(network.half() if half else network, path, training=note)


def mean_over_processes(value: Tensor) -> Tensor:
    """Return the mean of a value over all processes; the value itself where there is one."""
    if not _distributed():
        return value
    total = value.clone()
    dist.all_reduce(total)
    return total / dist.get_world_size()


def _distributed() -> bool:
    return dist.is_available() and dist.is_initialized()
