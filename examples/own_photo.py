"""Enlarge a small picture four times: ``python examples/own_photo.py small.png``.

The prior knows level faces that fill the picture. Without a picture the script first makes one, 16 x 16 pixels of a
bundled portrait.
"""

import sys
import tempfile
from pathlib import Path

import iagan_lightning
from iagan_lightning import reconstruct
from iagan_lightning.generators import load_generator
from iagan_lightning.images import fit_image, read_image, to_pillow
from iagan_lightning.operators import BicubicDownsampling

PORTRAIT = Path(iagan_lightning.__file__).parent / "examples" / "astronaut.png"


def main(picture=None, G=None):
    """Reconstruct, print how it went, and write what a run writes."""
    G = G or load_generator("faces64")
    A = BicubicDownsampling(G.image_shape, scale=4)
    if picture is None:
        picture = "small.png"
        to_pillow(A(fit_image(read_image(PORTRAIT), G.image_shape[1:])[None])[0]).save(picture)

    result = reconstruct(picture, A, G)
    print(result)
    result.comparison().save("own_photo.png")
    folder = tempfile.mkdtemp(prefix="enlarged-", dir=".")  # a new one each time: results are never overwritten
    print("iagan report", result.save(folder, names=[Path(picture).stem]))
    return result


if __name__ == "__main__":
    main(*sys.argv[1:2])
