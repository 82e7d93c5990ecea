"""Training pictures in a folder or a tar file: listing them, looking at them, reading them."""

from __future__ import annotations

import errno
import io
import os
import tarfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

from iagan_lightning.data.folders import BROKEN, EMPTY, OURS, LeftOut, list_pictures, reason_left_out
from iagan_lightning.data.images import fit_image, read_image
from iagan_lightning.data.written import written_in_tar
from iagan_lightning.safety import open_picture, picture_suffixes, printable, require_one_frame
from iagan_lightning.training.record import Entry, hash_of, whole_hash

PLAIN = {"1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr"}  # kinds of pixels that are read whatever their values
ENDINGS = {"JPEG": b"\xff\xd9", "PNG": b"IEND", "GIF": b";"}  # what the last bytes of a file that is not cut hold


class PictureError(ValueError):
    """A training picture that cannot be used: its name, and why."""

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(name, reason)  # as they are: it travels between processes
        self.name, self.reason = name, reason

    def __str__(self) -> str:
        """Return name and reason."""
        return f"training picture {printable(self.name)}: {self.reason}"


class PictureSet(Dataset):
    """Pictures of a folder or of an uncompressed tar file, ``(3, size, size)`` as uint8.

    Args:
        root: folder or .tar file; only members with the ending of a picture are used, and no hidden or empty ones.
        size: height and width; larger pictures are cropped at the centre and shrunk.

    Raises:
        ValueError: where there is nothing to read.
    """

    def __init__(self, root: str, size: int) -> None:
        self.root, self.size = Path(root), size
        self.names: list[str] = []
        self.members: list[tuple[str, int, int]] = []
        self.paths: list[Path] = []
        self._trusted: set[tuple[str, bytes]] = set()
        if not self.root.exists():
            raise ValueError(f"no such folder or tar file: {root}")
        if self.root.is_dir():
            listing = list_pictures(root)
            self.paths, self.left_out = list(listing.files.values()), listing.left_out
            self.names = list(listing.files)
            return
        left = LeftOut(root)
        try:
            with tarfile.open(self.root, "r:") as archive:
                ours = written_in_tar(archive)
                for folder in dict.fromkeys(ours.values()):
                    left.add(OURS, folder)
                for member in archive:
                    if member.isdir() or member.name in ours:
                        continue
                    reason = reason_left_out(member.name, picture_suffixes()) or (
                        BROKEN if not member.isfile() else EMPTY if not member.size else None
                    )
                    if reason is None:
                        self.members.append((member.name, member.offset_data, member.size))
                    else:
                        left.add(reason, member.name)
        except tarfile.TarError as error:
            raise ValueError(f"{root} is neither a folder nor an uncompressed tar file: {error}") from error
        self.left_out = str(left)
        if not len(self):
            raise left.nothing(picture_suffixes())
        count: Counter[str] = Counter()
        for name, _, _ in self.members:
            count[name] += 1
            self.names.append(name if count[name] == 1 else f"{name} ({count[name]})")

    def __len__(self) -> int:
        """Return the number of pictures."""
        return len(self.paths) or len(self.members)

    def __getitem__(self, key: tuple[int, bool]) -> Tensor:
        """Return picture number ``key[0]``, mirrored where ``key[1]`` is True.

        Raises:
            PictureError: for one that cannot be used.
        """
        index, mirrored = key
        try:
            with self._open(index) as (file, _):
                x = read_image(file)
            self._check_size(x.shape[-1], x.shape[-2])
            x = fit_image(x, (self.size, self.size))
        except (OSError, ValueError) as error:
            raise PictureError(self.names[index], str(error)) from error
        x = ((x + 1) * 127.5).round().to(torch.uint8)
        return x.flip(-1) if mirrored else x

    def inspect(self, index: int, whole: bool = False) -> tuple[Entry, str | None]:
        """Return what is remembered of a picture, and why it cannot be used (None where nothing speaks against it).

        Its header is read, and all of it where header or end of the file leave a doubt, or ``whole`` asks for it.
        """
        name, digest = self.names[index], ""
        try:
            with self._open(index) as (file, size):
                digest, end = hash_of(file, size)
                file.seek(0)
                with open_picture(file) as picture:
                    require_one_frame(picture)
                    self._check_size(*picture.size)
                    colours = (picture.mode, picture.info.get("icc_profile") or b"")
                    whole |= colours[0] not in PLAIN or ENDINGS.get(picture.format or "", b"") not in end
            if whole or (colours[1] and colours not in self._trusted):
                self[index, False]
                self._trusted.add(colours)
        except PictureError as error:
            return Entry(name, digest), error.reason
        except (OSError, ValueError) as error:
            return Entry(name, digest), str(error)
        except Exception as error:  # Pillow's readers raise a different kind for each way in which a file can be broken
            return Entry(name, digest), f"a damaged picture ({type(error).__name__}: {error})"
        return Entry(name, digest), None

    def content(self, index: int) -> str:
        """Return a hash of all that the file of a picture holds.

        Raises:
            OSError: where it cannot be read.
        """
        with self._open(index) as (file, _):
            return whole_hash(file)

    def _check_size(self, width: int, height: int) -> None:
        if min(width, height) < self.size:
            raise ValueError(f"{width} x {height} pixels, smaller than the generator's {self.size} x {self.size}")

    @contextmanager
    def _open(self, index: int) -> Iterator[tuple[IO[bytes], int]]:
        """Open the file of a picture; its size comes with it."""
        if self.paths:
            with self.paths[index].open("rb") as file:
                yield file, os.fstat(file.fileno()).st_size
        else:
            _, offset, size = self.members[index]
            with self.root.open("rb", buffering=0) as archive:
                yield io.BufferedReader(_Section(archive, offset, size)), size


class _Section(io.RawIOBase):
    """A part of a file, as a file."""

    def __init__(self, file: io.FileIO, offset: int, size: int) -> None:
        self._file, self._offset, self._size, self._at = file, offset, size, 0

    def readable(self) -> bool:
        """Return True."""
        return True

    def seekable(self) -> bool:
        """Return True."""
        return True

    def tell(self) -> int:
        """Return the place within the part."""
        return self._at

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Go to a place within the part."""
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._size}[whence]
        if base + offset < 0:
            raise OSError(errno.EINVAL, "a place before the beginning")
        self._at = base + offset
        return self._at

    def readinto(self, buffer: Any) -> int:
        """Read into a buffer and return the number of bytes."""
        self._file.seek(self._offset + self._at)
        content = self._file.read(max(min(len(buffer), self._size - self._at), 0)) or b""
        buffer[: len(content)] = content
        self._at += len(content)
        return len(content)
