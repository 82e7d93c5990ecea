"""A generator that narrows as its pictures grow, and that hears of z at every resolution."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from iagan_lightning.generators.base import LARGEST, Generator, WeightsError, are_sizes, as_list
from iagan_lightning.generators.began import MOST_BLOCKS
from iagan_lightning.generators.elu import elu


class PyramidBlock(nn.Module):
    r"""Two convolutions around a shortcut, both scaled and shifted by z; at twice the size where ``grow`` says so.

    With U nearest upsampling (or nothing), W convolutions, and per channel :math:`s, t` linear in z,

    .. math:: x' = U S x + (1 + s_2)\, W_2\, \mathrm{elu}((1 + s_1)\, W_1 U\, \mathrm{elu}(x) + t_1) + t_2.

    Shapes: x ``(n, incoming, h, w)``, z ``(n, latent)`` -> ``(n, channels, h, w)`` or twice as high and wide.

    Source: the shortcut is that of He et al., Identity Mappings in Deep Residual Networks, ECCV 2016; scale and shift
    are those of Perez et al., FiLM, AAAI 2018.
    """

    def __init__(self, incoming: int, channels: int, latent: int, grow: bool) -> None:
        super().__init__()
        self.grow = grow
        self.conv1 = nn.Conv2d(incoming, channels, 3, padding=1)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)
        self.shortcut = nn.Conv2d(incoming, channels, 1, bias=False)
        self.style = nn.Linear(latent, 4 * channels)

    def forward(self, x: Tensor, z: Tensor) -> Tensor:
        """Return x'."""
        s1, t1, s2, t2 = self.style(z)[:, :, None, None].chunk(4, dim=1)
        shortcut, x = self.shortcut(x), elu(x)
        if self.grow:
            shortcut = F.interpolate(shortcut, scale_factor=2.0, mode="nearest")
            x = F.interpolate(x, scale_factor=2.0, mode="nearest")
        x = elu(torch.addcmul(t1, self.conv1(x), 1 + s1))
        return torch.addcmul(shortcut + t2, self.conv2(x), 1 + s2)


class Pyramid(Generator):
    """Residual decoder with fewer channels at higher resolutions, for CPUs: most latents for the least arithmetic.

    A linear layer makes the 8 x 8 start; each further block doubles the size. What a picture of 128 x 128 costs is
    spread over the resolutions (with the default widths 3 GFLOP), where BEGAN, as wide everywhere, spends three
    quarters of it on the last one.

    Args:
        widths: channels at 8 x 8, 16 x 16 ... pixels; their number decides the resolution.
        latent: length of z ~ N(0, I).
        start: channels that the linear layer makes.

    Shapes: z ``(n, latent)`` -> images ``(n, 3, N, N)`` in [-1, 1], N = 8 at one width, twice as many with each more.

    Example:
        >>> G = Pyramid(widths=[8, 8, 4], latent=6, start=4)
        >>> tuple(G(G.sample_latent(2, seed=0)).shape)
        (2, 3, 32, 32)
    """

    schedule = "pyramid"

    def __init__(self, widths: Sequence[int] = (192, 192, 128, 64, 32), latent: int = 256, start: int = 64) -> None:
        super().__init__()
        self.widths, self.latent, self.start = tuple(as_list("widths", widths)), latent, start
        if not 1 <= len(self.widths) <= MOST_BLOCKS or not are_sizes(*self.widths, latent, start):
            raise ValueError(
                f"widths, latent and start are numbers from 1 on, whole ones up to {LARGEST:,}, and widths at most "
                f"{MOST_BLOCKS} of them; {list(self.widths)[: MOST_BLOCKS + 1]}, {latent!r} and {start!r} were given"
            )
        self.latent_shape, self.latent_distribution = (latent,), "normal"
        self.resolution = 8 << (len(self.widths) - 1)
        self.image_shape = (3, self.resolution, self.resolution)
        self.linear = nn.Linear(latent, 64 * self.start)
        self.blocks = nn.ModuleList(
            PyramidBlock(incoming, channels, latent, grow=bool(number))
            for number, (incoming, channels) in enumerate(zip((self.start, *self.widths), self.widths, strict=False))
        )
        self.image = nn.Conv2d(self.widths[-1], 3, 3, padding=1)

    @property
    def latent_layers(self) -> list[nn.Linear]:
        """The layers that z enters."""
        return [self.linear, *(block.style for block in self.blocks if isinstance(block, PyramidBlock))]

    def forward(self, latent: Tensor, space: str = "z", to: str = "image") -> Tensor:
        """Return G(z)."""
        self.require_way(space, to)
        if to == space:
            return latent
        x = self.linear(latent).view(-1, self.start, 8, 8)
        for block in self.blocks:
            x = block(x, latent)
        return torch.tanh(self.image(elu(x)))

    def architecture(self) -> dict[str, object]:
        """Return the constructor arguments that rebuild this network."""
        return {"widths": list(self.widths), "latent": self.latent, "start": self.start}


def recognise(shapes: Mapping[str, tuple[int, ...]]) -> Pyramid | None:
    """Return a network of the sizes that the shapes of a state dict belong to; None where this is another network.

    Raises:
        WeightsError: where sizes are missing or impossible.
    """
    if not {"linear.weight", "blocks.0.shortcut.weight"} <= shapes.keys():
        return None
    blocks = sum(f"blocks.{block}.shortcut.weight" in shapes for block in range(MOST_BLOCKS))
    try:
        widths = [shapes[f"blocks.{block}.shortcut.weight"][0] for block in range(blocks)]
        outgoing, latent = shapes["linear.weight"]
        return Pyramid(widths, latent, start=outgoing // 64)
    except (IndexError, KeyError, ValueError) as error:
        raise WeightsError(f"does not fit Pyramid: {error}") from error
