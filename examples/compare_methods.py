"""Compare four methods on one picture, a portrait half of whose pixels are missing.

Each fit of a method has a result; the last one is compared. Deep Image Prior needs no generator, and 100 steps are
few for it.
"""

from pathlib import Path

import torch

import iagan_lightning
from iagan_lightning import CSGM, DIP, IAGAN, ILO, DIPSettings, reconstruct
from iagan_lightning.generators import load_generator
from iagan_lightning.images import fit_image, read_image, to_pillow
from iagan_lightning.metrics import evaluate
from iagan_lightning.operators import Inpainting

PORTRAIT = Path(iagan_lightning.__file__).parent / "examples" / "grace_hopper.png"


def main(G=None, dip_steps=100):
    """Run each method and print a table."""
    G = G or load_generator("began64")  # ILO searches its features
    x = fit_image(read_image(PORTRAIT), G.image_shape[1:])[None]
    A = Inpainting(G.image_shape, ratio=0.5)
    y = A(x)
    dip = DIP(settings=DIPSettings(steps=dip_steps))
    methods = [("CSGM", CSGM(G), "csgm"), ("IAGAN", IAGAN(G), "iagan"), ("ILO", ILO(G), "iagan"), ("DIP", dip, "dip")]
    images = [x, y]
    print("method  PSNR in dB   SSIM  seconds")
    for title, module, last in methods:
        result = reconstruct(y, A, module)
        [found] = evaluate(result[last], y, A, truth=x)
        print(f"{title:<6} {found['psnr']:11.2f} {found['ssim']:6.3f} {result.seconds['total']:8.1f}")
        images.append(result[last])
    to_pillow(torch.cat(images, dim=-1)[0]).save("compare_methods.png")
    return images


if __name__ == "__main__":
    main()
