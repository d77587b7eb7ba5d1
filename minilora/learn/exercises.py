"""How an exercise is checked: is a learner's function right, and if not, what is wrong with it?

`check.count_lora(count_lora)` gives a Verdict, whose text a notebook shows below the cell. It never
raises, whatever the learner's function does. To add an exercise, write a function of its name in
its lesson's file, lesson_NN.py, and import it in check.py:

    @exercise(hints=("a nudge", "nearly the answer, `code` in backticks"))
    def double(yours: Yours) -> None:
        for x in (3, 5):
            got = yours(x)
            compare(f"result for {yours.inputs}", got, 2 * x, {"that is x squared": x * x})

`yours` is the learner's function, called by position; its `inputs` are those of the latest call, so
call first. `compare` looks at the shape first, then at the values, and names the mistake if the
result is that of a known one; `require` is for anything else. Choose inputs for which every known
mistake gives a result of its own. What a checker returns is said after "Correct." Each needs its
wrong solutions in tests/learn/mutants_NN.py; lessons/README.md says how a lesson uses it.
"""

from __future__ import annotations

import functools
import inspect
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from minilora.system.errors import UsageError
from minilora.tensor import Tensor

EXERCISES: dict[str, tuple[str, str]] = {}  # the two hints of each exercise, by its name
_wrong_answers: Counter[str] = Counter()  # in this process, since the last correct one
_NOT_ATTEMPTED = (
    "Not attempted yet: it returns None. Replace the ... by code that ends with return."
)


@dataclass(frozen=True)
class Verdict:
    """status: "correct", "wrong" or "not attempted". A notebook shows the message."""

    status: str
    message: str

    def __repr__(self) -> str:
        return self.message


class Wrong(Exception):  # noqa: N818
    """Ends a check. Its text, one sentence without a full stop, says what is wrong."""


class NotAttempted(Exception):  # noqa: N818
    """Ends a check: the stub is as it was."""


class Yours:
    """The learner's function. `inputs` describes the arguments of the latest call."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function, self.inputs, self.answered = function, "", False

    def __call__(self, *arguments: Any) -> Any:
        self.inputs = _describe(self.function, arguments)
        try:
            result = self.function(*arguments)
        except (Exception, SystemExit) as error:  # exit() too ends the function, not the notebook
            what = f"{type(error).__name__}: {error}"
            raise Wrong(f"your function raised {what} for {self.inputs}") from None
        if result is None or result is ...:
            raise Wrong(f"it returns None for {self.inputs}") if self.answered else NotAttempted
        self.answered = True
        return result


def exercise(hints: tuple[str, str]) -> Callable[[Callable[[Yours], Any]], Callable[..., Verdict]]:
    """Register a checker under its own name; called, it gives a Verdict instead of raising.

    Raises UsageError for a name that is taken, and unless there are two hints.
    """
    if isinstance(hints, str) or len(hints) != 2 or not all(isinstance(h, str) for h in hints):
        raise UsageError(f"an exercise has two hints, each a text; got {hints!r}")

    def register(checker: Callable[[Yours], Any]) -> Callable[..., Verdict]:
        name = checker.__name__
        if name in EXERCISES:
            raise UsageError(f"there are two exercises named {name!r}: give one another name")
        EXERCISES[name] = hints

        @functools.wraps(checker)
        def check(answer: Any) -> Verdict:
            try:
                if answer is None or answer is ...:
                    raise NotAttempted
                how = f"this check takes the function itself, not its result: check.{name}({name})"
                require(callable(answer), how)
                remark = checker(Yours(answer))
            except NotAttempted:
                return Verdict("not attempted", _NOT_ATTEMPTED)
            except Exception as error:  # if not Wrong, the checker met a result it cannot read
                odd = f"your result is not of the expected kind ({type(error).__name__}: {error})"
                return _not_yet(name, str(error) if isinstance(error, Wrong) else odd)
            _wrong_answers[name] = 0
            return Verdict("correct", f"Correct. {remark or ''}".strip())

        return check

    return register


def _not_yet(name: str, diagnosis: str) -> Verdict:
    """A wrong answer: what is wrong with it and, the first two times, the next hint."""
    given, hints = _wrong_answers[name], EXERCISES[name]
    _wrong_answers[name] += 1
    folded = "The hints and a solution are folded up below this cell."
    more = f"Hint {given + 1}: {hints[given]}" if given < len(hints) else folded
    return Verdict("wrong", f"Not yet: {diagnosis}.\n{more}")


def require(condition: Any, message: str) -> None:
    """Raise Wrong with this message unless the condition holds."""
    if not condition:
        raise Wrong(message)


def compare(
    what: str,
    got: Any,
    expected: Any,
    mistakes: Mapping[str, Any] | None = None,
    tolerance: float = 1e-6,
) -> None:
    """Raise Wrong unless `got` has the shape and values expected: whole numbers exactly, others up
    to a relative tolerance. what: completes "your ...". mistakes: what to say, after what was seen
    and what was expected, of the result of a known mistake."""
    array, right = np.asarray(got.data if isinstance(got, Tensor) else got), np.asarray(expected)
    if array.dtype.kind not in "biuf":
        found = _short(got) if isinstance(got, int) else f"of type {type(got).__name__}"
        raise Wrong(f"your {what} is {found}; expected {_kind(right)}")
    if _same(array, right, tolerance):
        return
    seen = f"your {what} is {_kind(array)}; expected {_kind(right)}"
    if array.shape == right.shape:
        gap = np.abs(array.astype(float) - right.astype(float))
        at = np.unravel_index(np.argmax(gap), right.shape)
        place = f" at {[int(i) for i in at]}" if at else ""
        seen = f"your {what} is {_short(array[at])}{place}; expected {_short(right[at])}"
    for why, wrong in (mistakes or {}).items():
        if _same(array, np.asarray(wrong), tolerance):
            raise Wrong(f"{seen}: {why}")
    raise Wrong(seen)


def _same(array: np.ndarray, other: np.ndarray, tolerance: float) -> bool:
    if array.shape != other.shape or other.dtype.kind in "biu":
        return np.array_equal(array, other)
    return np.allclose(array, other, rtol=tolerance, atol=tolerance * np.abs(other).max(initial=0))


def _kind(array: np.ndarray) -> str:
    return f"an array of shape {array.shape}" if array.ndim else "a number"


def _short(value: Any) -> str:
    value = value.item() if isinstance(value, np.generic) else value
    number = {int: "{:,}", float: "{:.6g}"}.get(type(value), "{!r}")
    return number.format(value) if len(repr(value)) <= 60 else f"{value!r:.57}..."


def _describe(function: Callable[..., Any], arguments: tuple[Any, ...]) -> str:
    """Arguments under the learner's own names, arrays by their shapes: "r=4, x (2, 3)"."""
    try:
        names = list(inspect.signature(function).bind(*arguments).arguments)
    except (TypeError, ValueError):  # it takes another number of arguments, or does not say
        names = []
    if len(names) != len(arguments):
        names = [f"argument {i + 1}" for i in range(len(arguments))]
    return ", ".join(
        f"{name} {v.shape}" if getattr(v, "shape", ()) else f"{name}={_short(v)}"
        for name, v in zip(names, arguments, strict=True)
    )
