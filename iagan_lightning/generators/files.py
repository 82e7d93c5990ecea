"""Reading and writing generator weights.

Nothing in a weight file is ever executed: safetensors holds only numbers, older files go through PyTorch's restricted
unpickler, which builds tensors and plain containers, and pickles of NVIDIA's networks through one of our own. What
network a file holds is read from its header, or recognised from the names and shapes of its tensors.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, get_args

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from iagan_lightning.generators import mobile_stylegan, pggan_layouts, stylegan2_layouts
from iagan_lightning.generators.base import Framing, Generator, WeightsError
from iagan_lightning.generators.began import BEGAN
from iagan_lightning.generators.catalogue import CATALOGUE, Prior, bundled_priors, cache_folder, fetch_source
from iagan_lightning.generators.mobile_stylegan import MobileStyleGAN
from iagan_lightning.generators.mobile_stylegan_ir import holds_mobile_stylegan, read_mobile_stylegan
from iagan_lightning.generators.module import ModuleGenerator, build_generator
from iagan_lightning.generators.network_pickle import read_pickle
from iagan_lightning.generators.pggan import PGGAN
from iagan_lightning.generators.pyramid import Pyramid
from iagan_lightning.generators.stylegan2 import StyleGAN2
from iagan_lightning.generators.tensorflow_pickle import variables_of
from iagan_lightning.plugins import load, registered
from iagan_lightning.safety import check_archive, check_dense, printable, refused_name

ARCHITECTURES: dict[str, type[Generator]] = {
    "BEGAN": BEGAN,
    "PGGAN": PGGAN,
    "Pyramid": Pyramid,
    "MobileStyleGAN": MobileStyleGAN,
    "StyleGAN2": StyleGAN2,
}

HEADER = "iagan_lightning"
TORCH_PICKLE = bytes.fromhex("80028a0a6cfc9c46f9206aa85019")  # how torch.save began before it wrote zip files


class BaseConfig:
    """Stands in for the settings in files of pytorch_GAN_zoo: it keeps them as attributes, and nobody reads them."""


BaseConfig.__module__ = "models.utils.config"  # PyTorch's restricted unpickler goes by the full name


def load_generator(source: str | os.PathLike[str] | Mapping[str, Any]) -> Generator:
    """Return a generator in float32, in evaluation mode.

    Args:
        source: name of a prior (``iagan priors`` lists them; one that is not here yet is fetched) or of one that
            another package registers, or path of a safetensors file, of a PyTorch state dict, of a pickle of NVIDIA's
            PGGAN or StyleGAN2, or of a wheel or a folder with the OpenVINO networks of a MobileStyleGAN, whose
            architecture is recognised; or one of these as ``weights`` beside settings (see ``Generator.adjust``), such
            as the ``label`` of a StyleGAN2 with classes; or a class path with declarations (see ``build_generator``),
            whose ``weights`` are such a file too.

    Raises:
        WeightsError: for a file that is missing or damaged, of an unknown network, or whose tensors do not match; for
            a prior that cannot be fetched.
        ValueError: for a class path or settings that do not fit.

    Example:
        >>> G = load_generator("began64")
        >>> G.image_shape, G.latent_shape, G.latent_distribution
        ((3, 64, 64), (64,), 'normal')
    """
    if isinstance(source, Mapping):
        if "class_path" in source or "weights" not in source:
            return _from_class(source)
        return _named(source["weights"], {key: value for key, value in source.items() if key != "weights"})
    return _named(source, {})


def _named(source: str | os.PathLike[str], settings: Mapping[str, Any]) -> Generator:
    """Return the generator of a name or a path with some settings changed."""
    if not isinstance(source, str | os.PathLike):
        raise ValueError(f"weights is the name of a prior or a file; {source!r} was given")
    if str(source) in registered("generators") and str(source) not in {*CATALOGUE, *bundled_priors()}:
        generator = _registered(str(source))
        if settings:
            generator.adjust(**settings)
        return generator
    prior = CATALOGUE.get(str(source))
    if prior is not None and prior.fetched:
        generator = _cached(prior) or _fetch(prior)
        generator.adjust(**settings)
        return generator
    framing = {} if prior is None else {"framing": prior.framing}
    return _from_file(bundled_priors().get(str(source), Path(source)), {**framing, **settings})[0]


def fetch_prior(name: str) -> Path:
    """Return the file of a prior of the catalogue; one that is not here yet, or was damaged, is fetched and converted.

    A file is written whole or not at all, so that processes that fetch at once do each other no harm.

    Raises:
        WeightsError: for an unknown name, and where it cannot be fetched.

    Example:
        >>> fetch_prior("began64").name
        'began64.safetensors'
    """
    if (prior := CATALOGUE.get(name)) is None:
        raise WeightsError(f"there is no prior {name!r}: known are {', '.join(CATALOGUE)} (iagan priors)")
    if prior.fetched and _cached(prior) is None:
        _fetch(prior)
    assert prior.path is not None
    return prior.path


def save_generator(
    generator: Generator, path: str | os.PathLike[str], training: Mapping[str, Any] | None = None
) -> None:
    """Write a generator as safetensors, so that its path alone loads it.

    The header holds architecture, latent distribution, image shape and value range, and whatever ``training`` says
    of data and steps. Tensors keep their precision; ``load_generator`` returns float32.

    Example:
        >>> import tempfile, os
        >>> path = os.path.join(tempfile.mkdtemp(), "tiny.safetensors")
        >>> save_generator(BEGAN(resolution=8, channels=2, latent=3), path)
        >>> load_generator(path).image_shape
        (3, 8, 8)
    """
    name = type(generator).__name__
    if name not in ARCHITECTURES:
        raise WeightsError(f"{name} cannot be stored: known architectures are {', '.join(ARCHITECTURES)}")
    header = {
        "architecture": name,
        "arguments": generator.architecture(),
        "latent_distribution": generator.latent_distribution,
        "image_shape": generator.image_shape,
        "value_range": [-1, 1],
        **({"framing": generator.framing} if generator.framing else {}),
        "training": dict(training or {}),
    }
    state = {key: value.detach().cpu().contiguous() for key, value in generator.state_dict().items()}
    save_file(state, path, metadata={HEADER: json.dumps(header)})


# Reading -------------------------------------------------------------------------------------------------------


def _from_file(path: Path, settings: Mapping[str, Any] | None = None) -> tuple[Generator, Any]:
    """Return the generator whose weights a file holds, and the file's header (None where it has none)."""
    state, header = _load(path)
    with torch.device("meta"):  # sizes come from the file: nothing is allocated before they are checked
        generator = _from_header(header, path) if header else _recognise(state, path)
    _fill(generator, state, path)
    try:
        generator.adjust(**(settings or {}))
    except ValueError as error:
        raise WeightsError(f"{path}: {error}") from error
    return generator.eval(), header


def _cached(prior: Prior) -> Generator | None:
    """Return a prior that was fetched before; None where it was not, or its file is no longer as it was written."""
    if prior.path is None:
        return None
    try:
        generator, header = _from_file(prior.path)
        written = json.loads(header or "{}").get("training")
        if isinstance(written, dict) and written.items() >= _seal(generator, prior).items():
            return generator
    except WeightsError:
        pass
    print(f"iagan: {prior.path} is damaged or was made from another file", file=sys.stderr)
    return None


def _fetch(prior: Prior) -> Generator:
    """Return a prior from its source, and leave it in the cache folder."""
    path = cache_folder() / f"{prior.name}.safetensors"
    size = f"{prior.size / 1e6:.0f} MB"
    print(f"iagan: fetching {prior.name} ({size}, {prior.origin}) into {path.parent}", file=sys.stderr)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{prior.name}-") as folder:
            generator, _ = _from_file(fetch_source(prior, Path(folder)))
            generator.framing = prior.framing
            part = Path(folder) / path.name
            about = {"data": prior.origin, "licence": prior.licence, **_seal(generator, prior)}
            save_generator(generator, part, about)
            part.chmod(0o644)  # public data: a cache may be shared
            os.replace(part, path)
        return _from_file(path)[0]  # as it will be read from now on: rounding depends on how tensors lie in memory
    except (OSError, SafetensorError) as error:
        if (theirs := _cached(prior)) is not None:  # of another process, open there: Windows does not replace it
            return theirs
        raise WeightsError(f"{prior.name} cannot be put into {path.parent} ({error}): set IAGAN_CACHE") from error


def _seal(generator: Generator, prior: Prior) -> dict[str, str]:
    """Return what the header of a file in the cache says: the hash of its source, and one of all its tensors."""
    digest = hashlib.sha256()
    for name, value in sorted(generator.state_dict().items()):
        digest.update(name.encode() + value.contiguous().numpy().tobytes())
    return {"source": prior.sha256, "tensors": digest.hexdigest()}


def _from_class(description: Mapping[str, Any]) -> Generator:
    """Return the generator of a class path, its weights read from a file where one is named."""
    weights = description.get("weights")
    generator = build_generator({key: value for key, value in description.items() if key != "weights"})
    if weights is not None:
        state, _ = _load(Path(weights))
        _fill(generator.module if isinstance(generator, ModuleGenerator) else generator, state, Path(weights))
        if isinstance(generator, StyleGAN2):
            generator.adjust()
    return generator


def _registered(name: str) -> Generator:
    generator = load("generators", name)()
    if not isinstance(generator, Generator):
        raise ValueError(f"generators {name} is registered, but makes a {type(generator).__name__}, no Generator")
    return generator.eval()


def _load(path: Path) -> tuple[dict[str, Tensor], Any]:
    """Return the plain state dict of a file and its header (None where it has none)."""
    if path.exists() and holds_mobile_stylegan(path):
        with _about(path):
            return read_mobile_stylegan(path), None
    if not path.is_file():
        raise WeightsError(
            f"no generator weights at {path}: give the path of a .safetensors or .pth file, or the name of a prior "
            f"({', '.join(CATALOGUE)}; see iagan priors)"
        )
    state, header = _read(path)
    state = _unwrap(state, path)
    if stylegan2_layouts.is_rosinality(state):
        with _about(path):
            state, arguments = stylegan2_layouts.from_rosinality(state)
        if arguments["noise"] == "dropped":
            print(f"iagan: {path} holds no maps of noise: its images are made without", file=sys.stderr)
        return _stylegan2(state, arguments)
    return state, header


def _stylegan2(state: dict[str, Tensor], arguments: Mapping[str, Any]) -> tuple[dict[str, Tensor], str]:
    return state, json.dumps({"architecture": StyleGAN2.__name__, "arguments": arguments})


def _read(path: Path) -> tuple[Any, Any]:
    """Return the content of a file and its header (None where it has none)."""
    with path.open("rb") as file:
        start = file.read(len(TORCH_PICKLE))
    if start[8:9] == b"{":  # safetensors: eight bytes of length, then JSON
        try:
            with safe_open(path, framework="pt") as stored:
                metadata = stored.metadata() or {}
                return {key: stored.get_tensor(key) for key in stored.keys()}, metadata.get(HEADER)  # noqa: SIM118
        except SafetensorError as error:
            raise WeightsError(f"{path} is damaged or not a safetensors file: {error}") from error
    if start[:1] == b"\x80" and start != TORCH_PICKLE:  # a pickle, but not one of torch
        with _about(path):
            return _read_pickle(path)
    try:
        check_archive(path)
    except ValueError as error:
        raise WeightsError(f"{path} is refused: {error}") from error
    try:
        # A checkpoint of rosinality's keeps the words of its command, in a plain holder of attributes.
        with torch.serialization.safe_globals([BaseConfig, argparse.Namespace]):
            return torch.load(path, map_location="cpu", weights_only=True), None
    except Exception as error:  # torch raises a different kind for each way in which a file can be broken
        refused = refused_name(error)
        reason = f"wants to build {refused}, which is refused" if refused else "is damaged or no weight file"
        raise WeightsError(f"{path} {reason}: a state dict (torch.save) or a safetensors file is needed") from error


def _read_pickle(path: Path) -> tuple[dict[str, Tensor], str | None]:
    """Return the state dict in a pickle of NVIDIA's networks, and a header where names and shapes do not say all."""
    content = read_pickle(path)
    if (modules := stylegan2_layouts.modules_of(content)) is not None:
        return _stylegan2(*stylegan2_layouts.from_nvidia(modules))
    if (network := stylegan2_layouts.components_of(content)) is not None:
        return _stylegan2(*stylegan2_layouts.from_tensorflow(network))
    return variables_of(content), None


def _unwrap(state: Any, path: Path) -> dict[str, Tensor]:
    """Return the plain state dict, without the wrappings of training scripts."""
    for key in ("state_dict", "model", "generator", "g_ema", "avgG", "netG"):
        if isinstance(state, Mapping) and isinstance(state.get(key), Mapping):
            state = state[key]
            break
    if not isinstance(state, Mapping) or not state or not all(isinstance(v, Tensor) for v in state.values()):
        raise WeightsError(f"{path} holds {_summary(state)}, not a state dict of a generator")
    for key, value in state.items():
        try:
            check_dense(value)
        except ValueError as error:
            raise WeightsError(f"{path}, {key}: {error}") from error
    with _about(path):
        return dict(pggan_layouts.canonical({re.sub(r"^(module\.)+", "", str(k)): v for k, v in state.items()}))


@contextmanager
def _about(path: Path) -> Iterator[None]:
    """Put the file's name before what is wrong with it."""
    try:
        yield
    except WeightsError as error:
        raise WeightsError(f"{path} {printable(str(error))}") from error  # names in a file may be anything


def _summary(content: Any) -> str:
    if isinstance(content, Mapping):
        return f"a dictionary with {', '.join(map(str, list(content)[:3])) or 'nothing'}"
    return f"a {type(content).__name__}"


def _from_header(header: str, path: Path) -> Generator:
    try:
        description = json.loads(header)
        generator = ARCHITECTURES[description["architecture"]](**description["arguments"])
        if (framing := description.get("framing", generator.framing)) not in (None, *get_args(Framing)):
            raise ValueError(f"framing {framing!r}")
        generator.framing = framing
        return generator
    except (KeyError, OverflowError, RuntimeError, TypeError, ValueError) as error:
        raise WeightsError(
            f"the header of {path} describes no known generator ({error}): known are {', '.join(ARCHITECTURES)}"
        ) from error


def _recognise(state: Mapping[str, Tensor], path: Path) -> Generator:
    """Return an empty network of the layout that the names and shapes belong to."""
    shapes = {key: tuple(value.shape) for key, value in state.items()}
    first = shapes.get("l0.weight", ())
    if len(first) == 2 and first[0] % 64 == 0 and len(shapes.get("l1.weight", ())) == 4:
        last = max(int(m[1]) for key in shapes if (m := re.fullmatch(r"l(\d+)\.weight", key)))
        channels, resolution = first[0] // 64, 8 << max((last - 1) // 2 - 1, 0)
        skip = shapes.get("l3.weight", (0, 0))[1:2] == (2 * channels,)
        return BEGAN(resolution=resolution, channels=channels, latent=first[1], skip=skip)
    with _about(path):
        network = pggan_layouts.recognise(state) or mobile_stylegan.recognise(shapes)
        if network is not None:
            return network
    raise WeightsError(
        f"{path} holds another network ({len(shapes)} tensors, the first is {next(iter(shapes))!r}): known layouts "
        "are BEGAN (l0.weight, l0.bias, l1.weight ...), PGGAN (features.0.conv.weight ..., formatLayer.weight ..., "
        "4x4/Dense/weight ...), StyleGAN2 (style.1.weight, input.input ..., or NVIDIA's pickles) and safetensors files "
        "written by this package"
    )


def _fill(generator: nn.Module, state: Mapping[str, Tensor], path: Path) -> None:
    """Copy the tensors into the network; name whatever is missing, surplus, misshapen or not finite."""
    wanted = generator.state_dict()
    problems = []
    if missing := [key for key in wanted if key not in state]:
        problems.append(f"missing {_some(missing)}")
    if surplus := [key for key in state if key not in wanted]:
        problems.append(f"surplus {_some(surplus)}")
    for key in wanted.keys() & state.keys():
        if wanted[key].shape != state[key].shape:
            problems.append(f"{key} has shape {tuple(state[key].shape)} instead of {tuple(wanted[key].shape)}")
        elif not bool(torch.isfinite(state[key]).all()):
            problems.append(f"{key} holds values that are not finite")
    if problems:
        raise WeightsError(f"{path} does not fit {type(generator).__name__}: {'; '.join(sorted(problems)[:4])}")
    generator.load_state_dict(
        {key: value.float() if value.is_floating_point() else value for key, value in state.items()}, assign=True
    )


def _some(keys: list[str]) -> str:
    return ", ".join(keys[:3]) + (f" and {len(keys) - 3} more" if len(keys) > 3 else "")
