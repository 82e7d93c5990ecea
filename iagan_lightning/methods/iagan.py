"""The LightningModule of one image, or of a few independent ones, and the two fits that reconstruct it.

The module owns a copy of the generator, the measurements and the operator. Its training step is one evaluation of
the objective; everything else (keeping the best iterate, stopping, back-projection, metrics, files) is a callback.
"""

from __future__ import annotations

import copy
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from iagan_lightning.generators import Generator, full_resolution_weights
from iagan_lightning.methods.freed_memory import keep_freed_memory
from iagan_lightning.methods.problem import check_problem, derived_seed, squared_errors
from iagan_lightning.methods.settings import HELD_OUT, Preset, Stage, StageName, resolve
from iagan_lightning.methods.stacking import call_stacked
from iagan_lightning.operators import LinearOperator
from iagan_lightning.optim import BatchedLBFGS

if TYPE_CHECKING:
    from iagan_lightning.methods.dip import DIP

METHOD: dict[StageName, str] = {"latent": "csgm", "joint": "iagan"}
FitName = Literal["latent", "probe", "joint"]  # a probe finds out how long the joint stage should last


@dataclass
class Iterate:
    """What one forward pass gave: a consistent set of objective, image, latent and weights for P problems."""

    objective: Tensor  # (P,)
    image: Tensor  # (P, C, H, W)
    z: Tensor  # (P, *latent_shape)
    weights: list[Tensor]  # (P, ...) each; empty in the latent stage

    @property
    def tensors(self) -> list[Tensor]:
        """All of them, the first axis of each counting problems."""
        return [self.objective, self.image, self.z, *self.weights]

    def map(self, change: Callable[[Tensor], Tensor]) -> Iterate:
        """Return the iterate with every tensor changed."""
        return Iterate(change(self.objective), change(self.image), change(self.z), [change(w) for w in self.weights])


class IAGAN(pl.LightningModule):
    r"""Image-adaptive reconstruction of images from :math:`y = A x + e`.

    Latent stage (CSGM, Eq. 2): minimise :math:`|y - A G(z)|^2` over z, the generator frozen. Joint stage (IAGAN,
    Eq. 3): minimise :math:`|y - A G_\theta(z)|^2` over z and all weights, from the best z, with a fresh optimiser.
    The objective of an image is divided by its number of measurements and summed over the images of a batch, so no
    image's path depends on its companions.

    Use ``reconstruct`` for the whole method, or bring a Trainer and callbacks::

        module = IAGAN(generator, preset="fast")
        module.begin(y, A, noise_std=0.0, seeds=[0])
        adapt(module, trainer)
        module.results["iagan"]  # (B, C, H, W)

    Args:
        generator: the pre-trained G; it is copied, never changed.
        preset: ``fast``, or ``paper`` for the published schedule. Fills what ``latent`` and ``joint`` leave open.
        latent, joint: settings of the two stages.
        memory_format: ``channels_last`` is faster for convolutions, ``contiguous`` is PyTorch's plain layout.
        compile: let ``torch.compile`` translate the generator before the first evaluation of each stage. That takes
            longer than an image with the fast preset, and is meant for many images on a GPU; on a CPU it gains nothing.

    Attributes:
        results: reconstructions by method name, ``(B, C, H, W)`` each: ``csgm``, ``iagan`` and what callbacks add.
        objective: the objective of each result by stage, ``(B,)``.
        evaluations: evaluations spent by stage, ``(B,)``, all restarts together.
        seconds: wall time by stage, setting it up included.
        titles: what results are called where their usual titles would mislead (filled by callbacks).
        metrics: one dictionary per image, method name to metrics (filled by a callback).
        hparams: preset and settings of both stages as they were resolved for the measurements at hand.
        stage: ``latent``, ``joint``, or ``probe`` while a joint stage on a part of the measurements finds out how many
            evaluations explain the held-out rest best.
        energy: :math:`|y|^2 / m`, ``(B,)``: an objective over it is a squared relative residual.
        evaluation: the latest evaluation, for callbacks. Rows that are not active may be those of an earlier one.
        active: ``(P,)``, False for problems whose stage has ended.
        rows: indices of the problems that are still evaluated; None for all of them.
        validation: in a probe, ``(P,)`` misfits of the held-out measurements.
        limit: ``(B,)`` evaluations of the joint stage that a probe found best; None without a probe.

    Source: Abu Hussein, Tirer and Giryes, Image-Adaptive GAN based Reconstruction, AAAI 2020.
    """

    z: nn.Parameter
    y: Tensor
    energy: Tensor
    active: Tensor
    spent: Tensor
    held: Tensor | None

    def __init__(
        self,
        generator: Generator,
        preset: Preset = "fast",
        latent: Stage = Stage(),  # noqa: B008 - frozen dataclass
        joint: Stage = Stage(),  # noqa: B008
        memory_format: Literal["channels_last", "contiguous"] = "channels_last",
        compile: bool = False,  # noqa: A002 - PyTorch's name for it
    ) -> None:
        super().__init__()
        own = copy.deepcopy(generator).requires_grad_(False).eval()
        self.generator = own.to(memory_format=getattr(torch, f"{memory_format}_format", torch.channels_last))
        self._generate = torch.compile(call_stacked) if compile else call_stacked
        self.preset, self.given = preset, {"latent": latent, "joint": joint}
        self.weights: nn.ParameterList = nn.ParameterList()
        self.adapted: list[str] = []
        self._full_resolution: frozenset[str] | None = None
        self.stages: dict[StageName, Stage] = {}
        self.stage: FitName = "latent"

    # One image, from the start ---------------------------------------------------------------------------------

    def begin(
        self,
        y: Tensor,
        operator: LinearOperator,
        noise_std: float | None = 0.0,
        seeds: int | Sequence[int] = 0,
        truth: Tensor | None = None,
        names: Sequence[str] | None = None,
    ) -> None:
        """Take new measurements and forget everything about the last ones, adapted weights included.

        Args:
            y: measurements ``(B, *operator.measurement_shape)`` of images in [-1, 1].
            operator: A.
            noise_std: standard deviation of the noise in y, on the [0, 1] scale; None where it is unknown.
            seeds: one per image for the starting latents; an int s means s, s + 1, ...
            truth: true images ``(B, C, H, W)``, for callbacks that compare.
            names: one per image, for callbacks that write.

        Raises:
            ValueError: when shapes, counts or the generator's image shape do not fit together.
        """
        if operator.image_shape != self.generator.image_shape:
            raise ValueError(
                f"the generator makes images of shape {self.generator.image_shape}, the operator takes "
                f"{operator.image_shape}: give both the same image_shape"
            )
        seeds, names = check_problem(y, operator, noise_std, seeds, names)
        self.register_buffer("y", y.detach().clone(), persistent=False)
        energy = y.detach().abs().square().flatten(1).sum(1) / operator.num_measurements
        self.register_buffer("energy", energy, persistent=False)
        self.operator, self.seeds, self.names, self.truth = operator, seeds, names, truth
        self.noise_std = None if noise_std is None else float(noise_std)
        self.stages = self.resolve(noise_std, operator)
        self.save_hyperparameters(
            {"preset": self.preset, **{name: asdict(stage) for name, stage in self.stages.items()}}, logger=False
        )
        self.results: dict[str, Tensor] = {}
        self.titles: dict[str, str] = {}
        self.objective: dict[str, Tensor] = {}
        self.evaluations: dict[str, Tensor] = {}
        self.seconds: dict[str, float] = {}
        self.limit: Tensor | None = None
        self.kept: dict[StageName, Iterate] = {}
        self.metrics: list[dict[str, dict[str, float]]] = []
        self.enter("latent")

    def resolve(self, noise_std: float | None, operator: LinearOperator | None = None) -> dict[StageName, Stage]:
        """Return the settings of both stages with nothing left open."""
        longer = operator is not None and operator.compressed_sensing
        schedule = self.generator.schedule
        return {name: resolve(name, self.given[name], self.preset, noise_std, longer, schedule) for name in METHOD}

    @property
    def fits(self) -> list[FitName]:
        """The fits that are made one after another."""
        return ["latent", "probe", "joint"] if self.stages["joint"].stop == "held-out" else ["latent", "joint"]

    def enter(self, stage: FitName) -> None:
        """Set up the variables of a stage: random latents, or the best latent and the pre-trained weights."""
        self.stage, self._entered = stage, time.perf_counter()
        parameters = list(self.generator.parameters())
        batch = len(self.y)
        if stage == "latent":
            self.starts = self.settings.restarts or 1
            draws = [self.generator.sample_latent(self.starts, derived_seed(seed, "latent")) for seed in self.seeds]
            spread = 1.0 if self.settings.spread is None else self.settings.spread
            self.z = nn.Parameter(torch.cat(draws).to(parameters[0]) * spread)
            self.weights, self.adapted = nn.ParameterList(), []
        else:
            self.starts = 1
            self.z = nn.Parameter(self.kept["latent"].z.to(parameters[0]).clone())
            # One image's weights keep their memory format. Several lie side by side as one grouped convolution, for
            # which channels_last brings nothing, and in float64 wrong gradients of the weights (seen in torch 2.15).
            plain = torch.preserve_format if batch == 1 else torch.contiguous_format
            pretrained = dict(self.generator.named_parameters())
            self.adapted = [name for name in pretrained if name not in self._frozen()]
            own = [pretrained[name].detach()[None] for name in self.adapted]
            stacks = [w.expand(batch, *w.shape[1:]).clone(memory_format=plain) for w in own]
            self.weights = nn.ParameterList([nn.Parameter(w) for w in stacks])
        # Buffers, so that they live beside the objective and no step waits for the device.
        self.register_buffer("active", torch.ones(len(self.z), dtype=torch.bool), persistent=False)
        self.register_buffer("spent", torch.zeros(batch, dtype=torch.long), persistent=False)
        held = None
        if stage == "probe":
            masks = [self.operator.held_out(HELD_OUT, derived_seed(seed, "held-out")) for seed in self.seeds]
            held = torch.stack(masks).flatten(1).to(self.z.device)
        self.register_buffer("held", held, persistent=False)
        self.rows: Tensor | None = None
        self.evaluation: Iterate | None = None
        self.validation: Tensor | None = None

    def _frozen(self) -> frozenset[str]:
        """Return the weights that keep their pre-trained values."""
        if self.settings.frozen != "full-resolution":
            return frozenset()
        if self._full_resolution is None:
            self._full_resolution = full_resolution_weights(self.generator)
        return self._full_resolution

    @property
    def settings(self) -> Stage:
        """Settings of the stage at hand, nothing left open."""
        return self.stages["latent" if self.stage == "latent" else "joint"]

    # One evaluation --------------------------------------------------------------------------------------------

    def forward(self, rows: Tensor | None = None) -> Tensor:
        """Return the images at the current variables, ``(P, C, H, W)``; one generator call, whatever P is.

        Args:
            rows: indices of the problems whose images are wanted; all by default.
        """
        z: Tensor = self.z
        stacks: list[Tensor] = list(self.weights)
        if rows is not None:
            z, stacks = z[rows], [w[rows] for w in stacks]
        images: Tensor = self._generate(self.generator, dict(zip(self.adapted, stacks, strict=True)), z)
        return images

    def squares(self, images: Tensor, rows: Tensor | None = None) -> Tensor:
        """Return the squared error of every measurement of each problem, ``(P, m)``."""
        every = torch.arange(len(self.z), device=images.device) if rows is None else rows
        return squared_errors(self.operator, images, self.y[every // self.starts])

    def misfit(self, images: Tensor, rows: Tensor | None = None) -> Tensor:
        r"""Return :math:`|y - A x|^2 / m` for each problem, ``(P,)``."""
        return self.squares(images, rows).sum(1) / self.operator.num_measurements

    def training_step(self, batch: Any = None, batch_idx: int = 0) -> Tensor:
        """Evaluate the objective once; the batch of the data loader is only a step counter."""
        rows = self.rows
        precise = self.settings.optimizer == "lbfgs"  # a line search in half precision sees only rounding
        with torch.autocast(self.device.type, enabled=False) if precise else torch.enable_grad():
            images = self(rows)
        squares = self.squares(images, rows)
        if self.held is None:
            objective = squares.sum(1) / self.operator.num_measurements
        else:
            held = self.held if rows is None else self.held[rows]
            kept_back = held.sum(1)
            objective = squares.masked_fill(held, 0).sum(1) / (self.operator.num_measurements - kept_back)
            now = squares.detach().masked_fill(~held, 0).sum(1) / kept_back
            self.validation = _into(self.validation, rows, now)
        last = self.evaluation
        self.evaluation = self._iterate(
            _into(None if last is None else last.objective, rows, objective.detach()),
            _into(None if last is None else last.image, rows, images.detach()),
        )
        self.spent += self.active.unflatten(0, (len(self.y), -1)).sum(1)
        return objective.sum()

    def configure_optimizers(self) -> Optimizer:
        """Return a fresh optimiser over the variables of the stage."""
        parameters = [self.z, *self.weights]
        if self.settings.optimizer == "lbfgs":
            return BatchedLBFGS(parameters, values=self._values, history_size=self.settings.history or 20)
        groups = [{"params": [self.z], "lr": self.settings.lr}]
        if len(self.weights):
            groups.append({"params": list(self.weights), "lr": self.settings.lr_weights})
        # Fused: one pass over all weights instead of a dozen small operations on each of them.
        betas = (self.settings.beta1, self.settings.beta2)
        return torch.optim.Adam(
            groups,
            betas=betas,  # type: ignore[arg-type] # nothing is left open
            fused=self.device.type in ("cpu", "cuda"),
        )

    def _iterate(self, objective: Tensor, image: Tensor) -> Iterate:
        return Iterate(objective, image, self.z, list(self.weights)).map(Tensor.detach)

    def _values(self) -> Tensor:
        assert self.evaluation is not None
        return self.evaluation.objective

    # The end of a stage ----------------------------------------------------------------------------------------

    def keep(self, iterate: Iterate) -> None:
        """End the stage with an iterate: its best restart becomes the result, and where the next stage begins.

        A probe leaves nothing but the number of its evaluations.
        """
        self.evaluations[self.stage] = self.spent.cpu()
        self.seconds[self.stage] = time.perf_counter() - self._entered
        if self.stage == "probe":
            return
        lowest, best = iterate.objective.nan_to_num(nan=torch.inf).unflatten(0, (len(self.y), -1)).min(1)
        if not bool(lowest.isfinite().all()):
            raise RuntimeError(f"the objective of the {self.stage} stage is infinite or not a number")
        rows = best + self.starts * torch.arange(len(best), device=best.device)
        kept = iterate.map(lambda tensor: tensor[rows])
        self.kept[self.stage] = kept
        self.objective[self.stage] = kept.objective.cpu()
        self.results[METHOD[self.stage]] = kept.image

    def on_train_epoch_end(self) -> None:
        """Without a callback that kept the best iterate, the last one is the result."""
        if self.stage not in self.evaluations:
            with torch.no_grad():
                image = self()
                self.keep(self._iterate(self.misfit(image), image))


Module = TypeVar("Module", "IAGAN", "DIP")


def adapt(module: Module, trainer: pl.Trainer) -> Module:
    """Run all stages of a module that has begun: fits on one Trainer, each one epoch of its steps.

    ``global_step`` goes on through all; the optimiser is fresh in each. The Trainer works on one device: gradients
    of different images must never be averaged.
    """
    check_precision(trainer.precision)
    keep_freed_memory()
    for stage in module.fits:
        module.enter(stage)
        trainer.fit_loop.max_epochs = trainer.current_epoch + 1
        try:
            with warnings.catch_warnings():
                # The generator stays in evaluation mode on purpose: no image may see another's statistics.
                warnings.filterwarnings("ignore", message="Found .* module.s. in eval mode at the start of training")
                # https://github.com/Lightning-AI/pytorch-lightning/issues/21326: Lightning with newer PyTorch
                warnings.filterwarnings("ignore", message=".isinstance.treespec, LeafSpec.. is deprecated")
                trainer.fit(module, train_dataloaders=range(module.settings.steps or 1))
        except SystemExit as stop:  # what Lightning makes of Ctrl-C
            if isinstance(stop.__context__, KeyboardInterrupt):
                raise KeyboardInterrupt from stop
            raise
    return module


def check_precision(precision: object) -> None:
    """Raise ValueError for precisions that would round the latents and weights themselves."""
    if str(precision) in ("16-true", "bf16-true", "transformer-engine", "transformer-engine-float16"):
        raise ValueError(
            f"precision {precision} rounds the latents and weights that are being fitted: choose 32-true, 64-true, or "
            "bf16-mixed for half precision in the generator alone"
        )


def _into(last: Tensor | None, rows: Tensor | None, now: Tensor) -> Tensor:
    """Return what the last evaluation gave, with the rows that were evaluated now replaced."""
    return now if last is None or rows is None else last.index_copy(0, rows, now)
