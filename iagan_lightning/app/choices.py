"""What a user of the page can choose: tasks by what they are good for, their settings, the priors that are here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from torch import Tensor

from iagan_lightning.generators import CATALOGUE, Generator, bundled_priors, load_generator
from iagan_lightning.methods.presets import Preset
from iagan_lightning.plugins import registered

EXAMPLES = Path(__file__).parent.parent / "examples"
PRIOR = "faces128"  # of those that are bundled the one that knows most


@dataclass(frozen=True)
class Choice:
    """A task as the page offers it.

    Args:
        label: what a user wants.
        own: what the picture is, where it is the measurement itself; empty where a picture cannot be one.
        known: whether a true picture can be given, which is degraded first.
        settings: of ``Job``, which the page shows where the picture is the measurement, and where it is degraded.
        defaults: of these.
    """

    label: str
    own: str
    known: bool
    settings: tuple[tuple[str, ...], tuple[str, ...]]
    defaults: Mapping[str, Any] = field(default_factory=dict)

    def shows(self, setting: str, known: bool) -> bool:
        """Tell whether the page shows a setting."""
        return setting in self.settings[known]


CHOICES = {
    "photo": Choice(
        "Photograph: enlarge it, and restore the faces in it", "the photograph", False, (("scale",), ()), {"scale": 2}
    ),
    "super-resolution": Choice(
        "Enlarge a small picture of a face",
        "small, and to be enlarged",
        True,
        (("noise",), ("scale", "noise")),
        {"scale": 4},
    ),
    "inpainting": Choice(
        "Fill in missing parts", "damaged where you draw over it", True, (("mask", "noise"), ("mask", "noise"))
    ),
    "denoising": Choice("Remove noise", "noisy", True, (("noise",), ("noise",)), {"noise": 25.0}),
    "deblurring": Choice("Sharpen a blurred picture", "blurred", True, (("width", "noise"), ("width", "noise"))),
    "compressed-sensing": Choice(
        "Compressed sensing, tried out: from few of its frequencies", "", True, ((), ("ratio", "noise"))
    ),
}
SCALES = {"photo": (1, 2, 4), "super-resolution": (2, 4, 8)}
CHOSEN_BY_FACE = ""  # as prior of a photograph


@dataclass(frozen=True)
class Job:
    """What one user wants to have done.

    Args:
        task: a key of ``CHOICES``.
        picture: file.
        name: of the results.
        prior: name or file; of a photograph none (``CHOSEN_BY_FACE``) for the best one for each face.
        known: whether the picture is the truth, which is degraded first.
        scale: by which a photograph is enlarged, or a known picture is made smaller first.
        ratio: of the frequencies that are measured, in (0, 1].
        width: standard deviation of the blur, in pixels of the prior's picture.
        noise: standard deviation in levels of 255: of the picture (of a noisy one 0 means that it is estimated; of a
            photograph it always is), or of what is added to a known one.
        mask: bool ``(H, W)``, True where the picture, as it is framed for the prior, is intact.
        align: cut out the face as the prior knows it, where there is one.
        preset: ``fast``, or ``best``, in two views, which also tells how sure the result is.
        seed: of all random numbers.
        settings: further arguments of ``reconstruct``.
    """

    task: str
    picture: Path
    name: str = "picture"
    prior: str = CHOSEN_BY_FACE
    known: bool = False
    scale: int = 2
    ratio: float = 0.3
    width: float = 2.0
    noise: float = 0.0
    mask: Tensor | None = None
    align: bool = True
    preset: Preset = "fast"
    seed: int = 0
    settings: Mapping[str, Any] = field(default_factory=dict)


def finds_faces() -> bool:
    """Tell whether the detector of faces is installed; it is not imported."""
    return find_spec("facenet_pytorch") is not None


def priors(given: str | None = None) -> list[str]:
    """Return the priors to choose from, the default first: one that was given, those that are here.

    Example:
        >>> priors()[0], "began64" in priors(), priors("my.safetensors")[0]
        ('faces128', True, 'my.safetensors')
    """
    here = [prior.name for prior in CATALOGUE.values() if prior.path and not prior.classes]
    own = [name for name in registered("generators") if name not in CATALOGUE]
    return list(dict.fromkeys([*([given] if given else []), PRIOR, *bundled_priors(), *here, *own]))


@lru_cache(maxsize=2)
def prior_named(name: str) -> Generator:
    """Return a prior; the last two stay in memory.

    Raises:
        ValueError: for one that is missing or damaged.
    """
    return load_generator(name)
