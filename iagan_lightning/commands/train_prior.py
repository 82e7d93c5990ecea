"""``iagan train-prior``: train a generator on one's own pictures, stop and go on at any step."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from jsonargparse import ArgumentParser
from pytorch_lightning.callbacks import Callback
from pytorch_lightning.cli import LightningArgumentParser, LightningCLI
from pytorch_lightning.loggers import TensorBoardLogger
from pytorch_lightning.strategies import DDPStrategy

from iagan_lightning import signals
from iagan_lightning.commands.options import known
from iagan_lightning.commands.pages import wanted
from iagan_lightning.commands.parsing import parse
from iagan_lightning.commands.print_config import asks_for_config, print_commented
from iagan_lightning.results.files import write_picture
from iagan_lightning.results.folder import OutputFolder
from iagan_lightning.training import PriorTraining, TrainingPictures
from iagan_lightning.training.ending import EndAfterStep
from iagan_lightning.training.pictures import sample_sheet

CHECKPOINT, PRIOR, SAMPLES = "last.ckpt", "prior.safetensors", "samples.png"


class Keep(Callback):
    """Every so many steps, write the checkpoint, the prior and a sheet of its samples, each whole or not at all.

    Args:
        out: folder of the training run.
        every: steps between two checkpoints.
        data: what the header of the prior says about the training data.
    """

    def __init__(self, out: Path, every: int, data: str) -> None:
        self.out, self.every, self.data = out, every, data

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Write when it is time."""
        if trainer.global_step % self.every == 0:
            self._write(trainer, pl_module)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write the final state."""
        self._write(trainer, pl_module)

    def _write(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        assert isinstance(module, PriorTraining)
        part = self.out / f".{CHECKPOINT}.part"
        trainer.save_checkpoint(part)  # on every process: a strategy may gather its state
        if not trainer.is_global_zero:
            return
        os.replace(part, self.out / CHECKPOINT)
        part = self.out / f".{PRIOR}.part"
        module.save(part, self.data)
        os.replace(part, self.out / PRIOR)
        with torch.no_grad():
            prior = module.prior()
            sheet = sample_sheet(prior(prior.sample_latent(32, seed=0)), columns=8)
        write_picture(self.out / SAMPLES, sheet)
        if isinstance(trainer.logger, TensorBoardLogger):
            trainer.logger.experiment.add_image("samples", np.asarray(sheet), trainer.global_step, dataformats="HWC")


def add_options(parser: ArgumentParser) -> None:
    """Add the options of a training run that belong to neither model, data nor Trainer."""
    parser.add_argument("--out", type=str, help="folder of the run; with the same one again training goes on")
    parser.add_argument("--steps", type=int, default=100_000, help="steps in all, those before a resume included")
    parser.add_argument("--checkpoint_every", type=int, default=1000, help="steps between two checkpoints")
    parser.add_argument("--note", type=str, default="", help="what the prior's header says about its data")


class TrainPriorCLI(LightningCLI):
    """LightningCLI with the folder, the number of steps and the notes of a training run."""

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add the options that belong to neither model, data nor Trainer."""
        add_options(parser)

    def instantiate_trainer(self, **kwargs: Any) -> pl.Trainer:
        """Build the Trainer; several devices need to know that each backward pass reaches only some of the weights."""
        trainer = super().instantiate_trainer(**kwargs)
        if isinstance(trainer.strategy, DDPStrategy) and self.config["trainer"]["strategy"] in ("auto", "ddp"):
            trainer = super().instantiate_trainer(**kwargs, strategy="ddp_find_unused_parameters_true")
        return trainer


def run_train_prior(args: Sequence[str]) -> int:
    """Train, or go on training, and return the exit status.

    Raises:
        ValueError: for arguments that do not parse or do not fit.
    """
    defaults = {
        "logger": False,
        "enable_checkpointing": False,
        "use_distributed_sampler": False,
        "enable_progress_bar": sys.stderr.isatty(),
        "max_epochs": -1,
    }
    given = list(args)
    if wanted(given):  # of a class from elsewhere, or everything there is
        given = [word for word in given if word not in ("-h", "--help", "--help=all", "all")] + ["--help"]
    args = ["--model", "BEGANTraining", *given]  # unless another follows; as a default it would leave its own settings

    def parsed() -> TrainPriorCLI:
        return parse(
            TrainPriorCLI, PriorTraining, TrainingPictures, args, "iagan train-prior", run=False,
            subclass_mode_model=True, trainer_defaults=defaults,
        )  # fmt: skip

    if asks_for_config(given):
        print_commented(parsed, list(known("train-prior", given).options.values()))
    cli = parsed()
    config, model, data = cli.config, cli.model, cli.datamodule
    assert isinstance(model, PriorTraining)
    assert isinstance(data, TrainingPictures)
    for name in ("steps", "checkpoint_every"):
        if config[name] < 1:
            raise ValueError(f"{name} is at least 1; {config[name]} was given")
    seed = int(config["seed_everything"] or 0)
    pictures = data.open(model.hparams["resolution"], seed)
    pictures[0, False]  # a picture that cannot be used is found now, not in a worker
    model.seed = seed
    named = Path("runs") / f"prior-{time.strftime('%Y%m%d-%H%M%S')}"
    folder = OutputFolder(config["out"] or named, new=config["out"] is None and cli.trainer.is_global_zero)
    folder.check_apart(data.root)
    folder.prepare(images=False)
    settings = {key: value for key, value in model.hparams.items() if not key.startswith("_")}
    folder.check_settings(
        {
            "task": "train-prior", "seed": seed, "model": {"method": model.method, **settings},
            "pictures": len(pictures), "batch_size": data.batch_size, "mirror": data.mirror,
            "world": cli.trainer.world_size,
        }
    )  # fmt: skip
    note = config["note"] or Path(data.root).name
    _train(cli.trainer, model, data, folder.root, config["steps"], config["checkpoint_every"], note)
    return 0


def _train(
    trainer: pl.Trainer, model: PriorTraining, data: TrainingPictures, out: Path, steps: int, every: int, note: str
) -> None:
    last = out / CHECKPOINT
    trainer.fit_loop.epoch_loop.max_steps = steps
    trainer.loggers = [TensorBoardLogger(out, name="tensorboard", version="")]
    trainer.callbacks += [Keep(out, every, note), EndAfterStep()]  # type: ignore[attr-defined]  # set by Lightning
    trainer.fit(model, datamodule=data, ckpt_path=last if last.exists() else None)
    if trainer.is_global_zero:
        done = f"{trainer.global_step} of {steps} steps are done and kept in {last}"
        signals.release(done, f"the same command with --out {out}")
        print(f"prior after {trainer.global_step} steps: {out / PRIOR}\nsamples: {out / SAMPLES}")
