"""Which of a Trainer's arguments mean something for a fit at test time; the others are refused, none is let through.

A fit's steps are evaluations of an objective, each of many independent problems. Whatever makes something else of a
step, or ends a fit by another rule than its own, makes worse pictures without a word.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import (
    BaseFinetuning,
    BatchSizeFinder,
    GradientAccumulationScheduler,
    LearningRateFinder,
    ModelPruning,
    StochasticWeightAveraging,
    Timer,
)
from pytorch_lightning.strategies import SingleDeviceStrategy

from iagan_lightning.methods.precision import check_precision

# They do here what they do everywhere. Some have values that are refused: several devices in Python, a precision that
# rounds the variables.
TAKEN = frozenset(
    [
        "accelerator", "devices", "num_nodes", "precision", "plugins", "logger", "callbacks", "log_every_n_steps",
        "enable_checkpointing", "enable_progress_bar", "enable_model_summary", "enable_autolog_hparams",
        "default_root_dir", "model_registry", "deterministic", "benchmark", "profiler", "detect_anomaly", "barebones",
    ]
)  # fmt: skip
# About what there is none of here, validation or data sets; no result depends on them.
HARMLESS = frozenset(
    [
        "limit_val_batches", "limit_test_batches", "limit_predict_batches", "num_sanity_val_steps",
        "check_val_every_n_epoch", "inference_mode", "use_distributed_sampler", "sync_batchnorm",
        "reload_dataloaders_every_n_epochs",
    ]
)  # fmt: skip

_LENGTH = "how many evaluations a fit has is a setting of its own, such as latent.steps and joint.steps"
_SUM = "a step belongs to one evaluation of many independent images"
REFUSED = {
    "fast_dev_run": f"{_LENGTH}; 2 of each make a quick trial",
    "max_epochs": f"a fit is one epoch, and {_LENGTH}",
    "min_epochs": f"a fit is one epoch, and {_LENGTH}",
    "max_steps": _LENGTH,
    "min_steps": f"a fit ends by its own rule, such as joint.stop; {_LENGTH}",
    "max_time": f"pictures would depend on how fast the machine is; {_LENGTH}",
    "overfit_batches": _LENGTH,
    "limit_train_batches": _LENGTH,
    "val_check_interval": "a fit has no validation; measurements are held out by joint.stop held-out",
    "accumulate_grad_batches": f"{_SUM}, at which best iterates and line searches look",
    "gradient_clip_val": f"{_SUM}, whose gradients would be cut by what they are together",
    "gradient_clip_algorithm": f"{_SUM}, whose gradients would be cut by what they are together",
    "strategy": "an image is adapted on one device, strategy auto",
}
# What else says that nothing is to be done, beside the Trainer's default.
IDLE: dict[str, tuple[Any, ...]] = {
    "fast_dev_run": (0,),
    "max_epochs": (1, -1),
    "min_epochs": (0,),
    "min_steps": (0,),
    "limit_train_batches": (1.0,),
    "val_check_interval": (1.0,),
    "gradient_clip_val": (0,),
}
_MEAN = "the mean of several iterates has no objective that anybody has seen"
# Callbacks of Lightning that do the same.
REFUSED_CALLBACKS: dict[type[pl.Callback], str] = {
    GradientAccumulationScheduler: REFUSED["accumulate_grad_batches"],
    StochasticWeightAveraging: _MEAN,
    BatchSizeFinder: "an image's steps have no batch; images_per_fit says how many are adapted side by side",
    LearningRateFinder: "learning rates are settings of a fit, such as joint.lr",
    BaseFinetuning: "which weights adapt is a setting of a fit, such as joint.frozen",
    ModelPruning: "it would take weights away from the prior",
}
if hasattr(pl.callbacks, "WeightAveraging"):  # since Lightning 2.6, EMAWeightAveraging with it
    REFUSED_CALLBACKS[pl.callbacks.WeightAveraging] = _MEAN


def check_arguments(given: Mapping[str, Any]) -> None:
    """Raise ValueError for arguments of a Trainer that cannot mean anything here, those left at their default aside.

    Example:
        >>> check_arguments({"max_steps": -1, "precision": "bf16-mixed"})
        >>> check_arguments({"accumulate_grad_batches": 4})
        Traceback (most recent call last):
        ...
        ValueError: the Trainer's accumulate_grad_batches is to be left out: a step belongs to one evaluation of ...
    """
    defaults = inspect.signature(pl.Trainer.__init__).parameters
    for name, reason in REFUSED.items():
        value = given.get(name)
        default = defaults[name].default if name in defaults else None
        if name in given and not any(value is idle or _alike(value, idle) for idle in (default, *IDLE.get(name, ()))):
            raise ValueError(f"the Trainer's {name} is to be left out: {reason}; {value!r} was given")


def _alike(value: object, idle: object) -> bool:
    """Tell whether two values are equal and of one type: 1 batch is not 1.0, all of them."""
    return type(value) is type(idle) and value == idle


def check_trainer(trainer: pl.Trainer) -> None:
    """Raise ValueError for a Trainer that was built with what cannot mean anything here.

    Its ``max_epochs`` is not asked for: a Trainer always has one, and ``adapt`` sets it.
    """
    check_precision(trainer.precision)
    if not isinstance(trainer.strategy, SingleDeviceStrategy):
        name = type(trainer.strategy).__name__
        raise ValueError(
            f"an image is adapted on one device: build the Trainer with devices=1 and strategy auto; it has {name} "
            f"over {trainer.num_devices}"
        )
    check_arguments({name: getattr(trainer, name, None) for name in REFUSED.keys() - {"max_epochs", "strategy"}})
    check_callbacks(trainer)


def check_callbacks(trainer: pl.Trainer) -> None:
    """Raise ValueError for a Trainer with callbacks of Lightning that do what its arguments must not."""
    for callback in trainer.callbacks:  # type: ignore[attr-defined]  # set by Lightning, untyped
        if isinstance(callback, Timer) and callback.time_remaining() is not None:
            raise ValueError(f"the Trainer's max_time, or Timer, is to be left out: {REFUSED['max_time']}")
        for kind, reason in REFUSED_CALLBACKS.items():
            if isinstance(callback, kind):
                raise ValueError(f"the callback {type(callback).__name__} is to be left out: {reason}")
