"""Weights in the layouts that are in circulation, recognised by the names and shapes of their tensors."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from iagan_lightning.generators.base import Generator
from iagan_lightning.generators.began import BEGAN
from iagan_lightning.generators.pggan import PGGAN

State = dict[str, Tensor]


def recognise(state: Mapping[str, Tensor]) -> tuple[Generator, State] | None:
    """Return the network that tensors belong to, empty (its own weights mean nothing), and the tensors by its names.

    None for tensors of an unknown network. Build it on the meta device: sizes come from the tensors.

    Raises:
        ValueError: where the sizes contradict each other.
    """
    for layout in LAYOUTS:
        found = layout(state)
        if found is not None:
            return found
    return None


def _began(state: Mapping[str, Tensor]) -> tuple[Generator, State] | None:
    """``l0.weight``, ``l0.bias``, ``l1.weight`` ..."""
    shapes = {key: tuple(value.shape) for key, value in state.items()}
    first = shapes.get("l0.weight", ())
    if len(first) != 2 or first[0] % 64 != 0 or len(shapes.get("l1.weight", ())) != 4:
        return None
    last = max(int(m[1]) for key in shapes if (m := re.fullmatch(r"l(\d+)\.weight", key)))
    channels, resolution = first[0] // 64, 8 << max((last - 1) // 2 - 1, 0)
    skip = shapes.get("l3.weight", (0, 0))[1:2] == (2 * channels,)
    return BEGAN(resolution=resolution, channels=channels, latent=first[1], skip=skip), dict(state)


def _features(state: Mapping[str, Tensor]) -> tuple[Generator, State] | None:
    """PGGAN as ``features.N.conv.weight``, ``features.N.wscale.scale``, ``features.N.wscale.b``, ``output...``."""
    if "features.0.conv.weight" not in state:
        return None
    kinds = {"conv.weight": "weight", "wscale.scale": "scale", "wscale.b": "bias"}
    own: State = {}
    for key, value in state.items():
        layer = re.fullmatch(r"(?:features\.(\d+)|output)\.(.+)", key)
        kind = kinds.get(layer[2]) if layer else None
        name = key if layer is None or kind is None else f"layers.{layer[1]}.{kind}" if layer[1] else f"image.{kind}"
        own[name] = {"scale": lambda v: v.reshape(()), "bias": lambda v: v.reshape(-1, 1, 1)}.get(
            kind or "", lambda v: v
        )(value)
    return _pggan(own), own


def _zoo(state: Mapping[str, Tensor]) -> tuple[Generator, State] | None:
    """PGGAN as ``formatLayer``, ``groupScale0.0``, ``scaleLayers.N.M`` and ``toRGBLayers.N``, each ``.module``.

    A layer's output, bias included, is multiplied by sqrt(2 / fan-in) when it runs.
    """
    if "formatLayer.module.weight" not in state:
        return None
    scales = {int(m[1]) for key in state if (m := re.match(r"scaleLayers\.(\d+)\.", key))}
    names = {"formatLayer": "layers.0", "groupScale0.0": "layers.1", f"toRGBLayers.{len(scales)}": "image"}
    names |= {f"scaleLayers.{n}.{m}": f"layers.{2 + 2 * n + m}" for n in scales for m in (0, 1)}
    own: State = {}
    for layer, name in names.items():
        weight, bias = state.get(f"{layer}.module.weight"), state.get(f"{layer}.module.bias")
        if weight is None or bias is None:
            continue  # reported as missing
        scale = math.sqrt(2 / weight[0].numel())
        if name == "layers.0":
            weight, bias = _to_convolution(weight), bias.reshape(-1, 4, 4)
        own |= {f"{name}.weight": weight, f"{name}.scale": _number(scale)}
        own[f"{name}.bias"] = (bias if bias.ndim == 3 else bias.reshape(-1, 1, 1)) * scale
    return _pggan(own), own


def _tensorflow(state: Mapping[str, Tensor]) -> tuple[Generator, State] | None:
    """PGGAN as ``4x4/Dense/weight``, ``8x8/Conv0_up/weight``, ``8x8/Conv1/weight`` ..., ``ToRGB_lod0/weight``.

    Weights are stored without their constant factor gain / sqrt(fan-in), convolutions as (height, width, in, out),
    and those that enlarge as the transposed convolutions (height, width, out, in) that they are.
    """
    if "4x4/Dense/weight" not in state:
        return None
    names = {"4x4/Dense": "layers.0", "4x4/Conv": "layers.1", "ToRGB_lod0": "image"}
    for level in range(1, 9):
        size = f"{4 << level}x{4 << level}"
        names |= {f"{size}/Conv0_up": f"layers.{2 * level}", f"{size}/Conv0": f"layers.{2 * level}"}
        names[f"{size}/Conv1"] = f"layers.{2 * level + 1}"
    own: State = {}
    for layer, name in names.items():
        weight, bias = state.get(f"{layer}/weight"), state.get(f"{layer}/bias")
        if weight is None or bias is None:
            continue  # another resolution, or reported as missing
        gain = {"layers.0": math.sqrt(2) / 4, "image": 1.0}.get(name, math.sqrt(2))
        if name == "layers.0":
            weight, fan_in = _to_convolution(weight.T), len(weight)
        elif layer.endswith("_up"):
            # A transposed convolution turns the kernel by 180 degrees.
            weight = weight.permute(2, 3, 0, 1).flip(2, 3)
            fan_in = weight[0].numel()
        else:
            weight = weight.permute(3, 2, 0, 1)
            fan_in = weight[0].numel()
        own |= {f"{name}.weight": weight.contiguous(), f"{name}.scale": _number(gain / math.sqrt(fan_in))}
        own[f"{name}.bias"] = bias.reshape(-1, 1, 1)
    return _pggan(own), own


LAYOUTS: list[Callable[[Mapping[str, Tensor]], tuple[Generator, State] | None]] = [_began, _features, _zoo, _tensorflow]


def _number(value: float) -> Tensor:
    return torch.tensor(value, device="cpu")  # also where networks are being built on the meta device


def _to_convolution(dense: Tensor) -> Tensor:
    """Return the 4 x 4 convolution that does on a latent, padded by 3, what a dense layer ``(16 n, latent)`` does."""
    return dense.reshape(-1, 4, 4, dense.shape[1]).flip(1, 2).permute(0, 3, 1, 2).contiguous()


def _pggan(state: State) -> PGGAN:
    """Return the network that these tensors, named as its own, have the sizes of."""
    numbers = [int(m[1]) for key in state if (m := re.fullmatch(r"layers\.(\d+)\.weight", key))]
    levels = (max(numbers) + 2) // 2
    channels = [len(state[key]) for level in range(levels) if (key := f"layers.{2 * level}.weight") in state]
    first = state["layers.0.weight"]
    pixel_bias = state.get("layers.0.bias", first)[0].numel() == 16
    return PGGAN(4 << (levels - 1), first.shape[1], channels, pixel_bias)
