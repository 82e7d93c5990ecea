"""MobileStyleGAN at fewer pixels than it was trained for: its last levels go on without growing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from iagan_lightning.generators.base import WeightsError, are_sizes
from iagan_lightning.generators.mobile_stylegan import (
    PUBLISHED,
    Convolution,
    MobileStyleGAN,
    Modulated,
    Up,
    inverse_haar,
)

JOINT = 5  # pixels across the filter that joins the blocks of the head


class ReducedMobileStyleGAN(MobileStyleGAN):
    r"""A MobileStyleGAN that makes its own pictures at fewer pixels, without making them large first.

    The exact way there, the means of blocks of the large picture, costs as much as that picture. Here the levels double
    the size only as far as they must, to half of the pixels wanted. Those that follow keep their weights but stay at
    that size: of the Haar coefficients that they would enlarge by, they go on with the low band, which is the mean of
    what they would have made. What is lost are the details that would have met a nonlinearity before they were averaged
    away. A linear head gives most of them back: from the features of all these levels, the last ones with their
    neighbours, it makes the twelve Haar coefficients of the picture, and a filter of 5 x 5 pixels joins their blocks.
    Both are fitted to the large picture's means by least squares (``iagan_lightning.training.heads``).

    Where few levels grow, that is too much to give back. Such a network draws at more pixels than its images have, and
    these are the means of blocks.

    The head and the levels that do not grow come frozen, as the mapping does; those that grow adapt.

    Args:
        channels, latent, mapping: as of the whole network.
        pixels: height and width of the images; a power of two below the whole network's.
        averaged: height and width of the blocks of drawn pixels that become one of the image; a power of two.

    Shapes: z ``(n, latent)`` -> images ``(n, 3, pixels, pixels)``, about [-1, 1]. Spaces as of the whole network.

    Raises:
        ValueError: for sizes that are not allowed.

    Example:
        >>> G = ReducedMobileStyleGAN(channels=(8, 8, 8, 4), latent=6, mapping=2, pixels=16)
        >>> G.spaces, tuple(G(G.sample_latent(2, seed=0)).shape)
        ({'z': (6,), 'w': (6,), 'w+': (11, 6)}, (2, 3, 16, 16))
    """

    to_img: Head  # type: ignore[assignment]  # in place of the whole network's

    def __init__(
        self,
        channels: Sequence[int] = PUBLISHED,
        latent: int = 512,
        mapping: int = 8,
        pixels: int = 256,
        averaged: int = 1,
    ) -> None:
        super().__init__(channels, latent, mapping)
        allowed = [4 << level for level in range(1, len(self.channels))]
        if pixels not in allowed or not are_sizes(pixels, averaged) or pixels * averaged not in allowed:
            raise ValueError(
                f"pixels, and pixels times averaged, are among {', '.join(map(str, allowed))} for a network of "
                f"{self.resolution}; {pixels!r} and {averaged!r} were given"
            )
        self.averaged, drawn = averaged, pixels * averaged
        self.grown = allowed.index(drawn)  # levels that double the size
        self.resolution, self.image_shape = pixels, (3, pixels, pixels)
        features = self.channels[self.grown]
        for convolution in self._reduced_convolutions():
            convolution.noise = torch.zeros(1, 1, drawn // 2, drawn // 2)
            features += len(convolution.bias)
        self.to_img = Head(features, self.channels[-1], latent)
        # Fitted by least squares, the head adds and takes away much that cancels: adapted with the rest it made noise.
        self.to_img.requires_grad_(False)
        self.layers[self.grown :].requires_grad_(False)

    def architecture(self) -> dict[str, object]:
        """Return the constructor arguments that rebuild this network."""
        averaged = {"averaged": self.averaged} if self.averaged > 1 else {}
        return {**super().architecture(), "pixels": self.resolution, **averaged}

    def styles(self, v: Tensor) -> Tensor:
        """Return w+ that is not whitened, ``(n, layers, latent)``, of a latent of w or w+."""
        return self._spread(self.whitening.colour(v))

    def _reduced_convolutions(self) -> Iterator[Convolution]:
        for level in self.layers[self.grown :]:
            yield from (part for part in level.children() if isinstance(part, Convolution))

    def _image(self, styles: Tensor, to: str) -> Tensor:
        features, last = self.features(styles)
        drawn: Tensor = self.to_img(features, last, styles[:, -1])
        return drawn if self.averaged == 1 else F.avg_pool2d(drawn, self.averaged)

    def features(self, styles: Tensor) -> tuple[Tensor, Tensor]:
        """Return what the head sees of w+ that is not whitened.

        Returns:
            Features of all levels that do not grow, ``(n, C, h, h)``, h half of the drawn pixels, and those of the last
            one.
        """
        ahead = iter(styles.unbind(1))
        x = self.conv1(self.input.expand(len(styles), -1, -1, -1), next(ahead))
        seen: list[Tensor] = []
        for number, level in enumerate(self.layers):
            for part in level.children():
                if number < self.grown:
                    x = part(x, next(ahead))
                    continue
                if isinstance(part, Up):
                    x = part.modulate(x, next(ahead))
                    seen += [] if seen else [x]
                    x = x[:, : x.shape[1] // 4] / 2
                else:
                    x = part(x, next(ahead))
                    seen.append(x)
        return torch.cat(seen, 1), x


class Head(Modulated):
    """Twelve Haar coefficients of a colour image, linear in features, an inverse Haar transform, and a filter.

    Args:
        features: channels of all levels that do not grow.
        channels: of the last one, which is modulated as the whole network's last layer modulates it.
        latent: length of w.
    """

    def __init__(self, features: int, channels: int, latent: int) -> None:
        super().__init__(channels, latent)
        self.around = nn.Parameter(torch.zeros(12, channels, 3, 3))
        self.across = nn.Parameter(torch.zeros(12, features, 1, 1))
        self.bias = nn.Parameter(torch.zeros(12))
        self.filter = nn.Parameter(nn.init.dirac_(torch.empty(3, 3, JOINT, JOINT)))
        self.offset = nn.Parameter(torch.zeros(3))

    def forward(self, features: Tensor, last: Tensor, w: Tensor) -> Tensor:
        """Return the image, twice the size of the features."""
        coefficients = F.conv2d(self.modulate(last, w), self.around, padding=1) + F.conv2d(features, self.across)
        image = inverse_haar(coefficients + self.bias[:, None, None])
        return F.conv2d(image, self.filter, self.offset, padding=JOINT // 2)


def reduce(whole: MobileStyleGAN, pixels: int, head: Mapping[str, Tensor] | None = None) -> ReducedMobileStyleGAN:
    """Return a network of fewer pixels.

    Args:
        whole: the network, which is not changed.
        pixels: of the images.
        head: its parameters by name; one that makes nothing when left out.

    Raises:
        WeightsError: for a head of another network.
    """
    G = ReducedMobileStyleGAN(**whole.architecture(), pixels=pixels)  # type: ignore[arg-type]
    state, own = whole.state_dict(), G.state_dict()
    del state["to_img.weight"], state["to_img.bias"]
    for name, value in state.items():
        if name.endswith(".noise") and value.shape != own[name].shape:
            state[name] = F.adaptive_avg_pool2d(value, own[name].shape[-2:])
    for name, _ in G.to_img.named_parameters(recurse=False):
        state[f"to_img.{name}"] = own[f"to_img.{name}"] if head is None else head[name].float()
    try:
        G.load_state_dict(state)
    except RuntimeError as error:
        raise WeightsError(f"the head for {pixels} pixels belongs to another network: {error}") from error
    G.framing = whole.framing
    return G.eval()


def average(G: ReducedMobileStyleGAN, pixels: int) -> ReducedMobileStyleGAN:
    """Return a network whose images are the means of blocks of another's.

    Args:
        G: the network, which is not changed.
        pixels: of the images.
    """
    blocks = G.averaged * G.resolution // pixels
    averaged = ReducedMobileStyleGAN(**{**G.architecture(), "pixels": pixels, "averaged": blocks})  # type: ignore[arg-type]
    averaged.load_state_dict(G.state_dict())
    averaged.framing = G.framing
    return averaged.eval()
