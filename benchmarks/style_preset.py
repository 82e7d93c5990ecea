"""How the fast preset of style generators was chosen: fits side by side on faces that are not judged later.

    python benchmarks/style_preset.py --faces FOLDER [--generator ffhq128] [--scale 4] [--first 0] [--count 4]

Super-resolution without noise. Latent fits search w from its mean; joint fits begin at what one of them found, and the
picture is looked at whenever the objective has fallen by another factor. All pictures are back-projected.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from speed import quality
from torch import Tensor

from iagan_lightning import CSGM, Fit, reconstruct
from iagan_lightning.data.images import fit_image, read_image
from iagan_lightning.generators import Generator, finer_weights, load_generator
from iagan_lightning.methods.fit import MEAN
from iagan_lightning.methods.settings import FitSettings
from iagan_lightning.operators import BicubicDownsampling

LATENTS = {  # evaluations, weight of the penalty
    "15 evaluations": (15, 0.0),
    "25": (25, 0.0),
    "25, penalty .02": (25, 0.02),
    "25, penalty .05": (25, 0.05),
    "50": (50, 0.0),
}
JOINTS = {  # the latent fit before it, finest features that adapt over y's, rate of the weights
    "from 15": ("15 evaluations", 2, 1e-4),
    "from 25": ("25", 2, 1e-4),
    "from 25 and penalty .02": ("25, penalty .02", 2, 1e-4),
    "from 25 and penalty .05": ("25, penalty .05", 2, 1e-4),
    "from 50": ("50", 2, 1e-4),
    "from 25, up to y's size": ("25", 1, 1e-4),
    "from 25, all layers": ("25", 64, 1e-4),
    "from 25, rate 3e-4": ("25", 2, 3e-4),
}
DECREASES = (8, 15, 25, 40)


class Candidates(CSGM):
    """All of them, one after another."""

    def configure_fits(self) -> list[Fit]:
        """Return a fit for each row of the table."""
        base = self.resolve("latent")
        fits = [
            Fit(name, replace(base, steps=n, weight=weight), "w", init=MEAN, result=name)
            for name, (n, weight) in LATENTS.items()
        ]
        joint = FitSettings("adam", 250, beta1=0.7, beta2=0.9, stop="decrease", decrease=DECREASES[-1])
        for name, (begin, factor, rate) in JOINTS.items():
            adapts = up_to(self.generator, factor * self.operator.measurement_shape[1])
            fits.append(Fit(name, replace(joint, lr_weights=rate), "w", adapts, begin, name))
        return fits


def up_to(G: Generator, pixels: int) -> Callable[[str], bool]:
    """Return what tells that a weight's layer is no finer than this."""
    finer = finer_weights(G, pixels)
    return lambda name: name not in finer


class Milestones(pl.Callback):
    """Keeps the picture, and the number of evaluations, at which the objective of a joint fit had fallen so far."""

    def __init__(self) -> None:
        self.seen: dict[str, tuple[int, Tensor]] = {}
        self.begun: dict[str, float] = {}

    def on_train_batch_end(self, trainer: pl.Trainer, module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Look at the evaluation that was just made."""
        if module.stage not in JOINTS:
            return
        objective = float(module.evaluation.objective[0])
        began = self.begun.setdefault(module.stage, objective)
        for factor in DECREASES:
            if objective <= began / factor:
                image = module.evaluation.image.clone()
                self.seen.setdefault(f"{module.stage}, to 1/{factor}", (int(module.spent[0]), image))


def compare(G: Generator, paths: Sequence[Path], scale: int) -> None:
    """Measure, and print one line per candidate."""
    A, module, cells = BicubicDownsampling(G.image_shape, scale=scale), Candidates(G), {}  # type: ignore[var-annotated]
    for path in paths:
        x = fit_image(read_image(path), G.image_shape[1:])[None]
        y, milestones = A(x), Milestones()
        result = reconstruct(y, A, module, back_projection=False, callbacks=[milestones], accelerator="cpu")
        found = {"naive": (0, A.naive(y))}
        found |= {name: (int(result.evaluations[name]), A.back_project(result[name], y)) for name in LATENTS}
        for name, (spent, image) in {**found, **milestones.seen}.items():
            cells.setdefault(name, []).append((*quality(image, y, A, x), spent))
    print("| fit | PSNR | LPIPS (squeeze) | evaluations | images |\n|---|---|---|---|---|")
    for name, rows in cells.items():
        psnr, distance, spent = (statistics.fmean(column) for column in zip(*rows, strict=True))
        print(f"| {name} | {psnr:.2f} | {distance:.4f} | {spent:.0f} | {len(rows)} |")


def main() -> None:
    """Read the arguments."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--faces", required=True, type=Path)
    parser.add_argument("--generator", default="ffhq128")
    parser.add_argument("--scale", type=int, default=4)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--count", type=int, default=4)
    given = parser.parse_args()
    paths = sorted(given.faces.glob("*.png"))[given.first : given.first + given.count]
    compare(load_generator(given.generator), paths, given.scale)


if __name__ == "__main__":
    main()
