"""How sure a picture is: the spread of views, its calibration, and where it is told."""

from __future__ import annotations

import json
import math

import pytest
import pytorch_lightning as pl
import torch
from torch import Tensor

from iagan_lightning import Stage, reconstruct
from iagan_lightning.cli import main
from iagan_lightning.data.images import read_image, to_pillow
from iagan_lightning.generators import load_generator
from iagan_lightning.generators.calibration import Calibration
from iagan_lightning.generators.calibration_files import save_calibration
from iagan_lightning.operators import BicubicDownsampling, Blur, Identity, Inpainting
from iagan_lightning.results.files import read_json
from iagan_lightning.results.uncertainty import FLOOR, TYPICAL, coverage, factor_of, kind_of, spread

SHAPE = (3, 16, 16)
SHORT = {"latent": Stage("adam", 6, lr=0.05, stop="never"), "joint": Stage("adam", 6, stop="never")}


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def test_the_spread_is_the_standard_deviation_of_independent_views() -> None:
    views = 0.4 * normal(64, 1, 3, 32, 32)
    std = spread(views)
    assert std.shape == (1, 1, 32, 32)
    assert math.isclose(std.mean().item(), math.hypot(0.2, FLOOR), rel_tol=0.01)  # [-1, 1] is twice [0, 1]


@pytest.mark.parametrize(("height", "width"), [(64, 64), (64, 40), (8, 8), (3, 5), (256, 256)])
def test_the_window_neither_adds_nor_moves_anything(height: int, width: int) -> None:
    views = torch.zeros(2, 1, 1, height, width)
    views[1] = 1e-4  # open everywhere
    views[1, ..., height // 2, width // 2] = 1.0
    variance = spread(views).square() - FLOOR**2
    assert math.isclose(variance.sum().item(), 1 / 8, rel_tol=0.05 if min(height, width) > 8 else 0.5)
    assert variance.flatten().argmax().item() == height // 2 * width + width // 2
    wide = (variance[0, 0, height // 2] > 0.01 * variance.max()).sum().item()
    assert wide <= max(3, 2 * math.ceil(3.1 * 1.5 / 64 * height) + 1)


def test_known_pixels_are_known_and_dilute_nothing() -> None:
    """Half of the pixels are measured, as in inpainting: the others are as unsure as if all of them were open."""
    views = 0.4 * normal(64, 1, 3, 32, 32)
    known = torch.rand(32, 32, generator=torch.Generator().manual_seed(1)) < 0.5
    views[..., known] = 0.7
    std = spread(views)[0, 0]
    torch.testing.assert_close(std[known], torch.full_like(std[known], FLOOR))
    assert math.isclose(std[~known].mean().item(), math.hypot(0.2, FLOOR), rel_tol=0.02)


def test_each_picture_has_its_own() -> None:
    views = normal(2, 3, 3, 16, 16)
    torch.testing.assert_close(spread(views)[1:2], spread(views[:, 1:2]))


@pytest.mark.parametrize("views", [2, 3, 4, 8])
def test_the_factor_of_more_views(views: int) -> None:
    """Errors with a common part: the factor of two views foretells that of the mean of several."""
    common, own = 0.3 * normal(1, 1, 1, 1, 4000), 0.2 * normal(views, 1, 1, 1, 4000, seed=1)
    pictures = common + own

    def measured(count: int) -> float:
        of = pictures[:count]
        return float(of.mean(0).square().mean().sqrt() / of.var(0).mean().sqrt())

    assert math.isclose(factor_of(measured(2), views), measured(views), rel_tol=0.06)
    assert factor_of(0.1, views) > 0


def test_coverage_counts_values_within_the_interval() -> None:
    truth = torch.zeros(2, 3, 64, 64)
    x = torch.stack([0.2 * normal(3, 64, 64), 0.4 * normal(3, 64, 64)])
    std = torch.full((2, 1, 64, 64), 0.1)
    std[..., :32] = 0.005
    x[..., :32] = 0  # known, and right
    torch.testing.assert_close(coverage(x, truth, std), torch.tensor([0.9, 0.59]), atol=0.01, rtol=0)
    known = torch.full((2, 1, 64, 64), 0.005)
    torch.testing.assert_close(coverage(truth, truth, known), torch.ones(2))


def test_kinds_of_measurements() -> None:
    assert kind_of(Identity(SHAPE), 0.0) == "Identity"
    assert kind_of(Inpainting(SHAPE, ratio=0.5, seed=0), 0.0) == "Inpainting"
    assert kind_of(Inpainting(SHAPE, ratio=0.2, seed=0), 0.0) == "Inpainting"
    assert kind_of(Inpainting(SHAPE, box=[4, 4, 8, 8]), 0.1) == "Inpainting, areas, noise"
    assert kind_of(Inpainting(SHAPE, mask=torch.ones(3, 16, 16, dtype=torch.bool)), 0.0) == "Inpainting"
    assert kind_of(Blur(SHAPE), 0.1) == kind_of(Blur(SHAPE), None) == "CircularBlur, noise"


def test_a_calibration_scales_the_spread_and_is_said(prior) -> None:
    A = BicubicDownsampling(SHAPE, scale=4)
    y = A(0.5 * normal(2, 3, 16, 16).clamp(-1, 1))

    def made():
        return reconstruct(y, A, load_generator(prior), views=2, accelerator="cpu", callbacks=[Brief()])

    before = made()
    assert before.uncertainty.shape == (2, 1, 16, 16)
    assert [image.calibrated for image in before.images] == [False, False]
    views = torch.stack([before.iagan_bp, before["iagan_mirror_bp"]])
    torch.testing.assert_close(before.uncertainty, TYPICAL * spread(views))
    save_calibration(load_generator(prior), prior, {"faces": 2}, factors={"BicubicDownsampling": 3.0, "Blur": 9.0})
    after = made()
    assert [image.calibrated for image in after.images] == [True, True]
    torch.testing.assert_close(after.uncertainty, before.uncertainty * 3.0 / TYPICAL)
    assert reconstruct(y, A, load_generator(prior), accelerator="cpu", **SHORT).uncertainty is None


class Brief(pl.Callback):
    """End each fit after its third evaluation, whatever its settings."""

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx) -> None:
        trainer.should_stop |= batch_idx >= 2


@pytest.mark.parametrize(
    ("settings", "calibrated"),
    [
        ({}, True),
        ({"preset": "best"}, True),
        ({"views": 4}, True),
        ({"time": 60.0}, True),
        ({"joint": Stage(steps=3)}, False),
        ({"latent": Stage(steps=3)}, False),
        ({"preset": "paper", "latent": Stage(steps=2), "joint": Stage(steps=2)}, False),
        ({"method": "csgm"}, False),
        ({"back_projection": False}, False),
        ({"back_projection": "naive"}, False),
        ({"noise_std": 0.1}, True),
        ({"noise_std": 0.1, "back_projection": "discrepancy"}, False),
        ({"noise_std": None}, False),
    ],
    ids=lambda given: ", ".join(given) if isinstance(given, dict) else "",
)
def test_a_factor_is_that_of_what_was_done(prior, settings, calibrated: bool) -> None:
    """Fits and back-projection as they are by default, in any number of views and seconds; else 2 stands in."""
    factors = {"BicubicDownsampling": 3.0, "BicubicDownsampling, noise": 3.0}
    save_calibration(load_generator(prior), prior, {"faces": 2}, factors=factors)
    A = BicubicDownsampling(SHAPE, scale=4)
    y = A(0.5 * normal(1, 3, 16, 16).clamp(-1, 1))
    settings = {"views": 2, "callbacks": [Brief()], **settings}
    result = reconstruct(y, A, load_generator(prior), accelerator="cpu", **settings)
    assert result.images[0].calibrated is calibrated
    assert result.images[0].sureness()["calibrated"] is calibrated
    factor = factor_of(3.0 if calibrated else TYPICAL, len(result.views))
    torch.testing.assert_close(result.uncertainty, factor * spread(result.samples))


@pytest.mark.parametrize(
    "content",
    [
        "",
        "[]",
        "{}",
        '{"generator": "x", "about": {}, "factors": {"Blur": 1}}',
        "{not json",
        '{"about": {}, "factors": 3}',
    ],
)
def test_a_calibration_of_something_else_is_left_out(prior, content: str, capsys) -> None:
    beside = save_calibration(load_generator(prior), prior, {}, factors={"Blur": 2.0})
    assert load_generator(prior).calibration == Calibration({"Blur": 2.0})
    beside.write_text(content)
    assert load_generator(prior).calibration == Calibration()
    assert "is no calibration of own.safetensors, or of other weights: it is left out" in capsys.readouterr().err


@pytest.mark.parametrize("factor", [0.0, -1.0, math.nan, math.inf])
def test_a_factor_is_a_number_above_0(prior, factor: float, capsys) -> None:
    save_calibration(load_generator(prior), prior, {}, factors={"Blur": factor})
    assert load_generator(prior).calibration == Calibration() and "left out" in capsys.readouterr().err


def test_a_run_tells_how_sure_it_is(tmp_path, prior, capsys) -> None:
    (tmp_path / "faces").mkdir()
    to_pillow(0.5 * normal(3, 16, 16)).save(tmp_path / "faces" / "a.png")
    words = ["denoising", "--data.root", str(tmp_path / "faces"), "--model.generator", str(prior), "--noise_std", "0.1"]
    quick = ["--model.latent.steps", "4", "--model.joint.steps", "4", "--lpips", "none", "--trainer.accelerator", "cpu"]
    out = tmp_path / "out"
    assert main([*words, *quick, "--views", "2", "--out", str(out)]) == 0
    folder = out / "images" / "a"
    about = read_json(folder / "metrics.json")["uncertainty"]
    assert about["calibrated"] is False and 0 <= about["coverage"] <= 1
    drawn = read_image(folder / "uncertainty.png")
    assert drawn.shape[-2:] == (16, 16)
    assert math.isclose((drawn[0].mean().item() + 1) / 2 * 0.25, min(about["mean"], 0.25), abs_tol=2e-3)
    assert main(["report", str(out)]) == 0
    page = (out / "report.html").read_text()
    assert "not calibrated for this prior and task" in page and json.dumps("uncertainty") in page
    capsys.readouterr()
    assert main([*words, *quick, "--out", str(tmp_path / "one")]) == 0
    assert not (tmp_path / "one/images/a/uncertainty.png").exists()
    assert "uncertainty" not in read_json(tmp_path / "one/images/a/metrics.json")


def test_without_noise_errors_and_spread_lie_in_the_null_space(prior) -> None:
    """What y says is known: a picture that A keeps whole has no uncertainty beyond the floor."""
    A = Identity(SHAPE)
    result = reconstruct(A(0.3 * normal(1, 3, 16, 16)), A, load_generator(prior), views=2, accelerator="cpu", **SHORT)
    torch.testing.assert_close(result.uncertainty, torch.full_like(result.uncertainty, TYPICAL * FLOOR))
