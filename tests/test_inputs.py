"""What a result was made from: changed inputs are refused before any work; folders that a run names are its own."""

import json
import os
import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from iagan_lightning.cli import main
from iagan_lightning.generators import load_generator, save_generator
from iagan_lightning.results.folder import OutputFolder


def draw(path, seed=0, size=16):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (size, size, 3), dtype=np.uint8)).save(path)
    return path


@pytest.fixture
def run(tiny_weights, tmp_path):
    def command(*more, task="super-resolution"):
        steps = ["--model.latent.steps", "2", "--model.joint.steps", "2", "--tensorboard", "0", "--lpips", "none"]
        return main([task, "--model.generator", str(tiny_weights), *steps, *map(str, more)])

    return command


def refused(capsys, status):
    error = capsys.readouterr().err
    assert status == 2, error
    assert error.count("\n") == 1, error
    return error


def state(out):
    """Everything in a folder."""
    return {path.relative_to(out): path.read_bytes() for path in out.rglob("*") if path.is_file()}


def test_other_pictures_of_the_same_names_are_refused(run, tmp_path, capsys):
    """Another folder, and a picture that was edited; the rest of the command is the same."""
    mine, yours, out = tmp_path / "mine", tmp_path / "yours", tmp_path / "out"
    for seed, name in enumerate("abcde"):
        draw(mine / f"{name}.png", seed)
    assert run("--data.root", mine, "--out", out) == 0
    before = state(out)
    shutil.copytree(mine, yours)
    for name in "bcde":
        draw(yours / f"{name}.png", 9)
    draw(yours / "f.png", 9)
    capsys.readouterr()
    error = refused(capsys, run("--data.root", yours, "--out", out))
    assert "b.png, c.png, d.png ...: 4 of 5 finished images were made from other files" in error
    assert "Choose another --out, or delete" in error
    assert state(out) == before, "config.yaml, too, tells of the run that made the results"
    draw(mine / "a.png", 9)
    error = refused(capsys, run("--data.root", mine, "--out", out))
    assert "a.png: 1 of 5 finished images" in error
    assert f"delete {out / 'images' / 'a'} to have them" in error
    shutil.rmtree(out / "images" / "a")  # as the line says
    assert run("--data.root", mine, "--out", out) == 0
    with Image.open(mine / "a.png") as truth, Image.open(out / "images" / "a" / "truth.png") as kept:
        assert np.array_equal(truth, kept)


def test_the_same_bytes_elsewhere_are_the_same_input(run, tmp_path, capsys):
    draw(tmp_path / "mine" / "a.png")
    assert run("--data.root", tmp_path / "mine", "--out", tmp_path / "out") == 0
    shutil.move(tmp_path / "mine", tmp_path / "moved")
    os.utime(tmp_path / "moved" / "a.png", (0, 0))
    assert run("--data.root", tmp_path / "moved", "--out", tmp_path / "out") == 0
    assert "1 of 1 images are done already" in capsys.readouterr().err


def test_measurements_of_the_same_size_and_time_are_told_apart(run, tmp_path, capsys):
    y, out = tmp_path / "y", tmp_path / "out"
    y.mkdir()
    draw(tmp_path / "x" / "a.png")
    for seed in (0, 1):
        np.save(y / "a.npy", np.random.default_rng(seed).random((3, 4, 4), dtype=np.float32))
        os.utime(y / "a.npy", (0, 0))
        status = run("--data.root", tmp_path / "x", "--data.measurements", y, "--out", out)
        assert status == (2 if seed else 0)
    assert "a.png: 1 of 1 finished images were made from other files" in capsys.readouterr().err
    np.save(y / "a.npy", np.random.default_rng(0).random((3, 4, 4), dtype=np.float32))
    assert run("--data.root", draw(tmp_path / "x" / "a.png", 1).parent, "--data.measurements", y, "--out", out) == 2
    draw(tmp_path / "x" / "a.png", 0)
    assert run("--data.root", tmp_path / "x", "--data.measurements", y, "--out", out) == 0


def test_a_mask_that_was_edited_is_another_setting(run, tmp_path, capsys):
    mask, out = tmp_path / "mask.png", tmp_path / "out"
    arguments = ["--data.root", draw(tmp_path / "in" / "a.png").parent, "--operator.mask", mask, "--out", out]
    pixels = np.full((16, 16), 255, np.uint8)
    for row in (3, 5):
        pixels[row] = 0
        Image.fromarray(pixels).save(mask)
        status = run(*arguments, task="inpainting")
        assert status == (2 if row == 5 else 0)
    assert "(the file of operator.mask holds something else)" in capsys.readouterr().err


@pytest.fixture
def own_classes(tmp_path, monkeypatch):
    """A method, a callback and a generator as users would write them, with settings that the pictures depend on."""
    (tmp_path / "classes_of_mine.py").write_text(
        """
import pytorch_lightning as pl
import torch
from iagan_lightning import IAGAN


class Strong(IAGAN):
    def __init__(self, strength: float = 0.0, **settings):
        super().__init__(**settings)
        self.strength = strength

    def penalty(self, iterate):
        return super().penalty(iterate) + self.strength * iterate.z.square().flatten(1).mean(1)


class Darker(pl.Callback):
    def __init__(self, by: float = 0.0, phase: str = "make"):
        self.by, self.phase = by, phase

    def on_train_end(self, trainer, pl_module):
        pl_module.results = {name: x - self.by for name, x in pl_module.results.items()}


class Net(torch.nn.Module):
    def __init__(self, psi: float = 1.0):
        super().__init__()
        self.psi = psi
        self.layers = torch.nn.Sequential(torch.nn.Linear(8, 768), torch.nn.Tanh(), torch.nn.Unflatten(1, (3, 16, 16)))
        with torch.no_grad():
            for n, p in enumerate(self.parameters()):
                p.copy_(torch.randn(p.shape, generator=torch.Generator().manual_seed(n)) / 3)

    def forward(self, z):
        return self.layers(self.psi * z)
"""
    )
    monkeypatch.syspath_prepend(tmp_path)


NET = "{{class_path: classes_of_mine.Net, init_args: {{psi: {}}}, latent_shape: [8]}}"


@pytest.mark.usefixtures("own_classes")
@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (["--model", "classes_of_mine.Strong", "--model.strength", "{}"], "own.model.strength was 1.0, now 2.0"),
        (
            ["--trainer.callbacks+=classes_of_mine.Darker", "--trainer.callbacks.by", "{}"],
            "own.callback 1.init_args.by was 1.0, now 2.0",
        ),
        (["--model.generator", NET], "own.generator.init_args.psi was 1.0, now 2.0"),
        (
            [
                "--trainer.callbacks+=classes_of_mine.Darker",
                "--trainer.callbacks.by={}",
                "--trainer.callbacks.phase=write",
            ],
            None,
        ),
    ],
    ids=["method", "callback", "generator", "a callback that makes nothing"],
)
def test_settings_of_classes_of_ones_own_decide_about_results(run, tmp_path, capsys, settings, said):
    out = ["--data.root", draw(tmp_path / "in" / "a.png").parent, "--out", tmp_path / "out"]
    given = [[word.format(value) for word in settings] for value in (1.0, 2.0)]
    assert run(*given[0], *out) == 0
    assert run(*given[0], *out) == 0, "the same once more"
    capsys.readouterr()
    status = run(*given[1], *out)
    if said is None:
        assert status == 0
    else:
        assert said in refused(capsys, status)


def test_a_method_without_a_size_of_its_own_has_that_of_the_pictures(tmp_path, capsys):
    draw(tmp_path / "in" / "a.png")

    def run(size):
        words = ["--model.settings.steps", "2", "--data.size", size, "--tensorboard", "0", "--lpips", "none"]
        folders = ["--data.root", tmp_path / "in", "--out", tmp_path / "out"]
        return main(["super-resolution", "--model", "dip", *map(str, [*words, *folders])])

    assert run(8) == 0
    capsys.readouterr()
    assert "image_shape was [3, 8, 8], now [3, 16, 16]" in refused(capsys, run(16))


def test_folders_of_earlier_versions_go_on(run, tmp_path, capsys):
    """They recorded no hashes, nor what classes of one's own were given, nor the size."""
    mask, out = tmp_path / "mask.npy", tmp_path / "out"
    np.save(mask, np.arange(256).reshape(16, 16) % 3 > 0)
    pictures = draw(tmp_path / "in" / "a.png").parent
    arguments = ["--data.root", pictures, "--operator.mask", mask, "--out", out]
    assert run(*arguments, task="inpainting") == 0
    settings, metrics = out / "settings.json", out / "images" / "a" / "metrics.json"
    for path, key in ((settings, "files"), (settings, "own"), (settings, "image_shape"), (metrics, "inputs")):
        content = json.loads(path.read_text())
        assert content.pop(key)
        path.write_text(json.dumps(content))
    before = metrics.read_text()
    draw(pictures / "b.png", 1)
    assert run(*arguments, task="inpainting") == 0
    assert "1 of 2 images are done already" in capsys.readouterr().err
    assert metrics.read_text() == before


def test_a_result_is_not_rebuilt_with_other_weights(run, tmp_path, tiny_weights, capsys):
    """The same file name, another network in it: its picture would be another one."""
    weights, out = tmp_path / "mine.safetensors", tmp_path / "out"
    shutil.copy(tiny_weights, weights)
    arguments = ["--data.root", draw(tmp_path / "in" / "a.png").parent, "--out", out, "--save", "weights"]
    assert run(*arguments, "--model.generator", weights) == 0
    assert main(["rebuild", str(out / "images" / "a")]) == 0
    generator = load_generator(weights)
    with torch.no_grad():
        generator.l1.bias += 0.1
    save_generator(generator, weights)
    capsys.readouterr()
    error = refused(capsys, main(["rebuild", str(out / "images" / "a")]))
    assert "a generator with other weights" in error
    assert main(["rebuild", str(out / "images" / "a"), "--generator", str(tiny_weights)]) == 0


def test_folders_that_runs_name_themselves_never_meet(run, tmp_path, monkeypatch):
    """Two runs and two trainings that begin in the same second."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("time.strftime", lambda *_: "20260101-000000")
    for seed in (0, 1):
        assert run("--data.root", draw(tmp_path / str(seed) / "a.png", seed).parent) == 0
    outs = [tmp_path / "runs" / f"super-resolution-20260101-000000{number}" for number in ("", "-2")]
    for seed, out in enumerate(outs):
        with Image.open(tmp_path / str(seed) / "a.png") as picture, Image.open(out / "images/a/truth.png") as truth:
            assert np.array_equal(picture, truth)
    tiny = ["--model.resolution", "16", "--model.channels", "4", "--model.latent", "8", "--data.batch_size", "1"]
    for steps in ("1", "2"):
        assert main(["train-prior", "--data.root", "0", "--steps", steps, "--trainer.accelerator", "cpu", *tiny]) == 0
    for name, steps in (("", 1), ("-2", 2)):
        checkpoint = tmp_path / "runs" / f"prior-20260101-000000{name}" / "last.ckpt"
        assert torch.load(checkpoint, weights_only=True)["global_step"] == steps


def test_a_new_folder_is_made_by_one_process_alone(tmp_path):
    folders = [OutputFolder(tmp_path / "runs" / "a", new=True) for _ in range(3)]
    for folder in folders:
        assert folder.names() == {}
        folder.prepare()
    assert [folder.root.name for folder in folders] == ["a", "a-2", "a-3"]
