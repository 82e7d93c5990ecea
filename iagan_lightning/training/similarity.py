"""The network by whose features a training compares pictures."""

from __future__ import annotations

from torch import nn

from iagan_lightning.results.lpips import lpips_network


def similarity_of(training: nn.Module, without: str) -> nn.Module:
    """Return LPIPS with SqueezeNet.

    Args:
        training: what compares pictures, for the message.
        without: options that train without it.

    Raises:
        ValueError: where its weights cannot be had.
    """
    try:
        return lpips_network("squeeze")
    except Exception as error:
        raise ValueError(
            f"{type(training).__name__} compares pictures with LPIPS, whose SqueezeNet weights cannot be loaded "
            f"({type(error).__name__}: {error}): put them into $TORCH_HOME/hub/checkpoints, or train without: {without}"
        ) from error
