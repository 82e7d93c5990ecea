"""Memory that is kept between evaluations: seen in page faults of real processes."""

import os
import subprocess
import sys

import pytest

from iagan_lightning.allocator import keep_freed_memory

FAULTS = """
import resource, sys, torch
from iagan_lightning.allocator import keep_freed_memory
torch.set_num_threads(1)
kept = keep_freed_memory() if sys.argv[1] == "keep" else False
def evaluate():
    features = [torch.ones(1 << 20) for _ in range(12)]
evaluate()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(20):
    evaluate()
print(kept, resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(how: str, **environment: str) -> tuple[bool, int]:
    """Return whether memory is kept, and the page faults of twenty rounds of allocating 48 MiB."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")}
    command = [sys.executable, "-c", FAULTS, how]
    output = subprocess.run(command, env={**inherited, **environment}, capture_output=True, text=True, check=True)
    kept, count = output.stdout.split()
    return kept == "True", int(count)


@pytest.mark.skipif(not keep_freed_memory(), reason="no glibc")
def test_freed_memory_is_used_again() -> None:
    """Nothing is handed back to the system, so no page has to be fetched and cleared again."""
    kept, few = faults("keep")
    _, many = faults("default")
    assert kept and few * 20 < many


def test_own_settings_of_a_process_are_respected() -> None:
    """Who sets a variable of malloc knows better."""
    kept, _ = faults("keep", MALLOC_ARENA_MAX="2")
    assert not kept
