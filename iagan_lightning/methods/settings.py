"""Settings of the two stages, and the presets that fill in whatever the user left open."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Literal, get_args

Preset = Literal["fast", "paper"]
StageName = Literal["latent", "joint"]
Schedule = Literal["began", "pggan"]
HELD_OUT = 0.05  # share of the measurements that a probe is not shown


@dataclass(frozen=True)
class Stage:
    """Settings of one stage. What is None comes from the preset.

    Args:
        optimizer: ``adam`` or ``lbfgs`` (batched, strong Wolfe; always in full precision).
        steps: evaluations of the objective, at most.
        lr: Adam's learning rate of the latent z.
        lr_weights: Adam's learning rate of the generator's weights (joint stage).
        beta1: Adam's decay of the mean gradient.
        beta2: Adam's decay of the mean squared gradient. With a short memory the steps follow the falling gradients.
        frozen: weights that keep their pre-trained values in the joint stage: ``none``, or those of hidden layers at
            ``full-resolution``, whose gradients cost most and change the picture least.
        restarts: random starting points of the latent stage; the best result goes on.
        spread: what the random starting points are multiplied by. Nearer to the middle of the prior a search needs
            fewer evaluations.
        halve: evaluations after which, again and again, the worse half of an image's starting points is given up; 0
            keeps all of them to the end.
        history: curvature pairs that L-BFGS remembers.
        stop: ``never``; ``noise``, when the objective reaches ``tau`` times the power of the noise (discrepancy
            principle) or a plateau before that; ``plateau``, when it falls by less than ``tolerance`` in ``patience``
            evaluations; ``decrease``, when it has fallen by the factor ``decrease`` since the stage began; ``held-out``
            (joint stage only), after as many evaluations as explained best some measurements that a first run was not
            shown; or ``auto``, the noise level where noise_std > 0, held-out measurements where it is unknown,
            otherwise the plateau in the latent stage and the decrease in the joint stage.
        patience: evaluations over which a plateau is judged, or without progress on held-out measurements.
        tolerance: relative decrease of the objective that counts as progress.
        decrease: how many times smaller the objective has to become for the rule of that name.
        tau: the factor of the discrepancy principle. A little below 1, because whatever is fitted to noisy measurements
            takes some of the noise with it, and because the noise of one y is not exactly as strong as expected. Where
            the objective still falls fast, a few percent are a few evaluations; where it does not, the plateau ends it.
        keep: ``best``, the iterate of lowest objective (also where it is None), or ``last``.
    """

    optimizer: Literal["adam", "lbfgs"] | None = None
    steps: int | None = None
    lr: float | None = None
    lr_weights: float | None = None
    beta1: float | None = None
    beta2: float | None = None
    frozen: Literal["none", "full-resolution"] | None = None
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

    def __post_init__(self) -> None:
        for name, lowest in (("steps", 1), ("restarts", 1), ("halve", 0), ("history", 1), ("patience", 1)):
            value = getattr(self, name)
            if value is not None and value < lowest:
                raise ValueError(f"{name} of a stage is at least {lowest}; {value} was given")
        for name in ("lr", "lr_weights", "spread", "tolerance"):
            value = getattr(self, name)
            if value is not None and not value >= 0:
                raise ValueError(f"{name} of a stage is at least 0; {value} was given")
        if self.tau is not None and not self.tau > 0:
            raise ValueError(f"tau of a stage is above 0; {self.tau} was given")
        if self.decrease is not None and not self.decrease >= 1:
            raise ValueError(f"decrease of a stage is at least 1; {self.decrease} was given")
        for name in ("beta1", "beta2"):
            value = getattr(self, name)
            if value is not None and not 0 <= value < 1:
                raise ValueError(f"{name} of a stage lies in [0, 1); {value} was given")


# The schedules of the AAAI 2020 paper for its two generators: Adam, fixed numbers of steps, one start, no early stop.
PAPER: dict[Schedule, dict[StageName, Stage]] = {
    "began": {
        "latent": Stage("adam", 1600, lr=0.1, restarts=1, stop="never"),
        "joint": Stage("adam", 500, lr=1e-4, lr_weights=1e-4, restarts=1, stop="never"),
    },
    "pggan": {
        "latent": Stage("adam", 1800, lr=0.1, restarts=1, stop="never"),
        "joint": Stage("adam", 300, lr=1e-4, lr_weights=1e-3, restarts=1, stop="never"),
    },
}
PAPER_COMPRESSED_SENSING_STEPS: dict[Schedule, int] = {"began": 600, "pggan": 500}

# Found with benchmarks/fast_preset.py. Learning rates are those of the generator's schedule: larger ones reach the same
# objective sooner, but worse pictures. Steps are bounds, the rules end the stages much sooner.
FAST: dict[StageName, Stage] = {
    "latent": Stage("lbfgs", 50, restarts=1, spread=0.3, history=50, stop="auto", patience=10, tolerance=0.03),
    "joint": Stage("adam", 250, beta1=0.7, beta2=0.9, frozen="full-resolution", restarts=1, stop="auto"),
}
# With noise the level of y is reached, not approached: momentum gets there in fewer steps, and so do all weights.
AT_NOISE = Stage(stop="auto", patience=20, tolerance=0.013, tau=0.95)
FAST_NOISY: dict[StageName, Stage] = {
    "latent": replace(AT_NOISE, optimizer="lbfgs", steps=40, restarts=1, spread=0.3, history=50),
    "joint": replace(AT_NOISE, optimizer="adam", steps=600, beta1=0.9, beta2=0.9, frozen="none", restarts=1),
}

UNIVERSAL = Stage(
    beta1=0.9,
    beta2=0.999,
    frozen="none",
    spread=1.0,
    halve=0,
    history=20,
    stop="never",
    patience=20,
    tolerance=0.01,
    decrease=40.0,
    tau=1.0,
)


def resolve(
    name: StageName,
    given: Stage,
    preset: Preset,
    noise_std: float | None = 0.0,
    compressed_sensing: bool = False,
    schedule: Schedule = "began",
) -> Stage:
    """Return the settings of a stage with nothing left open, the rule behind ``auto`` included.

    A ``noise_std`` of None stands for noise of unknown level, ``schedule`` for the generator's in the paper.

    Example:
        >>> resolve("joint", Stage(), "paper").steps, resolve("joint", Stage(), "paper", noise_std=10 / 255).steps
        (500, 250)
        >>> resolve("joint", Stage(steps=7), "paper", noise_std=10 / 255).steps
        7
        >>> resolve("joint", Stage(), "fast", schedule="pggan").lr_weights
        0.001
    """
    if preset not in get_args(Preset):
        raise ValueError(f"preset is fast or paper; {preset!r} was given")
    published = PAPER[schedule][name]
    fast = FAST[name] if noise_std == 0 else FAST_NOISY[name]
    base = published if preset == "paper" else replace(fast, lr=published.lr, lr_weights=published.lr_weights)
    if preset == "paper" and name == "joint":
        steps = PAPER_COMPRESSED_SENSING_STEPS[schedule] if compressed_sensing else base.steps
        assert steps is not None
        base = replace(base, steps=steps if noise_std == 0 else steps // 2)
    settled = {key: value for key, value in asdict(given).items() if value is not None}
    if name == "joint" and settled.get("restarts", 1) != 1:
        raise ValueError(f"only the latent stage has restarts; {settled['restarts']} were given for the joint stage")
    filled = {key: value for key, value in asdict(base).items() if value is not None}
    stage = Stage(**{**asdict(UNIVERSAL), **filled, **settled})
    if stage.stop == "auto":
        unknown = noise_std is None and name == "joint"
        exact: Literal["plateau", "decrease"] = "plateau" if name == "latent" else "decrease"
        stage = replace(stage, stop="noise" if noise_std else "held-out" if unknown else exact)
    if stage.stop == "held-out" and name != "joint":
        raise ValueError("stop: held-out is a rule of the joint stage, where noise is fitted; latent.stop cannot be it")
    if stage.stop == "noise" and noise_std is None:
        raise ValueError(f"{name}.stop noise needs a noise_std; choose held-out where the level is unknown")
    return stage
