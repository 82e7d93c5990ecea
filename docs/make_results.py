"""Write docs/results.md and the README's table from finished runs.

    python docs/make_results.py RUN [RUN ...]

Each RUN is the --out folder of one command; its config.yaml says which one it was.
"""

import argparse
import json
import platform
import re
import statistics
from pathlib import Path

import torch
import yaml

from iagan_lightning.output import OutputFolder
from iagan_lightning.sheet import TITLES

ROOT = Path(__file__).parent.parent
METRICS = {"psnr": ".2f", "ssim": ".4f", "lpips_squeeze": ".4f", "residual": ".1e"}


def rows_of(run: Path) -> tuple[str, dict, dict]:
    """Return the preset and noise of a run, the means of its methods, and means over its images."""
    config = yaml.safe_load((run / "config.yaml").read_text(encoding="utf-8"))
    summary = json.loads((run / "summary.json").read_text(encoding="utf-8"))
    done = list(OutputFolder(run).done())
    spent = {
        "images": len(done),
        "seconds": statistics.fmean(image["seconds"]["total"] for image in done),
        "latent": statistics.fmean(image["evaluations"]["latent"] for image in done),
        "joint": statistics.fmean(image["evaluations"]["joint"] for image in done),
        "objective": statistics.fmean(image["objective"]["joint"] for image in done),
        "device": done[0]["device"],
    }
    return f"{config['model']['preset']}, noise {config['noise_std']}", summary["methods"], spent


def table(methods: dict) -> str:
    """Return the means of one run as a Markdown table."""
    lines = ["| method | PSNR | SSIM | LPIPS squeeze | residual |", "|---|---|---|---|---|"]
    for name, values in methods.items():
        cells = [format(values[key]["mean"], style) for key, style in METRICS.items()]
        lines.append(f"| {TITLES[name]} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    """Write both."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", nargs="+", type=Path)
    runs = [rows_of(run) for run in parser.parse_args().runs]
    sections = [
        f"## {title}\n\n{table(methods)}\n\n{spent['images']} images; {spent['latent']:.0f} latent and "
        f"{spent['joint']:.0f} joint evaluations, final objective {spent['objective']:.2e}, "
        f"{spent['seconds']:.1f} s per image on {spent['device']}.\n"
        for title, methods, spent in runs
    ]
    page = ROOT / "docs" / "results.md"
    head = page.read_text(encoding="utf-8").split("<!-- runs -->")[0]
    machine = f"Python {platform.python_version()}, PyTorch {torch.__version__}, {torch.get_num_threads()} threads"
    page.write_text(f"{head}<!-- runs -->\n{machine}.\n\n" + "\n".join(sections), encoding="utf-8")

    lines = [
        "| preset, noise | naive | CSGM | CSGM-BP | IAGAN | IAGAN-BP | evaluations |",
        "|---|---|---|---|---|---|---|",
    ]
    for title, methods, spent in runs:
        cells = [
            f"{methods[name]['psnr']['mean']:.2f} / {methods[name]['lpips_squeeze']['mean']:.3f}"
            if name in methods
            else ""
            for name in ("naive", "csgm", "csgm_bp", "iagan", "iagan_bp")
        ]
        lines.append(f"| {title} | {' | '.join(cells)} | {spent['latent']:.0f} + {spent['joint']:.0f} |")
    readme = ROOT / "README.md"
    block = "<!-- results -->\n" + "\n".join(lines) + "\n<!-- end -->"
    text = re.sub(r"<!-- results -->.*?<!-- end -->", lambda _: block, readme.read_text(encoding="utf-8"), flags=re.S)
    readme.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
