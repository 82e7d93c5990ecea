"""At which resolution the layers of a generator work."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from iagan_lightning.generators.base import Generator


@torch.no_grad()
def layer_outputs(generator: Generator, modulating: bool = True) -> dict[str, list[int]]:
    """Return for the name of each parameter what its layer makes: channels, height and width.

    A layer is the innermost module around the parameter that is called, as not every holder of weights is. The list is
    empty where it makes no features, as the layers from z to w and a constant that the network begins with. One image
    is made to find out.

    Args:
        generator: whose parameters.
        modulating: a linear map that modulates a convolution is a part of it, and not a layer without features.

    Example:
        >>> from iagan_lightning.generators import BEGAN
        >>> outputs = layer_outputs(BEGAN(16, 4, 8))
        >>> outputs["l1.weight"], outputs["l4.weight"]
        ([4, 8, 8], [4, 16, 16])
    """
    outputs: dict[str, list[int]] = {}  # of every module that is called

    def note(name: str, output: Any) -> None:
        outputs[name] = list(output.shape[1:]) if isinstance(output, Tensor) and output.ndim == 4 else []

    hooks = [
        module.register_forward_hook(lambda _module, _given, output, name=name: note(name, output))
        for name, module in generator.named_modules()
    ]
    try:
        generator(generator.sample_latent(1, 0).to(next(generator.parameters())))
    finally:
        for hook in hooks:
            hook.remove()

    def layer(weight: str) -> list[int]:
        holder = weight.rpartition(".")[0]
        while holder and (not outputs.get(holder) if modulating else holder not in outputs):
            holder = holder.rpartition(".")[0]
        return outputs[holder] if holder else []

    return {weight: layer(weight) for weight, _ in generator.named_parameters()}


def finer_weights(generator: Generator, pixels: int) -> frozenset[str]:
    """Return the names of the parameters of layers whose features are finer than ``pixels``, the image's included.

    Example:
        >>> from iagan_lightning.generators import BEGAN
        >>> sorted(finer_weights(BEGAN(16, 4, 8), 8))
        ['l3.bias', 'l3.weight', 'l4.bias', 'l4.weight', 'l5.bias', 'l5.weight']
    """
    return frozenset(
        weight for weight, output in layer_outputs(generator).items() if max(output[1:], default=0) > pixels
    )


def full_resolution_weights(generator: Generator) -> frozenset[str]:
    """Return the names of the parameters of hidden layers whose features are as large as the image.

    Gradients of these weights cost most: as many products per weight as the image has pixels. The layer that makes
    the image itself, told by its number of channels, is not among them. In a generator without coarser layers none
    are.

    Example:
        >>> from iagan_lightning.generators import BEGAN
        >>> sorted(full_resolution_weights(BEGAN(16, 4, 8)))
        ['l3.bias', 'l3.weight', 'l4.bias', 'l4.weight']
    """
    channels, *size = generator.image_shape
    outputs = layer_outputs(generator, modulating=False)
    if not any(output and output[1:] != size for output in outputs.values()):
        return frozenset()
    return frozenset(weight for weight, output in outputs.items() if output[1:] == size and output[0] != channels)
