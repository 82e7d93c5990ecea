"""StyleGAN2 (Karras et al. 2020, arXiv:1912.04958), which is StyleGAN2-ADA's network too, in plain PyTorch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from iagan_lightning.checks import check_choice
from iagan_lightning.generators.base import LARGEST, are_sizes, as_list
from iagan_lightning.generators.style import DEEPEST, DRAWS, SLOPE, WIDEST, StyleGenerator, normalise, whitening_of

HIGHEST = 4096
GAIN = 2**0.5  # of the rectified layers
FILTER = (1.0, 3.0, 3.0, 1.0)  # which smooths what was enlarged, along each axis

Variant = Literal["skip", "orig", "resnet"]
Noise = Literal["kept", "dropped", "optimised"]


class StyleGAN2(StyleGenerator):
    r"""Style generator of modulated convolutions.

    Linear layers map z to w. From a learned constant of 4 x 4 pixels, each block doubles the size with a transposed
    convolution that is smoothed, and has a second convolution. With a style s linear in w, kernels k, a map n of noise,
    its strength a and a bias b, a layer of convolutions is

    .. math:: x \mapsto \sqrt 2\, \mathrm{lrelu}\left(\frac{k * (s\, x)}{|s\, k|} + a\, n + b\right),

    with a slope of .2 below zero, and the norm that of one output channel's kernels. The maps of noise are constants
    here, one for each layer. There is no tanh: images may leave [-1, 1] a little.

    Latent spaces: z, whitened w and w+ as ``StyleGenerator`` has them, and ``features-4``, ``features-8`` ...: all that
    lies behind the block of that size, one after another as one vector: its features, the image so far (``skip``), and
    v for each of the layers still to come.

    Weights are stored unscaled, as they were trained, and brought to size in the layers, so that one learning rate
    suits all. Those from z to w come frozen, as in every style generator.

    Args:
        resolution: height and width of the image: 4, 8, 16 ... 4096.
        channels: of the blocks of 4, 8, 16 ... pixels; by default min(512, 32768 / pixels), as published.
        latent: length of z.
        mapping: width of each layer from z to w; the last is the length of w.
        variant: how blocks make the image: each adds to it (``skip``), or the last makes it, with shortcuts around
            the others (``resnet``) or without (``orig``).
        image_channels: 3, or 1 for grey images.
        classes: how many classes the network was trained on; 0 without.
        embedding: numbers that stand for a class before the mapping; by default as many as w has.
        clamp: bound of the features and of what a block adds to the image; None for none.
        label: the class whose images are made, from 0; needed where there are classes.
        noise: what becomes of the maps of noise: ``kept`` as they are, ``dropped``, or ``optimised`` for each image
            with the weights, where those adapt.

    Attributes:
        checkpointing: as in ``PGGAN``: less memory, more time.

    Shapes: z ``(n, latent)`` -> images ``(n, image_channels, resolution, resolution)``, about [-1, 1].

    Raises:
        ValueError: for sizes and settings that are not allowed, and for spaces that it does not have.

    Source: arXiv:1912.04958, Sections 2 and 4; arXiv:2006.06676, Appendix D, for classes.

    Example:
        >>> G = StyleGAN2(resolution=16, channels=(8, 8, 4), latent=6, mapping=(6, 6))
        >>> G.spaces
        {'z': (6,), 'w': (6,), 'w+': (6, 6), 'features-4': (206,), 'features-8': (722,)}
        >>> f = G(G.sample_latent(2, seed=0), to="features-8")
        >>> tuple(G(f, space="features-8").shape)
        (2, 3, 16, 16)
    """

    schedule = "style-equalised"
    checkpointing = False
    filter: Tensor

    def __init__(
        self,
        resolution: int = 1024,
        channels: Sequence[int] | None = None,
        latent: int = 512,
        mapping: Sequence[int] = (512,) * 8,
        variant: Variant = "skip",
        image_channels: int = 3,
        classes: int = 0,
        embedding: int | None = None,
        clamp: float | None = None,
        label: int | None = None,
        noise: Noise = "kept",
    ) -> None:
        levels = levels_of(resolution)
        widths = [min(512, 32768 // (4 << level)) for level in range(levels)]
        if channels is not None:
            widths = as_list("channels", channels)
        layers = as_list("mapping", mapping)
        if len(widths) != levels or not are_sizes(*widths):
            raise ValueError(
                f"{resolution} pixels take {levels} numbers of channels from 1 on, whole ones up to {LARGEST:,}; "
                f"{widths} were given"
            )
        if not 1 <= len(layers) <= DEEPEST or not are_sizes(latent, *layers) or max(latent, *layers) > WIDEST:
            raise ValueError(
                f"mapping has 1 to {DEEPEST} layers, they and latent are 1 to {WIDEST} wide, whole numbers; {layers} "
                f"and {latent!r} were given"
            )
        check_choice("variant", variant, Variant)
        if not are_sizes(image_channels) or image_channels not in (1, 3):
            raise ValueError(f"images have 1 or 3 channels; {image_channels!r} were given")
        if not (are_sizes(classes) or classes == 0) or not (embedding is None or are_sizes(embedding)):
            raise ValueError(
                f"classes are at least 0, embedding is 1 to {WIDEST}, whole numbers; {classes!r}, {embedding!r} were "
                "given"
            )
        if embedding is not None and embedding > WIDEST:
            raise ValueError(f"embedding is 1 to {WIDEST}; {embedding} was given")
        if clamp is not None and not (isinstance(clamp, int | float) and clamp > 0):
            raise ValueError(f"clamp is above 0, or None for none; {clamp!r} was given")
        condition = (embedding or layers[-1]) if classes else 0
        super().__init__(latent, layers, styles=2 * levels, condition=condition)
        self.resolution, self.channels, self.widths = resolution, widths, layers
        self.variant: Variant = variant
        self.clamp, self.classes, self.condition = clamp, classes, condition
        self.image_shape = (image_channels, resolution, resolution)
        if classes:
            self.embed = nn.Linear(classes, condition).requires_grad_(False)
        for layer in [*self.mapping, *([self.embed] if classes else [])]:
            nn.init.normal_(layer.weight, std=layer.in_features**-0.5)
            nn.init.zeros_(layer.bias)
        taps = torch.tensor(FILTER)
        self.register_buffer("filter", taps[:, None] * taps / taps.sum() ** 2)
        self.const = nn.Parameter(torch.randn(widths[0], 4, 4))
        self.blocks = nn.ModuleList(
            Block(
                widths[level - 1] if level else None, width, 4 << level, layers[-1], variant,
                image_channels if variant == "skip" or level == levels - 1 else 0, clamp,
            )
            for level, width in enumerate(widths)
        )  # fmt: skip
        self.label, self.noise = self._checked_label(label), self._checked_noise(noise)
        self._release_noise()

    # Settings --------------------------------------------------------------------------------------------------

    def chosen(self) -> dict[str, object]:
        """Return the class, where there are some, and what becomes of the noise."""
        return {**({"label": self.label} if self.classes else {}), "noise": self.noise}

    def adjust(self, **settings: Any) -> None:
        """Choose ``label`` or ``noise``; w is whitened anew where that is needed.

        Raises:
            ValueError: for settings that it does not have, and where there are classes and none is chosen.

        Example:
            >>> G = StyleGAN2(resolution=8, channels=(4, 4), latent=4, mapping=(4,), classes=2, label=0)
            >>> G.adjust(label=1, noise="dropped")
            >>> G.label, G.noise, G.blocks[0].conv1.noise_strength.requires_grad
            (1, 'dropped', False)
        """
        before = self.label
        if "label" in settings:
            self.label = self._checked_label(settings.pop("label"))
        if "noise" in settings:
            self.noise = self._checked_noise(settings.pop("noise"))
            self._release_noise()
        super().adjust(**settings)
        if self.classes and self.label is None:
            raise ValueError(
                f"is a network of {self.classes} classes: say which one, label 0 to {self.classes - 1}, such as "
                "{weights: FILE, label: 0}"
            )
        if self.label != before or not bool(self.whitening.mean.any()):
            self.measure_whitening()

    def _checked_label(self, label: Any) -> int | None:
        if label is None:
            return None
        if not self.classes:
            raise ValueError(f"label {label!r} was given, but the network has no classes")
        if type(label) is not int or not 0 <= label < self.classes:
            raise ValueError(f"label is a number from 0 to {self.classes - 1}; {label!r} was given")
        return label

    def _checked_noise(self, noise: Any) -> Noise:
        check_choice("noise", noise, Noise)
        checked: Noise = noise
        return checked

    def _release_noise(self) -> None:
        """Let the maps adapt where they are optimised, and their strengths where they are used."""
        for name, p in self.named_parameters():
            if name.endswith(".noise"):
                p.requires_grad_(self.noise == "optimised")
            elif name.endswith(".noise_strength"):
                p.requires_grad_(self.noise != "dropped")

    def architecture(self) -> dict[str, object]:
        """Return the constructor arguments that rebuild this network."""
        return {
            "resolution": self.resolution,
            "channels": self.channels,
            "latent": self.latent,
            "mapping": self.widths,
            "variant": self.variant,
            "image_channels": self.image_shape[0],
            **({"classes": self.classes, "embedding": self.condition, "label": self.label} if self.classes else {}),
            "clamp": self.clamp,
            "noise": self.noise,
        }

    # Spaces and images -------------------------------------------------------------------------------------------

    @property
    def spaces(self) -> dict[str, tuple[int, ...]]:
        """z, w, w+, and what lies behind each block but the last."""
        inner = {f"features-{4 << k}": (sum(self._parts(k)),) for k in range(len(self.channels) - 1)}
        return super().spaces | inner

    def measure_whitening(self, draws: int = DRAWS) -> None:
        """Find m, C^(1/2) and its inverse from w of ``draws`` random z of the class at hand."""
        # In float64: whitening is no part of the file, and what is rounded may not depend on the number of threads.
        layers = [(weight.double(), bias.double()) for weight, bias in self._mapping_layers()]
        condition = self._condition()
        self.whitening.load_state_dict(whitening_of(layers, draws, None if condition is None else condition.double()))

    def _condition(self) -> Tensor | None:
        if not self.classes:
            return None
        if self.label is None:
            raise ValueError(f"label is a number from 0 to {self.classes - 1}: choose one, G.adjust(label=0)")
        return normalise((self.embed.weight[:, self.label] + self.embed.bias)[None])[0]

    def _parts(self, level: int) -> tuple[int, int, int]:
        """Return how many numbers behind a block are features, image, and styles still to come."""
        pixels = (4 << level) ** 2
        image = self.image_shape[0] * pixels if self.variant == "skip" else 0
        return self.channels[level] * pixels, image, (self.style_count - 2 * level - 1) * self.widths[-1]

    def _image(self, styles: Tensor, to: str) -> Tensor:
        return self._paint(self.const.expand(len(styles), -1, -1, -1), None, styles, 0, to)

    def _within(self, latent: Tensor, space: str, to: str) -> Tensor:
        size = int(space.removeprefix("features-"))
        level = levels_of(size) - 1
        x, image, v = latent.split(self._parts(level), 1)
        styles = self.whitening.colour(v.unflatten(1, (-1, self.widths[-1])))
        drawn = image.unflatten(1, (-1, size, size)) if self.variant == "skip" else None
        return self._paint(x.unflatten(1, (-1, size, size)), drawn, styles, level + 1, to)

    def _paint(self, x: Tensor, image: Tensor | None, styles: Tensor, first: int, to: str) -> Tensor:
        """Return the image from what goes into a block, and the styles from there on; or end behind one."""
        w = styles.unbind(1)
        for level, block in enumerate(self.blocks[first:], start=first):
            # Three styles a block, two in the first; what makes the image shares its own with the block behind it.
            count = 3 if level else 2
            x, image = block(x, image, w[:count], self.filter, self.noise != "dropped", self.checkpointing)
            w = w[count - 1 :]
            if to == f"features-{4 << level}":
                v = self.whitening.whiten(torch.stack(w, 1))
                parts = [x, v] if image is None else [x, image, v]
                return torch.cat([part.flatten(1).to(v.dtype) for part in parts], 1)
        assert image is not None
        return image


class Block(nn.Module):
    """The layers of one resolution: enlarged and convolved, convolved, and what they add to the image."""

    def __init__(
        self,
        incoming: int | None,
        channels: int,
        size: int,
        style: int,
        variant: Variant,
        image_channels: int,
        clamp: float | None,
    ) -> None:
        super().__init__()
        shortcut = variant == "resnet" and incoming is not None
        scale = 0.5**0.5 if shortcut else 1.0
        self.conv0 = None if incoming is None else Convolution(incoming, channels, size, style, clamp, upsample=True)
        self.conv1 = Convolution(channels, channels, size, style, clamp, scale=scale)
        self.to_image = ToImage(channels, image_channels, style, clamp) if image_channels else None
        self.skip = nn.Conv2d(incoming, channels, 1, bias=False) if shortcut and incoming else None
        if self.skip is not None:
            nn.init.normal_(self.skip.weight)

    def forward(
        self, x: Tensor, image: Tensor | None, w: Sequence[Tensor], kernel: Tensor, noisy: bool, checkpointing: bool
    ) -> tuple[Tensor, Tensor | None]:
        """Return the features and the image so far.

        Args:
            x: features of half the size; of this size in the first block.
            image: the image so far, of half the size; None where there is none.
            w: one ``(n, size)`` for each layer.
            kernel: the smoothing filter.
            noisy: whether there is noise.
            checkpointing: keep only what goes into a layer for the gradient.
        """
        shortcut = None
        if self.skip is not None:
            shortcut = F.conv2d(x, self.skip.weight * self.skip.in_channels**-0.5)
            shortcut = upsample(shortcut, kernel) * 0.5**0.5
        *inner, last, behind = w
        if self.conv0 is not None:
            x = self.conv0(x, inner[0], kernel, noisy, checkpointing)
        x = self.conv1(x, last, kernel, noisy, checkpointing)
        if shortcut is not None:
            x = x + shortcut
        if self.to_image is not None:
            drawn = self.to_image(x, behind)
            image = drawn if image is None else upsample(image, kernel).to(drawn.dtype) + drawn
        return x, image


class Convolution(nn.Module):
    """A modulated 3 x 3 convolution, noise, bias and a leaky rectifier; at twice the size where asked for."""

    def __init__(
        self,
        incoming: int,
        outgoing: int,
        size: int,
        style: int,
        clamp: float | None,
        upsample: bool = False,
        scale: float = 1.0,
    ) -> None:
        super().__init__()
        self.upsample, self.scale = upsample, scale
        self.clamp = None if clamp is None else clamp * scale
        self.style = style_layer(style, incoming)
        self.weight = nn.Parameter(torch.randn(outgoing, incoming, 3, 3))
        self.bias = nn.Parameter(torch.zeros(outgoing))
        self.noise_strength = nn.Parameter(torch.zeros(()))
        self.noise = nn.Parameter(torch.randn(size, size))

    def forward(self, x: Tensor, w: Tensor, kernel: Tensor, noisy: bool, checkpointing: bool) -> Tensor:
        """Return the layer's features."""
        noise = (self.noise_strength, self.noise) if noisy else (None, None)
        given = x, w, self.style.weight, self.style.bias, self.weight, self.bias, *noise, kernel
        if not checkpointing:
            return self._features(*given)
        # The weights are arguments: the module holds others by the time the features are computed again.
        features: Tensor = checkpoint(self._features, *given, use_reentrant=False, preserve_rng_state=False)
        return features

    def _features(
        self,
        x: Tensor,
        w: Tensor,
        style_weight: Tensor,
        style_bias: Tensor,
        weight: Tensor,
        bias: Tensor,
        strength: Tensor | None,
        noise: Tensor | None,
        kernel: Tensor,
    ) -> Tensor:
        s = style_of(w, style_weight, style_bias)
        # k * (s x) / |s k|: images differ in what the features are multiplied with, and share the kernels.
        norm = (weight.square().sum((2, 3)) * s.square()[:, None]).sum(2)
        factor = (norm + 1e-8).rsqrt()
        # Both are brought to a size that half precision can hold; what is taken from one is given to the other.
        usual = factor.detach().mean(1, keepdim=True)
        s, factor = s * usual, factor * (GAIN * self.scale / usual)
        x = x * s[:, :, None, None].to(x.dtype)
        if self.upsample:
            x = F.conv_transpose2d(x, weight.transpose(0, 1), stride=2)
            x = F.conv2d(x, (4 * kernel).expand(x.shape[1], 1, -1, -1), padding=1, groups=x.shape[1])
        else:
            x = F.conv2d(x, weight, padding=1)
        added = bias[:, None, None]
        if noise is not None and strength is not None:
            added = added + strength * noise
        # The gain is that of a function that is linear on either side of zero: it may come before it.
        added = added * (GAIN * self.scale)
        x = F.leaky_relu(torch.addcmul(added.to(x.dtype), x, factor[:, :, None, None].to(x.dtype)), SLOPE)
        return x if self.clamp is None else x.clamp(-self.clamp, self.clamp)


class ToImage(nn.Module):
    """A modulated 1 x 1 convolution to the channels of the image, and a bias."""

    def __init__(self, channels: int, image_channels: int, style: int, clamp: float | None) -> None:
        super().__init__()
        self.clamp = clamp
        self.style = style_layer(style, channels)
        self.weight = nn.Parameter(torch.randn(image_channels, channels, 1, 1))
        self.bias = nn.Parameter(torch.zeros(image_channels))

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        """Return what is added to the image, in the precision of the weights."""
        s = style_of(w, self.style.weight, self.style.bias) * x.shape[1] ** -0.5
        kernels = self.weight[None, :, :, 0, 0] * s[:, None]  # a few numbers for each image, where features are many
        image = torch.bmm(kernels.to(x.dtype), x.flatten(2)).unflatten(2, x.shape[2:])
        image = image.to(self.weight.dtype) + self.bias[:, None, None]
        return image if self.clamp is None else image.clamp(-self.clamp, self.clamp)


def style_layer(incoming: int, outgoing: int) -> nn.Linear:
    """Return a layer from w to a style, its weights unscaled; its own forward is not used."""
    layer = nn.Linear(incoming, outgoing)
    nn.init.normal_(layer.weight)
    nn.init.ones_(layer.bias)
    return layer


def style_of(w: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Return the style ``(n, channels)`` of w ``(n, size)``, in the precision of the weights."""
    return F.linear(w * w.shape[1] ** -0.5, weight, bias).to(weight.dtype)


def upsample(x: Tensor, kernel: Tensor) -> Tensor:
    """Return x at twice the size: zeros between its pixels, and the smoothing filter of 4 x 4."""
    kernels = (4 * kernel).expand(x.shape[1], 1, -1, -1)
    return F.conv_transpose2d(x, kernels, stride=2, padding=1, groups=x.shape[1])


def levels_of(resolution: int) -> int:
    """Return how many resolutions there are from 4 x 4 up to this one: 9 at 1024."""
    levels = (resolution // 4).bit_length() if isinstance(resolution, int) else 0
    if not levels or not 4 <= resolution <= HIGHEST or 4 << (levels - 1) != resolution:
        raise ValueError(f"resolution of a StyleGAN2 is 4, 8, 16 ... {HIGHEST}; {resolution!r} was given")
    return levels
