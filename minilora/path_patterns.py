"""Which paths a pattern names, by PEFT's rules, in a time that no pattern can make long.

Patterns come from files that others wrote, and Python's `re`, which PEFT matches them with, tries
one way to match after another: (a|aa)+b against forty a's takes it hours. The package `regex` reads
what `re` reads and stops in time; what it reads otherwise is refused, and so is what it counts too
far to look at the clock.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from functools import lru_cache
from typing import Any

from minilora.system.errors import UsageError, brief

_MOST_LETTERS = 5_000  # of all patterns together, without plain ones
_MOST_TIMES = 1_000
_SECONDS = 0.5  # of the process, in which a match of a path takes microseconds
_PLAIN = re.compile(r"([\w.-]|\\\.)*")  # neither repeats nor branches, as most paths do not
_TIMES = re.compile(r"\{(\d*),?(\d*)\}")
_READ_OTHERWISE = {
    r"\{(?!\d+(,\d*)?\}|,\d+\})": "braces that do not count",  # in regex, a number of mistakes
    r"\[:": "the name of a class of letters",
    r"\\[1-9]|\(\?P=": "a reference back",  # PEFT counts a group more in rank_pattern
    r"\(\?\(": "a condition",
    r"\(\?[imsux]*a": "the flag a",
    r"[*+?}]\+|\(\?>": "a repetition that gives nothing back",
}


def require_patterns(texts: Iterable[str]) -> None:
    """Raise ValueError for a text that is no regular expression, for one with parts that are not
    matched here, for one that counts further than 1,000, and for more than 5,000 letters in all."""
    patterns = [text for text in texts if not _PLAIN.fullmatch(text)]
    if (letters := sum(map(len, patterns))) > _MOST_LETTERS:
        raise UsageError(
            f"the patterns have {letters:,} characters; at most {_MOST_LETTERS:,} are matched: "
            "name the modules in full"
        )
    for text in patterns:
        try:
            re.compile(text)
        except (re.error, OverflowError, ValueError) as error:
            raise UsageError(f"{brief(text)} is not a regular expression: {error}") from None
        except RecursionError:
            raise UsageError(f"{brief(text)} is nested too deep for a pattern") from None
        for part, what in _READ_OTHERWISE.items():
            if re.search(part, text):
                raise UsageError(f"{brief(text)} has {what}, which is not supported in a pattern")
        times = math.prod(int(most or least or 1) or 1 for least, most in _TIMES.findall(text))
        if times > _MOST_TIMES:
            raise UsageError(
                f"{brief(text)} counts too far; the product of all numbers in braces may be "
                f"{_MOST_TIMES:,} at most"
            )
        _compiled(text)


def match_whole(pattern: str, path: str) -> bool:
    """Whether a regular expression matches a whole path. Raises ValueError, as match_end and match
    do, if that takes too long, and for letters beyond ASCII, which regex may class otherwise."""
    return _matches_from(0, pattern, path)


def match_end(pattern: str, path: str) -> bool:
    """Whether a regular expression matches a path, or its end after a dot."""
    if _PLAIN.fullmatch(pattern):  # files may have hundreds, each as long as what it matches
        start = len(path) - len(pattern.replace(r"\.", "."))
        is_start = start == 0 or (start > 0 and path[start - 1] == ".")
        return is_start and _matches_from(start, pattern, path)
    starts = [0, *(i + 1 for i, letter in enumerate(path) if letter == ".")]
    return any(_matches_from(start, pattern, path) for start in starts)


def match(patterns: str | Iterable[str], path: str) -> bool:
    """PEFT's rule for target_modules and exclude_modules: a string is a regular expression for a
    whole path, and of a list each is a name that a path is, or ends in after a dot."""
    if isinstance(patterns, str):
        return match_whole(patterns, path)
    return any(path == name or path.endswith(f".{name}") for name in patterns)


@lru_cache(10_000)
def _compiled(pattern: str) -> Any:
    import regex

    try:
        return regex.compile(pattern, regex.VERSION0)
    except RecursionError:
        raise UsageError(f"{brief(pattern)} is nested too deep for a pattern") from None


def _matches_from(start: int, pattern: str, path: str) -> bool:
    if not (pattern + path).isascii() and not _PLAIN.fullmatch(pattern):  # other words, other cases
        raise UsageError(
            f"{brief(pattern)} cannot be compared with {brief(path)}, as there are letters beyond "
            "ASCII: name the modules in full"
        )
    try:
        found = _compiled(pattern).fullmatch(path, pos=start, timeout=_SECONDS)
    except TimeoutError:
        raise UsageError(
            f"{brief(pattern)} takes too long to compare with {brief(path)}: name the modules in "
            "full, or repeat nothing that itself repeats"
        ) from None
    return found is not None
