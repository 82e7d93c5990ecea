"""A callback as a user would write it, outside the package."""

import os

import pytorch_lightning as pl
import torch

from iagan_lightning.results import shards


class CountEvaluations(pl.Callback):
    """Write how many evaluations of the objective each stage had."""

    def __init__(self, path: str):
        self.path = path
        self.seen = []

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.seen.append(pl_module.stage)

    def on_train_end(self, trainer, pl_module):
        with open(self.path, "a") as file:
            file.write(f"{pl_module.names[0]} {pl_module.stage} {self.seen.count(pl_module.stage)}\n")


class TwoAtMost(pl.Callback):
    """Play a device whose memory holds two images."""

    def on_train_start(self, trainer, pl_module):
        if len(pl_module.names) > 2:
            raise torch.OutOfMemoryError("out of memory")


class Faults(pl.Callback):
    """Images that go wrong in different ways; the others are as without it."""

    phase = "measure"

    def on_train_start(self, trainer, pl_module):
        if "005" in pl_module.names:
            with torch.no_grad():
                pl_module.z.fill_(torch.nan)
        if "010" in pl_module.names:
            raise torch.OutOfMemoryError("out of memory")


class FailsOnTwo(pl.Callback):
    """Fail wherever image 2 is."""

    def on_train_start(self, trainer, pl_module):
        if "2" in pl_module.names:
            raise RuntimeError("image 2 is broken")


class Small(pl.Callback):
    """Play a device whose memory holds one image if nothing is kept that can be computed again."""

    def on_train_start(self, trainer, pl_module):
        if not getattr(pl_module.generator, "checkpointing", False):
            raise torch.OutOfMemoryError("out of memory")


class Ends(pl.Callback):
    """End the process wherever image 3 is, as a crash or the kernel would."""

    def on_train_start(self, trainer, pl_module):
        if "003" in pl_module.names:
            os._exit(1)


class SmallShards(pl.Callback):
    """Shards of three images."""

    def __init__(self):
        shards.IMAGES = 3


class OnlyHere(pl.Callback):
    """A class that other machines do not have."""

    def __reduce__(self):
        return _not_here, ()


def _not_here():
    raise ImportError("No module named 'only_here'")
