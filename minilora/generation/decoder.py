"""The transformer once more, for one new token and its KV cache, in plain NumPy.

Generation needs no graph: no Tensor, no vjp, no checks of shapes that cannot change. What remains
is a dozen lines of arithmetic per layer, which is a good second reading of transformer.py, and
faster. In small models q, k and v are computed in one product, and adapters are added to their
weights once; large weights stay as they are, such as views of a file.
"""

from __future__ import annotations

import math
from collections.abc import Callable

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
from minilora.transformer import MLP, Attention, Block, KVCache, Transformer, TransformerConfig

Function = Callable[[np.ndarray], np.ndarray]
WithCache = Callable[[np.ndarray, KVCache], np.ndarray]


class Decoder:
    """`decoder(ids, cache)`: ids int (B,) -> logits (B, V) of what follows, given the cache.

    For a model that `is_plain`. May hold copies of weights: make a new one once the model changed.
    """

    def __init__(self, model: Transformer) -> None:
        c = model.config
        self.tok_embed = model.tok_embed.weight.data
        self.pos_embed = model.pos_embed.weight.data if c.positions == "learned" else None
        self.layers = [_layer(block, c) for block in model.layers]
        self.norm = _norm(model.norm)
        tied = c.tie_embeddings
        self.head = _product(self.tok_embed.T, None) if tied else _linear(model.head)

    def __call__(self, ids: np.ndarray, cache: list[KVCache]) -> np.ndarray:
        x = self.tok_embed[ids]  # (B,) -> (B, C)
        if self.pos_embed is not None:
            x = x + self.pos_embed[cache[0].length]
        for layer, past in zip(self.layers, cache, strict=True):
            x = layer(x, past)
        return self.head(self.norm(x))


def is_plain(model: Transformer) -> bool:
    """Whether every part of the model is one that Decoder knows: no subclass, nothing added. Of
    an adapter, whatever its kind, it need know no more than delta()."""
    known = {Transformer, ModuleList, Embedding, LayerNorm, RMSNorm, Block, Attention, MLP}
    known |= {Linear, LoraLinear}
    return type(model) is Transformer and all(
        type(m) in known or isinstance(m, LowRank) for _, m in model.named_modules()
    )


def _active(layer: Linear | LoraLinear) -> LowRank | None:
    """The adapter that is in use and not merged, if there is one."""
    if isinstance(layer, LoraLinear) and layer.active and layer.unmerged_weight is None:
        return layer.adapters[layer.active]
    return None


def _weights(layer: Linear | LoraLinear) -> tuple[np.ndarray, np.ndarray | None]:
    """W (d_in, d_out), with the active adapter added, and b (d_out,)."""
    base = layer.base if isinstance(layer, LoraLinear) else layer
    W, b, adapter = base.weight.data, base.bias, _active(layer)
    if adapter:
        W = W + adapter.delta(W)
    return W, None if b is None else b.data


def _layer(block: Block, c: TransformerConfig) -> WithCache:
    attn_norm, attention = _norm(block.attn_norm), _attention(block.attn, c)
    mlp_norm, mlp = _norm(block.mlp_norm), _mlp(block.mlp, c)

    def layer(x: np.ndarray, cache: KVCache) -> np.ndarray:
        x = x + attention(attn_norm(x), cache)  # (B, C)
        x += mlp(mlp_norm(x))
        return x

    return layer


def _attention(
    attn: Attention, c: TransformerConfig
) -> Callable[[np.ndarray, KVCache], np.ndarray]:
    H, J, D = c.n_head, c.kv_heads, c.head_size
    qkv_proj = _side_by_side(attn.q_proj, attn.k_proj, attn.v_proj)
    o_proj, scale = _linear(attn.o_proj), 1 / math.sqrt(D)

    def attention(x: np.ndarray, cache: KVCache) -> np.ndarray:
        B, t = len(x), cache.length
        qkv = qkv_proj(x)  # (B, C) -> (B, H*D + 2*J*D)
        q = qkv[:, : H * D].reshape(B, J, H // J, D)
        k, v = qkv[:, H * D : (H + J) * D], qkv[:, (H + J) * D :]
        if c.positions == "rope":
            angles = rope_angles(t, 1, D, c.rope_theta, x.dtype, c.rope_scaling)
            q, k = rotate(q, *angles), rotate(k.reshape(B, J, D), *angles).reshape(B, J * D)
        K, V = cache.append(k[:, None], v[:, None])  # (B, 1, J*D) -> (B, S, J*D)
        K = K.reshape(B, t + 1, J, D).swapaxes(1, 2)  # (B, S, J*D) -> (B, J, S, D)
        V = V.reshape(B, t + 1, J, D).swapaxes(1, 2)  # (B, S, J*D) -> (B, J, S, D)
        Z = (K @ q.swapaxes(-1, -2)).swapaxes(-1, -2)  # (B, J, H/J, S), faster than q @ Kᵀ
        P = np.multiply(Z, scale, order="C")
        P -= P.max(axis=-1, keepdims=True)
        np.exp(P, out=P)
        P /= P.sum(axis=-1, keepdims=True)
        return o_proj((P @ V).reshape(B, H * D))

    return attention


def _mlp(mlp: MLP, c: TransformerConfig) -> Function:
    up_proj, down_proj = _linear(mlp.up_proj), _linear(mlp.down_proj)

    def gelu_mlp(x: np.ndarray) -> np.ndarray:
        h = up_proj(x)
        h *= gelu_gate(h, h * h)
        return down_proj(h)

    if c.activation == "gelu":
        return gelu_mlp
    gate_proj = _linear(mlp.gate_proj)

    def gated_mlp(x: np.ndarray) -> np.ndarray:
        h = gate_proj(x)
        h *= silu_gate(h)
        h *= up_proj(x)
        return down_proj(h)

    return gated_mlp


def _linear(layer: Linear | LoraLinear) -> Function:
    adapter = _active(layer)
    if isinstance(layer, LoraLinear) and type(adapter) is LowRank and _is_large(layer.base):
        base, A, B = _linear(layer.base), adapter.A.data, adapter.s * adapter.B.data
        return lambda x: base(x) + (x @ A) @ B
    return _product(*_weights(layer))


def _is_large(layer: Linear | LoraLinear) -> bool:
    """Whether a second W of this layer would cost more in memory than it saves in calls."""
    base = layer.base if isinstance(layer, LoraLinear) else layer
    return base.weight.size >= 2**18


def _side_by_side(*layers: Linear | LoraLinear) -> Function:
    """x -> the results of several Linears in one array. Small ones become one, to save calls."""
    if any(map(_is_large, layers)):
        functions = [_linear(layer) for layer in layers]
        return lambda x: np.concatenate([function(x) for function in functions], axis=1)
    weights, biases = zip(*map(_weights, layers), strict=True)
    b = None if biases[0] is None else np.concatenate(biases)
    return _product(np.concatenate(weights, axis=1), b)


def _product(W: np.ndarray, b: np.ndarray | None) -> Function:
    times = few_rows_times if W.T.flags.c_contiguous else np.matmul

    def linear(x: np.ndarray) -> np.ndarray:
        y: np.ndarray = times(x, W)
        if b is not None:
            y += b
        return y

    return linear


def _norm(module: LayerNorm | RMSNorm) -> Function:
    w, eps = module.weight.data, module.eps
    b = module.bias.data if isinstance(module, LayerNorm) else None

    def norm(x: np.ndarray) -> np.ndarray:
        if b is not None:
            x = centred(x)
        y = x * inverse_rms(x, eps)
        y *= w
        if b is not None:
            y += b
        return y

    return norm
