"""``iagan priors``: the priors that have names, and fetching one before it is needed."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from jsonargparse import ArgumentParser

from iagan_lightning.commands.messages import for_people
from iagan_lightning.generators import CATALOGUE, Prior, fetch_prior
from iagan_lightning.generators.catalogue import DIGITS
from iagan_lightning.plugins import registered

COLUMNS = ("name", "pixels", "framing", "MB", "here", "sha256", "from", "licence")


def parser() -> ArgumentParser:
    """Return the parser of the command's arguments."""
    parser = ArgumentParser(
        prog="iagan priors",
        description="List the priors that have names; or, with get NAME, fetch one now instead of on first use.",
        exit_on_error=False,
    )
    parser.add_argument("action", nargs="?", choices=["list", "get"], default="list", help="list (the default) or get")
    parser.add_argument("names", nargs="*", type=str, help="with get: which")
    return parser


def run_priors(args: Sequence[str]) -> int:
    """List the priors, or fetch some, and return the exit status.

    Raises:
        ValueError: for arguments that do not parse, unknown names, and priors that cannot be fetched.
    """
    try:
        given = parser().parse_args(list(args))
    except argparse.ArgumentError as error:
        raise ValueError(for_people(str(error), ["priors", *args]) or str(error)) from error
    if (given.action == "get") != bool(given.names):
        raise ValueError(f"iagan priors lists them, iagan priors get NAME fetches one: {', '.join(CATALOGUE)}")
    for name in given.names:
        path = fetch_prior(name)
        print(f"{name}: {path} ({path.stat().st_size / 1e6:.1f} MB)")
    if given.action == "list":
        rows = [COLUMNS, *_rows()]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        for row in rows:
            print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    return 0


def _hash(prior: Prior) -> str:
    """Return what is known of the hash of a prior's file before it is fetched."""
    if not prior.file:
        return "-"
    return {0: "none", DIGITS: "known"}.get(len(prior.sha256), f"{len(prior.sha256)} digits")


def _rows() -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = [
        (
            prior.name,
            str(prior.pixels),
            str(prior.framing or "-"),
            f"{prior.size / 1e6:.1f}" if prior.size else "?",
            "no" if prior.path is None else "yes",
            _hash(prior),
            prior.origin,
            prior.licence,
        )
        for prior in CATALOGUE.values()
    ]
    others = registered("generators").items()
    return rows + [
        (name, "-", "-", "-", "yes", "-", entry.value, "-") for name, entry in others if name not in CATALOGUE
    ]
