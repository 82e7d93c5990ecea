"""Deep Image Prior: an untrained network fitted to the measurements, the baseline that the paper compares with.

The LightningModule mirrors ``IAGAN``: ``begin`` takes measurements, ``adapt`` runs the fit, one ``training_step`` is
one evaluation of the objective, and several images lie side by side with weights, noise and statistics of their own.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal, get_args

import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from iagan_lightning.methods.problem import check_problem, derived_seed, squared_errors
from iagan_lightning.methods.settings import Preset
from iagan_lightning.methods.skip_network import SkipNetwork, levels_for
from iagan_lightning.methods.stacking import call_stacked
from iagan_lightning.operators import BicubicDownsampling, Identity, Inpainting, LinearOperator
from iagan_lightning.optim import MovingVariance, noise_power

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
        for name, lowest in (("steps", 1), ("skip", 1), ("window", 2), ("patience", 1), ("lr", 0), ("jitter", 0)):
            value = getattr(self, name)
            if value is not None and not value >= lowest:
                raise ValueError(f"{name} of DIP is at least {lowest}; {value} was given")
        if self.average is not None and not 0 <= self.average < 1:
            raise ValueError(f"average of DIP lies in [0, 1); {self.average} was given")


# Ulyanov, Vedaldi and Lempitsky, CVPR 2018, and the notebooks of their code.
UNIVERSAL = DIPSettings(
    lr=0.01, jitter=0.03, average=0.0, skip=4, upsampling="bilinear", stop="never", window=100, patience=1000
)
OFFICIAL = {
    "super-resolution x4": DIPSettings(steps=2000, jitter=0.03),
    "super-resolution x8": DIPSettings(steps=4000, jitter=0.05),
    "denoising": DIPSettings(steps=3000, jitter=1 / 30, average=0.99),
    "inpainting": DIPSettings(steps=6001, jitter=0.03, skip=128, upsampling="nearest"),
}


def official(operator: LinearOperator | None) -> str:
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


def official_steps(operator: LinearOperator | None, noise_std: float | None) -> int:
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
    given: DIPSettings, preset: Preset, noise_std: float | None = 0.0, operator: LinearOperator | None = None
) -> DIPSettings:
    """Return the settings with nothing left open, the rule behind ``auto`` included.

    ``paper`` is the official schedule, without early stopping. ``fast`` takes an eighth of the official steps for
    exact measurements, and stops at the noise level or, where that is unknown, at the lowest variance.

    Example:
        >>> resolve_dip(DIPSettings(), "paper").steps, resolve_dip(DIPSettings(), "fast").steps
        (2000, 250)
        >>> resolve_dip(DIPSettings(stop="auto"), "fast", noise_std=10 / 255).stop
        'noise'
    """
    if preset not in get_args(Preset):
        raise ValueError(f"preset is fast or paper; {preset!r} was given")
    base = replace(UNIVERSAL, **_settled(OFFICIAL[official(operator)]))
    if preset == "paper":
        base = replace(base, steps=official_steps(operator, noise_std))
    else:
        base = replace(base, steps=(base.steps or 1) // SHORT, stop="auto", window=25, patience=100)
    settings = replace(base, **_settled(given))
    if settings.stop == "auto":
        settings = replace(settings, stop="variance" if noise_std is None else "noise" if noise_std else "never")
    if settings.stop == "noise" and not noise_std:
        raise ValueError("DIP's stop noise needs a noise_std above 0; choose never or variance")
    return settings


def _settled(settings: DIPSettings) -> dict[str, Any]:
    return {key: value for key, value in asdict(settings).items() if value is not None}


class DIP(pl.LightningModule):
    r"""Deep Image Prior: minimise :math:`|y - A f_w(u)|^2` over the weights w of an untrained network f.

    The input u is fixed noise, jittered in every evaluation. The network ends in a sigmoid; its output is brought to
    [-1, 1]. Each image has a network, an input and random numbers of its own, all from its seed, and its
    normalisation sees no other image: with y in float64 several images side by side are the images one at a time. In
    float32 such paths part within a few evaluations, because weights ahead of a normalisation have gradients that are
    nothing but rounding, of which Adam makes full steps; that is DIP itself, and its results scatter accordingly.

    Example:
        >>> from iagan_lightning import adapt
        >>> from iagan_lightning.reconstruction import quiet_trainer
        >>> A = BicubicDownsampling((3, 16, 16), scale=4)
        >>> module = DIP(settings=DIPSettings(steps=2))
        >>> module.begin(A(torch.zeros(1, 3, 16, 16)), A)
        >>> adapt(module, quiet_trainer(accelerator="cpu")).results["dip"].shape
        torch.Size([1, 3, 16, 16])

    Args:
        preset: ``paper`` for the official schedule, ``fast`` for a shortened one.
        settings: what replaces the preset's settings.

    Attributes:
        results: ``{"dip": (B, C, H, W)}`` when the fit has ended.
        objective, evaluations: of each image, ``(B,)``, under the key ``dip``.
        seconds: wall time, setting up included, under the key ``dip``.
        settings: as they were resolved for the measurements at hand.
        title: ``DIP``, or ``DIP (short)`` where the schedule is shorter than the official one.

    Source: Ulyanov, Vedaldi and Lempitsky, Deep Image Prior, CVPR 2018. There the objective is taken on [0, 1], a
    quarter of this one, which Adam does not notice.
    """

    y: Tensor
    inputs: Tensor
    spent: Tensor
    rows: Tensor
    fits = ("dip",)

    def __init__(self, preset: Preset = "fast", settings: DIPSettings = DIPSettings()) -> None:
        super().__init__()
        self.preset, self.given = preset, settings
        self.weights: nn.ParameterList = nn.ParameterList()

    def begin(
        self,
        y: Tensor,
        operator: LinearOperator,
        noise_std: float | None = 0.0,
        seeds: int | Sequence[int] = 0,
        names: Sequence[str] | None = None,
    ) -> None:
        """Take new measurements and forget everything about the last ones; arguments as in ``IAGAN.begin``.

        Raises:
            ValueError: when shapes, counts or settings do not fit together.
        """
        self.seeds, self.names = check_problem(y, operator, noise_std, seeds, names)
        self.register_buffer("y", y.detach().clone(), persistent=False)
        self.operator, self.noise_std = operator, noise_std
        self.settings = resolve_dip(self.given, self.preset, noise_std, operator)
        short = (self.settings.steps or 0) < official_steps(operator, noise_std)
        self.title = "DIP (short)" if short else "DIP"
        self.results: dict[str, Tensor] = {}
        self.objective: dict[str, Tensor] = {}
        self.evaluations: dict[str, Tensor] = {}
        self.seconds: dict[str, float] = {}
        self.enter("dip")

    def enter(self, stage: str) -> None:
        """Draw every image's network and input anew."""
        self._entered = time.perf_counter()
        channels, height, width = self.operator.image_shape
        dtype = torch.float64 if self.y.dtype in (torch.float64, torch.complex128) else torch.float32
        networks, inputs = [], []
        self._random = [torch.Generator().manual_seed(derived_seed(seed, "dip")) for seed in self.seeds]
        for random in self._random:
            inputs.append(torch.rand(INPUTS, height, width, generator=random) * INPUT_SCALE)
            with torch.random.fork_rng(devices=[]):  # PyTorch's initialisation has no generator of its own
                torch.manual_seed(int(torch.randint(2**62, (), generator=random)))
                networks.append(
                    SkipNetwork(
                        INPUTS,
                        channels,
                        skip=self.settings.skip or 4,
                        levels=levels_for(height, width),
                        upsampling=self.settings.upsampling or "bilinear",
                    ).to(dtype)
                )
        self.network = networks[0].requires_grad_(False)
        device = self.y.device
        stacks = zip(*(network.parameters() for network in networks), strict=True)
        self.weights = nn.ParameterList(nn.Parameter(torch.stack(same).detach().to(device)) for same in stacks)
        self.network.to(device)
        self.register_buffer("inputs", torch.stack(inputs).to(device, dtype), False)
        self.register_buffer("spent", torch.zeros(len(self.y), dtype=torch.long, device=device), False)
        self.register_buffer("rows", torch.arange(len(self.y), device=device), False)  # images that are still fitted
        self.fitted = list(range(len(self.y)))  # the same, known without waiting for the device
        self._images: Tensor | None = None  # the latest image of each, (B, C, H, W)
        self._output: Tensor | None = None  # the running mean of them
        self._best: tuple[Tensor, Tensor, Tensor] | None = None  # variance, when, and output then
        self._variance = MovingVariance(self.settings.window or 2)

    def forward(self) -> Tensor:
        """Return images ``(P, C, H, W)`` in [-1, 1] of those still fitted, their inputs freshly jittered; one call."""
        shape = self.inputs.shape[1:]
        noise = torch.stack([torch.randn(shape, generator=self._random[i]) for i in self.fitted]).to(self.inputs)
        names = [name for name, _ in self.network.named_parameters()]
        inputs, stacks = self.inputs, dict(zip(names, self.weights, strict=True))
        if len(self.fitted) < len(self.y):
            inputs, stacks = inputs[self.rows], {name: w[self.rows] for name, w in stacks.items()}
        images = call_stacked(self.network, stacks, inputs + (self.settings.jitter or 0.0) * noise)
        return images.to(inputs.dtype) * 2 - 1

    def misfit(self, images: Tensor, y: Tensor) -> Tensor:
        r"""Return :math:`|y - A x|^2 / m` for each image, ``(P,)``."""
        return squared_errors(self.operator, images, y).sum(1) / self.operator.num_measurements

    def training_step(self, batch: Any = None, batch_idx: int = 0) -> Tensor:
        """Evaluate the objective once; the batch of the data loader is only a step counter."""
        images = self()
        objective = self.misfit(images, self.y[self.rows])
        self._follow(images.detach(), objective.detach(), batch_idx)
        return objective.sum()

    @torch.no_grad()
    def _follow(self, images: Tensor, objective: Tensor, step: int) -> None:
        """Average the outputs, and let images leave that the rule ends: their outputs stay as they are."""
        rows, past = self.rows, self.settings.average or 0.0
        self.spent[rows] += 1
        if self._images is None or self._output is None:
            self._images, self._output = images.clone(), images.clone()
        else:
            self._images[rows] = images
            self._output[rows] = past * self._output[rows] + (1 - past) * images
        if self.settings.stop == "noise":
            going_on = objective > noise_power(self.noise_std or 0.0, self.y.is_complex())
        elif self.settings.stop == "variance":
            going_on = self._variance_may_fall(step)[rows]
        else:
            return
        self.rows = rows[going_on]
        self.fitted = self.rows.tolist()

    def _variance_may_fall(self, step: int) -> Tensor:
        assert self._images is not None and self._output is not None
        variance = self._variance.push(self._images)
        if variance is None:
            return torch.ones(len(self.y), dtype=torch.bool, device=self.y.device)
        if self._best is None:
            self._best = variance, torch.full_like(self.spent, step), self._output.clone()
        lowest, when, output = self._best
        fitted = torch.zeros(len(self.y), dtype=torch.bool, device=self.y.device)
        fitted[self.rows] = True
        lower = (variance < lowest) & fitted
        self._best = (
            torch.where(lower, variance, lowest),
            torch.where(lower, step, when),
            torch.where(lower[:, None, None, None], self._output, output),
        )
        return step - self._best[1] < (self.settings.patience or 1)

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        """End the fit when every image has ended."""
        if not self.fitted:
            self.trainer.should_stop = True

    def configure_optimizers(self) -> Optimizer:
        """Return a fresh Adam over all weights."""
        return torch.optim.Adam(
            list(self.weights), lr=self.settings.lr or 0.01, fused=self.device.type in ("cpu", "cuda")
        )

    @torch.no_grad()
    def on_train_epoch_end(self) -> None:
        """Keep the outputs, those of lowest variance where that is the rule."""
        output = self._output if self._best is None else self._best[2]
        assert output is not None
        self.results["dip"] = output
        self.objective["dip"] = self.misfit(output, self.y).cpu()
        if not bool(self.objective["dip"].isfinite().all()):
            raise RuntimeError("the objective of DIP is infinite or not a number")
        self.evaluations["dip"] = self.spent.cpu()
        self.seconds["dip"] = time.perf_counter() - self._entered
