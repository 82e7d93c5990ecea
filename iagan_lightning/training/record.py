"""What a training remembers of its pictures, so that a resumed one goes on with the same ones in the same order.

``pictures.csv`` lists those it began with. Its lines are the places of every pass over the pictures, and stay: the
place of a picture that is bad, or was taken out because it is bad, shows the next good one. ``bad_pictures.csv`` says
which are bad and why, ``held_out_pictures.csv`` which are never shown.
"""

from __future__ import annotations

import csv
import hashlib
import io
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import IO, NamedTuple

from iagan_lightning.results.files import write_text
from iagan_lightning.safety import printable

ENDS = 4096  # bytes at either end of a file that are hashed
COMPRESSED = (b"\xff\xd8\xff", b"\x89PNG", b"GIF8", b"RIFF")  # JPEG, PNG, GIF, WebP: how such files begin
SHORT = 32  # digits of a hash of the ends
NAMED = 10  # pictures named in one line
PICTURES, HELD_OUT, BAD = "pictures.csv", "held_out_pictures.csv", "bad_pictures.csv"


class Entry(NamedTuple):
    """A picture as it was: its name below the root, and a hash of what it held."""

    name: str
    hash: str


def hash_of(file: IO[bytes], size: int) -> tuple[str, bytes]:
    """Return a hash of a file's size, first and last 4 KiB, and its end; in what is not compressed, also of all of it.

    Two orders of magnitude faster than reading all of 160,000 pictures. Whatever changes within a compressed picture
    moves all that follows, so that its end changes too; where each pixel has its place, both ends may be mere border.
    """
    head = file.read(ENDS)
    file.seek(max(size - ENDS, 0))
    tail = file.read(ENDS)
    digest = hashlib.sha256(size.to_bytes(8, "big") + head + tail).hexdigest()[:SHORT]
    if size > 2 * ENDS and not head.startswith(COMPRESSED):
        digest += whole_hash(file)
    return digest, tail


def whole_hash(file: IO[bytes]) -> str:
    """Return a hash of all that a file holds."""
    digest = hashlib.sha256()
    file.seek(0)
    while block := file.read(1 << 20):
        digest.update(block)
    return digest.hexdigest()[:32]


def known_as(hashes: Iterable[str]) -> set[str]:
    """Return hashes of pictures as they are and as an earlier version wrote them."""
    return {form for digest in hashes for form in (digest, digest[:SHORT])}


def agree(before: str, now: str) -> bool:
    """Tell whether a picture is as it was; an earlier version's hash says nothing of what lies between its ends.

    Example:
        >>> agree("12", "1234"), agree("1234", "1234"), agree("1235", "1234")
        (True, True, False)
    """
    return now.startswith(before)


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
    if len(before) == len(now) and all(agree(a.hash, b.hash) for a, b in zip(before, now, strict=True)):
        return list(range(len(now))), ""
    known, numbers = {entry.name for entry in before}, {entry.name: number for number, entry in enumerate(now)}
    places = [numbers.get(entry.name) for entry in before]
    gone, changed = [], []
    for entry, number in zip(before, places, strict=True):
        if entry.name in bad:
            continue
        if number is None:
            gone.append(entry.name)
        elif not agree(entry.hash, now[number].hash):
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
