"""The network of Deep Image Prior: an encoder-decoder with skip connections. Pure torch, imports nothing of ours."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class SkipNetwork(nn.Module):
    """Map noise ``(1, inputs, H, W)`` to an image ``(1, outputs, H, W)`` in [0, 1].

    Each level halves the picture with a strided convolution, hands it to the next level, enlarges what comes back and
    merges it with a thin skip connection. Normalisation uses the statistics of the batch at hand and keeps none, so
    give it one image at a time (``call_stacked`` does so for several side by side).

    Args:
        inputs: channels of the noise.
        outputs: channels of the image.
        width: channels of every level.
        skip: channels of the skip connections.
        levels: number of levels; ``levels_for`` says how many an image has room for.
        upsampling: ``bilinear`` or ``nearest``.

    Source: Ulyanov, Vedaldi and Lempitsky, Deep Image Prior, CVPR 2018, supplementary material.

    Example:
        >>> network = SkipNetwork()
        >>> sum(p.numel() for p in network.parameters())
        2217831
        >>> network(torch.rand(1, 32, 37, 50)).shape
        torch.Size([1, 3, 37, 50])
    """

    def __init__(
        self,
        inputs: int = 32,
        outputs: int = 3,
        width: int = 128,
        skip: int = 4,
        levels: int = 5,
        upsampling: str = "bilinear",
    ) -> None:
        super().__init__()
        body: nn.Module = nn.Identity()
        for level in reversed(range(levels)):
            body = Level(width if level else inputs, width, skip, upsampling, body)
        self.body = body
        self.image = nn.Conv2d(width, outputs, 1)

    def forward(self, noise: Tensor) -> Tensor:
        """Return the image."""
        return self.image(self.body(noise)).sigmoid()


class Level(nn.Module):
    """One level of the network around all deeper ones."""

    def __init__(self, inputs: int, width: int, skip: int, upsampling: str, deeper: nn.Module) -> None:
        super().__init__()
        self.skip = convolution(inputs, skip, 1)
        self.down = nn.Sequential(convolution(inputs, width, 3, stride=2), convolution(width, width, 3))
        self.deeper = deeper
        merged = skip + width
        self.merge = nn.Sequential(normalisation(merged), convolution(merged, width, 3), convolution(width, width, 1))
        self.upsampling = upsampling

    def forward(self, x: Tensor) -> Tensor:
        """Return ``width`` channels of the input's size; an odd size is cut from the next even one."""
        deeper = F.interpolate(self.deeper(self.down(x)), scale_factor=2, mode=self.upsampling)
        return self.merge(torch.cat([self.skip(x), deeper[..., : x.shape[-2], : x.shape[-1]]], 1))


def convolution(inputs: int, outputs: int, size: int, stride: int = 1) -> nn.Sequential:
    """Return a convolution with reflected borders, normalised and rectified."""
    convolve = nn.Conv2d(inputs, outputs, size, stride, padding=size // 2, padding_mode="reflect")
    return nn.Sequential(convolve, normalisation(outputs), nn.LeakyReLU(0.2))


def normalisation(channels: int) -> nn.BatchNorm2d:
    """Return a batch normalisation that remembers nothing."""
    return nn.BatchNorm2d(channels, track_running_stats=False)


def levels_for(height: int, width: int, most: int = 5) -> int:
    """Return how many levels leave at least 2 x 2 pixels, which reflected borders and statistics need.

    Example:
        >>> levels_for(128, 128), levels_for(33, 64), levels_for(16, 16)
        (5, 5, 3)

    Raises:
        ValueError: for images too small for a single level.
    """
    smallest = min(height, width)
    if smallest < 3:
        raise ValueError(f"DIP needs images of at least 3 x 3 pixels; {width} x {height} were given")
    return min(most, (smallest - 1).bit_length() - 1)
