"""The layout of StyleGAN2 of rosinality's code: a state dict."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from iagan_lightning.generators.base import WeightsError
from iagan_lightning.generators.stylegan2_layouts import (
    RATE,
    Arguments,
    State,
    Tensors,
    arguments_of,
    blur_filter,
    check_filter,
    checked,
    convolution,
    to_image,
)


def is_rosinality(state: Mapping[str, Tensor]) -> bool:
    """Tell whether a state dict is in rosinality's layout.

    Example:
        >>> import torch
        >>> is_rosinality({"l0.weight": torch.zeros(1)})
        False
    """
    return {"style.1.weight", "input.input", "conv1.conv.modulation.weight"} <= state.keys()


def from_rosinality(given: Mapping[str, Tensor]) -> tuple[State, Arguments]:
    """Return state dict and arguments of a network in rosinality's layout.

    Some of its files hold no maps of noise, which were drawn anew for each image: then there is none.

    Raises:
        WeightsError: where tensors are missing, surplus or misshapen. The message does not name the file.
    """
    tensors = Tensors(given)
    levels = tensors.count("to_rgbs.{}.bias") + 1
    noisy = any(name.startswith("noises.") for name in given)
    for name in [name for name in given if name.endswith((".conv.blur.kernel", ".upsample.kernel"))]:
        check_filter(tensors.take(name), 4)
    try:
        state: State = {"filter": blur_filter(), "const": tensors.take("input.input")[0]}
        layers = 0
        while f"style.{layers + 1}.weight" in tensors:
            weight, bias = tensors.take(f"style.{layers + 1}.weight"), tensors.take(f"style.{layers + 1}.bias")
            state[f"mapping.{layers}.weight"] = weight * (RATE * weight.shape[-1] ** -0.5)
            state[f"mapping.{layers}.bias"] = bias * RATE
            layers += 1
        for number in range(2 * levels - 1):
            level, layer = (number + 1) // 2, "conv0" if number % 2 else "conv1"
            name = f"convs.{number - 1}" if number else "conv1"
            state |= convolution(
                f"blocks.{level}.{layer}",
                tensors.take(f"{name}.conv.weight")[0],
                tensors.take(f"{name}.activate.bias"),
                _modulation(tensors, name),
                tensors.take(f"{name}.noise.weight"),
                tensors.take(f"noises.noise_{number}") if noisy else None,
            )
        for level in range(levels):
            name = f"to_rgbs.{level - 1}" if level else "to_rgb1"
            weight, bias = tensors.take(f"{name}.conv.weight")[0], tensors.take(f"{name}.bias")
            state |= to_image(f"blocks.{level}.to_image", weight, bias, _modulation(tensors, name))
        tensors.finish()
        return checked(state, arguments_of(state, levels, "skip", layers, noisy))
    except (IndexError, RuntimeError, TypeError) as error:
        raise WeightsError(f"does not fit StyleGAN2: a tensor has an impossible shape ({error})") from error


def _modulation(tensors: Tensors, name: str) -> tuple[Tensor, Tensor]:
    return tensors.take(f"{name}.conv.modulation.weight"), tensors.take(f"{name}.conv.modulation.bias")
