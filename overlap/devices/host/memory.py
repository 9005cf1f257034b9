"""One memory pool for the process, as accelerators have one.

By default glibc returns every large tensor to the kernel when it is freed and the next op faults fresh pages in, one by
one. That costs more than the arithmetic of a vector op and it hits the unsplit baseline, with its large intermediates,
far harder than any split: a gain from smaller tensors would be an artefact of the host's allocator. With the pool,
freed memory stays mapped and both sides run on warm pages.
"""

from __future__ import annotations

import ctypes
import os

# Parameters of mallopt(3), from glibc's malloc.h.
M_TRIM_THRESHOLD = -1
M_MMAP_MAX = -4
M_ARENA_MAX = -8
NEVER = 2**31 - 1


def pool_memory() -> bool:
    """Make malloc keep freed memory; returns whether this C library can (glibc). Idempotent."""
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError):
        return False
    settings = ((M_MMAP_MAX, 0), (M_TRIM_THRESHOLD, NEVER), (M_ARENA_MAX, 1))
    return all(mallopt(name, value) == 1 for name, value in settings)


def physical_memory_bytes() -> int:
    """Memory of the machine, or the limit of its control group if that is smaller."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for path in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        try:
            with open(path, encoding="ascii") as file:
                text = file.read().strip()
        except OSError:
            continue
        if text.isdigit():
            total = min(total, int(text))
    return total
