"""Calibrations beside the weights that they belong to.

``calibration/NAME.json`` belongs to the weights ``NAME.safetensors``; it says for which ones by their fingerprint.
"""

from __future__ import annotations

import json
import math
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from iagan_lightning.generators.base import Generator, fingerprint
from iagan_lightning.generators.calibration import Calibration
from iagan_lightning.replacing import replacing

FOLDER = "calibration"  # beside the weights
LARGEST = 1 << 20  # bytes of a file that may be one
NONE = (OSError, AttributeError, KeyError, OverflowError, RecursionError, TypeError, ValueError)  # where a file is none


def calibration_beside(path: Path, generator: Generator) -> Calibration:
    """Return what lies beside a generator's weights; an empty calibration where there is none.

    That of other weights is left out, and a line says so.
    """
    beside = path.parent / FOLDER / f"{path.stem}.json"
    if not beside.is_file():
        return Calibration()
    try:
        stored = _stored(beside)
        calibration = _checked(stored)
        if stored["generator"] == fingerprint(generator):
            return calibration
    except NONE:
        pass
    print(f"iagan: {beside} is no calibration of {path.name}, or of other weights: it is left out", file=sys.stderr)
    return Calibration()


def save_calibration(
    generator: Generator,
    path: str | os.PathLike[str],
    about: Mapping[str, Any],
    factors: Mapping[str, float] | None = None,
    unexplained: Mapping[str, Mapping[int, tuple[float, float]]] | None = None,
) -> Path:
    """Write figures of a calibration beside their generator's weights, and return where; those of other kinds stay.

    Args:
        generator: as ``load_generator`` returns it for the path.
        path: of the generator's weights.
        about: what was measured, stored with each kind of measurements.
        factors, unexplained: as of ``Calibration``.

    Example:
        >>> import tempfile
        >>> from iagan_lightning.generators import BEGAN, load_generator, save_generator
        >>> G, path = BEGAN(resolution=16, channels=2, latent=3), Path(tempfile.mkdtemp()) / "own.safetensors"
        >>> save_generator(G, path)
        >>> _ = save_calibration(G, path, {"faces": 30}, factors={"Identity, noise": 2.5})
        >>> load_generator(path).calibration.factors
        {'Identity, noise': 2.5}
    """
    beside = Path(path).parent / FOLDER / f"{Path(path).stem}.json"
    beside.parent.mkdir(exist_ok=True)
    stored: dict[str, Any] = {"generator": fingerprint(generator), "about": {}}
    try:
        before = _stored(beside)
        _checked(before)
        stored = before if before["generator"] == stored["generator"] else stored
    except NONE:
        pass  # there is none, or that of other weights
    for name, part in (("factors", factors), ("unexplained", unexplained)):
        if part is not None:
            figures = {kind: dict(tried) if isinstance(tried, Mapping) else tried for kind, tried in part.items()}
            stored[name] = stored.get(name, {}) | figures
            stored["about"][name] = stored["about"].get(name, {}) | {kind: dict(about) for kind in part}
    with replacing(beside) as file:
        file.write((json.dumps(stored, indent=2) + "\n").encode())
    return beside


def _stored(beside: Path) -> dict[str, Any]:
    """Return what a file holds.

    Raises:
        OSError, RecursionError, ValueError: where it is no calibration.
    """
    if beside.stat().st_size > LARGEST:
        raise ValueError("too large")
    stored = json.loads(beside.read_text(encoding="utf-8"))
    if not isinstance(stored, dict) or not isinstance(stored.get("about"), dict):
        raise ValueError("no calibration")
    return stored


def _checked(stored: Mapping[str, Any]) -> Calibration:
    """Return the figures of a file.

    Raises:
        AttributeError, KeyError, OverflowError, TypeError, ValueError: where they cannot be any.
    """
    factors = {str(kind): float(factor) for kind, factor in stored.get("factors", {}).items()}
    unexplained = {
        str(kind): {int(numbers): (float(mean), float(std)) for numbers, (mean, std) in tried.items()}
        for kind, tried in stored.get("unexplained", {}).items()
    }
    figures = [(numbers, *figures) for tried in unexplained.values() for numbers, figures in tried.items()]
    if not all(0 < factor < math.inf for factor in factors.values()):
        raise ValueError("a factor is a number above 0")
    if not all(n > 0 and math.isfinite(mean) and 0 < std < math.inf for n, mean, std in figures):
        raise ValueError("a mean and a standard deviation above 0, by a number of measured values")
    return Calibration(factors, unexplained)
