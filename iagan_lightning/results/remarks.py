"""What deserves a second look: a line for each kind of it, in the terminal, in summary.json and in the report.

Nothing here is a failure: the pictures are done, and each of the numbers is right.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from iagan_lightning.safety import printable

# Part of y that CSGM may leave unexplained, in records that do not say how familiar a picture is.
MISFIT, MISFIT_BY_SPACE = 0.35, {"w": 0.75, "w+": 0.75}
HARDLY = 0.95  # score of the detector of faces: of 500 framed faces none was below .96
BEYOND = 0.01  # part of a frame outside the picture
SHOWN = 3  # of many pictures only the first are named

Record = dict[str, Any]  # what metrics.json holds


class Remarks:
    """Collects remarks on the images of a run, one after another.

    Example:
        >>> remarks = Remarks()
        >>> remarks.add({"image": "a", "methods": {"naive": {"mse": 0.01}, "iagan": {"mse": 0.02}}})
        >>> remarks.add({"image": "b", "methods": {"naive": {"mse": 0.02}, "iagan": {"mse": 0.01}}})
        >>> remarks.lines()
        ['1 of 2 pictures came out worse than the plain reconstruction, by their PSNR (a).']
    """

    def __init__(self) -> None:
        self.images = 0
        self.numbers = dict.fromkeys(KINDS, 0)
        self.names: dict[Callable[[Record], bool], list[str]] = {kind: [] for kind in KINDS}

    def add(self, record: Record) -> None:
        """Look at the record of an image."""
        self.images += 1
        for concerns in KINDS:
            if concerns(record):
                self.numbers[concerns] += 1
                if self.numbers[concerns] <= SHOWN:
                    self.names[concerns].append(printable(str(record["image"])))

    def lines(self) -> list[str]:
        """Return one line for each kind of remark that concerns an image."""
        return [
            text.format(
                count=f"{self.numbers[kind]} of {self.images} pictures",
                names=", ".join(self.names[kind]) + (" ..." if self.numbers[kind] > SHOWN else ""),
            )
            for kind, text in KINDS.items()
            if self.numbers[kind]
        ]


def offered(record: Record) -> str:
    """Return the name of the result that an image is about: back-projected where that makes sense.

    Example:
        >>> offered({"methods": {"csgm": {}, "csgm_bp": {}}, "result": "csgm"})
        'csgm_bp'
    """
    final = record.get("result", "iagan")
    return str(record.get("offered") or (f"{final}_bp" if f"{final}_bp" in record["methods"] else final))


def unexplained(record: Record) -> float:
    r"""Return the part of the contrast of y that the prior alone leaves unexplained.

    Of records that do not say it, of y: :math:`|A x - y| / |y|` of CSGM without what noise is expected in it.

    Example:
        >>> unexplained({"methods": {"csgm": {"residual": 0.5}}})
        0.5
        >>> unexplained({"methods": {"csgm": {"residual": 0.5, "residual_sigma": 1.25}}})
        0.3
    """
    if isinstance(told := record.get("familiarity"), dict):
        return float(told["unexplained"])
    csgm = record["methods"].get("csgm", {})
    residual, sigmas = csgm.get("residual") or 0.0, csgm.get("residual_sigma", math.inf)
    return round(residual * math.sqrt(max(0.0, 1 - max(sigmas or 0.0, 1e-9) ** -2)), 6)


def unknown_to_the_prior(record: Record) -> bool:
    """Tell whether the prior by itself leaves more of y unexplained than it does of what it was trained on."""
    if isinstance(told := record.get("familiarity"), dict):
        return not told["known"]
    return unexplained(record) > MISFIT_BY_SPACE.get(str(record.get("space")), MISFIT)


def _worse_than_naive(record: Record) -> bool:
    naive, own = (record["methods"].get(name, {}).get("mse") for name in ("naive", offered(record)))
    return naive is not None and own is not None and own > naive


def _broken(record: Record) -> bool:
    return bool(record.get("broken"))


def _hardly_a_face(record: Record) -> bool:
    return float(record.get("face_score", 1.0)) < HARDLY or 0 < record.get("face_seen", math.inf) < 3


def _several_faces(record: Record) -> bool:
    return int(record.get("faces", 1)) > 1


def _at_the_border(record: Record) -> bool:
    return float(record.get("face_outside", 0.0)) > BEYOND


def _out_of_range(record: Record) -> bool:
    final = record.get("result", "iagan")
    return offered(record) == final and f"{final}_bp" in record["methods"]


KINDS: dict[Callable[[Record], bool], str] = {
    unknown_to_the_prior: (
        "{count} are none that the prior can show: CSGM leaves too much of y unexplained ({names}). "
        "A prior knows only the subjects and the framing that it was trained on; for photographs of faces "
        "try --data.align true."
    ),
    _worse_than_naive: "{count} came out worse than the plain reconstruction, by their PSNR ({names}).",
    _broken: (
        "{count} had a fit that ended in infinity or in no number: what it had found before is its result ({names}). "
        "Smaller steps may help (lr, lr_weights)."
    ),
    _hardly_a_face: (
        "{count} were cut out around what may be no face: the detector was hardly sure of it ({names}). Look at what "
        "was cut out, or crop by hand."
    ),
    _several_faces: "{count} show several faces, of which the largest was cut out ({names}): crop by hand for another.",
    _at_the_border: (
        "{count} show a face at their border, so that its frame shows more than they do: there it repeats the border, "
        "which counts as seen ({names}). iagan photo leaves it open."
    ),
    _out_of_range: (
        "{count} lie far outside [-1, 1] when they are back-projected, as where A^+ amplifies errors of y: the result "
        "of the fit itself is offered ({names})."
    ),
}
