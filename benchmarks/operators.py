"""Our operators beside deepinv's, in one run: forward plus adjoint, and the pseudo-inverse.

    pip install -e ".[deepinv]" && python benchmarks/operators.py --out docs/operators.md

Each figure is the median of several rounds in which ours and theirs take turns. ``A^+`` is the exact (or, for blur, the
regularised) one on our side, ``A_dagger`` on theirs, and beside both 50 iterations of conjugate gradients, which is how
a back-projection is done where there is no closed form.
"""

from __future__ import annotations

import argparse
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import deepinv
import torch
import torch.nn.functional as F
from speed import write_block
from torch import Tensor

from iagan_lightning.operators import (
    BicubicDownsampling,
    Blur,
    FourierSensing,
    GaussianSensing,
    Identity,
    Inpainting,
    LinearOperator,
)

SHAPE, BATCH = (3, 128, 128), 16
DENSE = (3, 64, 64)  # of dense matrices, whose pseudo-inverse takes deepinv minutes at the larger size


def cg(A: LinearOperator, y: Tensor, iterations: int = 50) -> Tensor:
    """Return A^+ y after a fixed number of iterations of CGLS, the plain way."""
    x = torch.zeros(len(y), *A.image_shape)
    r, p = y, A.adjoint(y)
    s = p
    norm = s.square().sum()
    for _ in range(iterations):
        q = A(p)
        step = norm / q.abs().square().sum().clamp(min=1e-30)
        x, r = x + step * p, r - step * q
        s = A.adjoint(r)
        new = s.square().sum()
        p, norm = s + new / norm.clamp(min=1e-30) * p, new
    return x


def pairs() -> dict[str, tuple[LinearOperator, Callable[[Tensor], Tensor], Callable, Callable]]:
    """Return our operator, and deepinv's forward, adjoint and pseudo-inverse of the same kind."""
    physics = deepinv.physics
    small = BicubicDownsampling(SHAPE, scale=4, padding="zero")
    padded = physics.Downsampling(img_size=(3, 140, 140), filter="bicubic", factor=4, padding="valid")
    pad = [6] * 4
    gaussian = GaussianSensing(DENSE, ratio=0.122)
    sensing = physics.CompressedSensing(gaussian.num_measurements, DENSE)
    fourier = FourierSensing(SHAPE, ratio=0.3)
    mri = physics.MRI(mask=torch.fft.fftshift(fourier.mask.float()), img_size=(2, *SHAPE[1:]))
    blur = Blur(SHAPE, size=9)
    blur_fft = physics.BlurFFT(SHAPE, filter=blur.get_buffer("weights").float()[None, None])
    inpainting = Inpainting(SHAPE, ratio=0.5)
    masked = physics.Inpainting(SHAPE, mask=inpainting.mask.float())

    def to_complex(x: Tensor) -> Tensor:  # a channel of deepinv's MRI is a picture of two, real and imaginary
        x = x.reshape(-1, 1, *SHAPE[1:])
        return torch.cat([x, torch.zeros_like(x)], 1)

    return {
        "bicubic x4": (
            small,
            lambda x: padded.A(F.pad(x, pad)),
            lambda y: padded.A_adjoint(y)[..., 6:-6, 6:-6],
            lambda y: padded.A_dagger(y)[..., 6:-6, 6:-6],
        ),
        "Gaussian .122": (gaussian, sensing.A, sensing.A_adjoint, sensing.A_dagger),
        "Fourier .3": (fourier, lambda x: mri.A(to_complex(x)), mri.A_adjoint, mri.A_dagger),
        "blur 9 x 9": (blur, blur_fft.A, blur_fft.A_adjoint, blur_fft.A_dagger),
        "inpainting .5": (inpainting, masked.A, masked.A_adjoint, masked.A_dagger),
        "identity": (
            Identity(SHAPE),
            *[physics.Denoising().A, physics.Denoising().A_adjoint, physics.Denoising().A_dagger],
        ),
    }


def timed(*functions: Callable[[], object], rounds: int, least: float = 0.02) -> list[float]:
    """Return the median milliseconds of each function; they take turns, quick ones are repeated."""
    counts = []
    for function in functions:
        function()
        start = time.perf_counter()
        function()
        counts.append(max(1, int(least / max(time.perf_counter() - start, 1e-6))))
    spent: list[list[float]] = [[] for _ in functions]
    for _ in range(rounds):
        for function, count, times in zip(functions, counts, spent, strict=True):
            start = time.perf_counter()
            for _ in range(count):
                function()
            times.append((time.perf_counter() - start) / count * 1000)
    return [statistics.median(times) for times in spent]


@torch.no_grad()
def main() -> None:
    """Measure and print, or write the table into a page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--out", type=Path, help="page with <!-- operators --> ... <!-- end -->")
    given = parser.parse_args()
    lines = [
        "| operator | A and A^T: ours | deepinv | ratio | A^+: ours | deepinv | ratio | CG, 50 iterations | ratio |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for name, (A, forward, adjoint, inverse) in pairs().items():
        x = torch.rand(BATCH, *A.image_shape) * 2 - 1
        y, theirs = A(x), forward(x)
        both = timed(lambda: A.adjoint(A(x)), lambda: adjoint(forward(x)), rounds=given.rounds)  # noqa: B023
        last = timed(lambda: A.pseudo_inverse(y), lambda: inverse(theirs), lambda: cg(A, y), rounds=given.rounds)  # noqa: B023
        cells = [f"{both[0]:.2f}", f"{both[1]:.2f}", f"{both[1] / both[0]:.1f}"]
        cells += [f"{last[0]:.2f}", f"{last[1]:.2f}", f"{last[1] / last[0]:.1f}"]
        cells += [f"{last[2]:.1f}", f"{last[2] / last[0]:.1f}"]
        lines.append(f"| {name} | {' | '.join(cells)} |")
        print(lines[-1], flush=True)
    table = "\n".join(lines) + (
        f"\n\nMilliseconds, {BATCH} images of {SHAPE} ({DENSE} for Gaussian), float32; Python "
        f"{platform.python_version()}, PyTorch {torch.__version__}, deepinv {deepinv.__version__}, "
        f"{torch.get_num_threads()} threads."
    )
    if given.out:
        write_block(given.out, "operators", table)
    else:
        print(table)


if __name__ == "__main__":
    main()
