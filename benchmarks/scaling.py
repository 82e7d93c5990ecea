"""What two processes gain, and what locks and the summary cost.

    python benchmarks/scaling.py throughput [--generator began64] [--images 32] [--rounds 3]
    python benchmarks/scaling.py stubs [--images 100000]

``throughput``: images per second of one process and of two, one thread each. Images differ in how many evaluations they
take, so each is compared with itself: how long it took alone, and while the other process was at work too (start-up and
end of the run left out). Twice the ratio of these times is that of the throughputs. ``stubs``: images whose result is a
metrics.json and nothing else, through the real locks, work list and summary.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from iagan_lightning.results.files import write_text
from iagan_lightning.results.folder import OutputFolder
from iagan_lightning.runs.sharing import WorkList

METRICS = {
    "mse": 0.01, "psnr": 20.0, "ssim": 0.6, "lpips_alex": 0.1, "residual": 1e-6, "residual_8bit": 1e-3,
    "row_space_mse": 1e-9, "null_space_mse": 0.01,
}  # fmt: skip
METHODS = ("naive", "csgm", "csgm_bp", "iagan", "iagan_bp")


def stubs(count: int) -> None:
    """Lock, write and settle images one by one, then write the summary."""
    with tempfile.TemporaryDirectory() as folder:
        out = OutputFolder(folder)
        out.prepare()
        names = [f"{i:07}" for i in range(count)]
        spent = {"locks": 0.0, "metrics.json": 0.0}
        work = WorkList(names, out)
        while True:
            start = time.perf_counter()
            taken = work.take()
            middle = time.perf_counter()
            for index in taken:
                record = {"image": names[index], "methods": dict.fromkeys(METHODS, METRICS)}
                write_text(out.make(names[index]) / "metrics.json", json.dumps(record))
            written = time.perf_counter()
            for index in taken:
                work.settle(names[index])
            end = time.perf_counter()
            spent["locks"] += middle - start + end - written
            spent["metrics.json"] += written - middle
            if not taken:
                break
        work.close()
        start = time.perf_counter()
        summary = out.write_summary()
        spent["summary"] = time.perf_counter() - start
        assert summary["images"] == count
        for what, seconds in spent.items():
            print(f"{what:20} {1e3 * seconds / count:.3f} ms per image")
        print(f"{'rate':20} {count / sum(spent.values()):.0f} stub images/s")


def throughput(generator: str, images: int, rounds: int) -> None:
    """Time the command with one process and with two, in turns."""
    ratios, paces = [], {1: [], 2: []}
    for _ in range(rounds):
        alone, beside = (seconds_per_image(generator, images, processes) for processes in (1, 2))
        same = sorted(alone.keys() & beside.keys())
        if not same:
            raise SystemExit(f"{images} images are too few: the processes were never all at work on parts of their own")
        paces[1].append(statistics.fmean(alone[name] for name in same))
        paces[2].append(statistics.fmean(beside[name] for name in same))
        ratios.append(2 * paces[1][-1] / paces[2][-1])
        print(f"{len(same)} images: {paces[1][-1]:.3f} s each alone, {paces[2][-1]:.3f} s beside another process")
    for processes, values in paces.items():
        print(f"{processes} process(es): {processes / statistics.median(values):.3f} images/s")
    print(f"ratio: {statistics.median(ratios):.2f} (rounds: {', '.join(f'{r:.2f}' for r in ratios)})")


def seconds_per_image(generator: str, images: int, processes: int) -> dict[str, float]:
    """Run the command and return how long each image took while all processes were at work."""
    examples = sorted((Path(__file__).parent.parent / "iagan_lightning" / "examples").glob("*.png"))
    with tempfile.TemporaryDirectory() as folder:
        pictures = Path(folder) / "pictures"
        pictures.mkdir()
        names = [f"{i:03}" for i in range(images)]
        for i, name in enumerate(names):
            shutil.copy(examples[i % len(examples)], pictures / f"{name}.png")
        command = [sys.executable, "-m", "iagan_lightning", "super-resolution", "--data.root", str(pictures)]
        command += ["--out", f"{folder}/out", "--model.generator", generator, "--lpips", "none", "--tensorboard", "0"]
        command += ["--trainer.accelerator", "cpu", "--trainer.devices", str(processes)]
        subprocess.run(command, check=True, capture_output=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
        ends = [Path(folder, "out", "images", name, "metrics.json").stat().st_mtime for name in names]
    return {names[i]: seconds for i, seconds in while_all_work(ends, processes).items()}


def while_all_work(ends: list[float], processes: int) -> dict[int, float]:
    """Return how long images took, from the end of the one before, by number.

    Each process works through a part of its own, in order, before it helps the others (see WorkList). All are at work
    from when the last one has its first image done until the first one is through with its part.

    Example: the second process begins two seconds later and takes two seconds for each image; the first one, done with
    0 to 3 at 4 s, also does 7.
        >>> while_all_work([1, 2, 3, 4, 4, 6, 8, 5], 2)
        {}
        >>> while_all_work([1, 2, 3, 4, 2, 3, 4, 5], 2)
        {2: 1, 3: 1, 5: 1, 6: 1}
    """
    parts = [range(i * len(ends) // processes, (i + 1) * len(ends) // processes) for i in range(processes)]
    start, end = max(ends[part[0]] for part in parts), min(ends[part[-1]] for part in parts)
    return {i: ends[i] - ends[i - 1] for part in parts for i in part[1:] if start <= ends[i - 1] and ends[i] <= end}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("throughput", "stubs"))
    parser.add_argument("--generator", default="began64")
    parser.add_argument("--images", type=int, default=None)
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    if given.what == "stubs":
        stubs(given.images or 100_000)
    else:
        throughput(given.generator, given.images or 32, given.rounds)
