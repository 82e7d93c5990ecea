"""Run the scripts of examples/ and write docs/examples.md with what they print and the pictures that they make.

python docs/make_gallery.py
"""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from PIL import Image

ROOT = Path(__file__).parent.parent
PAGE, PICTURES = ROOT / "docs" / "examples.md", ROOT / "docs" / "pictures"
# In the order of the page: title, and what the columns of its picture are.
EXAMPLES = {
    "own_photo": ("A picture of one's own", "CSGM, CSGM-BP, IAGAN, IAGAN-BP"),
    "own_operator": ("An operator of one's own", "A^+ y, CSGM, IAGAN, truth"),
    "own_prior": ("A prior of one's own", "truth, hole, CSGM, CSGM-BP, IAGAN, IAGAN-BP"),
    "compare_methods": ("Methods side by side", "truth, measurement, CSGM, IAGAN, ILO, DIP"),
    "noise_sweep": ("A sweep over noise", "a column per level: measurement, Tikhonov, CSGM, IAGAN"),
    "thousand_pictures": ("A thousand pictures", ""),
}
HEAD = """\
# Examples

Short scripts in `examples/`, each with what it printed and made
([make_gallery.py](make_gallery.py) ran them, on {machine}, which had other work too). `...` stands for the table
that Lightning draws of a network.
"""


def run(name: str) -> tuple[str, float]:
    """Run one script in an empty folder, take its picture, and return what it printed and the seconds."""
    with tempfile.TemporaryDirectory() as folder:
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
        started = time.perf_counter()
        script = ROOT / "examples" / f"{name}.py"
        done = subprocess.run(
            [sys.executable, script], cwd=folder, env=environment, capture_output=True, text=True, check=True
        )
        seconds = time.perf_counter() - started
        if (picture := Path(folder, f"{name}.png")).exists():
            with Image.open(picture) as made:
                width = made.width * max(1, 768 // made.width)
                shown = made.convert("RGB").resize((width, made.height * width // made.width), Image.Resampling.NEAREST)
                shown.save(PICTURES / f"example_{name}.png", optimize=True)
        return trim(done.stdout + done.stderr if name == "thousand_pictures" else done.stdout), seconds


def trim(text: str) -> str:
    """Leave out the tables that Lightning draws of a network, and say so."""
    lines = [re.sub(r"[ \t]+$", "", line) for line in text.splitlines()]
    kept: list[str] = []
    for line in lines:
        foreign = line[:1] in "┏┃┡│└" or re.match(r"(Trainable|Non-trainable|Total|Modules in)\b", line)
        if not foreign:
            kept.append(line)
        elif kept[-1:] != ["..."]:
            kept.append("...")
    return "\n".join(kept).strip("\n")


def section(name: str, output: str, seconds: float) -> str:
    """Return a section of the page."""
    title, columns = EXAMPLES[name]
    about = ast.get_docstring(ast.parse((ROOT / "examples" / f"{name}.py").read_text(encoding="utf-8")))
    assert about is not None
    picture = f"\n![{title}: {columns}](pictures/example_{name}.png)\n\n*{columns}.*\n" if columns else ""
    return f"""
## {title}

{re.sub("``", "`", about)}

```{{literalinclude}} ../examples/{name}.py
:language: python
:start-at: import
```

```console
$ python examples/{name}.py
{output}
```

{seconds:.0f} seconds.
{picture}"""


def machine() -> str:
    """Say on what this runs."""
    models = re.findall(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text(encoding="utf-8"))
    return f"{len(models)} cores of {models[0]}, Python {sys.version.split()[0]}"


def main() -> None:
    """Run all and write."""
    sections = [section(name, *run(name)) for name in EXAMPLES]
    PAGE.write_text(HEAD.format(machine=machine()) + "".join(sections), encoding="utf-8")


if __name__ == "__main__":
    main()
