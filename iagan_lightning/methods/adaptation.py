"""Carrying out a method's plan with a Trainer."""

from __future__ import annotations

import os
import signal
import warnings
from typing import Any, TypeVar

import pytorch_lightning as pl

from iagan_lightning import signals
from iagan_lightning.methods.fit import Fit
from iagan_lightning.methods.freed_memory import keep_freed_memory, return_surplus
from iagan_lightning.methods.phases import sort_callbacks
from iagan_lightning.methods.precision import float32_in_full, unscaled, without_autocast
from iagan_lightning.methods.test_time_module import TestTimeModule
from iagan_lightning.methods.trainer_arguments import check_trainer
from iagan_lightning.methods.trainers import quiet_trainer
from iagan_lightning.optim import BatchedLBFGS

Module = TypeVar("Module", bound=TestTimeModule)


def adapt(module: Module, trainer: pl.Trainer) -> Module:
    """Make all fits of a module that has begun, on one Trainer, each one epoch of its steps.

    ``global_step`` goes on through all; the optimiser is fresh in each. Callbacks act in the order of their phases. The
    Trainer works on one device: gradients of different images must never be averaged. Its precision is that of the
    fits, whatever autocast is around; meanwhile float32 is float32 on a GPU, not TF32.

    In the end the module is its last result: ``module()`` makes that picture, up to the Trainer's precision.

    Raises:
        ValueError: for a module that has no measurements yet or was cast to half precision, for a Trainer with
            arguments that cannot mean anything here or with a precision that would round the variables, and for a fit
            in which nothing was evaluated.
    """
    if not module.fits or module.operator is None:  # as it comes from a checkpoint
        raise ValueError(f"{type(module).__name__} has no measurements yet: call begin(y, A) first")
    check_trainer(trainer)
    keep_freed_memory()
    sort_callbacks(trainer.callbacks)  # type: ignore[attr-defined]  # set by Lightning, untyped
    with without_autocast(trainer.strategy.root_device), float32_in_full():
        made = 0
        while made < len(module.fits):  # a callback may leave out views that would come too late
            _make(module, trainer, module.fits[made])
            made += 1
    return module


def _make(module: TestTimeModule, trainer: pl.Trainer, fit: Fit) -> None:
    """Make one fit."""
    release(trainer)  # what the fit before it held
    module.enter(fit.name)
    trainer.fit_loop.max_epochs = trainer.current_epoch + 1
    try:
        with warnings.catch_warnings(), unscaled(trainer, fit.settings):
            # The generator stays in evaluation mode on purpose: no image may see another's statistics.
            warnings.filterwarnings("ignore", message="Found .* module.s. in eval mode at the start of training")
            # https://github.com/Lightning-AI/pytorch-lightning/issues/21326: Lightning with newer PyTorch
            warnings.filterwarnings("ignore", message=".isinstance.treespec, LeafSpec.. is deprecated")
            if not module.is_first:  # checkpoints of the fits before it
                warnings.filterwarnings("ignore", message="Checkpoint directory .* exists and is not empty")
            trainer.fit(module, train_dataloaders=range(fit.settings.steps))
    except SystemExit as stop:  # what Lightning makes of Ctrl-C, and of SIGTERM
        if isinstance(stop.__context__, KeyboardInterrupt):
            raise KeyboardInterrupt from stop
        pass_on_sigterm(trainer)
        raise
    pass_on_sigterm(trainer)
    module.require_evaluation()


def adapt_alone(module: Module, **arguments: Any) -> Module:
    """Do as ``adapt`` does, on a quiet Trainer that is released in the end."""
    trainer = quiet_trainer(**arguments)
    try:
        return adapt(module, trainer)
    finally:
        release(trainer)


def release(trainer: pl.Trainer) -> None:
    """Let go of what the optimisers of a Trainer hold: weights, moments, history.

    Trainers and optimisers refer to themselves in circles, which Python's collector may find many images later: ten
    images of a large generator held half a gigabyte. A Trainer whose state nobody wants any more is released. What
    the heap then has free goes back where it is much: among the pieces that a fit of 1024 pixels leaves, the next finds
    no room for its own, which took .3 GB more.
    """
    for optimizer in trainer.optimizers:
        optimizer.state.clear()
        for group in optimizer.param_groups:
            group["params"] = []
        if isinstance(optimizer, BatchedLBFGS):
            optimizer.forget()
    return_surplus()


def pass_on_sigterm(trainer: pl.Trainer) -> None:
    """Let a SIGTERM that came within a fit do what it does elsewhere.

    Lightning takes it, and ends the fit with a ``SystemExit`` that stands for success, or drops it where the fit was
    about to end anyway. Commands of ours catch signals themselves.
    """
    if not trainer.received_sigterm or signals.asked() is not None:
        return
    if signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
        os.kill(os.getpid(), signal.SIGTERM)
    raise SystemExit(128 + signal.SIGTERM)  # whose handler it was has been called by Lightning
