"""The cards in Chromium: read, turned, sat as an exam, reviewed as FSRS says, and remembered."""

import random
from datetime import UTC, datetime, timedelta

import pytest

from minilora.learn.cards import load_cards

pytestmark = pytest.mark.browser
CARDS = load_cards()
BY_ID = {card.id: card for card in CARDS}
KEY = "minilora progress"
BEGIN = datetime(2026, 11, 26, 9, 30, tzinfo=UTC)


def on_day(day, right):
    return {"right": right, "at": (BEGIN + timedelta(days=day)).isoformat()}


def histories(n):
    """n random histories of answers: right or wrong, some minutes to many months apart."""
    draw = random.Random(0)
    for _ in range(n):
        day, answers = 0.0, []
        for _ in range(draw.randint(1, 12)):
            answers.append(on_day(day, draw.random() < 0.75))
            day += draw.choice((0.01, 0.5, 0.9999, 1, 2.5, 7, 30, 200)) * draw.uniform(0.5, 1.5)
        yield answers


def test_300_histories_of_answers_are_scheduled_as_by_the_package_fsrs(open_page):
    fsrs = pytest.importorskip("fsrs")
    scheduler = fsrs.Scheduler(learning_steps=(), relearning_steps=(), enable_fuzzing=False)
    page = open_page()
    for answers in histories(300):
        memories = page.evaluate(
            """(answers) => {
              let memory = null;
              const review = ({ right, at }) => fsrsReview(memory, right, new Date(at));
              return answers.map((answer) => (memory = review(answer)));
            }""",
            answers,
        )
        card = fsrs.Card()
        for answer, memory in zip(answers, memories, strict=True):
            rating = fsrs.Rating.Good if answer["right"] else fsrs.Rating.Again
            at = datetime.fromisoformat(answer["at"])
            card, _ = scheduler.review_card(card, rating, at)
            assert memory["state"] == card.state.value and memory["step"] is card.step
            assert memory["stability"] == pytest.approx(card.stability, rel=1e-9)
            assert memory["difficulty"] == pytest.approx(card.difficulty, rel=1e-9)
            due = datetime.fromisoformat(memory["due"])
            assert abs(due - card.due) < timedelta(seconds=1)
