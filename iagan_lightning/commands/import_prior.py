"""``iagan import-prior``: foreign weights to a safetensors file that says what it holds."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jsonargparse import ArgumentParser

from iagan_lightning.commands.messages import for_people
from iagan_lightning.generators import WeightsError, load_generator, save_generator


def parser() -> ArgumentParser:
    """Return the parser of the command's arguments."""
    parser = ArgumentParser(
        prog="iagan import-prior",
        description="Recognise a generator's weights, convert them without executing anything, and say what they are.",
        exit_on_error=False,
    )
    kinds = "a PyTorch state dict, safetensors, or a pickle of NVIDIA's PGGAN or StyleGAN2"
    parser.add_argument("file", type=str, help=f"weights in a known layout: {kinds}")
    parser.add_argument("--out", type=str, required=True, help="safetensors file to write")
    parser.add_argument("--half", type=bool, default=False, help="store in half precision, half the size")
    settings = "of the generator, such as {label: 3, noise: optimised} of a StyleGAN2, or {framing: ffhq}"
    parser.add_argument("--settings", type=dict[str, Any], default={}, help=settings)
    parser.add_argument("--note", type=str, default="", help="what the header says about the training data")
    return parser


def run_import_prior(args: Sequence[str]) -> int:
    """Convert a weight file and return the exit status.

    Raises:
        ValueError: for arguments that do not parse, and for files that hold no known generator.
    """
    try:
        given = parser().parse_args(list(args))
    except argparse.ArgumentError as error:
        raise ValueError(for_people(str(error), ["import-prior", *args]) or str(error)) from error
    out = Path(given.out)
    if out.suffix != ".safetensors":
        raise ValueError(f"--out is a file ending in .safetensors; {out} was given")
    if not out.parent.is_dir():
        raise ValueError(f"--out lies in {out.parent}, which is no folder: make it first")
    generator = load_generator({**given.settings, "weights": given.file} if given.settings else given.file)
    about = {"data": given.note, "weights": generator.weights}
    try:
        save_generator(generator, out, training=about, half=given.half)
    except WeightsError as error:
        raise ValueError(f"{given.file}: {error}" + (": leave out --half" if given.half else "")) from error
    weights = sum(p.numel() for p in generator.parameters())
    settings = ", ".join(f"{key} {value}" for key, value in generator.architecture().items())
    print(f"weights: {generator.weights}")
    print(f"{given.file}: {type(generator).__name__} ({settings}), {weights:,} weights")
    print(
        f"latents {generator.latent_shape}, {generator.latent_distribution}; images {generator.image_shape} in [-1, 1]"
    )
    print(f"written: {out} ({out.stat().st_size / 1e6:.1f} MB)")
    return 0
