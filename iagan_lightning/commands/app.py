"""``iagan app``: the tasks and the photograph as a page on this machine."""

from __future__ import annotations

import argparse
import sys
import threading
import webbrowser
from collections.abc import Sequence

from jsonargparse import ArgumentParser

from iagan_lightning import signals
from iagan_lightning.app.choices import prior_named
from iagan_lightning.app.serving import LOCAL, require_gradio, served
from iagan_lightning.commands.messages import for_people

PORT = 7860  # gradio's


def parser() -> ArgumentParser:
    """Return the parser of the command's arguments."""
    parser = ArgumentParser(
        prog="iagan app",
        description=(
            "Open a page on this machine, for any browser: drop a picture, choose what to do, watch it form, compare "
            "and download. It ends with Ctrl-C."
        ),
        exit_on_error=False,
    )
    parser.add_argument("--prior", type=str, help="name or file, the first to choose from")
    parser.add_argument("--port", type=int, default=PORT, help="of the page; 0 takes any that is free")
    parser.add_argument(
        "--host", type=str, default=LOCAL[0], help="address to listen on; with 0.0.0.0 other machines reach the page"
    )
    parser.add_argument("--browser", type=bool, default=False, help="open the page in the browser")
    return parser


def run_app(args: Sequence[str]) -> int:
    """Serve the page until a signal ends it, and return the exit status: 130 after Ctrl-C, 143 after SIGTERM.

    Raises:
        ValueError: for arguments that do not parse, a prior that cannot be had, a port that is taken, and without
            gradio.
    """
    try:
        given = parser().parse_args(list(args))
    except argparse.ArgumentError as error:
        raise ValueError(for_people(str(error), ["app", *args]) or str(error)) from error
    require_gradio()
    if given.prior:
        prior_named(given.prior)
    try:
        with served(given.host, given.port, given.prior) as address:
            if given.host not in LOCAL:
                print(
                    f"iagan: whoever reaches {given.host} can use this page, without a password and unencrypted, and "
                    "see what is uploaded",
                    file=sys.stderr,
                )
            print(f"{address} (Ctrl-C ends it)", flush=True)
            if given.browser:
                webbrowser.open(address)
            threading.Event().wait()
    except KeyboardInterrupt:
        return 130
    except signals.Ended as ended:
        return ended.status
    return 0
