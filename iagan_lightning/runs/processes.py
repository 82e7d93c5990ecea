"""Several processes for one run: who started them, which one this is, and which device is its own.

One process per device is started here, or all are started by torchrun or SLURM, which number them. There is no
process group: images are independent, and nothing is ever averaged over processes.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.plugins.environments import (
    ClusterEnvironment,
    LightningEnvironment,
    SLURMEnvironment,
    TorchElasticEnvironment,
)
from pytorch_lightning.utilities import rank_zero_only

from iagan_lightning import signals

COMPANION = "IAGAN_COMPANION"  # tells a process that one of ours has started it, and its place
# As python -m does, but that no file of the working folder stands in for a module of Python: random.py, say.
START = "import sys; sys.path[:] = filter(None, sys.path); from iagan_lightning.cli import main; sys.exit(main())"
PATIENCE = 20.0  # seconds that processes may take to end when all images are finished
IMPATIENCE = 5.0  # when the run is ended: whoever asked for that does not wait long, and what is not done is not lost


@dataclass(frozen=True)
class Place:
    """Which of the processes of a run this is.

    Attributes:
        rank: number among all processes; 0 shows progress and writes the summary.
        size: number of processes.
        local_rank: number on this machine.
        local_size: number of processes on this machine.
        external: started by torchrun, SLURM, or a process of ours, which therefore starts no others.
        since: when the run began, in seconds since the epoch.
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    local_size: int = 1
    external: bool = False
    since: float = field(default_factory=time.time)

    def share_cores(self) -> None:
        """Give each process of this machine its part of the cores, unless ``OMP_NUM_THREADS`` says otherwise."""
        if self.local_size > 1 and "OMP_NUM_THREADS" not in os.environ:
            affinity = getattr(os, "sched_getaffinity", lambda _: range(os.cpu_count() or 1))
            torch.set_num_threads(max(1, len(affinity(0)) // self.local_size))


def find_place(devices: int, num_nodes: int) -> Place:
    """Return the place of this process.

    Args:
        devices: processes wanted on this machine, where no launcher has decided.
        num_nodes: machines, likewise.

    Raises:
        ValueError: when a launcher started another number of processes than were asked for, or several machines are
            asked for without one.
    """
    if COMPANION in os.environ:
        rank, of, since = os.environ[COMPANION].split()
        return Place(int(rank), int(of), int(rank), int(of), external=True, since=float(since))
    environment: ClusterEnvironment
    if TorchElasticEnvironment.detect():
        environment = TorchElasticEnvironment()
        local_size = int(os.environ.get("LOCAL_WORLD_SIZE", 1))
    elif SLURMEnvironment.detect():
        environment = SLURMEnvironment(auto_requeue=False)
        local_size = -(-environment.world_size() // int(os.environ.get("SLURM_NNODES", 1)))
    elif num_nodes != 1:
        raise ValueError(
            f"trainer.num_nodes {num_nodes}: processes on several machines are started by torchrun or SLURM; without "
            "them leave it out, and trainer.devices counts the devices of this machine"
        )
    else:
        return Place(size=devices, local_size=devices)
    size = environment.world_size()
    if (devices, num_nodes) != (1, 1) and devices * num_nodes != size:
        raise ValueError(
            f"{size} processes were started from outside, but trainer.devices {devices} times trainer.num_nodes "
            f"{num_nodes} were asked for: make both agree, or leave them out"
        )
    return Place(environment.global_rank(), size, environment.local_rank(), local_size, external=True)


def own_device(trainer: pl.Trainer, place: Place, plugins: Any = None) -> dict[str, Any]:
    """Return the Trainer's arguments that keep each image on this process's own device.

    Processes from a launcher share out all devices of the machine, unless ``trainer.devices`` names some of them; with
    more processes than devices several share one.
    """
    # Without this, what Lightning does on rank 0 only (loggers, its messages) would be missing from other processes.
    rank_zero_only.rank = 0  # type: ignore[attr-defined]
    devices: list[int] | int = 1
    if trainer.accelerator.__class__.__name__ != "CPUAccelerator":
        ids = trainer.device_ids
        if place.external and len(ids) == 1 and place.local_size > 1:
            ids = list(range(trainer.accelerator.auto_device_count()))
        devices = [ids[place.local_rank % len(ids)]]
    settings: dict[str, Any] = {"devices": devices, "num_nodes": 1, "strategy": "auto"}
    if place.size > 1 or place.external:
        # Not the cluster's: under SLURM each fit would write and resume checkpoints of whole jobs.
        given = plugins if isinstance(plugins, list) else [plugins] if plugins else []
        settings["plugins"] = [*given, LightningEnvironment()]
    return settings


class Companions:
    """The other processes of this machine, started by the first one; a context manager that sees them off.

    Lightning's own launcher ends all processes when one dies. Here the others do the work of the dead one.
    """

    def __init__(self) -> None:
        self.processes: list[subprocess.Popen[bytes]] = []
        signals.pass_on(self.processes)

    def start(self, args: Sequence[str], place: Place) -> None:
        """Run the same command once for each further device, unless a launcher does that."""
        if place.external:
            return
        package = str(Path(__file__).parent.parent.parent)
        path = os.pathsep.join(filter(None, [package, os.environ.get("PYTHONPATH")]))
        for local_rank in range(1, place.local_size):
            told = f"{local_rank} {place.size} {place.since}"
            environment = {**os.environ, "PYTHONPATH": path, COMPANION: told}
            command = [sys.executable, "-c", START, *args]
            with signals.held():  # none is started that nobody knows of
                self.processes.append(subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL))

    def __enter__(self) -> Companions:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None:
            for process in self.processes:
                process.terminate()
        until = time.monotonic() + IMPATIENCE
        for rank, process in enumerate(self.processes, start=1):
            with suppress(subprocess.TimeoutExpired):
                process.wait(PATIENCE if kind is None else max(0.0, until - time.monotonic()))
            if process.poll() is None:
                process.kill()  # everything is finished, or it was told to end
                process.wait()
            elif process.returncode < 0 and kind is None:
                print(
                    f"iagan: process {rank} was ended by signal {-process.returncode}; the others did its images",
                    file=sys.stderr,
                )
