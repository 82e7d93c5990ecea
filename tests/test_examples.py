"""examples/: every script does what it says, with a tiny generator here, as it stands in the slow tests."""

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from iagan_lightning.generators import BEGAN

ROOT = Path(__file__).parent.parent
SCRIPTS = sorted((ROOT / "examples").glob("*.py"))


@pytest.fixture
def example(tmp_path, monkeypatch):
    """Return a function that imports an example in an empty folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setenv("PYTHONPATH", str(ROOT))

    def load(name):
        spec = importlib.util.spec_from_file_location(name, ROOT / "examples" / f"{name}.py")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module

    return load


def test_own_photo(example, tiny, capsys):
    first = example("own_photo").main(G=tiny)
    again = example("own_photo").main("small.png", G=tiny)
    assert torch.equal(first.iagan_bp, again.iagan_bp), "the picture that it made is the picture that is read"
    assert "results: csgm, csgm_bp, iagan, iagan_bp" in capsys.readouterr().out
    assert len(list(Path().glob("enlarged-*/images/small/iagan_bp.png"))) == 2
    assert Path("own_photo.png").is_file()


def test_own_operator(example, tiny, capsys):
    from iagan_lightning.operators.checks import check_operator

    module = example("own_operator")
    images = module.main(tiny)
    A = module.WornSensor(tiny.image_shape)
    assert A.measurement_shape == (3, 10, 8)
    assert all(verdict.passed is not False for verdict in check_operator(A))
    assert images.keys() == {"A^+ y", "csgm", "iagan"}
    assert "240 measurements of 768 values" in capsys.readouterr().out


def test_compare_methods(example, capsys):
    x, _, *made = example("compare_methods").main(BEGAN(64, 4, 8).eval(), dip_steps=2)
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["method", "CSGM", "IAGAN", "ILO", "DIP"]
    for line, image in zip(lines[1:], made, strict=True):
        mse = (image.clamp(-1, 1) - x).square().mean() / 4
        assert float(line.split()[1]) == pytest.approx(float(-10 * mse.log10()), abs=0.006)


def test_noise_sweep(example, tiny, capsys):
    table = torch.tensor(example("noise_sweep").main(tiny, levels=(2, 80)))
    assert (table[0, [0, 2]] > table[1, [0, 2]]).all(), "more noise, worse pictures"
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == ["noise", "2", "80"]


@pytest.mark.filterwarnings("ignore")  # what Lightning says of two steps
def test_own_prior(example, capsys):
    from iagan_lightning import Stage

    few = {"latent": Stage(steps=2), "joint": Stage(steps=2)}
    result = example("own_prior").main(steps=2, channels=4, recipe="BEGANTraining", **few)
    assert result.iagan_bp.shape == (1, 3, 32, 32)
    x = torch.from_numpy(np.array(example("own_prior").disc("a new one"))).permute(2, 0, 1)
    outside = torch.ones(32, 32, dtype=torch.bool)
    outside[12:22, 12:22] = False
    assert torch.allclose(result.iagan_bp[0][:, outside], (x / 127.5 - 1)[:, outside], atol=1e-5)
    assert "iagan_bp" in capsys.readouterr().out


def test_thousand_pictures(example, capsys):
    few = ["--model.latent.steps", "2", "--model.joint.steps", "2"]
    assert example("thousand_pictures").main(count=12, processes=1, options=few) == (1, 0)
    captured = capsys.readouterr()
    assert "12 of 12 are done" in captured.out
    assert "0007" in captured.err


def test_the_page_shows_every_example_and_nothing_else():
    """The code is taken from the scripts by Sphinx; each has a section with what it printed."""
    page = (ROOT / "docs" / "examples.md").read_text(encoding="utf-8")
    assert re.findall(r"literalinclude\} \.\./examples/(\w+)\.py", page) == [
        "own_photo", "own_operator", "own_prior", "compare_methods", "noise_sweep", "thousand_pictures"
    ]  # fmt: skip
    assert {path.stem for path in SCRIPTS} == set(re.findall(r"python examples/(\w+)\.py", page))


@pytest.mark.slow
@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_scripts_run_as_they_stand(script, tmp_path, request):
    if script.stem == "own_prior":
        request.getfixturevalue("shared")  # the weights of SqueezeNet
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, script], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "No module" not in done.stderr, "the second process finds the class too"
    gains = [float(number) for number in re.findall(r"(\d+\.\d\d)\b(?= dB)", done.stdout)]
    if script.stem in ("own_operator", "own_prior"):
        assert gains[-1] > gains[0] + 5, done.stdout


def test_the_first_hour_on_the_page_is_the_one_of_its_script():
    """What it shows as typed and written is what the script runs; the script ends where a command fails."""
    spec = importlib.util.spec_from_file_location("make_first_hour", ROOT / "docs" / "make_first_hour.py")
    script = importlib.util.module_from_spec(spec)
    sys.modules["make_first_hour"] = script  # dataclasses look there
    spec.loader.exec_module(script)
    page = (ROOT / "docs" / "first_hour.md").read_text(encoding="utf-8")
    typed = [command.format(root="iagan-lightning/") for step in script.STEPS for command in step.commands]
    assert re.findall(r"^\$ (.*)$", page, re.MULTILINE) == typed
    for step in script.STEPS:
        assert f"\n## {step.title}\n" in page
        assert all(content in page for content in step.files.values())
    assert str(ROOT) not in page
    assert script.trim("\n".join(map(str, range(50))), 4) == "0\n1\n...\n48\n49"
