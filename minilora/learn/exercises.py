"""How an exercise is checked: is a learner's function right, and if not, what is wrong with it?

`check.count_lora(count_lora)` gives a Verdict, whose text a notebook shows below the cell. It is
true only if the answer is correct. To add an exercise, write a function of its name in its lesson's
file, lesson_NN.py, and import it in check.py:

    @exercise(hints=("a nudge", "nearly the answer, `code` in backticks"))
    def double(yours: Yours) -> str:
        for x in (3, 5):
            got = yours(x)
            known = {"that is x squared": x * x}
            yours.compare(f"result for {yours.inputs}", got, 2 * x, known)
        return "Doubled, twice."

`yours` is the learner's function, called by position and guarded (guards.py); `inputs` are those
of the latest call, so call first. `compare` never ends the check. At the end the first result that
is wrong is told; a mistake is named as the reason only if it explains the results of *all* cases,
and put as a question if it explains that one but not all. `require` is for properties, and ends the
check. What a checker returns is said after "Correct."

Choose cases in which every known mistake and every *other algorithm* gives a result of its own, and
none on an edge where rounding decides. Answers for the tests, right and wrong ones, go into
tests/learn/answers_NN.py; lessons/README.md says how a lesson uses an exercise.
"""

from __future__ import annotations

import functools
import inspect
import os
import sys
import textwrap
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from minilora.learn.guards import TookTooLong, guarded_call, line_of
from minilora.module import Module
from minilora.system.errors import UsageError, how_many
from minilora.tensor import Tensor

EXERCISES: dict[str, tuple[str, str]] = {}  # the two hints of each exercise, by its name
STRICT = "MINILORA_STRICT"  # the environment variable that makes every check raise
_wrong_answers: Counter[str] = Counter()  # in this process, since the last correct one
_NOT_ATTEMPTED = "Not attempted yet: put your code in place of the ... and run both cells."
TIME_LIMIT = 200.0 if sys.platform == "emscripten" else 20.0  # seconds for one call


@dataclass(frozen=True)
class Verdict:
    """status: "correct", "wrong" or "not attempted"; true only if correct, so that
    `assert check.double(double)` grades. A notebook shows the message."""

    exercise: str
    status: str
    message: str

    def __bool__(self) -> bool:
        return self.status == "correct"

    def __repr__(self) -> str:
        """The message, broken between words: a page breaks a line that is too long anywhere."""
        lines = self.message.splitlines()
        return "\n".join(textwrap.fill(line, 80, break_long_words=False) for line in lines)


class Wrong(Exception):  # noqa: N818
    """Ends a check. Its text, one sentence without a full stop, says what is wrong."""


class NotAttempted(Exception):  # noqa: N818
    """Ends a check: what was called is a stub."""


def strict(on: bool = True) -> None:
    """From now on a check raises AssertionError, with its message, unless the answer is correct.

    For nbgrader, otter, pytest and CI; the environment variable MINILORA_STRICT=1 does the same.
    """
    os.environ[STRICT] = "1" if on else ""


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
            verdict = _judge(name, checker, answer)
            if not verdict and os.environ.get(STRICT):
                raise AssertionError(f"{name}: {verdict.message}")
            return verdict

        return check

    return register


def _judge(name: str, checker: Callable[[Yours], Any], answer: Any) -> Verdict:
    yours = Yours(answer)
    remark, ended_by = None, None
    try:
        if answer is None or answer is ...:
            raise NotAttempted
        how = f"this check takes the function itself, not its result: check.{name}({name})"
        require(callable(answer), how)
        remark = checker(yours)
    except NotAttempted:
        return Verdict(name, "not attempted", _NOT_ATTEMPTED)
    except Wrong as wrong:
        ended_by = str(wrong)
    except Exception as error:  # the checker met a result that it cannot read
        ended_by = f"your result is not of the expected kind ({type(error).__name__}: {error})"
    diagnosis = yours.diagnosis(to_the_end=ended_by is None) or ended_by
    if diagnosis is None:
        _wrong_answers[name] = 0
        return Verdict(name, "correct", f"Correct. {remark or ''}".strip())
    given, (first, second) = _wrong_answers[name], EXERCISES[name]
    _wrong_answers[name] += 1
    hint = f"Hint 2: {second}" if given else f"Hint 1: {first}"
    end = "" if diagnosis.endswith("?") else "."
    return Verdict(name, "wrong", f"Not yet: {diagnosis}{end}\n{hint}")


@dataclass(frozen=True)
class _Comparison:
    """seen: what to say if it is wrong. known: the mistakes that were looked for; fitting: those
    that give just this result."""

    right: bool
    seen: str
    known: tuple[str, ...]
    fitting: tuple[str, ...]


class Yours:
    """The learner's function. `inputs` describes the arguments of the latest call."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function, self.inputs, self.answered = function, "", False
        self.comparisons: list[_Comparison] = []

    def __call__(self, *arguments: Any, changes: Sequence[int] = ()) -> Any:
        """What the function returns, which must not be None. changes: the positions of arguments
        that the statement of the exercise allows it to change."""
        result = self.use(self.function, *arguments, changes=changes, may_be_none=False)
        self.answered = True
        return result

    def use(
        self,
        function: Callable[..., Any],
        *arguments: Any,
        changes: Sequence[int] = (),
        may_be_none: bool = True,
    ) -> Any:
        """The same for what the learner's function has returned: a layer, a method, a closure."""
        names = _names(function, arguments)
        self.inputs = _describe(names, arguments)
        call = guarded_call(function, arguments, TIME_LIMIT)
        if call.met_stub and isinstance(call.error, NotImplementedError):
            raise NotAttempted
        if call.error is not None:
            raise Wrong(self._what_happened(call.error))
        for i in call.changed:
            if i not in changes:
                raise Wrong(_changed(names[i], arguments[i]))
        if not may_be_none and (call.result is None or call.result is ...):
            if call.printed:
                raise Wrong(
                    f"it prints and returns None {self._for_inputs()}; put return in place of print"
                )
            if call.met_stub:
                raise NotAttempted
            where = " in one of its branches" if self.answered else ""
            raise Wrong(f"it returns None {self._for_inputs()}; is return missing{where}?")
        return call.result

    def _for_inputs(self) -> str:
        return f"for {self.inputs}" if self.inputs else "without arguments"

    def _what_happened(self, error: BaseException) -> str:
        for_inputs = self._for_inputs()
        if isinstance(error, TookTooLong):
            return f"no result after {TIME_LIMIT:g} seconds {for_inputs}: does a loop never end?"
        if isinstance(error, SystemExit):
            return f"it ends Python with exit() {for_inputs}; put return in place of it"
        line = line_of(error)
        at = f", in the line `{line}`" if line and len(line) < 80 else ""
        return f"your function raised {type(error).__name__}: {error} {for_inputs}{at}"

    def compare(
        self,
        what: str,
        got: Any,
        expected: Any,
        mistakes: Mapping[str, Any] | None = None,
        tolerance: float = 1e-5,
    ) -> None:
        """Note whether `got`, of the latest call, has the shape and the values expected.

        what: completes "your ... is". Lists, tuples, Tensors, float32 and float64 all will
        do. Whole numbers must be exact, others have a tolerance relative to the largest; of texts,
        case and outer spaces do not count. mistakes: what a known mistake would have given here.
        """
        right, array = np.asarray(expected), as_array(got)
        wanted = _wanted(right)
        mistakes = {} if mistakes is None else mistakes
        if array is None or (array.dtype.kind == "U") != (right.dtype.kind == "U"):
            found = _short(got) if isinstance(got, int | str) else f"of type {type(got).__name__}"
            seen = f"your {what} is {found}; expected {wanted}"
            self.comparisons.append(_Comparison(False, seen, tuple(mistakes), ()))
            return
        fitting = tuple(
            why for why, wrong in mistakes.items() if _same(array, np.asarray(wrong), tolerance)
        )
        seen = f"your {what} is {_difference(array, right)}"
        is_right = _same(array, right, tolerance)
        self.comparisons.append(_Comparison(is_right, seen, tuple(mistakes), fitting))

    def diagnosis(self, to_the_end: bool) -> str | None:
        """What is wrong by the comparisons so far, or None. to_the_end: whether the check has come
        to its end; if it has not, no mistake explains everything."""
        wrong = [one for one in self.comparisons if not one.right]
        if not wrong:
            return None
        first = wrong[0]
        explained = {why: self._cases_explained_by(why) for why in first.fitting}
        if not explained:
            return first.seen
        why = max(explained, key=lambda why: explained[why])
        if to_the_end and explained[why] == len(self.comparisons):
            return f"{first.seen}: {why}"
        asked = f'Is this the reason: "{why}"? It would explain this, but not every case'
        return f"{first.seen}. {asked}"

    def _cases_explained_by(self, why: str) -> int:
        """A mistake that was not looked for in a case is taken to make no difference there."""
        return sum(
            why in one.fitting or (one.right and why not in one.known) for one in self.comparisons
        )


def require(condition: Any, message: str) -> None:
    """Raise Wrong with this message unless the condition holds."""
    if not condition:
        raise Wrong(message)


def unpack(got: Any, names: str) -> list[Any]:
    """The values of a result that should be several: a tuple, a list or an array.
    names: "A, B", as they would stand after return. Raises Wrong."""
    n = len(names.split(","))
    if isinstance(got, tuple | list | np.ndarray) and len(got) == n:
        return list(got)
    several = isinstance(got, tuple | list)
    found = how_many(len(got), "value") if several else type(got).__name__
    raise Wrong(f"it returns {found}; expected {n} values, as in `return {names}`")


def as_array(got: Any) -> np.ndarray | None:
    """A result (a list, a Tensor ...) as an array of numbers or a text; None if it is neither."""
    try:
        array = np.asarray(got.data if isinstance(got, Tensor) else got)
        if array.dtype.kind == "O":  # Fraction and Decimal have a value; so may what a list holds
            array = array.astype(np.float64)
    except (TypeError, ValueError, OverflowError):
        return None
    is_text = array.dtype.kind == "U" and array.ndim == 0
    return array if array.dtype.kind in "biuf" or is_text else None


def _same(array: np.ndarray, other: np.ndarray, tolerance: float) -> bool:
    if array.dtype.kind == "U" or other.dtype.kind == "U":
        return str(array).strip().casefold() == str(other).strip().casefold()
    if array.shape != other.shape or other.dtype.kind in "biu":
        return np.array_equal(array, other)
    return np.allclose(array, other, rtol=tolerance, atol=tolerance * np.abs(other).max(initial=0))


def _difference(array: np.ndarray, right: np.ndarray) -> str:
    """Completes "your result is": what it is and what is expected, of arrays the worst entry."""
    if array.shape != right.shape:
        return f"{in_words(array.shape)}; expected {in_words(right.shape)}"
    if right.dtype.kind == "U":
        return f"{_short(str(array))}; expected {_wanted(right)}"
    gap = np.abs(array.astype(float) - right.astype(float))
    at = np.unravel_index(np.argmax(gap), right.shape)
    place = f" at {[int(i) for i in at]}" if at else ""
    return f"{_short(array[at])}{place}; expected {_short(right[at])}"


def _wanted(right: np.ndarray) -> str:
    return _short(str(right)) if right.dtype.kind == "U" else in_words(right.shape)


def in_words(shape: tuple[int, ...]) -> str:
    """ "an array of shape (2, 3)", or "a number" for the shape ()."""
    return f"an array of shape {shape}" if shape else "a number"


def _short(value: Any) -> str:
    if isinstance(value, np.ndarray | np.generic):
        value = value.tolist()
    kind = type(value)
    if isinstance(value, type):
        return f"the class {value.__name__.lstrip('_')}"
    if isinstance(value, Module | np.random.Generator) or kind.__repr__ is object.__repr__:
        return f"a {kind.__name__.lstrip('_')}"  # their repr is long, or tells an address
    if isinstance(value, Mapping):
        return f"a dictionary of {len(value)}"
    number = {int: "{:,}", float: "{:.6g}"}.get(type(value), "{!r}")
    if len(repr(value)) <= 60:
        return number.format(value)
    are_floats = isinstance(value, list) and all(isinstance(one, float) for one in value)
    text = f"[{', '.join(f'{one:.4g}' for one in value)}]" if are_floats else repr(value)
    return text if len(text) <= 60 else f"{text:.57}..."


def _names(function: Callable[..., Any], arguments: tuple[Any, ...]) -> list[str]:
    """The learner's own names of the arguments, if the function tells them."""
    try:
        names = list(inspect.signature(function).bind(*arguments).arguments)
    except (TypeError, ValueError):  # it takes another number of arguments, or does not say
        names = []
    right_number = len(names) == len(arguments)
    return names if right_number else [f"argument {i + 1}" for i in range(len(arguments))]


def _changed(name: str, value: Any) -> str:
    """What was done to an argument, and what to do instead, in the words of its kind."""
    if isinstance(value, Tensor | Module):
        parts = "its `.data` or `.requires_grad`"
        if isinstance(value, Module):
            parts = "the `.data` or `.requires_grad` of its parameters"
        return f"you changed the {name} you were given: leave {parts} as it was"
    if isinstance(value, list):
        done, instead = f"`{name}.append(...)`", f"{name} = list({name})"
    elif isinstance(value, dict):
        done, instead = f"`{name}.pop(...)`", f"{name} = dict({name})"
    else:
        done, instead = f"`{name} += ...`", f"new = {name} + ..."
    return (
        f"you changed the {name} you were given, as {done} and `{name}[...] = ...` do; "
        f"make a new one, as in `{instead}`"
    )


def _describe(names: list[str], arguments: tuple[Any, ...]) -> str:
    """Arguments as "r=4, x (2, 3)": large arrays by their shapes."""
    return ", ".join(
        f"{name}={_short(value)}" if _is_short(value) else f"{name} {np.shape(value)}"
        for name, value in zip(names, arguments, strict=True)
    )


def _is_short(value: Any) -> bool:
    shape = getattr(value, "shape", ())
    return not shape or (len(shape) == 1 and shape[0] <= 8)
