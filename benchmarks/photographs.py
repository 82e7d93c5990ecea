"""What iagan photo makes of whole photographs: every face found, agreement with the pixels, and no seam.

    python benchmarks/photographs.py PHOTOGRAPH... [--heights 0,400,200] [--group] [--prior NAME] [--out OUT]

Each photograph is taken as it is (0) and reduced to heights, enlarged by 2; with --group all of them also stand side by
side in one picture. Prints a table: faces found and restored, the largest difference from the photograph when the
result is reduced again, in levels of 255, the residual of each face, and the seam: by how much the gradient across the
border of a face exceeds that of its neighbourhood, as a factor, beside the same in the plain enlargement.
"""

from __future__ import annotations

import argparse
import io
import time
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps
from torch import Tensor

from iagan_lightning.data.framing import Frame
from iagan_lightning.photo.enlarging import enlarged
from iagan_lightning.photo.face import enlarged_frame
from iagan_lightning.photo.pasting import feathered
from iagan_lightning.photo.picture import Photograph, as_png, read_photograph
from iagan_lightning.photo.restoring import restore

SCALE = 2


def gradient(X: Tensor) -> Tensor:
    """Return the size of the gradient at each pixel but the last of each row and column."""
    down, across = X[:, 1:, :-1] - X[:, :-1, :-1], X[:, :-1, 1:] - X[:, :-1, :-1]
    return (down.square() + across.square()).sum(0).sqrt()


def seam(X: Tensor, frame: Frame) -> float:
    """Return the mean gradient where a face begins to count, over that of the pixels next to it on both sides."""
    size = (X.shape[1], X.shape[2])
    width = frame.side / 16
    sides = [frame.side + width * more for more in (-5, -1, 1, 5)]
    inner, begin, end, outer = (feathered(frame._replace(side=side), size)[:-1, :-1] > 0 for side in sides)
    border = end & ~begin
    return float(gradient(X)[border].mean() / gradient(X)[(outer & ~inner) & ~border].mean())


def small(picture: Image.Image, height: int) -> Image.Image:
    """Return a picture as a camera with fewer pixels would have taken it."""
    width = round(picture.width * height / picture.height)
    return picture.resize((width, height), Image.Resampling.BOX, reducing_gap=None)


def photograph_of(picture: Image.Image) -> Photograph:
    """Return what a file of these pixels is."""
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    buffer.seek(0)
    return read_photograph(buffer)


def row(name: str, photograph: Photograph, prior: str | None, out: Path | None) -> str:
    """Restore a photograph and return its row of the table."""
    begin = time.monotonic()
    done = restore(photograph, SCALE, prior)
    seconds = time.monotonic() - begin
    if out:
        (out / f"{name}.png").write_bytes(as_png(done.photograph))
    X = done.photograph.turned(done.quarters).pixels
    plain = enlarged(photograph.turned(done.quarters).pixels, SCALE)
    faces = [face for face in done.record["faces"] if face["done"]]
    frames = [enlarged_frame(Frame(**face["frame"]), SCALE) for face in faces]
    seams = ", ".join(f"{seam(X, frame):.2f} ({seam(plain, frame):.2f})" for frame in frames)
    residuals = ", ".join(f"{face['prior']} {face['residual']:.3f}" for face in faces)
    left = "; ".join(sorted({face["why"] for face in done.record["faces"] if not face["done"]}))
    cells = [
        name,
        f"{photograph.size[1]} x {photograph.size[0]}",
        f"{len(faces)} of {len(done.record['faces'])}{f' ({left})' if left else ''}",
        f"{done.record['agreement']:.2f}",
        residuals,
        seams,
        f"{seconds:.0f} s",
    ]
    return f"| {' | '.join(cells)} |"


def main() -> None:
    """Restore all photographs at all heights."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("photographs", type=Path, nargs="+")
    parser.add_argument("--heights", default="0,400,200", help="in pixels; 0 is the photograph as it is")
    parser.add_argument("--group", action="store_true", help="all of them side by side, too")
    parser.add_argument("--prior", help="name or file; for each face the best of those that are here by default")
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    if given.out:
        given.out.mkdir(parents=True, exist_ok=True)
    print("| photograph | pixels | faces restored | agreement, /255 | residual | seam (plain) | time |")
    print("|---|---|---|---|---|---|---|")
    for height in map(int, given.heights.split(",")):
        together = []
        for path in given.photographs:
            if height == 0:
                print(row(path.stem, read_photograph(path), given.prior, given.out), flush=True)
                continue
            with Image.open(path) as file:
                picture = small(ImageOps.exif_transpose(file).convert("RGB"), height)
            together.append(np.asarray(picture))
            print(row(f"{path.stem}-{height}", photograph_of(picture), given.prior, given.out), flush=True)
        if given.group and together:
            group = Image.fromarray(np.concatenate(together, 1))
            print(row(f"group-{height}", photograph_of(group), given.prior, given.out), flush=True)


if __name__ == "__main__":
    main()
