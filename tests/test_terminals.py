"""Terminals that know few letters, pipes whose readers leave, streams that are closed: real processes, as they end."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from iagan_lightning.cli import COMMANDS, HELP

ROOT = Path(__file__).parent.parent
STEPS = ["--model.latent.steps", "3", "--model.joint.steps", "2", "--trainer.accelerator", "cpu", "--lpips", "none"]
CLOSINGS = {
    "kept": "",
    "stdout closed": ">&-",
    "stderr closed": "2>&-",
    "both closed": ">&- 2>&-",
    "all closed": "<&- >&- 2>&-",
}


def iagan(*arguments, cwd, closing="", door=("-m", "iagan_lightning"), **environment):
    """Run the command in a process of its own, its streams closed beforehand as a shell does it."""
    inherited = {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "LC_", "LANG"))}
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    command = ["sh", "-c", f'exec "$@" {closing}', "sh", sys.executable, *door, *map(str, arguments)]
    environment = {**inherited, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", **environment}
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, timeout=120)


def deaf(*arguments, cwd, door=("-m", "iagan_lightning"), **environment):
    """Run the command with both streams in one pipe whose reader has left."""
    read, write = os.pipe()
    os.close(read)
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", **environment}
    command = [sys.executable, *door, *map(str, arguments)]
    try:
        return subprocess.run(command, cwd=cwd, env=environment, stdout=write, stderr=write, timeout=120).returncode
    finally:
        os.close(write)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """A picture whose name no Western terminal can show, and one that is none."""
    folder = tmp_path_factory.mktemp("pictures")
    pixels = np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(folder / "写真.png")
    return folder


def task(tiny_weights, pictures, out):
    common = ["--model.generator", tiny_weights, "--data.root", pictures, "--out", out, "--tensorboard", "0"]
    return ["super-resolution", *common, *STEPS]


def test_what_there_is_to_say_comes_without_its_line_of_code(tiny_weights, pictures, tmp_path):
    amplified = ["--noise_std", "0.1", "--back_projection", "true"]
    said = iagan(*task(tiny_weights, pictures, tmp_path / "out"), *amplified, cwd=tmp_path).stderr.decode()
    line = "iagan: back-projection of measurements with noise_std 0.1 amplifies the noise"
    assert line in said.splitlines() and ".py:" not in said


@pytest.mark.parametrize("closing", CLOSINGS)
def test_help_whatever_is_closed(tmp_path, closing):
    done = iagan("--help", cwd=tmp_path, closing=CLOSINGS[closing])
    assert done.returncode == 0
    assert done.stdout.decode() == ("" if ">&-" in CLOSINGS[closing].split() else HELP)
    assert done.stderr == b""
    assert iagan("nothing", cwd=tmp_path, closing=CLOSINGS[closing]).returncode == 2


@pytest.mark.parametrize("arguments", [["--help"], ["--version"]])
def test_a_pipe_whose_reader_has_left(tmp_path, arguments):
    read, write = os.pipe()
    os.close(read)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    for unbuffered in ({}, {"PYTHONUNBUFFERED": "1"}):
        done = subprocess.run(
            [sys.executable, "-m", "iagan_lightning", *arguments],
            cwd=tmp_path, env=environment | unbuffered, stdout=write, stderr=subprocess.PIPE,
        )  # fmt: skip
        assert (done.returncode, done.stderr) == (0, b"")
    os.close(write)
    assert deaf("nothing", cwd=tmp_path) == 2


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_behind_the_output_is_told_in_one_line(tmp_path):
    with open("/dev/full", "w") as full:
        command = [sys.executable, "-m", "iagan_lightning", "--help"]
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        done = subprocess.run(command, cwd=tmp_path, env=environment, stdout=full, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 2
    assert "No space left" in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_run_ends_well_where_a_name_cannot_be_shown(tiny_weights, pictures, tmp_path):
    out = tmp_path / "out"
    few = {"PYTHONUTF8": "0", "LC_ALL": "C", "PYTHONCOERCECLOCALE": "0"}
    done = iagan(*task(tiny_weights, pictures, out), cwd=tmp_path, **few)
    assert done.returncode == 0, done.stderr
    assert b"Traceback" not in done.stderr
    assert rb"\udce5\udc86" in done.stderr, "the name, as escapes"
    assert b"mean over 1 images" in done.stdout
    assert (out / "images" / "写真" / "iagan_bp.png").is_file()
    assert json.loads((out / "summary.json").read_text())["images"] == 1


EVERY = """
import sys
from iagan_lightning.cli import main

record = open(sys.argv[1], "w")
out, tiny = sys.argv[2:4]
image = f"{out}/images/写真"
words = [[command, "--help"] for command in sys.argv[4].split(",")]
words += [[*sys.argv[5:], "--save", "weights"]]
words += [["report", out], ["rebuild", image, "--generator", tiny]]
words += [["import-prior", tiny, "--out", f"{out}/p.safetensors"], ["check-operator", "Identity"]]
words += [["report", "写真"], ["reproduce", "--table", "写真", "--data.root", "写真"]]
for line in words:
    sys.argv = ["iagan", *line]
    try:
        status = main()
    except SystemExit as stop:
        status = stop.code or 0
    print(line[0], status, file=record, flush=True)
"""


@pytest.mark.parametrize("nobody", ["reads", pytest.param("is there", marks=pytest.mark.slow)])
def test_every_command(tiny_weights, pictures, tmp_path, nobody):
    """The help of each, a run, and what each does that takes no time; bad arguments are still status 2."""
    script, record, out = tmp_path / "every.py", tmp_path / "record", tmp_path / "out"
    script.write_text(EVERY, encoding="utf-8")
    arguments = [record, out, tiny_weights, ",".join(COMMANDS), *task(tiny_weights, pictures, out)]
    if nobody == "reads":
        assert deaf(*arguments, cwd=tmp_path, door=[script], PYTHONIOENCODING="cp1252") == 0
    else:
        assert iagan(*arguments, cwd=tmp_path, door=[script], closing=">&- 2>&-").returncode == 0
    ended = [line.split() for line in record.read_text().splitlines()]
    expected = [*COMMANDS, "super-resolution", "report", "rebuild", "import-prior", "check-operator"]
    assert json.loads((out / "summary.json").read_text())["images"] == 1
    assert ended == [*([name, "0"] for name in expected), ["report", "2"], ["reproduce", "2"]]
