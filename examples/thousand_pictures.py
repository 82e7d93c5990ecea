"""A thousand pictures with two processes; one picture is damaged, is mended, and the same command does the rest.

The generator is a stub of this file, so that a thousand take a minute; a name or file of weights in its place is all
that a run in earnest needs (and ``--trainer.accelerator gpu``, where there are several).
"""

import os
import shutil
import sys
from pathlib import Path

import torch
from PIL import Image

from iagan_lightning.cli import main as iagan
from iagan_lightning.generators import Generator


class Stub(Generator):
    """Pictures of 16 x 16 pixels, from 4 x 4 enlarged."""

    latent_shape, image_shape = (48,), (3, 16, 16)

    def __init__(self):
        super().__init__()
        self.scale = torch.nn.Parameter(torch.full((1, 3, 1, 1), 0.3))

    def forward(self, z):
        """Return the pictures of z."""
        small = (self.scale * z.reshape(-1, 3, 4, 4)).tanh()
        return torch.nn.functional.interpolate(small, self.image_shape[1:], mode="bilinear")


def main(count=1000, processes=2, generator="{class_path: thousand_pictures.Stub}", options=()):
    """Make the pictures, run twice, and return both exit statuses."""
    here = str(Path(__file__).parent)  # where Stub is found, by the second process too
    sys.path.insert(0, here)
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [here, os.environ.get("PYTHONPATH")]))
    Path("thousand").mkdir()
    for number in range(count):
        pixels = torch.randint(256, (4, 4, 3), generator=torch.Generator().manual_seed(number), dtype=torch.uint8)
        Image.fromarray(pixels.numpy()).resize((16, 16)).save(f"thousand/{number:04}.png")
    shutil.copy("thousand/0007.png", "whole.png")
    Path("thousand/0007.png").write_bytes(Path("whole.png").read_bytes()[:50])

    command = "super-resolution --data.root thousand --out thousand-out --quiet true"
    quick = (
        f"--data.images_per_fit 50 --tensorboard 0 --lpips none --trainer.accelerator cpu --trainer.devices {processes}"
    )
    words = [*command.split(), *quick.split(), "--model.generator", generator, *options]
    first = iagan(words)
    shutil.move("whole.png", "thousand/0007.png")
    second = iagan(words)
    done = len(list(Path("thousand-out").glob("images/*/metrics.json")))
    print(f"exit status {first}, then {second}; {done} of {count} are done")
    return first, second


if __name__ == "__main__":
    main()
