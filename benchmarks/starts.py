"""Where the search for the latent begins: how many evaluations, of IAGAN's and in all, a better start saves.

    python benchmarks/starts.py --faces FACES --rows starts.jsonl --page docs/priors.md

A start is ``draw``, ``mean``, ``encoder``, or ``truth``, an oracle: the code that CSGM finds of the true picture itself
in 50 evaluations. ``encoder:5`` searches for 5 evaluations at most; without a number the preset decides. Preset
``fast``; without noise iagan_bp is judged, with noise iagan. What has been measured is kept in ROWS, and not measured
again.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from speed import machine, quality, write_block
from torch import Tensor

from iagan_lightning import CSGM, IAGAN, Stage, reconstruct
from iagan_lightning.data.images import fit_image, read_image
from iagan_lightning.generators import Generator, load_generator
from iagan_lightning.methods.fit import DRAW, ENCODER, MEAN
from iagan_lightning.operators import BicubicDownsampling, GaussianSensing, Identity, Inpainting, Operator

TRUTH = "truth"
KEY = ("face", "problem", "start")
PROBLEMS: dict[str, tuple[Callable[[tuple[int, int, int]], Operator], float]] = {
    "x4": (lambda shape: BicubicDownsampling(shape, scale=4), 0.0),
    "x4, noise 10/255": (lambda shape: BicubicDownsampling(shape, scale=4), 10 / 255),
    "x8": (lambda shape: BicubicDownsampling(shape, scale=8), 0.0),
    "Gaussian .122": (lambda shape: GaussianSensing(shape, ratio=0.122, seed=0), 0.0),
    "inpainting .5": (lambda shape: Inpainting(shape, ratio=0.5, seed=0), 0.0),
}


class Begun(IAGAN):
    """IAGAN whose first fit begins elsewhere."""

    def __init__(self, generator: Generator, start: str, steps: int | None, code: Tensor | None = None) -> None:
        super().__init__(generator, latent=Stage(steps=steps), init=MEAN if start == TRUTH else start)
        self.begins, self.code = start, code

    def start(self) -> None:
        """Begin where the oracle says."""
        super().start()
        if self.is_first and self.begins == TRUTH:
            assert self.code is not None
            self.z = torch.nn.Parameter(self.code.clone())


def code_of(x: Tensor, G: Generator) -> Tensor:
    """Return the latent that CSGM finds of the picture itself."""
    module = CSGM(G, latent=Stage(steps=50, stop="never"))
    reconstruct(x, Identity(G.image_shape), module, accelerator="cpu", progress=False)
    return module.kept["latent"].z


def measured(G: Generator, x: Tensor, seed: int, problem: str, start: str, code: Tensor | None) -> dict[str, float]:
    """Return what one reconstruction cost and came to."""
    make, noise_std = PROBLEMS[problem]
    A = make(G.image_shape)
    y = A.measure(x, noise_std, seed=seed)
    kind, _, steps = start.partition(":")
    module = Begun(G, kind, int(steps) if steps else None, code)
    before = time.process_time()
    result = reconstruct(y, A, module, noise_std, seed=seed, accelerator="cpu", progress=False)
    row = {"seconds": time.process_time() - before}
    row |= {name: float(count) for name, count in result.evaluations.items()}
    for name, image in (("csgm", result.csgm), ("final", result.iagan if noise_std else result.iagan_bp)):
        row[f"{name}_psnr"], row[f"{name}_lpips"] = quality(image, y, A, x)
    return row


def main() -> None:
    """Measure and print, or write the table into a page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--faces", required=True, type=Path)
    parser.add_argument("--generator", default="faces128")
    parser.add_argument("--problems", nargs="+", default=list(PROBLEMS), choices=list(PROBLEMS))
    parser.add_argument("--starts", nargs="+", default=[DRAW, f"{DRAW}:20", f"{ENCODER}:10"])
    parser.add_argument("--first", type=int, default=8, help="settings are chosen on images 1 to 8")
    parser.add_argument("--count", type=int, default=16)
    parser.add_argument("--rows", type=Path, help="file of lines of JSON that keeps what is measured")
    parser.add_argument("--page", type=Path)
    parser.add_argument("--block", default="starts", help="of the page")
    given = parser.parse_args()
    G = load_generator(given.generator)
    paths = sorted(given.faces.glob("*.png"))[given.first : given.first + given.count]
    rows: dict[tuple[int, str, str], dict[str, float]] = {}
    if given.rows and given.rows.exists():
        for line in given.rows.read_text().splitlines():
            kept = json.loads(line)
            rows[kept["face"], kept["problem"], kept["start"]] = kept
    for face, path in enumerate(paths, given.first):
        x = fit_image(read_image(path), G.image_shape[1:])[None]
        wanted = [(face, p, s) for p in given.problems for s in given.starts if (face, p, s) not in rows]
        code = code_of(x, G) if any(start.startswith(TRUTH) for *_, start in wanted) else None
        for key in wanted:
            _, problem, start = key
            rows[key] = measured(G, x, face, problem, start, code)
            line = json.dumps({"face": face, "problem": problem, "start": start, **rows[key]})
            print(line, flush=True)
            if given.rows:
                with given.rows.open("a") as file:
                    file.write(line + "\n")
    head = "| task | start | faces | latent | joint | all | s of processor | CSGM | IAGAN |\n" + "|---" * 9 + "|"
    lines = [head]
    for problem in given.problems:
        for start in given.starts:
            cells = [rows[face, problem, start] for face in range(given.first, given.first + len(paths))]
            mean = {name: statistics.fmean(cell[name] for cell in cells) for name in cells[0] if name not in KEY}
            pictures = " | ".join(f"{mean[f'{n}_psnr']:.2f} / {mean[f'{n}_lpips']:.4f}" for n in ("csgm", "final"))
            spent = f"{mean['latent']:.0f} | {mean['joint']:.0f} | {mean['latent'] + mean['joint']:.0f}"
            shown = start.replace(":", ", at most ")
            lines.append(f"| {problem} | {shown} | {len(cells)} | {spent} | {mean['seconds']:.1f} | {pictures} |")
    note = f"Means over faces {given.first + 1} to {given.first + len(paths)}. {machine('cpu')}."
    table = "\n".join([*lines, "", note])
    print(table)
    if given.page:
        write_block(given.page, given.block, table)


if __name__ == "__main__":
    main()
