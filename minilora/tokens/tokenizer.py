"""Text as a real model reads it: pieces of words, each with an id, and chats.

The small models of this package read characters (alphabet.py). A real one has a vocabulary of some
ten thousand pieces, found by byte pair encoding (Sennrich et al. 2016), and some special tokens
that no text contains: SmolLM2's <|im_end|> ends what one speaker says. Who could write it in a
message could put words into the other's mouth, so text is only ever text here: the ids of special
tokens come from the chat template, or where `special=True` asks for them.

The work is done by PyPI's `tokenizers`; hub/tokenizers.py makes one from a model's files.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import numpy as np

from minilora.system.errors import MissingExtraError, UsageError
from minilora.tokens.chat import Message, checked_messages, render
from minilora.transformer import Transformer

# A code point that Unicode keeps out of all texts: until a chat is encoded, it stands within what
# is spelled like a special token in a message.
_BREAK = "\ufdd0"
_INCOMPLETE = "\N{REPLACEMENT CHARACTER}"  # what `tokenizers` shows of a part of a character


def library() -> ModuleType:
    """PyPI's `tokenizers`. Raises MissingExtraError if it is not installed."""
    try:
        import tokenizers
    except ModuleNotFoundError:
        raise MissingExtraError(
            "a real model's tokenizer needs PyPI's tokenizers: pip install \"minilora[hf]\""
        ) from None
    return tokenizers


@contextmanager
def unusable(file: object) -> Iterator[None]:
    """Within it, whatever `tokenizers` raises becomes one sentence: the file is to blame."""
    try:
        yield
    except (KeyboardInterrupt, SystemExit, UsageError):
        raise
    except BaseException as error:  # a panic in its Rust code is no Exception
        raise UsageError(
            f"{file} is damaged, or no tokenizer ({error!s:.150}); copy or download it again"
        ) from None


class Tokenizer:
    """Text to ids and back, for one model.

    eos_ids: with which an answer ends. names: the special tokens as a chat template calls them,
    such as {"eos_token": "<|im_end|>"}. source: the file, for errors.
    """

    def __init__(
        self,
        backend: Any,
        *,
        eos_ids: Sequence[int] = (),
        names: Mapping[str, str] | None = None,
        chat_template: str | None = None,
        source: str = "this tokenizer",
    ) -> None:
        backend.no_padding()
        backend.no_truncation()
        self.backend, self.source = backend, source
        self.names, self.chat_template = dict(names or {}), chat_template
        added = backend.get_added_tokens_decoder()
        self.special_ids = {token.content: i for i, token in added.items() if token.special}
        self.vocab_size = 1 + max(backend.get_vocab().values(), default=-1)
        self.eos_ids = tuple(sorted(set(eos_ids)))
        # The first character of a special token, wherever one begins: also within another.
        starts = "|".join(map(re.escape, filter(None, self.special_ids))) or "(?!)"
        self._special_start = re.compile(f"(?={starts})(.)", re.DOTALL)

    def __repr__(self) -> str:
        return f"Tokenizer({self.vocab_size} tokens, from {self.source})"

    def require_fit(self, model: Transformer) -> None:
        """Raise ValueError if there are ids that the model lacks: then it is another model's."""
        V = model.config.vocab_size
        if self.vocab_size > V:
            raise UsageError(
                f"{self} is of another model: this one has {V} tokens; load both from one place"
            )

    def encode(self, text: str, *, special: bool = False, start: bool = False) -> np.ndarray:
        """The ids of a text, int64 (n,).

        special: what is spelled like a special token becomes that token; otherwise it stays text.
        start: begin with what the model expects before any text, such as Llama's
        <|begin_of_text|>; SmolLM2 and GPT-2 expect nothing.
        Raises TypeError for no str, ValueError for half of a surrogate pair.
        """
        if not isinstance(text, str):
            raise TypeError(f"a text must be a str, got {type(text).__name__}")
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise UsageError(
                f"the text has {error.object[error.start]!r} at position {error.start}, half of a "
                "surrogate pair, which no UTF-8 text contains; leave it out"
            ) from None
        self.backend.encode_special_tokens = not special
        with unusable(self.source):
            return np.array(self.backend.encode(text, add_special_tokens=start).ids, np.int64)

    def decode(self, ids: Sequence[int] | np.ndarray, *, special: bool = False) -> str:
        """The text of ids, any whole numbers of shape (n,). Special tokens are left out, or
        (special) written. Raises ValueError for another shape or type, and for an id that the
        vocabulary lacks, such as a masked target."""
        array = np.asarray(ids)
        if array.size and (array.ndim != 1 or array.dtype.kind not in "iu"):
            raise UsageError(
                f"decode() takes whole numbers of shape (n,), got {array.dtype} {array.shape}; "
                "of a batch, decode one row after the other"
            )
        if array.size and (array.min() < 0 or array.max() >= self.vocab_size):
            raise UsageError(
                f"ids go from {array.min()} to {array.max()}, those of {self.source} from 0 to "
                f"{self.vocab_size - 1}; leave out masked targets (IGNORE_INDEX) before decoding"
            )
        with unusable(self.source):
            return self.backend.decode(array.tolist(), skip_special_tokens=not special)

    def stream(self) -> TextStream:
        """For text that is shown while it is made: see TextStream."""
        return TextStream(self)

    def apply_chat_template(
        self, messages: Sequence[Message], add_generation_prompt: bool = True
    ) -> str:
        """A chat as one text, written as the model was trained to read it.

        messages: {"role": "user", "content": "…"} each; roles are system, user and assistant.
        add_generation_prompt: end where the assistant begins to answer.
        To get ids use `encode_chat`: in this text nobody can tell a special token of the template
        from one that a user has typed.
        Raises ValueError if the model has no template, or it refuses the messages.
        """
        if self.chat_template is None:
            raise UsageError(
                f"{self.source} has no chat template, so the model was not trained to chat; use "
                "plain text, or a model whose name says instruct or chat"
            )
        return render(
            self.chat_template,
            checked_messages(messages),
            self.names | {"add_generation_prompt": add_generation_prompt},
            f"the chat template of {self.source}",
        )

    def encode_chat(
        self, messages: Sequence[Message], add_generation_prompt: bool = True
    ) -> np.ndarray:
        """The ids of a chat, int64 (n,): the template's special tokens are special, those that are
        spelled in a message are text."""
        return self._ids(self._written(messages, add_generation_prompt))

    def encode_answers(self, messages: Sequence[Message]) -> tuple[np.ndarray, np.ndarray]:
        """A chat to learn from: its ids, int64 (n,), up to the end of the last answer, and which of
        them the assistant says, bool (n,), the end of each answer included.

        Where an answer begins, the ids are as `encode_chat` leaves them for the model to go on.
        Raises ValueError if nobody answers, or if the template writes a chat anew at each turn.
        """
        messages = checked_messages(messages)
        turns = [i for i, message in enumerate(messages) if message["role"] == "assistant"]
        if not turns:
            raise UsageError("the chat has no message of the role assistant to learn from")
        so_far, ids, said = "", np.zeros(0, np.int64), np.zeros(0, bool)
        for i in turns:
            prompt, whole = (
                self._written(messages[:i], True),
                self._written(messages[: i + 1], False),
            )
            if not (prompt.startswith(so_far) and whole.startswith(prompt)):
                raise UsageError(
                    f"the chat template of {self.source} writes what was said before message {i} "
                    "in another way once it is answered; learn from chats of one question and one "
                    "answer, and with a model that answers after a question"
                )
            ids = self._grown(ids, so_far, prompt)
            asked, ids = len(ids), self._grown(ids, prompt, whole)
            ends = np.flatnonzero(np.isin(ids[asked:], self.eos_ids))
            end = asked + 1 + ends[-1] if len(ends) else len(ids)
            said = np.pad(said, (0, len(ids) - len(said)))
            said[asked:end] = True
            so_far = whole
        return ids[:end], said[:end]

    def _grown(self, ids: np.ndarray, before: str, text: str) -> np.ndarray:
        """These ids, of a text `before`, and those of what has been added to it. They are as the
        whole text has them, unless that would change what stands before."""
        whole = self._ids(text)
        if np.array_equal(whole[: len(ids)], ids):
            return whole
        return np.concatenate([ids, self._ids(text[len(before) :])])

    def _written(self, messages: Sequence[Message], add_generation_prompt: bool) -> str:
        """The chat, with a break within each special token that is spelled in a message: what is
        left of one on either side is none, whatever the template cuts off."""
        broken = [
            {
                key: self._special_start.sub(rf"\1{_BREAK}", value.replace(_BREAK, ""))
                for key, value in message.items()
            }
            for message in checked_messages(messages)
        ]
        return self.apply_chat_template(broken, add_generation_prompt)

    def _ids(self, written: str) -> np.ndarray:
        pieces = written.split(_BREAK)
        return np.concatenate([self.encode(piece, special=True) for piece in pieces])


class TextStream:
    """The text of ids that come one by one: `push(id)` returns what can be shown of it, `end()`
    what is left. The parts add up to the whole text's `decode`.

    A character outside ASCII may need several tokens; nothing is shown until it is whole.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer, self._special = tokenizer, set(tokenizer.special_ids.values())
        self._ids: list[int] = []  # the last one whose text is out, then those that are waiting
        self._shown = 0  # characters of what they say that are out

    def push(self, new: int) -> str:
        if new in self._special or new >= self._tokenizer.vocab_size:  # a row that only fills up
            return ""
        self._ids.append(new)
        text = self._tokenizer.decode(self._ids)
        return "" if text.endswith(_INCOMPLETE) else self._release(text)

    def end(self) -> str:
        return self._release(self._tokenizer.decode(self._ids))

    def _release(self, text: str) -> str:
        new = text[self._shown :]
        self._ids = self._ids[-1:]  # not none: a first token may lose its leading space
        self._shown = len(self._tokenizer.decode(self._ids))
        return new
