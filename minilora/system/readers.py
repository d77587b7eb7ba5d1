"""Reading files that others may have written, cut short or mixed up: checked, then trusted.

Only a regular file is opened, as reading a pipe may wait for ever and a device may never end; and
none that is larger than its kind can be. What is read is held against a schema (schemas.py). An
error is one sentence with the file, the cause and the remedy.
"""

from __future__ import annotations

import errno
import json
import math
import os
import re
import stat
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from minilora.system.errors import UsageError
from minilora.system.files import usable_path
from minilora.system.schemas import checked, inside, shown

MIB = 2**20
LARGEST = 4 * MIB  # of a file of settings
LARGEST_TABLE = 64 * MIB  # of a file of rows, of a vocabulary, of an index of many weights
_AGAIN = "copy or download it again"
_DEEPEST = 100  # lists and objects in one another
_PART = r"""(?:[\w-]++|"[^"\n]*+"|'[^'\n]*+')\s*+\.\s*+"""  # of a dotted key of TOML
# Of a JSON: its texts, in one piece each, and what opens and closes lists and objects.
_STRUCTURE = re.compile(r'"[^"\\]*+(?:\\.[^"\\]*+)*+(?:"|\\?\Z)|[\[\]{}]', re.DOTALL)
_LONG_KEY = re.compile(rf"(?<![\w-])(?:{_PART}){{{_DEEPEST}}}")
_LARGEST_NUMBER = 1e308
_ODD = "NaN, infinity or a number of hundreds of digits"
_HALF = re.compile("[\ud800-\udfff]")  # of a pair that JSON can spell and no UTF-8 can
_CAUSES = {
    errno.ENOENT: "there is no such file; check its name and the folder",
    errno.ENOTDIR: "a part of its path is a file; check the path",
    errno.EACCES: "you may not read it; ask its owner for the right to",
    errno.EPERM: "you may not read it; ask its owner for the right to",
    errno.ELOOP: "its links go in a circle; give the file itself",
    errno.ENAMETOOLONG: "its name is too long; check it",
    errno.EMFILE: "too many files are open in this process; raise the limit with ulimit -n",
    errno.EIO: "the disk fails to read it; use another copy",
}
_STAND_INS = {  # what a file may begin with that is not the file itself
    b"version https://git-lfs": "is a Git LFS pointer, not the file: run git lfs pull there",
    b"<!doctype html": "is a web page, not the file: download it again",
    b"<html": "is a web page, not the file: download it again",
}


def require_file(path: str | os.PathLike[str], largest: int | None = None) -> int:
    """The size in bytes of a regular file, which is not opened.

    Raises OSError if it is not there or must not be looked at; UsageError for a folder, a pipe or
    a device, and for a file of more than `largest` bytes.
    """
    usable_path(path)
    with _explained(path):
        about = os.stat(path)
    if stat.S_ISDIR(about.st_mode):
        raise UsageError(f"{path} is a folder; give a file in it")
    if not stat.S_ISREG(about.st_mode):
        raise UsageError(f"{path} is a pipe or a device; save its content to a file first")
    if largest is not None and about.st_size > largest:
        raise UsageError(
            f"{path} has {math.ceil(about.st_size / MIB):,} MiB, and at most {largest // MIB} are "
            "read; is it the right file?"
        )
    return about.st_size


def require_the_file_itself(path: str | os.PathLike[str]) -> None:
    """Raise what require_file does, and UsageError for what Git LFS or a server put in its place:
    before a large file is mapped."""
    require_file(path)
    with _explained(path), open(path, "rb") as file:
        start = file.read(64)
    _refuse_stand_ins(start, path)


def read_bytes(path: str | os.PathLike[str], largest: int) -> bytes:
    """The content of a file. Raises what require_file does."""
    size = require_file(path, largest)
    with _explained(path), open(path, "rb") as file:
        content = file.read(size + 1)
    if len(content) > size:
        raise UsageError(f"{path} grew while it was read; wait until it is complete")
    return content


def checksum(path: str | os.PathLike[str]) -> str:
    """Of the content of a file, which may be larger than the memory. Raises what require_file
    does."""
    require_file(path)
    crc = 0
    with _explained(path), open(path, "rb") as file:
        while block := file.read(MIB):
            crc = zlib.crc32(block, crc)
    return f"{crc:08x}"


def read_text(path: str | os.PathLike[str], largest: int) -> str:
    """The text of a file in UTF-8, with or without byte order mark. Raises what require_file does,
    and UsageError with the place of a byte that does not fit."""
    return _decoded(read_bytes(path, largest), path)


def read_json(
    path: str | os.PathLike[str], schema: Any = dict[str, Any], largest: int = LARGEST
) -> Any:
    """What is in a JSON file, as the schema has it. Raises OSError and UsageError; see
    parse_json."""
    return parse_json(read_bytes(path, largest), path, schema)


def parse_json(
    content: str | bytes,
    where: object,
    schema: Any = dict[str, Any],
    remedy: str = _AGAIN,
    nan: Callable[[str], Any] | None = None,
) -> Any:
    """What is in a JSON text, or in the bytes of one, as the schema (see schemas.py) has it.

    Raises UsageError, which names `where` and the key: for what is no JSON, or what else no file
    of ours holds (a key twice, NaN, infinity, numbers of hundreds of digits, a depth of more than
    a hundred), and for what does not fit the schema. nan: makes of the names of NaN and infinity
    what is to stand for them.
    """
    if isinstance(content, bytes):
        _refuse_stand_ins(content, where)
        content = _decoded(content, where)
    if not content.strip():
        raise damaged(where, "it is empty", remedy)
    refuse_depth(content, where, remedy)
    parse = partial(json.loads, content, object_pairs_hook=_without_twice, parse_constant=nan)
    return _checked(parse, where, schema, remedy)


def refuse_depth(text: str, where: object, remedy: str = _AGAIN) -> None:
    """Raise UsageError for a JSON text in which lists and objects lie deep in one another, before
    any is made of it: from 3.15 on, Python makes a hundred thousand."""
    depth = 0
    for part in _STRUCTURE.finditer(text):
        depth += (part[0] in "[{") - (part[0] in "]}")
        if depth > _DEEPEST:
            raise damaged(where, f"it is nested more than {_DEEPEST} deep", remedy)


def read_toml(path: str | os.PathLike[str], schema: Any = dict[str, Any]) -> Any:
    """What is in a TOML file, as the schema has it. Raises OSError and UsageError, as read_json."""
    import tomllib

    content = read_bytes(path, MIB)
    _refuse_stand_ins(content, path)
    text = _decoded(content, path)
    if _LONG_KEY.search(text):  # tomllib takes quadratic time for it
        raise damaged(path, f"it is nested more than {_DEEPEST} deep")
    return _checked(partial(tomllib.loads, text), path, schema)


def damaged(where: object, cause: object, remedy: str = _AGAIN) -> UsageError:
    return UsageError(f"{where} is damaged ({cause}); {remedy}")


def _checked(parse: Callable[[], Any], where: object, schema: Any, remedy: str = _AGAIN) -> Any:
    try:
        value = parse()
        _refuse_what_no_file_holds(value)
    except RecursionError:
        raise damaged(where, f"it is nested more than {_DEEPEST} deep", remedy) from None
    except ValueError as error:
        many_digits = "integer string conversion" in str(error)  # Python's own limit
        cause = "a number in it has thousands of digits" if many_digits else error
        raise damaged(where, cause, remedy) from None
    return checked(value, schema, where)


def _without_twice(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        twice = (name for name, count in Counter(name for name, _ in pairs).items() if count > 1)
        raise UsageError(f"it has {shown(next(twice))} twice")
    return found


def _refuse_what_no_file_holds(value: Any) -> None:
    """Raise UsageError for a depth, a number or a text with which nothing could be done later."""
    level = [value]
    for _ in range(_DEEPEST):
        below: list[Any] = []
        for one in level:
            if isinstance(one, dict):
                below += one
                below += one.values()
            elif isinstance(one, list):
                below += one
            elif isinstance(one, str):
                if not one.isascii() and _HALF.search(one):
                    raise UsageError(f"{_key_of(one, value)} has half of a character")
            elif isinstance(one, int | float) and not abs(one) <= _LARGEST_NUMBER:
                raise UsageError(f"{_key_of(one, value)} is {_ODD}")
        level = below
        if not level:
            return
    raise RecursionError


def _key_of(sought: object, value: Any, key: str = "") -> str:
    """Where in a value this very object stands; "" if nowhere."""
    items: Iterable[tuple[str | int, Any]] = ()
    if isinstance(value, dict):
        items = value.items()
    elif isinstance(value, list):
        items = enumerate(value)
    for name, item in items:
        at = inside(key, name)
        if item is sought or name is sought:
            return at
        if found := _key_of(sought, item, at):
            return found
    return ""


def _decoded(content: bytes, path: object) -> str:
    if b"\0" in content:
        raise UsageError(
            f"{path} holds NUL bytes, so it is a binary file or UTF-16; choose a text file, saved "
            "as UTF-8"
        )
    try:
        return content.decode("utf-8").removeprefix("\ufeff")  # some editors begin with this mark
    except UnicodeDecodeError as error:
        raise UsageError(
            f"{path} is not UTF-8: byte {content[error.start]:#04x} at offset {error.start} does "
            "not fit; open it in an editor and save it again as UTF-8"
        ) from None


def _refuse_stand_ins(content: bytes, path: object) -> None:
    start = content[:64].lower()
    for beginning, sentence in _STAND_INS.items():
        if start.startswith(beginning):
            raise UsageError(f"{path} {sentence}")


@contextmanager
def _explained(path: str | os.PathLike[str]) -> Iterator[None]:
    """Within it, an OSError of looking at `path` becomes a sentence with its cause and a remedy."""
    try:
        yield
    except OSError as error:
        if error.errno not in _CAUSES:
            raise
        cause, folder = _CAUSES[error.errno], Path(path).parent
        if error.errno == errno.ENOENT and Path(path).is_symlink():
            cause = f"it is a link to {os.readlink(path)}, which is not there; mend the link"
        elif error.errno == errno.EACCES and not os.access(folder, os.X_OK):
            cause = f"you may not look into {folder}; ask its owner for the right to"
        raise type(error)(f"cannot read {path}: {cause}") from None
