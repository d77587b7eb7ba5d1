"""Around a learner's function while it is checked: it must end, leave its inputs alone and return.

`guarded_call` calls it and says what it did. The time limit is a trace function (sys.settrace),
because that works on every system, in any thread and in a browser; it sees each line of the
learner's code, and of a library only the calls.

What it cannot end is work that never comes back to Python, such as `sum(iter(int, 1))` or
`list(itertools.count())`, which also takes all memory. Nothing else in the process can: Python
looks for signals, and lets another thread run, only between its own instructions. So "Interrupt" of
a notebook does not help, and the learner has to restart the kernel. `minilora grade` runs a
notebook in a process of its own, and ends that.
"""

from __future__ import annotations

import contextlib
import dis
import functools
import io
import sys
import time
import traceback
from collections.abc import Callable
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
    """The time is up. Not an Exception, so that `except Exception` does not catch it; where a bare
    `except:` has caught it, and it is forgotten, it calls `again`."""

    def __init__(self, again: Callable[[], None]) -> None:
        self.again = again

    def __del__(self) -> None:
        try:  # noqa: SIM105  (a `with` needs more of the stack, which may be used up)
            self.again()
        except RecursionError:  # freed within a recursion without end: that ends by itself
            pass


@dataclass(frozen=True)
class Call:
    """What came of a call: the result or the error, whether anything was printed, whether a
    function was called that has nothing in it, and the positions of the arguments that are no
    longer what they were."""

    result: Any
    error: BaseException | None
    printed: bool
    met_stub: bool
    changed: tuple[int, ...]


def guarded_call(function: Callable[..., Any], arguments: tuple[Any, ...], seconds: float) -> Call:
    """Call a function, and return whatever happens; Ctrl-C alone goes through."""
    before = [_copy_of(argument) for argument in arguments]
    out, watch = _Listening(sys.stdout), _Watch(seconds)
    result, error = None, None
    try:
        with contextlib.redirect_stdout(out):
            # coverage or a debugger; it follows calls and returns, so the change is in one frame
            tracer = sys.gettrace()
            watch.running = True
            sys.settrace(watch)
            try:
                result = function(*arguments)
            finally:
                watch.running = False
                sys.settrace(tracer)
    except KeyboardInterrupt:
        raise
    except BaseException as raised:
        error = raised
    now = zip(arguments, before, strict=True)
    changed = tuple(i for i, (argument, copy) in enumerate(now) if not _is_still(argument, copy))
    return Call(result, error, out.heard, watch.met_stub, changed)


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


class _Watch:
    """A trace function that raises TookTooLong when the time is up."""

    def __init__(self, seconds: float) -> None:
        self.deadline = time.monotonic() + seconds
        self.running, self.met_stub = False, False

    def __call__(self, frame: FrameType, event: str, argument: Any) -> Any:
        if time.monotonic() > self.deadline:
            raise TookTooLong(self.again)
        code = frame.f_code
        if _of_library(code.co_filename):
            return None
        if event == "call":
            self.met_stub = self.met_stub or is_stub(code)
            frame.f_trace_opcodes = _jumps_to_itself(code)
        return self

    def again(self) -> None:
        """A trace function that raises is dropped by Python, for new calls and for those under way:
        take both up again, if the learner's function is still at work."""
        if not self.running:
            return
        frame: FrameType | None = sys._getframe()
        while frame and frame.f_code is not guarded_call.__code__:
            if not _of_library(frame.f_code.co_filename):
                frame.f_trace = self
            frame = frame.f_back
        sys.settrace(self)


@functools.cache
def is_stub(code: CodeType) -> bool:
    """Whether a def has nothing in it but `...`, pass, return or raise NotImplementedError."""
    instructions = list(dis.get_instructions(code))
    kinds = {one.opname for one in instructions} - {"RESUME", "NOP"}
    if "RAISE_VARARGS" in kinds:
        call = {"LOAD_GLOBAL", "LOAD_CONST", "PUSH_NULL", "PRECALL", "CALL"}
        refuses = set(code.co_names) <= {"NotImplementedError"}
        return refuses and kinds <= {"RAISE_VARARGS", *call}
    # Python 3.12 and 3.13 have the second, 3.15 the third, of None.
    constants = {"LOAD_CONST", "RETURN_CONST", "LOAD_COMMON_CONSTANT"}
    values = [one.argval for one in instructions if one.opname in constants]
    is_empty = all(value is None or value is ... for value in values)
    is_lambda = code.co_name == "<lambda>"  # no stub: somebody has written it
    return is_empty and not is_lambda and kinds <= {*constants, "RETURN_VALUE"}


@functools.cache
def _jumps_to_itself(code: CodeType) -> bool:
    """Whether it has a loop like `while True: pass`, all in one line: Python tells a trace function
    of its first round only, unless asked for every instruction."""
    instructions = dis.get_instructions(code)
    return any("JUMP" in one.opname and one.argval == one.offset for one in instructions)


def _of_library(filename: str) -> bool:
    return filename.startswith(_LIBRARIES)


def _copy_of(value: Any) -> Any:
    """A copy of all arrays in a value, and of what trains, to compare with later."""
    if isinstance(value, np.ndarray):
        return value.copy()
    if isinstance(value, Tensor):
        return value.data.copy(), value.requires_grad
    if isinstance(value, Module):
        return {name: _copy_of(p) for name, p in value.named_parameters()}
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
        data, trains = copy
        return value.requires_grad == trains and _is_still(value.data, data)
    if isinstance(value, Module):
        return _is_still(dict(value.named_parameters()), copy)
    if isinstance(value, dict):
        same_keys = value.keys() == copy.keys()
        return same_keys and all(_is_still(item, copy[key]) for key, item in value.items())
    if isinstance(value, list | tuple):
        pairs = zip(value, copy, strict=False)
        return len(value) == len(copy) and all(_is_still(item, old) for item, old in pairs)
    is_plain = isinstance(value, int | float | str)
    return not is_plain or value is copy or bool(value == copy)
