"""Run every task of the paper on a few faces with the bundled prior, and write the table of docs/tasks.md.

python docs/make_tasks.py FACES --limit 2
"""

from __future__ import annotations

import argparse
import json
import re
import tempfile
from pathlib import Path

from iagan_lightning.cli import main as iagan
from iagan_lightning.results.folder import OutputFolder

PAGE = Path(__file__).parent / "tasks.md"
RUNS = {
    "compressed sensing, Fourier 30 %, noise 10/255": "compressed-sensing --operator.kind fourier --operator.ratio 0.3 "
    "--noise_std 10/255",
    "compressed sensing, Fourier 50 %, noise 10/255": "compressed-sensing --operator.kind fourier --operator.ratio 0.5 "
    "--noise_std 10/255",
    "compressed sensing, Gaussian 12.2 %": "compressed-sensing --operator.ratio 0.122",
    "super-resolution x4": "super-resolution --operator.scale 4",
    "super-resolution x4, noise 10/255": "super-resolution --operator.scale 4 --noise_std 10/255",
    "deblurring 9 x 9, noise 10/255": "deblurring --noise_std 10/255",
    "inpainting, half of the pixels": "inpainting",
    "inpainting, a box of 20 x 20": "inpainting --operator.box [22,22,20,20]",
    "denoising, noise 25/255": "denoising --noise_std 25/255",
}
METHODS = ("naive", "csgm", "csgm_bp", "iagan", "iagan_bp")


def main() -> None:
    """Run and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("faces", type=Path)
    parser.add_argument("--limit", type=int, default=2)
    parser.add_argument("--generator", default="began64")
    parser.add_argument("--keep", type=Path, help="folder for the runs; thrown away by default")
    given = parser.parse_args()
    lines = [
        "| task | naive | CSGM | CSGM-BP | IAGAN | IAGAN-BP | evaluations | seconds |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for number, (title, command) in enumerate(RUNS.items()):
        with tempfile.TemporaryDirectory() as temporary:
            out = given.keep / str(number) if given.keep else Path(temporary)
            words = [*command.split(), "--data.root", str(given.faces), "--data.limit", str(given.limit)]
            words += [
                "--model.generator",
                given.generator,
                "--lpips",
                "squeeze",
                "--tensorboard",
                "0",
                "--out",
                str(out),
            ]
            if status := iagan(words):
                raise SystemExit(status)
            means = json.loads((out / "summary.json").read_text(encoding="utf-8"))["methods"]
            done = list(OutputFolder(out).done())
        cells = [
            f"{means[m]['psnr']['mean']:.2f} / {means[m]['lpips_squeeze']['mean']:.3f}" if m in means else ""
            for m in METHODS
        ]
        spent = [sum(image["evaluations"][stage] for image in done) / len(done) for stage in ("latent", "joint")]
        seconds = sum(image["seconds"]["total"] for image in done) / len(done)
        lines.append(f"| {title} | {' | '.join(cells)} | {spent[0]:.0f} + {spent[1]:.0f} | {seconds:.1f} |")
        PAGE.write_text(
            re.sub(
                r"<!-- tasks -->.*?<!-- end -->",
                lambda _: "<!-- tasks -->\n" + "\n".join(lines) + "\n<!-- end -->",
                PAGE.read_text(encoding="utf-8"),
                flags=re.S,
            ),
            encoding="utf-8",
        )


if __name__ == "__main__":
    main()
