"""Reading networks in OpenVINO's intermediate representation (IR) without OpenVINO, and without executing anything.

A network is an XML file, which names layers and edges, and a file of numbers, into which the constants point.
"""

from __future__ import annotations

import math
import xml.etree.ElementTree as ElementTree
from typing import Any

import numpy as np

from iagan_lightning.generators.base import WeightsError

NUMBERS = {"f32": "<f4", "f16": "<f2", "i64": "<i8", "i32": "<i4"}
MOST_XML, MOST_NUMBERS = 8_000_000, 256_000_000  # bytes; the files of MobileStyleGAN have 0.4 and 32 million
SHARING = 4  # times its size that a file may be copied; equal constants lie in one place


class Graph:
    """The layers of one network, which feeds which, and its constants.

    Args:
        xml: the XML file.
        numbers: the file that its constants point into.

    Raises:
        WeightsError: for a file that is damaged, too large, no IR, or declares entities. Messages do not name the file.
    """

    def __init__(self, xml: bytes, numbers: bytes) -> None:
        for content, most in ((xml, MOST_XML), (numbers, MOST_NUMBERS)):
            if len(content) > most:
                raise WeightsError(f"is refused: {len(content):,} bytes are more than the {most:,} that are read")
        try:
            text = xml.decode("utf-8")  # one encoding alone, so that no other can hide a declaration
            if "<!DOCTYPE" in text or "<!ENTITY" in text:
                raise WeightsError("is refused: XML with a document type or entities of its own is not read")
            root = ElementTree.fromstring(text)
            self.layers = {layer.attrib["id"]: layer for layer in root.iterfind("layers/layer")}
            self.inputs: dict[str, list[str]] = {key: [] for key in self.layers}
            self.users: dict[str, list[str]] = {key: [] for key in self.layers}
            for edge in sorted(root.iterfind("edges/edge"), key=lambda edge: int(edge.attrib["to-port"])):
                tail, head = edge.attrib["from-layer"], edge.attrib["to-layer"]
                self.inputs[head].append(tail)
                self.users[tail].append(head)
        except WeightsError:
            raise
        except (ElementTree.ParseError, KeyError, ValueError) as error:
            raise WeightsError(f"is damaged or no OpenVINO network: {error}") from error
        self.numbers = numbers
        self.left = SHARING * len(numbers)
        self.by_name = {layer.get("name", ""): key for key, layer in self.layers.items()}

    def of_kind(self, kind: str, among: list[str] | None = None) -> list[str]:
        """Return the layers of a type, in the file's order or in that of ``among``."""
        return [key for key in (self.layers if among is None else among) if self.layers[key].get("type") == kind]

    def named(self, name: str) -> str:
        """Return the layer of a name."""
        if name not in self.by_name:
            raise WeightsError(f"holds another network: it has no {name}")
        return self.by_name[name]

    def user(self, layer: str, kind: str) -> str:
        """Return the one layer of a type that takes the output of this one."""
        return self._only(self.of_kind(kind, self.users[layer]), layer, f"feeds not one {kind}")

    def operand(self, layer: str, beside: str) -> np.ndarray:
        """Return the constant that a layer of two inputs combines with another input, seen through a Reshape."""
        other = self._only([key for key in self.inputs[layer] if key != beside], layer, "has not two inputs")
        if self.of_kind("Reshape", [other]):
            other = self._only(self.inputs[other][:1], other, "has no input")
        return self.constant(other)

    def kernel(self, layer: str) -> np.ndarray:
        """Return the one constant among the inputs of a layer."""
        return self.constant(self._only(self.of_kind("Const", self.inputs[layer]), layer, "has not one constant"))

    def constant(self, layer: str) -> np.ndarray:
        """Return the numbers of a constant, no more than the file holds.

        Raises:
            WeightsError: where the layer is none, or points beyond the file, or its shape does not fit its size.
        """
        name, data = self.layers[layer].get("name"), self.layers[layer].find("data")
        if data is None or not self.of_kind("Const", [layer]):
            raise WeightsError(f"holds another network: {name} is no constant")
        try:
            kind: np.dtype[Any] = np.dtype(NUMBERS[data.attrib["element_type"]])
            shape = [int(n) for n in data.get("shape", "").split(",") if n.strip()]
            start, size = int(data.attrib["offset"]), int(data.attrib["size"])
        except (KeyError, ValueError) as error:
            raise WeightsError(f"is damaged: the constant {name} is not described ({error})") from error
        if min(start, size, *shape) < 0 or start + size > len(self.numbers):
            raise WeightsError(
                f"is damaged: the constant {name} lies at {start} with {size} bytes, outside of the "
                f"{len(self.numbers)} bytes of numbers"
            )
        if math.prod(shape) * kind.itemsize != size:
            raise WeightsError(f"is damaged: the constant {name} of shape {shape} has {size} bytes")
        return np.frombuffer(self.numbers, kind, math.prod(shape), start).reshape(shape)

    def copied(self, array: np.ndarray) -> np.ndarray:
        """Return an array as a copy of its own, in float32 and this machine's byte order.

        Raises:
            WeightsError: where so much has been copied that many constants must lie in one place.
        """
        self.left -= 4 * array.size
        if self.left < 0:
            raise WeightsError("is refused: it asks for more numbers than it holds")
        return np.array(array, np.float32)

    def _only(self, found: list[str], layer: str, complaint: str) -> str:
        if len(found) != 1:
            raise WeightsError(f"holds another network: {self.layers[layer].get('name')} {complaint}")
        return found[0]
