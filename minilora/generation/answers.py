"""What a model answers in a chat, within what it can read at a time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from minilora.generation.sampling import written
from minilora.nn import Rng
from minilora.system.checks import require_whole
from minilora.system.errors import UsageError
from minilora.tokens.chat import Message
from minilora.tokens.tokenizer import Tokenizer
from minilora.transformer import Transformer


def answer(
    model: Transformer,
    tokenizer: Tokenizer,
    messages: Sequence[Message],
    length: int = 300,
    *,
    temperature: float = 0.2,
    top_k: int | None = None,
    top_p: float | None = None,
    rng: Rng | None = None,
    on_text: Callable[[str], Any] | None = None,
) -> str:
    """The assistant's next message, at most `length` tokens of it.

    messages: {"role": "user", "content": "…"} each. Of a chat that does not fit the model's
    block_size the oldest exchanges are forgotten; a system message at the beginning stays.
    temperature, top_k, top_p, rng (default: default_rng(0)): as in `generate`. on_text: called with
    each new piece of text. Raises ValueError if not even the last message fits.
    """
    require_whole(1, length=length)
    return written(
        model,
        _prompt(model, tokenizer, list(messages), length),
        length,
        tokenizer,
        temperature=temperature,
        top_k=top_k,
        top_p=top_p,
        rng=np.random.default_rng(0) if rng is None else rng,
        on_text=on_text,
    )


def _prompt(
    model: Transformer, tokenizer: Tokenizer, messages: list[Message], length: int
) -> np.ndarray:
    """The ids of as much of the chat as leaves room for the answer."""
    room = model.config.block_size - length
    ids = tokenizer.encode_chat(messages)
    while len(ids) > room:
        asked = [i for i, message in enumerate(messages) if message["role"] == "user"]
        if len(asked) < 2:
            raise UsageError(
                f"the last message has {len(ids)} tokens and its answer may have {length}, but the "
                f"model reads {model.config.block_size} at a time; ask less, or for less"
            )
        messages = messages[: asked[0]] + messages[asked[1] :]
        ids = tokenizer.encode_chat(messages)
    return ids
