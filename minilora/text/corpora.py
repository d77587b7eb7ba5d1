"""Texts in three parts: to learn from, to choose by and to report on.

PROSE (English documentation) is what a base model learns first; CODE is what it is fine-tuned to.
A text file of the user's own can take the place of either.
"""

from __future__ import annotations

import os
import warnings
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from minilora.system import readers
from minilora.system.errors import UsageError
from minilora.text.alphabet import ALPHABET, TextError, decode, dropped, encode, to_alphabet
from minilora.text.library import SPLITS, parts
from minilora.text.windows import WINDOW, Batch, check_windows, random_windows

_LARGEST = 64 * readers.MIB  # of a text; in memory it takes up to six times as much


@dataclass(frozen=True, eq=False)
class Corpus:
    """A text in three parts, each uint8 (n,): learn on train, choose on val, report on test."""

    name: str
    train: np.ndarray
    val: np.ndarray
    test: np.ndarray

    def batches(self, batch_size: int, block_size: int, split: str = "train") -> Batch:
        """Return what training asks for its batches: a function of a generator that draws
        `batch_size` windows of `block_size` symbols, (ids, targets) int64 (B, T) each.

        Raises ValueError for another split than "train", "val" or "test", for sizes that are no
        whole numbers of at least 1, and for a split of fewer than T + 1 symbols.
        """
        if split not in SPLITS:
            raise UsageError(f"there is no split {split!r}; use one of: {', '.join(SPLITS)}")
        tokens = np.asarray(getattr(self, split))
        check_windows(tokens, block_size, batch_size=batch_size)
        return lambda rng: random_windows(tokens, batch_size, block_size, rng)


def load_corpus(name: str) -> Corpus:
    """Return "prose" or "code" of the running interpreter's standard library.

    The first call builds it from the sources, later ones read a cache. Raises ValueError for
    another name, TextError if the standard library comes without sources.
    """
    if name not in ("prose", "code"):
        raise UsageError(f"there is no corpus {name!r}; use 'prose' or 'code'")
    return Corpus(name, *(parts()[f"{name}_{split}"] for split in SPLITS))


def load_words() -> dict[str, list[str]]:
    """Return lower-case words of 3 to 9 letters found in PROSE, sorted: {"train", "val", "test"}.

    Raises TextError if the standard library comes without sources.
    """
    return {split: decode(parts()[f"words_{split}"]).split("\n") for split in SPLITS}


def load_text(path: str | os.PathLike[str]) -> Corpus:
    """Return the text file `path` as a corpus: 90 % train, 5 % val, 5 % test, in this order.

    The file is UTF-8, with or without byte order mark, with any line ends. Characters that
    to_alphabet() drops are named in a warning. Raises TextError if the file cannot be read, is not
    text, has too few characters, or if the alphabet lacks half of them.
    """
    text = read_text(path)
    if not text.strip():
        raise TextError(f"{path} is empty; choose a file of at least {20 * WINDOW} characters")
    _report_dropped(path, *dropped(text))
    ids = encode(to_alphabet(text))
    if len(ids) < 20 * WINDOW:  # so that a twentieth holds one window
        raise TextError(
            f"{path} is too short: it has {len(ids)} usable characters and needs at least "
            f"{20 * WINDOW}; choose a longer text"
        )
    train, val, test = np.split(ids, [len(ids) * 90 // 100, len(ids) * 95 // 100])
    return Corpus(Path(path).name, train, val, test)


def _report_dropped(path: str | os.PathLike[str], lost: Counter[str], total: int) -> None:
    if not lost:
        return
    share = lost.total() / total
    if share > 0.5:
        raise TextError(
            f"only {1 - share:.0%} of the characters in {path} can be written in the model's "
            f"{len(ALPHABET)} symbols (printable ASCII); choose a text in the Latin alphabet"
        )
    shown = ", ".join(repr(character) for character, _ in lost.most_common(8))
    more = f" and {len(lost) - 8} more" if len(lost) > 8 else ""
    warnings.warn(
        f"{path}: {lost.total()} of {total} characters ({share:.1%}) have no look-alike in the "
        f"model's {len(ALPHABET)} symbols and are left out: {shown}{more}",
        stacklevel=3,
    )


def read_text(path: str | os.PathLike[str]) -> str:
    """The text of a file in UTF-8. Raises TextError if it cannot be read, or is no text."""
    try:
        return readers.read_text(path, _LARGEST)
    except (OSError, UsageError) as error:
        raise TextError(str(error)) from None
