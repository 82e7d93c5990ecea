"""How far the joint stage of ``fast`` goes without noise: other factors of ``decrease`` on faces that are not judged.

    python benchmarks/decrease.py --faces FACES [--generators faces128 faces64 began64] \\
        [--tasks "super-resolution x4" ...] [--decrease 40 20 10] [--first 10] [--count 12] [--page docs/speed.md]
"""

from __future__ import annotations

import argparse
import statistics
from pathlib import Path

import torch
from peers import PROBLEMS, problem_of
from speed import machine, quality, write_block

from iagan_lightning import IAGAN, Stage, reconstruct
from iagan_lightning.data.images import fit_image, read_image
from iagan_lightning.generators import load_generator

HEADS = ("prior", "task", "decrease", "PSNR", "LPIPS squeeze", "joint evaluations", "s / image")


def main() -> None:
    """Measure, print, and write the table where a page is given."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--faces", required=True, type=Path)
    parser.add_argument("--generators", nargs="+", default=["faces128", "faces64", "began64"])
    parser.add_argument("--tasks", nargs="+", default=["super-resolution x4", "super-resolution x8"], choices=PROBLEMS)
    parser.add_argument("--decrease", nargs="+", type=float, default=[40, 20, 10])
    parser.add_argument("--first", type=int, default=10, help="settings are judged on images from 51 on")
    parser.add_argument("--count", type=int, default=12)
    parser.add_argument("--page", type=Path)
    given = parser.parse_args()
    torch.set_num_threads(1)
    paths = sorted(given.faces.glob("*.png"))[given.first : given.first + given.count]
    lines = [f"| {' | '.join(HEADS)} |", "|" + "---|" * len(HEADS)]
    for source in given.generators:
        G = load_generator(source)
        for task in given.tasks:
            A, noise_std = problem_of(PROBLEMS[task], G.image_shape)
            if noise_std:
                parser.error(f"{task} ends at its noise; choose tasks without")
            for decrease in given.decrease:
                method, rows = IAGAN(G, joint=Stage(decrease=decrease)), []
                for number, path in enumerate(paths, given.first):
                    truth = fit_image(read_image(path), G.image_shape[1:])[None]
                    y = A.measure(truth, seed=number)
                    result = reconstruct(y, A, method, seed=number, accelerator="cpu", progress=False)
                    seconds = result.seconds["latent"] + result.seconds["joint"]
                    spent = int(result.evaluations["joint"][0])
                    rows.append((*quality(result["iagan_bp"], y, A, truth), spent, seconds))
                psnr, lpips, evaluations, seconds = (statistics.fmean(column) for column in zip(*rows, strict=True))
                cells = [Path(source).stem, task, f"{decrease:g}", f"{psnr:.2f}", f"{lpips:.4f}"]
                lines.append(f"| {' | '.join([*cells, f'{evaluations:.0f}', f'{seconds:.1f}'])} |")
                print(lines[-1], flush=True)
    if given.page:
        told = f"\n\nMeans over faces {given.first + 1} to {given.first + len(paths)}. {machine('cpu')}."
        write_block(given.page, "decrease", "\n".join(lines) + told)


if __name__ == "__main__":
    main()
