"""Make the bundled portraits from pictures that come with well-known packages.

    pip install -e ".[align]" scikit-image matplotlib && python docs/make_examples.py

``astronaut``: Eileen Collins, NASA, public domain (skimage.data.astronaut).
``grace_hopper``: Grace Hopper, US Navy, public domain (matplotlib's sample data).
Each is cut to the tight framing of the priors' training faces, as ``--data.align true`` does, at 128 x 128 pixels.
"""

from pathlib import Path

import matplotlib.cbook
import numpy as np
import skimage.data
import torch
from PIL import Image

from iagan_lightning.data.framing import align_face
from iagan_lightning.data.images import fit_image, to_pillow

EXAMPLES = Path(__file__).parent.parent / "iagan_lightning" / "examples"


def main() -> None:
    """Cut, shrink and write both portraits."""
    EXAMPLES.mkdir(exist_ok=True)
    hopper = matplotlib.cbook.get_sample_data("grace_hopper.jpg", asfileobj=False)
    pictures = {"astronaut": Image.fromarray(skimage.data.astronaut()), "grace_hopper": Image.open(hopper)}
    for name, picture in pictures.items():
        pixels = torch.from_numpy(np.array(picture.convert("RGB")))
        face = align_face(pixels.permute(2, 0, 1) / 127.5 - 1)
        to_pillow(fit_image(face, (128, 128), "resize")).save(EXAMPLES / f"{name}.png", optimize=True)


if __name__ == "__main__":
    main()
