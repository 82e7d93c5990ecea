"""How much larger the errors of a prior's pictures are than the spread of its views: measured once, kept beside it.

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
from iagan_lightning.replacing import replacing

FOLDER = "calibration"  # beside the weights
LARGEST = 1 << 20  # bytes of a file that may be one


def calibration_beside(path: Path, generator: Generator) -> dict[str, float]:
    """Return the factors that lie beside a generator's weights, by kind of measurements; none where there are none.

    Those of other weights are left out, and a line says so.
    """
    beside = path.parent / FOLDER / f"{path.stem}.json"
    if not beside.is_file():
        return {}
    try:
        if beside.stat().st_size > LARGEST:
            raise ValueError("too large")
        stored = json.loads(beside.read_text(encoding="utf-8"))
        factors = {str(kind): float(factor) for kind, factor in stored["factors"].items()}
        belongs = stored["generator"] == fingerprint(generator)
        belongs = belongs and all(0 < factor < math.inf for factor in factors.values())
    except (OSError, AttributeError, KeyError, TypeError, ValueError):
        belongs = False
    if not belongs:
        print(f"iagan: {beside} is no calibration of {path.name}, or of other weights: it is left out", file=sys.stderr)
    return factors if belongs else {}


def save_calibration(
    factors: Mapping[str, float], generator: Generator, path: str | os.PathLike[str], about: Mapping[str, Any]
) -> Path:
    """Write factors beside the weights of their generator, and return where.

    Args:
        factors: by kind of measurements (``results.uncertainty.kind_of``).
        generator: as ``load_generator`` returns it for the path.
        path: of the generator's weights.
        about: what was measured.

    Example:
        >>> import tempfile
        >>> from iagan_lightning.generators import BEGAN, load_generator, save_generator
        >>> G, path = BEGAN(resolution=16, channels=2, latent=3), Path(tempfile.mkdtemp()) / "own.safetensors"
        >>> save_generator(G, path)
        >>> _ = save_calibration({"Identity, noise": 2.5}, G, path, {"faces": 30})
        >>> load_generator(path).calibration
        {'Identity, noise': 2.5}
    """
    beside = Path(path).parent / FOLDER / f"{Path(path).stem}.json"
    beside.parent.mkdir(exist_ok=True)
    stored = {"generator": fingerprint(generator), "factors": dict(factors), "about": dict(about)}
    with replacing(beside) as file:
        file.write((json.dumps(stored, indent=2) + "\n").encode())
    return beside
