"""Spaced review: when a card is asked again, by FSRS (the free spaced repetition scheduler).

FSRS keeps of each card how well it is remembered (stability: days until recall has fallen to 90 %)
and how hard it is; an answer changes both, and the card is due when recall would fall below 90 %.
A right answer is its "good", a wrong one its "again". The package fsrs computes it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

from minilora.learn.exam.cards import Card
from minilora.learn.exam.progress import Entry
from minilora.system.errors import MissingExtraError

NEW_A_DAY = 10  # cards that were never asked; each comes back several times in its first weeks


def scheduler() -> Any:
    """Of FSRS: days only, no steps of minutes, no chance. Raises MissingExtraError without fsrs."""
    try:
        import fsrs
    except ModuleNotFoundError:
        raise MissingExtraError('reviewing needs fsrs: pip install "minilora[cards]"') from None
    return fsrs.Scheduler(learning_steps=(), relearning_steps=(), enable_fuzzing=False)


def answered(entry: Entry | None, right: bool, now: datetime) -> Entry:
    """What is kept of a card after an answer. entry: before it, None if it was never asked."""
    import fsrs

    before = entry or {}
    card = fsrs.Card.from_dict({"card_id": 0, **entry}) if entry else fsrs.Card(0, due=now)  # type: ignore[typeddict-item]
    rating = fsrs.Rating.Good if right else fsrs.Rating.Again
    reviewed, _ = scheduler().review_card(card, rating, now)
    fields = {name: value for name, value in reviewed.to_dict().items() if name != "card_id"}
    counts = {"answered": before.get("answered", 0) + 1, "right": before.get("right", 0) + right}
    return before | fields | counts


def due_cards(cards: Iterable[Card], kept: Mapping[str, Entry], now: datetime) -> list[Card]:
    """Those that are due, the longest overdue first."""
    due = {card: due_at(kept[card.id]) for card in cards if card.id in kept}
    return sorted((card for card in due if due[card] <= now), key=lambda card: due[card])


def new_today(kept: Mapping[str, Entry], now: datetime) -> int:
    """How many more new cards fit into the day of `now`: those with a first answer today count."""
    first = [entry for entry in kept.values() if entry["answered"] == 1]
    today = [e for e in first if _day(datetime.fromisoformat(e["last_review"])) == _day(now)]
    return max(0, NEW_A_DAY - len(today))


def due_at(entry: Entry) -> datetime:
    return datetime.fromisoformat(entry["due"]).astimezone(UTC)


def _day(time: datetime) -> object:
    return time.astimezone().date()
