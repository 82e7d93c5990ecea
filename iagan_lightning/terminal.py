"""Standard output and error of a process of ours: what they cannot take must not end a run.

A terminal may know few characters (cp1252, ASCII), a pipe's reader may leave early, and a stream may have been closed
from the start. None of that changes what a command does, or its exit status. Imports nothing heavy.
"""

from __future__ import annotations

import errno
import io
import os
import re
import sys
import warnings
from typing import Any

GONE = {errno.EPIPE, errno.ESHUTDOWN, *([errno.EINVAL] if os.name == "nt" else [])}  # said of a pipe without a reader


class Notice(UserWarning):
    """What there is to say beside results: a warning to programs, a line on standard error where a command runs."""


def prepare_streams() -> None:
    """Make standard output and error of this process take everything: what they do not know as escapes.

    Only the process's own streams are touched, not what a program has put in their place.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:  # it was closed: the next file to be opened would lie in its place
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: SIM115 - as long as the process
    if sys.stdout is sys.__stdout__:
        sys.stdout = _patient(sys.stdout)
    if sys.stderr is sys.__stderr__:
        sys.stderr = _patient(sys.stderr)


def show_notices() -> None:
    """Let this process tell of each ``Notice`` in a line, without its place in the code."""
    usual = warnings.showwarning

    def show(message: Any, category: type[Warning], *where: Any, **more: Any) -> None:
        if issubclass(category, Notice):
            print(f"iagan: {message}", file=sys.stderr)
        else:
            usual(message, category, *where, **more)

    warnings.showwarning = show


def drop_output() -> None:
    """Let what is left for standard output go nowhere: its disk is full, say."""
    nothing = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nothing, sys.stdout.fileno())
    os.close(nothing)


def without_traceback(message: str) -> str:
    r"""Return what went wrong in a worker of PyTorch's, which puts a traceback in front; other messages as they are.

    Example:
        >>> without_traceback("Caught ValueError in DataLoader worker process 0.\nOriginal Traceback (most recent call "
        ...     "last):\n  File \"a.py\", line 1, in f\n    g()\nValueError: a.png is damaged\n")
        'a.png is damaged'
    """
    if "Original Traceback (most recent call last):" not in message:
        return message
    return re.split(r"^[A-Za-z_][\w.]*: ", message, flags=re.MULTILINE)[-1].strip()


def _patient(stream: Any) -> Any:
    if not isinstance(stream, io.TextIOWrapper):
        return stream
    stream.flush()
    bytes_: Any = _Unread(getattr(stream.buffer, "raw", stream.buffer))
    return io.TextIOWrapper(
        bytes_ if stream.write_through else io.BufferedWriter(bytes_),
        encoding=stream.encoding,
        errors="backslashreplace",
        line_buffering=stream.line_buffering,
        write_through=stream.write_through,
    )


class _Unread(io.RawIOBase):
    """The bytes of a stream; those that come when its reader has gone are dropped."""

    def __init__(self, raw: Any) -> None:
        self._raw = raw

    def writable(self) -> bool:
        """Return True."""
        return True

    def isatty(self) -> bool:
        """Tell whether the stream is a terminal."""
        return bool(self._raw.isatty())

    def fileno(self) -> int:
        """Return the descriptor of the stream."""
        return int(self._raw.fileno())

    def write(self, data: Any) -> int:
        """Write bytes and return their number."""
        try:
            return int(self._raw.write(data) or 0)
        except OSError as error:
            if error.errno not in GONE:
                raise
            return len(data)
