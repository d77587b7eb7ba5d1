"""Questions and answers to learn from: a file of them, their ids, and batches of unequal lengths.

The loss counts on answers only: what a user asks, a model need not learn to say. Chats of one batch
differ in length, so short ones are filled up on the right; what stands there changes nothing, as
attention looks back only, and its targets do not count.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from minilora.nn import Rng
from minilora.system.checks import require_whole
from minilora.system.errors import UsageError
from minilora.system.readers import parse_json
from minilora.text.corpora import read_text
from minilora.text.windows import IGNORE_INDEX, Batch
from minilora.tokens.chat import Message, checked_messages
from minilora.tokens.tokenizer import Tokenizer

Chat = list[dict[str, str]]
Example = tuple[np.ndarray, np.ndarray]  # ids and targets of one chat, int64 (T,) each

# Names that such files have for a question and its answer.
_FORMATS = (("question", "answer"), ("prompt", "completion"), ("instruction", "output"))
_POOL = 8  # batches among which chats are sorted by length


@dataclass(frozen=True)
class Pairs:
    """The chats of a file, the number of each one's line, and under which names it has them."""

    name: str
    chats: list[Chat]
    lines: list[int]
    names: str

    def held_out(self, share: float = 0.1) -> list[bool]:
        """Which chats to judge by, instead of learning from them: about `share`, none if there are
        fewer than ten. Chats with the same last answer stay together, so that no question is judged
        by that was learned in other words."""
        answers = [_last_answer(chat) for chat in self.chats]
        drawn = sorted(set(answers), key=_draw)
        if len(answers) < 10 or len(drawn) == 1:
            return [False] * len(answers)
        judged = set(drawn[: max(1, round(share * len(drawn)))])
        return [answer in judged for answer in answers]


def read_pairs(path: str | Path) -> Pairs:
    """The questions and answers in a file with a JSON object on each line.

    An object is {"question": …, "answer": …}, or has the names prompt and completion, or
    instruction, output and perhaps input; or it is {"messages": [{"role": …, "content": …}, …]}.
    Raises TextError if the file cannot be read, and ValueError, with the number of the line, for
    one that is none of these.
    """
    chats: list[Chat] = []
    lines: list[int] = []
    names: dict[str, None] = {}
    for number, line in enumerate(read_text(path).split("\n"), 1):
        if line.strip():
            where = f"{path}, line {number}"
            entry = parse_json(line, where, remedy="write one JSON object on each line")
            try:
                found, chat = _chat(entry)
            except UsageError as error:
                raise UsageError(f"{where}: {error}") from None
            names[found] = None
            chats.append(chat)
            lines.append(number)
    if not chats:
        raise UsageError(f"{path} is empty; write one JSON object on each line")
    return Pairs(Path(path).name, chats, lines, " or ".join(names))


def _chat(entry: dict[str, Any]) -> tuple[str, Chat]:
    """Under which names an object has its chat, and the chat."""
    if "messages" in entry:
        chat = checked_messages(entry["messages"])
        if not any(message["role"] == "assistant" for message in chat):
            raise UsageError("no message has the role assistant, whose answers are learned")
        return "messages", chat
    for ask, answer in _FORMATS:
        if ask in entry and answer in entry:
            question = _text(entry, ask)
            if ask == "instruction" and entry.get("input") not in (None, ""):
                question += f"\n\n{_text(entry, 'input')}"
            said = {"role": "assistant", "content": _text(entry, answer)}
            return f"{ask}, {answer}", [{"role": "user", "content": question}, said]
    known = ", or ".join(f'"{ask}" and "{answer}"' for ask, answer in _FORMATS)
    has = ", ".join(f'"{key:.20}"' for key in list(entry)[:5]) or "nothing"
    raise UsageError(f'it has {has}; it needs {known}, or "messages"')


def _text(entry: dict[str, Any], name: str) -> str:
    value = entry[name]
    if not isinstance(value, str) or not value.strip():
        raise UsageError(f'"{name}" must be a text that is not empty, got {value!r:.40}')
    return value


def _last_answer(chat: Chat) -> str:
    return next(m["content"] for m in reversed(chat) if m["role"] == "assistant")


def _draw(text: str) -> tuple[int, str]:
    return zlib.crc32(text.encode("utf-8", "replace")), text


def pair_example(tokenizer: Tokenizer, chat: Sequence[Message], longest: int = 512) -> Example:
    """What a model is shown of a chat, and what it should say at every place: ids and targets,
    int64 (T,) each, T at most `longest`. Targets outside answers are IGNORE_INDEX.

    Of a longer chat the beginning is kept. Raises ValueError if that holds no answer.
    """
    require_whole(1, longest=longest)
    ids, said = tokenizer.encode_answers(chat)
    targets = np.where(said[1:], ids[1:], IGNORE_INDEX)[:longest]
    if (targets == IGNORE_INDEX).all():
        raise UsageError(
            f"the chat has no answer within its first {longest} tokens; shorten its question"
        )
    return ids[:-1][:longest], targets


def text_examples(tokenizer: Tokenizer, text: str, length: int = 256) -> list[Example]:
    """A text in pieces of `length` tokens, each with what follows every token. The last piece may
    be shorter. Raises ValueError for a text of fewer than two tokens."""
    require_whole(1, length=length)
    ids = tokenizer.encode(text)
    if len(ids) < 2:
        raise UsageError("the text has fewer than two tokens, so that nothing follows anything")
    starts = range(0, len(ids) - 1, length)
    return [(ids[i : i + length][: len(ids) - 1 - i], ids[i + 1 : i + 1 + length]) for i in starts]


def padded(examples: Sequence[Example]) -> tuple[np.ndarray, np.ndarray]:
    """Ids and targets of several chats, int64 (B, T) each, T that of the longest. Where a chat has
    ended, ids are 0 and targets IGNORE_INDEX."""
    shape = len(examples), max(len(ids) for ids, _ in examples)
    ids, targets = np.zeros(shape, np.int64), np.full(shape, IGNORE_INDEX, np.int64)
    for row, (some_ids, some_targets) in enumerate(examples):
        ids[row, : len(some_ids)], targets[row, : len(some_ids)] = some_ids, some_targets
    return ids, targets


def pair_batches(examples: Sequence[Example], batch_size: int) -> Batch:
    """What training asks for its batches: a function of a generator, which draws ids and targets.

    Chats of one batch are of similar length, so that little is filled up: a pool of eight batches
    is drawn and sorted, and one of them taken. Of fewer chats than batch_size, a batch is all.
    """
    require_whole(1, batch_size=batch_size)
    if not examples:
        raise UsageError("there are no examples to learn from")
    size = min(batch_size, len(examples))
    batches = min(_POOL, len(examples) // size)

    def draw(rng: Rng) -> tuple[np.ndarray, np.ndarray]:
        drawn = rng.choice(len(examples), size=batches * size, replace=False)
        by_length = sorted(drawn, key=lambda i: (len(examples[i][0]), i))
        start = size * int(rng.integers(batches))
        return padded([examples[i] for i in by_length[start : start + size]])

    return draw
