"""Real signals to real processes at several moments: status 128 + number, one line, nothing lost, nobody left."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from iagan_lightning.cli import COMMANDS, TASKS, main

ROOT = Path(__file__).parent.parent
TELLS = {signal.SIGINT: "interrupted", signal.SIGTERM: "ended by SIGTERM", signal.SIGHUP: "ended by SIGHUP"}
TRAINING = ["--model.resolution", "16", "--model.channels", "4", "--model.latent", "8", "--data.batch_size", "3"]

pytestmark = pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="looks at processes through /proc")


@pytest.fixture
def start(tmp_path):
    """Start a command; it has a group of its own, which is killed in the end."""
    started = []

    def begin(*args, launcher=("-m", "iagan_lightning"), ignore=()):
        threads = str(torch.get_num_threads())  # sums of one training must be those of another

        def prepare():  # whoever runs the tests in the background has SIGINT ignored, and children inherit that
            for number in TELLS:
                signal.signal(number, signal.SIG_IGN if number in ignore else signal.SIG_DFL)

        process = subprocess.Popen(
            [sys.executable, *launcher, *map(str, args)], cwd=tmp_path, text=True, start_new_session=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, preexec_fn=prepare,
            env={**os.environ, "PYTHONPATH": f"{ROOT}:{os.environ.get('PYTHONPATH', '')}", "OMP_NUM_THREADS": threads},
        )  # fmt: skip
        started.append(process)
        return process

    yield begin
    for process in started:
        if group(process):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def group(process):
    """The numbers of the processes of a group that are at work."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, number = path.read_text().rpartition(")")[2].split()[:3]
        except OSError:
            continue
        if int(number) == process.pid and state != "Z":
            found.append(int(path.parent.name))
    return found


def wait_for(condition, process):
    deadline = time.monotonic() + 120
    while not condition():
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline
        time.sleep(0.005)


def catches(process, number=signal.SIGTERM):
    """Tell whether a process has a handler of its own for a signal."""
    status = Path(f"/proc/{process.pid}/status").read_text()
    caught = next(line for line in status.splitlines() if line.startswith("SigCgt"))
    return bool(int(caught.split()[1], 16) >> (number - 1) & 1)


def loaded(process):
    return "libtorch_cpu" in Path(f"/proc/{process.pid}/maps").read_text()


def ended(process, number):
    """The lines on standard error of a process that a signal has ended, the last one without its name."""
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 128 + number, errors
    assert "Traceback" not in errors
    assert not group(process), "somebody was left behind"
    lines = errors.splitlines()
    assert [line.startswith("iagan: ") for line in lines].count(True) == 1, errors
    assert lines[-1].startswith(f"iagan: {TELLS[number]}"), errors
    assert lines[-1].endswith(" goes on where this one stopped")
    return lines[-1]


def pictures(folder, count):
    folder.mkdir()
    for i in range(count):
        pixels = np.random.default_rng(i).integers(0, 256, (16, 16, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{i}.png")
    return folder


# At any moment --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("command", "number"),
    [(command, list(TELLS)[i % 3]) for i, command in enumerate([TASKS[0], *COMMANDS[len(TASKS) :]])],
)
def test_every_command_while_it_is_being_imported(start, command, number):
    process = start(command, "--nothing")
    wait_for(lambda: catches(process), process)
    assert not loaded(process)
    process.send_signal(number)
    ended(process, number)


def test_while_pytorch_is_being_imported(start):
    process = start("check-operator", "Identity")
    wait_for(lambda: loaded(process), process)
    process.terminate()
    ended(process, signal.SIGTERM)


def test_what_is_to_be_ignored_is_ignored(start):
    """As under nohup: the terminal is closed, the command goes on."""
    process = start("check-operator", "Identity", ignore=(signal.SIGHUP,))
    wait_for(lambda: catches(process), process)
    assert not catches(process, signal.SIGHUP)
    process.send_signal(signal.SIGHUP)
    time.sleep(0.1)
    process.terminate()
    ended(process, signal.SIGTERM)


# Runs -----------------------------------------------------------------------------------------------------------------


@pytest.fixture
def run(tiny_weights, tmp_path):
    """Arguments of a run that takes minutes, and of one that does what is left with few steps."""
    folder = pictures(tmp_path / "pictures", 3)
    common = ["super-resolution", "--data.root", folder, "--model.generator", tiny_weights, "--lpips", "none"]
    return [*common, "--model.preset", "paper", "--model.latent.steps", "1000000", "--tensorboard", "0"]


def at_work(out, count=1):
    """Tell whether so many processes hold the lock on an image."""
    try:
        inode = (out / ".lock").stat().st_ino
    except FileNotFoundError:
        return False
    held = [line.split() for line in Path("/proc/locks").read_text().splitlines()]
    return len({words[4] for words in held if len(words) == 8 and words[5].endswith(f":{inode}")}) == count


@pytest.mark.parametrize("number", [signal.SIGTERM, pytest.param(signal.SIGHUP, marks=pytest.mark.slow)])
def test_a_fit(start, run, tmp_path, number):
    """Once in a folder that was given, once in one that the run has named itself and has to tell."""
    given = number == signal.SIGTERM
    process = start(*run, *(("--out", "out") if given else ()))
    wait_for(lambda: any(map(at_work, [tmp_path / "out", *tmp_path.glob("runs/*")])), process)
    time.sleep(0.3)  # into the fit
    process.send_signal(number)
    process.send_signal(number)  # `timeout` tells its child, and then the group of its child
    (out,) = [tmp_path / "out"] if given else tmp_path.glob("runs/*")
    again = "the same command" if given else f"the same command with --out {out.relative_to(tmp_path)}"
    assert f"0 of 3 images are done; {again} goes on" in ended(process, number)
    assert json.loads((out / "summary.json").read_text())["images"] == 0
    assert not list(out.rglob("metrics.json"))
    assert not list(out.rglob("error.txt")), "being ended is no failure of the image"


@pytest.mark.slow
def test_the_other_processes_of_a_run_end_with_it(start, run, tmp_path):
    process = start(*run, "--out", "out", "--trainer.devices", "2", "--trainer.accelerator", "cpu")
    wait_for(lambda: at_work(tmp_path / "out", 2), process)
    process.terminate()  # the first one only
    assert "0 of 3 images are done" in ended(process, signal.SIGTERM)


# Trainings ------------------------------------------------------------------------------------------------------------


def train(folder, out, *more):
    return ["train-prior", "--data.root", folder, "--out", out, "--trainer.accelerator", "cpu", *TRAINING, *more]


@pytest.mark.parametrize(
    "more", [("--data.workers", "1"), pytest.param(("--trainer.devices", "2"), marks=pytest.mark.slow)]
)
def test_a_training_keeps_the_step_that_it_has_come_to(start, tmp_path, more):
    folder, out = pictures(tmp_path / "pictures", 4), tmp_path / "out"
    # No checkpoint falls due by itself; events show that steps are being made.
    process = start(*train(folder, out, "--steps", "1000000", "--checkpoint_every", "1000000", *more))
    wait_for(lambda: sum(p.stat().st_size for p in out.glob("tensorboard/events*")) > 200, process)
    if "--trainer.devices" in more:
        process.terminate()  # the first one only
    else:
        os.killpg(process.pid, signal.SIGTERM)  # as systemd does, those that read pictures for it too
    line = ended(process, signal.SIGTERM)
    steps = torch.load(out / "last.ckpt", weights_only=True)["global_step"]
    assert 50 <= steps < 1000000
    assert (
        f"{steps} of 1000000 steps are done and kept in {out / 'last.ckpt'}; the same command with --out {out}" in line
    )
    if "--trainer.devices" not in more:
        for place in (out, tmp_path / "whole"):
            assert main([str(word) for word in train(folder, place, "--steps", steps + 3)]) == 0
        parts, whole = (torch.load(place / "last.ckpt", weights_only=True) for place in (out, tmp_path / "whole"))
        for key, value in whole["state_dict"].items():
            assert torch.equal(parts["state_dict"][key], value), "as if nothing had happened"


def test_a_second_control_c_does_not_wait(start, tmp_path):
    """A step that never ends: the first Ctrl-C waits for it, another one a while later does not."""
    script = tmp_path / "endless.py"
    script.write_text(
        "import sys, time\nfrom iagan_lightning import signals\nsignals.catch()\nsignals.hold()\n"
        "print('working', flush=True)\nwhile True:\n    time.sleep(0.01)\n"
    )
    process = start(launcher=(script,))
    assert process.stdout.readline() == "working\n"
    process.send_signal(signal.SIGINT)
    process.send_signal(signal.SIGINT)  # of the same key press: a terminal and a launcher tell it
    time.sleep(1.2)
    assert process.poll() is None
    process.send_signal(signal.SIGINT)
    ended(process, signal.SIGINT)


# Programs of one's own ------------------------------------------------------------------------------------------------

PROGRAM = """
import os, signal, sys
import pytorch_lightning as pl
import torch
from iagan_lightning import Stage, reconstruct
from iagan_lightning.generators import BEGAN
from iagan_lightning.operators import BicubicDownsampling

class Ask(pl.Callback):
    def on_train_batch_end(self, *arguments):
        if sys.argv[1] == "within a fit":
            os.kill(os.getpid(), signal.SIGTERM)
    def on_train_end(self, *arguments):
        if sys.argv[1] == "at its end":
            os.kill(os.getpid(), signal.SIGTERM)

if sys.argv[2] == "own":
    signal.signal(signal.SIGTERM, lambda *arguments: print("told", flush=True))
A = BicubicDownsampling((3, 16, 16), scale=4)
short = Stage(steps=3)
reconstruct(A(torch.zeros(1, 3, 16, 16)), A, BEGAN(16, 4, 8), latent=short,
            joint=short, accelerator="cpu", callbacks=[Ask()])
print("went on", flush=True)
"""


@pytest.mark.parametrize("moment", ["within a fit", "at its end"])
@pytest.mark.parametrize(("handler", "status", "said"), [("none", -signal.SIGTERM, ""), ("own", 143, "told\n")])
def test_a_program_that_reconstructs_ends_by_sigterm(start, moment, handler, status, said):
    """Lightning took the signal: the program ended with status 0, or went on as if nothing had come."""
    process = start(moment, handler, launcher=("-c", PROGRAM))
    printed, errors = process.communicate(timeout=120)
    assert (process.returncode, printed) == (status, said), errors
