"""PyTorch's special modes, as far as an operator has to know of them: what may be kept, and what has no values.

A tensor that is made in inference mode, under a transform of ``torch.func``, in a ``FakeTensorMode`` or while a graph
is recorded is of use there only: kept, it would fail every ordinary call that comes later, or spoil it.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import ParamSpec, TypeVar

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor

UNCOUNTED = -1  # the version of what cannot be changed, or whose changes nobody counts
Arguments = ParamSpec("Arguments")
Returned = TypeVar("Returned")


def in_transform() -> bool:
    """Return whether a transform of ``torch.func`` (vmap, grad, jvp ...) is at work."""
    return torch._C._functorch.maybe_current_level() is not None


def may_keep() -> bool:
    """Return whether a tensor that is made here, out of inference mode, is an ordinary one and can be used again.

    Example:
        >>> may_keep(), torch.func.grad(lambda x: x * may_keep())(torch.tensor(1.0)).item()
        (True, 0.0)
    """
    return not (
        torch.compiler.is_compiling()
        or in_transform()
        or torch._C._len_torch_dispatch_stack() > 0  # FakeTensorMode, make_fx, a user's own TorchDispatchMode
        or (torch.cuda.is_available() and torch.cuda.is_current_stream_capturing())
    )


def has_values(tensor: Tensor) -> bool:
    """Return whether there are numbers in a tensor, so that a decision can be taken on them.

    Example:
        >>> has_values(torch.zeros(2)), has_values(torch.zeros(2, device="meta"))
        (True, False)
    """
    return not isinstance(tensor, FakeTensor) and tensor.device.type != "meta"


def in_autocast(device: torch.device) -> bool:
    """Return whether operations on a device would be autocast.

    Example:
        >>> with torch.autocast("cpu", torch.bfloat16):
        ...     in_autocast(torch.device("cpu"))
        True
    """
    return torch.amp.is_autocast_available(device.type) and torch.is_autocast_enabled(device.type)


def version_of(tensor: Tensor | None) -> int:
    """Return a number that changes when a tensor is changed in place; tensors of inference mode do not count.

    Example:
        >>> tensor = torch.zeros(2)
        >>> before = version_of(tensor)
        >>> version_of(tensor.add_(1)) == before
        False
    """
    return UNCOUNTED if tensor is None or tensor.is_inference() else tensor._version


def on_the_cpu(function: Callable[Arguments, Returned]) -> Callable[Arguments, Returned]:
    """Let a function make its tensors on the CPU, whatever device is set as default: random numbers are drawn there.

    Example:
        >>> with torch.device("meta"):
        ...     on_the_cpu(torch.zeros)(2).tolist()
        [0.0, 0.0]
    """

    @wraps(function)
    def made(*args: Arguments.args, **kwargs: Arguments.kwargs) -> Returned:
        with torch.device("cpu"):
            return function(*args, **kwargs)

    return made


def cast(buffer: Tensor, dtype: torch.dtype, like: Tensor) -> Tensor:
    """Return a constant as ``dtype`` on the device of ``like``; float64 is never asked of a device without it."""
    if isinstance(like, FakeTensor) and not isinstance(buffer, FakeTensor):
        buffer = like.fake_mode.from_tensor(buffer)
    if buffer.is_inference() and not torch.is_inference_mode_enabled():
        buffer = buffer.clone()  # made in inference mode, with its operator: autograd cannot use such a tensor
    if buffer.device.type == "cpu":
        return buffer.to(dtype).to(like.device)
    return buffer.to(like.device).to(dtype)


def ordinary(tensor: Tensor) -> Tensor:
    """Return a tensor that autograd can use: one of inference mode is copied. To be called out of that mode."""
    return tensor.clone() if tensor.is_inference() else tensor
