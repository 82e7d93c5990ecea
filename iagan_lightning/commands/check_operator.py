"""``iagan check-operator``: a verdict per line on an operator of one's own."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path

import yaml
from jsonargparse import ArgumentParser

from iagan_lightning.commands.configs import read_config
from iagan_lightning.commands.parsing import readable
from iagan_lightning.commands.shorthand import find_own_classes, spell_out_kind
from iagan_lightning.commands.tasks import TASKS
from iagan_lightning.operators import LinearOperator, Operator
from iagan_lightning.operators.checks import check_operator
from iagan_lightning.runs.operators import build

MARKS = {True: "ok  ", False: "FAIL", None: "    "}


def run_check_operator(args: Sequence[str]) -> int:
    """Check an operator and return the exit status: 0 where every check holds, 1 where one does not.

    Raises:
        ValueError: for arguments that do not parse, and for an operator that cannot be built.
    """
    parser = ArgumentParser(
        prog="iagan check-operator",
        description="Is an operator linear, are its adjoint and pseudo-inverse right? A verdict per line.",
        exit_on_error=False,
    )
    parser.add_argument("target", type=str, help="a class, such as my_module.MyOperator, or a config with an operator")
    parser.add_argument(
        "--operator", type=Callable[[tuple[int, int, int]], Operator], help="settings: --operator.ratio 0.5 ..."
    )
    parser.add_argument("--image_shape", type=tuple[int, int, int], default=(3, 32, 32), help="[channels,height,width]")
    parser.add_argument("--seed", type=int, default=0, help="of the random images")
    find_own_classes()
    words = spell_out_kind(args)
    if not words or words[0].startswith("-"):
        return _check(parser, words)
    return max(_check(parser, [words[0], "--operator", each, *words[1:]]) for each in _operators_of(words[0]))


def _check(parser: ArgumentParser, words: Sequence[str]) -> int:
    """Print the verdicts on one operator and return the exit status."""
    try:
        given = parser.parse_args(words)
        factory = parser.instantiate_classes(given).operator
    except argparse.ArgumentError as error:
        raise ValueError(readable(str(error))) from error
    A = build(factory, tuple(given.image_shape))
    if not isinstance(A, LinearOperator):
        raise ValueError(f"only a LinearOperator can be checked; {type(A).__name__} is none")
    print(A)
    failed = 0
    for verdict in check_operator(A, given.seed):
        print(f"{MARKS[verdict.passed]}  {verdict.check}: {verdict.detail}")
        failed += verdict.passed is False
    print("all checks hold" if not failed else f"{failed} checks failed")
    return 1 if failed else 0


def _operators_of(target: str) -> list[str]:
    """Return what --operator takes: the class, or the operators of a config (one per section) as JSON-like YAML."""
    path = Path(target)
    if path.suffix not in (".yaml", ".yml"):
        return [target]
    try:
        content = read_config(path)
    except OSError as error:
        raise ValueError(f"{target} cannot be read as a config: {error}") from error
    parts = list(content.values()) if isinstance(content, dict) and content.keys() <= TASKS.keys() else [content]
    operators = [part.get("operator", part) if isinstance(part, dict) else None for part in parts]
    if not operators or not all(isinstance(operator, dict) and "class_path" in operator for operator in operators):
        raise ValueError(f"{target} has no operator with a class_path")
    return [yaml.safe_dump(operator, default_flow_style=True).strip() for operator in operators]
