"""Choices by name are checked where Python gives them, as the command line checks its options."""

import re

import pytest
from iagan_lightning.callbacks import BackProjection, ResultWriter

from iagan_lightning import CSGM, IAGAN, DIPSettings, Stage, reconstruct
from iagan_lightning.choices import check_choice
from iagan_lightning.data import ImageData
from iagan_lightning.methods import FitSettings
from iagan_lightning.operators import BicubicDownsampling, Blur, FourierSensing
from iagan_lightning.runs.options import RunOptions

SHAPE = (3, 16, 16)
CHOICES = {
    "optimizer of a stage is one of adam, lbfgs": lambda: Stage(optimizer="sgd"),
    "stop of a stage is one of auto, noise, plateau, decrease, held-out, never": lambda: Stage(stop="none"),
    "frozen of a stage is one of none, full-resolution, finer": lambda: Stage(frozen="all"),
    "keep of a stage is one of best, last": lambda: Stage(keep="first"),
    "penalty of a stage is one of none, latent": lambda: Stage(penalty="l1"),
    "stop of a stage is one of noise, plateau, decrease, held-out, own, never": lambda: FitSettings(stop="auto"),
    "upsampling of DIP is one of bilinear, nearest": lambda: DIPSettings(upsampling="bicubic"),
    "stop of DIP is one of auto, noise, variance, never": lambda: DIPSettings(stop="plateau"),
    "engine of a run is one of local, ray": lambda: RunOptions(engine="dask"),
    "save of a run is one of images, pictures, weights": lambda: RunOptions(save="all"),
    "back_projection is one of True, False, None, discrepancy, naive": lambda: BackProjection("exact"),
    "save is one of images, pictures, weights": lambda: ResultWriter("out", save="all"),
    "data.fit is one of crop, resize, pad": lambda: ImageData(fit="stretch"),
    "data.alpha is one of white, mask": lambda: ImageData(alpha="black"),
    "data.images_per_fit is at least 1": lambda: ImageData(images_per_fit="many"),
    "padding is one of circular, zero, reflect, replicate": lambda: Blur(SHAPE, padding="mirror"),
    "padding is one of renormalise, zero, reflect, replicate": lambda: BicubicDownsampling(SHAPE, 2, padding="mirror"),
    "design is one of hermitian, quadrant, published-difficulty": lambda: FourierSensing(SHAPE, 0.3, design="radial"),
}


@pytest.mark.parametrize("message", CHOICES)
def test_a_name_that_is_none_of_them(message):
    with pytest.raises(ValueError, match=re.escape(message)):
        CHOICES[message]()


@pytest.mark.parametrize("method", [CSGM, IAGAN])
def test_of_a_method(method, tiny):
    with pytest.raises(ValueError, match="memory_format is one of channels_last, contiguous; 'nhwc' was given"):
        method(tiny, memory_format="nhwc")


def test_what_is_long_is_shown_by_its_kind(tiny):
    A = BicubicDownsampling(tiny.image_shape, 2)
    y = A(A.naive(A(tiny(tiny.sample_latent(1)))))
    with pytest.raises(ValueError, match=r"weights is the name of a prior or a file; a Tensor was given$"):
        reconstruct(y, A, y)
    with pytest.raises(ValueError, match=r"size is one of 1, 2; a list was given$"):
        check_choice("size", [3], (1, 2))
