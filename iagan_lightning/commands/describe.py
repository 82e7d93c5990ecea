"""Descriptions of all commands and their options, from the signatures and docstrings that are the options.

``options.json`` beside this file is what ``describe`` returns, for help and messages that answer before PyTorch is
imported. After a change of options: ``python -m iagan_lightning.commands.describe``; a test compares the two.
"""

from __future__ import annotations

import inspect
import json
import types
from collections.abc import Callable
from dataclasses import is_dataclass
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import docstring_parser
from jsonargparse import ArgumentParser

import iagan_lightning.operators
from iagan_lightning.commands import (
    app,
    check_operator,
    export,
    import_prior,
    photo,
    priors,
    rebuild,
    report,
    reproduce,
    tasks,
    train_prior,
)
from iagan_lightning.commands.options import FILE, short
from iagan_lightning.data import ImageData
from iagan_lightning.methods import METHODS
from iagan_lightning.methods.trainer_arguments import TAKEN
from iagan_lightning.operators import LinearOperator, Operator
from iagan_lightning.runs.options import RunOptions
from iagan_lightning.training import BEGANTraining, EncoderTraining, TrainingPictures, VAEGANTraining

PLAIN = {
    "photo": photo.parser,
    "app": app.parser,
    "report": report.parser,
    "priors": priors.parser,
    "import-prior": import_prior.parser,
    "check-operator": check_operator.parser,
    "rebuild": rebuild.parser,
    "export": export.parser,
    "reproduce": reproduce.parser,
}
SIMPLE = {int: "int", float: "float", bool: "bool", str: "str", type(None): "null"}


def describe() -> dict[str, Any]:
    """Return everything that help and messages need to know of our own options, as what JSON can hold."""
    kinds = [getattr(iagan_lightning.operators, name) for name in iagan_lightning.operators.__all__]
    kinds = [kind for kind in kinds if inspect.isclass(kind)]
    return {
        "tasks": {name: of_task(task) for name, task in tasks.TASKS.items() if name in tasks.OURS},
        "data": of_class(ImageData, "data."),
        "run": of_class(RunOptions),
        "trainer": sorted(TAKEN),
        "methods": {kind.__name__: of_class(kind, "model.") for kind in METHODS.values()},
        "operators": {kind.__name__: of_operator(kind) for kind in kinds if kind not in (Operator, LinearOperator)},
        "train-prior": {
            "data": of_class(TrainingPictures, "data."),
            "run": of_parser(_parser_of(train_prior.add_options))["arguments"],
            "methods": {
                kind.__name__: of_class(kind, "model.") for kind in (BEGANTraining, VAEGANTraining, EncoderTraining)
            },
        },
        "commands": {name: of_parser(make()) for name, make in PLAIN.items()},
    }


def of_task(task: tasks.Task) -> dict[str, Any]:
    """Return a task as its help tells it."""
    return {"summary": task.summary, "operator": task.operator.__name__, "defaults": task.defaults}


def of_operator(kind: Callable[..., Any]) -> list[dict[str, Any]]:
    """Return the settings of an operator, its ``image_shape`` aside, which is not for the user to give."""
    return of_class(kind, "operator.", first=1)


def of_class(kind: Callable[..., Any], prefix: str = "", first: int = 0) -> list[dict[str, Any]]:
    """Return what a class is made from as options; those of settings that are dataclasses in place of these.

    Example:
        >>> class Half:
        ...     '''Half of it.
        ...
        ...     Args:
        ...         start: row at which it begins.
        ...     '''
        ...     def __init__(self, start: int = 0) -> None: ...
        >>> of_class(Half, "operator.")
        [{'name': 'operator.start', 'help': 'row at which it begins.', 'default': 0, 'kinds': ['int']}]
    """
    helps = _helps(kind)
    made = getattr(kind, "__init__", kind) if inspect.isclass(kind) else kind
    try:
        hints = get_type_hints(made)
    except (NameError, TypeError):  # a user's own class
        hints = {}
    options = []
    for name, parameter in list(inspect.signature(kind).parameters.items())[first:]:
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            continue
        hint = hints.get(name)
        if is_dataclass(hint):
            options += of_class(hint, f"{prefix}{name}.")  # type: ignore[arg-type]  # a class, not an instance
            continue
        default = None if parameter.default is parameter.empty else _plain(parameter.default)
        option = {"name": prefix + name, "help": helps.get(name, ""), "default": default}
        option |= _kinds(hint, parameter.default)
        if parameter.default is parameter.empty:
            option["required"] = True
        options.append(option)
    return options


def of_parser(parser: Any) -> dict[str, Any]:
    """Return the arguments of a command that has a parser of its own; positional ones have no dashes."""
    arguments = []
    for action in parser._actions:  # argparse has no public list of them
        if not action.option_strings:
            arguments.append({"name": action.dest, "help": action.help, "nargs": action.nargs})
        elif action.help and not {"--help", "--print_config", "--config"} & set(action.option_strings):
            if action.option_strings[-1].endswith(".help"):
                continue
            name = action.option_strings[-1].removeprefix("--")
            named = str(action.metavar or "").split("|")  # NAME|PATH are no values
            choices = named if len(named) > 1 and not action.metavar.isupper() else list(action.choices or [])
            option = {"name": name, "help": action.help, "default": _plain(action.default)}
            option |= {"choices": choices} if choices else {}
            arguments.append(option | ({"required": True} if action.required else {}))
    return {"summary": parser.description, "arguments": arguments, "notes": parser.epilog or ""}


def _parser_of(add: Callable[[ArgumentParser], None]) -> ArgumentParser:
    parser = ArgumentParser()
    add(parser)
    return parser


def _helps(kind: Callable[..., Any]) -> dict[str, str]:
    """Return the text of each argument, also of those that share one, and of those of the classes above it."""
    helps: dict[str, str] = {}
    for each in reversed(inspect.getmro(kind)) if inspect.isclass(kind) else (kind,):
        if each is object or not each.__module__ or each.__module__.startswith(("torch.", "pytorch_lightning")):
            continue
        for parameter in docstring_parser.parse(each.__doc__ or "").params:
            text = short(parameter.description or "")
            helps |= {name.strip(): text for name in parameter.arg_name.split(",") if not text.startswith("as for ")}
    return helps


def _kinds(hint: Any, default: Any) -> dict[str, Any]:
    """Return which simple values a type (or a default of None) admits, and ``other`` where there is more than that."""
    kinds: list[str] = []
    choices: list[Any] = []
    for part in _parts(hint):
        if get_origin(part) is Literal:
            choices += get_args(part)
        else:
            kinds.append(SIMPLE.get(part, "other"))
    kinds += ["null"] * (default is None)
    return {"kinds": [*dict.fromkeys(kinds)]} | ({"choices": choices} if choices else {})


def _parts(hint: Any) -> list[Any]:
    if get_origin(hint) in (Union, types.UnionType):
        return [each for part in get_args(hint) for each in _parts(part)]
    return [hint]


def _plain(value: Any) -> Any:
    if isinstance(value, tuple | list):
        return [_plain(item) for item in value]
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)


if __name__ == "__main__":
    FILE.write_text(json.dumps(describe(), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
