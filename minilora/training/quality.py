"""How good is a model? Two measures, each on fixed examples, so that two models can be compared.

For text: the mean of -log p(next character), in nats per character. For string tasks: the share of
words whose whole answer is right. Imports tensor.py, functional.py, transformer.py, data.py.
"""

from __future__ import annotations

import numpy as np

from minilora import functional as F
from minilora.tensor import no_grad
from minilora.text.windows import IGNORE_INDEX, spaced_windows
from minilora.transformer import Transformer

_ROWS = 64  # rows per forward pass: enough to be quick, few enough to need little memory


@no_grad()
def text_loss(model: Transformer, tokens: np.ndarray, windows: int = 256) -> float:
    """Nats per character on evenly spaced windows of block_size symbols of `tokens` (n,)."""
    ids, targets = spaced_windows(tokens, windows, model.config.block_size)
    total = 0.0
    for i in range(0, windows, _ROWS):
        part = slice(i, i + _ROWS)
        total += F.cross_entropy(model(ids[part]), targets[part]).item() * len(ids[part])
    return total / windows


@no_grad()
def exact_match(model: Transformer, ids: np.ndarray, targets: np.ndarray) -> float:
    """The share of rows (B, T) in which every target but IGNORE_INDEX is the likeliest symbol.

    Each symbol is predicted from the right ones before it, so this equals the share of words that
    greedy generation gets right from first to last.
    """
    right = 0
    for i in range(0, len(ids), _ROWS):
        part = slice(i, i + _ROWS)
        likeliest = model(ids[part]).data.argmax(axis=-1)  # (B, T, V) -> (B, T)
        hits = (likeliest == targets[part]) | (targets[part] == IGNORE_INDEX)
        right += int(hits.all(axis=1).sum())
    return right / len(ids)
