"""What views gain, what they cost, how well they know their errors: ``best`` beside ``fast``, tasks of docs/tasks.md.

    python benchmarks/views.py --faces FACES --out OUT \\
        --generators began64 began64-celeba.pth [--views 2 4] [--first 50] [--count 24] \\
        [--page docs/views.md]

``fast`` is the first view, so one run tells both. Results stay in OUT, a file for each task, and are not made again.
With ``--calibrate`` (on faces that are not judged: ``--first 0``) it also writes the factors of the uncertainty beside
the weights of each generator. ``--plot FILE`` draws how often intervals of the uncertainty hold the truth.
"""

from __future__ import annotations

import argparse
import math
import statistics
from pathlib import Path
from typing import Any

import torch
from peers import PROBLEMS, RUNS, problem_of
from speed import machine, write_block
from torch import Tensor
from torch.nn import functional

from iagan_lightning import IAGAN, reconstruct
from iagan_lightning.data.images import fit_image, read_image
from iagan_lightning.generators import CATALOGUE, Generator, fetch_prior, load_generator
from iagan_lightning.generators.calibration_files import save_calibration
from iagan_lightning.results.metrics import evaluate
from iagan_lightning.results.uncertainty import NINETY, factor_of, kind_of, spread

LPIPS = "lpips_squeeze"
BLOCK = 4  # pixels of a side of what errors and uncertainty are compared over


def made(task: str, G: Generator, paths: list[Path], first: int, views: int) -> list[dict[str, Any]]:
    """Reconstruct faces in several views; return of each what the first view and the mean are worth."""
    A, noise_std = problem_of(PROBLEMS[task], G.image_shape)
    method, rows = IAGAN(G), []
    for number, path in enumerate(paths, first):
        truth = fit_image(read_image(path), G.image_shape[1:])[None]
        y = A.measure(truth, noise_std=noise_std, seed=number)
        result = reconstruct(y, A, method, noise_std, seed=number, views=views, accelerator="cpu", progress=False)
        exact = "iagan_bp" in result.results
        names = [name for name in result.results if name.startswith("iagan") and name != "iagan_mean"]
        singles = [name for name in names if name.endswith("_bp") == exact]
        seen = torch.stack([result[name] for name in singles])
        error = (result["iagan_mean"] - truth).abs() / 2
        row: dict[str, Any] = {"ratio": (error / spread(seen)).flatten().half()}
        row["spread"] = float(spread(seen).mean())
        for name, image in (("csgm", result["csgm"]), ("fast", result[singles[0]]), ("mean", result["iagan_mean"])):
            [row[name]] = evaluate(image, y, A, truth, noise_std, "squeeze")
        row["fast"]["seconds"] = result.seconds["latent"] + result.seconds["joint"]
        row["mean"]["seconds"] = result.seconds["total"]
        row["correlation"] = _correlation(error.mean(1, keepdim=True), spread(seen))
        rows.append(row)
    return rows


def _correlation(error: Tensor, std: Tensor) -> float:
    blocks = [functional.avg_pool2d(each, BLOCK).flatten() for each in (error, std)]
    return float(torch.corrcoef(torch.stack(blocks))[0, 1])


def mean(rows: list[dict[str, Any]], of: str, key: str) -> float:
    """Return the mean of a metric of ``fast`` or of ``mean``."""
    return statistics.fmean(row[of].get(key, math.nan) for row in rows)


def left_open(rows: list[dict[str, Any]]) -> Tensor:
    """Return errors over spread of all values that y has not told, as it tells pixels in inpainting."""
    ratios = torch.cat([row["ratio"].float() for row in rows])
    return ratios[ratios > 1e-4]


def factor(rows: list[dict[str, Any]]) -> float:
    """Return what the spread is to be multiplied by for 90 % of all errors to be less than 1.645 of it."""
    ratios = left_open(rows)
    return float(ratios.kthvalue(round(0.9 * len(ratios))).values) / NINETY


def line(task: str, rows: list[dict[str, Any]], known: float | None, views: int) -> str:
    """Return the line of a task."""
    cells = [f"{mean(rows, of, 'psnr'):.2f} / {mean(rows, of, LPIPS):.4f}" for of in ("fast", "mean")]
    cells += [f"{mean(rows, 'mean', 'psnr') - mean(rows, 'fast', 'psnr'):+.2f}"]
    cells += [f"{mean(rows, 'mean', LPIPS) / mean(rows, 'fast', LPIPS) - 1:+.0%}"]
    cells += [f"{mean(rows, 'mean', 'seconds') / mean(rows, 'fast', 'seconds'):.2f}"]
    cells += [f"{mean(rows, 'mean', 'residual'):.0e}", f"{statistics.fmean(row['correlation'] for row in rows):.2f}"]
    if known is not None:
        cells += [f"{float((left_open(rows) <= NINETY * factor_of(known, views)).float().mean()):.1%}"]
    return f"| {task} | {' | '.join(cells)} |"


def plot(curves: dict[str, list[tuple[Tensor, float]]], path: Path) -> None:
    """Draw for each task what part of the truth intervals of each probability hold."""
    from matplotlib import pyplot

    levels = torch.linspace(0.05, 0.99, 40)
    half = torch.distributions.Normal(0, 1).icdf((1 + levels) / 2)
    figure, axes = pyplot.subplots(1, len(curves), figsize=(4.5 * len(curves), 4.2), squeeze=False)
    for axis, (title, tasks) in zip(axes[0], curves.items(), strict=True):
        axis.plot([0, 1], [0, 1], color="grey", linewidth=0.8)
        for (ratios, scale), task in zip(tasks, PROBLEMS, strict=False):
            axis.plot(levels, [float((ratios <= scale * z).float().mean()) for z in half], label=task, linewidth=1)
        axis.set(title=title, xlabel="probability of the interval", ylabel="part of the truth in it")
    axes[0][-1].legend(fontsize=6)
    figure.tight_layout()
    figure.savefig(path, dpi=110)


def main() -> None:
    """Measure, and print or write the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--faces", required=True, type=Path)
    parser.add_argument("--generators", nargs="+", default=["began64"])
    parser.add_argument("--tasks", nargs="+", default=list(RUNS), choices=list(PROBLEMS), metavar="TASK")
    parser.add_argument("--views", nargs="+", type=int, default=[2])
    parser.add_argument("--first", type=int, default=50, help="settings are chosen on images 1 to 50")
    parser.add_argument("--count", type=int, default=24)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--calibrate", action="store_true")
    parser.add_argument("--page", type=Path)
    parser.add_argument("--name", default="views", help="which of the page's tables")
    parser.add_argument("--plot", type=Path)
    given = parser.parse_args()
    torch.set_num_threads(1)
    paths = sorted(given.faces.glob("*.png"))[given.first : given.first + given.count]
    given.out.mkdir(parents=True, exist_ok=True)
    heads = "| task | `fast` | views averaged | dB | LPIPS | time | residual | correlation | in the 90 % interval |"
    tables, curves = [], {}
    for source in given.generators:
        G = load_generator(source)
        for views in given.views:
            name, lines, factors = Path(source).stem, [heads, "|" + "---|" * heads.count(" | ") + "---|"], {}
            for task in given.tasks:
                number = list(PROBLEMS).index(task)
                kept = given.out / f"{name}-{views}-{given.first}-{given.count}-{number}.pt"
                if not kept.exists():
                    torch.save(made(task, G, paths, given.first, views), kept)
                rows = torch.load(kept, weights_only=True)
                A, noise_std = problem_of(PROBLEMS[task], G.image_shape)
                kind = kind_of(A, noise_std)
                factors.setdefault(kind, []).extend(rows)
                known = G.calibration.factors.get(kind)
                lines.append(line(task, rows, known, views))
                if known is not None:
                    curve = (left_open(rows), factor_of(known, views))
                    curves.setdefault(f"{name}, {views} views", []).append(curve)
                print(lines[-1], flush=True)
            about = f"`{name}`, {views} views, faces {given.first + 1} to {given.first + len(paths)}."
            tables.append(about + "\n\n" + "\n".join(lines))
            if given.calibrate and views == 2:
                found = {kind: round(factor(rows), 2) for kind, rows in factors.items()}
                told = {"faces": f"{given.first + 1} to {given.first + len(paths)} of {given.faces.name}", "views": 2}
                path = fetch_prior(source) if source in CATALOGUE else Path(source)
                print(save_calibration(G, path, told, factors=found), found)
    text = "\n\n".join([*tables, f"Means. Time is that of all views in units of the first's. {machine('cpu')}."])
    print(text)
    if given.page:
        write_block(given.page, given.name, text)
    if given.plot and curves:
        plot(curves, given.plot)


if __name__ == "__main__":
    main()
