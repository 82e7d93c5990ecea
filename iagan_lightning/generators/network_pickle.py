"""Reading pickles of networks, of NVIDIA's PyTorch and TensorFlow codes, without executing anything.

The originals run the source code that such a file holds, import what it names, and unpickle each tensor's storage
without restriction. Here a handful of names are known, stand-ins take the place of all of them, storages go through
PyTorch's restricted unpickler, and source code is text.
"""

from __future__ import annotations

import io
import math
import pickle
import pickletools
import re
import warnings
from collections import OrderedDict
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from iagan_lightning.generators.base import WeightsError
from iagan_lightning.generators.pickled_source import check_source
from iagan_lightning.safety import refused_name

SHARED = 64  # numbers, such as a filter's, that several names may stand for
VERSION = 6  # of NVIDIA's way to store modules of PyTorch, the only one in circulation


class Record:
    """What a file says of one network or module: ``state`` holds it, ``kind`` is the name of its class."""

    kind = ""
    state: Any = None


class Value:
    """Holds a tensor or an array, so that a file cannot act on the thing itself."""

    value: Any = None


def read_pickle(path: Path) -> Any:
    """Return what a pickle holds: plain containers, ``Record`` for networks, ``Value`` for arrays and tensors.

    Raises:
        WeightsError: for a file that is damaged, or wants to build anything else. The message does not name the file.
    """
    try:
        with path.open("rb") as file:
            _check_memo(file)
            file.seek(0)
            return _Unpickler(file, _counter(2 * path.stat().st_size), encoding="latin1").load()
    except WeightsError:
        raise
    except Exception as error:  # pickle raises a different kind for each way in which a file can be broken
        raise WeightsError("is damaged or no weight file: a pickle of networks is needed") from error


def _check_memo(file: Any) -> None:
    """Refuse a pickle that numbers what it remembers higher than it has things: memory is made for all numbers."""
    for count, (code, number, _) in enumerate(pickletools.genops(file)):
        if code.name in ("PUT", "BINPUT", "LONG_BINPUT") and int(number or 0) > count:
            raise WeightsError("is damaged or no weight file: a pickle of networks is needed")


def check_apart(arrays: Iterable[Any]) -> None:
    """Refuse a network of which several names stand for one array: each would be copied, for a few bytes of file.

    Raises:
        WeightsError: where an array of more than a few numbers is there twice. The message does not name the file.
    """
    seen: set[int] = set()
    for array in arrays:
        if math.prod(array.shape) > SHARED:
            if id(array) in seen:
                raise WeightsError(f"holds one array {tuple(array.shape)} under several names")
            seen.add(id(array))


def _counter(most: int) -> Callable[[int], None]:
    """Return what counts bytes before they are made, and refuses more: a file can name the same ones again and again.

    Of an honest file each number is held twice at most, as the file stores it and as an array.
    """

    def take(size: int) -> None:
        nonlocal most
        most -= size
        if most < 0:
            raise WeightsError("is refused: it asks for more numbers than it holds")

    return take


class _Unpickler(pickle.Unpickler):
    """An unpickler that knows a handful of names and stands in for all of them: nothing of theirs is called.

    The stand-ins are made anew for each file, so that no file can leave anything behind in them.
    """

    def __init__(self, file: Any, take: Callable[[int], None], **kwargs: Any) -> None:
        super().__init__(file, **kwargs)
        self.known = {**_arrays(take), **_networks(), **_tensors(take)}

    def find_class(self, module: str, name: str) -> Any:
        """Return the stand-in of a name, or refuse it."""
        if (found := self.known.get(f"{module}.{name}".replace("numpy._core.", "numpy.core."))) is None:
            raise WeightsError(
                f"wants to build {f'{module}.{name}'[:80]}, which is refused: of pickles only networks of arrays are "
                "read"
            )
        return found


def _arrays(take: Callable[[int], None]) -> dict[str, Any]:
    class DType:
        """A type of plain numbers."""

        def __init__(self, code: str, *_: Any) -> None:
            if not re.fullmatch(r"[<>|=]?(f2|f4|f8|[iu][1248]|b1)", code):
                raise WeightsError(f"holds an array of type {code}; plain numbers are needed")
            self.code = code

        def __setstate__(self, state: tuple[Any, ...]) -> None:
            self.code = str(state[1]) + self.code.lstrip("<>|=")

    class Array(Value):
        """An array of numbers, no larger than its bytes in the file."""

        def __setstate__(self, state: tuple[Any, ...]) -> None:
            _, shape, kind, fortran, data = state
            self.value = filled(data, kind, shape, "F" if fortran else "C").value

    def filled(data: bytes | str, kind: DType, shape: Any = (), order: Any = "C") -> Array:
        array = Array()
        raw = encode(data) if isinstance(data, str) else data  # pickles of Python 2 have text for bytes
        take(len(raw))
        array.value = np.frombuffer(raw, kind.code).reshape(shape, order=order)
        return array

    def encode(text: str, encoding: str = "latin1") -> bytes:
        take(len(text))
        return text.encode("latin1")

    return {
        "collections.OrderedDict": OrderedDict,
        "numpy.ndarray": object,  # named by the next, not used
        "numpy.core.multiarray._reconstruct": lambda *_: Array(),
        "numpy.core.multiarray.scalar": lambda kind, data: filled(data, kind),
        "numpy.core.numeric._frombuffer": filled,
        "numpy.dtype": DType,
        "_codecs.encode": encode,
    }


def _networks() -> dict[str, Any]:
    class Network(Record):
        """A network of TensorFlow, as its state."""

        def __setstate__(self, state: Any) -> None:
            if isinstance(state, dict) and "build_module_src" in state:
                check_source(state["build_module_src"])
            self.state = state

    class Module(Record):
        """A module of PyTorch, as its class's name and its attributes."""

    class EasyDict(dict[Any, Any]):
        """A dictionary."""

    def module(meta: Any) -> Module:
        if meta["type"] != "class" or meta["version"] != VERSION:
            raise WeightsError(
                f"holds a {meta['type']} of version {meta['version']} of NVIDIA's format; a class of {VERSION} is read"
            )
        check_source(meta["module_src"])
        record = Module()
        record.kind, record.state = meta["class_name"], meta["state"]
        return record

    return {
        "tfutil.Network": Network,
        "dnnlib.tflib.network.Network": Network,
        "dnnlib.util.EasyDict": EasyDict,
        "torch_utils.persistence._reconstruct_persistent_obj": module,
        "builtins.set": set,
        "__builtin__.set": set,
    }


def _tensors(take: Callable[[int], None]) -> dict[str, Any]:
    class Storage(Value):
        """The numbers of a tensor, one after another."""

    class Numbers(Value):
        """A tensor of its own memory."""

    Numbers.__name__ = "Tensor"

    def storage(data: bytes) -> Storage:
        take(len(data))
        made = Storage()
        made.value = _numbers(data)
        return made

    def tensor(storage: Storage, offset: int, size: Any, stride: Any, *_: Any) -> Numbers:
        made, last = Numbers(), offset
        for count, step in zip(size, stride, strict=True):
            # Steps of 0 would stand for more numbers than there are.
            if count < 0 or step < 0 or (count > 1 and step == 0):
                raise WeightsError(f"holds a tensor of impossible shape: {size} in steps of {stride}")
            last += (count - 1) * step
        if offset < 0 or (0 not in size and last >= len(storage.value)):
            raise WeightsError(f"holds a tensor {size} that reaches beyond its {len(storage.value)} numbers")
        if (count := math.prod(size)) > len(storage.value):  # steps that overlap
            raise WeightsError(f"holds a tensor {size} of {len(storage.value)} numbers")
        take(count * storage.value.element_size())
        made.value = storage.value.as_strided(tuple(size), tuple(stride), offset).clone(
            memory_format=torch.contiguous_format
        )
        return made

    return {
        "torch._utils._rebuild_parameter": lambda data, *_: data,
        "torch._utils._rebuild_tensor_v2": tensor,
        "torch.storage._load_from_bytes": storage,
    }


def _numbers(data: bytes) -> Tensor:
    """Return the numbers of a storage, which is a file of ``torch.save`` within the pickle."""
    if not isinstance(data, bytes) or data[:4] == b"PK\x03\x04":  # an archive may unpack to any size
        raise WeightsError("holds a storage that is none of PyTorch's plain ones")
    try:
        with warnings.catch_warnings():  # that typed storages are deprecated, which are what such files hold
            warnings.simplefilter("ignore")
            stored = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
            if isinstance(stored, torch.storage.TypedStorage) and stored.nbytes() <= len(data):
                return torch.tensor([], dtype=stored.dtype).set_(stored)
    except Exception as error:  # torch raises a different kind for each way in which a storage can be broken
        if name := refused_name(error) or _first_name(data):
            raise WeightsError(
                f"holds a storage that wants to build {name}, which is refused: storages are numbers"
            ) from error
        raise WeightsError("holds a damaged storage") from error
    raise WeightsError("holds a storage that is none of PyTorch's plain ones")


class _Named(Exception):  # noqa: N818 - no error: the answer
    """A pickle has come to a name."""


def _first_name(data: bytes) -> str | None:
    """Return the first name of a pickle; nothing is looked up, and nothing can be built before one is."""

    class Names(pickle.Unpickler):
        def find_class(self, module: str, name: str) -> Any:
            raise _Named(f"{module}.{name}")

    try:
        Names(io.BytesIO(data)).load()
    except _Named as found:
        return str(found)
    except Exception:
        return None
    return None
