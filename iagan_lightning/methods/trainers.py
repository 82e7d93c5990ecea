"""Trainers for one image, or a few: nothing shared out, nothing said, nothing stored, unless asked for."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytorch_lightning as pl
import torch


def quiet_trainer(**settings: Any) -> pl.Trainer:
    """Return a Trainer for one image: one device, nothing logged, nothing stored, unless asked for."""
    defaults = {
        "devices": 1,
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "use_distributed_sampler": False,
        "max_epochs": 1,
    }
    return pl.Trainer(**{**defaults, **settings})


@contextmanager
def quiet_lightning() -> Iterator[None]:
    """Silence what Lightning says at the start of every fit; one image is two fits, a data set thousands."""
    loggers = [logging.getLogger(name) for name in ("pytorch_lightning", "lightning_fabric")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def place_of(device: torch.device) -> dict[str, Any]:
    """Return the arguments with which a Trainer works on a device.

    Example:
        >>> import torch
        >>> place_of(torch.device("cuda", 1))
        {'accelerator': 'gpu', 'devices': [1]}
    """
    devices = 1 if device.index is None else [device.index]
    return {"accelerator": {"cuda": "gpu"}.get(device.type, device.type), "devices": devices}
