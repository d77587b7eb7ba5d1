"""Claims about what lesson 12 says in words of the exam's results."""

from statistics import mean

from test_lessons import committed, text_of

from minilora.experiments.exam import CHANCE, at_recipe_rate, mcnemar, shipped_exam
from minilora.experiments.exam_items import load_exam, right_lengths
from minilora.experiments.rows import select

TEXT = " ".join(text_of(committed("12_a_real_model")).split())
ROWS = at_recipe_rate(shipped_exam())
(BASE,) = select(ROWS, course="base")


def average(course, key):
    return mean(row[key] for row in select(ROWS, course=course))


def of_taught(course):
    """p of the change on what was taught, of each seed."""
    marks = [row["marks"]["reworded"] for row in select(ROWS, course=course)]
    return [mcnemar(BASE["marks"]["reworded"], after) for after in marks]


def test_what_was_taught_is_answered_better_by_more_than_luck_and_the_placebo_does_not_help():
    assert "by more than luck, under LoRA as under full fine-tuning" in TEXT
    assert all(p < 0.05 for course in ("lora", "full") for p in of_taught(course))
    assert "The placebo does not help" in TEXT
    assert all(p > 0.3 for p in of_taught("placebo"))
    assert average("placebo", "reworded") < CHANCE["reworded"]


def test_on_what_was_not_taught_right_and_wrong_choices_become_as_much_less_surprising():
    assert "Right choices have become far less surprising, but wrong ones just as much" in TEXT
    for course in ("lora", "full"):
        right, wrong = (BASE[k] - average(course, k) for k in ("nats_right", "nats_wrong"))
        assert right > 0.5 and wrong > 0.8 * right


def test_it_still_fails_the_exam():
    assert "it still fails the exam" in TEXT
    assert max(row[part] for row in ROWS for part in ("reworded", "test")) < 0.7


def test_the_right_choice_is_the_shortest_and_the_longest_in_a_quarter():
    assert "the shortest in a quarter of the questions, and the longest in a quarter" in TEXT
    items = load_exam()
    for share in right_lengths([*items.part("reworded"), *items.part("test")]).values():
        assert round(share, 2) == 0.25 or abs(share - 0.25) < 0.02
