import platform
import resource
import subprocess
import sys

import pytest

SCRIPT = """
import resource
import numpy as np
from contextlib import nullcontext
from footprint_pipeline.model.memory import freed_memory_kept

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(20):
        np.ones(2**24, np.uint8)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

def resident():
    pages = int(open("/proc/self/statm").read().split()[1])
    return pages * resource.getpagesize()

plain = faults()
with freed_memory_kept():
    np.ones(2**24, np.uint8)
    kept = faults()
    held = resident()
print(plain, kept, held - resident())
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the C library is not GNU's")
def test_pages_are_not_asked_for_again_until_the_block_ends() -> None:
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True, timeout=60)
    plain, kept, handed_back = (int(word) for word in done.stdout.split())
    pages = 2**24 // resource.getpagesize()
    assert plain >= 10  # huge pages need few faults, but some each time
    assert kept < min(plain, pages) / 2
    assert handed_back > 2**23
