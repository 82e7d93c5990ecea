"""Measure where the eyes and mouths of faces lie that are framed already: the constants of the tight frame.

pip install -e ".[align]" && python docs/measure_framing.py TRAINING_FACES.tar FACES
"""

from __future__ import annotations

import math
import sys
from contextlib import suppress

import numpy as np

from iagan_lightning.data.framing import TIGHT_CENTRE, TIGHT_SIDE, frame_of, largest_face
from iagan_lightning.training.pictures import PictureSet

FACES, SIZE = 400, 128


def main(*paths: str) -> None:
    """Print what the constants would be for each set of faces, and how far the frames found are from the given ones."""
    middle = (SIZE - 1) / 2
    for path in paths:
        pictures = PictureSet(path, SIZE)
        faces = []
        for i in range(min(FACES, len(pictures))):
            with suppress(ValueError):  # no face was found
                faces.append(largest_face(pictures[i, False].float() / 127.5 - 1)[0])
        print(f"{path}: {len(faces)} of {min(FACES, len(pictures))} found; median (standard deviation)")
        eyes = np.array([np.mean(face.eyes, axis=0) for face in faces])
        down = np.array([np.mean(face.mouth, axis=0) for face in faces]) - eyes
        apart = np.array([math.dist(*face.eyes) for face in faces])
        frames = np.array([frame_of(face, "tight") for face in faces])
        for name, values in {
            f"side over hypotenuse, now {TIGHT_SIDE}": SIZE / np.hypot(apart, np.linalg.norm(down, axis=1)),
            f"way of the centre from eyes to mouth, now {TIGHT_CENTRE}": (middle - eyes[:, 1]) / down[:, 1],
            "side found / given": frames[:, 2] / SIZE,
            "centre to the right, of the side": (frames[:, 0] - middle) / SIZE,
            "centre below, of the side": (frames[:, 1] - middle) / SIZE,
            "angle, degrees": frames[:, 3],
        }.items():
            print(f"  {name}: {np.median(values):.3f} ({np.std(values):.3f})")


if __name__ == "__main__":
    main(*sys.argv[1:])
