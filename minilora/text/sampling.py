"""Text from a model: one token at a time, each fed back as input.

The prompt goes through the model at once, after that only the new token; what earlier positions
offer to attention is read from the KV cache. Imports tensor.py, functional.py, transformer.py,
decoder.py, methods.py.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from minilora import functional as F
from minilora.system.errors import UsageError
from minilora.tensor import Tensor, no_grad
from minilora.text.decoder import Decoder, is_plain
from minilora.transformer import KVCache, Transformer


@no_grad()
def generate(
    model: Transformer,
    prompt_ids: np.ndarray,
    max_new_tokens: int,
    *,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    rng: np.random.Generator | None = None,
    on_token: Callable[[np.ndarray], Any] | None = None,
) -> np.ndarray:
    """Continue each prompt, one token at a time.   int (B, T) -> int (B, T + max_new_tokens)

    temperature 0 takes the likeliest token; otherwise logits / temperature are sampled with `rng`,
    from the top_k likeliest only, and from the smallest set holding top_p of the probability
    (Holtzman et al. 2020). `on_token` is called with each new column (B,). When block_size is
    reached, the model goes on with the later half of what it sees (after prompt tuning, which
    cannot use a cache, with all that fits).
    """
    prompt = np.atleast_2d(np.asarray(prompt_ids, dtype=np.int64))
    if prompt.shape[1] == 0:
        raise UsageError("the prompt is empty: give at least one token to start from")
    p = 1 if top_p is None else top_p
    if temperature < 0 or (top_k is not None and top_k < 1) or not 0 < p <= 1:
        raise UsageError("temperature must be >= 0, top_k >= 1 and top_p in (0, 1]")
    if temperature > 0 and rng is None:
        raise UsageError("sampling needs rng=np.random.default_rng(seed), or temperature=0")
    block, cache = model.config.block_size, None
    decode = Decoder(model) if is_plain(model) else partial(_decode, model)
    B, T = prompt.shape
    ids = np.concatenate([prompt, np.zeros((B, max_new_tokens), np.int64)], axis=1)
    for end in range(T, T + max_new_tokens):
        if cache is None or cache[0].length == block:  # read many tokens at once
            start = max(0, end - block) if cache is None else end - max(1, block // 2)
            cache = [KVCache() for _ in model.layers] if model.can_cache else None
            logits = model(ids[:, start:end], cache=cache).data[:, -1]  # (B, T, V) -> (B, V)
        else:
            logits = decode(ids[:, end - 1], cache)
        if temperature == 0:
            new = logits.argmax(axis=1)
        else:
            new = _sample(logits / temperature, top_k, top_p, rng)
        ids[:, end] = new
        if on_token:
            on_token(new)
    return ids


def _decode(model: Transformer, ids: np.ndarray, cache: list[KVCache]) -> np.ndarray:
    return model(ids[:, None], cache=cache).data[:, -1]  # (B, 1, V) -> (B, V)


def _sample(logits: np.ndarray, top_k: int | None, top_p: float | None, rng: Any) -> np.ndarray:
    """One id per row of logits (B, V) -> (B,)."""
    order = np.argsort(-logits, axis=1)[:, :top_k]  # likeliest first
    p = F.softmax(Tensor(np.take_along_axis(logits, order, axis=1))).data.astype(np.float64)
    if top_p is not None:
        p[np.cumsum(p, axis=1) - p >= top_p] = 0  # drop what comes after top_p is reached
    ends = np.cumsum(p, axis=1)
    picked = (ends < rng.random((len(p), 1)) * ends[:, -1:]).sum(axis=1)
    return np.take_along_axis(order, picked[:, None], axis=1)[:, 0]
