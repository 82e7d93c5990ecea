"""A small network that tells from a plain reconstruction near which latent the picture lies.

It belongs to the weights of one generator, and lies beside their file, ``encoders/NAME`` to ``NAME``, or comes with
this package. Its numbers are none of the generator's: they never adapt, and no state, checkpoint of a training or
fingerprint holds them.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save
from torch import Tensor, nn

from iagan_lightning.generators.base import Generator, WeightsError, are_sizes, as_numbers, digest_of, to_store
from iagan_lightning.generators.catalogue import BUNDLED
from iagan_lightning.replacing import replacing
from iagan_lightning.safety import printable

FOLDER = "encoders"  # beside the weights
HEADER = "iagan_encoder"
GROUPS = 8  # of channels that are normalised together
SIZE, COARSE = 64, 16  # pixels that pictures are reduced to: what plain reconstructions know is coarse


class EncoderNetwork(nn.Module):
    """Pictures to latents: a linear map of what 16 x 16 pixels show, and what convolutions add to it.

    The linear part has a solution in closed form, and gets most of the way; the convolutions learn which kind of plain
    reconstruction lies before them. They normalise within each picture, so that pictures do not depend on each other.

    Args:
        latent: length of z.
        widths: channels at 32, 16 and 8 pixels, multiples of 8 from the second on.
        last: channels at 8 x 8 that a second linear layer sees.
        colours: channels of the pictures.

    Shapes: x ``(n, colours, H, W)`` in [-1, 1] -> ``(n, latent)``; x is brought to 64 x 64 and 16 x 16 pixels.

    Example:
        >>> network = EncoderNetwork()
        >>> tuple(network(torch.zeros(2, 3, 128, 128)).shape), sum(weight.numel() for weight in network.parameters())
        ((2, 256), 491880)
    """

    def __init__(
        self, latent: int = 256, widths: Sequence[int] = (32, 64, 80), last: int = 8, colours: int = 3
    ) -> None:
        super().__init__()
        if len(widths) != 3 or not are_sizes(latent, *widths, last, colours) or any(n % GROUPS for n in widths[1:]):
            raise ValueError(
                f"an encoder has three widths, multiples of {GROUPS} from the second on; {list(widths)} was given"
            )
        self.arguments = {"latent": latent, "widths": list(widths), "last": last, "colours": colours}
        first, second, third = widths
        self.coarse = nn.Linear(colours * COARSE**2, latent)
        self.layers = nn.Sequential(
            nn.PixelUnshuffle(2),
            nn.Conv2d(4 * colours, first, 3, padding=1),
            nn.ELU(),
            nn.Conv2d(first, second, 3, stride=2, padding=1),
            Residual(second),
            nn.ELU(),
            nn.Conv2d(second, third, 3, stride=2, padding=1),
            Residual(third),
            nn.ELU(),
            nn.Conv2d(third, last, 1),
            nn.ELU(),
            nn.Flatten(),
            nn.Linear(last * (SIZE // 8) ** 2, latent),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return the latents."""
        linear: Tensor = self.coarse(F.adaptive_avg_pool2d(x, COARSE).flatten(1))
        return linear + self.layers(F.adaptive_avg_pool2d(x, SIZE))


class Residual(nn.Module):
    """A convolution beside what it is added to, ``(n, channels, h, w)`` in and out."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm, self.conv = nn.GroupNorm(GROUPS, channels), nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """Return x and what the convolution adds."""
        added: Tensor = self.conv(F.elu(self.norm(x)))
        return x + added


class Encoder:
    """The network of one generator, and how it is read when it is first wanted.

    Calling it maps pictures x ``(n, C, H, W)`` in [-1, 1] to latents ``(n, length)``, on the CPU, so that every
    device begins at the same place. It is no ``nn.Module``, so that it becomes no part of the generator it belongs to;
    copies share the network, which never changes.

    Args:
        network: of pictures to latents; None to read it from the path.
        path: of its file.
        space: latent space of the generator in which they lie.
    """

    def __init__(self, network: EncoderNetwork | None = None, path: Path | None = None, space: str = "z") -> None:
        self._network, self.path, self.space = network, path, space
        if network is not None:
            network.requires_grad_(False).eval()

    @property
    def network(self) -> EncoderNetwork:
        """The network, in float32.

        Raises:
            WeightsError: for a file that is damaged or holds something else.
        """
        if self._network is None:
            assert self.path is not None
            self._network = _read(self.path)
        return self._network

    @torch.no_grad()
    def __call__(self, x: Tensor) -> Tensor:
        """Return the latents of pictures, where the pictures are."""
        return self.network(x.detach().to("cpu", torch.float32)).to(x.device)

    def __deepcopy__(self, memo: Any) -> Encoder:
        """Return the same: it is only ever read."""
        return self

    def stored(self) -> dict[str, Any]:
        """Return sizes, space and tensors, for a file or a checkpoint.

        Example:
            >>> encoder = Encoder(EncoderNetwork(latent=3, widths=(2, 8, 8), last=2))
            >>> Encoder.restored(encoder.stored())(torch.zeros(1, 3, 16, 16)).shape
            torch.Size([1, 3])
        """
        tensors = dict(self.network.state_dict())
        return {"arguments": self.network.arguments, "space": self.space, "tensors": tensors}

    @classmethod
    def restored(cls, stored: Mapping[str, Any]) -> Encoder:
        """Return the encoder whose sizes and tensors these are.

        Raises:
            ValueError: for numbers or sizes that do not fit.
        """
        with torch.device("meta"):  # sizes come from a file: nothing is allocated before they are checked
            network = EncoderNetwork(**stored["arguments"])
        tensors = {name: as_numbers(value) for name, value in stored["tensors"].items()}
        network.load_state_dict(tensors, assign=True)
        return cls(network, space=stored.get("space", "z"))


def encoder_of(path: Path, generator: Generator) -> Encoder | None:
    """Return the encoder of a generator's weights; None where there is none.

    It lies beside their file, in the folder ``encoders``, or is one of those that are bundled, some of which belong to
    priors that are not: weights are known by their hash, whatever their file is called. It is read when it is first
    used. One beside the file that belongs to other weights is left out, and a line says so.
    """
    beside = path.parent / FOLDER / path.name
    if beside.is_file():
        if (encoder := _if_of(beside, generator)) is not None:
            return encoder
        print(f"iagan: {beside} is no encoder of {path.name}, or of other weights: it is left out", file=sys.stderr)
    bundled = sorted((BUNDLED / FOLDER).glob("*.safetensors"))
    return next((encoder for other in bundled if (encoder := _if_of(other, generator)) is not None), None)


def _if_of(path: Path, generator: Generator) -> Encoder | None:
    """Return the encoder in a file if it is that of a generator's weights, hashed only where latents are as long."""
    try:
        header = _header(path)
        space = header.get("space", "z")
        size = header.get("image_shape", list(generator.image_shape))  # weights of one size may serve for another
        fits = (header["arguments"]["latent"],) == generator.spaces[space] and size == list(generator.image_shape)
        if fits and header["generator"] == _hash(generator):
            return Encoder(path=path, space=space)
    except (SafetensorError, OSError, AttributeError, KeyError, RecursionError, TypeError, ValueError):
        pass
    return None


def _hash(generator: Generator) -> str:
    """Return the hash of a generator's weights, not of what is measured of them, whose last digits differ elsewhere."""
    return digest_of(dict(generator.named_parameters()))


def _header(path: Path) -> Any:
    with safe_open(path, framework="pt") as stored:
        return json.loads((stored.metadata() or {})[HEADER])


def save_encoder(
    encoder: Encoder, generator: Generator, path: str | os.PathLike[str], training: Mapping[str, Any] | None = None
) -> Path:
    """Write an encoder in half precision beside the weights of its generator, and return its own path.

    Args:
        encoder: the encoder.
        generator: as ``load_generator`` returns it for the path.
        path: of the generator's weights, a safetensors file.
        training: what the header says of data and steps.

    Raises:
        WeightsError: for weights that half precision does not hold.

    Example:
        >>> import tempfile
        >>> from iagan_lightning.generators import BEGAN, load_generator, save_generator
        >>> G, path = BEGAN(resolution=16, channels=2, latent=3), Path(tempfile.mkdtemp()) / "own.safetensors"
        >>> save_generator(G, path)
        >>> save_encoder(Encoder(EncoderNetwork(latent=3, widths=(2, 8, 8), last=2)), G, path).parent.name
        'encoders'
        >>> load_generator(path).encode(torch.zeros(1, 3, 16, 16)).shape
        torch.Size([1, 3])
    """
    stored = encoder.stored()
    tensors = to_store(stored["tensors"], half=True)
    header = {
        "arguments": stored["arguments"],
        "space": stored["space"],
        "generator": _hash(generator),
        "image_shape": list(generator.image_shape),
        "training": dict(training or {}),
    }
    beside = Path(path).parent / FOLDER / Path(path).name
    beside.parent.mkdir(exist_ok=True)
    with replacing(beside) as file:
        file.write(save(tensors, metadata={HEADER: json.dumps(header)}))
    return beside


def _read(path: Path) -> EncoderNetwork:
    """Return the network that a file holds."""
    try:
        return Encoder.restored({"arguments": _header(path)["arguments"], "tensors": load_file(path)}).network
    except (SafetensorError, OSError, KeyError, AttributeError, RuntimeError, TypeError, ValueError) as error:
        reason = " ".join(printable(str(error)[:300]).split())
        raise WeightsError(f"{path} is damaged or holds no encoder: {reason}") from error
