"""Fit the heads with which ffhq1024 makes its pictures at 256 and 512 pixels, and judge them.

    python docs/make_heads.py --pixels 256 --samples 30
    python docs/make_heads.py --pixels 128                # which averages pixels of 256: only judged

Writes iagan_lightning/priors/heads/ffhqPIXELS.safetensors in half precision, and prints PSNR against the means of
blocks of the large picture, on latents that were never seen, and how much energy there is at the highest frequency and
at half of it beside the pictures that are wanted: much more than theirs would be checkers.
"""

import argparse
import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from iagan_lightning.generators import Generator, MobileStyleGAN, load_generator
from iagan_lightning.generators.base import to_store
from iagan_lightning.generators.catalogue import CATALOGUE
from iagan_lightning.generators.mobile_stylegan_reduced import reduce
from iagan_lightning.training.heads import Pair, fit_head, head_of, pairs

UNSEEN = 1_000_000  # seed of the latents to judge by


def main() -> None:
    """Fit, judge and store."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pixels", type=int, required=True, choices=[128, 256, 512])
    parser.add_argument("--samples", type=int, default=100, help="pictures to fit to")
    parser.add_argument("--share", type=float, default=0.25, help="of the pixels, for the coefficients")
    parser.add_argument("--judged", type=int, default=32, help="pictures to judge by")
    given = parser.parse_args()
    whole = load_generator("ffhq1024").requires_grad_(False)
    assert isinstance(whole, MobileStyleGAN)
    with tempfile.TemporaryDirectory() as folder:
        unseen = list(pairs(whole, given.pixels, given.judged, UNSEEN, mixed=False))
        if given.pixels == 128:
            judge(load_generator("ffhq128"), unseen, "as averaged")
            return
        store = Store(whole, given.pixels, given.samples, Path(folder) / "pictures.pt")
        G = reduce(whole, given.pixels).requires_grad_(False)
        fit_head(G, store, given.share)
        judge(G, unseen, "fitted")
    head = to_store(head_of(G), half=True)
    path = CATALOGUE[f"ffhq{given.pixels}"].head
    path.parent.mkdir(exist_ok=True)
    save_file(head, path)
    os.chmod(path, 0o644)
    judge(reduce(whole, given.pixels, head), unseen, f"as stored, {path.stat().st_size / 1e3:.0f} kB")


class Store:
    """Pictures that are made once, and read again from a file."""

    def __init__(self, whole: MobileStyleGAN, pixels: int, samples: int, path: Path) -> None:
        began = time.perf_counter()
        with torch.no_grad():
            made = [(v, (x * 127.5).round().to(torch.int16)) for v, x in pairs(whole, pixels, samples)]
        torch.save(made, path)
        self.path = path
        print(f"{samples} pictures of {pixels} pixels: {time.perf_counter() - began:.0f} s", flush=True)

    def __call__(self) -> Iterator[Pair]:
        """Return latents and pictures."""
        for v, x in torch.load(self.path, weights_only=True):
            yield v, x.float() / 127.5


@torch.no_grad()
def judge(G: Generator, unseen: list[Pair], when: str) -> None:
    """Print how near the pictures are."""
    errors, ours, theirs = [], torch.zeros(2), torch.zeros(2)
    for v, wanted in unseen:
        image = G(v, space="w")
        errors.append((image - wanted).square().mean() / 4)
        ours, theirs = ours + bands(image), theirs + bands(wanted)
    decibels = -10 * torch.stack(errors).log10()
    high, half = (ours / theirs).tolist()
    energy = f"energy at the highest frequency {high:.2f}, at half of it {half:.2f}"
    print(f"{when}: {decibels.mean():.2f} dB; {energy}", flush=True)


def bands(image: Tensor) -> Tensor:
    """Return the mean energy at the highest frequency and at half of it, across or down."""
    power = torch.fft.fft2(image).abs().square().mean((0, 1))
    cycles = torch.fft.fftfreq(image.shape[-1]).abs()
    highest = torch.maximum(cycles[:, None], cycles)
    return torch.stack([power[highest == place].mean() for place in (0.5, 0.25)])


if __name__ == "__main__":
    main()
