"""``iagan rebuild``: an image from what ``--save weights`` kept of it."""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from jsonargparse import ArgumentParser
from safetensors import SafetensorError, safe_open
from torch import Tensor
from torch.func import functional_call

from iagan_lightning.commands.configs import read_config
from iagan_lightning.commands.messages import for_people
from iagan_lightning.data.images import to_pillow
from iagan_lightning.generators import Generator, load_generator
from iagan_lightning.methods.views import IDENTITY, VIEWS, averaged
from iagan_lightning.results.files import read_json, write_picture, write_tensors
from iagan_lightning.results.folder import OutputFolder
from iagan_lightning.results.shards import ShardedOutput, holds_shards
from iagan_lightning.runs.fingerprint import fingerprint
from iagan_lightning.urls import is_url


@torch.no_grad()
def rebuild(path: str | os.PathLike[str], generator: Generator) -> Tensor:
    r"""Return :math:`G_{\theta + \Delta}(z)`, the image of the last fit, ``(1, C, H, W)`` in [-1, 1]; of several views
    their mean.

    The change of the weights is stored in half precision; the image comes out within 1e-3.

    Args:
        path: ``weights.safetensors`` of an image.
        generator: the one that was adapted; it is not changed.

    Raises:
        ValueError: for a file that is missing, damaged, or belongs to another generator.
    """
    try:
        with safe_open(path, framework="pt") as file:
            about = file.metadata() or {}
            stored = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - no dictionary
    except (OSError, SafetensorError) as error:
        raise ValueError(f"{path} cannot be read: {error}. It is written with --save weights") from error
    fit, space = about.get("fit", "joint"), about.get("space", "z")  # files of earlier versions know these only
    views = _views_in(about, fit, path)
    images = [VIEWS[view].apply(_made(stored, name, space, generator, path)) for name, view in views.items()]
    return averaged(torch.stack(images), list(views.values()))


def _views_in(about: dict[str, str], fit: str, path: object) -> dict[str, str]:
    """Return the last fit of each view, and the view."""
    try:
        views = dict(json.loads(about["views"])) if "views" in about else {fit: IDENTITY}
    except (TypeError, ValueError):
        views = {}
    if not views or not all(view in VIEWS for view in map(str, views.values())):
        raise ValueError(f"{path} tells of views that there are not: {about['views']}")
    return views


def _made(stored: dict[str, Tensor], fit: str, space: str, generator: Generator, path: object) -> Tensor:
    """Return the image of a fit, before it is seen otherwise."""
    weights = dict(generator.named_parameters())
    shapes = {f"{fit}.change.{name}": tuple(weight.shape) for name, weight in weights.items()}
    shapes[f"{fit}.z"] = generator.spaces.get(space, ())
    # Weights that kept their pre-trained values have no change.
    for key in [key for key in stored if key.startswith(f"{fit}.change.")] + [f"{fit}.z"]:
        if key not in stored or tuple(stored[key].shape) != shapes.get(key):
            raise ValueError(f"{path} belongs to another generator: this one has {key} of shape {shapes.get(key)}")
    adapted = {
        name: weight + stored[key].to(weight)
        for name, weight in weights.items()
        if (key := f"{fit}.change.{name}") in stored
    }
    options = {} if space == "z" else {"space": space}
    z = stored[f"{fit}.z"][None].to(next(iter(weights.values())))
    image: Tensor = functional_call(generator, adapted, z, options)
    return image


def parser() -> ArgumentParser:
    """Return the parser of the command's arguments."""
    parser = ArgumentParser(
        prog="iagan rebuild",
        description="Make the image of the last fit again from the weights that --save weights kept.",
        exit_on_error=False,
    )
    parser.add_argument("folder", type=str, help="OUT/images/NAME")
    parser.add_argument("--generator", type=str | None, default=None, help="name or file; by default the run's")
    parser.add_argument(
        "--to",
        type=str | None,
        default=None,
        help=".png or .pt; FOLDER/rebuilt.png by default, but from Parquet",
    )
    return parser


def run_rebuild(args: Sequence[str]) -> int:
    """Rebuild the image of a folder and return the exit status.

    Raises:
        ValueError: for arguments that do not parse, and for folders without weights.
    """
    try:
        given = parser().parse_args(list(args))
    except argparse.ArgumentError as error:
        raise ValueError(for_people(str(error), ["rebuild", *args]) or str(error)) from error
    with kept(given.folder) as (folder, passing):
        return _rebuild(folder, passing, given)


def _rebuild(folder: Path, passing: bool, given: Any) -> int:
    if passing and given.to is None:
        raise ValueError("give --to: the image lies in a shard, which has no place beside it")
    to = Path(given.to or folder / "rebuilt.png")
    if to.suffix not in (".png", ".pt"):
        raise ValueError(f"--to is a file ending in .png or .pt; {to} was given")
    if given.generator:
        generator = load_generator(given.generator)
    else:
        generator = load_generator(_generator_of(folder), classes=False)  # the folder may be a stranger's
    image = rebuild(folder / "weights.safetensors", generator)
    _check_weights(folder, generator)
    to.parent.mkdir(parents=True, exist_ok=True)
    if to.suffix == ".png":
        write_picture(to, to_pillow(image[0]))
    else:
        write_tensors(to, image[0])
    print(f"written: {to}")
    return 0


@contextmanager
def kept(folder: str) -> Iterator[tuple[Path, bool]]:
    """Return the folder of an image, and whether it is there for a while only: that of ``OUT/images/NAME`` in shards.

    Raises:
        ValueError: where no shard holds it.
    """
    folder = folder.rstrip("/") if is_url(folder) else Path(folder).as_posix()
    root, found, name = folder.rpartition("/images/")
    while found and "/images/" in root and not holds_shards(root):
        root, found, more = root.rpartition("/images/")
        name = f"{more}/images/{name}"
    if not found or not holds_shards(root):
        yield Path(folder), False
        return
    out = ShardedOutput(root)
    try:
        files = out.files_of(name)
    except KeyError:
        raise ValueError(f"no shard of {root} holds {name}") from None
    with tempfile.TemporaryDirectory(prefix="iagan-") as place:
        single = OutputFolder(place)
        single.prepare()
        single.add(name, files)
        for beside in ("settings.json", "config.yaml"):
            if out.files.exists(beside):
                (single.root / beside).write_bytes(out.read(beside))
        yield single.image(name), True


def _check_weights(folder: Path, generator: Generator) -> None:
    """Raise ValueError for a generator with other weights than those of the run, which only its change was kept of."""
    for above in folder.absolute().parents:
        if (above / "settings.json").is_file():
            weights = read_json(above / "settings.json").get("weights")
            if weights and weights != fingerprint(generator):
                raise ValueError(
                    f"{above} holds results of a generator with other weights than this one has: give that one with "
                    "--generator"
                )
            return


def _generator_of(folder: Path) -> str | dict[str, Any]:
    """Return the generator that config.yaml of the run names; a class would run code, so it is not built unasked."""
    for above in folder.absolute().parents:
        if (above / "config.yaml").is_file():
            generator = _generator_in(read_config(above / "config.yaml"))
            if isinstance(generator, str) or (isinstance(generator, dict) and "class_path" not in generator):
                return generator
            break
    raise ValueError(f"no config.yaml above {folder} names a generator by its name or file: give --generator")


def _generator_in(config: object) -> object:
    model = config.get("model") if isinstance(config, dict) else None
    model = model if isinstance(model, dict) else {}
    return (model.get("init_args") or model).get("generator")
