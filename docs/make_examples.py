"""Make the bundled portraits from pictures that come with well-known packages.

    pip install scikit-image matplotlib && python docs/make_examples.py

``astronaut``: Eileen Collins, NASA, public domain (skimage.data.astronaut).
``grace_hopper``: Grace Hopper, US Navy, public domain (matplotlib's sample data).
Each is cut to the tight framing of the priors' training faces, 128 x 128 pixels.
"""

from pathlib import Path

import matplotlib.cbook
import skimage.data
from PIL import Image

EXAMPLES = Path(__file__).parent.parent / "iagan_lightning" / "examples"
FRAMES = {"astronaut": (160, 54, 288, 182), "grace_hopper": (125, 80, 401, 356)}


def main() -> None:
    """Cut, shrink and write both portraits."""
    EXAMPLES.mkdir(exist_ok=True)
    hopper = matplotlib.cbook.get_sample_data("grace_hopper.jpg", asfileobj=False)
    pictures = {"astronaut": Image.fromarray(skimage.data.astronaut()), "grace_hopper": Image.open(hopper)}
    for name, picture in pictures.items():
        face = picture.convert("RGB").crop(FRAMES[name]).resize((128, 128), Image.Resampling.LANCZOS)
        face.save(EXAMPLES / f"{name}.png", optimize=True)


if __name__ == "__main__":
    main()
