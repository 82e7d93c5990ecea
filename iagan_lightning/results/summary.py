"""Means, medians and spreads of metrics over many images, one image after another."""

from __future__ import annotations

import math
import random
import statistics
from array import array
from collections.abc import Iterable
from typing import Any

EXACT_MEDIANS = 2**16  # values of a metric that are kept; of more, a random sample as large


def summarise(rows: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """Return number, mean, median and standard deviation of each metric by method.

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
        methods[method] = {"n": numbers[method], **{key: running.result() for key, running in table.items()}}
        if "mse" in table and table["mse"].mean:
            methods[method]["psnr_of_mean_mse"] = 10 * math.log10(1 / table["mse"].mean)
    return {"images": images, "methods": methods}


class _Running:
    """Mean, standard deviation (Welford) and median of numbers that come one by one."""

    def __init__(self) -> None:
        self.n, self.mean, self.squares = 0, 0.0, 0.0
        self.sample = array("d")
        self.random = random.Random(0)

    def add(self, value: float) -> None:
        self.n += 1
        difference = value - self.mean
        self.mean += difference / self.n
        self.squares += difference * (value - self.mean)
        if self.n <= EXACT_MEDIANS:
            self.sample.append(value)
        elif (place := self.random.randrange(self.n)) < EXACT_MEDIANS:  # every value is kept with the same chance
            self.sample[place] = value

    def result(self) -> dict[str, float]:
        std = math.sqrt(self.squares / (self.n - 1)) if self.n > 1 else 0.0
        return {"mean": self.mean, "median": statistics.median(self.sample), "std": std}
