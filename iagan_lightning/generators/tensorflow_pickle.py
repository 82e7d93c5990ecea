"""Reading the pickles of the original TensorFlow networks without TensorFlow and without executing anything.

Such a file holds one network or three of them (generator, discriminator, and the generator's running average), each
as a dictionary: variables by name, settings, and source code, which is ignored here.
"""

from __future__ import annotations

import pickle
import re
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from iagan_lightning.generators.base import WeightsError
from iagan_lightning.safety import printable

# What a network must have been built with for its variables to mean what PGGAN computes; absent means just that.
SETTINGS = {
    "normalize_latents": True,
    "use_wscale": True,
    "use_pixelnorm": True,
    "use_leakyrelu": True,
    "label_size": 0,
}


def read_tensorflow_pickle(path: Path) -> dict[str, dict[str, Tensor]]:
    """Return the variables of the network in a file by their TensorFlow names, below the name of the network.

    Of three networks that is the last, Gs, the average; one that is alone is called G.

    Raises:
        WeightsError: for a file that is damaged, wants to build anything but arrays, plain containers and networks, or
            holds something else than networks. The message does not name the file.
    """
    try:
        with path.open("rb") as file:
            content = _Unpickler(file, encoding="latin1").load()
    except WeightsError:
        raise
    except Exception as error:  # pickle raises a different kind for each way in which a file can be broken
        raise WeightsError("is damaged or no weight file: a pickle of networks is needed") from error
    network = content[-1] if isinstance(content, tuple | list) and content else content
    state = getattr(network, "state", None)
    if not isinstance(state, dict) or not isinstance(state.get("variables"), list):
        raise WeightsError(f"holds a {type(content).__name__} without a network and its variables")
    settings = state.get("static_kwargs")
    for name, wanted in SETTINGS.items():
        if isinstance(settings, dict) and settings.get(name, wanted) != wanted:
            raise WeightsError(
                f"holds a network made with {name} {printable(str(settings[name])[:80])}; only {wanted} is supported"
            )
    try:
        variables = {str(name): _tensor(variable.value) for name, variable in state["variables"]}
    except (AttributeError, TypeError, ValueError) as error:
        raise WeightsError("holds variables that are no pairs of a name and an array") from error
    return {"Gs" if network is not content and len(content) == 3 else "G": variables}


def _tensor(value: np.ndarray) -> Tensor:
    """Return a copy in this machine's byte order: floating-point numbers as float32, others as int64."""
    return torch.from_numpy(value.astype(np.float32 if value.dtype.kind == "f" else np.int64))


class _Unpickler(pickle.Unpickler):
    """An unpickler that knows a handful of names and stands in for all of them: nothing of NumPy itself is called.

    The stand-ins are made anew for each file, so that no file can leave anything behind in them.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.known = _stand_ins()

    def find_class(self, module: str, name: str) -> Any:
        """Return the stand-in of a name, or refuse it."""
        if (found := self.known.get(f"{module}.{name}".replace("numpy._core.", "numpy.core."))) is None:
            raise WeightsError(
                f"wants to build {printable(f'{module}.{name}'[:80])}, which is refused: of pickles only networks of "
                "arrays are read"
            )
        return found


def _stand_ins() -> dict[str, Any]:
    class Network:
        """Holds what the file says of a network."""

        state: Any = None

        def __setstate__(self, state: Any) -> None:
            self.state = state

    class DType:
        """A type of plain numbers."""

        def __init__(self, code: str, *_: Any) -> None:
            if not re.fullmatch(r"[<>|=]?(f2|f4|f8|[iu][1248]|b1)", code):
                raise WeightsError(f"holds an array of type {code}; plain numbers are needed")
            self.code = code

        def __setstate__(self, state: tuple[Any, ...]) -> None:
            self.code = str(state[1]) + self.code.lstrip("<>|=")

    class Array:
        """An array of numbers, no larger than its bytes in the file."""

        value: np.ndarray

        def __setstate__(self, state: tuple[Any, ...]) -> None:
            _, shape, kind, fortran, data = state
            self.value = filled(data, kind, shape, "F" if fortran else "C").value

    def filled(data: bytes | str, kind: DType, shape: Any = (), order: Any = "C") -> Array:
        array = Array()
        raw = encode(data) if isinstance(data, str) else data  # pickles of Python 2 have text for bytes
        array.value = np.frombuffer(raw, kind.code).reshape(shape, order=order)
        return array

    def encode(text: str, encoding: str = "latin1") -> bytes:
        return text.encode("latin1")

    return {
        "tfutil.Network": Network,
        "collections.OrderedDict": OrderedDict,
        "numpy.ndarray": object,  # named by the next, not used
        "numpy.core.multiarray._reconstruct": lambda *_: Array(),
        "numpy.core.multiarray.scalar": lambda kind, data: filled(data, kind),
        "numpy.core.numeric._frombuffer": filled,
        "numpy.dtype": DType,
        "_codecs.encode": encode,
    }
