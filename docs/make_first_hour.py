"""Run the first hour of a new user in a fresh environment, and write what was typed and seen to docs/first_hour.md.

python docs/make_first_hour.py [PYTHON]

Everything is run in one empty folder, by a shell, in this order; a command that fails ends it. The environment is made
with PYTHON (the running one by default) and the package is installed into it, with all that it needs, from this
checkout.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "first_hour.md"

BLINDS = '''\
import torch
from iagan_lightning.operators import LinearOperator


class Blinds(LinearOperator):
    """Only every second row is seen."""

    def forward(self, x):
        return x[..., ::2, :]
'''
POLISHED = '''\
from iagan_lightning import IAGAN, Fit, FitSettings


class Polished(IAGAN):
    """IAGAN, and then the layer that makes the image alone."""

    def configure_fits(self):
        last = Fit("polish", FitSettings(steps=20, lr=0.0, lr_weights=1e-4), init="joint",
                   adapts=lambda name: name.startswith("l9"), result="polished")
        return [*super().configure_fits(), last]
'''
OWN = """\
from PIL import Image
import iagan_lightning, pathlib

portrait = pathlib.Path(iagan_lightning.__file__).parent / "examples" / "astronaut.png"
pathlib.Path("my-pictures").mkdir()
Image.open(portrait).resize((16, 16)).save("my-pictures/me.png")
"""
EVENTS = """\
from pathlib import Path
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

for run in sorted(Path("first/tensorboard").iterdir()):
    events = EventAccumulator(str(run)).Reload()
    print(run.name, *(f"{name}: {len(events.Scalars(name))}" for name in events.Tags()["scalars"][:4]))
"""


@dataclass
class Step:
    """What is typed, behind files that an editor has written, and how many lines of what is seen are kept."""

    title: str
    says: str
    commands: list[str]
    files: dict[str, str] = field(default_factory=dict)
    keeps: int = 24


STEPS = [
    Step(
        "Install",
        "",
        ["python3 -m venv .venv && . .venv/bin/activate", "pip install {root}", "iagan --version"],
        keeps=4,
    ),
    Step(
        "The main job",
        "Two bundled portraits, made small and enlarged again.",
        ["iagan super-resolution --lpips squeeze --out first"],
    ),
    Step(
        "A picture of one's own",
        "A small one; here it is made of a portrait.",
        [
            "python own.py",
            "iagan super-resolution --data.measurements my-pictures --model.generator faces64 --lpips none --out mine",
        ],
        {"own.py": OWN},
    ),
    Step(
        "An operator of one's own",
        "Half of the rows are hidden. First the check, then a run.",
        [
            "iagan check-operator blinds.Blinds",
            "iagan inpainting --operator blinds.Blinds --model.generator faces64 --lpips none --out blinds",
        ],
        {"blinds.py": BLINDS},
    ),
    Step(
        "A method of one's own",
        "A third fit behind the two of IAGAN.",
        ["iagan super-resolution --model polished.Polished --model.generator began64 --lpips none --out polished"],
        {"polished.py": POLISHED},
    ),
    Step(
        "TensorBoard",
        "`tensorboard --logdir first/tensorboard` shows curves and pictures in a browser. What lies there, in points:",
        ["python events.py"],
        {"events.py": EVENTS},
    ),
    Step(
        "Two runs compared",
        "IAGAN with the same prior, then one page that has it beside the method above.",
        [
            "iagan super-resolution --model.generator began64 --lpips none --out second --quiet true",
            "iagan report polished second --out both.html",
            "ls -s both.html",
        ],
    ),
]
HEAD = """\
# The first hour

What was typed and what was seen, by a shell in an empty folder with a fresh environment:
[make_first_hour.py](make_first_hour.py) wrote this page, on {machine}, which had other work too. `...` stands for
lines that are left out.
"""


def trim(text: str, keeps: int) -> str:
    """Return the first and last lines where there are too many, without what a terminal would have drawn over."""
    lines = [line.rsplit("\r", 1)[-1].rstrip().replace(str(ROOT), "iagan-lightning") for line in text.splitlines()]
    lines = [line for line in lines if not line.startswith("Looking in ")]  # where this machine has its packages
    lines = [re.sub(r"(?<=.{140}).+", " ...", line) for line in lines if line]
    if len(lines) <= keeps:
        return "\n".join(lines)
    return "\n".join([*lines[: keeps // 2], "...", *lines[-(keeps // 2) :]])


def show(step: Step, folder: Path, environment: dict[str, str]) -> str:
    """Run the commands of a step, and return its section of the page."""
    parts = [f"\n## {step.title}\n\n{step.says}\n" if step.says else f"\n## {step.title}\n"]
    for name, content in step.files.items():
        (folder / name).write_text(content, encoding="utf-8")
        parts.append(f"```{{code-block}} python\n:caption: {name}\n\n{content}```\n")
    for command in step.commands:
        started = time.perf_counter()
        typed = command.format(root=ROOT)
        done = subprocess.run(
            ["bash", "-c", typed],
            cwd=folder,
            env=environment,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        if done.returncode:
            raise SystemExit(f"{typed}\n{done.stdout}\nexit status {done.returncode}")
        seconds = time.perf_counter() - started
        seen = trim(done.stdout.replace(str(folder), "~"), step.keeps)
        shown = command.format(root="iagan-lightning/")
        parts.append(f"```console\n$ {shown}\n{seen}{chr(10) * bool(seen)}```\n\n{seconds:.0f} seconds.\n")
    return "\n".join(parts)


def main() -> None:
    """Run all steps and write the page."""
    python = Path(sys.argv[1] if len(sys.argv) > 1 else sys.executable)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        kept = {
            name: value
            for name, value in os.environ.items()
            if name in ("HOME", "TMPDIR", "SSL_CERT_FILE", "TORCH_HOME")
        }
        path = [str(folder / ".venv" / "bin"), str(python.parent), os.environ["PATH"]]
        environment = {**kept, "PATH": os.pathsep.join(path), "COLUMNS": "100", "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
        sections = [show(step, folder, environment) for step in STEPS]
    models = re.findall(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text(encoding="utf-8"))
    version = subprocess.run([python, "--version"], capture_output=True, text=True, check=True).stdout.strip()
    PAGE.write_text(
        HEAD.format(machine=f"{len(models)} cores of {models[0]}, {version}") + "".join(sections), encoding="utf-8"
    )


if __name__ == "__main__":
    main()
