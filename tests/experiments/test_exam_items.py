"""The items of the real model's exam, and that each way of fooling oneself is refused."""

from __future__ import annotations

from dataclasses import replace

import pytest

from minilora.experiments.exam_items import EXAM_FILE, ExamItems, load_exam, problems
from minilora.learn.exam.cards import load_cards
from minilora.system.errors import UsageError

ITEMS = load_exam()


def test_every_item_is_of_a_card_that_exists():
    cards = {card.id for card in load_cards()}
    named = [*ITEMS.pairs, *ITEMS.questions, *ITEMS.statements]
    assert {item.card for item in named} <= cards


def test_the_exam_is_large_enough_for_its_error_bars():
    assert len(ITEMS.pairs) >= 45
    assert len(ITEMS.part("test")) >= 60
    assert len(ITEMS.part("reworded")) >= 40
    assert len(ITEMS.part("validation")) >= 20
    assert len(ITEMS.statements) >= 60
    assert len(ITEMS.controls) >= 24
    assert len(ITEMS.paragraph.split()) >= 120


def test_as_many_right_statements_are_the_shorter_one():
    shorter = sum(len(pair.right) < len(pair.wrong) for pair in ITEMS.statements)
    longer = sum(len(pair.right) > len(pair.wrong) for pair in ITEMS.statements)
    assert abs(shorter - longer) <= len(ITEMS.statements) // 10


def test_the_placebo_does_not_speak_of_lora():
    words = " ".join(f"{pair.question} {pair.answer}" for pair in ITEMS.placebo).lower()
    for term in ("lora", "adapter", "rank", "matrix", "model", "weights", "fine-tun", "gradient"):
        assert term not in words


def test_two_samples_are_taught_and_two_are_asked():
    assert sum(s in {pair.question for pair in ITEMS.pairs} for s in ITEMS.samples) == 2
    assert sum(s in {q.question for q in ITEMS.part("test")} for s in ITEMS.samples) == 2


def first_with(field: str, **changes: object) -> ExamItems:
    """The items, the first of a kind changed."""
    first, *others = getattr(ITEMS, field)
    return replace(ITEMS, **{field: (replace(first, **changes), *others)})


FLAWS = {
    "is taught, and asked as if": first_with("questions", card=ITEMS.pairs[0].card),
    "in the validation part and in the test": first_with("questions", part="validation"),
    "in other words, but not taught": replace(
        ITEMS, pairs=tuple(p for p in ITEMS.pairs if p.card != "bitfit")
    ),
    "a question has no card": first_with("questions", card=""),
    "a pair has no card": first_with("pairs", card=""),
    "part is none of": first_with("questions", part="exam"),
    "4 different choices": first_with("controls", wrong=("Rome", "Rome", "Oslo")),
    "a question is there twice": first_with("controls", question=ITEMS.controls[1].question),
    "a statement is there twice": first_with("statements", right=ITEMS.statements[1].right),
    "a text is empty": first_with("pairs", question=""),
    "as many pairs": replace(ITEMS, placebo=ITEMS.placebo[1:]),
    "as long as": replace(ITEMS, placebo=ITEMS.pairs[:1] * len(ITEMS.pairs)),
    "equally often": replace(
        ITEMS, pairs=tuple(replace(p, answer=p.answer.replace("No.", "Yes.")) for p in ITEMS.pairs)
    ),
    "is the longest in": replace(
        ITEMS, questions=tuple(replace(q, right=q.right * 9) for q in ITEMS.questions)
    ),
}


def test_the_items_have_no_flaw():
    assert problems(ITEMS) == []


@pytest.mark.parametrize("flaw", FLAWS)
def test_a_flaw_is_named(flaw):
    assert any(flaw in problem for problem in problems(FLAWS[flaw]))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("pair = 3", "exam.toml: lacks placebo, question"),
        ("[[pair", "exam.toml is damaged"),
        (EXAM_FILE.read_text("utf-8").replace("[[pair]]", "[[pairs]]"), "pairs is not known"),
        (EXAM_FILE.read_text("utf-8").replace("wrong = [", "wrong = [3, ", 1), r"wrong.* got"),
        (EXAM_FILE.read_text("utf-8").replace("answer =", "reply =", 1), "reply"),
        (EXAM_FILE.read_text("utf-8").replace('"What is LoRA?"', '""', 1), "empty"),
    ],
)
def test_a_broken_file_is_named_with_what_is_wrong(tmp_path, text, said):
    broken = tmp_path / "exam.toml"
    broken.write_text(text, "utf-8")
    with pytest.raises(UsageError, match=said):
        load_exam(broken)
