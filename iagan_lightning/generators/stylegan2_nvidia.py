"""The layout of StyleGAN2 of NVIDIA's PyTorch code: a pickle of modules, which say of themselves how they were made."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from torch import Tensor

from iagan_lightning.generators.base import WeightsError
from iagan_lightning.generators.network_pickle import Record, check_apart
from iagan_lightning.generators.stylegan2 import GAIN, Variant
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
    levels_of,
    number_of,
    to_image,
    variant_of,
)

DEEPEST = 8  # modules within modules
CLASSES = {
    "Generator", "MappingNetwork", "SynthesisNetwork", "SynthesisBlock", "SynthesisLayer", "ToRGBLayer",
    "FullyConnectedLayer", "Conv2dLayer",
}  # fmt: skip
OPTIONS = {
    "": {"z_dim", "c_dim", "w_dim", "img_resolution", "img_channels", "mapping_kwargs", "synthesis_kwargs"},
    "mapping_kwargs": {
        "num_layers", "embed_features", "layer_features", "activation", "lr_multiplier", "w_avg_beta"
    },
    "synthesis_kwargs": {
        "channel_base", "channel_max", "num_fp16_res", "architecture", "resample_filter", "conv_clamp", "use_noise",
        "activation", "use_fp16", "fp16_channels_last", "fused_modconv_default",
    },
}  # fmt: skip
# What a layer must have been made with, where it says so.
SETTINGS: dict[str, dict[str, Any]] = {
    "SynthesisLayer": {"activation": "lrelu", "act_gain": GAIN},
    "Conv2dLayer": {"activation": "linear", "act_gain": 1.0, "up": 2, "down": 1},
}


def modules_of(content: Any) -> Record | None:
    """Return the generator in a pickle of NVIDIA's PyTorch code, the running average; None where it is none."""
    found = content.get("G_ema") if isinstance(content, dict) else content
    return found if isinstance(found, Record) and found.kind else None


def from_nvidia(generator: Record) -> tuple[State, Arguments]:
    """Return state dict and arguments of the generator of a pickle of NVIDIA's PyTorch code.

    Raises:
        WeightsError: where it is no StyleGAN2, or one of a kind that is not known. The message does not name the file.
    """
    modules = dict(_walk(generator, "", set()))
    held = dict(_tensors_of(modules))
    check_apart(held.values())
    tensors = Tensors(held)
    options = _options(modules[""])
    levels = levels_of({int(m[1]) for name in tensors.left if (m := re.match(r"synthesis\.b(\d+)\.", name))})
    sizes = [4 << level for level in range(levels)]
    for name, module in modules.items():
        _check_module(name, module)
    variant = _variant(tensors, modules, sizes)
    clamps = {
        number_of(module["conv_clamp"], name)
        for name, module in modules.items()
        if module["kind"] in ("SynthesisLayer", "ToRGBLayer") and "conv_clamp" in module
    } or {number_of(options.get("conv_clamp"), "conv_clamp")}
    if len(clamps) > 1:
        raise WeightsError(f"holds a network whose layers are clamped differently ({clamps}), which is not supported")

    state: State = {"filter": blur_filter(), "const": tensors.take("synthesis.b4.const")}
    for name in [name for name in tensors.left if name.endswith(".resample_filter")]:
        check_filter(tensors.take(name), 1)
    layers = tensors.count("mapping.fc{}.weight")
    rate = float(options.get("lr_multiplier", RATE))
    for number in range(layers):
        state |= _linear(tensors, modules, f"mapping.fc{number}", f"mapping.{number}", rate, "lrelu")
    if "mapping.embed.weight" in tensors:
        state |= _linear(tensors, modules, "mapping.embed", "embed", 1, "linear")
    noisy = False
    for level, size in enumerate(sizes):
        block, target = f"synthesis.b{size}", f"blocks.{level}"
        for layer in ("conv0", "conv1") if level else ("conv1",):
            name = f"{block}.{layer}"
            _check(modules, name, "up", 2 if layer == "conv0" else 1)
            silent = not _attribute(modules, name, "use_noise", options.get("use_noise", True))
            noise = [None, None] if silent else [tensors.take(f"{name}.{n}") for n in ("noise_strength", "noise_const")]
            noisy |= not silent
            kernels = tensors.take(f"{name}.weight"), tensors.take(f"{name}.bias")
            state |= convolution(f"{target}.{layer}", *kernels, _style(tensors, modules, name), *noise)
        if f"{block}.torgb.weight" in tensors:
            name, weight = f"{block}.torgb", tensors.take(f"{block}.torgb.weight")
            weight = weight * _ratio(modules, name, "weight_gain", weight[0].numel() ** -0.5)
            bias = tensors.take(f"{name}.bias")
            state |= to_image(f"{target}.to_image", weight, bias, _style(tensors, modules, name))
        if variant == "resnet" and level:
            weight = tensors.take(f"{block}.skip.weight")
            ratio = _ratio(modules, f"{block}.skip", "weight_gain", weight[0].numel() ** -0.5)
            state[f"{target}.skip.weight"] = weight * ratio
    tensors.drop(r"mapping\.w_avg")
    tensors.finish()
    arguments = {**arguments_of(state, levels, variant, layers, noisy), "clamp": clamps.pop()}
    shown = {
        "z_dim": arguments["latent"],
        "c_dim": arguments.get("classes", 0),
        "w_dim": arguments["mapping"][-1],
        "img_resolution": arguments["resolution"],
        "img_channels": arguments["image_channels"],
    }
    for key, number in shown.items():
        if options.get(key, number) != number:
            raise WeightsError(f"holds a network made with {key} {options[key]} whose tensors are those of {number}")
    return checked(state, arguments)


def _walk(module: Record, name: str, seen: set[int]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the attributes of a module and of all within it, by their dotted names; none is there twice."""
    if not isinstance(module.state, dict) or name.count(".") >= DEEPEST or id(module) in seen:
        raise WeightsError(f"holds a module {name or 'G_ema'} without attributes, within itself, or in several places")
    seen.add(id(module))
    if module.kind not in CLASSES:
        raise WeightsError(
            f"holds a {module.kind} ({name or 'G_ema'}), which no StyleGAN2 has: StyleGAN3 and others are not supported"
        )
    yield name, {**module.state, "kind": module.kind}
    for key, inner in _members(module.state, "_modules", name):
        if isinstance(inner, Record):
            yield from _walk(inner, f"{name}.{key}".lstrip("."), seen)
        elif inner is not None:
            raise WeightsError(f"holds a {type(inner).__name__} in place of the module {name}.{key}")


def _tensors_of(modules: Mapping[str, Mapping[str, Any]]) -> Iterator[tuple[str, Tensor]]:
    """Yield parameters and buffers: layers that were frozen in training keep their weights among the latter."""
    for name, module in modules.items():
        for kind in ("_parameters", "_buffers"):
            for key, held in _members(module, kind, name):
                full = f"{name}.{key}".lstrip(".")
                if held is not None and not isinstance(getattr(held, "value", None), Tensor):
                    raise WeightsError(f"holds a {type(held).__name__} in place of the tensor {full}")
                if held is not None:
                    yield full, held.value


def _members(module: Mapping[str, Any], kind: str, name: str) -> list[tuple[str, Any]]:
    members = module.get(kind) or {}
    if not isinstance(members, dict):
        raise WeightsError(f"holds a module {name or 'G_ema'} whose {kind} are a {type(members).__name__}")
    return [(str(key), member) for key, member in members.items()]


def _options(generator: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the generator was made with, all in one; refuse what is not known."""
    found: dict[str, Any] = {}
    given = generator.get("_init_kwargs") or {}
    if not isinstance(given, dict):
        raise WeightsError(f"holds a network made with a {type(given).__name__} of settings")
    groups = {"": given, **{name: given.get(name) or {} for name in ("mapping_kwargs", "synthesis_kwargs")}}
    for name, group in groups.items():
        # Newer code takes those of the synthesis without a group of their own.
        known = OPTIONS[name] | (OPTIONS["synthesis_kwargs"] if not name else set())
        if surplus := group.keys() - known:
            raise WeightsError(f"holds a network made with {', '.join(sorted(surplus))}, which is not known here")
        if group.get("activation", "lrelu") != "lrelu":
            raise WeightsError(f"holds a network made with activation {group['activation']}; only lrelu is supported")
        found |= {key: value for key, value in group.items() if key not in groups}
    return found


def _variant(tensors: Tensors, modules: Mapping[str, Mapping[str, Any]], sizes: Sequence[int]) -> Variant:
    skip = all(f"synthesis.b{size}.torgb.weight" in tensors for size in sizes)
    resnet = any(f"synthesis.b{size}.skip.weight" in tensors for size in sizes)
    variant = variant_of(skip, resnet)
    if len(sizes) > 1:  # of one block all three are the same
        for size in sizes:
            _check(modules, f"synthesis.b{size}", "architecture", variant)
    return variant


def _check_module(name: str, module: Mapping[str, Any]) -> None:
    for key, wanted in SETTINGS.get(module["kind"], {}).items():
        _check({name: module}, name, key, wanted)


def _check(modules: Mapping[str, Mapping[str, Any]], name: str, key: str, wanted: Any) -> None:
    """Refuse a module that says of itself something else than is computed here."""
    given = _attribute(modules, name, key, wanted)
    same = math.isclose(number_of(given, name) or 0, wanted, rel_tol=1e-6) if type(wanted) is float else given == wanted
    if not same:
        raise WeightsError(f"holds {name} made with {key} {given}; only {wanted} is supported")


def _attribute(modules: Mapping[str, Mapping[str, Any]], name: str, key: str, otherwise: Any) -> Any:
    return modules.get(name, {}).get(key, otherwise)


def _ratio(modules: Mapping[str, Mapping[str, Any]], name: str, key: str, wanted: float) -> float:
    """Return a gain in units of the one that the network here has; 1 almost always."""
    given = number_of(_attribute(modules, name, key, wanted), name)
    ratio = math.nan if given is None else given / wanted
    return 1.0 if math.isclose(ratio, 1, rel_tol=1e-6) else ratio


def _linear(
    tensors: Tensors,
    modules: Mapping[str, Mapping[str, Any]],
    name: str,
    target: str,
    rate: float,
    activation: str,
) -> State:
    """Return a layer of the mapping with its gains multiplied in."""
    _check(modules, name, "activation", activation)
    weight, bias = tensors.take(f"{name}.weight"), tensors.take(f"{name}.bias")
    gain = rate * weight.shape[-1] ** -0.5
    return {
        f"{target}.weight": weight * (gain * _ratio(modules, name, "weight_gain", gain)),
        f"{target}.bias": bias * (rate * _ratio(modules, name, "bias_gain", rate)),
    }


def _style(tensors: Tensors, modules: Mapping[str, Mapping[str, Any]], name: str) -> tuple[Tensor, Tensor]:
    affine = f"{name}.affine"
    _check(modules, affine, "activation", "linear")
    weight, bias = tensors.take(f"{affine}.weight"), tensors.take(f"{affine}.bias")
    weight = weight * _ratio(modules, affine, "weight_gain", weight.shape[-1] ** -0.5)
    return weight, bias * _ratio(modules, affine, "bias_gain", 1.0)
