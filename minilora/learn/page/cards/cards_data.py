"""The exam cards as the page needs them: their texts as HTML, and what their demos measured.

The texts of a card are a `<template>` of the page, with their formulas as MathML, which the scripts
clone: so no script ever makes HTML of data. Everything else is data (JSON).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from minilora.learn.demos.demo import Proof, demo_of, prove
from minilora.learn.exam.answers import word_after_gap
from minilora.learn.exam.cards import LESSONS, TOPICS, Card
from minilora.learn.exam.maths import to_mathml
from minilora.learn.exam.quiz import PASS
from minilora.training.progress import progress_bar

_RAISED = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def cards_data(cards: Sequence[Card], proof_of: Callable[[Card], Proof] = prove) -> dict[str, Any]:
    """Topics, lessons, the pass line, and the cards, each with what its demo measures now."""
    entries = []
    with progress_bar("demos of the cards", 0, len(cards), 0, quiet=False) as bar:
        for card in cards:
            entries.append(_card_data(card, proof_of(card)))
            bar.update()
    return {"topics": TOPICS, "lessons": LESSONS, "pass": PASS, "cards": entries}


def _card_data(card: Card, proof: Proof) -> dict[str, Any]:
    return {
        "id": card.id,
        "kind": card.kind,
        "tags": card.tags,
        "lesson": card.lesson,
        "difficulty": card.difficulty,
        "keys": [choice.key for choice in card.choices],
        "answer": card.answer,
        "texts": [choice.text for choice in card.choices],
        "accept": card.accept,
        "after": word_after_gap(card),
        "measured": [[name, shown(value)] for name, value in proof.measured.items()],
        "supported": proof.supported,
    }


def shown(value: float) -> str:
    """A measured number as a person reads it: 9,216, 4.43, 3.1 × 10⁻⁵, yes."""
    if isinstance(value, (bool, np.bool_)):
        return "yes" if value else "no"
    if float(value).is_integer() and abs(value) < 1e15:
        return f"{int(value):,}"
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    factor, _, power = f"{value:.3g}".partition("e")
    return f"{factor} × 10{str(int(power)).translate(_RAISED)}" if power else factor


def card_templates(cards: Iterable[Card]) -> str:
    """For each card `<template id="card-ID">` with its texts."""
    return "\n".join(_template(card) for card in cards)


def _template(card: Card) -> str:
    choices = "".join(
        f'<div class="text">{to_mathml(choice.text)}</div><div class="why">{to_mathml(choice.why)}'
        "</div>"
        for choice in card.choices
    )
    return (
        f'<template id="card-{card.id}">'
        f'<div class="question">{to_mathml(card.question)}</div>'
        f"{_list('items', '1', card.items)}{_list('options', 'A', card.options)}{choices}"
        f'<div class="explanation">{to_mathml(card.explanation)}</div>'
        f'<div class="source">{to_mathml(card.source)}</div>'
        f'<div class="does">{to_mathml(demo_of(card).does)}</div>'
        "</template>"
    )


def _list(name: str, numbering: str, texts: tuple[str, ...]) -> str:
    if not texts:
        return ""
    entries = "".join(f"<li>{to_mathml(text)}</li>" for text in texts)
    return f'<ol class="{name}" type="{numbering}">{entries}</ol>'
