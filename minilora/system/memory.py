"""Let the C library keep the memory of freed arrays instead of returning it to the system.

A training step makes and frees the same arrays again and again. By default glibc gives much of a
large array's memory back to the system when it is freed and asks for it anew, and each new page
costs a page fault, thousands in a step. Four settings of malloc bring that to none. They hold for
the whole process, other libraries included, and so they are not set by an import: Training and the
command line set them, or whoever calls ml.keep_freed_memory(). Elsewhere (macOS, Windows, musl)
nothing is done. Source: mallopt(3).
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
        _M_ARENA_MAX: 1,  # one heap for all threads, where each would keep what it freed for itself
    }
    return all(mallopt(key, value) == 1 for key, value in settings.items())
