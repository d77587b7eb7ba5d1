"""How good is a model? Two measures, each on fixed examples, so that two models can be compared.

For text: the mean of -log p(next character), in nats per character. For string tasks: the share of
words whose whole answer is right.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from minilora import functional as F
from minilora.system.errors import UsageError
from minilora.tensor import no_grad
from minilora.text.pairs import Example
from minilora.text.windows import IGNORE_INDEX, spaced_windows
from minilora.training.parallel import mean_loss
from minilora.transformer import Transformer


@dataclass(frozen=True)
class Metric:
    """What a number about a model means: `name` stands in results, `unit` at axes and in tables,
    and `format.format(value)` is the value as a person reads it."""

    name: str
    unit: str
    higher_is_better: bool
    format: str


NATS = Metric("nats", "nats per character", higher_is_better=False, format="{:.3f}")
EXACT = Metric("exact", "share of answers exactly right", higher_is_better=True, format="{:.1%}")
NATS_PER_TOKEN = Metric("nats_per_token", "nats per token", higher_is_better=False, format="{:.3f}")
METRICS = {metric.name: metric for metric in (NATS, EXACT, NATS_PER_TOKEN)}

_ROWS = 64  # rows per forward pass: enough to be quick, few enough to need little memory


@no_grad()
def text_loss(model: Transformer, tokens: np.ndarray, windows: int = 256) -> float:
    """Nats per character on evenly spaced windows of block_size symbols of `tokens`, int (n,).

    Raises ValueError unless `windows` is a whole number of at least 1 and the text is longer than
    one window. The loss of a model with weights that are not finite is NaN.
    """
    ids, targets = spaced_windows(tokens, windows, model.config.block_size)
    total = 0.0
    for i in range(0, windows, _ROWS):
        part = slice(i, i + _ROWS)
        total += F.cross_entropy(model(ids[part]), targets[part]).item() * len(ids[part])
    return total / windows


@no_grad()
def answer_loss(model: Transformer, examples: Sequence[Example]) -> float:
    """Nats per token of the answers in these chats, each token counted once. NaN for a model with
    weights that are not finite. Raises ValueError if there are no examples."""
    if not examples:
        raise UsageError("there are no examples to judge the model by")
    total, counted = 0.0, 0
    for ids, targets in examples:
        n = int((targets != IGNORE_INDEX).sum())
        total += mean_loss(model, ids[None], targets[None]).item() * n
        counted += n
    return total / counted


@no_grad()
def exact_match(model: Transformer, ids: np.ndarray, targets: np.ndarray) -> float:
    """The share of rows (B, T) in which every target but IGNORE_INDEX is the likeliest symbol.

    Each symbol is predicted from the right ones before it, so this equals the share of words that
    greedy generation gets right from first to last. NaN where logits are not finite, among which
    none is the likeliest. Raises ValueError if ids and targets differ in shape, if there are no
    rows, or if a row has no target.
    """
    ids, targets = np.asarray(ids), np.asarray(targets)
    if ids.ndim != 2 or ids.shape != targets.shape or not len(ids):
        raise UsageError(
            "exact_match compares ids and targets of one shape (B, T), B at least 1, "
            f"got {ids.shape} and {targets.shape}"
        )
    asked = targets != IGNORE_INDEX
    if not asked.any(axis=1).all():
        raise UsageError(f"a row has no target: all of it is {IGNORE_INDEX}")
    right = 0
    for i in range(0, len(ids), _ROWS):
        part = slice(i, i + _ROWS)
        logits = model(ids[part]).data  # (B, T, V)
        if not np.isfinite(logits).all():
            return math.nan
        hits = (logits.argmax(axis=-1) == targets[part]) | ~asked[part]  # (B, T)
        right += int(hits.all(axis=1).sum())
    return right / len(ids)
