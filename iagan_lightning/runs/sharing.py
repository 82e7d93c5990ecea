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
from typing import IO

from iagan_lightning.results.folder import OutputFolder
from iagan_lightning.results.shards import ShardedOutput

POLL_SECONDS = 0.5
LOOK_SECONDS = 0.002  # spent once a second, so a five-hundredth of the time
NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP}


def lock(file: IO[bytes], name: str, held: bool = True) -> bool:
    """Take the lock on an image, or give it back; False where another process holds it.

    It is one byte of a file that stays empty, and follows from the image's name, so that commands with different lists
    agree. Where the file system or Python has no locks every image can be had; several processes may do the same work.
    """
    byte = int.from_bytes(hashlib.sha256(name.encode("utf-8", "surrogateescape")).digest()[:8], "big") >> 2
    try:
        if sys.platform == "win32":
            import msvcrt

            file.seek(byte % 2**31)
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK if held else msvcrt.LK_UNLCK, 1)
        else:
            import fcntl

            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB if held else fcntl.LOCK_UN, 1, byte)
    except ImportError:  # a Python of neither kind
        return True
    except OSError as error:
        if error.errno not in (*NO_LOCKS, errno.EACCES, errno.EAGAIN):
            raise
        return error.errno in NO_LOCKS
    return True


class WorkList:
    """Hands out images that are neither finished nor in another process's hands, until all are finished.

    Each process does its own share first, then what is left of the others'; at last it waits for what others are doing,
    in case they die. Memory: one byte per image beside the names.

    Args:
        names: all images, sorted.
        out: the output folder.
        rank, size: number of this process among all, and how many there are.
        since: when the run began (seconds since the epoch): earlier failures are tried again, later ones are not.
        finished: indices of images that are known to be done.
        on_news: called with the name of an image that another process has ended, and why it failed (None: it did not).
        before_waiting: called before it waits for others, who may wait for this process likewise.

    Example:
        >>> import tempfile
        >>> out = OutputFolder(tempfile.mkdtemp())
        >>> out.prepare()
        >>> work = WorkList(["a", "b", "c", "d"], out, rank=1, size=2)
        >>> work.take(3), work.close()
        ([2, 3, 0], None)
    """

    def __init__(
        self,
        names: list[str],
        out: OutputFolder | ShardedOutput,
        rank: int = 0,
        size: int = 1,
        since: float = math.inf,
        finished: Iterable[int] = (),
        on_news: Callable[[str, str | None], None] = lambda name, reason: None,
        before_waiting: Callable[[], None] = lambda: None,
    ) -> None:
        self.names, self.out, self.since, self.on_news = names, out, since, on_news
        self.before_waiting = before_waiting
        self._file = out.lock.open("ab")  # one at a time in a process: the system counts its locks on a file together
        self.close = self._file.close
        self._settled = bytearray(len(names))
        for index in finished:
            self._settled[index] = 1
        start = rank * len(names) // size
        self._ahead = (index % len(names) for index in range(start, start + len(names)))
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
            if taken or not self._busy:
                return taken
            self.before_waiting()
            time.sleep(POLL_SECONDS)
            self._ahead, self._busy = (index for index in self._busy), []

    def settle(self, name: str) -> None:
        """Note that this process has ended an image, and written so into its folder."""
        self._settled[bisect.bisect_left(self.names, name)] = 1
        lock(self._file, name, held=False)

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
        if not lock(self._file, self.names[index]):
            self._busy.append(index)
            return False
        if self._ended(index):  # between the look and the lock; nobody else can end it from here on
            lock(self._file, self.names[index], held=False)
            return False
        return True

    def _ended(self, index: int) -> bool:
        """Tell whether another process has ended an image, and note it."""
        name = self.names[index]
        done = self.out.is_done(name)
        reason = None if done else self.out.failure(name, self.since)
        if not done and reason is None:
            return False
        self._settled[index] = 1
        self.on_news(name, reason)
        return True
