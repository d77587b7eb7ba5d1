"""Puts the page together: one HTML file from the parts in this folder and the data of its widgets.

A widget NAME has a text, NAME.html, and a script, NAME.js. `$mathematics$` of the texts becomes
MathML. The file needs nothing else, and asks for nothing when it is opened.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from minilora.learn.exam.cards import load_cards
from minilora.learn.exam.maths import mathml_in_html
from minilora.learn.page.cards_data import card_templates, cards_data
from minilora.learn.page.count_data import count_data
from minilora.learn.page.live_data import MARKS, live_data
from minilora.system.files import write_atomically
from minilora.system.version import __version__

_HERE = Path(__file__).parent
_WIDGETS = ("live", "playground", "count", "cards")
_SCRIPTS = (
    *("dom.js", "state.js", "controls.js", "tools.js"),
    *("numbers.js", "random.js", "matrix.js", "chart.js", "heatmap.js"),
    *("model.js", "adapter.js", "writer.js", "slices.js", "live.js", "live_shown.js"),
    *("svd.js", "teacher.js", "playground.js", "playground_shown.js"),
    *("playground_words.js", "playground_ranks.js"),
    *("counting.js", "count.js"),
    *("fsrs.js", "progress.js", "formula.js", "typed.js", "card.js"),
    *("exam.js", "review.js", "learner.js", "cards.js"),
    "start.js",
)


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
    parts |= {f"{name}.html": mathml_in_html(_part(f"{name}.html")) for name in _WIDGETS}
    parts["script"] = "\n".join(_part(name) for name in _SCRIPTS)
    # "<" is escaped, as "</script>" and "<!--" mean something to HTML also within a script
    parts["data"] = json.dumps(data, ensure_ascii=False, separators=(",", ":")).replace(
        "<", "\\u003c"
    )
    frame = mathml_in_html(_part("page.html"))
    return re.sub(r"{{([\w.]+)}}", lambda match: parts[match[1]], frame)


def _part(name: str) -> str:
    path = _HERE / name
    return path.read_text("utf-8").rstrip("\n")
