"""The options of our commands as a file that is read in milliseconds, and which of them the words of a command know."""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from iagan_lightning.commands.shorthand import KINDS

FILE = Path(__file__).with_name("options.json")
FLAGS = ("help", "h", "print_config", "quiet", "json", "sheet", "map")  # may stand without a value
COMMON = ("config", "c", "print_config", "help", "h", "seed_everything", "trainer", "model", "data")
Option = dict[str, Any]


@functools.cache
def load() -> dict[str, Any]:
    """Return what ``describe.describe`` wrote."""
    content: dict[str, Any] = json.loads(FILE.read_text(encoding="utf-8"))
    return content


def short(text: str) -> str:
    """Return the first sentence of a docstring without its markup.

    Example:
        >>> short("``fast``, or ``paper``. Fills what ``latent`` leaves open.")
        'fast, or paper.'
    """
    plain = re.sub(r":\w+:`|`", "", " ".join(text.split())).replace("``", "").replace("`", "")
    return re.split(r"(?<=[^. ]\.) ", plain + " ", maxsplit=1)[0].strip()


def words_of(args: Sequence[str]) -> Iterator[tuple[str, str | None]]:
    """Yield the options among words without their dashes, each with its value; None where there is none.

    Example:
        >>> list(words_of(["denoising", "--out=a", "--json", "--lpips", "none"]))
        [('out', 'a'), ('json', None), ('lpips', 'none')]
    """
    for word, after in pairwise([*args, "--"]):
        if re.match(r"--?[A-Za-z_]", word):
            option, equals, value = word.partition("=")
            yield option.lstrip("-").rstrip("+"), value if equals else None if after.startswith("--") else after


@dataclass(frozen=True)
class Known:
    """The options that the words of a command can have.

    Attributes:
        options: by name.
        others: names that are understood, but not described.
        open: beginnings of names under which only the parser itself knows what there is, such as those of Lightning's
            Trainer or of a user's own class.
        owners: whose options begin with ``model.`` and ``operator.``.
    """

    options: Mapping[str, Option]
    others: frozenset[str]
    open: tuple[str, ...]
    owners: Mapping[str, str]

    @property
    def names(self) -> list[str]:
        """All names."""
        return [*self.options, *self.others]

    def has(self, name: str) -> bool:
        """Tell whether a name, or one that argparse would complete, can be an option."""
        name = name.replace(".init_args.", ".")
        owned = name.count(".") == 1 and name.startswith(tuple(f"{owner}." for owner in self.owners))
        begins = (name, f"{name}.") if not owned else (f"{name}.",)  # settings of classes are not completed
        if name in self.names or name.startswith(self.open) or any(each.startswith(begins) for each in self.names):
            return True
        above = name.rpartition(".")[0]  # inside a value that has parts of its own
        return (bool(above) and "other" in self.options.get(above, {}).get("kinds", ())) or name.endswith(
            (".class_path", ".dict_kwargs", ".help")
        )


def known(command: str, args: Sequence[str]) -> Known:
    """Return what is known of the options of one of our commands, given its words."""
    about, given = load(), list(words_of(args))
    files = any(name in ("config", "c") for name, _ in given)
    if command in about["tasks"]:
        return _of_task(about, given, about["tasks"][command]["operator"], files)
    if command == "train-prior":
        own = about["train-prior"]
        owner = _last(given, "model", "BEGANTraining", own["methods"])
        options = [*own["data"], *own["run"], *own["methods"].get(owner, [])]
        return _known(options, COMMON, ["model."] * (files or owner not in own["methods"]), {"model": owner})
    arguments = [each for each in about["commands"][command]["arguments"] if "nargs" not in each]
    if command == "reproduce":  # what it does not know itself it hands to the tasks
        task = _of_task(about, given, "", files)
        return _known([*arguments, *task.options.values()], task.others, [*task.open], task.owners)
    if command == "check-operator":
        target = args[0].rpartition(".")[2] if args else ""
        of_operator = about["operators"].get(target, [])
        others = ("operator", "help", "h", "operator.kind")
        return _known([*arguments, *of_operator], others, ["operator."] * (not of_operator), {"operator": target})
    return _known(arguments, ("help", "h"), [], {})


def _of_task(about: dict[str, Any], given: Sequence[tuple[str, str | None]], operator: str, files: bool) -> Known:
    method = _last(given, "model", "IAGAN", about["methods"])
    spelled = [
        ("operator", KINDS.get(value or "")) if name == "operator.kind" else (name, value) for name, value in given
    ]
    operator = _last(spelled, "operator", operator, about["operators"])
    opened = ["model."] * (files or method not in about["methods"] or _several(spelled, "model"))
    opened += ["operator."] * (files or operator not in about["operators"] or _several(spelled, "operator"))
    options = [*about["data"], *about["run"], *about["methods"].get(method, []), *about["operators"].get(operator, [])]
    return _known(options, (*COMMON, "operator", "operator.kind"), opened, {"model": method, "operator": operator})


def _known(options: Sequence[Option], others: Any, opened: Sequence[str], owners: Mapping[str, str]) -> Known:
    return Known({each["name"]: each for each in options}, frozenset(others), ("trainer.", *opened), owners)


def _several(given: Sequence[tuple[str, str | None]], option: str) -> bool:
    """Tell whether a class is named and then another one: which settings are whose is for the parser to see."""
    return len({value for name, value in given if name == option}) > 1


def _last(given: Sequence[tuple[str, str | None]], option: str, default: str, classes: Mapping[str, Any]) -> str:
    """Return the class that the last word for an option names, by its own name where it is one of ours."""
    ours = {name.lower(): name for name in classes} if option == "model" else {name: name for name in classes}
    values = [value or "" for name, value in given if name == option]
    if not values:
        return default
    value = values[-1]
    for home in ("iagan_lightning.operators.", "iagan_lightning.training.", "iagan_lightning."):
        value = value.removeprefix(home)
    return ours.get(value.lower() if option == "model" else value, values[-1])
