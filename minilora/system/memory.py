"""Let the C library keep the memory of freed arrays instead of returning it to the system.

A training step makes and frees the same arrays again and again. By default glibc gives much of a
large array's memory back to the system when it is freed and asks for it anew, and each new page
costs a page fault: 3,800 in a full step of two layers with C = 64, T = 64, and 11,900 of four with
C = 128, T = 128 (24,700 with LoRA on q and v). Four settings of malloc bring that to 0: the steps
are then 1.7, 1.15 and 1.5 times as fast. Elsewhere (macOS, Windows, musl) nothing is done.
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
