"""Memory that is kept between evaluations: seen in page faults of real processes."""

import ctypes
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


def printed(code: str, **environment: str) -> list[str]:
    """Return the words that a process prints which has these settings of malloc, and no others."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")}
    command = [sys.executable, "-c", code]
    output = subprocess.run(command, env={**inherited, **environment}, capture_output=True, text=True, check=True)
    return output.stdout.split()


def faults(**environment: str) -> tuple[int, bool, int]:
    """Return page faults of twenty rounds of 48 MiB: where all freed memory is returned, and after keeping it."""
    many, kept, few = printed(FAULTS, **environment)
    return int(many), kept == "True", int(few)


def test_freed_memory_is_used_again() -> None:
    """Nothing is handed back to the system, so no page has to be fetched and cleared again."""
    many, kept, few = faults()
    assert kept and few * 100 < many


def test_own_settings_of_a_process_are_respected() -> None:
    """Who sets a variable of malloc knows better."""
    many, kept, still = faults(MALLOC_ARENA_MAX="2")
    assert not kept and still > many / 2


SURPLUS = """
import torch
from iagan_lightning.methods.freed_memory import keep_freed_memory, return_surplus
torch.set_num_threads(1)
def resident():
    line = next(line for line in open("/proc/self/status") if line.startswith("VmRSS"))
    return int(line.split()[1]) >> 10
keep_freed_memory()
def freed(count):
    features = [torch.ones(1 << 22) for _ in range(count)]
    in_between = features[count // 2]
    del features
    before = resident()
    return return_surplus(), before - resident(), float(in_between.mean())
print(*freed(20), *freed(90))
"""


def test_more_than_a_gib_of_freed_memory_goes_back() -> None:
    """Also from below what is still in use; less than that is kept."""
    if not hasattr(ctypes.CDLL(None), "mallinfo2"):
        pytest.skip("glibc before 2.33")
    words = printed(SURPLUS)
    assert words[:3] == ["False", "0", "1.0"]
    assert words[3] == "True" and int(words[4]) > 1300 and words[5] == "1.0"  # of 90 times 16 MiB
