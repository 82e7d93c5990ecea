"""Configurations as files and in words: read as UTF-8, no key twice, and what of an operator they state."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml

CONFIG = ("--config", "-c")
SUFFIXES = (".yaml", ".yml", ".json")


class _Strict(yaml.SafeLoader):
    """Refuses mappings in which a key is there twice, of which YAML would take the last."""

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Hashable, Any]:
        """Return a mapping."""
        lines: dict[str, int] = {}
        for key, _ in node.value if isinstance(node, yaml.MappingNode) else ():
            if isinstance(key, yaml.ScalarNode) and key.tag != "tag:yaml.org,2002:merge":
                line = key.start_mark.line + 1
                if key.value in lines:
                    where = f"lines {lines[key.value]} and {line}" if lines[key.value] != line else f"line {line}"
                    raise _TwiceError(f"{key.value} is there twice, on {where}: keep one of them")
                lines[key.value] = line
        return super().construct_mapping(node, deep=deep)


class _TwiceError(ValueError):
    """A key that is there twice."""


def read_config(path: str | Path) -> Any:
    """Return what a YAML file holds.

    Raises:
        OSError: for a file that cannot be read.
        ValueError: for one that is not UTF-8, no YAML, empty, or has a key twice; it is named.
    """
    content = Path(path).read_bytes()
    try:
        text = content.decode("utf-8-sig")
        if "\0" in text:
            raise ValueError("it holds bytes that are 0")
    except ValueError as error:
        raise ValueError(f"{path} is no text in UTF-8 ({error}): save it in that encoding") from error
    try:
        settings = yaml.load(text, _Strict)
    except _TwiceError as error:
        raise ValueError(f"{path}: {error}") from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise ValueError(f"{path} is no YAML: {' '.join(str(error).split())}") from error
    if settings is None:
        raise ValueError(f"{path} holds no settings: it is empty")
    return settings


def check_configs(args: Sequence[str]) -> None:
    """Look at the files and mappings among the words of a command line, before a parser merges them.

    Raises:
        ValueError: as ``read_config``; what is no file or mapping is left to the parser.

    Example:
        >>> check_configs(["--model.latent", "{steps: 3, steps: 4}"])
        Traceback (most recent call last):
        ...
        ValueError: --model.latent: steps is there twice, on line 1: keep one of them
    """
    for option, value in options_of(args):
        if value.lstrip().startswith("{"):
            try:
                yaml.load(value, _Strict)
            except _TwiceError as error:
                raise ValueError(f"{option}: {error}") from error
            except (yaml.YAMLError, ValueError, RecursionError):
                pass
        elif (option in CONFIG or value.endswith(SUFFIXES)) and _is_file(value):
            read_config(value)


def stated_settings(args: Sequence[str], key: str) -> set[str]:
    """Return which settings of an object the words of a command line state, and the files that they name.

    Example:
        >>> sorted(stated_settings(["--operator.seed", "3", "--operator={ratio: 0.5}", "--noise_std", "0"], "operator"))
        ['ratio', 'seed']
    """
    stated: set[str] = set()
    for option, value in options_of(args):
        if option.startswith(f"--{key}."):
            stated.add(option.rpartition(".")[2])
        elif option in (*CONFIG, f"--{key}"):
            content: Any = None
            try:
                content = read_config(value) if _is_file(value) else yaml.safe_load(value)
            except (OSError, ValueError, yaml.YAMLError):  # the parser has said so already
                continue
            content = content.get(key) if option in CONFIG and isinstance(content, dict) else content
            content = content.get("init_args", content) if isinstance(content, dict) else content
            if isinstance(content, dict):
                stated |= {str(name) for name, given in content.items() if given is not None}
    return stated


def options_of(args: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Yield the options among words, each with its value (empty where it has none).

    Example:
        >>> list(options_of(["denoising", "--out=a", "--json", "--lpips", "none"]))
        [('--out', 'a'), ('--json', ''), ('--lpips', 'none')]
    """
    for word, after in zip(args, [*args[1:], "--"], strict=True):
        if word.startswith("-"):
            option, equals, value = word.partition("=")
            yield option, value if equals else "" if after.startswith("--") else after


def _is_file(value: str) -> bool:
    try:
        return Path(value).is_file()
    except (OSError, ValueError):  # no path at all: too long, or with a zero byte
        return False
