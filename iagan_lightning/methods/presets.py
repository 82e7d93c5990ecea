"""The presets: what fills in whatever the user left open."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Literal

from iagan_lightning.checks import check_choice
from iagan_lightning.generators.base import Schedule
from iagan_lightning.methods.fit import ENCODER, MEAN
from iagan_lightning.methods.settings import FitSettings, Stage, stated

Preset = Literal["fast", "paper", "best"]
Kind = Literal["latent", "features", "joint"]  # of fit: z is searched, inner latents are, or latents and weights

# The schedules of the AAAI 2020 paper for its two generators: Adam, fixed numbers of steps, one start, no early stop.
PAPER: dict[Schedule, dict[Kind, Stage]] = {
    "began": {
        "latent": Stage("adam", 1600, lr=0.1, stop="never"),
        "joint": Stage("adam", 500, lr=1e-4, lr_weights=1e-4, stop="never"),
    },
    "pggan": {
        "latent": Stage("adam", 1800, lr=0.1, stop="never"),
        "joint": Stage("adam", 300, lr=1e-4, lr_weights=1e-3, stop="never"),
    },
}
PAPER["pyramid"] = PAPER["began"]
# It has none for style generators, which came later: they take that of its other generator of megapixel faces. Its rate
# of the weights is for equalised ones, whose deviation is 1; of others it made noise within a few steps.
PAPER["style-equalised"] = PAPER["pggan"]
PAPER["style"] = {**PAPER["pggan"], "joint": replace(PAPER["pggan"]["joint"], lr_weights=1e-4)}
PAPER_COMPRESSED_SENSING_STEPS: dict[Schedule, int] = {
    "began": 600,
    "pyramid": 600,
    "pggan": 500,
    "style": 500,
    "style-equalised": 500,
}

# Found with benchmarks/fast_preset.py. Learning rates are those of the generator's schedule: larger ones reach the same
# objective sooner, but worse pictures. Steps are bounds, the rules end the stages much sooner.
FAST: dict[Kind, Stage] = {
    "latent": Stage("lbfgs", 50, spread=0.3, history=50, stop="auto", patience=10, tolerance=0.03),
    "joint": Stage("adam", 250, beta1=0.7, beta2=0.9, frozen="full-resolution", stop="auto"),
}
# With noise the level of y is reached, not approached: momentum gets there in fewer steps, and so do all weights.
AT_NOISE = Stage(stop="auto", patience=20, tolerance=0.013, tau=0.95)
FAST_NOISY: dict[Kind, Stage] = {
    "latent": replace(AT_NOISE, optimizer="lbfgs", steps=40, spread=0.3, history=50),
    "joint": replace(AT_NOISE, optimizer="adam", steps=600, beta1=0.9, beta2=0.9, frozen="none"),
}
# At 1024 pixels Adam comes near to y by changing what y says nothing about. With the curvature of a few steps, the same
# objective is a picture nearer to the truth, and in LPIPS; at 512 and less it is nearer, but duller. Where y is no
# smaller picture it says more, and these few evaluations leave far too much of it unexplained.
LARGE = 1024
FAST_LARGE = Stage("lbfgs", 60, history=10, decrease=15.0)
FAST_LARGE_NOISY = replace(FAST_LARGE, steps=250)  # to the noise, from which 60 are far
# Evaluations of the latent after which the weights may as well adapt too, by the space that is searched and where the
# search begins. Found with benchmarks/starts.py and style_preset.py; with CSGM, whose result it is, the search goes on.
BEFORE_WEIGHTS = {("z", ENCODER): 10, ("w", ENCODER): 15, ("w", MEAN): 25}
STYLE: tuple[Schedule, ...] = ("style", "style-equalised")
# Style generators: what differs from the above. Found with benchmarks/style_preset.py.
FAST_STYLE: dict[Kind, Stage] = {
    "latent": Stage(penalty="latent", weight=0.02),
    "joint": Stage(frozen="finer", decrease=25.0),
}
# A pyramid's pictures gain nothing from what is left of y after this where y is a smaller picture (.1 dB less after the
# fortieth that all else goes on to). What each number tells of is broad there; of single pixels or of projections the
# last of it tells details, and other generators' textures gain from it (benchmarks/decrease.py).
FAST_PYRAMID_SMALLER = Stage(decrease=20.0)
# ``best`` is ``fast`` in so many views (methods.views), averaged.
BEST_VIEWS = 2
# The paper has no fit of features: its presets differ in nothing there.
FEATURES = Stage("lbfgs", 40, history=40, stop="auto", patience=10, tolerance=0.03)


def searched_space(schedule: Schedule, preset: Preset) -> str:
    """Return the latent space that the latent stage searches unless told otherwise.

    Of random w that look alike z may be anywhere; and whitened, w can be searched from its mean at once.

    Example:
        >>> searched_space("style", "fast"), searched_space("style", "paper"), searched_space("began", "fast")
        ('w', 'z', 'z')
    """
    return "w" if schedule in STYLE and preset != "paper" else "z"


def resolve(
    kind: Kind,
    given: Stage,
    preset: Preset,
    noise_std: float | None = 0.0,
    compressed_sensing: bool = False,
    schedule: Schedule = "began",
    height: int = 64,
    smaller: bool = False,
) -> FitSettings:
    """Return the settings of a fit with nothing left open, the rule behind ``auto`` included.

    A ``noise_std`` of None stands for noise of unknown level, ``schedule`` for the generator's in the paper, ``height``
    for that of its pictures, ``smaller`` says that y is a smaller picture.

    Raises:
        ValueError: for a preset that does not exist, and for settings that do not fit the kind or the noise.

    Example:
        >>> resolve("joint", Stage(), "paper").steps, resolve("joint", Stage(), "paper", noise_std=10 / 255).steps
        (500, 250)
        >>> resolve("joint", Stage(steps=7), "paper", noise_std=10 / 255).steps
        7
        >>> resolve("joint", Stage(), "fast", schedule="pggan").lr_weights
        0.001
        >>> [resolve("joint", Stage(), "fast", schedule="style", height=n, smaller=True).steps for n in (512, 1024)]
        [250, 60]
        >>> large = resolve("joint", Stage(), "fast", noise_std=10 / 255, schedule="style", height=1024, smaller=True)
        >>> large.optimizer, large.steps, large.stop
        ('lbfgs', 250, 'noise')
        >>> [resolve("joint", Stage(), "fast", schedule="pyramid", smaller=y).decrease for y in (True, False)]
        [20.0, 40.0]
    """
    check_choice("preset", preset, Preset)
    if kind != "latent" and (given.restarts or 1) != 1:
        raise ValueError(f"only the latent stage has restarts; {given.restarts} were given for the {kind} stage")
    if given.stop == "held-out" and kind != "joint":
        raise ValueError(
            f"stop: held-out is a rule of the joint stage, where noise is fitted; {kind}.stop cannot be it"
        )
    settled: dict[str, Any] = stated(_base(kind, preset, noise_std, compressed_sensing, schedule, height, smaller))
    settled |= stated(given)
    if settled.get("stop") == "auto":
        settled["stop"] = _rule(kind, noise_std)
    if settled.get("stop") == "noise" and noise_std is None:
        raise ValueError(f"{kind}.stop noise needs a noise_std; choose held-out where the level is unknown")
    return FitSettings(**settled)


def _base(
    kind: Kind,
    preset: Preset,
    noise_std: float | None,
    compressed_sensing: bool,
    schedule: Schedule,
    height: int,
    smaller: bool,
) -> Stage:
    if kind == "features":
        return FEATURES
    published = PAPER[schedule][kind]
    if preset != "paper":
        fast = FAST[kind] if noise_std == 0 else FAST_NOISY[kind]
        fast = replace(fast, lr=published.lr, lr_weights=published.lr_weights)
        if schedule in STYLE:
            fast = replace(fast, **stated(FAST_STYLE[kind]))
            if kind == "joint" and height >= LARGE and smaller:
                fast = replace(fast, **stated(FAST_LARGE if noise_std == 0 else FAST_LARGE_NOISY))
        if schedule == "pyramid" and kind == "joint" and smaller:
            fast = replace(fast, **stated(FAST_PYRAMID_SMALLER))
        return fast
    if kind == "latent":
        return published
    steps = PAPER_COMPRESSED_SENSING_STEPS[schedule] if compressed_sensing else published.steps
    assert steps is not None
    return replace(published, steps=steps if noise_std == 0 else steps // 2)


def _rule(kind: Kind, noise_std: float | None) -> str:
    """Return the rule behind ``auto``."""
    if noise_std:
        return "noise"
    if kind != "joint":
        return "plateau"
    return "held-out" if noise_std is None else "decrease"
