"""Where the time of one ``iagan super-resolution`` goes.

    python benchmarks/one_command.py --out docs/speed.md -- --lpips squeeze

What follows ``--`` are the command's options (the bundled pictures and prior by default). The command runs in this
process under Python's own profiler, start-up included; the profiler makes Python code, not tensors, slower.
"""

from __future__ import annotations

import argparse
import cProfile
import pstats
import tempfile
import time
from pathlib import Path

# What is told apart: a title, then the end of the file and the name of the function whose whole time it is.
PARTS = {
    "reading and measuring": [("data.py", "read"), ("data.py", "samples"), ("data.py", "check_measurements")],
    "back-projection": [("back_projection.py", "on_train_end")],
    "metrics": [("metrics.py", "on_train_end"), ("metrics.py", "load_lpips")],
    "TensorBoard": [
        ("tensorboard.py", name) for name in ("on_train_start", "on_train_batch_end", "on_train_end", "teardown")
    ],
    "files": [("result_writer.py", "on_train_end"), ("output.py", "write_summary")],
}


def main() -> None:
    """Run the command and print, or write, the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, help="page with <!-- command --> ... <!-- end -->")
    parser.add_argument("options", nargs="*", help="options of iagan super-resolution, after --")
    given = parser.parse_args()
    started = time.perf_counter()
    from iagan_lightning.cli import main as iagan
    from iagan_lightning.commands.tasks import run_task  # noqa: F401 - what the command imports
    from iagan_lightning.results.folder import OutputFolder

    imports = time.perf_counter() - started
    profiler = cProfile.Profile()
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        status = profiler.runcall(iagan, ["super-resolution", "--out", folder, *given.options])
        whole = time.perf_counter() - started + imports
        images = list(OutputFolder(folder).done())
    assert status == 0, f"the command ended with {status}"
    spent = {"imports": imports}
    calls = {
        (Path(file).name, function): cumulative
        for (file, _, function), (_, _, _, cumulative, _) in pstats.Stats(profiler).stats.items()  # type: ignore[attr-defined]
        if "iagan_lightning" in file or "callbacks" in file
    }
    # The command runs while LightningCLI is being built.
    spent["arguments, generator"] = calls["lightning_cli.py", "parse"] - calls["tasks.py", "reconstruct"]
    for stage in ("latent", "joint"):
        spent[f"{stage} stage"] = sum(image["seconds"][stage] for image in images)
    for title, functions in PARTS.items():
        spent[title] = sum(calls.get(function, 0.0) for function in functions)
    spent["everything else"] = whole - sum(spent.values())
    lines = ["| part | seconds | share |", "|---|---|---|"]
    lines += [f"| {part} | {seconds:.2f} | {seconds / whole:.0%} |" for part, seconds in spent.items()]
    lines.append(f"| **all, {len(images)} images** | {whole:.2f} | |")
    print("\n".join(lines))
    if given.out:
        from speed import write_block  # here, because imports count in what is measured

        write_block(given.out, "command", "\n".join(lines))


if __name__ == "__main__":
    main()
