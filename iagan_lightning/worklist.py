"""What is left to do, for one of several processes that share an output folder."""

from __future__ import annotations

import bisect
import json
import os
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from iagan_lightning.claims import Claims
from iagan_lightning.output import OutputFolder

POLL_SECONDS = 0.5


@dataclass(frozen=True)
class Outcome:
    """How an image ended."""

    image: str
    text: str
    failed: bool = False


class Journal:
    """What the processes tell each other: each appends to a file of its own and reads on in those of the others.

    It saves looking at each image's folder, and feeds the progress display. Nothing depends on it: what is finished
    is decided by the images' own files.

    Args:
        folder: where the files lie.
        token: name of this process's file.
        every: seconds between two looks at the others' files.
    """

    def __init__(self, folder: Path, token: str, every: float = 1.0) -> None:
        self.path, self.every = folder / f"{token}.jsonl", every
        with suppress(OSError):
            folder.mkdir(exist_ok=True)
        self._read = {entry.name: entry.stat().st_size for entry in self._files()}  # of earlier runs: old news
        self._before = dict(self._read)
        self._looked = -every

    def write(self, outcome: Outcome) -> None:
        """Tell the others."""
        with suppress(OSError), self.path.open("ab") as file:
            file.write(json.dumps(asdict(outcome)).encode() + b"\n")

    def news(self) -> Iterator[Outcome]:
        """Return what the others have written since the last call; nothing when that was only just now."""
        if time.monotonic() - self._looked < self.every:
            return
        self._looked = time.monotonic()
        for entry in self._files():
            start = self._read.get(entry.name, 0)
            with suppress(OSError, ValueError, TypeError):
                if entry.stat().st_size > start:
                    with open(entry.path, "rb") as file:
                        file.seek(start)
                        whole = file.read().rpartition(b"\n")[0]
                    self._read[entry.name] = start + len(whole) + 1
                    yield from [Outcome(**json.loads(line)) for line in whole.splitlines()]

    def close(self) -> None:
        """Remove this process's file, those of processes long dead, and the folder when it was the last one."""
        with suppress(OSError):
            self.path.unlink(missing_ok=True)
        for entry in self._files():
            with suppress(OSError):  # nothing new since this process began: if it does live, it makes another one
                if entry.stat().st_size == self._before.get(entry.name):
                    os.unlink(entry.path)
        with suppress(OSError):
            self.path.parent.rmdir()

    def _files(self) -> list[os.DirEntry[str]]:
        with suppress(OSError), os.scandir(self.path.parent) as entries:
            return [entry for entry in entries if entry.name != self.path.name and entry.name.endswith(".jsonl")]
        return []


class WorkList:
    """Hands out images that are neither finished nor claimed by another process, until all are finished.

    Each process begins at another place and goes round once; then it comes back to what others had claimed, in case
    they died. It ends when every image is finished or has failed, so the last one at work never waits for a dead one.
    Memory: one byte per image beside the names.

    Args:
        names: all images, sorted.
        out: the output folder.
        claims: those of this process.
        journal: that of this process.
        start: index of the image to begin with.
        finished: indices of images that are known to be done.
        on_news: called with what other processes did.

    Example:
        >>> import tempfile
        >>> out = OutputFolder(tempfile.mkdtemp())
        >>> out.prepare()
        >>> with Claims(out.claim) as claims:
        ...     work = WorkList(["a", "b", "c"], out, claims, Journal(out.progress, claims.token), start=1)
        ...     while taken := work.take(2):
        ...         print(taken)
        ...         for index in taken:
        ...             work.settle(Outcome(work.names[index], "could not be read", failed=True))
        [1, 2]
        [0]
    """

    def __init__(
        self,
        names: list[str],
        out: OutputFolder,
        claims: Claims,
        journal: Journal,
        start: int = 0,
        finished: Iterable[int] = (),
        on_news: Callable[[Outcome], None] = lambda outcome: None,
    ) -> None:
        self.names, self.out, self.claims, self.journal, self.on_news = names, out, claims, journal, on_news
        self._settled = bytearray(len(names))
        for index in finished:
            self._settled[index] = 1
        self._ahead = (index % len(names) for index in range(start, start + len(names)))
        self._busy: list[int] = []

    def take(self, count: int = 1) -> list[int]:
        """Claim up to ``count`` images and return their indices; empty when all images are finished.

        Raises:
            OSError: when the output folder is gone or claims cannot be written.
        """
        while True:
            taken: list[int] = []
            for index in self._ahead:
                if self._claim(index):
                    taken.append(index)
                    if len(taken) == count:
                        break
            if taken:
                return taken
            self.look()
            busy = [index for index in self._busy if not self._settled[index]]
            if not busy:
                return []
            time.sleep(POLL_SECONDS)
            self._ahead, self._busy = (index for index in busy), []

    def settle(self, outcome: Outcome) -> None:
        """Record how an image ended. A failed one stays claimed, so that this run does not try it again."""
        self._settled[bisect.bisect_left(self.names, outcome.image)] = 1
        self.journal.write(outcome)
        if not outcome.failed:
            self.claims.release(outcome.image)

    def look(self) -> None:
        """Take note of what the other processes have done."""
        for outcome in self.journal.news():
            index = bisect.bisect_left(self.names, outcome.image)
            if self.names[index : index + 1] == [outcome.image] and not self._settled[index]:
                self._settled[index] = 1
                self.on_news(outcome)

    def _claim(self, index: int) -> bool:
        self.look()
        name = self.names[index]
        if self._settled[index]:
            return False
        self.out.require()
        if not self.claims.take(name):
            self._busy.append(index)
            return False
        if self.out.is_done(name):  # after the claim: nobody else can finish it from here on
            self.claims.release(name)
            self._settled[index] = 1
            self.on_news(Outcome(name, "done by another process"))
            return False
        return True
