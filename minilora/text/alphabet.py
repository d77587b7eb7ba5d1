"""The 96 symbols that the small models read and write, and what becomes of other letters.

No tokenizer to train or ship: the id of a symbol is its place in ALPHABET. Other text is brought
into it by `to_alphabet`, which keeps what has an ASCII look-alike.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Sequence

import numpy as np

from minilora.system.errors import UsageError

ALPHABET = "\n" + "".join(map(chr, range(32, 127)))

_OUTSIDE = re.compile(r"[^\n -~]")
_BYTE_OF_ID = np.frombuffer(ALPHABET.encode("ascii"), np.uint8)
_ID_OF_BYTE = np.zeros(128, np.uint8)
_ID_OF_BYTE[_BYTE_OF_ID] = np.arange(len(ALPHABET))
_SIGNS = (
    {**dict.fromkeys("‘’‚‛′‹›ʼʻ", "'"), **dict.fromkeys("“”„‟«»", '"')}
    | {**dict.fromkeys("‐‒–−", "-"), "—": "--", "―": "--", "•": "*", "⁄": "/"}
    | {"\u2028": "\n", "\u2029": "\n"}
)
# Letters of Latin alphabets that are no accented ones; as in Unicode CLDR's Latin-ASCII.
LETTERS = (
    dict(zip("łŁøØđĐðÐħĦŧŦıŋŊĸƒ", "lLoOdDdDhHtTinNqf", strict=True))
    | dict(zip("ɓƁɗƊɖƉƙƘƴƳɛƐɔƆəƏɨƗɣƔ", "bBdDdDkKyYeEoOeEiIgG", strict=True))
    | {"ß": "ss", "ẞ": "SS", "æ": "ae", "Æ": "AE", "œ": "oe", "Œ": "OE", "þ": "th", "Þ": "TH"}
)
_LOOKALIKES = str.maketrans(_SIGNS | LETTERS)


class TextError(UsageError):
    """A text cannot be used; the message is one sentence that says why and what to do."""


def to_alphabet(text: str) -> str:
    """Return `text` in the 96 symbols of ALPHABET.

    Line ends become newlines, a tab four spaces, typographic quotes, dashes, dots and spaces their
    ASCII look-alikes, accented letters lose the accent, and ß, ł, æ and their like become ss, l,
    ae. What is left is dropped; `dropped` says what that is.
    """
    _require_str(text)
    text = text.replace("\r\n", "\n").replace("\r", "\n").replace("\t", "    ")
    if not text.isascii():
        text = text.translate({ord(character): _in_ascii(character) for character in set(text)})
    return _OUTSIDE.sub("", text)


def dropped(text: str) -> tuple[Counter[str], int]:
    """Return which visible characters of `text` to_alphabet() drops, and how many visible ones
    there are in all.

    Spaces, combining marks, and control and format characters are not visible.
    """
    _require_str(text)
    counts = Counter(text)
    visible = {c: n for c, n in counts.items() if unicodedata.category(c)[0] not in "ZMC"}
    lost = Counter({c: n for c, n in visible.items() if not _in_ascii(c).strip()})
    return lost, sum(visible.values())


def _in_ascii(character: str) -> str:
    # One by one: NFKD of a whole text takes quadratic time for a long run of combining marks.
    return _OUTSIDE.sub("", unicodedata.normalize("NFKD", character).translate(_LOOKALIKES))


def encode(text: str) -> np.ndarray:
    """Return the symbol ids of `text`, uint8 (n,).

    Raises ValueError, naming the character, if one is not in ALPHABET; TypeError for no str.
    """
    _require_str(text)
    if stranger := _OUTSIDE.search(text):
        raise UsageError(
            f"character {stranger[0]!r} (U+{ord(stranger[0]):04X}) at position {stranger.start()} "
            f"is not one of the {len(ALPHABET)} symbols; pass the text through to_alphabet() first"
        )
    return _ID_OF_BYTE[np.frombuffer(text.encode("ascii"), np.uint8)]


def decode(ids: Sequence[int] | np.ndarray) -> str:
    """Return the text of symbol ids, any integer array-like of shape (n,).

    Raises ValueError for another shape or type, and for an id outside 0..95, such as a masked
    target.
    """
    ids = np.asarray(ids)
    if ids.shape == (0,):
        return ""
    if ids.ndim != 1 or not np.issubdtype(ids.dtype, np.integer):
        raise UsageError(
            f"decode() takes integers of shape (n,), got {ids.dtype} {ids.shape}; "
            "of a batch, decode one row after the other"
        )
    if ids.min() < 0 or ids.max() >= len(ALPHABET):
        raise UsageError(
            f"ids go from {ids.min()} to {ids.max()}, symbols from 0 to {len(ALPHABET) - 1}; "
            "leave out masked targets (IGNORE_INDEX) before decoding"
        )
    return _BYTE_OF_ID[ids].tobytes().decode("ascii")


def _require_str(text: object) -> None:
    if not isinstance(text, str):
        raise TypeError(f"a text must be a str, got {type(text).__name__}")
