"""From the folders of runs to what the page shows: plain dictionaries that JSON can hold."""

from __future__ import annotations

import base64
import csv
import io
import json
import math
import os
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import yaml
from PIL import Image

from iagan_lightning.results.folder import OutputFolder
from iagan_lightning.results.registry import Metric, shown
from iagan_lightning.results.remarks import Remarks, offered
from iagan_lightning.results.sheet import TITLES
from iagan_lightning.results.summary import comparable, left_out, summarise
from iagan_lightning.safety import open_picture

CURVES = ("objective", "residual", "psnr")


@dataclass(frozen=True)
class Embedding:
    """How pictures are put into the page: longest side in pixels, and whether every pixel is kept."""

    side: int
    lossless: bool


def embedding(images: int) -> Embedding:
    """Return how to embed the pictures of a report: exactly for a few images, as thumbnails for many.

    Example:
        >>> embedding(8), embedding(1000)
        (Embedding(side=256, lossless=True), Embedding(side=64, lossless=False))
    """
    if images <= 50:
        return Embedding(256, lossless=True)
    return Embedding(128 if images <= 300 else 64, lossless=False)


def collect(folders: Sequence[Path], page: Path, given: Sequence[str | Path] = ()) -> dict[str, Any]:
    """Return everything that the page shows.

    Args:
        folders: of the runs, side by side in this order.
        page: where the page will lie; links are relative to it.
        given: where the runs lie if they are elsewhere: to those, which will be gone, no link leads.

    Raises:
        ValueError: for a folder that holds no finished image, or a damaged record.
    """
    records = [_records(folder) for folder in folders]
    names = sorted({name for run in records for name in run})
    how = embedding(sum(len(run) for run in records))
    places = given or folders
    labels = _labels([Path(place) for place in places])
    runs = [_run(folder, label, run, page) for folder, label, run in zip(folders, labels, records, strict=True)]
    passing = [folder != Path(place) for folder, place in zip(folders, places, strict=True)]
    for run, place, gone in zip(runs, places, passing, strict=True):
        if gone:
            run["folder"], run["links"] = str(place), {}
    rows = [row for run in records for record in run.values() for row in record["methods"].values()]
    found = {key for row in rows for key, value in row.items() if value is not None}
    titles = _titles(record for run in records for record in run.values())
    # Of noisy measurements the truth itself leaves a residual: the smallest is none to be proud of.
    noisy = any(record.get("noise_std", 0.0) != 0 for run in records for record in run.values())
    metrics = shown({k: v for run in records for record in run.values() for k, v in record.get("about", {}).items()})
    judged = {key for key, about in metrics.items() if about.better} - ({"residual"} if noisy else set())
    # Means over different pictures cannot be compared: several runs are, over the pictures that all of them have.
    common = sorted(set.intersection(*map(set, records)))
    compared = [{name: run[name] for name in common} for run in records] if common else records
    summary = [row for index, run in enumerate(compared) for row in _summary(index, run, metrics)]
    tables = {f"{row['method']} {row['run']}": row for row in summary}
    alike = {key for key in found if common and comparable(tables, key)}
    return {
        "runs": runs,
        "metrics": [
            {"key": key, **asdict(about), "judged": key in judged, "alike": key in alike}
            for key, about in metrics.items()
            if key in found
        ],
        "methods": {name: titles[name] for name in _ordered(titles)},
        "titles": TITLES | titles,
        "offered": _offered([record for run in records for record in run.values()]),
        "summary": summary,
        "differences": _differences(compared, list(metrics)) if common else [],
        "notes": _notes(labels, records, common, summary, titles, {key: about.title for key, about in metrics.items()}),
        "images": [
            {
                "name": name,
                "runs": [
                    _image(folder, name, run[name], None if gone else page, how) if name in run else None
                    for folder, run, gone in zip(folders, records, passing, strict=True)
                ],
            }
            for name in names
        ],
        "exact": how.lossless,
    }


def _titles(records: Iterable[dict[str, Any]]) -> dict[str, str]:
    """Return what each method is called: ``DIP (short)`` where its runs say so, both names where they differ."""
    called: dict[str, dict[str, None]] = {}
    for record in records:
        for method in record["methods"]:
            title = record.get("titles", {}).get(method, TITLES.get(method, method))
            called.setdefault(method, {})[str(title)] = None
    return {method: " / ".join(sorted(titles)) for method, titles in called.items()}


def _records(folder: Path) -> dict[str, dict[str, Any]]:
    """Return metrics.json of all finished images by name."""
    if not folder.is_dir():
        raise ValueError(f"no such folder: {folder} (give the --out of a run)")
    out, images = OutputFolder(folder), folder / "images"
    records = {}
    for path in sorted(path for path in images.rglob("metrics.json") if path.is_file()):  # an image can be called so
        name = path.parent.relative_to(images).as_posix()
        try:
            record = out.metrics(name)
            methods = {
                method: {key: value if _finite(value) else None for key, value in row.items()}
                for method, row in record["methods"].items()
            }
            records[name] = {**record, "methods": methods}
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"{path} is damaged ({error}): delete it and run the same command again") from error
    if not records:
        raise ValueError(f"{folder} holds no finished image (images/NAME/metrics.json): give the --out of a run")
    return records


def _run(folder: Path, label: str, records: dict[str, dict[str, Any]], page: Path) -> dict[str, Any]:
    settings, surroundings = _json(folder / "settings.json"), _json(folder / "environment.json")
    failed = [
        {"name": path.parent.relative_to(folder / "images").as_posix(), "reason": (_text(path).splitlines() or [""])[0]}
        for path in sorted((folder / "images").rglob("error.txt"))
        if path.is_file() and not (path.parent / "metrics.json").is_file()
    ]
    first = next(iter(records.values()))
    totals = [record.get("seconds", {}).get("total") for record in records.values()]
    times = [time for time in totals if _finite(time)]
    devices = sorted({str(record.get("device", "")) for record in records.values()} - {""})
    facts = {
        "task": settings.get("task"),
        "images": len(records),
        "failed": len(failed) or None,
        "operator": _short(str(first.get("operator", "")), len({str(r.get("operator")) for r in records.values()})),
        "noise": _noise(first),
        "generator": _generator(folder),
        "preset": first.get("preset"),
        "seconds per image": f"{sum(times) / len(times):.1f}" if times else None,
        "device": ", ".join(devices) or None,
    }
    files = ("config.yaml", "settings.json", "environment.json", "summary.csv", "summary.json", "tensorboard", "images")
    return {
        "label": label,
        "folder": str(folder),
        "facts": {key: value for key, value in facts.items() if value not in (None, "")},
        "failed": failed,
        "config": _text(folder / "config.yaml"),
        "environment": {key: _flat(value) for key, value in surroundings.items() if value not in (None, [], "")},
        "links": {name: _link(folder / name, page) for name in files if (folder / name).exists()},
    }


def _summary(index: int, records: dict[str, dict[str, Any]], metrics: dict[str, Metric]) -> list[dict[str, Any]]:
    rows = [
        {"image": name, "method": method, **metrics}
        for name, record in records.items()
        for method, metrics in record["methods"].items()
    ]
    table = summarise(rows)["methods"]
    return [
        {"run": index, "method": method, "n": table[method]["n"], **{k: table[method].get(k) for k in metrics}}
        for method in _ordered(table)
    ]


def _offered(records: Sequence[dict[str, Any]]) -> str:
    """Return the result that the page is about: that of every image, the fit's own where that differs."""
    names = {offered(record) for record in records}
    return names.pop() if len(names) == 1 else str(records[0].get("result", "iagan"))


def _differences(records: Sequence[dict[str, dict[str, Any]]], metrics: Sequence[str]) -> list[dict[str, Any]]:
    """Return mean and spread of what each further run has above the first, picture by picture, for every method."""
    rows: list[dict[str, Any]] = []
    for index, run in enumerate(records[1:], 1):
        methods = {method for own in (records[0], run) for record in own.values() for method in record["methods"]}
        for method in _ordered(methods):
            pairs = [
                (records[0][name]["methods"].get(method, {}), record["methods"].get(method, {}))
                for name, record in run.items()
            ]
            row: dict[str, Any] = {"run": index, "method": method}
            for key in metrics:
                known = [(a[key], b[key]) for a, b in pairs if a.get(key) is not None and b.get(key) is not None]
                if known:
                    more = [b - a for a, b in known]
                    spread = statistics.stdev(more) if len(more) > 1 else None
                    row[key] = {"n": len(more), "mean": statistics.fmean(more), "std": spread}
            if row.keys() - {"run", "method"}:
                rows.append(row)
    return rows


def _notes(
    labels: Sequence[str],
    records: Sequence[dict[str, dict[str, Any]]],
    common: Sequence[str],
    summary: Sequence[dict[str, Any]],
    titles: dict[str, str],
    names: dict[str, str],
) -> list[str]:
    """Return what has to be known to read the table of means."""
    notes = []
    if not common:
        notes.append("No picture is in all of these runs: the means are over different ones, and none is the best.")
    elif any(len(run) > len(common) for run in records):
        counts = ", ".join(f"{len(run)} in {label}" for label, run in zip(labels, records, strict=True))
        notes.append(f"Over the {len(common)} pictures that all of these runs have ({counts}).")
    for index, (label, run) in enumerate(zip(labels, records, strict=True)):
        table = {row["method"]: row for row in summary if row["run"] == index}
        remarks = Remarks()
        for record in run.values():
            remarks.add(record)
        lines = [*filter(None, [left_out(table, TITLES | titles, names)]), *remarks.lines()]
        notes += [f"{label}: {line}" if len(labels) > 1 else line for line in lines]
    return notes


def _image(folder: Path, name: str, record: dict[str, Any], page: Path | None, how: Embedding) -> dict[str, Any]:
    own = folder / "images" / name
    pictures = {}
    for kind in _ordered({"truth", "measurement", "uncertainty", *record["methods"]}):
        path = own / f"{kind}.png"
        embedded = embed(path, how)
        if embedded is not None:
            pictures[kind] = {**embedded, "file": _link(path, page) if page else embedded["uri"]}
    evaluations = record.get("evaluations", {})
    objective = record.get("objective", {})
    facts = {
        "operator": record.get("operator"),
        "noise": _noise(record),
        "seed": record.get("seed"),
        "evaluations": ", ".join(f"{stage} {count}" for stage, count in evaluations.items()),
        "objective": ", ".join(f"{stage} {value:.2e}" for stage, value in objective.items() if _finite(value)),
        "seconds": ", ".join(f"{s} {t:.1f}" for s, t in record.get("seconds", {}).items() if _finite(t)),
        "device": record.get("device"),
        "uncertainty": _unsure(record.get("uncertainty")),
        "familiarity": _familiar(record.get("familiarity")),
    }
    files = [path.name for path in sorted(own.iterdir()) if path.is_file() and not path.name.startswith(".")]
    return {
        "pictures": pictures,
        "metrics": record["methods"],
        "curves": read_curves(own / "curves.csv"),
        "facts": {key: str(value) for key, value in facts.items() if value not in (None, "")},
        "files": {file: _link(own / file, page) for file in files} if page else {},
    }


def embed(path: Path, how: Embedding) -> dict[str, Any] | None:
    """Return a picture as a WebP data URI with its full size; None where there is none that can be read."""
    try:
        with open_picture(path) as file:
            picture = file.convert("RGB" if file.mode not in ("L", "1") else "L")
    except (OSError, ValueError):
        return None
    width, height = picture.size
    whole = max(width, height) <= how.side
    if not whole:
        picture.thumbnail((how.side, how.side), Image.Resampling.LANCZOS)
    # What is far smaller than a thumbnail has too few pixels to lose any.
    exact = (how.lossless or max(width, height) <= 32) and whole
    buffer = io.BytesIO()
    picture.save(buffer, "WEBP", lossless=exact, quality=75 if exact else 82)
    uri = "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode()
    return {"uri": uri, "width": width, "height": height, "exact": exact}


def read_curves(path: Path, points: int = 60) -> dict[str, Any] | None:
    """Return the curves of an image, at most about ``points`` of each stage; None where there are none.

    The file is read with patience: a cell that is no finite number becomes a gap.
    """
    try:
        rows = list(csv.DictReader(path.read_text(encoding="utf-8").splitlines()))
        stages = list(dict.fromkeys(row["stage"] for row in rows))
        evaluations = [int(row["evaluation"]) for row in rows]
    except (OSError, KeyError, ValueError, TypeError):
        return None
    kept: list[int] = []
    starts = []
    for stage in stages:
        own = [index for index, row in enumerate(rows) if row["stage"] == stage]
        starts.append([stage, evaluations[own[0]]])
        thinned = own[:: max(len(own) // points, 1)]
        kept += thinned + ([own[-1]] if own[-1] != thinned[-1] else [])
    if not kept:
        return None
    curves = {name: [_number(rows[index].get(name)) for index in kept] for name in CURVES if name in rows[0]}
    return {"stages": starts, "evaluation": [evaluations[index] for index in kept], **curves}


# Small things --------------------------------------------------------------------------------------------------------


def _ordered(names: Any) -> list[str]:
    """Return names of pictures and methods in the order of the sheets, unknown ones last."""
    return [name for name in TITLES if name in names] + sorted(name for name in names if name not in TITLES)


def _labels(folders: Sequence[Path]) -> list[str]:
    """Return the shortest ends of the paths that tell the runs apart."""
    parts = [folder.resolve().parts for folder in folders]
    for length in range(1, max(map(len, parts)) + 1):
        labels = ["/".join(part[-length:]) for part in parts]
        if len(set(labels)) == len(labels):
            return labels
    raise ValueError(f"the same folder was given twice: {', '.join(map(str, folders))}")


def _link(path: Path, page: Path) -> str:
    """Return a link from the page to a file, relative where it can be; every special character is escaped."""
    try:
        relative = os.path.relpath(path.resolve(), page.resolve().parent)
    except ValueError:  # another drive
        return path.resolve().as_uri()
    return quote(os.fsencode(Path(relative).as_posix()))  # whatever bytes its name has


def _noise(record: dict[str, Any]) -> str:
    level = record.get("noise_std")
    if level is None:
        return "of unknown level"
    return f"{level * 255:g} of 255" if level else "none"


def _unsure(about: Any) -> str | None:
    """Return what is said of the uncertainty, in words."""
    if not isinstance(about, dict) or not _finite(about.get("mean")):
        return None
    covered = f", 90 % intervals hold {about['coverage']:.0%} of the truth" if _finite(about.get("coverage")) else ""
    unknown = "" if about.get("calibrated") else ", not calibrated for this prior and task"
    return f"{about['mean']:.3f} of the range in the mean{covered}{unknown}"


def _familiar(about: Any) -> str | None:
    """Return how well the prior knows a picture, in words."""
    if not isinstance(about, dict) or not _finite(about.get("unexplained")):
        return None
    known = "" if about.get("known") else "none that the prior can show: "
    left = f"the prior alone leaves {about['unexplained']:.0%} of the contrast of y unexplained"
    share = about.get("percentile")
    return f"{known}{left}" + (f", and more of {share:.0f} % of known pictures" if _finite(share) else "")


def _short(operator: str, kinds: int) -> str:
    return operator if kinds == 1 else f"{operator.partition('(')[0]}, {kinds} different ones"


def _generator(folder: Path) -> str | None:
    try:
        model = yaml.safe_load(_text(folder / "config.yaml"))["model"]
        generator = model.get("init_args", model)["generator"]
    except (yaml.YAMLError, KeyError, TypeError, AttributeError):
        return None
    return _flat(generator)


def _flat(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {_flat(item)}" for key, item in value.items())
    return ", ".join(map(_flat, value)) if isinstance(value, list) else str(value)


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(_text(path) or "{}")
    except ValueError:
        return {}
    return content if isinstance(content, dict) else {}


def _finite(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


def _number(text: str | None) -> float | None:
    try:
        value = float(text or "nan")
    except ValueError:
        return None
    return value if math.isfinite(value) else None
