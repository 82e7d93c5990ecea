"""MobileStyleGAN (Belousov 2021, arXiv:2104.04767): faces of 1024 x 1024 pixels from ten million numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from iagan_lightning.generators.base import LARGEST, Framing, WeightsError, are_sizes, as_list
from iagan_lightning.generators.style import DEEPEST, SLOPE, StyleGenerator

PUBLISHED = (512, 512, 512, 512, 512, 256, 128, 64)  # channels at 4, 8 ... 512 pixels


class MobileStyleGAN(StyleGenerator):
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

    framing: Framing | None = "ffhq"  # what its author trained and published

    def __init__(self, channels: Sequence[int] = PUBLISHED, latent: int = 512, mapping: int = 8) -> None:
        widths = as_list("channels", channels)
        if not 1 <= len(widths) <= len(PUBLISHED) or not are_sizes(*widths) or any(width % 4 for width in widths[:-1]):
            raise ValueError(
                f"channels are 1 to {len(PUBLISHED)} whole numbers from 1 on, all but the last multiples of 4; "
                f"{widths[: len(PUBLISHED) + 1]} were given"
            )
        if not are_sizes(latent, mapping) or mapping > DEEPEST:
            raise ValueError(
                f"latent is at least 1, a whole number up to {LARGEST:,}, mapping 1 to {DEEPEST}; {latent!r} and "
                f"{mapping!r} were given"
            )
        super().__init__(latent, [latent] * mapping, styles=3 * len(widths) - 1)
        self.channels, self.layer_count = widths, mapping
        self.resolution = 4 << len(widths)
        self.image_shape = (3, self.resolution, self.resolution)
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

    def architecture(self) -> dict[str, object]:
        """Return the constructor arguments that rebuild this network."""
        return {"channels": self.channels, "latent": self.latent, "mapping": self.layer_count}

    def _image(self, styles: Tensor, to: str) -> Tensor:
        """Return the images of w+ that is not whitened; no space lies behind it."""
        first, *inner, last = styles.unbind(1)
        x = self.conv1(self.input.expand(len(styles), -1, -1, -1), first)
        parts = [part for level in self.layers for part in level.children()]
        for part, w in zip(parts, inner, strict=True):
            x = part(x, w)
        image: Tensor = self.to_img(x, last)
        return image


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
        # In place, as nothing before needs its own output: of four features that a layer keeps for gradients one less.
        return F.leaky_relu_(x.add_(self.noise.to(x.dtype)), SLOPE)


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
