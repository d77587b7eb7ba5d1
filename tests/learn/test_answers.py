"""What is typed is understood as a person means it, and what cannot be meant is asked again."""

import random

import pytest
from made_cards import made

from minilora.learn.exam.answers import is_typed, read_answer
from minilora.learn.exam.cards import load_cards
from minilora.learn.exam.maths import to_text
from minilora.learn.exam.quiz import Question, question
from minilora.system.errors import UsageError


def answered(card, typed, letters=True):
    """The text of the choice that was meant, None if it is none of them."""
    choice = read_answer(Question(card, card.choices), typed, letters).choice
    return choice and choice.text


def of_words(right, *wrong, **fields):
    return made("cloze", texts=(right, *(wrong or ("no", "never"))), **fields)


@pytest.mark.parametrize("kind", ["choice", "error"])
@pytest.mark.parametrize(
    ("typed", "text"),
    [("A", "right"), ("b", "wrong"), (" D ", "worst"), ("1", "right"), ("4", "worst")],
)
def test_a_letter_or_a_number_is_a_choice(kind, typed, text):
    assert answered(made(kind), typed) == text


def test_a_letter_means_the_choice_that_is_shown_with_it():
    card = made()
    asked = question(card, random.Random(3))
    assert asked.choices != card.choices
    for choice in asked.choices:
        assert read_answer(asked, asked.letter(choice)).choice == choice


@pytest.mark.parametrize(
    ("kind", "letters", "typed", "sentence"),
    [
        ("choice", True, "", "type a letter from A to D"),
        ("choice", True, "E", "type a letter from A to D"),
        ("choice", True, "5", "type a letter from A to D"),
        ("choice", True, "AB", "type a letter from A to D"),
        ("choice", True, "right", "type a letter from A to D"),
        ("cloze", False, "", "type what fills the gap"),
        ("cloze", False, "b", "the choices are not shown yet"),
        ("cloze", True, " ", "any style), or a letter from A to C"),
        ("cloze", False, "x" * 10_000, "type what fills the gap"),
        ("cloze", False, "r (d_in + d_out", "a formula that can be read: this one cannot"),
        ("order", False, "A", "the numbers in the right order, such as 4321"),
        ("order", False, "123", "the numbers in the right order"),
        ("order", False, "1 2 3 3", "the numbers in the right order"),
        ("order", False, "12345", "the numbers in the right order"),
        ("order", True, "E", "such as 4321, or a letter from A to C"),
        ("match", False, "A", "a letter for each number, such as 1A 2A 3A"),
        ("match", False, "1A 2B", "a letter for each number"),
        ("match", False, "1A 2B 2C", "a letter for each number"),
        ("match", False, "ABD", "a letter for each number"),
        ("match", False, "ABCA", "a letter for each number"),
        ("match", False, "1 2 3", "a letter for each number"),
    ],
)
def test_what_can_be_no_answer_is_asked_again_with_what_to_type(kind, letters, typed, sentence):
    with pytest.raises(UsageError) as told:
        answered(made(kind), typed, letters)
    assert sentence in str(told.value)


@pytest.mark.parametrize(
    "typed", ["2413", "2 4 1 3", "2,4,1,3", "2-4-1-3", "2 → 4 → 1 → 3", "2.4.1.3"]
)
def test_an_order_is_read_in_any_style(typed):
    assert answered(made("order"), typed) == "2 4 1 3"


@pytest.mark.parametrize(
    "typed",
    ["BAC", "bac", "B A C", "1B 2A 3C", "1b2a3c", "3C 1B 2A", "1-B, 2-A, 3-C", "1: B; 2: A; 3: C"],
)
def test_a_match_is_read_in_any_style(typed):
    assert answered(made("match"), typed) == "1B 2A 3C"


def test_a_wrong_order_or_match_is_known_again_if_it_is_a_choice():
    assert answered(made("order"), "4321") == "4 3 2 1"
    assert answered(made("order"), "3142") is None
    assert answered(made("match"), "1C 2B 3A") == "1C 2B 3A"
    assert answered(made("match"), "AAA") is None


@pytest.mark.parametrize(
    ("right", "typed"),
    [
        ("zero", "Zero"),
        ("the base model", "base  model"),
        ("low-rank", "low rank"),
        ("`q_proj`", "q_proj"),
        ("`q_proj`", "'q_proj'"),
        ("a rank of 4", "rank of 4."),
        ("4,194,304", "4194304"),
        ("4,194,304", "4 194 304"),
        ("4,194,304", "2^22"),
        ("84 GB", "84"),
        ("84 GB", "84gb"),
        ("84 GB", "84.0 GB"),
        ("0.39 %", "0.39"),
        ("0.39 %", "0,39 %"),
        ("0.39 %", "0.390625 %"),
        ("0.39 %", "0.0039"),
        ("9,285", "9.285e3"),
        ("−1", "-1"),
        ("$α/r$", "alpha / r"),
        ("$W_0$", "W0"),
    ],
)
def test_a_gap_is_filled_by_words_numbers_and_formulas_in_any_style(right, typed):
    assert answered(of_words(right), typed, letters=False) == right


@pytest.mark.parametrize(
    ("right", "typed"),
    [
        ("zero", "one"),
        ("4,194,304", "4,194,305"),
        ("4,194,304", "4.2"),
        ("84 GB", "84 MB"),
        ("84", "84 MB"),
        ("84 GB", "83.9 GB"),
        ("0.39 %", "0.4 %"),
        ("0.39 %", "39"),
        ("low-rank", "high-rank"),
        ("$α/r$", "α r"),
        ("$α/r$", "the scale"),
    ],
)
def test_a_gap_is_not_filled_by_anything_else(right, typed):
    assert answered(of_words(right), typed, letters=False) is None


def test_a_wrong_choice_that_is_typed_is_that_choice_so_that_its_reason_is_said():
    assert answered(made("cloze"), "d_out r d_in", letters=False) == "$r d_in d_out$"
    assert answered(of_words("no bias", "One bias"), "one bias", letters=False) == "One bias"


def test_other_spellings_of_the_right_answer_are_accepted():
    card = of_words("zero", accept=("nothing at all", "$0 · r$"))
    for typed in ("nothing at all", "0*r", "0"):
        assert answered(card, typed, letters=False) == "zero"


@pytest.mark.parametrize(
    ("question", "right", "typed"),
    [
        ("It takes ____ GB.", "84", "84 GB"),
        ("It takes ____ GB.", "84", "84gb"),
        ("It is ____ times as many.", "16", "16 times"),
        ("It is ____ times as many.", "$2 r$", "r + r times"),
        ("____ matrices train.", "two", "Two matrices"),
    ],
)
def test_what_stands_after_the_gap_may_be_typed_as_well(question, right, typed):
    card = of_words(right, question=question)
    assert answered(card, typed, letters=False) == right
    assert answered(of_words(right, question="It is ____."), typed, letters=False) is None


def test_a_letter_is_a_text_while_the_choices_are_not_shown():
    card = of_words("B", "A", "W")
    assert answered(card, "A", letters=False) == "A" and answered(card, "A") == "B"
    assert answered(card, "B", letters=False) == "B" and answered(card, "b") == "A"


@pytest.mark.parametrize("card", [c for c in load_cards() if is_typed(c)], ids=lambda c: c.id)
def test_every_choice_of_a_shipped_card_can_be_typed(card):
    asked = Question(card, card.choices)
    for choice in card.choices:
        for typed in (choice.text, to_text(choice.text)):
            assert read_answer(asked, typed, letters=False).choice == choice
    for spelling in card.accept:
        assert read_answer(asked, spelling, letters=False).right
