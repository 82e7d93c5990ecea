"""Make the pictures of the README and of docs/ from real runs on the bundled portraits.

python docs/make_pictures.py
"""

import argparse
import tempfile
from pathlib import Path

from PIL import Image

from iagan_lightning.cli import main as iagan
from iagan_lightning.results.sheet import stack_sheets

PICTURES = Path(__file__).parent / "pictures"
RUNS = {
    "super_resolution.png": ["super-resolution", "--operator.scale", "4"],
    "super_resolution_noisy.png": ["super-resolution", "--operator.scale", "4", "--noise_std", "10/255"],
}


def main() -> None:
    """Run each task and stack its comparison sheets."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--generator", default="faces128", help="a prior's name or file")
    weights = parser.parse_args().generator
    PICTURES.mkdir(exist_ok=True)
    for name, task in RUNS.items():
        with tempfile.TemporaryDirectory() as out:
            status = iagan([*task, "--model.generator", weights, "--lpips", "none", "--tensorboard", "0", "--out", out])
            if status:
                raise SystemExit(status)
            sheets = [Image.open(path).copy() for path in sorted(Path(out).rglob("comparison.png"))]
            stack_sheets(sheets).save(PICTURES / name, optimize=True)


if __name__ == "__main__":
    main()
