"""Time and quality of the presets beside a plain loop written from the paper: same generator, same y, same machine.

    python benchmarks/speed.py --faces FACES --first 50 --count 8 \\
        --generators began64 began64-celeba.pth --problems x4 x4-noisy --out docs/speed.md

For each image the methods take turns, so that a machine that slows down does so for all of them; each has a process of
its own, so that what one does to its process (memory that is kept, for example) helps no other. ``--problems all``
adds every other task; ``--presets fast paper`` leaves the plain loop away, whose path ``paper`` follows. A preset with
a precision, ``"paper bf16-mixed"``, runs the generator in half precision. The LPIPS column has the backbone in its
name. Without noise the picture that is judged is iagan_bp, with noise iagan. How far the others are from the first
method, in the mean over the faces, is printed with its standard error. With ``--keep FOLDER`` each face's figures are
kept there, and the same command goes on where it stopped.
"""

from __future__ import annotations

import argparse
import copy
import math
import multiprocessing
import platform
import re
import statistics
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from iagan_lightning import reconstruct
from iagan_lightning.commands.reproduce import device_name
from iagan_lightning.data.images import fit_image, read_image
from iagan_lightning.generators import BEGAN, Generator, load_generator
from iagan_lightning.operators import BicubicDownsampling, Blur, FourierSensing, GaussianSensing, LinearOperator
from iagan_lightning.results.files import as_json, read_json, write_text
from iagan_lightning.results.lpips import Backbone
from iagan_lightning.results.metrics import evaluate


@dataclass(frozen=True)
class Problem:
    """A task of the paper: its operator and noise, on the [0, 1] scale."""

    operator: Callable[[tuple[int, int, int]], LinearOperator]
    noise_std: float = 0.0


PROBLEMS = {
    "x4": Problem(lambda shape: BicubicDownsampling(shape, scale=4, padding="zero")),
    "x4-noisy": Problem(lambda shape: BicubicDownsampling(shape, scale=4, padding="zero"), 10 / 255),
    "x8": Problem(lambda shape: BicubicDownsampling(shape, scale=8, padding="zero")),
    "fourier-30": Problem(lambda shape: FourierSensing(shape, ratio=0.3), 10 / 255),
    "fourier-50": Problem(lambda shape: FourierSensing(shape, ratio=0.5), 10 / 255),
    "gaussian-12": Problem(lambda shape: GaussianSensing(shape, ratio=0.122)),
    "deblurring": Problem(lambda shape: Blur(shape, size=9), 10 / 255),
}


def plain_loop(y: Tensor, A: LinearOperator, G: Generator, z: Tensor, latent: int, joint: int) -> Tensor:
    """IAGAN as the paper tells it: Adam, fixed steps, the lowest objective kept, gradients of everything throughout."""
    G = copy.deepcopy(G).to(memory_format=torch.contiguous_format).requires_grad_()
    if isinstance(G, BEGAN):
        G.activation = F.elu  # PyTorch's own
    best, kept = z, z
    for steps, rate, theta in ((latent, 0.1, []), (joint, 1e-4, list(G.parameters()))):
        z = best.clone().requires_grad_()
        optimizer = torch.optim.Adam([{"params": [z], "lr": rate}, *([{"params": theta, "lr": 1e-4}] if theta else [])])
        lowest = torch.full((), torch.inf, device=y.device)
        for _ in range(steps):
            x = G(z)
            loss = (y - A(x)).abs().square().sum() / A.num_measurements
            if loss.detach() < lowest:
                lowest, best, kept = loss.detach(), z.detach().clone(), x.detach()
            G.zero_grad()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return kept


def solve(
    method: str, y: Tensor, A: LinearOperator, G: Generator, noise_std: float, seed: int, device: str
) -> tuple[Tensor, float, str]:
    """Return the picture that is judged, the seconds it took and its evaluations."""
    there = torch.device("cuda" if device == "gpu" else "cpu")
    y, A = y.to(there), A.to(there)
    start = time.perf_counter()
    if method == "plain loop":
        joint = 600 if A.compressed_sensing else 500
        steps = 1600, joint // 2 if noise_std else joint
        z = G.sample_latent(1, seed).to(y)
        x = plain_loop(y, A, G.to(there), z, *steps)
        x = x if noise_std else A.back_project(x, y)
        x, evaluations = x.cpu(), f"{steps[0]} + {steps[1]}"
    else:
        preset, _, precision = method.partition(" ")
        trainer = {"accelerator": device, "precision": precision or "32-true"}
        result = reconstruct(y, A, G, noise_std, preset, seed=seed, **trainer)  # type: ignore[arg-type]
        x = (result.iagan if result.iagan_bp is None else result.iagan_bp).float()
        evaluations = f"{int(result.evaluations['latent'][0])} + {int(result.evaluations['joint'][0])}"
    return x, time.perf_counter() - start, evaluations


def quality(
    x: Tensor, y: Tensor, A: LinearOperator, truth: Tensor, noise_std: float | None = 0.0, lpips: Backbone = "squeeze"
) -> tuple[float, float]:
    """Return PSNR in dB and LPIPS of a picture, the latter no number where its weights are not at hand."""
    [row] = evaluate(x, y, A, truth, noise_std, lpips)
    return row["psnr"], row.get(f"lpips_{lpips}", math.nan)


def judged(
    process: ProcessPoolExecutor, method: str, task: tuple[Any, ...], truth: Tensor, lpips: str
) -> tuple[float, float, float, float, str]:
    """Return PSNR, LPIPS, residual, seconds and evaluations of a picture that a method's own process makes."""
    x, seconds, evaluations = process.submit(solve, method, *task).result()
    y, A, *_ = task
    [row] = evaluate(x, y, A, truth, lpips=lpips)
    return row["psnr"], row.get(f"lpips_{lpips}", math.nan), row["residual"], seconds, evaluations


def machine(device: str) -> str:
    """Return what times belong to: the GPU's name, or the processor's and how many of its threads."""
    described = Path("/proc/cpuinfo")
    lines = described.read_text().splitlines() if described.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    name = next(iter(names), platform.processor())
    half = ", with bfloat16" if any("avx512_bf16" in line for line in lines) else ""
    return device_name("cuda" if device == "gpu" else "cpu").replace("CPU", name + half)


def write_block(page: Path, name: str, table: str) -> None:
    """Put a table into a page, between ``<!-- name -->`` and ``<!-- end -->``."""
    block = f"<!-- {name} -->\n{table}\n<!-- end -->"
    text = page.read_text(encoding="utf-8")
    page.write_text(re.sub(rf"<!-- {name} -->.*?<!-- end -->", lambda _: block, text, flags=re.S), encoding="utf-8")


def beside(rows: Sequence[Sequence[float]], others: Sequence[Sequence[float]]) -> str:
    """Return how PSNR and LPIPS of the same faces differ: mean and standard error over the faces."""
    said = []
    for column, form, unit in ((0, ".2f", " dB"), (1, ".4f", " LPIPS")):
        differences = [row[column] - other[column] for row, other in zip(rows, others, strict=True)]
        error = statistics.stdev(differences) / len(differences) ** 0.5
        said.append(f"{statistics.fmean(differences):+{form}} +- {error:{form}}{unit}")
    return ", ".join(said)


def main() -> None:
    """Measure and print, or write the tables into a page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--faces", required=True, type=Path)
    parser.add_argument("--generators", nargs="+", default=["began64"])
    parser.add_argument("--problems", nargs="+", default=["x4", "x4-noisy"], choices=[*PROBLEMS, "all"])
    parser.add_argument("--presets", nargs="+", default=["plain loop", "paper", "fast"])
    parser.add_argument("--first", type=int, default=50, help="settings are tuned on images 1 to 50")
    parser.add_argument("--count", type=int, default=8)
    parser.add_argument("--lpips", default="squeeze")
    parser.add_argument("--device", default="cpu", choices=["cpu", "gpu"])
    parser.add_argument("--out", type=Path, nargs="*", default=[], help="pages with <!-- NAME --> ... <!-- end -->")
    parser.add_argument("--name", default="speed", help="which of the page's tables")
    parser.add_argument("--keep", type=Path, help="folder of what was measured before, with the same options")
    given = parser.parse_args()
    if given.keep:
        given.keep.mkdir(parents=True, exist_ok=True)
    where = machine(given.device)
    first = given.presets[0]
    spawn = multiprocessing.get_context("spawn")
    processes = {method: ProcessPoolExecutor(1, spawn) for method in given.presets}
    lines = [
        f"| prior | task | noise | method | PSNR | LPIPS {given.lpips} | residual | evaluations | s / image | ratio |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for generator in given.generators:
        G = load_generator(generator)
        paths = sorted(given.faces.glob("*.png"))[given.first : given.first + given.count]
        faces = [fit_image(read_image(path), G.image_shape[1:])[None] for path in paths]
        for name in PROBLEMS if "all" in given.problems else given.problems:
            problem = PROBLEMS[name]
            A = problem.operator(G.image_shape)
            rows: dict[str, list[list[float]]] = {method: [] for method in given.presets}
            evaluations: dict[str, str] = {}
            for i, truth in enumerate(faces):
                kept = given.keep and given.keep / f"{Path(generator).stem}-{name}-{given.first + i + 1}.json"
                done = read_json(kept) if kept and kept.exists() else {}
                if done.keys() != set(given.presets):
                    y = A.measure(truth, problem.noise_std, seed=i)
                    task = (y, A, G, problem.noise_std, i, given.device)
                    done = {method: judged(processes[method], method, task, truth, given.lpips) for method in rows}
                    if kept:
                        write_text(kept, as_json(done))
                for method in rows:
                    *row, evaluations[method] = done[method]
                    rows[method].append([math.nan if value is None else value for value in row])  # null in JSON
            times = {method: [row[3] for row in rows[method]] for method in rows}
            for method, measured in rows.items():
                psnr, distance, residual, seconds = (statistics.fmean(column) for column in zip(*measured, strict=True))
                ratio = statistics.median(a / b for a, b in zip(times[first], times[method], strict=True))
                level = f"{problem.noise_std * 255:.0f}/255" if problem.noise_std else "0"
                lines.append(
                    f"| {Path(generator).stem} | {name} | {level} | {method} | {psnr:.2f} | {distance:.4f} | "
                    f"{residual:.1e} | {evaluations[method]} | {seconds:.2f} | {ratio:.1f} |"
                )
                print(lines[-1], flush=True)
                if method != first and len(faces) > 1:
                    print(f"  beside {first}: {beside(measured, rows[first])}", flush=True)
    table = "\n".join(lines) + (
        f"\n\nMeans over faces {given.first + 1} to {given.first + given.count} of the folder at the prior's size; "
        f"the ratio is the median over the faces of the time of {first} over the method's. "
        f"The evaluations are the last face's. {where}, float32 unless said, PyTorch {torch.__version__}, Python "
        f"{platform.python_version()}."
    )
    for page in given.out:
        write_block(page, given.name, table)


if __name__ == "__main__":
    main()
