"""Softmax, cross-entropy, norms, attention, LoRA …: fused, with the gradient derived by hand.

Optional depth. reference.py says the same in a few ops each, and the tests compare the two; read an
op there first. One op instead of ten saves Python's overhead, passes over memory and kept
activations. Each docstring derives the gradient it implements, where G stands for the gradient of
the op's output, and says why it is computed as it is.

Letters: B batch, T time (S where keys outnumber queries), C channels, H heads, J heads of keys and
values, D head size, V vocabulary, N rows, r rank. Constants are Python floats, because a NumPy
float64 scalar would turn float32 arrays into float64.

Every op raises TypeError for arguments that are no Tensors or mix dtypes, and ValueError, naming
the sizes, for those that do not fit together.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from minilora.arguments import (
    require_attention,
    require_dropout,
    require_factors,
    require_ids,
    require_linear,
    require_norm,
    require_rope,
    require_targets,
    require_tensors,
)
from minilora.kernels import (
    GELU_A,
    GELU_B,
    centred,
    gelu_gate,
    inverse_rms,
    merging_pays,
    ones,
    rope_angles,
    rotate,
    silu_gate,
)
from minilora.rope_scaling import RopeScaling
from minilora.system.errors import UsageError
from minilora.tensor import Tensor, needs_grad, record


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """y = x W + b.   x (..., d_in), W (d_in, d_out), b (d_out,) -> (..., d_out)

    dx = G Wᵀ, dW = xᵀ G, db = sum of G over rows. For a frozen W only dx is recorded, and x is
    not kept: two products instead of three. All N rows go into one product, because NumPy computes
    a stack (B, T, d_in) as B small ones. dW lies in memory as W does, where W may be a transposed
    embedding, so that adding and copying it run straight through both.
    """
    require_linear("linear", x, weight, bias)
    shape, W, x2 = x.shape, weight.held(), _rows(x.data)
    y = x2 @ W()  # (N, d_in) @ (d_in, d_out) -> (N, d_out)
    if bias is not None:
        y += bias.data

    def dW(g: np.ndarray) -> np.ndarray:
        if weight.data.flags.c_contiguous:
            return x2.T @ _rows(g)  # (d_in, N) @ (N, d_out)
        return (_rows(g).T @ x2).T

    return record(
        y.reshape(*shape[:-1], weight.shape[1]),
        (x, lambda g: (_rows(g) @ W().T).reshape(shape)),
        (weight, dW),
        (bias, lambda g: _column_sum(_rows(g))),
    )


def lora_linear(
    x: Tensor, weight: Tensor, bias: Tensor | None, A: Tensor, B: Tensor, scale: float
) -> Tensor:
    """y = x W + s (x A) B + b with a frozen W: LoRA's layer (Hu et al. 2021, eq. 3) as one op.

    A (d_in, r), B (r, d_out). With H = G Bᵀ (N, r):  dA = s xᵀ H,  dB = s (x A)ᵀ G,
    dx = G Wᵀ + s H Aᵀ. The gradients of A and B stay thin, and dW is never formed, so a weight that
    trains is refused. Where rows are many, W + s A B is made first, so that y = x (W + s A B) and
    dx = G (W + s A B)ᵀ: that is some passes over an array of W's size, kept for backward, instead
    of over arrays of the sizes of x and y.
    """
    require_linear("lora_linear", x, weight, bias)
    require_factors(x, weight, A, B, scale)
    shape, x2, W = x.shape, _rows(x.data), weight.held()
    a, b = A.data, B.data
    merged = merging_pays(len(x2), *weight.shape) and not weight.fixed
    if merged:
        total = np.matmul(a, b, out=np.empty_like(W()))  # in memory as W: adding is then quick
        total *= scale
        total += W()
        W = Tensor(total).held()
    y = x2 @ W()  # (N, d_in) @ (d_in, d_out) -> (N, d_out)
    if not merged:
        y += (x2 @ a) @ (scale * b)  # (N, r) @ (r, d_out)
    if bias is not None:
        y += bias.data
    H = _once(lambda g: _rows(g) @ b.T)  # (N, d_out) @ (d_out, r)

    def dx(g: np.ndarray) -> np.ndarray:
        out = _rows(g) @ W().T  # (N, d_out) @ (d_out, d_in)
        if not merged:
            out += H(g) @ (scale * a.T)  # (N, r) @ (r, d_in)
        return out.reshape(shape)

    def dA(g: np.ndarray) -> np.ndarray:
        out = x2.T @ H(g)  # (d_in, N) @ (N, r)
        out *= scale
        return out

    def dB(g: np.ndarray) -> np.ndarray:
        out = (x2 @ a).T @ _rows(g)  # (r, N) @ (N, d_out)
        out *= scale
        return out

    return record(
        y.reshape(*shape[:-1], weight.shape[1]),
        (x, dx),
        (A, dA),
        (B, dB),
        (bias, lambda g: _column_sum(_rows(g))),
    )


def embedding(weight: Tensor, ids: np.ndarray) -> Tensor:
    """Rows of a table.   weight (V, C), ids int (...) -> (..., C)

    dW adds up the rows of G that belong to the same id: the ids are sorted, and `reduceat` sums
    each run of equal ones. `np.add.at` is slower, and `dW[ids] += G` would lose repeats.
    Raises IndexError for an id outside the table.
    """
    ids = np.array(ids)  # a copy: who fills the next batch into this array changes no gradient
    require_ids(weight, ids)
    W = weight.data

    def dW(g: np.ndarray) -> np.ndarray:
        out = np.zeros_like(W)
        if ids.size:
            flat = ids.ravel()
            order = np.argsort(flat, kind="stable")
            ordered = flat[order]
            starts = np.flatnonzero(np.concatenate([[True], ordered[1:] != ordered[:-1]]))
            out[ordered[starts]] = np.add.reduceat(_rows(g)[order], starts, axis=0)
        return out

    return record(W[ids], (weight, dW))


def layer_norm(x: Tensor, weight: Tensor, bias: Tensor, eps: float = 1e-5) -> Tensor:
    """y = x̂ w + b with x̂ = (x - mean) / std over the last axis (Ba et al. 2016).   x (..., C)

    With Ĝ = G w:  dx = (Ĝ - mean(Ĝ) - x̂ mean(Ĝ x̂)) / std: the mean and the std depend on x too,
    so the parts of Ĝ along 1 and along x̂ cancel. dw = Σ G x̂, db = Σ G. Means are products with a
    vector (`@ ones`, `vecdot`, `einsum`), which need no array of x² or G x̂.
    """
    require_norm("layer_norm", x, eps, weight, bias)
    shape, w, C = x.shape, weight.data, x.shape[-1]
    x_hat = centred(_rows(x.data))
    inv_std = inverse_rms(x_hat, eps)
    x_hat *= inv_std
    y = x_hat * w
    y += bias.data

    def dx(g: np.ndarray) -> np.ndarray:
        out = _rows(g) * w
        mean = (out @ ones(C, out.dtype))[:, None] * (1 / C)
        out -= x_hat * (np.vecdot(out, x_hat)[:, None] * (1 / C))
        out -= mean
        out *= inv_std
        return out.reshape(shape)

    return record(
        y.reshape(shape),
        (x, dx),
        (weight, lambda g: np.einsum("nc,nc->c", _rows(g), x_hat)),
        (bias, lambda g: _column_sum(_rows(g))),
    )


def rms_norm(x: Tensor, weight: Tensor, eps: float = 1e-5) -> Tensor:
    """y = x̂ w with x̂ = x / rms(x) over the last axis (Zhang & Sennrich 2019).   x (..., C)

    dx = (Ĝ - x̂ mean(Ĝ x̂)) / rms, as in layer_norm but without the mean. dw = Σ G x̂.
    """
    require_norm("rms_norm", x, eps, weight)
    shape, w, C = x.shape, weight.data, x.shape[-1]
    x2 = _rows(x.data)
    inv_rms = inverse_rms(x2, eps)
    x_hat = x2 * inv_rms

    def dx(g: np.ndarray) -> np.ndarray:
        out = _rows(g) * w
        out -= x_hat * (np.vecdot(out, x_hat)[:, None] * (1 / C))
        out *= inv_rms
        return out.reshape(shape)

    return record(
        (x_hat * w).reshape(shape),
        (x, dx),
        (weight, lambda g: np.einsum("nc,nc->c", _rows(g), x_hat)),
    )


def gelu(x: Tensor) -> Tensor:
    """y = x σ with σ = (1 + tanh(a x + b x³)) / 2, GPT-2's GELU (Hendrycks & Gimpel 2016).

    dσ/dx = 2 σ (1 - σ) (a + 3 b x²), so dy/dx = σ + y (1 - σ) (2 a + 6 b x²). It is formed
    here, while x is in the cache, so that backward keeps one array and does one multiplication;
    and only if backward will want it.
    """
    require_tensors("gelu", x)
    X = x.data
    slope = np.asarray(X * X)  # x² until y is made, then dy/dx
    sigma = gelu_gate(X, slope)
    y = X * sigma
    if needs_grad(x):
        slope *= 6 * GELU_B
        slope += 2 * GELU_A
        slope *= y
        slope *= 1 - sigma
        slope += sigma
    return record(y, (x, lambda g: g * slope))


def silu(x: Tensor) -> Tensor:
    """y = x σ(x) with σ(x) = 1 / (1 + exp(-x)), Llama's activation.   dy/dx = σ + y (1 - σ)"""
    require_tensors("silu", x)
    sigma = silu_gate(x.data)
    y, slope = x.data * sigma, sigma
    if needs_grad(x):
        slope = y * (1 - sigma)
        slope += sigma
    return record(y, (x, lambda g: g * slope))


def softmax(x: Tensor, axis: int = -1) -> Tensor:
    """p = exp(x) / Σ exp(x) along an axis.   dx = p (G - Σ G p)

    The largest entry is subtracted first: the result is the same and exp cannot overflow.
    """
    require_tensors("softmax", x)
    if not x.size and not x.shape[axis]:
        raise UsageError(f"softmax: axis {axis} of a value of shape {x.shape} has no entries")
    p = np.exp(x.data - x.data.max(axis=axis, keepdims=True))
    p /= p.sum(axis=axis, keepdims=True)
    return record(p, (x, lambda g: p * (g - (g * p).sum(axis=axis, keepdims=True))))


def cross_entropy(logits: Tensor, targets: np.ndarray, ignore_index: int = -100) -> Tensor:
    """Mean of -log p[target] in nats.   logits (..., V), targets int (...) -> scalar

    dlogits = (p - onehot(target)) / n: probability moves from where the model put it to where it
    should be. Positions whose target is `ignore_index` count neither in the mean nor in n.
    Raises ValueError when no target counts, IndexError for a target outside the vocabulary.
    """
    targets = np.asarray(targets)
    require_targets(logits, targets, ignore_index)
    shape, V, target = logits.shape, logits.shape[-1], targets.ravel()  # (...) -> (N,)
    keep = np.flatnonzero(target != ignore_index)
    if not keep.size:
        raise UsageError(f"cross_entropy: every target is ignore_index ({ignore_index})")
    target = target[keep]  # (N,) -> (n,)
    if target.min() < 0 or target.max() >= V:
        raise IndexError(
            f"targets must lie in 0..{V - 1} or be {ignore_index}, "
            f"got {target.min()}..{target.max()}"
        )
    n, all_kept, rows = keep.size, keep.size == targets.size, np.arange(keep.size)
    z = _rows(logits.data) if all_kept else _rows(logits.data)[keep]  # (n, V)
    if not _exp_in_range(z):
        z = z - z.max(axis=1, keepdims=True)
    picked = z[rows, target]
    p = np.exp(z)  # until divided by its sum
    total = p @ ones(V, p.dtype)
    loss = np.asarray((np.log(total) - picked).mean())

    def dlogits(g: np.ndarray) -> np.ndarray:
        share = g / n
        dz = p * (share / total)[:, None]
        dz[rows, target] -= share
        if not all_kept:
            kept, dz = dz, np.zeros((math.prod(shape[:-1]), V), p.dtype)
            dz[keep] = kept
        return dz.reshape(shape)

    return record(loss, (logits, dlogits))


def dropout(x: Tensor, p: float, rng: np.random.Generator | None) -> Tensor:
    """Each entry becomes 0 with probability p, else is divided by 1 - p (Srivastava et al. 2014).

    Happens only when a generator is passed: training passes one, evaluation does not.
    """
    require_tensors("dropout", x)
    require_dropout(p, rng)
    if rng is None or p == 0:
        return x
    drawn = rng.random(x.shape, dtype=np.float32)  # drawing float64 would take longer
    mask = (drawn >= p).astype(x.dtype)
    mask *= 1 / (1 - float(p))
    return record(x.data * mask, (x, lambda g: g * mask))


def rope(
    x: Tensor,
    n_head: int,
    start: int = 0,
    theta: float = 10000.0,
    scaling: RopeScaling | None = None,
) -> Tensor:
    """Rotary positions (Su et al. 2021): rotate pairs of channels by an angle that grows with time.

    x (B, T, H*D) at positions start .. start+T-1. Pair i is (i, i + D/2) of each head, as in Llama,
    and turns by position · theta^(-2i/D), or less, by `scaling`. A rotation's transpose is the
    rotation back, so dx = G turned by the negative angle.
    """
    require_rope(x, n_head, start, theta)
    B, T, C = x.shape
    per_head = (B, T, n_head, C // n_head)
    cos, sin = rope_angles(start, T, C // n_head, theta, x.dtype, scaling)  # (T, 1, D/2) each

    def turn(values: np.ndarray, sin: np.ndarray) -> np.ndarray:
        return rotate(values.reshape(per_head), cos, sin).reshape(B, T, C)

    return record(turn(x.data, sin), (x, lambda g: turn(g, -sin)))


QUERIES = 64  # attention's block of queries: so many that their scores stay in the cache


def attention(q: Tensor, k: Tensor, v: Tensor, n_head: int, n_kv_head: int | None = None) -> Tensor:
    """Causal self-attention of all heads (Vaswani et al. 2017); read reference.attention first.

    q (B, T, H*D), k and v (B, S, J*D) with S >= T; the queries stand at the last T of the S places.
    Grouped heads (Ainslie et al. 2023): each of the J key/value heads serves H/J query heads.

    Forward: scores Z = Q Kᵀ / √D, -inf where a key is later than the query; E = exp(Z), its row
    sums l, P = E / l, O = P V. Computed as O = (E V) / l, which divides (T, D) entries, not (T, S).

    Backward, with Ĝ = G / l:
        dV = Pᵀ G = Eᵀ Ĝ
        dP = G Vᵀ
        dZ = P (dP - Σ P dP)    the gradient of softmax
           = E (Ĝ Vᵀ - Σ Ĝ O)   because the row sums Σ_s P dP and Σ_d G O are the same
        dQ = dZ K / √D,  dK = dZᵀ Q / √D

    All of it block by block of queries, each with the keys up to its last query: what lies beyond
    is never computed.
    """
    H, J = n_head, n_head if n_kv_head is None else n_kv_head
    require_attention(q, k, v, H, J)
    group, keys_shape, dtype = H // J, k.shape, q.dtype
    scale = 1 / math.sqrt(q.shape[2] // H)
    Q = _split_heads(q.data, J, group) * scale  # (B, T, H*D) -> (B, J, H/J, T, D)
    K = _split_heads(k.data, J, 1)  # (B, S, J*D) -> (B, J, 1, S, D)
    V = _split_heads(v.data, J, 1)
    out = np.empty(q.shape, dtype)
    O = _split_heads(out, J, group)  # a view: what fills O fills out
    starts = reversed(range(0, q.shape[1], QUERIES))  # last queries first: they see all keys
    blocks = [_attend(Q, K, V, O, start) for start in starts]

    @_once
    def score_gradients(g: np.ndarray) -> list[tuple[_Block, np.ndarray, np.ndarray]]:
        G = _split_heads(g, J, group)
        return [(block, *_score_gradient(block, G, V, O)) for block in blocks]

    def dq(g: np.ndarray) -> np.ndarray:
        out = np.empty(g.shape, dtype)
        for block, _, dZ in score_gradients(g):
            dQ = _split_heads(out, J, group)[..., block.t, :]
            np.matmul(dZ, K[..., block.s, :], out=dQ)  # (…, t, s) @ (…, s, D)
        out *= scale
        return out

    def sum_over_queries(products: Iterable[tuple[_Block, np.ndarray]]) -> np.ndarray:
        out = np.zeros(keys_shape, dtype)
        per_head = _split_heads(out, J, 1)  # (B, J, 1, S, D)
        for block, x in products:
            if group > 1:
                x = x.sum(axis=2, keepdims=True)  # (B, J, H/J, s, D) -> (B, J, 1, s, D)
            if block is blocks[0]:  # of all keys
                per_head[...] = x
            else:
                per_head[..., block.s, :] += x
        return out

    def dk(g: np.ndarray) -> np.ndarray:
        return sum_over_queries(
            (block, dZ.swapaxes(-1, -2) @ Q[..., block.t, :]) for block, _, dZ in score_gradients(g)
        )

    def dv(g: np.ndarray) -> np.ndarray:
        return sum_over_queries(
            (block, block.E.swapaxes(-1, -2) @ G) for block, G, _ in score_gradients(g)
        )

    return record(out, (q, dq), (k, dk), (v, dv))


class _Block(NamedTuple):
    """Some queries with the keys that they may see, and what backward needs of them."""

    t: slice  # the queries
    s: slice  # the keys
    E: np.ndarray  # exp(scores)  (B, J, H/J, t, s)
    inv_l: np.ndarray  # 1 / row sums of E  (B, J, H/J, t, 1)


def _split_heads(x: np.ndarray, J: int, group: int) -> np.ndarray:
    """(B, T, J*group*D) -> (B, J, group, T, D), as a view where x is contiguous."""
    B, T, C = x.shape
    return x.reshape(B, T, J, group, C // (J * group)).transpose(0, 2, 3, 1, 4)


def _attend(Q: np.ndarray, K: np.ndarray, V: np.ndarray, O: np.ndarray, start: int) -> _Block:
    """Fill O for the block of queries that begins at `start`."""
    T, S = Q.shape[-2], K.shape[-2]
    t = slice(start, min(start + QUERIES, T))
    s = slice(0, S - T + t.stop)
    E = Q[..., t, :] @ K[..., s, :].swapaxes(-1, -2)  # (…, t, D) @ (…, D, s) -> (…, t, s)
    in_range = _exp_in_range(E)
    if T > 1:
        E[..., S - T + start :] += _causal_mask(t.stop - start, E.dtype)  # (t, t)
    if not in_range:
        E -= E.max(axis=-1, keepdims=True)
    np.exp(E, out=E)
    inv_l = 1 / (E @ ones(s.stop, E.dtype))[..., None]  # (…, t, 1)
    np.matmul(E, V[..., s, :], out=O[..., t, :])  # (…, t, s) @ (…, s, D) -> (…, t, D)
    O[..., t, :] *= inv_l
    return _Block(t, s, E, inv_l)


def _score_gradient(
    block: _Block, G: np.ndarray, V: np.ndarray, O: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Ĝ = G / l (…, t, D) and dZ = E (Ĝ Vᵀ - Σ Ĝ O) (…, t, s) of one block."""
    t, s, E, inv_l = block
    G = G[..., t, :] * inv_l
    dZ = G @ V[..., s, :].swapaxes(-1, -2)  # (…, t, D) @ (…, D, s) -> (…, t, s)
    dZ -= np.vecdot(G, O[..., t, :])[..., None]  # (…, t, 1)
    dZ *= E
    return G, dZ


@lru_cache(maxsize=16)
def _causal_mask(T: int, dtype: np.dtype[Any]) -> np.ndarray:
    """0 where a query may look, -inf in its future.   (T, T)"""
    return np.triu(np.full((T, T), -np.inf, dtype), k=1)


def _exp_in_range(x: np.ndarray) -> bool:
    """Whether exp(x) neither overflows nor vanishes, summed or divided in float32.

    Then softmax need not subtract each row's maximum: finding it takes longer than the exp, where
    the two passes over all of x made here are quick.
    """
    return bool(x.size and x.max() < 60 and x.min() > -60)


def _rows(x: np.ndarray) -> np.ndarray:
    """(..., C) -> (N, C)"""
    if x.size:
        return x.reshape(-1, x.shape[-1])
    return x.reshape(math.prod(x.shape[:-1]), x.shape[-1])  # -1 cannot be told without entries


def _column_sum(g: np.ndarray) -> np.ndarray:
    """(N, C) -> (C,)"""
    return ones(len(g), g.dtype) @ g


def _once(compute: Callable[[np.ndarray], Any]) -> Callable[[np.ndarray], Any]:
    """What several vjps of one op need of the same G: computed for the first, kept for the rest."""
    kept: list[Any] = []

    def get(g: np.ndarray) -> Any:
        if not kept or kept[0] is not g:
            kept[:] = g, compute(g)
        return kept[1]

    return get
