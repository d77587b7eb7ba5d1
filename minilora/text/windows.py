"""Windows of a text: what a language model is shown, and what it should say at every place.

The windows are those of nanoGPT's get_batch.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from minilora.nn import Rng
from minilora.system.checks import require_rng, require_whole
from minilora.system.errors import UsageError

Batch = Callable[[Rng], tuple[np.ndarray, np.ndarray]]  # draws ids and targets, int (B, T) each

IGNORE_INDEX = -100  # the target of a position that does not count in the loss
WINDOW = 65  # symbols in one window of the shipped language model: 64 inputs, shifted by one


def random_windows(
    tokens: np.ndarray, batch_size: int, block_size: int, rng: Rng
) -> tuple[np.ndarray, np.ndarray]:
    """Draw windows of `tokens` (n,) for training: inputs and targets, int64 (B, T) each.

    targets[b, t] is the symbol that follows ids[b, t]. Raises ValueError if n < T + 1, or for sizes
    that are no whole numbers of at least 1.
    """
    tokens = np.asarray(tokens)
    check_windows(tokens, block_size, batch_size=batch_size)
    require_rng(rng)
    return _windows(tokens, rng.integers(len(tokens) - block_size, size=batch_size), block_size)


def spaced_windows(
    tokens: np.ndarray, count: int, block_size: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return `count` evenly spaced windows of `tokens` (n,) for evaluation, as random_windows does.

    The first window starts the text and the last one ends it; every call returns the same.
    """
    tokens = np.asarray(tokens)
    check_windows(tokens, block_size, count=count)
    last = len(tokens) - block_size - 1
    return _windows(tokens, np.arange(count) * last // max(count - 1, 1), block_size)


def check_windows(tokens: np.ndarray, block_size: int, **counts: int) -> None:
    """Raise ValueError unless windows of that size, and that many of them, can be had."""
    require_whole(1, block_size=block_size, **counts)
    if tokens.ndim != 1 or not np.issubdtype(tokens.dtype, np.integer):
        raise UsageError(
            f"tokens must be whole numbers of shape (n,), got {tokens.dtype} {tokens.shape}; "
            "encode() makes them of a text"
        )
    if len(tokens) <= block_size:
        raise UsageError(
            f"a window of block_size={block_size} takes {block_size + 1} symbols and there are "
            f"only {len(tokens)}; use a longer text or a smaller block_size"
        )


def _windows(
    tokens: np.ndarray, starts: np.ndarray, block_size: int
) -> tuple[np.ndarray, np.ndarray]:
    windows = tokens[starts[:, None] + np.arange(block_size + 1)]  # (n,) -> (B, T + 1)
    windows = windows.astype(np.int64)
    return windows[:, :-1], windows[:, 1:]  # (B, T + 1) -> (B, T) each
