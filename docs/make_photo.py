"""Make the pictures of "Your photograph" from the bundled portraits: what iagan photo makes of them, beside the truth.

    python docs/make_photo.py [--out OUT]

Half a minute on two CPU cores. Nothing is chosen afterwards: each row is one command, whatever comes out.
"""

import argparse
import io
import tempfile
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageFilter

from iagan_lightning.cli import main as iagan
from iagan_lightning.data.images import read_image
from iagan_lightning.data.samples import EXAMPLES
from iagan_lightning.photo.enlarging import agreeing, enlarged
from iagan_lightning.results.lpips import load_lpips
from iagan_lightning.results.sheet import comparison_sheet, stack_sheets

CELL = 256
TITLES = {"photograph": "photograph", "plain": "plain enlargement", "result": "iagan photo", "truth": "truth"}


def small(picture: Image.Image, width: int) -> Image.Image:
    """Return a portrait as a camera with fewer pixels would have taken it."""
    return picture.resize((width, width), Image.Resampling.BOX)


def noisy(picture: Image.Image, levels: float) -> Image.Image:
    """Return a portrait with noise of so many levels of 255."""
    values = np.asarray(picture) + np.random.default_rng(0).normal(0, levels, (*picture.size[::-1], 3))
    return Image.fromarray(values.round().clip(0, 255).astype(np.uint8))


def compressed(picture: Image.Image, quality: int) -> Image.Image:
    """Return a portrait as JPEG of a quality gives it back."""
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=quality)
    return Image.open(buffer)


# Name of the row: portrait, what is done to it, and the options.
ROWS = {
    "good": ("astronaut", lambda x: small(x, 20), ["--scale", "4"]),
    "noisy": ("astronaut", lambda x: noisy(small(x, 64), 20), ["--scale", "1", "--noise_std", "20/255"]),
    "middling": ("grace_hopper", lambda x: small(x, 32), ["--scale", "4"]),
    "failure": ("grace_hopper", lambda x: small(x.filter(ImageFilter.GaussianBlur(6)), 32), ["--scale", "4"]),
}


def main() -> None:
    """Degrade, restore, compare, and lay the pictures side by side."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        out = given.out or Path(folder)
        sheets = []
        for name, (portrait, degrade, options) in ROWS.items():
            truth = Image.open(EXAMPLES / f"{portrait}.png").convert("RGB")
            photograph = out / f"{name}.png"
            photograph.parent.mkdir(parents=True, exist_ok=True)
            degrade(truth).save(photograph)
            scale, size = int(options[1]), Image.open(photograph).width
            result = out / f"{name}_iagan.png"
            if not result.exists() and iagan(["photo", str(photograph), *options, "--prior", "faces128"]):
                raise SystemExit(1)
            sheets.append(row(photograph, result, small(truth, size * scale), scale))
        stack_sheets(sheets).save(Path(__file__).parent / "pictures" / "photo.png", optimize=True)


def row(photograph: Path, result: Path, truth: Image.Image, scale: int) -> Image.Image:
    """Return a photograph, its plain enlargement, the result and the truth, with PSNR and LPIPS."""
    p = (read_image(photograph) + 1) / 2
    pictures = {
        "photograph": 2 * p - 1,
        "plain": 2 * agreeing(enlarged(p, scale), p, scale) - 1,
        "result": read_image(result),
        "truth": torch.from_numpy(np.array(truth)).permute(2, 0, 1) / 127.5 - 1,
    }
    if scale == 1:
        pictures.pop("plain")
    distance = load_lpips("squeeze")
    captions = {}
    for name in pictures.keys() & ({"plain", "result"} if scale > 1 else {"photograph", "result"}):
        error = float(((pictures[name] - pictures["truth"]) / 2).square().mean())
        far = float(distance(pictures[name][None], pictures["truth"][None])) if distance else float("nan")
        captions[name] = f"{-10 * np.log10(error):.1f} dB, {far:.2f}"
    return comparison_sheet(pictures, captions, CELL, TITLES)


if __name__ == "__main__":
    main()
