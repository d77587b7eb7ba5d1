"""Around a learner's function while it is checked: it must end, leave its inputs alone and return.

`guarded_call` calls it and says what it did. The time limit is a trace function (sys.settrace),
because that works on every system, in any thread and in a browser; it sees each line of the
learner's code, and of a library only the calls.
"""

from __future__ import annotations

import contextlib
import dis
import functools
import io
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import CodeType, FrameType
from typing import Any, TextIO

import numpy as np

import minilora
from minilora.module import Module
from minilora.tensor import Tensor

_LIBRARIES = tuple(str(Path(str(room.__file__)).parent) for room in (minilora, np, contextlib))


class TookTooLong(BaseException):
    """The time is up. Not an Exception, so that `except Exception` does not catch it."""


@dataclass(frozen=True)
class Call:
    """What came of a call: the result or the error, whether anything was printed, and the positions
    of the arguments that are no longer what they were."""

    result: Any
    error: BaseException | None
    printed: bool
    changed: tuple[int, ...]


def guarded_call(function: Callable[..., Any], arguments: tuple[Any, ...], seconds: float) -> Call:
    """Call a function, and return whatever happens; Ctrl-C alone goes through."""
    before = [_copy_of(argument) for argument in arguments]
    out = _Listening(sys.stdout)
    result, error = None, None
    try:
        with contextlib.redirect_stdout(out), _time_limit(seconds):
            result = function(*arguments)
    except KeyboardInterrupt:
        raise
    except BaseException as raised:
        error = raised
    now = zip(arguments, before, strict=True)
    changed = tuple(i for i, (argument, copy) in enumerate(now) if not _is_still(argument, copy))
    return Call(result, error, out.heard, changed)


def line_of(error: BaseException) -> str:
    """The line of the learner's own code in which an error was raised, or "" if it is not known."""
    lines = [
        f.line for f in traceback.extract_tb(error.__traceback__) if not _of_library(f.filename)
    ]
    return (lines[-1] or "").strip() if lines else ""


class _Listening(io.TextIOBase):
    """Passes on what is printed, and remembers that something was."""

    def __init__(self, out: TextIO) -> None:
        self.out, self.heard = out, False

    def write(self, text: str) -> int:
        self.heard = self.heard or bool(text.strip())
        return self.out.write(text)

    def flush(self) -> None:
        self.out.flush()


@contextlib.contextmanager
def _time_limit(seconds: float) -> Iterator[None]:
    deadline = time.monotonic() + seconds

    def watch(frame: FrameType, event: str, argument: Any) -> Any:
        if time.monotonic() > deadline:
            raise TookTooLong
        if event == "call" and _jumps_to_itself(frame.f_code):
            frame.f_trace_opcodes = True
        return None if _of_library(frame.f_code.co_filename) else watch

    outer = sys.gettrace()
    sys.settrace(watch)
    try:
        yield
    finally:
        sys.settrace(outer)


@functools.cache
def _jumps_to_itself(code: CodeType) -> bool:
    """Whether it has a loop like `while True: pass`, all in one line: Python tells a trace function
    of its first round only, unless asked for every instruction."""
    instructions = dis.get_instructions(code)
    return any("JUMP" in one.opname and one.argval == one.offset for one in instructions)


def _of_library(filename: str) -> bool:
    return filename.startswith(_LIBRARIES)


def _copy_of(value: Any) -> Any:
    """A copy of all arrays in a value, to compare with later."""
    if isinstance(value, np.ndarray):
        return value.copy()
    if isinstance(value, Tensor):
        return value.data.copy()
    if isinstance(value, Module):
        return {name: p.data.copy() for name, p in value.named_parameters()}
    if isinstance(value, dict):
        return {key: _copy_of(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_copy_of(item) for item in value]
    return value


def _is_still(value: Any, copy: Any) -> bool:
    if isinstance(value, np.ndarray):
        alike = (value.shape, value.dtype) == (copy.shape, copy.dtype)
        return alike and (value.tobytes() == copy.tobytes() or bool(np.array_equal(value, copy)))
    if isinstance(value, Tensor):
        return _is_still(value.data, copy)
    if isinstance(value, Module):
        return _is_still({name: p.data for name, p in value.named_parameters()}, copy)
    if isinstance(value, dict):
        same_keys = value.keys() == copy.keys()
        return same_keys and all(_is_still(item, copy[key]) for key, item in value.items())
    if isinstance(value, list | tuple):
        pairs = zip(value, copy, strict=False)
        return len(value) == len(copy) and all(_is_still(item, old) for item, old in pairs)
    is_plain = isinstance(value, int | float | str)
    return not is_plain or value is copy or bool(value == copy)
