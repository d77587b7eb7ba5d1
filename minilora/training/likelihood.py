"""How likely a model finds a text after a prompt: multiple choice without showing the choices.

A model of a hundred million numbers does not answer "B". But it gives every text a probability, and
so the choices of a question can be compared: the choice whose tokens have the highest mean
log-probability is taken as its answer (Brown et al. 2020, section 2.4).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from minilora.kv_cache import KVCache
from minilora.system.errors import UsageError
from minilora.tensor import Tensor, no_grad
from minilora.transformer import Transformer


class Likelihood:
    """`likelihood(prompt, texts)`: the log-probability of each token of each text, after a prompt.

    start: ids (n,) with which all prompts begin, such as those of a system message: they are read
    once. The rest of a prompt is read once for all its texts. Raises ValueError for no ids.
    """

    def __init__(self, model: Transformer, start: np.ndarray) -> None:
        if not len(start):
            raise UsageError("the prompts must begin with at least one token in common")
        self.model, self.start = model, start
        self._cache = [KVCache(len(start)) for _ in model.layers]
        _read(model, start[None], self._cache)

    def __call__(self, prompt: np.ndarray, texts: Sequence[np.ndarray]) -> list[np.ndarray]:
        """prompt: ids (n,), longer than `start`; texts: ids (t,) each -> float64 (t,) each.

        Raises ValueError for a prompt that begins otherwise, and for a text without tokens.
        """
        n, longest = len(prompt), max(map(len, texts))
        if n <= len(self.start) or (prompt[: len(self.start)] != self.start).any():
            raise UsageError("the prompt must begin as all do, and go on")
        if not min(map(len, texts)):
            raise UsageError("a text has no tokens")
        cache = [past.copies(1, n) for past in self._cache]
        x = _read(self.model, prompt[None, len(self.start) :], cache)[:, -1:]  # (1, 1, C)
        x = np.repeat(x, len(texts), axis=0)  # what says the texts' first tokens: (B, 1, C)
        if longest > 1:
            ids = np.zeros((len(texts), longest - 1), np.int64)
            for row, text in enumerate(texts):
                ids[row, : len(text) - 1] = text[:-1]
            cache = [past.copies(len(texts), n + longest) for past in cache]
            x = np.concatenate([x, _read(self.model, ids, cache)], axis=1)  # (B, longest, C)
        with no_grad():
            logits = self.model.logits(Tensor(x)).data  # (B, longest, V)
        return [_log_p(logits[row], text) for row, text in enumerate(texts)]


@no_grad()
def _read(model: Transformer, ids: np.ndarray, cache: list[KVCache]) -> np.ndarray:
    """ids (B, T) -> what stands before the head (B, T, C), appended to the cache."""
    return model.hidden(ids, cache=cache).data


def _log_p(logits: np.ndarray, text: np.ndarray) -> np.ndarray:
    """log p of each token of a text.   logits (t or more, V), ids (t,) -> float64 (t,)"""
    z = logits[: len(text)].astype(np.float64)
    z -= z.max(axis=1, keepdims=True)
    return z[np.arange(len(text)), text] - np.log(np.exp(z).sum(axis=1))
