"""When a card is asked again is what FSRS says, and what is kept of it can be read again."""

import json
import sys
from datetime import UTC, datetime, timedelta

import pytest
from made_cards import ENTRY, NEVER_ASKED, made

from minilora.learn.exam import review
from minilora.learn.exam.progress import is_entry

fsrs = pytest.importorskip("fsrs")
NOW = datetime(2026, 11, 26, 9, tzinfo=UTC)


def after(*answers, now=NOW, days=1):
    entry = None
    for right in answers:
        entry = review.answered(entry, right, now)
        now += timedelta(days=days)
    return entry


def test_an_answer_makes_an_entry_that_fits_the_format():
    for answers in ([True], [False], [True, False, True], [False] * 9, [True] * 30):
        entry = after(*answers)
        assert is_entry(json.loads(json.dumps(entry)))
        assert (entry["answered"], entry["right"]) == (len(answers), sum(answers))
        assert entry["due"].endswith("+00:00") and entry["state"] == 2


def test_entries_are_what_fsrs_computes():
    scheduler = fsrs.Scheduler(learning_steps=(), relearning_steps=(), enable_fuzzing=False)
    card, now = fsrs.Card(1, due=NOW), NOW
    entry = None
    for right, days in [(True, 2), (True, 9), (False, 1), (True, 0), (True, 40), (False, 3)]:
        rating = fsrs.Rating.Good if right else fsrs.Rating.Again
        card, _ = scheduler.review_card(card, rating, now)
        entry = review.answered(entry, right, now)
        expected = {k: v for k, v in card.to_dict().items() if k != "card_id"}
        assert {k: entry[k] for k in expected} == expected
        now += timedelta(days=days)


def test_a_right_answer_is_asked_later_than_a_wrong_one_and_ever_later():
    def days(*answers):
        entry = None
        for right in answers:
            now = review.due_at(entry) if entry else NOW
            entry = review.answered(entry, right, now)
        return (review.due_at(entry) - now).days

    assert 1 <= days(False) < days(True) < days(True, True) < days(True, True, True)
    assert days(True, True, False) < days(True, True)


def test_unknown_fields_and_other_time_zones_survive_an_answer():
    old = ENTRY | {
        "note": "mine",
        "due": "2026-11-28T11:00:00+02:00",
        "last_review": "2026-11-26T09:00:00Z",
    }
    entry = review.answered(old, True, NOW + timedelta(days=2))
    assert entry["note"] == "mine" and entry["answered"] == 4 and is_entry(entry)
    assert review.due_at(old) == datetime(2026, 11, 28, 9, tzinfo=UTC)


def test_a_clock_that_was_set_back_is_no_error():
    assert is_entry(review.answered(ENTRY, True, NOW - timedelta(days=400)))


def test_due_cards_come_in_the_order_in_which_they_were_due():
    cards = [made(name=name) for name in "abcd"]
    kept = {
        name: ENTRY | {"due": (NOW + timedelta(days=days)).isoformat()}
        for name, days in {"a": 0, "b": -3, "c": 1, "z": -9}.items()
    }
    assert [card.id for card in review.due_cards(cards, kept, NOW)] == ["b", "a"]


def test_cards_answered_first_today_count_as_the_new_ones_of_the_day():
    first = review.answered(None, True, NOW)
    kept = {"a": first, "b": review.answered(first, True, NOW), "c": ENTRY, "n": NEVER_ASKED}
    assert review.new_today(kept, NOW) == review.NEW_A_DAY - 1
    assert review.new_today(kept, NOW + timedelta(days=2)) == review.NEW_A_DAY
    assert review.new_today({str(i): first for i in range(99)}, NOW) == 0


def test_without_fsrs_the_error_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "fsrs", None)
    with pytest.raises(ModuleNotFoundError, match=r'pip install "minilora\[cards\]"'):
        review.scheduler()
