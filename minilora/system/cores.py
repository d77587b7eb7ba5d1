"""The cores of the machine, and holding the linear algebra library to one of them.

Training splits a batch among Python threads, sweeps run in processes, and most of our matrices are
small: threads of BLAS's own would then only fight with these for the cores, and their number would
change the last bits of a result.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from weakref import WeakSet

from threadpoolctl import ThreadpoolController


def usable_cores() -> int:
    """Cores this process may use, which in a container can be fewer than the machine has. In a
    browser it is one, as Python has no threads there."""
    if sys.platform == "emscripten":
        return 1
    affinity = getattr(os, "sched_getaffinity", None)  # not on macOS and Windows
    return len(affinity(0)) if affinity else os.cpu_count() or 1


class _Use:
    """One context, while it lasts: Ctrl-C in its last lines cannot leave it counted for good."""


_lock = threading.Lock()
_uses: WeakSet[_Use] = WeakSet()
_libraries: Any = None
_before: Any = None  # what restores the numbers of threads; until that has succeeded


@contextmanager
def one_blas_thread() -> Iterator[None]:
    """Within this context, or in a function with this decorator, BLAS computes in one thread.

    The number of BLAS's threads belongs to the whole process, so contexts of several threads may
    overlap: the first to enter sets it to one, and the last to leave restores it. If Ctrl-C comes
    in that very moment, the next to leave does.
    """
    global _libraries, _before
    use = _Use()
    try:
        with _lock:
            _uses.add(use)
            if len(_uses) == 1 or not _before:
                _libraries = ThreadpoolController().select(user_api="blas")
                _before = _before or _libraries.limit(limits=None)
                _libraries.limit(limits=1)
                _let_any_thread_set_limits()
        yield
    finally:
        with _lock:
            _uses.discard(use)
            if _before and not _uses:
                _before.restore_original_limits()
                _let_any_thread_set_limits()
                _before = None


def _let_any_thread_set_limits() -> None:
    """threadpoolctl 3.8 obeys the thread that set a limit first, and no other until that one has
    left a `with`; here the thread that restores may be another one."""
    with _libraries.limit(limits=None):
        pass
