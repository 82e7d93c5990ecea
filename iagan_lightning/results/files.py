"""Writing files whole or not at all: beside their place, then moved there in one step."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import torch
from PIL import Image


@contextmanager
def replacing(path: Path) -> Iterator[IO[bytes]]:
    """Open a file beside a place, and move it there in one step when all has gone well.

    The folder is not made: one that vanishes while its files are written stays away.
    """
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with part.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file beside its place, then move it there in one step."""
    with replacing(path) as file:
        file.write(content)


def write_text(path: Path, content: str) -> None:
    """Write a text file (UTF-8) in one step."""
    write_bytes(path, content.encode("utf-8", "surrogateescape"))


def write_once(path: Path, content: str) -> bool:
    """Write a text file in one step unless it is there already; return whether this call wrote it.

    Of several processes that try at the same time one writes, and the others see the whole of what it wrote.
    """
    whole = path.with_name(f".{path.name}.{os.getpid()}.whole")
    write_text(whole, content)
    try:
        os.link(whole, path)
    except FileExistsError:
        return False
    except OSError:  # a file system without hard links
        if path.exists():
            return False
        os.replace(whole, path)
    finally:
        whole.unlink(missing_ok=True)
    return True


def write_picture(path: Path, picture: Image.Image) -> None:
    """Write a PNG in one step."""
    buffer = io.BytesIO()
    picture.save(buffer, format="PNG")
    write_bytes(path, buffer.getvalue())


def write_tensors(path: Path, content: Any) -> None:
    """Write a .pt file in one step."""
    buffer = io.BytesIO()
    torch.save(content, buffer)
    write_bytes(path, buffer.getvalue())
