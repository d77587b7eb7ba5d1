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

Found = list[np.ndarray]  # of one prompt: an array for each of its texts


class Likelihood:
    """`likelihood(prompts, texts)`: the log-probability of each token of texts, after prompts.

    start: ids (n,) with which all prompts begin, such as those of a system message: they are read
    once. The rest of a prompt is read once for all its texts. Raises ValueError for no ids.
    """

    def __init__(self, model: Transformer, start: np.ndarray) -> None:
        if not len(start):
            raise UsageError("the prompts must begin with at least one token in common")
        self.model, self.start = model, start
        self._cache = [KVCache(len(start)) for _ in model.layers]
        _read(model, start[None], self._cache)

    def __call__(self, prompts: np.ndarray, texts: Sequence[Sequence[np.ndarray]]) -> list[Found]:
        """prompts: ids (Q, n), longer than `start`; texts: for each as many, ids (t,) -> for each
        prompt and each of its texts float64 (t,).

        Prompts of one length are read together, which is quicker than one after the other. Raises
        ValueError for a prompt that begins otherwise, and for a text without tokens.
        """
        (Q, n), each = prompts.shape, len(texts[0])
        rows = [text for some in texts for text in some]  # B = Q * each of them
        if n <= len(self.start) or (prompts[:, : len(self.start)] != self.start).any():
            raise UsageError("the prompts must begin as all do, and go on")
        if len(texts) != Q or len(rows) != Q * each or not min(map(len, rows)):
            raise UsageError("every prompt needs as many texts, each of at least one token")
        cache = [past.copies(Q, n) for past in self._cache]
        x = _read(self.model, prompts[:, len(self.start) :], cache)[:, -1:]  # (Q, 1, C)
        x = np.repeat(x, each, axis=0)  # what says the texts' first tokens: (B, 1, C)
        longest = max(map(len, rows))
        if longest > 1:
            ids = np.zeros((len(rows), longest - 1), np.int64)
            for row, text in enumerate(rows):
                ids[row, : len(text) - 1] = text[:-1]
            cache = [past.copies(each, n + longest) for past in cache]
            x = np.concatenate([x, _read(self.model, ids, cache)], axis=1)  # (B, longest, C)
        with no_grad():
            logits = self.model.logits(Tensor(x)).data  # (B, longest, V)
        found = [_log_p(logits[row], text) for row, text in enumerate(rows)]
        return [found[i : i + each] for i in range(0, len(found), each)]


@no_grad()
def _read(model: Transformer, ids: np.ndarray, cache: list[KVCache]) -> np.ndarray:
    """ids (B, T) -> what stands before the head (B, T, C), appended to the cache."""
    return model.hidden(ids, cache=cache).data


def _log_p(logits: np.ndarray, text: np.ndarray) -> np.ndarray:
    """log p of each token of a text.   logits (t or more, V), ids (t,) -> float64 (t,)"""
    z = logits[: len(text)].astype(np.float64)
    z -= z.max(axis=1, keepdims=True)
    return z[np.arange(len(text)), text] - np.log(np.exp(z).sum(axis=1))
