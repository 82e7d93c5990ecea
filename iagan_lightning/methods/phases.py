"""When a callback acts: results are made, then measured, then written, in whatever order callbacks are given."""

from __future__ import annotations

from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Checkpoint

from iagan_lightning.methods.test_time_module import TestTimeModule

PHASES = ("make", "measure", "write")


def sort_callbacks(callbacks: list[Any]) -> None:
    """Sort callbacks by their ``phase`` (without one: make), those of a phase in the order in which they are given.

    One that ``concludes``, whose file says that all is done, is the last of its phase. One that ``follows`` a class of
    callbacks, whose results it takes, comes behind them.

    Example:
        >>> class Writer(pl.Callback):
        ...     phase = "write"
        >>> class Maker(pl.Callback): ...
        >>> callbacks = [Writer(), Maker()]
        >>> sort_callbacks(callbacks)
        >>> [type(callback).__name__ for callback in callbacks]
        ['Maker', 'Writer']
    """

    def place(callback: Any) -> tuple[int, bool]:
        phase = getattr(callback, "phase", "make")
        if isinstance(callback, Checkpoint):  # Lightning's own come last, as it wants them
            return len(PHASES), False
        if phase not in PHASES:
            raise ValueError(f"phase of {type(callback).__name__} is one of {', '.join(PHASES)}; {phase!r} was given")
        return PHASES.index(phase), bool(getattr(callback, "concludes", False))

    callbacks.sort(key=place)
    for callback in [each for each in callbacks if hasattr(each, "follows")]:
        own = callbacks.index(callback)
        last = max((n for n, other in enumerate(callbacks) if isinstance(other, callback.follows)), default=own)
        callbacks.insert(max(own, last), callbacks.pop(own))


def require_method(module: pl.LightningModule, callback: pl.Callback) -> TestTimeModule:
    """Return a module that callbacks of this package can serve.

    Raises:
        TypeError: for any other.
    """
    if isinstance(module, TestTimeModule):
        return module
    raise TypeError(
        f"{type(callback).__name__} works with a TestTimeModule, such as IAGAN; {type(module).__name__} is none"
    )
