"""What a file from a stranger may do: pictures and archives can claim far more memory than they weigh, and pickles name
what they want to build.

The one module of ours that operators and generators import: it imports none itself.
"""

from __future__ import annotations

import os
import re
import warnings
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from PIL import Image
from torch import Tensor

MAX_PIXELS = 64_000_000  # 8000 x 8000, about 2.5 GB while it is read


@contextmanager
def open_picture(path: str | os.PathLike[str] | IO[bytes]) -> Iterator[Image.Image]:
    """Open a picture of which only the header has been read so far.

    Raises:
        OSError: for a file that is missing or no picture.
        ValueError: for one too large to decode.
    """
    with warnings.catch_warnings():  # Pillow's own limits are wider: it warns, and refuses only twice as much
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        try:
            picture = Image.open(path)
        except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
            raise ValueError(f"a picture of more pixels than are read ({MAX_PIXELS:,}): shrink it first") from error
    with picture:
        width, height = picture.size
        if width * height > MAX_PIXELS:
            raise ValueError(
                f"a picture of {width} x {height} pixels is more than is read ({MAX_PIXELS:,} pixels): shrink it first"
            )
        yield picture


def check_archive(path: Path) -> None:
    """Raise ValueError for a .pt file that unpacks to more than it weighs; ``torch.save`` never compresses."""
    try:
        with zipfile.ZipFile(path) as archive:
            unpacked = sum(member.file_size for member in archive.infolist())
    except (OSError, zipfile.BadZipFile):  # none, or a damaged one: reading it will tell
        return
    packed = path.stat().st_size
    if unpacked > packed:
        raise ValueError(f"it unpacks to {unpacked:,} bytes from {packed:,}, which torch.save never does")


def refused_name(error: Exception) -> str | None:
    """Return what a pickle wanted to build, from the error of PyTorch's restricted unpickler; None for other errors.

    Example:
        >>> refused_name(ValueError("Unsupported global: GLOBAL builtins.print was not an allowed global by default."))
        'builtins.print'
    """
    found = re.search(r"unsupported global(?:: GLOBAL)? (\S+)", str(error), re.IGNORECASE)
    return found[1] if found else None


def check_dense(tensor: Tensor) -> None:
    """Raise ValueError for a tensor that stands for more values than it holds, sparse or expanded."""
    if str(tensor.layout) != "torch.strided" or tensor.is_quantized:
        raise ValueError(f"it holds a tensor of layout {tensor.layout}; a plain dense one is needed")
    if tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
        raise ValueError(f"it holds {tuple(tensor.shape)} values that share memory; save tensor.contiguous()")


def printable(text: str) -> str:
    r"""Return a text without control characters: a file's name must not steer the terminal.

    Example:
        >>> print(printable("a\x1b[2Jb\udcff"))
        a\x1b[2Jb\udcff
    """
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)
