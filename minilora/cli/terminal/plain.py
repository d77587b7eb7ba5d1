"""What is shown for √, Δ and their like where the terminal's encoding lacks them: sqrt, Delta.

Nor does what is shown give a terminal orders, as a name in a file might.

Python calls the handler for what cannot be encoded: it is registered below under the name that the
streams have as `errors` (cli/__init__.py).
"""

from __future__ import annotations

import codecs
import unicodedata

ERRORS = "minilora.plain"
_TURNS = {"LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"}
_SPELLED = {
    "√": "sqrt ", "α": "alpha", "Δ": "Delta ", "Σ": "Sum ", "∑": "Sum ", "β": "beta", "σ": "sigma",
    "λ": "lambda", "π": "pi", "ε": "eps", "η": "eta", "θ": "theta", "φ": "phi", "−": "-", "×": "x",
    "·": "*", "÷": "/", "±": "+-", "≈": "~", "≤": "<=", "≥": ">=", "≪": "<<", "≫": ">>", "≠": "!=",
    "∝": "~", "∈": " in ", "→": "->", "←": "<-", "‖": "||", "⊙": "*", "⊕": "+", "∞": "inf",
    "∂": "d", "′": "'", "ᵀ": "^T", "…": "...", "–": "-", "—": "-", "’": "'", "‘": "'", "“": '"',
    "”": '"', "─": "-", "█": "#", "░": ".",
}  # fmt: skip


def plain(text: str, encoding: str) -> str:
    """The text as a terminal with this encoding will show it, to lay it out before that."""
    return text.encode(encoding, ERRORS).decode(encoding)


def harmless(text: str) -> str:
    """The text with nothing but newlines and tabs of what a terminal would obey, and without what
    turns the order of letters around."""
    return text if text.isprintable() else "".join("\ufffd" if _is_order(c) else c for c in text)


def _is_order(c: str) -> bool:
    turns = unicodedata.bidirectional(c) in _TURNS
    return turns or (unicodedata.category(c) == "Cc" and c not in "\n\t")


def _spell(error: UnicodeError) -> tuple[str, int]:
    """Of small digits that stand together only the first has a mark: 10⁻⁴ is 10^-4."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    spelled, before = "", ""
    for character in error.object[error.start : error.end]:
        mark, base = _spell_one(character)
        spelled += (mark if mark != before else "") + base
        before = mark
    return spelled, error.end


def _spell_one(character: str) -> tuple[str, str]:
    """^ or _ if it is a small one, and the character by its meaning, or "?", in ASCII."""
    if character in _SPELLED:
        return "", _SPELLED[character]
    form = unicodedata.decomposition(character)
    mark = {"<super>": "^", "<sub>": "_"}.get(form.partition(" ")[0], "")
    base = unicodedata.normalize("NFKD", character)[0].replace("−", "-")
    return mark, base if base.isascii() else "?"


codecs.register_error(ERRORS, _spell)
