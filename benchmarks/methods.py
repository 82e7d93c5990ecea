"""Methods side by side on the same measurements: IAGAN, CSGM, and ILO with depths and radii to choose from.

    python benchmarks/methods.py --faces FOLDER --generators began64 WEIGHTS [--first 50] [--count 24] [--page PAGE]
    python benchmarks/methods.py --faces FOLDER --first 10 --ilo 8:0.3 16:0.1 16:0.3 32:0.3     # how ILO's were chosen

Without noise, preset ``fast``; each method's last result, back-projected. ``--page docs/methods.md`` writes the table.
"""

from __future__ import annotations

import argparse
import statistics
from pathlib import Path

from speed import machine, quality, write_block

from iagan_lightning import CSGM, IAGAN, ILO, TestTimeModule, reconstruct
from iagan_lightning.data.images import fit_image, read_image
from iagan_lightning.generators import Generator, load_generator
from iagan_lightning.operators import BicubicDownsampling, GaussianSensing, Inpainting

OPERATORS = {
    "x4": lambda shape: BicubicDownsampling(shape, scale=4),
    "x8": lambda shape: BicubicDownsampling(shape, scale=8),
    "Gaussian .122": lambda shape: GaussianSensing(shape, ratio=0.122, seed=0),
    "inpainting .5": lambda shape: Inpainting(shape, ratio=0.5, seed=0),
}


def methods(G: Generator, choices: list[str]) -> dict[str, tuple[TestTimeModule, str]]:
    """Return each method and the result that is judged, by what the table calls it."""
    rows: dict[str, tuple[TestTimeModule, str]] = {"CSGM": (CSGM(G), "csgm_bp"), "IAGAN": (IAGAN(G), "iagan_bp")}
    for choice in choices:
        depth, _, radius = choice.partition(":")
        module = ILO(G, depth=int(depth), radius=float(radius)) if depth else ILO(G)
        name = f"features-{depth}, {radius}" if depth else "default"
        rows[f"ILO ({name}), weights frozen"] = module, "ilo_bp"
        rows[f"ILO ({name})"] = module, "iagan_bp"
    return rows


def main() -> None:
    """Measure and print, or write the table into a page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--faces", required=True, type=Path)
    parser.add_argument("--generators", nargs="+", default=["began64"])
    parser.add_argument("--tasks", nargs="+", default=list(OPERATORS), choices=list(OPERATORS))
    parser.add_argument("--ilo", nargs="*", default=[""], metavar="DEPTH:RADIUS")
    parser.add_argument("--first", type=int, default=50, help="settings are chosen on images 1 to 50")
    parser.add_argument("--count", type=int, default=24)
    parser.add_argument("--page", type=Path)
    given = parser.parse_args()
    paths = sorted(given.faces.glob("*.png"))[given.first : given.first + given.count]
    names: list[str] = []
    lines: list[str] = []
    for generator in given.generators:
        G = load_generator(generator)
        rows = methods(G, given.ilo)
        results = {row: result for row, (_, result) in rows.items()}
        names = list(rows)
        for task in given.tasks:
            A = OPERATORS[task](G.image_shape)
            cells: dict[str, list[tuple[float, float, int]]] = {name: [] for name in names}
            for seed, path in enumerate(paths):
                x = fit_image(read_image(path), G.image_shape[1:])[None]
                y, done = A(x), {}
                for name, (module, _) in rows.items():
                    if id(module) not in done:
                        done[id(module)] = reconstruct(y, A, module, seed=seed, accelerator="cpu")
                    result = done[id(module)]
                    spent = sum(int(count) for count in result.evaluations.values())
                    cells[name].append((*quality(result[results[name]], y, A, x), spent))
            for name, values in cells.items():
                psnr, lpips, evaluations = (statistics.fmean(column) for column in zip(*values, strict=True))
                figures = f"{psnr:.2f} | {lpips:.4f} | {evaluations:.0f}"
                line = f"| {Path(generator).stem} | {task} | {name} | {figures} |"
                print(line, flush=True)
                lines.append(line)
    head = "| prior | task | method | PSNR | LPIPS squeeze | evaluations, all fits |\n|---|---|---|---|---|---|"
    note = f"Means over faces {given.first + 1} to {given.first + len(paths)}. {machine('cpu')}."
    table = "\n".join([head, *lines, "", note])
    if given.page:
        write_block(given.page, "methods", table)


if __name__ == "__main__":
    main()
