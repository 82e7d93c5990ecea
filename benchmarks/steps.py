"""What one evaluation costs: a plain loop beside the presets, by image size, for one image and several side by side.

    python benchmarks/steps.py [--device gpu] [--images 1 4] [--out docs/speed.md]

Untrained generators of the published sizes (64 pixels with 64 channels, 128 pixels with 128 channels): the time of an
evaluation does not depend on what the weights are, and pictures are not looked at. Each figure is the slope between a
short and a longer stage, so that setting up is left out; the sides take turns. Utilisation, of the latent stage: the
arithmetic of the convolutions and matrix products over what a large matrix product reaches on the same device and
number of threads, and what is kept for the gradient, written once and read once, over what a large copy moves.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path

import torch
from speed import machine, plain_loop, write_block
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from iagan_lightning import Stage, reconstruct
from iagan_lightning.generators import BEGAN, Generator
from iagan_lightning.methods.presets import Preset
from iagan_lightning.operators import BicubicDownsampling, LinearOperator
from iagan_lightning.runs.batching import bytes_for_gradient

CHANNELS = {64: 64, 128: 128}
EVALUATIONS = {"plain loop": (1600, 500), "paper": (1600, 500), "fast": (50, 57)}  # x4, 64 pixels, docs/speed.md


def seconds(work: Callable[[], object], device: str) -> float:
    """Return how long some work takes on a device."""
    start = time.perf_counter()
    work()
    if device == "gpu":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def loop(y: Tensor, A: LinearOperator, G: Generator, latent: int, joint: int) -> None:
    """Run the plain loop, one image after another."""
    for i in range(len(y)):
        plain_loop(y[i : i + 1], A, G, G.sample_latent(1, i).to(y), latent, joint)


def preset(name: Preset, y: Tensor, A: LinearOperator, G: Generator, device: str, latent: int, joint: int) -> None:
    """Run so many evaluations of a preset on all images side by side."""
    stages = {"latent": Stage(steps=latent, stop="never"), "joint": Stage(steps=joint, stop="never")}
    reconstruct(y, A, G, preset=name, accelerator=device, **stages)  # type: ignore[arg-type]


def ceiling(device: torch.device, size: int = 2048) -> float:
    """Return the floating-point operations per second of a matrix product, the best of five."""
    a, b = torch.rand(2, size, size, device=device)
    times = [seconds(lambda: a @ b, "gpu" if device.type == "cuda" else "cpu") for _ in range(5)]
    return 2 * size**3 / min(times)


def copy_speed(device: torch.device, megabytes: int = 256) -> float:
    """Return the bytes per second that a large copy reads and writes, the best of five."""
    a = torch.rand(megabytes * 250_000, device=device)
    b = torch.empty_like(a)
    times = [seconds(lambda: b.copy_(a), "gpu" if device.type == "cuda" else "cpu") for _ in range(5)]
    return 2 * a.numel() * a.element_size() / min(times)


def operations(G: Generator, z: Tensor) -> float:
    """Return the floating-point operations of one forward pass for one image."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        G(z)
    return counter.get_total_flops()


def main() -> None:
    """Measure and print, or write the table into a page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", type=int, nargs="+", default=[64, 128], choices=list(CHANNELS))
    parser.add_argument("--images", type=int, nargs="+", default=[1, 4])
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--device", default="cpu", choices=["cpu", "gpu"])
    parser.add_argument("--out", type=Path, nargs="*", default=[], help="pages with <!-- steps --> ... <!-- end -->")
    given = parser.parse_args()
    device = torch.device("cuda" if given.device == "gpu" else "cpu")
    lines = [
        "| pixels, channels | images | method | latent, ms | joint, ms | of arithmetic | of copying | ratio by image |",
        "|---|---|---|---|---|---|---|---|",
    ]
    top, traffic = ceiling(device), copy_speed(device)
    for size in given.sizes:
        torch.manual_seed(0)
        G = BEGAN(size, CHANNELS[size]).to(device)
        A = BicubicDownsampling(G.image_shape, scale=4, padding="zero").to(device)
        forward = operations(G, G.sample_latent(1, 0).to(device))
        kept = bytes_for_gradient(BEGAN(size, CHANNELS[size]))
        for images in given.images:
            y = A(torch.rand(images, *G.image_shape, device=device) * 2 - 1)
            sides: dict[str, Callable[[int, int], None]] = {
                "plain loop": lambda latent, joint, y=y, A=A, G=G: loop(y, A, G, latent, joint),
                "paper": lambda latent, joint, y=y, A=A, G=G: preset("paper", y, A, G, given.device, latent, joint),
                "fast": lambda latent, joint, y=y, A=A, G=G: preset("fast", y, A, G, given.device, latent, joint),
            }
            shorter, longer = 2, 2 + given.steps
            lengths = [(shorter, shorter), (longer, shorter), (shorter, longer)]
            times: dict[str, list[list[float]]] = {name: [] for name in sides}
            for turn in range(given.rounds + 1):
                for name, side in sides.items():
                    row = [seconds(lambda side=side, n=n: side(*n), given.device) for n in lengths]
                    if turn:  # the first round only warms up
                        times[name].append(row)
            cost = {}
            for name, rows in times.items():
                base, *more = (min(column) for column in zip(*rows, strict=True))
                cost[name] = [(t - base) / given.steps / images for t in more]
            whole = {
                name: sum(n * t for n, t in zip(EVALUATIONS[name], spent, strict=True)) for name, spent in cost.items()
            }
            for name, (latent, joint) in cost.items():
                passes = 3 if name == "plain loop" else 2  # forward, gradients of features; the loop's of weights too
                share = passes * forward / latent / top
                lines.append(
                    f"| {size}, {CHANNELS[size]} | {images} | {name} | {1e3 * latent:.1f} | {1e3 * joint:.1f} | "
                    f"{share:.0%} | {2 * kept / latent / traffic:.0%} | {whole['plain loop'] / whole[name]:.1f} |"
                )
                print(lines[-1], flush=True)
    where = machine(given.device)
    table = "\n".join(lines) + (
        f"\n\nMilliseconds per evaluation and image, the fastest of {given.rounds} rounds. Shares are the latent "
        f"stage's, of {top / 1e9:.0f} GFLOP/s in a float32 matrix product and {traffic / 1e9:.0f} GB/s in a copy. "
        f"{where}, PyTorch {torch.__version__}."
    )
    for page in given.out:
        write_block(page, "steps", table)


if __name__ == "__main__":
    main()
