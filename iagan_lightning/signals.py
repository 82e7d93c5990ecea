"""Signals that end a process: Ctrl-C, SIGTERM, a closed terminal. What a command of ours does when one comes.

While its imports run there is nothing to lose, and an exception could end in C++ or in a library that drops it: the
process ends at once. Later the signal becomes an exception, ``Ended``, so that files and other processes are seen to;
where work must not be cut through it is only noted (``hold``), until ``release``. Every way one line tells, and the
exit status is 128 and the signal's number. Imports nothing heavy, since it must be there before everything else.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from subprocess import Popen

ENDING = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]
AGAIN = 1.0  # seconds after which another Ctrl-C means at once; a terminal and `timeout` tell a process twice as it is
RANKS = ("RANK", "LOCAL_RANK", "SLURM_PROCID")  # of torchrun, Lightning and SLURM


class Ended(BaseException):
    """A signal has asked this process to end; no ``Exception``, so that nobody takes it for an image's failure.

    Attributes:
        number: the signal's.
        done: what had been done by then, as the subject and verb of a line.
        again: what goes on with it.

    Example:
        >>> ended = Ended(signal.SIGTERM)
        >>> ended.done = "3 of 8 images are done"
        >>> print(ended, ended.status)
        ended by SIGTERM, 3 of 8 images are done; the same command goes on where this one stopped 143
    """

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number, self.done, self.again = number, "", "the same command"

    @property
    def status(self) -> int:
        """What a shell calls the end by this signal."""
        return 128 + self.number

    def __str__(self) -> str:
        """Return what happened, what is done and how to go on."""
        how = "interrupted" if self.number == signal.SIGINT else f"ended by {signal.Signals(self.number).name}"
        return f"{how}{', ' * bool(self.done)}{self.done}; {self.again} goes on where this one stopped"


class _Process:
    """What this process does about signals, and whether one has come."""

    def __init__(self) -> None:
        self.phase = "working"  # or starting, held
        self.owner = 0  # number of the process that catches signals; 0 for none
        self.asked: Ended | None = None
        self.since = 0.0
        self.children: list[Popen[Any]] = []


_process = _Process()


def catch() -> None:
    """Catch the signals that end this process from now on, those aside that whoever started it has it ignore (nohup).

    A process that does not call this, such as a program that uses the library, keeps its own ways.
    """
    if threading.current_thread() is threading.main_thread():
        if not _process.owner:
            _process.owner, _process.phase = os.getpid(), "starting"
        for number in ENDING:
            if signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, _handle)


def begin_work() -> None:
    """Turn signals into ``Ended`` from here on: the imports are done."""
    if _process.owner:
        _process.phase = "working"


def drop() -> None:
    """Let signals end this process the system's way: its exit status is known, and Python is about to leave."""
    if _process.owner:
        for number in ENDING:
            if signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, signal.SIG_DFL)


def asked() -> Ended | None:
    """Return what has asked this process to end, None where nothing has."""
    return _process.asked


def hold() -> None:
    """Only note signals from here on; what is under way must not be cut through. They are passed on all the same."""
    if _process.owner:
        _process.phase = "held"
        catch()  # a Trainer has put handlers of its own in their place


def release(done: str = "", again: str = "the same command") -> None:
    """End ``hold``.

    Args:
        done: what has been done by now.
        again: what goes on with it.

    Raises:
        Ended: where a signal has come in the meantime.
    """
    begin_work()
    if _process.asked is not None:
        _process.asked.done, _process.asked.again = done, again
        raise _process.asked


@contextmanager
def held() -> Iterator[None]:
    """Hold signals for a moment."""
    hold()
    yield
    release()


def pass_on(children: list[Popen[Any]]) -> None:
    """Pass signals on to processes that this one has started; the list may grow."""
    _process.children = children


def leave_to_parent(number: int = 0) -> None:
    """Have a process that reads for another one ignore signals (a DataLoader's ``worker_init_fn``).

    They often reach a whole group of processes, and the one that is served has a step to finish first; it sees the
    others off.
    """
    for each in ENDING:
        signal.signal(each, signal.SIG_IGN)


def tell(ended: Ended, also: str = "") -> int:
    """Print the line on standard error, in the first of several processes, and return the exit status."""
    ranks = [int(os.environ[name]) for name in RANKS if os.environ.get(name, "").isdigit()]
    if not any(ranks) and "IAGAN_COMPANION" not in os.environ:
        try:  # not print: another line may be half written, and a closed terminal takes nothing
            sys.stderr.flush()
            os.write(2, f"iagan: {ended}{f' ({also})' * bool(also)}\n".encode(errors="backslashreplace"))
        except (OSError, RuntimeError):
            pass
    return ended.status


def _handle(number: int, frame: Any) -> None:
    if os.getpid() != _process.owner:  # a fork of it, which its parent sees off
        if number == signal.SIGTERM:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
        return
    now = time.monotonic()
    if _process.asked is not None:
        if number == signal.SIGINT and now - _process.since > AGAIN:
            for child in _process.children:
                child.kill()
            os._exit(tell(_process.asked))
        return
    ended = _process.asked = Ended(number)
    _process.since = now
    for child in _process.children:
        child.send_signal(number)
    if _process.phase == "starting":
        os._exit(tell(ended))
    if _process.phase == "working":
        raise ended
