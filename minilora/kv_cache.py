"""The KV cache: keys and values of the positions that one layer of a model has already seen."""

from __future__ import annotations

import numpy as np

from minilora.system.errors import StateError, UsageError
from minilora.tensor import Tensor, needs_grad


class KVCache:
    """Keys and values of the positions one layer has already seen, so that they need not be
    computed again for every new token: (B, block_size, J*D) each, filled from the left."""

    def __init__(self, block_size: int) -> None:
        self.block_size, self.length = block_size, 0

    def append(self, k: np.ndarray, v: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Append k, v (B, T, J*D) and return all keys and values so far (B, S, J*D)."""
        B, T, width = k.shape
        if self.length == 0:
            self.k = np.empty((B, self.block_size, width), k.dtype)
            self.v = np.empty_like(self.k)
        end = self.length + T
        if end > self.block_size or len(self.k) != B:
            raise UsageError(
                f"a cache of shape {self.k.shape}, filled up to position {self.length}, "
                f"cannot take keys of shape {k.shape}; start with a new KVCache"
            )
        self.k[:, self.length : end], self.v[:, self.length : end] = k, v
        self.length = end
        return self.k[:, :end], self.v[:, :end]

    def extend(self, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """The same for Tensors. Raises RuntimeError if they need a gradient."""
        if needs_grad(k, v):
            raise StateError("a cache passes no gradient on: call the model within no_grad()")
        k_so_far, v_so_far = self.append(k.data, v.data)
        return Tensor(k_so_far), Tensor(v_so_far)

    def copies(self, rows: int, block_size: int) -> KVCache:
        """A cache of another size that holds the same, once for each of so many rows."""
        new = KVCache(block_size)
        new.append(*(np.repeat(a[:, : self.length], rows, axis=0) for a in (self.k, self.v)))
        return new
