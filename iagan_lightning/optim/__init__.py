"""Optimisation of many independent problems side by side, and the rules that end it. Pure PyTorch."""

from iagan_lightning.optim.lbfgs import BatchedLBFGS
from iagan_lightning.optim.stopping import better_half, noise_power, reached_plateau

__all__ = ["BatchedLBFGS", "better_half", "noise_power", "reached_plateau"]
