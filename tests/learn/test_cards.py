"""Every card is well formed, and what its demo measures makes its answer right and no other."""

import itertools
import math
import re
from collections import Counter
from dataclasses import replace
from importlib import import_module

import pytest

from minilora.learn.demos.demo import Demo, demo_of, prove
from minilora.learn.exam import cards as C
from minilora.system.errors import UsageError

CARDS = C.load_cards()
BY_ID = {card.id: card for card in CARDS}
_PROOFS = {}


def proof(card):
    if card.id not in _PROOFS:
        _PROOFS[card.id] = prove(card)
    return _PROOFS[card.id]


def corruptions(measured, name):
    """What was measured, with the number of this name made wrong."""
    value = measured[name]
    others = [other for key, other in measured.items() if key != name]
    wrong = [0, 1, -1, -value, 10 * value + 1, value / 10, value + 1, value - 1, 1e12, math.nan]
    if isinstance(value, bool):
        wrong = [not value]
    for number in [*wrong, *others]:
        if number != value:
            yield {**measured, name: number}


@pytest.mark.parametrize("name", BY_ID)
def test_what_the_demo_measures_proves_the_answer_and_nothing_else(name):
    card = BY_ID[name]
    shown, measured = demo_of(card), proof(card).measured
    assert shown.supported(measured) == [card.answer], measured
    assert shown.does.endswith(".")
    assert measured and all(
        isinstance(v, (int, float)) or hasattr(v, "dtype") for v in measured.values()
    )
    for number in measured:
        assert any(
            shown.supported(corrupted) != [card.answer]
            for corrupted in corruptions(measured, number)
        ), f"no claim would notice if {number!r} were wrong"
    assert shown.supported(dict.fromkeys(measured, math.nan)) != [card.answer]


def test_there_are_at_least_ninety_cards_the_core_card_first_and_all_topics():
    assert len(CARDS) >= 90 and CARDS[0].id == "what-is-lora"
    counts = Counter(card.topic for card in CARDS)
    assert all(counts[topic] >= 7 for topic in C.TOPICS), counts
    assert {card.kind for card in CARDS} == set(C.KINDS)
    assert {card.difficulty for card in CARDS} == {1, 2, 3, 4, 5}


def test_ids_are_kebab_case_and_every_demo_proves_one_card():
    assert all(re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", card.id) for card in CARDS)
    used = Counter(card.demo for card in CARDS)
    assert max(used.values()) == 1
    there = {
        f"{topic}.{name}"
        for topic in C.TOPICS
        for name, found in vars(import_module(f"minilora.learn.demos.{topic}")).items()
        if isinstance(found, Demo)
    }
    assert there == used.keys()


def chi_square(counts):
    """Of these counts against equal ones."""
    expected = sum(counts) / len(counts)
    return sum((count - expected) ** 2 / expected for count in counts)


FOUR = [card for card in CARDS if len(card.choices) == 4]
CHI_SQUARE_95 = 7.815  # 3 degrees of freedom: chance exceeds it in 5 of 100 cases


def test_right_choices_stand_in_every_position_equally_often():
    places = Counter(card.choices.index(card.right) for card in FOUR)
    assert chi_square([places[i] for i in range(4)]) < CHI_SQUARE_95, places


def test_right_choices_are_not_told_by_their_length():
    """Of equally long choices the right one counts as the middle of their places."""
    ranks = []
    for card in FOUR:
        if card.kind in ("order", "match"):
            continue  # all as long as each other
        length = len(card.right.text)
        longer = sum(len(choice.text) > length for choice in card.choices)
        same = sum(len(choice.text) == length for choice in card.choices) - 1
        ranks.append(longer + same / 2)
    counts = [sum(i <= rank < i + 1 for rank in ranks) for i in range(4)]
    assert chi_square(counts) < CHI_SQUARE_95, counts
    assert counts[0] <= len(ranks) / 4 and counts[3] <= 1.2 * len(ranks) / 4, counts


def words(card):
    return set(re.findall(r"\w+", f"{card.question} {card.right.text}".lower()))


def test_no_two_cards_ask_the_same():
    alike = [
        (one.id, other.id)
        for one, other in itertools.combinations(CARDS, 2)
        if len(words(one) & words(other)) > 0.6 * len(words(one) | words(other))
    ]
    assert alike == []


GOOD = CARDS[0]


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"kind": "essay"}, "its kind is 'essay'"),
        ({"tags": ("cooking",)}, "its topic is 'cooking'"),
        ({"lesson": "99"}, "there is no lesson '99'"),
        ({"difficulty": 6}, "difficulty is not from 1 to 5"),
        ({"choices": GOOD.choices[:2], "answer": GOOD.choices[0].key}, "fewer than three choices"),
        ({"choices": GOOD.choices + GOOD.choices[:1]}, "two of its choices are the same"),
        ({"answer": "none"}, "its answer 'none' is not the key of a choice"),
        ({"kind": "cloze"}, "a cloze has one gap"),
        ({"explanation": ""}, "a field is empty"),
        ({"kind": "order", "items": ("a", "b")}, "does not use every item once"),
    ],
)
def test_a_card_that_is_not_well_formed_is_reported(change, sentence):
    (problem,) = C.problems(replace(GOOD, **change))
    assert sentence in problem


def test_a_broken_file_of_cards_is_reported_by_its_card(tmp_path):
    path, text = tmp_path / "cards.toml", C.CARDS_FILE.read_text("utf-8")
    for broken, sentence in [
        ("[[card]", "cards.toml is damaged"),
        ("", r"cards.toml: lacks card"),
        ("card = 3", r"cards.toml: card must be a list that is not empty, got 3"),
        ("cards = []\n" + text, "cards.toml: cards is not known; known are card"),
        (text.replace('answer = "low_rank"', "", 1), r"cards.toml: card\[0\] lacks answer"),
        (text.replace("difficulty = 1", "difficulty = true", 1), r"card\[0\].difficulty must be a"),
        (text.replace("difficulty = 1", "difficulty = 9", 1), r"card\[0\] \(what-is-lora\): its"),
        (text.replace('tags = ["definition"]', "tags = []", 1), r"card\[0\].tags must be a list"),
        (text.replace("why =", "reason =", 1), r"choices\[0\].reason is not known"),
        (
            text.replace('answer = "low_rank"', 'answer = "lo"', 1),
            "'lo' is not the key of a choice",
        ),
        (text[: text.index("# ---- counting")] * 2, "2 cards with the id 'what-is-lora'"),
    ]:
        path.write_text(broken, "utf-8")
        with pytest.raises(UsageError, match=sentence):
            C.load_cards(path)


def test_an_unknown_topic_is_answered_with_those_there_are():
    with pytest.raises(
        UsageError, match=r"no card has the topic 'lorra'; choose one of: definition"
    ):
        C.by_topic(CARDS, "lorra")
    assert C.by_topic(CARDS, "definition")[0] == GOOD
    assert {card.lesson for card in C.by_topic(CARDS, "5")} == {"05"}


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"demo": "definition.nothing"}, "names a demo that is not there: definition.nothing"),
        ({"demo": "nowhere.what_is_lora"}, "names a demo that is not there"),
        ({"choices": GOOD.choices[:3]}, "has claims for"),
    ],
)
def test_a_demo_that_does_not_fit_its_card_is_reported(change, sentence):
    with pytest.raises(UsageError, match=sentence):
        prove(replace(GOOD, **change))
