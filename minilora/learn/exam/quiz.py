"""A quiz: which cards are asked, in what order, with which letters, and how it went.

Everything follows from the random generator, so that a seed is a quiz. How a card is scheduled for
review is in review.py, what was typed is understood in answers.py, and the terminal is cli's.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from minilora.learn.exam.cards import LETTERS, TOPICS, Card, Choice, in_order, pairs

PASS = 0.7  # the share of right answers that passes an exam

T = TypeVar("T")


@dataclass(frozen=True)
class Question:
    """A card with its choices in the order in which they are shown: A, B, C …"""

    card: Card
    choices: tuple[Choice, ...]

    def letter(self, choice: Choice) -> str:
        return LETTERS[self.choices.index(choice)]


@dataclass(frozen=True)
class Answer:
    """typed: empty if the question was not answered. choice: None if what was typed is none."""

    question: Question
    typed: str = ""
    choice: Choice | None = None

    @property
    def right(self) -> bool:
        return self.choice == self.question.card.right


def draw(cards: Iterable[Card], n: int, rng: random.Random) -> list[Card]:
    """n of the cards, as many of each topic as of any other, as far as there are so many."""
    topics: dict[str, list[Card]] = {}
    for card in shuffled(cards, rng):
        topics.setdefault(card.topic, []).append(card)
    drawn: list[Card] = []
    while len(drawn) < n and any(topics.values()):
        for topic in shuffled(topics, rng):
            if topics[topic] and len(drawn) < n:
                drawn.append(topics[topic].pop())
    return shuffled(drawn, rng)


def question(card: Card, rng: random.Random) -> Question:
    """The card, its choices shuffled."""
    return Question(card, tuple(shuffled(card.choices, rng)))


def shuffled(items: Iterable[T], rng: random.Random) -> list[T]:
    found = list(items)
    rng.shuffle(found)
    return found


def topic_scores(answers: Sequence[Answer]) -> dict[str, tuple[int, int]]:
    """Of each topic that was asked: how many answers were right, of how many."""
    asked = Counter(answer.question.card.topic for answer in answers)
    right = Counter(answer.question.card.topic for answer in answers if answer.right)
    return {topic: (right[topic], asked[topic]) for topic in TOPICS if asked[topic]}


def to_reread(answers: Sequence[Answer]) -> dict[str, int]:
    """The lessons whose questions were not answered right, and how many: the most first."""
    wrong = Counter(answer.question.card.lesson for answer in answers if not answer.right)
    return dict(sorted(wrong.items(), key=lambda item: (-item[1], item[0])))


def passed(answers: Sequence[Answer]) -> bool:
    return sum(answer.right for answer in answers) >= PASS * len(answers)


def solution(card: Card) -> list[str]:
    """The right order of the items, or each item with its option, a line each; else nothing."""
    if card.kind == "order":
        return in_order(card)
    if card.kind == "match":
        return [f"{item}: {option}" for item, option in pairs(card, card.right)]
    return []
