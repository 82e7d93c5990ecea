"""``iagan export``: results that lie in Parquet shards as a folder for each image."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from jsonargparse import ArgumentParser

from iagan_lightning.commands.messages import for_people
from iagan_lightning.results.folder import OutputFolder
from iagan_lightning.results.shards import ShardedOutput, export, open_results
from iagan_lightning.urls import is_url


def parser() -> ArgumentParser:
    """Return the parser of the command's arguments."""
    parser = ArgumentParser(
        prog="iagan export",
        description="Write the Parquet shards of a run as folders, the same files as a run without them has.",
        exit_on_error=False,
    )
    parser.add_argument("folder", type=str, metavar="OUT", help="folder or URL of a run, its --out")
    parser.add_argument("--to", type=str | None, default=None, help="folder to write; OUT-folders by default")
    return parser


def run_export(args: Sequence[str]) -> int:
    """Write the folders and return the exit status.

    Raises:
        ValueError: for arguments that do not parse, and where there are no shards.
    """
    try:
        given = parser().parse_args(list(args))
    except argparse.ArgumentError as error:
        raise ValueError(for_people(str(error), ["export", *args]) or str(error)) from error
    results = open_results(given.folder)
    if not isinstance(results, ShardedOutput):
        raise ValueError(f"{given.folder} holds no Parquet shards: give the --out of a run with --out_format parquet")
    if given.to is None and is_url(given.folder):
        raise ValueError("give --to: a folder on this machine")
    target = OutputFolder(given.to or _beside(Path(given.folder)))
    count = export(results, target)
    if not count:
        raise ValueError(f"{given.folder} holds no finished image")
    print(f"{count} images: {target.root / 'images'}")
    return 0


def _beside(folder: Path) -> Path:
    """Return OUT-folders beside OUT, that of the working folder too.

    Example:
        >>> print(_beside(Path("runs/a")))
        runs/a-folders
    """
    folder = folder if folder.name not in ("", "..") else folder.resolve()
    return folder.with_name(f"{folder.name}-folders")
