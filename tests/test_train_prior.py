import io
import json
import re
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from iagan_lightning.cli import main
from iagan_lightning.generators import load_generator
from iagan_lightning.training import BEGANTraining
from iagan_lightning.training.pictures import PictureSet, StepSampler

ROOT = Path(__file__).parent.parent
TINY = ["--model.resolution", "16", "--model.channels", "4", "--model.latent", "8", "--data.batch_size", "3"]


@pytest.fixture
def folder(tmp_path):
    """Eight pictures in a folder."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    for i in range(8):
        pixels = np.random.default_rng(i).integers(0, 256, (20, 20, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{i}.png")
    return folder


def train(folder, out, steps, *more):
    return ["train-prior", "--data.root", str(folder), "--out", str(out), "--steps", str(steps),
            "--trainer.accelerator", "cpu", *TINY, *more]  # fmt: skip


def final_state(out):
    return torch.load(out / "last.ckpt", weights_only=True)


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(value, b[key]) for key, value in a.items())


def test_a_training_says_how_far_it_is_and_nothing_else(folder, tmp_path):
    command = [sys.executable, "-m", "iagan_lightning", *train(folder, tmp_path / "out", 4, "--checkpoint_every", "2")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    first, last = done.stderr.splitlines()
    number = r"-?\d+(\.\d+)?(e-?\d+)?"
    assert re.fullmatch(rf"step 2 of 4, about 0:00:\d\d left: \w+ {number}(, \w+ {number})*", first)
    assert last.startswith("step 4 of 4, about 0:00:00 left: ")
    assert [line.split(":")[0] for line in done.stdout.splitlines()] == ["prior after 4 steps", "samples"]


def test_the_prior_loads_by_its_path(folder, tmp_path, capsys):
    assert main(train(folder, tmp_path / "out", 5, "--note", "noise")) == 0
    path = tmp_path / "out" / "prior.safetensors"
    G = load_generator(path)
    assert (G.resolution, G.channels, G.latent, G.skip) == (16, 4, 8, False)
    with safe_open(path, framework="pt") as file:
        header = json.loads(file.metadata()["iagan_lightning"])
        assert file.get_tensor("l0.weight").dtype == torch.float16
    assert header["training"]["data"] == "noise"
    assert header["training"]["steps"] == 5
    assert header["latent_distribution"] == "uniform"
    averaged = {k[9:]: v for k, v in final_state(tmp_path / "out")["state_dict"].items() if k.startswith("averaged.")}
    assert all(torch.allclose(value, averaged[key], atol=1e-3) for key, value in G.state_dict().items())
    with Image.open(tmp_path / "out" / "samples.png") as sheet:
        assert sheet.size == (8 * 16, 4 * 16)
    assert str(path) in capsys.readouterr().out


def test_resuming_repeats_an_uninterrupted_run(folder, tmp_path):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    main(train(folder, whole, 7))
    main(train(folder, parts, 3))
    main(train(folder, parts, 7))
    assert final_state(parts)["global_step"] == 7
    assert same(final_state(whole)["state_dict"], final_state(parts)["state_dict"])


def test_a_killed_training_goes_on_at_its_checkpoint(folder, processes, tmp_path):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    main(train(folder, whole, 60))
    process = processes.Process(target=main, args=(train(folder, killed, 100_000, "--checkpoint_every", "1"),))
    process.start()
    deadline = time.monotonic() + 120
    while not (killed / "last.ckpt").exists() or final_state(killed)["global_step"] < 3:
        assert time.monotonic() < deadline
        assert process.is_alive()
        time.sleep(0.02)
    process.kill()
    process.join()
    assert 3 <= final_state(killed)["global_step"] < 60
    main(train(folder, killed, 60))
    assert same(final_state(whole)["state_dict"], final_state(killed)["state_dict"])


def test_a_step_is_the_papers(folder):
    """One step of D, G and k beside the same written out plainly."""
    torch.manual_seed(0)
    module = BEGANTraining(16, 4, 8, gamma=0.5, lambda_k=0.1, average=0.0)
    module.k.fill_(0.3)
    real = torch.randint(0, 256, (3, 3, 16, 16), dtype=torch.uint8)
    G, D = module.generator, module.reconstruct
    discriminator = [*module.encoder.parameters(), *module.decoder.parameters()]
    x = real / 127.5 - 1
    z = G.sample_latent(3, seed=1)
    fake = G(z)
    loss_x, loss_g = (D(x) - x).abs().mean(), (D(fake.detach()) - fake.detach()).abs().mean()
    expected = torch.autograd.grad(loss_x - 0.3 * loss_g, discriminator)
    optimizer_g, optimizer_d = module.configure_optimizers()
    module.latents = lambda n: z
    module.optimizers = lambda: [Wrapped(optimizer_g), Wrapped(optimizer_d)]
    module.manual_backward = lambda loss: loss.backward()
    before = [p.detach().clone() for p in discriminator]
    outputs = module.training_step(real, 0)
    for p, old, gradient in zip(discriminator, before, expected, strict=True):
        moved = gradient.abs() > 1e-6  # Adam's first step goes lr against the sign of the gradient
        assert torch.allclose((p - old)[moved], -1e-4 * gradient.sign()[moved], atol=2e-6)
    assert outputs["loss_real"].item() == pytest.approx(loss_x.item(), rel=1e-4)
    k = 0.3 + 0.1 * (0.5 * outputs["loss_real"] - outputs["loss_fake"]).item()
    assert module.k.item() == pytest.approx(k, rel=1e-5)
    balance = abs(0.5 * outputs["loss_real"] - outputs["loss_fake"]).item()
    assert outputs["M"].item() == pytest.approx(outputs["loss_real"].item() + balance, rel=1e-5)
    assert all(torch.equal(a, b) for a, b in zip(module.averaged.parameters(), G.parameters(), strict=True))


class Wrapped:
    """What Lightning puts around an optimiser."""

    def __init__(self, optimizer):
        self.optimizer = optimizer
        self.step, self.zero_grad = optimizer.step, optimizer.zero_grad


def test_tensorboard_shows_losses_and_samples(folder, tmp_path):
    main(train(folder, tmp_path / "out", 100))
    events = EventAccumulator(str(tmp_path / "out" / "tensorboard"))
    events.Reload()
    assert {"loss_real", "loss_fake", "k", "M", "lr"} <= set(events.Tags()["scalars"])
    assert [event.step for event in events.Scalars("M")] == [50, 100]
    assert events.Tags()["images"] == ["samples"]


def test_learning_rate_falls_when_m_stalls(folder, tmp_path):
    """Nothing is learnt, and by the draws of this seed the mean of M after 200 steps is above that after 100."""
    small = ["--model.resolution", "8", "--model.channels", "2", "--data.batch_size", "1", "--seed_everything", "4"]
    main(train(folder, tmp_path / "out", 200, "--model.patience", "100", "--model.lr", "1e-12", *small))
    state = final_state(tmp_path / "out")
    assert state["state_dict"]["rate"] < 1
    lr = state["optimizer_states"][0]["param_groups"][0]["lr"]
    assert lr == pytest.approx(1e-12 * state["state_dict"]["rate"].item())


def test_a_tar_is_its_folder(folder, tmp_path):
    path = tmp_path / "pictures.tar"
    with tarfile.open(path, "w") as archive:
        for picture in sorted(folder.iterdir()):
            archive.add(picture, arcname=f"faces/{picture.name}")
        note = tarfile.TarInfo("README")
        note.size = 2
        archive.addfile(note, io.BytesIO(b"hi"))
    one, two = PictureSet(str(folder), 16), PictureSet(str(path), 16)
    assert len(one) == len(two) == 8
    assert all(torch.equal(one[i, i % 2 == 0], two[i, i % 2 == 0]) for i in range(8))
    assert torch.equal(one[0, True], one[0, False].flip(-1))


def test_order_depends_on_the_step_alone():
    def take(n, **settings):
        batches = iter(StepSampler(10, 3, seed=1, **settings))
        return [next(batches) for _ in range(n)]

    whole = take(20)
    assert take(15, start=5) == whole[5:]
    assert sorted(index for batch in whole[:10] for index, _ in batch) == sorted([*range(10)] * 3)
    two = [take(10, rank=rank, world=2) for rank in range(2)]
    assert [batch for pair in zip(*two, strict=True) for batch in pair] == whole


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (["--data.root", "nowhere"], "no such folder or tar file: nowhere"),
        (["--data.root", "EMPTY"], "no pictures in"),
        (["--data.root", "FILE"], "neither a folder nor an uncompressed tar file"),
        (["--model.resolution", "48"], "resolution is 8, 16, 32, 64, 128"),
        (["--model.resolution", "32"], "smaller than the generator's 32 x 32"),
        (["--model.gamma", "2"], "model.gamma lies in (0, 1]"),
        (["--data.batch_size", "0"], "data.batch_size is at least 1"),
        (["--steps", "0"], "steps is at least 1"),
        (["--nonsense", "1"], "nonsense"),
    ],
)
def test_bad_input(folder, tmp_path, capsys, change, message):
    (tmp_path / "empty").mkdir()
    (tmp_path / "file.tar").write_text("no tar")
    places = {"EMPTY": tmp_path / "empty", "FILE": tmp_path / "file.tar"}
    change = [str(places.get(argument, argument)) for argument in change]
    assert main(train(folder, tmp_path / "out", 2, *change)) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_changed_settings_are_refused(folder, tmp_path, capsys):
    assert main(train(folder, tmp_path / "out", 2)) == 0
    assert main(train(folder, tmp_path / "out", 4, "--model.gamma", "0.5")) == 2
    assert "model.gamma was 0.7, now 0.5" in capsys.readouterr().err


def test_two_processes_are_one_with_twice_the_batch(folder, tmp_path):
    """Gradients, k and latents are shared, so that the number of devices decides about speed alone.

    The first of them measures the prior meanwhile, on a picture that is in neither.
    """
    assert main(train(folder, tmp_path / "one", 3, "--data.batch_size", "4")) == 0
    (tmp_path / "held").mkdir()
    Image.fromarray(np.full((20, 20, 3), 90, np.uint8)).save(tmp_path / "held" / "grey.png")
    held_out = ["--data.held_out", str(tmp_path / "held"), "--held_out_every", "2"]
    two = train(folder, tmp_path / "two", 3, "--data.batch_size", "2", "--trainer.devices", "2", *held_out)
    subprocess.run(
        [sys.executable, "-m", "iagan_lightning", *two], cwd=ROOT, check=True, capture_output=True, timeout=300
    )
    a, b = (final_state(tmp_path / name)["state_dict"] for name in ("one", "two"))
    assert a["k"] > 0
    assert [line.split(",")[0] for line in (tmp_path / "two" / "held_out.csv").read_text().split()] == [
        "step",
        "2",
        "3",
    ]
    assert max((a[key] - b[key]).abs().max().item() for key in a if key != "best_m") < 1e-5
