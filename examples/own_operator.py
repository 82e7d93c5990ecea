"""A camera of one's own: every third row of its sensor is dead, and two neighbours in a row share a cell.

An operator is its ``forward``: the adjoint comes from automatic differentiation, the pseudo-inverse from conjugate
gradients. In this folder ``iagan check-operator own_operator.WornSensor`` says whether they are right.
"""

from pathlib import Path

import torch

import iagan_lightning
from iagan_lightning import reconstruct
from iagan_lightning.generators import load_generator
from iagan_lightning.images import fit_image, read_image, to_pillow
from iagan_lightning.metrics import evaluate
from iagan_lightning.operators import LinearOperator

PORTRAIT = Path(iagan_lightning.__file__).parent / "examples" / "astronaut.png"


class WornSensor(LinearOperator):
    """Images ``(B, C, H, W)`` -> the rows that are alive, at half the width."""

    def __init__(self, image_shape, dead: int = 3):
        super().__init__(image_shape)
        rows = torch.arange(image_shape[1])
        self.register_buffer("alive", rows[rows % dead != 0])  # goes to the device with the operator

    def forward(self, x):
        """Return what the sensor sees of x."""
        return torch.nn.functional.avg_pool2d(x[..., self.alive, :], (1, 2))


def main(G=None):
    """Measure a portrait with noise of two grey levels, and compare what comes back with it."""
    G = G or load_generator("faces64")
    A = WornSensor(G.image_shape)
    x = fit_image(read_image(PORTRAIT), G.image_shape[1:])[None]
    y = A.measure(x, noise_std=2 / 255, seed=0)

    result = reconstruct(y, A, G, noise_std=2 / 255)
    images = {"A^+ y": A.pseudo_inverse(y), **result.results}
    print(f"{A.num_measurements} measurements of {x.numel()} values")
    for name, image in images.items():
        [found] = evaluate(image, y, A, truth=x, noise_std=2 / 255)
        print(f"{name:>6}  PSNR {found['psnr']:.2f} dB, residual {found['residual_sigma']:.2f} of the noise")
    to_pillow(torch.cat([*images.values(), x], dim=-1)[0]).save("own_operator.png")
    return images


if __name__ == "__main__":
    main()
