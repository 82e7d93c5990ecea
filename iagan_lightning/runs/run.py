"""A run over a data set: settings checked, samples handed to an engine, a summary of what became of them."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from contextlib import nullcontext, suppress
from dataclasses import dataclass, field, fields
from typing import Any, Protocol

from iagan_lightning import signals
from iagan_lightning.callbacks import BackProjection, RunProgress
from iagan_lightning.data.samples import Sample
from iagan_lightning.methods.trainers import quiet_lightning
from iagan_lightning.operators import Inpainting
from iagan_lightning.results.folder import OutputFolder
from iagan_lightning.results.lpips import load_lpips
from iagan_lightning.results.remarks import offered
from iagan_lightning.results.shards import ShardedOutput
from iagan_lightning.runs.inputs import check_inputs
from iagan_lightning.runs.local import on_this_machine
from iagan_lightning.runs.pictures import check_pictures
from iagan_lightning.runs.processes import Place
from iagan_lightning.runs.reconstructor import Job


class Engine(Protocol):
    """Has the images of a run made and stored that are not finished.

    ``run.stored`` and ``run.fail`` are to be called with what becomes of each, in this process; whoever adapts an image
    does so by a ``Reconstructor``.
    """

    def __call__(self, run: Run, samples: list[Sample], finished: list[int], progress: RunProgress) -> None:
        """Do what is left.

        Args:
            run: the job, where results go, and which process this is.
            samples: all images, in the order of their names.
            finished: indices of those that are known to be done.
            progress: shows how far the run is.

        Raises:
            OSError: when the output folder vanishes or is full.
        """


@dataclass
class Run(Job):
    """Everything that one run needs, and what became of it.

    Args:
        out: where the results go.
        seed: what the seeds of all images are derived from.
        place: which of several processes this is. All work through the same images; the first one (rank 0) shows the
            progress of all and writes the summary.
        engine: has the images made.
    """

    out: OutputFolder | ShardedOutput = field(kw_only=True)
    seed: int = 0
    place: Place = field(default_factory=Place)
    engine: Engine = on_this_machine

    failed: dict[str, str] = field(default_factory=dict, init=False)
    skipped: int = field(default=0, init=False)
    progress: RunProgress = field(init=False, repr=False)

    @property
    def job(self) -> Job:
        """What other processes need of it."""
        return Job(**{each.name: getattr(self, each.name) for each in fields(Job)})

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
        projection = BackProjection(self.options.back_projection)
        projection.check(self.noise_std)
        check_pictures(self)
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
            projection.check(self.noise_std, A)
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
        """Have the engine work through the images that are not finished."""
        self.progress = RunProgress(len(samples) - len(finished), shown=self.place.rank == 0, quiet=self.options.quiet)
        with self.progress, quiet_lightning():
            if self.skipped and not self.options.quiet:
                self.progress.console.print(f"{self.skipped} of {len(samples)} images are done already")
            try:
                self.engine(self, samples, finished, self.progress)
            finally:  # also after a signal: what has been made is kept
                with suppress(OSError) if sys.exc_info()[0] else nullcontext():
                    self.out.flush()

    def finish(self, name: str, reason: str | None = None) -> None:
        """Say that an image is done, or why it has failed."""
        if reason is not None:
            self.failed[name] = reason
        text = verdict(self.out.metrics(name), self.data.alpha == "mask") if reason is None else reason
        self.progress.finish(name, text, failed=reason is not None)

    def fail(self, name: str, reason: str, details: str = "") -> None:
        """Record that an image has failed."""
        try:
            self.out.fail(name, reason, details)
        except OSError as problem:
            print(f"cannot write error.txt of {name}: {problem}", file=sys.stderr)
        self.finish(name, reason)


def verdict(record: dict[str, Any], masked: bool) -> str:
    """Return a line on a finished image from its record, with the measured share of one that has a mask of its own."""
    best = record["methods"].get(offered(record), {})
    parts = [f"PSNR {best['psnr']:.2f} dB"] if best.get("psnr") is not None else []
    parts += [f"residual {best['residual']:.1e}"] if best.get("residual") is not None else []
    parts += [f"{record['share']:.1%} of it measured"] if masked and "share" in record else []
    return ", ".join([*parts, f"{record['seconds']['total']:.1f} s"])
