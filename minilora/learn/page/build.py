"""Puts the page together: one HTML file from the parts in this folder and the data of its widgets.

A widget has a folder of its name, with its text, NAME.html, and its scripts. `$mathematics$` of the
texts becomes MathML. The file needs nothing else, and asks for nothing when it is opened.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from minilora.learn.exam.cards import load_cards
from minilora.learn.exam.maths import mathml_in_html
from minilora.learn.page.cards.cards_data import card_templates, cards_data
from minilora.learn.page.count.count_data import count_data
from minilora.learn.page.live.live_data import MARKS, live_data
from minilora.system.files import write_atomically
from minilora.system.version import __version__

_HERE = Path(__file__).parent
_WIDGETS = ("live", "playground", "count", "cards")
_SCRIPTS = {
    "common": "dom state controls tools numbers random matrix chart heatmap slices",
    "live": "model adapter writer live live_shown",
    "playground": "svd teacher playground playground_shown playground_words playground_ranks",
    "count": "counting count",
    "cards": "fsrs progress formula typed card exam review learner cards",
}


def write_page(path: Path, marks: tuple[int, ...] = MARKS) -> None:
    """Measure what the page shows, with progress bars, and write it.

    marks: the training steps whose adapters the live model has, in rising order.
    """
    cards = load_cards()
    data = {
        "live": live_data(marks),
        "playground": {},
        "count": count_data(),
        "cards": cards_data(cards),
    }
    html = page(data, card_templates(cards))
    write_atomically(path, lambda place: place.write_text(html, "utf-8", newline="\n"))


def page(data: dict[str, Any], templates: str) -> str:
    """The HTML of the page.

    data: of each widget, under its name, as its script expects it. templates: HTML that the
    scripts clone.
    """
    parts = {"style": _part("style.css"), "version": __version__}
    parts["templates"] = templates
    parts |= {f"{name}.html": mathml_in_html(_part(f"{name}/{name}.html")) for name in _WIDGETS}
    parts["script"] = "\n".join(map(_part, script_files()))
    # "<" is escaped, as "</script>" and "<!--" mean something to HTML also within a script
    parts["data"] = json.dumps(data, ensure_ascii=False, separators=(",", ":")).replace(
        "<", "\\u003c"
    )
    frame = mathml_in_html(_part("page.html"))
    return re.sub(r"{{([\w.]+)}}", lambda match: parts[match[1]], frame)


def script_files() -> list[str]:
    """The scripts, in the order in which they stand in the page."""
    files = [f"{folder}/{name}.js" for folder in _SCRIPTS for name in _SCRIPTS[folder].split()]
    return [*files, "common/start.js"]


def _part(name: str) -> str:
    path = _HERE / name
    return path.read_text("utf-8").rstrip("\n")
