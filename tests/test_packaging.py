"""The package as it is installed, not as it lies in the checkout."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


def python(*arguments, cwd, **environment):
    """Run Python outside the checkout with nothing but what is named on its path."""
    return subprocess.run(
        [sys.executable, *map(str, arguments)], cwd=cwd, env={"PATH": "", **environment}, capture_output=True, text=True
    )


def test_a_bare_checkout_finds_its_callbacks(tmp_path):
    code = "import iagan_lightning.callbacks as c; print(c.__file__)"
    done = python("-c", code, cwd=tmp_path, PYTHONPATH=str(ROOT))
    assert done.stdout.strip() == str(ROOT / "callbacks" / "__init__.py"), done.stderr


@pytest.mark.slow
def test_an_installed_copy_is_complete(tmp_path):
    site = tmp_path / "site"
    subprocess.run([sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", site, ROOT], check=True)
    code = (
        "import iagan_lightning, iagan_lightning.callbacks as c, iagan_lightning.data.samples as d;"
        "print(c.__file__, len(list(d.EXAMPLES.glob('*.png'))))"
    )
    done = python("-c", code, cwd=tmp_path, PYTHONPATH=str(site))
    assert done.stdout.split() == [str(site / "iagan_lightning" / "callbacks" / "__init__.py"), "2"], done.stderr
    modules = {path.relative_to(ROOT) for path in (ROOT / "iagan_lightning").rglob("*.py")}
    assert {path.relative_to(site) for path in (site / "iagan_lightning").rglob("*.py")} >= modules
    assert (site / "iagan_lightning" / "paper" / "published.csv").is_file()
    assert not (site / "callbacks").exists(), "the callbacks have no name of their own"
    assert not (site / "tests").exists()
    done = python("-m", "iagan_lightning", "super-resolution", "--help", cwd=tmp_path, PYTHONPATH=str(site))
    assert done.returncode == 0, done.stderr
    assert "--model.generator" in done.stdout
    assert done.stderr == ""
    # The main job as a newcomer runs it: from any folder, with the bundled prior and pictures, without a network.
    offline = "import socket, sys; socket.socket.connect = None; from iagan_lightning.cli import main; sys.exit(main())"
    done = python("-c", offline, "super-resolution", "--lpips", "none", cwd=tmp_path, PYTHONPATH=str(site))
    assert done.returncode == 0, done.stderr
    assert "mean over 2 images" in done.stdout
    assert len(list((tmp_path / "runs").rglob("iagan_bp.png"))) == 2


def test_operators_generators_and_solvers_stand_on_nothing_of_ours_but_limits():
    for room in ("operators", "generators", "optim"):
        for path in (ROOT / "iagan_lightning" / room).glob("*.py"):
            used = set(re.findall(r"^\s*(?:from|import) (iagan_lightning\S*)", path.read_text(), re.MULTILINE))
            foreign = {name for name in used if not name.startswith(f"iagan_lightning.{room}")}
            assert foreign <= {"iagan_lightning.safety", "iagan_lightning.plugins"}, path
    assert "iagan_lightning" not in (ROOT / "iagan_lightning" / "safety.py").read_text()
