"""Write the sample sheet and the measured tables of docs/priors.md.

    python docs/make_priors.py FIT.json RUN_BUNDLED RUN_PUBLIC

FIT.json comes from benchmarks/prior_fit.py, each RUN is the --out folder of one super-resolution command.
"""

from __future__ import annotations

import argparse
import csv
import json
import re
from pathlib import Path

import torch
from safetensors import safe_open

from iagan_lightning.generators import bundled_priors, load_generator
from iagan_lightning.training.pictures import sample_sheet

ROOT = Path(__file__).parent.parent
SEED = 0


def main() -> None:
    """Write pictures and tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("fit", type=Path)
    parser.add_argument("runs", nargs="+", type=Path)
    given = parser.parse_args()
    blocks = {}
    for name, path in bundled_priors().items():
        G = load_generator(name)
        with torch.no_grad():
            sheet = sample_sheet(G(G.sample_latent(32, SEED)), columns=8)
        sheet.save(ROOT / "docs" / "pictures" / f"{name}_samples.png", optimize=True)
        with safe_open(path, framework="pt") as file:
            header = json.loads(file.metadata()["iagan_lightning"])
        weights = sum(p.numel() for p in G.parameters())
        settings = ", ".join(f"{key} {value}" for key, value in header["training"]["settings"].items())
        blocks[name] = (
            f"{weights:,} weights in half precision, {path.stat().st_size / 1e6:.2f} MB. "
            f"Header of the file: {header['training']['steps']} steps with {settings}."
        )
    draw_training()
    fit = json.loads(given.fit.read_text(encoding="utf-8"))
    lines = ["| prior | faces | PSNR | SSIM | LPIPS squeeze |", "|---|---|---|---|---|"]
    for name, rows in fit.items():
        psnr, ssim, lpips = (sum(row[key] for row in rows) / len(rows) for key in ("psnr", "ssim", "lpips_squeeze"))
        lines.append(f"| {name} | {len(rows)} | {psnr:.2f} | {ssim:.4f} | {lpips:.4f} |")
    blocks["fit"] = "\n".join(lines)
    lines = ["| prior | faces | naive | CSGM | CSGM-BP | IAGAN | IAGAN-BP |", "|---|---|---|---|---|---|---|"]
    for run in given.runs:
        summary = json.loads((run / "summary.json").read_text(encoding="utf-8"))
        config = (run / "config.yaml").read_text(encoding="utf-8")
        generator = Path(re.search(r"generator: (\S+)", config)[1]).stem  # type: ignore[index]
        cells = [
            f"{summary['methods'][m]['psnr']['mean']:.2f} / {summary['methods'][m]['lpips_squeeze']['mean']:.3f}"
            for m in ("naive", "csgm", "csgm_bp", "iagan", "iagan_bp")
        ]
        lines.append(f"| {generator} | {summary['images']} | {' | '.join(cells)} |")
    blocks["x4"] = "\n".join(lines)
    page = ROOT / "docs" / "priors.md"
    text = page.read_text(encoding="utf-8")
    for name, block in blocks.items():
        pattern = rf"<!-- {name} -->.*?<!-- end -->"
        text = re.sub(pattern, lambda _, n=name, b=block: f"<!-- {n} -->\n{b}\n<!-- end -->", text, flags=re.S)
    page.write_text(text, encoding="utf-8")


def draw_training() -> None:
    """Draw the curves of the priors of 128 x 128 pixels: held-out faces, through the encoder alone."""
    import matplotlib.pyplot as plt

    with (ROOT / "docs" / "training" / "priors128.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    figure, axes = plt.subplots(1, 2, figsize=(9, 3.2), layout="constrained")
    for axis, column, label in zip(axes, ("psnr", "lpips_squeeze"), ("PSNR in dB", "LPIPS squeeze"), strict=True):
        for prior in ("faces128", "began128"):
            chosen = [row for row in rows if row["prior"] == prior]
            pictures = [int(row["pictures"]) / 1000 for row in chosen]
            axis.plot(pictures, [float(row[column]) for row in chosen], label=prior)
        axis.set(xlabel="training pictures, thousands", ylabel=label)
        axis.legend(frameon=False)
    figure.savefig(ROOT / "docs" / "pictures" / "priors128.png", dpi=110)


if __name__ == "__main__":
    main()
