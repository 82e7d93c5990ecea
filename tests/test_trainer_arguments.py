"""Every argument of Lightning's Trainer: it means something, changes nothing, or is refused by name."""

import inspect
import warnings
from datetime import timedelta

import pytest
import pytorch_lightning as pl
import torch
from iagan_lightning.callbacks import BestObjective, StageStopping
from pytorch_lightning.callbacks import (
    BackboneFinetuning,
    BatchSizeFinder,
    GradientAccumulationScheduler,
    LearningRateFinder,
    ModelPruning,
    StochasticWeightAveraging,
    Timer,
)
from pytorch_lightning.loggers import CSVLogger
from pytorch_lightning.plugins import MixedPrecision

from iagan_lightning import IAGAN, Stage, adapt, reconstruct
from iagan_lightning.cli import main
from iagan_lightning.methods.trainer_arguments import HARMLESS, REFUSED, TAKEN, check_arguments
from iagan_lightning.methods.trainers import quiet_lightning
from iagan_lightning.operators import BicubicDownsampling

A = BicubicDownsampling((3, 16, 16), scale=4)
SHORT = {"latent": Stage(steps=4), "joint": Stage("adam", 3, stop="never")}

REFUSED_VALUES = {
    "fast_dev_run": [True, 2],
    "max_epochs": [5],
    "min_epochs": [1],
    "max_steps": [3, 0],
    "min_steps": [1],
    "max_time": ["00:00:00:01", {"hours": 2}, timedelta(days=1)],
    "limit_train_batches": [0, 1, 0.5],
    "overfit_batches": [1, 1.0, 2, 0.5],
    "val_check_interval": [2, 0.5],
    "accumulate_grad_batches": [4],
    "gradient_clip_val": [0.1],
    "gradient_clip_algorithm": ["value"],
    "strategy": ["ddp", "ddp_fork", "ddp_notebook"],
}
HARMLESS_VALUES = {
    "limit_val_batches": [0, 3],
    "limit_test_batches": [1],
    "limit_predict_batches": [1],
    "num_sanity_val_steps": [0, 2],
    "check_val_every_n_epoch": [None, 3],
    "inference_mode": [False],
    "use_distributed_sampler": [False],
    "sync_batchnorm": [True],
    "reload_dataloaders_every_n_epochs": [1],
}
PAIRS = [(name, value) for name, values in REFUSED_VALUES.items() for value in values]


@pytest.fixture
def y():
    return A(torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(7)) * 2 - 1)


def fitted(y, G, trainer, **settings):
    module = IAGAN(G, **(settings or SHORT))
    module.begin(y, A)
    with quiet_lightning():
        return adapt(module, trainer)


def trainer_with(**arguments):
    with warnings.catch_warnings(), quiet_lightning():
        warnings.simplefilter("ignore")
        quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "devices": 1}
        return pl.Trainer(**{"accelerator": "cpu", "enable_model_summary": False, **quiet, **arguments})


def test_every_argument_of_this_lightning_is_sorted():
    """A new one has to be looked at: what does it do to a fit at test time?"""
    arguments = set(inspect.signature(pl.Trainer.__init__).parameters) - {"self"}
    assert arguments <= TAKEN | HARMLESS | REFUSED.keys()
    assert not TAKEN & HARMLESS and not (TAKEN | HARMLESS) & REFUSED.keys()
    assert REFUSED_VALUES.keys() == REFUSED.keys() and HARMLESS_VALUES.keys() == HARMLESS


def test_what_is_left_at_its_default_is_not_refused():
    check_arguments({name: p.default for name, p in inspect.signature(pl.Trainer.__init__).parameters.items()})
    check_arguments({"max_epochs": 1, "limit_train_batches": 1.0, "gradient_clip_val": 0, "fast_dev_run": 0})


@pytest.mark.parametrize(("name", "value"), PAIRS)
def test_a_trainer_with_what_means_nothing_is_refused_by_name(y, tiny, name, value):
    if name != "max_epochs":  # a Trainer always has one, and adapt sets it
        shown = {"strategy": "one device", "overfit_batches": "overfit_batches"}.get(name, name)
        with pytest.raises(ValueError, match=shown) as caught:
            fitted(y, tiny, trainer_with(**{name: value}))
        assert "\n" not in str(caught.value)
    with pytest.raises(ValueError, match=f"the Trainer's {name} is to be left out: "):
        reconstruct(y, A, tiny, **SHORT, accelerator="cpu", **{name: value})


@pytest.mark.parametrize("name", REFUSED)
def test_the_command_line_refuses_the_same(tmp_path, tiny_weights, capsys, name):
    value = REFUSED_VALUES[name][0]
    words = ["super-resolution", "--out", str(tmp_path / "out"), "--model.generator", str(tiny_weights)]
    assert main([*words, "--trainer.accelerator", "cpu", f"--trainer.{name}", str(value).lower()]) == 2
    output = capsys.readouterr()
    assert output.err.count("\n") == 1 and name in output.err and not output.out
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "callback",
    [
        Timer("00:00:10:00"), GradientAccumulationScheduler({0: 2}), StochasticWeightAveraging(1e-2),
        BatchSizeFinder(), LearningRateFinder(), BackboneFinetuning(), ModelPruning("l1_unstructured", amount=0.5),
        *([pl.callbacks.EMAWeightAveraging()] if hasattr(pl.callbacks, "EMAWeightAveraging") else []),
    ],
    ids=lambda callback: type(callback).__name__,
)  # fmt: skip
def test_callbacks_that_do_the_same_are_refused(y, tiny, callback):
    with pytest.raises(ValueError, match=f"{type(callback).__name__}.* is to be left out: "):
        fitted(y, tiny, trainer_with(callbacks=[callback]))


def test_such_callbacks_end_a_command_before_any_image(tmp_path, tiny_weights, capsys):
    words = ["super-resolution", "--out", str(tmp_path / "out"), "--model.generator", str(tiny_weights)]
    words += ["--trainer.accelerator", "cpu", "--trainer.callbacks+=LearningRateFinder"]
    assert main(words) == 2
    assert "LearningRateFinder is to be left out" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", sorted(HARMLESS))
def test_what_is_harmless_changes_nothing(y, tiny, name):
    plain = fitted(y, tiny, trainer_with()).results["iagan"]
    for value in HARMLESS_VALUES[name]:
        module = fitted(y, tiny, trainer_with(**{name: value}))
        assert torch.equal(module.results["iagan"], plain)
        assert {fit: int(n) for fit, n in module.evaluations.items()} == {"latent": 4, "joint": 3}


def test_what_is_taken_still_works(y, tiny, tmp_path):
    plain = fitted(y, tiny, trainer_with(callbacks=[BestObjective()])).results["iagan"]
    logger = CSVLogger(tmp_path)
    for arguments in (
        {"logger": logger, "log_every_n_steps": 1},
        {"callbacks": [BestObjective(), Timer()]},  # one that only looks at the clock
        {"detect_anomaly": True},
        {"profiler": "simple"},
        {"deterministic": True},
        {"max_epochs": 7},
        {"enable_checkpointing": True, "default_root_dir": tmp_path, "enable_model_summary": True},
        {"barebones": True, "logger": None, "enable_checkpointing": None, "enable_progress_bar": None,
         "enable_model_summary": None},
    ):  # fmt: skip
        try:
            module = fitted(y, tiny, trainer_with(**{"callbacks": [BestObjective()], **arguments}))
        finally:
            torch.use_deterministic_algorithms(False)
        assert torch.equal(module.results["iagan"], plain), arguments


def test_a_fit_without_an_evaluation_says_so(y, tiny):
    class Away(pl.Callback):
        def on_train_epoch_start(self, trainer, pl_module):
            trainer.should_stop = True

        def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
            return -1

    with pytest.raises(ValueError, match="fit latent was ended before its first evaluation"):
        fitted(y, tiny, trainer_with(callbacks=[BestObjective(), Away()]))


# Precision --------------------------------------------------------------------------------------------------------


def scaled(scale=2.0**16):
    scaler = torch.amp.GradScaler("cpu", init_scale=scale)
    return MixedPrecision("16-mixed", "cpu", scaler)


def test_line_searches_under_16_mixed_are_those_of_float32(y, tiny):
    """With a scaler, as on a GPU; on a CPU Lightning would make bfloat16 of the argument."""
    settings = {"preset": "fast", "latent": Stage(steps=10, stop="never"), "joint": Stage("lbfgs", 6, stop="never")}
    plugin = scaled()
    callbacks = [BestObjective(), StageStopping()]
    mixed = fitted(y, tiny, trainer_with(plugins=[plugin], callbacks=callbacks), **settings)
    full = fitted(y, tiny, trainer_with(callbacks=callbacks), **settings)
    assert torch.equal(mixed.results["csgm"], full.results["csgm"])
    assert torch.equal(mixed.results["iagan"], full.results["iagan"])
    assert plugin.scaler is not None, "the Trainer is left as it came"


@pytest.mark.parametrize("batch", [1, 2])
def test_the_fast_preset_runs_under_16_mixed(tiny, batch):
    y = A(torch.rand(batch, 3, 16, 16) * 2 - 1)
    plugin = scaled()
    settings = {"latent": Stage(steps=8), "joint": Stage("adam", 12, lr_weights=1e-3, stop="never")}
    module = fitted(y, tiny, trainer_with(plugins=[plugin], callbacks=[BestObjective()]), preset="fast", **settings)
    assert bool((module.objective["joint"] < module.objective["latent"]).all())
    assert plugin.scaler is not None and plugin.scaler.get_scale() > 0
