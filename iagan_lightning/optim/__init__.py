"""Optimisation of many independent problems side by side, and the rules that end it. Pure PyTorch."""

from iagan_lightning.optim.lbfgs import BatchedLBFGS
from iagan_lightning.optim.stopping import (
    MovingVariance,
    better_half,
    decreased,
    noise_power,
    reached_plateau,
    window_variance,
)

__all__ = [
    "BatchedLBFGS",
    "MovingVariance",
    "better_half",
    "decreased",
    "noise_power",
    "reached_plateau",
    "window_variance",
]
