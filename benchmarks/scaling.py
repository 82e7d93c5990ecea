"""What two processes or two actors of Ray gain, and what locks, Ray, Parquet and the summary cost.

    python benchmarks/scaling.py throughput [--generator began64] [--images 32] [--rounds 3]
    python benchmarks/scaling.py stubs [--images 100000]
    python benchmarks/scaling.py ray-throughput [--generator began64] [--images 32] [--rounds 3]
    python benchmarks/scaling.py ray-stubs [--images 100000] [--bytes 50000]

``throughput``: images per second of one process and of two, one thread each. Images differ in how many evaluations they
take, so each is compared with itself: how long it took alone, and while the other process was at work too (start-up and
end of the run left out). Twice the ratio of these times is that of the throughputs. ``stubs``: images whose result is a
metrics.json and nothing else, through the real locks, work list and summary. ``ray-throughput``: the same images by one
actor and by two on a cluster of this machine, one thread each, from the first finished image to the last.
``ray-stubs``: results that are a record and a picture of so many random bytes, made by two actors, through the real
engine into Parquet shards, and their summary; with the memory of the driver on the way.
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

from iagan_lightning.callbacks import RunProgress

from iagan_lightning.data import ImageData
from iagan_lightning.data.samples import Sample
from iagan_lightning.generators import BEGAN
from iagan_lightning.methods import IAGAN
from iagan_lightning.operators import Identity
from iagan_lightning.results.files import write_text
from iagan_lightning.results.folder import OutputFolder
from iagan_lightning.results.shards import ShardedOutput
from iagan_lightning.runs.on_ray import Made, OnRay
from iagan_lightning.runs.operators import Operators
from iagan_lightning.runs.options import RunOptions
from iagan_lightning.runs.run import Run
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


class Stub:
    """An actor whose images are a record and random bytes."""

    size = 50_000

    def __init__(self, job: object, threads: int, on_gpu: bool) -> None:
        pass

    def ready(self) -> int:
        """Return how many images go side by side."""
        return 1

    def work(self, samples: list[Sample], board: set[str]) -> tuple[int, list[Made]]:
        """Make stubs."""
        made = []
        for sample in samples:
            record = {"image": sample.name, "methods": dict.fromkeys(METHODS, METRICS), "seconds": {"total": 0.0}}
            files = {"iagan_bp.png": os.urandom(self.size), "metrics.json": json.dumps(record).encode()}
            made.append(Made(sample.name, files))
        return 1, made


def ray_stubs(count: int, size: int) -> None:
    """Make stubs by two actors, store them in shards, write the summary."""
    kind = type("Stub", (Stub,), {"size": size})
    with tempfile.TemporaryDirectory() as folder:
        out = ShardedOutput(folder)
        out.prepare()
        model, data = IAGAN(BEGAN(16, 4, 8)), ImageData()
        run = Run(model, data, Operators(Identity), RunOptions(quiet=True, tensorboard=0), out=out)
        run.progress = Watched(count)
        samples = [Sample(f"{i:07}", i, Path("a.png"), None) for i in range(count)]
        OnRay(2, "cpu", kind)(run, samples, [], run.progress)
        out.flush()
        seconds = time.perf_counter() - run.progress.first
        start = time.perf_counter()
        summary = out.write_summary()
        assert summary["images"] == count and not run.failed
        shards = list((Path(folder) / "shards").iterdir())
        print(f"{1e3 * seconds / count:.2f} ms per image from the first to the last, shards written")
        print(f"{1e3 * (time.perf_counter() - start) / count:.2f} ms per image for the summary")
        print(f"{len(shards)} shards, {sum(shard.stat().st_size for shard in shards) / count / 1e3:.1f} kB per image")
        print(f"{resident():.0f} MB in the end")


class Watched(RunProgress):
    """Counts images, and prints the memory of this process ten times on the way."""

    def __init__(self, total: int) -> None:
        super().__init__(total, shown=False, quiet=True)
        self.first = 0.0

    def finish(self, name: str, text: str, failed: bool = False) -> None:
        """Count an image."""
        super().finish(name, text, failed)
        self.first = self.first or time.perf_counter()
        if self.done % max(self.total // 10, 1) == 0:
            print(f"{self.done} images: {resident():.0f} MB", file=sys.stderr, flush=True)  # Ray has the other one


def resident() -> float:
    """Return the memory of this process in MB."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


def ray_throughput(generator: str, images: int, rounds: int) -> None:
    """Time one actor and two, in turns."""
    paces: dict[int, list[float]] = {1: [], 2: []}
    for _ in range(rounds):
        for actors, pace in paces.items():
            ends = sorted(ends_of(generator, images, "--engine", "ray", "--trainer.devices", str(actors)))
            pace.append((len(ends) - actors) / (ends[-1] - ends[0]))
        print(f"1 actor: {paces[1][-1]:.3f} images/s, 2 actors: {paces[2][-1]:.3f}", flush=True)
    ratios = [two / one for one, two in zip(paces[1], paces[2], strict=True)]
    print(f"ratio: {statistics.median(ratios):.2f} (rounds: {', '.join(f'{r:.2f}' for r in ratios)})")


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
    ends = ends_of(generator, images, "--trainer.devices", str(processes))
    return {f"{i:03}": seconds for i, seconds in while_all_work(ends, processes).items()}


def ends_of(generator: str, images: int, *more: str) -> list[float]:
    """Run the command and return when each image was finished."""
    examples = sorted((Path(__file__).parent.parent / "iagan_lightning" / "examples").glob("*.png"))
    with tempfile.TemporaryDirectory() as folder:
        pictures = Path(folder) / "pictures"
        pictures.mkdir()
        names = [f"{i:03}" for i in range(images)]
        for i, name in enumerate(names):
            shutil.copy(examples[i % len(examples)], pictures / f"{name}.png")
        command = [sys.executable, "-m", "iagan_lightning", "super-resolution", "--data.root", str(pictures)]
        command += ["--out", f"{folder}/out", "--model.generator", generator, "--lpips", "none", "--tensorboard", "0"]
        command += ["--trainer.accelerator", "cpu", *more]
        subprocess.run(command, check=True, capture_output=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
        return [Path(folder, "out", "images", name, "metrics.json").stat().st_mtime for name in names]


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
    parser.add_argument("what", choices=("throughput", "stubs", "ray-throughput", "ray-stubs"))
    parser.add_argument("--generator", default="began64")
    parser.add_argument("--images", type=int, default=None)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--bytes", type=int, default=50_000)
    given = parser.parse_args()
    if given.what == "stubs":
        stubs(given.images or 100_000)
    elif given.what == "ray-stubs":
        ray_stubs(given.images or 100_000, given.bytes)
    elif given.what == "ray-throughput":
        ray_throughput(given.generator, given.images or 32, given.rounds)
    else:
        throughput(given.generator, given.images or 32, given.rounds)
