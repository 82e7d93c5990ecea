"""``iagan train-prior``: train a generator on one's own pictures, stop and go on at any step."""

from __future__ import annotations

import errno
import sys
import threading
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
from jsonargparse import ArgumentParser
from pytorch_lightning.callbacks import Callback
from pytorch_lightning.cli import LightningArgumentParser
from pytorch_lightning.loggers import TensorBoardLogger
from pytorch_lightning.strategies import DDPStrategy

from iagan_lightning import signals
from iagan_lightning.commands.options import known
from iagan_lightning.commands.pages import wanted
from iagan_lightning.commands.parsing import SeededCLI, parse
from iagan_lightning.commands.print_config import asks_for_config, print_commented
from iagan_lightning.methods.trainers import quiet_lightning
from iagan_lightning.results.files import read_json, write_picture
from iagan_lightning.results.folder import OutputFolder
from iagan_lightning.runs.sharing import lock
from iagan_lightning.safety import printable
from iagan_lightning.training import PriorTraining, TrainingPictures
from iagan_lightning.training.base import DivergenceError
from iagan_lightning.training.checkpoints import LAST, TwoCheckpoints, find_checkpoint
from iagan_lightning.training.ending import EndAfterStep
from iagan_lightning.training.held_out import BEST, HeldOut
from iagan_lightning.training.picture_set import PictureError
from iagan_lightning.training.pictures import sample_sheet
from iagan_lightning.training.record import read_pictures

PRIOR, SAMPLES = "prior.safetensors", "samples.png"


class Keep(Callback):
    """Every so many steps, write the prior, a sheet of its samples and the checkpoint, each whole or not at all.

    Nothing is written of a training that has diverged: what was kept before stays.

    Args:
        out: folder of the training run.
        every: steps between two checkpoints.
        data: what the header of the prior says about the training data.
        kept: step of the checkpoint that lies there already.
        held_out: what measures the prior, if anything does, and has news to tell.
    """

    def __init__(
        self, out: Path, every: int, data: str, kept: int | None = None, held_out: HeldOut | None = None
    ) -> None:
        self.out, self.every, self.data, self.kept, self.held_out = out, every, data, kept, held_out

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Write when it is time."""
        if trainer.global_step % self.every == 0:
            self._write(trainer, pl_module)
            if trainer.is_global_zero:
                self._tell(trainer, outputs)

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Begin to measure time."""
        self._began = time.perf_counter(), trainer.global_step

    def _tell(self, trainer: pl.Trainer, losses: Any) -> None:
        """Say how far the training is, how long it will still take, and how it goes."""
        start, first = self._began
        step, steps = trainer.global_step, trainer.max_steps
        left = timedelta(seconds=round((time.perf_counter() - start) / (step - first) * (steps - step)))
        values = ", ".join(f"{name} {float(value):.3g}" for name, value in losses.items() if value.ndim == 0)
        news = self.held_out.news() if self.held_out else ""
        print(f"step {step:,} of {steps:,}, about {left} left: {values}{news}", file=sys.stderr, flush=True)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write the final state."""
        self._write(trainer, pl_module)

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """Write the state between two steps, at which a picture could not be had."""
        if trainer.world_size == 1 and _no_picture(exception) and trainer.global_step:
            self._write(trainer, pl_module)

    def _write(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        assert isinstance(module, PriorTraining)
        step = trainer.global_step
        module.check_losses()
        module.check_weights()
        if trainer.is_global_zero:
            module.save(self.out / PRIOR, self.data)
            samples = module.samples()
            sheet = None if samples is None else sample_sheet(samples, columns=8)
            if sheet is not None:
                write_picture(self.out / SAMPLES, sheet)
        if step != self.kept:
            # On every process: a strategy may gather its state.
            trainer.save_checkpoint(self.out / LAST, weights_only=False)
            self.kept = step
        if trainer.is_global_zero and sheet is not None and isinstance(trainer.logger, TensorBoardLogger):
            trainer.logger.experiment.add_image("samples", np.asarray(sheet), step, dataformats="HWC")


def add_options(parser: ArgumentParser) -> None:
    """Add the options of a training run that belong to neither model, data nor Trainer."""
    parser.add_argument("--out", type=str, help="folder of the run; with the same one again training goes on")
    parser.add_argument("--steps", type=int, default=100_000, help="steps in all, those before a resume included")
    parser.add_argument("--checkpoint_every", type=int, default=1000, help="steps between two checkpoints")
    parser.add_argument(
        "--held_out_every", type=int, default=1000, help="steps between two measurements on held-out pictures"
    )
    parser.add_argument("--check", type=bool, default=False, help="decode all pictures, name bad ones, and end")
    parser.add_argument("--note", type=str, default="", help="what the prior's header says about its data")


class TrainPriorCLI(SeededCLI):
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
        "enable_model_summary": False,
        "use_distributed_sampler": False,
        "enable_progress_bar": sys.stderr.isatty(),
        "max_epochs": -1,
    }
    words = list(args)
    if wanted(words):  # of a class from elsewhere, or everything there is
        words = [word for word in words if word not in ("-h", "--help", "--help=all", "all")] + ["--help"]
    args = ["--model", "BEGANTraining", *words]  # unless another follows; as a default it would leave its own settings

    def parsed() -> TrainPriorCLI:
        return parse(
            TrainPriorCLI, PriorTraining, TrainingPictures, args, "iagan train-prior", run=False,
            subclass_mode_model=True, trainer_defaults=defaults,
        )  # fmt: skip

    if asks_for_config(words):
        print_commented(parsed, list(known("train-prior", words).options.values()))
    cli = parsed()
    config, model, data = cli.config, cli.model, cli.datamodule
    assert isinstance(model, PriorTraining)
    assert isinstance(data, TrainingPictures)
    for name in ("steps", "checkpoint_every", "held_out_every"):
        if config[name] < 1:
            raise ValueError(f"{name} is at least 1; {config[name]} was given")
    if config["check"]:
        return _check(data, model.generator.image_shape[-1])
    model.seed = seed = int(config["seed_everything"] or 0)
    named = Path("runs") / f"prior-{time.strftime('%Y%m%d-%H%M%S')}"
    given = config["out"] and Path(config["out"]).expanduser()
    pictures = data.open(model.generator.image_shape[-1], seed, given)  # what cannot be used is found now
    folder = OutputFolder(given or named, new=given is None and cli.trainer.is_global_zero)
    folder.check_apart(data.root)
    folder.prepare(images=False)
    settings = {key: value for key, value in model.hparams.items() if not key.startswith("_")}
    with _alone(folder, cli.trainer.is_global_zero):
        folder.check_settings(
            {
                "task": "train-prior", "seed": seed, "model": {"method": model.method, **settings},
                "pictures": _began_with(folder, data, len(pictures)), "batch_size": data.batch_size,
                "mirror": data.mirror, "world": cli.trainer.world_size,
                # of a folder the hashes of its pictures tell, wherever it lies
                "held_out": data.held_out if len(data.held) and isinstance(data.held_out, int) else None,
            }
        )  # fmt: skip
        note = config["note"] or Path(data.root).name
        measured = HeldOut(folder.root, data.held, config["held_out_every"], note) if len(data.held) else None
        _train(cli.trainer, model, data, folder.root, config["steps"], config["checkpoint_every"], note, measured)
    return 0


def _check(data: TrainingPictures, size: int) -> int:
    """Say which pictures cannot be used, and return the exit status."""
    bad = data.check(size)
    for name, reason in bad.items():
        print(f"iagan: {printable(name)}: {reason}", file=sys.stderr)
    print(f"{data.root}: {len(bad) or 'none'} of the pictures cannot be used for {size} x {size} pixels")
    return 1 if bad else 0


def _began_with(folder: OutputFolder, data: TrainingPictures, count: int) -> Any:
    """Return how many pictures a training began with; a folder of an earlier version holds no list to go by."""
    path = folder.root / "settings.json"
    listed = data.accept_changes or read_pictures(folder.root) is not None
    return read_json(path).get("pictures") if listed and path.is_file() else count


@contextmanager
def _alone(folder: OutputFolder, first: bool) -> Iterator[None]:
    """Hold the folder of a training; its other processes stand behind the first.

    Raises:
        ValueError: where another training holds it.
    """
    if not first:
        yield
        return
    with folder.lock.open("ab") as file:
        if not lock(file, "train-prior"):
            raise ValueError(
                f"another training is at work in {folder.root}: wait until it ends, or choose another --out"
            )
        for remnant in (*folder.root.glob(".*.part"), *folder.root.glob(".*.whole")):  # of one killed while it wrote
            remnant.unlink(missing_ok=True)
        yield


def _train(
    trainer: pl.Trainer,
    model: PriorTraining,
    data: TrainingPictures,
    out: Path,
    steps: int,
    every: int,
    note: str,
    held_out: HeldOut | None = None,
) -> None:
    checkpoint = find_checkpoint(out, model)
    trainer.strategy.checkpoint_io = TwoCheckpoints(keep=checkpoint is None or checkpoint.path.name == LAST)
    trainer.fit_loop.epoch_loop.max_steps = steps
    trainer.loggers = [TensorBoardLogger(out, name="tensorboard", version="")]
    keep = Keep(out, every, note, kept=checkpoint and checkpoint.step, held_out=held_out)
    measuring = [held_out] if held_out else []  # before it is kept
    trainer.callbacks += [*measuring, keep, EndAfterStep()]  # type: ignore[attr-defined]  # set by Lightning, untyped
    try:
        if trainer.is_global_zero:
            data.keep(out)
        with _failing_quietly(), quiet_lightning(), warnings.catch_warnings():
            warnings.filterwarnings("ignore", r"`isinstance\(treespec, LeafSpec")  # Lightning's own affair with PyTorch
            warnings.filterwarnings("ignore", r"Found \d+ module\(s\) in eval mode")  # a generator that stays as it is
            trainer.fit(model, datamodule=data, ckpt_path=checkpoint and checkpoint.path)
    except PictureError as error:
        raise ValueError(
            f"{error}. The training has stopped {_kept(keep)}: take the picture out, or leave it out with "
            "--data.skip_bad true, and run the same command again"
        ) from error
    except DivergenceError as error:
        raise ValueError(
            f"{error}, and begin anew with another --out. The training has stopped {_kept(keep)}"
        ) from error
    except OSError as error:
        room = "make room, and " if error.errno in (errno.ENOSPC, errno.EDQUOT) else ""
        raise ValueError(
            f"{error}. The training has stopped {_kept(keep)}: {room}run the same command again"
        ) from error
    except RuntimeError as error:
        if not _no_picture(error):
            raise
        raise ValueError(
            f"a process that reads pictures was killed, for want of memory perhaps. The training has stopped "
            f"{_kept(keep)}: run the same command again, with fewer --data.workers"
        ) from error
    if trainer.is_global_zero:
        done = f"{trainer.global_step} of {steps} steps are done and kept in {out / LAST}"
        signals.release(done, f"the same command with --out {out}")
        if model.trains_generator:
            print(f"prior after {trainer.global_step} steps: {out / PRIOR}\nsamples: {out / SAMPLES}")
        else:
            print(f"prior with its encoder after {trainer.global_step} steps: {out / PRIOR}")
        if held_out and held_out.best:
            print(f"best on held-out pictures, after {held_out.best['step']} steps: {out / BEST}")


@contextmanager
def _failing_quietly() -> Iterator[None]:
    """Let TensorBoard's thread end without a traceback on a full disk: the next entry raises the same error again."""
    before = threading.excepthook
    threading.excepthook = lambda args: None if issubclass(args.exc_type, OSError) else before(args)
    try:
        yield
    finally:
        threading.excepthook = before


def _no_picture(error: BaseException) -> bool:
    """Tell whether a training has stopped between two steps because it could not have its pictures."""
    return isinstance(error, PictureError) or "DataLoader worker" in str(error)


def _kept(keep: Keep) -> str:
    return f"with {LAST} of step {keep.kept}" if keep.kept else "before its first checkpoint"
