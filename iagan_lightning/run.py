"""A run over a data set: samples -> modules -> Trainers -> files, one image after another, losing nothing."""

from __future__ import annotations

import copy
import functools
import gc
import sys
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import pytorch_lightning as pl
import torch

from iagan_lightning.batching import images_that_fit, out_of_memory
from iagan_lightning.callbacks import (
    BackProjection,
    BestObjective,
    CurveWriter,
    ImageMetrics,
    ResultWriter,
    RunProgress,
    StageStopping,
    TensorBoardImages,
)
from iagan_lightning.data import ImageData, Measured, OperatorFactory, Sample
from iagan_lightning.metrics import Backbone, load_lpips
from iagan_lightning.module import IAGAN, adapt
from iagan_lightning.operators import LinearOperator
from iagan_lightning.operators.checks import require_linear
from iagan_lightning.output import OutputFolder, write_text
from iagan_lightning.reconstruction import quiet_lightning, quiet_trainer


@dataclass
class Run:
    """Everything that one run needs, and what became of it.

    Args:
        model: settings and generator; the module itself works through the images.
        data: the pictures.
        operator: called with an ``image_shape`` for each picture, returns its operator.
        out: folder of the run.
        noise_std: noise level on the [0, 1] scale; None where it is unknown, for measurements of the user's own.
        seed: what the seeds of all images are derived from.
        lpips: backbone of LPIPS, or ``none``.
        back_projection: see ``BackProjection``.
        save: see ``ResultWriter``.
        tensorboard: number of images that get a TensorBoard run, the first ones.
        trainer: arguments of the Trainer of each image.
        quiet: show failures only.
        callbacks: the user's own, after those that make results and before those that measure and write them.
    """

    model: IAGAN
    data: ImageData
    operator: OperatorFactory
    out: OutputFolder
    noise_std: float | None = 0.0
    seed: int = 0
    lpips: Backbone = "alex"
    back_projection: bool | Literal["discrepancy"] | None = None
    save: Literal["images", "weights"] = "images"
    tensorboard: int = 64
    trainer: dict[str, Any] = field(default_factory=dict)
    callbacks: Sequence[pl.Callback] = ()
    quiet: bool = False

    failed: dict[str, str] = field(default_factory=dict, init=False)
    skipped: int = field(default=0, init=False)
    images_per_fit: int = field(default=1, init=False)

    def __post_init__(self) -> None:
        factory = self.operator

        # One operator serves all pictures of a size: building one can cost more than using it.
        @functools.lru_cache(maxsize=4)
        def checked(image_shape: tuple[int, int, int], **settings: Any) -> LinearOperator:
            A = factory(image_shape, **settings)
            require_linear(A)
            return A

        self.operator = checked

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Shape of the generator's images, which all others are brought to."""
        return self.model.generator.image_shape

    def __call__(self, before_work: Callable[[], None] | None = None) -> dict[str, Any]:
        """Do what is left to do and return the summary.

        Args:
            before_work: called when all settings have been checked and the output folder is there.

        Raises:
            ValueError: for settings that do not fit, before any image is touched.
        """
        if self.noise_std is None and self.data.measurements is None:
            raise ValueError(
                "noise_std unknown is for measurements of your own (--data.measurements); the pictures of --data.root "
                "are measured here, with noise of a level that you give"
            )
        if self.noise_std is None and self.back_projection == "discrepancy":
            raise ValueError("back_projection discrepancy stops at the noise level: it needs a noise_std that is known")
        samples = self.data.samples(self.seed, self.image_shape)
        self.data.check_measurements(samples, self.image_shape, self.operator)
        if any(sample.measurement is None for sample in samples):
            self.operator(self.image_shape)  # settings that fit no operator are found now, not once per image
        self.out.prepare()
        if before_work is not None:
            before_work()
        with_tensorboard = {sample.name for sample in samples[: self.tensorboard]}
        todo = [sample for sample in samples if not self.out.is_done(sample.name)]
        self.skipped = len(samples) - len(todo)
        if any(sample.truth is not None for sample in todo):
            load_lpips(self.lpips)  # its warning comes once, before the progress bar
        try:
            with RunProgress(len(todo), quiet=self.quiet) as progress, quiet_lightning():
                if self.skipped and not self.quiet:
                    progress.console.print(f"{self.skipped} of {len(samples)} images are done already")
                self.images_per_fit = self._images_per_fit()
                while todo:
                    group, todo = todo[: self.images_per_fit], todo[self.images_per_fit :]
                    self._do(group, progress, with_tensorboard)
        finally:  # also after Ctrl-C: the summary tells of everything that is finished
            summary = self.out.write_summary(self.failed)
        return summary

    def _do(self, group: list[Sample], progress: RunProgress, with_tensorboard: set[str]) -> None:
        """Read, adapt and write a few images side by side; a failure is recorded and stays with its image."""
        read: list[tuple[Sample, Measured]] = []
        for sample in group:
            try:
                read.append((sample, self.data.read(sample, self.image_shape, self.operator, self.noise_std or 0.0)))
            except Exception as error:  # whatever a file can do wrong must not end the run
                self._fail(sample, error, progress)
        for batch in _same_operator(read):
            self._try(batch, progress, with_tensorboard)

    def _try(self, batch: list[tuple[Sample, Measured]], progress: RunProgress, with_tensorboard: set[str]) -> None:
        """Adapt a batch; one that fails is halved, so that a failure stays with its image."""
        problem = None
        try:
            self._adapt(batch, progress, with_tensorboard)
        except Exception as error:
            problem = error
        if problem is None:
            for sample, _ in batch:
                progress.finish(sample.name, self._verdict(sample.name))
        elif len(batch) == 1:
            self._fail(batch[0][0], problem, progress)
        else:
            half = (len(batch) + 1) // 2
            reason = " ".join(str(problem).split())[:200]
            if out_of_memory(problem):
                self.images_per_fit = min(self.images_per_fit, half)
                reason = "out of memory"
            problem = None  # its traceback holds the tensors of the attempt
            gc.collect()
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
            progress.console.print(f"{len(batch)} images side by side: {reason}; going on with {half}", markup=False)
            self._try(batch[:half], progress, with_tensorboard)
            self._try(batch[half:], progress, with_tensorboard)

    def _images_per_fit(self) -> int:
        wanted = self.data.images_per_fit
        if wanted != "auto":
            return int(wanted)
        joint = self.model.given["joint"]
        history = (joint.history or 20) if joint.optimizer == "lbfgs" else 0
        return images_that_fit(self.model.generator, quiet_trainer(**self.trainer).strategy.root_device, history)

    def _adapt(self, batch: list[tuple[Sample, Measured]], progress: RunProgress, with_tensorboard: set[str]) -> None:
        names = [sample.name for sample, _ in batch]
        truths = [measured.truth for _, measured in batch if measured.truth is not None]
        self.model.begin(
            torch.cat([measured.y for _, measured in batch]),
            batch[0][1].operator,
            self.noise_std,
            seeds=[sample.seed for sample, _ in batch],
            truth=torch.cat(truths) if len(truths) == len(batch) else None,
            names=names,
        )
        callbacks: list[pl.Callback] = [BestObjective(), StageStopping(), BackProjection(self.back_projection)]
        callbacks += copy.deepcopy(list(self.callbacks))  # fresh for each image, like everything else
        callbacks.append(ImageMetrics(self.lpips))
        if with_tensorboard.issuperset(names):
            callbacks.append(TensorBoardImages(str(self.out.root)))
        callbacks += [progress, CurveWriter(self.out.root), ResultWriter(self.out.root, self.save)]
        adapt(self.model, quiet_trainer(**{**self.trainer, "callbacks": callbacks}))

    def _verdict(self, name: str) -> str:
        record = self.out.metrics(name)
        methods = record["methods"]
        best = methods.get("iagan_bp", methods.get("iagan", {}))
        psnr = f"PSNR {best['psnr']:.2f} dB, " if "psnr" in best else ""
        return f"{psnr}residual {best.get('residual', float('nan')):.1e}, {record['seconds']['total']:.1f} s"

    def _fail(self, sample: Sample, error: Exception, progress: RunProgress) -> None:
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        self.failed[sample.name] = reason
        progress.finish(sample.name, f"failed: {reason}", failed=True)
        try:
            details = "".join(traceback.format_exception(error))
            write_text(self.out.image(sample.name) / "error.txt", f"{reason}\n\n{details}")
        except OSError as problem:
            print(f"cannot write error.txt of {sample.name}: {problem}", file=sys.stderr)


def _same_operator(read: list[tuple[Sample, Measured]]) -> list[list[tuple[Sample, Measured]]]:
    """Split images into those that share an operator (and have a truth or not): only they can go side by side."""
    kinds: dict[tuple[str, bool], list[tuple[Sample, Measured]]] = {}
    for sample, measured in read:
        kinds.setdefault((repr(measured.operator), measured.truth is not None), []).append((sample, measured))
    return list(kinds.values())
