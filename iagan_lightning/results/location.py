"""Where results lie: a folder of a disk, or one of an object store by its URL, with the same few operations on both.

Every file is written whole or not at all: beside its place, then moved there.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, Protocol

from iagan_lightning.replacing import replacing
from iagan_lightning.results.files import write_once
from iagan_lightning.urls import filesystem, is_url


class Location(Protocol):
    """A folder, and files in it by their relative paths."""

    def make(self, folder: str) -> None:
        """Make a folder, and those above it."""

    def exists(self, name: str) -> bool:
        """Tell whether there is a file or folder."""

    def names(self, folder: str) -> list[str]:
        """Return the names of the files in a folder, sorted; none where there is no such folder."""

    def open(self, name: str) -> IO[bytes]:
        """Open a file for reading from any place; FileNotFoundError where there is none."""

    def writing(self, name: str) -> Any:
        """Return a context manager with a file to write, which takes its place in the end."""

    def write_once(self, name: str, content: str) -> bool:
        """Write a text unless the file is there; return whether it was written."""

    def delete(self, name: str) -> None:
        """Delete a file, if it is there."""


def location(root: str | os.PathLike[str]) -> Location:
    """Return the folder of a path or URL.

    Raises:
        ValueError: for a URL of a kind that cannot be opened here.
    """
    return Remote(str(root)) if is_url(root) else Disk(root)


class Disk:
    """A folder of a disk.

    Example:
        >>> import tempfile
        >>> disk = Disk(tempfile.mkdtemp())
        >>> with disk.writing("a.txt") as file:
        ...     _ = file.write(b"a")
        >>> disk.names(""), disk.exists("a.txt"), disk.exists("b.txt")
        (['a.txt'], True, False)
    """

    def __init__(self, root: str | os.PathLike[str]) -> None:
        self.root = Path(root).expanduser()  # --out=~/x reaches us as it is typed

    def make(self, folder: str) -> None:
        """Make a folder, and those above it."""
        (self.root / folder).mkdir(parents=True, exist_ok=True)

    def exists(self, name: str) -> bool:
        """Tell whether there is a file or folder."""
        return (self.root / name).exists()

    def names(self, folder: str) -> list[str]:
        """Return the names of the files in a folder, hidden ones aside, sorted."""
        try:
            return sorted(name for name in os.listdir(self.root / folder) if not name.startswith("."))
        except FileNotFoundError:
            return []

    def open(self, name: str) -> IO[bytes]:
        """Open a file for reading."""
        return (self.root / name).open("rb")

    def writing(self, name: str) -> Any:
        """Return a context manager with a file to write, which takes its place in the end."""
        return replacing(self.root / name)

    def write_once(self, name: str, content: str) -> bool:
        """Write a text unless the file is there; of several processes one does."""
        return write_once(self.root / name, content)

    def delete(self, name: str) -> None:
        """Delete a file, if it is there."""
        (self.root / name).unlink(missing_ok=True)


class Remote:
    """A folder of an object store, or of whatever else fsspec opens by a URL.

    Example:
        >>> store = Remote("memory://example")
        >>> with store.writing("below/a.txt") as file:
        ...     _ = file.write(b"a")
        >>> store.names("below"), store.exists("below/a.txt"), store.exists("b")
        (['a.txt'], True, False)
    """

    def __init__(self, root: str) -> None:
        self.files, path = filesystem(root)
        self.root = path.rstrip("/")

    def make(self, folder: str) -> None:
        """Do nothing: an object store has no folders."""

    def exists(self, name: str) -> bool:
        """Tell whether there is a file or folder."""
        return bool(self.files.exists(self._path(name)))

    def names(self, folder: str) -> list[str]:
        """Return the names of the files in a folder, hidden ones aside, sorted."""
        self.files.invalidate_cache()  # others may have written
        try:
            paths = self.files.ls(self._path(folder), detail=False)
        except FileNotFoundError:
            return []
        return sorted(name for path in paths if not (name := str(path).rpartition("/")[2]).startswith("."))

    def open(self, name: str) -> IO[bytes]:
        """Open a file for reading."""
        file: IO[bytes] = self.files.open(self._path(name), "rb")
        return file

    @contextmanager
    def writing(self, name: str) -> Iterator[IO[bytes]]:
        """Return a file to write, which is moved into its place in the end."""
        folder, _, last = name.rpartition("/")
        part = self._path(f"{folder}/.{last}.{os.getpid()}.part".lstrip("/"))
        try:
            self.files.makedirs(part.rpartition("/")[0], exist_ok=True)
            with self.files.open(part, "wb") as file:
                yield file
            self.files.mv(part, self._path(name))
        except BaseException:
            if self.files.exists(part):
                self.files.rm(part)
            raise

    def write_once(self, name: str, content: str) -> bool:
        """Write a text unless the file is there; two processes at one moment may both do so."""
        if self.exists(name):
            return False
        with self.writing(name) as file:
            file.write(content.encode("utf-8", "surrogateescape"))
        return True

    def delete(self, name: str) -> None:
        """Delete a file, if it is there."""
        if self.exists(name):
            self.files.rm(self._path(name))

    def _path(self, name: str) -> str:
        return f"{self.root}/{name}".rstrip("/")
