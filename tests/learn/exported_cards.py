"""The cards that exports are tested with, and what a reader of an export must find of each.

Beside the real cards there is one of every kind whose texts hold what some format gives a meaning:
GIFT's ~ = # { } : \\ %50% [html] ->, HTML's < & ", lines, tabs and CSV's quotes.
"""

import re
import unicodedata
from dataclasses import dataclass
from xml.etree import ElementTree

from minilora.learn.exam.cards import KINDS, LESSONS, Card, Choice, load_cards

SPECIAL = '~%50%a {b} = #c: \\d \\n <i>e</i> & "f" -> ####g ::h:: ]]> $√r < x_0^2$ `k["l"]` é 漢'
TEXTS = {
    "order": ("1 2 3", "2 1 3", "3 2 1", "1 3 2"),
    "match": ("1A 2B 3A", "1B 2A 3A", "1A 2A 3B", "1B 2B 3A"),
}
KEYS = ("adds_parameters", "low_rank", "other_technique", "no_effect")  # of the demo named below


def special(kind):
    texts = TEXTS.get(kind, ("[html]%50%no", f"= {SPECIAL}", f"yes {SPECIAL}", "~"))
    return Card(
        id=f"special-{kind}",
        kind=kind,
        tags=("texts", "two words"),
        lesson="04",
        difficulty=5,
        question=f"// What, ____?\n\tAnd {SPECIAL}",
        choices=tuple(
            Choice(key, text, f"{key} since {SPECIAL}")
            for key, text in zip(KEYS, texts, strict=True)
        ),
        answer=KEYS[0] if kind in TEXTS else KEYS[1],
        explanation=f"[x] Because {SPECIAL}",
        source="Nobody & nothing: section 3",
        demo="definition.what_is_lora",
        items=tuple(f"item {i} {SPECIAL}" for i in (1, 2, 3)) if kind in TEXTS else (),
        options=(f"one {SPECIAL}", f"two {SPECIAL}") if kind == "match" else (),
    )


SPECIALS = [special(kind) for kind in KINDS]
CARDS = load_cards() + SPECIALS


@dataclass
class Read:
    """answers: (text, why, is it right), or of a match (item, option, True). All of it bare."""

    id: str
    question: str
    answers: list[tuple[str, str, bool]]
    after: str


def assert_holds(read, card):
    """What was read from an export is what the card says, all of it."""
    assert read.id == card.id
    if card.kind == "match":
        letters = {part[0]: "ABCDEFGH".index(part[1]) for part in card.right.text.split()}
        question = card.question
        answers = [
            (bare(item), bare(card.options[letters[str(i)]]), True)
            for i, item in enumerate(card.items, start=1)
        ]
        for choice in card.choices:
            assert bare(choice.why) in read.after
    else:
        question = card.question + "".join(card.items)
        answers = [(bare(c.text), bare(c.why), c.key == card.answer) for c in card.choices]
    assert read.question == bare(question)
    assert read.answers == answers
    assert bare(card.explanation) in read.after
    assert bare(card.source.rstrip(".")) in read.after


def assert_note_holds(fields, card):
    assert bare_html(fields["Question"]) == bare(
        card.question + "".join(card.items) + "".join(card.options)
    )
    chosen = [bare("".join(entry.itertext())) for entry in tree(fields["Choices"]).iter("li")]
    reasons = list(tree(fields["Reasons"]).find("*"))
    assert [entry.get("class") == "right" for entry in reasons] == [
        choice is card.right for choice in card.choices
    ]
    for choice, entry in zip(card.choices, reasons, strict=True):
        sign = "✓" if choice is card.right else "✗"
        assert bare("".join(entry.itertext())).endswith(bare(sign + choice.why))
    if card.kind in ("order", "match"):
        assert chosen == []
        assert fields["Answer"].startswith(card.right.text)
    else:
        assert chosen == [bare(choice.text) for choice in card.choices]
        assert card.choices["ABCDE".index(fields["Answer"])] is card.right
    assert bare_html(fields["Explanation"]) == bare(card.explanation)
    assert bare(card.source.rstrip(".")) in bare_html(fields["Source"])
    assert LESSONS[card.lesson] in fields["Lesson"]
    assert fields["Difficulty"] == str(card.difficulty)
    assert fields["Demo"].endswith(".")


def bare_html(html):
    return bare(characters(html))


def characters(html):
    """What a reader of this HTML sees; ElementTree accepts nothing that is not well formed."""
    return "".join(tree(html).itertext())


def tree(html):
    closed = re.sub(r"<((br|hr)[^>]*)>", r"<\1/>", html)
    return ElementTree.fromstring(f"<div>{closed}</div>")


def bare(text):
    """Without spaces, and without what only marks: dollars, backticks, scripts and their braces."""
    plain = unicodedata.normalize("NFKC", text).translate(str.maketrans("−′", "-'"))
    return "".join(c for c in plain if not c.isspace() and c not in "$`_^{}")
