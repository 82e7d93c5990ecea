"""Carrying out a method's plan with a Trainer."""

from __future__ import annotations

import warnings
from typing import TypeVar

import pytorch_lightning as pl

from iagan_lightning.methods.freed_memory import keep_freed_memory
from iagan_lightning.methods.phases import sort_callbacks
from iagan_lightning.methods.test_time_module import TestTimeModule

Module = TypeVar("Module", bound=TestTimeModule)


def adapt(module: Module, trainer: pl.Trainer) -> Module:
    """Make all fits of a module that has begun, on one Trainer, each one epoch of its steps.

    ``global_step`` goes on through all; the optimiser is fresh in each. Callbacks act in the order of their phases. The
    Trainer works on one device: gradients of different images must never be averaged.

    Raises:
        ValueError: for a module that has no measurements yet, and for a precision that would round its variables.
    """
    if not module.fits:
        raise ValueError(f"{type(module).__name__} has no measurements yet: call begin(y, A) first")
    check_precision(trainer.precision)
    keep_freed_memory()
    sort_callbacks(trainer.callbacks)  # type: ignore[attr-defined]  # set by Lightning, untyped
    for fit in module.fits:
        module.enter(fit.name)
        trainer.fit_loop.max_epochs = trainer.current_epoch + 1
        try:
            with warnings.catch_warnings():
                # The generator stays in evaluation mode on purpose: no image may see another's statistics.
                warnings.filterwarnings("ignore", message="Found .* module.s. in eval mode at the start of training")
                # https://github.com/Lightning-AI/pytorch-lightning/issues/21326: Lightning with newer PyTorch
                warnings.filterwarnings("ignore", message=".isinstance.treespec, LeafSpec.. is deprecated")
                trainer.fit(module, train_dataloaders=range(fit.settings.steps))
        except SystemExit as stop:  # what Lightning makes of Ctrl-C
            if isinstance(stop.__context__, KeyboardInterrupt):
                raise KeyboardInterrupt from stop
            raise
    return module


def check_precision(precision: object) -> None:
    """Raise ValueError for precisions that would round the latents and weights themselves."""
    if str(precision) in ("16-true", "bf16-true", "transformer-engine", "transformer-engine-float16"):
        raise ValueError(
            f"precision {precision} rounds the latents and weights that are being fitted: choose 32-true, 64-true, or "
            "bf16-mixed for half precision in the generator alone"
        )
