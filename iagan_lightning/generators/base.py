"""What every generator G offers: latent and image shapes, a latent distribution, images in [-1, 1]."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping
from numbers import Integral
from typing import Any, Literal

import torch
from torch import Tensor, nn

from iagan_lightning.checks import check_choice, check_seed
from iagan_lightning.generators.calibration import Calibration

Schedule = Literal["began", "pyramid", "pggan", "style", "style-equalised"]
LatentDistribution = Literal["uniform", "normal"]
Framing = Literal["tight", "ffhq"]


HALF_ENDS = 65504  # largest float16
LARGEST = 2**20  # channels or latents: far beyond any network, and its square times 64 is still a number of bytes


class WeightsError(ValueError):
    """A weight file that is missing, damaged, or of another network."""


def are_sizes(*values: object) -> bool:
    """Tell whether all are whole numbers that channels or latents can be.

    Example:
        >>> are_sizes(64, 1), are_sizes(64, 4.0), are_sizes(0), are_sizes(10**12), are_sizes(True)
        (True, False, False, False, False)
    """
    return all(isinstance(n, Integral) and not isinstance(n, bool) and 1 <= int(n) <= LARGEST for n in values)


def as_list(name: str, values: Any) -> list[Any]:
    """Return an argument of several numbers as a list.

    Raises:
        ValueError: for a single number, a text or whatever else is no list.

    Example:
        >>> as_list("channels", (8, 4))
        [8, 4]
        >>> as_list("channels", 8)
        Traceback (most recent call last):
        ...
        ValueError: channels is a list of whole numbers; 8 was given
    """
    if not isinstance(values, Iterable) or isinstance(values, str | Mapping):
        raise ValueError(f"{name} is a list of whole numbers; {values!r} was given")
    return list(values)


def as_numbers(value: Tensor, whole: bool = False) -> Tensor:
    """Return a tensor of weights in float32, or as it is where whole numbers are wanted (a count of batches, say).

    Half precision and the floating-point types of 8 bits are exact in float32.

    Raises:
        ValueError: for numbers of another kind, for values that are not finite, and for a tensor without values.

    Example:
        >>> as_numbers(torch.tensor([0.5], dtype=torch.float8_e5m2))
        tensor([0.5000])
        >>> as_numbers(torch.tensor([3]))
        Traceback (most recent call last):
        ...
        ValueError: holds numbers of type int64 where floating-point ones are needed: convert quantised weights back
    """
    kind = str(value.dtype).removeprefix("torch.")
    if value.is_floating_point() == whole or value.is_complex():
        need = "whole ones are needed" if whole else "floating-point ones are needed: convert quantised weights back"
        raise ValueError(f"holds numbers of type {kind} where {need}")
    if value.is_meta:
        raise ValueError("holds no values, only a shape (device meta)")
    if whole:
        return value
    try:
        value = value.float()
    except RuntimeError as error:  # two numbers packed into one, for example
        raise ValueError(f"holds numbers of type {kind}, which PyTorch cannot make float32") from error
    if not bool(torch.isfinite(value).all()):
        raise ValueError("holds values that are not finite")
    return value


def to_store(state: Mapping[str, Tensor], half: bool = False) -> dict[str, Tensor]:
    """Return tensors as a file of weights holds them, by name: on the CPU, in half precision where that is asked for.

    Raises:
        WeightsError: for values that are not finite, or would not be in half precision.

    Example:
        >>> to_store({"layer": torch.tensor([1e5])}, half=True)
        Traceback (most recent call last):
        ...
        iagan_lightning.generators.base.WeightsError: layer reaches 1e+05, more than half precision holds (65,504)
    """
    stored = {}
    for name, value in state.items():
        stored[name] = (value.half() if half and value.is_floating_point() else value).detach().cpu().contiguous()
        if bool(torch.isfinite(stored[name]).all()):
            continue
        if not bool(torch.isfinite(value).all()):
            raise WeightsError(f"{name} holds values that are not finite, and is not stored")
        largest = float(value.abs().max())
        raise WeightsError(f"{name} reaches {largest:.4g}, more than half precision holds ({HALF_ENDS:,})")
    return stored


def fingerprint(network: nn.Module) -> str:
    """Return the SHA-256 of all tensors of a network, by name.

    Example:
        >>> fingerprint(nn.Linear(2, 1)) == fingerprint(nn.Linear(2, 1))
        False
    """
    return digest_of(network.state_dict())


def digest_of(tensors: Mapping[str, Tensor]) -> str:
    """Return the SHA-256 of tensors and their names."""
    digest = hashlib.sha256()
    for name, value in sorted(tensors.items()):
        digest.update(name.encode())
        digest.update(value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


class Generator(nn.Module):
    """A pre-trained map G from latents z ``(n, *latent_shape)`` to images ``(n, C, H, W)`` in [-1, 1].

    A subclass sets the three attributes and writes ``forward``. It must treat the images of a batch independently
    (no batch statistics), because each image of a batch adapts on its own.

    A generator may have further latent spaces on the way from z to the image, such as ``w`` or ``features-16``, the
    features behind its first layers. It then overrides ``spaces``, and its forward takes ``space``, where its input
    lies, and ``to``, where to end (``require_way`` refuses what leads nowhere)::

        G(z)                                # z to the image
        f = G(z, to="features-16")          # z to the features at 16 x 16
        G(f, space="features-16")           # from there to the image

    Attributes:
        latent_shape: shape of one z.
        image_shape: ``(C, H, W)``.
        latent_distribution: ``"uniform"`` on [-1, 1] or ``"normal"``, what z was drawn from in training.
        schedule: the generator of the AAAI 2020 paper whose numbers of steps and learning rates suit this one, or
            ``pyramid`` for BEGAN's where ``fast`` may end sooner, as with ``Pyramid``; ``style`` for those that are
            found in w, ``style-equalised`` where their weights are stored with deviation 1 and scaled when used.
        checkpointing: whether features are computed again for the gradient to save memory; None where that cannot be.
        framing: how its faces are cut out: ``tight``, filling the picture, ``ffhq``, with hair and shoulders as in
            FFHQ; None where it makes no faces, or nobody said.
        weights: where in their file its weights were, and whether they are a moving average, in words; empty where they
            come from no file.
        encoder: maps pictures to latents near theirs, see ``encode``; None where nobody made one. No ``nn.Module``,
            whose parameters would become the generator's.
        calibration: what was measured on pictures that it was not trained on, by kind of measurements: how large errors
            are, and how much of y it leaves unexplained; empty where nobody has.
    """

    latent_shape: tuple[int, ...]
    image_shape: tuple[int, int, int]
    latent_distribution: LatentDistribution = "normal"
    schedule: Schedule = "began"
    checkpointing: bool | None = None
    framing: Framing | None = None
    weights: str = ""
    encoder: Callable[[Tensor], Tensor] | None = None
    calibration: Calibration = Calibration()

    def sample_latent(self, n: int, seed: int = 0) -> Tensor:
        """Return n latents from the training distribution, in PyTorch's default precision.

        They are drawn on the CPU and in float32, so that a seed means the same on every device and in any precision.

        Example:
            >>> from iagan_lightning.generators import BEGAN
            >>> z = BEGAN(resolution=64, channels=4, latent=8).sample_latent(2, seed=1)
            >>> tuple(z.shape), bool((z.abs() <= 1).all())
            ((2, 8), True)
        """
        draw = torch.Generator().manual_seed(check_seed(seed))
        shape, kind = (n, *self.latent_shape), torch.get_default_dtype()
        if self.latent_distribution == "uniform":
            return (torch.rand(shape, generator=draw, dtype=torch.float32, device="cpu") * 2 - 1).to(kind)
        return torch.randn(shape, generator=draw, dtype=torch.float32, device="cpu").to(kind)

    def encode(self, x: Tensor) -> Tensor | None:
        """Return latents near which a search for pictures may begin, in ``code_space``; None without an encoder.

        Args:
            x: pictures ``(n, C, H, W)`` in [-1, 1], which may be blurred, noisy, coarse or full of holes: an encoder
                has learnt from plain reconstructions.

        Example:
            >>> from iagan_lightning.generators import BEGAN
            >>> BEGAN(resolution=8, channels=2, latent=3).encode(torch.zeros(1, 3, 8, 8)) is None
            True
        """
        return None if self.encoder is None else self.encoder(x)

    @property
    def code_space(self) -> str:
        """The latent space that ``encode`` leads to: what the encoder says of itself (``space``), z otherwise."""
        return str(getattr(self.encoder, "space", "z"))

    @property
    def spaces(self) -> dict[str, tuple[int, ...]]:
        """The latent spaces by name, from z towards the image, and the shape of one latent in each.

        Example:
            >>> from iagan_lightning.generators import BEGAN
            >>> BEGAN(resolution=32, channels=4, latent=8).spaces
            {'z': (8,), 'features-8': (4, 8, 8), 'features-16': (4, 16, 16)}
        """
        return {"z": self.latent_shape}

    @property
    def centred(self) -> frozenset[str]:
        """The spaces whose mean is 0: where a search may begin; others are entered from z."""
        return frozenset({"z"})

    def require_space(self, space: str) -> None:
        """Raise ValueError for a space that this generator does not have."""
        if space not in self.spaces:
            known = ", ".join(self.spaces)
            raise ValueError(f"{type(self).__name__} has the latent spaces {known}; {space!r} was given")

    def require_way(self, space: str, to: str) -> None:
        """Raise ValueError where no way leads from a space to ``to``, a space behind it or the ``image``.

        Example:
            >>> from iagan_lightning.generators import BEGAN
            >>> BEGAN(resolution=32, channels=4, latent=8).require_way("features-16", "features-8")
            Traceback (most recent call last):
            ...
            ValueError: from features-16 one comes to features-16, image; 'features-8' was given
        """
        self.require_space(space)
        spaces = [*self.spaces, "image"]
        ahead = spaces[spaces.index(space) :]
        if to not in ahead:
            raise ValueError(f"from {space} one comes to {', '.join(ahead)}; {to!r} was given")

    def chosen(self) -> dict[str, object]:
        """Return the settings that decide about the images besides the weights, as ``adjust`` takes them."""
        return {}

    def adjust(self, **settings: Any) -> None:
        """Change settings that need no other weights; ``framing`` is one of every generator.

        Raises:
            ValueError: for settings that this generator does not have.

        Example:
            >>> from iagan_lightning.generators import BEGAN
            >>> G = BEGAN(resolution=8, channels=2, latent=3)
            >>> G.adjust(framing="tight")
            >>> G.framing
            'tight'
        """
        if (framing := settings.pop("framing", self.framing)) is not None:
            check_choice("framing", framing, Framing)
        if settings:
            known = ", ".join([*self.chosen(), "framing"])
            raise ValueError(f"{type(self).__name__} has the settings {known}; {', '.join(settings)} was given")
        self.framing = framing

    def architecture(self) -> dict[str, object]:
        """Return the constructor arguments that rebuild this network, for the header of a weight file."""
        raise NotImplementedError(f"{type(self).__name__} cannot be described in a weight file")
