"""Write the table of dependencies, their licences and sizes into docs/installing.md.

python docs/make_installing.py, with the Python of an environment that holds iagan-lightning alone.
"""

from __future__ import annotations

import re
import sys
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

from packaging.requirements import Requirement

PAGE = Path(__file__).parent / "installing.md"
CLASSIFIER = "License :: OSI Approved :: "
GPU = "(CUDA)"  # pip brings them with PyTorch on Linux, thirteen to twenty packages of one owner


def needed(
    name: str, extras: frozenset[str] = frozenset(), found: dict[str, Distribution] | None = None
) -> dict[str, Distribution]:
    """Return what a package needs here, itself included, by name."""
    found = {} if found is None else found
    try:
        package = distribution(name)
    except PackageNotFoundError:
        return found
    key = re.sub(r"[-_.]+", "-", package.metadata["Name"]).lower()
    again, found[key] = key in found, package
    if again and not extras:
        return found
    for line in package.requires or ():
        wanted = Requirement(line)
        if wanted.marker is None or any(wanted.marker.evaluate({"extra": extra}) for extra in ("", *extras)):
            needed(wanted.name, frozenset(wanted.extras), found)
    return found


def licence(package: Distribution) -> str:
    """Return the licence that a package declares, in the newest of the three places where it may."""
    about = package.metadata
    classifiers = [c.removeprefix(CLASSIFIER) for c in about.get_all("Classifier", []) if c.startswith(CLASSIFIER)]
    line = (about.get("License") or "").strip().splitlines()
    return about.get("License-Expression") or ", ".join(classifiers) or (line[0] if line else "not declared")


def size(package: Distribution) -> float:
    """Return the megabytes of its files."""
    paths = {Path(str(package.locate_file(file))).resolve() for file in package.files or ()}
    return sum(path.stat().st_size for path in paths if path.is_file()) / 1e6


def table() -> str:
    """Return the table, largest first, the packages of CUDA in one line."""
    rows: dict[str, tuple[str, str, float]] = {}
    for key, package in needed("iagan-lightning").items():
        gpu = key.startswith(("nvidia-", "cuda-"))
        name, version = (f"`nvidia-*` {GPU}", "") if gpu else (f"`{key}`", package.version)
        before = rows.get(name, ("", "", 0.0))[2]
        said = "NVIDIA's own (proprietary), PyTorch's CUDA build only" if gpu else licence(package)
        rows[name] = (version, said, before + size(package))
    total = sum(row[2] for row in rows.values())
    lines = [f"Python {sys.version.split()[0]}, {sys.platform}: {total:,.0f} MB in all.", ""]
    lines += ["| package | version | licence, as declared | MB |", "|---|---|---|---|"]
    for name, (version, said, megabytes) in sorted(rows.items(), key=lambda item: -item[1][2]):
        lines.append(f"| {name} | {version} | {said} | {megabytes:,.1f} |")
    return "\n".join(lines)


def main() -> None:
    """Replace what stands between the marks."""
    page = PAGE.read_text(encoding="utf-8")
    page = re.sub(
        r"(<!-- licences -->\n).*?(<!-- end -->)", lambda m: m[1] + table() + "\n" + m[2], page, flags=re.DOTALL
    )
    PAGE.write_text(page, encoding="utf-8")


if __name__ == "__main__":
    main()
