"""The command that lists the exam cards, and writes them for other programs: cards."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from pathlib import Path

from rich.console import Console
from rich.padding import Padding

from minilora.cli.output import suggest
from minilora.learn.cards import TOPICS, Card, by_topic, load_cards
from minilora.learn.exports.anki import anki_text, write_anki
from minilora.learn.exports.gift import gift
from minilora.learn.exports.json_file import cards_json
from minilora.learn.exports.moodle import moodle_xml
from minilora.learn.exports.qti import write_qti
from minilora.learn.maths import to_text
from minilora.system.errors import UsageError
from minilora.system.files import write_atomically

_Write = Callable[[list[Card], Path], object]


@dataclass(frozen=True)
class Format:
    """endings: those that the other program knows the file by. next: what to do with the file."""

    endings: tuple[str, ...]
    about: str
    write: _Write
    next: str


def _text(convert: Callable[[list[Card]], str]) -> _Write:
    return lambda cards, path: path.write_text(convert(cards), "utf-8", newline="\n")


def _page(cards: list[Card], path: Path) -> None:
    from minilora.learn.page.build import write_page

    write_page(path)


FORMATS = {  # of the option --NAME
    "anki": Format(
        (".apkg",),
        "a package for Anki",
        lambda cards, path: write_anki(cards, path, time.time()),
        "In Anki choose File > Import; a package that you import later keeps your progress.",
    ),
    "anki-text": Format(
        (".txt",),
        "a text file for Anki, with its note type Basic",
        _text(anki_text),
        "In Anki choose File > Import; the note type is Basic.",
    ),
    "moodle": Format(
        (".xml",),
        "questions for Moodle",
        _text(moodle_xml),
        "In Moodle choose Question bank > Import > Moodle XML format.",
    ),
    "gift": Format(
        (".txt", ".gift"),
        "questions for Moodle and others, as text that a person can edit",
        _text(gift),
        "In Moodle choose Question bank > Import > GIFT format.",
    ),
    "qti": Format(
        (".zip",),
        "a quiz for Canvas and others that read QTI 1.2",
        write_qti,
        "In Canvas choose Settings > Import Course Content > QTI .zip file.",
    ),
    "json": Format(
        (".json",),
        "for a program of your own",
        _text(cards_json),
        "Its fields are described in minilora/assets/cards.schema.json.",
    ),
    "html": Format(
        (".html", ".htm"),
        "the page, with all cards to flip and a mock exam",
        _page,
        "Open it in a browser; it works without a network.",
    ),
}


def run_cards(args: argparse.Namespace) -> int:
    cards = load_cards()
    if args.topic:
        cards = by_topic(cards, args.topic)
    given = vars(args)
    wanted = {name: given[name.replace("-", "_")] for name in FORMATS}
    paths = {name: path for name, path in wanted.items() if path}
    if not paths:
        _list(cards)
        return 0
    for name, path in paths.items():
        _check(name, path, list(paths.values()), args.topic)
    for name, path in paths.items():
        write_atomically(path, partial(FORMATS[name].write, cards))
        what = "The page" if name == "html" else _count(cards)
        print(f"{what} in {path}. {FORMATS[name].next}")
    return 0


def _check(name: str, path: Path, paths: list[Path], topic: str | None) -> None:
    """Raise UsageError for what can be known before anything is written."""
    endings = FORMATS[name].endings
    if path.suffix.lower() not in endings:
        raise UsageError(f"--{name} writes a file that ends in {' or '.join(endings)}: not {path}")
    if path.is_dir():
        raise UsageError(f"{path} is a folder: give the name of a file, --{name} FILE{endings[0]}")
    if paths.count(path) > 1:
        raise UsageError(f"two formats cannot both be written to {path}: name a file for each")
    if name == "html" and topic:
        raise UsageError("the page always has all topics: leave out --topic, and choose there")


def _list(cards: list[Card]) -> None:
    console = Console(markup=False, highlight=False)
    for topic, of_topic in groupby(cards, key=lambda card: card.topic):
        console.print(f"{topic}: {TOPICS[topic]}", style="bold")
        for card in of_topic:
            console.print(Padding(card.id, (0, 0, 0, 2), expand=False), style="cyan")
            question = " ".join(to_text(card.question).split())
            console.print(Padding(question, (0, 0, 0, 4), expand=False))
    print(f"{_count(cards)}. They can be answered here, in Anki, Moodle and Canvas, and on paper.")
    print(suggest("quiz"))


def _count(cards: list[Card]) -> str:
    return "1 card" if len(cards) == 1 else f"{len(cards)} cards"
