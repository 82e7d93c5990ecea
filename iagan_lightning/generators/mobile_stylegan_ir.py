"""MobileStyleGAN as its author published it: two OpenVINO networks, in a Python wheel or a folder.

Of a wheel only the four files of the networks are read, as data; none of its code runs.
"""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from iagan_lightning.generators.base import WeightsError
from iagan_lightning.generators.openvino_ir import MOST_NUMBERS, MOST_XML, Graph
from iagan_lightning.generators.style import DEEPEST, WIDEST, whitening_of

NETWORKS = "MappingNetwork", "SynthesisNetwork"


def holds_mobile_stylegan(path: Path) -> bool:
    """Tell whether a path is for this module: a folder with the networks, a wheel, or a zip file with them."""
    if path.is_dir():
        return (path / f"{NETWORKS[1]}.xml").is_file()
    if path.suffix == ".whl":
        return True
    try:
        with zipfile.ZipFile(path) as archive:
            return any(name.endswith(f"{NETWORKS[1]}.xml") for name in archive.namelist())
    except Exception:  # no zip file: zipfile raises a different kind for each way in which one can be broken
        return False


def read_mobile_stylegan(path: Path) -> dict[str, Tensor]:
    """Return the state dict of ``MobileStyleGAN`` with its whitening, in float32.

    Raises:
        WeightsError: for a file that is damaged, too large, or holds another network. The message does not name it.
    """
    if path.is_dir():
        mapping, synthesis = (_graph(name, lambda file, most: _of_folder(path, file, most)) for name in NETWORKS)
    else:
        try:
            with zipfile.ZipFile(path) as archive:
                mapping, synthesis = (
                    _graph(name, lambda file, most: _of_archive(archive, file, most)) for name in NETWORKS
                )
        except WeightsError:
            raise
        except Exception as error:
            raise WeightsError(f"is damaged or no wheel: {error}") from error
    layers, state = _mapping(mapping), _synthesis(synthesis)
    for number, (weight, bias) in enumerate(layers):
        state[f"mapping.{number}.weight"], state[f"mapping.{number}.bias"] = weight, bias
    return state | {f"whitening.{name}": value for name, value in whitening_of(layers).items()}


def _graph(name: str, read: Callable[[str, int], bytes]) -> Graph:
    return Graph(read(f"{name}.xml", MOST_XML), read(f"{name}.bin", MOST_NUMBERS))


def _of_folder(folder: Path, name: str, most: int) -> bytes:
    try:
        with (folder / name).open("rb") as file:
            return file.read(most + 1)  # one more than allowed tells that there are too many
    except OSError as error:
        raise WeightsError(f"is no folder of a MobileStyleGAN: {name}: {error.strerror}") from error


def _of_archive(archive: zipfile.ZipFile, name: str, most: int) -> bytes:
    found = [member for member in archive.infolist() if Path(member.filename).name == name]
    if len(found) != 1:
        raise WeightsError(f"is no wheel of a MobileStyleGAN: it has {len(found)} files {name} instead of one")
    with archive.open(found[0]) as file:
        return file.read(most + 1)


def _mapping(graph: Graph) -> list[tuple[Tensor, Tensor]]:
    """Return weight and bias of the layers from z to w."""
    layers: list[tuple[Tensor, Tensor]] = []
    products = graph.of_kind("MatMul")
    if len(products) > DEEPEST:
        raise WeightsError(f"holds another network: {len(products)} layers from z to w; {DEEPEST} are the most here")
    for product in products:
        weight, bias = graph.kernel(product), graph.operand(graph.user(product, "Add"), product)
        layers.append((_tensor(graph, weight), _tensor(graph, bias).flatten()))
    sizes = {size for weight, bias in layers for size in (*weight.shape, *bias.shape)}
    if len(sizes) != 1 or not 1 <= max(sizes) <= WIDEST or any(weight.ndim != 2 for weight, _ in layers):
        raise WeightsError(f"holds another network: layers from z to w of sizes {sorted(sizes)}")
    if not all(bool(torch.isfinite(part).all()) for layer in layers for part in layer):
        raise WeightsError("is damaged: the layers from z to w hold values that are not finite")
    return layers


def _synthesis(graph: Graph) -> dict[str, Tensor]:
    """Return the tensors of the layers from w to the image."""
    state: dict[str, Tensor] = {}

    def modulation(source: str, target: str) -> None:
        """A w + b; where a constant scale follows, as behind all but the enlarging layers, it goes into A and b."""
        bias = graph.named(f"{source}.modulation.bias")
        reshape = graph.user(graph.user(bias, "Add"), "Reshape")
        product = graph.user(reshape, "Multiply")
        [other] = [key for key in graph.inputs[product] if key != reshape][:1] or [product]
        scale = graph.constant(other) if graph.of_kind("Const", [other]) else np.float32(1)
        if scale.size != 1:
            raise WeightsError(f"holds another network: {source} has a scale of {scale.size} numbers")
        factor = scale.reshape(())
        state[f"{target}.modulation.weight"] = _tensor(
            graph, graph.constant(graph.named(f"{source}.modulation.weight")) * factor
        )
        state[f"{target}.modulation.bias"] = _tensor(graph, graph.constant(bias) * factor).flatten()

    def convolution(source: str, target: str, kernel: str, node: str) -> None:
        """A modulation, a convolution, the noise map and the bias behind it."""
        modulation(f"{source}.conv", target)
        add = graph.user(node, "Add")
        state[f"{target}.{kernel}"] = _tensor(graph, graph.kernel(node))
        state[f"{target}.noise"] = _tensor(graph, graph.operand(add, node))
        state[f"{target}.bias"] = _tensor(graph, graph.operand(graph.user(add, "Add"), add)).flatten()

    state["input"] = _tensor(graph, graph.constant(graph.named("m.input.input")))
    full = [node for node in graph.of_kind("Convolution") if graph.kernel(node).shape[2:] == (3, 3)]
    if len(full) != 1:
        raise WeightsError(f"holds another network: {len(full)} full 3 x 3 convolutions instead of one")
    convolution("m.conv1", "conv1", "weight", full[0])
    levels = sum(f"m.layers.{level}.up.modulation.bias" in graph.by_name for level in range(len(graph.layers)))
    for level in range(levels):
        modulation(f"m.layers.{level}.up", f"layers.{level}.up")
        for name in ("conv1", "conv2"):
            source, target = f"m.layers.{level}.{name}", f"layers.{level}.{name}"
            depthwise = graph.named(f"{source}.conv.weight_dw")
            node = graph.user(graph.user(depthwise, "GroupConvolution"), "Convolution")
            if len(shape := graph.constant(depthwise).shape) != 5:
                raise WeightsError(f"holds another network: {source}.conv.weight_dw has shape {shape}")
            convolution(source, target, "pointwise", node)
            state[f"{target}.depthwise"] = _tensor(graph, graph.constant(depthwise))[:, 0]  # groups, 1, 1, 3, 3
    last = f"m.layers.{levels - 1}.to_img"
    modulation(f"{last}.conv", "to_img")
    state["to_img.weight"] = _tensor(graph, graph.constant(graph.named(f"{last}.conv.weight")))
    state["to_img.bias"] = _tensor(graph, graph.constant(graph.named(f"{last}.bias"))).flatten()
    return state


def _tensor(graph: Graph, array: np.ndarray) -> Tensor:
    return torch.from_numpy(graph.copied(array))
