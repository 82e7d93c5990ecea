"""Which layers of a generator work at the resolution of its images."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

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
    outputs: dict[str, list[int]] = {}  # of every module that is called: its channels and size, empty for other tensors

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
        """Return the output of the innermost module around a weight that is called: not every holder of weights is."""
        holder = weight
        while holder not in outputs:
            holder = holder.rpartition(".")[0]
        return outputs[holder]

    channels, *size = generator.image_shape
    shapes = {weight: layer(weight) for weight, _ in generator.named_parameters()}
    if not any(shape and shape[1:] != size for shape in shapes.values()):
        return frozenset()
    return frozenset(weight for weight, shape in shapes.items() if shape[1:] == size and shape[0] != channels)
