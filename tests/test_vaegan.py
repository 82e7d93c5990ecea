"""VAE-GAN training: exact resume, the stored prior's latents, growth, and that it learns."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from iagan_lightning.cli import main
from iagan_lightning.generators import load_generator
from iagan_lightning.training import VAEGANTraining

ROOT = Path(__file__).parent.parent


@pytest.fixture
def folder(tmp_path):
    """Six smooth pictures of 64 x 64."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    for i in range(6):
        small = np.random.default_rng(i).integers(0, 256, (4, 4, 3), dtype=np.uint8)
        Image.fromarray(small).resize((64, 64), Image.Resampling.BICUBIC).save(folder / f"{i}.png")
    return folder


pytestmark = pytest.mark.usefixtures("squeezenet")


def arguments_of(folder, out, steps, *more, resolution=32):
    return ["train-prior", "--model", "VAEGANTraining", "--model.resolution", str(resolution), "--model.channels", "4",
            "--model.latent", "8", "--data.batch_size", "3", "--data.root", str(folder), "--out", str(out),
            "--steps", str(steps), "--trainer.accelerator", "cpu", *more]  # fmt: skip


def train(*arguments, **settings):
    return main(arguments_of(*arguments, **settings))


def state(out):
    return torch.load(out / "last.ckpt", weights_only=True)


def test_resuming_repeats_an_uninterrupted_run(folder, tmp_path):
    settings = ["--model.cooldown", "1"]  # the learning rate depends on --steps only in the cooldown
    train(folder, tmp_path / "whole", 6, *settings)
    train(folder, tmp_path / "parts", 3, *settings)
    train(folder, tmp_path / "parts", 6, *settings)
    whole, parts = state(tmp_path / "whole"), state(tmp_path / "parts")
    assert whole["global_step"] == parts["global_step"] == 6
    assert all(torch.equal(value, parts["state_dict"][key]) for key, value in whole["state_dict"].items())


def test_the_stored_prior_has_normal_latents():
    """Codes drawn from the followed mean and covariance, and normal latents of the stored prior: the same images."""
    torch.manual_seed(0)
    module = VAEGANTraining(32, 4, 8, average=0.0)
    codes = torch.randn(50, 8) @ torch.randn(8, 8) + torch.randn(8)
    for _ in range(3):
        module._follow(codes)  # at step 0 the batch's moments are taken over
    prior = module.prior()
    z = torch.randn(50_000, 8)
    drawn = torch.linalg.lstsq(module.averaged.l0.weight, (prior.l0(z) - module.averaged.l0.bias).T).solution.T
    assert torch.allclose(drawn.mean(0), codes.mean(0), atol=0.1)
    assert torch.allclose(torch.cov(drawn.T), torch.cov(codes.T, correction=0), atol=0.3)
    assert prior.latent_distribution == "normal"
    assert torch.equal(module.averaged.l0.weight, module.generator.l0.weight)  # the training itself is untouched


def test_a_pyramid_is_trained_and_stored(folder, tmp_path):
    """Drawn codes in the training and latents of the stored prior make the same pictures, wherever z enters."""
    settings = [
        "--model.architecture",
        "pyramid",
        "--model.augment",
        "true",
        "--model.encoded",
        "16",
        "--model.clip",
        "1",
    ]
    assert train(folder, tmp_path / "out", 3, *settings, "--model.average", "0") == 0
    module = VAEGANTraining(32, 4, 8, architecture="pyramid", encoded=16, average=0.0)
    module.load_state_dict(state(tmp_path / "out")["state_dict"])
    prior = load_generator(tmp_path / "out" / "prior.safetensors")
    assert prior.architecture() == {"widths": [16, 8, 4], "latent": 8, "start": 8}
    z = torch.randn(3, 8)
    with torch.no_grad():
        drawn = module.averaged(module.code_mean + z @ module._root().float().T)
        assert torch.allclose(prior(z), drawn, atol=0.02)  # stored in half precision
        assert torch.allclose(module.prior()(z), drawn, atol=1e-5)


@pytest.mark.filterwarnings("ignore:Precision bf16-mixed is not supported by the model summary")  # Lightning's own
def test_half_precision_leaves_the_codes_moments_alone(folder, tmp_path):
    """The first batch's moments are taken over, and are those of the encoder's codes, not rounded to bfloat16."""
    assert train(folder, tmp_path / "half", 1, "--trainer.precision", "bf16-mixed") == 0
    square = state(tmp_path / "half")["state_dict"]["code_square"]
    assert square.dtype == torch.float32
    assert not torch.equal(square, square.bfloat16().float())


def test_gradients_are_cut_to_the_largest_norm(folder, tmp_path):
    """Adam's first moment after one step is a hundredth of a tenth of the gradient, betas being .9 and .99."""
    norms = []
    for name, clip in (("free", "0"), ("cut", "0.01")):
        train(folder, tmp_path / name, 1, "--model.clip", clip)
        moments = state(tmp_path / name)["optimizer_states"][0]["state"].values()
        norms.append(10 * torch.stack([m["exp_avg"].norm() for m in moments]).norm().item())
    assert norms[0] > 0.1
    assert norms[1] == pytest.approx(0.01, rel=1e-3)


def test_pictures_are_moved_and_lit():
    module = VAEGANTraining(32, 4, 8, augment=True)
    module.trainer = None
    x = torch.rand(6, 3, 32, 32) * 1.6 - 0.8
    module.draw = lambda name: torch.Generator().manual_seed(len(name))  # type: ignore[method-assign]
    down, right = torch.randint(5, (2,), generator=module.draw("move")).tolist()
    varied = module._varied(x)
    assert varied.shape == x.shape
    before, after = x[..., 4:28, 4:28] + 1, varied.roll((down - 2, right - 2), (2, 3))[..., 4:28, 4:28] + 1
    gains = (after / before).flatten(2)
    inside = (after < 1.999).flatten(2)  # clipped where it became too light
    assert all(float(g[k].std()) < 1e-4 for g, k in zip(gains.flatten(0, 1), inside.flatten(0, 1), strict=True))
    assert 0.01 < float(gains.mean(2).log().std()) < 0.2


def test_a_grown_generator_begins_with_enlarged_pictures(folder, tmp_path):
    train(folder, tmp_path / "small", 2, "--model.average", "0")
    small = VAEGANTraining(32, 4, 8)
    small.load_state_dict(state(tmp_path / "small")["state_dict"])
    large = VAEGANTraining(64, 4, 8, start=str(tmp_path / "small" / "last.ckpt"))
    z = torch.randn(3, 8)
    with torch.no_grad():
        a, b = small.generator(z), large.generator(z)
        features, inner = [], []
        small.generator.l6.register_forward_hook(lambda module, args, output: features.append(output))
        large.generator.l8.register_forward_hook(lambda module, args, output: inner.append(output))
        small.generator(z), large.generator(z)
    # The pair of convolutions passes on its input but for the ELUs, which bend what is below zero.
    x = torch.nn.functional.elu(features[0]).repeat_interleave(2, 2).repeat_interleave(2, 3)
    assert torch.allclose(inner[0], torch.nn.functional.elu(x), atol=1e-5)
    assert torch.equal(large.generator.l9.weight, small.generator.l7.weight)
    assert torch.nn.functional.avg_pool2d(b, 2).sub(a).abs().mean() < 0.5 * a.std()
    assert torch.equal(large.encoder.code.weight, small.encoder.code.weight)
    assert (
        train(folder, tmp_path / "large", 2, "--model.start", str(tmp_path / "small" / "last.ckpt"), resolution=64) == 0
    )
    assert load_generator(tmp_path / "large" / "prior.safetensors").image_shape == (3, 64, 64)


def test_a_start_says_what_did_not_fit(folder, tmp_path, capsys):
    assert train(folder, tmp_path / "small", 1) == 0
    start = ["--model.start", str(tmp_path / "small" / "last.ckpt")]
    capsys.readouterr()
    assert train(folder, tmp_path / "fitting", 1, *start) == 0
    assert "model.start" not in capsys.readouterr().err
    assert train(folder, tmp_path / "skip", 1, *start, "--model.skip", "true") == 0
    said = [line for line in capsys.readouterr().err.splitlines() if "model.start" in line]
    assert len(said) == 1
    own = VAEGANTraining(32, 4, 8, skip=True).state_dict()
    before = state(tmp_path / "small")["state_dict"]
    left = [key for key in own if key not in before or before[key].shape != own[key].shape]
    assert 0 < len(left) < len(own)
    assert f"{len(own) - len(left)} of {len(own)} tensors are taken" in said[0]
    assert left[0] in said[0]


def test_a_start_of_which_nothing_fits_is_refused(folder, tmp_path, capsys):
    """The critic of any VAE-GAN fits; a start is about the generator."""
    assert train(folder, tmp_path / "small", 1) == 0
    start = ["--model.start", str(tmp_path / "small" / "last.ckpt")]
    capsys.readouterr()
    wider = ["--model.channels", "8", "--model.latent", "16"]
    pyramid = ["--model.architecture", "pyramid"]
    for change, wanted in ((wider, "channels 8, latent 16"), (pyramid, "architecture pyramid")):
        assert train(folder, tmp_path / "out", 1, *start, *change) == 2
        error = capsys.readouterr().err
        assert error.count("\n") == 1
        assert "not one weight tensor of the generator fits" in error
        assert "holds architecture began, resolution 32, channels 4, latent 8" in error
        assert wanted in error.partition("expected is a last.ckpt of VAEGANTraining with ")[2]
        assert not (tmp_path / "out").exists()


def test_a_diverging_training_stops(folder, tmp_path, capsys):
    out = tmp_path / "out"
    assert train(folder, out, 10, "--model.lr", "1e20", "--checkpoint_every", "1") == 2
    errors = [line for line in capsys.readouterr().err.splitlines() if "iagan" in line]
    assert len(errors) == 1
    assert "diverged at step" in errors[0]
    assert "lower --model.lr (1e+20 was given), or cut gradients with --model.clip 1" in errors[0]
    assert not (out / "last.ckpt").exists()


def test_it_learns_its_pictures(folder, tmp_path):
    settings = ["--model.lr", "3e-3", "--model.average", "0.8", "--model.cooldown", "15", "--data.batch_size", "6"]
    settings += ["--model.channels", "16", "--data.mirror", "false", "--model.beta", "0"]
    errors = []
    for steps in (1, 40):
        train(folder, tmp_path / str(steps), steps, *settings)
        module = VAEGANTraining(32, 16, 8)
        module.load_state_dict(state(tmp_path / str(steps))["state_dict"])
        x = torch.stack([torch.from_numpy(np.array(Image.open(p))) for p in sorted(folder.iterdir())])
        x = torch.nn.functional.avg_pool2d(x.permute(0, 3, 1, 2) / 127.5 - 1, 2)
        with torch.no_grad():
            made = module.averaged(module.encoder(x)[0])
            errors.append([(made - other).abs().mean().item() for other in (x, x.roll(1, 0))])
    assert errors[1][0] < 0.85 * errors[0][0]
    assert errors[1][0] < 0.85 * errors[1][1]  # each is its own picture, not the mean of all


def test_without_a_discriminator(folder, tmp_path):
    train(folder, tmp_path / "without", 2, "--model.adversarial", "0")
    train(folder, tmp_path / "with", 2, "--model.adversarial", "0.01")
    torch.manual_seed(0)
    steps = {name: len(state(tmp_path / name)["optimizer_states"][1]["state"]) for name in ("without", "with")}
    assert steps["without"] == 0 < steps["with"]
    weights = [state(tmp_path / name)["state_dict"]["generator.l0.weight"] for name in ("without", "with")]
    assert not torch.equal(*weights)


def test_a_checkerboard_is_seen_better_at_some_shift():
    """SqueezeNet looks at every second pixel, which is why training moves the pictures that it compares."""
    module = VAEGANTraining(64, 4, 8)
    module.on_fit_start()
    rows = torch.arange(64) % 2
    grid = 0.1 * ((rows[:, None] + rows) % 2 - 0.5).expand(1, 3, 64, 64)
    plain = torch.zeros(1, 3, 64, 64)
    distances = [
        float(module.perceptual_distance(*(module.features(x[..., i:, j:]) for x in (plain, grid))).detach())
        for i in (0, 1) for j in (0, 1)
    ]  # fmt: skip
    assert max(distances) > 1.5 * min(distances)


def test_learning_rate_falls_to_zero(folder, tmp_path):
    train(folder, tmp_path / "out", 4, "--model.lr", "1e-3", "--model.cooldown", "2")
    rates = [group["lr"] for o in state(tmp_path / "out")["optimizer_states"] for group in o["param_groups"]]
    assert rates == pytest.approx([5e-4, 5e-4])  # in the last step; after it nothing would be left


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (["--model.resolution", "16"], "model.resolution is at least 32"),
        (["--model.encoded", "64"], "model.resolution is at least 64"),
        (["--model.encoded", "20"], "model.encoded is 8, 16, 32, 64 ...; 20 was given"),
        (["--model.architecture", "pyramid", "--model.skip", "true"], "model.skip is a BEGAN's"),
        (["--model.architecture", "cone"], "cone"),
        (["--model.cooldown", "0"], "model.cooldown is at least 1 step"),
        (["--model.random", "-1"], "model.random is at least 0"),
        (["--model.start", "nowhere.ckpt"], "model.start is a last.ckpt of train-prior; nowhere.ckpt cannot be read"),
        (["--model.gamma", "0.5"], "gamma"),
        (["--model", "Nothing"], "Nothing"),
    ],
)
def test_bad_input(folder, tmp_path, capsys, change, message):
    assert train(folder, tmp_path / "out", 2, *change) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_without_the_fixed_network(folder, tmp_path, capsys, monkeypatch):
    def fail(*args, **settings):
        raise OSError("no network")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(
        "socket.create_connection", lambda *args, **kwargs: (_ for _ in ()).throw(OSError("no network"))
    )
    assert train(folder, tmp_path / "out", 2) == 2
    assert "SqueezeNet weights cannot be loaded" in capsys.readouterr().err
    without = ["--model.perceptual", "0", "--model.adversarial", "0"]
    assert train(folder, tmp_path / "without", 2, *without) == 0


@pytest.mark.slow  # what all trainings share with processes is tested with a BEGAN
def test_two_processes_are_one_with_twice_the_batch(tmp_path):
    """Gradients, codes and draws are shared, so that the number of devices decides about speed alone."""
    folder = tmp_path / "noise"
    folder.mkdir()
    for i in range(8):
        pixels = np.random.default_rng(i).integers(0, 256, (32, 32, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{i}.png")
    assert train(folder, tmp_path / "one", 1, "--model.cooldown", "1", "--data.batch_size", "4") == 0
    arguments = arguments_of(folder, tmp_path / "two", 1, "--model.cooldown", "1", "--data.batch_size", "2")
    subprocess.run(
        [sys.executable, "-m", "iagan_lightning", *arguments, "--trainer.devices", "2"],
        cwd=ROOT, check=True, capture_output=True, timeout=300,
    )  # fmt: skip
    one, two = state(tmp_path / "one"), state(tmp_path / "two")
    for key in ("code_mean", "code_square"):
        assert torch.allclose(one["state_dict"][key], two["state_dict"][key], atol=1e-5)
    # Adam's first moments are the gradients; its steps would blow up what rounding does to those that are nearly 0.
    generator_and_encoder = zip(*(s["optimizer_states"][0]["state"].values() for s in (one, two)), strict=True)
    for a, b in generator_and_encoder:
        assert (a["exp_avg"] - b["exp_avg"]).norm() < 5e-3 * a["exp_avg"].norm()
