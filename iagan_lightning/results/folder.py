"""The folder of a run: where each file lies, and what it says."""

from __future__ import annotations

import csv
import errno
import io
import itertools
import json
import math
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from iagan_lightning.data.names import same_place
from iagan_lightning.results.files import as_json, read_json, record_in, write_bytes, write_text
from iagan_lightning.results.location import Disk, location
from iagan_lightning.results.remarks import Remarks
from iagan_lightning.results.summary import summarise
from iagan_lightning.urls import is_url

LONGEST_FILE = 64  # bytes of the longest name within the folder of an image, while it is written
LATER = ("files", "own", "image_shape")  # of settings.json, which folders of earlier versions lack
METRICS_VERSION = 2  # of metrics.json: 2 names the misfit beside the objective; 1 had no version


class Results:
    """What a run writes beside its images, wherever they lie: settings, names, the summary.

    Args:
        root: folder or URL.
        new: it must not be there yet; it is made with a number behind its name where another process has been faster.
    """

    root: Any
    sharded = False

    def __init__(self, root: str | os.PathLike[str], new: bool = False) -> None:
        self.files = location(root)
        self.root = self.files.root if isinstance(self.files, Disk) else str(root)
        self._prepared, self._new = False, new

    def _make(self, below: str) -> None:
        try:
            if self._new:
                self._claim()
            self.files.make(below)
            with self.files.writing(".writable"):
                pass
            self.files.delete(".writable")
            self._prepared = True
        except OSError as error:
            raise ValueError(f"cannot write to {self.root}: {error.strerror or error}") from error

    def _claim(self) -> None:
        self.root.parent.mkdir(parents=True, exist_ok=True)
        wanted = self.root.name
        for number in itertools.count(2):
            try:
                self.root.mkdir()
            except FileExistsError:
                self.root = self.root.with_name(f"{wanted}-{number}")
            else:
                self._new, self.files = False, location(self.root)
                return

    def _require(self, below: str) -> None:
        if self._prepared and isinstance(self.root, Path) and not (self.root / below).is_dir():
            raise FileNotFoundError(errno.ENOENT, "the output folder has vanished", str(self.root))

    def done(self) -> Iterator[dict[str, Any]]:
        """Return the metrics of all finished images, in the order of their names."""
        raise NotImplementedError

    def read(self, name: str) -> bytes:
        """Return the content of a file beside the images; FileNotFoundError where there is none."""
        with self.files.open(name) as file:
            return file.read()

    def write(self, name: str, text: str) -> None:
        """Write a text beside the images in one step."""
        with self.files.writing(name) as file:
            file.write(text.encode("utf-8", "surrogateescape"))

    def names(self) -> dict[str, str]:
        """Return the names that were given in this run so far, and the relative paths of the files that have them.

        Raises:
            ValueError: where the file that tells them is damaged.
        """
        if self._new:
            return {}
        try:
            names = dict(json.loads(self.read(".names.json").decode()))
        except (FileNotFoundError, NotADirectoryError):
            return {}
        except (OSError, TypeError, ValueError) as error:
            raise ValueError(f"{self.root}/.names.json cannot be read: {error}. Choose another --out") from error
        return {str(name): str(path) for name, path in names.items()}

    def keep_names(self, names: dict[str, str]) -> None:
        """Remember the names of images, so that a file added later renames none of them."""
        before = self.names()
        if not names.items() <= before.items():
            self.write(".names.json", json.dumps({**before, **names}, indent=0) + "\n")

    def check_settings(self, settings: dict[str, Any]) -> None:
        """Record what determines the results, or refuse when an earlier run in this folder used something else.

        Raises:
            ValueError: naming each setting that differs, its earlier and its present value; for a damaged record.
        """
        written = as_json(settings)
        settings = json.loads(written)
        if self.files.exists("settings.json") or not self.files.write_once("settings.json", written):
            before = record_in(self.read("settings.json"), f"{self.root}/settings.json")
            if before.get("format") != settings.get("format"):
                raise ValueError(
                    f"{self.root} holds results of another version of this package, whose settings cannot be compared "
                    "with today's: choose another --out (iagan report still reads that one)"
                )
            unknown = {key for key in LATER if key not in before or key not in settings}
            old, new = (
                dict(_flatten({key: value for key, value in each.items() if key not in unknown}))
                for each in (before, settings)
            )
            changed = [key for key in sorted(old.keys() | new.keys()) if old.get(key) != new.get(key)]
            if changed:
                details = "; ".join(_difference(key, old.get(key), new.get(key)) for key in changed)
                raise ValueError(
                    f"{self.root} holds results of other settings ({details}): choose another --out, or set it back"
                )

    def write_summary(self, failed: dict[str, str] | None = None) -> dict[str, Any]:
        """Rebuild summary.csv and summary.json from the metrics of all finished images, and return the latter.

        One image after another: memory does not grow with their number, but for their names.
        """
        columns = {"image": None, "method": None}
        with tempfile.TemporaryFile(
            "w+",
            dir=self.root if isinstance(self.root, Path) else None,
            encoding="utf-8",
            errors="surrogateescape",
            newline="",
        ) as body:
            writer = csv.writer(body, lineterminator="\n")

            remarks = Remarks()
            titles: dict[str, str] = {}  # of methods whose usual title would mislead
            about: dict[str, Any] = {}  # metrics that are not ours

            def rows() -> Iterator[dict[str, Any]]:
                for done in self.done():
                    remarks.add(done)
                    titles.update(done.get("titles", {}))
                    about.update(done.get("about", {}))
                    for method, metrics in done["methods"].items():
                        row = {"image": done["image"], "method": method, **metrics}
                        shown = {**row, "title": titles[method]} if method in titles else row
                        columns.update(dict.fromkeys(shown))
                        writer.writerow([shown.get(column, "") for column in columns])
                        yield row

            summary = summarise(rows())
            summary["titles"], summary["about"] = titles, about
            summary["remarks"], summary["failed"] = remarks.lines(), failed or {}
            body.seek(0)
            with self.files.writing("summary.csv") as file:
                table = io.TextIOWrapper(file, encoding="utf-8", errors="surrogateescape", newline="")
                writer = csv.writer(table, lineterminator="\n")
                writer.writerow(columns)
                for cells in csv.reader(body):  # the first rows may not have known the last columns
                    writer.writerow(cells + [""] * (len(columns) - len(cells)))
                table.flush()
                table.detach()
        self.write("summary.json", as_json(summary))
        return summary


class OutputFolder(Results):
    """Layout of ``OUT``; see the README for what each file holds.

    An image is done when its ``metrics.json`` is there: that file is written last, and like every other it is
    written beside its place and then moved there in one step, so that a killed run leaves nothing half-written.

    Args:
        root: the folder.
        new: it must not be there yet; ``prepare`` makes it, with a number behind its name where another process has
            been faster.
    """

    root: Path

    def prepare(self, images: bool = True) -> None:
        """Make the folder, and make sure that it can be written to.

        Raises:
            ValueError: where it cannot, or holds results as Parquet shards.
        """
        if images and not self._new and (self.root / "shards").is_dir():
            raise ValueError(
                f"{self.root} holds results as Parquet: give --out_format parquet, or choose another --out"
            )
        self._make("images" if images else "")
        self._prepared = images

    def check_apart(self, *sources: str | os.PathLike[str] | None) -> None:
        """Refuse folders of pictures among which this one's own files would lie.

        Raises:
            ValueError: naming the folder.
        """
        root = self.root.resolve()
        for source in sources:
            # A single file is taken alone, whatever lies beside it.
            if source is None or is_url(source) or not Path(source).is_dir():
                continue
            place = Path(source).resolve()
            if place == root or {root / "images", root / "pictures", root / "tensorboard"} & {place, *place.parents}:
                raise ValueError(
                    f"the results would lie among the pictures of {source}: choose another --out than {self.root}, "
                    f"such as {self.root / 'results'}"
                )

    def require(self) -> None:
        """Raise OSError when the folder has vanished since ``prepare``: it must not be made anew, somewhere else."""
        self._require("images")

    def image(self, name: str) -> Path:
        """Return the folder of an image."""
        return self.root / "images" / name

    def make(self, name: str) -> Path:
        """Return the folder of an image, made if need be; OSError when that of the run has vanished."""
        self.require()
        self.image(name).mkdir(parents=True, exist_ok=True)
        return self.image(name)

    def picture(self, name: str) -> Path:
        """Return where the offered picture of an image goes that is kept by itself; the folder is made if need be."""
        path = self.root / "pictures" / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def check_names(self, names: dict[str, str]) -> None:
        """Refuse names for which this folder's file system has no place of their own.

        Raises:
            ValueError: for a path that is too long, and for two names that are one where upper and lower case are not
                told apart.
        """
        if hasattr(os, "pathconf"):
            longest = os.pathconf(self.root, "PC_PATH_MAX"), os.pathconf(self.root, "PC_NAME_MAX")
            for name, file in names.items():
                parts = os.fsencode(name).split(b"/")
                path = len(os.fsencode(self.image(name).absolute())) + LONGEST_FILE
                if path > longest[0] or max(map(len, parts)) > longest[1]:
                    raise ValueError(
                        f"the results of {file} have no place in {self.root}: their path would be longer than the file "
                        "system allows. Choose an --out with a shorter path, or rename the file"
                    )
        if self.merges_case():
            owners: dict[str, str] = {}
            for name, file in {**self.names(), **names}.items():
                if (other := owners.setdefault(same_place(name), file)) != file:
                    raise ValueError(
                        f"{other} and {file} would have their results in the same place, since {self.root} does not "
                        "tell upper case from lower: rename one of them, or choose another --out"
                    )

    def merges_case(self) -> bool:
        """Tell whether upper and lower case are one on this folder's file system."""
        probe = self.root / f".Case-{os.getpid()}"
        write_bytes(probe, b"")
        try:
            return probe.with_name(probe.name.swapcase()).exists()
        finally:
            probe.unlink(missing_ok=True)

    @property
    def lock(self) -> Path:
        """The file on which processes lock the images that they work on."""
        return self.root / ".lock"

    def failure(self, name: str, since: float) -> str | None:
        """Return why an image has failed since a moment (seconds since the epoch), None where it has not."""
        path = self.image(name) / "error.txt"
        try:
            return path.read_text(encoding="utf-8").partition("\n")[0] if path.stat().st_mtime >= since else None
        except FileNotFoundError:
            return None

    def tensorboard(self, name: str) -> Path:
        """Return the TensorBoard run of an image; TensorBoard reads only names in UTF-8, others are written out."""
        return self.root / "tensorboard" / name.encode("utf-8", "backslashreplace").decode()

    def is_done(self, name: str) -> bool:
        """Tell whether an image is finished."""
        return (self.image(name) / "metrics.json").is_file()

    def metrics(self, name: str) -> dict[str, Any]:
        """Return what metrics.json says of a finished image; None stands for what is no finite number.

        Raises:
            ValueError: for a damaged file.
        """
        return read_json(self.image(name) / "metrics.json")

    def done(self) -> Iterator[dict[str, Any]]:
        """Return the metrics of all finished images, in the order of their names."""
        folder = self.root / "images"
        for name in _finished(folder, ""):
            yield self.metrics(name)

    def rows(self) -> Iterator[dict[str, Any]]:
        """Return the rows of summary.csv, metrics as numbers; what is no finite number is left out."""
        with (self.root / "summary.csv").open(encoding="utf-8", errors="surrogateescape", newline="") as table:
            for row in csv.DictReader(table):
                names = {key: row.pop(key) for key in ("image", "method", "title") if key in row}
                numbers = {key: float(value) for key, value in row.items() if value}
                yield {**names, **{key: value for key, value in numbers.items() if math.isfinite(value)}}

    def add(self, name: str, files: Mapping[str, bytes]) -> list[str]:
        """Write the files of a finished image, its record last; return its name, which is safe now."""
        folder = self.make(name)
        for file, content in sorted(files.items(), key=lambda item: item[0] == "metrics.json"):
            if file == "metrics.json":  # of attempts that failed or were killed
                for remnant in (folder / "error.txt", *folder.glob(".*.part")):
                    remnant.unlink(missing_ok=True)
            write_bytes(folder / file, content)
        return [name]

    def flush(self) -> list[str]:
        """Write what waits; nothing does."""
        return []

    def fail(self, name: str, reason: str, details: str) -> None:
        """Record why an image has failed."""
        write_text(self.make(name) / "error.txt", f"{reason}\n\n{details}")

    def forget(self, name: str) -> None:
        """Delete what there is of an image."""
        for folder in (self.image(name), self.tensorboard(name)):
            shutil.rmtree(folder, ignore_errors=True)


def _finished(folder: Path, prefix: str) -> Iterator[str]:
    """Return the names of the folders below that hold metrics.json."""
    try:
        with os.scandir(folder) as entries:
            below = sorted(entry.name for entry in entries if entry.is_dir(follow_symlinks=False))
    except FileNotFoundError:
        return
    for name in below:
        if (folder / name / "metrics.json").is_file():
            yield prefix + name
        yield from _finished(folder / name, f"{prefix}{name}/")


def _difference(key: str, before: Any, now: Any) -> str:
    section, _, name = key.partition(".")
    if section == "files" and before and now:
        return f"the file of {name} holds something else"
    return f"{key} was {before!r}, now {now!r}"


def _flatten(tree: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(tree, dict) and tree:
        for key, value in tree.items():
            yield from _flatten(value, f"{prefix}.{key}" if prefix else str(key))
    else:
        yield prefix, tree
