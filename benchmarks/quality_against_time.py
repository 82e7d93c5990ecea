"""What a picture is worth after so many seconds: ``reconstruct(time=...)`` with four views, from a second or less on.

    python benchmarks/quality_against_time.py --faces FACES [--generator faces128] \\
        [--seconds 0.5 1 2 4 8 16] [--first 50] [--count 8] [--page docs/views.md] [--plot docs/pictures/time.png]

Nothing else should run on the machine. The plain reconstruction and CSGM of the longest run stand beside it.
"""

from __future__ import annotations

import argparse
import statistics
from pathlib import Path

import torch
from peers import PROBLEMS, problem_of
from speed import machine, quality, write_block

from iagan_lightning import IAGAN, reconstruct
from iagan_lightning.data.images import fit_image, read_image
from iagan_lightning.generators import load_generator

VIEWS = 4


def plot(rows: list[tuple[float, float, float, float]], plain: tuple[float, float], path: Path) -> None:
    """Draw PSNR and LPIPS against the seconds that were taken."""
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, 2, figsize=(9, 3.6))
    taken = [row[1] for row in rows]
    for axis, place, title in zip(axes, (2, 3), ("PSNR in dB", "LPIPS (squeeze)"), strict=True):
        axis.axhline(plain[place - 2], color="grey", linewidth=0.8, label="plain reconstruction")
        axis.semilogx(taken, [row[place] for row in rows], marker="o", label="--time, four views")
        axis.set(title=title, xlabel="seconds an image")
        axis.legend(fontsize=8)
    figure.tight_layout()
    figure.savefig(path, dpi=110)


def main() -> None:
    """Measure, and print or write the table and the plot."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--faces", required=True, type=Path)
    parser.add_argument("--generator", default="faces128")
    parser.add_argument("--task", default="super-resolution x4", choices=list(PROBLEMS), metavar="TASK")
    parser.add_argument("--seconds", nargs="+", type=float, default=[0.5, 1, 2, 4, 8, 16])
    parser.add_argument("--first", type=int, default=50, help="settings are chosen on images 1 to 50")
    parser.add_argument("--count", type=int, default=8)
    parser.add_argument("--page", type=Path)
    parser.add_argument("--plot", type=Path)
    given = parser.parse_args()
    torch.set_num_threads(1)
    paths = sorted(given.faces.glob("*.png"))[given.first : given.first + given.count]
    G = load_generator(given.generator)
    A, noise_std = problem_of(PROBLEMS[given.task], G.image_shape)
    truths = [fit_image(read_image(path), G.image_shape[1:])[None] for path in paths]
    ys = [A.measure(x, noise_std=noise_std, seed=number) for number, x in enumerate(truths, given.first)]

    def worth(pictures: list[torch.Tensor]) -> tuple[float, float]:
        found = [quality(x, y, A, t, noise_std) for x, y, t in zip(pictures, ys, truths, strict=True)]
        psnr, distance = (statistics.fmean(column) for column in zip(*found, strict=True))
        return psnr, distance

    rows = []
    for seconds in sorted(given.seconds):
        pictures, taken = [], []
        for number, y in enumerate(ys, given.first):
            method = IAGAN(G)
            result = reconstruct(
                y, A, method, noise_std, seed=number, views=VIEWS, time=seconds, accelerator="cpu", progress=False
            )
            pictures.append(result[result.images[0].offered])
            taken.append(result.seconds["total"])
        rows.append((seconds, statistics.fmean(taken), *worth(pictures)))
        print("| {:g} | {:.1f} | {:.2f} | {:.4f} |".format(*rows[-1]), flush=True)
    plain = worth([A.naive(y) for y in ys])
    lines = ["| `--time` | seconds taken | PSNR | LPIPS |", "|---|---|---|---|"]
    lines += [f"| plain reconstruction | | {plain[0]:.2f} | {plain[1]:.4f} |"]
    lines += ["| {:g} | {:.1f} | {:.2f} | {:.4f} |".format(*row) for row in rows]
    about = f"{given.task}, `{given.generator}`, faces {given.first + 1} to {given.first + len(paths)}, {VIEWS} views"
    text = "\n".join([*lines, "", f"{about}. {machine('cpu')}."])
    print(text)
    if given.page:
        write_block(given.page, "time", text)
    if given.plot:
        plot(rows, plain, given.plot)


if __name__ == "__main__":
    main()
