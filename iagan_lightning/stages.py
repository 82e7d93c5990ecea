"""Settings of the two stages, and the presets that fill in whatever the user left open."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Literal, get_args

Preset = Literal["fast", "paper"]
StageName = Literal["latent", "joint"]


@dataclass(frozen=True)
class Stage:
    """Settings of one stage. What is None comes from the preset.

    Args:
        optimizer: ``adam`` or ``lbfgs`` (batched, strong Wolfe; always in full precision).
        steps: evaluations of the objective, at most.
        lr: Adam's learning rate of the latent z.
        lr_weights: Adam's learning rate of the generator's weights (joint stage).
        restarts: random starting points of the latent stage; the best result goes on.
        stop: ``never``; ``noise``, when the objective reaches the power of the noise (discrepancy principle);
            ``plateau``, when it falls by less than ``tolerance`` in ``patience`` evaluations; or ``auto``, the noise
            level where noise_std > 0, otherwise the plateau.
        patience: evaluations over which a plateau is judged.
        tolerance: relative decrease of the objective that counts as progress.
    """

    optimizer: Literal["adam", "lbfgs"] | None = None
    steps: int | None = None
    lr: float | None = None
    lr_weights: float | None = None
    restarts: int | None = None
    stop: Literal["auto", "noise", "plateau", "never"] | None = None
    patience: int | None = None
    tolerance: float | None = None

    def __post_init__(self) -> None:
        for name, lowest in (("steps", 1), ("restarts", 1), ("patience", 1)):
            value = getattr(self, name)
            if value is not None and value < lowest:
                raise ValueError(f"{name} of a stage is at least {lowest}; {value} was given")
        for name in ("lr", "lr_weights", "tolerance"):
            value = getattr(self, name)
            if value is not None and not value >= 0:
                raise ValueError(f"{name} of a stage is at least 0; {value} was given")


# The schedule of the AAAI 2020 paper for BEGAN: Adam, fixed numbers of steps, one start, no early stop.
PAPER: dict[StageName, Stage] = {
    "latent": Stage("adam", 1600, lr=0.1, restarts=1, stop="never"),
    "joint": Stage("adam", 500, lr=1e-4, lr_weights=1e-4, restarts=1, stop="never"),
}
PAPER_COMPRESSED_SENSING_STEPS = 600

# Found with benchmarks/fast_preset.py: without noise larger steps reach the same picture sooner; with noise small ones
# fit the image before the noise, and the noise level ends them after some thirty.
FAST: dict[StageName, Stage] = {
    "latent": Stage("lbfgs", 60, lr=0.1, restarts=1, stop="auto"),
    "joint": Stage("adam", 200, lr=3e-4, lr_weights=3e-4, restarts=1, stop="auto"),
}
FAST_NOISY_LR = 1e-4
UNIVERSAL = Stage(stop="never", patience=20, tolerance=0.01)


def resolve(
    name: StageName, given: Stage, preset: Preset, noise_std: float = 0.0, compressed_sensing: bool = False
) -> Stage:
    """Return the settings of a stage with nothing left open.

    Example:
        >>> resolve("joint", Stage(), "paper").steps, resolve("joint", Stage(), "paper", noise_std=10 / 255).steps
        (500, 250)
        >>> resolve("joint", Stage(steps=7), "paper", noise_std=10 / 255).steps
        7
    """
    if preset not in get_args(Preset):
        raise ValueError(f"preset is fast or paper; {preset!r} was given")
    base = (PAPER if preset == "paper" else FAST)[name]
    if preset == "paper" and name == "joint":
        steps = PAPER_COMPRESSED_SENSING_STEPS if compressed_sensing else base.steps
        assert steps is not None
        base = replace(base, steps=steps // 2 if noise_std > 0 else steps)
    elif preset == "fast" and name == "joint" and noise_std > 0:
        base = replace(base, lr=FAST_NOISY_LR, lr_weights=FAST_NOISY_LR)
    settled = {key: value for key, value in asdict(given).items() if value is not None}
    if name == "joint" and settled.get("restarts", 1) != 1:
        raise ValueError(f"only the latent stage has restarts; {settled['restarts']} were given for the joint stage")
    filled = {key: value for key, value in asdict(base).items() if value is not None}
    return Stage(**{**asdict(UNIVERSAL), **filled, **settled})
