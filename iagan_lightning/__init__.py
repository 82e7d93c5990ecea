"""Reconstruct images from degraded measurements with a generator that adapts itself to each image (IAGAN)."""

from __future__ import annotations

import os
import sys
from importlib import import_module
from importlib.machinery import ModuleSpec
from importlib.util import spec_from_file_location
from pathlib import Path
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

# Waiting threads of OpenMP spin for milliseconds by default; where other programs want the cores too, that makes every
# operation several times slower. Read when PyTorch is loaded: `import torch` before this leaves the default.
os.environ.setdefault("GOMP_SPINCOUNT", "3000")

# Names are loaded when they are first used: importing PyTorch and Lightning takes seconds.
_HOME = {
    "CSGM": "methods",
    "DIP": "methods",
    "DIPSettings": "methods",
    "Fit": "methods",
    "FitSettings": "methods",
    "IAGAN": "methods",
    "ILO": "methods",
    "Iterate": "methods",
    "Stage": "methods",
    "TestTimeModule": "methods",
    "adapt": "methods",
    "Predictor": "prediction",
    "reconstruct": "reconstruction",
    "Reconstruction": "reconstruction",
    "metric": "results.metrics",
}
__all__ = [
    "CSGM",
    "DIP",
    "IAGAN",
    "ILO",
    "DIPSettings",
    "Fit",
    "FitSettings",
    "Iterate",
    "Predictor",
    "Reconstruction",
    "Stage",
    "TestTimeModule",
    "adapt",
    "metric",
    "reconstruct",
]

if TYPE_CHECKING:
    from iagan_lightning.methods import (
        CSGM,
        DIP,
        IAGAN,
        ILO,
        DIPSettings,
        Fit,
        FitSettings,
        Iterate,
        Stage,
        TestTimeModule,
        adapt,
    )
    from iagan_lightning.prediction import Predictor
    from iagan_lightning.reconstruction import Reconstruction, reconstruct
    from iagan_lightning.results.metrics import metric


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


class _Callbacks:
    """Finds ``iagan_lightning.callbacks`` where it lies in a checkout: beside the package; setup.cfg installs it in."""

    @staticmethod
    def find_spec(name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        folder = Path(__file__).parent.parent / "callbacks"
        if name != f"{__name__}.callbacks" or not folder.is_dir():
            return None
        return spec_from_file_location(name, folder / "__init__.py", submodule_search_locations=[str(folder)])


if not (Path(__file__).parent / "callbacks").is_dir():
    sys.meta_path.append(_Callbacks)
