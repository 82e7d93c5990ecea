"""Which layers of a generator work at the resolution of its images."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from iagan_lightning.generators.base import Generator


@torch.no_grad()
def full_resolution_weights(generator: Generator) -> frozenset[str]:
    """Return the names of the parameters of hidden layers whose features are as large as the image.

    Gradients of these weights cost most: as many products per weight as the image has pixels. The layer that makes
    the image itself, told by its number of channels, is not among them. In a generator without coarser layers none
    are. One image is made to find out.

    Example:
        >>> from iagan_lightning.generators import BEGAN
        >>> sorted(full_resolution_weights(BEGAN(16, 4, 8)))
        ['l3.bias', 'l3.weight', 'l4.bias', 'l4.weight']
    """
    features: dict[nn.Module, torch.Size] = {}

    def note(module: nn.Module, given: Any, output: Any) -> None:
        if isinstance(output, Tensor) and output.ndim == 4:
            features[module] = output.shape[1:]

    layers = {name: m for name, m in generator.named_modules() if next(m.parameters(recurse=False), None) is not None}
    hooks = [layer.register_forward_hook(note) for layer in layers.values()]
    try:
        generator(generator.sample_latent(1, 0).to(next(generator.parameters())))
    finally:
        for hook in hooks:
            hook.remove()
    channels, *size = generator.image_shape
    if all(list(shape[1:]) == size for shape in features.values()):
        return frozenset()
    return frozenset(
        f"{name}.{weight}" if name else weight
        for name, layer in layers.items()
        if layer in features and list(features[layer][1:]) == size and features[layer][0] != channels
        for weight, _ in layer.named_parameters(recurse=False)
    )
