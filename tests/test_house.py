"""The rooms of the package: arrows go one way, old doors stay open, nothing else is let in."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

# From the lowest room to the highest; each may import those before it.
ROOMS = (
    "checks", "safety", "urls", "replacing", "deferred", "signals", "terminal", "plugins", "devices", "operators",
    "generators", "optim", "methods", "data", "results", "images", "metrics", "callbacks", "reconstruction",
    "prediction", "training", "runs", "photo", "app", "commands", "cli", "__main__",
)  # fmt: skip
TOGETHER = {"commands": {"paper"}, "paper": {"results", "data", "operators"}}  # the paper's tables serve one command


def imports(path):
    """What a file imports of ours, anywhere in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
    return {name for name in found if name.startswith("iagan_lightning.")}


def files():
    for path in sorted((ROOT / "iagan_lightning").rglob("*.py")):
        yield path, path.relative_to(ROOT / "iagan_lightning").with_suffix("").parts
    for path in sorted((ROOT / "callbacks").glob("*.py")):
        yield path, ("callbacks", path.stem)


def test_no_arrow_goes_up():
    for path, (room, *_) in files():
        if room == "__init__":
            continue
        below = TOGETHER["paper"] if room == "paper" else set(ROOMS[: ROOMS.index(room) + 1])
        for name in imports(path):
            target = name.split(".")[1]
            if target in (*ROOMS, "paper"):
                allowed = below | TOGETHER.get(room, set()) | {room}
                assert target in allowed, f"{path.relative_to(ROOT)} imports {name}, which stands above it"


def test_no_circle_within_a_room():
    """The imports of the modules, those within functions aside, have no circle."""
    modules = {".".join(["iagan_lightning", *parts]).removesuffix(".__init__"): path for path, parts in files()}
    arrows = {}
    for name, path in modules.items():
        tree = ast.parse(path.read_text(encoding="utf-8"))
        targets = set()
        for node in tree.body:
            if isinstance(node, ast.ImportFrom) and node.module:
                targets |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
        # A package's own modules are behind its door: what they import of each other counts, the door does not.
        arrows[name] = {t for t in targets & set(modules) if t != name and not name.startswith(f"{t}.")}
    done, path = set(), []

    def visit(name):
        assert name not in path, f"a circle: {' -> '.join([*path[path.index(name) :], name])}"
        if name in done:
            return
        path.append(name)
        for target in sorted(arrows[name]):
            visit(target)
        path.pop()
        done.add(name)

    for name in modules:
        visit(name)


@pytest.mark.parametrize(
    "line",
    [
        "from iagan_lightning import IAGAN, DIP, DIPSettings, Reconstruction, Stage, adapt, reconstruct",
        "from iagan_lightning.images import fit_image, read_image, to_pillow",
        "from iagan_lightning.metrics import evaluate",
        "from iagan_lightning.callbacks import BackProjection, BestObjective, StageStopping",
        "from iagan_lightning.operators import LinearOperator",
        "from iagan_lightning.operators.deepinv import DeepinvOperator",
        "from iagan_lightning.generators import BEGAN, PGGAN, load_generator, save_generator",
        "from iagan_lightning.data import ImageData; from iagan_lightning.training import VAEGANTraining",
    ],
)
def test_names_that_the_documentation_showed_can_still_be_imported(line):
    exec(line, {})


def test_a_checkout_lends_its_callbacks_and_nothing_else():
    code = (
        "import sys; sys.path[:0] = [sys.argv[1]]\n"
        "sys.meta_path[:] = [f for f in sys.meta_path if 'editable' not in repr(f)]\n"  # as without pip install -e
        "from importlib.util import find_spec\n"
        "print(find_spec('iagan_lightning.callbacks').origin)\n"
        "for name in ('tests', 'benchmarks', 'docs'):\n"
        "    try:\n"
        "        __import__(f'iagan_lightning.{name}')\n"
        "    except ImportError:\n"
        "        continue\n"
        "    raise SystemExit(f'{name} can be imported')\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(ROOT)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == str(ROOT / "callbacks" / "__init__.py")
