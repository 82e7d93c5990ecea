"""Help on one to two pages: a command's own options, in groups, from descriptions that are read in milliseconds."""

from __future__ import annotations

import shutil
import textwrap
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

from iagan_lightning.commands.options import Option, known, load
from iagan_lightning.commands.shorthand import KINDS

# What a first reader changes; the stages of a method have many more settings, each filled in by the preset.
RARE = ("model.memory_format", "model.compile", "model.logged")
STAGE = ("steps", "optimizer", "lr", "stop", "restarts")
TEXTS = {  # of those whose docstring explains more than fits here
    "stop": "rule by which a stage ends.",
    "lr": "Adam's learning rate.",
    "generator": "prior by name (iagan priors lists them), file of weights, or a class of your own as class_path.",
}
OUTPUT = ("out", "out_format", "pictures", "save", "lpips", "tensorboard", "quiet", "json")
SEED: Option = {"name": "seed_everything", "help": "of all random numbers; true draws one.", "default": 0}
CONFIG: Option = {"name": "config", "help": "YAML file of options; the command line overrides it.", "default": None}
MACHINE: list[Option] = [
    {"name": "trainer.accelerator", "help": "cpu, gpu, mps; a GPU where there is one.", "default": "auto"},
    {"name": "trainer.devices", "help": "how many of them share the images out.", "default": 1},
    {"name": "trainer.num_nodes", "help": "machines that share the images out.", "default": 1},
    {"name": "trainer.precision", "help": "32-true, bf16-mixed, 16-mixed.", "default": "32-true"},
    {"name": "trainer.callbacks", "help": "your own, as package.module.Class.", "default": None},
]


def wanted(words: Sequence[str]) -> str | None:
    """Return which help words ask for: ``own``, ``all``, None for none.

    Example:
        >>> wanted(["--data.limit", "1", "--help"]), wanted(["--help", "all"]), wanted([])
        ('own', 'all', None)
    """
    for word, after in pairwise([*words, ""]):
        if word in ("-h", "--help"):
            return "all" if after == "all" else "own"
        if word == "--help=all":
            return "all"
    return None


def page_of(command: str, words: Sequence[str]) -> str | None:
    """Return the help that the words of a command of ours ask for, for the method and the operator that they name.

    None where they ask for none, for all options, or for those of a class that only an import can tell.
    """
    about, what = load(), wanted(words)
    if what is None or (what == "all" and command not in about["commands"]):
        return None
    if command in about["commands"]:
        return _plain_page(command, about["commands"][command])
    of = known(command, words)
    parts = {key: [each for each in of.options.values() if each["name"].startswith(f"{key}.")] for key in of.owners}
    if not all(parts[key] or _is_ours(about, owner) for key, owner in of.owners.items()):
        return None
    if command in about["tasks"]:
        owners = of.owners
        return task_page(
            command, about["tasks"][command], owners["model"], parts["model"], owners["operator"], parts["operator"]
        )
    own = about["train-prior"]
    groups = {
        "data": own["data"],
        f"model: --model {', '.join(own['methods'])}; settings of {of.owners['model']}": parts["model"],
        "run": [*own["run"], SEED, CONFIG],
        "machine: Lightning's Trainer": MACHINE[:4],
    }
    summary = "Train a generator, or its encoder, on your own pictures; the same command goes on where it stopped."
    return _page(command, summary, groups, ALL)


def _is_ours(about: dict[str, Any], owner: str) -> bool:
    return owner in about["operators"]  # one without settings


def _plain_page(command: str, about: dict[str, Any]) -> str:
    positional = [each for each in about["arguments"] if "nargs" in each]
    usage = []
    for each in positional:
        word = each["name"].upper() + " ..." * (each["nargs"] in ("+", "*"))
        usage.append(f"[{word}]" if each["nargs"] in ("?", "*") else word)
    groups = {"arguments": positional, "options": [each for each in about["arguments"] if "nargs" not in each]}
    return _page(command, about["summary"], groups, about["notes"].strip(), " ".join(usage))


ALL = """\
--help all      every option, those of Lightning's Trainer too
--print_config  all options as YAML, to be given with --config FILE
In names a|b stands for one of the two. [ ] holds the default."""


def task_page(
    command: str,
    task: dict[str, Any],
    method: str,
    of_method: Sequence[Option],
    operator: str,
    of_operator: Sequence[Option],
) -> str:
    """Return the help of a task, from descriptions of it, of its method and of its operator."""
    about = load()
    run = {each["name"]: each for each in about["run"]}
    defaults = {f"operator.{key}": value for key, value in task["defaults"].items()}
    if operator == task["operator"]:
        stated = [{"default": defaults[each["name"]]} if each["name"] in defaults else {} for each in of_operator]
        of_operator = [each | default for each, default in zip(of_operator, stated, strict=True)]
    prior = [each for each in of_method if each["name"] == "model.generator"]
    parts = [each["name"].split(".") for each in of_method]
    stages = [*dict.fromkeys(part[1] for part in parts if len(part) == 3)]
    settings = [each for each in of_method if each["name"].count(".") == 1 and each not in prior]
    own = [each for each in settings if each["name"] not in RARE]
    for name in STAGE:
        same = [each for each in of_method if each["name"] in {f"model.{stage}.{name}" for stage in stages}]
        if same:
            own.append(same[0] | {"name": f"model.{'|'.join(stages)}.{name}", "preset": True})
    rare = [each for each in settings if each["name"] in RARE]
    of_dip = [name.partition(".")[2] for name in run if name.startswith("dip_settings.")]
    dip = {"name": "dip_settings.NAME", "help": f"of Deep Image Prior: {', '.join(of_dip)}.", "preset": True}
    groups = {
        "data": [*about["data"], run["noise_std"]],
        f"operator: --operator {operator}, one of iagan_lightning.operators, package.module.Class of your own, or "
        f"--operator.kind {'|'.join(KINDS)}; settings of {operator}": of_operator,
        "prior": prior,
        f"method: --model {method}, one of {', '.join(about['methods'])}, or package.module.Class of your own": [
            *own, run["views"], run["time"], run["back_projection"], run["dip"], dip, SEED, *rare,
        ],
        "output": [run[name] for name in OUTPUT],
        "machine: Lightning's Trainer": [run["engine"], *MACHINE],
        "files": [CONFIG],
    }  # fmt: skip
    return _page(command, task["summary"], groups, ALL)


def _page(command: str, summary: str, groups: Mapping[str, Sequence[Option]], notes: str, usage: str = "") -> str:
    width = max(60, min(shutil.get_terminal_size((100, 24)).columns, 120))
    lines = [f"usage: iagan {command} {usage + ' ' if usage else ''}[options]", "", *textwrap.wrap(summary, width)]
    for title, options in groups.items():
        if options or title.startswith("operator"):
            head = title if ":" in title else f"{title}:"
            lines += ["", *textwrap.wrap(head, width, subsequent_indent="    ", break_on_hyphens=False)]
            lines += [line for each in options for line in _option(each, width)]
    return "\n".join([*lines, "", notes, ""]) if notes else "\n".join([*lines, ""])


def text_of(option: Option) -> str:
    """Return what an option is, with the values that it can have."""
    given = [str(choice) for choice in option.get("choices", ())]
    choices = ", ".join(given + ["true", "false"] * (bool(given) and "bool" in option.get("kinds", ())))
    key = option["name"].rpartition(".")[2]
    text = TEXTS[key] if option["name"].startswith("model.") and key in TEXTS else str(option["help"])
    text = text.rstrip(".").removesuffix("; or")
    if choices and not all(choice in text for choice in given):
        text += f": {choices}" if text else choices
    return text


def _option(option: Option, width: int) -> list[str]:
    name = option["name"] if "nargs" in option else f"--{option['name']}"
    default = option.get("default")
    stated = "preset's" if option.get("preset") else _words(default)
    end = "" if stated in ("", "null") or "nargs" in option else f" [{stated}]"
    text = text_of(option)
    column = 24
    body = textwrap.wrap(text + end + (" (required)" if option.get("required") else ""), width - column - 2)
    head = f"  {name}"
    first = [head.ljust(column + 2) + (body.pop(0) if body else "")] if len(head) < column + 2 else [head]
    return [line.rstrip() for line in first] + [" " * (column + 2) + line for line in body]


def _words(value: Any) -> str:
    if isinstance(value, bool) or value is None:
        return {True: "true", False: "false", None: ""}[value]
    if isinstance(value, list):
        return f"[{','.join(map(str, value))}]"
    return str(value)
