"""The engine for many machines: Ray places actors on devices, finds lost ones out and replaces nodes.

An actor per device holds the generator and makes one group of images at a time. This process hands the groups out,
counts how often an image was lost together with its actor, and is the only one that writes: nothing that is killed
elsewhere can leave anything behind, and no image is written twice. These are actors of Ray's core, not its data sets,
which retry for ever what kills its process, and for which blocks of one image cost ten times as much.
"""

from __future__ import annotations

import logging
import os
import socket
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout, suppress
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import torch
from pytorch_lightning.plugins.environments import LightningEnvironment
from pytorch_lightning.utilities import rank_zero_only
from rich.console import Console

from iagan_lightning import signals
from iagan_lightning.callbacks import RunProgress
from iagan_lightning.data.samples import Sample
from iagan_lightning.results.folder import OutputFolder
from iagan_lightning.results.shards import Files, collect_files
from iagan_lightning.runs.local import temporary
from iagan_lightning.runs.reconstructor import Job, Reconstructor
from iagan_lightning.urls import EXTRA

if TYPE_CHECKING:
    from iagan_lightning.runs.run import Run

TRIES = 3  # of an image whose process is lost with it, and of an actor that raises while it is made
STARTS = 20  # of actors one after another that are lost while they are made
POLL_SECONDS = 1.0
PATIENCE = 60.0  # seconds without any actor before a line says so
LOOK_SECONDS = 10.0  # between looks at how many devices the cluster has


@dataclass(frozen=True)
class Made:
    """What became of an image: its files, or why there are none.

    Attributes:
        name: of the image.
        files: what its folder holds.
        board: its TensorBoard run.
        reason, details: why it has failed, in a line and with the traceback.
    """

    name: str
    files: Files = field(default_factory=dict)
    board: Files = field(default_factory=dict)
    reason: str = ""
    details: str = ""


class Worker:
    """Makes images on the device of its process; an actor is one of these.

    Args:
        job: what is to be done.
        threads: of the CPU, as many as this run has in its own process: sums depend on them in their last bits.
        on_gpu: whether the device is the GPU that Ray has given to this process.
    """

    def __init__(self, job: Job, threads: int, on_gpu: bool) -> None:
        torch.set_num_threads(threads)
        rank_zero_only.rank = 0  # type: ignore[attr-defined]  # or what is done on rank 0 only would be missing
        given = job.trainer.get("plugins") or []
        job.trainer |= {
            "accelerator": "gpu" if on_gpu else "cpu",
            "devices": [0] if on_gpu else 1,  # Ray shows it no other GPU
            "plugins": [*(given if isinstance(given, list) else [given]), LightningEnvironment()],
        }
        self._made: list[Made] = []
        self._place = temporary()
        self.folder = self._place.__enter__()
        progress = RunProgress(0, Console(quiet=True), shown=False, quiet=True)
        self.reconstruct = Reconstructor(job, self.folder, progress, self._done, self._failed)

    def ready(self) -> int:
        """Return how many images go side by side."""
        return self.reconstruct.images_per_fit

    def work(self, group: list[Sample], with_tensorboard: set[str]) -> tuple[int, list[Made]]:
        """Make a few images; return how many go side by side from now on, and what became of each."""
        self._made = []
        self.reconstruct(group, with_tensorboard)
        return self.reconstruct.images_per_fit, self._made

    def _done(self, sample: Sample) -> None:
        board = self.folder.tensorboard(sample.name)
        events = {path.name: path.read_bytes() for path in board.iterdir()} if board.is_dir() else {}
        self._made.append(Made(sample.name, collect_files(self.folder, sample.name), events))
        self.folder.forget(sample.name)

    def _failed(self, sample: Sample, reason: str, details: str) -> None:
        self._made.append(Made(sample.name, reason=reason, details=details))
        self.folder.forget(sample.name)


class OnRay:
    """Has the images made by actors on a Ray cluster: that of ``RAY_ADDRESS``, or one of this machine alone.

    Args:
        devices: how many actors, None for as many as the cluster has devices. More than it has make one that scales
            itself grow.
        accelerator: cpu, gpu, or None for GPUs where the cluster has any.
        worker: what an actor is.

    Raises:
        ValueError: where Ray is not installed.
    """

    def __init__(
        self, devices: int | None = None, accelerator: str | None = None, worker: Callable[..., Any] = Worker
    ) -> None:
        if find_spec("ray") is None:
            raise ValueError(f"--engine ray needs Ray: {EXTRA}")
        self.devices, self.worker = devices, worker
        self.accelerator = None if accelerator == "auto" else accelerator
        if self.accelerator not in (None, "cpu", "gpu", "cuda"):
            raise ValueError(f"Ray gives out CPUs and GPUs; trainer.accelerator {accelerator} was given")

    def __call__(self, run: Run, samples: list[Sample], finished: list[int], progress: RunProgress) -> None:
        """Work through the images that are not finished.

        Raises:
            OSError: when the output folder vanishes or is full.
            ValueError: where no actor can be started.
        """
        done = set(finished)
        left = deque(index for index in range(len(samples)) if index not in done)
        if not left:
            return
        board = set() if run.out.sharded else {sample.name for sample in samples[: run.options.tensorboard]}
        with connected() as ray:
            pool = Pool(ray, self.worker, run.job, self.devices, self.accelerator)
            lost: dict[int, int] = {}
            begun, told = time.monotonic(), False
            while left or pool.busy:
                pool.grow()
                if not told and not pool.was_ready and time.monotonic() - begun > PATIENCE:
                    progress.console.print("no device of the Ray cluster has become free yet: waiting", markup=False)
                    told = True
                while left and (free := pool.free()) is not None:
                    group = [left.popleft() for _ in range(min(free.images_per_fit, len(left)))]
                    if any(index in lost for index in group):  # alone, so that none is lost for another's sake
                        left.extendleft(reversed(group[1:]))
                        del group[1:]
                    own = [samples[index] for index in group]
                    pool.give(free, group, own, {sample.name for sample in own} & board)
                for group, made, problem in pool.ended():
                    run.out.require()
                    if ended := signals.asked():  # somebody's own code has dropped the exception
                        raise ended
                    for each in made:
                        _store(run, each)
                    for index in group if problem else ():
                        lost[index] = lost.get(index, 0) + 1
                        if lost[index] < TRIES:
                            left.append(index)
                        else:
                            run.fail(samples[index].name, f"its process was lost {TRIES} times ({problem})")


def _store(run: Run, made: Made) -> None:
    """Write what became of an image."""
    if made.reason:
        run.fail(made.name, made.reason, made.details)
        return
    if isinstance(run.out, OutputFolder) and made.board:
        board = OutputFolder(run.out.root).tensorboard(made.name)
        board.mkdir(parents=True, exist_ok=True)
        for name, content in made.board.items():
            (board / name).write_bytes(content)
    run.out.add(made.name, made.files)
    run.finish(made.name)


@contextmanager
def connected() -> Iterator[Any]:
    """Return Ray, connected to the cluster of ``RAY_ADDRESS`` or to one that begins here and ends here.

    Nothing is sent anywhere, no dashboard is served, and a cluster of ours listens on this machine alone.

    Raises:
        ValueError: where the cluster cannot be reached.
    """
    address = os.environ.get("RAY_ADDRESS") or "local"
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    if address == "local":  # 127.0.0.1 in place of the machine's address, by the one way that Ray has for that
        os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"
    import ray

    if ray.is_initialized():  # by the program that calls this
        yield ray
        return
    own: dict[str, Any] = {"include_dashboard": False} if address == "local" else {}
    try:
        _knock(address)  # Ray itself tries for minutes
        with signals.held(), _as_it_was():  # Ray takes SIGTERM; our own handlers are put back
            ray.init(address, log_to_driver=False, logging_level=logging.ERROR, **own)
    except (ConnectionError, RuntimeError, OSError) as error:
        raise ValueError(f"no Ray cluster at {address}: {' '.join(str(error).split())[:300]}") from error
    try:
        # It tells of every process that it lost on standard output, which is the summary's.
        with open(os.devnull, "w") as nowhere, redirect_stdout(nowhere):
            yield ray
    finally:
        with signals.held():
            ray.shutdown()


def _knock(address: str) -> None:
    """Raise OSError where nobody listens at HOST:PORT, ValueError for an address of Ray's client."""
    if address.startswith("ray://"):
        raise ValueError(
            f"RAY_ADDRESS {address} is one of Ray's client: give HOST:6379, or submit the command as a job"
        )
    host, _, port = address.rpartition(":")
    if host and port.isdigit():
        socket.create_connection((host, int(port)), timeout=10).close()


@contextmanager
def _as_it_was() -> Iterator[None]:
    """Restore the handlers of signals."""
    import signal

    before = {number: signal.getsignal(number) for number in signals.ENDING}
    try:
        yield
    finally:
        for number, handler in before.items():
            with suppress(ValueError):  # not in the main thread
                signal.signal(number, handler)


@dataclass
class Actor:
    """A process of the cluster, and what it is at work on."""

    handle: Any
    images_per_fit: int = 0  # until it is ready
    group: list[int] = field(default_factory=list)


class Pool:
    """The actors of a run.

    Args:
        ray: the module, connected.
        worker: class of the actors.
        job: what they are made with; it is sent once to each machine.
        devices: how many, None for as many as there are devices.
        accelerator: cpu, gpu or None.
    """

    def __init__(
        self, ray: Any, worker: Callable[..., Any], job: Job, devices: int | None, accelerator: str | None
    ) -> None:
        self.ray, self.devices = ray, devices
        self.threads = torch.get_num_threads()
        job.model.operator = None  # each has its own made, and some weigh more than the generator
        self.job = ray.put(job)
        self.on_gpu = accelerator in ("gpu", "cuda") or (accelerator is None and self._count("GPU") > 0)
        asked = {"num_gpus": 1, "num_cpus": 0.5} if self.on_gpu else {"num_cpus": self._cpus()}
        self.kind = ray.remote(worker).options(scheduling_strategy="SPREAD", max_restarts=0, **asked)
        self.pending: dict[Any, Actor] = {}  # by what they are to answer
        self.idle: list[Actor] = []
        self.was_ready = False
        self._looked, self._failures = 0.0, 0

    @property
    def busy(self) -> bool:
        """Whether any actor is at work."""
        return any(actor.group for actor in self.pending.values())

    def grow(self) -> None:
        """Start actors where devices have none."""
        now = time.monotonic()
        if self._looked and now - self._looked < LOOK_SECONDS:
            return
        self._looked = now
        wanted = self.devices or max(1, self._count("GPU") if self.on_gpu else self._count("CPU", self.kind_cpus))
        for _ in range(wanted - len(self.pending) - len(self.idle)):
            actor = Actor(self.kind.remote(self.job, self.threads, self.on_gpu))
            self.pending[actor.handle.ready.remote()] = actor

    @property
    def kind_cpus(self) -> int:
        """CPUs that an actor takes."""
        return max(1, int(self._cpus()))

    def free(self) -> Actor | None:
        """Return an actor that has nothing to do."""
        return self.idle.pop() if self.idle else None

    def give(self, actor: Actor, group: list[int], samples: list[Sample], board: set[str]) -> None:
        """Let an actor make images."""
        actor.group = group
        self.pending[actor.handle.work.remote(samples, board)] = actor

    def ended(self) -> Iterator[tuple[list[int], list[Made], str]]:
        """Yield the groups that have ended: what was made of each, or what became of the process.

        Raises:
            ValueError: where actors cannot be started.
        """
        if not self.pending:
            time.sleep(POLL_SECONDS)
            return
        answers, _ = self.ray.wait(list(self.pending), num_returns=1, timeout=POLL_SECONDS)
        for answer in answers:
            actor = self.pending.pop(answer)
            group, made, problem = actor.group, [], ""
            actor.group = []
            try:
                told = self.ray.get(answer)
                actor.images_per_fit, made = told if group else (told, [])
                self.idle.append(actor)
                self._failures, self.was_ready = 0, True
            except self.ray.exceptions.RayError as error:
                problem = self._lost(actor, error, started=bool(group))
            if group:
                yield group, made, problem

    def _lost(self, actor: Actor, error: Exception, started: bool) -> str:
        """See an actor off whose answer did not come, and return why."""
        with suppress(Exception):
            self.ray.kill(actor.handle)
        self._looked = 0.0  # another one takes its place at once
        cause = getattr(error, "cause", None) or error
        lines = [line.strip() for line in str(cause).splitlines() if line.strip()]
        reason = f"{type(cause).__name__}: {lines[-1] if lines else ''}"[:200]
        if not started:
            self._failures += 1
            if self._failures >= (TRIES if getattr(error, "actor_init_failed", False) else STARTS):
                raise ValueError(f"no actor of Ray can be started: {reason}")
        return reason

    def _cpus(self) -> float:
        """Return the CPUs that an actor asks for: its threads, but no more than any machine has."""
        largest = max((node["Resources"].get("CPU", 0) for node in self._nodes()), default=0)
        return min(self.threads, largest) if largest else self.threads

    def _count(self, kind: str, each: int = 1) -> int:
        return sum(int(node["Resources"].get(kind, 0)) // each for node in self._nodes())

    def _nodes(self) -> list[dict[str, Any]]:
        return [node for node in self.ray.nodes() if node["Alive"]]
