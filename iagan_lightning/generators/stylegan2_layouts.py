"""What the layouts of StyleGAN2's weights share: from their tensors to the names and numbers of ``StyleGAN2``.

In circulation are those of NVIDIA's PyTorch code (``stylegan2_nvidia``), of its TensorFlow code
(``stylegan2_tensorflow``) and of rosinality's (``stylegan2_rosinality``). All hold the same function; they differ in
names, in where the learning rate of the mapping is multiplied in, and in which way round kernels lie. What the names
and shapes do not show, clamps and gains, is taken from what the file says of each layer; what is not known is refused,
for the pictures would be wrong and nobody would see why.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from iagan_lightning.generators.base import WeightsError
from iagan_lightning.generators.network_pickle import Value
from iagan_lightning.generators.stylegan2 import FILTER, StyleGAN2, Variant

RATE = 0.01  # by which the numbers of the mapping are multiplied, where nothing else is said

Arguments = dict[str, Any]
State = dict[str, Tensor]


class Tensors:
    """The tensors of a file, taken one by one: none may be missing, none may be left."""

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        self.left = dict(tensors)

    def __contains__(self, name: str) -> bool:
        return name in self.left

    def shape(self, name: str) -> tuple[int, ...]:
        """Return the shape of a tensor that stays."""
        return tuple(self._known(name).shape)

    def take(self, name: str) -> Tensor:
        """Return a tensor in float32."""
        tensor = self._known(name).float()
        del self.left[name]
        return tensor

    def drop(self, pattern: str) -> None:
        """Leave out the tensors of these names."""
        self.left = {name: tensor for name, tensor in self.left.items() if not re.fullmatch(pattern, name)}

    def count(self, name: str) -> int:
        """Return how many tensors there are of a numbered name, from 0 on."""
        return next(number for number in range(len(self.left) + 1) if name.format(number) not in self.left)

    def finish(self) -> None:
        """Refuse what is left."""
        if self.left:
            more = f" and {len(self.left) - 1} more" if len(self.left) > 1 else ""
            raise WeightsError(f"does not fit StyleGAN2: surplus {next(iter(self.left))}{more}")

    def _known(self, name: str) -> Tensor:
        if name not in self.left:
            raise WeightsError(f"does not fit StyleGAN2: missing {name}")
        return self.left[name]


def checked(state: State, arguments: Arguments) -> tuple[State, Arguments]:
    """Return both, with what the network has and no file holds: w is whitened when the weights are in place."""
    try:
        with torch.device("meta"):
            network = StyleGAN2(**arguments)
    except (TypeError, ValueError, OverflowError, RuntimeError) as error:
        raise WeightsError(f"does not fit StyleGAN2: {error}") from error
    # A misshapen tensor is named when the network is filled.
    size = network.widths[-1]
    whitening = {"mean": torch.zeros(size), "root": torch.eye(size), "inverse": torch.eye(size)}
    return state | {f"whitening.{name}": value for name, value in whitening.items()}, arguments


def levels_of(sizes: Collection[int]) -> int:
    """Return how many levels blocks of these sizes make; refuse others than 4, 8, 16 ... pixels."""
    levels = len(sizes)
    if not sizes or set(sizes) != {4 << level for level in range(levels)}:
        raise WeightsError(
            f"holds no StyleGAN2: its blocks would be of 4, 8, 16 ... pixels, and are of {sorted(sizes) or 'none'}"
        )
    return levels


def variant_of(colours: bool, shortcuts: bool) -> Variant:
    """Return the variant of a network whose blocks all make colours, or one of which has a shortcut."""
    return "resnet" if shortcuts else "skip" if colours else "orig"


def blur_filter() -> Tensor:
    """Return the filter of the network, ``(4, 4)``, whose sum is 1."""
    taps = torch.tensor(FILTER)
    return taps[:, None] * taps / taps.sum() ** 2


def check_filter(kernel: Tensor, total: float) -> None:
    """Refuse another filter than the network's, of which the file holds ``total`` times."""
    if kernel.shape != (4, 4) or not torch.allclose(kernel, total * blur_filter(), atol=1e-5):
        raise WeightsError(f"holds a network with another filter than {[int(tap) for tap in FILTER]}")


def convolution(
    target: str, weight: Tensor, bias: Tensor, style: Sequence[Tensor], strength: Tensor | None, noise: Tensor | None
) -> State:
    """Return a modulated convolution under the name that it has in the network; without noise of strength 0."""
    size = 4 << int(target.split(".")[1])
    return {
        f"{target}.weight": weight,
        f"{target}.bias": bias,
        f"{target}.style.weight": style[0],
        f"{target}.style.bias": style[1],
        f"{target}.noise_strength": torch.zeros(()) if strength is None else strength.reshape(()),
        f"{target}.noise": torch.zeros(size, size) if noise is None else noise.reshape(noise.shape[-2:]),
    }


def to_image(target: str, weight: Tensor, bias: Tensor, style: Sequence[Tensor]) -> State:
    """Return a layer that makes colours under the name that it has in the network."""
    return {
        f"{target}.weight": weight,
        f"{target}.bias": bias.reshape(-1),
        f"{target}.style.weight": style[0],
        f"{target}.style.bias": style[1],
    }


def arguments_of(state: State, levels: int, variant: Variant, layers: int, noisy: bool) -> Arguments:
    """Return the arguments that the shapes of a state show; those of a file may still be misshapen."""
    last = f"blocks.{levels - 1}.to_image.bias"
    condition, classes = state["embed.weight"].shape if "embed.weight" in state else (0, 0)
    return {
        "resolution": 4 << (levels - 1),
        "channels": [len(state[f"blocks.{level}.conv1.bias"]) for level in range(levels)],
        "latent": state["mapping.0.weight"].shape[1] - condition,
        "mapping": [len(state[f"mapping.{number}.weight"]) for number in range(layers)],
        "variant": variant,
        "image_channels": len(state[last]),
        **({"classes": classes, "embedding": condition} if classes else {}),
        "noise": "kept" if noisy else "dropped",
    }


def number_of(value: Any, name: str) -> float | None:
    """Return a number of a file, Python's or NumPy's; None for None."""
    value = value.value.item() if isinstance(value, Value) and getattr(value.value, "size", 0) == 1 else value
    if value is not None and (isinstance(value, bool) or not isinstance(value, int | float)):
        raise WeightsError(f"holds {name} with a {type(value).__name__} in place of a number")
    return None if value is None else float(value)
