"""Let the C library keep the memory of freed arrays instead of returning it to the system.

A training step makes and frees the same arrays again and again. By default glibc asks the system
for every array above 128 KiB and gives it back when it is freed, and each new page of it costs a
page fault: a third of the time of a step on a lesson-size model (15 -> 10 ms for C = 64, T = 64).
Four settings of malloc end it; elsewhere (macOS, Windows, musl) nothing is done.
Source: mallopt(3). Imports nothing of the package.
"""

from __future__ import annotations

import ctypes
import platform

_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -2, -3, -8


def keep_freed_memory() -> bool:
    """Set this process's malloc to reuse what it frees. Returns whether it could."""
    if platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL(None).mallopt
    # Arrays up to this size come from the heap, which is reused; glibc before 2.35 refuses 1 GiB.
    if not any(mallopt(_M_MMAP_THRESHOLD, size) == 1 for size in (1 << 30, 32 << 20)):
        return False
    settings = {
        _M_TRIM_THRESHOLD: (1 << 31) - 1,  # never shrink the heap
        _M_TOP_PAD: 16 << 20,  # grow it by 16 MiB at a time
        _M_ARENA_MAX: 1,  # one heap for all threads: with two, 818 MiB instead of 481 for C = 256
    }
    return all(mallopt(key, value) == 1 for key, value in settings.items())
