"""What makes a run the same run: the settings and weights that decide about its results."""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from torch import nn

from iagan_lightning.generators import Encoder, Generator, ModuleGenerator
from iagan_lightning.generators.base import fingerprint
from iagan_lightning.methods import Fit, TestTimeModule
from iagan_lightning.methods.dip import resolve_dip
from iagan_lightning.methods.fit import ENCODER
from iagan_lightning.methods.views import IDENTITY
from iagan_lightning.runs.inputs import file_hash
from iagan_lightning.runs.run import Run

FORMAT = 2  # of settings.json: 2 holds the fits of any method; 1 had no number
LIGHTNING = ("pytorch_lightning.", "lightning.")  # whose callbacks look on; those that do not are refused


def determining_settings(task: str, config: dict[str, Any], run: Run) -> dict[str, Any]:
    """Return what decides about results: not paths, devices or numbers of images, but the weights themselves.

    Fits are recorded as they were resolved, so that other presets of another version count as a difference too.
    """
    A = run.operator(run.image_shape) if run.data.measurements is None else None
    model = run.model
    fits = model.plan(run.noise_std, A, run.options.views)
    given = config["model"].get("init_args") or {}
    preset: Any = model.preset or "fast"
    baseline = run.options.baseline
    return {
        "format": FORMAT,
        "task": task,
        "method": _path(model),
        "seed_everything": run.seed,
        "operator": config["operator"],
        "files": dict(_files({"operator": config["operator"], "model": {**given, "generator": None}})),
        "noise_std": run.noise_std,
        "back_projection": run.options.back_projection,
        **({} if run.options.time is None else {"time": run.options.time}),
        "dip": None if baseline is None else asdict(resolve_dip(baseline, preset, run.noise_std, A)),
        "lpips": run.options.lpips,
        "preset": model.preset,
        "fits": {fit.name: _recorded(fit, model) for fit in fits},
        "memory_format": given.get("memory_format"),
        "compile": given.get("compile") or None,
        "weights": fingerprint(model.generator) if model.image_shape else None,
        "encoder": _encoder(fits, model),
        "generator": describe(model.generator) if model.image_shape else None,
        "own": {"model": _own_settings(model, given), **_own_generator(model, given), **_own_callbacks(run, config)},
        "image_shape": list(run.image_shape),
        "data": {
            "fit": run.data.fit,
            "align": run.framing if run.data.align else False,
            "shift": run.data.shift or None,
            "alpha": None if run.data.alpha == "white" else run.data.alpha,
            "measured": run.data.measurements is None,
        },
        "precision": config.get("trainer", {}).get("precision"),
    }


def _files(settings: Any, name: str = "") -> Iterator[tuple[str, str]]:
    """Return what settings are paths of files, such as a mask or a kernel, and the hash of each."""
    if isinstance(settings, dict | list):
        for key, value in settings.items() if isinstance(settings, dict) else enumerate(settings):
            if key != "class_path":
                yield from _files(value, name if key == "init_args" else f"{name}.{key}".lstrip("."))
    elif isinstance(settings, str):
        try:
            digest = file_hash(Path(settings))
        except (OSError, ValueError):  # no file: a name, or text that cannot be a path
            return
        yield name, digest


def _own_settings(model: TestTimeModule, given: dict[str, Any]) -> dict[str, Any]:
    """Return the settings that a method of the user's has beside those of ours, which its fits tell."""
    ours = [kind for kind in type(model).__mro__ if issubclass(kind, TestTimeModule) and _is_ours(kind)]
    known = {name for kind in ours for name in inspect.signature(kind).parameters}
    return {name: value for name, value in given.items() if name not in known}


def _own_generator(model: TestTimeModule, given: dict[str, Any]) -> dict[str, Any]:
    """Return the class of a generator that is the user's, and its settings: weights tell no number beside them."""
    network = None if model.image_shape is None else _network(model.generator)
    if network is None or _is_ours(type(network)):
        return {}
    stated = given.get("generator")
    return {"generator": {"class": _path(network), "init_args": _init_args(stated)}}


def _own_callbacks(run: Run, config: dict[str, Any]) -> dict[str, Any]:
    """Return the callbacks that may make results otherwise, with their settings; those of Lightning's may not."""
    stated = (config.get("trainer") or {}).get("callbacks") or []
    pairs = zip(run.callbacks, stated if isinstance(stated, list) else [stated], strict=True)
    makers = [
        {"class": _path(callback), "init_args": _init_args(settings)}
        for callback, settings in pairs
        if getattr(callback, "phase", "make") == "make" and not _path(callback).startswith(LIGHTNING)
    ]
    return {f"callback {number}": maker for number, maker in enumerate(makers, 1)}


def _init_args(stated: Any) -> Any:
    """Return the settings of a class as the command line states it; None where it has the name alone."""
    return (stated.get("init_args") or None) if isinstance(stated, dict) else None


def _path(instance: Any) -> str:
    return f"{type(instance).__module__}.{type(instance).__qualname__}"


def _is_ours(kind: type) -> bool:
    return kind.__module__.partition(".")[0] == __name__.partition(".")[0]


def _recorded(fit: Fit, model: TestTimeModule) -> dict[str, Any]:
    """Return a fit as what JSON holds; of the weights that adapt a hash of their names."""
    names = [name for name, _ in model.generator.named_parameters()] if model.image_shape else []
    adapted = "\n".join(name for name in names if fit.adapts(name) and name in model.trainable)
    return {
        **asdict(fit.settings),
        "space": fit.space,
        "init": fit.init,
        "result": fit.result,
        "radius": fit.radius,
        **({"view": fit.view} if fit.view != IDENTITY else {}),
        "adapts": hashlib.sha256(adapted.encode()).hexdigest()[:8] if adapted else None,
    }


def _encoder(fits: list[Fit], model: TestTimeModule) -> str | None:
    """Return the hash of the encoder where a fit begins with it; None where none does, or it is one of the user's."""
    encoder = model.generator.encoder if any(fit.init == ENCODER for fit in fits) else None
    return fingerprint(encoder.network) if isinstance(encoder, Encoder) else None


def describe(generator: Generator) -> dict[str, Any]:
    """Return what decides about a generator's images besides its weights."""
    network = _network(generator)
    value_range = (generator.low, generator.high) if isinstance(generator, ModuleGenerator) else (-1.0, 1.0)
    return {
        "class": type(network).__name__,
        "latent_distribution": generator.latent_distribution,
        "value_range": list(value_range),
        **({"chosen": chosen} if (chosen := generator.chosen()) else {}),
    }


def _network(generator: Generator) -> nn.Module:
    return generator.module if isinstance(generator, ModuleGenerator) else generator
