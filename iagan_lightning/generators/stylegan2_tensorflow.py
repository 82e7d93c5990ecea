"""The layout of StyleGAN2 of NVIDIA's TensorFlow code: a pickle of networks, each with its settings and variables."""

from __future__ import annotations

import re
from typing import Any, get_args

import torch
from torch import Tensor

from iagan_lightning.generators.base import WeightsError
from iagan_lightning.generators.network_pickle import Record, check_apart
from iagan_lightning.generators.stylegan2 import Variant
from iagan_lightning.generators.stylegan2_layouts import (
    RATE,
    Arguments,
    State,
    Tensors,
    arguments_of,
    blur_filter,
    checked,
    convolution,
    levels_of,
    number_of,
    to_image,
    variant_of,
)

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
    tensors = Tensors(variables)
    levels = levels_of({int(m[1]) for name in variables if (m := re.match(r"synthesis/(\d+)x\1/", name))})
    last = 4 << (levels - 1)
    skip = all(f"synthesis/{4 << level}x{4 << level}/ToRGB/weight" in tensors for level in range(levels))
    resnet = any(name.endswith("/Skip/weight") for name in variables)
    variant = variant_of(skip, resnet)
    if settings.get("architecture", variant) != variant and levels > 1:
        raise WeightsError(f"holds the tensors of a {variant} network and says {settings['architecture']}")
    # Older names count from the last resolution; what ends at lower ones served growing.
    old = "synthesis/ToRGB_lod0/weight" in tensors
    tensors.drop(r"synthesis/ToRGB_lod[1-9]\d*/.*|synthesis/lod|mapping/dlatent_avg|dlatent_avg|lod")
    rate = float(settings.get("mapping_lrmul", RATE))
    layers = tensors.count("mapping/Dense{}/weight")
    noisy = settings.get("use_noise", True) is not False
    try:
        state: State = {"filter": blur_filter(), "const": tensors.take("synthesis/4x4/Const/const")[0]}
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
            state |= convolution(
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
            state |= to_image(f"blocks.{level}.to_image", weight, bias, _modulated(tensors, name))
        tensors.finish()
        arguments = arguments_of(state, levels, variant, layers, noisy)
        if settings.get("resolution", last) != last:
            raise WeightsError(f"holds a network of {settings['resolution']} pixels with blocks up to {last}")
        return checked(state, {**arguments, "clamp": number_of(settings.get("conv_clamp"), "conv_clamp")})
    except (IndexError, RuntimeError, TypeError) as error:
        raise WeightsError(f"does not fit StyleGAN2: a tensor has an impossible shape ({error})") from error


def _variables(network: Record) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Return the settings of a network and its parts, and their variables by part and name."""
    settings: dict[str, Any] = {}
    arrays: dict[str, Any] = {}
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
                arrays[f"{part}/{name}"] = pair[1].value
    check_apart(arrays.values())
    variables = {name: torch.from_numpy(array.astype("float32")) for name, array in arrays.items()}
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


def _modulated(tensors: Tensors, name: str) -> tuple[Tensor, Tensor]:
    return tensors.take(f"{name}/mod_weight").T.contiguous(), tensors.take(f"{name}/mod_bias") + 1
