"""The generator of progressive growing (Karras, Aila, Laine and Lehtinen, ICLR 2018), at its final resolution."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from iagan_lightning.generators.base import Generator


class PGGAN(Generator):
    r"""Progressively grown generator: two convolutions per resolution, from 4 x 4 up to the image.

    Before each convolution features are normalised over channels,
    :math:`x / \sqrt{\mathrm{mean}_c\, x_c^2 + 10^{-8}}`, after it come a learned scale, a bias and a leaky ReLU of
    slope 0.2; between resolutions nearest-neighbour enlargement. The image is a 1 x 1 convolution of the normalised
    features, without a tanh: trained weights give about [-1, 1]. The latent is normalised too, so its length does not
    matter.

    Args:
        resolution: height and width of the image, 4 times a power of two, at most 1024.
        latent: length of z (512).
        channels: features at 4, 8, 16 ... pixels; by default those of the paper, 512 up to 32 pixels, then halved
            with every doubling down to 16 at 1024.
        pixel_bias: the first layer has a bias for each of its 4 x 4 pixels instead of one for all (a layout in
            circulation has).

    Shapes: z ``(n, latent)`` -> images ``(n, 3, resolution, resolution)``.

    Raises:
        ValueError: for other resolutions, or channels that do not belong to them.

    Source: Karras et al. 2018, arXiv:1710.10196, Table 2.

    Example:
        >>> G = PGGAN(resolution=16, latent=8, channels=(8, 4, 4))
        >>> tuple(G(G.sample_latent(2, seed=0)).shape)
        (2, 3, 16, 16)
    """

    latent_distribution = "normal"
    paper_schedule = "pggan"

    def __init__(
        self,
        resolution: int = 1024,
        latent: int = 512,
        channels: Sequence[int] | None = None,
        pixel_bias: bool = False,
    ) -> None:
        super().__init__()
        levels = levels_of(resolution)
        self.channels = tuple(min(512, 8192 >> level) for level in range(1, levels + 1))
        if channels is not None:
            self.channels = tuple(channels)
        if len(self.channels) != levels or min(self.channels) < 1 or latent < 1:
            raise ValueError(
                f"a PGGAN of {resolution} pixels has {levels} numbers of channels and a latent size, all at least 1; "
                f"{self.channels} and {latent} were given"
            )
        self.resolution, self.latent, self.pixel_bias = resolution, latent, pixel_bias
        self.latent_shape, self.image_shape = (latent,), (3, resolution, resolution)
        layers = [ScaledConv(latent, self.channels[0], 4, padding=3, pixel_bias=pixel_bias)]
        layers.append(ScaledConv(self.channels[0], self.channels[0], 3, padding=1))
        for before, after in zip(self.channels, self.channels[1:], strict=False):
            layers += [ScaledConv(before, after, 3, padding=1), ScaledConv(after, after, 3, padding=1)]
        self.layers = nn.ModuleList(layers)
        self.image = ScaledConv(self.channels[-1], 3, 1)

    def forward(self, z: Tensor) -> Tensor:
        """Return G(z)."""
        x = z[:, :, None, None]
        for number, layer in enumerate(self.layers):
            x = pixel_norm(x)
            if number > 1 and number % 2 == 0:
                x = F.interpolate(x, scale_factor=2.0, mode="nearest")
            x = F.leaky_relu(layer(x), 0.2)
        return self.image(pixel_norm(x))

    def architecture(self) -> dict[str, object]:
        """Return the constructor arguments that rebuild this network."""
        return {
            "resolution": self.resolution,
            "latent": self.latent,
            "channels": list(self.channels),
            "pixel_bias": self.pixel_bias,
        }


class ScaledConv(nn.Module):
    r"""A convolution with a learned scale :math:`s` for all weights: :math:`s\,(w * x) + b`."""

    def __init__(self, inputs: int, outputs: int, size: int, padding: int = 0, pixel_bias: bool = False) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs, size, size))
        self.scale = nn.Parameter(torch.tensor((2 / (inputs * (size * size if padding < 3 else 1))) ** 0.5))
        self.bias = nn.Parameter(torch.zeros(outputs, 4, 4) if pixel_bias else torch.zeros(outputs, 1, 1))
        self.padding = padding

    def forward(self, x: Tensor) -> Tensor:
        """Return the scaled convolution. Scaling the weights costs less than scaling the features."""
        weight = self.weight * self.scale
        if self.bias.shape[-1] == 1:
            return F.conv2d(x, weight, self.bias.flatten(), padding=self.padding)
        return F.conv2d(x, weight, padding=self.padding) + self.bias


def pixel_norm(x: Tensor) -> Tensor:
    """Return features of unit mean square over channels, pixel by pixel.

    Example:
        >>> pixel_norm(torch.tensor([3.0, 4.0]).reshape(1, 2, 1, 1)).square().mean().item()
        1.0
    """
    return x * (x.square().mean(1, keepdim=True) + 1e-8).rsqrt()


def levels_of(resolution: int) -> int:
    """Return the number of resolutions from 4 x 4 on: 9 for 1024 pixels."""
    levels = max(resolution // 4, 0).bit_length()
    if not 4 <= resolution <= 1024 or 4 << (levels - 1) != resolution:
        raise ValueError(f"resolution is 4, 8, 16 ... 1024; {resolution} was given")
    return levels
