"""Whether a prior is known to know a picture: of faces, of pictures that show none, and of faces that are out of place.

    python benchmarks/familiarity.py --faces FACES --out OUT --generators began64 --calibrate
    python benchmarks/familiarity.py --faces FACES --out OUT --generators began64 \\
        [--page docs/priors.md]

``--calibrate`` writes mean and deviation of the first --count faces beside the prior's weights. Pictures that show no
face come from scikit-image. What is measured is kept under OUT, one file for each task.
"""

from __future__ import annotations

import argparse
import math
import statistics
from pathlib import Path

import torch
from peers import PROBLEMS, problem_of
from skimage import data
from speed import machine, write_block
from torch import Tensor
from torch.nn import functional

from iagan_lightning import IAGAN, reconstruct
from iagan_lightning.data.images import fit_image, read_image
from iagan_lightning.generators import CATALOGUE, Generator, fetch_prior, load_generator
from iagan_lightning.generators.calibration_files import save_calibration
from iagan_lightning.methods import Stage
from iagan_lightning.methods.views import turned
from iagan_lightning.results.familiarity import familiarity
from iagan_lightning.results.files import as_json, read_json, write_text
from iagan_lightning.results.uncertainty import kind_of

OTHERS = ("chelsea", "coffee", "coins", "page", "rocket")  # a cat, a cup, coins, text, a rocket
TURN = 25.0  # degrees


def pictures(paths: list[Path], size: tuple[int, int]) -> dict[str, Tensor]:
    """Return faces, the first ten of them turned, and pushed aside by a quarter, and pictures of other things."""
    faces = {f"face {path.stem}": fit_image(read_image(path), size) for path in paths}
    first = list(faces.items())[:10]
    moved = {f"turned {name}": turned(x[None], TURN)[0] for name, x in first}
    for name, x in first:
        side = size[1] // 4
        moved[f"shifted {name}"] = functional.pad(x[None], (side, 0, 0, 0), mode="replicate")[0, ..., : size[1]]
    others = {}
    for name in OTHERS:
        pixels = torch.as_tensor(getattr(data, name)())
        pixels = pixels[..., None].expand(-1, -1, 3) if pixels.ndim == 2 else pixels
        others[name] = fit_image(pixels.permute(2, 0, 1).float() / 127.5 - 1, size)
    return {**faces, **moved, **others}


def left(G: Generator, task: str, shown: dict[str, Tensor], kept: Path) -> dict[str, float]:
    """Return what the prior alone leaves unexplained of each picture, as far as it is not kept already."""
    known: dict[str, float] = read_json(kept) if kept.exists() else {}
    A, noise_std = problem_of(PROBLEMS[task], G.image_shape)
    for name in shown.keys() - known.keys():
        y = A.measure(shown[name][None], noise_std=noise_std, seed=0)
        method = IAGAN(G, joint=Stage(steps=1))  # only the search for z counts
        [image] = reconstruct(y, A, method, noise_std, accelerator="cpu", progress=False).images
        assert image.familiarity is not None
        known[name] = image.familiarity.unexplained
    write_text(kept, as_json(known))
    return known


def line(G: Generator, task: str, found: dict[str, float]) -> str:
    """Return the line of a task: how many pictures of each group are called unknown."""
    A, noise_std = problem_of(PROBLEMS[task], G.image_shape)
    typical = G.calibration.typical(kind_of(A, noise_std), A.num_measurements)
    faces = {name: value for name, value in found.items() if name.startswith("face ")}
    told = {name: familiarity(value, typical) for name, value in found.items()}
    groups = {kind: [name for name in found if name.startswith(kind)] for kind in ("turned ", "shifted ")}
    moved = [name for names in groups.values() for name in names]
    further = sum(found[name] > found[name.partition(" ")[2]] for name in moved)
    cells = [
        f"{sum(not told[name].known for name in faces)} of {len(faces)}",
        f"{sum(not told[name].known for name in OTHERS)} of {len(OTHERS)}",
        f"{further} of {len(moved)}",
        f"{sum(not told[name].known for name in moved)} of {len(moved)}",
        f"{statistics.median(faces.values()):.2f} / {max(faces.values()):.2f}",
        f"{min(found[name] for name in OTHERS):.2f}",
    ]
    return f"| {task} | {' | '.join(cells)} |"


def main() -> None:
    """Measure, and print, write or calibrate."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--faces", required=True, type=Path)
    parser.add_argument("--generators", nargs="+", default=["began64"])
    parser.add_argument("--tasks", nargs="+", default=list(PROBLEMS), choices=list(PROBLEMS), metavar="TASK")
    parser.add_argument("--first", type=int, default=50, help="faces before those that are judged")
    parser.add_argument("--count", type=int, default=20)
    parser.add_argument("--calibrate", action="store_true", help="on the first --count faces, which are not judged")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--page", type=Path)
    given = parser.parse_args()
    torch.set_num_threads(1)
    given.out.mkdir(parents=True, exist_ok=True)
    first = 0 if given.calibrate else given.first
    paths = sorted(given.faces.glob("*.png"))[first : first + given.count]
    heads = "| task | faces called unknown | other pictures | moved: less familiar | moved: called unknown "
    heads += "| faces, median / most | other pictures, least |"
    tables = []
    for source in given.generators:
        G = load_generator(source)
        name, lines = Path(source).stem, [heads, "|" + "---|" * heads.count(" | ") + "---|"]
        figures: dict[str, dict[int, tuple[float, float]]] = {}
        for number, task in enumerate(PROBLEMS):
            if task not in given.tasks:
                continue
            kept = given.out / f"{name}-{number}-{'calibration' if given.calibrate else 'judged'}.json"
            shown = pictures(paths, G.image_shape[1:])
            if given.calibrate:
                shown = {key: x for key, x in shown.items() if key.startswith("face ")}
            found = left(G, task, shown, kept)
            if given.calibrate:
                A, noise_std = problem_of(PROBLEMS[task], G.image_shape)
                logs = [math.log(value) for value in found.values()]
                mean, std = round(statistics.fmean(logs), 3), round(statistics.stdev(logs), 3)
                figures.setdefault(kind_of(A, noise_std), {})[A.num_measurements] = (mean, std)
                print(f"{name}, {task}: {math.exp(mean):.3f}, times or by {math.exp(std):.2f}", flush=True)
            else:
                lines.append(line(G, task, found))
                print(lines[-1], flush=True)
        if given.calibrate:
            told = {"faces": f"1 to {len(paths)} of {given.faces.name}"}
            path = fetch_prior(source) if source in CATALOGUE else Path(source)
            print(save_calibration(G, path, told, unexplained=figures))
        about = f"`{name}`, faces {first + 1} to {first + len(paths)}."
        tables.append(about + "\n\n" + "\n".join(lines))
    if given.page and not given.calibrate:
        write_block(given.page, "familiarity", "\n\n".join([*tables, f"{machine('cpu')}."]))


if __name__ == "__main__":
    main()
