"""Anki: a package of notes with a note type of our own, or a text file for the note type Basic.

Anki knows a note by its guid, which is made of the card's id: a package that is imported again
brings new wordings and leaves the schedule alone. The id of the note type never changes, nor do its
fields, since Anki then makes a second note type and leaves all notes that it has unchanged. So
every field is HTML: whatever comes later (a picture, a table) goes into the field that it explains.
Id comes first, since two notes with the same first field count as duplicates. Sources:
docs.ankiweb.net, "Packaged decks" and "Text files".
"""

from __future__ import annotations

import itertools
import re
import sqlite3
import zipfile
import zlib
from collections.abc import Iterable
from pathlib import Path

from minilora.learn.demos.demo import demo_of
from minilora.learn.exam.cards import TOPICS, Card
from minilora.learn.exam.maths import to_html
from minilora.learn.exports import wording
from minilora.system.errors import MissingExtraError

_NOTE_TYPE = 1_764_150_001
_FIELDS = (
    "Id", "Question", "Choices", "Answer", "Reasons", "Explanation", "Source", "Lesson", "Topic",
    "Difficulty", "Demo",
)  # fmt: skip
_FRONT = """\
<div class="topic">{{Topic}}</div>
<div class="question">{{Question}}</div>
<div class="choices">{{Choices}}</div>
"""
_BACK = """\
<div class="topic">{{Topic}}</div>
<div class="question">{{Question}}</div>
<hr id="answer">
<div class="answer">Answer: {{Answer}}</div>
<div class="reasons">{{Reasons}}</div>
<div class="explanation">{{Explanation}}</div>
<div class="about">{{Source}} {{Lesson}}. Difficulty {{Difficulty}} of 5.<br>
What proves it: {{Demo}}</div>
"""
_STYLE = (Path(__file__).parent / "anki.css").read_text("utf-8")


def write_anki(cards: Iterable[Card], path: Path, when: float) -> None:
    """Write a package, FILE.apkg, with a deck for each topic.

    when: seconds since 1970. A note that is already in Anki is changed if this is later than the
    time of its last change; the same cards and time give the same bytes.
    """
    try:
        import genanki
    except ModuleNotFoundError:
        raise MissingExtraError(
            'packages for Anki are made with genanki: pip install "minilora[cards]", or choose '
            "--anki-text"
        ) from None
    note_type = genanki.Model(
        _NOTE_TYPE,
        "LoRA exam card",
        fields=[{"name": name} for name in _FIELDS],
        templates=[{"name": "Card", "qfmt": _FRONT, "afmt": _BACK}],
        css=_STYLE,
    )
    decks = {topic: genanki.Deck(_deck_id(topic), _deck(topic)) for topic in TOPICS}
    for place, card in enumerate(cards):
        values = _fields(card)
        note = genanki.Note(
            note_type,
            [values[name] for name in _FIELDS],
            guid=_guid(card),
            tags=_tags(card),
            due=place,  # new cards come in this order
        )
        decks[card.topic].add_note(note)
    package = genanki.Package([deck for deck in decks.values() if deck.notes])
    # Its own write_to_file leaves a temporary file behind, and writes the hour into the archive.
    database = sqlite3.connect(":memory:")
    package.write_to_db(database.cursor(), when, itertools.count(int(1000 * when)))
    database.commit()
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in (("collection.anki2", database.serialize()), ("media", b"{}")):
            archive.writestr(zipfile.ZipInfo(name), content, zipfile.ZIP_DEFLATED)
    database.close()


def anki_text(cards: Iterable[Card]) -> str:
    """A text file that any Anki imports, with the fields Front and Back of the note type Basic."""
    lines = [
        "#separator:tab",
        "#html:true",
        "#notetype:Basic",
        "#columns:guid\tFront\tBack\tdeck\ttags",
        "#guid column:1",
        "#deck column:4",
        "#tags column:5",
    ]
    for card in cards:
        fields = _fields(card)
        front, back = _filled(_FRONT, fields), _filled(_BACK, fields)
        cells = (f"{_guid(card)}-basic", front, back, _deck(card.topic), " ".join(_tags(card)))
        lines.append("\t".join(_cell(cell) for cell in cells))
    return "\n".join(lines) + "\n"


def _fields(card: Card) -> dict[str, str]:
    return {
        "Id": card.id,
        "Question": wording.question(card),
        "Choices": wording.choices(card),
        "Answer": wording.answer(card),
        "Reasons": wording.reasons(card),
        "Explanation": to_html(card.explanation),
        "Source": wording.source(card),
        "Lesson": wording.lesson(card),
        "Topic": TOPICS[card.topic],
        "Difficulty": str(card.difficulty),
        "Demo": to_html(demo_of(card).does),
    }


def _filled(template: str, fields: dict[str, str]) -> str:
    return re.sub(r"\{\{(\w+)\}\}", lambda name: fields[name[1]], template)


def _cell(html: str) -> str:
    """On one line without tabs, and in quotes, which Anki asks for around a text with quotes."""
    return '"' + " ".join(html.split()).replace('"', '""') + '"'


def _guid(card: Card) -> str:
    return f"minilora-{card.id}"


def _tags(card: Card) -> list[str]:
    tags = [*card.tags, f"lesson-{card.lesson}", f"difficulty-{card.difficulty}"]
    return [f"minilora::{tag.replace(' ', '-')}" for tag in tags]


def _deck(topic: str) -> str:
    return f"{wording.COLLECTION}::{TOPICS[topic]}"


def _deck_id(topic: str) -> int:
    """The same for ever. Ids that Anki gives are times in milliseconds, far above these."""
    return (1 << 30) + zlib.crc32(topic.encode()) % (1 << 30)
