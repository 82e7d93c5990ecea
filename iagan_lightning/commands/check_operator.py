"""``iagan check-operator``: a verdict per line on an operator of one's own, and what to mend first."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import yaml
from jsonargparse import ArgumentParser

from iagan_lightning.checks import check_seed
from iagan_lightning.commands.configs import read_config
from iagan_lightning.commands.messages import for_people
from iagan_lightning.commands.parsing import readable
from iagan_lightning.commands.shorthand import find_own_classes, spell_out_kind
from iagan_lightning.commands.tasks import TASKS
from iagan_lightning.data import OperatorFactory
from iagan_lightning.operators import LinearOperator, Operator
from iagan_lightning.operators.checks import Verdict, check_operator, check_rectangular
from iagan_lightning.runs.operators import build

MARKS = {True: "ok  ", False: "FAIL", None: "    "}


def parser() -> ArgumentParser:
    """Return the parser of the command's arguments."""
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
    return parser


def run_check_operator(args: Sequence[str]) -> int:
    """Check an operator and return the exit status: 0 where every check holds, 1 where one does not.

    Raises:
        ValueError: for arguments that do not parse, and for an operator that cannot be built.
    """
    find_own_classes()
    words = spell_out_kind(args)
    if not words or words[0].startswith("-"):
        return _check(words)
    return max(_check([words[0], "--operator", each, *words[1:]]) for each in _operators_of(words[0]))


def _check(words: Sequence[str]) -> int:
    """Print the verdicts on one operator and return the exit status."""
    arguments = parser()
    try:
        given = arguments.parse_args(words)
        factory = arguments.instantiate_classes(given).operator
    except argparse.ArgumentError as error:
        plain = for_people(str(error), ["check-operator", *words]) or readable(str(error))
        raise ValueError(plain) from error
    check_seed(given.seed)
    A = build(factory, tuple(given.image_shape))
    if not isinstance(A, LinearOperator):
        raise ValueError(f"only a LinearOperator can be checked; {type(A).__name__} is none")
    print(A)
    failed: list[Verdict] = []
    for verdict in _verdicts(A, factory, given.seed, failed):
        if verdict.passed is False:
            failed.append(verdict)
        if not verdict.follows:
            print(f"{MARKS[verdict.passed]}  {verdict.check}: {verdict.detail}")
    print("all checks hold" if not failed else _summary(A, failed))
    return 1 if failed else 0


def _verdicts(A: LinearOperator, factory: OperatorFactory, seed: int, failed: Sequence[Verdict]) -> Iterator[Verdict]:
    yield from check_operator(A, seed)
    if not failed:
        yield from check_rectangular(lambda shape: build(factory, shape), A)


def _summary(A: LinearOperator, failed: Sequence[Verdict]) -> str:
    """Return what to mend first, where it is, and how to see it."""
    own = [verdict for verdict in failed if not verdict.follows]
    first = own[0]
    lines = ["", f"mend{' first' * (len(failed) > 1)}: {first.check}"]
    lines += [f"  {what}: {text}" for what, text in (("where", first.where), ("hint", first.hint)) if text]
    for cause in own:
        if unclear := [verdict.check for verdict in failed if verdict.follows == cause.check]:
            lines.append(f'not to be judged before "{cause.check}" holds: {", ".join(unclear)}')
    channels, height, width = A.image_shape
    shape = (channels, height, 2 * width if height == width else width)
    lines += [
        "to look into it, a batch of two rectangular images:",
        f"  A = {str(A).replace(str(A.image_shape), str(shape))}; x = torch.rand(2, *A.image_shape) * 2 - 1",
        "  y = A(x); print(x.shape, y.shape, A.adjoint(y).shape)",
        "  print((A(x) * y.conj()).real.sum(), (x * A.adjoint(y)).sum())  # the same where the adjoint is right",
        f"{len(own)} {'check' if len(own) == 1 else 'checks'} failed",
    ]
    return "\n".join(lines)


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
