"""``iagan photo``: photographs in, the same photographs out, enlarged and their faces restored."""

from __future__ import annotations

import argparse
import itertools
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from jsonargparse import ArgumentParser

from iagan_lightning.checks import check_seed
from iagan_lightning.commands.front import BOOLEANS
from iagan_lightning.commands.messages import for_people
from iagan_lightning.data.faces import require_detector
from iagan_lightning.data.folders import list_pictures
from iagan_lightning.data.written import ADDED, PHOTO
from iagan_lightning.methods.views import views_of
from iagan_lightning.operators.noise import check_noise_std
from iagan_lightning.photo.blur import check_blur
from iagan_lightning.photo.picture import as_png, know_heic, read_photograph
from iagan_lightning.photo.priors import loaded
from iagan_lightning.photo.record import lines
from iagan_lightning.photo.restoring import check_scale, restore
from iagan_lightning.photo.sheet import how_unsure, sheet_of_faces, what_was_invented
from iagan_lightning.results.files import as_json, write_bytes, write_picture, write_text
from iagan_lightning.runs.levels import parse_fraction
from iagan_lightning.safety import printable


class Files(NamedTuple):
    """A photograph and what is written of it."""

    photograph: Path
    output: Path

    def beside(self, ending: str) -> Path:
        """Return the path of another file on the same photograph."""
        return self.output.with_name(self.output.stem.removesuffix(ADDED) + ending)

    @property
    def record(self) -> Path:
        """The path of the record."""
        return self.beside(PHOTO)


def parser() -> ArgumentParser:
    """Return the parser of the command's arguments."""
    parser = ArgumentParser(
        prog="iagan photo",
        description=(
            "Enlarge photographs and restore the faces in them, in agreement with every pixel: averaged back to its "
            "size, a clean photograph comes out within 1/255 of what went in."
        ),
        exit_on_error=False,
    )
    parser.add_argument("files", type=str, nargs="+", metavar="FILE", help="photographs, or folders of them")
    parser.add_argument(
        "--out",
        type=str,
        help="PNG to write for one photograph, or folder; NAME_iagan.png beside each photograph by default",
    )
    parser.add_argument(
        "--scale", type=int, default=2, help="by which to enlarge; 1 restores what is noisy or compressed in place"
    )
    parser.add_argument(
        "--prior", type=str, help="name or file; for each face the best of those that are here by default"
    )
    parser.add_argument(
        "--noise_std", type=str, help="of the photographs, on the [0, 1] scale, such as 10/255; estimated by default"
    )
    parser.add_argument(
        "--blur",
        type=str,
        default="0",
        help="through which the photographs were taken: standard deviation of a Gaussian in their pixels, or auto",
    )
    parser.add_argument("--seed", type=int, default=0, help="of all random numbers")
    parser.add_argument(
        "--sheet", type=bool, default=False, help="also write NAME_iagan_sheet.png: each face before and after"
    )
    parser.add_argument(
        "--map",
        type=bool,
        default=False,
        help="also write NAME_iagan_map.png: what the prior added to the photograph, or with --views how unsure it is",
    )
    parser.add_argument(
        "--views",
        type=int,
        default=1,
        help="reconstructions of each face, mirrored and turned, of which the mean is taken",
    )
    return parser


def run_photo(args: Sequence[str]) -> int:
    """Restore photographs and return the exit status: 0 where all are done, 1 where some could not be read or written.

    Raises:
        ValueError: for arguments that do not parse, for a prior that cannot be had, and without the face detector.
    """
    try:
        given = parser().parse_args(_spelled_out(args))
    except argparse.ArgumentError as error:
        raise ValueError(for_people(str(error), ["photo", *args]) or str(error)) from error
    level = None if given.noise_std is None else parse_fraction(given.noise_std)
    if level is not None:
        check_noise_std(level)
    check_scale(given.scale, (1, 1))
    views_of(given.views)
    blur = width_of(given.blur)
    check_seed(given.seed)
    know_heic()
    work, left_out = files_of(given.files, given.out)
    for line in left_out:
        print(f"iagan: {line}", file=sys.stderr)
    require_detector("iagan photo")
    if given.prior:
        loaded(given.prior)
    failed = 0
    for files in work:
        try:
            _restore(files, given.scale, given.prior, level, given.seed, given.views, blur, given.sheet, given.map)
        except (OSError, ValueError, MemoryError) as error:
            failed += 1
            reason = " ".join(str(error).split()) or type(error).__name__
            name = printable(str(files.photograph))
            print(f"iagan: {reason if name in reason else f'{name}: {reason}'}", file=sys.stderr)
    if failed and len(work) > 1:
        print(f"iagan: {failed} of {len(work)} photographs failed", file=sys.stderr)
    return 1 if failed else 0


def _spelled_out(args: Sequence[str]) -> list[str]:
    """Return the words with true behind --sheet and --map where no value stands there, but a photograph perhaps.

    Example:
        >>> _spelled_out(["--sheet", "a.jpg", "--map", "false"])
        ['--sheet', 'true', 'a.jpg', '--map', 'false']
    """
    words = []
    for word, after in zip(args, [*args[1:], ""], strict=True):
        words += [word, "true"] if word in ("--sheet", "--map") and after.lower() not in BOOLEANS else [word]
    return words


def width_of(blur: str) -> float | None:
    """Return the width of a blur as it is given in words, None for auto.

    Example:
        >>> width_of("1.5"), width_of("auto")
        (1.5, None)
    """
    if blur == "auto":
        return None
    try:
        width = float(blur)
    except ValueError:
        raise ValueError(
            f"blur is a width in pixels of the photograph, such as 1.5, or auto; {blur!r} was given"
        ) from None
    check_blur(width)
    return width


def files_of(given: Sequence[str], out: str | None) -> tuple[list[Files], list[str]]:
    """Return the photographs among files and in folders, each with where its result goes.

    And a line for each folder of which something was left out.

    Raises:
        ValueError: for a folder without photographs, and for an output that cannot be.
    """
    found: list[tuple[Path, Path]] = []  # each with the folder in which its result goes below --out
    left_out = []
    for name in given:
        path = Path(name)
        if path.is_dir():
            listing = list_pictures(path)
            found += [(path / file, Path(file).parent) for file in listing.files]
            left_out += [listing.left_out] if listing.left_out else []
        else:
            found.append((path, Path()))
    to = Path(out) if out else None
    if to and to.suffix.lower() == ".png" and not to.is_dir():
        if len(found) > 1 or Path(given[0]).is_dir():
            raise ValueError(f"--out {out} is one file, and {len(found)} photographs were given: name a folder")
        return [Files(found[0][0], to)], left_out
    if to and to.suffix and not to.is_dir():
        raise ValueError(f"--out is a file ending in .png, which keeps every pixel, or a folder; {out} was given")
    outputs: dict[Path, Path] = {}  # the photograph of each
    for path, below in dict.fromkeys(found):
        folder = to / below if to else path.parent
        # a.jpg and a.png have one stem, and those of two folders may have one name
        names = itertools.chain([path.stem, path.name], (f"{path.stem}-{number}" for number in itertools.count(2)))
        outputs[next(at for name in names if (at := folder / f"{name}{ADDED}.png") not in outputs)] = path
    return [Files(photograph, output) for output, photograph in outputs.items()], left_out


def _restore(
    files: Files,
    scale: int,
    prior: str | None,
    level: float | None,
    seed: int,
    views: int,
    blur: float | None,
    sheet: bool,
    mapped: bool,
) -> None:
    """Restore one photograph, write what was asked for and print its lines.

    Raises:
        OSError, ValueError: where it cannot be read or written, or is too large.
    """
    of_faces, of_map = files.beside(f"{ADDED}_sheet.png"), files.beside(f"{ADDED}_map.png")
    paths = [files.output, files.record, *([of_faces] if sheet else []), *([of_map] if mapped else [])]
    _require_free(paths)
    photograph = read_photograph(files.photograph)
    check_scale(scale, photograph.size)
    files.output.parent.mkdir(parents=True, exist_ok=True)
    done = restore(photograph, scale, prior, level, seed, views, blur, _progress(files.photograph.name))
    record = {"image": str(files.photograph), "output": str(files.output), **done.record}
    if mapped:
        record["map"] = "uncertainty" if views > 1 else "added"
    _require_free(paths)
    write_bytes(files.output, as_png(done.photograph))
    if sheet and done.patches:
        write_picture(of_faces, sheet_of_faces(done))
    if mapped:
        write_picture(of_map, how_unsure(done) if views > 1 else what_was_invented(done))
    write_text(files.record, as_json(record))
    print("\n".join(lines(record)), flush=True)


def _progress(name: str) -> Callable[[str], None] | None:
    """Return what shows in a terminal how far a photograph is; None where nobody looks."""
    if not sys.stderr.isatty():
        return None

    def tell(line: str) -> None:
        print(f"{printable(name)}: {line} ...", file=sys.stderr, flush=True)

    return tell


def _require_free(paths: Sequence[Path]) -> None:
    """Raise ValueError where a file is there already: nothing is ever overwritten."""
    for path in paths:
        if path.exists():
            raise ValueError(f"{printable(str(path))} is there already, and stays: name another place with --out")
