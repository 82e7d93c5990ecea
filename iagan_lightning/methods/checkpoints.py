"""What a Lightning checkpoint holds of a method: how it was built, its variables, and all that has come out so far.

Tensors and plain Python alone, so that ``torch.load`` takes it with ``weights_only=True``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, is_dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from iagan_lightning.generators import Generator
from iagan_lightning.generators.encoder import Encoder
from iagan_lightning.methods.fit import Fit, Iterate
from iagan_lightning.methods.settings import FitSettings, stated

if TYPE_CHECKING:
    from iagan_lightning.methods.test_time_module import TestTimeModule

CREATED = ("z", "weights")  # parameters whose number and shapes depend on the fit
RECORDS = ("names", "seeds", "titles", "metrics", "seconds", "results", "objective", "misfits", "evaluations", "limit")


def store(module: TestTimeModule, checkpoint: dict[str, Any]) -> None:
    """Add to a checkpoint what ``restore`` takes, and an iterate of the fit at hand with its own objective.

    That is the one the fit has ended with, or the best so far: weights after a step have no objective yet. The state
    of the module becomes this iterate's.
    """
    iterate = module.kept.get(module.stage) or module.best or module.last_iterate()
    ended = module.stage in module.kept  # then of several starts one is left
    centre = getattr(module, "_centre", None)
    checkpoint["iterate"] = {
        "fit": module.stage, "space": module.current.space, "objective": iterate.objective, "misfit": iterate.misfit,
        "z": iterate.z, "weights": dict(zip(module.adapted, iterate.weights, strict=True)),
    }  # fmt: skip
    if ended or len(iterate.z) == len(module.active):
        state = checkpoint["state_dict"]
        tensors = {"z": iterate.z, **{f"weights.{i}": w for i, w in enumerate(iterate.weights)}}
        state.update({key: value.detach().clone() for key, value in tensors.items() if key in state})
    given = {key: _plain(value) for key, value in checkpoint.get("hyper_parameters", {}).items()}
    checkpoint["hyper_parameters"] = {key: value for key, value in given.items() if not key.startswith("_")}
    if (description := describe(module)) is not None:
        checkpoint["hyper_parameters"]["generator"] = description
    network: Any = module.network if module.image_shape is None else module.generator
    encoder = None if module.image_shape is None else module.generator.encoder
    names = [name for name, _ in network.named_parameters() if module.image_shape is None or name in module.trainable]
    checkpoint["outcome"] = {
        **{name: getattr(module, name) for name in RECORDS},
        "given": _plain(getattr(module, "given", None)),
        "fits": [{**asdict(fit), "adapts": [n for n in names if fit.adapts(n)]} for fit in module.fits],
        "fit": module.stage,
        "views": list(module.views),
        "uncertainty": module.uncertainty,
        "starts": 1 if ended else module.starts,
        "y": module.y,
        "noise_std": module.noise_std,
        "kept": {fit: {**vars(kept), "weights": list(kept.weights)} for fit, kept in module.kept.items()},
        "adapted": module._adapted,
        "carried": module._carried,
        "centre": centre[module._started] if ended and module.starts > 1 and centre is not None else centre,
        "trainable": names,
        "encoder": encoder.stored() if isinstance(encoder, Encoder) else None,
    }


def restore(module: TestTimeModule, checkpoint: Mapping[str, Any]) -> None:
    """Give a module, built as the one of the checkpoint was, everything that had come out; its state comes after.

    It has no operator, which a checkpoint does not hold: ``begin`` starts anew.
    """
    outcome = checkpoint.get("outcome")
    if outcome is None:  # of an earlier version
        return
    for name in RECORDS:
        setattr(module, name, outcome[name])
    owner: Any = module
    if hasattr(owner, "given"):  # it was built from resolved settings; new measurements want those that a user gave
        owner.given = _as_given(owner.given, outcome["given"])
    module.fits = [_fit(fit) for fit in outcome["fits"]]
    module.views = tuple(outcome.get("views", module.views))  # an earlier version had one view
    module.uncertainty = outcome.get("uncertainty")
    module.current = next(fit for fit in module.fits if fit.name == outcome["fit"])
    module.noise_std, module.starts, module.operator = outcome["noise_std"], outcome["starts"], None
    module.trainable = frozenset(outcome["trainable"])
    module.kept = {fit: Iterate(**kept) for fit, kept in outcome["kept"].items()}
    module._adapted, module._carried, module._centre = outcome["adapted"], outcome["carried"], outcome["centre"]
    module.adapted = module._adapted[module.stage]
    if outcome.get("encoder") is not None:  # for measurements that it takes after these
        module.generator.encoder = Encoder.restored(outcome["encoder"])
    y = outcome["y"]
    module.register_buffer("y", y, persistent=False)
    module.register_buffer("active", torch.ones(len(y) * module.starts, dtype=torch.bool), persistent=False)
    module.register_buffer("held", None, persistent=False)
    module.register_buffer("truth", None, persistent=False)
    module.register_buffer("unit", None, persistent=False)
    module.rows, module.evaluation, module.best, module.validation, module._squares = None, None, None, None, None


def _as_given(like: Any, plain: Any) -> Any:
    """Return settings that were stored as plain Python, as the dataclasses that they were."""
    if isinstance(like, dict):
        return {key: _as_given(like.get(key), value) for key, value in plain.items()}
    kind: Any = type(like) if is_dataclass(like) else None
    return plain if kind is None else kind(**plain)


def _fit(stored: Mapping[str, Any]) -> Fit:
    adapts = frozenset(stored["adapts"]).__contains__
    return Fit(**{**stored, "settings": FitSettings(**stored["settings"]), "adapts": adapts})


def make_room(module: TestTimeModule, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Give a module that is not at work on measurements the variables of a state; return the state that it takes.

    Raises:
        ValueError: for the state of another generator, and for a module that is at work on another fit.
    """
    own = {key: value.shape for key, value in nn.Module.state_dict(module).items()}
    theirs = {key: value.shape for key, value in state.items()}
    both = [{key: shape for key, shape in each.items() if key.startswith("generator.")} for each in (own, theirs)]
    if both[0] != both[1]:
        name = type(module).__name__
        raise ValueError(
            f"the state is that of a {name} with another generator: build it around one of that kind, "
            f"{name}.load_from_checkpoint(file, generator=G)"
        )
    if module.operator is not None:
        if any(key.split(".")[0] in CREATED for key, _ in own.items() ^ theirs.items()):
            raise ValueError(
                f"the state is that of another fit than {module.stage}, or of other measurements: a module that has "
                "not begun takes any"
            )
        return dict(state)
    module.z = nn.Parameter(torch.empty_like(state["z"])) if "z" in state else None
    weights = sorted((key for key in state if key.startswith("weights.")), key=lambda key: int(key.split(".")[1]))
    module.weights = nn.ParameterList([nn.Parameter(torch.empty_like(state[key])) for key in weights])
    # Nor has it the operator, or a network that is drawn anew for each image.
    taken = {*CREATED, *(name for name, _ in module.named_children())}
    return {key: value for key, value in state.items() if key.split(".")[0] in taken}


def describe(module: TestTimeModule) -> dict[str, Any] | None:
    """Return how a module's generator is built, as ``load_generator`` takes it; None where it cannot say."""
    if module.image_shape is None:
        return None
    generator: Generator = module.generator
    try:
        arguments = _plain(generator.architecture())
    except NotImplementedError:
        return None
    return {"class_path": f"{type(generator).__module__}.{type(generator).__qualname__}", "init_args": arguments}


def _plain(value: Any) -> Any:
    """Return settings as plain Python."""
    if is_dataclass(value) and not isinstance(value, type):
        return stated(value)
    if hasattr(value, "as_dict"):  # of the command line
        return value.as_dict()
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value
