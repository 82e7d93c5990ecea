"""Reading, adapting and writing images: what every engine does with the images it is given, in whatever process."""

from __future__ import annotations

import copy
import errno
import gc
import traceback
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytorch_lightning as pl
import torch

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
from iagan_lightning.methods.trainers import quiet_trainer
from iagan_lightning.results.folder import OutputFolder
from iagan_lightning.runs.batching import images_that_fit, out_of_memory
from iagan_lightning.runs.inputs import inputs_of
from iagan_lightning.runs.operators import Operators
from iagan_lightning.runs.options import RunOptions

# A folder that has vanished or cannot take more ends the run: whatever came next would be lost as well.
NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EROFS}


@dataclass
class Job:
    """What decides about the images of a run, wherever they are made; it can be sent to another process.

    Args:
        model: settings and generator; the module itself works through the images.
        data: the pictures.
        operator: makes the operator of each picture.
        options: noise, baseline, metrics, what is kept and said.
        trainer: arguments of the Trainer of each image.
        callbacks: the user's own, in the order of their phases (``make`` where they name none).
    """

    model: TestTimeModule
    data: ImageData
    operator: Operators
    options: RunOptions = field(default_factory=RunOptions)
    trainer: dict[str, Any] = field(default_factory=dict)
    callbacks: Sequence[pl.Callback] = ()

    @property
    def noise_std(self) -> float | None:
        """The noise level on the [0, 1] scale; None where it is unknown."""
        return self.options.level

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

    @property
    def images_per_fit(self) -> int:
        """How many images go side by side on this process's device."""
        wanted = self.data.images_per_fit
        if wanted != "auto":
            return int(wanted)
        if self.model.image_shape is None:
            return 1  # nothing is known of what its images take
        settings = [fit.settings for fit in self.model.plan(self.noise_std, None)]
        history = max((each.history for each in settings[1:] if each.optimizer == "lbfgs"), default=0)
        return images_that_fit(self.model.generator, quiet_trainer(**self.trainer).strategy.root_device, history)


class Reconstructor:
    """Works through images, each to its folder; a failure stays with its image.

    Args:
        job: what is to be done.
        out: where the folders of the images are made.
        progress: shows the evaluations, and says what is out of the ordinary.
        done: called with an image whose folder is complete.
        failed: called with an image, why it failed in one line, and the traceback.

    Attributes:
        images_per_fit: how many images go side by side; fewer once that was too many.
    """

    def __init__(
        self,
        job: Job,
        out: OutputFolder,
        progress: RunProgress,
        done: Callable[[Sample], None],
        failed: Callable[[Sample, str, str], None],
    ) -> None:
        self.job, self.out, self.progress, self.done, self.failed = job, out, progress, done, failed
        self.images_per_fit = job.images_per_fit
        self._inputs: dict[str, dict[str, str]] = {}  # of the images at work

    def __call__(self, group: Iterable[Sample], with_tensorboard: set[str]) -> None:
        """Read, adapt and write a few images side by side.

        Raises:
            OSError: when the folder vanishes or is full.
        """
        job = self.job
        read: list[tuple[Sample, Measured]] = []
        for sample in group:
            try:
                self._inputs[sample.name] = inputs_of(sample)
                level = job.noise_std or 0.0
                read.append((sample, job.data.read(sample, job.image_shape, job.operator, level, job.framing)))
            except Exception as error:  # whatever a file can do wrong must not end the run
                self._fail(sample, error)
        for batch in _same_operator(read):
            self._try(batch, with_tensorboard)
        self._inputs.clear()

    def _fail(self, sample: Sample, error: Exception) -> None:
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        self.failed(sample, reason, "".join(traceback.format_exception(error)))

    def _try(self, batch: list[tuple[Sample, Measured]], with_tensorboard: set[str]) -> None:
        """Adapt a batch; one that fails is halved, so that a failure stays with its image."""
        problem = None
        try:
            self._adapt(batch, with_tensorboard)
        except Exception as error:
            self.out.require()
            if isinstance(error, OSError) and error.errno in NO_ROOM:
                raise
            problem = error
        if problem is None:
            for sample, _ in batch:
                self.done(sample)
        elif len(batch) == 1 and out_of_memory(problem) and self._start_checkpointing():
            problem = None  # its traceback holds the tensors of the attempt
            self._free_memory()
            self._say("one image alone: out of memory; going on with gradient checkpointing")
            self._try(batch, with_tensorboard)
        elif len(batch) == 1:
            self._fail(batch[0][0], problem)
        else:
            half = (len(batch) + 1) // 2
            reason = " ".join(str(problem).split())[:200]
            if out_of_memory(problem):
                self.images_per_fit = min(self.images_per_fit, half)
                reason = "out of memory"
            problem = None  # as above
            self._free_memory()
            self._say(f"{len(batch)} images side by side: {reason}; going on with {half}")
            self._try(batch[:half], with_tensorboard)
            self._try(batch[half:], with_tensorboard)

    def _say(self, text: str) -> None:
        self.progress.console.print(text, markup=False)

    def _start_checkpointing(self) -> bool:
        """Let the generator save memory, if it can and has not done so yet."""
        if self.job.model.image_shape is None:
            return False
        generator: Generator = self.job.model.generator
        if generator.checkpointing is not False:
            return False
        generator.checkpointing = True
        return True

    @staticmethod
    def _free_memory() -> None:
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    def _adapt(self, batch: list[tuple[Sample, Measured]], with_tensorboard: set[str]) -> None:
        job, options = self.job, self.job.options
        names = [sample.name for sample, _ in batch]
        truths = [measured.truth for _, measured in batch if measured.truth is not None]
        job.model.begin(
            torch.cat([measured.y for _, measured in batch]),
            batch[0][1].operator,
            job.noise_std,
            seeds=[sample.seed for sample, _ in batch],
            truth=torch.cat(truths) if len(truths) == len(batch) else None,
            names=names,
            quantisation=batch[0][1].quantisation,
            views=options.views,
        )
        callbacks: list[pl.Callback] = [
            BestObjective(), StageStopping(), BackProjection(options.back_projection), ViewMean()
        ]  # fmt: skip
        if options.time is not None:
            callbacks.append(TimeLimit(options.time))
        if options.baseline is not None:
            callbacks.append(DIPBaseline(options.baseline, [self.progress]))
        callbacks += copy.deepcopy(list(job.callbacks))  # fresh for each image, like everything else
        callbacks.append(ImageMetrics(options.lpips))
        if shown := with_tensorboard.intersection(names):
            callbacks.append(TensorBoardImages(str(self.out.root), names=shown))
        notes = {sample.name: {"inputs": self._inputs[sample.name], **own.notes} for sample, own in batch}
        writers = [CurveWriter(self.out), ResultWriter(self.out, options.save, notes, options.pictures)]
        adapt_alone(job.model, **{**job.trainer, "callbacks": [*callbacks, self.progress, *writers]})


def _same_operator(read: list[tuple[Sample, Measured]]) -> list[list[tuple[Sample, Measured]]]:
    """Split images into those that share an operator, a rounding, and whether there is a truth: only they can go
    side by side.
    """
    kinds: dict[tuple[Any, ...], list[tuple[Sample, Measured]]] = {}
    for sample, measured in read:
        kind = (repr(measured.operator), measured.quantisation, measured.truth is not None)
        kinds.setdefault(kind, []).append((sample, measured))
    return list(kinds.values())
