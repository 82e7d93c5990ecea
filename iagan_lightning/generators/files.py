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
import sys
import tempfile
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, get_args

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save
from torch import Tensor, nn

from iagan_lightning.checks import in_words
from iagan_lightning.generators import (
    began,
    mobile_stylegan,
    pggan_layouts,
    pyramid,
    stylegan2_nvidia,
    stylegan2_rosinality,
    stylegan2_tensorflow,
)
from iagan_lightning.generators.base import Framing, Generator, WeightsError, as_numbers, fingerprint, to_store
from iagan_lightning.generators.began import BEGAN
from iagan_lightning.generators.calibration import Calibration
from iagan_lightning.generators.calibration_files import calibration_beside
from iagan_lightning.generators.catalogue import BUNDLED, CATALOGUE, Prior, bundled_priors, cache_folder, fetch_source
from iagan_lightning.generators.checkpoints import Found, find_network, largest_mapping
from iagan_lightning.generators.codes import take_standard_normal
from iagan_lightning.generators.encoder import encoder_of
from iagan_lightning.generators.mobile_stylegan import MobileStyleGAN
from iagan_lightning.generators.mobile_stylegan_ir import holds_mobile_stylegan, read_mobile_stylegan
from iagan_lightning.generators.mobile_stylegan_reduced import ReducedMobileStyleGAN, average, reduce
from iagan_lightning.generators.module import as_generator, build_network, names_module
from iagan_lightning.generators.network_pickle import read_pickle
from iagan_lightning.generators.pggan import PGGAN
from iagan_lightning.generators.pyramid import Pyramid
from iagan_lightning.generators.stylegan2 import StyleGAN2
from iagan_lightning.generators.tensorflow_pickle import variables_of
from iagan_lightning.plugins import load, registered
from iagan_lightning.replacing import replacing
from iagan_lightning.safety import check_archive, check_dense, printable, refused_name

ARCHITECTURES: dict[str, type[Generator]] = {
    "BEGAN": BEGAN,
    "PGGAN": PGGAN,
    "Pyramid": Pyramid,
    "MobileStyleGAN": MobileStyleGAN,
    "ReducedMobileStyleGAN": ReducedMobileStyleGAN,
    "StyleGAN2": StyleGAN2,
}

HEADER = "iagan_lightning"
TORCH_PICKLE = bytes.fromhex("80028a0a6cfc9c46f9206aa85019")  # how torch.save began before it wrote zip files


class BaseConfig:
    """Stands in for the settings in files of pytorch_GAN_zoo: it keeps them as attributes, and nobody reads them."""


BaseConfig.__module__ = "models.utils.config"  # PyTorch's restricted unpickler goes by the full name


def load_generator(source: str | os.PathLike[str] | Mapping[str, Any], classes: bool = True) -> Generator:
    """Return a generator in float32, in evaluation mode.

    Args:
        source: name of a prior (``iagan priors`` lists them; one that is not here yet is fetched) or of one that
            another package registers, or path of a safetensors file, of a PyTorch state dict, of a pickle of NVIDIA's
            PGGAN or StyleGAN2, or of a wheel or a folder with the OpenVINO networks of a MobileStyleGAN, whose
            architecture is recognised; or the class of a generator that needs no arguments, ``package.module.Class``;
            or one of these as ``weights`` beside settings (see ``Generator.adjust``), such
            as the ``label`` of a StyleGAN2 with classes; or a class path with declarations (see ``build_network``),
            whose ``weights`` are such a file too.
        classes: import classes that the source names; False for a source that a stranger may have written.

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
            if not classes:
                raise ValueError("a class would run code: name a prior or a file")
            return _from_class(source)
        return _named(source["weights"], {key: value for key, value in source.items() if key != "weights"}, classes)
    return _named(source, {}, classes)


def _named(source: str | os.PathLike[str], settings: Mapping[str, Any], classes: bool) -> Generator:
    """Return the generator of a name or a path with some settings changed."""
    _check_source(source, "the name of a prior or a file")
    if str(source) in registered("generators") and str(source) not in {*CATALOGUE, *bundled_priors()}:
        generator = _registered(str(source))
        if settings:
            generator.adjust(**settings)
        return generator
    prior = CATALOGUE.get(str(source))
    if prior is not None and prior.fetched:
        if prior.classes and settings.get("label") is None:
            raise WeightsError(
                f"{source} makes images of {prior.classes} classes: say which, label 0 to {prior.classes - 1}, such as "
                f"{{weights: {source}, label: 0}}"
            )
        generator = _cached(prior) or _fetch(prior)
        bundled = calibration_beside(BUNDLED / f"{prior.name}.safetensors", generator)
        generator.calibration = bundled if bundled != Calibration() else generator.calibration
        generator.adjust(**settings)
        return generator
    if classes and prior is None and not os.path.exists(source) and names_module(str(source)):
        generator = _from_class({"class_path": source})
        generator.adjust(**settings)
        return generator
    framing = {} if prior is None else {"framing": prior.framing}
    return _from_file(bundled_priors().get(str(source), Path(source)), {**framing, **settings})[0]


def _check_source(source: object, what: str) -> None:
    if not isinstance(source, str | os.PathLike):
        raise ValueError(f"weights is {what}; {in_words(source)} was given")


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
    generator: Generator,
    path: str | os.PathLike[str],
    training: Mapping[str, Any] | None = None,
    half: bool = False,
) -> None:
    """Write a generator as safetensors, whole or not at all, so that its path alone loads it.

    The header holds architecture, latent distribution, image shape and value range, and whatever ``training`` says
    of data and steps. Tensors keep their precision unless ``half`` asks for float16; ``load_generator`` returns
    float32.

    Raises:
        WeightsError: for a class that cannot be stored, and for values that are not finite, or would not be in float16.
        OSError: where the file cannot be written.

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
    state = to_store(generator.state_dict(), half)
    with replacing(Path(path)) as file:  # not by safetensors, whose files only their owner may read
        file.write(save(state, metadata={HEADER: json.dumps(header)}))


# Reading -------------------------------------------------------------------------------------------------------


def _from_file(path: Path, settings: Mapping[str, Any] | None = None) -> tuple[Generator, Any]:
    """Return the generator whose weights a file holds, and the file's header (None where it has none)."""
    found, header = _load(path)
    with torch.device("meta"):  # sizes come from the file: nothing is allocated before they are checked
        generator = _from_header(header, path) if header else _recognise(found.state, path)
    _fill(generator, found.state, path)
    generator.weights, generator.encoder = str(found), encoder_of(path, generator)
    generator.calibration = calibration_beside(path, generator)
    if not header:
        _take_codes(generator, found, path)
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
    doing = "making" if prior.whole else "fetching"
    size = f"{prior.size / 1e6:.0f} MB" if prior.size else "its size is not published"
    print(f"iagan: {doing} {prior.name} ({size}, {prior.origin}) into {path.parent}", file=sys.stderr)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{prior.name}-") as folder:
            if prior.whole:
                generator = _reduced(prior)
            else:
                source, digest = fetch_source(prior, Path(folder))
                # One class stands for all; whoever loads the prior chooses.
                generator = _from_file(source, {"label": 0} if prior.classes else None)[0]
                if not prior.known_hash:
                    _note(prior, digest)
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


def _note(prior: Prior, digest: str) -> None:
    """Write down the hash of a file of which no whole one was known, and say so."""
    with replacing(prior.note) as file:
        file.write(f"{digest}  {prior.file}\n".encode("ascii"))
    known = f"only the first {len(prior.sha256)} digits of its sha256 are" if prior.sha256 else "no sha256 of it is"
    print(
        f"iagan: {prior.file} is taken at its word, for {known} published. {digest} is noted in {prior.note}, and no "
        "other file is taken from now on",
        file=sys.stderr,
    )


def _seal(generator: Generator, prior: Prior) -> dict[str, str]:
    """Return what the header of a file in the cache says: the hash of its source, and one of all its tensors."""
    source = hashlib.sha256(prior.head.read_bytes()).hexdigest() if prior.whole else prior.known_hash
    return {"source": source, "tensors": fingerprint(generator)}


def _reduced(prior: Prior) -> Generator:
    """Return a prior that is made from one of more pixels, which is fetched if need be."""
    whole = load_generator(prior.whole)
    if isinstance(whole, ReducedMobileStyleGAN):
        return average(whole, prior.pixels)
    assert isinstance(whole, MobileStyleGAN)
    return reduce(whole, prior.pixels, load_file(prior.head))


def _from_class(description: Mapping[str, Any]) -> Generator:
    """Return the generator of a class path, its weights read from a file where one is named."""
    weights = description.get("weights")
    network, declared = build_network({key: value for key, value in description.items() if key != "weights"})
    if weights is None:
        return as_generator(network, declared)
    _check_source(weights, "a file")
    found, header = _load(Path(weights), () if type(network) in ARCHITECTURES.values() else network.state_dict())
    _fill(network, found.state, Path(weights))
    generator = as_generator(network, declared)  # tried with the weights that it will have
    generator.weights = str(found)
    if not header:
        _take_codes(generator, found, Path(weights))
    if isinstance(generator, StyleGAN2):
        generator.adjust()
    return generator


def _registered(name: str) -> Generator:
    generator = load("generators", name)()
    if not isinstance(generator, Generator):
        raise ValueError(f"generators {name} is registered, but makes a {type(generator).__name__}, no Generator")
    return generator.eval()


def _load(path: Path, wanted: Collection[str] = ()) -> tuple[Found, Any]:
    """Return the generator's tensors in a file, and the file's header (None where it has none).

    Args:
        path: of the file.
        wanted: names of the tensors of a network that is not one of ours.
    """
    if path.exists() and holds_mobile_stylegan(path):
        with _about(path):
            return Found(read_mobile_stylegan(path)), None
    if not path.is_file():
        raise WeightsError(
            f"no generator weights at {path}: give the path of a .safetensors or .pth file, the class of a generator "
            f"as package.module.Class, or the name of a prior ({', '.join(CATALOGUE)}; see iagan priors)"
        )
    content, header = _read(path)
    with _about(path):
        found = content if isinstance(content, Found) else Found(content) if header else find_network(content, wanted)
        if found is None:
            found = Found(_of_another_network(content))
        for key, value in found.state.items():
            try:
                check_dense(value)
            except ValueError as error:
                raise WeightsError(f"cannot be used, {key}: {error}") from error
        if wanted or header:
            return found, header
        if stylegan2_rosinality.is_rosinality(found.state):
            state, arguments = stylegan2_rosinality.from_rosinality(found.state)
            if arguments["noise"] == "dropped":
                print(f"iagan: {path} holds no maps of noise: its images are made without", file=sys.stderr)
            return found._replace(state=state), _header_of(arguments)
        return found._replace(state=dict(pggan_layouts.canonical(found.state))), None


def _header_of(arguments: Mapping[str, Any]) -> str:
    return json.dumps({"architecture": StyleGAN2.__name__, "arguments": arguments})


def _read(path: Path) -> tuple[Any, Any]:
    """Return the content of a file and its header (None where it has none)."""
    with path.open("rb") as file:
        start = file.read(len(TORCH_PICKLE))
    if start[8:9] == b"{":  # safetensors: eight bytes of length, then JSON
        try:
            with safe_open(path, framework="pt") as stored:
                metadata = stored.metadata() or {}
                return {key: stored.get_tensor(key) for key in stored.keys()}, metadata.get(HEADER)  # noqa: SIM118
        except (SafetensorError, OSError, KeyError, AttributeError, RuntimeError, TypeError, ValueError) as error:
            reason = " ".join(printable(str(error)[:300]).split())  # a type of numbers that this PyTorch lacks, say
            raise WeightsError(f"{path} is damaged or not a safetensors file: {reason}") from error
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


def _read_pickle(path: Path) -> tuple[Any, str | None]:
    """Return the content of a pickle of NVIDIA's networks, and a header where names and shapes do not say all."""
    content = read_pickle(path)
    if (modules := stylegan2_nvidia.modules_of(content)) is not None:
        state, arguments = stylegan2_nvidia.from_nvidia(modules)
        return Found(state, "G_ema", averaged=True), _header_of(arguments)
    if (network := stylegan2_tensorflow.components_of(content)) is not None:
        state, arguments = stylegan2_tensorflow.from_tensorflow(network)
        averaged = isinstance(content, tuple | list) and len(content) == 3
        return Found(state, "Gs" if averaged else "G", averaged), _header_of(arguments)
    return variables_of(content), None


def _of_another_network(content: Any) -> dict[str, Tensor]:
    """Return the tensors of a file without a known network, for telling what it holds instead."""
    if not (tensors := largest_mapping(content)):
        raise WeightsError(f"holds {_summary(content)}, not a state dict of a generator")
    return tensors


@contextmanager
def _about(path: Path) -> Iterator[None]:
    """Put the file's name before what is wrong with it, whatever it breaks: its names, kinds and shapes can be any."""
    try:
        yield
    except WeightsError as error:
        raise WeightsError(f"{path} {printable(str(error))}") from error
    except Exception as error:
        reason = " ".join(printable(f"{type(error).__name__}: {error}"[:300]).split())
        raise WeightsError(f"{path} is damaged, or holds another network ({reason})") from error


def _summary(content: Any) -> str:
    if isinstance(content, Mapping):
        keys = (printable(str(key)[:80]) for key in list(content)[:3])
        return f"a dictionary with {', '.join(keys) or 'nothing'}"
    return f"a {type(content).__name__}"


def _from_header(header: str, path: Path) -> Generator:
    try:
        description = json.loads(header)
        generator = ARCHITECTURES[description["architecture"]](**description["arguments"])
        if (framing := description.get("framing", generator.framing)) not in (None, *get_args(Framing)):
            raise ValueError(f"framing {framing!r}")
        generator.framing = framing
        return generator
    except (AttributeError, KeyError, OverflowError, RuntimeError, TypeError, ValueError) as error:
        reason = " ".join(printable(str(error)[:300]).split())
        raise WeightsError(
            f"the header of {path} describes no known generator ({reason}): known are {', '.join(ARCHITECTURES)}"
        ) from error


def _recognise(state: Mapping[str, Tensor], path: Path) -> Generator:
    """Return an empty network of the layout that the names and shapes belong to."""
    shapes = {key: tuple(value.shape) for key, value in state.items()}
    with _about(path):
        for recognise in (began.recognise, pggan_layouts.recognise, pyramid.recognise, mobile_stylegan.recognise):
            if (network := recognise(shapes)) is not None:
                return network
    first = printable(next(iter(shapes))[:80])
    raise WeightsError(
        f"{path} holds another network ({len(shapes)} tensors, the first is {first!r}): known layouts "
        "are BEGAN (l0.weight, l0.bias, l1.weight ...), PGGAN (features.0.conv.weight ..., formatLayer.weight ..., "
        "4x4/Dense/weight ...), StyleGAN2 (style.1.weight, input.input ..., or NVIDIA's pickles), checkpoints of "
        "train-prior, and safetensors files written by this package"
    )


def _fill(generator: nn.Module, state: Mapping[str, Tensor], path: Path) -> None:
    """Copy the tensors into the network as float32; name whatever is missing, surplus, misshapen or no such number."""
    wanted = generator.state_dict()
    problems = []
    if missing := [key for key in wanted if key not in state]:
        problems.append(f"missing {_some(missing)}")
    if surplus := [key for key in state if key not in wanted]:
        problems.append(f"surplus {_some(surplus)}")
    filled = {}
    for key in (key for key in wanted if key in state):
        if wanted[key].shape != state[key].shape:
            problems.append(f"{key} has shape {tuple(state[key].shape)} instead of {tuple(wanted[key].shape)}")
            continue
        try:
            filled[key] = as_numbers(state[key], whole=not wanted[key].is_floating_point())
        except ValueError as error:
            problems.append(f"{key} {error}")
    if problems:
        raise WeightsError(f"{path} does not fit {type(generator).__name__}: {'; '.join(sorted(problems)[:4])}")
    generator.load_state_dict(filled, assign=True)


def _take_codes(generator: Generator, found: Found, path: Path) -> None:
    """Make a generator of codes, from a checkpoint of ``VAEGANTraining``, one of standard normal latents."""
    if not isinstance(generator, BEGAN | Pyramid) or not {"code_mean", "code_square"} <= found.beside.keys():
        return
    try:
        mean, square = (as_numbers(found.beside[name]) for name in ("code_mean", "code_square"))
        take_standard_normal(generator, mean, square)
    except (RuntimeError, ValueError) as error:
        raise WeightsError(f"{path} holds mean and covariance of codes that do not fit: {error}") from error
    generator.latent_distribution = "normal"


def _some(keys: list[str]) -> str:
    named = ", ".join(printable(key[:80]) for key in keys[:3])
    return named + (f" and {len(keys) - 3} more" if len(keys) > 3 else "")
