"""Metrics beside scikit-image and torchmetrics, on pictures of sizes and contents where definitions part."""

import math

import numpy as np
import pytest
import torch
from torchmetrics.functional.image import peak_signal_noise_ratio, structural_similarity_index_measure
from torchmetrics.functional.regression import mean_squared_error

from iagan_lightning.operators import Identity
from iagan_lightning.results.metrics import evaluate

pytestmark = pytest.mark.peers
skimage = pytest.importorskip("skimage.metrics", reason="needs scikit-image: pip install '.[test]'")


def drawn(shape, seed=0):
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * 2 - 1


def pair(shape, noise=0.2, seed=0):
    truth = drawn(shape, seed)
    return (truth + noise * drawn(shape, seed + 1)).clamp(-1, 1), truth


GREY = torch.zeros(3, 24, 21, dtype=torch.float64)
PAIRS = {
    "odd": pair((3, 37, 51)),
    "grey": pair((1, 33, 16)),
    "tiny": pair((3, 11, 11)),
    "narrow": pair((3, 11, 64)),
    "below the window": pair((3, 10, 40)),
    "one pixel": pair((3, 1, 1)),
    "of one grey": (GREY + 0.01, GREY),
    "black and white": (GREY - 1, GREY + 1),
    "nearly identical": pair((3, 20, 20), noise=1e-4),
    "identical": (drawn((3, 20, 20)), drawn((3, 20, 20))),
    "out of range": (3 * drawn((3, 20, 20)), drawn((3, 20, 20), 1)),
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", PAIRS)
def test_metrics_are_those_of_scikit_image(name, dtype):
    x, truth = (image.to(dtype) for image in PAIRS[name])
    row = evaluate(x[None], x[None], Identity(tuple(x.shape)), truth=truth[None])[0]
    a, b = (((image.double().clamp(-1, 1) + 1) / 2).numpy() for image in (x, truth))
    assert row["mse"] == pytest.approx(skimage.mean_squared_error(b, a), rel=1e-4, abs=1e-12)
    with np.errstate(divide="ignore"):
        assert row["psnr"] == pytest.approx(skimage.peak_signal_noise_ratio(b, a, data_range=1), abs=1e-3)
    if min(x.shape[1:]) < 11:
        assert "ssim" not in row, "no window lies within"
        return
    published = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}
    ssim = skimage.structural_similarity(b, a, data_range=1, channel_axis=0, **published)
    assert row["ssim"] == pytest.approx(ssim, abs=2e-5)
    if name == "identical":
        assert row["ssim"] == 1 and row["psnr"] == math.inf and row["mse"] == 0


@pytest.mark.parametrize("name", PAIRS)
def test_metrics_are_those_of_torchmetrics(name):
    """Of its SSIM, since 1.5.2 with windows beyond the border, the map within is the same."""
    x, truth = PAIRS[name]
    row = evaluate(x[None], x[None], Identity(tuple(x.shape)), truth=truth[None])[0]
    a, b = ((image[None].clamp(-1, 1) + 1) / 2 for image in (x, truth))
    assert row["mse"] == pytest.approx(mean_squared_error(a.flatten(), b.flatten()).item(), rel=1e-9)
    assert row["psnr"] == pytest.approx(peak_signal_noise_ratio(a, b, data_range=1.0).item(), rel=1e-9)
    if min(x.shape[1:]) >= 11:
        padded = [torch.nn.functional.pad(image, (5, 5, 5, 5), mode="replicate") for image in (a, b)]
        _, each = structural_similarity_index_measure(*padded, data_range=1.0, return_full_image=True)
        assert row["ssim"] == pytest.approx(each[..., 10:-10, 10:-10].mean().item(), rel=1e-9)


def test_a_batch_is_its_pictures():
    pairs = [pair((3, 23, 30), seed=seed) for seed in range(3)]
    x, truth = (torch.stack(images) for images in zip(*pairs, strict=True))
    together = evaluate(x, x, Identity((3, 23, 30)), truth=truth)
    for i in range(3):
        [alone] = evaluate(x[i, None], x[i, None], Identity((3, 23, 30)), truth=truth[i, None])
        assert together[i] == pytest.approx(alone, rel=1e-12)
