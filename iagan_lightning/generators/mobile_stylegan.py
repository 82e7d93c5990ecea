"""MobileStyleGAN (Belousov 2021, arXiv:2104.04767): faces of 1024 x 1024 pixels from ten million numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from iagan_lightning.generators.base import LARGEST, Framing, Generator, WeightsError, are_sizes

SLOPE = 0.2  # of the leaky rectifiers below zero
PUBLISHED = (512, 512, 512, 512, 512, 256, 128, 64)  # channels at 4, 8 ... 512 pixels
DEEPEST = 64  # layers from z to w
DRAWS = 20_000  # of w, for its mean and covariance


class MobileStyleGAN(Generator):
    r"""Style generator of depthwise separable convolutions that paints Haar coefficients.

    Eight linear layers map z to w. From a learned constant of 4 x 4 pixels, each level doubles the size by an inverse
    Haar transform of its channels and has two separable convolutions, each with a map of noise that is a constant
    here. Every layer multiplies its channels by numbers that are linear in w. There is no tanh: images may leave
    [-1, 1] a little. The layers from z to w come frozen: they say where faces lie, not how they look, and all others
    multiply what they make.

    Latent spaces:

    - ``z``, standard normal; only its direction matters, for the network divides it by its root mean square;
    - ``w``, whitened: w is far from normal, but :math:`w = m + C^{1/2} v` with the mean m and the covariance C of
      20,000 w has v of mean 0 and unit covariance, and v is the latent of this space;
    - ``w+``, a v for each of the modulations, from the coarsest to the last.

    Args:
        channels: at 4, 8, 16 ... pixels; the image has twice the last size. All but the last are multiples of 4.
        latent: length of z and w.
        mapping: linear layers from z to w.

    Attributes:
        whitening: m, C^(1/2) and its inverse; m = 0 and C = I in a new network, ``measure_whitening`` finds them.

    Shapes: z ``(n, latent)`` -> images ``(n, 3, N, N)``, about [-1, 1]; N = 1024 with the channels of the publication.

    Raises:
        ValueError: for channels, latents or layers that are not allowed, and for spaces that it does not have.

    Example:
        >>> G = MobileStyleGAN(channels=(8, 8, 4), latent=6, mapping=2)
        >>> G.spaces
        {'z': (6,), 'w': (6,), 'w+': (8, 6)}
        >>> v = G(G.sample_latent(2, seed=0), to="w")
        >>> tuple(G(v, space="w").shape)
        (2, 3, 32, 32)
    """

    latent_distribution = "normal"
    # The weights are folded, not equalised: with 1e-3, PGGAN's learning rate, the first joint steps blow the image up.
    schedule = "began"
    framing: Framing | None = "ffhq"  # what its author trained and published

    def __init__(self, channels: Sequence[int] = PUBLISHED, latent: int = 512, mapping: int = 8) -> None:
        super().__init__()
        widths = list(channels)
        if not 1 <= len(widths) <= len(PUBLISHED) or not are_sizes(*widths) or any(width % 4 for width in widths[:-1]):
            raise ValueError(
                f"channels are 1 to {len(PUBLISHED)} numbers from 1 on, all but the last multiples of 4; "
                f"{widths[: len(PUBLISHED) + 1]} were given"
            )
        if not are_sizes(latent, mapping) or mapping > DEEPEST:
            raise ValueError(
                f"latent is at least 1, a whole number up to {LARGEST:,}, mapping 1 to {DEEPEST}; {latent!r} and "
                f"{mapping!r} were given"
            )
        self.channels, self.latent, self.layer_count = widths, latent, mapping
        self.resolution = 4 << len(widths)
        self.latent_shape, self.image_shape = (latent,), (3, self.resolution, self.resolution)
        self.mapping = nn.ModuleList(nn.Linear(latent, latent) for _ in range(mapping)).requires_grad_(False)
        self.whitening = Whitening(latent)
        self.input = nn.Parameter(torch.randn(1, widths[0], 4, 4))
        self.conv1 = Convolution(widths[0], widths[0], 4, latent)
        levels = []
        for level, (incoming, outgoing) in enumerate(pairwise(widths), start=1):
            parts = {
                "up": Up(incoming, latent),
                "conv1": SeparableConvolution(incoming // 4, outgoing, 4 << level, latent),
                "conv2": SeparableConvolution(outgoing, outgoing, 4 << level, latent),
            }
            levels.append(nn.ModuleDict(parts))
        self.layers = nn.ModuleList(levels)
        self.to_img = ToImage(widths[-1], latent)

    @property
    def spaces(self) -> dict[str, tuple[int, ...]]:
        """z, w and w+."""
        return {"z": self.latent_shape, "w": (self.latent,), "w+": (3 * len(self.channels) - 1, self.latent)}

    @property
    def centred(self) -> frozenset[str]:
        """All three: 0 in w is the mean of w."""
        return frozenset(self.spaces)

    def forward(self, latent: Tensor, space: str = "z", to: str = "image") -> Tensor:
        """Return G(z); or begin with a latent of another space, or end in one that lies on the way."""
        self.require_space(space)
        ahead = [*self.spaces, "image"]
        if to not in ahead[ahead.index(space) :]:
            raise ValueError(f"from {space} one comes to {', '.join(ahead[ahead.index(space) :])}; {to!r} was given")
        if to == space:
            return latent
        if to != "image":
            v = self.whitening.whiten(self.map(latent)) if space == "z" else latent
            return v if to == "w" else self._spread(v)
        w = self.map(latent) if space == "z" else self.whitening.colour(latent)
        return self._image(self._spread(w))

    def map(self, z: Tensor) -> Tensor:
        """Return w itself, not whitened, of z."""
        return styles_of(z, self._mapping_layers())

    def measure_whitening(self, draws: int = DRAWS) -> None:
        """Find m, C^(1/2) and its inverse from w of ``draws`` random z."""
        self.whitening.load_state_dict(whitening_of(self._mapping_layers(), draws))

    def architecture(self) -> dict[str, object]:
        """Return the constructor arguments that rebuild this network."""
        return {"channels": self.channels, "latent": self.latent, "mapping": self.layer_count}

    def _mapping_layers(self) -> list[tuple[Tensor, Tensor]]:
        return [(layer.weight, layer.bias) for layer in self.mapping if isinstance(layer, nn.Linear)]

    def _spread(self, w: Tensor) -> Tensor:
        """Return w+ of w, one for each modulation; w+ as it is."""
        return w[:, None].expand(-1, self.spaces["w+"][0], -1) if w.ndim == 2 else w

    def _image(self, styles: Tensor) -> Tensor:
        """Return the images of w+ that is not whitened."""
        first, *inner, last = styles.unbind(1)
        x = self.conv1(self.input.expand(len(styles), -1, -1, -1), first)
        parts = [part for level in self.layers for part in level.children()]
        for part, w in zip(parts, inner, strict=True):
            x = part(x, w)
        image: Tensor = self.to_img(x, last)
        return image


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


class Modulated(nn.Module):
    """Channels times numbers that are linear in w."""

    def __init__(self, channels: int, latent: int) -> None:
        super().__init__()
        self.modulation = nn.Linear(latent, channels)
        nn.init.ones_(self.modulation.bias)

    def modulate(self, x: Tensor, w: Tensor) -> Tensor:
        """Return x ``(n, C, h, w)`` times A w + b."""
        style: Tensor = self.modulation(w)
        return x * style[:, :, None, None].to(x.dtype)


class Up(Modulated):
    """Modulation and an inverse Haar transform: a quarter of the channels, twice the size."""

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        """Return the enlarged features."""
        return inverse_haar(self.modulate(x, w))


class Convolution(Modulated):
    """Modulation, a 3 x 3 convolution, a map of noise and a bias, a leaky rectifier."""

    noise: Tensor

    def __init__(self, incoming: int, outgoing: int, size: int, latent: int) -> None:
        super().__init__(incoming, latent)
        self._make_kernels(incoming, outgoing)
        self.bias = nn.Parameter(torch.zeros(outgoing))
        self.register_buffer("noise", torch.zeros(1, 1, size, size))

    def _make_kernels(self, incoming: int, outgoing: int) -> None:
        self.weight = _kernel(outgoing, incoming, 3)

    def convolve(self, x: Tensor) -> Tensor:
        """Return the convolution of x, with the bias."""
        return F.conv2d(x, self.weight, self.bias, padding=1)

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        """Return the layer's features."""
        x = self.convolve(self.modulate(x, w))
        return F.leaky_relu(x + self.noise.to(x.dtype), SLOPE)


class SeparableConvolution(Convolution):
    """The same with a 3 x 3 convolution of each channel by itself, then one of 1 x 1."""

    def _make_kernels(self, incoming: int, outgoing: int) -> None:
        self.depthwise, self.pointwise = _kernel(incoming, 1, 3), _kernel(outgoing, incoming, 1)

    def convolve(self, x: Tensor) -> Tensor:
        """Return the convolution of x, with the bias."""
        x = F.conv2d(x, self.depthwise, padding=1, groups=len(self.depthwise))
        return F.conv2d(x, self.pointwise, self.bias)


class ToImage(Modulated):
    """Modulation, a 1 x 1 convolution to the twelve Haar channels of a colour image, an inverse Haar transform."""

    def __init__(self, channels: int, latent: int) -> None:
        super().__init__(channels, latent)
        self.weight, self.bias = _kernel(12, channels, 1), nn.Parameter(torch.zeros(12))

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        """Return the image, twice the size of the features."""
        return inverse_haar(F.conv2d(self.modulate(x, w), self.weight, self.bias))


def _kernel(outgoing: int, incoming: int, size: int) -> nn.Parameter:
    return nn.Parameter(nn.init.kaiming_normal_(torch.empty(outgoing, incoming, size, size), a=SLOPE))


def inverse_haar(x: Tensor) -> Tensor:
    """Return features of a quarter of the channels and twice the size.

    The first quarter of the channels is the low band; the others, seen as (C / 4, 3), are the details across, along and
    across both.

    Example:
        >>> inverse_haar(torch.tensor([2.0, 0.0, 0.0, 2.0]).view(1, 4, 1, 1)).squeeze().tolist()
        [[2.0, 0.0], [0.0, 2.0]]
    """
    quarter = x.shape[1] // 4
    low, details = x[:, :quarter], x[:, quarter:].unflatten(1, (quarter, 3))
    lh, hl, hh = details.unbind(2)
    upper, lower, plus, minus = low + lh, low - lh, hl + hh, hl - hh
    pixels = torch.stack((upper + plus, upper - plus, lower + minus, lower - minus), 2)
    return F.pixel_shuffle(pixels.flatten(1, 2) * 0.5, 2)


def styles_of(z: Tensor, layers: Sequence[tuple[Tensor, Tensor]]) -> Tensor:
    """Return w of z ``(n, latent)`` by the weights and biases of the mapping's layers."""
    w = z * (z.square().mean(1, keepdim=True) + 1e-8).rsqrt()
    for weight, bias in layers:
        w = F.leaky_relu(F.linear(w, weight, bias), SLOPE) * 2**0.5
    return w


@torch.no_grad()
def whitening_of(layers: Sequence[tuple[Tensor, Tensor]], draws: int = DRAWS) -> dict[str, Tensor]:
    """Return what ``Whitening`` holds, for the w of a mapping: mean, root and inverse.

    Directions in which w hardly varies count as if they varied by a millionth of the most variable one.

    Args:
        layers: weight ``(latent, latent)`` and bias ``(latent,)`` of each layer.
        draws: how many z to draw, with a fixed seed.
    """
    z = torch.randn(draws, len(layers[0][1]), generator=torch.Generator().manual_seed(0))
    w = torch.cat([styles_of(part, layers) for part in z.to(layers[0][0]).split(2000)]).double()
    mean = w.mean(0)
    away = w - mean
    values, vectors = torch.linalg.eigh(away.T @ away / (draws - 1))
    spread = values.clamp(min=max(float(values[-1]) * 1e-12, torch.finfo(values.dtype).tiny)).sqrt()
    parts = {"mean": mean, "root": (vectors * spread) @ vectors.T, "inverse": (vectors / spread) @ vectors.T}
    return {name: part.float() for name, part in parts.items()}


def recognise(shapes: Mapping[str, tuple[int, ...]]) -> MobileStyleGAN | None:
    """Return a network of the sizes that the shapes of a state dict belong to; None where this is another network.

    Raises:
        WeightsError: where sizes are missing or impossible.
    """
    if not {"input", "mapping.0.weight", "to_img.weight"} <= shapes.keys():
        return None
    levels = sum(f"layers.{level}.conv1.bias" in shapes for level in range(len(shapes)))
    layers = sum(f"mapping.{layer}.weight" in shapes for layer in range(len(shapes)))
    names = ["conv1.bias", *(f"layers.{level}.conv1.bias" for level in range(levels))]
    try:
        return MobileStyleGAN([shapes[name][0] for name in names], shapes["mapping.0.weight"][0], layers)
    except (IndexError, KeyError, ValueError) as error:
        raise WeightsError(f"does not fit MobileStyleGAN: {error}") from error
