"""Text from a model: one token at a time, each fed back as input.

The prompt goes through the model at once, after that only the new token; what earlier positions
offer to attention is read from the KV cache. `generate` works on ids, `write` on text.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from minilora.generation.decoder import Decoder, is_plain
from minilora.nn import Rng
from minilora.system.checks import is_number, require_whole
from minilora.system.errors import UsageError
from minilora.tensor import no_grad
from minilora.text.alphabet import ALPHABET, decode, dropped, encode, to_alphabet
from minilora.tokens.tokenizer import Tokenizer
from minilora.transformer import KVCache, Transformer

_FEW = 1024  # so many of the likeliest ids are looked at before all of them
_LOWEST_TEMPERATURE = 1e-6  # below it, logits / temperature can overflow


class _Symbols:
    """The symbols of ALPHABET, with what is asked of a Tokenizer. stop: ends a text, and is none of
    it."""

    def __init__(self, stop: str | None) -> None:
        if stop is not None and stop not in list(ALPHABET):
            raise UsageError(f"stop must be one symbol of ALPHABET, got {stop!r}")
        self.eos_ids = () if stop is None else (ALPHABET.index(stop),)

    def stream(self) -> _Symbols:
        return self

    def push(self, new: int) -> str:
        return "" if new in self.eos_ids else decode([new])

    def end(self) -> str:
        return ""


def write(
    model: Transformer,
    prompt: str,
    length: int,
    *,
    tokenizer: Tokenizer | None = None,
    temperature: float = 0.7,
    top_k: int | None = None,
    top_p: float | None = None,
    seed: int = 0,
    stop: str | None = None,
    on_text: Callable[[str], Any] | None = None,
) -> str:
    """Continue a text by `length` symbols, or (tokenizer) tokens; returns the prompt and what
    follows it.

    tokenizer: a real model's, from load_tokenizer(); the text may end before `length`, where the
    model ends it. Without one the model must read the symbols of ALPHABET, and then
    stop is a symbol before which the text ends, such as the newline after a string task's answer.
    on_text: called with every new piece of text as soon as it is chosen. The rest as in `generate`,
    with default_rng(seed). Raises ValueError for a prompt with characters that are not in ALPHABET
    and have no look-alike there, and for a model of another vocabulary.
    """
    if isinstance(model, str):
        raise UsageError(f"write() takes a model: load_model({model!r}), not its name")
    require_whole(0, length=length, seed=seed)
    if tokenizer is None:
        prompt = _in_alphabet(model, prompt)
        ids = encode(prompt)
    elif stop is not None:
        raise UsageError("stop is a symbol of ALPHABET; with a tokenizer the model ends its text")
    else:
        ids = tokenizer.encode(prompt, start=True)
    return prompt + written(
        model,
        ids,
        length,
        tokenizer or _Symbols(stop),
        temperature=temperature,
        top_k=top_k,
        top_p=top_p,
        rng=np.random.default_rng(seed),
        on_text=on_text,
    )


def _in_alphabet(model: Transformer, prompt: str) -> str:
    if model.config.vocab_size != len(ALPHABET):
        raise UsageError(
            f"write() knows the {len(ALPHABET)} symbols of ALPHABET, and this model has "
            f"{model.config.vocab_size}; pass its tokenizer=load_tokenizer(…)"
        )
    if lost := "".join(dropped(prompt)[0]):
        raise UsageError(f"the prompt has {lost!r}, which the model's alphabet lacks; leave it out")
    return to_alphabet(prompt)


def written(
    model: Transformer,
    ids: np.ndarray,
    length: int,
    tokenizer: Tokenizer | _Symbols,
    *,
    on_text: Callable[[str], Any] | None = None,
    **options: Any,
) -> str:
    """The text that a model writes after ids (n,), at most `length` tokens of it.

    on_text: called with each new piece. options: of `generate`. Raises ValueError if the tokenizer
    has ids that the model lacks: it is another model's.
    """
    if on_text is not None and not callable(on_text):
        raise UsageError(f"on_text must be a function of the new text, got {on_text!r}")
    if isinstance(tokenizer, Tokenizer):
        tokenizer.require_fit(model)
    stream, parts = tokenizer.stream(), []

    def show(part: str) -> None:
        parts.append(part)
        if part and on_text:
            on_text(part)

    generate(
        model,
        ids,
        length,
        eos_token_id=tokenizer.eos_ids,
        on_token=lambda new: show(stream.push(int(new[0]))),
        **options,
    )
    show(stream.end())
    return "".join(parts)


@no_grad()
def generate(
    model: Transformer,
    prompt_ids: np.ndarray,
    max_new_tokens: int,
    *,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    rng: Rng | None = None,
    eos_token_id: int | Sequence[int] | None = None,
    on_token: Callable[[np.ndarray], Any] | None = None,
) -> np.ndarray:
    """Continue each prompt, one token at a time.   int (B, T) -> int (B, T + max_new_tokens)

    temperature 0 takes the likeliest token; otherwise logits / temperature are sampled with `rng`,
    from the top_k likeliest only, and from the smallest set holding top_p of the probability
    (Holtzman et al. 2020). A row that has drawn `eos_token_id`, or one of several, repeats it, and
    once all rows have, the result ends. `on_token` is called with each new column (B,). When
    block_size is reached, the model goes on with the later half of what it sees (after prompt
    tuning, which cannot use a cache, with all that fits). Raises ValueError for options outside
    their range, a prompt that is empty or no integers, and logits that are NaN; IndexError for an
    id outside the vocabulary.
    """
    prompt = _checked_prompt(prompt_ids)
    _check_options(max_new_tokens, temperature, top_k, top_p, rng, on_token)
    ends = _checked_ends(eos_token_id, model.config.vocab_size)
    block, cache = model.config.block_size, None
    decoder = Decoder(model) if is_plain(model) else None
    B, T = prompt.shape
    longest = min(block, T + max_new_tokens)
    ids = np.concatenate([prompt, np.zeros((B, max_new_tokens), np.int64)], axis=1)
    ended = np.zeros(B, bool)
    for end in range(T, T + max_new_tokens):
        if cache is None or cache[0].length == block:  # read many tokens at once
            start = max(0, end - block) if cache is None else end - max(1, block // 2)
            cache = [KVCache(longest) for _ in model.layers] if model.can_cache else None
            logits = _next_logits(model, ids[:, start:end], cache)
        elif decoder:
            logits = decoder(ids[:, end - 1], cache)
        else:
            logits = _next_logits(model, ids[:, end - 1 : end], cache)
        if not math.isfinite(logits.max(axis=1).sum()):  # each row's largest, for one call
            raise UsageError("the model's logits are NaN or infinite: its weights are damaged")
        if temperature == 0:
            new = logits.argmax(axis=1)
        else:
            assert rng is not None  # see _check_options
            new = _sample(logits / float(temperature), top_k, top_p, rng.random((B, 1)))
        if ends:
            new[ended] = ids[ended, end - 1]
            ended |= np.isin(new, ends)
        ids[:, end] = new
        if on_token:
            on_token(new)
        if ends and ended.all():
            return ids[:, : end + 1]
    return ids


def _checked_prompt(prompt_ids: np.ndarray) -> np.ndarray:
    """The prompt as int64 (B, T)."""
    prompt = np.atleast_2d(np.asarray(prompt_ids))
    if prompt.size == 0:
        raise UsageError("the prompt is empty: give at least one token to start from")
    if prompt.ndim != 2 or not np.issubdtype(prompt.dtype, np.integer):
        raise UsageError(
            f"prompt_ids must be integers of shape (B, T), got {prompt.dtype} {prompt.shape}; "
            "encode() makes them of a text"
        )
    return prompt.astype(np.int64)


def _checked_ends(eos_token_id: int | Sequence[int] | None, vocab_size: int) -> list[int]:
    if eos_token_id is None:
        return []
    ends = list(eos_token_id) if isinstance(eos_token_id, Sequence) else [eos_token_id]
    for end in ends:
        require_whole(0, eos_token_id=end)
        if end >= vocab_size:
            raise UsageError(f"eos_token_id={end} is not in the model's vocabulary")
    return ends


def _check_options(
    max_new_tokens: int,
    temperature: float,
    top_k: int | None,
    top_p: float | None,
    rng: Rng | None,
    on_token: Callable[[np.ndarray], Any] | None,
) -> None:
    require_whole(0, max_new_tokens=max_new_tokens)
    require_whole(1, top_k=1 if top_k is None else top_k)
    hot = is_number(temperature) and _LOWEST_TEMPERATURE <= temperature < math.inf
    if not hot and temperature != 0:
        raise UsageError(
            f"temperature must be >= 0: 0 (take the likeliest token) or a number from "
            f"{_LOWEST_TEMPERATURE:g} on, got {temperature!r}"
        )
    if top_p is not None and not (is_number(top_p) and 0 < top_p <= 1):
        raise UsageError(f"top_p must lie in (0, 1], got {top_p!r}")
    if hot and not isinstance(rng, Rng):
        raise UsageError(
            f"sampling needs rng=np.random.default_rng(seed), or temperature=0; got rng={rng!r}"
        )
    if on_token is not None and not callable(on_token):
        raise UsageError(f"on_token must be a function of the new ids (B,), got {on_token!r}")


def _next_logits(model: Transformer, ids: np.ndarray, cache: list[KVCache] | None) -> np.ndarray:
    """Logits (B, V) of what follows ids (B, T): of all positions, only the last needs the head."""
    if type(model).__call__ is not Transformer.__call__:
        return model(ids, cache=cache).data[:, -1]  # (B, T, V) -> (B, V)
    return model.logits(model.hidden(ids, cache=cache)[:, -1]).data  # (B, T, C) -> (B, V)


def _sample(
    logits: np.ndarray, top_k: int | None, top_p: float | None, u: np.ndarray, few: int = _FEW
) -> np.ndarray:
    """One id per row of logits (B, V) -> (B,): the one on which u in [0, 1) (B, 1) falls, where the
    ids share that interval by their probability, likeliest first.

    To put a large vocabulary in order takes long. Therefore only a few ids are, the likeliest, and
    all of them where u, or the end of top_p, falls behind these.
    """
    V, rows = logits.shape[1], np.arange(len(logits))
    order = _likeliest(logits, min(V, few if top_k is None else top_k))
    sorted_logits = logits[rows[:, None], order]
    p = np.exp(sorted_logits - sorted_logits[:, :1])
    some = top_k is None and few < V  # of the ids that can be drawn
    everything = np.exp(logits - sorted_logits[:, :1]) if some else p
    p = (p / everything.sum(axis=1, keepdims=True)).astype(np.float64)
    ends = np.cumsum(p, axis=1)
    if some and (ends[:, -1:] <= (u if top_p is None else top_p)).any():
        return _sample(logits, top_k, top_p, u, V)
    if top_p is not None:
        p[ends - p >= top_p] = 0  # drop what comes after top_p is reached
        ends = np.cumsum(p, axis=1)
    whole = 1.0 if some and top_p is None else ends[:, -1:]
    picked = (ends < u * whole).sum(axis=1)
    return order[rows, picked]


def _likeliest(logits: np.ndarray, n: int) -> np.ndarray:
    """The ids of the n largest logits of each row, largest first.   (B, V) -> (B, n)"""
    if logits.shape[1] <= _FEW or n == logits.shape[1]:
        return np.argsort(-logits, axis=1)[:, :n]
    found = np.argpartition(logits, -n, axis=1)[:, -n:]
    order = np.argsort(-np.take_along_axis(logits, found, axis=1), axis=1)
    return np.take_along_axis(found, order, axis=1)
