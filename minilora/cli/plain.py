"""What is shown for √, Δ and their like where the terminal's encoding lacks them: sqrt, Delta.

Python calls the handler for each character that cannot be encoded, once it is registered under the
name that the streams have as `errors` (cli/__init__.py).
"""

from __future__ import annotations

import codecs
import unicodedata

ERRORS = "minilora.plain"
_SPELLED = {
    "√": "sqrt ", "α": "alpha", "Δ": "Delta ", "Σ": "Sum ", "∑": "Sum ", "β": "beta", "σ": "sigma",
    "λ": "lambda", "π": "pi", "ε": "eps", "η": "eta", "θ": "theta", "φ": "phi", "−": "-", "×": "x",
    "·": "*", "÷": "/", "≈": "~", "≤": "<=", "≥": ">=", "≪": "<<", "≫": ">>", "≠": "!=",
    "∝": "~", "∈": " in ", "→": "->", "←": "<-", "‖": "||", "⊙": "*", "⊕": "+", "∞": "inf",
    "∂": "d", "′": "'", "ᵀ": "^T", "…": "...", "–": "-", "—": "-", "’": "'", "‘": "'", "“": '"',
    "”": '"', "─": "-", "█": "#", "░": ".",
}  # fmt: skip


def plain(text: str, encoding: str) -> str:
    """The text as a terminal with this encoding will show it, to lay it out before that."""
    return text.encode(encoding, ERRORS).decode(encoding)


def _spell(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    lacking = error.object[error.start : error.end]
    return "".join(map(_spell_one, lacking)), error.end


def _spell_one(character: str) -> str:
    """By its meaning, a small digit with its mark, else "?", in ASCII."""
    if character in _SPELLED:
        return _SPELLED[character]
    form = unicodedata.decomposition(character)
    mark = {"<super>": "^", "<sub>": "_"}.get(form.partition(" ")[0], "")
    base = unicodedata.normalize("NFKD", character)[0].replace("−", "-")
    return mark + base if base.isascii() else "?"


codecs.register_error(ERRORS, _spell)
