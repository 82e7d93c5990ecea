"""The generator of BEGAN (Berthelot, Schumm and Metz 2017, arXiv:1703.10717, Section 3.1)."""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from iagan_lightning.checks import check_choice
from iagan_lightning.generators.base import LARGEST, Generator, LatentDistribution, WeightsError, are_sizes
from iagan_lightning.generators.elu import elu

MOST_BLOCKS = 12  # images of 16,384 pixels


class BEGAN(Generator):
    """Decoder of BEGAN: a linear layer to 8 x 8, pairs of 3 x 3 convolutions with ELU, nearest upsampling between.

    Layers are called ``l0`` (linear), ``l1`` ... (convolutions), the last one gives the image through tanh.

    Args:
        resolution: height and width of the image, 8 times a power of two (the paper: 64 or 128).
        channels: channels n of every hidden layer (the public 64-pixel weights: 64; the AAAI paper's: 128).
        latent: length of z (64).
        skip: concatenate the 8 x 8 layer's output, enlarged, after each upsampling (the paper's skip connections).
        latent_distribution: what z was drawn from in training: ``uniform`` on [-1, 1] as in the paper, or ``normal``.

    Latent spaces: z, and the features behind each pair of convolutions but the last, ``features-8``,
    ``features-16`` ... (with skip connections z alone).

    Shapes: z ``(n, latent)`` -> images ``(n, 3, resolution, resolution)`` in [-1, 1].

    Example:
        >>> G = BEGAN(resolution=64, channels=4, latent=8)
        >>> tuple(G(G.sample_latent(2, seed=0)).shape)
        (2, 3, 64, 64)
    """

    activation = staticmethod(elu)

    def __init__(
        self,
        resolution: int = 64,
        channels: int = 64,
        latent: int = 64,
        skip: bool = False,
        latent_distribution: LatentDistribution = "uniform",
    ) -> None:
        super().__init__()
        check_choice("latent_distribution", latent_distribution, LatentDistribution)
        self.blocks = blocks_of(resolution)
        for name, value in (("channels", channels), ("latent", latent)):
            if not are_sizes(value):
                raise ValueError(f"{name} is at least 1, a whole number up to {LARGEST:,}; {value!r} was given")
        self.resolution, self.channels, self.latent, self.skip = resolution, channels, latent, skip
        self.latent_shape, self.latent_distribution = (latent,), latent_distribution
        self.image_shape = (3, resolution, resolution)
        self.l0 = nn.Linear(latent, 64 * channels)
        for block in range(self.blocks):
            incoming = 2 * channels if skip and block else channels
            setattr(self, f"l{2 * block + 1}", nn.Conv2d(incoming, channels, 3, padding=1))
            setattr(self, f"l{2 * block + 2}", nn.Conv2d(channels, channels, 3, padding=1))
        setattr(self, f"l{2 * self.blocks + 1}", nn.Conv2d(channels, 3, 3, padding=1))

    @property
    def spaces(self) -> dict[str, tuple[int, ...]]:
        """z, and where that is all that the layers behind need, the features at each resolution but the last."""
        sizes = [] if self.skip else [8 << block for block in range(self.blocks - 1)]
        return {"z": self.latent_shape} | {f"features-{n}": (self.channels, n, n) for n in sizes}

    @property
    def latent_layers(self) -> list[nn.Linear]:
        """The layers that z enters."""
        return [self.l0]

    def forward(self, latent: Tensor, space: str = "z", to: str = "image") -> Tensor:
        """Return G(z); or begin with a latent of another space, or end in one."""
        self.require_way(space, to)
        if to == space:
            return latent
        layer = self._modules
        done = list(self.spaces).index(space)
        if not done:
            first = x = self.l0(latent).view(-1, self.channels, 8, 8)
        else:
            x = latent
        for block in range(done, self.blocks):
            if block:
                x = F.interpolate(x, scale_factor=2.0, mode="nearest")
                if self.skip:
                    x = torch.cat([x, F.interpolate(first, size=x.shape[-2:], mode="nearest")], dim=1)
            x = self.activation(layer[f"l{2 * block + 1}"](x))  # type: ignore[misc]
            x = self.activation(layer[f"l{2 * block + 2}"](x))  # type: ignore[misc]
            if to == f"features-{8 << block}":
                return x
        return torch.tanh(layer[f"l{2 * self.blocks + 1}"](x))  # type: ignore[misc]

    def architecture(self) -> dict[str, object]:
        """Return the constructor arguments that rebuild this network."""
        return {
            "resolution": self.resolution,
            "channels": self.channels,
            "latent": self.latent,
            "skip": self.skip,
            "latent_distribution": self.latent_distribution,
        }


def blocks_of(resolution: int) -> int:
    """Return the number of convolution pairs: 4 at 64 pixels, 5 at 128."""
    blocks = (resolution // 8).bit_length() if isinstance(resolution, int) else 0
    if not 0 < blocks <= MOST_BLOCKS or 8 << (blocks - 1) != resolution:
        raise ValueError(f"resolution is 8, 16, 32, 64, 128 ... {8 << MOST_BLOCKS - 1}; {resolution!r} was given")
    return blocks


def recognise(shapes: Mapping[str, tuple[int, ...]]) -> BEGAN | None:
    """Return a network of the sizes that the shapes of a state dict belong to; None where this is another network.

    Raises:
        WeightsError: where sizes are impossible.
    """
    first = shapes.get("l0.weight", ())
    if len(first) != 2 or first[0] % 64 or len(shapes.get("l1.weight", ())) != 4:
        return None
    numbers = [int(m[1]) for key in shapes if (m := re.fullmatch(r"l(\d{1,3})\.weight", key))]
    last = max(number for number in numbers if number <= 2 * MOST_BLOCKS + 1)  # what lies beyond is surplus
    channels, resolution = first[0] // 64, 8 << max((last - 1) // 2 - 1, 0)
    skip = shapes.get("l3.weight", (0, 0))[1:2] == (2 * channels,)
    try:
        return BEGAN(resolution=resolution, channels=channels, latent=first[1], skip=skip)
    except ValueError as error:
        raise WeightsError(f"does not fit BEGAN: {error}") from error
