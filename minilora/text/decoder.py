"""The transformer once more, for one new token per sequence, in plain NumPy.

Generation needs no graph: no Tensor, no vjp, no checks of shapes that cannot change. What remains
is a dozen lines of arithmetic per layer, which is a good second reading of transformer.py, and
faster. q, k and v are computed in one product, and adapters are added to their weights once.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from minilora.kernels import centred, gelu_gate, inverse_rms, rope_angles, rotate, silu_gate
from minilora.lora import LoraLinear
from minilora.nn import Embedding, LayerNorm, Linear, ModuleList, RMSNorm
from minilora.transformer import MLP, Attention, Block, KVCache, Transformer, TransformerConfig

Function = Callable[[np.ndarray], np.ndarray]


class Decoder:
    """`decoder(ids, cache)`: ids int (B,) -> logits (B, V) of what follows, given the cache.

    For a model that `is_plain`. Holds copies of weights: make a new one once the model changed.
    """

    def __init__(self, model: Transformer) -> None:
        c = model.config
        self.tok_embed = model.tok_embed.weight.data
        self.pos_embed = model.pos_embed.weight.data if c.positions == "learned" else None
        self.layers = [_layer(block, c) for block in model.layers]
        self.norm = _norm(model.norm)
        self.head = self.tok_embed.T if c.tie_embeddings else _weights(model.head)[0]

    def __call__(self, ids: np.ndarray, cache: list[KVCache]) -> np.ndarray:
        x = self.tok_embed[ids]  # (B,) -> (B, C)
        if self.pos_embed is not None:
            x = x + self.pos_embed[cache[0].length]
        for layer, past in zip(self.layers, cache, strict=True):
            x = layer(x, past)
        return self.norm(x) @ self.head


def is_plain(model: Transformer) -> bool:
    """Whether every part of the model is one that Decoder knows: no subclass, nothing added."""
    known = {Transformer, ModuleList, Embedding, LayerNorm, RMSNorm, Block, Attention, MLP}
    known |= {Linear, LoraLinear}
    return type(model) is Transformer and all(type(m) in known for _, m in model.named_modules())


def _weights(layer: Linear | LoraLinear) -> tuple[np.ndarray, np.ndarray | None]:
    """W (d_in, d_out), with the active adapter added, and b (d_out,)."""
    base = layer.base if isinstance(layer, LoraLinear) else layer
    W, b = base.weight.data, base.bias
    if isinstance(layer, LoraLinear) and layer.active and layer.unmerged_weight is None:
        W = W + layer.delta_weight(layer.active)
    return W, None if b is None else b.data


def _layer(block: Block, c: TransformerConfig) -> Callable[[np.ndarray, KVCache], np.ndarray]:
    H, J, D = c.n_head, c.kv_heads, c.head_size
    attn_norm, mlp_norm = _norm(block.attn_norm), _norm(block.mlp_norm)
    three = [_weights(proj) for proj in (block.attn.q_proj, block.attn.k_proj, block.attn.v_proj)]
    Wqkv = np.concatenate([W for W, _ in three], axis=1)  # (C, H*D + 2*J*D)
    bqkv = np.concatenate([b for _, b in three]) if c.bias else np.zeros(1, Wqkv.dtype)
    o_proj, up_proj, down_proj = (
        _linear(*_weights(m)) for m in (block.attn.o_proj, block.mlp.up_proj, block.mlp.down_proj)
    )
    gate_proj = _linear(*_weights(block.mlp.gate_proj)) if c.activation == "swiglu" else None
    scale = 1 / math.sqrt(D)

    def layer(x: np.ndarray, past: KVCache) -> np.ndarray:
        B, t = len(x), past.length
        qkv = attn_norm(x) @ Wqkv
        qkv += bqkv
        q = qkv[:, : H * D].reshape(B, J, H // J, D)
        k = qkv[:, H * D : (H + J) * D]
        if c.positions == "rope":
            angles = rope_angles(t, 1, D, c.rope_theta, x.dtype)
            q, k = rotate(q, *angles), rotate(k.reshape(B, J, D), *angles).reshape(B, J * D)
        K, V = past.append(k[:, None], qkv[:, None, (H + J) * D :])  # (B, 1, J*D) -> (B, S, J*D)
        K, V = (a.reshape(B, t + 1, J, D).swapaxes(1, 2) for a in (K, V))  # -> (B, J, S, D)
        P = q @ K.swapaxes(-1, -2)  # (B, J, H/J, D) @ (B, J, D, S) -> (B, J, H/J, S)
        P *= scale
        P -= P.max(axis=-1, keepdims=True)
        np.exp(P, out=P)
        P /= P.sum(axis=-1, keepdims=True)
        x = x + o_proj((P @ V).reshape(B, H * D))
        h = mlp_norm(x)
        up = up_proj(h)
        if gate_proj is None:
            hidden = gelu_gate(up)
        else:
            gate = gate_proj(h)
            hidden = silu_gate(gate)
            hidden *= gate
        hidden *= up
        x += down_proj(hidden)
        return x

    return layer


def _linear(W: np.ndarray, b: np.ndarray | None) -> Function:
    def linear(x: np.ndarray) -> np.ndarray:
        y = x @ W
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
