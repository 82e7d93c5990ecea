"""MobileStyleGAN at fewer pixels than it was trained for: its last levels go on without growing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from iagan_lightning.generators.mobile_stylegan import (
    PUBLISHED,
    Convolution,
    MobileStyleGAN,
    Modulated,
    Up,
    inverse_haar,
)


class ReducedMobileStyleGAN(MobileStyleGAN):
    r"""A MobileStyleGAN that makes its own pictures at fewer pixels, without making them large first.

    The exact way there, the means of blocks of the large picture, costs as much as that picture. Here the levels double
    the size only as far as they must, to half of the pixels wanted. Those that follow keep their weights but stay at
    that size: of the Haar coefficients that they would enlarge by, they go on with the low band, which is the mean of
    what they would have made. What is lost are the details that would have met a nonlinearity before they were averaged
    away. A linear head gives most of them back: from the features of all these levels, the last ones with their
    neighbours, it makes the twelve Haar coefficients of the picture, and is fitted to the large picture's means by
    least squares (``fit_head``).

    Args:
        channels, latent, mapping: as of the whole network.
        pixels: height and width of the images; a power of two below the whole network's.

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
        self, channels: Sequence[int] = PUBLISHED, latent: int = 512, mapping: int = 8, pixels: int = 128
    ) -> None:
        super().__init__(channels, latent, mapping)
        allowed = [4 << level for level in range(1, len(self.channels))]
        if pixels not in allowed:
            raise ValueError(
                f"pixels is one of {', '.join(map(str, allowed))} for a network of {self.resolution}; {pixels!r} was "
                "given"
            )
        self.grown = allowed.index(pixels)  # levels that double the size
        self.resolution, self.image_shape = pixels, (3, pixels, pixels)
        features = self.channels[self.grown]
        for convolution in self._reduced_convolutions():
            convolution.noise = torch.zeros(1, 1, pixels // 2, pixels // 2)
            features += len(convolution.bias)
        self.to_img = Head(features, self.channels[-1], latent)

    def architecture(self) -> dict[str, object]:
        """Return the constructor arguments that rebuild this network."""
        return {**super().architecture(), "pixels": self.resolution}

    def _reduced_convolutions(self) -> Iterator[Convolution]:
        for level in self.layers[self.grown :]:
            yield from (part for part in level.children() if isinstance(part, Convolution))

    def _image(self, styles: Tensor, to: str) -> Tensor:
        features, last = self.features(styles)
        image: Tensor = self.to_img(features, last, styles[:, -1])
        return image

    def features(self, styles: Tensor) -> tuple[Tensor, Tensor]:
        """Return what the head sees of w+ that is not whitened.

        Returns:
            Features of all levels that do not grow, ``(n, C, pixels / 2, pixels / 2)``, and those of the last one.
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
    """Twelve Haar coefficients of a colour image, linear in features, and an inverse Haar transform.

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

    def forward(self, features: Tensor, last: Tensor, w: Tensor) -> Tensor:
        """Return the image, twice the size of the features."""
        coefficients = F.conv2d(self.modulate(last, w), self.around, padding=1) + F.conv2d(features, self.across)
        return inverse_haar(coefficients + self.bias[:, None, None])


def reduce(whole: MobileStyleGAN, pixels: int, head: Mapping[str, Tensor] | None = None) -> ReducedMobileStyleGAN:
    """Return a network of fewer pixels.

    Args:
        whole: the network, which is not changed.
        pixels: of the images.
        head: ``around``, ``across`` and ``bias`` as ``fit_head`` returns them; zero when left out.
    """
    G = ReducedMobileStyleGAN(**whole.architecture(), pixels=pixels)  # type: ignore[arg-type]
    state = {name: value for name, value in whole.state_dict().items() if name not in ("to_img.weight", "to_img.bias")}
    own = G.state_dict()
    for name, value in state.items():
        if name.endswith(".noise") and value.shape != own[name].shape:
            state[name] = F.adaptive_avg_pool2d(value, own[name].shape[-2:])
    for name in ("around", "across", "bias"):
        state[f"to_img.{name}"] = own[f"to_img.{name}"] if head is None else head[name].float()
    G.load_state_dict(state)
    G.framing = whole.framing
    return G.eval()


@torch.no_grad()
def fit_head(whole: MobileStyleGAN, pixels: int, samples: int, share: float = 1.0, seed: int = 0) -> dict[str, Tensor]:
    """Return the head that comes nearest, in the mean square, to the means of blocks of the whole network's pictures.

    Half of the samples are drawn as in training; the others lie nearer to the mean of w, where searches begin.

    Args:
        whole: the network.
        pixels: of the images.
        samples: pictures to make.
        share: of their pixels, drawn at random, that are used.
        seed: of samples and pixels.
    """
    G = reduce(whole, pixels)
    draw, sums = torch.Generator().manual_seed(seed), torch.zeros(())
    for number in range(samples):
        v = draw_style(whole, draw, nearer=bool(number % 2))
        features = _design(G, v)
        wanted = haar(F.avg_pool2d(whole(v, space="w"), whole.resolution // pixels)).flatten(2)[0]
        rows = torch.cat((features, wanted))
        kept = torch.randperm(rows.shape[1], generator=draw)[: max(1, round(share * rows.shape[1]))]
        sums = sums + (rows[:, kept] @ rows[:, kept].T).double()
    size = len(sums) - 12
    ridge = 1e-6 * sums.diagonal()[:size].diag()
    weights = torch.linalg.solve(sums[:size, :size] + ridge, sums[:size, size:]).T.float()
    around = 9 * whole.channels[-1]
    return {
        "around": weights[:, :around].reshape(12, -1, 3, 3).contiguous(),
        "across": weights[:, around:-1, None, None].contiguous(),
        "bias": weights[:, -1].contiguous(),
    }


def draw_style(whole: MobileStyleGAN, draw: torch.Generator, nearer: bool = False) -> Tensor:
    """Return a random whitened w ``(1, latent)``; ``nearer`` to the mean by a factor of .4 to 1.1."""
    v = whole(torch.randn(1, *whole.latent_shape, generator=draw), to="w")
    return v * (0.4 + 0.7 * torch.rand((), generator=draw)) if nearer else v


def haar(image: Tensor) -> Tensor:
    """Return the coefficients of which ``inverse_haar`` makes an image.

    Example:
        >>> x = torch.rand(2, 3, 4, 6)
        >>> bool(torch.allclose(inverse_haar(haar(x)), x, atol=1e-6))
        True
    """
    a, b, c, d = F.pixel_unshuffle(image, 2).unflatten(1, (-1, 4)).unbind(2)
    details = torch.stack((a + b - c - d, a - b + c - d, a - b - c + d), 2)
    return torch.cat((a + b + c + d, details.flatten(1, 2)), 1) / 2


def _design(G: ReducedMobileStyleGAN, v: Tensor) -> Tensor:
    """Return all that the head's coefficients are linear in, ``(size, pixels)``, with a row of ones."""
    styles = G._spread(G.whitening.colour(v))
    features, last = G.features(styles)
    around = F.unfold(G.to_img.modulate(last, styles[:, -1]), 3, padding=1)[0]
    return torch.cat((around, features.flatten(2)[0], torch.ones_like(around[:1])))
