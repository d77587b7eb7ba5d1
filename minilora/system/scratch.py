"""Hidden folders for what is being written: each is locked as long as its process lives.

One that is not locked was left behind by a process that was killed, and the next that writes there
removes it, with all that a library had put into it meanwhile.
"""

from __future__ import annotations

import os
import secrets
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

try:
    from fcntl import LOCK_EX, LOCK_NB, flock

    LOCKS = True
except ImportError:  # on Windows, and in a browser
    LOCKS = False

SCRATCH = ".minilora-scratch-"  # how the name of every hidden folder begins
_LEFT_BEHIND = 3600  # seconds after which nobody can still be writing, where there are no locks


@contextmanager
def scratch_folder(folder: Path) -> Iterator[Path]:
    """A new hidden folder in `folder`, which is removed at the end."""
    while True:
        path = folder / f"{SCRATCH}{secrets.token_hex(6)}"
        path.mkdir(mode=0o700)
        lock = _lock(path, wait=True)
        if os.path.lexists(path):
            break  # else another process took it, in that moment, for one left behind
    try:
        yield path
    finally:
        _remove(path, lock)


@contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Within it, whoever else comes to it with the same folder, in this process or another, waits
    (not where there are no locks)."""
    path, lock = folder / f"{SCRATCH}lock", None
    if LOCKS:
        with suppress(OSError):  # where nothing can be written, the writing says so
            lock = _hold(path)
    try:
        yield
    finally:
        if lock is not None:
            _remove(path, lock)


def remove_left_behind(folder: Path) -> None:
    """Remove the hidden folders in a folder whose processes were killed."""
    for path in folder.glob(f"{SCRATCH}*"):
        with suppress(OSError):  # it is another user's, or another process removes it too
            lock = _lock(path, wait=False)
            dead = lock is not None if LOCKS else time.time() - path.stat().st_mtime > _LEFT_BEHIND
            if dead:
                _remove(path, lock)


def _lock(path: Path, wait: bool) -> int | None:
    """A descriptor which, until it is closed, keeps all others from locking this folder.
    None if another has it locked, if it is gone, and where there are no locks."""
    if not LOCKS:
        return None
    with suppress(OSError):
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW)
        with suppress(OSError):
            flock(descriptor, LOCK_EX | (0 if wait else LOCK_NB))
            if _is_at(path, descriptor):
                return descriptor
        os.close(descriptor)
    return None


def _hold(path: Path) -> int:
    """A descriptor of this folder, made if need be, which until it is closed keeps all others from
    locking it. Waits for that."""
    while True:
        path.mkdir(exist_ok=True)
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
        except FileNotFoundError:  # another process has ended, and removed it, in that moment
            continue
        try:
            flock(descriptor, LOCK_EX)
            if _is_at(path, descriptor):
                return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)


def _is_at(path: Path, descriptor: int) -> bool:
    """Whether the path still names the folder that was opened there."""
    with suppress(OSError):
        return os.path.samestat(os.fstat(descriptor), os.lstat(path))
    return False


def _remove(path: Path, lock: int | None) -> None:
    """Remove a hidden folder if it is still there, and only then its lock."""
    try:
        shutil.rmtree(path, ignore_errors=True)
    finally:
        if lock is not None:
            os.close(lock)
