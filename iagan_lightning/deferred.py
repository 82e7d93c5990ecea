"""TorchMetrics without what it imports for metrics that nobody here has asked for.

On import it loads torchvision and SciPy's signal processing (both come with lpips), a quarter of the start-up of a
command. Stand-ins take their names while it is imported, and load the real ones at their first use. Lowest of all
modules.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import import_module
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Any

HEAVY = ("torchvision", "scipy")


def import_torchmetrics() -> None:
    """Import TorchMetrics, unless it has been; where stand-ins do not do for it, it is left to whoever needs it."""
    if "torchmetrics" in sys.modules:
        return
    import torch  # noqa: F401 - with the real ones, whatever it may want of them

    finder = _Finder([name for name in HEAVY if name not in sys.modules and PathFinder.find_spec(name)])
    sys.meta_path.insert(0, finder)
    try:
        import torchmetrics  # noqa: F401
    except Exception:  # another version, which makes more of them than a name
        for name in [name for name in sys.modules if name.partition(".")[0] == "torchmetrics"]:
            del sys.modules[name]
    finally:
        sys.meta_path.remove(finder)
        for name in [name for name, module in sys.modules.items() if isinstance(module, _StandIn)]:
            del sys.modules[name]
        finder.over = True


class _Finder:
    """Finds stand-ins for some packages and all that is in them."""

    def __init__(self, roots: Sequence[str]) -> None:
        self.roots, self.over = roots, False

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        return ModuleSpec(name, self, is_package=True) if name.partition(".")[0] in self.roots else None  # type: ignore[arg-type]  # a loader too

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return _StandIn(spec.name, self)

    def exec_module(self, module: ModuleType) -> None:
        pass


class _StandIn(ModuleType):
    """A module that is imported when something in it is used, and no earlier than that is possible."""

    def __init__(self, name: str, finder: _Finder) -> None:
        super().__init__(name)
        self._finder = finder

    def __getattr__(self, name: str) -> Any:
        if self._finder.over:
            return getattr(import_module(self.__name__), name)
        if name.startswith("__"):
            raise AttributeError(name)
        return _Later(self.__name__, name)


class _Later:
    """Something in such a module: callable, and whatever else it turns out to be."""

    def __init__(self, module: str, name: str) -> None:
        self._place = module, name

    def _real(self) -> Any:
        module, name = self._place
        return getattr(import_module(module), name)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._real()(*args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # asked for by typing, at import
            raise AttributeError(name)
        module, own = self._place
        return _Later(f"{module}.{own}", name) if _importing() else getattr(self._real(), name)


def _importing() -> bool:
    return any(isinstance(finder, _Finder) for finder in sys.meta_path)
