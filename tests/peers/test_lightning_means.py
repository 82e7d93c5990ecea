"""An IAGAN module under Lightning's and PyTorch's own means: the same pictures, or one line that refuses."""

import copy
import io
import warnings

import pytest
import pytorch_lightning as pl
import torch
from iagan_lightning.callbacks import BackProjection, BestObjective, StageStopping
from pytorch_lightning.callbacks import (
    DeviceStatsMonitor,
    LambdaCallback,
    LearningRateMonitor,
    ModelCheckpoint,
    ModelSummary,
    RichModelSummary,
    StochasticWeightAveraging,
)
from pytorch_lightning.loggers import CSVLogger
from pytorch_lightning.profilers import AdvancedProfiler, PyTorchProfiler, SimpleProfiler

from iagan_lightning import IAGAN, Stage, adapt
from iagan_lightning.generators import BEGAN
from iagan_lightning.methods.trainers import quiet_lightning
from iagan_lightning.operators import BicubicDownsampling

pytestmark = [
    pytest.mark.peers,
    pytest.mark.filterwarnings("ignore:Precision .* is not supported by the model summary"),
    pytest.mark.filterwarnings("ignore:You passed .* AMP with fp16 is not supported on CPU"),
    pytest.mark.filterwarnings("ignore:.*Checkpoint directory"),
    pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf"),  # looked at by Dynamo
]

A = BicubicDownsampling((3, 16, 16), scale=4)
QUIET = {
    "accelerator": "cpu", "devices": 1, "logger": False, "enable_checkpointing": False, "enable_progress_bar": False,
    "enable_model_summary": False, "max_epochs": 1,
}  # fmt: skip
BARE = {"barebones": True, **dict.fromkeys(("logger", *[key for key in QUIET if key.startswith("enable")]))}


@pytest.fixture
def y():
    return A(torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(7)) * 2 - 1)


def begun(G, y, dtype=torch.float32):
    module = IAGAN(G, latent=Stage("lbfgs", 8), joint=Stage("adam", 6, stop="never"))
    module.begin(y.to(dtype), A)
    return module


def fitted(module, callbacks=(), **arguments):
    ours = [BestObjective(), StageStopping(), BackProjection()]
    with warnings.catch_warnings(), quiet_lightning():
        warnings.filterwarnings("ignore", message=".*isinstance.treespec, LeafSpec.. is deprecated")
        return adapt(module, pl.Trainer(callbacks=[*ours, *callbacks], **{**QUIET, **arguments}))


@pytest.fixture
def plain(tiny, y):
    return fitted(begun(tiny, y)).results


def same(results, plain):
    assert results.keys() == plain.keys()
    return all(torch.equal(results[name], image) for name, image in plain.items())


def logged(folder):
    return {"logger": CSVLogger(folder), "log_every_n_steps": 1}


MEANS = {
    "simple profiler": lambda folder: {"profiler": SimpleProfiler(folder, "simple")},
    "advanced profiler": lambda folder: {"profiler": AdvancedProfiler(folder, "advanced")},
    "PyTorch's profiler": lambda folder: {"profiler": PyTorchProfiler(folder, "pytorch", emit_nvtx=False)},
    "model summary": lambda folder: {"callbacks": [ModelSummary(3)], "enable_model_summary": True},
    "rich model summary": lambda folder: {"callbacks": [RichModelSummary(3)], "enable_model_summary": True},
    "deterministic": lambda folder: {"deterministic": True},
    "detect_anomaly": lambda folder: {"detect_anomaly": True},
    "barebones": lambda folder: BARE,
    "learning rates": lambda folder: {"callbacks": [LearningRateMonitor()], **logged(folder)},
    "device statistics": lambda folder: {"callbacks": [DeviceStatsMonitor()], **logged(folder)},
    "lambdas": lambda folder: {"callbacks": [LambdaCallback(on_train_end=lambda trainer, module: module())]},
    "checkpoints": lambda folder: {"callbacks": [ModelCheckpoint(folder, every_n_train_steps=3, save_top_k=-1)],
                                   "enable_checkpointing": True},
}  # fmt: skip


@pytest.mark.parametrize("means", MEANS)
def test_what_only_looks_changes_nothing(tiny, y, plain, tmp_path, means):
    try:
        module = fitted(begun(tiny, y), **MEANS[means](tmp_path))
    finally:
        torch.use_deterministic_algorithms(False)
    assert same(module.results, plain)
    if means == "learning rates":
        assert "lr-BatchedLBFGS" in (next(tmp_path.rglob("metrics.csv"))).read_text()


@pytest.mark.parametrize("how", ["deepcopy", "pickle", "compile", "train", "inference"])
def test_what_is_done_to_the_module_changes_nothing(tiny, y, plain, how):
    module = begun(tiny, y)
    if how == "deepcopy":
        module = copy.deepcopy(module)
    elif how == "pickle":
        file = io.BytesIO()
        torch.save(module, file)
        file.seek(0)
        module = torch.load(file, weights_only=False)
    elif how == "compile":  # other kernels, other last bits
        fitted(torch.compile(module, backend="eager"))
        assert all(torch.allclose(module.results[name], image, atol=1e-3) for name, image in plain.items())
        return
    elif how == "train":
        module.train()
    else:
        with torch.inference_mode():
            module()
    assert same(fitted(module).results, plain)


@pytest.mark.parametrize("precision", ["bf16-mixed", "16-mixed"])
def test_half_precision_is_for_the_generator_alone(tiny, y, plain, precision):
    """L-BFGS is float32 throughout; the joint stage by Adam is near, its results are float32 and agree with y."""
    module = fitted(begun(tiny, y), precision=precision)
    assert torch.equal(module.results["csgm"], plain["csgm"])
    assert not torch.equal(module.results["iagan"], plain["iagan"])
    assert torch.allclose(module.results["iagan"], plain["iagan"], atol=0.05)
    assert {image.dtype for image in module.results.values()} == {torch.float32}
    assert torch.allclose(A(module.results["iagan_bp"]), y, atol=1e-5)
    assert {p.dtype for p in module.parameters()} == {torch.float32}


def test_double_precision_is_double_throughout(y):
    torch.manual_seed(1)
    G = BEGAN(16, 4, 8).eval()
    given = fitted(begun(G, y, torch.float64), precision="64-true")
    cast = fitted(begun(copy.deepcopy(G).double(), y, torch.float64))
    assert {image.dtype for image in given.results.values()} == {torch.float64}
    for name, image in cast.results.items():
        assert torch.allclose(given.results[name], image, atol=1e-9)
    assert torch.allclose(A(given.results["iagan_bp"]), y.double(), atol=1e-12)


REFUSED = {
    "bf16-true": {"precision": "bf16-true"},
    "16-true": {"precision": "16-true"},
    "overfit_batches": {"overfit_batches": 1},
    "ddp_fork": {"strategy": "ddp_fork"},
    "StochasticWeightAveraging": {"callbacks": [StochasticWeightAveraging(1e-2)]},
}
if hasattr(pl.callbacks, "EMAWeightAveraging"):
    REFUSED["EMAWeightAveraging"] = {"callbacks": [pl.callbacks.EMAWeightAveraging()]}


@pytest.mark.filterwarnings("ignore:You requested to overfit")
@pytest.mark.parametrize("what", REFUSED)
def test_what_would_make_other_pictures_is_refused_in_one_line(tiny, y, what):
    module = begun(tiny, y)
    with pytest.raises(ValueError, match=r"left out|one device|choose 32-true") as refused:
        fitted(module, **REFUSED[what])
    assert "\n" not in str(refused.value)
    assert not module.results


def test_a_checkpoint_is_the_result_and_goes_on_as_the_module(tiny, y, plain, tmp_path):
    callback = ModelCheckpoint(tmp_path, save_on_train_epoch_end=True, save_top_k=-1, filename="{step}")
    module = fitted(begun(tiny, y), callbacks=[callback], enable_checkpointing=True)
    loaded = IAGAN.load_from_checkpoint(callback.best_model_path, weights_only=True)
    assert same({name: loaded.results[name] for name in ("csgm", "iagan")}, {n: plain[n] for n in ("csgm", "iagan")})
    with torch.no_grad():
        assert torch.allclose(loaded(), module.results["iagan"], atol=1e-6)
        assert torch.allclose(module(), module.results["iagan"], atol=1e-6)
    loaded.begin(y, A)
    assert same(fitted(loaded).results, plain)
