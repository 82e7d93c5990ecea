"""``--print_config`` in the order of the help, each option with a line on it."""

from __future__ import annotations

import io
import textwrap
from collections.abc import Callable, Mapping, Sequence
from contextlib import redirect_stdout
from typing import Any

import yaml

from iagan_lightning.commands.options import Option
from iagan_lightning.commands.pages import text_of

ORDER = (
    "noise_std", "data", "operator", "model", "views", "time", "back_projection", "dip", "dip_settings",
    "seed_everything", "steps",
)  # fmt: skip
TITLES = {
    "data": "data: the pictures",
    "operator": "operator: how they are measured",
    "model": "prior and method",
    "trainer": "machine: Lightning's Trainer",
}


def asks_for_config(words: Sequence[str]) -> bool:
    """Tell whether words ask for the configuration."""
    return any(word.partition("=")[0] == "--print_config" for word in words)


def print_commented(parse: Callable[[], Any], options: Sequence[Option]) -> None:
    """Print, commented, the configuration that a parser prints when it is asked for it, and then ends.

    Args:
        parse: parses; ends with SystemExit.
        options: what is known of the options.
    """
    printed = io.StringIO()
    try:
        with redirect_stdout(printed):
            parse()
    except SystemExit:
        print(commented(printed.getvalue(), options), end="")
        raise


def commented(text: str, options: Sequence[Option]) -> str:
    """Return a configuration with our own options first and a comment to each of them that is known.

    Example:
        >>> about = [{"name": "data.limit", "help": "use only the first so many pictures."}]
        >>> print(commented("trainer: {devices: 1}\\ndata: {limit: null}\\n", about))
        # data: the pictures
        data:
          # use only the first so many pictures
          limit: null
        <BLANKLINE>
        # machine: Lightning's Trainer
        trainer:
          devices: 1
        <BLANKLINE>
    """
    config = yaml.safe_load(text)
    if not isinstance(config, dict):
        return text
    about = {each["name"]: each for each in options}
    first = [key for key in ORDER if key in config]
    last = [key for key in ("trainer",) if key in config]
    lines: list[str] = []
    for key in [*first, *(key for key in config if key not in (*first, *last)), *last]:
        if key in TITLES:
            lines += ["", f"# {TITLES[key]}"]
        lines += _lines({key: config[key]}, about, "", 0)
    return "\n".join(lines).lstrip("\n") + "\n"


def _lines(part: Mapping[str, Any], about: Mapping[str, Option], above: str, depth: int) -> list[str]:
    lines = []
    indent = "  " * depth
    for key, value in part.items():
        name = above if key == "init_args" else f"{above}.{key}".lstrip(".")
        if name in about:
            comment = textwrap.wrap(text_of(about[name]), 110 - len(indent), break_on_hyphens=False)
            lines += [f"{indent}# {line}" for line in comment]
        if isinstance(value, dict) and value:
            lines += [f"{indent}{key}:", *_lines(value, about, name, depth + 1)]
        else:
            dumped = yaml.safe_dump({key: value}, sort_keys=False, width=10**6).rstrip("\n")
            lines += [indent + line for line in dumped.split("\n")]
    return lines
