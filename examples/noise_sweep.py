"""What noise costs: a blurred portrait at three noise levels.

The level tells when to stop, since what fits y better than the noise allows has begun to fit the noise; None in its
place has measurements that are kept back tell.
"""

from pathlib import Path

import torch

import iagan_lightning
from iagan_lightning import reconstruct
from iagan_lightning.generators import load_generator
from iagan_lightning.images import fit_image, read_image, to_pillow
from iagan_lightning.metrics import evaluate
from iagan_lightning.operators import Blur

PORTRAIT = Path(iagan_lightning.__file__).parent / "examples" / "astronaut.png"


def main(G=None, levels=(2, 10, 25)):
    """Print PSNR in dB over noise levels, which are grey levels of 255."""
    G = G or load_generator("began64")
    x = fit_image(read_image(PORTRAIT), G.image_shape[1:])[None]
    A = Blur(G.image_shape, kernel="uniform", size=5)
    columns, table = [], []
    print("noise  Tikhonov   CSGM  IAGAN")
    for level in levels:
        noise_std = level / 255
        y = A.measure(x, noise_std, seed=level)
        result = reconstruct(y, A, G, noise_std=noise_std)
        images = [A.pseudo_inverse(y, noise_std), result.csgm, result.iagan]
        table.append([evaluate(image, y, A, truth=x)[0]["psnr"] for image in images])
        print("{:5d} {:9.2f} {:6.2f} {:6.2f}".format(level, *table[-1]))
        columns.append(torch.cat([y, *images], dim=-2))
    to_pillow(torch.cat(columns, dim=-1)[0]).save("noise_sweep.png")
    return table


if __name__ == "__main__":
    main()
