"""Measure what OpenCV's cascade calls a face beside the frame of the training faces: the constants of align.py.

pip install -e ".[align]" && python docs/measure_framing.py ../shared/data/faces128-train.tar
"""

from __future__ import annotations

import sys

import cv2
import numpy as np

from iagan_lightning.data.framing import _cascade
from iagan_lightning.training.pictures import PictureSet

FACES, SIZE, MARGIN = 400, 128, 96


def main(path: str) -> None:
    """Print the median and the scatter of side and centre of the boxes, as fractions of the frame's side."""
    pictures = PictureSet(path, SIZE)
    boxes = []
    for i in range(FACES):
        grey = cv2.cvtColor(np.ascontiguousarray(pictures[i, False].permute(1, 2, 0).numpy()), cv2.COLOR_RGB2GRAY)
        grey = cv2.copyMakeBorder(grey, *4 * [MARGIN], cv2.BORDER_REPLICATE)
        found, _, weights = _cascade().detectMultiScale3(grey, 1.04, 3, minSize=(60, 60), outputRejectLevels=True)
        if len(found):
            left, top, side, _ = found[int(np.argmax(weights))]
            boxes.append([(left + side / 2 - MARGIN) / SIZE, (top + side / 2 - MARGIN) / SIZE, side / SIZE])
    median, spread = np.median(boxes, axis=0), np.std(boxes, axis=0)
    print(f"{len(boxes)} of {FACES} found; median (standard deviation)")
    for name, m, s in zip(("centre x", "centre y", "side"), median, spread, strict=True):
        print(f"{name}: {m:.3f} ({s:.3f})")


if __name__ == "__main__":
    main(sys.argv[1])
