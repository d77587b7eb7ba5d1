"""Files: writing one so that it is the old one or the new one, never half of either; mapping one.

What is to be written goes into a hidden folder beside its place (scratch.py), reaches the disk, and
is renamed at the end: within one file system a rename happens at once or not at all.
"""

from __future__ import annotations

import errno
import mmap
import os
import stat
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np

from minilora.system.errors import UsageError, brief
from minilora.system.scratch import SCRATCH, remove_left_behind, scratch_folder

_LONGEST_PART, _LONGEST_PATH = 255, 4095  # bytes; of Linux, and no other system takes more
_CAUSES = {
    errno.ENOSPC: "the disk is full; free some space or choose another folder",
    errno.EDQUOT: "your share of the disk is used up; free some space or choose another folder",
    errno.EFBIG: "files may not be so large there; choose another folder",
    errno.EACCES: "you may not write there; choose another folder",
    errno.EPERM: "you may not write there; choose another folder",
    errno.EROFS: "that disk is read-only; choose another folder",
    errno.EIO: "the disk fails; choose a folder on another",
    errno.ENOENT: "its folder does not exist; make it first",
    errno.ENOTDIR: "a part of its path is a file; choose another folder",
    errno.EEXIST: "there is a file of that name; choose another name",
    errno.EISDIR: "there is a folder of that name; choose another name",
    errno.ELOOP: "a link in its path leads back to itself; choose another folder",
    errno.ENAMETOOLONG: "its name is too long; choose a shorter one",
    errno.EMFILE: "too many files are open in this process; raise the limit with ulimit -n",
}


def usable_path(path: str | os.PathLike[str]) -> Path:
    """The path, of which nothing needs to be there. Raises UsageError, or OSError if it is too
    long, for what is no name of a file, at which Python's own functions fail each in its way."""
    path = Path(path)
    said = f"{brief(str(path))} is no name of a file"
    try:
        raw = os.fsencode(path)
    except UnicodeEncodeError:
        raise UsageError(f"{said}: it has half of a character") from None
    if b"\0" in raw:
        raise UsageError(f"{said}: it has a NUL character")
    if max(map(len, raw.split(os.fsencode(os.sep)))) > _LONGEST_PART or len(raw) > _LONGEST_PATH:
        raise OSError(f"{said}: its name is too long; choose a shorter one")
    return path


def write_atomically(path: str | Path, write: Callable[[Path], object]) -> None:
    """Call `write` with a temporary path, then rename it to `path`.

    The temporary path has the name of `path`, in a folder of its own. If `write` fails, its
    exception is passed on, and `path` is as it was before. An OSError says which file could not be
    written, why, and what to do. A link stays: what it names is written.
    """
    path = usable_path(path)
    with explained(path):
        _require_place_for_file(path)
        place = Path(os.path.realpath(path))
        remove_left_behind(place.parent)
        with scratch_folder(place.parent) as scratch:
            temporary = scratch / path.name
            write(temporary)
            _to_disk(temporary)
            os.replace(temporary, place)
        with suppress(OSError):  # not every system can do this with a folder
            _to_disk(place.parent)


def make_folder(folder: str | Path) -> None:
    """Make a folder in which files can be written, and those above it, where there is none. Raises
    OSError, which says which it is, why it is not possible, and what to do."""
    folder = usable_path(folder)
    with explained(folder):
        folder.mkdir(parents=True, exist_ok=True)
        remove_left_behind(folder)
        with scratch_folder(folder):
            pass


@contextmanager
def temporary_folder(place: Path | None = None) -> Iterator[Path]:
    """A folder for files that are not to be kept: it is removed at the end. Raises OSError, which
    says what to do, where there is no room for them.

    place: the folder to make it in, from where a file can be renamed to its place; else the
        system's for temporary files.
    """
    remedy = "free some space, or choose another folder"
    if place is None:
        remedy = "free some space, or set TMPDIR to another folder"
        try:
            place = Path(tempfile.gettempdir())
        except FileNotFoundError:
            raise OSError(f"there is nowhere to put temporary files: {remedy}") from None
    remove_left_behind(place)
    try:
        with scratch_folder(place) as folder:
            yield folder
    except OSError as error:
        cause = error.__cause__ if isinstance(error.__cause__, OSError) else error
        if cause.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise OSError(f"there is no room for temporary files in {place}: {remedy}") from error


def mapped(path: Path) -> np.ndarray:
    """The bytes of a file that is not empty, uint8 (n,), as a map: what is never looked at is never
    read, and what is changed is changed in memory alone. The file may be replaced or removed while
    it is in use, but must not be overwritten in place."""
    with path.open("rb") as file:
        return np.frombuffer(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY), np.uint8)


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """Within it, an OSError of writing at `path` becomes a sentence with its cause and a remedy.
    One that names another file is passed on."""
    try:
        yield
    except OSError as error:
        if error.errno not in _CAUSES or not _concerns(error, path):
            raise
        raise type(error)(f"cannot write {path}: {_cause(error.errno, path)}") from error


def _concerns(error: OSError, path: Path) -> bool:
    if not isinstance(error.filename, str | os.PathLike):  # of writing: it names no file
        return True
    named = Path(os.path.abspath(error.filename))
    places = (Path(os.path.abspath(path)), Path(os.path.realpath(path)))
    in_scratch = any(part.startswith(SCRATCH) for part in named.parts)
    return in_scratch or any(named in (p, *p.parents) for p in places)


def _cause(number: int, path: Path) -> str:
    """What is wrong with one of the folders in the path, as the number alone does not tell; else
    what the number means."""
    last = None
    for folder in [*reversed(path.parents), path]:
        if not os.path.lexists(folder) or (folder == path and not os.path.isdir(folder)):
            break
        if not os.path.isdir(folder):
            return f"{folder} is not a folder; choose another"
        if not os.access(folder, os.X_OK):
            return f"you may not look into {folder}; choose another folder"
        last = folder
    if number in (errno.EACCES, errno.EPERM):
        if last and not os.access(last, os.W_OK):
            there = "there" if last == path else f"in {last}"
            return f"you may not write {there}; choose another folder"
        if os.path.lexists(path):
            return "you may not replace the one that is there; choose another name"
    return _CAUSES[number]


def _require_place_for_file(path: Path) -> None:
    """Raise OSError if something is there that no file can replace."""
    try:
        mode = os.stat(path).st_mode
    except FileNotFoundError:
        return
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if not stat.S_ISREG(mode):
        raise OSError(f"cannot write {path}: it is a device or a pipe; choose another name")


def _to_disk(path: Path) -> None:
    """Have the system write what it still holds of a file or folder, in case the power fails."""
    descriptor = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
