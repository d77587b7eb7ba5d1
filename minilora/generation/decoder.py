"""The transformer once more, for one new token and its KV cache, in plain NumPy.

Generation needs no graph: no Tensor, no vjp, no checks of shapes that cannot change. What remains
is a dozen lines of arithmetic per layer, which is a good second reading of transformer.py, and
faster. Large weights stay as they are, such as views of a file. In a small model, where most of the
time is that of calls and not of products, matrices that read the same input become one, adapters
are added to them, and the norms are folded into them: see `_folded`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

from minilora.kernels import (
    centred,
    few_rows_times,
    gelu_gate,
    inverse_rms,
    rope_angles,
    rotate,
    silu_gate,
)
from minilora.lora import LoraLinear, LowRank
from minilora.module import ModuleList
from minilora.nn import Embedding, LayerNorm, Linear, RMSNorm
from minilora.tensor import Tensor
from minilora.transformer import MLP, Attention, Block, KVCache, Transformer, TransformerConfig

Function = Callable[[np.ndarray], np.ndarray]
WithCache = Callable[[np.ndarray, KVCache], np.ndarray]
AnyLinear = Linear | LoraLinear
AnyNorm = LayerNorm | RMSNorm

_LARGE = 2**18  # a second copy of a weight of so many numbers costs more than it saves


class Decoder:
    """`decoder(ids, cache)`: ids int (B,) -> logits (B, V) of what follows, given the cache.

    For a model that `is_plain`. May hold copies of weights: make a new one once the model changed.
    """

    def __init__(self, model: Transformer) -> None:
        c = model.config
        small = all(p.size < _LARGE for p in model.parameters())
        added: Function = np.asarray  # what is done to weights whose results the stream takes up
        if small and c.norm == "layernorm":
            added = _without_mean  # see _folded
        self.tok_embed = added(model.tok_embed.weight.data)
        self.pos_embed = added(model.pos_embed.weight.data) if c.positions == "learned" else None

        def small_write(layer: AnyLinear) -> Function:
            W, b = _weights(layer)
            return _product(added(W), added(b), np.dot)

        read, write = (_folded, small_write) if small else (_in_turn, _linear)
        self.layers = [_layer(block, c, read, write) for block in model.layers]
        self.head = read(model.norm, [_tied_head(model) if c.tie_embeddings else model.head])

    def __call__(self, ids: np.ndarray, cache: list[KVCache]) -> np.ndarray:
        x = self.tok_embed[ids]  # (B,) -> (B, C)
        if self.pos_embed is not None:
            x += self.pos_embed[cache[0].length]
        for layer, past in zip(self.layers, cache, strict=True):
            layer(x, past)
        return self.head(x)


def is_plain(model: Transformer) -> bool:
    """Whether every part of the model is one that Decoder knows: no subclass, nothing added. Of
    an adapter, whatever its kind, it need know no more than delta()."""
    known = {Transformer, ModuleList, Embedding, LayerNorm, RMSNorm, Block, Attention, MLP}
    known |= {Linear, LoraLinear}
    return type(model) is Transformer and all(
        type(m) in known or isinstance(m, LowRank) for _, m in model.named_modules()
    )


def _layer(
    block: Block,
    c: TransformerConfig,
    read: Callable[[AnyNorm, Sequence[AnyLinear]], Function],
    write: Callable[[AnyLinear], Function],
) -> Callable[[np.ndarray, KVCache], None]:
    """A block of the model: what it reads from x (B, C), the stream, and adds to it in place."""
    attn, mlp, gated = block.attn, block.mlp, c.activation == "swiglu"
    qkv_proj = read(block.attn_norm, [attn.q_proj, attn.k_proj, attn.v_proj])
    attention, o_proj = _attention(c), write(attn.o_proj)
    up_proj = read(block.mlp_norm, [mlp.gate_proj, mlp.up_proj] if gated else [mlp.up_proj])
    activation, down_proj = _swiglu if gated else _gelu, write(mlp.down_proj)

    def layer(x: np.ndarray, cache: KVCache) -> None:
        x += o_proj(attention(qkv_proj(x), cache))  # (B, C) -> (B, H*D + 2*J*D) -> (B, H*D)
        x += down_proj(activation(up_proj(x)))

    return layer


def _attention(c: TransformerConfig) -> WithCache:
    H, J, D = c.n_head, c.kv_heads, c.head_size
    scale = 1 / math.sqrt(D)

    def attention(qkv: np.ndarray, cache: KVCache) -> np.ndarray:
        B, t = len(qkv), cache.length
        q = qkv[:, : H * D].reshape(B, J, H // J, D)
        k, v = qkv[:, H * D : (H + J) * D], qkv[:, (H + J) * D :]
        if c.positions == "rope":
            angles = rope_angles(t, 1, D, c.rope_theta, qkv.dtype, c.rope_scaling)
            q, k = rotate(q, *angles), rotate(k.reshape(B, J, D), *angles).reshape(B, J * D)
        K, V = cache.append(k[:, None], v[:, None])  # (B, 1, J*D) -> (B, S, J*D)
        K = K.reshape(B, t + 1, J, D).swapaxes(1, 2)  # (B, S, J*D) -> (B, J, S, D)
        V = V.reshape(B, t + 1, J, D).swapaxes(1, 2)  # (B, S, J*D) -> (B, J, S, D)
        Z = (K @ q.swapaxes(-1, -2)).swapaxes(-1, -2)  # (B, J, H/J, S), faster than q @ Kᵀ
        P = np.multiply(Z, scale, order="C")
        P -= np.maximum.reduce(P, axis=-1, keepdims=True)
        np.exp(P, out=P)
        P /= np.add.reduce(P, axis=-1, keepdims=True)
        return (P @ V).reshape(B, H * D)

    return attention


def _gelu(h: np.ndarray) -> np.ndarray:
    h *= gelu_gate(h, h * h)
    return h


def _swiglu(h: np.ndarray) -> np.ndarray:
    """(B, 2*hidden), the gate before what it gates -> (B, hidden)"""
    hidden = h.shape[1] // 2
    gate, up = h[:, :hidden], h[:, hidden:]
    gate *= silu_gate(gate)
    gate *= up
    return gate


def _folded(norm: AnyNorm, layers: Sequence[AnyLinear]) -> Function:
    """x (B, C) -> norm(x) W + b of Linears side by side, with the norm folded into W and b:

        (x / rms(x) · w + β) W + b = (x (√C w W)) / √(x·x + C eps) + (β W + b)

    LayerNorm also subtracts the mean of x, which is 0 here: whatever is added to the stream was
    made `_without_mean` (Ashkboos et al. 2024, SliceGPT, section 3.2).
    """
    weights, biases = zip(*map(_weights, layers), strict=True)
    W, C = np.concatenate(weights, axis=1), norm.weight.size
    b = np.concatenate(biases)
    if isinstance(norm, LayerNorm):
        b += norm.bias.data @ W
    W *= norm.weight.data[:, None] * math.sqrt(C)
    eps = C * norm.eps

    def normed_linear(x: np.ndarray) -> np.ndarray:
        y = x.dot(W)  # (B, C) @ (C, d_out), with fewer calls on the way than x @ W
        y /= np.sqrt(np.vecdot(x, x) + eps)[:, None]
        y += b
        return y

    return normed_linear


def _in_turn(norm: AnyNorm, layers: Sequence[AnyLinear]) -> Function:
    """The same step by step, with weights as they are."""
    w, eps = norm.weight.data, norm.eps
    bias = norm.bias.data if isinstance(norm, LayerNorm) else None
    linears = [_linear(layer) for layer in layers]

    def normed_linear(x: np.ndarray) -> np.ndarray:
        if bias is not None:
            x = centred(x)
        x = x * inverse_rms(x, eps)
        x *= w
        if bias is not None:
            x += bias
        parts = [linear(x) for linear in linears]
        return parts[0] if len(parts) == 1 else np.concatenate(parts, axis=1)

    return normed_linear


def _without_mean(a: np.ndarray) -> np.ndarray:
    """(..., C), each row minus its mean."""
    return centred(a.reshape(-1, a.shape[-1])).reshape(a.shape)


def _linear(layer: AnyLinear) -> Function:
    """x -> x W + b with W as it is; and with the adapter beside it, where W is large."""
    base, adapter = _base(layer), _active(layer)
    if type(adapter) is LowRank and base.weight.size >= _LARGE:
        frozen, A, B = _linear(base), adapter.A.data, adapter.s * adapter.B.data
        return lambda x: frozen(x) + (x @ A) @ B
    W, b = _weights(layer)
    return _product(W, b, few_rows_times if W.T.flags.c_contiguous else np.dot)


def _product(W: np.ndarray, b: np.ndarray, times: Callable[..., np.ndarray]) -> Function:
    adds = b.any()

    def linear(x: np.ndarray) -> np.ndarray:
        y = times(x, W)
        if adds:
            y += b
        return y

    return linear


def _weights(layer: AnyLinear) -> tuple[np.ndarray, np.ndarray]:
    """W (d_in, d_out), with the active adapter added, and b (d_out,)."""
    base, adapter = _base(layer), _active(layer)
    W = base.weight.data
    if adapter:
        W = W + adapter.delta(W)
    return W, np.zeros(W.shape[1], W.dtype) if base.bias is None else base.bias.data


def _base(layer: AnyLinear) -> Linear:
    return layer.base if isinstance(layer, LoraLinear) else layer


def _active(layer: AnyLinear) -> LowRank | None:
    """The adapter that is in use and not merged, if there is one."""
    if isinstance(layer, LoraLinear) and layer.active and layer.unmerged_weight is None:
        return layer.adapters[layer.active]
    return None


def _tied_head(model: Transformer) -> Linear:
    head = Linear.__new__(Linear)
    vars(head).update(weight=Tensor(model.tok_embed.weight.data.T), bias=None)
    return head
