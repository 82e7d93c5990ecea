"""Reading the pickles in which the original TensorFlow code of progressive growing keeps its networks.

Unpickling runs whatever a file asks for, so here it may ask for nothing but arrays, plain containers and an inert
stand-in for the network class.
"""

from __future__ import annotations

import codecs
import pickle
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor


class RefusedError(ValueError):
    """A pickle asked for something that it may not build; the argument is its name."""


class Network:
    """Stands in for the pickled network class: keeps what was stored and does nothing."""

    stored: Any = None

    def __setstate__(self, state: Any) -> None:
        self.stored = state


class _ArrayType:
    """Stands in for numpy.ndarray, which ``_empty_array`` is handed; it cannot be called."""


def _empty_array(*_: Any) -> np.ndarray:
    return np.empty(0, np.int8)  # its shape, type and bytes come as its state


def _scalar(dtype: np.dtype, content: bytes = b"") -> np.generic:
    return np.frombuffer(content, dtype)[0]


_ALLOWED: dict[str, Any] = {
    "collections.OrderedDict": OrderedDict,
    "numpy.dtype": np.dtype,
    "numpy.ndarray": _ArrayType(),
    "_codecs.encode": codecs.encode,  # how older protocols write bytes
}
for _module in ("numpy.core.multiarray", "numpy._core.multiarray"):
    _ALLOWED |= {f"{_module}._reconstruct": _empty_array, f"{_module}.scalar": _scalar}
for _module in ("tfutil", "dnnlib.tflib.network"):
    _ALLOWED[f"{_module}.Network"] = Network


class _Restricted(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        try:
            return _ALLOWED[f"{module}.{name}"]
        except KeyError:
            raise RefusedError(f"{module}.{name}") from None


def read_tensorflow(path: Path) -> dict[str, Tensor] | None:
    """Return the variables of the (averaged) generator in a TensorFlow pickle by name; None for another content.

    A file holds one network or three, G, D and the moving average of G, which is the one that is returned.

    Raises:
        RefusedError: naming what a pickle wants to build besides arrays and networks.
        ValueError: for a damaged file.
    """
    try:
        with path.open("rb") as file:
            content = _Restricted(file, encoding="latin1").load()
    except RefusedError:
        raise
    except Exception as error:  # pickles break in many ways
        raise ValueError(f"is damaged: {error}") from error
    networks = content if isinstance(content, tuple | list) else [content]
    stored = networks[-1].stored if networks and isinstance(networks[-1], Network) else None
    if not isinstance(stored, dict) or "variables" not in stored:
        return None
    try:
        return {str(name): torch.from_numpy(np.array(value, np.float32)) for name, value in stored["variables"]}
    except (TypeError, ValueError) as error:
        raise ValueError(f"holds variables that are no arrays: {error}") from error
