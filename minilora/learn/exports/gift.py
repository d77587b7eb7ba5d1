"""GIFT, the text format of Moodle that other programs read too: a few lines a card.

    ::what-is-lora::[html]<p>What is LoRA …</p>{
        ~<p>a wrong choice</p>#<p>why it is wrong</p>
        =<p>the right one</p>#<p>why it is right</p>
        ####<p>the explanation</p>
    }

Cards that ask to match use GIFT's own form for it, `=item -> option`. Everything else is a choice,
since GIFT knows no order, and gives no reason for a wrong word that is typed. The comment above a
question, `[id:…] [tag:…]`, is read by Moodle. Source of the format: docs.moodle.org, "GIFT format".
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import groupby

from minilora.learn.exam.cards import TOPICS, Card, Choice, pairs
from minilora.learn.exam.maths import to_html
from minilora.learn.exports import wording

_ESCAPES = str.maketrans({c: f"\\{c}" for c in "\\~=#{}:"})


def gift(cards: Iterable[Card]) -> str:
    """The text of a GIFT file, a category for each topic."""
    blocks = []
    for topic, of_topic in groupby(cards, key=lambda card: card.topic):
        blocks.append(f"$CATEGORY: $course$/top/{wording.COLLECTION}/{TOPICS[topic]}\n")
        blocks += map(_question, of_topic)
    return "\n".join(blocks)


def _question(card: Card) -> str:
    tags = "".join(f" [tag:{tag}]" for tag in card.tags)
    if card.kind == "match":
        asked, said = wording.prompt(card), wording.reasons(card) + wording.feedback(card)
        answers = [
            f"={_paragraph(to_html(item))} -> {_escaped(wording.in_menu(option))}"
            for item, option in pairs(card, card.right)
        ]
    else:
        asked, said = wording.question(card), wording.feedback(card)
        answers = [_answer(choice, choice is card.right) for choice in card.choices]
    lines = [f"    {line}\n" for line in [*answers, f"####{_escaped(said)}"]]
    return f"// [id:{card.id}]{tags}\n::{card.id}::[html]{_escaped(asked)}{{\n{''.join(lines)}}}\n"


def _answer(choice: Choice, right: bool) -> str:
    sign = "=" if right else "~"
    return f"{sign}{_paragraph(to_html(choice.text))}#{_paragraph(to_html(choice.why))}"


def _paragraph(html: str) -> str:
    """As a paragraph, since GIFT has a meaning of its own for a text that begins with % or [."""
    return _escaped(f"<p>{html}</p>")


def _escaped(html: str) -> str:
    return html.translate(_ESCAPES)
