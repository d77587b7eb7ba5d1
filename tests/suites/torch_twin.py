"""The engine's operations in PyTorch, under our names: a random graph's source runs with either.

Written from the formulas of papers and with PyTorch's own functions; what has an index or a target
is told them as NumPy arrays.
"""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch.nn import functional as T

torch.set_num_threads(1)  # for arrays this small, threads only wait for each other


def array(numbers: Any) -> torch.Tensor:
    return torch.tensor(np.array(numbers, np.float64))


def _axes(x: torch.Tensor, axis: Any) -> tuple[int, ...]:
    if axis is None:
        return tuple(range(x.ndim))
    return axis if isinstance(axis, tuple) else (axis,)


def tensor_sum(x: torch.Tensor, axis: Any = None, keepdims: bool = False) -> torch.Tensor:
    axes = _axes(x, axis)
    return x.sum(axes, keepdim=keepdims) if axes else x * 1


def mean(x: torch.Tensor, axis: Any = None, keepdims: bool = False) -> torch.Tensor:
    axes = _axes(x, axis)
    return x.mean(axes, keepdim=keepdims) if axes else x * 1


def tensor_max(x: torch.Tensor, axis: Any = None, keepdims: bool = False) -> torch.Tensor:
    axes = _axes(x, axis)
    return torch.amax(x, axes, keepdim=keepdims) if axes else x * 1


def getitem(x: torch.Tensor, index: Any) -> torch.Tensor:
    """By NumPy's rules: PyTorch knows no step backwards."""
    places = np.arange(x.numel()).reshape(tuple(x.shape))[index]
    return torch.take(x.reshape(-1), torch.tensor(places.copy()))


def where(condition: np.ndarray, a: Any, b: Any) -> torch.Tensor:
    a, b = (x if isinstance(x, torch.Tensor) else array(x) for x in (a, b))
    return torch.where(torch.tensor(condition), a, b)


def power(x: torch.Tensor, exponent: float) -> torch.Tensor:
    return x**exponent


def linear(x: torch.Tensor, W: torch.Tensor, b: torch.Tensor | None = None) -> torch.Tensor:
    y = x @ W
    return y if b is None else y + b


def lora_linear(x: Any, W: Any, b: Any, A: Any, B: Any, scale: float) -> torch.Tensor:
    return linear(x, W + scale * (A @ B), b)


def embedding(W: torch.Tensor, ids: np.ndarray) -> torch.Tensor:
    return T.embedding(torch.tensor(ids), W)


def layer_norm(x: Any, w: Any, b: Any, eps: float) -> torch.Tensor:
    return T.layer_norm(x, x.shape[-1:], w, b, eps)


def rms_norm(x: Any, w: Any, eps: float) -> torch.Tensor:
    return T.rms_norm(x, x.shape[-1:], w, eps)


def gelu(x: torch.Tensor) -> torch.Tensor:
    return T.gelu(x, approximate="tanh")


def softmax(x: torch.Tensor, axis: int) -> torch.Tensor:
    return T.softmax(x, axis)


def cross_entropy(logits: torch.Tensor, targets: np.ndarray) -> torch.Tensor:
    return T.cross_entropy(logits.reshape(-1, logits.shape[-1]), torch.tensor(targets.ravel()))


def dropout(x: torch.Tensor, p: float, rng: np.random.Generator) -> torch.Tensor:
    kept = rng.random(tuple(x.shape), dtype=np.float32) >= p
    return x * torch.tensor(kept) / (1 - p)


def rope(x: torch.Tensor, n_head: int, start: int, theta: float) -> torch.Tensor:
    """Channel i and channel i + D/2 of a head are a complex number, which is turned."""
    B, length, C = x.shape
    half = C // n_head // 2
    rate = theta ** (-torch.arange(half, dtype=torch.float64) / half)
    angle = (start + torch.arange(length, dtype=torch.float64))[:, None, None] * rate
    first, second = x.reshape(B, length, n_head, 2, half).unbind(3)
    turned = torch.complex(first, second) * torch.polar(torch.ones_like(angle), angle)
    return torch.cat([turned.real, turned.imag], dim=-1).reshape(B, length, C)


def attention(q: Any, k: Any, v: Any, H: int, J: int) -> torch.Tensor:
    (B, length, C), S = q.shape, k.shape[1]
    q = q.reshape(B, length, H, C // H).transpose(1, 2)
    k, v = (t.reshape(B, S, J, C // H).transpose(1, 2) for t in (k, v))
    k, v = (t.repeat_interleave(H // J, dim=1) for t in (k, v))
    scores = q @ k.transpose(2, 3) / math.sqrt(C // H)
    future = torch.ones(length, S, dtype=torch.bool).triu(S - length + 1)
    y = scores.masked_fill(future, -math.inf).softmax(-1) @ v
    return y.transpose(1, 2).reshape(B, length, C)


OPS = SimpleNamespace(
    add=lambda a, b: a + b,
    sub=lambda a, b: a - b,
    mul=lambda a, b: a * b,
    div=lambda a, b: a / b,
    neg=torch.neg,
    power=power,
    matmul=torch.matmul,
    exp=torch.exp,
    log=torch.log,
    sqrt=torch.sqrt,
    tanh=torch.tanh,
    tensor_sum=tensor_sum,
    mean=mean,
    tensor_max=tensor_max,
    reshape=lambda x, shape: x.reshape(shape),
    swapaxes=torch.swapaxes,
    getitem=getitem,
    concatenate=torch.cat,
    where=where,
)
F = SimpleNamespace(
    linear=linear,
    lora_linear=lora_linear,
    embedding=embedding,
    layer_norm=layer_norm,
    rms_norm=rms_norm,
    gelu=gelu,
    silu=T.silu,
    softmax=softmax,
    cross_entropy=cross_entropy,
    dropout=dropout,
    rope=rope,
    attention=attention,
)
TORCH = {"np": np, "ops": OPS, "F": F, "no_grad": torch.no_grad, "array": array}


def leaves(arrays: list[np.ndarray], trained: list[bool]) -> list[torch.Tensor]:
    return [
        torch.tensor(np.array(x, order="C")).requires_grad_(train)
        for x, train in zip(arrays, trained, strict=True)
    ]
