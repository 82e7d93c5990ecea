"""Writing files whole or not at all: beside their place, then moved there in one step; and what JSON can hold."""

from __future__ import annotations

import io
import json
import math
import os
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from iagan_lightning.replacing import replacing


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file beside its place, then move it there in one step."""
    with replacing(path) as file:
        file.write(content)


def write_text(path: Path, content: str) -> None:
    """Write a text file (UTF-8) in one step."""
    write_bytes(path, content.encode("utf-8", "surrogateescape"))


def as_json(content: Any) -> str:
    """Return JSON that every reader takes: NaN and the infinities, which JSON does not know, become null.

    Example:
        >>> print(as_json({"psnr": float("inf"), "mse": [0.0, float("nan")]}), end="")
        {
          "psnr": null,
          "mse": [
            0.0,
            null
          ]
        }
    """
    return json.dumps(_finite(content), indent=2, allow_nan=False) + "\n"


def _finite(content: Any) -> Any:
    if isinstance(content, dict):
        return {key: _finite(value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return [_finite(value) for value in content]
    return None if isinstance(content, float) and not math.isfinite(content) else content


def read_json(path: Path) -> dict[str, Any]:
    """Return what a record says; NaN and Infinity, which earlier versions wrote, are read as null.

    Raises:
        ValueError: for a file that is empty, cut off, or no record; it is named.
    """
    return record_in(path.read_bytes(), path)


def record_in(content: bytes, path: object) -> dict[str, Any]:
    """Return what the content of a record says; ``path`` names it in errors, see ``read_json``."""
    try:
        record = json.loads(content.decode("utf-8"), parse_constant=lambda _: None)
        if not isinstance(record, dict):
            raise ValueError(f"it holds {type(record).__name__}, no object")
    except ValueError as error:
        raise ValueError(f"{path} is damaged ({error}): delete it and run the same command again") from error
    return record


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
    write_bytes(path, png_of(picture))


def png_of(picture: Image.Image) -> bytes:
    """Return a picture as the content of a PNG file."""
    buffer = io.BytesIO()
    picture.save(buffer, format="PNG")
    return buffer.getvalue()


def write_tensors(path: Path, content: Any) -> None:
    """Write a .pt file in one step."""
    buffer = io.BytesIO()
    torch.save(content, buffer)
    write_bytes(path, buffer.getvalue())
