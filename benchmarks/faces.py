"""What the methods make of held-out faces with a prior, as ``iagan super-resolution`` runs them: a table for the docs.

    python benchmarks/faces.py --faces FFHQ_FACES --generator ffhq128 --out OUT \\
        [--first 50] [--count 50] [--scales 4 8] [--page docs/generators.md]

Each scale is a run of the command itself in a folder under OUT, which goes on where it stopped.
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path
from tempfile import TemporaryDirectory

from speed import machine, write_block

from iagan_lightning.cli import main as iagan
from iagan_lightning.results.files import read_json

METHODS = {"naive": "naive", "csgm": "CSGM", "csgm_bp": "CSGM-BP", "iagan": "IAGAN", "iagan_bp": "IAGAN-BP"}


def run(paths: list[Path], generator: str, scale: int, out: Path) -> None:
    """Reconstruct copies of the pictures, made small by the operator, with the command.

    Raises:
        SystemExit: where the run failed.
    """
    with TemporaryDirectory() as folder:
        for path in paths:
            (Path(folder) / path.name).symlink_to(path.resolve())
        words = ["super-resolution", "--data.root", folder, "--model.generator", generator, "--lpips", "squeeze"]
        words += [
            "--operator.scale",
            str(scale),
            "--out",
            str(out),
            "--tensorboard",
            "0",
            "--trainer.accelerator",
            "cpu",
        ]
        if status := iagan(words):
            raise SystemExit(status)


def rows_of(out: Path, scale: int) -> list[str]:
    """Return the lines of the table for a run."""
    records = [read_json(path) for path in sorted(out.glob("images/*/metrics.json"))]

    def mean(*keys: str) -> float:
        values = []
        for record in records:
            for key in keys:
                record = record.get(key, math.nan)  # without LPIPS where its weights are not at hand
            values.append(float(record))
        return sum(values) / len(values)

    lines = []
    for method, title in METHODS.items():
        spent = {
            "csgm": ["latent"],
            "csgm_bp": ["latent"],
            "iagan": ["latent", "joint"],
            "iagan_bp": ["latent", "joint"],
        }
        counts = [mean("evaluations", fit) for fit in spent.get(method, [])]
        evaluations = f"{sum(counts):.0f}" if counts else ""
        quality = f"{mean('methods', method, 'psnr'):.2f} | {mean('methods', method, 'lpips_squeeze'):.4f}"
        lines.append(f"| x{scale} | {title} | {quality} | {evaluations} | {len(records)} |")
    lines.append(f"| x{scale} | | | | {mean('seconds', 'total'):.0f} s an image | |")
    return lines


def main() -> None:
    """Measure and print, or write the table into a page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--faces", required=True, type=Path)
    parser.add_argument("--generator", default="ffhq128")
    parser.add_argument("--scales", nargs="+", type=int, default=[4, 8])
    parser.add_argument("--first", type=int, default=50, help="settings are chosen on images 1 to 50")
    parser.add_argument("--count", type=int, default=50)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--page", type=Path)
    parser.add_argument("--name", default="faces", help="which of the page's tables")
    given = parser.parse_args()
    paths = sorted(given.faces.glob("*.png"))[given.first : given.first + given.count]
    lines = ["| | | PSNR | LPIPS (squeeze) | evaluations | images |", "|---|---|---|---|---|---|"]
    for scale in given.scales:
        out = given.out / f"{Path(given.generator).stem}-x{scale}"
        run(paths, given.generator, scale, out)
        lines += rows_of(out, scale)
    last = given.first + len(paths)
    lines.append(f"\nMeans over pictures {given.first + 1} to {last} of the folder, preset `fast`. {machine('cpu')}.")
    print("\n".join(lines))
    if given.page:
        write_block(given.page, given.name, "\n".join(lines))


if __name__ == "__main__":
    main()
