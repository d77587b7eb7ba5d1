"""Data parallelism: the batch is split into shards, and each thread takes the gradient of one.

This is how large models are trained on many machines: every worker has the same weights and a part
of the batch, and the gradients are added before the one optimizer step. Here the workers are Python
threads. They run at the same time because NumPy releases Python's lock inside its loops and matrix
products; BLAS itself is held to one thread, as two layers of threads would fight for the cores.
What two cores gain grows with the size of the arrays: where they are small, the threads wait for
Python's lock most of the time.

The number of shards depends on the batch alone, and their gradients are added in their order: so
the result does not depend, to the last bit, on how many threads there are.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np

from minilora import functional as F
from minilora.nn import Rng
from minilora.tensor import Tensor, grad
from minilora.text.windows import IGNORE_INDEX
from minilora.transformer import Transformer

if TYPE_CHECKING:
    from concurrent.futures import Executor

SHARDS = 2
# Below so many symbols, each of so many numbers, a step is mostly Python's own time, and threads
# would only wait. Of a wider model fewer symbols are enough.
_WORTH_SPLITTING, _WIDTH = 512, 128
# After so many seconds a thread that does Python's work, such as sorting a graph, lets the other go
# on; by default only after fifty times as many.
_TURN = 1e-4


def mean_loss(
    model: Transformer, ids: np.ndarray, targets: np.ndarray, rng: Rng | None = None
) -> Tensor:
    """Cross-entropy of a batch, int (B, T) each, by the logits of those places alone whose target
    counts: a real model's head is its largest matrix. A model of one's own, with a call of its own,
    is asked for all."""
    if type(model).__call__ is not Transformer.__call__:
        return F.cross_entropy(model(ids, rng), targets)
    x, kept = model.hidden(ids, rng), np.flatnonzero(targets != IGNORE_INDEX)
    if 0 < len(kept) < targets.size:
        x, targets = F.embedding(x.reshape(-1, x.shape[2]), kept), targets.ravel()[kept]
    return F.cross_entropy(model.logits(x, rng), targets)


def loss_and_gradients(
    model: Transformer,
    params: Sequence[Tensor],
    ids: np.ndarray,
    targets: np.ndarray,
    rng_of_shard: Callable[[int], Rng] | None = None,
    pool: Executor | None = None,
) -> tuple[float, list[np.ndarray]]:
    """Cross-entropy of a batch, int (B, T) each, and its gradient for each of `params`.

    rng_of_shard: the generator for the dropout of shard 0, 1, ...; None: no dropout. Without a
    pool the shards are computed one after the other, to the same result.
    """
    width = model.config.n_embd if isinstance(model, Transformer) else _WIDTH
    worth_it = ids.size * max(width, _WIDTH) >= _WORTH_SPLITTING * _WIDTH
    rows = np.array_split(np.arange(len(ids)), SHARDS if worth_it else 1)
    counted = [int((targets[part] != IGNORE_INDEX).sum()) for part in rows]

    @np.errstate(over="ignore", invalid="ignore")  # a thread has its own; callers check the loss
    def shard(i: int) -> tuple[float, list[np.ndarray]]:
        rng = rng_of_shard(i) if rng_of_shard else None
        loss = mean_loss(model, ids[rows[i]], targets[rows[i]], rng) * (counted[i] / sum(counted))
        return loss.item(), grad(loss, params)

    nonempty = [i for i, n in enumerate(counted) if n] or [0]
    found = list((pool.map if pool else map)(shard, nonempty))
    losses, gradients = zip(*found, strict=True)
    return sum(losses), [sum(parts[1:], start=parts[0]) for parts in zip(*gradients, strict=True)]


@contextmanager
def threads_for_shards(workers: int) -> Iterator[Executor | None]:
    """The pool for loss_and_gradients; None for one worker."""
    if workers == 1:
        yield None
        return
    from concurrent.futures import ThreadPoolExecutor  # brings logging and more: not at start-up

    turn = sys.getswitchinterval()
    longer = turn > _TURN  # else another training has shortened it, which will give it back
    if longer:
        sys.setswitchinterval(_TURN)
    try:
        with ThreadPoolExecutor(workers) as pool:
            yield pool
    finally:
        if longer:
            sys.setswitchinterval(turn)
