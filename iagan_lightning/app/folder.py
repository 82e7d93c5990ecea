"""The folder in which uploads and results lie while the page is open, and which is gone when it is closed."""

from __future__ import annotations

import os
import shutil
import stat
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from iagan_lightning.runs.sharing import lock

PREFIX, HELD = "iagan-app-", "held"


@contextmanager
def temporary_folder(above: Path | None = None) -> Iterator[Path]:
    """Make a folder that only this user can read, and remove it in the end, with what killed processes have left.

    A file in it is locked while its process lives, whatever number the system gives to another one later.

    Args:
        above: where it is made; the system's place for such folders by default.

    Example:
        >>> with temporary_folder() as folder:
        ...     folder.is_dir()
        True
        >>> folder.exists()
        False
    """
    above = Path(tempfile.gettempdir()) if above is None else above
    remove_left(above)
    folder = Path(tempfile.mkdtemp(prefix=PREFIX, dir=above)).resolve()
    try:
        with (folder / HELD).open("wb") as file:
            file.write(str(os.getpid()).encode())
            file.flush()
            lock(file, HELD)
            yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def remove_older(folder: Path, seconds: float) -> None:
    """Remove uploads and results that are older, for a page that stays open for weeks."""
    now = time.time()
    for path in folder.rglob("*"):
        with suppress(OSError):
            if path.is_file() and path.name != HELD and now - path.stat().st_mtime > seconds:
                path.unlink()


def remove_left(above: Path) -> list[Path]:
    """Remove the folders of processes that were killed, this user's own alone, and return them."""
    left = []
    for folder in above.glob(f"{PREFIX}*"):
        try:
            about = folder.lstat()
            if not stat.S_ISDIR(about.st_mode) or (hasattr(os, "getuid") and about.st_uid != os.getuid()):
                continue
            with (folder / HELD).open("r+b") as file:  # one that has none is not ours, or just being made
                if file.read() == str(os.getpid()).encode() or not lock(file, HELD):
                    continue  # locks do not keep a process from its own files
        except OSError:
            continue
        shutil.rmtree(folder, ignore_errors=True)
        left.append(folder)
    return left
