"""What a learner has answered, in a file: one format for the quiz and for the page.

    {"minilora progress": 1, "cards": {"what-is-lora": {
        "state": 2, "step": null, "stability": 2.3, "difficulty": 2.1,
        "due": "2026-11-28T09:00:00+00:00", "last_review": "2026-11-26T09:00:00+00:00",
        "answered": 3, "right": 2}}}

A card's first six fields are those of fsrs.Card (review.py). What is unknown here, such as a card
of another version, stays in the file. A file that cannot be read is renamed, never overwritten.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import platformdirs

from minilora.system.errors import UsageError
from minilora.system.files import make_folder, write_atomically

FORMAT, VERSION = "minilora progress", 1
_LARGEST = 10_000_000  # bytes, of a file; all cards together need about 50,000
_MOST = 10**9  # answers to one card
Entry = dict[str, Any]  # what is kept of one card


def default_path() -> Path:
    return platformdirs.user_data_path("minilora") / "progress.json"


class Progress:
    """cards: what is kept, by the card's id. note: what was wrong with the file, a sentence or "".

    kept: False once the file cannot be written; answers are then forgotten at the end.
    """

    def __init__(self, path: Path | None = None) -> None:
        """path: a file that may not be there yet; by default in the user's data folder.

        Raises UsageError if it was written by a later version, or if the file at a path that was
        given is no progress at all.
        """
        self.path = path or default_path()
        self.note = ""
        self.kept = True
        self._rest: dict[str, Any] = {}
        self.cards: dict[str, Entry] = {}
        try:
            content = _content(self.path)
        except FileNotFoundError:
            content = b""
        except OSError as error:
            self._give_up(error)
            return
        if not content.strip():
            return
        if path and f'"{FORMAT}"'.encode() not in content:
            raise UsageError(f"{path} is not a file of progress, and is left as it is; choose "
                             "another with --progress")  # fmt: skip
        self._read(content)

    def _read(self, content: bytes) -> None:
        try:
            found = json.loads(content)
            json.dumps(found, indent=1)  # Python 3.12 reads deeper lists than it can write
        except (ValueError, RecursionError):
            found = None
        version = found.get(FORMAT) if isinstance(found, dict) else None
        if type(version) is int and version > VERSION:
            raise UsageError(
                f"{self.path} was written by a later minilora (progress {version}, this one knows "
                f"{VERSION}): update minilora, or choose another file with --progress"
            )
        cards = found.get("cards") if version == VERSION else None
        if not isinstance(cards, dict):
            self._set_aside("cannot be read: progress starts anew")
            return
        self._rest = found
        self.cards = {name: entry for name, entry in cards.items() if is_entry(entry)}
        if broken := len(cards) - len(self.cards):
            number = "1 card" if broken == 1 else f"{broken} cards"
            self._set_aside(f"has {number} of {len(cards)} that cannot be read")

    def save(self) -> None:
        """Write the file, unless that has failed before."""
        if not self.kept:
            return
        text = json.dumps(self._rest | {FORMAT: VERSION, "cards": self.cards}, indent=1)
        try:
            if self.path == default_path():
                make_folder(self.path.parent)
            write_atomically(self.path, lambda path: path.write_text(text + "\n", "utf-8"))
        except OSError as error:
            self._give_up(error)

    def _set_aside(self, problem: str) -> None:
        number = 1
        while (aside := self._aside(number)).exists():
            number += 1
        try:
            self.path.rename(aside)
        except OSError as error:
            self._give_up(error)
        else:
            self.note = f"{self.path} {problem}, and the file is kept as {aside.name}"

    def _aside(self, number: int) -> Path:
        return self.path.with_name(f"{self.path.stem}.broken-{number}{self.path.suffix}")

    def _give_up(self, error: OSError) -> None:
        self.kept = False
        why = f"{self.path}: {error.strerror}" if error.strerror else str(error)
        self.note = f"progress is not kept: {why}"


def _content(path: Path) -> bytes:
    """Raises OSError for what is no file, such as a pipe, of which one would read for ever."""
    if path.exists() and not path.is_file():
        raise OSError(f"{path} is not a file; choose another with --progress")
    if path.exists() and path.stat().st_size > _LARGEST:
        raise OSError(f"{path} is too large to be progress; choose another with --progress")
    return path.read_bytes()


def is_entry(entry: Any) -> bool:
    """Is this what is kept of one card, with values that can be?"""
    try:
        fits = all(check(entry[name]) for name, check in _FIELDS.items())
        was_asked = None not in (entry[name] for name in ("stability", "difficulty", "last_review"))
        return (
            fits
            and entry["right"] <= entry["answered"]
            and (was_asked or (entry["state"] == 1 and entry["answered"] == 0))
            and (entry["state"] != 3 or entry["step"] is not None)
        )
    except (TypeError, KeyError):
        return False


def _whole(low: int, high: int = _MOST) -> Callable[[Any], bool]:
    return lambda value: type(value) is int and low <= value <= high


def _number(low: float, high: float) -> Callable[[Any], bool]:
    return lambda value: value is None or (type(value) in (int, float) and low <= value <= high)


def _is_time(value: Any) -> bool:
    """With a time zone, and in a year in which it can be brought into any other zone."""
    try:
        time = datetime.fromisoformat(value)
    except ValueError:
        return False
    return time.tzinfo is not None and 1970 < time.year < 9999


_FIELDS: dict[str, Callable[[Any], bool]] = {
    "state": _whole(1, 3),
    "step": lambda value: value is None or _whole(0)(value),
    "stability": _number(0.001, 1e6),
    "difficulty": _number(1, 10),
    "due": _is_time,
    "last_review": lambda value: value is None or _is_time(value),
    "answered": _whole(0),
    "right": _whole(0),
}
