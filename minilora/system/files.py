"""Files: writing one so that it is the old one or the new one, never half of either; mapping one.

What is to be written goes into a hidden folder beside its place and is renamed at the end: within
one file system a rename happens at once or not at all. A process that is killed leaves its hidden
folder behind; a later one that writes there removes it.
"""

from __future__ import annotations

import errno
import mmap
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np

_SCRATCH = ".minilora-"  # how the name of every hidden folder begins
_LEFT_BEHIND = 3600  # seconds after which no process can still be writing there
_CAUSES = {
    errno.ENOSPC: "the disk is full; free some space or choose another folder",
    errno.EDQUOT: "your share of the disk is used up; free some space or choose another folder",
    errno.EACCES: "you may not write there; choose another folder",
    errno.EPERM: "you may not write there; choose another folder",
    errno.EROFS: "that disk is read-only; choose another folder",
    errno.ENOENT: "its folder does not exist; make it first",
    errno.ENOTDIR: "a part of its path is a file; choose another folder",
    errno.EEXIST: "a part of its path is a file; choose another folder",
    errno.EISDIR: "there is a folder of that name; choose another name",
    errno.ENAMETOOLONG: "its name is too long; choose a shorter one",
}


def write_atomically(path: str | Path, write: Callable[[Path], object]) -> None:
    """Call `write` with a temporary path in the same folder, then rename it to `path`.

    If `write` fails, its exception is passed on, and `path` is as it was before. An OSError says
    which file could not be written, why, and what to do. A link stays: what it names is written.
    """
    path = Path(path)
    with explained(path):
        if path.exists() and not (path.is_file() or path.is_dir()):
            raise OSError(f"cannot write {path}: it is a device or a pipe; choose another name")
        place = Path(os.path.realpath(path))
        _remove_left_behind(place.parent)
        with tempfile.TemporaryDirectory(dir=place.parent, prefix=_SCRATCH) as scratch:
            temporary = Path(scratch, place.name)
            write(temporary)
            os.replace(temporary, place)


def mapped(path: Path) -> np.ndarray:
    """The bytes of a file that is not empty, uint8 (n,), as a map: what is never looked at is never
    read, and what is changed is changed in memory alone. The file may be replaced or removed while
    it is in use, but must not be overwritten in place."""
    with path.open("rb") as file:
        return np.frombuffer(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY), np.uint8)


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """Within it, an OSError of writing at `path` becomes a sentence with its cause and a remedy."""
    try:
        yield
    except OSError as error:
        if error.errno not in _CAUSES:
            raise
        raise type(error)(f"cannot write {path}: {_CAUSES[error.errno]}") from error


def _remove_left_behind(folder: Path) -> None:
    """Remove the hidden folders of processes that were killed."""
    for scratch in folder.glob(f"{_SCRATCH}*"):
        with suppress(FileNotFoundError):  # another process may be removing it too
            if scratch.is_dir() and time.time() - scratch.stat().st_mtime > _LEFT_BEHIND:
                shutil.rmtree(scratch, ignore_errors=True)
