"""What a run ran on: versions and devices, so that a report can say it."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch

from iagan_lightning import __version__


def environment() -> dict[str, Any]:
    """Return versions, threads and devices; nothing that names the machine or its user.

    Example:
        >>> environment()["iagan-lightning"]
        '0.1.0'
    """
    versions = {"iagan-lightning": __version__, "python": platform.python_version(), "torch": torch.__version__}
    for package in ("pytorch-lightning", "torchmetrics", "lpips", "numpy"):
        try:
            versions[package] = version(package)
        except PackageNotFoundError:  # on the path without having been installed
            continue
    gpus = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    return {
        **versions,
        "system": f"{platform.system()} {platform.machine()}",
        "cpu threads": torch.get_num_threads(),
        "cuda": torch.version.cuda if gpus else None,
        "gpus": gpus,
    }
