"""Any ``nn.Module`` as a generator: what it cannot say of itself is declared beside it."""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from iagan_lightning.checks import check_choice, check_numbers
from iagan_lightning.generators.base import Generator, LatentDistribution, are_sizes, as_list
from iagan_lightning.terminal import Notice

# Networks without tanh overshoot black and white by a third in some pixels (of 200,000 numbers of ffhq256 none lies
# beyond 1.5); one that gives [-1, 1] where [0, 1] is declared has a third of all numbers beyond.
BEYOND, SHARE, FAR = 1.5, 0.01, 3.0


class ModuleGenerator(Generator):
    """A network of one's own with its latents and value range declared.

    Args:
        module: maps latents ``(n, *latent_shape)`` to images ``(n, C, H, W)``, C 1 or 3; used in evaluation mode.
        latent_shape: shape of one latent.
        latent_distribution: ``"normal"``, or ``"uniform"`` on [-1, 1].
        value_range: black and white of its images; they are mapped to [-1, 1].

    Two latents are tried. Where only the look of their images speaks against ``value_range`` (none is darker than
    mid-grey, all are black) a ``Notice`` says so.

    Raises:
        ValueError: when the declarations do not fit the network (one number in a hundred lies half as far again from
            mid-grey as black and white), or when it is random or mixes the images of a batch.

    Example:
        >>> network = nn.Sequential(nn.Linear(8, 3 * 16 * 16), nn.Sigmoid(), nn.Unflatten(1, (3, 16, 16)))
        >>> G = ModuleGenerator(network, latent_shape=[8], value_range=(0, 1))
        >>> G.image_shape, bool(G(G.sample_latent(2, seed=0)).min() >= -1)
        ((3, 16, 16), True)
    """

    def __init__(
        self,
        module: nn.Module,
        latent_shape: Sequence[int],
        latent_distribution: LatentDistribution = "normal",
        value_range: Sequence[float] = (-1.0, 1.0),
    ) -> None:
        super().__init__()
        check_choice("latent_distribution", latent_distribution, LatentDistribution)
        self.low, self.high = check_numbers("value_range", value_range, ("black", "white"))
        if not self.low < self.high:
            raise ValueError(f"value_range is two numbers, black and white, such as [0, 1]; {value_range} was given")
        sizes = as_list("latent_shape", latent_shape)
        if not sizes or not are_sizes(*sizes):
            raise ValueError(f"latent_shape is a list of whole numbers from 1, such as [128]; {latent_shape} was given")
        self.module = module.eval()
        self.latent_shape = tuple(map(int, sizes))
        self.latent_distribution = latent_distribution
        self.image_shape = self._probe()

    def forward(self, z: Tensor) -> Tensor:
        """Return the network's images, brought to [-1, 1]."""
        return (2 * self.module(z) - (self.low + self.high)) / (self.high - self.low)

    @torch.no_grad()
    def _probe(self) -> tuple[int, int, int]:
        """Try the network on two latents: shapes, range, and that an image depends on its own latent alone."""
        name = type(self.module).__name__
        z = self.sample_latent(2, seed=0)
        try:
            both, again, first = self(z), self(z), self(z[:1])
        except (RuntimeError, TypeError, ValueError, IndexError) as error:
            raise ValueError(f"{name} does not take latents of shape {tuple(z.shape)}: {error}") from error
        if both.ndim != 4 or both.shape[0] != 2 or both.shape[1] not in (1, 3):
            raise ValueError(f"{name} gives {tuple(both.shape)} for two latents; (2, 1 or 3, height, width) is needed")
        if not bool(torch.isfinite(both).all()):
            raise ValueError(f"{name} gives values that are not finite")
        self._check_range(both)
        if not torch.allclose(both, again, atol=1e-4):
            raise ValueError(
                f"{name} gives another image each time: fix its noise inputs, an image may depend on z only"
            )
        if not torch.allclose(both[:1], first, atol=1e-3):
            raise ValueError(f"{name} mixes the images of a batch: every image must depend on its own latent alone")
        return both.shape[1], both.shape[2], both.shape[3]

    def _check_range(self, images: Tensor) -> None:
        """Raise ValueError for images, mapped to [-1, 1], that lie far outside; give notice of what looks amiss."""
        low, high = (((self.high - self.low) * float(end) + self.low + self.high) / 2 for end in images.aminmax())
        given, said = f"[{low:.3g}, {high:.3g}]", f"[{self.low:g}, {self.high:g}]"
        likely = likely_range(low, high)
        name, meant = type(self.module).__name__, likely if likely and likely != said else "its own black and white"
        if float((images.abs() > BEYOND).double().mean()) > SHARE or float(images.abs().max()) > FAR:
            raise ValueError(
                f"{name} gives values far outside the declared range, {given} where value_range is {said}: declare "
                f"value_range {meant}"
            )
        dim = max(abs(low), abs(high)) <= BEYOND and self.high - self.low > 10
        if dim or low >= 0 > self.low:
            warnings.warn(
                f"{name} gives values in {given} where value_range is {said}, so that its images are "
                f"{'all but black' if dim else 'mid-grey or brighter'}: is value_range {meant} meant?",
                Notice,
                stacklevel=2,
            )


def likely_range(low: float, high: float) -> str:
    """Return the usual range of values that a network's least and largest value belong to; empty for none.

    Example:
        >>> likely_range(0.03, 0.95), likely_range(-0.98, 0.93), likely_range(3, 240), likely_range(-90, 100)
        ('[0, 1]', '[-1, 1]', '[0, 255]', '')
    """
    reach = max(-low, high)
    if low > -reach / 4:
        return "[0, 1]" if reach < 2 else "[0, 255]" if reach < 2 * 255 else ""
    return "[-1, 1]" if reach < 2 else ""


def names_module(text: str) -> bool:
    """Tell whether a text is the dotted path of a class of networks that can be imported.

    Only what looks like one is imported, ``package.module.Class``: of ``weights.pth`` a ``weights.py`` is not run.

    Raises:
        ValueError: where importing it fails otherwise than for want of such a module.

    Example:
        >>> names_module("torch.nn.Linear"), names_module("torch.nn.Nowhere"), names_module("torch.Tensor")
        (True, False, False)
        >>> names_module("weights.pth"), names_module("nowhere.Generator"), names_module("began64")
        (False, False, False)
    """
    module, _, name = text.rpartition(".")
    if not all(part.isidentifier() for part in text.split(".")) or not module or not name.lstrip("_")[:1].isupper():
        return False
    try:
        found = getattr(importlib.import_module(module), name, None)
    except Exception as error:  # importing a module of somebody's own runs it
        if isinstance(error, ModuleNotFoundError) and f"{module}.".startswith(f"{error.name}."):
            return False
        raise ValueError(f"no generator class {text}: {error}") from error
    return isinstance(found, type) and issubclass(found, nn.Module)


def build_network(description: Mapping[str, Any]) -> tuple[nn.Module, dict[str, Any]]:
    """Return the network of a class path, as a config describes it, and what is declared of it.

    Args:
        description: ``class_path`` and ``init_args`` as everywhere in Lightning; for a class that is no ``Generator``
            also ``latent_shape``, and ``latent_distribution`` and ``value_range`` if they are not normal and [-1, 1].

    Raises:
        ValueError: for keys, classes or arguments that do not fit.
    """
    declared = dict(description)
    path, arguments = declared.pop("class_path", None), declared.pop("init_args", None) or {}
    module, _, name = str(path).rpartition(".")
    allowed = ("latent_shape", "latent_distribution", "value_range")
    if not module:
        raise ValueError(f"a generator needs a class_path such as package.module.Class; {path!r} was given")
    if surplus := declared.keys() - set(allowed):
        raise ValueError(
            f"a generator has class_path, init_args, weights, {', '.join(allowed)}; "
            f"{', '.join(sorted(surplus))} was given"
        )
    try:
        kind = getattr(importlib.import_module(module), name)
    except Exception as error:  # importing a module of somebody's own runs it
        raise ValueError(f"no generator class {path}: {error}") from error
    try:
        network = kind(**arguments)
    except ValueError:
        raise
    except Exception as error:  # a class of somebody's own can raise whatever it likes
        reason = " ".join(f"{'' if isinstance(error, TypeError) else f'{type(error).__name__}: '}{error}".split())
        raise ValueError(f"{path} cannot be built from {arguments}: {reason}") from error
    if not isinstance(network, nn.Module):
        raise ValueError(f"{path} makes a {type(network).__name__}; an nn.Module is needed")
    if isinstance(network, Generator):
        if declared:
            raise ValueError(f"{path} is a Generator and declares {', '.join(sorted(declared))} itself: leave it out")
        return network, declared
    if declared.get("latent_shape") is None:
        raise ValueError(
            f"{path} is no Generator: declare latent_shape, such as latent_shape: [128], beside class_path"
        )
    return network, declared


def as_generator(network: nn.Module, declared: Mapping[str, Any]) -> Generator:
    """Return a network, which has its weights, as a generator; one that is no ``Generator`` is tried.

    Raises:
        ValueError: where what is declared of it does not fit.
    """
    return network.eval() if isinstance(network, Generator) else ModuleGenerator(network, **declared)
