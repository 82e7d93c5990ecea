"""Means, medians and spreads of metrics over many images, one image after another."""

from __future__ import annotations

import math
import random
import statistics
from array import array
from collections.abc import Iterable, Mapping
from typing import Any

EXACT_MEDIANS = 2**16  # values of a metric that are kept; of more, a random sample as large


def summarise(rows: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """Return number, mean, median and standard deviation of each metric by method.

    What is absent or no finite number, such as the PSNR of a picture without error, is left out of all three, and
    counted as ``left_out``; where nothing is left they are None.

    PSNR comes twice: ``psnr`` averages the PSNRs, ``psnr_of_mean_mse`` is 10 log10(1 / mean MSE), the paper's way.
    Rows are taken one by one, those of an image together. Medians are exact up to 65,536 images; of more, they are
    those of a random sample of that size (the same in each run).

    Example:
        >>> rows = [
        ...     {"image": "a", "method": "iagan", "mse": 0.01, "psnr": 20.0},
        ...     {"image": "b", "method": "iagan", "mse": 0.001, "psnr": 30.0},
        ... ]
        >>> table = summarise(rows)["methods"]["iagan"]
        >>> table["psnr"]["mean"], round(table["psnr_of_mean_mse"], 2)
        (25.0, 22.6)
        >>> summarise([*rows, {"image": "c", "method": "iagan", "psnr": None}])["methods"]["iagan"]["psnr"]["left_out"]
        1
    """
    numbers: dict[str, int] = {}
    metrics: dict[str, dict[str, _Running]] = {}
    images, last = 0, None
    for row in rows:
        images, last = images + (row["image"] != last), row["image"]
        numbers[row["method"]] = numbers.get(row["method"], 0) + 1
        table = metrics.setdefault(row["method"], {})
        for key, value in row.items():
            if key not in ("image", "method"):
                table.setdefault(key, _Running()).add(value)
    methods: dict[str, dict[str, Any]] = {}
    for method, table in metrics.items():
        methods[method] = {"n": numbers[method], **{key: run.result(numbers[method]) for key, run in table.items()}}
        if "mse" in table and table["mse"].mean > 0:
            methods[method]["psnr_of_mean_mse"] = 10 * math.log10(1 / table["mse"].mean)
    return {"images": images, "methods": methods}


def comparable(methods: Mapping[str, Mapping[str, Any]], key: str) -> bool:
    """Tell whether all means of a metric are over the same pictures: only then one of them is the best.

    Example:
        >>> comparable({"csgm": {"n": 3, "psnr": {"mean": 20.0}}, "dip": {"n": 2, "psnr": {"mean": 21.0}}}, "psnr")
        False
    """
    tables = [table for table in methods.values() if table.get(key)]
    return len({table.get("n") for table in tables}) == 1 and not any(table[key].get("left_out") for table in tables)


def left_out(methods: Mapping[str, Mapping[str, Any]], titles: Mapping[str, str], names: Mapping[str, str]) -> str:
    """Return a sentence on the values that are in no mean, absent or no finite numbers; empty where there are none.

    Args:
        methods: those of a summary.
        titles: what the methods are called.
        names: what the metrics are called; others are not spoken of.

    Example:
        >>> table = {"n": 12, "psnr": {"mean": 30.0, "left_out": 1}}
        >>> left_out({"iagan": table}, {"iagan": "IAGAN"}, {"psnr": "PSNR"})
        'Left out of the means, absent or not finite (as the PSNR of a picture without error): PSNR of IAGAN 1 of 12.'
    """
    parts = [
        f"{names[key]} of {titles.get(method, method)} {number} of {table['n']}"
        for method, table in methods.items()
        for key in names
        if (number := (table.get(key) or {}).get("left_out"))
    ]
    about = "absent or not finite (as the PSNR of a picture without error)"
    return f"Left out of the means, {about}: {', '.join(parts)}." if parts else ""


class _Running:
    """Mean, standard deviation (Welford) and median of numbers that come one by one."""

    def __init__(self) -> None:
        self.n, self.mean, self.squares = 0, 0.0, 0.0
        self.sample = array("d")
        self.random = random.Random(0)

    def add(self, value: float | None) -> None:
        if value is None or not math.isfinite(value):
            return
        self.n += 1
        difference = value - self.mean
        self.mean += difference / self.n
        self.squares += difference * (value - self.mean)
        if self.n <= EXACT_MEDIANS:
            self.sample.append(value)
        elif (place := self.random.randrange(self.n)) < EXACT_MEDIANS:  # every value is kept with the same chance
            self.sample[place] = value

    def result(self, of: int) -> dict[str, float | None]:
        left_out = of - self.n
        if not self.n:
            return {"mean": None, "median": None, "std": None, "left_out": left_out}
        std = math.sqrt(self.squares / (self.n - 1)) if self.n > 1 else 0.0
        return {
            "mean": self.mean, "median": statistics.median(self.sample), "std": std, "left_out": left_out
        }  # fmt: skip
