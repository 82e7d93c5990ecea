"""What the commands built on LightningCLI have in common."""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Sequence
from typing import Any, TypeVar

from pytorch_lightning import LightningDataModule, LightningModule
from pytorch_lightning.cli import LightningCLI

from iagan_lightning.reconstruction import quiet_lightning

CLI = TypeVar("CLI", bound=LightningCLI)


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
        task = f"{args[0]}." if args else ""  # a subcommand's keys carry its name, its options do not
        raise ValueError(str(error).replace(task, "--") if task else str(error)) from error
