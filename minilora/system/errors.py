"""Errors that a user can mend: their text is one sentence with the cause and the remedy.

The command line shows these as that sentence alone. Any other exception is a fault of minilora's
own and keeps its traceback. `how_many` is for sentences with a number in them, `brief` for those
with a value that came from outside and may be of any size.
"""

from __future__ import annotations

import reprlib
from typing import Any


class MiniloraError(Exception):
    """Base of all errors that a user can mend."""


class UsageError(MiniloraError, ValueError):
    """A value, a file or a combination of them that cannot be meant."""


class StateError(MiniloraError, RuntimeError):
    """A step that is not possible now, such as a second backward pass through one graph."""


class MissingExtraError(MiniloraError, ModuleNotFoundError):
    """A package that only one extra needs is not installed."""


def how_many(n: int, what: str, several: str = "") -> str:
    """1 card, 2 cards; with several="entries" 1 entry, 2 entries."""
    return f"{n:,} {what if n == 1 else several or what + 's'}"


def brief(value: Any) -> str:
    """A value as Python writes it; of what is longer than a line, without the middle."""
    short = reprlib.Repr()
    short.maxstring = short.maxother = 60
    return short.repr(value)
