"""Text from a model: one token at a time, each fed back as input.

The prompt goes through the model at once, after that only the new token; what earlier positions
offer to attention is read from the KV cache. `generate` works on ids, `write` on text.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from minilora.nn import Rng
from minilora.system.checks import is_number, require_whole
from minilora.system.errors import UsageError
from minilora.tensor import no_grad
from minilora.text.alphabet import ALPHABET, decode, dropped, encode, to_alphabet
from minilora.text.decoder import Decoder, is_plain
from minilora.transformer import KVCache, Transformer

_LOWEST_TEMPERATURE = 1e-6  # below it, logits / temperature can overflow


def write(
    model: Transformer,
    prompt: str,
    length: int,
    *,
    temperature: float = 0.7,
    top_k: int | None = None,
    top_p: float | None = None,
    seed: int = 0,
    stop: str | None = None,
    on_text: Callable[[str], Any] | None = None,
) -> str:
    """Continue a text by `length` symbols; returns the prompt and what follows it.

    stop: a symbol before which the text ends, such as the newline after a string task's answer.
    on_text: called with every new symbol as soon as it is chosen. The rest as in `generate`, with
    default_rng(seed). Raises ValueError for a prompt with characters that are not in ALPHABET and
    have no look-alike there, or a model with another vocabulary.
    """
    if isinstance(model, str):
        raise UsageError(f"write() takes a model: load_model({model!r}), not its name")
    if model.config.vocab_size != len(ALPHABET):
        raise UsageError(
            f"write() knows the {len(ALPHABET)} symbols of ALPHABET, and this model has "
            f"{model.config.vocab_size}; use generate() with the ids of the model's own tokenizer"
        )
    if lost := "".join(dropped(prompt)[0]):
        raise UsageError(f"the prompt has {lost!r}, which the model's alphabet lacks; leave it out")
    if stop is not None and stop not in list(ALPHABET):
        raise UsageError(f"stop must be one symbol of ALPHABET, got {stop!r}")
    require_whole(0, length=length, seed=seed)
    if on_text is not None and not callable(on_text):
        raise UsageError(f"on_text must be a function of the new text, got {on_text!r}")

    def show(new: np.ndarray) -> None:
        if on_text and decode(new) != stop:
            on_text(decode(new))

    text = to_alphabet(prompt)
    ids = generate(
        model,
        encode(text),
        length,
        temperature=temperature,
        top_k=top_k,
        top_p=top_p,
        rng=np.random.default_rng(seed),
        eos_token_id=None if stop is None else ALPHABET.index(stop),
        on_token=show,
    )
    following = decode(ids[0, len(text) :])
    return text + (following if stop is None else following.partition(stop)[0])


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
    eos_token_id: int | None = None,
    on_token: Callable[[np.ndarray], Any] | None = None,
) -> np.ndarray:
    """Continue each prompt, one token at a time.   int (B, T) -> int (B, T + max_new_tokens)

    temperature 0 takes the likeliest token; otherwise logits / temperature are sampled with `rng`,
    from the top_k likeliest only, and from the smallest set holding top_p of the probability
    (Holtzman et al. 2020). A row that has drawn `eos_token_id` repeats it, and once all rows have,
    the result ends. `on_token` is called with each new column (B,). When block_size is reached,
    the model goes on with the later half of what it sees (after prompt tuning, which cannot use a
    cache, with all that fits). Raises ValueError for options outside their range, a prompt that is
    empty or no integers, and logits that are NaN; IndexError for an id outside the vocabulary.
    """
    prompt = _checked_prompt(prompt_ids)
    _check_options(max_new_tokens, temperature, top_k, top_p, rng, on_token)
    if eos_token_id is not None:
        require_whole(0, eos_token_id=eos_token_id)
        if eos_token_id >= model.config.vocab_size:
            raise UsageError(f"eos_token_id={eos_token_id} is not in the model's vocabulary")
    block, cache = model.config.block_size, None
    next_logits = Decoder(model) if is_plain(model) else partial(_next_logits, model)
    B, T = prompt.shape
    ids = np.concatenate([prompt, np.zeros((B, max_new_tokens), np.int64)], axis=1)
    ended = np.zeros(B, bool)
    for end in range(T, T + max_new_tokens):
        if cache is None or cache[0].length == block:  # read many tokens at once
            start = max(0, end - block) if cache is None else end - max(1, block // 2)
            cache = [KVCache(block) for _ in model.layers] if model.can_cache else None
            logits = model(ids[:, start:end], cache=cache).data[:, -1]  # (B, T, V) -> (B, V)
        else:
            logits = next_logits(ids[:, end - 1], cache)
        if not np.isfinite(logits.max(axis=1)).all():
            raise UsageError("the model's logits are NaN or infinite: its weights are damaged")
        if temperature == 0:
            new = logits.argmax(axis=1)
        else:
            new = _sample(logits / float(temperature), top_k, top_p, rng)
        if eos_token_id is not None:
            new[ended] = eos_token_id
            ended |= new == eos_token_id
        ids[:, end] = new
        if on_token:
            on_token(new)
        if eos_token_id is not None and ended.all():
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


def _next_logits(model: Transformer, ids: np.ndarray, cache: list[KVCache]) -> np.ndarray:
    return model(ids[:, None], cache=cache).data[:, -1]  # (B, 1, V) -> (B, V)


def _sample(logits: np.ndarray, top_k: int | None, top_p: float | None, rng: Any) -> np.ndarray:
    """One id per row of logits (B, V) -> (B,)."""
    order = np.argsort(-logits, axis=1)[:, :top_k]  # likeliest first
    sorted_logits = np.take_along_axis(logits, order, axis=1)
    p = np.exp(sorted_logits - sorted_logits[:, :1])
    p /= p.sum(axis=1, keepdims=True)
    p = p.astype(np.float64)
    if top_p is not None:
        p[np.cumsum(p, axis=1) - p >= top_p] = 0  # drop what comes after top_p is reached
    ends = np.cumsum(p, axis=1)
    picked = (ends < rng.random((len(p), 1)) * ends[:, -1:]).sum(axis=1)
    return np.take_along_axis(order, picked[:, None], axis=1)[:, 0]
