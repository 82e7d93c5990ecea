"""Writing a file whole or not at all: beside its place, then moved there in one step. Imports nothing of ours."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO


@contextmanager
def replacing(path: Path) -> Iterator[IO[bytes]]:
    """Open a file beside a place, and move it there in one step when all has gone well.

    The folder is not made: one that vanishes while its files are written stays away.
    """
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with part.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    except OSError as error:  # of a full disk Python does not say which file was to be written
        error.filename = error.filename or str(path)
        raise
    finally:
        part.unlink(missing_ok=True)
