"""Tasks on words that only a rule can solve: "<abc>cba" asks to reverse "abc".

Seven of them the small base model `words-tiny` learns first; the others are new to it when it is
fine-tuned. The form, a command symbol, an input and an answer, is in the spirit of SCAN (Lake &
Baroni, 2018).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from string import ascii_lowercase

import numpy as np

from minilora.nn import Rng
from minilora.system.checks import require_rng, require_whole
from minilora.system.errors import UsageError
from minilora.text.alphabet import ALPHABET, encode
from minilora.text.windows import IGNORE_INDEX


@dataclass(frozen=True)
class StringTask:
    """A rule on words, with the symbol that asks for it: "<abc>cba" asks to reverse "abc"."""

    name: str
    symbol: str
    apply: Callable[[str], str]


_NEXT_LETTER = str.maketrans(ascii_lowercase, ascii_lowercase[1:] + "a")
STRING_TASKS: dict[str, StringTask] = {
    task.name: task
    for task in (
        StringTask("copy", "=", lambda word: word),
        StringTask("upper", "^", str.upper),
        StringTask("double", "2", lambda word: "".join(letter * 2 for letter in word)),
        StringTask("rotate", "@", lambda word: word[1:] + word[:1]),
        StringTask("vowel", "~", lambda word: word.translate(str.maketrans("aeiou", "eioua"))),
        StringTask("first", "1", lambda word: word[:1]),
        StringTask("last", "9", lambda word: word[-1:]),
        StringTask("reverse", "<", lambda word: word[::-1]),
        StringTask("sort", "s", lambda word: "".join(sorted(word))),
        StringTask("swap", "&", lambda word: re.sub("(.)(.)", r"\2\1", word)),
        StringTask("next", "+", lambda word: word.translate(_NEXT_LETTER)),
        StringTask("ends", "|", lambda word: word[-1:] + word[1:-1] + word[:1]),
    )
}
# The base model learns these seven; the others are new to it when it is fine-tuned.
PRETRAIN_TASKS = ("copy", "upper", "double", "rotate", "vowel", "first", "last")

_LONGEST_WORD = 8  # doubled, with its symbol, ">" and the newline, it fits 28 positions


def string_batch(
    tasks: Sequence[str],
    words: Sequence[str],
    batch_size: int,
    block_size: int,
    rng: Rng,
) -> tuple[np.ndarray, np.ndarray]:
    """Draw examples "<symbol>word>answer" and a newline: inputs and targets, int64 (B, T) each.

    On average half of them take 3 to 8 random letters for a word, the rest one of `words` of at
    most 8 letters. Rows are padded with id 0; targets are IGNORE_INDEX everywhere but on the answer
    and its newline. Raises ValueError for an unknown task, no words, and sizes that are no whole
    numbers or too small.
    """
    require_whole(1, batch_size=batch_size)
    require_rng(rng)
    usable = _usable(words)
    lengths = rng.integers(3, _LONGEST_WORD + 1, batch_size)
    letters = rng.integers(97, 123, (batch_size, _LONGEST_WORD), np.uint8)
    is_random = rng.random(batch_size) < 0.5
    picks = rng.integers(len(usable), size=batch_size)
    drawn = [
        row[:length].tobytes().decode("ascii") if letters_only else usable[pick]
        for row, length, letters_only, pick in zip(letters, lengths, is_random, picks, strict=True)
    ]
    return _examples(tasks, drawn, block_size, rng)


def string_examples(
    tasks: Sequence[str], words: Sequence[str], block_size: int, rng: Rng
) -> tuple[np.ndarray, np.ndarray]:
    """Return one example per word of at most 8 letters, in order, as string_batch does.

    An answer is an exact match if all targets of its row but IGNORE_INDEX are predicted.
    """
    require_rng(rng)
    return _examples(tasks, _usable(words), block_size, rng)


def string_questions(
    task: str, words: Sequence[str], n: int, rng: Rng
) -> tuple[np.ndarray, np.ndarray]:
    """Draw n questions "<symbol>word>" of one length and their answers, newline included: int64
    (n, P) and (n, S).

    The length of the words, 3 to 8 letters, is drawn too. On average half of them are random
    letters, the rest are of `words`. Raises ValueError as string_batch does, and for a length of
    which there are no words.
    """
    require_whole(1, n=n)
    require_rng(rng)
    (rule,) = _rules([task], 28)
    length = int(rng.integers(3, _LONGEST_WORD + 1))
    usable = [word for word in _usable(words) if len(word) == length]
    if not usable:
        raise UsageError(f"no word has {length} letters; pass those of load_words()")
    letters = rng.integers(97, 123, (n, length), np.uint8)
    picks, is_random = rng.integers(len(usable), size=n), rng.random(n) < 0.5
    drawn = [
        row.tobytes().decode("ascii") if letters_only else usable[pick]
        for row, letters_only, pick in zip(letters, is_random, picks, strict=True)
    ]
    prompts = encode("".join(f"{rule.symbol}{word}>" for word in drawn))
    answers = encode("".join(f"{rule.apply(word)}\n" for word in drawn))
    return prompts.reshape(n, -1).astype(np.int64), answers.reshape(n, -1).astype(np.int64)


def _usable(words: Sequence[str]) -> list[str]:
    if isinstance(words, str):
        raise UsageError(f"words must be a list of words, got the str {words!r}")
    usable = [word for word in words if len(word) <= _LONGEST_WORD]
    if not usable:
        raise UsageError(f"no word has at most {_LONGEST_WORD} letters; pass those of load_words()")
    return usable


def _examples(
    tasks: Sequence[str], words: Sequence[str], block_size: int, rng: Rng
) -> tuple[np.ndarray, np.ndarray]:
    """Return ids and targets (B, T) of one example per word, its task drawn from `tasks`."""
    rules = _rules(tasks, block_size)
    chosen = [rules[i] for i in rng.integers(len(rules), size=len(words))]
    prompts = [f"{rule.symbol}{word}>" for rule, word in zip(chosen, words, strict=True)]
    texts = [
        f"{prompt}{rule.apply(word)}\n"
        for prompt, rule, word in zip(prompts, chosen, words, strict=True)
    ]
    padded = encode("".join(text.ljust(block_size + 1, ALPHABET[0]) for text in texts))
    rows = padded.reshape(-1, block_size + 1).astype(np.int64)  # (B * (T + 1),) -> (B, T + 1)
    begin = np.array([[len(prompt) - 1] for prompt in prompts])  # (B, 1): the ">" predicts first
    end = np.array([[len(text) - 1] for text in texts])  # (B, 1)
    at = np.arange(block_size)
    return rows[:, :-1], np.where((begin <= at) & (at < end), rows[:, 1:], IGNORE_INDEX)


def _rules(tasks: Sequence[str], block_size: int) -> list[StringTask]:
    require_whole(1, block_size=block_size)
    if isinstance(tasks, str) or not tasks or not STRING_TASKS.keys() >= set(tasks):
        raise UsageError(f"tasks={tasks!r} must be a list of some of: {', '.join(STRING_TASKS)}")
    rules = [STRING_TASKS[name] for name in tasks]
    needed = max(len(rule.apply("a" * _LONGEST_WORD)) for rule in rules) + _LONGEST_WORD + 2
    if block_size < needed:
        raise UsageError(
            f"block_size={block_size} is too small for the longest example; use at least {needed}"
        )
    return rules
