"""Settings are checked where Python gives them, as the command line checks its options."""

import math
import re

import numpy as np
import pytest
import torch
from iagan_lightning.callbacks import BackProjection, DIPBaseline, ResultWriter

from iagan_lightning import CSGM, IAGAN, DIPSettings, Stage, reconstruct
from iagan_lightning.checks import check_choice
from iagan_lightning.data import ImageData
from iagan_lightning.generators import BEGAN, ModuleGenerator, load_generator
from iagan_lightning.methods import FitSettings
from iagan_lightning.operators import (
    JPEG,
    BicubicDownsampling,
    Blur,
    Composition,
    FourierSensing,
    GaussianSensing,
    Grayscale,
    Identity,
    Inpainting,
    PhaseRetrieval,
    Similarity,
    StructuredSensing,
)
from iagan_lightning.optim import BatchedLBFGS
from iagan_lightning.runs.options import RunOptions

SHAPE = (3, 16, 16)
NETWORK = torch.nn.Sequential(torch.nn.Linear(8, 768), torch.nn.Tanh(), torch.nn.Unflatten(1, SHAPE))
LINEAR = {"init_args": {"in_features": 2, "out_features": 2}, "latent_shape": [2]}
PARAMETERS = [torch.nn.Parameter(torch.ones(2, 3))]
WRONG = {
    "optimizer of a stage is one of adam, lbfgs": lambda: Stage(optimizer="sgd"),
    "stop of a stage is one of auto, noise, plateau, decrease, held-out, never": lambda: Stage(stop="none"),
    "frozen of a stage is one of none, full-resolution, finer": lambda: Stage(frozen="all"),
    "keep of a stage is one of best, last": lambda: Stage(keep="first"),
    "penalty of a stage is one of none, latent": lambda: Stage(penalty="l1"),
    "stop of a stage is one of noise, plateau, decrease, held-out, own, never": lambda: FitSettings(stop="auto"),
    "steps of a stage is a whole number; 1.5 was given": lambda: Stage(steps=1.5),
    "steps of a stage is a whole number; True was given": lambda: Stage(steps=True),
    "restarts of a stage is a whole number; '3' was given": lambda: Stage(restarts="3"),
    "lr of a stage is a number; a list was given": lambda: Stage(lr=[0.1]),
    "tau of a stage is above 0; inf was given": lambda: Stage(tau=math.inf),
    "steps of DIP is a whole number; 1.5 was given": lambda: DIPSettings(steps=1.5),
    "average of DIP is a number; '.9' was given": lambda: DIPSettings(average=".9"),
    "quiet of a run is True or False; 'no' was given": lambda: RunOptions(quiet="no"),
    "tensorboard of a run is a whole number; 2.5 was given": lambda: RunOptions(tensorboard=2.5),
    "upsampling of DIP is one of bilinear, nearest": lambda: DIPSettings(upsampling="bicubic"),
    "stop of DIP is one of auto, noise, variance, never": lambda: DIPSettings(stop="plateau"),
    "engine of a run is one of local, ray": lambda: RunOptions(engine="dask"),
    "save of a run is one of images, pictures, weights": lambda: RunOptions(save="all"),
    "back_projection is True or False, or one of discrepancy, naive; 'exact' was": lambda: BackProjection("exact"),
    "save is one of images, pictures, weights": lambda: ResultWriter("out", save="all"),
    "data.fit is one of crop, resize, pad": lambda: ImageData(fit="stretch"),
    "data.alpha is one of white, mask": lambda: ImageData(alpha="black"),
    "data.images_per_fit is a whole number, or one of auto; 'many' was": lambda: ImageData(images_per_fit="many"),
    "data.limit is a whole number; 1.5 was given": lambda: ImageData(limit=1.5),
    "data.shift is a whole number; True was given": lambda: ImageData(shift=True),
    "data.align is True or False; 'yes' was given": lambda: ImageData(align="yes"),
    "image_shape is (channels, height, width), whole numbers from 1; (3, 1.5, 16)": lambda: Identity((3, 1.5, 16)),
    "size is (height, width), whole numbers from 1; (1.5, 3) was": lambda: BicubicDownsampling(SHAPE, size=(1.5, 3)),
    "size is (height, width), whole numbers from 1; (8,) was": lambda: Similarity(SHAPE, size=(8,)),
    "box is (top, left, height, width), whole numbers from 0; 3 was given": lambda: Inpainting(SHAPE, box=3),
    "scale is a whole number; True was given": lambda: BicubicDownsampling(SHAPE, True),
    "ratio is a number; 'half' was given": lambda: FourierSensing(SHAPE, ratio="half"),
    "Grayscale needs 3 finite weights, not all 0": lambda: Grayscale(SHAPE, weights=(math.nan, 1, 1)),
    "needs 3 finite weights, not all 0; 0.5 was given": lambda: Grayscale(SHAPE, weights=0.5),
    "needs 3 finite weights, not all 0; ['1', 2, 3] was": lambda: Grayscale(SHAPE, weights=["1", 2, 3]),
    "tables of JPEG have 64 rounding steps each": lambda: JPEG(SHAPE, tables=5),
    "tables of JPEG have 64 rounding steps each, 1 or": lambda: JPEG(SHAPE, tables=["a" * 64]),
    "inside is a number; 'a' was given": lambda: JPEG(SHAPE, inside="a"),
    "centre is (x, y), finite numbers; 5 was given": lambda: Similarity(SHAPE, size=(8, 8), centre=5),
    "centre is (x, y), finite numbers; (1, '2') was": lambda: Similarity(SHAPE, size=(8, 8), centre=(1, "2")),
    "side is a number; '8' was given": lambda: Similarity(SHAPE, size=(8, 8), side="8"),
    "angle is a number; None was given": lambda: Similarity(SHAPE, size=(8, 8), angle=None),
    "truncation is a number; 'a' was given": lambda: Blur(SHAPE, truncation="a"),
    "std of a kernel is a number; '1' was given": lambda: Blur(SHAPE, "gaussian", std="1"),
    "angle of a kernel is a number; '30' was given": lambda: Blur(SHAPE, "motion", angle="30"),
    "scale is a whole number; '2' was given": lambda: BicubicDownsampling(SHAPE, scale="2", size=(8, 8)),
    "at least one operator, in a list": lambda: Composition(SHAPE, 5),
    "operator 2 is an operator, or makes one; 5 was given": lambda: Composition(SHAPE, [Identity, 5]),
    "of shape (m, 4) for images of (1, 2, 2); () (torch.int64) was": lambda: GaussianSensing((1, 2, 2), matrix=5),
    "or the path of a file is needed; a dict was given": lambda: Inpainting(SHAPE, mask={}),
    "numbers or the path of a file is needed; a list was": lambda: Blur(SHAPE, kernel=[[1, 2], [3]]),
    "latent_shape is a list of whole numbers; 8 was given": lambda: ModuleGenerator(NETWORK, 8),
    "latent_shape is a list of whole numbers; '8' was": lambda: ModuleGenerator(NETWORK, "8"),
    "latent_shape is a list of whole numbers from 1, such as [128]; [8.5]": lambda: ModuleGenerator(NETWORK, [8.5]),
    "value_range is (black, white), finite numbers; 1 was": lambda: ModuleGenerator(NETWORK, [8], value_range=1),
    "value_range is (black, white), finite numbers; [0,": lambda: ModuleGenerator(NETWORK, [8], value_range=[0, None]),
    "weights is a file; 5 was given": lambda: load_generator({"class_path": "torch.nn.Linear", **LINEAR, "weights": 5}),
    "lr is a finite number above 0; nan was given": lambda: BatchedLBFGS(PARAMETERS, lr=math.nan),
    "lr is a finite number above 0; -1 was given": lambda: BatchedLBFGS(PARAMETERS, lr=-1),
    "lr is a finite number above 0; '1' was given": lambda: BatchedLBFGS([{"params": PARAMETERS, "lr": "1"}]),
    "0 < c1 < c2 < 1 are the Wolfe conditions; c1 2 and": lambda: BatchedLBFGS(PARAMETERS, c1=2),
    "history_size is at least 1; 0 was given": lambda: BatchedLBFGS(PARAMETERS, history_size=0),
    "max_search is a whole number; 2.5 was given": lambda: BatchedLBFGS(PARAMETERS, max_search=2.5),
    "tolerance_grad is at least 0; nan was given": lambda: BatchedLBFGS(PARAMETERS, tolerance_grad=math.nan),
    "std belongs to kernel gaussian; 2.0 was given with 'uniform'": lambda: Blur(SHAPE, std=2.0),
    "angle belongs to kernel motion; 30 was given with a Tensor": lambda: Blur(SHAPE, torch.ones(3, 3), angle=30),
    "std, in pixels, above 0; nan was given": lambda: Blur(SHAPE, "gaussian", std=math.nan),
    "size of a kernel is a whole number; 2.5 was given": lambda: Blur(SHAPE, size=2.5),
    "padding is one of circular, zero, reflect, replicate": lambda: Blur(SHAPE, padding="mirror"),
    "padding is one of renormalise, zero, reflect, replicate": lambda: BicubicDownsampling(SHAPE, 2, padding="mirror"),
    "design is one of hermitian, quadrant, published-difficulty": lambda: FourierSensing(SHAPE, 0.3, design="radial"),
}


@pytest.mark.parametrize("message", WRONG)
def test_settings_of_another_kind(message):
    with pytest.raises(ValueError, match=re.escape(message)):
        WRONG[message]()


def test_numbers_of_other_libraries():
    stage = Stage(steps=np.int64(3), lr=np.float64(0.1), tolerance=0)
    assert (stage.steps, stage.lr, stage.tolerance) == (3, 0.1, 0)


@pytest.mark.parametrize("method", [CSGM, IAGAN])
def test_of_a_method(method, tiny):
    with pytest.raises(ValueError, match="memory_format is one of channels_last, contiguous; 'nhwc' was given"):
        method(tiny, memory_format="nhwc")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"views": 2.0}, "views are a whole number or different ones of identity, mirror"),
        ({"views": True}, "views are a whole number or different ones of"),
        ({"views": [["mirror"]]}, "views are a whole number or different ones of"),
        ({"time": "5"}, "time is a number; '5' was given"),
        ({"noise_std": "10/255"}, "noise_std is a number on the [0, 1] scale, such as 10 / 255; '10/255' was given"),
        ({"noise_std": [0.1]}, "noise_std is a number on the [0, 1] scale, such as 10 / 255; a list was given"),
        ({"method": IAGAN(BEGAN(16, 4, 8))}, "a IAGAN was given: a method with its generator is given in the place"),
        ({"method": None}, "method is a name or a class of methods; None was given"),
        ({"joint": 5}, "settings of a fit are a Stage, such as Stage(steps=5); 5 was given"),
        ({"joint": {"step": 5}}, "Stage has no step"),
        ({"callbacks": 5}, "callbacks are Lightning callbacks; 5 was given"),
        ({"callbacks": [BackProjection]}, "callbacks are Lightning callbacks; a type was given"),
        ({"A": "super-resolution"}, "A is an operator, such as BicubicDownsampling((3, 64, 64), scale=4); 'super-res"),
        ({"A": torch.zeros(3, 4)}, "A is an operator, such as BicubicDownsampling((3, 64, 64), scale=4); a Tensor was"),
    ],
)
def test_arguments_of_reconstruct_of_another_kind(tiny, given, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        reconstruct(**{"y": torch.zeros(1, *SHAPE), "A": Identity(SHAPE), "G": tiny, "accelerator": "cpu", **given})


def test_numbers_and_callbacks_as_they_come(tiny):
    short = {"latent": Stage(steps=2), "joint": Stage(steps=2), "accelerator": "cpu"}
    given = {"views": np.int64(2), "noise_std": np.float32(0.1), "callbacks": DIPBaseline(DIPSettings(steps=2))}
    result = reconstruct(torch.zeros(1, *SHAPE), Identity(SHAPE), tiny, **short, **given)
    assert result.iagan_mean is not None and result.dip is not None


def test_what_is_long_is_shown_by_its_kind(tiny):
    A = BicubicDownsampling(tiny.image_shape, 2)
    y = A(A.naive(A(tiny(tiny.sample_latent(1)))))
    with pytest.raises(ValueError, match=r"weights is the name of a prior or a file; a Tensor was given$"):
        reconstruct(y, A, y)
    with pytest.raises(ValueError, match=r"size is one of 1, 2; a list was given$"):
        check_choice("size", [3], (1, 2))


@pytest.mark.parametrize("seed", [1.5, "3", None, True, 2**64])
def test_a_seed_is_a_whole_number(tiny, seed):
    drawn = [
        lambda: GaussianSensing(SHAPE, ratio=0.5, seed=seed),
        lambda: StructuredSensing(SHAPE, ratio=0.5, seed=seed),
        lambda: FourierSensing(SHAPE, ratio=0.5, seed=seed),
        lambda: Inpainting(SHAPE, ratio=0.5, seed=seed),
        lambda: PhaseRetrieval(SHAPE, seed=seed),
        lambda: Identity(SHAPE).held_out(0.1, seed=seed),
        lambda: tiny.sample_latent(1, seed=seed),
        lambda: Identity(SHAPE).measure(torch.zeros(1, *SHAPE), 0.1, seed=[seed]),
    ]
    for draw in drawn:
        with pytest.raises(ValueError, match=f"seed is a whole number of at most 64 bits; {seed!r} was given"):
            draw()


def test_seeds_of_numpy_and_pytorch_are_seeds():
    x = torch.zeros(2, *SHAPE)
    for seed in (np.int64(3), np.array([3, 4]), torch.tensor([3, 4])):
        assert torch.equal(Identity(SHAPE).measure(x, 0.1, seed=seed), Identity(SHAPE).measure(x, 0.1, seed=3))
    assert torch.equal(Inpainting(SHAPE, ratio=0.5, seed=np.int64(3)).mask, Inpainting(SHAPE, ratio=0.5, seed=3).mask)
