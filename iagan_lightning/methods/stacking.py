"""Several networks of one kind side by side, each with its own weights and its own input. Pure torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call, vmap
from torch.overrides import TorchFunctionMode

# Of what autocast does in half precision, the functions that vmap takes apart before autocast sees them.
LOWERED: frozenset[Callable[..., Any]] = frozenset(
    [
        F.conv1d, F.conv2d, F.conv3d, F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d, F.linear,
        F.scaled_dot_product_attention, torch.addmm, torch.addbmm, torch.baddbmm, torch.prelu,
        Tensor.addmm, Tensor.addbmm, Tensor.baddbmm, Tensor.prelu,
    ]
)  # fmt: skip
# What takes half precision and computes within in float32; of vmap's own versions the statistics would be rounded.
NORMALISING: frozenset[Callable[..., Any]] = frozenset(
    [F.batch_norm, F.instance_norm, F.group_norm, F.layer_norm, torch.batch_norm, torch.instance_norm,
     torch.group_norm, torch.layer_norm]
)  # fmt: skip


class Autocast(TorchFunctionMode):
    """Half precision under ``vmap`` as ``torch.autocast`` gives it without, which lies below vmap and misses the most.

    Args:
        device: type of device whose tensors are cast, such as ``cuda``.
        dtype: to what.

    Example:
        >>> import torch
        >>> w, x = torch.ones(2, 4, 3, 1, 1), torch.ones(2, 1, 3, 5, 5)
        >>> with torch.autocast("cpu", torch.bfloat16):
        ...     with Autocast("cpu", torch.bfloat16):
        ...         vmap(F.conv2d)(x, w).dtype
        torch.bfloat16
    """

    def __init__(self, device: str, dtype: torch.dtype) -> None:
        super().__init__()
        self.device, self.dtype = device, dtype

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Call a function with the tensors that it is given in half precision, where it is one of those."""
        kwargs = kwargs or {}
        if func in LOWERED:
            args = tuple(map(self._cast, args))
            kwargs = {name: self._cast(value) for name, value in kwargs.items()}
        elif func in NORMALISING and args and args[0].dtype == self.dtype:
            return func(args[0].float(), *args[1:], **kwargs).to(self.dtype)
        return func(*args, **kwargs)

    def _cast(self, given: Any) -> Any:
        eligible = isinstance(given, Tensor) and given.is_floating_point() and given.device.type == self.device
        return given.to(self.dtype) if eligible and given.dtype != torch.float64 else given  # as autocast chooses


def call_stacked(network: nn.Module, stacks: Mapping[str, Tensor], inputs: Tensor, **options: Any) -> Tensor:
    """Return ``network(inputs[i][None], **options)[0]`` with the i-th of the stacked weights for every i, in one call.

    Args:
        network: says how to compute; its own weights serve where there are no stacked ones.
        stacks: ``(B, *shape)`` for its parameters, by name; without any, all inputs share the network.
        inputs: ``(B, ...)``.

    Under autocast several networks compute in half precision what one alone does.

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

    device = inputs.device.type
    if not torch.is_autocast_enabled(device):
        return vmap(one)(dict(stacks), inputs)
    with Autocast(device, torch.get_autocast_dtype(device)):
        return vmap(one)(dict(stacks), inputs)
