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
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, TypedDict

import platformdirs

from minilora.system.errors import UsageError, how_many
from minilora.system.files import make_folder, write_atomically
from minilora.system.readers import MIB, parse_json, read_bytes
from minilora.system.schemas import Range, checked

FORMAT, VERSION = "minilora progress", 1
_LARGEST = 10 * MIB  # of a file; all cards together need about 50,000 bytes
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
            content = read_bytes(self.path, _LARGEST)
        except FileNotFoundError:
            content = b""
        except (OSError, UsageError) as error:
            self._give_up(error)
            return
        if not content.strip():
            return
        if path and f'"{FORMAT}"'.encode() not in content:
            raise UsageError(f"{path} is not a file of progress, and is left as it is; choose "
                             "another with --progress")  # fmt: skip
        self._read(content)

    def _read(self, content: bytes) -> None:
        found, has_nan = {}, False
        try:
            found = parse_json(content, self.path)
        except UsageError:
            with suppress(UsageError):  # as text, NaN makes one card unreadable, not the file
                found = parse_json(content, self.path, nan=str)
                has_nan = True
        version = found.get(FORMAT)
        if type(version) is int and version > VERSION:
            raise UsageError(
                f"{self.path} was written by a later minilora (progress {version}, this one knows "
                f"{VERSION}): update minilora, or choose another file with --progress"
            )
        cards = found.get("cards") if type(version) is int and version == VERSION else None
        if not isinstance(cards, dict):
            self._set_aside("cannot be read: progress starts anew")
            return
        self._rest = found
        self.cards = {name: entry for name, entry in cards.items() if is_entry(entry)}
        if broken := len(cards) - len(self.cards):
            number = how_many(broken, "card")
            self._set_aside(f"has {number} of {len(cards)} that cannot be read")
        elif has_nan:
            self._set_aside("has NaN or infinity beside its cards")

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

    def _give_up(self, error: OSError | UsageError) -> None:
        self.kept = False
        reason = error.strerror if isinstance(error, OSError) else None
        why = f"{self.path}: {reason}" if reason else str(error)
        self.note = f"progress is not kept: {why}"


def is_entry(entry: Any) -> bool:
    """Is this what is kept of one card, with values that can be?"""
    try:
        found = checked(entry, _Fields, "entry")
    except UsageError:
        return False
    times = [found["due"], found["last_review"]]
    was_asked = None not in (found["stability"], found["difficulty"], found["last_review"])
    return (
        all(time is None or _is_time(time) for time in times)
        and found["right"] <= found["answered"]
        and (was_asked or (found["state"] == 1 and found["answered"] == 0))
        and (found["state"] != 3 or found["step"] is not None)
    )


def _is_time(text: str) -> bool:
    """With a time zone, and in a year in which it can be brought into any other zone."""
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        return False
    return time.tzinfo is not None and 1970 < time.year < 9999


class _Fields(TypedDict):
    state: Annotated[int, Range(1, 3)]
    step: Annotated[int, Range(0, _MOST)] | None
    stability: Annotated[float, Range(0.001, 1e6)] | None
    difficulty: Annotated[float, Range(1, 10)] | None
    due: str
    last_review: str | None
    answered: Annotated[int, Range(0, _MOST)]
    right: Annotated[int, Range(0, _MOST)]
