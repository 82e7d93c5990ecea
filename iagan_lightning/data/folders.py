"""Which files of a folder are pictures, and what is left out of it."""

from __future__ import annotations

import os
from collections.abc import Collection
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from iagan_lightning.data.written import is_written, results_around, written_on_disk
from iagan_lightning.safety import picture_suffixes, printable

ARRAYS = frozenset({".pt", ".npy"})

HEIC_ENDINGS = (".heic", ".heif", ".hif")

# What other programs and systems leave between pictures, besides names that begin with a dot.
SYSTEM = {"@eaDir", "#recycle", "__MACOSX", "$RECYCLE.BIN", "System Volume Information", "lost+found"}
NAMED = 3  # files named of each kind that is left out

HIDDEN = "hidden or of the system"
EMPTY = "empty"
OTHER = "without the ending of a picture"
HEIC = "in HEIC, which iagan photo reads (pip install 'iagan-lightning[heic]')"
BROKEN = "a link that leads nowhere"
AGAIN = "a link to a folder that is read already"
CLOSED = "a folder that cannot be read"
OURS = "with what iagan has written"


class Listing(NamedTuple):
    """Pictures below a folder by relative path, and one line on what was left out or called otherwise, or nothing."""

    files: dict[str, Any]  # Path, or Member of a shard
    left_out: str


class LeftOut:
    """What is left out of a folder, as one line.

    Example:
        >>> left = LeftOut("pictures")
        >>> left.add(EMPTY, "a.png")
        >>> print(left)
        left out of pictures: 1 empty (a.png)
    """

    def __init__(self, root: str | os.PathLike[str]) -> None:
        self.root = printable(str(root))
        self.paths: dict[str, list[str]] = {}

    def add(self, reason: str, path: str) -> None:
        """Note a file or folder."""
        self.paths.setdefault(reason, []).append(path)

    def __str__(self) -> str:
        """Return how many files were left out for which reason, with the first names of each."""
        reasons = []
        for reason, paths in self.paths.items():
            more = " ..." if len(paths) > NAMED else ""
            reasons.append(f"{len(paths)} {reason} ({', '.join(map(printable, sorted(paths)[:NAMED]))}{more})")
        return f"left out of {self.root}: {'; '.join(reasons)}" if reasons else ""

    def nothing(self, suffixes: Collection[str]) -> ValueError:
        """Return the error for a folder of which nothing remains."""
        found = f"; {self}" if self.paths else ""
        return ValueError(
            f"no pictures in {self.root}: files ending in {', '.join(sorted(suffixes))} are looked for{found}"
        )


def list_pictures(root: str | os.PathLike[str], also: Collection[str] = ()) -> Listing:
    """Return the pictures below a folder, or the one file that was named.

    Hidden and system files and empty ones are left out, and what iagan itself has written. Linked folders are
    followed, each real folder once: first all that lie below the root, then the links in the order of their paths, so
    that no link moves what is found without it.

    Args:
        root: folder or file.
        also: endings to look for besides those of pictures, in lower case.

    Raises:
        ValueError: where there is no such folder or file, or nothing in it, and for a folder within a run's results.
    """
    base, suffixes, left = Path(root), picture_suffixes() | set(also), LeftOut(root)
    if not base.exists():
        raise ValueError(f"no such folder or file: {root}")
    if base.is_dir():
        if (results := results_around(base)) is not None:
            raise ValueError(
                f"{printable(str(root))} lies among what a run or training has written in {printable(str(results))}: "
                "give the folder of your own pictures, or a single file"
            )
        found = _walk(base, suffixes, left)
    else:
        found = {base.name: base} if suffix_of(base.name) in suffixes else {}
    if not found:
        raise left.nothing(suffixes)
    return Listing(found, str(left))


def reason_left_out(path: str, suffixes: Collection[str]) -> str | None:
    """Return why a file is left out that has this relative path; None where its path is that of a picture.

    Example:
        >>> reason_left_out("a/._b.png", {".png"}), reason_left_out("@eaDir/b.png", {".png"})
        ('hidden or of the system', 'hidden or of the system')
        >>> reason_left_out("a/b.txt", {".png"}), reason_left_out("a/b.PNG", {".png"})
        ('without the ending of a picture', None)
    """
    if any(part.startswith(".") or part in SYSTEM for part in PurePosixPath(path).parts):
        return HIDDEN
    suffix = suffix_of(path)
    return None if suffix in suffixes else HEIC if suffix in HEIC_ENDINGS else OTHER


def suffix_of(path: str) -> str:
    """Return the ending of a path in lower case: what follows its last dot, whichever dots come before.

    Example:
        >>> suffix_of("a.b/c.PNG"), suffix_of("..png"), suffix_of("a.b/c")
        ('.png', '.png', '')
    """
    last = path.rpartition("/")[2]
    return f".{last.rpartition('.')[2]}".lower() if "." in last else ""


def _walk(base: Path, suffixes: Collection[str], left: LeftOut) -> dict[str, Path]:
    found: list[str] = []
    seen: set[tuple[int, int]] = set()
    below: list[str] = [""]
    links: list[str] = []
    while below or links:
        prefix = below.pop() if below else links.pop(0)
        try:
            about = (base / prefix).stat()
            entries = list(os.scandir(base / prefix))
        except OSError:
            left.add(CLOSED, prefix)
            continue
        if (about.st_dev, about.st_ino) in seen:
            left.add(AGAIN, prefix)
            continue
        seen.add((about.st_dev, about.st_ino))
        ours = written_on_disk(base / prefix, [entry.name for entry in entries])
        if ours:
            left.add(OURS, prefix or ".")
        for entry in entries:
            path = f"{prefix}/{entry.name}" if prefix else entry.name
            reason = reason_left_out(entry.name, suffixes)
            try:
                folder = entry.is_dir()
                if ours and is_written(entry.name + "/" * folder, ours):
                    continue
                if folder and reason != HIDDEN:
                    (links if entry.is_symlink() else below).append(path)
                    links.sort()
                    continue
                if reason is None and not entry.is_file():
                    reason = BROKEN
                elif reason is None and not entry.stat().st_size:
                    reason = EMPTY
            except OSError:  # a link to itself, say
                reason = reason if reason == HIDDEN else BROKEN
            if reason is None:
                found.append(path)
            else:
                left.add(reason, path)
    return {path: base / path for path in sorted(found, key=PurePosixPath)}
