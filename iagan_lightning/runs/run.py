"""A run over a data set: samples -> modules -> Trainers -> files, one image after another, losing nothing."""

from __future__ import annotations

import copy
import errno
import gc
import math
import sys
import traceback
from collections.abc import Callable, Sequence
from contextlib import closing, nullcontext, suppress
from dataclasses import dataclass, field
from typing import Any

import pytorch_lightning as pl
import torch

from iagan_lightning import signals
from iagan_lightning.callbacks import (
    BackProjection,
    BestObjective,
    CurveWriter,
    DIPBaseline,
    ImageMetrics,
    ResultWriter,
    RunProgress,
    StageStopping,
    TensorBoardImages,
    TimeLimit,
    ViewMean,
)
from iagan_lightning.data.samples import ImageData, Measured, Sample
from iagan_lightning.generators import Generator
from iagan_lightning.generators.base import Framing
from iagan_lightning.methods import TestTimeModule
from iagan_lightning.methods.adaptation import adapt_alone
from iagan_lightning.methods.trainers import quiet_lightning, quiet_trainer
from iagan_lightning.operators import Inpainting, LinearOperator
from iagan_lightning.results.files import write_text
from iagan_lightning.results.folder import OutputFolder
from iagan_lightning.results.lpips import load_lpips
from iagan_lightning.results.remarks import offered
from iagan_lightning.runs.batching import images_that_fit, out_of_memory
from iagan_lightning.runs.inputs import check_inputs, inputs_of
from iagan_lightning.runs.operators import Operators
from iagan_lightning.runs.options import RunOptions
from iagan_lightning.runs.processes import Place
from iagan_lightning.runs.sharing import WorkList

# A folder that has vanished or cannot take more ends the run: whatever came next would be lost as well.
NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EROFS}


@dataclass
class Run:
    """Everything that one run needs, and what became of it.

    Args:
        model: settings and generator; the module itself works through the images.
        data: the pictures.
        operator: makes the operator of each picture.
        out: folder of the run.
        options: noise, baseline, metrics, what is kept and said.
        seed: what the seeds of all images are derived from.
        trainer: arguments of the Trainer of each image.
        callbacks: the user's own, in the order of their phases (``make`` where they name none).
        place: which of several processes this is. All work through the same images; the first one (rank 0) shows the
            progress of all and writes the summary.
    """

    model: TestTimeModule
    data: ImageData
    operator: Operators
    out: OutputFolder
    options: RunOptions = field(default_factory=RunOptions)
    seed: int = 0
    trainer: dict[str, Any] = field(default_factory=dict)
    callbacks: Sequence[pl.Callback] = ()
    place: Place = field(default_factory=Place)

    failed: dict[str, str] = field(default_factory=dict, init=False)
    skipped: int = field(default=0, init=False)
    _worklist: WorkList = field(init=False, repr=False)
    _inputs: dict[str, dict[str, str]] = field(default_factory=dict, init=False, repr=False)  # of images at work
    images_per_fit: int = field(default=1, init=False)

    def __post_init__(self) -> None:
        self.noise_std = self.options.level

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Shape of the generator's images, which all others are brought to; for a method without one ``data.size``."""
        shape, size = self.model.image_shape, self.data.size
        if shape is None and size is None:
            raise ValueError(f"{type(self.model).__name__} makes images of any size: give --data.size")
        return shape or (3, int(size or 0), int(size or 0))

    @property
    def framing(self) -> Framing:
        """How faces are cut out that are aligned: as the generator knows them, tightly where nobody said how."""
        return (self.model.generator.framing if self.model.image_shape else None) or "tight"

    def __call__(self, before_work: Callable[[], None] | None = None) -> dict[str, Any]:
        """Do what is left to do and return the summary (an empty one on other ranks than 0).

        Args:
            before_work: called when all settings have been checked and the output folder is there.

        Raises:
            ValueError: for settings that do not fit, before any image is touched.
            OSError: when the output folder vanishes or is full; what is finished stays so.
        """
        if self.noise_std is None and self.data.measurements is None:
            raise ValueError(
                "noise_std unknown is for measurements of your own (--data.measurements); the pictures of --data.root "
                "are measured here, with noise of a level that you give"
            )
        if self.noise_std is None and self.options.back_projection == "discrepancy":
            raise ValueError("back_projection discrepancy stops at the noise level: it needs a noise_std that is known")
        self.out.check_apart(self.data.root, self.data.measurements)
        leading = self.place.rank == 0
        samples = self.data.samples(self.seed, self.image_shape, check=leading, known=self.out.names())
        if leading:
            for line in self.data.left_out:
                print(f"iagan: {line}", file=sys.stderr)
            self.data.check_measurements(samples, self.image_shape, self.operator)
            if self.data.measurements is not None:
                self._tell_of_mask()
            self._tell_of_framing()
        if any(sample.measurement is None for sample in samples):
            A = self.operator(self.image_shape)  # settings that fit no operator are found now, not once per image
            if self.options.back_projection not in (None, False) and not isinstance(A, LinearOperator):
                raise ValueError(f"back_projection needs a linear operator; {type(A).__name__} is none: leave it out")
        self.out.prepare()
        names = {sample.name: sample.file for sample in samples}
        if leading:
            self.out.check_names(names)
        # Only the leading process looks at every image beforehand; the others find out as they go.
        finished = [i for i, sample in enumerate(samples) if leading and self.out.is_done(sample.name)]
        if leading:
            check_inputs([samples[i] for i in finished], self.out)
        if before_work is not None:
            before_work()
        if leading:
            self.out.keep_names(names)
        self.skipped = len(finished)
        if any(sample.truth is not None for sample in samples) and self.skipped < len(samples):
            load_lpips(self.options.lpips)  # its warning comes once, before the progress bar
        try:
            self._work(samples, finished)
        except OSError as error:
            raise OSError(
                f"{error}. Finished images are safe; the same command goes on when {self.out.root} can be written to"
            ) from error
        except signals.Ended as ended:
            if leading:
                done = sum(self.out.is_done(sample.name) for sample in samples)
                ended.done = f"{done} of {len(samples)} images are done"
            raise
        finally:  # also after a signal: the summary tells of everything that is finished
            summary: dict[str, Any] = {}
            if leading:
                with suppress(OSError) if sys.exc_info()[0] else nullcontext():
                    self.out.require()
                    summary = self.out.write_summary(self.failed)
        return summary

    def _tell_of_mask(self) -> None:
        """Say how much of a damaged picture of one's own is intact; a mask that hides nothing is refused."""
        A = self.operator(self.image_shape)
        if not isinstance(A, Inpainting) or A.given is None:
            return
        share = A.num_measurements / math.prod(A.image_shape)
        if share == 1:
            raise ValueError("the mask is white everywhere, so nothing is missing: make it black where the damage is")
        if not self.options.quiet:
            print(f"mask: {share:.1%} of the picture is measured, {1 - share:.1%} is filled in", file=sys.stderr)

    def _tell_of_framing(self) -> None:
        """Say how faces are cut out where the generator does not say how it knows them."""
        if self.data.align and self.model.image_shape and self.model.generator.framing is None:
            print(
                "iagan: the generator does not say how its faces are framed: they are cut out tightly, as for the "
                "bundled priors. Where it knows them otherwise, say so: --model.generator.framing ffhq beside "
                "--model.generator.weights FILE",
                file=sys.stderr,
            )

    def _work(self, samples: list[Sample], finished: list[int]) -> None:
        """Work through the images that are neither finished nor in another process's hands, until all are finished."""
        with_tensorboard = {sample.name for sample in samples[: self.options.tensorboard]}
        shown = self.place.rank == 0
        with (
            RunProgress(len(samples) - len(finished), shown=shown, quiet=self.options.quiet) as progress,
            quiet_lightning(),
        ):

            def on_news(name: str, reason: str | None) -> None:
                if reason is not None:
                    self.failed[name] = reason
                progress.finish(name, self._verdict(name) if reason is None else reason, failed=reason is not None)

            names, place = [sample.name for sample in samples], self.place
            work = WorkList(names, self.out, place.rank, place.size, place.since, finished, on_news)
            self._worklist, progress.look = work, work.look
            if self.skipped and not self.options.quiet:
                progress.console.print(f"{self.skipped} of {len(samples)} images are done already")
            self.images_per_fit = self._images_per_fit()
            with closing(work):
                while taken := work.take(self.images_per_fit):
                    if ended := signals.asked():  # somebody's own code has dropped the exception
                        raise ended
                    self._do([samples[index] for index in taken], progress, with_tensorboard)

    def _do(self, group: list[Sample], progress: RunProgress, with_tensorboard: set[str]) -> None:
        """Read, adapt and write a few images side by side; a failure is recorded and stays with its image."""
        read: list[tuple[Sample, Measured]] = []
        for sample in group:
            try:
                self._inputs[sample.name] = inputs_of(sample)
                level = self.noise_std or 0.0
                measured = self.data.read(sample, self.image_shape, self.operator, level, self.framing)
                read.append((sample, measured))
            except Exception as error:  # whatever a file can do wrong must not end the run
                self._fail(sample, error, progress)
        for batch in _same_operator(read):
            self._try(batch, progress, with_tensorboard)
        self._inputs.clear()

    def _try(self, batch: list[tuple[Sample, Measured]], progress: RunProgress, with_tensorboard: set[str]) -> None:
        """Adapt a batch; one that fails is halved, so that a failure stays with its image."""
        problem = None
        try:
            self._adapt(batch, progress, with_tensorboard)
        except Exception as error:
            self.out.require()
            if isinstance(error, OSError) and error.errno in NO_ROOM:
                raise
            problem = error
        if problem is None:
            for sample, _ in batch:
                progress.finish(sample.name, self._verdict(sample.name))
                self._worklist.settle(sample.name)
        elif len(batch) == 1 and out_of_memory(problem) and self._start_checkpointing():
            problem = None  # its traceback holds the tensors of the attempt
            self._free_memory()
            progress.console.print("one image alone: out of memory; going on with gradient checkpointing", markup=False)
            self._try(batch, progress, with_tensorboard)
        elif len(batch) == 1:
            self._fail(batch[0][0], problem, progress)
        else:
            half = (len(batch) + 1) // 2
            reason = " ".join(str(problem).split())[:200]
            if out_of_memory(problem):
                self.images_per_fit = min(self.images_per_fit, half)
                reason = "out of memory"
            problem = None  # as above
            self._free_memory()
            progress.console.print(f"{len(batch)} images side by side: {reason}; going on with {half}", markup=False)
            self._try(batch[:half], progress, with_tensorboard)
            self._try(batch[half:], progress, with_tensorboard)

    def _start_checkpointing(self) -> bool:
        """Let the generator save memory, if it can and has not done so yet."""
        if self.model.image_shape is None:
            return False
        generator: Generator = self.model.generator
        if generator.checkpointing is not False:
            return False
        generator.checkpointing = True
        return True

    @staticmethod
    def _free_memory() -> None:
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    def _images_per_fit(self) -> int:
        wanted = self.data.images_per_fit
        if wanted != "auto":
            return int(wanted)
        if self.model.image_shape is None:
            return 1  # nothing is known of what its images take
        settings = [fit.settings for fit in self.model.plan(self.noise_std, None)]
        history = max((each.history for each in settings[1:] if each.optimizer == "lbfgs"), default=0)
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
            quantisation=batch[0][1].quantisation,
            views=self.options.views,
        )
        callbacks: list[pl.Callback] = [
            BestObjective(), StageStopping(), BackProjection(self.options.back_projection), ViewMean()
        ]  # fmt: skip
        if self.options.time is not None:
            callbacks.append(TimeLimit(self.options.time))
        if self.options.baseline is not None:
            callbacks.append(DIPBaseline(self.options.baseline, [progress]))
        callbacks += copy.deepcopy(list(self.callbacks))  # fresh for each image, like everything else
        callbacks.append(ImageMetrics(self.options.lpips))
        if with_tensorboard.issuperset(names):
            callbacks.append(TensorBoardImages(str(self.out.root)))
        notes = {sample.name: {"inputs": self._inputs[sample.name], **own.notes} for sample, own in batch}
        callbacks += [progress, CurveWriter(self.out), ResultWriter(self.out, self.options.save, notes)]
        adapt_alone(self.model, **{**self.trainer, "callbacks": callbacks})

    def _verdict(self, name: str) -> str:
        record = self.out.metrics(name)
        best = record["methods"].get(offered(record), {})
        parts = [f"PSNR {best['psnr']:.2f} dB"] if best.get("psnr") is not None else []
        parts += [f"residual {best['residual']:.1e}"] if best.get("residual") is not None else []
        parts += [f"{record['share']:.1%} of it measured"] if self.data.alpha == "mask" else []
        return ", ".join([*parts, f"{record['seconds']['total']:.1f} s"])

    def _fail(self, sample: Sample, error: Exception, progress: RunProgress) -> None:
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        self.failed[sample.name] = reason
        try:
            details = "".join(traceback.format_exception(error))
            write_text(self.out.make(sample.name) / "error.txt", f"{reason}\n\n{details}")
        except OSError as problem:
            print(f"cannot write error.txt of {sample.name}: {problem}", file=sys.stderr)
        progress.finish(sample.name, reason, failed=True)
        self._worklist.settle(sample.name)


def _same_operator(read: list[tuple[Sample, Measured]]) -> list[list[tuple[Sample, Measured]]]:
    """Split images into those that share an operator, a rounding, and whether there is a truth: only they can go
    side by side.
    """
    kinds: dict[tuple[Any, ...], list[tuple[Sample, Measured]]] = {}
    for sample, measured in read:
        kind = (repr(measured.operator), measured.quantisation, measured.truth is not None)
        kinds.setdefault(kind, []).append((sample, measured))
    return list(kinds.values())
