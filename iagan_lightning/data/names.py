"""What an image is called: the place of its results, and the key of its rows.

NAME is the relative path of its file without the ending where no other file has a claim to that, else with it. No two
files can meet, since no name without an ending looks like one with it; and what a run has once named is kept in its
folder, so that a file added later renames nothing.
"""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping

from iagan_lightning.data.folders import ARRAYS, suffix_of
from iagan_lightning.safety import picture_suffixes


def names_of(paths: Iterable[str], known: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return the NAME of each file by its relative path.

    Args:
        paths: relative, with slashes.
        known: names that were given before, and the files that have them.

    Example:
        >>> names_of(["a.png", "b.jpg", "b.png", "b.png.jpg"])
        {'a.png': 'a', 'b.jpg': 'b.jpg', 'b.png': 'b.png', 'b.png.jpg': 'b.png.jpg'}
        >>> names_of(["a.png", "a.jpg"], known={"a": "a.png"})
        {'a.png': 'a', 'a.jpg': 'a.jpg'}
    """
    paths, known = list(paths), known or {}
    mine = {path: name for name, path in known.items()}
    shared = Counter(map(without_suffix, paths))
    return {
        path: mine.get(path) or (stem if _is_plain(stem) and shared[stem] == 1 and stem not in known else path)
        for path, stem in ((path, without_suffix(path)) for path in paths)
    }


def without_suffix(path: str) -> str:
    """Return a path without its ending, cut from the text: no rule for dots can turn it into another folder.

    Example:
        >>> without_suffix("a/b.c.png"), without_suffix("a/...png")
        ('a/b.c', 'a/..')
    """
    folder, slash, last = path.rpartition("/")
    return folder + slash + (last.rpartition(".")[0] if "." in last else last)


def _is_plain(stem: str) -> bool:
    """Tell whether a path without its ending is the name of a folder everywhere, and of no other picture."""
    last = stem.rpartition("/")[2]
    return last != "" and last[-1] not in ". " and suffix_of(last) not in picture_suffixes() | ARRAYS


def same_place(name: str) -> str:
    """Return what names share that are one folder where upper and lower case, or forms of Unicode, are not told apart.

    Example:
        >>> same_place("Face") == same_place("face")
        True
    """
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())


def pair(truths: Iterable[str], measured: Iterable[str]) -> dict[str, str]:
    """Return the measurements of each true picture: those of the same path, or the only ones that differ in its ending.

    Raises:
        KeyError: with the name of one that has no partner.

    Example:
        >>> pair(["a.png", "b.png"], ["b.npy", "a.png"])
        {'a.png': 'a.png', 'b.png': 'b.npy'}
    """
    groups: dict[str, tuple[list[str], list[str]]] = {}
    for side, paths in enumerate((truths, measured)):
        for path in paths:
            groups.setdefault(without_suffix(path), ([], []))[side].append(path)
    pairs = {}
    for stem, (ours, theirs) in sorted(groups.items()):
        if len(ours) == len(theirs) == 1:
            pairs[ours[0]] = theirs[0]
        elif sorted(ours) == sorted(theirs):
            pairs.update(zip(ours, ours, strict=True))
        else:
            alone = sorted(set(ours) ^ set(theirs))
            raise KeyError(stem if len(alone) == 1 else alone[0])
    return pairs
