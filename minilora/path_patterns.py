"""Which paths a pattern names, by PEFT's rules, in a time that no pattern can make long.

Patterns come from files that others wrote, and Python's `re` tries one way to match after another:
(a+)+b against forty a's takes it hours. Here what repeats or branches is followed in all ways at
once: for each part of a pattern, and each place where it may begin, the places where it may end
are found once. Source: Thompson 1968, "Regular expression search algorithm".
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from functools import lru_cache
from re import _constants as op  # type: ignore[attr-defined]
from re import _parser  # type: ignore[attr-defined]
from typing import Any

from minilora.system.errors import UsageError, brief

_MOST_LETTERS = 5_000  # of all patterns together, without plain ones
_MOST_REPEATS = 100
_DEEPEST = 30  # groups in one another
_PLAIN = re.compile(r"([\w.-]|\\\.)*")  # neither repeats nor branches, as most paths do not
_FLAGS = re.UNICODE | re.VERBOSE | re.DOTALL | re.IGNORECASE
_REPEATS = (op.MAX_REPEAT, op.MIN_REPEAT)
_LOOKS = (op.ASSERT, op.ASSERT_NOT)
_KNOWN = (op.LITERAL, op.NOT_LITERAL, op.ANY, op.IN, op.BRANCH, op.SUBPATTERN, op.AT)
_CLASSES = {
    op.CATEGORY_DIGIT: r"\d",
    op.CATEGORY_NOT_DIGIT: r"\D",
    op.CATEGORY_SPACE: r"\s",
    op.CATEGORY_NOT_SPACE: r"\S",
    op.CATEGORY_WORD: r"\w",
    op.CATEGORY_NOT_WORD: r"\W",
}


def require_patterns(texts: Iterable[str]) -> None:
    """Raise ValueError for a text that is no regular expression, for one with parts that are not
    matched here (references back, atomic groups, flags of a group), and for more than 5,000 letters
    or 100 repeats in all."""
    letters = repeats = 0
    for text in texts:
        try:
            parsed = _parsed(text)
            repeats += _known_repeats(parsed, text)
        except (re.error, OverflowError) as error:
            raise UsageError(f"{brief(text)} is not a regular expression: {error}") from None
        except RecursionError:
            raise UsageError(f"{brief(text)} is nested too deep for a pattern") from None
        if parsed.state.flags & ~_FLAGS:
            raise UsageError(f"{brief(text)} has flags that are not supported in a pattern")
        letters += 0 if _PLAIN.fullmatch(text) else len(text)
    if letters > _MOST_LETTERS or repeats > _MOST_REPEATS:
        raise UsageError(
            f"the patterns have {letters:,} characters and repeat something {repeats:,} times; at "
            f"most {_MOST_LETTERS:,} and {_MOST_REPEATS} are matched: name the modules in full"
        )


def match_whole(pattern: str, path: str) -> bool:
    """Whether a regular expression matches a whole path."""
    if _PLAIN.fullmatch(pattern):
        return _fits(pattern, path)
    return len(path) in _Match(pattern, path).after(0)


def match_end(pattern: str, path: str) -> bool:
    """Whether a regular expression matches a path, or its end after a dot."""
    if _PLAIN.fullmatch(pattern):
        before = len(path) - len(pattern.replace(r"\.", "."))
        return (before == 0 or path[:before].endswith(".")) and _fits(pattern, path[before:])
    match = _Match(pattern, path)
    starts = [0, *(i + 1 for i, letter in enumerate(path) if letter == ".")]
    return any(len(path) in match.after(start) for start in starts)


def match(patterns: str | Iterable[str], path: str) -> bool:
    """PEFT's rule for target_modules and exclude_modules: a string is a regular expression for a
    whole path, and of a list each is a name that a path is, or ends in after a dot."""
    if isinstance(patterns, str):
        return match_whole(patterns, path)
    return any(path == name or path.endswith(f".{name}") for name in patterns)


_parsed = lru_cache(1000)(_parser.parse)


def _fits(plain: str, path: str) -> bool:
    """Whether a pattern without repeats and branches matches a whole path: a dot is any letter, and
    only itself after a backslash."""
    letters = plain.replace(r"\.", "\0")
    return len(letters) == len(path) and all(
        one in (other, ".") or (one == "\0" and other == ".")
        for one, other in zip(letters, path, strict=True)
    )


def _known_repeats(parts: Iterable[tuple[Any, Any]], text: str, depth: int = 0) -> int:
    """How many parts of a pattern repeat something. Raises ValueError for parts of other kinds."""
    if depth > _DEEPEST:
        raise RecursionError
    repeats = 0
    for kind, about in parts:
        with_flags = kind is op.SUBPATTERN and (about[1] or about[2])
        if with_flags or kind not in (*_KNOWN, *_REPEATS, *_LOOKS):
            raise UsageError(f"{brief(text)} has parts that are not supported in a pattern: {kind}")
        inside: Sequence[Any] = about[1] if kind is op.BRANCH else []
        if kind in (*_REPEATS, *_LOOKS, op.SUBPATTERN):
            inside = [about[-1]]
        repeats += kind in _REPEATS
        repeats += sum(_known_repeats(one, text, depth + 1) for one in inside)
    return repeats


class _Match:
    """A pattern and a path; what has been found is kept, so that nothing is looked at twice."""

    def __init__(self, pattern: str, path: str) -> None:
        self.path, self.parts = path, _parsed(pattern)
        self.any_case = bool(self.parts.state.flags & re.IGNORECASE)
        self.found: dict[tuple[int, int], set[int]] = {}

    def after(self, start: int, parts: Iterable[tuple[Any, Any]] | None = None) -> set[int]:
        """Where in the path a match of these parts, or of the pattern, may end, if it begins at
        `start`."""
        places = {start}
        for part in self.parts if parts is None else parts:
            places = set[int]().union(*(self._after_part(part, place) for place in places))
        return places

    def _after_part(self, part: tuple[Any, Any], start: int) -> set[int]:
        key = (id(part), start)
        if key not in self.found:
            self.found[key] = self._ends(*part, start)
        return self.found[key]

    def _ends(self, kind: Any, about: Any, start: int) -> set[int]:
        if kind is op.SUBPATTERN:
            return self.after(start, about[-1])
        if kind is op.BRANCH:
            return set[int]().union(*(self.after(start, choice) for choice in about[1]))
        if kind in _REPEATS:
            least, most, inner = about
            return self._repeated(least, most, inner, start)
        if kind in _LOOKS:
            direction, inner = about
            holds = self._looks(direction, inner, start) == (kind is op.ASSERT)
            return {start} if holds else set()
        if kind is op.AT:
            return {start} if self._is_at(about, start) else set()
        is_one = start < len(self.path) and self._is_letter(kind, about, self.path[start])
        return {start + 1} if is_one else set()

    def _repeated(self, least: int, most: int, parts: Any, start: int) -> set[int]:
        found: set[int] = set()
        places, n = {start}, 0
        while places:
            if n >= least:
                found |= places
            if n >= most:
                break
            further = set[int]().union(*(self.after(place, parts) for place in places))
            if n < least and further == places:
                n = least  # nothing changes any more, however often
            elif n >= least:
                further -= found
            places, n = further, n + 1
        return found

    def _looks(self, direction: int, parts: Any, start: int) -> bool:
        if direction > 0:
            return bool(self.after(start, parts))
        return any(start in self.after(place, parts) for place in range(start + 1))

    def _is_at(self, kind: Any, start: int) -> bool:
        if kind in (op.AT_BEGINNING, op.AT_BEGINNING_STRING):
            return start == 0
        if kind in (op.AT_END, op.AT_END_STRING):
            return start == len(self.path)
        is_boundary = self._is_word(start - 1) != self._is_word(start)
        return is_boundary == (kind is op.AT_BOUNDARY)

    def _is_word(self, place: int) -> bool:
        inside = 0 <= place < len(self.path)
        return inside and re.fullmatch(r"\w", self.path[place]) is not None

    def _is_letter(self, kind: Any, about: Any, letter: str) -> bool:
        letters = {letter, letter.lower(), letter.upper()} if self.any_case else {letter}
        if kind is op.ANY:
            return letter != "\n"
        if kind is op.NOT_LITERAL:
            return chr(about) not in letters
        if kind is op.IN:
            items: Sequence[tuple[Any, Any]] = about
            negated = items[0][0] is op.NEGATE
            return negated != any(self._is_letter(*item, letter) for item in items[negated:])
        if kind is op.RANGE:
            return any(about[0] <= ord(one) <= about[1] for one in letters if len(one) == 1)
        if kind is op.CATEGORY:
            return re.fullmatch(_CLASSES[about], letter) is not None
        return chr(about) in letters  # a literal
