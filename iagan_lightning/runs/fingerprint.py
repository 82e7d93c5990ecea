"""What makes a run the same run: the settings and weights that decide about its results."""

from __future__ import annotations

import hashlib
from dataclasses import asdict
from typing import Any

from torch import nn

from iagan_lightning.generators import Generator, ModuleGenerator
from iagan_lightning.methods.dip import resolve_dip
from iagan_lightning.runs.run import Run


def determining_settings(task: str, config: dict[str, Any], run: Run) -> dict[str, Any]:
    """Return what decides about results: not paths, devices or numbers of images, but the weights themselves.

    Stages are recorded as they were resolved, so that other presets of another version count as a difference too.
    """
    A = run.operator(run.image_shape) if run.data.measurements is None else None
    return {
        "task": task,
        "seed_everything": run.seed,
        "operator": config["operator"],
        "noise_std": run.noise_std,
        "back_projection": run.back_projection,
        "dip": None if run.dip is None else asdict(resolve_dip(run.dip, run.model.preset, run.noise_std, A)),
        "lpips": run.lpips,
        "preset": run.model.preset,
        "stages": {name: asdict(stage) for name, stage in run.model.resolve(run.noise_std, A).items()},
        "memory_format": config["model"].get("memory_format"),
        "compile": config["model"].get("compile") or None,
        "weights": fingerprint(run.model.generator),
        "generator": describe(run.model.generator),
        "data": {
            "fit": run.data.fit,
            "align": run.data.align,
            "shift": run.data.shift or None,
            "measured": run.data.measurements is None,
        },
        "precision": config.get("trainer", {}).get("precision"),
    }


def fingerprint(generator: nn.Module) -> str:
    """Return the SHA-256 of all tensors of a network, by name."""
    digest = hashlib.sha256()
    for name, value in sorted(generator.state_dict().items()):
        digest.update(name.encode())
        digest.update(value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def describe(generator: Generator) -> dict[str, Any]:
    """Return what decides about a generator's images besides its weights."""
    network = generator.module if isinstance(generator, ModuleGenerator) else generator
    value_range = (generator.low, generator.high) if isinstance(generator, ModuleGenerator) else (-1.0, 1.0)
    return {
        "class": type(network).__name__,
        "latent_distribution": generator.latent_distribution,
        "value_range": list(value_range),
    }
