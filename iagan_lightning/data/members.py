"""Pictures in shards: members of tar files (WebDataset's layout), rows of Parquet files, and objects of a store.

Only where a picture lies is kept; its bytes are read when it is its turn, on whichever machine that is. Nothing but
pictures is taken out of a shard, by the one reader of pictures: what else there is, pickles among it, is never opened.
"""

from __future__ import annotations

import functools
import io
import os
import posixpath
import tarfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from glob import glob
from pathlib import Path
from typing import IO, Any

from iagan_lightning.data.folders import EMPTY, OTHER, OURS, LeftOut, Listing, reason_left_out, suffix_of
from iagan_lightning.data.written import written_in_tar
from iagan_lightning.safety import picture_suffixes, printable
from iagan_lightning.urls import filesystem, is_url, parquet

SHARDS = (".tar", ".parquet")
BYTES = ("image", "jpg", "jpeg", "png", "webp", "bytes", "image_bytes")  # columns that hold pictures
NAMES = ("__key__", "key", "name", "file_name", "filename", "path", "image_path", "id")  # columns that name them
OPENED = 4  # row groups that a process keeps: images that follow each other lie in one


@dataclass(frozen=True)
class Member:
    """A picture that is no file of its own; ``str`` says where it lies.

    Attributes:
        shard: path or URL of the file that it lies in.
        path: its own, or what its row is called.
        start, size: its bytes within a tar file; size -1 for all of a file.
        group, row: of a Parquet file; group -1 for others.
        column: of a Parquet file.
    """

    shard: str
    path: str
    start: int = 0
    size: int = -1
    group: int = -1
    row: int = 0
    column: str = ""

    @property
    def suffix(self) -> str:
        """The ending of its path."""
        return suffix_of(self.path)

    def read(self) -> bytes:
        """Return its bytes.

        Raises:
            OSError: where they are not there any more.
        """
        if self.group >= 0:
            content = _group(self.shard, self.column, self.group)[self.row]
            return b"" if content is None else content
        with open_shard(self.shard) as file:
            file.seek(self.start)
            content = file.read(self.size)
        if self.size >= 0 and len(content) != self.size:
            raise OSError(f"{self} is cut off: {len(content)} bytes of {self.size}")
        return content

    def __str__(self) -> str:
        """Return where it lies."""
        return self.shard if self.shard.endswith(self.path) else f"{self.shard}/{self.path}"


File = Path | Member


def opened(file: File) -> Path | IO[bytes]:
    """Return a picture as what its reader takes."""
    return io.BytesIO(file.read()) if isinstance(file, Member) else file


def open_shard(shard: str) -> IO[bytes]:
    """Open a file of a disk or an object store."""
    if not is_url(shard):
        return open(shard, "rb")
    files, path = filesystem(shard)
    file: IO[bytes] = files.open(path, "rb")
    return file


def holds_shards(root: str | os.PathLike[str]) -> bool:
    """Tell whether pictures lie in shards: a URL, .tar or .parquet files, a pattern of such, or a folder of them alone.

    Example:
        >>> holds_shards("s3://faces/part-*.tar"), holds_shards("faces.parquet"), holds_shards("faces")
        (True, True, False)
    """
    if is_url(root) or str(root).endswith(SHARDS):
        return True
    if not os.path.isdir(root):
        return False
    names = [name for name in os.listdir(root) if not name.startswith(".")]
    return (
        bool(names)
        and all(name.endswith((*SHARDS, ".json", ".txt", ".md")) for name in names)
        and any(name.endswith(SHARDS) for name in names)
    )


def list_members(root: str | os.PathLike[str]) -> Listing:
    """Return the pictures in shards by their paths.

    Raises:
        ValueError: where there are none, where a shard cannot be read, and where two pictures have one path: results
            are named by it, whichever shard a picture lies in. Rows of one Parquet file are numbered then.
    """
    left = LeftOut(root)
    found: dict[str, Member] = {}
    owners: dict[str, str] = {}
    said: list[str] = []
    shards = _shards(str(root), left)
    for shard in shards:
        try:
            members = list(_members(shard, left, said))
        except (OSError, ValueError, tarfile.TarError) as error:
            raise ValueError(f"{printable(shard)} cannot be read: {' '.join(str(error).split())}") from error
        for member in members:
            if member.path in found:
                other = owners[member.path]
                where, mend = f"in {other} and in {shard}", "give such shards apart"
                if other == shard:
                    where, mend = f"twice in {shard}", "pack it anew without one of them"
                raise ValueError(f"{printable(member.path)} is {where}: results are named by it, so {mend}")
            found[member.path], owners[member.path] = member, shard
    if not found:
        raise left.nothing(picture_suffixes() | set(SHARDS))
    return Listing(dict(sorted(found.items())), "; ".join(filter(None, [str(left), *said])))


def _shards(root: str, left: LeftOut) -> list[str]:
    """Return the files that a root stands for, sorted."""
    if is_url(root):
        files, path = filesystem(root)
        scheme = root.partition("://")[0]
        if any(sign in path for sign in "*?["):
            paths = files.glob(path)
        elif files.isdir(path):
            paths = files.find(path)
        else:
            paths = [path] if files.exists(path) else []
        return sorted(f"{scheme}://{str(path).lstrip('/') if scheme != 'file' else path}" for path in paths)
    if os.path.isdir(root):
        paths = [os.path.join(root, name) for name in os.listdir(root) if name.endswith(SHARDS)]
    else:
        paths = glob(root) if any(sign in root for sign in "*?[") and not os.path.exists(root) else [root]
    return sorted(paths)


def _members(shard: str, left: LeftOut, said: list[str]) -> Iterator[Member]:
    suffix = suffix_of(shard)
    if suffix == ".tar":
        with open_shard(shard) as file, tarfile.open(fileobj=file, mode="r:") as archive:
            ours = written_in_tar(archive)
            for folder in dict.fromkeys(ours.values()):
                left.add(OURS, folder)
            for info in archive:
                path = posixpath.normpath(info.name).lstrip("/")
                if not info.isfile() or info.name in ours:
                    continue
                reason = "outside of it" if path.startswith("..") else reason_left_out(path, picture_suffixes())
                reason = reason or (None if info.size else EMPTY)
                if reason is None:
                    yield Member(shard, path, info.offset_data, info.size)
                else:
                    left.add(reason, path)
    elif suffix == ".parquet":
        yield from _rows(shard, left, said)
    elif suffix in picture_suffixes():
        yield Member(shard, shard.rpartition("/")[2])
    else:
        left.add(OTHER, shard)


def _rows(shard: str, left: LeftOut, said: list[str]) -> Iterator[Member]:
    """Yield the rows of a Parquet file by their names; by their numbers where no column names each of them apart."""
    _, pq = parquet()
    with open_shard(shard) as file, pq.ParquetFile(file) as table:
        column, names = _columns(table.schema_arrow, shard)
        counts = [table.metadata.row_group(group).num_rows for group in range(table.num_row_groups)]
        given = [_flat(table.read_row_group(group, columns=[names])) for group in range(len(counts))] if names else []
    paths = ["" if name in (None, "") else posixpath.normpath(str(name)).lstrip("/") for each in given for name in each]
    named = list(filter(None, paths))
    stem = posixpath.basename(shard).removesuffix(".parquet")
    if len(set(named)) < len(named):  # of persons or classes, or of files in several folders
        said.append(f"{names} names several pictures of {printable(shard)} alike: they are called {stem}/000000 ...")
        paths = []
    rows = ((group, row) for group, count in enumerate(counts) for row in range(count))
    for number, (group, row) in enumerate(rows):
        path = (paths[number] if paths else "") or f"{stem}/{number:06}"
        if path.startswith(".."):
            left.add("outside of it", path)
        else:
            yield Member(shard, path, group=group, row=row, column=column)


def _columns(schema: Any, shard: str) -> tuple[str, str | None]:
    """Return the columns of the bytes and of the names, those within a column of several (bytes, path) too."""
    import pyarrow.types as types

    binary = {field.name for field in schema if types.is_binary(field.type) or types.is_large_binary(field.type)}
    within = {
        field.name: {field.type.field(i).name for i in range(field.type.num_fields)}
        for field in schema
        if types.is_struct(field.type)
    }
    column = next((name for name in BYTES if name in binary or "bytes" in within.get(name, ())), None)
    if column is None and len(binary) == 1:
        (column,) = binary
    if column is None:
        raise ValueError(
            f"it has no column of pictures: their bytes are looked for in {', '.join(BYTES)}; it has "
            f"{', '.join(schema.names)}"
        )
    named = next((name for name in NAMES if name in schema.names), None)
    if column in within:
        return f"{column}.bytes", named or (f"{column}.path" if "path" in within[column] else None)
    return column, named


def _flat(table: Any) -> list[Any]:
    """Return the values of the one column that was read, also of one within another."""
    values = table.column(0).to_pylist()
    return [next(iter(value.values())) if isinstance(value, dict) else value for value in values]


@functools.lru_cache(maxsize=OPENED)
def _group(shard: str, column: str, group: int) -> list[bytes | None]:
    _, pq = parquet()
    with open_shard(shard) as file, pq.ParquetFile(file) as table:
        return _flat(table.read_row_group(group, columns=[column]))


def sizes_known(files: Iterable[File]) -> Iterator[Path]:
    """Return the files whose sizes are looked at beforehand: those of a disk; shards would be read as a whole."""
    return (file for file in files if isinstance(file, Path))
