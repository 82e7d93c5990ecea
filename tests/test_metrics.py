"""Metrics beside published values and their definitions."""

import math

import pytest
import torch

from iagan_lightning.data import ImageData
from iagan_lightning.operators import BicubicDownsampling, Identity, Inpainting, LinearOperator
from iagan_lightning.results.metrics import evaluate


def test_lpips_is_the_published_one(shared):
    """Images in [-1, 1], the range that decides: the values of the example in torchmetrics' documentation."""
    random = torch.Generator().manual_seed(42)
    a, b = (torch.rand(2, 3, 100, 100, generator=random) * 2 - 1 for _ in range(2))
    rows = evaluate(a, a, Identity((3, 100, 100)), truth=b, lpips="squeeze")
    assert [row["lpips_squeeze"] for row in rows] == pytest.approx([0.1024, 0.0938], abs=5e-5)


def test_images_of_a_run_draw_different_numbers(portraits, tmp_path):
    """Starting latents and noise come from each picture's name."""
    samples = ImageData().samples(0, (3, 64, 64))
    assert len({sample.seed for sample in samples}) == len(samples) == 2
    read = [ImageData().read(sample, (3, 64, 64), Identity, 0.1) for sample in samples]
    noise = [measured.y - measured.truth for measured in read]
    assert abs(torch.corrcoef(torch.stack([n.flatten() for n in noise]))[0, 1]) < 0.05


def pictures(count, shape, seed=0):
    random = torch.Generator().manual_seed(seed)
    truth = torch.rand(count, *shape, generator=random) * 2 - 1
    return (truth + 0.2 * torch.randn(count, *shape, generator=random)).clamp(-1, 1), truth


def published_ssim(a, b):
    """Equation (13) of Wang et al., window by window, for two channels (H, W) in [0, 1]."""
    offsets = torch.arange(-5.0, 6.0, dtype=torch.float64)
    bell = torch.exp(-(offsets**2) / (2 * 1.5**2))
    window = torch.outer(bell, bell) / bell.sum() ** 2
    values = []
    for i in range(a.shape[0] - 10):
        for j in range(a.shape[1] - 10):
            u, v = a[i : i + 11, j : j + 11].double(), b[i : i + 11, j : j + 11].double()
            mu, nu = (window * u).sum(), (window * v).sum()
            var_u, var_v = (window * (u - mu) ** 2).sum(), (window * (v - nu) ** 2).sum()
            covariance = (window * (u - mu) * (v - nu)).sum()
            c1, c2 = 0.01**2, 0.03**2
            numerator = (2 * mu * nu + c1) * (2 * covariance + c2)
            values.append(numerator / ((mu**2 + nu**2 + c1) * (var_u + var_v + c2)))
    return torch.stack(values).mean()


@pytest.mark.parametrize("shape", [(3, 12, 13), (1, 11, 11)])
def test_ssim_is_the_published_definition(shape):
    """Whatever torchmetrics is installed: since 1.5.2 it adds windows beyond the border, .58 in place of .72 here."""
    x, truth = pictures(2, shape)
    rows = evaluate(x, x, Identity(shape), truth=truth)
    for i, row in enumerate(rows):
        channels = [published_ssim((x[i, c] + 1) / 2, (truth[i, c] + 1) / 2) for c in range(shape[0])]
        assert row["ssim"] == pytest.approx(float(torch.stack(channels).mean()), abs=2e-6)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("autocast", [False, True])
def test_metrics_of_half_precision_are_those_of_the_same_picture(dtype, autocast):
    x, truth = pictures(2, (3, 16, 16))
    x, A = x.to(dtype), BicubicDownsampling((3, 16, 16), scale=4)
    y = A(truth)
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        half = evaluate(x, y, A, truth=truth)
    assert half == evaluate(x.float(), y, A, truth=truth)


def test_a_picture_that_is_no_number_changes_nothing_for_its_neighbours():
    """A^+ by conjugate gradients as well, which look at the whole batch."""

    class Own(LinearOperator):
        def forward(self, x):
            return x[..., ::2] + 0.5 * x[..., 1::2]

    x, truth = pictures(3, (3, 16, 16))
    A = Own((3, 16, 16))
    y = A(truth)
    alone = [evaluate(x[i, None], y[i, None], A, truth=truth[i, None])[0] for i in (0, 2)]
    x[1, 0, 3, 4] = torch.nan
    rows = evaluate(x, y, A, truth=truth)
    assert {"row_space_mse", "null_space_mse", "residual_8bit", "ssim"} <= rows[1].keys() == alone[0].keys()
    assert all(math.isnan(value) for value in rows[1].values())
    for row, reference in zip((rows[0], rows[2]), alone, strict=True):
        assert row == pytest.approx(reference, rel=1e-4)
    assert all(map(math.isnan, evaluate(x[1, None], y[1, None], A, truth=truth[1, None])[0].values()))


A = Identity((3, 12, 12))


@pytest.mark.parametrize(
    ("x", "truth", "said"),
    [
        (lambda x: ((x + 1) * 127.5).byte(), None, "x holds whole numbers"),
        (None, lambda x: ((x + 1) * 127.5).byte(), "truth holds whole numbers"),
        (None, lambda x: (x + 1) * 127.5, "truth has values up to 2[0-9.]*; images are in"),
        (None, lambda x: x[:1], r"truth must have shape \(2, 3, 12, 12\)"),
        (lambda x: x[0], None, r"x must have shape \(batch, 3, 12, 12\)"),
        (lambda x: x[:1], None, "1 images came with 2 measurements"),
    ],
)
def test_pictures_of_another_scale_or_shape_are_not_measured(x, truth, said):
    given, true = pictures(2, (3, 12, 12))
    x = given if x is None else x(given)
    with pytest.raises(ValueError, match=said):
        evaluate(x, given, A, truth=true if truth is None else truth(true))


def test_arrays_are_measured_as_tensors_are():
    x, truth = pictures(2, (3, 12, 12))
    assert evaluate(x.numpy(), x.numpy(), A, truth.numpy()) == evaluate(x, x, A, truth)


def test_what_stands_where_nothing_is_measured_is_no_residual():
    x, truth = pictures(1, (3, 12, 12))
    box = Inpainting((3, 12, 12), box=[2, 2, 4, 4])
    painted = torch.where(box(torch.ones_like(x)) == 0, 1.0, box(truth))
    assert evaluate(x, painted, box, truth) == evaluate(x, box(truth), box, truth)
