"""What the commands built on LightningCLI have in common."""

from __future__ import annotations

import argparse
import os
import re
import secrets
import warnings
from collections.abc import Collection, Sequence
from typing import Any, TypeVar

import yaml
from pytorch_lightning import LightningDataModule, LightningModule
from pytorch_lightning.cli import LightningCLI

from iagan_lightning.commands.configs import CONFIG, check_configs, read_config
from iagan_lightning.commands.messages import TYPES, for_people, mixture
from iagan_lightning.methods.trainers import quiet_lightning

CLI = TypeVar("CLI", bound=LightningCLI)
SEEDS = 2**32  # NumPy takes no others


class SeededCLI(LightningCLI):
    """LightningCLI whose ``--seed_everything true`` is a random seed, as its help says, and a number from then on."""

    def parse_arguments(self, parser: Any, args: Any) -> None:
        """Parse, and settle the seed."""
        super().parse_arguments(parser, args)
        config = self.config[self.config["subcommand"]] if "subcommand" in self.config else self.config
        seed = config["seed_everything"]
        if seed is True:
            # Processes that Lightning starts run the same command: they take the seed of the one that started them.
            told = os.environ.get("PL_GLOBAL_SEED") if "LOCAL_RANK" in os.environ else None
            config["seed_everything"] = int(told) if told else secrets.randbelow(SEEDS)
        elif not 0 <= seed < SEEDS:
            raise ValueError(f"seed_everything is true, or a whole number from 0 to {SEEDS - 1}; {seed} was given")


def parse(
    cli: type[CLI],
    model: type[LightningModule],
    data: type[LightningDataModule],
    args: Sequence[str],
    prog: str,
    **settings: Any,
) -> CLI:
    """Return a LightningCLI that has parsed ``args``; its errors are raised instead of printed with a page of usage.

    Raises:
        ValueError: for arguments that do not parse.
    """
    check_configs(args)
    try:
        with quiet_lightning(), warnings.catch_warnings():
            # LightningCLI would rather read sys.argv itself; here one main serves users and tests alike.
            warnings.filterwarnings("ignore", message="LightningCLI's args parameter is intended")
            return cli(
                model,
                data,
                save_config_callback=None,
                seed_everything_default=0,
                auto_configure_optimizers=False,
                args=list(args),
                parser_kwargs={"exit_on_error": False, "prog": prog},
                **settings,
            )
    except argparse.ArgumentError as error:
        words = [*prog.split()[1:], *args]  # the command's name first
        if (plain := for_people(str(error), words)) is not None:
            raise ValueError(plain) from error
        task = f"{args[0]}." if args else ""  # a subcommand's keys carry its name, its options do not
        raise ValueError(readable(str(error).replace(task, "--") if task else str(error))) from error
    except ValueError as error:
        if (own := from_within(str(error))) is None:
            raise
        raise ValueError(own) from error


def from_within(complaint: str) -> str | None:
    """Return what a class itself said when it was built, without what jsonargparse wraps it in; None for no wrapping.

    Example:
        >>> from_within('''Does not validate against any of the Union subtypes
        ... Subtypes: [<class 'Model'>, <class 'NoneType'>]
        ... Errors:
        ...   - a.pth holds another network
        ...   - Expected a <class 'NoneType'>
        ... Given value type: <class 'Namespace'>''')
        'a.pth holds another network'
    """
    wrapping = r"Does not validate against any of the Union.*?\nErrors:\n  - (.*)\n  - Expected a <class 'NoneType'>\n"
    found = re.match(wrapping, complaint, re.DOTALL)
    return found[1] if found else None


def readable(complaint: str) -> str:
    """Return what jsonargparse says about a value as what is allowed and what was given; other complaints as they are.

    Example:
        >>> readable('''Parser key "data.fit": Expected a typing.Literal['crop', 'pad']. Got value: foo''')
        "--data.fit is one of crop, pad; 'foo' was given"
    """
    within = re.search(r"Problem with given class_path '(.*?)':\n(.*?)\n    - Expected a <", complaint, re.DOTALL)
    keys = re.findall(r'Parser key "([^"]+)":', complaint)
    if within:  # settings of a class: what it says, without what it is wrapped in
        if unknown := re.search(r"Option '(.*?)' is not accepted", within[2]):
            return f"{within[1]} has no option --{keys[0]}.{unknown[1]}"
        if "No module named" in within[2] or "has no attribute" in within[2]:
            return f"{within[1]}, given for --{keys[0]}, cannot be imported: {' '.join(within[2].split())}"
        complaint = within[2]
    if untyped := re.search(r"Parameter '(\w+)' from '([\w.]+)' does not specify a type", complaint):
        return f"{untyped[2]} does not say of what type {untyped[1]} is: write one, such as {untyped[1]}: int"
    if taken := re.search(
        r"expects a function or a callable class: (.*?)\.*\s+Got value: (\S+)$", complaint, re.DOTALL
    ):
        reason = "it is no class of operators" if "function that returns" in taken[1] else " ".join(taken[1].split())
        return f"{taken[2]}, given for --{'.'.join(keys)}, cannot be used: {reason}"
    given = re.search(r"(?:Got|Given) value: (.*?)(?:\. Got value: .*)?$", complaint, re.DOTALL)
    path = re.search(r"Expected a dot import path string: (.*)", complaint)
    if keys and path:
        return f"--{'.'.join(keys)} is a class, by name or as package.module.Class; {path[1]!r} was given"
    types = set(re.findall(r"<class '(\w+)'>", complaint.partition("Given value type")[0]))
    names = [name for names in re.findall(r"Literal\[(.*?)\]", complaint) for name in re.findall(r"'(.*?)'", names)]
    names = [*dict.fromkeys(names), *(["true", "false"] if "bool" in types else [])]
    allowed = [f"one of {', '.join(names)}"] if names else []
    allowed += [words for name, words in TYPES.items() if name in types]
    if not (keys and given and allowed):
        return complaint
    return f"--{'.'.join(keys)} is {' or '.join(allowed)}; {given[1]!r} was given"


def own_sections(args: Sequence[str], tasks: Collection[str]) -> list[str]:
    """Return the arguments with every --config whose file has a section per task replaced by the task's section.

    They come first: whatever is given for the task alone has the last word.

    Raises:
        ValueError: for a file with sections of which none is for the task, and for one with options beside sections.

    Example:
        >>> own_sections(["denoising", "--config", "mine.yaml", "--json", "true"], ["denoising"])
        ['denoising', '--config', 'mine.yaml', '--json', 'true']
    """
    shared: list[str] = []
    own: list[str] = []
    words = iter(args[1:])
    for word in words:
        option, equals, file = word.partition("=")
        if option not in CONFIG:
            own.append(word)
            continue
        file = file if equals else next(words, "")
        sections = _sections(file)
        named = [section for section in sections if section in tasks]
        if named and (plain := [key for key in sections if key not in tasks]):
            raise ValueError(mixture(file, named, plain, args[0] if args[0] in named else named[0]))
        if not named:
            own += [CONFIG[0], file]
        elif args[0] not in sections:
            raise ValueError(f"{file} has sections for {', '.join(sections)}, but none for {args[0]}")
        else:
            shared += [CONFIG[0], yaml.safe_dump(sections[args[0]])]
    return [*args[:1], *shared, *own]


def _sections(file: str) -> dict[str, Any]:
    """Return the top level of a YAML file; nothing where there is none, which the parser then says better."""
    try:
        content = read_config(file)
    except OSError:
        return {}
    return {str(key): value for key, value in content.items()} if isinstance(content, dict) else {}
