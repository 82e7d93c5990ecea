"""Settings of one fit: as a user gives them (``Stage``), and with nothing left open (``FitSettings``)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal, TypeVar

from iagan_lightning.checks import check_fields, in_words

Solver = Literal["adam", "lbfgs"]
Frozen = Literal["none", "full-resolution", "finer"]
Rule = Literal["noise", "plateau", "decrease", "held-out", "own", "never"]
Penalty = Literal["none", "latent"]


@dataclass(frozen=True)
class FitSettings:
    """Settings of one fit with nothing left open: those of ``Stage``, each with a value.

    ``stop`` is not ``auto``, but may be ``own``: the fit ends by the method's own rule alone, ``TestTimeModule.ended``.

    Raises:
        ValueError: for numbers and names that are not allowed.
    """

    optimizer: Solver = "adam"
    steps: int = 100
    lr: float = 1e-4
    lr_weights: float = 1e-4
    beta1: float = 0.9
    beta2: float = 0.999
    frozen: Frozen = "none"
    restarts: int = 1
    spread: float = 1.0
    halve: int = 0
    history: int = 20
    stop: Rule = "never"
    patience: int = 20
    tolerance: float = 0.01
    decrease: float = 40.0
    tau: float = 1.0
    keep: Literal["best", "last"] = "best"
    penalty: Penalty = "none"
    weight: float = 0.01

    def __post_init__(self) -> None:
        check(self)


@dataclass(frozen=True)
class Stage:
    """Settings of one fit as a user gives them: what is None comes from the preset.

    Args:
        optimizer: ``adam`` or ``lbfgs`` (batched, strong Wolfe; always in full precision).
        steps: evaluations of the objective, at most.
        lr: Adam's learning rate of the latent.
        lr_weights: Adam's learning rate of the weights.
        beta1: Adam's decay of the mean gradient.
        beta2: Adam's decay of the mean squared gradient. With a short memory the steps follow the falling gradients.
        frozen: weights that keep their values where weights adapt: ``none``; those of hidden layers at
            ``full-resolution``, whose gradients cost most and change the picture least; or also those of all layers
            ``finer`` than twice the resolution of y, where that is a smaller picture: what y says nothing about keeps
            the texture of the prior.
        restarts: random starting points; the best result goes on.
        spread: what the random starting points are multiplied by. Nearer to the middle of the prior a search needs
            fewer evaluations.
        halve: evaluations after which, again and again, the worse half of an image's starting points is given up; 0
            keeps all of them to the end.
        history: curvature pairs that L-BFGS remembers.
        stop: ``never``; ``noise``, when the misfit reaches ``tau`` times the power of the noise (discrepancy
            principle) or a plateau before that; ``plateau``, when the objective falls by less than ``tolerance`` in
            ``patience`` evaluations; ``decrease``, when it has fallen by the factor ``decrease`` since the fit began;
            ``held-out``, after as many evaluations as explained best some measurements that a probe was not shown;
            or ``auto``: the noise level where noise_std > 0, held-out measurements where it is unknown, otherwise the
            plateau where latents alone are searched and the decrease where weights adapt.
        patience: evaluations over which a plateau is judged, or without progress on held-out measurements.
        tolerance: relative decrease of the objective that counts as progress.
        decrease: how many times smaller the objective has to become for the rule of that name.
        tau: the factor of the discrepancy principle. A little below 1, because whatever is fitted to noisy measurements
            takes some of the noise with it, and because the noise of one y is not exactly as strong as expected. Where
            the objective still falls fast, a few percent are a few evaluations; where it does not, the plateau ends it.
        keep: ``best``, the iterate of lowest objective, or ``last``.
        penalty: what is added to the misfit: ``none``, or ``latent``, ``weight`` times the mean square of the latent.
        weight: of the penalty.

    Raises:
        ValueError: for numbers and names that are not allowed.
    """

    optimizer: Solver | None = None
    steps: int | None = None
    lr: float | None = None
    lr_weights: float | None = None
    beta1: float | None = None
    beta2: float | None = None
    frozen: Frozen | None = None
    restarts: int | None = None
    spread: float | None = None
    halve: int | None = None
    history: int | None = None
    stop: Literal["auto", "noise", "plateau", "decrease", "held-out", "never"] | None = None
    patience: int | None = None
    tolerance: float | None = None
    decrease: float | None = None
    tau: float | None = None
    keep: Literal["best", "last"] | None = None
    penalty: Penalty | None = None
    weight: float | None = None

    def __post_init__(self) -> None:
        check(self)


Settings = TypeVar("Settings")


def settings_of(kind: type[Settings], given: Any) -> Settings:
    """Return settings as a dataclass of a kind; a checkpoint holds them as a mapping.

    Raises:
        ValueError: for what is neither, and for names that it does not have.

    Example:
        >>> settings_of(Stage, 5)
        Traceback (most recent call last):
        ...
        ValueError: settings of a fit are a Stage, such as Stage(steps=5); 5 was given
    """
    if isinstance(given, kind):
        return given
    if not isinstance(given, Mapping):
        name = kind.__name__
        raise ValueError(f"settings of a fit are a {name}, such as {name}(steps=5); {in_words(given)} was given")
    known: Any = kind
    if surplus := [str(name) for name in given if name not in {field.name for field in fields(known)}]:
        raise ValueError(f"{kind.__name__} has no {', '.join(surplus)}")
    return kind(**given)


def stage_of(given: Stage | Mapping[str, Any]) -> Stage:
    """Return settings as a ``Stage``; a checkpoint holds them as a mapping.

    Raises:
        ValueError: for what is neither.

    Example:
        >>> stage_of({"steps": 7}) == Stage(steps=7)
        True
    """
    return settings_of(Stage, given)


LOWEST = {"steps": 1, "restarts": 1, "halve": 0, "history": 1, "patience": 1, "lr": 0, "lr_weights": 0, "spread": 0,
          "tolerance": 0, "decrease": 1, "weight": 0}  # fmt: skip


def check(settings: Any) -> None:
    """Raise ValueError for a number or a name that is not allowed; None, what is left open, always is."""
    check_fields(settings, "of a stage")
    given = stated(settings)
    for name, lowest in LOWEST.items():
        if name in given and not lowest <= given[name] < math.inf:
            raise ValueError(f"{name} of a stage is at least {lowest}; {given[name]} was given")
    if "tau" in given and not 0 < given["tau"] < math.inf:
        raise ValueError(f"tau of a stage is above 0; {given['tau']} was given")
    for name in ("beta1", "beta2"):
        if name in given and not 0 <= given[name] < 1:
            raise ValueError(f"{name} of a stage lies in [0, 1); {given[name]} was given")


def stated(settings: Any) -> dict[str, Any]:
    """Return the fields of a dataclass that are not left open.

    Example:
        >>> stated(Stage(steps=7, lr=0.0))
        {'steps': 7, 'lr': 0.0}
    """
    values = ((field.name, getattr(settings, field.name)) for field in fields(settings))
    return {name: value for name, value in values if value is not None}
