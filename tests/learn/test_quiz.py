"""A seed is a quiz; an exam is balanced over topics; a score says what to read again."""

import random
from collections import Counter

import pytest
from made_cards import made

from minilora.learn.exam.cards import TOPICS, load_cards
from minilora.learn.exam.quiz import (
    LETTERS,
    Answer,
    draw,
    passed,
    question,
    solution,
    to_reread,
    topic_scores,
)

CARDS = [
    made(name=f"{topic}-{i}", topic=topic, lesson=f"0{i % 3}")
    for topic, n in {"definition": 10, "counting": 10, "memory": 2, "serving": 5}.items()
    for i in range(n)
]


def answers(rights, topic="definition", lesson="00"):
    asked = question(made(topic=topic, lesson=lesson), random.Random(0))
    right = asked.card.right
    wrong = next(choice for choice in asked.choices if choice != right)
    return [Answer(asked, "x", right if is_right else wrong) for is_right in rights]


@pytest.mark.parametrize("n", [1, 4, 8, 12, 20, 27])
def test_an_exam_has_as_many_cards_of_each_topic_as_there_can_be(n):
    for seed in range(20):
        drawn = draw(CARDS, n, random.Random(seed))
        assert len({card.id for card in drawn}) == len(drawn) == n
        count = Counter(card.topic for card in drawn)
        there = Counter(card.topic for card in CARDS)
        most = max(count.values())
        assert all(count[topic] >= min(most - 1, there[topic]) for topic in there)


def test_more_cards_than_there_are_are_not_drawn():
    assert len(draw(CARDS, 1000, random.Random(0))) == len(CARDS)


def test_a_seed_is_a_quiz():
    def quiz(seed):
        rng = random.Random(seed)
        return [question(card, rng) for card in draw(load_cards(), 10, rng)]

    assert quiz(3) == quiz(3) != quiz(4)


def test_every_topic_is_asked_about_in_an_exam_of_all_cards_and_no_topic_comes_in_a_block():
    cards = load_cards()
    topics = [card.topic for card in draw(cards, 20, random.Random(0))]
    assert set(topics) == {card.topic for card in cards} <= set(TOPICS)
    assert topics != sorted(topics) and topics != sorted(topics, key=list(TOPICS).index)


def test_the_right_choice_is_in_every_place_alike():
    rng = random.Random(0)
    asked = [question(made(), rng) for _ in range(400)]
    places = Counter(q.letter(q.card.right) for q in asked)
    assert set(places) == set(LETTERS[:4]) and min(places.values()) > 70


def test_a_score_counts_right_of_asked_by_topic_in_the_order_of_the_topics():
    given = answers([True, False], "memory") + answers([True], "definition")
    assert topic_scores(given) == {"definition": (1, 1), "memory": (1, 2)}
    assert list(topic_scores(given)) == ["definition", "memory"]


def test_lessons_to_read_again_are_those_of_wrong_answers_the_most_first():
    given = answers([False], lesson="02") + answers([False, False, True], lesson="05")
    given += answers([True], lesson="03") + answers([False], lesson="01")
    assert to_reread(given) == {"05": 2, "01": 1, "02": 1}
    assert list(to_reread(given)) == ["05", "01", "02"]


def test_a_question_without_an_answer_is_not_right_and_its_lesson_is_to_be_read():
    asked = question(made(lesson="07"), random.Random(0))
    assert not Answer(asked).right and to_reread([Answer(asked)]) == {"07": 1}


@pytest.mark.parametrize(
    ("right", "of", "is_passed"), [(14, 20, True), (13, 20, False), (7, 10, True)]
)
def test_the_pass_line_is_seventy_per_cent(right, of, is_passed):
    assert passed(answers([True] * right + [False] * (of - right))) == is_passed


def test_the_solution_of_an_order_is_its_items_in_order_and_of_a_match_its_pairs():
    assert solution(made("order")) == ["first", "second", "third", "fourth"]
    assert solution(made("match")) == ["one: of one", "two: of two", "three: of three"]
    assert solution(made("choice")) == solution(made("cloze")) == []
