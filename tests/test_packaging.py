"""The package as it is installed, not as it lies in the checkout."""

import os
import re
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
HERE = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
SEEN = {"capture_output": True, "text": True}


def python(*arguments, cwd, **environment):
    """Run Python outside the checkout with nothing but what is named on its path."""
    return subprocess.run(
        [sys.executable, *map(str, arguments)], cwd=cwd, env={"PATH": "", **environment}, capture_output=True, text=True
    )


def test_a_bare_checkout_finds_its_callbacks(tmp_path):
    code = "import importlib.util as u; print(u.find_spec('iagan_lightning.callbacks').origin)"
    done = python("-c", code, cwd=tmp_path, PYTHONPATH=str(ROOT))
    assert done.stdout.strip() == str(ROOT / "callbacks" / "__init__.py"), done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["wheel", "sdist"])
def test_what_is_built_runs_without_the_repository(kind, tmp_path):
    """In an environment that holds nothing but what was built, and this one's other packages."""
    archive = build(kind, tmp_path / "built")
    environment = tmp_path / "environment"
    subprocess.run([sys.executable, "-m", "venv", environment], check=True)
    own = environment / ("Scripts" if sys.platform == "win32" else "bin")
    subprocess.run([own / "python", "-I", "-m", "pip", "install", "-q", "--no-deps", archive], check=True)
    found = subprocess.run(
        [own / "python", "-I", "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"],
        capture_output=True,
        text=True,
    )
    site = Path(found.stdout.strip())
    # As a plain folder, behind: the .pth files in it, that of an editable install for one, have no effect.
    (site / "others.pth").write_text(sysconfig.get_path("purelib") + "\n")

    modules = {path.relative_to(ROOT) for path in (ROOT / "iagan_lightning").rglob("*.py")}
    assert {path.relative_to(site) for path in (site / "iagan_lightning").rglob("*.py")} >= modules
    assert (site / "iagan_lightning" / "callbacks" / "__init__.py").is_file()
    assert (site / "iagan_lightning" / "paper" / "published.csv").is_file()
    for name in ("callbacks", "tests", "examples", "docs"):
        assert not (site / name).exists(), f"{name} is no package of its own"
    iagan = next(own.glob("iagan*"))
    done = subprocess.run([iagan, "super-resolution", "--help"], cwd=tmp_path, env={"PATH": ""}, **SEEN)
    assert (done.returncode, done.stderr) == (0, "")
    assert "--model.generator" in done.stdout
    # The main job as a newcomer runs it: from any folder, with the bundled prior and pictures, without a network.
    offline = (
        "import socket, sys; socket.socket.connect = None; import iagan_lightning; "
        "from iagan_lightning.cli import main; print(iagan_lightning.__file__); sys.exit(main())"
    )
    job = [own / "python", "-c", offline, "super-resolution", "--lpips", "none"]
    done = subprocess.run(job, cwd=tmp_path, env={"PATH": ""}, **SEEN)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(str(site)), "the copy at work is the installed one"
    assert "mean over 2 images" in done.stdout
    [run] = (tmp_path / "runs").iterdir()
    assert len(list(run.rglob("iagan_bp.png"))) == 2
    done = subprocess.run([iagan, "report", run], cwd=tmp_path, env={"PATH": ""}, **SEEN)
    assert done.returncode == 0, done.stderr
    assert (run / "report.html").stat().st_size > 100_000


def build(kind, folder):
    """Build a wheel, or an sdist, of a copy of the checkout, with setuptools of PyPI."""
    source = folder / "source"
    packed = ("iagan_lightning", "callbacks", "tests", "setup.cfg", "pyproject.toml", "README.md", "LICENSE")
    leave_out = {path.name for path in ROOT.iterdir()} - {*packed}
    shutil.copytree(ROOT, source, ignore=lambda folder, names: leave_out & {*names} if folder == str(ROOT) else ())
    if kind == "wheel":
        subprocess.run([sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", folder, source], check=True)
    else:
        pytest.importorskip("setuptools", reason="the sdist is built by setuptools")
        code = "import sys, setuptools.build_meta as backend; backend.build_sdist(sys.argv[1])"
        subprocess.run([sys.executable, "-c", code, folder], cwd=source, check=True, capture_output=True)
    [archive] = [path for path in folder.iterdir() if path.is_file()]
    shutil.rmtree(source)
    return archive


OPTIONAL = (
    "facenet_pytorch", "deepinv", "matplotlib", "gradio", "ray", "openvino", "tensorflow", "skimage", "pandas",
    "IPython",
)  # fmt: skip


@pytest.mark.parametrize(("before", "after"), [(None, "3000"), ("0", "0")])
def test_waiting_threads_give_their_core_away_unless_told_otherwise(before, after):
    environment = {name: value for name, value in os.environ.items() if name != "GOMP_SPINCOUNT"}
    environment |= {} if before is None else {"GOMP_SPINCOUNT": before}
    said = "import os, sys, iagan_lightning; print(os.environ['GOMP_SPINCOUNT'], 'torch' in sys.modules)"
    run = subprocess.run([sys.executable, "-c", said], env=environment, capture_output=True, text=True, check=True)
    assert run.stdout.split() == [after, "False"]


def test_no_module_needs_an_extra():
    code = (
        f"import sys, pkgutil, importlib\nnames = {OPTIONAL!r}\n"
        "class Without:\n"  # as an environment that does not hold them
        "    def __init__(self, finder):\n"
        "        self.finder = finder\n"
        "    def find_distributions(self, context):\n"  # of all others: jsonargparse asks for pydantic's, gradio's own
        "        look = getattr(self.finder, 'find_distributions', lambda context: [])\n"
        "        return [] if str(context.name).replace('-', '_') in names else look(context)\n"
        "    def find_spec(self, name, *rest):\n"
        "        return None if name.partition('.')[0] in names else self.finder.find_spec(name, *rest)\n"
        "sys.meta_path[:] = map(Without, sys.meta_path)\n"
        "import iagan_lightning, iagan_lightning.callbacks\n"
        "found = [m.name for p in (iagan_lightning, iagan_lightning.callbacks)\n"
        "         for m in pkgutil.walk_packages(p.__path__, p.__name__ + '.') if not m.name.endswith('__main__')]\n"
        "[importlib.import_module(name) for name in found]\n"
        "print(len(found), *(name for name in names if name in sys.modules))"
    )
    done = python("-c", code, cwd=ROOT, PYTHONPATH=HERE)
    assert done.returncode == 0, done.stderr
    number, *taken = done.stdout.split()
    assert int(number) > 100
    assert not taken


# What Windows lacks, taken from our modules alone: asyncio, say, has another one of its own there.
WITHOUT_POSIX = """
import builtins, os, runpy, signal, sys
within = builtins.__import__
def lacking(name, globals=None, locals=None, fromlist=(), level=0):
    if name in ("fcntl", "pwd", "grp", "resource", "termios", "tty", "pty", "readline"):
        if str((globals or {}).get("__name__")).startswith("iagan_lightning"):
            raise ModuleNotFoundError(f"No module named {name!r}")
    return within(name, globals, locals, fromlist, level)
builtins.__import__ = lacking
def refused(*_, **__):
    raise OSError(95, "Operation not supported")
os.link = refused  # a file system without hard links
del signal.SIGHUP, os.sched_getaffinity
from iagan_lightning.cli import main
sys.exit(main())
"""


@pytest.mark.slow
def test_a_run_works_without_what_other_systems_lack(tmp_path):
    words = ["--model.generator", "began64", "--model.latent.steps", "2", "--model.joint.steps", "2", "--lpips", "none"]
    job = ["-c", WITHOUT_POSIX, "super-resolution", *words, "--out", "out", "--trainer.accelerator", "cpu"]
    done = python(*job, cwd=tmp_path, PYTHONPATH=HERE)
    assert done.returncode == 0, done.stderr
    assert len(list(tmp_path.glob("out/images/*/iagan_bp.png"))) == 2


def test_declared_pythons_are_those_of_the_page():
    declared = re.findall(r"Python :: (3\.\d+)", (ROOT / "setup.cfg").read_text())
    tried = re.search(r"\| Pythons \| ([\d., ]+):", (ROOT / "docs" / "installing.md").read_text())
    assert declared == tried[1].split(", ")
    oldest = re.search(r"python_requires = >=(\S+)", (ROOT / "setup.cfg").read_text())
    assert oldest[1] == declared[0]


def test_every_dependency_has_its_licence_on_the_page():
    lines = (ROOT / "setup.cfg").read_text().split("install_requires =")[1].split("[options.package_data]")[0]
    wanted = {re.split(r"[>\[<=!]", line.strip())[0] for line in lines.splitlines() if line.strip()[:1].isalpha()}
    rows = re.findall(r"^\| `([\w*-]+)`.*?\|.*?\| (.+?) \|", (ROOT / "docs" / "installing.md").read_text(), re.M)
    assert wanted == {"torch", "pytorch-lightning", "torchmetrics", "lpips", "numpy", "pillow", "rich", "safetensors",
                      "jsonargparse", "pyyaml", "tensorboard"}  # fmt: skip
    assert wanted <= {name for name, _ in rows}
    assert not [name for name, licence in rows if licence == "not declared"]


def test_operators_generators_and_solvers_stand_on_nothing_of_ours_but_limits():
    for room in ("operators", "generators", "optim"):
        for path in (ROOT / "iagan_lightning" / room).glob("*.py"):
            used = set(re.findall(r"^\s*(?:from|import) (iagan_lightning\S*)", path.read_text(), re.MULTILINE))
            foreign = {name for name in used if not name.startswith(f"iagan_lightning.{room}")}
            lowest = ("checks", "safety", "terminal", "plugins", "replacing", "devices")
            limits = {f"iagan_lightning.{name}" for name in lowest}
            assert foreign <= limits, path
    assert "iagan_lightning" not in (ROOT / "iagan_lightning" / "safety.py").read_text()
