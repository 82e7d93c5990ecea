"""Several networks of one kind side by side, each with its own weights and its own input. Pure torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap


def call_stacked(network: nn.Module, stacks: Mapping[str, Tensor], inputs: Tensor, **options: Any) -> Tensor:
    """Return ``network(inputs[i][None], **options)[0]`` with the i-th of the stacked weights for every i, in one call.

    Args:
        network: says how to compute; its own weights serve where there are no stacked ones.
        stacks: ``(B, *shape)`` for its parameters, by name; without any, all inputs share the network.
        inputs: ``(B, ...)``.

    Example:
        >>> import torch
        >>> stacks = {"weight": torch.tensor([[[2.0]], [[3.0]]]), "bias": torch.tensor([[0.0], [1.0]])}
        >>> call_stacked(nn.Linear(1, 1), stacks, torch.ones(2, 1)).tolist()
        [[2.0], [4.0]]
    """
    if not stacks:
        return network(inputs, **options)
    if len(inputs) == 1:  # squeeze, whose gradient is a view; that of w[0] would copy every weight
        return functional_call(network, {name: w.squeeze(0) for name, w in stacks.items()}, inputs, options)
    if getattr(network, "checkpointing", False):  # to save memory, and vmap could not compute features again
        alone = [
            call_stacked(network, {name: w[i, None] for name, w in stacks.items()}, inputs[i, None], **options)
            for i in range(len(inputs))
        ]
        return torch.cat(alone)

    def one(weights: dict[str, Tensor], x: Tensor) -> Tensor:
        return functional_call(network, weights, x[None], options)[0]

    return vmap(one)(dict(stacks), inputs)
