"""Freed memory in training."""

import platform
import subprocess
import sys

import pytest

LOOP = """
import resource, sys, torch
from qfx.train.memory import keep_freed_memory
kept = sys.argv[1] == "keep" and keep_freed_memory()
faults = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for step in range(20):
    before = faults()
    tensor = torch.ones(10, 1 << 20)  # 40 MiB, more than glibc keeps by itself
    del tensor
print(int(kept), faults() - before)
"""


def faults(mode: str) -> tuple[int, int]:
    """Whether memory was kept, and the page faults of the last of 20 equal steps."""
    done = subprocess.run([sys.executable, "-c", LOOP, mode], capture_output=True, text=True, check=True)
    kept, count = map(int, done.stdout.split())
    return kept, count


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc's heap has these thresholds")
def test_a_step_takes_its_memory_from_the_step_before() -> None:
    kept, without = faults("keep"), faults("leave")
    assert kept[0] == 1 and kept[1] < 100 < 5000 < without[1]
