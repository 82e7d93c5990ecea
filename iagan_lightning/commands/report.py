"""``iagan report``: one page for a run, or for several beside each other."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from jsonargparse import ArgumentParser

from iagan_lightning import __version__
from iagan_lightning.commands.messages import for_people
from iagan_lightning.results.files import write_text
from iagan_lightning.results.page.collect import collect
from iagan_lightning.results.page.render import render
from iagan_lightning.results.shards import as_folder
from iagan_lightning.urls import is_url


def parser() -> ArgumentParser:
    """Return the parser of the command's arguments."""
    parser = ArgumentParser(
        prog="iagan report",
        description="Write the results of a run, or of several beside each other, as one HTML page for any browser.",
        exit_on_error=False,
    )
    parser.add_argument("folders", type=str, nargs="+", metavar="OUT", help="folder of a run, its --out, or its URL")
    parser.add_argument(
        "--out", type=str, help="HTML file to write; report.html, in OUT for one run, here for several, by default"
    )
    return parser


def run_report(args: Sequence[str]) -> int:
    """Write the page and return the exit status.

    Raises:
        ValueError: for arguments that do not parse, and folders without results.
    """
    try:
        given = parser().parse_args(list(args))
    except argparse.ArgumentError as error:
        raise ValueError(for_people(str(error), ["report", *args]) or str(error)) from error
    alone = given.folders[0] if len(given.folders) == 1 and not is_url(given.folders[0]) else ""
    page = Path(given.out) if given.out else Path(alone) / "report.html"
    if page.suffix.lower() not in (".html", ".htm"):
        raise ValueError(f"--out is a file ending in .html; {page} was given")
    with ExitStack() as stack:
        folders = [stack.enter_context(as_folder(folder)) for folder in given.folders]
        data = collect(folders, page, given.folders)
    page.parent.mkdir(parents=True, exist_ok=True)
    write_text(page, render(data, ", ".join(run["label"] for run in data["runs"]), __version__))
    print(f"{len(data['images'])} images of {len(given.folders)} {'run' if len(given.folders) == 1 else 'runs'}")
    print(f"written: {page} ({page.stat().st_size / 1e6:.1f} MB)")
    return 0
