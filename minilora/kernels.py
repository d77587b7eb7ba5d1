"""Plain NumPy on plain arrays: the pieces of norms, activations and rotary positions, no gradients.

functional.py builds ops with gradients from them, generation/decoder.py generates with them alone:
one formula, one place. Constants are Python floats, because a NumPy float64 scalar would turn
float32 arrays into float64.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any

import numpy as np

from minilora.rope_scaling import RopeScaling

GELU_A = math.sqrt(2 / math.pi)
GELU_B = 0.044715 * GELU_A


@lru_cache(maxsize=64)
def ones(n: int, dtype: np.dtype[Any]) -> np.ndarray:
    """A read-only vector of ones (n,). `x @ ones` and `ones @ x` are sums over columns and rows by
    matrix product: BLAS adds faster than x.sum does."""
    vector = np.ones(n, dtype)
    vector.flags.writeable = False
    return vector


def centred(x: np.ndarray) -> np.ndarray:
    """Every row minus its mean.   (N, C) -> (N, C)"""
    C = x.shape[1]
    return x - (x @ ones(C, x.dtype))[:, None] * (1 / C)


def inverse_rms(x: np.ndarray, eps: float) -> np.ndarray:
    """1 / sqrt(mean(x²) + eps) of every row; `vecdot` forms no array x².   (N, C) -> (N, 1)"""
    mean_square = np.vecdot(x, x)[:, None] * (1 / x.shape[1])
    return 1 / np.sqrt(mean_square + float(eps))


def gelu_gate(x: np.ndarray, square: np.ndarray) -> np.ndarray:
    """σ = (1 + tanh(a x + b x³)) / 2, so that gelu(x) = x σ; a = √(2/π), b = 0.044715 a.

    square = x * x is passed in, because the derivative needs it too. x³ is multiplied out,
    x (a + b x²), because `**` is slow on float32; and most of it in place, because filling new
    memory takes longer than the arithmetic.
    """
    sigma = np.asarray(square * GELU_B)  # a 0-d product is a NumPy scalar, which out= refuses
    sigma += GELU_A
    sigma *= x
    return _half_of_one_plus_tanh(sigma)


def silu_gate(x: np.ndarray) -> np.ndarray:
    """σ = 1 / (1 + exp(-x)), so that silu(x) = x σ. Computed as (1 + tanh(x/2)) / 2, which is the
    same number, cannot overflow and is faster."""
    return _half_of_one_plus_tanh(np.asarray(x * 0.5))


def _half_of_one_plus_tanh(t: np.ndarray) -> np.ndarray:
    """(1 + tanh(t)) / 2, written over t."""
    np.tanh(t, out=t)
    t += 1
    t *= 0.5
    return t


def few_rows_times(x: np.ndarray, W: np.ndarray) -> np.ndarray:
    """x @ W for one token of each of B sequences, where W lies in memory as (d_out, d_in), as in
    tied heads and in Llama's files.   (B, d_in), (d_in, d_out) -> (B, d_out)

    OpenBLAS copies W before it multiplies, which many rows repay and few do not. Products of up to
    100³ multiplications it makes without: so W is cut into such pieces. For one row, dot products
    read W faster than a product of matrix and vector does.
    """
    (B, d_in), d_out = x.shape, W.shape[1]
    if B == 1:
        return np.vecdot(W.T, x)[None]
    if B * d_in * _PIECE > 100**3:
        return x @ W
    whole = d_out - d_out % _PIECE
    pieces = W.T[:whole].reshape(-1, _PIECE, d_in).swapaxes(1, 2)  # (n, d_in, 64)
    y = np.empty((B, d_out), x.dtype)
    y_pieces = y[:, :whole].reshape(B, -1, _PIECE).swapaxes(0, 1)  # (n, B, 64), a view
    np.matmul(x, pieces, out=y_pieces)
    np.matmul(x, W[:, whole:], out=y[:, whole:])
    return y


_PIECE = 64


@lru_cache(maxsize=8)
def rope_angles(
    start: int,
    T: int,
    D: int,
    theta: float,
    dtype: np.dtype[Any],
    scaling: RopeScaling | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """cos and sin, (T, 1, D/2) each, of position · theta^(-2i/D) at start .. start+T-1."""
    position = np.arange(start, start + T)[:, None, None]  # (T, 1, 1)
    frequencies = theta ** (-np.arange(0, D, 2) / D)  # (D/2,)
    angle = position * (scaling.scaled(frequencies) if scaling else frequencies)  # (T, 1, D/2)
    cos, sin = np.cos(angle).astype(dtype), np.sin(angle).astype(dtype)
    cos.flags.writeable = sin.flags.writeable = False
    return cos, sin


def rotate(x: np.ndarray, cos: np.ndarray, sin: np.ndarray) -> np.ndarray:
    """Turn every pair (i, i + D/2) of the last axis.   x (..., D), cos and sin (..., D/2)"""
    half = x.shape[-1] // 2
    first, second = x[..., :half], x[..., half:]
    out = np.empty_like(x)
    out[..., :half] = first * cos - second * sin
    out[..., half:] = second * cos + first * sin
    return out


def merging_pays(N: int, d_in: int, d_out: int) -> bool:
    """Whether lora_linear makes W + s A B. Its time is the same from about one number in x and y
    for each in W on; from two on, the memory is less than that of x and y, too."""
    return N * (d_in + d_out) >= 2 * d_in * d_out
