"""What other packages add: methods, operators, generators, metrics and tasks that they register as entry points.

A package names them in its metadata, in setup.cfg for example::

    [options.entry_points]
    iagan_lightning.methods =
        polished = their_package.methods:Polished
    iagan_lightning.operators =
        Hologram = their_package.operators:Hologram
    iagan_lightning.generators =
        cats256 = their_package.priors:load_cats
    iagan_lightning.metrics =
        mae = their_package.metrics:mae
    iagan_lightning.tasks =
        colourise = their_package.tasks:colourise

Lowest of all modules: it imports none of ours.
"""

from __future__ import annotations

import functools
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Literal

Group = Literal["methods", "operators", "generators", "metrics", "tasks"]


def registered(group: Group) -> dict[str, EntryPoint]:
    """Return the entry points of a group by name; nothing is imported yet.

    Example:
        >>> isinstance(registered("methods"), dict)
        True
    """
    return {entry.name: entry for entry in entry_points(group=f"iagan_lightning.{group}")}


@functools.cache
def load(group: Group, name: str) -> Any:
    """Return what an entry point names.

    Raises:
        ValueError: where it cannot be imported.
    """
    entry = registered(group)[name]
    try:
        return entry.load()
    except Exception as error:  # whatever somebody else's package does wrong
        raise ValueError(f"{group} {name}, which {entry.value} registers, cannot be imported: {error}") from error
