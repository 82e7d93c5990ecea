"""Our ``fast`` beside what else there is, on the same y: deepinv's methods and the best linear estimator of the faces.

    python benchmarks/peers.py --faces FOLDER --linear FILE --train TAR [--generator faces64] [--count 10] \\
        [--tasks "super-resolution x4" ...] [--methods naive TV IAGAN ...] [--weights drunet=FILE] [--page PAGE]

The tasks are those of docs/tasks.md. The linear estimator's statistics are fitted to the pictures of ``--train``, a
folder or tar file, where FILE is not there yet. Strengths of regularisation are chosen on ``--tuning`` faces that come
before those that are judged. deepinv's DPIR and DiffPIR take part where ``--weights`` says in which file their networks
are; nothing is fetched. The methods that take half a minute an image are judged on the first ``--slow`` faces only:
their rows are to be read by the column beside our last result, a mean over a row's own faces. Needs
``pip install 'iagan-lightning[deepinv]'``, and ptwt for the wavelets.
"""

from __future__ import annotations

import argparse
import copy
import math
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from jsonargparse import ArgumentParser
from linear_estimator import LinearEstimator, Statistics, fit_file
from speed import machine, write_block
from torch import Tensor, nn

from iagan_lightning import operators, reconstruct
from iagan_lightning.commands.shorthand import spell_out_kind
from iagan_lightning.commands.tasks import TASKS
from iagan_lightning.data.images import fit_image, read_image
from iagan_lightning.generators import Generator, load_generator
from iagan_lightning.operators import LinearOperator, Operator
from iagan_lightning.results.metrics import evaluate
from iagan_lightning.runs.levels import parse_fraction
from iagan_lightning.runs.operators import Operators

sys.path.append(str(Path(__file__).parent.parent / "docs"))
from make_tasks import RUNS

PROBLEMS = {**RUNS, "super-resolution x8": "super-resolution --operator.scale 8"}  # on demand, too

STEPS = 100  # of the proximal methods
LEAST_NOISE = 0.01  # what DPIR and DiffPIR take for no noise, on [0, 1]: at 0 their schedules have no end
SLOW = ("DIP", "CSGM of deepinv")
OURS = {"csgm": "CSGM", "csgm_bp": "CSGM-BP", "iagan": "IAGAN", "iagan_bp": "IAGAN-BP"}


def problem_of(command: str, image_shape: tuple[int, int, int]) -> tuple[LinearOperator, float]:
    """Return operator and noise of a command such as ``denoising --noise_std 25/255``."""
    name, *words = spell_out_kind(command.split())
    task = TASKS[name]
    parser = ArgumentParser()
    parser.add_argument("--operator", type=Callable[[tuple[int, int, int]], Operator])
    parser.add_argument("--noise_std", type=str, default="0")
    given = parser.parse_args(["--operator", task.operator.__name__, *words])
    settings = dict(given.operator.get("init_args") or {})
    kind = getattr(operators, given.operator.class_path.rpartition(".")[2])
    A = Operators(partial(kind, **settings), settings, task.defaults, task.instead)(image_shape)
    assert isinstance(A, LinearOperator)
    return A, parse_fraction(given.noise_std)


class Problem:
    """A task for deepinv: images in [0, 1], and complex measurements as pairs of real numbers.

    Attributes:
        A, noise_std: operator and noise of the task.
        physics: A as deepinv's LinearPhysics. Of images u = (x + 1) / 2 it measures (y + A 1) / 2, whose noise has the
            standard deviation noise_std.
    """

    def __init__(self, A: LinearOperator, noise_std: float) -> None:
        from deepinv.physics import LinearPhysics

        self.A, self.noise_std = A, noise_std
        self.physics = LinearPhysics(
            A=lambda u, **_: self._real(A(u)), A_adjoint=lambda v, **_: A.adjoint(self._own(v)),
            img_size=A.image_shape, implicit_backward_solver=False,
        )  # fmt: skip
        draw = torch.Generator().manual_seed(0)
        start = torch.randn(1, *A.image_shape, generator=draw)
        # A little above the squared norm of A, which power iterations approach from below.
        self.lipschitz = 1.05 * float(self.physics.compute_sqnorm(start, max_iter=200, tol=1e-3, verbose=False))

    def measured(self, y: Tensor) -> Tensor:
        """Return measurements on deepinv's scale."""
        return self._real((y + self.A(torch.ones(1, *self.A.image_shape))) / 2)

    def start(self, y: Tensor) -> Tensor:
        """Return the plain reconstruction, in [0, 1]."""
        return (self.A.naive(y) + 1) / 2

    def project(self, u: Tensor, y: Tensor) -> Tensor:
        """Return the image nearest to u that agrees with y."""
        return (self.A.back_project(2 * u - 1, y) + 1) / 2

    def _real(self, y: Tensor) -> Tensor:
        return torch.view_as_real(y) if self.A.complex_valued else y

    def _own(self, v: Tensor) -> Tensor:
        return torch.view_as_complex(v.contiguous()) if self.A.complex_valued else v


Method = Callable[[Problem, Tensor, int], Tensor]  # y ``(1, *measurement_shape)`` and a seed to images in [-1, 1]


@dataclass(frozen=True)
class Prepared:
    """A method that is made once for a task."""

    make: Callable[[Problem], Method]


@dataclass(frozen=True)
class Tuned:
    """A method with a strength that is chosen on other faces.

    Attributes:
        run: the method, which takes the strength behind the seed.
        noisy, exact: strengths to choose from with noise and without it.
    """

    run: Callable[[Problem, Tensor, int, float], Tensor]
    noisy: Sequence[float]
    exact: Sequence[float]


def proximal(prior: Callable[[], Any], problem: Problem, y: Tensor, seed: int, strength: float) -> Tensor:
    """Minimise a prior and the misfit: FISTA with noise; without it Douglas-Rachford, the misfit held at 0.

    With noise the strength is lambda in ``|A u - y|^2 / 2 + lambda g(u)`` (of wavelets ten times lambda: deepinv's
    step multiplies it by a threshold of .1 that nobody can set). Without noise every lambda > 0 would give away what is
    known; there the strength is the step of Douglas-Rachford, which decides how far it comes.
    """
    from deepinv.optim import DRS, FISTA, L2

    class Agreement(L2):
        def prox(self, x: Tensor, *_: Any, **__: Any) -> Tensor:
            return problem.project(x, y)

    shared = {"prior": prior(), "max_iter": STEPS}
    if problem.noise_std:
        solver = FISTA(data_fidelity=L2(), lambda_reg=strength, stepsize=1 / problem.lipschitz, **shared)
    else:
        solver = DRS(data_fidelity=Agreement(), lambda_reg=1.0, stepsize=strength, **shared)
    u = problem.start(y)
    with torch.no_grad():
        u = solver(problem.measured(y), problem.physics, init=(u, u))
        return 2 * (u if problem.noise_std else problem.project(u, y)) - 1


def linear(known: Statistics, problem: Problem) -> Method:
    """Return the best linear estimator for a task."""
    estimator = LinearEstimator(known, problem.A, problem.noise_std)
    return lambda problem, y, seed: estimator(y)


def statistics_in(path: Path, train: Path | None, size: int, k: int) -> Statistics:
    """Return the statistics in a file, which is written first where it is not there.

    Raises:
        ValueError: for a file that holds others, and where there is neither a file nor a source.
    """
    if not path.is_file():
        if train is None:
            raise ValueError(f"{path} is not there: give the training faces with --train")
        fit_file(train, size, k).save(path)
    known = Statistics.load(path)
    if known.mean.shape[-1] != size or len(known.components) != k:
        raise ValueError(
            f"{path} holds {len(known.components)} components of {known.mean.shape[-1]} pixels; {k} of {size} are "
            "wanted: name another file, or give --components"
        )
    return known


def tv_prior() -> Any:
    """Return total variation; its proximal steps go on where the last one ended, so a few rounds are enough."""
    from deepinv.optim import TVPrior

    return TVPrior(n_it_max=10)


def wavelet_prior() -> Any:
    """Return the l1 norm of Daubechies wavelets over three levels.

    Continued by reflection: with deepinv's zeros an even grey has coefficients along the border, and where the mean is
    not measured (Fourier) pictures drift to black.
    """
    from deepinv.optim import WaveletPrior

    return WaveletPrior(level=3, wv="db4", mode="symmetric")


def dip(problem: Problem, y: Tensor, seed: int, steps: float) -> Tensor:
    """Deep Image Prior with deepinv's own network, of the width in its example; the strength is the number of steps."""
    from deepinv.models import ConvDecoder, DeepImagePrior

    torch.manual_seed(seed)
    network = ConvDecoder(problem.A.image_shape, in_size=(4, 4), channels=64)
    method = DeepImagePrior(network, (64, 4, 4), iterations=int(steps))
    return 2 * method(problem.measured(y), problem.physics).detach() - 1


class Backbone(nn.Module):
    """A generator as deepinv's CSGM takes it: latents ``(n, nz, 1, 1)`` to images in [0, 1], its weights frozen."""

    def __init__(self, G: Generator) -> None:
        super().__init__()
        self.G = copy.deepcopy(G).requires_grad_(False)
        self.nz = math.prod(G.latent_shape)

    def forward(self, z: Tensor) -> Tensor:
        """Return the images."""
        return (self.G(z.reshape(len(z), *self.G.latent_shape)) + 1) / 2


def csgm(backbone: Backbone, problem: Problem, y: Tensor, seed: int) -> Tensor:
    """deepinv's CSGM with our generator and its own settings."""
    from deepinv.models import CSGMGenerator

    torch.manual_seed(seed)
    method = CSGMGenerator(backbone).eval()
    return 2 * method(problem.measured(y), problem.physics).detach() - 1


def dpir(denoiser: nn.Module, problem: Problem, y: Tensor, seed: int) -> Tensor:
    """Plug-and-play with a denoising network, from the plain reconstruction."""
    from deepinv.optim import DPIR

    u = problem.start(y)
    with torch.no_grad():
        method = DPIR(sigma=max(problem.noise_std, LEAST_NOISE), denoiser=denoiser)
        return 2 * method(problem.measured(y), problem.physics, init=(u, u)) - 1


def diffpir(denoiser: nn.Module, problem: Problem, y: Tensor, seed: int) -> Tensor:
    """Diffusion with a plug-and-play step, from the plain reconstruction."""
    from deepinv.optim import L2
    from deepinv.sampling import DiffPIR

    torch.manual_seed(seed)
    method = DiffPIR(denoiser, L2(), sigma=max(problem.noise_std, LEAST_NOISE))
    with torch.no_grad():
        return 2 * method(problem.measured(y), problem.physics, x_init=problem.start(y)) - 1


def networks(weights: Sequence[str]) -> dict[str, Method]:
    """Return the methods of the networks in ``NAME=FILE``.

    Raises:
        ValueError: for another name, and for a file that does not hold such a network.
    """
    from deepinv.models import DiffUNet, DRUNet

    known = {"drunet": (DRUNet, {"DPIR": dpir}), "diffunet": (DiffUNet, {"DiffPIR": diffpir})}
    methods: dict[str, Method] = {}
    for each in weights:
        name, _, path = each.partition("=")
        if name not in known or not path:
            raise ValueError(f"--weights takes drunet=FILE and diffunet=FILE; {each} was given")
        kind, uses = known[name]
        try:
            network = kind(pretrained=path).eval() if Path(path).is_file() else None
        except (RuntimeError, UnpicklingError, AttributeError, TypeError) as error:
            reason = " ".join(str(error).split())[:200]
            raise ValueError(f"{path} does not hold deepinv's {kind.__name__}: {reason}") from error
        if network is None:  # deepinv would take some other words for something to fetch
            raise ValueError(f"no such file: {path}, given for {name}")
        methods |= {title: partial(run, network.requires_grad_(False)) for title, run in uses.items()}
    return methods


def busy(run: Callable[[], Any]) -> tuple[Any, float]:
    """Return a result and the processor's seconds for it; work of others on the machine is not counted."""
    start = time.process_time()
    result = run()
    return result, time.process_time() - start


def ready(
    name: str, method: Method | Prepared | Tuned, problem: Problem, faces: Sequence[Tensor]
) -> tuple[str, Method]:
    """Return what a method is called and the method for a task, at the strength with the highest PSNR on some faces."""
    if isinstance(method, Prepared):
        return name, method.make(problem)
    if not isinstance(method, Tuned):
        return name, method
    strengths = method.noisy if problem.noise_std else method.exact
    psnr = dict.fromkeys(strengths, 0.0)
    for strength in strengths if len(strengths) > 1 else ():
        for seed, truth in enumerate(faces):
            y = problem.A.measure(truth, problem.noise_std, seed=seed)
            [row] = evaluate(method.run(problem, y, seed, strength), y, problem.A, truth)
            psnr[strength] += row["psnr"]
    best = max(strengths, key=lambda strength: psnr[strength])
    return f"{name} ({best:g})", lambda problem, y, seed: method.run(problem, y, seed, best)


def ours(problem: Problem, y: Tensor, seed: int, G: Generator) -> dict[str, tuple[Tensor, float]]:
    """Return the results of ``fast`` and the seconds until each of them."""
    result, seconds = busy(partial(reconstruct, y, problem.A, G, problem.noise_std, seed=seed, accelerator="cpu"))
    until = {"csgm": seconds * result.seconds["latent"] / result.seconds["total"], "iagan": seconds}
    offered = {name: title for name, title in OURS.items() if name in result.results}
    return {title: (result[name], until[name.removesuffix("_bp")]) for name, title in offered.items()}


@dataclass(frozen=True)
class Row:
    """What a method made of one face; NaN for what was not measured."""

    psnr: float
    beside: float  # PSNR, less that of our last result
    lpips: float
    residual: float
    seconds: float


def judge(
    problem: Problem, methods: dict[str, Method], faces: Sequence[Tensor], G: Generator | None, slow: int, lpips: str
) -> dict[str, list[Row]]:
    """Return the rows of each method, a row for each face; ours where their generator is given."""
    rows: dict[str, list[Row]] = {name: [] for name in [*methods, *OURS.values()]}
    for seed, truth in enumerate(faces):
        y = problem.A.measure(truth, problem.noise_std, seed=seed)
        taken = {name: method for name, method in methods.items() if seed < slow or name not in SLOW}
        done = {name: busy(partial(method, problem, y, seed)) for name, method in taken.items()}
        if G is not None:
            done |= ours(problem, y, seed, G)
        found = {name: evaluate(x, y, problem.A, truth, lpips=lpips)[0] for name, (x, _) in done.items()}
        last = next((found[name]["psnr"] for name in ("IAGAN-BP", "IAGAN") if name in found), math.nan)
        for name, row in found.items():
            distance = row.get(f"lpips_{lpips}", math.nan)
            rows[name].append(Row(row["psnr"], row["psnr"] - last, distance, row["residual"], done[name][1]))
    return rows


def line_of(task: str, title: str, rows: Sequence[Row]) -> str:
    """Return a line of the table."""
    shown = {"psnr": ".2f", "beside": "+.2f", "lpips": ".4f", "residual": ".1e", "seconds": ".2f"}
    means = {column: statistics.fmean(getattr(row, column) for row in rows) for column in shown}
    cells = ["" if math.isnan(means[column]) else format(means[column], form) for column, form in shown.items()]
    return f"| {task} | {title} | {' | '.join(cells)} | {len(rows)} |"


def main(args: Sequence[str] | None = None) -> None:
    """Measure and print, and write the table into a page as it grows."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--faces", required=True, type=Path)
    parser.add_argument("--generator", default="faces64")
    parser.add_argument("--tasks", nargs="+", default=list(RUNS), choices=list(PROBLEMS), metavar="TASK")
    parser.add_argument("--methods", nargs="+", help="only these rows, by their names in the table")
    parser.add_argument("--first", type=int, default=50, help="faces before those that are judged")
    parser.add_argument("--count", type=int, default=10)
    parser.add_argument("--slow", type=int, default=3, help=f"faces for {' and '.join(SLOW)}, the first of these")
    parser.add_argument("--tuning", type=int, default=3, help="faces for strengths, the last before those of --first")
    parser.add_argument("--linear", type=Path, help="statistics of training faces, fitted to --train where missing")
    parser.add_argument("--train", type=Path, help="training faces, a folder or an uncompressed tar file")
    parser.add_argument("--components", type=int, default=560)
    parser.add_argument("--weights", nargs="+", default=[], metavar="NAME=FILE", help="drunet, diffunet")
    parser.add_argument("--lpips", default="squeeze")
    parser.add_argument("--steps", nargs="+", type=float, default=[300], help="of DIP, to choose from")
    parser.add_argument("--page", type=Path)
    parser.add_argument("--name", default="peers", help="which of the page's tables")
    given = parser.parse_args(args)
    torch.set_num_threads(1)
    G = load_generator(given.generator)
    methods: dict[str, Method | Prepared | Tuned] = {
        "naive": lambda problem, y, seed: problem.A.naive(y),
        "TV": Tuned(partial(proximal, tv_prior), (0.001, 0.003, 0.01, 0.03, 0.1), (0.015, 0.05, 0.15)),
        "wavelets": Tuned(partial(proximal, wavelet_prior), (0.03, 0.1, 0.3, 1), (1, 10, 100)),
        "DIP": Tuned(dip, given.steps, given.steps),
        "CSGM of deepinv": partial(csgm, Backbone(G)),
    }
    about = ""
    try:
        methods |= networks(given.weights)
        if given.linear:
            known = statistics_in(given.linear, given.train, G.image_shape[1], given.components)
            methods = {"naive": methods["naive"], "linear": Prepared(partial(linear, known)), **methods}
            about = f" linear: {len(known.components)} components of {known.count:,} faces."
        names = [*methods, *OURS.values()]
        chosen = given.methods or names
        if unknown := [name for name in chosen if name not in names]:
            raise ValueError(f"--methods are {', '.join(names)}; {', '.join(unknown)} was given")
        if "wavelets" in chosen and find_spec("ptwt") is None:
            raise ValueError("deepinv's wavelets need ptwt: pip install ptwt, or leave them out with --methods")
        paths = sorted(given.faces.glob("*.png"))
        if given.first < given.tuning:
            raise ValueError(f"--first {given.first} leaves no {given.tuning} faces before it for --tuning")
        if not paths[given.first :]:
            raise ValueError(f"{given.faces} has {len(paths)} faces: too few for --first {given.first}")
    except ValueError as error:
        parser.error(str(error))
    faces = [fit_image(read_image(path), G.image_shape[1:])[None] for path in paths[: given.first + given.count]]
    tuning, judged = faces[given.first - given.tuning : given.first], faces[given.first :]
    note = (
        f"{Path(given.generator).stem}. Means over faces {given.first + 1} to {given.first + len(judged)} of the "
        f"folder, the first N of them; in brackets the strength chosen on the {len(tuning)} faces before them, of DIP "
        "its steps. Beside IAGAN: the mean difference in PSNR from our last result on the same N faces. Seconds: of "
        "the processor, an image, without what is made once for a task. "
        f"{machine('cpu')}, deepinv {version('deepinv')}, PyTorch {torch.__version__}.{about}"
    )
    lines = [
        f"| task | method | PSNR | beside IAGAN | LPIPS {given.lpips} | residual | seconds | N |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for task in given.tasks:
        problem = Problem(*problem_of(PROBLEMS[task], G.image_shape))
        titled = {name: ready(name, methods[name], problem, tuning) for name in chosen if name in methods}
        own = G if set(OURS.values()) & set(chosen) else None
        rows = judge(problem, {name: run for name, (_, run) in titled.items()}, judged, own, given.slow, given.lpips)
        for name in (name for name in chosen if rows[name]):  # with noise nothing is back-projected
            lines.append(line_of(task, titled[name][0] if name in titled else name, rows[name]))
            print(lines[-1], flush=True)
        if given.page:
            write_block(given.page, given.name, "\n".join([*lines, "", note]))


if __name__ == "__main__":
    main()
