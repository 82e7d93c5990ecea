"""Configurations that are broken, and options that promised something else: one line, or what was promised."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from iagan_lightning.cli import main
from iagan_lightning.operators import FourierSensing, GaussianSensing, Inpainting
from iagan_lightning.terminal import without_traceback

ROOT = Path(__file__).parent.parent
STEPS = ["--model.latent.steps", "3", "--model.joint.steps", "2", "--trainer.accelerator", "cpu", "--lpips", "none"]


@pytest.fixture
def run(tiny_weights, folder, tmp_path, capsys):
    """Run a task over two pictures (or what the words say); return the status and what was said."""

    def run(*words, task="super-resolution", out="out"):
        root = [] if "--data.measurements" in words else ["--data.root", folder]
        common = [task, "--model.generator", tiny_weights, "--out", tmp_path / out, "--quiet", "true", *STEPS, *root]
        status = main([str(word) for word in [*common, *words]])
        return status, capsys.readouterr().err

    return run


def refused(result, *messages):
    status, said = result
    assert status == 2
    assert said.count("\n") == 1
    for message in messages:
        assert message in said


# Files ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"noise_std: 0.1\nlpips: none\nnoise_std: 0.0\n", "noise_std is there twice, on lines 1 and 3: keep one"),
        (b"model:\n  init_args:\n    preset: fast\n    preset: paper\n", "preset is there twice, on lines 3 and 4"),
        (b"denoising:\n  lpips: none\n  lpips: alex\n", "lpips is there twice, on lines 2 and 3"),
        (b'{"lpips": "none", "lpips": "alex"}', "lpips is there twice, on line 1"),
        ("# größe\nlpips: none\n".encode("latin-1"), "is no text in UTF-8"),
        ("lpips: none\n".encode("utf-16"), "is no text in UTF-8"),
        ("lpips: none\n".encode("utf-16-le"), "is no text in UTF-8"),
        (b"lpips: [none\n", "is no YAML"),
        (b"# nothing\n", "holds no settings"),
        (b"", "holds no settings"),
    ],
)
def test_broken_configurations_are_named(run, tmp_path, capsys, content, message):
    path = tmp_path / "mine.yaml"
    path.write_bytes(content)
    refused(run("--config", path), "mine.yaml", message)
    refused(run(f"--config={path}"), "mine.yaml", message)
    assert not (tmp_path / "out").exists()
    for words in (["train-prior", "--config", path], ["check-operator", path]):
        assert main([str(word) for word in words]) == 2
        said = capsys.readouterr().err
        assert "mine.yaml" in said
        assert message in said
        assert said.count("\n") == 1


def test_a_byte_order_mark_and_a_merged_key_are_fine(run, tmp_path):
    (tmp_path / "bom.yaml").write_text("\ufeffnoise_std: 0.1\n", encoding="utf-8")
    (tmp_path / "merged.yaml").write_text("model:\n  init_args:\n    latent: {<<: {steps: 3}, steps: 4}\n")
    assert run("--config", tmp_path / "bom.yaml", "--config", tmp_path / "merged.yaml", "--data.limit", "1")[0] == 0
    assert yaml.safe_load((tmp_path / "out" / "config.yaml").read_text())["noise_std"] == 0.1


def test_keys_that_are_there_twice_in_words(run):
    refused(run("--model.latent", "{steps: 3, lr: 0.1, steps: 4}"), "--model.latent: steps is there twice, on line 1")


def test_a_damaged_configuration_of_a_run_is_named_by_rebuild(run, tmp_path, capsys):
    assert run("--save", "weights", "--data.limit", "1")[0] == 0
    config = tmp_path / "out" / "config.yaml"
    config.write_bytes(config.read_bytes().replace(b"model:", b"model: \xff", 1))
    assert main(["rebuild", str(tmp_path / "out" / "images" / "0")]) == 2
    assert "config.yaml is no text in UTF-8" in capsys.readouterr().err


# Options ----------------------------------------------------------------------------------------------------------


def test_a_random_seed_is_random_and_written_down(run, tmp_path):
    seeds = []
    for out in ("a", "b"):
        assert run("--seed_everything", "true", "--data.limit", "1", out=out)[0] == 0
        seeds.append(yaml.safe_load((tmp_path / out / "config.yaml").read_text())["seed_everything"])
        assert json.loads((tmp_path / out / "settings.json").read_text())["seed_everything"] == seeds[-1]
    assert seeds[0] != seeds[1]
    assert all(type(seed) is int and seed for seed in seeds)
    assert run("--seed_everything", str(seeds[0]), "--data.limit", "1", out="again")[0] == 0
    first, again = ((tmp_path / out / "images" / "0" / "iagan.png").read_bytes() for out in ("a", "again"))
    assert first == again


def test_a_random_seed_of_a_training(folder, tmp_path):
    seeds = set()
    for out in ("a", "b"):
        words = ["train-prior", "--data.root", folder, "--out", tmp_path / out, "--steps", "1",
                 "--data.batch_size", "2", "--model.resolution", "16", "--model.channels", "4", "--model.latent", "8",
                 "--trainer.accelerator", "cpu", "--seed_everything", "true"]  # fmt: skip
        assert main([str(word) for word in words]) == 0
        seeds.add(json.loads((tmp_path / out / "settings.json").read_text())["seed"])
    assert len(seeds) == 2
    assert 0 not in seeds


@pytest.mark.parametrize("seed", ["-1", "4294967296"])
def test_seeds_that_are_none(run, seed):
    refused(run("--seed_everything", seed), f"seed_everything is true, or a whole number from 0 to 4294967295; {seed}")


def test_fewer_than_no_pictures_in_tensorboard(run):
    refused(run("--tensorboard", "-1"), "tensorboard is a number of images, 0 or more; -1 was given")


@pytest.mark.parametrize(
    ("path", "reason"),
    [("nothing.At", "No module named 'nothing'"), ("iagan_lightning.operators.Nope", "has no attribute 'Nope'"),
     ("math.sqrt", "it is no class of operators")],
)  # fmt: skip
def test_class_paths_that_lead_nowhere(run, capsys, path, reason):
    refused(run("--operator", path), f"{path}, given for --operator, cannot be used: ", reason)
    assert main(["check-operator", path]) == 2
    said = capsys.readouterr().err
    assert reason in said
    assert "Callable" not in said
    assert said.count("\n") == 1


def test_a_method_whose_module_is_not_there(run):
    refused(
        run("--model", "nothing.At"), "nothing.At, given for --model, cannot be imported: No module named 'nothing'"
    )


# Random operators are not guessed for measurements of one's own ---------------------------------------------------

GAUSSIAN = ["--operator.ratio", "0.3", "--operator.seed", "0", "--operator.design", "auto"]


@pytest.mark.parametrize(
    ("task", "words", "missing"),
    [
        ("compressed-sensing", [], ["ratio", "seed", "design"]),
        ("compressed-sensing", GAUSSIAN[:2], ["seed", "design"]),
        ("compressed-sensing", GAUSSIAN[:4], ["design"]),
        ("compressed-sensing", ["--operator.kind", "fourier", *GAUSSIAN[:2]], ["seed", "design"]),
        ("compressed-sensing", ["--config", str(ROOT / "configs" / "compressed_sensing.yaml")], ["seed"]),
        ("inpainting", ["--operator.ratio", "0.5"], ["seed"]),
    ],
)
def test_what_has_made_the_measurements_is_asked(run, tmp_path, task, words, missing):
    own = tmp_path / "own"
    own.mkdir()
    np.save(own / "a.npy", np.zeros(230, np.float32))
    result = run("--data.measurements", own, *words, task=task)
    refused(result, "what has made the measurements in", "Give --operator.")
    assert " and ".join(f"--operator.{name}" for name in missing) + (" are" if len(missing) > 1 else " is") in result[1]
    assert all(f"--operator.{name}" not in result[1] for name in {"ratio", "seed", "design"} - set(missing))


def test_stated_operators_are_taken(run, tmp_path):
    x, own = torch.rand(1, 3, 16, 16) * 2 - 1, tmp_path / "own"
    own.mkdir()
    gaussian, fourier = GaussianSensing((3, 16, 16), ratio=0.3), FourierSensing((3, 16, 16), ratio=0.3, seed=2)
    torch.save(gaussian.matrix, tmp_path / "matrix.pt")
    torch.save(fourier.mask, tmp_path / "mask.pt")
    stated = tmp_path / "stated.yaml"
    stated.write_text("operator:\n  class_path: iagan_lightning.operators.FourierSensing\n"
                      "  init_args: {ratio: 0.3, seed: 2, design: hermitian}\n")  # fmt: skip
    cases = [
        ("compressed-sensing", gaussian, GAUSSIAN),
        ("compressed-sensing", gaussian, ["--operator.matrix", tmp_path / "matrix.pt"]),
        ("compressed-sensing", fourier, ["--operator.kind", "fourier", "--operator.mask", tmp_path / "mask.pt"]),
        ("compressed-sensing", fourier, ["--config", stated]),
        ("inpainting", Inpainting((3, 16, 16), ratio=0.5, seed=3), ["--operator.ratio", "0.5", "--operator.seed", "3"]),
    ]
    for number, (task, A, words) in enumerate(cases):
        torch.save(A(x)[0], own / "a.pt")
        assert run("--data.measurements", own, *words, task=task, out=f"out{number}")[0] == 0
        record = json.loads((tmp_path / f"out{number}" / "images" / "a" / "metrics.json").read_text())
        assert record["methods"]["iagan_bp"]["residual"] < 1e-5


# Processes --------------------------------------------------------------------------------------------------------


def test_a_file_called_as_a_module_of_python(folder, tiny_weights, tmp_path):
    """In the working folder of two processes: both do their images, and neither reads it."""
    (tmp_path / "random.py").write_text("print('mine'); raise SystemExit(3)")
    words = ["super-resolution", "--model.generator", tiny_weights, "--data.root", folder, "--out", tmp_path / "out",
             "--quiet", "true", "--tensorboard", "0", "--trainer.devices", "2", "--seed_everything", "true",
             *STEPS]  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-m", "iagan_lightning", *map(str, words)], cwd=tmp_path, capture_output=True, text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), *filter(None, sys.path)])},
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (0, "")
    assert "mine" not in done.stderr
    assert "error" not in done.stderr
    assert sorted(path.parent.name for path in (tmp_path / "out").rglob("metrics.json")) == ["0", "1"]


class Failing(torch.utils.data.Dataset):
    """Pictures of which each is damaged."""

    def __len__(self):
        return 2

    def __getitem__(self, index):
        try:
            {}[index]
        except KeyError as error:
            raise ValueError("a.png is damaged: bytes: are missing") from error


def test_a_failing_worker_is_told_without_its_traceback():
    loader = torch.utils.data.DataLoader(Failing(), num_workers=1)
    with pytest.raises(ValueError, match="Original Traceback") as error:
        next(iter(loader))
    assert without_traceback(str(error.value)) == "a.png is damaged: bytes: are missing"
