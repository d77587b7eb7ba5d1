"""What every format says of a card, as HTML that needs neither style nor MathML.

A program that asks with choices shows `question` and gives each choice its `why`. One that cannot
say a reason for each choice, as Moodle when it asks to match, says `reasons` at the end.
"""

from __future__ import annotations

from collections.abc import Iterable

from minilora.learn.exam.cards import LESSONS, LETTERS, Card, Choice, in_order, pairs
from minilora.learn.exam.maths import to_html, to_text

COLLECTION = "LoRA exam cards"


def question(card: Card) -> str:
    """The question, and under it the numbered items and the lettered options, if there are any."""
    html = prompt(card)
    if card.items:
        html += _list("ol", map(to_html, card.items))
    if card.options:
        html += _list('ol type="A"', map(to_html, card.options))
    return html


def prompt(card: Card) -> str:
    """The question alone."""
    return f"<p>{to_html(card.question)}</p>"


def choices(card: Card) -> str:
    """The choices with letters; nothing where an order or pairs can be found without them."""
    if not _lettered(card):
        return ""
    return _list('ol type="A"', [to_html(choice.text) for choice in card.choices])


def answer(card: Card) -> str:
    """The letter of the right choice, or the order or the pairs, written out."""
    if card.kind == "order":
        return card.right.text + _list("ol", map(to_html, in_order(card)))
    if card.kind == "match":
        return card.right.text + _list("ul", map(_pair, pairs(card, card.right)))
    return LETTERS[card.choices.index(card.right)]


def reasons(card: Card) -> str:
    """Of every choice, why it is right or wrong."""
    entries = ""
    for choice in card.choices:
        kind, sign = ("right", "✓") if choice is card.right else ("wrong", "✗")
        chosen = _chosen(card, choice)
        entries += f'<li class="{kind}">{chosen}<span>{sign}</span> {to_html(choice.why)}</li>'
    return f'<ol type="A">{entries}</ol>' if _lettered(card) else f"<ul>{entries}</ul>"


def feedback(card: Card) -> str:
    """What is said after any answer: the explanation, the source and the lesson."""
    return f"<p>{to_html(card.explanation)}</p><p>{source(card)} {lesson(card)}.</p>"


def source(card: Card) -> str:
    return f"Source: {to_html(card.source).rstrip('.')}."


def lesson(card: Card) -> str:
    return f"Lesson {card.lesson}: {LESSONS[card.lesson]}"


def in_menu(text: str) -> str:
    """A text where a program can show nothing but characters."""
    return to_text(text).replace("`", "")


def _lettered(card: Card) -> bool:
    """Have the choices letters? Those of a match consist of letters, and of an order numbers."""
    return card.kind not in ("order", "match")


def _chosen(card: Card, choice: Choice) -> str:
    """Its text. Of a match, what is wrong in it, in words: others show its items unnumbered."""
    lines = [to_html(choice.text)]
    if card.kind == "match":
        right = pairs(card, card.right)
        lines = [_pair(pair) for pair in pairs(card, choice) if pair not in right]
    return "".join(f"<b>{line}</b><br>" for line in lines)


def _pair(pair: tuple[str, str]) -> str:
    return f"{to_html(pair[0])} → {to_html(pair[1])}"


def _list(tag: str, entries: Iterable[str]) -> str:
    return f"<{tag}>{''.join(f'<li>{entry}</li>' for entry in entries)}</{tag.split()[0]}>"
