"""Puts the page together: one HTML file from the parts in this folder and the data of its widgets.

A widget NAME has a text, NAME.html, and a script, NAME.js. `$mathematics$` of the texts becomes
MathML. The file needs nothing else, and asks for nothing when it is opened.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from minilora.system.version import __version__

_HERE = Path(__file__).parent
_WIDGETS = ("live", "playground", "count", "cards")
_SCRIPTS = ("state.js", "live.js", "playground.js", "count.js", "cards.js", "start.js")


def page(data: dict[str, Any]) -> str:
    """The HTML of the page. data: of each widget, under its name, as its script expects it."""
    parts = {"style": _part("style.css"), "version": __version__}
    parts |= {f"{name}.html": _part(f"{name}.html") for name in _WIDGETS}
    parts["script"] = "\n".join(_part(name) for name in _SCRIPTS)
    parts["data"] = json.dumps(data, ensure_ascii=False, separators=(",", ":")).replace(
        "</", "<\\/"
    )
    html = _part("page.html")
    for name, text in parts.items():
        html = html.replace("{{" + name + "}}", text)
    return html


def _part(name: str) -> str:
    path = _HERE / name
    return path.read_text("utf-8").rstrip("\n")
