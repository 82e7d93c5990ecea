"""Weights of StyleGAN2 in the layouts that are in circulation, brought to the names and numbers of ``StyleGAN2``.

They are those of NVIDIA's PyTorch code, of its TensorFlow code, and of rosinality's. All hold the same function; they
differ in names, in where the learning rate of the mapping is multiplied in, and in which way round kernels lie. What
the names and shapes do not show, clamps and gains, is taken from what the file says of each layer; what is not known
is refused, for the pictures would be wrong and nobody would see why.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, get_args

import torch
from torch import Tensor

from iagan_lightning.generators.base import WeightsError
from iagan_lightning.generators.network_pickle import Record, Value
from iagan_lightning.generators.stylegan2 import FILTER, GAIN, StyleGAN2, Variant

RATE = 0.01  # by which the numbers of the mapping are multiplied, where nothing else is said
DEEPEST = 8  # modules within modules

Arguments = dict[str, Any]
State = dict[str, Tensor]


class _Tensors:
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


def _checked(state: State, arguments: Arguments) -> tuple[State, Arguments]:
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


def _filter() -> Tensor:
    taps = torch.tensor(FILTER)
    return taps[:, None] * taps / taps.sum() ** 2


def _check_filter(kernel: Tensor, total: float) -> None:
    if kernel.shape != (4, 4) or not torch.allclose(kernel, total * _filter(), atol=1e-5):
        raise WeightsError(f"holds a network with another filter than {[int(tap) for tap in FILTER]}")


def _convolution(
    target: str, weight: Tensor, bias: Tensor, style: Sequence[Tensor], strength: Tensor | None, noise: Tensor | None
) -> State:
    size = 4 << int(target.split(".")[1])
    return {
        f"{target}.weight": weight,
        f"{target}.bias": bias,
        f"{target}.style.weight": style[0],
        f"{target}.style.bias": style[1],
        f"{target}.noise_strength": torch.zeros(()) if strength is None else strength.reshape(()),
        f"{target}.noise": torch.zeros(size, size) if noise is None else noise.reshape(noise.shape[-2:]),
    }


def _to_image(target: str, weight: Tensor, bias: Tensor, style: Sequence[Tensor]) -> State:
    return {
        f"{target}.weight": weight,
        f"{target}.bias": bias.reshape(-1),
        f"{target}.style.weight": style[0],
        f"{target}.style.bias": style[1],
    }


def _arguments(state: State, levels: int, variant: Variant, layers: int, noisy: bool) -> Arguments:
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


# NVIDIA's PyTorch code ------------------------------------------------------------------------------------------

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
    modules = dict(_walk(generator, ""))
    tensors = _Tensors(dict(_tensors_of(modules)))
    options = _options(modules[""])
    levels = _levels(tensors)
    sizes = [4 << level for level in range(levels)]
    for name, module in modules.items():
        _check_module(name, module)
    variant = _variant(tensors, modules, sizes)
    clamps = {
        _number(module["conv_clamp"], name)
        for name, module in modules.items()
        if module["kind"] in ("SynthesisLayer", "ToRGBLayer") and "conv_clamp" in module
    } or {_number(options.get("conv_clamp"), "conv_clamp")}
    if len(clamps) > 1:
        raise WeightsError(f"holds a network whose layers are clamped differently ({clamps}), which is not supported")

    state: State = {"filter": _filter(), "const": tensors.take("synthesis.b4.const")}
    for name in [name for name in tensors.left if name.endswith(".resample_filter")]:
        _check_filter(tensors.take(name), 1)
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
            state |= _convolution(f"{target}.{layer}", *kernels, _style(tensors, modules, name), *noise)
        if f"{block}.torgb.weight" in tensors:
            name, weight = f"{block}.torgb", tensors.take(f"{block}.torgb.weight")
            weight = weight * _ratio(modules, name, "weight_gain", weight[0].numel() ** -0.5)
            bias = tensors.take(f"{name}.bias")
            state |= _to_image(f"{target}.to_image", weight, bias, _style(tensors, modules, name))
        if variant == "resnet" and level:
            weight = tensors.take(f"{block}.skip.weight")
            ratio = _ratio(modules, f"{block}.skip", "weight_gain", weight[0].numel() ** -0.5)
            state[f"{target}.skip.weight"] = weight * ratio
    tensors.drop(r"mapping\.w_avg")
    tensors.finish()
    arguments = {**_arguments(state, levels, variant, layers, noisy), "clamp": clamps.pop()}
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
    return _checked(state, arguments)


def _walk(module: Record, name: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the attributes of a module and of all within it, by their dotted names."""
    if not isinstance(module.state, dict) or name.count(".") >= DEEPEST:
        raise WeightsError(f"holds a module {name or 'G_ema'} without attributes, or within itself")
    if module.kind not in CLASSES:
        raise WeightsError(
            f"holds a {module.kind} ({name or 'G_ema'}), which no StyleGAN2 has: StyleGAN3 and others are not supported"
        )
    yield name, {**module.state, "kind": module.kind}
    for key, inner in _members(module.state, "_modules", name):
        if isinstance(inner, Record):
            yield from _walk(inner, f"{name}.{key}".lstrip("."))
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


def _levels(tensors: _Tensors) -> int:
    found = {int(m[1]) for name in tensors.left if (m := re.match(r"synthesis\.b(\d+)\.", name))}
    levels = len(found)
    if not found or found != {4 << level for level in range(levels)}:
        raise WeightsError(
            f"holds no StyleGAN2: its blocks would be of 4, 8, 16 ... pixels, and are of {sorted(found) or 'none'}"
        )
    return levels


def _variant(tensors: _Tensors, modules: Mapping[str, Mapping[str, Any]], sizes: Sequence[int]) -> Variant:
    skip = all(f"synthesis.b{size}.torgb.weight" in tensors for size in sizes)
    resnet = any(f"synthesis.b{size}.skip.weight" in tensors for size in sizes)
    variant: Variant = "resnet" if resnet else "skip" if skip else "orig"
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
    same = math.isclose(_number(given, name) or 0, wanted, rel_tol=1e-6) if type(wanted) is float else given == wanted
    if not same:
        raise WeightsError(f"holds {name} made with {key} {given}; only {wanted} is supported")


def _attribute(modules: Mapping[str, Mapping[str, Any]], name: str, key: str, otherwise: Any) -> Any:
    return modules.get(name, {}).get(key, otherwise)


def _number(value: Any, name: str) -> float | None:
    """Return a number of a file, Python's or NumPy's; None for None."""
    value = value.value.item() if isinstance(value, Value) and getattr(value.value, "size", 0) == 1 else value
    if value is not None and (isinstance(value, bool) or not isinstance(value, int | float)):
        raise WeightsError(f"holds {name} with a {type(value).__name__} in place of a number")
    return None if value is None else float(value)


def _ratio(modules: Mapping[str, Mapping[str, Any]], name: str, key: str, wanted: float) -> float:
    """Return a gain in units of the one that the network here has; 1 almost always."""
    given = _number(_attribute(modules, name, key, wanted), name)
    ratio = math.nan if given is None else given / wanted
    return 1.0 if math.isclose(ratio, 1, rel_tol=1e-6) else ratio


def _linear(
    tensors: _Tensors,
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


def _style(tensors: _Tensors, modules: Mapping[str, Mapping[str, Any]], name: str) -> tuple[Tensor, Tensor]:
    affine = f"{name}.affine"
    _check(modules, affine, "activation", "linear")
    weight, bias = tensors.take(f"{affine}.weight"), tensors.take(f"{affine}.bias")
    weight = weight * _ratio(modules, affine, "weight_gain", weight.shape[-1] ** -0.5)
    return weight, bias * _ratio(modules, affine, "bias_gain", 1.0)


# rosinality's code ----------------------------------------------------------------------------------------------


def is_rosinality(state: Mapping[str, Tensor]) -> bool:
    """Tell whether a state dict is in rosinality's layout.

    Example:
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
    tensors = _Tensors(given)
    levels = tensors.count("to_rgbs.{}.bias") + 1
    noisy = any(name.startswith("noises.") for name in given)
    for name in [name for name in given if name.endswith((".conv.blur.kernel", ".upsample.kernel"))]:
        _check_filter(tensors.take(name), 4)
    try:
        state: State = {"filter": _filter(), "const": tensors.take("input.input")[0]}
        layers = 0
        while f"style.{layers + 1}.weight" in tensors:
            weight, bias = tensors.take(f"style.{layers + 1}.weight"), tensors.take(f"style.{layers + 1}.bias")
            state[f"mapping.{layers}.weight"] = weight * (RATE * weight.shape[-1] ** -0.5)
            state[f"mapping.{layers}.bias"] = bias * RATE
            layers += 1
        for number in range(2 * levels - 1):
            level, layer = (number + 1) // 2, "conv0" if number % 2 else "conv1"
            name = f"convs.{number - 1}" if number else "conv1"
            state |= _convolution(
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
            state |= _to_image(f"blocks.{level}.to_image", weight, bias, _modulation(tensors, name))
        tensors.finish()
        return _checked(state, _arguments(state, levels, "skip", layers, noisy))
    except (IndexError, RuntimeError, TypeError) as error:
        raise WeightsError(f"does not fit StyleGAN2: a tensor has an impossible shape ({error})") from error


def _modulation(tensors: _Tensors, name: str) -> tuple[Tensor, Tensor]:
    return tensors.take(f"{name}.conv.modulation.weight"), tensors.take(f"{name}.conv.modulation.bias")


# NVIDIA's TensorFlow code ----------------------------------------------------------------------------------------

# What changes the arithmetic, and the only value that is computed here.
TENSORFLOW = {
    "nonlinearity": "lrelu", "mapping_nonlinearity": "lrelu", "normalize_latents": True,
    "resample_kernel": [1, 3, 3, 1],
}  # fmt: skip
# What is in the shapes, or serves training and sampling.
HARMLESS = {
    "latent_size", "label_size", "dlatent_size", "resolution", "num_channels", "mapping_layers", "mapping_fmaps",
    "mapping_lrmul", "fmap_base", "fmap_decay", "fmap_min", "fmap_max", "architecture", "conv_clamp", "num_fp16_res",
    "use_noise", "randomize_noise", "dlatent_broadcast", "dlatent_avg_beta", "truncation_psi", "truncation_cutoff",
    "truncation_psi_val", "truncation_cutoff_val", "style_mixing_prob", "fused_modconv", "dtype", "is_training",
    "is_validation", "is_template_graph", "return_dlatents", "force_clean_graph", "mapping_func", "synthesis_func",
    "func_name", "components", "structure",
}  # fmt: skip


def components_of(content: Any) -> Record | None:
    """Return the last network in a pickle of NVIDIA's TensorFlow code that has parts; None where it has none."""
    found = content[-1] if isinstance(content, tuple | list) and content else content
    state = found.state if isinstance(found, Record) else None
    return found if isinstance(found, Record) and isinstance(state, dict) and state.get("components") else None


def from_tensorflow(network: Record) -> tuple[State, Arguments]:
    """Return state dict and arguments of a generator of NVIDIA's TensorFlow code.

    Raises:
        WeightsError: where it is no StyleGAN2, or one of a kind that is not known. The message does not name the file.
    """
    settings, variables = _variables(network)
    tensors = _Tensors(variables)
    found = {int(m[1]) for name in variables if (m := re.match(r"synthesis/(\d+)x\1/", name))}
    levels = len(found)
    if not found or found != {4 << level for level in range(levels)}:
        raise WeightsError(f"holds no StyleGAN2: its blocks would be of 4, 8, 16 ... pixels, and are of {found}")
    last = 4 << (levels - 1)
    skip = all(f"synthesis/{4 << level}x{4 << level}/ToRGB/weight" in tensors for level in range(levels))
    resnet = any(name.endswith("/Skip/weight") for name in variables)
    variant: Variant = "resnet" if resnet else "skip" if skip else "orig"
    if settings.get("architecture", variant) != variant and levels > 1:
        raise WeightsError(f"holds the tensors of a {variant} network and says {settings['architecture']}")
    # Older names count from the last resolution; what ends at lower ones served growing.
    old = "synthesis/ToRGB_lod0/weight" in tensors
    tensors.drop(r"synthesis/ToRGB_lod[1-9]\d*/.*|synthesis/lod|mapping/dlatent_avg|dlatent_avg|lod")
    rate = float(settings.get("mapping_lrmul", RATE))
    layers = tensors.count("mapping/Dense{}/weight")
    noisy = settings.get("use_noise", True) is not False
    try:
        state: State = {"filter": _filter(), "const": tensors.take("synthesis/4x4/Const/const")[0]}
        for number in range(layers):
            weight = tensors.take(f"mapping/Dense{number}/weight").T.contiguous()
            state[f"mapping.{number}.weight"] = weight * (rate * weight.shape[1] ** -0.5)
            state[f"mapping.{number}.bias"] = tensors.take(f"mapping/Dense{number}/bias") * rate
        if "mapping/LabelEmbed/weight" in tensors:
            weight = tensors.take("mapping/LabelEmbed/weight").T.contiguous()
            state["embed.weight"] = weight * weight.shape[1] ** -0.5
            state["embed.bias"] = tensors.take("mapping/LabelEmbed/bias")
        for number in range(2 * levels - 1):
            level, up = (number + 1) // 2, bool(number % 2)
            name = f"synthesis/{4 << level}x{4 << level}/"
            name += "Conv0_up" if up else "Conv1" if level else "Conv"
            state |= _convolution(
                f"blocks.{level}.{'conv0' if up else 'conv1'}",
                _kernels(tensors.take(f"{name}/weight"), turned=up),
                tensors.take(f"{name}/bias"),
                _modulated(tensors, name),
                tensors.take(f"{name}/noise_strength") if noisy else None,
                tensors.take(f"synthesis/noise{number}") if noisy else None,
            )
            if up and variant == "resnet":
                skip_name = f"synthesis/{4 << level}x{4 << level}/Skip/weight"
                state[f"blocks.{level}.skip.weight"] = _kernels(tensors.take(skip_name), turned=True)
        for level in range(levels) if variant == "skip" else [levels - 1]:
            name = "synthesis/ToRGB_lod0" if old else f"synthesis/{4 << level}x{4 << level}/ToRGB"
            weight, bias = _kernels(tensors.take(f"{name}/weight")), tensors.take(f"{name}/bias")
            state |= _to_image(f"blocks.{level}.to_image", weight, bias, _modulated(tensors, name))
        tensors.finish()
        arguments = _arguments(state, levels, variant, layers, noisy)
        if settings.get("resolution", last) != last:
            raise WeightsError(f"holds a network of {settings['resolution']} pixels with blocks up to {last}")
        return _checked(state, {**arguments, "clamp": _number(settings.get("conv_clamp"), "conv_clamp")})
    except (IndexError, RuntimeError, TypeError) as error:
        raise WeightsError(f"does not fit StyleGAN2: a tensor has an impossible shape ({error})") from error


def _variables(network: Record) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Return the settings of a network and its parts, and their variables by part and name."""
    settings: dict[str, Any] = {}
    variables: dict[str, Tensor] = {}
    components = network.state["components"]
    for part, record in [("", network), *(components.items() if isinstance(components, dict) else ())]:
        state = record.state if isinstance(record, Record) else None
        if part not in ("", "mapping", "synthesis") or not isinstance(state, dict):
            raise WeightsError(f"holds a network with the part {part}; a StyleGAN2 has mapping and synthesis")
        settings |= state.get("static_kwargs") or {}
        for pair in state.get("variables") or []:
            if not isinstance(pair, tuple | list) or len(pair) != 2 or not hasattr(pair[1], "value"):
                raise WeightsError("holds variables that are no pairs of a name and an array")
            if part:  # the whole holds averages and the progress of training
                name = str(pair[0]).removeprefix(f"{part}/")
                variables[f"{part}/{name}"] = torch.from_numpy(pair[1].value.astype("float32"))
    for key, value in settings.items():
        if key in TENSORFLOW:
            plain = list(value) if isinstance(value, tuple | list) else value
            if plain not in (TENSORFLOW[key], None):
                raise WeightsError(f"holds a network made with {key} {value}; only {TENSORFLOW[key]} is supported")
        elif key not in HARMLESS:
            raise WeightsError(f"holds a network made with {key}, which is not known here")
    if settings.get("architecture", "skip") not in get_args(Variant):
        raise WeightsError(f"holds a network made with architecture {settings['architecture']}, which is not known")
    return settings, variables


def _kernels(weight: Tensor, turned: bool = False) -> Tensor:
    """Return kernels ``(out, in, height, width)`` of ``(height, width, in, out)``."""
    weight = weight.permute(3, 2, 0, 1)
    return (weight.flip(2, 3) if turned else weight).contiguous()


def _modulated(tensors: _Tensors, name: str) -> tuple[Tensor, Tensor]:
    return tensors.take(f"{name}/mod_weight").T.contiguous(), tensors.take(f"{name}/mod_bias") + 1
