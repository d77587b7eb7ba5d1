"""A guess before a measurement: who has guessed first remembers what came out."""

from __future__ import annotations

from dataclasses import dataclass
from types import EllipsisType

from minilora.system.errors import UsageError


@dataclass(frozen=True)
class Prediction:
    """What a notebook shows of a guess. True if it was right, or near enough."""

    good: bool
    message: str

    def __bool__(self) -> bool:
        return self.good

    def __repr__(self) -> str:
        return self.message


def predict(
    guess: float | str | EllipsisType, measured: float | str, unit: str = "", within: float = 0.1
) -> Prediction:
    """Compare a guess with what was measured: numbers, or a text such as "LoRA".

    guess: `...` is none yet. within: the part of the measured number by which a guess may be off.
    Raises UsageError for a guess of another kind than what was measured.
    """
    seen = measured if isinstance(measured, str) else f"{measured:.4g} {unit}".strip()
    if isinstance(guess, EllipsisType):
        return Prediction(False, f"Measured: {seen}. Next time put a guess in place of the ...")
    if isinstance(guess, str) != isinstance(measured, str):
        kind = "a text" if isinstance(measured, str) else "a number"
        raise UsageError(f"the guess should be {kind}, got {guess!r}")
    if isinstance(guess, str) or isinstance(measured, str):
        right = str(guess).strip().casefold() == str(measured).strip().casefold()
        message = f"Right: {seen}." if right else f"No: you said {guess}, measured is {seen}."
        return Prediction(right, message)
    off = abs(guess - measured)
    if off <= within * abs(measured):
        return Prediction(True, f"Near enough: you said {guess:g}, measured is {seen}.")
    if measured == 0 or guess / measured <= 0:
        return Prediction(False, f"No: you said {guess:g}, measured is {seen}.")
    times = max(guess / measured, measured / guess)
    side = "high" if guess > measured else "low"
    return Prediction(False, f"Too {side} by a factor of {times:.3g}: measured is {seen}.")
