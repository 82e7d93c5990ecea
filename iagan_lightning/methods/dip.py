"""Deep Image Prior: an untrained network fitted to the measurements, the baseline that the paper compares with.

Several images lie side by side with weights, noise and statistics of their own.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from iagan_lightning.checks import check_choice, check_fields
from iagan_lightning.methods.fit import Fit, Iterate, everything
from iagan_lightning.methods.presets import Preset
from iagan_lightning.methods.seeds import derived_seed, the_same_everywhere
from iagan_lightning.methods.settings import FitSettings, settings_of, stated
from iagan_lightning.methods.skip_network import SkipNetwork, levels_for
from iagan_lightning.methods.stacking import call_stacked
from iagan_lightning.methods.test_time_module import TestTimeModule
from iagan_lightning.operators import BicubicDownsampling, Identity, Inpainting, Operator
from iagan_lightning.optim import MovingVariance

INPUTS, INPUT_SCALE = 32, 0.1  # channels of the input noise, which is uniform on [0, INPUT_SCALE]
SHORT = 8  # the fast preset takes an eighth of the official steps for exact measurements, with noise too


@dataclass(frozen=True)
class DIPSettings:
    """Settings of Deep Image Prior. What is None comes from the task and the preset.

    Args:
        steps: evaluations of the objective, at most.
        lr: Adam's learning rate.
        jitter: standard deviation of the noise that is added to the network's input, fresh in every evaluation.
        average: weight of the past in the running mean of the outputs that is returned; 0 returns the last output.
        skip: channels of the skip connections.
        upsampling: ``bilinear`` or ``nearest``.
        stop: ``never``; ``noise``, when the objective reaches the power of the noise (discrepancy principle);
            ``variance``, at the lowest moving variance of the output; or ``auto``: noise where noise_std > 0, variance
            where it is unknown, otherwise never.
        window: outputs over which the moving variance is taken.
        patience: evaluations without a lower variance after which an image ends.
    """

    steps: int | None = None
    lr: float | None = None
    jitter: float | None = None
    average: float | None = None
    skip: int | None = None
    upsampling: Literal["bilinear", "nearest"] | None = None
    stop: Literal["auto", "noise", "variance", "never"] | None = None
    window: int | None = None
    patience: int | None = None

    def __post_init__(self) -> None:
        _check(self)


@dataclass(frozen=True)
class ResolvedDIP:
    """Settings of Deep Image Prior with nothing left open; see ``DIPSettings``."""

    # Ulyanov, Vedaldi and Lempitsky, CVPR 2018, and the notebooks of their code.
    steps: int
    lr: float = 0.01
    jitter: float = 0.03
    average: float = 0.0
    skip: int = 4
    upsampling: Literal["bilinear", "nearest"] = "bilinear"
    stop: Literal["auto", "noise", "variance", "never"] = "never"
    window: int = 100
    patience: int = 1000

    def __post_init__(self) -> None:
        _check(self)


def _check(settings: Any) -> None:
    check_fields(settings, "of DIP")
    given = stated(settings)
    for name, lowest in (("steps", 1), ("skip", 1), ("window", 2), ("patience", 1), ("lr", 0), ("jitter", 0)):
        if name in given and not given[name] >= lowest:
            raise ValueError(f"{name} of DIP is at least {lowest}; {given[name]} was given")
    if "average" in given and not 0 <= given["average"] < 1:
        raise ValueError(f"average of DIP lies in [0, 1); {given['average']} was given")


OFFICIAL = {
    "super-resolution x4": DIPSettings(steps=2000, jitter=0.03),
    "super-resolution x8": DIPSettings(steps=4000, jitter=0.05),
    "denoising": DIPSettings(steps=3000, jitter=1 / 30, average=0.99),
    "inpainting": DIPSettings(steps=6001, jitter=0.03, skip=128, upsampling="nearest"),
}


def official(operator: Operator | None) -> str:
    """Return whose official settings are used: those of x4 super-resolution where a task has none of its own.

    There are none for compressed sensing and deblurring. Scales nearer to 8 than to 4 use those of x8.

    Example:
        >>> official(BicubicDownsampling((3, 64, 64), scale=8)), official(None)
        ('super-resolution x8', 'super-resolution x4')
    """
    if isinstance(operator, Identity):
        return "denoising"
    if isinstance(operator, Inpainting):
        return "inpainting"
    if isinstance(operator, BicubicDownsampling):
        areas = [shape[-2] * shape[-1] for shape in (operator.image_shape, operator.measurement_shape)]
        if areas[0] / areas[1] > 4 * 8:
            return "super-resolution x8"
    return "super-resolution x4"


def official_steps(operator: Operator | None, noise_std: float | None) -> int:
    """Return the official number of steps; as in the IAGAN paper a quarter of it with noise.

    Denoising, whose official number is for noisy pictures, keeps it.

    Example:
        >>> official_steps(BicubicDownsampling((3, 64, 64), scale=4), 10 / 255), official_steps(None, 0.0)
        (500, 2000)
    """
    task = official(operator)
    steps = OFFICIAL[task].steps or 1
    return steps // 4 if noise_std != 0 and task != "denoising" else steps


def resolve_dip(
    given: DIPSettings, preset: Preset, noise_std: float | None = 0.0, operator: Operator | None = None
) -> ResolvedDIP:
    """Return the settings with nothing left open, the rule behind ``auto`` included.

    ``paper`` is the official schedule, without early stopping. ``fast`` takes an eighth of the official steps for
    exact measurements, and stops at the noise level or, where that is unknown, at the lowest variance.

    Example:
        >>> resolve_dip(DIPSettings(), "paper").steps, resolve_dip(DIPSettings(), "fast").steps
        (2000, 250)
        >>> resolve_dip(DIPSettings(stop="auto"), "fast", noise_std=10 / 255).stop
        'noise'
    """
    check_choice("preset", preset, Preset)
    settings: dict[str, Any] = stated(OFFICIAL[official(operator)])
    if preset == "paper":
        settings["steps"] = official_steps(operator, noise_std)
    else:
        settings |= {"steps": settings["steps"] // SHORT, "stop": "auto", "window": 25, "patience": 100}
    settings |= stated(given)
    if settings.get("stop") == "auto":
        settings["stop"] = "variance" if noise_std is None else "noise" if noise_std else "never"
    if settings.get("stop") == "noise" and not noise_std:
        raise ValueError("DIP's stop noise needs a noise_std above 0; choose never or variance")
    return ResolvedDIP(**settings)


class DIP(TestTimeModule):
    r"""Deep Image Prior: minimise :math:`|y - A f_w(u)|^2` over the weights w of an untrained network f.

    The input u is fixed noise, jittered in every evaluation. The network ends in a sigmoid; its output is brought to
    [-1, 1]. Each image has a network, an input and random numbers of its own, all from its seed, and its
    normalisation sees no other image: with y in float64 several images side by side are the images one at a time. In
    float32 such paths part within a few evaluations, because weights ahead of a normalisation have gradients that are
    nothing but rounding, of which Adam makes full steps; that is DIP itself, and its results scatter accordingly.

    One fit, ``dip``, with the result ``dip``; it makes images of any shape. It ends early only beside the callback
    ``StageStopping``.

    Example:
        >>> from iagan_lightning import adapt
        >>> from iagan_lightning.methods.trainers import quiet_trainer
        >>> A = BicubicDownsampling((3, 16, 16), scale=4)
        >>> module = DIP(settings=DIPSettings(steps=2))
        >>> module.begin(A(torch.zeros(1, 3, 16, 16)), A)
        >>> adapt(module, quiet_trainer(accelerator="cpu")).results["dip"].shape
        torch.Size([1, 3, 16, 16])

    Args:
        preset: ``paper`` for the official schedule, ``fast`` for a shortened one.
        settings: what replaces the preset's settings.
        logged: also hand objective, misfit and residual of every evaluation to Lightning's loggers.

    Attributes:
        titles: ``DIP (short)`` for ``dip`` where the schedule is shorter than the official one.

    Source: Ulyanov, Vedaldi and Lempitsky, Deep Image Prior, CVPR 2018. There the objective is taken on [0, 1], a
    quarter of this one, which Adam does not notice.
    """

    inputs: Tensor

    def __init__(
        self,
        preset: Preset = "fast",
        settings: DIPSettings = DIPSettings(),
        logged: bool = False,
    ) -> None:
        super().__init__(logged=logged)
        self.preset: Preset = preset
        self.given = settings_of(DIPSettings, settings)

    def configure_fits(self) -> list[Fit]:
        """Return the fit of the network's weights, drawn anew."""
        self.dip = resolve_dip(self.given, self.preset, self.noise_std, self.operator)
        rule: Any = {"variance": "own"}.get(self.dip.stop, self.dip.stop)
        settings = FitSettings(
            "adam", self.dip.steps, lr_weights=self.dip.lr, stop=rule, patience=self.dip.steps, keep="last"
        )
        return [Fit("dip", settings, space=None, adapts=everything, result="dip")]

    def start(self) -> None:
        """Draw every image's network and input anew."""
        self.titles["dip"] = "DIP (short)" if self.dip.steps < official_steps(self.operator, self.noise_std) else "DIP"
        channels, height, width = self.operator.image_shape
        dtype = torch.float64 if self.y.dtype in (torch.float64, torch.complex128) else torch.float32
        networks, inputs = [], []
        self._random = [torch.Generator().manual_seed(derived_seed(seed, "dip")) for seed in self.seeds]
        for random in self._random:
            with the_same_everywhere(), torch.random.fork_rng(devices=[]):
                inputs.append(torch.rand(INPUTS, height, width, generator=random) * INPUT_SCALE)
                torch.manual_seed(int(torch.randint(2**62, (), generator=random)))  # initialisation has no generator
                networks.append(
                    SkipNetwork(
                        INPUTS,
                        channels,
                        skip=self.dip.skip,
                        levels=levels_for(height, width),
                        upsampling=self.dip.upsampling,
                    ).to(dtype)
                )
        self.network = networks[0].requires_grad_(False)
        self.starts, self.z, self.adapted = 1, None, [name for name, _ in self.network.named_parameters()]
        self._adapted["dip"], self._carried["dip"] = self.adapted, {}
        device = self.y.device
        stacks = zip(*(network.parameters() for network in networks), strict=True)
        self.weights = nn.ParameterList(nn.Parameter(torch.stack(same).detach().to(device)) for same in stacks)
        self.network.to(device)
        self.register_buffer("inputs", torch.stack(inputs).to(device, dtype), False)
        self._rows: Tensor | None = None  # of the latest evaluation, and the same as Python's numbers
        self._places = list(range(len(self.y)))
        self._images: Tensor | None = None  # the latest image of each, (B, C, H, W)
        self._output: Tensor | None = None  # the running mean of them
        self._steadiest: tuple[Tensor, Tensor, Tensor] | None = None  # variance, when, and output then
        self._variance = MovingVariance(self.dip.window)

    def latents(self, rows: Tensor | None = None) -> Tensor:
        """Return that there are none, ``(P, 0)``."""
        return self.inputs.new_zeros(len(self.y) if rows is None else len(rows), 0)

    def forward(self, rows: Tensor | None = None) -> Tensor:
        """Return images ``(P, C, H, W)`` in [-1, 1], their inputs freshly jittered; one call of the network.

        After the fit the result: an average of outputs is that of no weights.
        """
        if "dip" in self.kept:
            images = self.kept["dip"].image
            return images if rows is None else images[rows]
        inputs = self.inputs if rows is None else self.inputs[rows]
        images = call_stacked(self.network, self.stacks(rows), inputs + self.dip.jitter * self._noise(rows))
        return images.to(inputs.dtype) * 2 - 1

    def _noise(self, rows: Tensor | None) -> Tensor:
        """Return fresh noise for every image, ``(P, *)``, drawn on the CPU so that all devices get the same."""
        if rows is not self._rows:  # to read them from an accelerator costs a synchronisation
            self._rows, self._places = rows, list(range(len(self.y))) if rows is None else rows.tolist()
        shape, like = self.inputs.shape[1:], self.inputs
        with the_same_everywhere():
            noise = torch.stack([torch.randn(shape, generator=self._random[i]) for i in self._places]).to(like.dtype)
        if like.device.type != "cuda":
            return noise.to(like.device)
        return noise.pin_memory().to(like.device, non_blocking=True)  # the host goes on meanwhile

    def training_step(self, batch: Any = None, batch_idx: int = 0) -> Tensor:
        """Evaluate the objective once, and average the outputs; those of images that have ended stay as they are."""
        loss = super().training_step(batch, batch_idx)
        assert self.evaluation is not None
        images, past = self.evaluation.image, self.dip.average
        if self._images is None or self._output is None:
            self._images, self._output = images.clone(), images.clone()
        else:
            now = self.active[:, None, None, None]
            self._images = torch.where(now, images, self._images)
            self._output = torch.where(now, past * self._output + (1 - past) * images, self._output)
        return loss

    @torch.no_grad()
    def ended(self, step: int) -> Tensor | None:
        """Return which images have had no lower moving variance of their output for ``patience`` evaluations."""
        if self.dip.stop != "variance":
            return None
        assert self._images is not None and self._output is not None
        variance = self._variance.push(self._images)
        if variance is None:
            return None
        if self._steadiest is None:
            self._steadiest = variance, torch.full_like(self.spent, step), self._output.clone()
        lowest, when, output = self._steadiest
        lower = (variance < lowest) & self.active
        self._steadiest = (
            torch.where(lower, variance, lowest),
            torch.where(lower, step, when),
            torch.where(lower[:, None, None, None], self._output, output),
        )
        return step - self._steadiest[1] >= self.dip.patience

    @torch.no_grad()
    def last_iterate(self) -> Iterate:
        """Return the averaged outputs, those of lowest variance where that is the rule, and their objective."""
        output = self._output if self._steadiest is None else self._steadiest[2]
        assert output is not None
        misfit = self.misfit(output)
        self._squares = None
        return Iterate(misfit, misfit, output, self.latents(), [w.detach() for w in self.weights])
