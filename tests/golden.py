"""Eight reconstructions whose evaluation counts and objectives are kept in golden.json, to compare with.

    python tests/golden.py            print them
    python tests/golden.py --write    keep them

They are made in float64, where no rounding decides about the number of evaluations.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch
from iagan_lightning.callbacks import DIPBaseline

from iagan_lightning import DIPSettings, Stage, reconstruct
from iagan_lightning.generators import BEGAN
from iagan_lightning.operators import BicubicDownsampling, FourierSensing, GaussianSensing, Inpainting

KEPT = Path(__file__).with_name("golden.json")
SHAPE = (3, 16, 16)

PROBLEMS = {
    "fast": (BicubicDownsampling(SHAPE, scale=4), 1, {}),
    "fast, two images": (GaussianSensing(SHAPE, ratio=0.2, seed=0), 2, {}),
    "fast, noise": (BicubicDownsampling(SHAPE, scale=2), 2, {"noise_std": 10 / 255}),
    "paper": (BicubicDownsampling(SHAPE, scale=4), 1, {
        "preset": "paper", "latent": Stage(steps=40), "joint": Stage(steps=25),
    }),
    "paper, noise": (
        FourierSensing(SHAPE, ratio=0.5, seed=0), 2,
        {"preset": "paper", "latent": Stage(steps=40), "joint": Stage(lr_weights=1e-3), "noise_std": 0.1},
    ),
    "level unknown": (
        Inpainting(SHAPE, ratio=0.5, seed=0), 1, {"noise_std": None, "joint": Stage(steps=60, lr_weights=1e-3)},
    ),
    "halving": (
        BicubicDownsampling(SHAPE, scale=4), 2,
        {"latent": Stage(restarts=4, halve=5), "joint": Stage(optimizer="lbfgs", steps=20, keep="last")},
    ),
    "dip": (
        Inpainting(SHAPE, ratio=0.7, seed=0), 2,
        {"noise_std": 0.15, "callbacks": [DIPBaseline(DIPSettings(steps=30, skip=4))],
         "latent": Stage(steps=5), "joint": Stage(steps=5)},
    ),
}  # fmt: skip


def results(name: str, dtype: torch.dtype = torch.float64):
    """Reconstruct random pictures in the generator's range, moved away from it a little."""
    A, batch, settings = PROBLEMS[name]
    torch.manual_seed(1)
    G = BEGAN(resolution=16, channels=4, latent=8).eval().to(dtype)
    with torch.no_grad():
        x = 0.8 * G(G.sample_latent(batch, seed=100).to(dtype)) + 0.05 * torch.randn(batch, *SHAPE, dtype=dtype)
    noise = settings.get("noise_std", 0.0)
    y = A.measure(x, noise_std=0.05 if noise is None else noise, seed=7)
    return reconstruct(y, A, G, seed=3, accelerator="cpu", **settings)


def figures(name: str) -> dict:
    """Return what is kept of a problem, made by one thread: its sums come in one order on any machine, however busy."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        result = results(name)
    finally:
        torch.set_num_threads(threads)
    return {
        "evaluations": {fit: count.tolist() for fit, count in result.evaluations.items()},
        "objective": {fit: value.tolist() for fit, value in result.objective.items()},
    }


if __name__ == "__main__":
    table = {name: figures(name) for name in PROBLEMS}
    text = json.dumps(table, indent=1) + "\n"
    KEPT.write_text(text) if "--write" in sys.argv else print(text)
