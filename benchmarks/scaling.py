"""What many processes gain, and what claims and the summary cost.

    python benchmarks/scaling.py throughput [--generator began64] [--images 8] [--rounds 3]
    python benchmarks/scaling.py stubs [--images 100000]

``throughput``: images per second of one process and of two, one thread each, start-up left out (from the first to the
last metrics.json of each run, less the first image). ``stubs``: images whose result is a metrics.json and nothing else,
through the real claims, journal and summary; resident memory is read on the way.
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

from iagan_lightning.claims import Claims
from iagan_lightning.output import OutputFolder, write_text
from iagan_lightning.worklist import Journal, Outcome, WorkList

METRICS = {
    "mse": 0.01, "psnr": 20.0, "ssim": 0.6, "lpips_alex": 0.1, "residual": 1e-6, "residual_8bit": 1e-3,
    "row_space_mse": 1e-9, "null_space_mse": 0.01,
}  # fmt: skip
METHODS = ("naive", "csgm", "csgm_bp", "iagan", "iagan_bp")


def resident() -> float:
    """Return this process's resident memory in MB (Linux)."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def stubs(count: int) -> None:
    """Claim, write and settle images one by one, then write the summary."""
    with tempfile.TemporaryDirectory() as folder:
        out = OutputFolder(folder)
        out.prepare()
        names = [f"{i:07}" for i in range(count)]
        spent = {"claims and journal": 0.0, "metrics.json": 0.0}
        memory = []
        with Claims(out.claim) as claims:
            journal = Journal(out.progress, claims.token)
            work = WorkList(names, out, claims, journal)
            while True:
                start = time.perf_counter()
                taken = work.take()
                middle = time.perf_counter()
                for index in taken:
                    record = {"image": names[index], "methods": dict.fromkeys(METHODS, METRICS)}
                    write_text(out.image(names[index]) / "metrics.json", json.dumps(record))
                written = time.perf_counter()
                for index in taken:
                    work.settle(Outcome(names[index], "PSNR 20.00 dB, residual 1.0e-06, 0.0 s"))
                end = time.perf_counter()
                spent["claims and journal"] += middle - start + end - written
                spent["metrics.json"] += written - middle
                if not taken:
                    break
                if taken[0] % max(count // 10, 1) == 0:
                    memory.append(resident())
            journal.close()
        start = time.perf_counter()
        summary = out.write_summary()
        spent["summary"] = time.perf_counter() - start
        memory.append(resident())
        assert summary["images"] == count
        for what, seconds in spent.items():
            print(f"{what:20} {1e3 * seconds / count:.3f} ms per image")
        print(f"{'rate':20} {count / sum(spent.values()):.0f} stub images/s")
        print("resident MB:", " ".join(f"{megabytes:.0f}" for megabytes in memory), "(the last one after the summary)")


def throughput(generator: str, images: int, rounds: int) -> None:
    """Time the command with one process and with two, in turns."""
    ratios, rates = [], {1: [], 2: []}
    for _ in range(rounds):
        for processes in (1, 2):
            rates[processes].append(rate(generator, images, processes))
        ratios.append(rates[2][-1] / rates[1][-1])
    for processes, values in rates.items():
        print(f"{processes} process(es): {statistics.median(values):.3f} images/s")
    print(f"ratio: {statistics.median(ratios):.2f} (rounds: {', '.join(f'{r:.2f}' for r in ratios)})")


def rate(generator: str, images: int, processes: int) -> float:
    """Return images per second while all processes are at work."""
    examples = sorted((Path(__file__).parent.parent / "iagan_lightning" / "examples").glob("*.png"))
    with tempfile.TemporaryDirectory() as folder:
        pictures = Path(folder) / "pictures"
        pictures.mkdir()
        for i in range(images):
            shutil.copy(examples[i % len(examples)], pictures / f"{i:03}.png")
        command = [sys.executable, "-m", "iagan_lightning", "super-resolution", "--data.root", str(pictures)]
        command += ["--out", f"{folder}/out", "--model.generator", generator, "--lpips", "none", "--tensorboard", "0"]
        command += ["--trainer.accelerator", "cpu", "--trainer.devices", str(processes)]
        subprocess.run(command, check=True, capture_output=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
        times = sorted(path.stat().st_mtime for path in Path(folder, "out", "images").rglob("metrics.json"))
        # Each process's first image begins somewhere in its start-up: count from the image after those to the last
        # but those at the end, where a process may stand idle.
        inner = times[processes : len(times) - processes + 1]
        return (len(inner) - 1) / (inner[-1] - inner[0])


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
        throughput(given.generator, given.images or 8, given.rounds)
