"""The folder of a run: where each file lies, and how it gets there whole or not at all."""

from __future__ import annotations

import csv
import io
import json
import math
import os
import statistics
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from PIL import Image


class OutputFolder:
    """Layout of ``OUT``; see the README for what each file holds.

    An image is done when its ``metrics.json`` is there: that file is written last, and like every other it is
    written beside its place and then moved there in one step, so that a killed run leaves nothing half-written.
    """

    def __init__(self, root: str | os.PathLike[str]) -> None:
        self.root = Path(root)

    def prepare(self, images: bool = True) -> None:
        """Make the folder, and make sure that it can be written to."""
        try:
            (self.root / "images" if images else self.root).mkdir(parents=True, exist_ok=True)
            write_bytes(self.root / ".writable", b"")
            (self.root / ".writable").unlink(missing_ok=True)
        except OSError as error:
            raise ValueError(f"cannot write to {self.root}: {error.strerror or error}") from error

    def image(self, name: str) -> Path:
        """Return the folder of an image."""
        return self.root / "images" / name

    def tensorboard(self, name: str) -> Path:
        """Return the TensorBoard run of an image."""
        return self.root / "tensorboard" / name

    def is_done(self, name: str) -> bool:
        """Tell whether an image is finished."""
        return (self.image(name) / "metrics.json").is_file()

    def metrics(self, name: str) -> dict[str, Any]:
        """Return what metrics.json says of a finished image."""
        return json.loads((self.image(name) / "metrics.json").read_text(encoding="utf-8"))

    def done(self) -> Iterator[dict[str, Any]]:
        """Return the metrics of all finished images, in the order of their names."""
        folder = self.root / "images"
        for path in sorted(path for path in folder.rglob("metrics.json") if path.is_file()):
            yield self.metrics(path.parent.relative_to(folder).as_posix())

    def check_settings(self, settings: dict[str, Any]) -> None:
        """Record what determines the results, or refuse when an earlier run in this folder used something else.

        Raises:
            ValueError: naming each setting that differs, its earlier and its present value.
        """
        path = self.root / "settings.json"
        settings = json.loads(json.dumps(settings))
        if path.is_file():
            before = json.loads(path.read_text(encoding="utf-8"))
            old, new = dict(_flatten(before)), dict(_flatten(settings))
            changed = [key for key in sorted(old.keys() | new.keys()) if old.get(key) != new.get(key)]
            if changed:
                details = "; ".join(f"{key} was {old.get(key)!r}, now {new.get(key)!r}" for key in changed)
                raise ValueError(
                    f"{self.root} holds results of other settings ({details}): choose another --out, or set it back"
                )
        else:
            write_text(path, json.dumps(settings, indent=2) + "\n")

    def write_summary(self, failed: dict[str, str] | None = None) -> dict[str, Any]:
        """Rebuild summary.csv and summary.json from the metrics of all finished images, and return the latter."""
        finished = list(self.done())
        titles = {method: title for done in finished for method, title in done.get("titles", {}).items()}
        rows = [
            {"image": done["image"], "method": method, **metrics}
            for done in finished
            for method, metrics in done["methods"].items()
        ]
        summary = summarise(rows)
        summary["titles"] = titles  # of methods whose usual title would mislead
        summary["failed"] = failed or {}
        if titles:
            rows = [{**row, "title": titles.get(row["method"], "")} for row in rows]
        columns = list(dict.fromkeys(key for row in rows for key in row)) or ["image", "method"]
        table = io.StringIO(newline="")
        writer = csv.DictWriter(table, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        write_text(self.root / "summary.csv", table.getvalue())
        write_text(self.root / "summary.json", json.dumps(summary, indent=2) + "\n")
        return summary


def summarise(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Return number, mean, median and standard deviation of each metric by method.

    PSNR comes twice: ``psnr`` averages the PSNRs, ``psnr_of_mean_mse`` is 10 log10(1 / mean MSE), the paper's way.

    Example:
        >>> rows = [
        ...     {"image": "a", "method": "iagan", "mse": 0.01, "psnr": 20.0},
        ...     {"image": "b", "method": "iagan", "mse": 0.001, "psnr": 30.0},
        ... ]
        >>> table = summarise(rows)["methods"]["iagan"]
        >>> table["psnr"]["mean"], round(table["psnr_of_mean_mse"], 2)
        (25.0, 22.6)
    """
    methods: dict[str, dict[str, Any]] = {}
    for method in dict.fromkeys(row["method"] for row in rows):
        own = [row for row in rows if row["method"] == method]
        table: dict[str, Any] = {}
        for key in dict.fromkeys(key for row in own for key in row if key not in ("image", "method")):
            values = [row[key] for row in own if key in row]
            table[key] = {
                "mean": statistics.fmean(values),
                "median": statistics.median(values),
                "std": statistics.stdev(values) if len(values) > 1 else 0.0,
            }
        if table.get("mse", {}).get("mean"):
            table["psnr_of_mean_mse"] = 10 * math.log10(1 / table["mse"]["mean"])
        methods[method] = {"n": len(own), **table}
    return {"images": len({row["image"] for row in rows}), "methods": methods}


# Files, whole or not at all --------------------------------------------------------------------------------------


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file beside its place, then move it there in one step."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with part.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def write_text(path: Path, content: str) -> None:
    """Write a text file (UTF-8) in one step."""
    write_bytes(path, content.encode("utf-8"))


def write_picture(path: Path, picture: Image.Image) -> None:
    """Write a PNG in one step."""
    buffer = io.BytesIO()
    picture.save(buffer, format="PNG")
    write_bytes(path, buffer.getvalue())


def write_tensors(path: Path, content: Any) -> None:
    """Write a .pt file in one step."""
    buffer = io.BytesIO()
    torch.save(content, buffer)
    write_bytes(path, buffer.getvalue())


def _flatten(tree: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(tree, dict) and tree:
        for key, value in tree.items():
            yield from _flatten(value, f"{prefix}.{key}" if prefix else str(key))
    else:
        yield prefix, tree
