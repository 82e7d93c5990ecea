"""Matrices, masks and kernels from files; nothing in a file is ever executed."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from iagan_lightning.checks import in_words
from iagan_lightning.safety import Use, check_archive, check_dense, read_pixels, refused_name

# A tensor, an array, nested lists of numbers, or the path of a file. On the command line a path; not spelled out as a
# union, because jsonargparse would try to read the file as the configuration of a Tensor.
Array = Any


def read_tensor(source: Array) -> Tensor:
    """Return a copy of a tensor, an array or nested lists, or the one tensor that a .pt or .npy file holds.

    Raises:
        ValueError: for a file that is missing, damaged, or holds anything else, for a tensor without numbers, and for
            what is neither.

    Example:
        >>> read_tensor([[1, 0], [0.5, 1]]).tolist()
        [[1.0, 0.0], [0.5, 1.0]]
    """
    if isinstance(source, Tensor):
        if source.device.type == "meta":
            raise ValueError(f"a tensor {tuple(source.shape)} on the meta device was given, which holds no numbers")
        return source.detach().clone()  # an operator's constants are its own
    if not _is_file(source):
        try:
            return _from_numpy(np.asarray(source))
        except (TypeError, ValueError) as error:
            raise ValueError(
                f"a tensor, an array, nested lists of numbers or the path of a file is needed; {in_words(source)} was "
                f"given ({error})"
            ) from error
    path = Path(source)
    try:
        if path.suffix.lower() == ".npy":
            # Mapped first: a header that promises more than the file holds is found out before memory is taken.
            return _from_numpy(np.load(path, mmap_mode="r", allow_pickle=False))
        check_archive(path)
        content = torch.load(path, map_location="cpu", weights_only=True)
        if isinstance(content, Tensor):
            check_dense(content)
    except Exception as error:  # numpy and torch raise a different kind for each way in which a file can be broken
        refused = refused_name(error)  # PyTorch's own words go on to recommend loading it all the same
        reason = f"it wants to build {refused}, which is refused" if refused else error
        raise ValueError(f"{path} cannot be read as an array (.pt or .npy): {reason}") from error
    if not isinstance(content, Tensor):
        raise ValueError(f"{path} holds a {type(content).__name__}; one tensor is needed")
    return content


def _is_file(source: Array) -> bool:
    """Return whether a source is a path; all else is an array, or wants to be one."""
    return isinstance(source, str | os.PathLike)


def _from_numpy(array: np.ndarray) -> Tensor:
    """Return a copy of an array, in this machine's byte order and C's order of axes."""
    return torch.from_numpy(np.array(array, array.dtype.newbyteorder("="), order="C"))


def read_picture(source: Array, use: Use = "mask") -> Tensor:
    """Return a copy of a tensor or an array as ``read_tensor`` does, or a picture as grey ``(H, W)``, a mask in [0, 1].

    Pictures are read by the rules of ``safety.read_pixels``.

    Raises:
        ValueError: for a file that cannot be read as either.
    """
    if not _is_file(source) or Path(source).suffix.lower() in (".pt", ".npy"):
        return read_tensor(source)
    try:
        return torch.from_numpy(read_pixels(source, 1, use))
    except (OSError, ValueError) as error:
        raise ValueError(f"{source} cannot be read as a picture or an array: {error}") from error


def read_kernel(source: Array) -> Tensor:
    """Return a kernel of one's own in float64: arrays as they are, pictures scaled to sum 1.

    Raises:
        ValueError: for a file that cannot be read, and for a picture whose values have no positive sum.
    """
    kernel = read_picture(source, "kernel")
    if kernel.is_complex():
        raise ValueError(f"a kernel is real; {source if _is_file(source) else in_words(source)} holds complex numbers")
    kernel = kernel.double()
    if not _is_file(source) or Path(source).suffix.lower() in (".pt", ".npy"):
        return kernel
    if not kernel.sum() > 0:
        raise ValueError(f"the kernel {source} sums to {float(kernel.sum()):g}: it must have a pixel that is not black")
    return kernel / kernel.sum()


def fingerprint(tensor: Tensor) -> str:
    """Return a short hash of a tensor's content, which ``repr`` shows and results are recorded with."""
    content = tensor.detach().cpu().contiguous().numpy().tobytes()
    return hashlib.sha256(f"{tuple(tensor.shape)}".encode() + content).hexdigest()[:12]
