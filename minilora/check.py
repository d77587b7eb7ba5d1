"""The checkers of the lessons' exercises: is a learner's function right, and if not, what is wrong?

`check.count_lora(count_lora)` gives a Verdict, whose text a notebook shows below the cell. It never
raises, whatever the learner's function does. To add an exercise, write a function of its name:

    @exercise(hints=("a nudge", "nearly the answer, `code` in backticks"))
    def double(yours: Yours) -> None:
        for x in (3, 5):
            got = yours(x)
            compare(f"result for {yours.inputs}", got, 2 * x, {"that is x squared": x * x})

`yours` is the learner's function, called by position; its `inputs` are those of the latest call, so
call first. `compare` looks at the shape first, then at the values, and names the mistake if the
result is that of a known one; `require` is for anything else. Choose inputs for which every known
mistake gives a result of its own. What a checker returns is said after "Correct." Each needs its
wrong solutions in tests/test_check.py; lessons/README.md says how a lesson uses it.
Imports tensor.py.
"""

from __future__ import annotations

import functools
import inspect
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

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
        except Exception as error:
            what = f"{type(error).__name__}: {error}"
            raise Wrong(f"your function raised {what} for {self.inputs}") from None
        if result is None or result is ...:
            raise Wrong(f"it returns None for {self.inputs}") if self.answered else NotAttempted
        self.answered = True
        return result


def exercise(hints: tuple[str, str]) -> Callable[[Callable[[Yours], Any]], Callable[..., Verdict]]:
    """Register a checker under its own name; called, it gives a Verdict instead of raising."""

    def register(checker: Callable[[Yours], Any]) -> Callable[..., Verdict]:
        name = checker.__name__
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
        raise Wrong(f"your {what} is a {type(got).__name__}; expected {_kind(right)}")
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


@exercise(
    hints=(
        "A has d_in rows and r columns. How many numbers is that, and how many has B?",
        "The sum of both sizes: `d_in * r` for A and `r * d_out` for B.",
    )
)
def count_lora(yours: Yours) -> str:
    for d_in, d_out, r in ((64, 256, 4), (4096, 4096, 8), (3, 5, 1)):
        full, both = d_in * d_out, r * (d_in + d_out)
        mistakes = {
            "that is W, which is frozen": full,
            "that counts the frozen W too": full + both,
            "that is A alone, and B trains too": r * d_in,
            "that is B alone, and A trains too": r * d_out,
            "B has d_out columns, not d_in": 2 * r * d_in,
            "A and B are two arrays: add their sizes, do not multiply them": r * r * full,
            "that is for r = 1": d_in + d_out,
        }
        got = yours(d_in, d_out, r)
        compare(f"count for {yours.inputs}", got, both, mistakes)
    return "The count is proportional to r, and grows with the sides of W, not with its area."


_BLOCK = {"q_proj": (64, 64), "k_proj": (64, 32), "v_proj": (64, 32), "up_proj": (64, 256)}


@exercise(
    hints=(
        "What does one target cost? Its (d_in, d_out) is in `shapes`. Sum over the targets.",
        "Every block has `sum(r * sum(shapes[name]) for name in targets)`.",
    )
)
def count_model(yours: Yours) -> str:
    for n_layer, r, targets in ((3, 4, ["q_proj", "v_proj"]), (2, 5, ["up_proj"])):
        sides = [sum(_BLOCK[name]) for name in targets]
        mistakes = {
            "that is one block, and the model has n_layer of them": r * sum(sides),
            "that adapts every matrix of a block: only targets are adapted": n_layer
            * r
            * sum(sum(shape) for shape in _BLOCK.values()),
            "that is one target; sum over all": n_layer * r * sides[0],
            "that is for r = 1": n_layer * sum(sides),
            "that takes each matrix as square; use both of its sides": n_layer
            * r
            * sum(2 * _BLOCK[name][0] for name in targets),
            "that is the matrices themselves, which are frozen": n_layer
            * sum(_BLOCK[name][0] * _BLOCK[name][1] for name in targets),
        }
        expected = n_layer * r * sum(sides)
        what = f"count for n_layer={n_layer}, r={r}, targets={targets}"
        compare(what, yours(dict(_BLOCK), n_layer, r, list(targets)), expected, mistakes)
    return "So the count of a whole model is a sum over its targets, times its blocks."


@exercise(
    hints=(
        "Set the two counts equal, r (d_in + d_out) = d_in d_out, and solve for r.",
        "r is `d_in * d_out / (d_in + d_out)`, not rounded.",
    )
)
def break_even_rank(yours: Yours) -> str:
    for d_in, d_out in ((64, 256), (100, 100), (7, 3)):
        expected = d_in * d_out / (d_in + d_out)
        mistakes = {
            "that is the largest rank W can have; LoRA stops saving well before": min(d_in, d_out),
            "that is right for a square matrix only": d_in / 2,
            "that is upside down": 1 / expected,
            "leave it unrounded": int(expected),
            "at that rank A and B together have twice as many numbers as W": 2 * expected,
        }
        got = yours(d_in, d_out)
        compare(f"rank for {yours.inputs}", got, expected, mistakes)
    return "For a square matrix it is d / 2: half of the rank that the matrix can have."


@exercise(
    hints=(
        "How many numbers does each further rank cost? How often does that fit in the budget?",
        "Divide the budget by the count at rank 1, with `//`, which rounds down.",
    )
)
def largest_rank(yours: Yours) -> str:
    n_layer, targets = 2, ["q_proj", "v_proj"]
    block = sum(sum(_BLOCK[name]) for name in targets)  # numbers per rank in one block
    step = n_layer * block
    for budget in (5 * step - 1, 5 * step, step - 1):
        expected = budget // step
        mistakes = {
            "no rank fits, and then the answer is 0": max(1, expected),
            "that is over the budget: round down": -(-budget // step),
            "a rank is a whole number": budget / step,
            "an adapter that needs exactly the budget is within it": (budget - 1) // step,
            "that forgets that every block has its adapters": budget // block,
        }
        got = yours(dict(_BLOCK), n_layer, list(targets), budget)
        compare(f"rank for budget={budget} at {step} numbers per rank", got, expected, mistakes)
    return "Fewer targets leave room for a higher rank, as in Table 5 of the paper."


@exercise(
    hints=(
        "Three parts: weights of everything, gradients and optimizer of what trains.",
        "`frozen * frozen_bits / 8 + trained * (2 + 2 + 8)` bytes; divide by 1e9.",
    )
)
def training_gigabytes(yours: Yours) -> str:
    for frozen, trained, bits in ((7e9, 1e9, 16), (0, 7e9, 16), (7e9, 2e9, 4)):
        weights = frozen * bits / 8
        mistakes = {
            "frozen numbers have no gradient and no moments": weights + 10 * frozen + 12 * trained,
            "the frozen weights must be in memory too": 12 * trained,
            "it lacks AdamW's two moments of 4 bytes each": weights + 4 * trained,
            "AdamW keeps two moments of 4 bytes each, 8 in all": weights + 8 * trained,
            "frozen_bits are bits, and a byte has 8": frozen * bits + 12 * trained,
            "10 bytes for each that trains, but its weight, gradient and moments take 12": weights
            + 10 * trained,
            "the frozen numbers take frozen_bits each, not 16": 2 * frozen + 12 * trained,
        }
        in_gb = {why: value / 1e9 for why, value in mistakes.items()}
        in_gb["that is bytes; a GB is 10^9 of them"] = weights + 12 * trained
        got = yours(frozen, trained, bits)
        compare(f"GB for {yours.inputs}", got, (weights + 12 * trained) / 1e9, in_gb)
    return "A trained number costs 12 bytes; a frozen one 2, or half a byte in 4 bits."


@exercise(
    hints=(
        "What is left after the reserve and the frozen weights? Each rank takes 12 bytes a number.",
        "`left = (gpu - reserve) * 1e9 - frozen * frozen_bits / 8`, and then "
        "`left // (12 * per_rank)`, or 0 if nothing is left.",
    )
)
def rank_for_gpu(yours: Yours) -> str:
    for frozen, per_rank, gpu, reserve, bits in (
        (int(4e9), int(1e6), 16, 4, 16),
        (int(4e9), int(1e6), 16, 4, 4),
        (int(7e9), int(1e6), 16, 4, 16),
    ):
        weights = frozen * bits / 8
        left = (gpu - reserve) * 1e9 - weights
        expected = max(0, int(left // (12 * per_rank)))
        mistakes = {
            "nothing is left for an adapter, and then the answer is 0": left // (12 * per_rank),
            "the reserve is not for weights: take it off first": (left + reserve * 1e9)
            // (12 * per_rank),
            "a trained number takes 12 bytes: weight, gradient, two moments": left
            // (2 * per_rank),
            "the frozen weights take their place first": (gpu - reserve) * 1e9 // (12 * per_rank),
            "the frozen numbers take frozen_bits each, not 16": ((gpu - reserve) * 1e9 - 2 * frozen)
            // (12 * per_rank),
            "a rank is a whole number: round down": left / (12 * per_rank),
        }
        got = yours(frozen, per_rank, gpu, reserve, bits)
        compare(f"rank for {yours.inputs}", got, expected, mistakes)
    return "What decides is whether the frozen weights fit; the adapter hardly counts."
