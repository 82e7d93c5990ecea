"""How well a prior shows pictures that it is never trained on: the curve by which one sees when to stop.

Of each measurement ``held_out.csv`` keeps a line and TensorBoard a point, against steps and against the time that
processors have spent on training; measuring itself does not count. Nothing of the training changes by it.
"""

from __future__ import annotations

import csv
import io
import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback
from pytorch_lightning.loggers import TensorBoardLogger
from pytorch_lightning.utilities.seed import isolate_rng
from torch import Tensor

from iagan_lightning import signals
from iagan_lightning.generators import Generator, load_generator
from iagan_lightning.methods.trainers import place_of
from iagan_lightning.operators import Identity
from iagan_lightning.reconstruction import reconstruct
from iagan_lightning.results.files import write_picture, write_text
from iagan_lightning.results.lpips import SMALLEST, Backbone
from iagan_lightning.results.metrics import evaluate
from iagan_lightning.training.base import PriorTraining
from iagan_lightning.training.ending import EndAfterStep
from iagan_lightning.training.pictures import sample_sheet

BEST, CURVE, SHEET = "best_held_out.safetensors", "held_out.csv", "held_out.png"
SEARCHED = 4  # pictures that CSGM looks for; each takes as long as fifty steps of a picture


class HeldOut(Callback):
    """Measure the prior on held-out pictures every so many steps, and keep the one by which CSGM comes nearest.

    What is measured are PSNR and LPIPS (SqueezeNet) of the pictures that the generator makes of an encoder's codes, in
    trainings that have such an encoder, and of what plain CSGM finds of the first four with the identity as A. The
    prior is the one that would be written at this step, in half precision. Where it is an encoder that is trained, it
    is shown the pictures made smaller by 4 and with noise, and nothing is searched, as the generator does not change.

    Args:
        out: folder of the training.
        pictures: ``(n, 3, size, size)``, uint8.
        every: steps between two measurements.
        note: what the header of the prior says about the training data.
    """

    def __init__(self, out: Path, pictures: Tensor, every: int, note: str) -> None:
        self.out, self.pictures, self.every, self.note = out, pictures, every, note
        self.curve: list[dict[str, float]] = []
        self.told = 0  # measurements
        self._spent, self._since = 0.0, time.process_time()

    @property
    def core_seconds(self) -> float:
        """Time of processors that training has taken in this process, and before it was resumed."""
        return self._spent + time.process_time() - self._since

    @property
    def best(self) -> dict[str, float] | None:
        """The measurement by which the best prior was kept; None before the first, and where none is."""
        return max((row for row in self.curve if "csgm_psnr" in row), key=lambda row: row["csgm_psnr"], default=None)

    def state_dict(self) -> dict[str, Any]:
        """Return what a checkpoint keeps."""
        return {"core_seconds": self.core_seconds, "curve": self.curve}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from a checkpoint."""
        self._spent, self.curve = state_dict["core_seconds"], list(state_dict["curve"])
        self.told = len(self.curve)

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Begin to count."""
        self._since = time.process_time()

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Measure when it is time."""
        if trainer.global_step % self.every == 0:
            self._measure(trainer, pl_module)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Measure the final state; whoever asks a training to end does not want to wait for it."""
        if signals.asked() is None and not (self.curve and self.curve[-1]["step"] == trainer.global_step):
            self._measure(trainer, pl_module)

    def news(self) -> str:
        """Return the last measurement in words; nothing where there is none that was not told before."""
        if self.told == len(self.curve):
            return ""
        self.told, last = len(self.curve), self.curve[-1]
        words = []
        for name, title in (("code", "code"), ("csgm", "CSGM")):
            if (psnr := last.get(f"{name}_psnr")) is not None:
                lpips = last.get(f"{name}_lpips")
                words.append(f"{title} {psnr:.2f} dB" + (f", LPIPS {lpips:.3f}" if lpips is not None else ""))
        return f"; held out: {'; '.join(words)} ({last['core_hours']:.3g} core hours)"

    def _measure(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        assert isinstance(module, PriorTraining)
        spent = self.core_seconds
        module.check_losses()
        module.check_weights()
        if trainer.is_global_zero:
            candidate = self.out / f".{BEST}.{os.getpid()}.part"
            try:
                prior = None
                if module.trains_generator:
                    module.save(candidate, self.note)
                    prior = load_generator(candidate)
                with isolate_rng():
                    images, metrics = measure(prior, module, self.pictures)
                if signals.asked() is None:  # otherwise the search was cut short
                    self.curve.append({"step": trainer.global_step, "core_hours": spent / 3600, **metrics})
                    if self.best is self.curve[-1]:
                        os.replace(candidate, self.out / BEST)
                    self._write(trainer, sample_sheet(torch.cat(images), columns=len(images[0])))
            finally:
                candidate.unlink(missing_ok=True)
        self._spent, self._since = spent, time.process_time()

    def _write(self, trainer: pl.Trainer, sheet: Any) -> None:
        """Write curve and pictures, and hand them to TensorBoard."""
        columns = dict.fromkeys(name for row in self.curve for name in row)
        text = io.StringIO()
        writer = csv.DictWriter(text, list(columns), lineterminator="\n")
        writer.writeheader()
        writer.writerows(self.curve)
        write_text(self.out / CURVE, text.getvalue())
        write_picture(self.out / SHEET, sheet)
        if isinstance(trainer.logger, TensorBoardLogger):
            board, last = trainer.logger.experiment, self.curve[-1]
            step = int(last["step"])
            for name, value in last.items():
                if name != "step":
                    board.add_scalar(f"held_out/{name}", value, step)
                if name not in ("step", "core_hours"):  # TensorBoard's axis takes whole numbers
                    board.add_scalar(f"held_out_by_core_seconds/{name}", value, round(3600 * last["core_hours"]))
            board.add_image("held_out", np.asarray(sheet), step, dataformats="HWC")


def measure(prior: Generator | None, module: PriorTraining, pictures: Tensor) -> tuple[list[Tensor], dict[str, float]]:
    """Return pictures beside what is made of them, four of each, and the means of PSNR [dB] and LPIPS.

    Args:
        prior: as it is stored; None where it does not change.
        module: the training, for its encoder.
        pictures: ``(n, 3, size, size)``, uint8.
    """
    truth = pictures.float() / 127.5 - 1
    made = {"code": module.decoded(truth)}
    if prior is not None:
        made["csgm"] = csgm(prior, truth[:SEARCHED], module.device)
    images, metrics = [truth[:SEARCHED]], {}
    A = Identity(truth.shape[1:])
    backbone: Backbone = "squeeze" if min(truth.shape[-2:]) >= SMALLEST else "none"
    for name, x in made.items():
        if x is not None:
            images.append(x[:SEARCHED])
            rows = evaluate(x, truth[: len(x)], A, truth[: len(x)], lpips=backbone)
            for metric, key in (("psnr", "psnr"), ("lpips", "lpips_squeeze")):
                if key in rows[0]:
                    metrics[f"{name}_{metric}"] = sum(row[key] for row in rows) / len(rows)
    return images, metrics


def csgm(prior: Generator, truth: Tensor, device: torch.device) -> Tensor:
    """Return what plain CSGM finds of pictures that are measured as they are."""
    return reconstruct(
        truth, Identity(prior.image_shape), prior, method="csgm", back_projection=False, callbacks=[_Ending()],
        progress=False, **place_of(device),
    )["csgm"]  # fmt: skip


class _Ending(EndAfterStep):
    """Let signals that end the training end this search; what processes it has is the training's affair."""

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Leave them alone."""
