"""How the joint stage of the fast preset was chosen: settings side by side on faces that are not judged later.

    python benchmarks/fast_preset.py --generator WEIGHTS --faces FOLDER [--first 10] [--count 6] [--lpips squeeze]

Super-resolution x4 with zero padding. Without noise rows show iagan_bp, with noise iagan, stopped at the noise level.
"""

from __future__ import annotations

import argparse
import statistics
from pathlib import Path

import torch
from speed import quality

from iagan_lightning import Stage, reconstruct
from iagan_lightning.data.images import fit_image, read_image
from iagan_lightning.generators import load_generator
from iagan_lightning.operators import BicubicDownsampling


def adam(steps: int, lr: float, stop: str = "never") -> Stage:
    """Return a joint stage with one learning rate for latent and weights."""
    return Stage("adam", steps, lr=lr, lr_weights=lr, stop=stop)  # type: ignore[arg-type]


CANDIDATES: list[tuple[str, float, Stage]] = [
    ("Adam 1e-4, 500 steps", 0.0, adam(500, 1e-4)),
    ("Adam 3e-4, 100 steps", 0.0, adam(100, 3e-4)),
    ("Adam 3e-4, 200 steps", 0.0, adam(200, 3e-4)),
    ("Adam 1e-3, 60 steps", 0.0, adam(60, 1e-3)),
    ("Adam 1e-3, 120 steps", 0.0, adam(120, 1e-3)),
    ("L-BFGS, 30 steps", 0.0, Stage("lbfgs", 30, stop="never")),
    ("L-BFGS, 60 steps", 0.0, Stage("lbfgs", 60, stop="never")),
    ("Adam 1e-4, to the noise", 10 / 255, adam(250, 1e-4, "noise")),
    ("Adam 3e-4, to the noise", 10 / 255, adam(250, 3e-4, "noise")),
    ("Adam 1e-3, to the noise", 10 / 255, adam(250, 1e-3, "noise")),
    ("L-BFGS, to the noise", 10 / 255, Stage("lbfgs", 100, stop="noise")),
]


def main() -> None:
    """Measure and print one line per candidate."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--generator", required=True)
    parser.add_argument("--faces", required=True, type=Path)
    parser.add_argument("--first", type=int, default=10)
    parser.add_argument("--count", type=int, default=6)
    parser.add_argument("--lpips", default="squeeze")
    arguments = parser.parse_args()
    G = load_generator(arguments.generator)
    A = BicubicDownsampling(G.image_shape, scale=4, padding="zero")
    paths = sorted(arguments.faces.iterdir())[arguments.first : arguments.first + arguments.count]
    faces = torch.stack([fit_image(read_image(path), G.image_shape[1:]) for path in paths])
    print("| joint stage | noise | PSNR | LPIPS | joint evaluations | seconds per image |\n|---|---|---|---|---|---|")
    for name, noise_std, joint in CANDIDATES:
        rows = []
        for i in range(len(faces)):
            truth = faces[i : i + 1]
            y = A.measure(truth, noise_std, seed=i)
            result = reconstruct(y, A, G, noise_std, seed=i, joint=joint, accelerator="cpu")
            x = result.iagan if result.iagan_bp is None else result.iagan_bp
            evaluations = int(result.evaluations["joint"])
            seconds = result.seconds["total"]
            rows.append((*quality(x, y, A, truth, lpips=arguments.lpips), evaluations, seconds))
        psnr, distance, evaluations, seconds = (statistics.fmean(column) for column in zip(*rows, strict=True))
        level = f"{noise_std * 255:.0f}/255"
        print(f"| {name} | {level} | {psnr:.2f} | {distance:.4f} | {evaluations:.0f} | {seconds:.1f} |", flush=True)


if __name__ == "__main__":
    main()
