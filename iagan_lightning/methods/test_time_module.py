"""What every method is: a LightningModule of one image, or of a few independent ones, and a plan of fits.

The module owns the measurements, the operator and a copy of the generator. Its training step is one evaluation of the
objective; everything else (keeping the best iterate, stopping, back-projection, metrics, files) is a callback.
"""

from __future__ import annotations

import copy
import math
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from iagan_lightning.checks import check_choice, check_seeds
from iagan_lightning.generators import Generator, load_generator
from iagan_lightning.methods.checkpoints import make_room, restore, store
from iagan_lightning.methods.fit import DRAW, ENCODER, MEAN, Fit, Iterate, space_of
from iagan_lightning.methods.inputs import measurements_of, require_operator, truths_of
from iagan_lightning.methods.plan import check_feasible, check_plan
from iagan_lightning.methods.precision import check_dtypes
from iagan_lightning.methods.presets import Kind, Preset
from iagan_lightning.methods.seeds import derived_seed
from iagan_lightning.methods.settings import FitSettings
from iagan_lightning.methods.stacking import call_stacked
from iagan_lightning.methods.units import power
from iagan_lightning.methods.views import IDENTITY, VIEWS, seen, views_of
from iagan_lightning.operators import Operator
from iagan_lightning.operators.noise import check_noise_std
from iagan_lightning.optim import BatchedLBFGS

MEMORY_FORMATS = {"channels_last": torch.channels_last, "contiguous": torch.contiguous_format}
HELD_OUT = 0.05  # share of the measurements that a probe is not shown

# Negated, because jsonargparse reads blocks for type checkers too: for a class type it would read weights as YAML.
if not TYPE_CHECKING:  # noqa: SIM108 - one line would be no type
    GeneratorLike = dict[str, Any] | str  # what a command line can say
else:
    GeneratorLike = Generator | Mapping[str, Any] | str | os.PathLike[str]


class TestTimeModule(pl.LightningModule):
    r"""Reconstruction of images from :math:`y = A(x) + e` by fits at test time.

    A subclass says which fits, one after another, in ``configure_fits``; what is added to the misfit, if anything, in
    ``penalty``. One ``training_step`` is one evaluation of

    .. math:: |y - A(x)|^2 / m + \mathrm{penalty},

    summed over the images of a batch, so no image's path depends on its companions. Where measurements are much smaller
    or larger than pictures are, each objective is minimised in a unit of its own, for its path not to depend on the
    scale of A.

    Example:
        >>> from iagan_lightning import Fit, FitSettings, reconstruct
        >>> from iagan_lightning.generators import BEGAN
        >>> from iagan_lightning.operators import Identity
        >>> class Search(TestTimeModule):
        ...     def configure_fits(self):
        ...         return [Fit("search", FitSettings("lbfgs", steps=5), result="found")]
        >>> result = reconstruct(torch.zeros(1, 3, 16, 16), Identity((3, 16, 16)), Search(BEGAN(16, 4, 8)))
        >>> tuple(result["found"].shape), result.evaluations["search"].tolist()
        ((1, 3, 16, 16), [5])

    Args:
        generator: the pre-trained G, or what ``load_generator`` takes; it is copied, never changed. None for a method
            that brings a network of its own.
        memory_format: ``channels_last`` is faster for convolutions, ``contiguous`` is PyTorch's plain layout.
        compile: let ``torch.compile`` translate the generator before the first evaluation of each fit. That takes
            longer than an image with the fast preset, and is meant for many images on a GPU; on a CPU it gains nothing.
        logged: also hand objective, misfit and residual of every evaluation to Lightning (``self.log``), for loggers
            and callbacks of its own. A fit is one epoch, so Lightning's EarlyStopping sees only its end.

    Attributes:
        fits: the plan, as it was resolved for the measurements at hand, in all views.
        views: the names of the views.
        current: the fit at hand; ``stage`` is its name and ``settings`` are its settings.
        results: reconstructions by name, ``(B, C, H, W)`` each: those of the fits, and what callbacks add.
        objective, misfits: of each result by fit, ``(B,)``; they differ by the penalty.
        evaluations: evaluations spent by fit, ``(B,)``, all restarts together.
        seconds: wall time by fit, setting it up included.
        broken: by fit, which images' last evaluation was infinite or no number, ``(B,)``; the best before it was kept.
        titles: what results are called where their usual titles would mislead.
        metrics: one dictionary per image, result to metrics (filled by a callback).
        hparams: the constructor's arguments; of all fits the settings as resolved for the measurements at hand.
        energy: :math:`|y|^2 / m`, ``(B,)``: a misfit over it is a squared relative residual.
        unit: ``(B,)`` of which objectives are minimised as multiples; None where all are 1.
        evaluation: the latest evaluation, for callbacks. Rows that are not active may be those of an earlier one.
        best: the best evaluation of the fit so far, where a callback keeps it.
        kept: the iterate that each fit with a result ended with.
        active: ``(P,)``, False for problems that have ended.
        rows: indices of the problems that are still evaluated; None for all of them.
        validation: in a probe, ``(P,)`` misfits of the held-out measurements.
        uncertainty: standard deviation of the error of the mean of several views, ``(B, 1, H, W)`` on the [0, 1] scale
            (filled by a callback); None with one view.
        calibrated: whether the uncertainty has the factor that was measured for the prior, the kind of measurements and
            what was done.
        limit: ``(B,)`` evaluations that a probe found best; None without a probe.
        fitted_on: the device of the latest fit, from which Lightning takes the module when that has ended.
    """

    __test__ = False  # for pytest, which would take it for a test
    z: nn.Parameter | None
    y: Tensor
    energy: Tensor
    unit: Tensor | None
    active: Tensor
    spent: Tensor
    held: Tensor | None
    truth: Tensor | None
    preset: Preset | None = None
    preset_views = 1  # what ``views`` is unless told otherwise

    def __init__(
        self,
        generator: GeneratorLike | None = None,
        memory_format: Literal["channels_last", "contiguous"] = "channels_last",
        compile: bool = False,  # noqa: A002 - PyTorch's name for it
        logged: bool = False,
    ) -> None:
        super().__init__()
        check_choice("memory_format", memory_format, MEMORY_FORMATS)
        if generator is not None:
            given = generator if isinstance(generator, Generator) else load_generator(generator)
            # Weights that came frozen stay frozen; the copy's own flags serve the fits.
            self.trainable = frozenset(name for name, p in given.named_parameters() if p.requires_grad)
            own = copy.deepcopy(given).requires_grad_(False).eval()
            self.generator = own.to(memory_format=MEMORY_FORMATS[memory_format])
        # What a checkpoint builds the module with again; how the generator is built it says itself.
        self.save_hyperparameters(ignore=["generator"], logger=False)
        self.operator: Any = None
        self.logged = logged
        self._generate = torch.compile(call_stacked) if compile else call_stacked
        self.weights: nn.ParameterList = nn.ParameterList()
        self.adapted: list[str] = []
        self.fits: list[Fit] = []
        self.views: tuple[str, ...] = (IDENTITY,)
        self.uncertainty: Tensor | None = None
        self.calibrated = False
        self.fitted_on = torch.device("cpu")

    # The plan ----------------------------------------------------------------------------------------------------

    def configure_fits(self) -> list[Fit]:
        """Return the fits to make, one after another; ``operator`` and ``noise_std`` (None: unknown) are known."""
        raise NotImplementedError(f"{type(self).__name__} does not define configure_fits")

    def plan(
        self, noise_std: float | None, operator: Operator | None, views: int | Sequence[str] | None = None
    ) -> list[Fit]:
        """Return the fits for measurements of this kind, in all views.

        Raises:
            ValueError: for fits that cannot be made.
        """
        self.train(self.training)  # which weights may adapt is seen in what the generator does in evaluation mode
        self.operator = operator
        self.noise_std = None if noise_std is None else float(noise_std)
        self.views = views_of(self.preset_views if views is None else views)
        fits = list(self.configure_fits())
        fits = seen(fits, self.views)
        check_plan(fits)
        check_feasible(fits, self)
        return fits

    def overrides(self, name: str) -> bool:
        """Tell whether the method has a member of its own in place of the one here."""
        return getattr(type(self), name) is not getattr(TestTimeModule, name)

    def is_calibrated(self, *kinds: Kind) -> bool:
        """Tell whether fits of these kinds are those with which figures of priors were measured (``Calibration``)."""
        return False

    @property
    def can_encode(self) -> bool:
        """Whether a fit may begin with ``encoder``: the generator has one, and A a plain reconstruction to show it."""
        encodes = self.image_shape is not None and self.generator.encoder is not None
        return encodes and (self.operator is None or type(self.operator).naive is not Operator.naive)

    @property
    def image_shape(self) -> tuple[int, int, int] | None:
        """Shape of the generator's images; None for a method that makes images of any shape."""
        return self.generator.image_shape if "generator" in self._modules else None

    # One image, from the start -----------------------------------------------------------------------------------

    def begin(
        self,
        y: Tensor | np.ndarray,
        operator: Operator,
        noise_std: float | None = 0.0,
        seeds: int | Sequence[int] = 0,
        truth: Tensor | np.ndarray | None = None,
        names: Sequence[str] | None = None,
        quantisation: float = 0.0,
        views: int | Sequence[str] | None = None,
    ) -> None:
        """Take new measurements and forget everything about the last ones, adapted weights included.

        Args:
            y: measurements ``(B, *operator.measurement_shape)`` of images in [-1, 1], no whole numbers. What stands
                where A measures nothing counts as 0.
            operator: A.
            noise_std: standard deviation of the noise in y, on the [0, 1] scale; None where it is unknown.
            seeds: one per image for the starting latents; an int s means s, s + 1, ...
            truth: true images ``(B, C, H, W)``, for callbacks that compare.
            names: one per image, for callbacks that write.
            quantisation: standard deviation of the rounding of y, on the [0, 1] scale: of 8 bits 1 / 255 / sqrt(12).
                Where ``noise_std`` is 0 it bounds how closely is fitted, and regularises the pseudo-inverse of an
                ill-conditioned A, which amplifies it as it would noise.
            views: how often the plan is carried out, each time with the generator seen otherwise (``methods.views``),
                or the names of the views; None for as many as the preset has.

        Raises:
            ValueError: when shapes, counts or the generator's image shape do not fit together, and for values that are
                no measurements or images.
        """
        if self.image_shape not in (None, require_operator(operator).image_shape):
            raise ValueError(
                f"the generator makes images of shape {self.image_shape}, the operator takes "
                f"{operator.image_shape}: give both the same image_shape"
            )
        y = measurements_of(y, operator)
        for level in (noise_std, quantisation):
            if level is not None:
                check_noise_std(level)
        truth = None if truth is None else truths_of(truth, len(y), operator)
        self.seeds = check_seeds(seeds, len(y))
        self.names = [f"image-{i}" for i in range(len(y))] if names is None else list(names)
        if len(self.names) != len(y):
            raise ValueError(f"{len(y)} measurements came with {len(self.names)} names; one for each is needed")
        self.register_buffer("y", y.clone(), persistent=False)
        energy, unit = power(y, operator.num_measurements)
        self.register_buffer("energy", energy, persistent=False)
        self.register_buffer("unit", unit, persistent=False)
        self.register_buffer("truth", truth, persistent=False)
        self.quantisation = float(quantisation)
        self.fits = self.plan(noise_std, operator, views)
        settings = {fit.name: asdict(fit.settings) for fit in self.fits if fit.result is not None}
        self.save_hyperparameters({"preset": self.preset, **settings}, logger=False)
        self.results: dict[str, Tensor] = {}
        self.titles: dict[str, str] = {}
        self.objective: dict[str, Tensor] = {}
        self.misfits: dict[str, Tensor] = {}
        self.evaluations: dict[str, Tensor] = {}
        self.broken: dict[str, Tensor] = {}
        self.seconds: dict[str, float] = {}
        self.limit: Tensor | None = None
        self.kept: dict[str, Iterate] = {}
        self.metrics: list[dict[str, dict[str, float]]] = []
        self.uncertainty, self.calibrated = None, False
        self._adapted: dict[str, list[str]] = {}  # by fit, as all that a fit ends with
        self._carried: dict[str, dict[str, Tensor]] = {}  # weights that an earlier fit adapted and this one does not
        self.enter(self.fits[0].name)

    def enter(self, name: str) -> None:
        """Set up the variables of a fit.

        Raises:
            ValueError: for a module or a generator that was cast to half precision.
        """
        self._entered = time.perf_counter()
        self.current = next(fit for fit in self.fits if fit.name == name)
        self.kept.pop(name, None)  # of the last time that it was made
        check_dtypes(self)
        self.train(self.training)  # the generator in evaluation mode, whatever has been done to it
        self.start()
        # Buffers, so that they live beside the objective and no step waits for the device.
        active = torch.ones(len(self.y) * self.starts, dtype=torch.bool)
        self.register_buffer("active", active, persistent=False)
        self.register_buffer("spent", torch.zeros(len(self.y), dtype=torch.long), persistent=False)
        held = None
        if self.current.result is None:
            masks = [self.operator.held_out(HELD_OUT, derived_seed(seed, "held-out")) for seed in self.seeds]
            held = torch.stack(masks).flatten(1).to(self.y.device)
        self.register_buffer("held", held, persistent=False)
        self.rows: Tensor | None = None
        self.evaluation: Iterate | None = None
        self.best: Iterate | None = None
        self.validation: Tensor | None = None
        self._squares: tuple[Tensor, Tensor] | None = None

    def start(self) -> None:
        """Set ``starts``, ``z``, ``weights`` and ``adapted`` to where the fit at hand begins."""
        fit, batch = self.current, len(self.y)
        pretrained = dict(self.generator.named_parameters())
        like = next(iter(pretrained.values()))
        # Between two fits Lightning has taken the module to the CPU, and what was kept is where it was made.
        carried = {name: w.to(like) for name, w in self.weights_of(fit.init).items()}
        self.starts = 1
        space, self._centre = space_of(fit, self.fits), None
        if fit.init in (DRAW, ENCODER):
            self.starts = fit.settings.restarts
            draws = [self.generator.sample_latent(self.starts, derived_seed(seed, fit.name)) for seed in self.seeds]
            z, origin = torch.cat(draws).to(like) * fit.settings.spread, "z"
            if fit.init == ENCODER:
                origin = self.generator.code_space
                if origin != "z":
                    z = call_stacked(self.generator, carried, z, to=origin).detach()
                z[:: self.starts] = self.encoded().to(like)
        elif fit.init == MEAN:
            origin = space if space in self.generator.centred else "z"
            z = like.new_zeros(batch, *self.generator.spaces[origin])
        else:
            z = self.kept[fit.init].z.to(like)
            origin = space_of(next(earlier for earlier in self.fits if earlier.name == fit.init), self.fits)
        if space != origin:
            with torch.no_grad():
                z = call_stacked(self.generator, carried, z, to=space, **_within(origin))
        if fit.radius is not None:
            self._centre = z.detach().clone()
        self.z = nn.Parameter(z.detach().clone(), requires_grad=fit.space is not None)
        # One image's weights keep their memory format. Several lie side by side as one grouped convolution, for
        # which channels_last brings nothing, and in float64 wrong gradients of the weights (seen in torch 2.15).
        plain = torch.preserve_format if batch == 1 else torch.contiguous_format
        self.adapted = [name for name in pretrained if fit.adapts(name) and name in self.trainable]
        self._adapted[fit.name] = self.adapted
        own = [carried[n] if n in carried else pretrained[n].detach()[None] for n in self.adapted]
        stacks = [w.detach().expand(batch, *w.shape[1:]).clone(memory_format=plain) for w in own]
        self.weights = nn.ParameterList([nn.Parameter(w) for w in stacks])
        self._carried[fit.name] = {n: w.detach() for n, w in carried.items() if n not in self.adapted}

    @torch.no_grad()
    def encoded(self) -> Tensor:
        """Return what the generator's encoder makes of the plain reconstructions of y, in its ``code_space``.

        Raises:
            ValueError: where generator or operator do not allow it.
        """
        plain = self.operator.naive(self.y)
        z = None if plain is None else self.generator.encode(VIEWS[self.current.view].undo(plain))
        if z is None or z.shape != (len(self.y), *self.generator.spaces[self.generator.code_space]):
            raise ValueError(f"the generator's encoder gives {None if z is None else tuple(z.shape)}, no latents")
        return z

    def weights_of(self, name: str) -> dict[str, Tensor]:
        """Return the adapted weights, ``(B, ...)`` each, that a fit ended with; none before it has."""
        if name not in self.kept:
            return {}
        return {**self._carried[name], **dict(zip(self._adapted[name], self.kept[name].weights, strict=True))}

    @property
    def stage(self) -> str:
        """Name of the fit at hand."""
        return self.current.name

    @property
    def settings(self) -> FitSettings:
        """Settings of the fit at hand."""
        return self.current.settings

    @property
    def is_first(self) -> bool:
        """Whether the fit at hand is the first of the plan."""
        return self.current is self.fits[0]

    @property
    def is_last(self) -> bool:
        """Whether the fit at hand is the last of the plan."""
        return self.current is self.fits[-1]

    def conclude(self) -> None:
        """End the plan with the fit at hand: the last one of its view, or any of the first view."""
        count = self.fits.index(self.current) + 1
        self.views = self.views[: max(1, count // self.fits_of_a_view)]
        self.fits = self.fits[:count]

    @property
    def fits_of_a_view(self) -> int:
        """How many fits are made in each view."""
        return len(self.fits) // len(self.views)

    @property
    def outcomes(self) -> list[str]:
        """Names of the results that the plan ends with, one for each view."""
        each = self.fits_of_a_view
        return [str(fit.result) for fit in self.fits[each - 1 :: each]]  # a plan whose last fit has none is refused

    @property
    def final(self) -> str:
        """Name of what the method is about: the last fit's result, or the mean of all views where there is one."""
        return f"{self.outcome}_mean" if f"{self.outcome}_mean" in self.results else self.outcomes[0]

    @property
    def outcome(self) -> str:
        """Name of the plan's last result, in whatever view it is made."""
        last = self.fits[self.fits_of_a_view - 1]
        return str(last.result).removesuffix(f"_{last.view}")

    def train(self, mode: bool = True) -> TestTimeModule:
        """Set the mode of the module; the generator stays as in evaluation, or images would see others' statistics."""
        super().train(mode)
        if self.image_shape is not None:
            self.generator.eval()
        return self

    # One evaluation ----------------------------------------------------------------------------------------------

    def latents(self, rows: Tensor | None = None) -> Tensor:
        """Return the latents in the fit's space, ``(P, *shape)``, kept within its radius."""
        assert self.z is not None
        z: Tensor = self.z if rows is None else self.z[rows]
        radius = self.current.radius
        if radius is None or self._centre is None:
            return z
        centre = self._centre.to(z) if rows is None else self._centre.to(z)[rows]
        away = (z - centre).flatten(1)
        bound = radius * centre.flatten(1).norm(dim=1)
        shrink = (bound / away.norm(dim=1).clamp(min=torch.finfo(z.dtype).tiny)).clamp(max=1)
        return centre + (shrink[:, None] * away).reshape(z.shape)

    def stacks(self, rows: Tensor | None = None) -> dict[str, Tensor]:
        """Return the weights that differ from the generator's, ``(P, ...)`` each, by name."""
        carried = {name: w.to(self.device) for name, w in self._carried[self.stage].items()}
        own = {**carried, **dict(zip(self.adapted, self.weights, strict=True))}
        return own if rows is None else {name: w[rows] for name, w in own.items()}

    def forward(self, rows: Tensor | None = None) -> Tensor:
        """Return the images at the current variables, ``(P, C, H, W)``; one generator call, whatever P is.

        Under autocast too they are float32: half precision is for the generator alone.

        Args:
            rows: indices of the problems whose images are wanted; all by default.
        """
        space = _within(space_of(self.current, self.fits))
        images: Tensor = self._generate(self.generator, self.stacks(rows), self.latents(rows), **space)
        return VIEWS[self.current.view].apply(images.to(torch.promote_types(images.dtype, torch.float32)))

    def squares(self, images: Tensor, rows: Tensor | None = None) -> Tensor:
        """Return the squared error of every measurement of each problem, ``(P, m)``."""
        if self._squares is not None and self._squares[0] is images:
            return self._squares[1]
        every = torch.arange(len(self.active), device=images.device) if rows is None else rows
        difference = self.operator.difference(images, self.y[every // self.starts])
        if self.unit is not None:  # squares of 1e-20 are nothing in float32
            difference = difference.abs().to(self.unit.dtype)
        squares = (difference.abs().square() if difference.is_complex() else difference.square()).flatten(1)
        self._squares = images, squares
        return squares

    def misfit(self, images: Tensor, rows: Tensor | None = None) -> Tensor:
        r"""Return :math:`|y - A(x)|^2 / m` for each problem, ``(P,)``; in a probe without what is held out."""
        squares, m = self.squares(images, rows), self.operator.num_measurements
        if self.held is None:
            return squares.sum(1) / m
        held = self.held if rows is None else self.held[rows]
        return squares.masked_fill(held, 0).sum(1) / (m - held.sum(1))

    def penalty(self, iterate: Iterate) -> Tensor:
        r"""Return what is added to the misfit, ``(P,)``: 0, or as settings say :math:`\lambda\, \mathrm{mean}(z^2)`.

        That of the settings is in the unit of the objective.

        A method overrides it to add a term of its own. Line searches and best iterates go by the sum of both.

        Args:
            iterate: of the evaluation at hand, with gradients; its ``objective`` is the misfit alone.
        """
        if self.settings.penalty == "latent":
            rows = None if len(iterate.misfit) == len(self.active) else self.rows
            return self.in_units(self.settings.weight * iterate.z.square().flatten(1).mean(1), rows)
        return torch.zeros_like(iterate.misfit)

    def in_units(self, values: Tensor, rows: Tensor | None = None, power: int = 1) -> Tensor:
        """Return ``(P,)`` values multiplied by the units of their objectives, or by a power of those."""
        if self.unit is None:
            return values
        units = self.unit.repeat_interleave(self.starts)
        return values * (units if rows is None else units[rows]) ** power

    def training_step(self, batch: Any = None, batch_idx: int = 0) -> Tensor:
        """Evaluate the objective once; the batch of the data loader is only a step counter."""
        rows = self.rows
        precise = self.settings.optimizer == "lbfgs"  # a line search in half precision sees only rounding
        with torch.autocast(self.device.type, enabled=False) if precise else torch.enable_grad():
            images = self(rows)
        misfit = self.misfit(images, rows)
        weights = [w if rows is None else w[rows] for w in self.weights]
        now = Iterate(misfit, misfit, images, self.latents(rows), weights)
        penalty = self.penalty(now)
        if penalty.shape != misfit.shape:
            raise ValueError(
                f"penalty returns one number per problem, of shape {tuple(misfit.shape)}; {tuple(penalty.shape)} was "
                "returned: reduce over all axes but the first"
            )
        objective = misfit + penalty
        if self.held is not None:
            held = self.held if rows is None else self.held[rows]
            now_held = self.squares(images, rows).detach().masked_fill(~held, 0).sum(1) / held.sum(1)
            self.validation = _into(self.validation, rows, now_held)
        self._squares = None
        last = self.evaluation
        self.evaluation = Iterate(
            _into(None if last is None else last.objective, rows, objective.detach()),
            _into(None if last is None else last.misfit, rows, misfit.detach()),
            _into(None if last is None else last.image, rows, images.detach()),
            self.latents().detach(),
            [w.detach() for w in self.weights],
        )
        self.spent += self.active.unflatten(0, (len(self.y), -1)).sum(1)
        total: Tensor = self.in_units(objective, rows, -1).sum()
        self._told = total.detach()
        if self.logged:
            self._log(objective, misfit)
        return total

    def _log(self, objective: Tensor, misfit: Tensor) -> None:
        energy = self.energy.repeat_interleave(self.starts)
        energy = energy if self.rows is None else energy[self.rows]
        values = {"objective": objective, "misfit": misfit, "residual": (misfit / energy).sqrt()}
        self.log_dict({key: value.detach().mean() for key, value in values.items()}, batch_size=1, on_step=True)

    def on_before_backward(self, loss: Tensor) -> None:
        """Refuse a loss that is another one than callbacks and line searches see."""
        scaled = getattr(self.trainer.precision_plugin, "scaler", None) is not None  # against underflow in float16
        if scaled or (self.device.type != "cpu" and self.trainer.global_step % 50):  # a look costs a synchronisation
            return
        told, given = float(self._told), float(loss.detach())
        if math.isfinite(told) and not math.isclose(told, given, rel_tol=1e-5, abs_tol=1e-12):
            raise ValueError(
                f"the loss of {type(self).__name__}.training_step is {given:.6g}, the sum of its objectives "
                f"{told:.6g}: best iterates and line searches go by the objectives. Add a term by overriding "
                "penalty(iterate), which returns one number per problem"
            )

    def configure_optimizers(self) -> Optimizer:
        """Return a fresh optimiser over the variables of the fit."""
        searched = [self.z] if self.z is not None and self.z.requires_grad else []
        if self.settings.optimizer == "lbfgs":
            variables = [*searched, *self.weights]
            return BatchedLBFGS(variables, values=self._values, history_size=self.settings.history)
        groups: list[dict[str, Any]] = [{"params": searched, "lr": self.settings.lr}] if searched else []
        if len(self.weights):
            groups.append({"params": list(self.weights), "lr": self.settings.lr_weights})
        # Fused: one pass over all weights instead of a dozen small operations on each of them.
        betas = (self.settings.beta1, self.settings.beta2)
        return torch.optim.Adam(groups, betas=betas, fused=self.device.type in ("cpu", "cuda"))

    def optimizer_step(
        self, epoch: int, batch_idx: int, optimizer: Any, optimizer_closure: Callable[[], Any] | None = None
    ) -> None:
        """Make a step of the problems that are active; the variables of the others stay where they ended.

        Momentum and line searches would carry them on. Where a callback keeps the best iterate nobody asks for them.
        """
        step = partial(super().optimizer_step, epoch, batch_idx, optimizer, optimizer_closure)
        active = self.active
        if self.best is not None or (active.device.type == "cpu" and bool(active.all())):
            step()
            return
        variables = [p for group in optimizer.param_groups for p in group["params"]]
        before = [p.detach().clone() for p in variables]
        step()
        with torch.no_grad():
            for p, stays in zip(variables, before, strict=True):
                going = active if len(p) == len(active) else active.unflatten(0, (len(p), -1)).any(1)
                p.copy_(torch.where(going.reshape(-1, *[1] * (p.ndim - 1)), p, stays))

    def _values(self) -> Tensor:
        assert self.evaluation is not None
        return self.in_units(self.evaluation.objective, power=-1)

    def require_evaluation(self) -> None:
        """Raise ValueError where nothing has been evaluated in the fit at hand: where it began is no result."""
        if self.evaluation is None:
            raise ValueError(f"fit {self.stage} was ended before its first evaluation: leave out what stopped it")

    # The end of a fit --------------------------------------------------------------------------------------------

    def ended(self, step: int) -> Tensor | None:
        """Return which problems a rule of the method's own has ended, ``(P,)``; None where it has none.

        Args:
            step: the evaluation that has just been made, from 0 in each fit.
        """
        return None

    def keep(self, iterate: Iterate) -> None:
        """End the fit with an iterate: its best restart becomes the result, and where later fits begin."""
        self.evaluations[self.stage] = self.spent.to("cpu", copy=True)  # on the CPU it would be the counter itself
        self.seconds[self.stage] = time.perf_counter() - self._entered
        self.fitted_on = iterate.objective.device
        if self.evaluation is not None:
            finite = self.evaluation.objective.isfinite().unflatten(0, (len(self.y), -1))
            self.broken[self.stage] = ~finite.any(1).cpu()
        if self.current.result is None:
            return
        lowest, best = iterate.objective.nan_to_num(nan=torch.inf).unflatten(0, (len(self.y), -1)).min(1)
        if not bool(lowest.isfinite().all()):
            names = [name for name, value in zip(self.names, lowest.tolist(), strict=True) if not math.isfinite(value)]
            whose = f", of {', '.join(names)}" if len(lowest) > 1 else ""
            raise RuntimeError(f"the objective of the {self.stage} stage is infinite or not a number{whose}")
        rows = best + self.starts * torch.arange(len(best), device=best.device)
        kept = iterate.map(lambda tensor: tensor[rows])
        self.kept[self.stage], self._started = kept, rows
        self.objective[self.stage] = kept.objective.cpu()
        self.misfits[self.stage] = kept.misfit.cpu()
        self.results[self.current.result] = kept.image

    @torch.no_grad()
    def last_iterate(self) -> Iterate:
        """Return an iterate at the current variables, evaluated afresh."""
        images = self()
        misfit = self.misfit(images)
        self._squares = None
        now = Iterate(misfit, misfit, images, self.latents(), list(self.weights)).map(Tensor.detach)
        now.objective = misfit + self.penalty(now)
        return now

    def on_train_epoch_end(self) -> None:
        """Without a callback that kept the best iterate, the last one is the result."""
        self.require_evaluation()
        if self.stage not in self.evaluations:
            self.keep(self.last_iterate())
        if self.logged and self.stage in self.kept:  # what a checkpoint of this fit holds
            self.log("objective", self.objective[self.stage].mean(), batch_size=1)

    @torch.no_grad()
    def on_fit_end(self) -> None:
        """Leave the module as what it reports: with the variables of the result, not those of the last step."""
        kept = self.kept.get(self.stage)
        if kept is None:  # of a probe
            return
        if self.z is not None:
            self.z = nn.Parameter(kept.z.to(self.z, copy=True), requires_grad=self.z.requires_grad)
        for p, w in zip(self.weights, kept.weights, strict=True):
            p.copy_(w)
        if self.starts > 1:
            rows = self._started
            self.evaluation = None if self.evaluation is None else self.evaluation.map(lambda tensor: tensor[rows])
            self._centre = None if self._centre is None else self._centre[rows]
            self.active, self.rows, self.starts = torch.ones_like(self.active[: len(rows)]), None, 1

    # Checkpoints -------------------------------------------------------------------------------------------------

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Store all that has come out so far, and an iterate of the fit at hand with its own objective."""
        store(self, checkpoint)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take what had come out: ``results``, ``kept`` and all other attributes but the operator and the truth."""
        restore(self, checkpoint)

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False) -> Any:
        """Take generator and variables; a module that has not begun takes those of any fit.

        Raises:
            ValueError: for the state of another generator, and for that of another fit than the one at hand.
        """
        return super().load_state_dict(make_room(self, state_dict), strict, assign)


def _within(space: str) -> dict[str, str]:
    """Return what tells a generator that its input lies in a space; nothing for z, which every generator takes."""
    return {} if space == "z" else {"space": space}


def _into(last: Tensor | None, rows: Tensor | None, now: Tensor) -> Tensor:
    """Return what the last evaluation gave, with the rows that were evaluated now replaced."""
    return now if last is None or rows is None else last.index_copy(0, rows, now)
