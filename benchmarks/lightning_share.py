"""What Lightning and the callbacks cost: the paper preset beside the same steps as a bare PyTorch loop.

    python benchmarks/lightning_share.py --generator WEIGHTS [--steps 200 60] [--rounds 5]

Both sides run the same network in the same memory format, the same operator and Adam, and keep the best iterate.
They take turns, and the ratio is formed round by round, so that a machine whose speed drifts does not decide.
"""

from __future__ import annotations

import argparse
import copy
import statistics
import tempfile
import time

import torch
from iagan_lightning.callbacks import BackProjection, BestObjective, RunProgress, StageStopping, TensorBoardImages
from torch import Tensor

from iagan_lightning import IAGAN, Stage, adapt
from iagan_lightning.generators import Generator, load_generator
from iagan_lightning.methods.trainers import quiet_lightning, quiet_trainer
from iagan_lightning.operators import BicubicDownsampling, LinearOperator


def bare_loop(y: Tensor, A: LinearOperator, prior: Generator, z: Tensor, steps: tuple[int, int]) -> float:
    """Both stages without any framework; returns the best objective of the joint stage."""
    G = copy.deepcopy(prior).requires_grad_(False).to(memory_format=torch.channels_last)
    z = z.clone().requires_grad_()
    lowest = float("inf")
    for joint in (False, True):
        G.requires_grad_(joint)
        variables = [z, *G.parameters()] if joint else [z]
        optimizer = torch.optim.Adam(variables, lr=1e-4 if joint else 0.1)
        best: list[Tensor] = []
        lowest = float("inf")
        for _ in range(steps[joint]):
            optimizer.zero_grad()
            x = G(z)
            loss = (A(x) - y).square().sum() / A.num_measurements
            if loss.item() < lowest:
                lowest = loss.item()
                current = [x, *variables]
                if best:
                    for kept, tensor in zip(best, current, strict=True):
                        kept.copy_(tensor.detach())
                else:
                    best = [tensor.detach().clone() for tensor in current]
            loss.backward()
            optimizer.step()
        z = best[1].clone().requires_grad_()
    return lowest


def module_loop(module: IAGAN, y: Tensor, A: LinearOperator, callbacks: list) -> float:
    """The same through IAGAN, a Trainer and callbacks."""
    module.begin(y, A)
    with quiet_lightning():
        adapt(module, quiet_trainer(accelerator="cpu", callbacks=callbacks))
    return float(module.objective["joint"])


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--generator", required=True)
    parser.add_argument("--steps", type=int, nargs=2, default=(200, 60))
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    steps = tuple(arguments.steps)
    prior = load_generator(arguments.generator)
    A = BicubicDownsampling(prior.image_shape, scale=4, padding="zero")
    with torch.no_grad():
        y = A(prior(prior.sample_latent(1, seed=1)))
    module = IAGAN(prior, "paper", latent=Stage(steps=steps[0]), joint=Stage(steps=steps[1]))
    module.begin(y, A)
    start = module.z.detach().clone()

    with tempfile.TemporaryDirectory() as out, RunProgress(100) as progress:
        usual = lambda: [BestObjective(), StageStopping(), BackProjection()]  # noqa: E731
        sides = {
            "bare loop": lambda: bare_loop(y, A, prior, start, steps),
            "Trainer, best iterate, stopping, back-projection": lambda: module_loop(module, y, A, usual()),
            "the same with TensorBoard and progress": lambda: module_loop(
                module, y, A, [*usual(), TensorBoardImages(out), progress]
            ),
        }
        seconds: dict[str, list[float]] = {name: [] for name in sides}
        for turn in range(arguments.rounds + 1):
            for name, side in sides.items():
                begin = time.perf_counter()
                objective = side()
                if turn:  # the first round only warms up
                    seconds[name].append(time.perf_counter() - begin)
                elif name:
                    print(f"{name}: objective {objective:.4e}")
    bare = seconds["bare loop"]
    print(f"{steps[0]} latent and {steps[1]} joint steps, {arguments.rounds} rounds, {torch.get_num_threads()} threads")
    for name, times in seconds.items():
        ratios = [a / b for a, b in zip(times, bare, strict=True)]
        print(
            f"{name}: fastest {min(times):.2f} s, median {statistics.median(times):.2f} s; ratio of the fastest "
            f"{min(times) / min(bare):.3f}, of pairs {statistics.median(ratios):.3f} ({min(ratios):.3f} to "
            f"{max(ratios):.3f})"
        )


if __name__ == "__main__":
    main()
