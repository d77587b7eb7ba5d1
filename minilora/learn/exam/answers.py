"""What a person typed as an answer: which of the card's choices it means, if it means one.

A letter or a number picks a choice. The gap of a cloze is filled by words, by a number, or by a
formula in any style (formulas.py); an order is 2413, a match 1B 2A 3D 4C or BADC.
"""

from __future__ import annotations

import re

from minilora.learn.exam.cards import GAP, LETTERS, Card, Choice
from minilora.learn.exam.formulas import is_formula, same_formula
from minilora.learn.exam.quiz import Answer, Question
from minilora.system.errors import UsageError

_LONGEST = 200  # characters: no right answer is nearly as long
_NUMBER = re.compile(r"([-−]?\d[\d, ]*(?:\.(\d+))?)\s*([^\d\s]*)")
_DECIMAL_COMMA = re.compile(r"(\d+),(\d{1,2}|\d{4,})(?!\d)|\b(0),(\d+)")
_BETWEEN = re.compile(r"[\s,;.:=>→–-]")


def is_typed(card: Card) -> bool:
    """Is it answered by more than a letter, so that its choices need not be shown?"""
    return card.kind in ("cloze", "order", "match")


def read_answer(question: Question, typed: str, letters: bool = True) -> Answer:
    """letters: are the choices shown with their letters? Else "B" is a text; if no choice says
    that, it was typed by habit, and is no answer.

    Raises UsageError, saying what to type, if this can be no answer to the question.
    """
    text, card = typed.strip(), question.card
    shown = LETTERS[: len(question.choices)] if letters else ""
    if text and text.upper() in list(shown):
        return Answer(question, text, question.choices[shown.index(text.upper())])
    if card.kind == "cloze" and 0 < len(text) <= _LONGEST:
        choice = _filled(card, text)
        if choice or letters or text.upper() not in list(LETTERS[: len(card.choices)]):
            return Answer(question, text, choice)
        raise UsageError(f"type {how_to_answer(question, letters)}: the choices are not shown yet")
    if card.kind == "order" and (numbers := _order(card, text)):
        return Answer(question, text, _chosen(card, numbers))
    if card.kind == "match" and (pairs := _pairs(card, text)):
        return Answer(question, text, _chosen(card, pairs))
    if not is_typed(card) and text in list("12345678"[: len(shown)]):
        return Answer(question, text, question.choices[int(text) - 1])
    raise UsageError(f"type {how_to_answer(question, letters)}")


def how_to_answer(question: Question, letters: bool = True) -> str:
    """What can be typed, as it stands after "type"."""
    numbers = range(1, len(question.card.items) + 1)
    ways = {
        "cloze": "what fills the gap (a formula in any style)",
        "order": f"the numbers in the right order, such as {''.join(map(str, numbers[::-1]))}",
        "match": "a letter for each number, such as " + " ".join(f"{i}A" for i in numbers),
    }
    letter = [f"a letter from A to {LETTERS[len(question.choices) - 1]}"] if letters else []
    way = [ways[question.card.kind]] if question.card.kind in ways else []
    return ", or ".join(way + letter)


def same_answer(typed: str, expected: str) -> bool:
    """Do both fill a gap with the same: the same words, number or formula?"""
    if "$" not in expected and _words(typed) == _words(expected):
        return True
    return _same_number(typed, expected) or same_formula(typed, expected)


def word_after_gap(card: Card) -> str:
    """The word that stands after the gap of a cloze, such as a unit; "" if none does."""
    found = re.match(r"\s*(\w*)", card.question.partition(GAP)[2])
    return found[1] if found else ""


def _filled(card: Card, typed: str) -> Choice | None:
    """What stands after the gap may be typed as well."""
    after = word_after_gap(card)
    if after and re.search(rf"[\d\s]{after}$", typed, re.IGNORECASE):
        typed = typed[: -len(after)].strip()
    if any(same_answer(typed, spelling) for spelling in (card.right.text, *card.accept)):
        return card.right
    found = next((c for c in card.choices if same_answer(typed, c.text)), None)
    if not found and "$" in card.right.text and not is_formula(typed):
        raise UsageError("type a formula that can be read: this one cannot")
    return found


def _words(text: str) -> str:
    """Without what does not matter: capitals, articles, spaces, hyphens, quotation marks."""
    plain = re.sub(r"[`\"'“”‘’.!?]", "", text.casefold())
    return re.sub(r"\b(the|an?)\s|[\s\-]", "", plain)


def _same_number(typed: str, expected: str) -> bool:
    """To the decimal places of what is expected; a unit may be left out."""
    one = _NUMBER.fullmatch(_DECIMAL_COMMA.sub(r"\1\3.\2\4", typed.strip()))
    other = _NUMBER.fullmatch(expected.replace("$", "").strip())
    if not (one and other):
        return False
    value, wanted = (float(re.sub("[ ,]", "", n[1]).replace("−", "-")) for n in (one, other))
    decimals = len(other[2] or "")
    near = value == wanted or (decimals > 0 and round(value, decimals) == wanted)
    return near and one[3].casefold() in ("", other[3].casefold())


def _order(card: Card, text: str) -> list[str]:
    """The numbers, or nothing if they are not those of the items."""
    numbers = _BETWEEN.sub("", text)
    return [*numbers] if sorted(numbers) == _numbers(card) else []


def _pairs(card: Card, text: str) -> list[str]:
    """1B, 2A …, or nothing if not every number has a letter. BA means 1B 2A."""
    letters = _BETWEEN.sub("", text.upper())
    if letters.isalpha():
        letters = "".join(f"{i + 1}{letter}" for i, letter in enumerate(letters))
    pairs = sorted(letters[i : i + 2] for i in range(0, len(letters), 2))
    options = LETTERS[: len(card.options)]
    fits = all(len(pair) == 2 and pair[1] in options for pair in pairs)
    return pairs if fits and [pair[0] for pair in pairs] == _numbers(card) else []


def _numbers(card: Card) -> list[str]:
    return [str(i + 1) for i in range(len(card.items))]


def _chosen(card: Card, parts: list[str]) -> Choice | None:
    """The choice with this order, or with these pairs."""
    arranged = sorted if card.kind == "match" else list
    return next((c for c in card.choices if arranged(c.text.split()) == parts), None)
