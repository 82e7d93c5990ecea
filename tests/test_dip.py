"""Deep Image Prior: the official network, its settings, stopping, independence of images, and real runs."""

import csv
import json

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
import torch.nn.functional as F
import yaml
from iagan_lightning.callbacks import DIPBaseline, StageStopping
from PIL import Image

from iagan_lightning import DIP, DIPSettings, Stage, adapt, reconstruct
from iagan_lightning.cli import TASKS, main
from iagan_lightning.methods.dip import official, official_steps, resolve_dip
from iagan_lightning.methods.skip_network import SkipNetwork, levels_for
from iagan_lightning.methods.trainers import quiet_lightning, quiet_trainer
from iagan_lightning.operators import (
    BicubicDownsampling,
    Blur,
    FourierSensing,
    GaussianSensing,
    Identity,
    Inpainting,
)
from iagan_lightning.optim import MovingVariance, noise_power

SHAPE = (3, 16, 16)


def fit(module, *callbacks):
    with quiet_lightning():
        return adapt(module, quiet_trainer(accelerator="cpu", callbacks=[StageStopping(), *callbacks]))


def fitted(y, A, settings, noise_std=0.0, seeds=0, preset="fast", callbacks=()):
    module = DIP(preset, settings)
    module.begin(y, A, noise_std, seeds)
    return fit(module, *callbacks)


# The network ------------------------------------------------------------------------------------------------------


def count(network):
    return sum(p.numel() for p in network.parameters())


def test_official_numbers_of_parameters():
    assert count(SkipNetwork()) == 2_217_831
    assert count(SkipNetwork(skip=128, upsampling="nearest")) == 3_002_627


@pytest.mark.parametrize(
    ("A", "parameters"),
    [
        (BicubicDownsampling((3, 64, 64), scale=4), 2_217_831),
        (Identity((3, 64, 64)), 2_217_831),
        (Inpainting((3, 64, 64), ratio=0.5), 3_002_627),
    ],
)
def test_each_task_builds_its_official_network(A, parameters):
    module = DIP("paper", DIPSettings(stop="never"))
    module.begin(A(torch.zeros(1, 3, 64, 64)), A, 0.0)
    assert count(module.network) == parameters
    assert sum(w[0].numel() for w in module.weights) == parameters


def reference(state, x, levels, mode):
    """The network again, spelled out from its definition: convolution, normalisation, LeakyReLU, level by level."""

    def normalise(x, name):
        mean, variance = x.mean((0, 2, 3), keepdim=True), x.var((0, 2, 3), correction=0, keepdim=True)
        scale, shift = (state[f"{name}.{which}"][:, None, None] for which in ("weight", "bias"))
        return (x - mean) / (variance + 1e-5).sqrt() * scale + shift

    def unit(x, name, size, stride=1):
        x = F.pad(x, [size // 2] * 4, mode="reflect") if size > 1 else x
        x = F.conv2d(x, state[f"{name}.0.weight"], state[f"{name}.0.bias"], stride)
        x = normalise(x, f"{name}.1")
        return torch.where(x > 0, x, 0.2 * x)

    def level(x, name, left):
        skip = unit(x, f"{name}.skip", 1)
        x = unit(unit(x, f"{name}.down.0", 3, 2), f"{name}.down.1", 3)
        x = level(x, f"{name}.deeper", left - 1) if left > 1 else x
        x = F.interpolate(x, scale_factor=2, mode=mode)
        x = torch.cat([skip, x[:, :, : skip.shape[2], : skip.shape[3]]], 1)
        return unit(unit(normalise(x, f"{name}.merge.0"), f"{name}.merge.1", 3), f"{name}.merge.2", 1)

    x = F.conv2d(level(x, "body", levels), state["image.weight"], state["image.bias"])
    return 1 / (1 + (-x).exp())


@pytest.mark.parametrize(("size", "levels"), [((64, 64), 5), ((37, 50), 5), ((17, 33), 4)])
@pytest.mark.parametrize(("skip", "mode"), [(4, "bilinear"), (8, "nearest")])
def test_network_is_the_definition(size, levels, skip, mode):
    assert levels_for(*size) == levels
    network = SkipNetwork(4, 3, width=8, skip=skip, levels=levels, upsampling=mode).double()
    for p in network.parameters():  # scales of 1 and shifts of 0 would hide mistakes
        torch.nn.init.normal_(p)
    x = torch.rand(1, 4, *size, dtype=torch.float64)
    expected = reference(network.state_dict(), x, levels, mode)
    assert expected.shape == (1, 3, *size)
    assert torch.allclose(network(x), expected, atol=1e-8)


@pytest.mark.parametrize("size", [(3, 3), (5, 4), (16, 16), (32, 32), (33, 33), (40, 100)])
def test_every_size_has_a_network_that_learns(size):
    A = Identity((1, *size))
    module = fitted(A(torch.full((1, 1, *size), 0.5)), A, DIPSettings(steps=4, average=0.0))
    assert module.results["dip"].shape == (1, 1, *size)
    assert module.objective["dip"].isfinite().all()


def test_too_small_pictures_are_refused():
    A = Identity((1, 2, 8))
    with pytest.raises(ValueError, match="3 x 3"):
        DIP().begin(torch.zeros(1, 1, 2, 8), A)


# Settings ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("A", "noise_std", "steps", "jitter", "average"),
    [
        (BicubicDownsampling((3, 64, 64), scale=4), 0.0, 2000, 0.03, 0.0),
        (BicubicDownsampling((3, 64, 64), scale=8), 0.0, 4000, 0.05, 0.0),
        (BicubicDownsampling((3, 64, 64), scale=16), 0.0, 4000, 0.05, 0.0),
        (BicubicDownsampling((3, 64, 64), scale=4), 10 / 255, 500, 0.03, 0.0),
        (BicubicDownsampling((3, 64, 64), scale=8), 10 / 255, 1000, 0.05, 0.0),
        (Identity((3, 64, 64)), 10 / 255, 3000, 1 / 30, 0.99),
        (Inpainting((3, 64, 64), ratio=0.5), 0.0, 6001, 0.03, 0.0),
        (FourierSensing((3, 64, 64), ratio=0.5), 10 / 255, 500, 0.03, 0.0),
        (Blur((3, 64, 64), size=9), 10 / 255, 500, 0.03, 0.0),
    ],
)
def test_official_schedules(A, noise_std, steps, jitter, average):
    settings = resolve_dip(DIPSettings(), "paper", noise_std, A)
    assert (settings.steps, settings.jitter, settings.average, settings.lr) == (steps, jitter, average, 0.01)
    assert settings.stop == "never"
    short = resolve_dip(DIPSettings(), "fast", noise_std, A)
    assert short.steps < steps == official_steps(A, noise_std)
    assert short.stop == ("noise" if noise_std else "never")


def test_settings_that_are_given_win():
    settings = resolve_dip(DIPSettings(steps=7, jitter=0.0), "paper", 0.0, None)
    assert (settings.steps, settings.jitter, settings.lr) == (7, 0.0, 0.01)
    assert official(GaussianSensing(SHAPE, ratio=0.5)) == "super-resolution x4"
    assert resolve_dip(DIPSettings(), "fast", None).stop == "variance"


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"steps": 0}, "steps"), ({"average": 1.0}, "average"), ({"window": 1}, "window"), ({"lr": -1.0}, "lr")],
)
def test_impossible_settings_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        DIPSettings(**settings)


def test_stopping_at_a_noise_level_needs_one():
    with pytest.raises(ValueError, match="noise_std above 0"):
        resolve_dip(DIPSettings(stop="noise"), "paper", 0.0)


@pytest.mark.parametrize(("preset", "steps", "title"), [("fast", None, "DIP (short)"), ("paper", None, "DIP"),
                                                        ("paper", 10, "DIP (short)")])  # fmt: skip
def test_short_schedules_say_so(preset, steps, title):
    A = BicubicDownsampling(SHAPE, scale=4)
    module = DIP(preset, DIPSettings(steps=steps))
    module.begin(torch.zeros(1, 3, 4, 4), A)
    assert module.titles["dip"] == title


# The fit ----------------------------------------------------------------------------------------------------------


def test_fit_explains_measurements():
    torch.manual_seed(0)
    A = BicubicDownsampling(SHAPE, scale=4)
    y = A(torch.rand(2, *SHAPE) * 2 - 1)
    first, last = (fitted(y, A, DIPSettings(steps=n)).objective["dip"] for n in (1, 40))
    assert (last < 0.2 * first).all()


def test_one_training_step_is_one_evaluation():
    calls = []

    class Counting(pl.Callback):
        def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
            calls.append(float(outputs["loss"]))

    A = BicubicDownsampling(SHAPE, scale=4)
    module = fitted(A(torch.zeros(2, *SHAPE)), A, DIPSettings(steps=5), callbacks=[Counting()])
    assert len(calls) == 5
    assert module.evaluations["dip"].tolist() == [5, 5]


def test_images_side_by_side_are_images_one_at_a_time():
    torch.manual_seed(0)
    A = Inpainting((3, 20, 28), ratio=0.6)
    y = A(torch.rand(3, 3, 20, 28, dtype=torch.float64) * 2 - 1)
    settings = DIPSettings(steps=3, average=0.5)
    together = fitted(y, A, settings, seeds=[5, 6, 7]).results["dip"]
    for i in (2, 0, 1):  # nor does the order matter
        alone = fitted(y[i : i + 1], A, settings, seeds=[5 + i]).results["dip"]
        assert torch.allclose(alone[0], together[i], atol=1e-5)
    assert not torch.allclose(together[0], together[1], atol=0.01)


def test_one_evaluation_in_single_precision_agrees_too():
    A = Identity((3, 33, 40))
    y = torch.zeros(2, 3, 33, 40)

    def image(seeds):
        module = DIP(settings=DIPSettings(steps=1))
        module.begin(y[: len(seeds)], A, 0.0, seeds)
        return module().detach()

    assert torch.allclose(image([1, 2]), torch.cat([image([1]), image([2])]), atol=1e-4)


def test_a_seed_means_the_same_in_any_precision():
    A = Identity(SHAPE)
    y = torch.rand(1, *SHAPE, generator=torch.Generator().manual_seed(0)) * 2 - 1
    single, double = (
        reconstruct(y.to(dtype), A, DIP(settings=DIPSettings(steps=2)), accelerator="cpu", precision=precision)["dip"]
        for dtype, precision in ((torch.float32, "32-true"), (torch.float64, "64-true"))
    )
    assert (single.dtype, double.dtype) == (torch.float32, torch.float64)
    torch.testing.assert_close(single.double(), double, atol=1e-3, rtol=0)


def test_a_fit_leaves_the_global_random_numbers_alone():
    A = Identity(SHAPE)
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    fitted(torch.zeros(1, *SHAPE), A, DIPSettings(steps=2))
    assert torch.equal(torch.rand(2), expected)


class Outputs(pl.Callback):
    """Keep every evaluation's images, as the module sees them."""

    def __init__(self):
        self.images, self.objectives = [], []

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
        self.images.append(module._images.clone())
        self.objectives.append(module.misfit(module._images))


def test_average_is_the_running_mean():
    A = Identity(SHAPE)
    outputs = Outputs()
    module = fitted(torch.zeros(1, *SHAPE), A, DIPSettings(steps=6, average=0.9), callbacks=[outputs])
    mean = outputs.images[0]
    for image in outputs.images[1:]:
        mean = 0.9 * mean + 0.1 * image
    assert torch.allclose(module.results["dip"], mean, atol=1e-6)


def test_noise_level_ends_each_image_on_its_own():
    torch.manual_seed(0)
    A = BicubicDownsampling(SHAPE, scale=4)
    y = torch.cat([torch.rand(1, 3, 4, 4) * 2 - 1, torch.full((1, 3, 4, 4), 0.9)])
    outputs = Outputs()
    settings = DIPSettings(steps=200, stop="noise")
    module = fitted(y, A, settings, noise_std=0.1, callbacks=[outputs])
    level = noise_power(0.1)
    first, second = module.evaluations["dip"].tolist()
    assert second < first < 200
    assert (module.objective["dip"] <= level).all()
    for image, n in ((0, first), (1, second)):
        assert all(o[image] > level for o in outputs.objectives[: n - 1])
        assert torch.equal(module.results["dip"][image], outputs.images[n - 1][image])


# The moving variance ----------------------------------------------------------------------------------------------


def numpy_variances(outputs, window):
    """Wang et al., Eq. (3), divided by the number of pixels: for each end of a full window, one value per image."""
    stack = np.stack([x.double().numpy() for x in outputs])
    values = []
    for end in range(window, len(stack) + 1):
        part = stack[end - window : end]
        deviation = part - part.mean(0, keepdims=True)
        values.append((deviation**2).mean(0).reshape(deviation.shape[1], -1).mean(1))
    return values


def test_moving_variance_is_that_of_numpy():
    torch.manual_seed(0)
    # a mean far above the spread, as in images that have almost converged
    outputs = [0.7 + 1e-4 * torch.randn(2, 3, 5, 4) * (1 + i % 7) for i in range(60)]
    variance = MovingVariance(8)
    ours = [variance.push(x) for x in outputs]
    assert all(value is None for value in ours[:7])
    for value, expected in zip(ours[7:], numpy_variances(outputs, 8), strict=True):
        assert value.numpy() == pytest.approx(expected, rel=1e-6)


def test_stop_at_the_lowest_variance():
    torch.manual_seed(0)
    A = BicubicDownsampling(SHAPE, scale=4)
    y = A.measure(torch.rand(2, *SHAPE) * 2 - 1, 0.1, seed=0)
    outputs = Outputs()
    window, patience = 5, 6
    settings = DIPSettings(steps=150, stop="variance", window=window, patience=patience)
    module = fitted(y, A, settings, noise_std=None, callbacks=[outputs])
    values = np.stack(numpy_variances(outputs.images, window))
    for image in range(2):
        lowest, n = 0, 0
        for n in range(len(values)):  # the rule once more, over the recorded outputs
            lowest = n if values[n, image] < values[lowest, image] else lowest
            if n - lowest >= patience:
                break
        assert module.evaluations["dip"][image] == n + window < 150
        assert torch.equal(module.results["dip"][image], outputs.images[lowest + window - 1][image])


# Runs -------------------------------------------------------------------------------------------------------------


def test_callback_adds_dip_to_a_reconstruction(tiny):
    A = BicubicDownsampling(SHAPE, scale=4)
    y = A(torch.zeros(2, *SHAPE))
    stages = {"latent": Stage(steps=3), "joint": Stage(steps=2)}
    plain = reconstruct(y, A, tiny, **stages, seed=4, accelerator="cpu")
    both = reconstruct(y, A, tiny, **stages, seed=4, accelerator="cpu", callbacks=[DIPBaseline(DIPSettings(steps=3))])
    assert plain.dip is None
    assert torch.equal(plain.iagan_bp, both.iagan_bp), "DIP changes nothing else"
    assert both.evaluations["dip"].tolist() == [3, 3]
    assert torch.equal(both.misfit["dip"], both.objective["dip"]), "it has no penalty"
    alone = fitted(y, A, DIPSettings(steps=3), seeds=4).results["dip"]
    assert torch.equal(both.dip, alone)


def test_a_failure_of_dip_leaves_the_other_results(tiny):
    A = BicubicDownsampling(SHAPE, scale=4)
    y = A(torch.zeros(1, *SHAPE))
    broken = DIPBaseline(DIPSettings(steps=3, lr=1e30))
    with pytest.warns(UserWarning, match="no dip: .*not a number"):
        result = reconstruct(
            y, A, tiny, latent=Stage(steps=2), joint=Stage(steps=2), accelerator="cpu", callbacks=[broken]
        )
    assert result.dip is None
    assert result.iagan_bp.isfinite().all()


@pytest.fixture
def run(tiny_weights, tmp_path, folder):
    def run(task, *arguments, out="out"):
        common = [task, "--data.root", folder, "--model.generator", tiny_weights, "--out", tmp_path / out]
        steps = ["--model.latent.steps", 3, "--model.joint.steps", 2, "--trainer.accelerator", "cpu", "--lpips", "none"]
        return main([str(word) for word in [*common, *steps, *arguments]])

    return run


@pytest.mark.parametrize("task", TASKS)
def test_every_task_takes_dip(run, tmp_path, task, capsys):
    noise = ["--noise_std", "10/255"] if task == "denoising" else []
    assert run(task, "--dip", "true", "--dip_settings.steps", 3, *noise) == 0
    assert "DIP (short)" in capsys.readouterr().out
    for name in ("0", "1"):
        folder = tmp_path / "out" / "images" / name
        content = json.loads((folder / "metrics.json").read_text())
        assert list(content["methods"])[-1] == "dip"
        assert set(content["methods"]["dip"]) == set(content["methods"]["iagan"])
        assert content["evaluations"]["dip"] == 3
        assert content["seconds"]["dip"] > 0
        assert content["titles"] == {"dip": "DIP (short)"}
        with Image.open(folder / "dip.png") as picture:
            assert picture.size == (16, 16)
        with Image.open(folder / "comparison.png") as sheet:
            shown = len(content["methods"]) + 1 + (task != "compressed-sensing")
            assert sheet.width == shown * 200 + 8
    rows = list(csv.DictReader((tmp_path / "out" / "summary.csv").read_text().splitlines()))
    assert {row["title"] for row in rows if row["method"] == "dip"} == {"DIP (short)"}


def test_dip_is_a_setting_that_determines_results(run, tmp_path, capsys):
    assert run("super-resolution") == 0
    content = json.loads((tmp_path / "out" / "images" / "0" / "metrics.json").read_text())
    assert "dip" not in content["methods"]
    assert not (tmp_path / "out" / "images" / "0" / "dip.png").exists()
    assert run("super-resolution", "--dip", "true") == 2
    assert "dip.steps was None, now 250" in capsys.readouterr().err
    assert run("super-resolution", "--dip", "true", "--dip_settings.stop", "noise", out="other") == 2
    assert "noise_std above 0" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "content", "message"),
    [
        (
            ["--dip_settings.steps", 3],
            "",
            "--dip_settings.steps is of Deep Image Prior beside the method: add --dip true",
        ),
        ([], "dip: false\ndip_settings: {steps: 3, lr: 0.1}", "--dip_settings.steps and --dip_settings.lr is of"),
        (
            ["--model", "dip", "--data.size", 16, "--dip_settings.steps", 3],
            "",
            "--model dip has --model.settings.steps",
        ),
    ],
)
def test_settings_of_dip_without_dip_are_refused(run, tmp_path, capsys, options, content, message):
    if content:
        (tmp_path / "own.yaml").write_text(content)
        options = [*options, "--config", tmp_path / "own.yaml"]
    common = ["super-resolution", "--data.limit", 1, "--out", tmp_path / "out", *options]
    assert main([str(word) for word in common]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_settings_of_dip_at_their_defaults_and_declined_ones_pass(run, tmp_path):
    """The config.yaml of a run repeats it, whether it was made with settings of a DIP that was declined or none."""
    assert run("super-resolution", "--dip", "false", "--dip_settings.steps", 3) == 0
    assert run("super-resolution", "--config", tmp_path / "out" / "config.yaml") == 0
    config = yaml.safe_load((tmp_path / "out" / "config.yaml").read_text())
    assert config["dip"] is False and set(config["dip_settings"].values()) == {None}


def test_batches_run_with_their_own_seeds(run, tmp_path):
    steps = ["--dip", "true", "--dip_settings.steps", 3]
    assert run("super-resolution", *steps, "--data.images_per_fit", 2) == 0
    folders = [tmp_path / "out" / "images" / name for name in ("0", "1")]
    assert [json.loads((f / "metrics.json").read_text())["evaluations"]["dip"] for f in folders] == [3, 3]
    first, second = (np.asarray(Image.open(f / "dip.png")).astype(int) for f in folders)
    assert abs(first - second).max() > 20
