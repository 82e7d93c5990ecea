"""Which prior a face gets: one that is here, knows its framing, and has more pixels than the photograph has of it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import lru_cache

from iagan_lightning.data.faces import Face
from iagan_lightning.data.framing import frame_of
from iagan_lightning.generators import CATALOGUE, Generator, load_generator
from iagan_lightning.generators.catalogue import Prior

# Of priors of faces, the best of each size that we know; others are taken where they are named.
MORE = 1.25  # times the pixels of the photograph: less adds nothing that is seen, and is the most work
FINER = 1.5  # than the result the prior's picture should be, or turning and shifting it costs what it knows
CHOICES = ("faces64", "faces128", "ffhq256", "ffhq512", "ffhq1024")


def chosen_prior(face: Face, scale: int, choices: Sequence[Prior] | None = None) -> Prior | None:
    """Return the smallest prior that is clearly finer than a face at a scale, or else the one with most pixels.

    None where none has clearly more pixels of the face than the photograph (at scale 1: as many).

    On two portraits (PSNR / LPIPS squeeze of the face) priors with 1.4 and 2.1 times the pixels of the result gave
    31.35 / .032 and 31.36 / .024 (plain: 30.55 / .053), ones with .7, 1.1 and 2.2 times 29.89 / .059, 29.69 / .070 and
    29.74 / .052 (plain: 29.55 / .073).

    Args:
        face: in pixels of the photograph.
        scale: of the result.
        choices: the priors to choose from; those of ``CHOICES`` that are here by default.

    Example:
        >>> face = Face(((40.0, 50.0), (52.0, 50.0)), ((41.0, 62.0), (51.0, 62.0)), size=30, score=1.0)
        >>> [chosen_prior(face, scale, [CATALOGUE["faces64"], CATALOGUE["faces128"]]).name for scale in (1, 2, 4)]
        ['faces64', 'faces128', 'faces128']
    """
    here = [CATALOGUE[name] for name in CHOICES if CATALOGUE[name].path] if choices is None else choices
    finer = {prior.name: prior.pixels / frame_of(face, prior.framing).side for prior in here if prior.framing}
    enough = [prior for prior in here if finer.get(prior.name, 0) >= FINER * scale]
    if enough:
        return min(enough, key=lambda prior: prior.pixels)
    more = [prior for prior in here if finer.get(prior.name, 0) >= (MORE if scale > 1 else 1)]
    return max(more, key=lambda prior: finer[prior.name], default=None)


def larger_prior(face: Face, scale: int) -> str | None:
    """Return the name of a prior that would have enough pixels of a face and could be fetched; None where none has."""
    others = [CATALOGUE[name] for name in CHOICES if not CATALOGUE[name].path]
    prior = chosen_prior(face, scale, others)
    return prior.name if prior else None


@lru_cache(maxsize=2)
def loaded(name: str | os.PathLike[str]) -> Generator:
    """Return a prior of colour faces by its name, or from a file.

    Raises:
        ValueError: for one that is missing or damaged, that says nothing of how its faces are framed, or is not square
            or grey.
    """
    generator = load_generator(name)
    channels, height, width = generator.image_shape
    if generator.framing is None:
        raise ValueError(f"{name} does not say how its faces are framed, so no face can be cut out for it")
    if channels != 3 or height != width:
        raise ValueError(f"{name} makes images of {channels} x {height} x {width}; square ones in colour are needed")
    return generator
