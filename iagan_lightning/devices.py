"""What a device can compute with."""

from __future__ import annotations

import torch
from torch import Tensor


def has_float64(device: torch.device) -> bool:
    """Return whether a device has float64 (Apple's, for one, has not).

    Example:
        >>> has_float64(torch.device("cpu"))
        True
    """
    try:
        torch.empty(0, dtype=torch.float64, device=device)
    except Exception:  # each kind of device refuses in its own way
        return False
    return True


def in_float64(tensor: Tensor) -> Tensor:
    """Return a tensor in float64, on the CPU where its own device has none.

    Example:
        >>> in_float64(torch.ones(2)).dtype
        torch.float64
    """
    return tensor.double() if has_float64(tensor.device) else tensor.cpu().double()
