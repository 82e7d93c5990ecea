"""Memory that is kept between evaluations: seen in page faults of real processes."""

import os
import platform
import subprocess
import sys

import pytest

pytestmark = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="no glibc")

FAULTS = """
import ctypes, resource, torch
from iagan_lightning.methods.freed_memory import MMAP_THRESHOLD, keep_freed_memory
torch.set_num_threads(1)
ctypes.CDLL(None).mallopt(MMAP_THRESHOLD, 1 << 16)  # what glibc does anyway where nothing lies above freed memory
def faults():
    for _ in range(3):
        features = [torch.ones(1 << 20) for _ in range(12)]
        del features
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(20):
        features = [torch.ones(1 << 20) for _ in range(12)]
        del features
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
print(faults(), keep_freed_memory(), faults())
"""


def faults(**environment: str) -> tuple[int, bool, int]:
    """Return page faults of twenty rounds of 48 MiB: where all freed memory is returned, and after keeping it."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")}
    command = [sys.executable, "-c", FAULTS]
    output = subprocess.run(command, env={**inherited, **environment}, capture_output=True, text=True, check=True)
    many, kept, few = output.stdout.split()
    return int(many), kept == "True", int(few)


def test_freed_memory_is_used_again() -> None:
    """Nothing is handed back to the system, so no page has to be fetched and cleared again."""
    many, kept, few = faults()
    assert kept and few * 100 < many


def test_own_settings_of_a_process_are_respected() -> None:
    """Who sets a variable of malloc knows better."""
    many, kept, still = faults(MALLOC_ARENA_MAX="2")
    assert not kept and still > many / 2
