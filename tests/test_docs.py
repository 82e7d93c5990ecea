"""Every code block of README.md and docs/ is run: Python as it stands, YAML as --config, commands on tiny settings."""

import configparser
import json
import re
import shlex
import shutil
import subprocess
import sys
import tarfile
from importlib.util import find_spec
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import torch
from markdown_it import MarkdownIt
from PIL import Image
from safetensors.torch import load_file
from stylegan2_files import nvidia_module, random_tensors, snapshot, write_pickle

from iagan_lightning import plugins
from iagan_lightning.cli import COMMANDS, HELP, TASKS, main
from iagan_lightning.commands import app
from iagan_lightning.generators import BEGAN, PGGAN, load_generator

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
TOKENS = {page: MarkdownIt().enable("table").parse(page.read_text(encoding="utf-8")) for page in PAGES}


def name(page):
    return str(page.relative_to(ROOT))


def blocks(*languages):
    """The blocks of these languages, as parameters named by page and line."""
    return [
        pytest.param(token.content, id=f"{name(page)}:{token.map[0] + 1}", marks=marks(token.content))
        for page, tokens in TOKENS.items()
        for token in tokens
        if token.type == "fence" and token.info in languages
    ]


def marks(block):
    """Blocks of many processes and of benchmarks are for the slow tests; some want an extra."""
    wanted = {"--engine ray": "ray", "--out_format parquet": "pyarrow"}
    missing = [package for words, package in wanted.items() if words in block and find_spec(package) is None]
    slow = [pytest.mark.slow] if "torchrun" in block or "benchmarks/" in block else []
    return [*slow, *(pytest.mark.skip(reason=f"needs {package}: pip install '.[ray]'") for package in missing)]


def test_every_block_is_of_a_kind_that_is_run():
    for page, tokens in TOKENS.items():
        for token in tokens:
            assert token.type != "code_block", f"{name(page)}:{token.map[0] + 1}: a block without fences and language"
            if token.type == "fence":  # those in braces are Sphinx's, run by test_site.py
                kinds = {"python", "bash", "yaml", "ini", "bibtex", "{toctree}", "{eval-rst}"}
                if page.name in ("examples.md", "first_hour.md"):  # written by scripts that ran what they show
                    kinds |= {"console", "{literalinclude} " + token.info.rpartition(" ")[2], "{code-block} python"}
                assert token.info in kinds or token.content.startswith("OUT/"), f"{name(page)}: {token.content}"


def test_commands_in_the_text_exist():
    words = {
        token.content.split()[1]
        for tokens in TOKENS.values()
        for inline in tokens
        for token in inline.children or ()
        if token.type == "code_inline" and token.content.startswith("iagan ")
    }
    assert {"super-resolution", "report", "check-operator"} <= words
    assert words <= {*COMMANDS, "TASK"}
    assert all(task in HELP for task in COMMANDS)


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text(encoding="utf-8")):
        assert target.startswith("https://") or (page.parent / target).exists(), target


# Python -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("page", [page for page in PAGES if page.name != "extend.md"], ids=name)
def test_python_blocks_run(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # a block may write files
    written = [token.content for token in TOKENS[page] if token.type == "fence" and token.info == "python"]
    namespace = {}
    for block in written:
        exec(compile(block, str(page), "exec"), namespace)
    if page.name == "README.md":
        assert len(written) >= 3
        assert namespace["module"].results["iagan_bp"].shape == (1, 3, 16, 16)
    if page == ROOT / "docs" / "index.md":
        assert namespace["result"].iagan_bp.shape == (1, 3, 64, 64)
    if page.name == "method.md":
        assert [stage for stage, *_ in namespace["watch"].seen] == ["latent"] * 5 + ["joint"] * 5


def test_the_page_on_extending_does_what_it_says():
    """Its examples are as short as the page says, and its numbers are recomputed."""
    page = ROOT / "docs" / "extend.md"
    blocks = [token.content for token in TOKENS[page] if token.type == "fence" and token.info == "python"]
    lines = {
        name: [
            line for line in block.splitlines() if line.strip() and not line.startswith(("import", "from", "assert"))
        ]
        for name in ("Polished", "Smooth", "mae", "Saturated", "Styled", "colourise")
        for block in blocks
        if name in block
    }
    limits = {"Polished": 10, "Smooth": 8, "mae": 5, "Saturated": 10, "Styled": 15, "colourise": 10}
    assert all(len(lines[name]) <= limit for name, limit in limits.items()), {n: len(x) for n, x in lines.items()}
    names = {}
    try:
        for block in blocks:
            exec(compile(block, str(page), "exec"), names)
        A, y, smooth, polished = names["A"], names["y"], names["smooth"], names["polished"]
        x = smooth.iagan
        misfit = (A(x) - y).square().mean()
        penalty = 0.01 * (x.diff(dim=-2).abs().mean() + x.diff(dim=-1).abs().mean())
        assert float(smooth.objective["joint"]) == pytest.approx(float(misfit + penalty), rel=1e-6)
        assert polished.objective["polish"] < polished.objective["joint"]
        assert torch.allclose(A(polished["polished_bp"]), y, atol=1e-5)
        averaged = names["averaged"]
        assert torch.equal(averaged["average"], (averaged.csgm + averaged.iagan) / 2)
        assert names["styled"].evaluations.keys() == {"latent", "style"}
        assert main(["colourise", "--help"]) == 0
    finally:
        from iagan_lightning.commands.tasks import TASKS, TaskTrainer
        from iagan_lightning.results.registry import METRICS, OWN

        METRICS.pop("mae", None), OWN.pop("mae", None)
        if TASKS.pop("colourise", None):
            delattr(TaskTrainer, "colourise")
    written = next(token.content for token in TOKENS[page] if token.info == "ini")
    parser = configparser.ConfigParser()
    parser.read_string(written)
    groups = {key.removeprefix("iagan_lightning.") for key in parser["options.entry_points"]}
    assert groups == set(get_args(plugins.Group))


# Commands: bash reads a block, its programs only tell how they were called, and then each call is made ---------------

# What is put behind the words of a command, where the block says nothing else, to make it short.
FEW = {
    "--model.latent.steps": "2",
    "--model.joint.steps": "2",
    "--lpips": "none",
    "--trainer.accelerator": "cpu",
}
FEW_OF_DIP = FEW | {"--dip_settings.steps": "3"}  # of a command with it
SMALL = {
    "--model.channels": "4",
    "--model.latent": "8",
    "--data.batch_size": "2",
    "--steps": "2",  # those of the page take hours
    "--trainer.accelerator": "cpu",  # a page may ask for a GPU
}
SMALL_ENCODER = {name: value for name, value in SMALL.items() if name not in ("--model.channels", "--model.latent")}
SMALL_ENCODER["--model.samples"] = "20"
INSTALLED = ("python3 -m venv .venv", ".venv/bin/pip install", ".venv/bin/python -m pytest")  # .ci/run does so
PROGRAMS = ("iagan", "python", "python3", "torchrun", "srun", ".venv/bin/iagan", ".venv/bin/pip", ".venv/bin/python")


def calls_of(block):
    """How a block calls its programs, after bash has expanded variables, quotes and continued lines."""
    record = "".join(f"function {name} {{ printf '%q ' {name} \"$@\"; echo; }}\n" for name in PROGRAMS)
    bash = [shutil.which("bash"), "-euo", "pipefail", "-c", record + block]
    done = subprocess.run(bash, env={"PATH": "/nowhere"}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr  # also where a program is none of those
    return [shlex.split(line) for line in done.stdout.splitlines()]


def draw(folder, pixels, count=1):
    """Smooth square pictures."""
    folder.mkdir(parents=True)
    for i in range(count):
        small = np.random.default_rng(i).integers(0, 256, (4, 4, 3), dtype=np.uint8)
        Image.fromarray(small).resize((pixels, pixels), Image.Resampling.BICUBIC).save(folder / f"{i:02}.png")


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A checkout with what the pages speak of: folders of pictures, weights, modules of the reader's own."""
    for name, pixels in {
        "my-pictures": 128, "my-small-pictures": 16, "noisy": 16, "my-blurred-pictures": 128,
        "my-noisy-pictures": 128, "faces": 128, "FACES": 128,
    }.items():  # fmt: skip
        draw(tmp_path / "checkout" / name, pixels, {"faces": 2, "FACES": 52}.get(name, 1))
    place = tmp_path / "checkout"
    with tarfile.open(place / "TRAINING_FACES.tar", "w") as tar:
        draw(tmp_path / "train", 128, 2)
        tar.add(tmp_path / "train", "train")
    torch.manual_seed(0)
    torch.save(BEGAN(32, 4, 8).state_dict(), place / "began64-celeba.pth")
    torch.save(PGGAN(32, (8, 8, 8, 8), 8).state_dict(), place / "weights.pkl")
    write_pickle(place / "network-snapshot.pkl", snapshot(nvidia_module(random_tensors())))
    write_pickle(place / "cifar10.pkl", snapshot(nvidia_module(random_tensors(classes=10))))
    for name in ("configs", "benchmarks", "docs"):
        ignored = shutil.ignore_patterns("_build", "pictures", "__pycache__")
        shutil.copytree(ROOT / name, place / name, ignore=ignored)
    shutil.copy(ROOT / "README.md", place)
    shutil.copy(next((place / "my-small-pictures").iterdir()), place / "my-photo.jpg")
    for token in (token for tokens in TOKENS.values() for token in tokens if token.info == "python"):
        if named := re.match(r"# (\w+\.py)\n", token.content):  # the reader's own module
            (place / named[1]).write_text(token.content)
    monkeypatch.chdir(place)
    monkeypatch.syspath_prepend(place)
    yield place
    for name in ("my_module", "my_package"):
        sys.modules.pop(name, None)


def out_of(words):
    """The folder that a run wrote to."""
    if "--out" in words:
        return Path(words[words.index("--out") + 1])
    return max(Path("runs").iterdir(), key=lambda path: path.stat().st_mtime)


def given(words, name):
    return words[words.index(name) + 1] if name in words else None


def iagan(words):
    """Make one call of iagan, short, and look at what it left."""
    command, *options = words
    if command == "app":  # it would not end; tests/test_app.py runs it
        assert app.parser().parse_args(options)
        return
    short = {"train-prior": SMALL_ENCODER if "EncoderTraining" in options else SMALL}.get(command, {})
    if command in TASKS:
        short = FEW_OF_DIP if "--dip" in options else FEW
    if command == "report" and not Path(options[0]).exists():  # the page takes runs for granted
        if not Path("a-run").exists():
            iagan(["super-resolution", "--out", "a-run"])
        for name in (word for word in options if word.endswith("/")):
            shutil.copytree("a-run", name)
    assert main([command, *options, *(word for pair in short.items() for word in pair)]) == 0
    if command in TASKS:
        folder = given(words, "--data.root") or given(words, "--data.measurements")
        names = [path.stem for path in Path(folder).iterdir()] if folder else ["astronaut", "grace_hopper"]
        results = out_of(words)
        assert json.loads((results / "summary.json").read_text())["images"] == len(names)
        assert all(file.is_file() for file in (results / "images" / name / "iagan.png" for name in names)) or (
            "parquet" in words and list((results / "shards").glob("*.parquet"))
        )
    elif command == "train-prior":
        prior = load_generator(out_of(words) / "prior.safetensors")
        assert prior.latent_shape == (8,) or given(words, "--model.generator") == "network-snapshot.pkl"
        assert (prior.encoder is not None) == ("EncoderTraining" in words)
    elif command == "export":
        assert list(Path(given(words, "--to")).glob("images/*/iagan.png"))
    elif command == "import-prior":
        assert load_file(given(words, "--out"))
    elif command == "report":
        assert "<html" in Path(given(words, "--out") or Path(options[0], "report.html")).read_text()
    elif command == "photo":
        out = Path(given(words, "--out") or "my-photo_iagan.png")
        [photograph] = Path(words[1]).iterdir() if Path(words[1]).is_dir() else [Path(words[1])]
        result = out if out.suffix else out / f"{photograph.stem}_iagan.png"
        with Image.open(photograph) as before, Image.open(result) as after:
            assert after.width == before.width * int(given(words, "--scale") or 2)
        for path in (result, result.with_name(f"{result.stem.removesuffix('_iagan')}.iagan.json")):
            path.unlink()  # the next command of the page may write it again
    else:
        assert command == "check-operator", "say here what this command leaves behind"


def benchmark(words):
    """Run benchmarks/speed.py with one problem and one image; the generator is a small one."""
    assert words[0] == "benchmarks/speed.py"
    words = [sys.executable, *words, "--count", "1", "--problems", "x4-noisy", "--keep", "kept"]
    subprocess.run(words, check=True)
    pages = {page: Path(page).read_text() for page in ("docs/speed.md", "README.md")}
    assert all("faces 51 to 51 of the folder" in text for text in pages.values())
    kept = {path: path.read_bytes() for path in Path("kept").iterdir()}
    subprocess.run(words, check=True)  # seconds too are those that were kept
    assert kept and kept == {path: path.read_bytes() for path in Path("kept").iterdir()}
    assert pages == {page: Path(page).read_text() for page in pages}


@pytest.mark.parametrize("block", blocks("bash"))
@pytest.mark.filterwarnings("ignore:Precision bf16-mixed is not supported by the model summary")  # Lightning's own
def test_commands_run(block, place, monkeypatch, request):
    if "VAEGANTraining" in block or "model.perceptual" in block or "speed.py" in block:
        request.getfixturevalue("squeezenet")
    for words in calls_of(block):
        program, *rest = words
        if " ".join(words).startswith(INSTALLED):
            extras = re.findall(r"\.\[(.*)\]", " ".join(words))
            assert all(f"\n{extra} =\n" in (ROOT / "setup.cfg").read_text() for extra in extras)
        elif program in ("iagan", ".venv/bin/iagan"):
            iagan(rest)
        elif program == "srun":  # not there, so without it
            iagan(rest[rest.index("iagan") + 1 :])
        elif program == "torchrun":
            (*launcher, _, module), options = rest[:4], rest[4:]
            assert module == "iagan_lightning"
            shutil.rmtree(given(options, "--out"))
            words = [sys.executable, "-m", "torch.distributed.run", "--standalone", *launcher, "-m", module, *options]
            monkeypatch.setenv("PYTHONPATH", str(ROOT))
            subprocess.run([*words, *(word for pair in FEW.items() for word in pair)], check=True)
            assert json.loads(Path(given(options, "--out"), "summary.json").read_text())["images"] == 2
        else:
            assert program == "python"
            benchmark(rest)


# Configuration and layout ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("block", blocks("yaml"))
def test_configurations_run(block, place):
    """The file that a page shows, with the class and weights of the reader's own beside it."""
    prompt, command = block.splitlines()[0].split(maxsplit=1)
    assert prompt == "#"
    words = shlex.split(command)
    Path(given(words, "--config")).write_text(block)
    from my_package import MyGenerator

    torch.save(MyGenerator(256).state_dict(), "my_weights.pth")
    iagan(words[1:])


def test_the_layout_of_results_is_the_one_shown(place, tiny_weights):
    """The tree in the README names every file of a run, and no other."""
    [tree] = [token.content for token in TOKENS[ROOT / "README.md"] if token.content.startswith("OUT/")]
    names = re.findall(r"^OUT/images/NAME/(.*(?:\n .*)*)", tree, re.M)[0].split()
    shown = {word for word in names if re.fullmatch(r"\w+\.(png|pt|csv|json|txt)", word)}
    above = set(re.findall(r"\bOUT/([\w.]+)", tree))
    (place / "my-small-pictures" / "broken.png").write_text("no picture")
    words = ["inpainting", "--data.root", "my-small-pictures", "--model.generator", str(tiny_weights), "--out", "OUT",
             "--dip", "true", "--dip_settings.steps", "2"]  # fmt: skip
    assert main([*words, *(word for pair in FEW.items() for word in pair)]) == 1
    assert main(["report", "OUT"]) == 0
    written = {path.name for folder in Path("OUT/images").iterdir() for path in folder.iterdir()}
    assert written == shown
    assert {path.name for path in Path("OUT").iterdir() if not path.name.startswith(".")} == above
