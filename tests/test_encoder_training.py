"""Training an encoder for a generator that is there already: what is learnt, written, resumed and refused."""

import csv
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from safetensors import safe_open
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from iagan_lightning import IAGAN
from iagan_lightning.cli import main
from iagan_lightning.generators import BEGAN, Generator, MobileStyleGAN, load_generator, save_generator
from iagan_lightning.generators.base import fingerprint
from iagan_lightning.images import read_image, to_pillow
from iagan_lightning.operators import BicubicDownsampling, GaussianSensing
from iagan_lightning.training import EncoderTraining
from iagan_lightning.training.degraded import degraded, enlarged, projected

ROOT = Path(__file__).parent.parent
TINY = {"widths": (4, 8, 8), "last": 2}


@pytest.fixture(scope="module")
def prior(tmp_path_factory):
    """The file of a generator whose pictures differ from each other."""
    torch.manual_seed(0)
    G = BEGAN(resolution=16, channels=6, latent=4, latent_distribution="normal")
    with torch.no_grad():
        for weight in G.parameters():
            if weight.dim() > 1:
                torch.nn.init.kaiming_normal_(weight, nonlinearity="relu")
        list(G.parameters())[-2].mul_(0.3)  # neither black nor white
    path = tmp_path_factory.mktemp("prior") / "own.safetensors"
    save_generator(G, path)
    return path


@pytest.fixture(scope="module")
def folder(prior, tmp_path_factory):
    """Forty of its pictures."""
    G, folder = load_generator(prior), tmp_path_factory.mktemp("pictures")
    with torch.no_grad():
        for number, x in enumerate(G(0.7 * G.sample_latent(40, seed=5))):
            to_pillow(x).save(folder / f"{number:02}.png")
    return folder


def arguments_of(prior, folder, out, steps, *more):
    return ["train-prior", "--model", "EncoderTraining", "--model.generator", str(prior), "--model.widths", "[4, 8, 8]",
            "--model.last", "2", "--model.samples", "300", "--data.root", str(folder), "--out", str(out), "--steps",
            str(steps), "--data.batch_size", "4", "--trainer.accelerator", "cpu", *more]  # fmt: skip


def train(*arguments):
    return main(arguments_of(*arguments))


def state(out):
    return torch.load(out / "last.ckpt", weights_only=True)["state_dict"]


def curve(out):
    with (out / "held_out.csv").open(newline="") as table:
        return list(csv.DictReader(table))


def test_what_is_written_is_a_prior_that_begins_with_its_encoder(prior, folder, tmp_path, capsys):
    out = tmp_path / "out"
    assert train(prior, folder, out, 3, "--note", "own pictures") == 0
    assert capsys.readouterr().out == f"prior with its encoder after 3 steps: {out / 'prior.safetensors'}\n"
    G = load_generator(out / "prior.safetensors")
    assert fingerprint(G) == fingerprint(load_generator(prior))
    averaged = {name[9:]: value for name, value in state(out).items() if name.startswith("averaged.")}
    assert G.encoder is not None
    stored = G.encoder.network.state_dict()
    assert stored.keys() == averaged.keys()
    assert all(torch.allclose(stored[name], value, atol=2e-3) for name, value in averaged.items())
    [first, *_] = IAGAN(G).plan(0.0, BicubicDownsampling((3, 16, 16), scale=4))
    assert (first.init, first.settings.steps) == ("encoder", 10)
    with safe_open(out / "encoders" / "prior.safetensors", framework="pt") as file:
        told = json.loads(file.metadata()["iagan_encoder"])["training"]
    assert (told["method"], told["data"], told["steps"]) == ("encoder", "own pictures", 3)
    assert not (out / "samples.png").exists()  # the generator is what it was


def test_its_latents_are_nearer_than_any_one_picture(prior, folder, tmp_path):
    """From the linear part alone, and from training alone."""
    shown = torch.stack([read_image(path) for path in sorted(folder.glob("*.png"))])
    constant = -10 * ((shown - shown.mean(0)) / 2).square().flatten(1).mean(1).log10().mean()
    begun, trained = tmp_path / "begun", tmp_path / "trained"
    assert train(prior, folder, begun, 1) == 0
    assert float(curve(begun)[0]["code_psnr"]) > constant + 5
    quick = ["--model.samples", "0", "--model.lr", "3e-3", "--model.cooldown", "75", "--model.average", "0.9"]
    assert train(prior, folder, trained, 150, *quick, "--data.batch_size", "8") == 0
    assert float(curve(trained)[-1]["code_psnr"]) > constant + 4
    assert {*curve(trained)[-1]} == {"step", "core_hours", "code_psnr"}  # the generator is no news
    events = EventAccumulator(str(trained / "tensorboard"), {"images": 0})
    events.Reload()
    assert [image.step for image in events.Images("held_out")] == [150]


def test_of_a_style_generator_it_leads_to_w(folder, tmp_path):
    torch.manual_seed(4)
    G = MobileStyleGAN(channels=(8, 8), latent=6, mapping=2)
    G.measure_whitening(draws=500)
    save_generator(G, tmp_path / "style.safetensors")
    assert train(tmp_path / "style.safetensors", folder, tmp_path / "out", 2) == 0
    G = load_generator(tmp_path / "out" / "prior.safetensors")
    A = BicubicDownsampling((3, 16, 16), scale=4)
    [first, *_] = IAGAN(G).plan(0.0, A)
    assert (G.code_space, first.space, first.init) == ("w", "w", "encoder")
    assert train(tmp_path / "style.safetensors", folder, tmp_path / "z", 1, "--model.space", "z") == 0
    assert load_generator(tmp_path / "z" / "prior.safetensors").code_space == "z"


def test_a_step_is_its_equation(prior):
    """One step beside the same written out plainly."""
    module = EncoderTraining(str(prior), **TINY, length=0.3, samples=0, lr=1e-2, average=0.0)
    before = {name: value.clone() for name, value in module.generator.state_dict().items()}
    x = torch.randint(0, 256, (3, 3, 16, 16), generator=torch.Generator().manual_seed(1), dtype=torch.uint8)
    plain = module.plain(x / 127.5 - 1)
    z = module.encoder(plain)
    loss = ((module.generator(z) - (x / 127.5 - 1)) ** 2).mean() + 0.3 * (z**2).mean()
    gradients = torch.autograd.grad(loss, list(module.encoder.parameters()))
    norm = torch.stack([gradient.norm() for gradient in gradients]).norm()
    first = next(iter(module.encoder.parameters())).detach().clone()
    logged = stepped(module, x)
    assert logged["MSE"] + 0.3 * logged["length"] == pytest.approx(loss.item(), rel=1e-5)
    expected = torch.nn.Parameter(first.clone())
    expected.grad = gradients[0] * min(1.0, 1.0 / (norm.item() + 1e-6))
    torch.optim.AdamW([expected], lr=1e-2, betas=(0.9, 0.99), weight_decay=1e-3).step()
    assert torch.allclose(next(iter(module.encoder.parameters())), expected, atol=1e-6)
    assert not torch.equal(first, expected)
    assert all(torch.equal(value, module.generator.state_dict()[name]) for name, value in before.items())


def stepped(module, x):
    """Make one step of a module under a Trainer and return what it logs."""

    class Logged(pl.Callback):
        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
            self.outputs = {name: float(value) for name, value in outputs.items()}

    told = Logged()
    trainer = pl.Trainer(
        max_steps=1, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, callbacks=[told],
    )  # fmt: skip
    module.hparams["cooldown"] = 1
    module.train()  # Lightning warns of what is not
    trainer.fit(module, torch.utils.data.DataLoader([x], batch_size=None))
    return told.outputs


def test_resuming_repeats_an_uninterrupted_run(prior, folder, tmp_path):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    steady = ["--model.cooldown", "1"]  # the learning rate depends on --steps only in the cooldown
    assert train(prior, folder, whole, 6, *steady) == 0
    assert train(prior, folder, parts, 2, *steady) == 0
    assert train(prior, folder, parts, 6, *steady) == 0
    a, b = state(whole), state(parts)
    assert a.keys() == b.keys()
    assert all(torch.equal(value, b[name]) for name, value in a.items())


@pytest.mark.slow  # what all trainings share with processes is tested with a BEGAN
def test_two_processes_are_one_with_twice_the_batch(prior, folder, tmp_path):
    """What pictures are degraded by is drawn together, so that the number of devices decides about speed alone."""
    assert train(prior, folder, tmp_path / "one", 1, "--model.cooldown", "1") == 0
    arguments = arguments_of(prior, folder, tmp_path / "two", 1, "--model.cooldown", "1", "--data.batch_size", "2")
    subprocess.run(
        [sys.executable, "-m", "iagan_lightning", *arguments, "--trainer.devices", "2"],
        cwd=ROOT, check=True, capture_output=True, timeout=300,
    )  # fmt: skip
    moments = [
        torch.load(tmp_path / name / "last.ckpt", weights_only=True)["optimizer_states"][0]["state"].values()
        for name in ("one", "two")
    ]
    for one, two in zip(*moments, strict=True):  # Adam's first moments are the gradients
        assert (one["exp_avg"] - two["exp_avg"]).norm() < 5e-3 * one["exp_avg"].norm()


# What an encoder sees --------------------------------------------------------------------------------------------


def drawn(x, seed):
    return degraded(x, torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def smooth():
    """Two pictures without sharp edges."""
    few = torch.rand(2, 3, 4, 4, generator=torch.Generator().manual_seed(3)) * 2 - 1
    return F.interpolate(few, size=32, mode="bicubic")


def test_coarse_pictures_are_those_of_the_operator(smooth):
    A = BicubicDownsampling((3, 32, 32), scale=4)
    inner = (..., slice(6, -6), slice(6, -6))  # borders are treated otherwise
    assert torch.allclose(
        enlarged(smooth, 4, 0.0, torch.zeros_like(smooth))[inner], A.naive(A(smooth))[inner], atol=0.02
    )


def test_projections_have_mean_and_spread_of_the_operator(smooth):
    """Of many matrices, pixel by pixel."""
    x, ratio = smooth[:1, :, ::2, ::2], 0.3
    operators = [GaussianSensing((3, 16, 16), ratio=ratio, seed=seed) for seed in range(60)]
    real = torch.cat([A.naive(A(x)) for A in operators])
    draw = torch.Generator().manual_seed(0)
    ours = torch.cat([projected(x, ratio, torch.randn(x.shape, generator=draw)) for _ in operators])
    share = [(found.mean(0) * x[0]).sum() / x.square().sum() for found in (real, ours)]
    assert share[1].item() == pytest.approx(share[0].item(), rel=0.05)
    assert ours.std(0).mean().item() == pytest.approx(real.std(0).mean().item(), rel=0.1)


def test_all_kinds_come_and_follow_the_seed(smooth):
    shown = [drawn(smooth, seed) for seed in range(60)]
    assert all(torch.equal(drawn(smooth, seed), x) for seed, x in enumerate(shown[:8]))
    assert all(x.shape == smooth.shape and bool(x.isfinite().all()) for x in shown)
    kinds = {
        "whole": lambda x: torch.equal(x, smooth),
        "holes": lambda x: bool(((x == 0).all(1).flatten(1).float().mean(1) > 0.2).all()),
        "rough": lambda x: (x - smooth).diff(dim=-1).square().mean() > 0.02,
        "smooth": lambda x: 0 < (x - smooth).diff(dim=-1).square().mean() < 0.01,
    }
    assert all(any(told(x) for x in shown) for told in kinds.values())
    assert drawn(torch.zeros(1, 3, 8, 8), 5).shape == (1, 3, 8, 8)


# What is refused -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (["--model.lr", "0"], "model.lr is above 0"),
        (["--model.length", "-1"], "model.length is at least 0"),
        (["--model.samples", "-1"], "model.samples is at least 0"),
        (["--model.cooldown", "0"], "model.cooldown is at least 1 step"),
        (["--model.average", "1"], "model.average lies in [0, 1)"),
        (["--model.widths", "[4, 9, 8]"], "multiples of 8 from the second on"),
        (["--model.space", "w"], "BEGAN has the latent spaces z"),
        (["--model.space", "features-8"], "from z or w, of one dimension"),
        (["--model.generator", "nowhere.safetensors"], "nowhere.safetensors"),
        (["--model.resolution", "16"], "resolution"),
    ],
)
def test_bad_input(prior, folder, tmp_path, capsys, change, message):
    assert train(prior, folder, tmp_path / "out", 2, *change) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not (tmp_path / "out").exists()


class Own(Generator):
    """Pictures of any shape from latents of any shape, by a class that no file of weights names."""

    def __init__(self, latent_shape, image_shape):
        super().__init__()
        self.latent_shape, self.image_shape = latent_shape, image_shape
        self.layer = torch.nn.Linear(1, 1)


@pytest.mark.parametrize(
    ("latent_shape", "image_shape", "message"),
    [
        ((3,), (1, 8, 8), "this one makes 1 x 8 x 8 of (3,)"),
        ((3,), (3, 8, 16), "this one makes 3 x 8 x 16 of (3,)"),
        ((3, 4), (3, 8, 8), "this one makes 3 x 8 x 8 of (3, 4)"),
        ((3,), (3, 8, 8), "Own cannot be stored, and an encoder lies beside its generator's file"),
    ],
)
def test_generators_that_have_no_encoder_are_refused(latent_shape, image_shape, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        EncoderTraining(Own(latent_shape, image_shape))


def test_another_generator_is_another_training(prior, folder, tmp_path, capsys):
    assert train(prior, folder, tmp_path / "out", 1) == 0
    other = load_generator(prior)
    with torch.no_grad():
        next(iter(other.parameters())).mul_(1.01)
    save_generator(other, tmp_path / "other.safetensors")
    assert train(tmp_path / "other.safetensors", folder, tmp_path / "out", 2) == 2
    assert "model.generator was" in capsys.readouterr().err
    elsewhere = tmp_path / "elsewhere.safetensors"
    elsewhere.write_bytes(prior.read_bytes())
    assert train(elsewhere, folder, tmp_path / "out", 2) == 0
