"""Deep Image Prior through the Trainer beside a plain loop: the same network, operator, Adam and number of steps.

    python benchmarks/dip.py [--size 64] [--steps 60] [--rounds 7]

The plain loop is how the method is usually written: a module, its own memory layout, Adam as PyTorch chooses it. The
sides take turns, and the ratio is formed round by round, so that a machine whose speed drifts does not decide. The
ratio of CPU seconds is the one to read where other work shares the machine.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor

from iagan_lightning import DIP, DIPSettings, adapt
from iagan_lightning.methods.skip_network import SkipNetwork, levels_for
from iagan_lightning.methods.trainers import quiet_lightning, quiet_trainer
from iagan_lightning.operators import BicubicDownsampling, LinearOperator


def plain_loop(y: Tensor, A: LinearOperator, steps: int) -> None:
    """Fit one network after another, one for each measurement."""
    channels, *size = A.image_shape
    for one in y:
        network = SkipNetwork(outputs=channels, levels=levels_for(*size)).to(y.device)
        fixed = torch.rand(1, 32, *size, device=y.device) * 0.1
        optimizer = torch.optim.Adam(network.parameters(), lr=0.01)
        for _ in range(steps):
            optimizer.zero_grad()
            x = network(fixed + 0.03 * torch.randn_like(fixed)) * 2 - 1
            (A(x) - one[None]).square().mean().backward()
            optimizer.step()


def module_loop(y: Tensor, A: LinearOperator, steps: int, side_by_side: int, accelerator: str) -> None:
    """Fit the same through DIP and a Trainer, several images side by side."""
    for part in y.split(side_by_side):
        module = DIP("paper", DIPSettings(steps=steps))
        module.begin(part, A)
        with quiet_lightning():
            adapt(module, quiet_trainer(accelerator=accelerator))


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--images", type=int, default=2, help="also fitted all side by side")
    parser.add_argument("--device", default="cpu", choices=["cpu", "gpu"])
    given = parser.parse_args()
    device = torch.device("cuda" if given.device == "gpu" else "cpu")
    A = BicubicDownsampling((3, given.size, given.size), scale=4).to(device)
    y = A(torch.rand(given.images, *A.image_shape, device=device) * 2 - 1)
    sides: dict[str, Callable[[], None]] = {
        "plain loop": lambda: plain_loop(y, A, given.steps),
        "one at a time": lambda: module_loop(y, A.to(device), given.steps, 1, given.device),
        f"{given.images} side by side": lambda: module_loop(y, A.to(device), given.steps, given.images, given.device),
    }
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    busy: dict[str, list[float]] = {name: [] for name in sides}
    for turn in range(given.rounds + 1):
        for name, side in sides.items():
            begin, start = time.perf_counter(), time.process_time()
            side()
            if device.type == "cuda":
                torch.cuda.synchronize()
            if turn:  # the first round only warms up
                seconds[name].append(time.perf_counter() - begin)
                busy[name].append(time.process_time() - start)
    evaluations = given.steps * given.images
    print(f"{given.size} x {given.size} pixels, {given.images} images of {given.steps} steps, {given.rounds} rounds, "
          f"{given.device}, {torch.get_num_threads()} threads")  # fmt: skip
    for name, times in seconds.items():
        ratios = [a / b for a, b in zip(times, seconds["plain loop"], strict=True)]
        of_work = statistics.median(a / b for a, b in zip(busy[name], busy["plain loop"], strict=True))
        print(
            f"{name}: {1000 * statistics.median(times) / evaluations:.1f} ms per step and image; ratio "
            f"{statistics.median(ratios):.3f} ({min(ratios):.3f} to {max(ratios):.3f}), of the fastest "
            f"{min(times) / min(seconds['plain loop']):.3f}, of CPU seconds {of_work:.3f}"
        )


if __name__ == "__main__":
    main()
