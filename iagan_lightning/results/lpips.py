"""LPIPS (Zhang et al., CVPR 2018) with the reference implementation, where its weights can be had."""

from __future__ import annotations

import functools
import socket
import warnings
from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor

from iagan_lightning.checks import check_choice
from iagan_lightning.terminal import Notice

SMALLEST = 32  # pixels of which the backbones have something left after their pooling

Backbone = Literal["alex", "vgg", "squeeze", "none"]


@functools.cache  # one warning per size, not one per image
def large_enough_for_lpips(size: tuple[int, int]) -> bool:
    """Tell whether the backbones have anything left of a picture of this size after their pooling."""
    if min(size) >= SMALLEST:
        return True
    warnings.warn(
        f"LPIPS needs pictures of at least {SMALLEST} x {SMALLEST} pixels; {size[1]} x {size[0]} have none",
        Notice,
        stacklevel=2,
    )
    return False


@functools.cache
def load_lpips(backbone: Backbone) -> Callable[[Tensor, Tensor], Tensor] | None:
    """Return LPIPS (linear heads v0.1; Zhang et al., CVPR 2018) as a function of two batches in [-1, 1].

    None, with one warning, where the backbone's weights are neither in torch's cache (``TORCH_HOME``) nor can be
    downloaded.
    """
    if backbone == "none":
        return None
    check_choice("lpips", backbone, Backbone)
    try:
        network = lpips_network(backbone)
    except Exception as error:  # no network, a damaged cache, torchvision that does not fit torch ...
        warnings.warn(
            f"LPIPS ({backbone}) is left out, its weights cannot be loaded: {type(error).__name__}: {error}. "
            f"Put them into $TORCH_HOME/hub/checkpoints, choose another --lpips, or --lpips none.",
            Notice,
            stacklevel=2,
        )
        return None

    def distance(a: Tensor, b: Tensor) -> Tensor:
        # On the CPU and image by image: the same figure for a picture in whatever batch it came.
        pairs = zip(a.float().cpu(), b.float().cpu(), strict=True)
        return torch.stack([network(one[None], other[None]).flatten()[0] for one, other in pairs])

    return distance


def lpips_network(backbone: str) -> Any:
    """Return the network of LPIPS, frozen, from torch's cache or the network."""
    patience = socket.getdefaulttimeout()
    try:
        socket.setdefaulttimeout(20)  # a cluster without a network must not wait for a download for ever
        with warnings.catch_warnings():
            # https://github.com/richzhang/PerceptualSimilarity/issues/108: old arguments of torchvision
            warnings.filterwarnings("ignore", message="(The parameter 'pretrained'|Arguments other than a weight)")
            import lpips

            return lpips.LPIPS(net=backbone, verbose=False).eval().requires_grad_(False)
    finally:
        socket.setdefaulttimeout(patience)
