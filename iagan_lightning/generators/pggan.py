"""The generator of PGGAN at its final resolution (Karras, Aila, Laine and Lehtinen 2018, arXiv:1710.10196, Table 2)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from iagan_lightning.generators.base import LARGEST, Generator, are_sizes, as_list

HIGHEST = 1024
SLOPE = 0.2  # of the leaky rectifier below zero


class PGGAN(Generator):
    r"""Generator of progressive GANs: from 4 x 4 pixels, pairs of 3 x 3 convolutions with nearest upsampling between.

    Every layer divides each pixel's features by their root mean square, convolves, scales by one number and adds a
    bias, :math:`x \mapsto s \, (w * x / \mathrm{rms}(x)) + b`, and all but the last end in a leaky rectifier (.2). The
    latent is divided by its root mean square too, so its length does not matter. There is no tanh: images may leave
    [-1, 1] a little. Parameters are called as in the PyTorch weights the AAAI paper used, ``features.N.conv.weight``,
    ``features.N.wscale.scale``, ``features.N.wscale.b`` and the same of ``output``.

    Args:
        resolution: height and width of the image: 4, 8, 16 ... 1024.
        channels: of the layers at 4, 8, 16 ... pixels; by default min(512, 16384 / pixels), as published.
        latent: length of z (512).
        positional_bias: the first layer has a bias for each of its 4 x 4 pixels instead of one per channel, as in
            weights of pytorch_GAN_zoo.

    Attributes:
        checkpointing: keep nothing of a layer for the gradient but what goes into it, and compute the rest again: less
            memory, more time. Several images with weights of their own are then made one after another.

    Latent spaces: z, and the features behind each pair of layers but the last, ``features-4``, ``features-8`` ...

    Shapes: z ``(n, latent)``, standard normal -> images ``(n, 3, resolution, resolution)``, about [-1, 1].

    Raises:
        ValueError: for a resolution, channels or latents that are not allowed.

    Source: arXiv:1710.10196, Section 4 and Table 2; equalised learning rate, Section 4.1.

    Example:
        >>> G = PGGAN(resolution=16, channels=(8, 8, 4), latent=6)
        >>> tuple(G(G.sample_latent(2, seed=0)).shape), G.latent_distribution
        ((2, 3, 16, 16), 'normal')
    """

    latent_distribution = "normal"
    schedule = "pggan"
    checkpointing = False

    def __init__(
        self,
        resolution: int = HIGHEST,
        channels: Sequence[int] | None = None,
        latent: int = 512,
        positional_bias: bool = False,
    ) -> None:
        super().__init__()
        levels = levels_of(resolution)
        widths = [min(512, 16384 // (4 << level)) for level in range(levels)]
        if channels is not None:
            widths = as_list("channels", channels)
        if len(widths) != levels:
            raise ValueError(f"{resolution} pixels take {levels} numbers of channels; {len(widths)} were given")
        if not are_sizes(*widths, latent):
            raise ValueError(
                f"channels and latent are at least 1, whole numbers up to {LARGEST:,}; {widths} and {latent!r} were "
                "given"
            )
        self.resolution, self.channels, self.latent, self.positional_bias = resolution, widths, latent, positional_bias
        self.latent_shape, self.image_shape = (latent,), (3, resolution, resolution)
        layers = []
        for level, width in enumerate(widths):
            if level == 0:
                layers.append(
                    Layer(latent, width, kernel=4, padding=3, bias=(width, 4, 4) if positional_bias else None)
                )
            else:
                layers.append(Layer(widths[level - 1], width, upsample=True))
            layers.append(Layer(width, width))
        self.features = nn.ModuleList(layers)
        self.output = Layer(widths[-1], 3, kernel=1, padding=0, gain=1.0, slope=1.0)

    @property
    def spaces(self) -> dict[str, tuple[int, ...]]:
        """z, and the features at each resolution but the last."""
        inner = {f"features-{4 << k}": (width, 4 << k, 4 << k) for k, width in enumerate(self.channels[:-1])}
        return {"z": self.latent_shape} | inner

    def forward(self, latent: Tensor, space: str = "z", to: str = "image") -> Tensor:
        """Return G(z); or begin with a latent of another space, or end in one."""
        self.require_way(space, to)
        if to == space:
            return latent
        level = list(self.spaces).index(space)
        x = latent[:, :, None, None] if level == 0 else latent
        for number, layer in enumerate(self.features[2 * level :], start=2 * level):
            x = layer(x, self.checkpointing)
            if number % 2 and to == f"features-{4 << number // 2}":
                return x
        image: Tensor = self.output(x)
        return image

    def architecture(self) -> dict[str, object]:
        """Return the constructor arguments that rebuild this network."""
        return {
            "resolution": self.resolution,
            "channels": self.channels,
            "latent": self.latent,
            "positional_bias": self.positional_bias,
        }


class Layer(nn.Module):
    """Normalised pixels, enlarged where asked for, a convolution with one learned scale, a bias, a leaky rectifier."""

    def __init__(
        self,
        incoming: int,
        outgoing: int,
        kernel: int = 3,
        padding: int = 1,
        gain: float = 2**0.5,
        bias: tuple[int, int, int] | None = None,
        upsample: bool = False,
        slope: float = SLOPE,
    ) -> None:
        super().__init__()
        self.upsample, self.padding, self.slope = upsample, padding, slope
        self.conv = nn.Conv2d(incoming, outgoing, kernel, padding=padding, bias=False)
        nn.init.normal_(self.conv.weight)
        self.wscale = nn.ParameterDict(
            {
                "scale": nn.Parameter(torch.full((1,), gain / (incoming * kernel**2) ** 0.5)),
                "b": nn.Parameter(torch.zeros(bias or (outgoing,))),
            }
        )

    def forward(self, x: Tensor, checkpointing: bool = False) -> Tensor:
        """Return the layer's features; with ``checkpointing`` only x is kept for the gradient."""
        given = x, self.conv.weight, self.wscale["scale"], self.wscale["b"]
        if not checkpointing:
            return self._features(*given)
        # The weights are arguments: the module holds others by the time the features are computed again.
        features: Tensor = checkpoint(self._features, *given, use_reentrant=False, preserve_rng_state=False)
        return features

    def _features(self, x: Tensor, weight: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
        x = normalise_pixels(x)
        if self.upsample:
            x = F.interpolate(x, scale_factor=2.0, mode="nearest")
        # s (w * x) = (s w) * x: the weights are scaled, which are fewer than the pixels and need not be kept.
        per_channel = bias.ndim == 1
        x = F.conv2d(x, weight * scale, bias if per_channel else None, padding=self.padding)
        x = x if per_channel else x + bias
        return x if self.slope == 1 else F.leaky_relu(x, self.slope)


def normalise_pixels(x: Tensor) -> Tensor:
    """Return x with every pixel's features divided by their root mean square over channels (Section 4.2)."""
    return x * (x.square().mean(1, keepdim=True) + 1e-8).rsqrt()


def levels_of(resolution: int) -> int:
    """Return how many resolutions there are from 4 x 4 up to this one: 9 at 1024."""
    levels = (resolution // 4).bit_length() if isinstance(resolution, int) else 0
    if not levels or not 4 <= resolution <= HIGHEST or 4 << (levels - 1) != resolution:
        raise ValueError(f"resolution of a PGGAN is 4, 8, 16 ... {HIGHEST}; {resolution!r} was given")
    return levels
