"""Run the paper's experiments on test faces and store tables and curves, but no faces, in docs/reproduction/.

    python docs/make_reproduction.py FACES RUNS --preset fast --limit 10

Of the bundled portraits it stores the pictures, and nothing else:

    python docs/make_reproduction.py iagan_lightning/examples RUNS --name portraits

Runs are kept in RUNS and go on where they stopped; options that are not named above are handed to every command.
"""

import argparse
import shutil
import subprocess
import sys
from pathlib import Path

from iagan_lightning.data.samples import EXAMPLES
from iagan_lightning.paper import EXPERIMENTS

PAGES = Path(__file__).parent / "reproduction"
STORED = ("table.md", "table.csv", "table.tex", "figure2.csv", "figure2.png", "figure5-masks.png")


def main() -> None:
    """Run what is asked for and copy the files."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("faces")
    parser.add_argument("runs", type=Path)
    parser.add_argument("--preset", default="fast")
    parser.add_argument("--name", help="folder of the runs and of the pages; the preset by default")
    parser.add_argument("--tables", nargs="+", default=list(EXPERIMENTS))
    given, others = parser.parse_known_args()
    folder = given.name or given.preset
    for table in given.tables:
        out = given.runs / folder
        command = [sys.executable, "-m", "iagan_lightning", "reproduce", "--table", table, "--data.root", given.faces]
        subprocess.run([*command, "--preset", given.preset, "--out", out, *others], check=True)
        name = f"table-{table}" if table[0].isdigit() else table
        pages = PAGES / folder
        pages.mkdir(parents=True, exist_ok=True)
        if Path(given.faces).resolve() == EXAMPLES.resolve():
            stored = [path.name for path in (out / name).glob("figure*.png") if path.name not in STORED]
        else:
            stored = [file for file in STORED if (out / name / file).exists()]
        for file in stored:
            kept = file.replace("table", name) if file.startswith("table") else file
            shutil.copyfile(out / name / file, pages / kept)


if __name__ == "__main__":
    main()
