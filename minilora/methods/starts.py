"""EVA, LoRA-GA and MiCA: other places where an adapter may start, found by an SVD.

Each changes the active adapter, plain and untrained, before it trains. EVA and LoRA-GA look at a
batch first: EVA at what the layers read, LoRA-GA at the gradient of W; MiCA looks at W alone.
Sources: Paischer et al. 2024 (EVA); Wang et al. 2024 (LoRA-GA); Rüdiger & Raschka 2026 (MiCA).
"""

from __future__ import annotations

import math

import numpy as np

from minilora import functional as F
from minilora.lora import LoraLinear, LowRank, disable_adapter, lora_layers
from minilora.methods.variants import PartOfW
from minilora.nn import Rng
from minilora.system.errors import UsageError
from minilora.tensor import Tensor, no_grad
from minilora.transformer import Transformer

EPSILON = float(np.finfo(np.float32).eps)
GAMMA = 16.0  # of LoRA-GA: the larger, the smaller its start


def eva(model: Transformer, ids: np.ndarray) -> None:
    """A of every layer becomes the r strongest directions of what the layer reads; B stays zero.

    With X (N, d_in) the inputs of the layer for this batch and X = U S Vᵀ, A is the first r rows
    of Vᵀ, transposed. EVA also takes ranks from layers that need fewer; here all keep theirs.
    ids: int (B, T). Raises ValueError if the batch has fewer than r directions.
    """
    name, plain = _plain_adapters(model)
    watching = {path: _Watching(layer.adapters[name]) for path, layer in plain.items()}
    try:
        for path, layer in plain.items():
            layer.adapters[name] = watching[path]
        with no_grad():
            model(ids)
    finally:
        for path, layer in plain.items():
            layer.adapters[name] = watching[path].watched
    found = {}
    for path, seen in watching.items():
        r, X = seen.A.shape[1], seen.x.reshape(-1, seen.x.shape[-1])
        found[path] = _svd(X, r, f"the inputs of {path}")[1][:r].T
    for path, A in found.items():
        watching[path].watched.A.data[...] = A


def lora_ga(model: Transformer, ids: np.ndarray, targets: np.ndarray) -> None:
    """A and B become directions of the gradient of W, and s A B is taken out of W.

    With G = dL/dW = U S Vᵀ (d_in, d_out) of this batch, A is the first r columns of U and B the
    next r rows of Vᵀ, both times d_out^(1/4) / √GAMMA: then the first step changes W as much like
    full fine-tuning as rank 2r can. ids, targets: int (B, T). Raises ValueError if 2r is more than
    G has directions.
    """
    name, plain = _plain_adapters(model)
    with disable_adapter(model):
        for layer in plain.values():
            layer.base.weight.requires_grad = True
        try:
            F.cross_entropy(model(ids), targets).backward()
            gradients = {path: layer.base.weight.grad for path, layer in plain.items()}
        finally:
            for layer in plain.values():
                layer.base.weight.requires_grad, layer.base.weight.grad = False, None
    new = {}
    for path, layer in plain.items():
        W, adapter, G = layer.base.weight.data, layer.adapters[name], gradients[path]
        assert G is not None
        r, c = adapter.A.shape[1], W.shape[1] ** 0.25 / math.sqrt(GAMMA)
        U, Vt = _svd(G, 2 * r, f"the gradient of {path}")
        A, B = (U[:, :r] * c).astype(W.dtype), (Vt[r : 2 * r] * c).astype(W.dtype)
        new[path] = PartOfW(A, B, adapter.s, adapter.dropout)
        new[path].start(W)
    for path, layer in plain.items():
        layer.adapters[name] = new[path]


def mica(model: Transformer) -> None:
    """B becomes the r weakest output directions of W, and is frozen; A starts at zero and trains.

    With W = U S Vᵀ (d_in, d_out), B is the last r rows of Vᵀ, so that half of what LoRA trains is
    left.
    """
    name, plain = _plain_adapters(model)
    for layer in plain.values():
        W, adapter = layer.base.weight.data, layer.adapters[name]
        r = adapter.A.shape[1]
        Vt = np.linalg.svd(W.astype(np.float64), full_matrices=False)[2]
        A, B = np.zeros_like(adapter.A.data), Vt[-r:].astype(W.dtype)
        layer.adapters[name] = Mica(A, B, adapter.s, adapter.dropout)


class Mica(LowRank):
    """An adapter whose B is frozen."""

    def __init__(self, A: np.ndarray, B: np.ndarray, s: float, dropout: float) -> None:
        super().__init__(A, B, s, dropout)
        self.B = Tensor(B)  # type: ignore[assignment]  # no Parameter, so that nothing trains it

    def factors(self, W: np.ndarray) -> dict[str, np.ndarray]:
        return {"A": self.A.data, "B": self.B.data}


class _Watching(LowRank):
    """Stands in for an adapter and keeps the x that comes to it."""

    def __init__(self, watched: LowRank) -> None:
        super().__init__(watched.A.data, watched.B.data, watched.s)
        self.watched, self.x = watched, np.empty(0)

    def __call__(self, x: Tensor, W: Tensor, b: Tensor | None, rng: Rng | None) -> Tensor:
        self.x = x.data
        return super().__call__(x, W, b, rng)


def _plain_adapters(model: Transformer) -> tuple[str, dict[str, LoraLinear]]:
    """The name of the active adapter, and its layers by path. Raises ValueError unless it is plain
    LoRA at its start."""
    layers = {path: layer for path, layer in lora_layers(model).items() if layer.active}
    name = next((layer.active for layer in layers.values()), None)
    if name is None:
        raise UsageError("there is no active adapter to start elsewhere; see add_adapter")
    for path, layer in layers.items():
        adapter = layer.adapters[name]
        if type(adapter) is not LowRank or adapter.B.data.any():
            raise UsageError(
                f"only plain LoRA before its first step can start elsewhere, and adapter {name!r} "
                f"at {path} is of another kind or has B other than zero: add a new one with "
                "use_dora=False, init_lora_weights=True"
            )
    return name, layers


def _svd(M: np.ndarray, needed: int, what: str) -> tuple[np.ndarray, np.ndarray]:
    """U and Vᵀ of M. Raises ValueError if it has fewer directions than are needed."""
    U, _, Vt = np.linalg.svd(M.astype(np.float64), full_matrices=False)
    found = int(np.linalg.matrix_rank(M.astype(np.float64), rtol=max(M.shape) * EPSILON))
    if found < needed:
        raise UsageError(
            f"in {what} there are {found} directions, and {needed} are needed: give a larger "
            "batch, or lower r"
        )
    return U, Vt
