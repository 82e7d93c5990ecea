"""Views: several reconstructions of one y by transformed generators, and their mean."""

from __future__ import annotations

import json

import pytest
import torch
from iagan_lightning.callbacks import BackProjection, BestObjective, ViewMean
from torch import Tensor

from iagan_lightning import CSGM, IAGAN, Fit, FitSettings, Stage, adapt, reconstruct
from iagan_lightning.cli import main
from iagan_lightning.commands.rebuild import rebuild
from iagan_lightning.data.images import read_image, to_pillow
from iagan_lightning.generators import BEGAN, Generator, load_generator, save_generator
from iagan_lightning.methods import TestTimeModule
from iagan_lightning.methods.trainers import quiet_trainer
from iagan_lightning.methods.views import VIEWS, averaged, seen, turned, views_of
from iagan_lightning.operators import BicubicDownsampling, Blur, GaussianSensing, Identity, Inpainting
from iagan_lightning.results.files import read_json

SHAPE = (3, 16, 16)
SHORT = {"latent": Stage("adam", 6, lr=0.05, stop="never"), "joint": Stage("adam", 6, stop="never")}


@pytest.fixture
def G() -> Generator:
    torch.manual_seed(0)
    return BEGAN(16, 4, 8)


@pytest.fixture
def truth(G: Generator) -> Tensor:
    with torch.no_grad():
        return G(G.sample_latent(2, seed=5)) * 0.8


@pytest.mark.parametrize("name", VIEWS)
def test_a_view_is_linear_and_its_inverse_brings_the_middle_back(name: str) -> None:
    ramp = torch.linspace(-1, 1, 32)
    plane = ramp[:, None] * 0.5 + ramp.sin()[None]
    x = torch.stack([plane, -0.5 * plane])[:, None].expand(-1, 3, -1, -1)
    view = VIEWS[name]
    assert view.apply(x).shape == x.shape
    torch.testing.assert_close(view.apply(2 * x - 3 * x.flip(-2)), 2 * view.apply(x) - 3 * view.apply(x.flip(-2)))
    torch.testing.assert_close(view.undo(view.apply(x))[..., 8:24, 8:24], x[..., 8:24, 8:24], atol=5e-3, rtol=0)
    assert name == "identity" or not torch.allclose(view.apply(x), x)


def test_a_turn_goes_where_it_says() -> None:
    right = torch.zeros(1, 1, 33, 33)
    right[..., 16, 26] = 1  # at three o'clock
    assert turned(right, 90.0)[0, 0].argmax().item() == 26 * 33 + 16  # clockwise: at six
    wide = torch.zeros(1, 1, 17, 33)
    wide[..., 8, 22] = 1
    assert turned(wide, 90.0)[0, 0].argmax().item() == 14 * 33 + 16  # in pixels, whatever the picture's sides are
    torch.testing.assert_close(turned(torch.ones(1, 1, 8, 8), 8.0), torch.ones(1, 1, 8, 8))


def test_a_mirrored_view_is_the_problem_in_a_mirror(G: Generator, truth: Tensor) -> None:
    """Seen in a mirror, y is that of the mirrored mask, and the plain generator must come to the same picture."""
    mask = torch.rand(16, 16, generator=torch.Generator().manual_seed(1)) > 0.5
    A, mirrored = Inpainting(SHAPE, mask=mask), Inpainting(SHAPE, mask=mask.flip(-1))
    settings = {**SHORT, "init": "mean"}
    there = reconstruct(A(truth), A, IAGAN(G, **settings), views=["mirror"], accelerator="cpu")
    here = reconstruct(mirrored(truth.flip(-1)), mirrored, IAGAN(G, **settings), accelerator="cpu")
    for name in ("csgm", "iagan"):
        for end in ("", "_bp"):
            torch.testing.assert_close(there[f"{name}_mirror{end}"], here[name + end].flip(-1), atol=1e-4, rtol=0)
    plain = reconstruct(A(truth), A, IAGAN(G, **settings), accelerator="cpu")
    assert (plain.iagan_bp - there["iagan_mirror_bp"]).abs().max() > 0.01


@pytest.mark.parametrize("views", [2, 3])
def test_the_mean_is_that_of_exact_views_and_exact(G: Generator, truth: Tensor, views: int) -> None:
    A = BicubicDownsampling(SHAPE, scale=4)
    result = reconstruct(A(truth), A, G, views=views, accelerator="cpu", **SHORT)
    singles = [name for name in result.results if name.startswith("iagan_") and name.endswith("_bp")]
    assert len(singles) == views
    assert [name for name in result.results if name.startswith("csgm")] == ["csgm", "csgm_bp"]
    mean = averaged(torch.stack([result[name] for name in singles]), views_of(views))
    torch.testing.assert_close(result.iagan_mean, A.back_project(mean, A(truth)), atol=1e-5, rtol=0)
    assert ((A(result.iagan_mean) - A(truth)).norm() / A(truth).norm()) < 1e-6
    assert result.iagan_mean is not None and not torch.allclose(result.iagan_mean, result.iagan_bp)


def test_the_mean_agrees_as_far_as_rounding_allows() -> None:
    """Each measurement is a sum over all pixels, whose rounding in float32 is another for the mean."""
    torch.manual_seed(0)
    A = GaussianSensing((3, 64, 64), ratio=0.122)
    y = A(torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(1)) * 2 - 1)
    result = reconstruct(y, A, BEGAN(64, 2, 4), views=2, accelerator="cpu", **SHORT)
    for image in (result.iagan_bp, result["iagan_mirror_bp"], result.iagan_mean):
        assert (A(image) - y).norm() < 1e-6 * y.norm()


def test_details_are_those_of_upright_views() -> None:
    """A fine pattern of the first two views stays as it is among four; what is coarse is the mean of all."""
    checks = 0.2 * (-1.0) ** (torch.arange(64)[:, None] + torch.arange(64)).expand(1, 3, -1, -1)
    coarse = torch.arange(4.0)[:, None, None, None, None].expand(-1, 1, 3, 64, 64)
    pictures = coarse + torch.stack([checks, checks, 0 * checks, 0 * checks])
    mean = averaged(pictures, views_of(4))
    torch.testing.assert_close(mean, 1.5 + checks, atol=2e-3, rtol=0)
    torch.testing.assert_close(averaged(pictures[2:], views_of(4)[2:]), pictures[2:].mean(0))  # no view is upright
    torch.testing.assert_close(averaged(pictures[:2], views_of(2)), pictures[:2].mean(0))  # all are


@pytest.mark.parametrize("views", [2, 4])
def test_from_512_pixels_on_the_finest_details_are_the_first_views(views: int) -> None:
    checks = 0.2 * (-1.0) ** (torch.arange(1024)[:, None] + torch.arange(1024)).expand(1, 3, -1, -1)
    coarse = torch.arange(float(views))[:, None, None, None, None].expand(-1, 1, 3, 1024, 1024)
    pictures = coarse + torch.stack([checks, *[-checks] * (views - 1)])
    mean = averaged(pictures, views_of(views))
    torch.testing.assert_close(mean, (views - 1) / 2 + checks, atol=2e-3, rtol=0)
    small = pictures[..., :256, :256]  # nothing is so fine
    assert averaged(small[:2], views_of(2)).equal(small[:2].mean(0))


def test_samples_are_different_pictures_that_agree_with_y(G: Generator, truth: Tensor) -> None:
    A = BicubicDownsampling(SHAPE, scale=4)
    y = A(truth)
    result = reconstruct(y, A, G, views=8, accelerator="cpu", **SHORT)
    samples = result.samples
    assert samples.shape == (8, 2, *SHAPE) and torch.equal(samples[0], result.iagan_bp)
    assert ((A(samples.flatten(0, 1)) - y.repeat(8, 1, 1, 1)).norm() / y.norm()) < 1e-5
    apart = torch.cdist(samples.flatten(1), samples.flatten(1)) + torch.eye(8) * 1e3
    assert apart.min() > 0.05
    assert torch.equal(result[1].samples, samples[:, 1:])
    single = reconstruct(A.measure(truth, noise_std=0.1), A, G, 0.1, accelerator="cpu", **SHORT)
    assert torch.equal(single.samples, single.iagan[None])


def test_with_noise_the_views_themselves_are_averaged(G: Generator, truth: Tensor) -> None:
    A = Identity(SHAPE)
    y = A.measure(truth, noise_std=0.1, seed=0)
    result = reconstruct(y, A, G, 0.1, views=2, accelerator="cpu", **SHORT)
    assert list(result.results) == ["csgm", "iagan", "iagan_mirror", "iagan_mean"]
    torch.testing.assert_close(result.iagan_mean, (result.iagan + result["iagan_mirror"]) / 2)


def test_the_first_view_and_each_image_are_what_they_are_alone(G: Generator, truth: Tensor) -> None:
    A = BicubicDownsampling(SHAPE, scale=2)
    both = reconstruct(A(truth), A, G, views=2, accelerator="cpu", **SHORT)
    alone = reconstruct(A(truth), A, G, accelerator="cpu", **SHORT)
    assert torch.equal(both.iagan_bp, alone.iagan_bp)
    second = reconstruct(A(truth[1:]), A, G, seed=1, views=2, accelerator="cpu", **SHORT)
    torch.testing.assert_close(both.iagan_mean[1:], second.iagan_mean, atol=1e-4, rtol=0)
    assert set(both.evaluations) == {"latent", "joint", "latent-mirror", "joint-mirror"}


def test_an_image_whose_back_projections_are_of_no_use_is_averaged_without(G: Generator, truth: Tensor) -> None:
    """Image by image: a neighbour whose y cannot be inverted changes nothing for the others."""
    module = IAGAN(G, **SHORT)
    A = Blur(SHAPE)
    module.begin(A(truth), A, views=2)
    adapt(module, quiet_trainer(accelerator="cpu"))
    for name in module.outcomes:
        module.results[f"{name}_bp"] = module.results[name].clone()
        module.results[f"{name}_bp"][0] += 5
        module.results[f"{name}_bp"][1] += 0.01
    plain = torch.stack([module.results[name] for name in module.outcomes]).mean(0)
    ViewMean().on_train_end(quiet_trainer(accelerator="cpu"), module)
    torch.testing.assert_close(module.results["iagan_mean"][0], plain[0])
    torch.testing.assert_close(module.results["iagan_mean"][1], plain[1] + 0.01)


def test_without_its_callback_there_is_no_mean(G: Generator, truth: Tensor) -> None:
    A = Identity(SHAPE)
    module = IAGAN(G, **SHORT)
    module.begin(A(truth), A, views=2)
    adapt(module, quiet_trainer(accelerator="cpu"))
    assert list(module.results) == ["csgm", "iagan", "csgm_mirror", "iagan_mirror"] and module.final == "iagan"


def test_a_checkpoint_knows_its_views_and_how_sure_it_is(G: Generator, truth: Tensor, tmp_path) -> None:
    A, module = BicubicDownsampling(SHAPE, scale=4), IAGAN(G, **SHORT)
    module.begin(A(truth), A, views=2)
    trainer = quiet_trainer(accelerator="cpu", callbacks=[BackProjection(), ViewMean()])
    adapt(module, trainer)
    trainer.save_checkpoint(tmp_path / "all.ckpt")
    loaded = IAGAN.load_from_checkpoint(tmp_path / "all.ckpt", weights_only=True)
    assert loaded.views == module.views and loaded.final == "iagan_mean" and loaded.outcomes == module.outcomes
    assert torch.equal(loaded.uncertainty, module.uncertainty)


def test_the_mean_has_the_precision_of_its_views(G: Generator, truth: Tensor) -> None:
    A = BicubicDownsampling(SHAPE, scale=4)
    result = reconstruct(A(truth.double()), A, G, views=2, accelerator="cpu", precision="64-true", **SHORT)
    assert result.iagan_mean.dtype == result.iagan_bp.dtype == torch.float64
    assert (A(result.iagan_mean) - A(truth.double())).norm() < 1e-12 * A(truth.double()).norm()


def test_a_plan_in_several_views() -> None:
    fits = [Fit("search", result="found"), Fit("finish", init="search", result="done")]
    plan = seen(fits, views_of(3))
    assert plan[:2] == fits and len({fit.name for fit in plan}) == 6
    assert all(fit.init == "draw" or plan[i - 1].name == fit.init for i, fit in enumerate(plan))


class OfMyOwn(TestTimeModule):
    """Makes its pictures itself."""

    def configure_fits(self) -> list[Fit]:
        return [Fit("search", FitSettings(steps=2), result="found")]

    def forward(self, rows: Tensor | None = None) -> Tensor:
        return self.generator(self.latents(rows))


class InAMirror(TestTimeModule):
    """Has a view of its own."""

    def configure_fits(self) -> list[Fit]:
        return [Fit("search", FitSettings(steps=2), result="found", view="mirror")]


def test_what_has_no_views_is_refused(G: Generator, truth: Tensor) -> None:
    A = Identity(SHAPE)
    with pytest.raises(ValueError, match="views is a number from 1 to"):
        reconstruct(A(truth), A, G, views=0)
    with pytest.raises(
        ValueError, match=r"views are a whole number or different ones of identity, mirror.*'upside-down'"
    ):
        reconstruct(A(truth), A, G, views=["identity", "upside-down"])
    with pytest.raises(ValueError, match="different ones"):
        reconstruct(A(truth), A, G, views=["mirror", "mirror"])
    for own in (OfMyOwn(G), "dip"):
        method = {"method": own} if own == "dip" else {}
        with pytest.raises(ValueError, match="makes its pictures itself"):
            reconstruct(A(truth), A, None if method else own, views=2, **method)
    with pytest.raises(ValueError, match="views of their own"):
        reconstruct(A(truth), A, InAMirror(G), views=2)
    mirrored = reconstruct(A(truth), A, InAMirror(G), accelerator="cpu")
    torch.testing.assert_close(mirrored["found"].shape, truth.shape)


def test_best_has_the_views_that_pay(G: Generator) -> None:
    A = Identity(SHAPE)
    for preset, views in (("fast", 1), ("paper", 1), ("best", len(views_of(2)))):
        for kind in (IAGAN, CSGM):
            method = kind(G, preset=preset)
            method.plan(0.0, A)
            assert len(method.views) == views


@pytest.fixture
def face(tmp_path, truth: Tensor):
    folder = tmp_path / "faces"
    folder.mkdir()
    to_pillow(truth[0]).save(folder / "a.png")
    return folder


def run(weights, face, out, *more: str) -> int:
    words = ["super-resolution", "--data.root", str(face), "--model.generator", str(weights), "--out", str(out)]
    quick = ["--model.latent.steps", "4", "--model.joint.steps", "4", "--lpips", "none"]
    return main([*words, *quick, "--trainer.accelerator", "cpu", *more])


@pytest.fixture
def weights(tmp_path, G: Generator):
    save_generator(G, tmp_path / "prior.safetensors")
    return tmp_path / "prior.safetensors"


def test_a_run_with_views(tmp_path, weights, face, capsys) -> None:
    out = tmp_path / "out"
    assert run(weights, face, out, "--views", "2", "--save", "weights") == 0
    record = read_json(out / "images/a/metrics.json")
    assert record["offered"] == record["result"] == "iagan_mean"
    assert {"iagan_bp", "iagan_mirror_bp", "iagan_mean"} < record["methods"].keys()
    assert record["methods"]["iagan_mean"]["residual"] < 1e-6
    assert set(record["seconds"]) == {"latent", "joint", "latent-mirror", "joint-mirror", "total"}
    assert "IAGAN, 2 views" in capsys.readouterr().out
    assert read_image(out / "images/a/iagan_mean.png").shape == SHAPE
    # The images of the two fits, made again and averaged.
    made = rebuild(out / "images/a/weights.safetensors", load_generator(str(weights)))
    A = BicubicDownsampling(SHAPE, scale=4)
    y = torch.load(out / "images/a/measurement.pt", weights_only=True)[None]
    exact = A.back_project(made, y)
    shown = read_image(out / "images/a/iagan_mean.png")[None]
    assert (exact.clamp(-1, 1) - shown).abs().max() < 2 / 127.5
    # Other views are other results; as many as the preset has are the same whether said or not.
    assert run(weights, face, out) == 2
    assert "other settings" in capsys.readouterr().err
    assert run(weights, face, tmp_path / "one") == 0
    assert run(weights, face, tmp_path / "one", "--views", "1") == 0
    assert run(weights, face, out, "--views", "0") == 2
    assert "views is a number from 1 to" in capsys.readouterr().err
    summary = json.loads((out / "summary.json").read_text())
    assert summary["titles"]["iagan_mean"] == "IAGAN, 2 views"


def test_samples_are_views_at_the_command_line(tmp_path, capsys) -> None:
    torch.manual_seed(0)
    save_generator(BEGAN(16, 4, 8), tmp_path / "own.safetensors")
    (tmp_path / "pictures").mkdir()
    to_pillow(0.5 * torch.randn(SHAPE, generator=torch.Generator().manual_seed(0))).save(tmp_path / "pictures/a.png")
    words = ["super-resolution", "--data.root", str(tmp_path / "pictures"), "--lpips", "none", "--trainer.accelerator"]
    words += ["cpu", "--model.generator", str(tmp_path / "own.safetensors"), "--model.latent.steps", "3"]
    words += ["--model.joint.steps", "3", "--out", str(tmp_path / "out")]
    assert main([*words, "--samples", "3"]) == 0
    names = {path.stem for path in (tmp_path / "out/images/a").glob("iagan*.png")}
    assert names == {"iagan", "iagan_bp", "iagan_mirror_bp", "iagan_turn_bp", "iagan_mean"}
    assert main([*words, "--samples", "9"]) == 2
    assert "views is a number from 1 to 8; 9 was given" in capsys.readouterr().err


@pytest.mark.parametrize("order", [[0, 1, 2], [2, 1, 0], [1, 0, 2]])
def test_the_mean_is_exact_in_whatever_order_callbacks_are_given(order):
    A = BicubicDownsampling(SHAPE, scale=4)
    y = A(torch.rand(1, *SHAPE, generator=torch.Generator().manual_seed(0)) * 2 - 1)
    module = IAGAN(BEGAN(16, 4, 8), latent=Stage(steps=3), joint=Stage(steps=3))
    module.begin(y, A, views=2)
    callbacks = [ViewMean(), BackProjection(), BestObjective()]
    adapt(module, quiet_trainer(accelerator="cpu", callbacks=[callbacks[n] for n in order]))
    assert torch.allclose(A(module.results["iagan_mean"]), y, atol=1e-5)
    assert {"iagan_bp", "iagan_mirror_bp"} <= module.results.keys()


@pytest.mark.parametrize("views", [["mirror", "identity"], ["mirror", "turn"]])
def test_the_mean_is_named_after_the_method_whatever_view_comes_first(views):
    A = Identity(SHAPE)
    y = A(torch.rand(1, *SHAPE, generator=torch.Generator().manual_seed(0)) * 2 - 1)
    short = {"latent": Stage(steps=3), "joint": Stage(steps=3)}
    result = reconstruct(y, A, BEGAN(16, 4, 8), 0.1, views=views, accelerator="cpu", **short)
    assert torch.equal(result.iagan_mean, averaged(result.samples, views))
    assert result.images[0].final == "iagan_mean"
    assert result.titles["iagan_mean"] == "IAGAN, 2 views" and result.titles["iagan_mirror"] == "IAGAN, mirrored"
    first = "" if "identity" in views else "_mirror"
    assert {name for name in result.results if name.startswith("csgm")} == {f"csgm{first}"}
