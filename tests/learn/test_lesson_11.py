"""Claims about what lesson 11 says in words: what a score is worth, and when a card is due."""

import math
from datetime import UTC, datetime, timedelta

import pytest
from test_check import FUNCTIONS
from test_lessons import committed, text_of

from minilora.learn.exam.cards import load_cards
from minilora.learn.exam.quiz import PASS

TEXT = " ".join(text_of(committed("11_exam_prep")).split())
SHOWN = "\n".join(
    out["text"]
    for cell in committed("11_exam_prep").cells
    for out in cell.get("outputs", [])
    if "text" in out
)


def test_nine_of_twenty_are_more_than_guessing_and_fourteen_pass():
    assert "Nine or more are better than guessing at the level of 5 per cent" in TEXT
    assert "The mark to pass, fourteen" in TEXT
    assert FUNCTIONS["fewest_right"][0](20, 1 / 4, 0.05) == 9
    assert math.ceil(20 * PASS) == 14


def test_whoever_takes_the_longest_choice_scores_about_as_much_as_a_guesser():
    assert "about as much as guessing, 25 per cent" in TEXT
    cards = [card for card in load_cards() if card.kind in ("choice", "error")]
    hits = sum(max(card.choices, key=lambda c: len(c.text)) == card.right for card in cards)
    assert 0.15 < hits / len(cards) < 0.35


def test_every_card_was_proved_when_the_notebook_was_built():
    together = next(line for line in SHOWN.splitlines() if line.startswith("together"))
    asked, proved = together.split()[1:]
    assert asked == proved, "run `python lessons/build.py 11`"
    assert int(asked) == len(load_cards()), "cards have changed: run `python lessons/build.py 11`"


def test_the_formula_of_recall_is_that_of_fsrs():
    fsrs = pytest.importorskip("fsrs")
    assert "w = 0.1542" in TEXT
    now = datetime(2026, 1, 1, tzinfo=UTC)
    scheduler = fsrs.Scheduler(learning_steps=(), relearning_steps=(), enable_fuzzing=False)
    card, _ = scheduler.review_card(fsrs.Card(0, due=now), fsrs.Rating.Easy, now)
    days = 20
    wanted = scheduler.get_card_retrievability(card, now + timedelta(days=days))
    assert FUNCTIONS["days_until"][0](card.stability, wanted) == pytest.approx(days)
