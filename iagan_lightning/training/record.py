"""What a training remembers of its pictures, so that a resumed one goes on with the same ones in the same order.

``pictures.csv`` lists those it began with. Its lines are the places of every pass over the pictures, and stay: the
place of a picture that is bad, or was taken out because it is bad, shows the next good one. ``bad_pictures.csv`` says
which are bad and why, ``held_out_pictures.csv`` which are never shown.
"""

from __future__ import annotations

import csv
import hashlib
import io
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import IO, NamedTuple

from iagan_lightning.results.files import write_text
from iagan_lightning.safety import printable

ENDS = 4096  # bytes at either end of a file that are hashed
NAMED = 10  # pictures named in one line
PICTURES, HELD_OUT, BAD = "pictures.csv", "held_out_pictures.csv", "bad_pictures.csv"


class Entry(NamedTuple):
    """A picture as it was: its name below the root, and a hash of what it held."""

    name: str
    hash: str


def hash_of(file: IO[bytes], size: int) -> tuple[str, bytes]:
    """Return a hash of a file's size, first and last 4 KiB, and its end.

    Two orders of magnitude faster than reading all of 160,000 pictures. Whatever changes within a compressed picture
    moves all that follows, so that its end changes too.
    """
    head = file.read(ENDS)
    file.seek(max(size - ENDS, 0))
    tail = file.read(ENDS)
    return hashlib.sha256(size.to_bytes(8, "big") + head + tail).hexdigest()[:32], tail


def read_pictures(out: Path, name: str = PICTURES) -> list[Entry] | None:
    """Return the pictures that a training began with, or holds out; None where its folder does not say.

    Raises:
        ValueError: for a damaged list.
    """
    rows = _rows(out / name)
    if rows is None:
        return None
    if not rows or any(len(row) != 2 for row in rows):
        raise ValueError(
            f"{out / name} is damaged: delete it to go on with the pictures that are there, or choose another --out"
        )
    return [Entry(*row) for row in rows]


def write_pictures(out: Path, entries: Sequence[Entry], name: str = PICTURES) -> None:
    """Keep the pictures that a training begins with, or holds out."""
    write_text(out / name, _lines([("picture", "hash"), *entries]))


def read_bad(out: Path) -> dict[str, str]:
    """Return the pictures that were found to be bad so far, and why."""
    return {row[0]: row[1] for row in _rows(out / BAD) or [] if len(row) == 2}


def note_bad(out: Path, bad: Mapping[str, str]) -> None:
    """Add pictures to those that are bad; any process may, at any time."""
    known = read_bad(out)
    new = [(name, reason) for name, reason in bad.items() if name not in known]
    if new:
        with (out / BAD).open("a", encoding="utf-8", errors="surrogateescape", newline="") as file:
            file.write(_lines([*([] if known else [("picture", "reason")]), *new]))


def match(before: Sequence[Entry], now: Sequence[Entry], bad: Collection[str]) -> tuple[list[int | None], str]:
    """Return for each place of a training the number of its picture now, and what else has changed (empty: nothing).

    Bad pictures may be taken out, left or replaced. Pictures that are the same in the same order may be called
    otherwise: a folder may move, or become a tar file.

    Example:
        >>> began = [Entry("a.png", "1"), Entry("b.png", "2")]
        >>> match(began, [Entry("b.png", "2")], bad={"a.png"})
        ([None, 0], '')
        >>> match(began, [Entry("b.png", "3"), Entry("c.png", "4")], bad={})
        ([None, 0], '1 gone (a.png), 1 changed (b.png), 1 added (c.png)')
    """
    if [entry.hash for entry in before] == [entry.hash for entry in now]:
        return list(range(len(now))), ""
    known, numbers = {entry.name for entry in before}, {entry.name: number for number, entry in enumerate(now)}
    places = [numbers.get(entry.name) for entry in before]
    gone, changed = [], []
    for entry, number in zip(before, places, strict=True):
        if entry.name in bad:
            continue
        if number is None:
            gone.append(entry.name)
        elif now[number].hash != entry.hash:
            changed.append(entry.name)
    added = [entry.name for entry in now if entry.name not in known]
    kinds = {"gone": gone, "changed": changed, "added": added}
    return places, ", ".join(f"{len(names)} {kind} ({some(names)})" for kind, names in kinds.items() if names)


def some(words: Sequence[str]) -> str:
    """Return the first words of many as one line that is safe to print."""
    more = f" and {len(words) - NAMED} more" if len(words) > NAMED else ""
    return ", ".join(map(printable, words[:NAMED])) + more


def with_reasons(bad: Mapping[str, str]) -> str:
    """Return bad pictures with their reasons as one line."""
    return some([f"{name}: {reason}" for name, reason in bad.items()])


def _rows(path: Path) -> list[list[str]] | None:
    """Return the lines of a table below its heading; None where there is none."""
    try:
        with path.open(encoding="utf-8", errors="surrogateescape", newline="") as file:
            return list(csv.reader(file))[1:]
    except FileNotFoundError:
        return None
    except csv.Error as error:
        raise ValueError(f"{path} is damaged ({error}): delete it, or choose another --out") from error


def _lines(rows: Sequence[Sequence[str]]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()
