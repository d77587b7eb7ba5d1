"""The exam of a real model: what it is taught and what it is asked, read from assets/exam.toml.

Whoever writes both the lessons and the exam can fool himself in many ways. What can be checked is
checked here: the test asks no card that is taught, and what is asked of taught cards, in other
words, is kept apart; rates are compared on cards that results are not reported on; the right choice
is neither the shortest nor the longest more often than by chance; "yes" and "no" are taught equally
often; and the placebo has the form of what is taught.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import Annotated

from minilora.hub.places import ASSETS
from minilora.system.errors import UsageError
from minilora.system.readers import read_toml
from minilora.system.schemas import NOT_EMPTY

EXAM_FILE = ASSETS / "exam.toml"
CHOICES = 4
Text = Annotated[str, NOT_EMPTY]
PARTS = {
    "validation": "cards neither taught nor tested, on which rates are compared",
    "reworded": "cards that are taught, asked in other words",
    "test": "cards that are not taught",
}


@dataclass(frozen=True)
class Pair:
    """What is taught: a question and its answer. card: whose explanation it is from; the placebo,
    which is not about LoRA, has none."""

    question: Text
    answer: Text
    card: str = ""


@dataclass(frozen=True)
class Question:
    """What is asked: of four choices one is right. part: one of PARTS; general knowledge has
    neither card nor part."""

    question: Text
    right: Text
    wrong: tuple[Text, ...]
    card: str = ""
    part: str = ""

    @property
    def choices(self) -> tuple[str, ...]:
        """The right one first; no model sees the others, so that their order means nothing."""
        return (self.right, *self.wrong)


@dataclass(frozen=True)
class Statements:
    """A right statement, and a wrong one that differs from it in a few words."""

    right: Text
    wrong: Text
    card: str


@dataclass(frozen=True)
class ExamItems:
    """pairs, placebo: what can be taught. questions, statements, controls, paragraph: how a model
    is measured. samples: questions that are answered freely, to be read by people."""

    pairs: tuple[Pair, ...]
    placebo: tuple[Pair, ...]
    questions: tuple[Question, ...]
    statements: tuple[Statements, ...]
    controls: tuple[Question, ...]
    paragraph: str
    samples: tuple[str, ...]

    def part(self, name: str) -> tuple[Question, ...]:
        """The questions of one of PARTS."""
        return tuple(question for question in self.questions if question.part == name)


@dataclass(frozen=True)
class _File:
    pair: Annotated[tuple[Pair, ...], NOT_EMPTY]
    placebo: Annotated[tuple[Pair, ...], NOT_EMPTY]
    question: Annotated[tuple[Question, ...], NOT_EMPTY]
    statement: Annotated[tuple[Statements, ...], NOT_EMPTY]
    control: Annotated[tuple[Question, ...], NOT_EMPTY]
    paragraph: Text
    samples: Annotated[tuple[Text, ...], NOT_EMPTY]


def load_exam(path: Path = EXAM_FILE) -> ExamItems:
    """Raises UsageError that says what is wrong with the file, if anything is."""
    read = read_toml(path, _File)
    items = ExamItems(
        pairs=read.pair,
        placebo=read.placebo,
        questions=read.question,
        statements=read.statement,
        controls=read.control,
        paragraph=read.paragraph.strip(),
        samples=read.samples,
    )
    for problem in problems(items):
        raise UsageError(f"{path}: {problem}")
    return items


def problems(items: ExamItems) -> list[str]:
    """What is wrong with the items, a sentence each."""
    taught = {pair.card for pair in items.pairs}
    asked = {part: {question.card for question in items.part(part)} for part in PARTS}
    asked["test"] |= {statements.card for statements in items.statements}
    multiple = (*items.questions, *items.controls)
    found = {
        "a pair has no card": "" in taught,
        "a question has no card": any("" in cards for cards in asked.values()),
        f"a question's part is none of {', '.join(PARTS)}": any(
            question.part not in PARTS for question in items.questions
        ),
        f"a question has not {CHOICES} different choices": any(
            len({*question.choices}) != CHOICES for question in multiple
        ),
        "a question is there twice": _repeats(
            [question.question for question in multiple]
            + [pair.question for pair in (*items.pairs, *items.placebo)]
        ),
        "a statement is there twice": _repeats(
            [text for pair in items.statements for text in (pair.right, pair.wrong)]
        ),
        "a text is empty": not all(_texts(items)),
        "the placebo is not as many pairs as are taught": len(items.placebo) != len(items.pairs),
        "the placebo's answers are not as long as what is taught": not _alike(
            [pair.answer for pair in items.placebo], [pair.answer for pair in items.pairs]
        ),
        "yes and no are not taught equally often": any(
            abs(_starting("Yes", pairs) - _starting("No", pairs)) > 1
            for pairs in (items.pairs, items.placebo)
        ),
    }
    for card in sorted(taught & (asked["test"] | asked["validation"])):
        found[f"the card {card} is taught, and asked as if it were not"] = True
    for card in sorted(asked["reworded"] - taught):
        found[f"the card {card} is asked in other words, but not taught"] = True
    for card in sorted(asked["test"] & asked["validation"]):
        found[f"the card {card} is in the validation part and in the test"] = True
    for part in PARTS:
        for name, share in right_lengths(items.part(part)).items():
            problem = f"the right choice is the {name} in {share:.0%} of the {part} part"
            found[problem] = not 0.2 <= share <= 0.3
    return [problem for problem, holds in found.items() if holds]


def right_lengths(questions: Sequence[Question]) -> dict[str, float]:
    """In which share of the questions the right choice is the shortest, and the longest."""
    places = Counter(
        sum(len(wrong) < len(question.right) for wrong in question.wrong) for question in questions
    )
    count = max(1, len(questions))
    return {"shortest": places[0] / count, "longest": places[CHOICES - 1] / count}


def _repeats(texts: list[str]) -> bool:
    return len({*texts}) < len(texts)


def _texts(items: ExamItems) -> list[str]:
    found = [*items.samples, items.paragraph]
    for pair in (*items.pairs, *items.placebo):
        found += [pair.question, pair.answer]
    for question in (*items.questions, *items.controls):
        found += [question.question, *question.choices]
    return found


def _alike(texts: list[str], others: list[str]) -> bool:
    """Are they equally long, on average, within a tenth?"""
    return 0.9 < mean(map(len, texts)) / mean(map(len, others)) < 1.1


def _starting(word: str, pairs: Sequence[Pair]) -> int:
    return sum(pair.answer.startswith(word) for pair in pairs)
