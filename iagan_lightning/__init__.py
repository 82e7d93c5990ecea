"""Reconstruct images from degraded measurements with a generator that adapts itself to each image (IAGAN)."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

# In a checkout the callbacks lie beside the package; installed, setup.cfg puts them into it.
if not (Path(__file__).parent / "callbacks").is_dir():
    __path__.append(str(Path(__file__).parent.parent))

__version__ = "0.1.0"

# Names are loaded when they are first used: importing PyTorch and Lightning takes seconds.
_HOME = {
    "DIP": "methods.dip",
    "DIPSettings": "methods.dip",
    "IAGAN": "methods.iagan",
    "adapt": "methods.iagan",
    "Stage": "methods.settings",
    "reconstruct": "reconstruction",
    "Reconstruction": "reconstruction",
}
__all__ = ["DIP", "IAGAN", "DIPSettings", "Reconstruction", "Stage", "adapt", "reconstruct"]

if TYPE_CHECKING:
    from iagan_lightning.methods.dip import DIP, DIPSettings
    from iagan_lightning.methods.iagan import IAGAN, adapt
    from iagan_lightning.methods.settings import Stage
    from iagan_lightning.reconstruction import Reconstruction, reconstruct


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
