"""Results as Parquet shards: a row for each image, a column for each file that its folder would hold.

A million images are a million folders of a dozen files otherwise. A shard is written when it holds enough, or has
waited long enough, under another name and moved into place, so that what it holds is done whatever comes after.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from iagan_lightning.results.files import record_in
from iagan_lightning.results.folder import OutputFolder, Results
from iagan_lightning.results.location import Disk
from iagan_lightning.results.remarks import offered
from iagan_lightning.safety import printable
from iagan_lightning.urls import is_url, parquet

IMAGES = 1000  # of a shard
BYTES = 256 * 2**20  # of a shard: it is held in memory until it is written
SECONDS = 60.0  # that an image waits for its shard to be written: what is lost when the process is killed
GROUP = 64  # images that are read at a time

FOLDER = "shards"
COLUMNS = {"metrics.json": "metrics", "curves.csv": "curves", "measurement.pt": "y", "weights.safetensors": "weights"}
TEXTS = ("metrics.json", "curves.csv")
OPENED = 16  # shards whose records are kept at a time

Files = dict[str, bytes]


class ShardedOutput(Results):
    """The results of a run as Parquet shards, in a folder or an object store.

    ``OUT/shards/part-*.parquet`` hold the images; what else a run writes lies beside them as in an ``OutputFolder``,
    reasons of failures in ``OUT/failed/NAME/error.txt``.

    Args:
        root: folder or URL.
        new: it must not be there yet; ``prepare`` makes it, with a number behind its name where it is.
    """

    sharded = True

    def __init__(self, root: str | os.PathLike[str], new: bool = False) -> None:
        super().__init__(root, new)
        parquet()
        self._shard_of: dict[str, str] = {}
        self._known: set[str] = set()
        self._looked: object = None
        self._waiting: dict[str, Files] = {}
        self._size, self._since = 0, 0.0
        self._opened = functools.lru_cache(maxsize=OPENED)(self._records_of)
        self._one = threading.Lock()

    def prepare(self, images: bool = True) -> None:
        """Make the folder, and make sure that it can be written to.

        Raises:
            ValueError: where it cannot, or holds results as folders.
        """
        if not self._new and not is_url(self.root) and (Path(self.root) / "images").is_dir():
            raise ValueError(
                f"{self.root} holds results as folders: leave out --out_format parquet, or choose another --out"
            )
        self._make(FOLDER)

    def check_apart(self, *sources: str | os.PathLike[str] | None) -> None:
        """Refuse the folder of the pictures itself."""
        for source in sources:
            if source is None or is_url(source) or is_url(self.root):
                continue
            if Path(source).resolve() == Path(self.root).resolve():
                raise ValueError(f"the results would lie among the pictures of {source}: choose another --out")

    def check_names(self, names: dict[str, str]) -> None:
        """Refuse names that Parquet cannot hold.

        Raises:
            ValueError: for a name that is no text in UTF-8.
        """
        for name, file in names.items():
            try:
                name.encode()
            except UnicodeEncodeError:
                raise ValueError(
                    f"{printable(file)} has a name that is not in UTF-8, as Parquet's texts are: rename it, or leave "
                    "out --out_format parquet"
                ) from None

    def require(self) -> None:
        """Raise OSError when the folder has vanished since ``prepare``."""
        self._require(FOLDER)

    @property
    def lock(self) -> Path:
        """The file on which processes of one machine lock the images that they work on."""
        return (Path(tempfile.gettempdir()) if is_url(self.root) else Path(self.root)) / ".lock"

    # Writing -----------------------------------------------------------------------------------------------------

    def add(self, name: str, files: Files) -> list[str]:
        """Take the files of a finished image; return the names of the images that are safe now."""
        if not self._waiting:
            self._since = time.monotonic()
        self._waiting[name] = files
        self._size += sum(map(len, files.values()))
        late = time.monotonic() - self._since >= SECONDS
        return self.flush() if late or len(self._waiting) >= IMAGES or self._size >= BYTES else []

    def flush(self) -> list[str]:
        """Write what waits as a shard, and return the names of its images.

        Raises:
            OSError: when the folder has vanished or is full; what waits goes on waiting.
        """
        waiting = self._waiting
        if not waiting:
            return []
        self.require()
        with self._alone():
            self._look()
            rows = sorted((name, files) for name, files in waiting.items() if name not in self._shard_of)
            if rows:
                name = f"part-{hashlib.sha256(json.dumps([n for n, _ in rows]).encode()).hexdigest()[:16]}.parquet"
                with self.files.writing(f"{FOLDER}/{name}") as file:
                    write_shard(file, rows)
                self._known.add(name)
                self._shard_of.update((image, name) for image, _ in rows)
        for name in waiting:
            if not is_url(self.root) and self.files.exists(f"failed/{name}/error.txt"):
                shutil.rmtree(Path(self.root) / "failed" / name)
        self._waiting, self._size = {}, 0
        return list(waiting)

    def fail(self, name: str, reason: str, details: str) -> None:
        """Record why an image has failed."""
        self.require()
        self.files.make(f"failed/{name}")
        self.write(f"failed/{name}/error.txt", f"{reason}\n\n{details}")

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Keep other processes of this machine from writing a shard: they might hold the same images."""
        if is_url(self.root) or sys.platform == "win32":
            yield
            return
        import fcntl

        with (Path(self.root) / ".shards").open("ab") as file:  # not .lock: closing it would end all locks on it
            with suppress(OSError):  # a file system without locks
                fcntl.lockf(file, fcntl.LOCK_EX)
            yield

    # Reading -----------------------------------------------------------------------------------------------------

    def is_done(self, name: str) -> bool:
        """Tell whether a shard holds an image."""
        self._look()
        return name in self._shard_of

    def failure(self, name: str, since: float) -> str | None:
        """Return why an image has failed since a moment, None where it has not."""
        if is_url(self.root):
            return None  # it has one process
        path = Path(self.root) / "failed" / name / "error.txt"
        try:
            return path.read_text(encoding="utf-8").partition("\n")[0] if path.stat().st_mtime >= since else None
        except FileNotFoundError:
            return None

    def metrics(self, name: str) -> dict[str, Any]:
        """Return what metrics.json says of an image.

        Raises:
            KeyError: where no shard holds it.
            ValueError: for a damaged shard.
        """
        if name in self._waiting:
            return record_in(self._waiting[name]["metrics.json"], name)
        self._look()
        with self._one:
            content = self._opened(self._shard_of[name])[name]
        return record_in(content.encode(), f"{self.root}/{FOLDER}/{self._shard_of[name]}: {name}")

    def done(self) -> Iterator[dict[str, Any]]:
        """Return the metrics of all images in the order of their names."""
        self._look()
        return map(self.metrics, sorted(self._shard_of))

    def images(self) -> Iterator[tuple[str, Files]]:
        """Return the name and the files of every image, once, in the order of the shards."""
        self._look()
        for shard in sorted(self._known):
            with self._reading(shard) as file:
                for group in range(file.num_row_groups):
                    for name, files in rows_of(file.read_row_group(group)):
                        if self._shard_of[name] == shard:
                            yield name, files

    def files_of(self, name: str) -> Files:
        """Return the files of an image.

        Raises:
            KeyError: where no shard holds it.
        """
        self._look()
        with self._reading(self._shard_of[name]) as file:
            for group in range(file.num_row_groups):
                names = file.read_row_group(group, columns=["image"])["image"].to_pylist()
                if name in names:
                    return dict(rows_of(file.read_row_group(group).slice(names.index(name), 1)))[name]
        raise KeyError(name)

    def _look(self) -> None:
        """Take note of the shards that are there."""
        if isinstance(self.files, Disk):
            try:
                now: object = os.stat(Path(self.root) / FOLDER).st_mtime_ns
            except FileNotFoundError:
                return
        else:
            now = "once"  # one process alone writes there
        if now == self._looked:
            return
        for shard in self.files.names(FOLDER):
            if shard.endswith(".parquet") and shard not in self._known:
                with self._reading(shard) as file:
                    for name in file.read(columns=["image"])["image"].to_pylist():
                        self._shard_of.setdefault(name, shard)
                self._known.add(shard)
        self._looked = now

    def _records_of(self, shard: str) -> dict[str, str]:
        with self._reading(shard) as file:
            table = file.read(columns=["image", "metrics"])
        return dict(zip(table["image"].to_pylist(), table["metrics"].to_pylist(), strict=True))

    @contextmanager
    def _reading(self, shard: str) -> Iterator[Any]:
        """Open a shard.

        Raises:
            ValueError: for one that is damaged, or none of ours.
        """
        pa, pq = parquet()
        try:
            with self.files.open(f"{FOLDER}/{shard}") as file, pq.ParquetFile(file) as opened:
                if not {"image", "metrics"} <= set(opened.schema_arrow.names):
                    raise pa.ArrowInvalid("it has no columns image and metrics")
                yield opened
        except (pa.ArrowException, OSError) as error:
            raise ValueError(
                f"{self.root}/{FOLDER}/{shard} is damaged ({' '.join(str(error).split())}): delete it and run the "
                "same command again"
            ) from error


def write_shard(file: IO[bytes], rows: Sequence[tuple[str, Files]]) -> None:
    """Write images as a Parquet file.

    Columns: ``image``, its name; ``result``, the method that it is about, and each metric of that one; ``metrics`` and
    ``curves``, texts; ``y``, ``weights`` and the PNG of each method by the method's name, bytes.
    """
    pa, pq = parquet()
    records = [json.loads(files["metrics.json"]) for _, files in rows]
    best = [offered(record) for record in records]
    figures = [record["methods"].get(name, {}) for record, name in zip(records, best, strict=True)]
    columns: dict[str, Any] = {"image": pa.array([name for name, _ in rows]), "result": pa.array(best)}
    fields = {name: pa.field(name, pa.string()) for name in columns}
    for figure in dict.fromkeys(key for each in figures for key in each):
        fields[figure] = pa.field(figure, pa.float64())
        columns[figure] = pa.array([each.get(figure) for each in figures], pa.float64())
    for name in dict.fromkeys(name for _, files in rows for name in files):
        column = COLUMNS.get(name, name.removesuffix(".png"))
        column = name if column in columns or (column in COLUMNS.values() and name not in COLUMNS) else column
        kind = pa.string() if name in TEXTS else pa.large_binary()
        fields[column] = pa.field(column, kind, metadata={"file": name})
        columns[column] = pa.array([files.get(name) for _, files in rows], pa.large_binary()).cast(kind)
    table = pa.table(list(columns.values()), schema=pa.schema(list(fields.values())))
    texts = {column: "zstd" for column, field in fields.items() if field.type == pa.string()}  # pictures are packed
    few = [column for column, field in fields.items() if field.type == pa.string()]
    pq.write_table(table, file, compression=texts, use_dictionary=few, row_group_size=GROUP, write_statistics=["image"])


def rows_of(table: Any) -> Iterator[tuple[str, Files]]:
    """Yield the name and the files of each row of a shard."""
    about = [(field.name, (field.metadata or {}).get(b"file", b"").decode()) for field in table.schema]
    for row in table.to_pylist():
        files = {file: row[column] for column, file in about if file and row[column] is not None}
        yield row["image"], {f: c.encode() if isinstance(c, str) else c for f, c in files.items()}


# Between folders and shards -----------------------------------------------------------------------------------------


def collect_files(folder: OutputFolder, name: str) -> Files:
    """Return the files in the folder of a finished image, its record last."""
    own = folder.image(name)
    names = sorted(path.name for path in own.iterdir() if path.is_file() and not path.name.startswith("."))
    return {each: (own / each).read_bytes() for each in sorted(names, key=lambda each: each == "metrics.json")}


def open_results(root: str | os.PathLike[str]) -> OutputFolder | ShardedOutput:
    """Return the results in a folder or at a URL, as whichever of the two they are."""
    return ShardedOutput(root) if holds_shards(root) else OutputFolder(root)


def holds_shards(root: str | os.PathLike[str]) -> bool:
    """Tell whether results lie in shards: every URL, and a folder with shards of ours."""
    return is_url(root) or (Path(root) / FOLDER).is_dir()


def export(shards: ShardedOutput, folder: OutputFolder, wanted: Callable[[str], bool] = lambda file: True) -> int:
    """Write every image of shards to a folder of its own, and what lies beside them; return the number of images.

    Args:
        shards: the results.
        folder: where to; images that are done there are left as they are.
        wanted: tells of the name of a file whether it is written.

    Raises:
        ValueError: for a folder with results of other settings.
    """
    folder.prepare()
    if shards.files.exists("settings.json"):
        folder.check_settings(record_in(shards.read("settings.json"), f"{shards.root}/settings.json"))
    count = 0
    for name, files in shards.images():
        count += 1
        if not folder.is_done(name):
            folder.add(name, {file: content for file, content in files.items() if wanted(file)})
    if isinstance(shards.files, Disk):
        for reason in sorted((shards.files.root / "failed").rglob("error.txt")):
            image = folder.make(reason.parent.relative_to(shards.files.root / "failed").as_posix())
            shutil.copyfile(reason, image / "error.txt")
    for name in ("settings.json", "config.yaml", "environment.json", ".names.json", "summary.csv", "summary.json"):
        if shards.files.exists(name):
            with shards.files.open(name) as source, folder.files.writing(name) as target:
                shutil.copyfileobj(source, target)
    return count


@contextmanager
def as_folder(root: str | os.PathLike[str]) -> Iterator[Path]:
    """Return results as a folder with a folder for each image: as they are, or for a while those of shards.

    Example:
        >>> with as_folder("runs/a") as folder:
        ...     print(folder)
        runs/a
    """
    results = open_results(root)
    if isinstance(results, OutputFolder):
        yield results.root
        return
    with tempfile.TemporaryDirectory(prefix="iagan-") as place:
        export(results, OutputFolder(place))
        yield Path(place)
