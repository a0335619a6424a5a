"""Memory that a step frees stays with the process for the next step.

What belongs here: what the C library is told about it. On a CPU every step makes and frees gigabytes of tensors. GNU's
library maps each large one anew and unmaps it when it is freed, so the kernel clears all these pages step after step.
"""

import ctypes
import platform
from collections.abc import Iterator
from contextlib import contextmanager

_TRIM_THRESHOLD, _TOP_PAD, _MMAP_MAX = -1, -2, -4
"""Parameters of mallopt, malloc.h."""
_FOR_GOOD = 2**31 - 1
_ROOM = 256 * 2**20
"""Bytes that stay on top of the heap whoever lowers the threshold: TensorFlow does when it reads a generator."""
_DEFAULTS = {_TRIM_THRESHOLD: 128 * 2**10, _TOP_PAD: 128 * 2**10, _MMAP_MAX: 65536}


@contextmanager
def freed_memory_kept() -> Iterator[None]:
    """Within the block, memory that is freed is kept for what comes; after it, what is free is handed back.

    Changes nothing where the C library is not GNU's. Blocks do not nest: the end of one is the end of all.
    """
    if platform.libc_ver()[0] != "glibc":
        yield
        return
    library = ctypes.CDLL(None)
    for parameter, value in {_MMAP_MAX: 0, _TRIM_THRESHOLD: _FOR_GOOD, _TOP_PAD: _ROOM}.items():
        library.mallopt(parameter, value)
    try:
        yield
    finally:
        for parameter, value in _DEFAULTS.items():
            library.mallopt(parameter, value)
        library.malloc_trim(0)
