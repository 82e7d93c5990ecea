"""What iagan has written: recognised by the records that lie beside it, and never input.

A folder of a run or training is known by what the records in it say, not by its name or place, so that folders of
earlier versions, moved ones and those of other people are known too; a result of ``iagan photo`` by the record that
names it. One's own pictures that lie beside such files remain input.
"""

from __future__ import annotations

import glob
import json
import os
import posixpath
import tarfile
from collections.abc import Callable, Iterable
from fnmatch import fnmatchcase
from pathlib import Path

LARGEST = 1 << 24  # bytes of a record that is looked into; those of ours are a thousandth of it

# By patterns of names; those of folders end with a slash.
RUN = (
    "images/", "tensorboard/", "settings.json", "config.yaml", "environment.json", "summary.csv", "summary.json",
    "report.html", "shards/", "failed/", ".*",
)  # fmt: skip
PICTURES = "pictures/"
SAVED = b"\nsave: pictures\n"  # in config.yaml: the folder of pictures is the run's too
TRAINING = ("samples.png", "tensorboard/", "settings.json", "*.ckpt", "prior.safetensors", "*.json", "*.csv", ".*")
IMAGE = ("*.png", "*.pt", "*.json", "*.csv", "*.txt", "*.safetensors", ".*")
PHOTO, ADDED = ".iagan.json", "_iagan"  # behind a photograph's name: of the record of what was made of it, of the rest
TABLE = ("figure*.png", "figure*.csv", "sheet-*.png", "table.csv", "table.md", "table.tex")


def written_in(has: Callable[[str], bool], read: Callable[[str], bytes], names: Iterable[str] = ()) -> tuple[str, ...]:
    """Return the patterns of what we have written in a folder; none where it holds nothing of ours.

    Args:
        has: tells whether the folder holds a file or folder of a name.
        read: returns the content of a file in it.
        names: of the files in it, among which records of photographs are looked for.

    Example:
        >>> settings = b'{"task": "train-prior", "seed": 0, "model": {}}'
        >>> files = {"settings.json": settings, "samples.png": b"", "mine.png": b""}
        >>> [name for name in files if is_written(name, written_in(files.__contains__, files.__getitem__))]
        ['settings.json', 'samples.png']
    """
    patterns: tuple[str, ...] = ()
    settings = _record(read, "settings.json") if has("settings.json") else {}
    if settings.keys() >= {"task", "seed", "model"}:
        patterns += TRAINING
    elif settings.keys() >= {"task", "operator", "data"} or (
        has(".names.json") and (has("images") or has("shards"))
    ):  # damaged settings
        patterns += RUN
        if has("config.yaml") and SAVED in _content(read, "config.yaml"):
            patterns += (PICTURES,)
    if has("metrics.json") and _record(read, "metrics.json").keys() >= {"image", "methods"}:
        patterns += IMAGE
    if all(map(has, ("table.csv", "table.md", "table.tex"))):  # of iagan reproduce
        patterns += TABLE
    for name in names:
        if name.endswith(PHOTO) and (record := _record(read, name)).keys() >= {"image", "output", "faces"}:
            stem = name.removesuffix(PHOTO)
            written = (name, Path(str(record["output"])).name, f"{stem}{ADDED}_sheet.png", f"{stem}{ADDED}_map.png")
            patterns += tuple(map(glob.escape, written))
    return patterns


def is_written(name: str, patterns: Iterable[str]) -> bool:
    """Tell whether a name, that of a folder with a slash behind it, is one of those that we have written."""
    return any(fnmatchcase(name, pattern) and name.endswith("/") == pattern.endswith("/") for pattern in patterns)


def written_on_disk(folder: Path, names: Iterable[str] | None = None) -> tuple[str, ...]:
    """Return the patterns of what we have written in a folder of a disk.

    Args:
        folder: the folder.
        names: all names in it, where they are known; otherwise photographs are not looked for.
    """
    known = None if names is None else set(names)

    def has(name: str) -> bool:
        return os.path.lexists(folder / name) if known is None else name in known

    def read(name: str) -> bytes:
        with (folder / name).open("rb") as file:
            return file.read(LARGEST)

    return written_in(has, read, known or ())


def results_around(folder: Path) -> Path | None:
    """Return the folder of a run or training that has written this one; None where it is nobody's.

    Nor is it for one that holds nothing but results and was named by itself: whoever asks for that means it.
    """
    inner = folder.resolve()
    for outer in inner.parents:
        if inner.name + "/" != PICTURES and is_written(f"{inner.name}/", written_on_disk(outer)):
            return outer
        inner = outer
    return None


def written_in_tar(archive: tarfile.TarFile) -> dict[str, str]:
    """Return the members of a tar file that we have written, and the folder in which each was recognised."""
    members = {posixpath.normpath(member.name): member for member in archive.getmembers() if member.isfile()}
    patterns: dict[str, tuple[str, ...]] = {}
    records = [name for name in members if name.endswith(PHOTO)]
    folders = {str(parent) for name in members for parent in _parents(name)}

    def read(path: str) -> bytes:
        file = archive.extractfile(members[path])
        return b"" if file is None else file.read(LARGEST)

    for folder in folders:
        patterns[folder] = written_in(
            lambda name, at=folder: (path := posixpath.join(at, name)) in members or path in folders,  # type: ignore[misc]
            lambda name, at=folder: read(posixpath.join(at, name)),  # type: ignore[misc]
            [posixpath.basename(name) for name in records if posixpath.dirname(name) == folder],
        )
    found = {}
    for name, member in members.items():
        step = name
        for parent in _parents(name):
            inner = posixpath.relpath(step, parent or ".") + "/" * (step != name)
            if is_written(inner, patterns[parent]):
                found[member.name] = parent or "."
            step = parent
    return found


def _parents(path: str) -> list[str]:
    """Return the folders above a relative path, the nearest first and "" last."""
    parents = []
    while path:
        path = posixpath.dirname(path)
        parents.append(path)
    return parents


def _content(read: Callable[[str], bytes], name: str) -> bytes:
    try:
        return read(name)
    except (OSError, KeyError):  # nobody's, or a folder
        return b""


def _record(read: Callable[[str], bytes], name: str) -> dict[str, object]:
    try:
        content = json.loads(_content(read, name))
    except (ValueError, RecursionError):  # damaged
        return {}
    return content if isinstance(content, dict) else {}
