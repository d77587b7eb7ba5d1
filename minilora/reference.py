"""What functional.py computes, as a textbook writes it: to read first, and for tests to compare.

No gradient is derived here: every line is an op whose derivative stands in ops.py, and the engine
multiplies them. A model uses functional.py, which holds functions of the same names as one op each,
faster and safe against overflow; the tests check that both agree in value and gradient.

Letters: B batch, T time (S where keys outnumber queries), C channels, H heads, J heads of keys and
values, D head size, V vocabulary, N rows, r rank.
"""

from __future__ import annotations

import math

import numpy as np

from minilora import ops
from minilora.rope_scaling import RopeScaling
from minilora.tensor import Tensor


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """y = x W + b.   x (..., d_in), weight (d_in, d_out), bias (d_out,) -> (..., d_out)"""
    y = x @ weight  # (..., d_in) @ (d_in, d_out) -> (..., d_out)
    return y if bias is None else y + bias


def lora_linear(
    x: Tensor, weight: Tensor, bias: Tensor | None, A: Tensor, B: Tensor, scale: float
) -> Tensor:
    """y = x W + s (x A) B + b (Hu et al. 2021, eq. 3).   A (d_in, r), B (r, d_out)"""
    thin = x @ A  # (..., d_in) @ (d_in, r) -> (..., r)
    return linear(x, weight, bias) + thin @ B * scale  # (..., r) @ (r, d_out) -> (..., d_out)


def embedding(weight: Tensor, ids: np.ndarray) -> Tensor:
    """Row number id of a table.   weight (V, C), ids int (...) -> (..., C)"""
    return weight[ids]


def layer_norm(x: Tensor, weight: Tensor, bias: Tensor, eps: float = 1e-5) -> Tensor:
    """(x - mean) / sqrt(variance + eps) * w + b over the last axis (Ba et al. 2016).   (..., C)"""
    centred = x - x.mean(axis=-1, keepdims=True)  # (..., C) - (..., 1)
    variance = (centred * centred).mean(axis=-1, keepdims=True)  # (..., 1)
    return centred / ops.sqrt(variance + eps) * weight + bias


def rms_norm(x: Tensor, weight: Tensor, eps: float = 1e-5) -> Tensor:
    """x / sqrt(mean(x²) + eps) * w over the last axis (Zhang & Sennrich 2019).   (..., C)"""
    mean_square = (x * x).mean(axis=-1, keepdims=True)  # (..., 1)
    return x / ops.sqrt(mean_square + eps) * weight


def gelu(x: Tensor) -> Tensor:
    """x (1 + tanh(√(2/π) (x + 0.044715 x³))) / 2, GPT-2's GELU (Hendrycks & Gimpel 2016)."""
    return x * 0.5 * (1 + ops.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


def silu(x: Tensor) -> Tensor:
    """x / (1 + exp(-x)), Llama's activation."""
    return x / (1 + ops.exp(-x))


def softmax(x: Tensor, axis: int = -1) -> Tensor:
    """exp(x) / Σ exp(x) along an axis. Overflows where x exceeds 88 in float32."""
    e = ops.exp(x)
    return e / e.sum(axis=axis, keepdims=True)


def log_softmax(x: Tensor, axis: int = -1) -> Tensor:
    """log softmax(x) = x - log Σ exp(x) along an axis."""
    return x - ops.log(ops.exp(x).sum(axis=axis, keepdims=True))


def cross_entropy(logits: Tensor, targets: np.ndarray, ignore_index: int = -100) -> Tensor:
    """Mean of -log p[target] in nats.   logits (..., V), targets int (...) -> scalar"""
    log_p = log_softmax(logits.reshape(-1, logits.shape[-1]))  # (..., V) -> (N, V)
    target = np.ravel(targets)  # (...) -> (N,)
    rows = np.flatnonzero(target != ignore_index)  # those that count
    return -log_p[rows, target[rows]].mean()


def dropout(x: Tensor, p: float, rng: np.random.Generator | None) -> Tensor:
    """Each entry becomes 0 with probability p, else x / (1 - p) (Srivastava et al. 2014)."""
    if rng is None:
        return x
    kept = rng.random(x.shape, dtype=np.float32) >= p
    return ops.where(kept, x / (1 - p), 0.0)


def rope(
    x: Tensor, n_head: int, start: int = 0, theta: float = 10000.0,
    scaling: RopeScaling | None = None,
) -> Tensor:  # fmt: skip
    """Rotary positions (Su et al. 2021): pair i of each head, (i, i + D/2), turns by the angle
    position · theta^(-2i/D), or a slower one by `scaling`.
    x (B, T, H*D) at positions start .. start+T-1 -> (B, T, H*D)"""
    B, T, C = x.shape
    half = C // n_head // 2
    pairs = x.reshape(B, T, n_head, 2, half)  # (B, T, H*D) -> (B, T, H, 2, D/2)
    first, second = pairs[:, :, :, 0], pairs[:, :, :, 1]  # (B, T, H, D/2) each
    position = np.arange(start, start + T)[:, None, None]  # (T, 1, 1)
    frequencies = theta ** (-np.arange(half) / half)  # (D/2,)
    angle = position * (scaling.scaled(frequencies) if scaling else frequencies)  # (T, 1, D/2)
    cos, sin = np.cos(angle), np.sin(angle)
    turned = [first * cos - second * sin, first * sin + second * cos]
    return ops.concatenate(turned, axis=-1).reshape(B, T, C)  # (B, T, H, D) -> (B, T, H*D)


def attention(q: Tensor, k: Tensor, v: Tensor, n_head: int, n_kv_head: int | None = None) -> Tensor:
    """softmax(Q Kᵀ / √D) V in every head, where no query sees a later place (Vaswani et al. 2017).

    q (B, T, H*D), k and v (B, S, J*D) -> (B, T, H*D). The queries stand at the last T of S places;
    each head of keys and values serves H/J heads of queries (Ainslie et al. 2023).
    """
    H, J = n_head, n_head if n_kv_head is None else n_kv_head
    (B, T, C), S = q.shape, k.shape[1]
    D = C // H
    q = q.reshape(B, T, H, D).swapaxes(1, 2)  # (B, T, H*D) -> (B, H, T, D)
    k = k.reshape(B, S, J, D).swapaxes(1, 2)  # (B, S, J*D) -> (B, J, S, D)
    v = v.reshape(B, S, J, D).swapaxes(1, 2)  # (B, S, J*D) -> (B, J, S, D)
    served_by = np.arange(H) // (H // J)  # (H,)
    k, v = k[:, served_by], v[:, served_by]  # (B, J, S, D) -> (B, H, S, D)
    scores = q @ k.swapaxes(2, 3) / math.sqrt(D)  # (B, H, T, D) @ (B, H, D, S) -> (B, H, T, S)
    may_look = np.arange(S - T, S)[:, None] >= np.arange(S)  # (T, 1) >= (S,) -> (T, S)
    p = softmax(ops.where(may_look, scores, -np.inf))  # (B, H, T, S)
    out = p @ v  # (B, H, T, S) @ (B, H, S, D) -> (B, H, T, D)
    return out.swapaxes(1, 2).reshape(B, T, C)  # (B, H, T, D) -> (B, T, H*D)
