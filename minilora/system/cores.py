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

from threadpoolctl import ThreadpoolController


def usable_cores() -> int:
    """Cores this process may use, which in a container can be fewer than the machine has. In a
    browser it is one, as Python has no threads there."""
    if sys.platform == "emscripten":
        return 1
    affinity = getattr(os, "sched_getaffinity", None)  # not on macOS and Windows
    return len(affinity(0)) if affinity else os.cpu_count() or 1


_lock = threading.Lock()
_users = 0
_libraries: Any = None
_limits: Any = None  # what the first to enter has set


@contextmanager
def one_blas_thread() -> Iterator[None]:
    """Within this context, or in a function with this decorator, BLAS computes in one thread.

    The number of BLAS's threads belongs to the whole process, so contexts of several threads may
    overlap: the first to enter sets it to one, and the last to leave restores it.
    """
    global _users, _libraries, _limits
    with _lock:
        _users += 1
        if _users == 1:
            _libraries = ThreadpoolController().select(user_api="blas")
            _limits = _libraries.limit(limits=1)
            _let_any_thread_set_limits()
    try:
        yield
    finally:
        with _lock:
            _users -= 1
            if _users == 0:
                _limits.restore_original_limits()
                _let_any_thread_set_limits()


def _let_any_thread_set_limits() -> None:
    """threadpoolctl 3.8 obeys the thread that set a limit first, and no other until that one has
    left a `with`; here the thread that restores may be another one."""
    with _libraries.limit(limits=None):
        pass
