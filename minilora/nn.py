"""The layers of a transformer: Linear, Embedding and the two norms.

A layer is a plain class with parameters as attributes: module.py finds them there. There is no
train/eval mode: dropout happens when a random generator is passed to the call, and only then.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from minilora import functional as F
from minilora.module import Module, Parameter
from minilora.ops import as_tensor
from minilora.system.checks import require_positive, require_rng, require_whole
from minilora.system.errors import UsageError
from minilora.tensor import Tensor

Rng = np.random.Generator


def _normal(n: int, m: int, std: float | None, rng: Any) -> Parameter:
    """A matrix (n, m) of normal numbers of deviation std (default: 1 / sqrt(n)), from rng."""
    require_rng(rng)
    std = 1 / math.sqrt(n) if std is None else std
    if not 0 <= std < math.inf:
        raise UsageError(f"std must be 0 or a positive number, got {std!r}")
    return Parameter(rng.standard_normal((n, m), dtype=np.float32) * std)


class Linear(Module):
    """y = x W + b with W (d_in, d_out), the transpose of PyTorch's layout."""

    def __init__(
        self, d_in: int, d_out: int, bias: bool = True, *,
        rng: Rng | None = None, std: float | None = None,
    ) -> None:  # fmt: skip
        """Draws W from `rng`, normal with deviation std (default: 1 / sqrt(d_in))."""
        require_whole(1, d_in=d_in, d_out=d_out)
        self.weight = _normal(d_in, d_out, std, rng)
        self.bias = Parameter(np.zeros(d_out, np.float32)) if bias else None

    def __call__(self, x: Any, rng: Rng | None = None) -> Tensor:
        """x (..., d_in) -> (..., d_out). rng is for LoraLinear's dropout alone."""
        return F.linear(as_tensor(x, self.weight), self.weight, self.bias)

    def describe(self) -> str:
        return "Linear({} -> {})".format(*self.weight.shape)


class Embedding(Module):
    """A table with one row of C numbers per id."""

    def __init__(self, n: int, C: int, *, rng: Rng | None = None, std: float = 0.02) -> None:
        require_whole(1, n=n, C=C)
        self.weight = _normal(n, C, std, rng)

    def __call__(self, ids: np.ndarray) -> Tensor:
        """ids int (...) -> (..., C)"""
        return F.embedding(self.weight, ids)

    def describe(self) -> str:
        return "Embedding({} ids, {})".format(*self.weight.shape)


class LayerNorm(Module):
    def __init__(self, C: int, eps: float = 1e-5) -> None:
        require_whole(1, C=C)
        require_positive(eps=eps)
        self.weight = Parameter(np.ones(C, np.float32))
        self.bias = Parameter(np.zeros(C, np.float32))
        self.eps = eps

    def __call__(self, x: Tensor) -> Tensor:
        return F.layer_norm(x, self.weight, self.bias, self.eps)


class RMSNorm(Module):
    def __init__(self, C: int, eps: float = 1e-5) -> None:
        require_whole(1, C=C)
        require_positive(eps=eps)
        self.weight = Parameter(np.ones(C, np.float32))
        self.eps = eps

    def __call__(self, x: Tensor) -> Tensor:
        return F.rms_norm(x, self.weight, self.eps)
