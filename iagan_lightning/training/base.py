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
from torch import Tensor, nn

from iagan_lightning.generators import Generator, WeightsError, save_generator

LOOK_EVERY = 50  # steps after which a device is asked for values, which makes it wait
NEVER = 2**62


class DivergenceError(ValueError):
    """A training whose losses or weights are no finite numbers any more."""


class PriorTraining(pl.LightningModule, ABC):
    """Train a generator, or what belongs to one; subclasses say which, and how.

    A subclass calls ``super().__init__``, writes ``training_step``, which steps the optimisers itself (only that of
    what is stored counts as a ``global_step``), and ends it with ``self.update_average()``. Everything that decides
    about the next step must be in the checkpoint or follow from seed and step, so that a resumed run repeats the
    steps of one that was never interrupted.

    Args:
        generator: as it begins.
        average: decay of the exponential moving average of what is trained, which is what is stored; 0 stores it
            as it is.
        averaged: what is averaged and stored, where that is not the generator; ``network`` then returns it.
    """

    method: str
    calming = ""  # what else helps, besides a lower learning rate, when a training diverges
    first_bad: Tensor
    averaged: Any

    def __init__(self, generator: Generator, average: float, averaged: nn.Module | None = None) -> None:
        super().__init__()
        if not 0 <= average < 1:
            raise ValueError(f"model.average lies in [0, 1); {average} was given")
        self.automatic_optimization = False
        self.seed = 0
        self.generator = generator
        self.averaged = copy.deepcopy(generator if averaged is None else averaged).requires_grad_(False)
        self.register_buffer("first_bad", torch.tensor(NEVER), persistent=False)  # step with a loss that is not finite

    def setup(self, stage: str) -> None:
        """Bring all weights into the layout in which convolutions are fastest, before the optimisers see them."""
        self.to(memory_format=torch.channels_last)

    @property
    def network(self) -> nn.Module:
        """What is trained, averaged and stored."""
        return self.generator

    @property
    def trains_generator(self) -> bool:
        """Whether the generator changes, so that its pictures have news to tell."""
        return self.network is self.generator

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

    def cool(self, *optimizers: Any) -> float:
        """Give optimisers this step's learning rate, which falls to 0 over the last steps, and return it."""
        left: int = self.trainer.max_steps - self.global_step
        rate: float = self.hparams["lr"] * min(1.0, left / self.hparams["cooldown"])
        for optimizer in optimizers:
            for group in optimizer.param_groups:
                group["lr"] = rate
        return rate

    def update_average(self) -> None:
        """Move the average towards what is trained, faster in the first steps."""
        decay = min(float(self.hparams["average"]), (1 + self.global_step) / (10 + self.global_step))
        for kept, new in zip(self.averaged.parameters(), self.network.parameters(), strict=True):
            kept.detach().lerp_(new.detach(), 1 - decay)

    def on_train_batch_end(self, outputs: Any, batch: Tensor, batch_idx: int) -> None:
        """Log now and then, and stop a training that diverges; a value read every step would make the device wait."""
        step = self.global_step
        if not outputs:
            return
        losses = torch.stack([value.detach().to(self.first_bad.device, torch.float32) for value in outputs.values()])
        self.first_bad.copy_(torch.where(losses.isfinite().all(), self.first_bad, self.first_bad.clamp(max=step)))
        if step % LOOK_EVERY == 0 or self.first_bad.device.type == "cpu":
            self.check_losses()
        if self.logger is not None and step % LOOK_EVERY == 0:
            self.logger.log_metrics({name: float(value) for name, value in outputs.items()}, step=step)

    def check_losses(self) -> None:
        """Raise DivergenceError where a loss of an earlier step was not finite, in any process."""
        first = self.first_bad.clone()
        if _distributed():
            dist.all_reduce(first, op=dist.ReduceOp.MIN)
        if int(first) != NEVER:
            raise self.diverged("its losses are not finite", int(first))

    def check_weights(self) -> None:
        """Raise DivergenceError where a weight or what an optimiser remembers of it is not finite."""
        for name, value in self.named_parameters():
            if not bool(value.isfinite().all()):
                raise self.diverged(f"{name} is not finite")
        for name, buffer in self.named_buffers():  # the lowest M begins at infinity
            if bool(buffer.isnan().any()):
                raise self.diverged(f"{name} is not a number")
        for optimizer in self.trainer.optimizers:
            for state in optimizer.state.values():  # squares overflow first, and then Adam stands still
                if not all(bool(value.isfinite().all()) for value in state.values() if isinstance(value, Tensor)):
                    raise self.diverged("its gradients are too large")

    def diverged(self, reason: str, step: int | None = None) -> DivergenceError:
        """Return the error of a training that has diverged at a step, this one if none is given."""
        step = self.global_step if step is None else step
        rate = f" ({self.hparams['lr']} was given)" if "lr" in self.hparams else ""
        return DivergenceError(f"the training diverged at step {step}: {reason}; lower --model.lr{rate}{self.calming}")

    def decoded(self, x: Tensor) -> Tensor | None:
        """Return what the stored generator makes of the codes of images in [-1, 1], on the CPU; None without codes."""
        del x
        return None

    @torch.no_grad()
    def prior(self) -> Generator:
        """Return the generator to store, on the CPU."""
        generator: Generator = copy.deepcopy(self.averaged).cpu().eval()
        return generator

    @torch.no_grad()
    def samples(self) -> Tensor | None:
        """Return pictures that show how the training goes, ``(32, C, H, W)``; None where nothing is to be seen."""
        if not self.trains_generator:
            return None
        prior = self.prior()
        return prior(prior.sample_latent(32, seed=0))

    def save(self, path: str | Path, data: str, half: bool = True) -> None:
        """Write the prior with everything that ``load_generator`` and a reader need in the header.

        Raises:
            DivergenceError: for weights that are not finite, or too large for half precision; nothing is written.
        """
        try:
            save_generator(self.prior(), path, training=self.note(data), half=half)
        except WeightsError as error:
            raise self.diverged(str(error)) from error

    def note(self, data: str) -> dict[str, Any]:
        """Return what a header says of the training."""
        settings = {key: value for key, value in self.hparams.items() if not key.startswith("_")}
        if settings.get("start"):  # a prior travels: no folders of the machine that made it
            settings["start"] = "/".join(Path(settings["start"]).parts[-2:])
        return {"method": self.method, "data": data, "steps": self.global_step, "settings": settings}


def check_settings(lr: float, cooldown: int = 1, **weights: float) -> None:
    """Raise ValueError for a learning rate, a cooldown or weights of terms that are not allowed.

    Example:
        >>> check_settings(1e-3, cooldown=0)
        Traceback (most recent call last):
        ValueError: model.cooldown is at least 1 step; 0 was given
    """
    if not lr > 0:
        raise ValueError(f"model.lr is above 0; {lr} was given")
    for name, value in weights.items():
        if not value >= 0:
            raise ValueError(f"model.{name} is at least 0; {value} was given")
    if cooldown < 1:
        raise ValueError(f"model.cooldown is at least 1 step; {cooldown} was given")


def mean_over_processes(value: Tensor) -> Tensor:
    """Return the mean of a value over all processes; the value itself where there is one."""
    if not _distributed():
        return value
    total = value.clone()
    dist.all_reduce(total)
    return total / dist.get_world_size()


def _distributed() -> bool:
    return dist.is_available() and dist.is_initialized()
