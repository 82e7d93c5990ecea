"""How well priors can show faces that they never saw: plain CSGM with the identity operator, best of some restarts.

    python benchmarks/prior_fit.py FACES began64 began64-celeba.pth

Prints one line per prior and face, then the means; ``--out FILE.json`` keeps everything.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import torch

from iagan_lightning import Stage, reconstruct
from iagan_lightning.data.images import fit_image, read_image
from iagan_lightning.generators import load_generator
from iagan_lightning.operators import Identity
from iagan_lightning.results.metrics import evaluate


def main() -> None:
    """Fit every prior to every face."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("faces", type=Path, help="folder of faces, framed as in the priors' training")
    parser.add_argument("priors", nargs="+", help="names or files")
    parser.add_argument("--first", type=int, default=0, help="faces to leave out at the beginning")
    parser.add_argument("--limit", type=int, help="only so many faces")
    parser.add_argument("--restarts", type=int, default=3)
    parser.add_argument("--steps", type=int, default=150, help="evaluations of L-BFGS for each start")
    parser.add_argument("--lpips", default="squeeze")
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    latent = Stage(optimizer="lbfgs", steps=given.steps, restarts=given.restarts, stop="never")
    table: dict[str, list[dict[str, float]]] = {}
    for prior in given.priors:
        G = load_generator(prior)
        A = Identity(G.image_shape)
        rows = table[Path(prior).stem] = []
        for path in sorted(given.faces.glob("*.png"))[given.first :][: given.limit]:
            x = fit_image(read_image(path), G.image_shape[1:])[None]
            start = time.perf_counter()
            result = reconstruct(x, A, G, seed=0, latent=latent, joint=Stage(steps=1), accelerator="cpu")
            [row] = evaluate(result.csgm, x, A, truth=x, lpips=given.lpips)
            rows.append({**row, "evaluations": int(result.evaluations["latent"][0])})
            print(
                f"{Path(prior).stem} {path.name}: PSNR {row['psnr']:.2f}, {time.perf_counter() - start:.1f} s",
                flush=True,
            )
    print(f"\n{given.restarts} restarts, {torch.get_num_threads()} threads, PyTorch {torch.__version__}")
    for prior, rows in table.items():
        means = {key: sum(row[key] for row in rows) / len(rows) for key in rows[0]}
        shown = ", ".join(f"{key} {means[key]:.4g}" for key in means if key != "mse")
        print(f"{prior}: mean over {len(rows)} faces: {shown}")
    if given.out:
        given.out.write_text(json.dumps(table, indent=1))


if __name__ == "__main__":
    main()
