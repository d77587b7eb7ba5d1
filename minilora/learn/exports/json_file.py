"""JSON: the cards as they are, for a program of your own.

    {"minilora cards": 1, "made by": "minilora 0.1", "topics": {…}, "lessons": {…}, "cards": […]}

A card has the fields of learn/exam/cards.py, and its texts their notation: `code` between
backticks, $mathematics$ between dollars (learn/exam/maths.py). assets/cards.schema.json is the
JSON Schema of it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict

from minilora.learn.exam.cards import LESSONS, TOPICS, Card
from minilora.system.version import __version__

FORMAT = 1  # counts up when a field is renamed or means something else, not when one is added


def cards_json(cards: Iterable[Card]) -> str:
    """The text of a JSON file."""
    document = {
        "minilora cards": FORMAT,
        "made by": f"minilora {__version__}",
        "topics": TOPICS,
        "lessons": LESSONS,
        "cards": [asdict(card) for card in cards],
    }
    return json.dumps(document, ensure_ascii=False, indent=1) + "\n"
