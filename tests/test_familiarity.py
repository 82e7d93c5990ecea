"""Does the prior know this picture: what it leaves unexplained, its calibration, and where that is told."""

from __future__ import annotations

import json
import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from iagan_lightning import Stage, reconstruct
from iagan_lightning.cli import main
from iagan_lightning.data.images import to_pillow
from iagan_lightning.generators import BEGAN, load_generator, save_generator
from iagan_lightning.generators.calibration import Calibration
from iagan_lightning.generators.calibration_files import save_calibration
from iagan_lightning.methods import DIP, DIPSettings
from iagan_lightning.operators import (
    BicubicDownsampling,
    FourierSensing,
    GaussianSensing,
    Identity,
    Inpainting,
    Operator,
)
from iagan_lightning.results.familiarity import LIMIT, RARE, familiarity, unexplained
from iagan_lightning.results.files import read_json

SHAPE = (3, 16, 16)
SHORT = {"latent": Stage("adam", 6, lr=0.05, stop="never"), "joint": Stage("adam", 6, stop="never")}
OPERATORS = [
    Identity(SHAPE),
    BicubicDownsampling(SHAPE, scale=4),
    FourierSensing(SHAPE, ratio=0.4),
    GaussianSensing(SHAPE, ratio=0.2),
    Inpainting(SHAPE, ratio=0.5),
]


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def colours(*values: float) -> Tensor:
    return torch.tensor(values)[:, None, None].expand(SHAPE)


@pytest.mark.parametrize("A", OPERATORS, ids=lambda A: type(A).__name__)
def test_a_plain_colour_explains_nothing_and_the_truth_all(A) -> None:
    truth = (0.3 * normal(2, *SHAPE) + colours(0.5, -0.2, 0.1)).clamp(-1, 1)
    y = A(truth)
    # The nearest plain colour, found by least squares over the three channels.
    columns = torch.stack([A(colours(*row)[None])[0] for row in torch.eye(3).tolist()])
    real = [torch.view_as_real(each).flatten(1) if each.is_complex() else each.flatten(1) for each in (columns, y)]
    best = torch.linalg.lstsq(real[0].T, real[1].T).solution.T
    plain = torch.stack([colours(*row) for row in best.tolist()])
    torch.testing.assert_close(unexplained(plain, y, A, 0.0), torch.ones(2), rtol=1e-4, atol=0)
    assert unexplained(truth, y, A, 0.0).max() < 1e-3
    half = (plain + truth) / 2
    torch.testing.assert_close(unexplained(half, y, A, 0.0), torch.full((2,), 0.5), rtol=1e-4, atol=0)


@pytest.mark.parametrize("A", OPERATORS, ids=lambda A: type(A).__name__)
def test_it_does_not_see_brightness_contrast_or_noise(A) -> None:
    """What is asked is how much of the contrast a picture explains, whatever there is of it."""
    truth = functional.interpolate(0.3 * normal(1, 3, 4, 4), size=16, mode="bicubic")
    found = truth + functional.interpolate(0.1 * normal(1, 3, 4, 4, seed=1), size=16, mode="bicubic")
    once = unexplained(found, A(truth), A, 0.0)
    paler = unexplained(0.1 * found + 0.6, A(0.1 * truth + 0.6), A, 0.0)
    torch.testing.assert_close(paler, once, rtol=1e-3, atol=0)
    noisy = [unexplained(found, A.measure(truth, noise_std=0.02, seed=seed), A, 0.02) for seed in range(20)]
    assert torch.stack(noisy).mean().item() == pytest.approx(once.item(), abs=0.03)


def test_where_there_is_nothing_to_see_nothing_is_said() -> None:
    A = Identity(SHAPE)
    flat = torch.full((1, *SHAPE), 0.3)
    assert unexplained(flat, A.measure(flat, noise_std=0.1, seed=0), A, 0.1).isnan().all()
    assert unexplained(flat, A(flat), A, 0.0).isnan().all()  # nor of a picture of one colour


def test_an_operator_that_is_not_linear_is_compared_with_y_itself() -> None:
    class Squared(Operator):
        def forward(self, x):
            return x.square()

    A = Squared(SHAPE)
    truth = normal(1, *SHAPE).clamp(-1, 1)
    assert unexplained(torch.zeros(1, *SHAPE), A(truth), A, 0.0).item() == pytest.approx(1)


def test_the_percentile_is_that_of_known_pictures() -> None:
    draw = (0.25 * normal(4000) + math.log(0.2)).exp()
    typical = (draw.log().mean().item(), draw.log().std().item())
    for left in (0.12, 0.2, 0.3):
        more = 100 * (draw > left).float().mean().item()
        assert familiarity(left, typical).percentile == pytest.approx(more, abs=1.5)
    unknown = [not familiarity(left, typical).known for left in draw.tolist()]
    assert sum(unknown) / len(unknown) == pytest.approx(RARE, abs=0.004)
    assert familiarity(0.0, typical).percentile == 100
    assert familiarity(LIMIT + 0.01).known is False and familiarity(LIMIT + 0.01, space="w").known is True


@pytest.mark.parametrize(("measured", "mean"), [(70, -2.0), (100, -2.0), (200, -1.5), (800, -1.25), (3000, -1.5)])
def test_between_numbers_of_measurements_it_is_interpolated(measured: int, mean: float) -> None:
    tried = Calibration(unexplained={"Blur": {100: (-2.0, 0.2), 400: (-1.0, 0.2), 1600: (-1.5, 0.2)}})
    assert tried.typical("Blur", measured) == pytest.approx((mean, 0.2))
    assert tried.typical("Blur", 49) is None and tried.typical("Blur", 3201) is None


def test_the_parts_of_a_calibration_do_not_displace_each_other(prior) -> None:
    G = load_generator(prior)
    save_calibration(G, prior, {"faces": 2}, factors={"Blur": 2.0})
    beside = save_calibration(G, prior, {"faces": 3}, unexplained={"Blur": {768: (-1.5, 0.25)}})
    assert load_generator(prior).calibration == Calibration({"Blur": 2.0}, {"Blur": {768: (-1.5, 0.25)}})
    told = {"factors": {"Blur": {"faces": 2}}, "unexplained": {"Blur": {"faces": 3}}}
    assert json.loads(beside.read_text())["about"] == told
    save_calibration(G, prior, {"faces": 4}, factors={"JPEG": 1.5})  # nor do its kinds of measurements
    assert load_generator(prior).calibration.factors == {"Blur": 2.0, "JPEG": 1.5}
    told["factors"] |= {"JPEG": {"faces": 4}}
    assert json.loads(beside.read_text())["about"] == told
    torch.manual_seed(1)
    save_generator(BEGAN(16, 4, 8), prior)  # other weights: what was measured of the old ones goes
    save_calibration(load_generator(prior), prior, {}, factors={"Blur": 3.0})
    assert load_generator(prior).calibration == Calibration({"Blur": 3.0})


@pytest.mark.parametrize("figures", [[0.1], [0.1, 0.0], [0.1, -1], [math.inf, 1.0], ["a", 1.0], 3])
def test_figures_that_cannot_be_any_are_left_out(prior, figures, capsys) -> None:
    save_calibration(load_generator(prior), prior, {}, unexplained={"Blur": {768: figures}})
    assert load_generator(prior).calibration == Calibration() and "left out" in capsys.readouterr().err


@pytest.mark.parametrize("content", ["[" * 100_000, '{"about": {}, "factors": {"Blur": 1' + 400 * "0" + "}}"])
def test_a_file_that_is_no_calibration_is_left_out(prior, content, capsys) -> None:
    beside = save_calibration(load_generator(prior), prior, {}, factors={"Blur": 2.0})
    beside.write_text(content)
    assert load_generator(prior).calibration == Calibration() and "left out" in capsys.readouterr().err
    save_calibration(load_generator(prior), prior, {}, factors={"Blur": 3.0})
    assert load_generator(prior).calibration == Calibration({"Blur": 3.0})


def test_a_method_tells_it_of_each_picture_whatever_its_weights_do(prior) -> None:
    A = BicubicDownsampling(SHAPE, scale=4)
    G = load_generator(prior)
    with torch.no_grad():
        y = torch.cat([A(G(G.sample_latent(1, seed=3))), A(normal(1, *SHAPE).clamp(-1, 1))])
    short = {"joint": SHORT["joint"]}
    result = reconstruct(y, A, G, accelerator="cpu", **short)
    for index, image in enumerate(result.images):
        own = unexplained(result.csgm[index, None], y[index, None], A, 0.0)
        assert image.familiarity.unexplained == pytest.approx(own.item(), rel=1e-6)
        assert image.familiarity.percentile is None
    save_calibration(G, prior, {}, unexplained={"BicubicDownsampling": {A.num_measurements: (-3.0, 0.5)}})
    told = reconstruct(y, A, load_generator(prior), accelerator="cpu", views=2, **short).images
    for image, before in zip(told, result.images, strict=True):
        assert image.familiarity == familiarity(before.familiarity.unexplained, (-3.0, 0.5))


@pytest.mark.parametrize(
    "settings",
    [
        {"latent": Stage(steps=3)},
        {"preset": "paper", "latent": Stage(steps=3)},
        {"method": "csgm"},
        {"noise_std": None},
    ],
    ids=", ".join,
)
def test_another_search_is_not_judged_by_what_the_usual_one_leaves(prior, settings) -> None:
    A = BicubicDownsampling(SHAPE, scale=4)
    figures = {
        kind: {A.num_measurements: (-9.0, 0.5)} for kind in ("BicubicDownsampling", "BicubicDownsampling, noise")
    }
    save_calibration(load_generator(prior), prior, {}, unexplained=figures)
    y = A(normal(1, *SHAPE).clamp(-1, 1))
    settings = {**settings, **({} if settings.get("method") == "csgm" else {"joint": Stage(steps=2)})}
    [image] = reconstruct(y, A, load_generator(prior), accelerator="cpu", **settings).images
    assert image.familiarity == familiarity(image.familiarity.unexplained)


def test_a_run_says_it_in_its_record_its_last_lines_and_its_report(tmp_path, prior, capsys) -> None:
    G = load_generator(prior)
    save_calibration(G, prior, {}, unexplained={"BicubicDownsampling": {48: (-1.0, 0.5)}})
    (tmp_path / "pictures").mkdir()
    with torch.no_grad():
        [own] = G(G.sample_latent(1, seed=5))
    to_pillow(own).save(tmp_path / "pictures/own.png")
    to_pillow(0.5 * normal(*SHAPE)).save(tmp_path / "pictures/noise.png")
    out = tmp_path / "out"
    words = ["super-resolution", "--data.root", str(tmp_path / "pictures"), "--model.generator", str(prior)]
    quick = ["--model.joint.steps", "2", "--lpips", "none", "--trainer.accelerator"]
    assert main([*words, *quick, "cpu", "--out", str(out)]) == 0
    told = {name: read_json(out / f"images/{name}/metrics.json")["familiarity"] for name in ("own", "noise")}
    assert told["own"]["known"] is True and told["noise"]["known"] is False
    assert told["own"]["percentile"] > 50 > RARE * 100 > told["noise"]["percentile"]
    printed = " ".join(capsys.readouterr().out.split())
    assert "1 of 2 pictures are none that the prior can show" in printed and "(noise)" in printed
    assert main(["report", str(out)]) == 0
    page = (out / "report.html").read_text()
    assert "none that the prior can show: the prior alone leaves" in page and "of known pictures" in page


def test_where_weights_adapt_from_the_start_nothing_is_the_prior_s_own() -> None:
    A = Identity(SHAPE)
    module = DIP(settings=DIPSettings(steps=2))
    [image] = reconstruct(A(normal(1, *SHAPE)), A, module, accelerator="cpu").images
    assert image.familiarity is None and "familiarity" not in image.record()
