"""What the fused ops of functional.py require of the shapes and numbers they are given.

NumPy would broadcast many a wrong shape into a wrong number, and name sizes nobody typed for the
others. Each `require_...` returns nothing, or raises one sentence that says what was given and what
was wanted: UsageError (a ValueError) for sizes and values, TypeError for what is no Tensor,
IndexError for an id outside its table.
"""

from __future__ import annotations

import math
import numbers
from typing import Any

import numpy as np

from minilora.system.checks import require_positive, require_rng, require_whole
from minilora.system.errors import UsageError
from minilora.tensor import Tensor, needs_grad


def require_tensors(op: str, *values: Any) -> None:
    for value in values:
        if not isinstance(value, Tensor):
            raise TypeError(
                f"{op} computes with Tensors, got {type(value).__name__}; write Tensor(x)"
            )


def require_linear(op: str, x: Any, weight: Any, bias: Any) -> None:
    require_tensors(op, x, weight)
    W = weight
    if W.ndim != 2 or not x.ndim:
        raise UsageError(f"{op}: x must be (..., d_in), got {x.shape}, W (d_in, d_out), {W.shape}")
    if x.shape[-1] != W.shape[0]:
        raise UsageError(f"{op}: x has {x.shape[-1]} features, the weight {W.shape} takes {len(W)}")
    if bias is not None:
        require_tensors(op, bias)
        if bias.shape != W.shape[1:]:
            raise UsageError(
                f"{op}: the weight {W.shape} needs a bias {W.shape[1:]}, got {bias.shape}"
            )


def require_factors(x: Tensor, weight: Tensor, A: Any, B: Any, scale: Any) -> None:
    require_tensors("lora_linear", A, B)
    (d_in, d_out), a, b = weight.shape, A.shape, B.shape
    if len(a) != 2 or len(b) != 2 or (a[0], b[1]) != (d_in, d_out) or a[1] != b[0]:
        raise UsageError(
            f"lora_linear: A {a} and B {b} do not fit the weight: "
            f"they must be ({d_in}, r) and (r, {d_out})"
        )
    if not _is_number(scale) or not math.isfinite(scale):
        raise UsageError(f"lora_linear: scale must be a finite number, got {scale!r}")
    if weight.dtype != x.dtype:  # record() sees only what gets a gradient
        raise TypeError(
            f"lora_linear: operands mix {weight.dtype} and {x.dtype}; "
            "convert one of them, for example with model.to(np.float32)"
        )
    if needs_grad(weight):
        raise UsageError(
            "lora_linear gives its weight no gradient: freeze it "
            "(weight.requires_grad = False), or compute linear(x, weight, bias) + x @ A @ B * scale"
        )


def require_norm(op: str, x: Any, eps: Any, *vectors: Any) -> None:
    require_tensors(op, x, *vectors)
    require_positive(eps=eps)
    C = x.shape[-1:]
    if C in ((), (0,)) or any(vector.shape != C for vector in vectors):
        names = "weight and bias" if len(vectors) == 2 else "weight"
        given = ", ".join(str(t.shape) for t in (x, *vectors))
        raise UsageError(f"{op}: x must be (..., C) with C >= 1, {names} (C,), got {given}")


def require_dropout(p: Any, rng: Any) -> None:
    if not _is_number(p) or not 0 <= p < 1:
        raise UsageError(f"dropout: p is the share of entries to drop, in [0, 1), got {p!r}")
    if rng is not None:
        require_rng(rng)


def require_ids(weight: Any, ids: np.ndarray) -> None:
    require_tensors("embedding", weight)
    if weight.ndim != 2 or ids.dtype.kind not in "iu":
        raise UsageError(
            "embedding looks up integers in a table (V, C), "
            f"got {ids.dtype} and a table of {weight.shape}"
        )
    V = len(weight.data)
    if ids.size and (ids.min() < 0 or ids.max() >= V):
        raise IndexError(
            f"token ids must lie in 0..{V - 1}, got {ids.min()}..{ids.max()}; "
            "was the text encoded with this model's tokenizer?"
        )


def require_targets(logits: Any, targets: np.ndarray, ignore_index: Any) -> None:
    require_tensors("cross_entropy", logits)
    if not isinstance(ignore_index, numbers.Integral) or isinstance(ignore_index, bool):
        raise UsageError(f"ignore_index must be a whole number, got {ignore_index!r}")
    shape = logits.shape
    if not shape:
        raise UsageError("cross_entropy: logits must be (..., V), got a single number")
    if targets.shape != shape[:-1]:
        hint = "; for one-hot rows pass targets.argmax(-1)" if targets.shape == shape else ""
        raise UsageError(
            f"cross_entropy: targets {targets.shape} do not match logits {shape}: "
            f"they must be class numbers of shape {shape[:-1]}{hint}"
        )
    if not targets.size:
        raise UsageError("cross_entropy: the batch is empty, so there is no target to average over")
    if targets.dtype.kind not in "iu":
        raise UsageError(f"cross_entropy: targets must be integers, got {targets.dtype}")


def require_rope(x: Any, n_head: Any, start: Any, theta: Any) -> None:
    require_tensors("rope", x)
    require_whole(1, n_head=n_head)
    require_whole(0, start=start)
    require_positive(theta=theta)
    if x.ndim != 3 or x.shape[2] % (2 * n_head):
        raise UsageError(
            f"rope turns pairs: x must be (B, T, H*D) with D even, got {x.shape} and {n_head} heads"
        )


def require_attention(q: Any, k: Any, v: Any, H: Any, J: Any) -> None:
    require_tensors("attention", q, k, v)
    require_whole(1, n_head=H, n_kv_head=J)
    if H % J:
        raise UsageError(f"attention: n_kv_head={J} must divide n_head={H}")
    if q.ndim != 3 or k.ndim != 3 or k.shape != v.shape or k.shape[0] != q.shape[0]:
        raise UsageError(
            "attention: q must be (B, T, H*D), k and v both (B, S, J*D), "
            f"got {q.shape}, {k.shape}, {v.shape}"
        )
    (_, T, C), (_, S, width) = q.shape, k.shape
    if C % H or not C or width * H != C * J:
        raise UsageError(
            f"attention: q of {C} channels in {H} heads does not fit k of {width} in {J}; "
            "all heads must have the same size"
        )
    if T > S:
        raise UsageError(f"attention: {T} queries stand at the last places of only {S} keys")


def _is_number(value: Any) -> bool:
    return isinstance(value, numbers.Real) and not isinstance(value, bool)
