"""What can be answered before PyTorch is imported: help, versions, options that do not exist, values of a wrong kind.

It refuses only what the parser would refuse, and leaves to it whatever it cannot tell: Lightning's Trainer, configs,
classes from elsewhere, all but the form of a value.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version

from iagan_lightning import __version__
from iagan_lightning.commands.messages import allowed, unknown_option
from iagan_lightning.commands.options import FLAGS, Option, known, load, words_of
from iagan_lightning.commands.shorthand import spell_out_samples
from iagan_lightning.runs.levels import parse_fraction
from iagan_lightning.urls import is_url

NUMBERS = ("torch", "pytorch-lightning", "torchmetrics", "lpips", "numpy", "pillow")  # decide about them
BOOLEANS = {"true", "false", "yes", "no", "on", "off", "y", "n", "t", "f", "1", "0"}
NOTHING = {"", "null", "none", "~"}


def versions() -> str:
    """Return our version and those of what decides about numbers, one a line.

    Example:
        >>> versions().splitlines()[0]
        'iagan 0.1.0'
    """
    lines = [f"iagan {__version__}"]
    for package in NUMBERS:
        try:
            lines.append(f"{package} {version(package)}")
        except PackageNotFoundError:  # on the path without having been installed
            lines.append(f"{package} (not installed as a package)")
    return "\n".join(lines)


def check_words(command: str, args: Sequence[str]) -> None:
    """Raise ValueError for words that a command of ours cannot have.

    Args:
        command: its name.
        args: what follows it.

    Example:
        >>> check_words("denoising", ["--data.size", "big"])
        Traceback (most recent call last):
        ...
        ValueError: --data.size is a whole number or null; 'big' was given
    """
    args = spell_out_samples(args) if command in load()["tasks"] else args
    about = known(command, args)
    for name, value in words_of(args):
        if not about.has(name):
            raise ValueError(unknown_option(command, name, args))
        option = about.options.get(name.replace(".init_args.", "."))
        if value is None and name not in (*FLAGS, "operator.kind") and (option or name in about.others):
            raise ValueError(f"{'--' if len(name) > 1 else '-'}{name} needs a value")
        if option and value is not None and not _fits(option, value):
            raise ValueError(allowed(option["name"], option["kinds"], option.get("choices", ()), value))
    given = dict(words_of(args))
    if command in load()["tasks"] and given.get("noise_std") not in (None, "unknown"):
        parse_fraction(given["noise_std"] or "")
    if command in (*load()["tasks"], "train-prior"):
        for name in ("data.root", "data.measurements"):
            path = given.get(name) or ""
            if command != "train-prior" and (is_url(path) or any(sign in path for sign in "*?[")):
                continue  # shards, which pyarrow or fsspec have to look for
            if path.lower() not in NOTHING and not os.path.exists(os.path.expanduser(path)):
                what = "folder or file" if command != "train-prior" else "folder or tar file"
                raise ValueError(f"no such {what}: {path}")


def _fits(option: Option, value: str) -> bool:
    """Tell whether a value may be of a kind that an option takes; what only may be is the parser's to say."""
    kinds = set(option.get("kinds", ["other"]))
    if kinds & {"str", "other"} or "$" in value:
        return True
    if value.strip("'\"") in map(str, option.get("choices", ())) or (value.lower() in NOTHING and "null" in kinds):
        return True
    if kinds & {"int", "float"} and (any(map(str.isdigit, value)) or value.lower().lstrip("+-.") in ("inf", "nan")):
        return True
    return "bool" in kinds and value.lower() in BOOLEANS
