"""The command that lists the exam cards, and writes them for other programs: cards."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from functools import partial
from itertools import groupby
from pathlib import Path

from rich.padding import Padding

from minilora.cli.terminal.console import Console
from minilora.cli.terminal.output import MAKING_PAGE, say, suggest
from minilora.learn.exam.cards import TOPICS, Card, by_topic, load_cards
from minilora.learn.exam.maths import to_text
from minilora.learn.exports.anki import anki_text, write_anki
from minilora.learn.exports.gift import gift
from minilora.learn.exports.json_file import cards_json
from minilora.learn.exports.moodle import moodle_xml
from minilora.learn.exports.qti import write_qti
from minilora.learn.page.build import write_page
from minilora.system.errors import UsageError, how_many
from minilora.system.files import write_atomically

_Write = Callable[[list[Card], Path], object]


def _text(convert: Callable[[list[Card]], str]) -> _Write:
    return lambda cards, path: path.write_text(convert(cards), "utf-8", newline="\n")


def _package(cards: list[Card], path: Path) -> None:
    write_anki(cards, path, time.time())


def _page(cards: list[Card], path: Path) -> None:
    say(MAKING_PAGE)
    write_page(path)


FORMATS: dict[str, tuple[_Write, str]] = {  # how it is written, and what to do with the file then
    "anki": (
        _package,
        "In Anki choose File > Import; a package that you import later keeps your progress.",
    ),
    "anki_text": (
        _text(anki_text),
        "In Anki choose File > Import; the note type is Basic.",
    ),
    "moodle": (
        _text(moodle_xml),
        "In Moodle choose Question bank > Import > Moodle XML format.",
    ),
    "gift": (
        _text(gift),
        "In Moodle choose Question bank > Import > GIFT format.",
    ),
    "qti": (
        write_qti,
        "In Canvas choose Settings > Import Course Content > QTI .zip file.",
    ),
    "json": (
        _text(cards_json),
        "Its fields are described in minilora/assets/cards.schema.json.",
    ),
    "html": (
        _page,
        "Open it in a browser; it works without a network.",
    ),
}


def run_cards(args: argparse.Namespace) -> int:
    cards = load_cards()
    if args.topic:
        cards = by_topic(cards, args.topic)
    paths = {name: path for name, path in vars(args).items() if name in FORMATS and path}
    if not paths:
        _list(cards)
        return 0
    _check(list(paths.values()))
    if args.html and args.topic:
        raise UsageError("the page always has all topics: leave out --topic, and choose there")
    for name, path in paths.items():
        write, next_step = FORMATS[name]
        write_atomically(path, partial(write, cards))
        what = "The page is" if name == "html" else f"{how_many(len(cards), 'card')} in"
        print(f"{what} {path}. {next_step}", flush=True)
    return 0


def _check(paths: list[Path]) -> None:
    """Raise UsageError for what can be known before anything is written."""
    for path in paths:
        if path.is_dir():
            raise UsageError(f"{path} is a folder: give the name of a file")
        if paths.count(path) > 1:
            raise UsageError(f"two formats cannot both be written to {path}: name a file for each")


def _list(cards: list[Card]) -> None:
    console = Console(markup=False, highlight=False)
    for topic, of_topic in groupby(cards, key=lambda card: card.topic):
        console.print(f"{topic}: {TOPICS[topic]}", style="bold")
        for card in of_topic:
            console.print(Padding(card.id, (0, 0, 0, 2), expand=False), style="cyan")
            question = " ".join(to_text(card.question).split())
            console.print(Padding(question, (0, 0, 0, 4), expand=False))
    print(f"{how_many(len(cards), 'card')}. "
          "They can be answered here, in Anki, Moodle and Canvas, and on paper.")  # fmt: skip
    print(suggest("quiz"))
