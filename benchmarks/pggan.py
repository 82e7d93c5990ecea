"""Time and peak memory of large generators: a forward pass, an evaluation of the latent and of the joint stage.

    python benchmarks/pggan.py --resolutions 256 1024 --threads 1 2 --out docs/generators.md
    python benchmarks/pggan.py --network StyleGAN2 --resolutions 256 512 1024 --out docs/generators.md
    python benchmarks/pggan.py --network ffhq --preset fast --resolutions 128 256 512 1024 --out docs/generators.md

Weights are random, which changes neither time nor memory, but those of ffhq, which are fetched. Each row is a process
of its own, because the peak of a process never falls; the reconstruction is super-resolution x16 of one picture, a few
steps of each stage. On a GPU (``--device gpu``) the memory is the device's.
"""

from __future__ import annotations

import argparse
import itertools
import platform
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch

from iagan_lightning import Stage, reconstruct
from iagan_lightning.generators import PGGAN, Generator, StyleGAN2, load_generator
from iagan_lightning.methods.presets import Preset
from iagan_lightning.operators import BicubicDownsampling

NETWORKS: dict[str, Callable[[int], Generator]] = {
    "PGGAN": PGGAN,
    "StyleGAN2": StyleGAN2,
    "ffhq": lambda pixels: load_generator(f"ffhq{pixels}"),
}


class Watch(pl.Callback):
    """Notes the seconds of each step and the peak memory of each stage."""

    def __init__(self) -> None:
        self.seconds: dict[str, list[float]] = {"latent": [], "joint": []}
        self.peak: dict[str, float] = {}

    def on_train_batch_start(self, trainer: pl.Trainer, module: Any, batch: Any, batch_idx: int) -> None:
        """Begin a step."""
        self.start = now(module.device)

    def on_train_batch_end(self, trainer: pl.Trainer, module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """End a step."""
        self.seconds[module.stage].append(now(module.device) - self.start)
        self.peak[module.stage] = peak(module.device)


def now(device: torch.device) -> float:
    """Return the time when the device has done all it was told; on one thread of a CPU its own, others left out."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif torch.get_num_threads() == 1:
        return time.process_time()
    return time.perf_counter()


def peak(device: torch.device) -> float:
    """Return the most memory used so far, in GB."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e9
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024) / 1e9


def measure(
    network: str, resolution: int, threads: int, steps: int, device: torch.device, checkpointing: bool, preset: Preset
) -> str:
    """Return one row of the table."""
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    G = NETWORKS[network](resolution).eval().to(device)
    G.checkpointing = checkpointing if G.checkpointing is not None else None
    z, seconds = G.sample_latent(1, seed=0).to(device), []
    with torch.no_grad():
        for _ in range(steps):
            start = now(device)
            x = G(z)
            seconds.append(now(device) - start)
    cells = [f"{statistics.median(seconds):.3g}", f"{peak(device):.1f}"]
    A, watch = BicubicDownsampling(G.image_shape, scale=16).to(device), Watch()
    short = Stage(steps=steps)
    reconstruct(
        A(x), A, G.cpu(), preset=preset, seed=1, latent=short, joint=short, callbacks=[watch],
        accelerator="gpu" if device.type == "cuda" else "cpu",
    )  # fmt: skip
    for stage in ("latent", "joint"):
        cells += [f"{statistics.median(watch.seconds[stage]):.3g}", f"{watch.peak[stage]:.1f}"]
    where = torch.cuda.get_device_name(device) if device.type == "cuda" else str(threads)
    return f"| {resolution} | {where} | {'yes' if checkpointing else 'no'} | {' | '.join(cells)} |"


def main() -> None:
    """Measure each row in a process of its own and print the table, or write it into a page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--network", default="PGGAN", choices=list(NETWORKS))
    parser.add_argument("--resolutions", nargs="+", type=int, default=[1024])
    parser.add_argument("--threads", nargs="+", type=int, default=[1])
    parser.add_argument("--steps", type=int, default=5, help="evaluations of each kind; the median counts")
    parser.add_argument("--device", default="cpu", choices=["cpu", "gpu"])
    parser.add_argument("--preset", default="paper", choices=["paper", "fast"])
    parser.add_argument("--out", type=Path, help="page with <!-- pggan --> ... <!-- end -->, stylegan2, ffhq")
    parser.add_argument("--checkpointing", action="store_true", help="with --row: keep less, compute more")
    parser.add_argument("--row", action="store_true", help="measure here and print one row")
    given = parser.parse_args()
    if given.row:
        device = torch.device("cuda" if given.device == "gpu" else "cpu")
        size, threads = given.resolutions[0], given.threads[0]
        print(measure(given.network, size, threads, given.steps, device, given.checkpointing, given.preset))
        return
    lines = [
        "| pixels | threads | checkpointing | forward s | GB | latent s | GB | joint s | GB |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    ways: list[list[str]] = [[]] if given.network == "ffhq" else [[], ["--checkpointing"]]
    for resolution, threads, flag in itertools.product(given.resolutions, given.threads, ways):
        arguments = ["--resolutions", resolution, "--threads", threads, "--steps", given.steps, *flag]
        command = [
            sys.executable,
            __file__,
            "--row",
            "--network",
            given.network,
            "--preset",
            given.preset,
            *map(str, arguments),
            "--device",
            given.device,
        ]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
        lines.append(next(line for line in done.stdout.splitlines() if line.startswith("| ")))
        print(lines[-1], flush=True)
    table = "\n".join(lines) + (
        f"\n\nSeconds of one evaluation, the median of {given.steps} (on one thread: of processor time), and the peak "
        "memory of the whole process until then. Super-resolution x16, batch 1, float32, PyTorch "
        f"{torch.__version__}, Python {platform.python_version()}."
    )
    if given.out:
        from speed import write_block  # here, because imports count in what is measured

        write_block(given.out, given.network.lower(), table)


if __name__ == "__main__":
    main()
