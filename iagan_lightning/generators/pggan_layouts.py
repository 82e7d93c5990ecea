"""Weights of PGGAN in the layouts that are in circulation, brought to the names and numbers of ``PGGAN``.

All of them hold the same network, but for two things: where the constant of the equalised learning rate is, and how
the first layer maps z to 4 x 4 pixels. Here it is a 4 x 4 convolution of one pixel with a border of 3, that is the
matrix of a linear layer with its 4 x 4 pixels turned by 180 degrees.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping

import torch
from torch import Tensor

from iagan_lightning.generators.base import WeightsError, as_numbers
from iagan_lightning.generators.pggan import HIGHEST, PGGAN, levels_of

State = Mapping[str, Tensor]
LEVELS = levels_of(HIGHEST)


def canonical(state: State) -> State:
    """Return a state dict with the names of ``PGGAN`` if it holds one in another layout; others are returned as given.

    What growing alone needs, the outputs at lower resolutions, is left out.

    Raises:
        WeightsError: when tensors are missing or misshapen.
    """
    convert = None
    if "formatLayer.weight" in state:
        convert = _from_gan_zoo
    elif "4x4/Dense/weight" in state:
        convert = _from_tensorflow
    if convert is None:
        return state
    try:
        return convert(state)
    except KeyError as error:
        raise WeightsError(f"does not fit PGGAN: missing {error.args[0]}") from error
    except (ArithmeticError, IndexError, RuntimeError) as error:
        raise WeightsError(
            f"does not fit PGGAN: a tensor has an impossible shape ({' '.join(str(error).split())})"
        ) from error


def recognise(shapes: Mapping[str, tuple[int, ...]]) -> PGGAN | None:
    """Return a network of the sizes that the shapes of a state dict belong to; None where this is no PGGAN.

    Raises:
        WeightsError: where sizes are missing or impossible.
    """
    numbers = [int(m[1]) for key in shapes if (m := re.fullmatch(r"features\.(\d{1,9})\.conv\.weight", key))]
    first = shapes.get("features.0.conv.weight", ())
    if not numbers or len(first) != 4 or first[2:] != (4, 4):
        return None
    levels = max(numbers) // 2 + 1
    if levels > LEVELS:
        raise WeightsError(
            f"holds a PGGAN with {max(numbers) + 1} layers; one of {HIGHEST} pixels has 18, the most here"
        )
    biases = [f"features.{2 * level + 1}.wscale.b" for level in range(levels)]
    if missing := [key for key in biases if key not in shapes]:
        raise WeightsError(f"does not fit PGGAN: missing {missing[0]}")
    widths = [math.prod(shapes[key]) for key in biases]
    positional = len(shapes.get("features.0.wscale.b", ())) == 3
    try:
        return PGGAN(4 << (levels - 1), widths, latent=first[1], positional_bias=positional)
    except ValueError as error:
        raise WeightsError(f"does not fit PGGAN: {error}") from error


def _from_gan_zoo(state: State) -> State:
    """pytorch_GAN_zoo: c (w * x + b) with c = sqrt(2 / fan-in) found at run time, in the output layer too."""
    last = max((int(m[1]) for key in state if (m := re.fullmatch(r"toRGBLayers\.(\d{1,9})\.weight", key))), default=0)
    if last >= LEVELS:
        raise WeightsError(
            f"holds a PGGAN of {last + 1} resolutions; one of {HIGHEST} pixels has {LEVELS}, the most here"
        )
    names = ["formatLayer", "groupScale0.0"] + [f"scaleLayers.{i}.{j}" for i in range(last) for j in range(2)]
    made: dict[str, Tensor] = {}
    for target, name in zip(_targets(len(names)), [*names, f"toRGBLayers.{last}"], strict=True):
        weight, bias = _numbers(state, f"{name}.weight"), _numbers(state, f"{name}.bias")
        constant = math.sqrt(2 / weight[0].numel())
        if name == "formatLayer":
            weight, bias = _to_convolution(weight), bias.view(-1, 4, 4)
        made |= _layer(target, weight, constant, bias * constant)
    return made


def _from_tensorflow(state: State) -> State:
    """The original: (c w) * x + b, with kernels stored as height, width, in, out."""
    highest = max(int(m[1]) for key in state if (m := re.match(r"(\d{1,9})x\1/", key)))
    names = ["4x4/Dense", "4x4/Conv"]
    for pixels in (2**k for k in range(3, highest.bit_length())):
        fused = f"{pixels}x{pixels}/Conv0_up/weight" in state
        names += [f"{pixels}x{pixels}/{'Conv0_up' if fused else 'Conv0'}", f"{pixels}x{pixels}/Conv1"]
    made: dict[str, Tensor] = {}
    for target, name in zip(_targets(len(names)), [*names, "ToRGB_lod0"], strict=True):
        weight, gain = _numbers(state, f"{name}/weight"), 2**0.5
        if name == "4x4/Dense":
            weight, gain = _to_convolution(weight.t()), gain / 4
        elif name.endswith("Conv0_up"):  # a transposed convolution: height, width, out, in, and the kernel is turned
            weight = weight.permute(2, 3, 0, 1).flip(2, 3)
        else:
            weight, gain = weight.permute(3, 2, 0, 1), 1.0 if name == "ToRGB_lod0" else gain
        fan_in = weight.shape[1] if name == "4x4/Dense" else weight[0].numel()
        made |= _layer(target, weight, gain / math.sqrt(fan_in), _numbers(state, f"{name}/bias"))
    return made


def _numbers(state: State, key: str) -> Tensor:
    try:
        return as_numbers(state[key])
    except ValueError as error:
        raise WeightsError(f"does not fit PGGAN: {key} {error}") from error


def _targets(layers: int) -> list[str]:
    return [*(f"features.{i}" for i in range(layers)), "output"]


def _to_convolution(matrix: Tensor) -> Tensor:
    """Return the 4 x 4 kernels of a linear layer ``(16 channels, latent)``; its outputs are channels, rows, columns."""
    return matrix.reshape(-1, 4, 4, matrix.shape[1]).permute(0, 3, 1, 2).flip(2, 3)


def _layer(name: str, weight: Tensor, scale: float, bias: Tensor) -> dict[str, Tensor]:
    return {
        f"{name}.conv.weight": weight.contiguous(),
        f"{name}.wscale.scale": torch.tensor([scale]),
        f"{name}.wscale.b": bias,
    }
