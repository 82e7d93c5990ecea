"""What style generators have in common: z is mapped to w, w is whitened, and each layer may have a w of its own."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from iagan_lightning.generators.base import Generator, Schedule, WeightsError

SLOPE = 0.2  # of the leaky rectifiers below zero
DEEPEST = 64  # layers from z to w
WIDEST = 2048  # numbers of z and w, which are drawn to be whitened
DRAWS = 20_000  # of w, for its mean and covariance


class StyleGenerator(Generator):
    r"""A generator whose layers all hear of w, which linear layers make of z.

    The layers from z to w come frozen: they say where pictures lie, not how they look, and all others multiply what
    they make. A subclass writes ``_image``.

    Latent spaces:

    - ``z``, standard normal; only its direction matters, for the network divides it by its root mean square;
    - ``w``, whitened: w is far from normal, but :math:`w = m + C^{1/2} v` with the mean m and the covariance C of
      20,000 w has v of mean 0 and unit covariance, and v is the latent of this space;
    - ``w+``, a v for each layer that hears of one, from the coarsest to the last.

    Args:
        latent: length of z.
        mapping: width of each linear layer from z to w; the last is the length of w.
        styles: how many w the layers hear of.
        condition: how many numbers the mapping takes besides z.

    Attributes:
        whitening: m, C^(1/2) and its inverse; m = 0 and C = I in a new network, ``measure_whitening`` finds them.
    """

    latent_distribution = "normal"
    schedule: Schedule = "style"

    def __init__(self, latent: int, mapping: Sequence[int], styles: int, condition: int = 0) -> None:
        super().__init__()
        self.latent, self.latent_shape, self.style_count = latent, (latent,), styles
        widths = [latent + condition, *mapping]
        self.mapping = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(widths)).requires_grad_(False)
        self.whitening = Whitening(widths[-1])

    @property
    def spaces(self) -> dict[str, tuple[int, ...]]:
        """z, w and w+."""
        size = len(self.whitening.mean)
        return {"z": self.latent_shape, "w": (size,), "w+": (self.style_count, size)}

    @property
    def centred(self) -> frozenset[str]:
        """z, w and w+: 0 in w is the mean of w."""
        return frozenset({"z", "w", "w+"})

    def forward(self, latent: Tensor, space: str = "z", to: str = "image") -> Tensor:
        """Return G(z); or begin with a latent of another space, or end in one that lies on the way."""
        self.require_way(space, to)
        if to == space:
            return latent
        if to in ("w", "w+"):
            v = self.whitening.whiten(self.map(latent)) if space == "z" else latent
            return v if to == "w" else self._spread(v)
        if space not in ("z", "w", "w+"):
            return self._within(latent, space, to)
        w = self.map(latent) if space == "z" else self.whitening.colour(latent)
        return self._image(self._spread(w), to)

    def map(self, z: Tensor) -> Tensor:
        """Return w itself, not whitened, of z."""
        return styles_of(z, self._mapping_layers(), self._condition())

    def measure_whitening(self, draws: int = DRAWS) -> None:
        """Find m, C^(1/2) and its inverse from w of ``draws`` random z."""
        self.whitening.load_state_dict(whitening_of(self._mapping_layers(), draws, self._condition()))

    def _mapping_layers(self) -> list[tuple[Tensor, Tensor]]:
        return [(layer.weight, layer.bias) for layer in self.mapping if isinstance(layer, nn.Linear)]

    def _condition(self) -> Tensor | None:
        """Return what the mapping takes besides z, the same for every picture."""
        return None

    def _spread(self, w: Tensor) -> Tensor:
        """Return w+ of w, one for each layer; w+ as it is."""
        return w[:, None].expand(-1, self.style_count, -1) if w.ndim == 2 else w

    def _image(self, styles: Tensor, to: str) -> Tensor:
        """Return the images of w+ that is not whitened, or end in a space behind it."""
        raise NotImplementedError

    def _within(self, latent: Tensor, space: str, to: str) -> Tensor:
        """Return the images of a latent in a space behind w+, or end in one behind that."""
        raise NotImplementedError


class Whitening(nn.Module):
    r"""The affine map between w and v, :math:`w = m + C^{1/2} v`."""

    mean: Tensor
    root: Tensor
    inverse: Tensor

    def __init__(self, size: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(size))
        self.register_buffer("root", torch.eye(size))
        self.register_buffer("inverse", torch.eye(size))

    def colour(self, v: Tensor) -> Tensor:
        """Return w of v, ``(..., size)``."""
        return v @ self.root + self.mean

    def whiten(self, w: Tensor) -> Tensor:
        """Return v of w, ``(..., size)``."""
        return (w - self.mean) @ self.inverse


def normalise(z: Tensor) -> Tensor:
    """Return z ``(n, latent)`` over its root mean square."""
    return z * (z.square().mean(1, keepdim=True) + 1e-8).rsqrt()


def styles_of(z: Tensor, layers: Sequence[tuple[Tensor, Tensor]], condition: Tensor | None = None) -> Tensor:
    """Return w of z ``(n, latent)`` by the weights and biases of the mapping's layers.

    Args:
        z: ``(n, latent)``.
        layers: weight and bias of each.
        condition: ``(k,)``, which the first layer takes behind z.
    """
    w = normalise(z)
    if condition is not None:
        w = torch.cat([w, condition.expand(len(w), -1)], 1)
    for weight, bias in layers:
        w = F.leaky_relu(F.linear(w, weight, bias), SLOPE) * 2**0.5
    return w


@torch.no_grad()
def whitening_of(
    layers: Sequence[tuple[Tensor, Tensor]], draws: int = DRAWS, condition: Tensor | None = None
) -> dict[str, Tensor]:
    """Return what ``Whitening`` holds, for the w of a mapping: mean, root and inverse.

    Directions in which w hardly varies count as if they varied by a millionth of the most variable one.

    Args:
        layers: weight and bias ``(width,)`` of each layer.
        draws: how many z to draw, with a fixed seed.
        condition: as for ``styles_of``.

    Raises:
        WeightsError: where w is not finite.
    """
    latent = layers[0][0].shape[1] - (0 if condition is None else len(condition))
    draw = torch.Generator().manual_seed(0)
    z = torch.randn(draws, latent, generator=draw, dtype=torch.float32, device="cpu")
    w = torch.cat([styles_of(part, layers, condition) for part in z.to(layers[0][0]).split(2000)]).double()
    if not bool(w.isfinite().all()):
        raise WeightsError("maps latents to numbers that are not finite")
    mean = w.mean(0)
    away = w - mean
    values, vectors = torch.linalg.eigh(away.T @ away / (draws - 1))
    spread = values.clamp(min=max(float(values[-1]) * 1e-12, torch.finfo(values.dtype).tiny)).sqrt()
    parts = {"mean": mean, "root": (vectors * spread) @ vectors.T, "inverse": (vectors / spread) @ vectors.T}
    if not all(bool(part.float().isfinite().all()) for part in parts.values()):
        raise WeightsError("maps latents to numbers that are too large")
    return {name: part.float() for name, part in parts.items()}
