"""Make the pictures of docs/method.md from real runs on the bundled portraits.

    pip install -e ".[plot]" && python docs/make_method.py

``method.png``: the way of one portrait through both stages. ``noise.png``: objective and PSNR of both portraits where
the joint stage does not stop at the noise.
"""

from pathlib import Path

import pytorch_lightning as pl
import torch
from matplotlib.figure import Figure

from iagan_lightning import Stage, reconstruct
from iagan_lightning.data.images import fit_image, read_image
from iagan_lightning.data.samples import EXAMPLES
from iagan_lightning.generators import load_generator
from iagan_lightning.operators import BicubicDownsampling, GaussianSensing
from iagan_lightning.optim import noise_power
from iagan_lightning.results.sheet import comparison_sheet, stack_sheets

PICTURES = Path(__file__).parent / "pictures"
NOISE = 10 / 255


class Watch(pl.Callback):
    """Keep the objective and the image of every evaluation, by stage."""

    def __init__(self):
        self.seen = {"latent": [], "joint": []}

    def on_before_backward(self, trainer, pl_module, loss):
        """Copy the evaluation at hand."""
        now = pl_module.evaluation
        self.seen[pl_module.stage].append((now.objective.clone(), now.image.clone()))


def psnr(x, truth):
    """Return the PSNR in dB of each image."""
    return -10 * ((x.clamp(-1, 1) - truth) / 2).square().flatten(1).mean(1).log10()


def best(evaluations):
    """Return the first of the images whose objective is lowest."""
    return min(evaluations, key=lambda pair: pair[0].item())[1]


def the_way(G, truth):
    """Save the best image after a few evaluations of each stage, and the back-projected end."""
    A = GaussianSensing(G.image_shape, ratio=0.122)
    y, watch = A(truth), Watch()
    result = reconstruct(y, A, G, callbacks=[watch], accelerator="cpu")
    rows = {"latent": {"truth": truth[0]}, "joint": {}}
    for stage, steps in (("latent", (1, 3, 6, 10)), ("joint", (2, 5, 20, 250))):
        seen = watch.seen[stage]
        for count in (min(step, len(seen)) for step in steps):
            rows[stage][f"{stage} {count}"] = best(seen[:count])[0]
    rows["joint"]["back-projected"] = result.iagan_bp[0]
    sheets = []
    for row in rows.values():
        captions = {name: f"{psnr(x[None], truth).item():.1f} dB" for name, x in row.items() if name != "truth"}
        sheets.append(comparison_sheet(row, captions, cell=160))
    stack_sheets(sheets).save(PICTURES / "method.png", optimize=True)


def the_noise(G, truths):
    """Plot objective and PSNR over the joint stage, and where the discrepancy principle ends it."""
    A = BicubicDownsampling(G.image_shape, scale=4)
    figure = Figure(figsize=(9, 3.2), layout="constrained")
    left, right = figure.subplots(1, 2)
    level = noise_power(NOISE)
    for i, path in enumerate(sorted(EXAMPLES.glob("*.png"))):
        truth, watch = truths[i : i + 1], Watch()
        y = A.measure(truth, NOISE, seed=i)
        reconstruct(y, A, G, NOISE, joint=Stage(steps=250, stop="never"), callbacks=[watch], accelerator="cpu")
        objectives = [objective.item() for objective, _ in watch.seen["joint"]]
        psnrs = [psnr(image, truth).item() for _, image in watch.seen["joint"]]
        stop = next(n for n, objective in enumerate(objectives) if objective <= level)
        for axes, values in ((left, objectives), (right, psnrs)):
            (line,) = axes.plot(range(1, len(values) + 1), values, label=path.stem)
            axes.plot(stop + 1, values[stop], "o", color=line.get_color())
    left.axhline(level, color="black", linestyle=":", linewidth=1)
    left.text(len(objectives), level, "power of the noise", ha="right", va="bottom")
    left.set(yscale="log", xlabel="evaluations of the joint stage", ylabel="objective |y - A x|² / m")
    right.set(xlabel="evaluations of the joint stage", ylabel="PSNR [dB]")
    right.legend(title="dot: the preset stops here")
    figure.savefig(PICTURES / "noise.png", dpi=110)


def main():
    """Make both."""
    G = load_generator("began64")
    truths = torch.stack([fit_image(read_image(path), G.image_shape[1:]) for path in sorted(EXAMPLES.glob("*.png"))])
    the_way(G, truths[:1])
    the_noise(G, truths)


if __name__ == "__main__":
    main()
