"""The engine of every run that names no other: this machine's processes, each with the whole list before it."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING

from iagan_lightning import signals
from iagan_lightning.callbacks import RunProgress
from iagan_lightning.data.samples import Sample
from iagan_lightning.results.folder import OutputFolder
from iagan_lightning.results.shards import ShardedOutput, collect_files
from iagan_lightning.runs.reconstructor import Reconstructor
from iagan_lightning.runs.sharing import WorkList

if TYPE_CHECKING:
    from iagan_lightning.runs.run import Run


def on_this_machine(run: Run, samples: list[Sample], finished: list[int], progress: RunProgress) -> None:
    """Work through the images that are neither finished nor in another process's hands, until all are finished."""
    with_tensorboard = {sample.name for sample in samples[: run.options.tensorboard]}
    names, place = [sample.name for sample in samples], run.place

    def settle(stored: list[str]) -> None:
        for name in stored:
            work.settle(name)

    def store() -> None:
        settle(run.out.flush())

    work = WorkList(names, run.out, place.rank, place.size, place.since, finished, run.finish, store)
    progress.look = work.look
    with closing(work), workplace(run.out) as folder:

        def done(sample: Sample) -> None:
            if isinstance(run.out, ShardedOutput):  # locked until its shard is written
                stored = run.out.add(sample.name, collect_files(folder, sample.name))
                folder.forget(sample.name)
            else:
                stored = [sample.name]
            run.finish(sample.name)
            settle(stored)

        def failed(sample: Sample, reason: str, details: str) -> None:
            run.fail(sample.name, reason, details)
            work.settle(sample.name)

        reconstruct = Reconstructor(run.job, folder, progress, done, failed)
        while taken := work.take(reconstruct.images_per_fit):
            if ended := signals.asked():  # somebody's own code has dropped the exception
                raise ended
            reconstruct([samples[index] for index in taken], with_tensorboard)
        store()


@contextmanager
def workplace(out: OutputFolder | ShardedOutput) -> Iterator[OutputFolder]:
    """Return where the folders of images are made: where they stay, or a place from which their files are taken."""
    if isinstance(out, OutputFolder):
        yield out
        return
    with temporary() as folder:
        yield folder


@contextmanager
def temporary() -> Iterator[OutputFolder]:
    """Return a folder for images that is deleted in the end."""
    with tempfile.TemporaryDirectory(prefix="iagan-", ignore_cleanup_errors=True) as place:
        folder = OutputFolder(place)
        folder.prepare()
        yield folder
