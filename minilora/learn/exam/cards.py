"""The exam cards: read from assets/cards.toml and checked.

A card asks one question, gives its choices with the reason why each is right or wrong, and names
the demo that proves the answer by measuring (demos/demo.py). Five kinds, all with choices:

    choice  one of the choices answers the question
    error   the same, about a text that is quoted: what is wrong with it, if anything is
    cloze   a choice fills the gap ____; a person may also type it
    order   a choice is an order of the numbered items: "2 4 1 3"
    match   a choice gives every numbered item one of the lettered options: "1B 2A 3D 4C"

In texts `code` stands between backticks and $mathematics$ between dollars (maths.py).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import minilora
from minilora.system.errors import UsageError
from minilora.system.readers import read_toml
from minilora.system.schemas import NOT_EMPTY

CARDS_FILE = Path(minilora.__file__).parent / "assets" / "cards.toml"
KINDS = ("choice", "error", "cloze", "order", "match")
GAP = "____"
LETTERS = "ABCDEFGH"  # of choices and options
TOPICS = {
    "definition": "What LoRA is, and what it is not",
    "counting": "Shapes and counting parameters",
    "training": "Initialization, gradients and the training loop",
    "scaling": "Rank, alpha and the learning rate",
    "targets": "Which modules to adapt",
    "serving": "Merging, swapping, saving and loading",
    "memory": "Memory, speed and QLoRA",
    "alternatives": "Full fine-tuning and the other methods",
    "forgetting": "Forgetting, and the rank of what is learned",
    "texts": "Find the error in a published text",
}
LESSONS = {
    "00": "LoRA in ten minutes",
    "01": "Autograd from scratch",
    "02": "A transformer from scratch",
    "03": "Full fine-tuning and what it costs",
    "04": "LoRA from scratch",
    "05": "Counting parameters",
    "06": "Rank sweep",
    "07": "The singular values of ΔW",
    "08": "Learning rate, alpha, initialization",
    "09": "Where to adapt, and the alternatives",
    "10": "Shipping adapters",
    "11": "Exam prep",
    "12": "A real language model",
}


@dataclass(frozen=True)
class Choice:
    """key: its name in the demo. why: why it is right or wrong, said to whoever chose it."""

    key: str
    text: str
    why: str


@dataclass(frozen=True)
class Card:
    """id: for ever, progress and other programs know the card by it. tags: its topic first.

    answer: the key of the right choice. demo: "topic.function" in the room demos.
    items, options: of the kinds order and match. accept: other ways to type the answer of a cloze.
    """

    id: str
    kind: str
    tags: Annotated[tuple[str, ...], NOT_EMPTY]
    lesson: str
    difficulty: int
    question: str
    choices: tuple[Choice, ...]
    answer: str
    explanation: str
    source: str
    demo: str
    items: tuple[str, ...] = ()
    options: tuple[str, ...] = ()
    accept: tuple[str, ...] = ()

    @property
    def topic(self) -> str:
        return self.tags[0]

    @property
    def right(self) -> Choice:
        return next(choice for choice in self.choices if choice.key == self.answer)


@dataclass(frozen=True)
class _File:
    card: Annotated[list[Card], NOT_EMPTY]


def load_cards(path: Path = CARDS_FILE) -> list[Card]:
    """All cards, in the order of the file. Raises UsageError, naming the card, if one is broken."""
    cards = read_toml(path, _File).card
    for i, card in enumerate(cards):
        for problem in problems(card):
            raise UsageError(f"{path}: card[{i}] ({card.id}): {problem}")
    ids = [card.id for card in cards]
    for name in ids:
        if ids.count(name) > 1:
            raise UsageError(f"{path} has {ids.count(name)} cards with the id {name!r}")
    return cards


def by_topic(cards: Iterable[Card], topic: str) -> list[Card]:
    """The cards with this tag, or of the lesson with this number, such as 05 or 5.

    Raises UsageError if there is none, naming the topics there are.
    """
    lesson = topic.zfill(2) if topic.isdecimal() else None
    found = [card for card in cards if topic in card.tags or card.lesson == lesson]
    if not found:
        raise UsageError(f"no card has the topic {topic!r}; choose one of: {', '.join(TOPICS)}")
    return found


def in_order(card: Card) -> list[str]:
    """Of the kind order: the items as they should stand."""
    return [card.items[int(number) - 1] for number in card.right.text.split()]


def pairs(card: Card, choice: Choice) -> list[tuple[str, str]]:
    """Of the kind match: every item, and the option that this choice gives it."""
    letters = {part[0]: part[1:] for part in choice.text.split()}
    return [
        (item, card.options[LETTERS.index(letters[str(number)])])
        for number, item in enumerate(card.items, start=1)
    ]


def problems(card: Card) -> list[str]:
    """What is wrong with the form of a card, a sentence each."""
    keys = [choice.key for choice in card.choices]
    texts = [choice.text for choice in card.choices]
    found = {
        f"its kind is {card.kind!r}, not one of {', '.join(KINDS)}": card.kind not in KINDS,
        f"its topic is {card.topic!r}, not one of {', '.join(TOPICS)}": card.topic not in TOPICS,
        f"there is no lesson {card.lesson!r}": card.lesson not in LESSONS,
        "its difficulty is not from 1 to 5": card.difficulty not in range(1, 6),
        "it has fewer than three choices": len(card.choices) < 3,
        "two of its choices are the same": len({*keys}) < len(keys) or len({*texts}) < len(texts),
        f"its answer {card.answer!r} is not the key of a choice": card.answer not in keys,
        f"a cloze has one gap {GAP}": card.kind == "cloze" and card.question.count(GAP) != 1,
        "a field is empty": not all((card.id, card.question, card.explanation, card.source)),
        "a choice has no text or no reason": not all(c.text and c.why for c in card.choices),
    }
    if card.kind in ("order", "match"):
        found["a choice does not use every item once"] = not all(_fits(card, t) for t in texts)
    return [problem for problem, holds in found.items() if holds]


def _fits(card: Card, text: str) -> bool:
    """Does "2 1 3", or in a match "1B 2A 3A", use every item once?"""
    parts = text.split()
    numbers = sorted(part[0] for part in parts)
    letters = {part[1:] for part in parts}
    allowed = {*LETTERS[: len(card.options)]} or {""}
    return numbers == [str(i + 1) for i in range(len(card.items))] and letters <= allowed
