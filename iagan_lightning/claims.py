"""Who works on which image: a claim is a file in the folder that all processes share.

No result depends on claims: an image comes out the same whoever makes it, and its files are moved into place in one
step. Two processes that claim one image (after a network partition, say) waste time and damage nothing. So no lock
server is needed, and nothing but what every shared file system gives: a file is created by one process only.
"""

from __future__ import annotations

import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any

STALE_SECONDS = 150.0  # NFS clients may show a modification time up to 60 seconds late


class Claims:
    """The claims of one process; use it as a context manager around its work.

    A claim holds machine, process and a token. While the process lives, a thread renews the modification time of its
    claims. A claim whose process is known to be dead (same machine) is taken over at once, any other one when its
    modification time has not changed for ``stale_seconds`` by the clock of who looks on: clocks need not agree.

    Args:
        path: called with an image's name, returns the file of its claim; the folder is made if need be.
        stale_seconds: how long a claim may go without a sign of life.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> with Claims(folder.joinpath) as one, Claims(folder.joinpath) as two:
        ...     print(one.take("a"), two.take("a"), two.take("b"))
        ...     one.release("a")
        ...     print(two.take("a"))
        True False True
        True
    """

    def __init__(self, path: Callable[[str], Path], stale_seconds: float = STALE_SECONDS) -> None:
        self._path, self.stale_seconds = path, stale_seconds
        self.token = uuid.uuid4().hex
        self.machine, self.pid = machine(), os.getpid()
        self._held: set[str] = set()
        self._seen: dict[str, tuple[tuple[int, bytes], float]] = {}  # claims of others: what they were, and since when
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._renew, name="claims", daemon=True)

    def __enter__(self) -> Claims:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._over.set()
        self._thread.join()
        for name in list(self._held):
            self.release(name)

    def take(self, name: str) -> bool:
        """Claim an image; False where another process holds it.

        Raises:
            OSError: when no claim can be written.
        """
        path = self._path(name)
        for _ in range(2):
            try:
                handle = _create(path)
            except FileExistsError:
                if self._dead(name, path):
                    continue
                return False
            try:
                os.write(handle, json.dumps({"machine": self.machine, "pid": self.pid, "token": self.token}).encode())
            finally:
                os.close(handle)
            self._held.add(name)
            self._seen.pop(name, None)
            return True
        return False

    def release(self, name: str) -> None:
        """Give a claim back, unless somebody thought this process dead and took it over."""
        self._held.discard(name)
        path = self._path(name)
        with suppress(OSError):
            if self.token.encode() in path.read_bytes():
                path.unlink()

    def _dead(self, name: str, path: Path) -> bool:
        """Remove a claim whose process is gone; False while it may be alive."""
        try:
            content, changed = path.read_bytes(), path.stat().st_mtime_ns
        except OSError:  # given back just now
            return True
        now, mark = time.monotonic(), (changed, content)
        if self._seen.get(name, (None, 0.0))[0] != mark:
            self._seen[name] = (mark, now)
        owner = _parse(content)
        if owner.get("machine") == self.machine and owner.get("token") != self.token:
            dead = not alive(owner["pid"])
        else:
            dead = False
        if not dead and now - self._seen[name][1] < self.stale_seconds:
            return False
        # Moved away rather than removed: only one process succeeds, and it sees what it has moved.
        aside = path.with_name(f".claim.{self.token}")
        try:
            os.rename(path, aside)
            moved = aside.read_bytes()
            if moved != content:  # another one was quicker and has claimed the image anew
                with suppress(OSError):
                    os.link(aside, path)
            aside.unlink()
        except OSError:
            return False
        self._seen.pop(name, None)
        return moved == content

    def _renew(self) -> None:
        while not self._over.wait(self.stale_seconds / 8):
            for name in list(self._held):
                with suppress(OSError):  # taken over, or the folder is gone: found out where results are written
                    os.utime(self._path(name))


def machine() -> str:
    """Return what names this machine, or this container: process numbers mean something only within it."""
    parts = [socket.gethostname()]
    with suppress(OSError):
        parts.append(Path("/proc/sys/kernel/random/boot_id").read_text().strip())
    with suppress(OSError):
        parts.append(os.readlink("/proc/self/ns/pid"))
    return " ".join(parts)


def alive(pid: int) -> bool:
    """Tell whether a process of this machine may still be working; in doubt it is.

    Example:
        >>> alive(os.getpid())
        True
    """
    if os.name != "posix" or pid <= 0:
        return True
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    try:  # dead, and its parent has not asked yet
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except (OSError, IndexError):
        return Path("/proc/self").exists() is False


def _create(path: Path) -> int:
    flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY
    try:
        return os.open(path, flags, 0o666)
    except FileNotFoundError:
        path.parent.mkdir(parents=True, exist_ok=True)
        return os.open(path, flags, 0o666)


def _parse(content: bytes) -> dict[str, Any]:
    try:
        owner = json.loads(content)
    except ValueError:  # its process was killed while writing: only time tells
        return {}
    return owner if isinstance(owner, dict) and isinstance(owner.get("pid"), int) else {}
