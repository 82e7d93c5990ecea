"""Several processes of one machine at work on one list of images.

Who works on an image holds a lock of the operating system for it, which ends with the process, however that ends. What
became of an image is read from its own folder and nowhere else. No result depends on any of this: an image comes out
the same whoever makes it, and its files are moved into place in one step.
"""

from __future__ import annotations

import bisect
import errno
import hashlib
import math
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from types import TracebackType
from typing import IO

from iagan_lightning.output import OutputFolder

POLL_SECONDS = 0.5
LOOK_SECONDS = 0.002  # spent once a second, so a five-hundredth of the time
NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP}

if sys.platform == "win32":
    import msvcrt

    def _lock(file: IO[bytes], byte: int) -> None:
        file.seek(byte % 2**31)
        msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)

    def _unlock(file: IO[bytes], byte: int) -> None:
        file.seek(byte % 2**31)
        msvcrt.locking(file.fileno(), msvcrt.LK_UNLCK, 1)

else:
    import fcntl

    def _lock(file: IO[bytes], byte: int) -> None:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, byte)

    def _unlock(file: IO[bytes], byte: int) -> None:
        fcntl.lockf(file, fcntl.LOCK_UN, 1, byte)


class Locks:
    """Locks of one process on images: for each image one byte of a file that stays empty.

    The byte follows from the image's name, so that commands with different lists agree. Use it as a context manager,
    one at a time in a process: the system counts a process's locks on a file together.

    Args:
        path: the file, made if need be.

    Attributes:
        work: False once the file system has said that it has no locks; then every image can be had.

    Example:
        >>> import tempfile
        >>> with Locks(Path(tempfile.mkdtemp()) / ".lock") as locks:
        ...     locks.take("a")
        True
    """

    def __init__(self, path: Path) -> None:
        self._file = path.open("ab")
        self.work = True

    def __enter__(self) -> Locks:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._file.close()

    def take(self, name: str) -> bool:
        """Lock an image; False where another process holds it."""
        try:
            _lock(self._file, byte_of(name))
        except OSError as error:
            if error.errno in NO_LOCKS:
                self.work = False
            elif error.errno in (errno.EACCES, errno.EAGAIN, errno.EDEADLK):
                return False
            else:
                raise
        return True

    def release(self, name: str) -> None:
        """Give a lock back."""
        if self.work:
            _unlock(self._file, byte_of(name))


def byte_of(name: str) -> int:
    """Return the byte that stands for an image: no two of a billion images are likely to share one."""
    return int.from_bytes(hashlib.sha256(name.encode("utf-8", "surrogateescape")).digest()[:8], "big") >> 2


class WorkList:
    """Hands out images that are neither finished nor in another process's hands, until all are finished.

    Each process does its own share first, then what is left of the others'; at last it waits for what others are doing,
    in case they die. Memory: one byte per image beside the names.

    Args:
        names: all images, sorted.
        out: the output folder.
        locks: those of this process.
        rank, size: number of this process among all, and how many there are.
        since: when the run began (seconds since the epoch): earlier failures are tried again, later ones are not.
        finished: indices of images that are known to be done.
        on_news: called with the name of an image that another process has ended, and why it failed (None: it did not).

    Example:
        >>> import tempfile
        >>> out = OutputFolder(tempfile.mkdtemp())
        >>> out.prepare()
        >>> with Locks(out.lock) as locks:
        ...     work = WorkList(["a", "b", "c", "d"], out, locks, rank=1, size=2)
        ...     while taken := work.take():
        ...         print([work.names[index] for index in taken])
        ...         for index in taken:
        ...             work.settle(work.names[index])
        ['c']
        ['d']
        ['a']
        ['b']
    """

    def __init__(
        self,
        names: list[str],
        out: OutputFolder,
        locks: Locks,
        rank: int = 0,
        size: int = 1,
        since: float = math.inf,
        finished: Iterable[int] = (),
        on_news: Callable[[str, str | None], None] = lambda name, reason: None,
    ) -> None:
        self.names, self.out, self.locks, self.since, self.on_news = names, out, locks, since, on_news
        self._settled = bytearray(len(names))
        for index in finished:
            self._settled[index] = 1
        first, end = rank * len(names) // size, (rank + 1) * len(names) // size
        # Without locks each process keeps to its share: what follows that is asked for only when all of it is done.
        others = (index % len(names) for index in range(end, first + len(names)) if locks.work)
        self._ahead = (index for part in (range(first, end), others) for index in part)
        self._busy: list[int] = []
        self._looked = 0

    def take(self, count: int = 1) -> list[int]:
        """Lock up to ``count`` images and return their indices; empty when all images are finished.

        Raises:
            OSError: when the output folder is gone.
        """
        while True:
            taken: list[int] = []
            for index in self._ahead:
                if self._take(index):
                    taken.append(index)
                    if len(taken) == count:
                        break
            if taken:
                return taken
            if not self._busy:
                return []
            time.sleep(POLL_SECONDS)
            self._ahead, self._busy = (index for index in self._busy), []

    def settle(self, name: str) -> None:
        """Note that this process has ended an image, and written so into its folder."""
        self._settled[bisect.bisect_left(self.names, name)] = 1
        self.locks.release(name)

    def look(self) -> None:
        """Take note of what other processes have ended, of as many images as can be looked at in an instant."""
        until = time.monotonic() + LOOK_SECONDS
        while time.monotonic() < until:
            index = self._settled.find(0, self._looked)
            self._looked = index + 1
            if index < 0:  # round once, the next look begins anew
                return
            self._ended(index)

    def _take(self, index: int) -> bool:
        if self._settled[index] or self._ended(index):
            return False
        self.out.require()
        name = self.names[index]
        if not self.locks.take(name):
            self._busy.append(index)
            return False
        if self._ended(index):  # between the look and the lock; nobody else can end it from here on
            self.locks.release(name)
            return False
        return True

    def _ended(self, index: int) -> bool:
        """Tell whether another process has ended an image, and note it."""
        name = self.names[index]
        done = self.out.is_done(name)
        reason = None if done else self.out.failure(name, self.since)
        if done or reason is not None:
            self._settled[index] = 1
            self.on_news(name, reason)
            return True
        return False
