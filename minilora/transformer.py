"""A decoder-only transformer that is GPT-2 or Llama by five switches.

ids (B, T) -> embedding (B, T, C) -> n_layer blocks -> norm -> logits (B, T, V). Each block
adds two things to the stream: what attention gathers from earlier positions, and what an MLP
makes of each position alone. q, k and v are separate Linears, so that LoRA has clear targets.
Sources: Radford et al. 2019 (GPT-2), Touvron et al. 2023 (Llama).
"""

from __future__ import annotations

import math

import numpy as np

from minilora import functional as F
from minilora.kv_cache import KVCache
from minilora.module import ModuleList
from minilora.nn import Embedding, LayerNorm, Linear, Module, RMSNorm, Rng
from minilora.system.errors import UsageError
from minilora.tensor import Tensor
from minilora.transformer_config import TransformerConfig


def _std(d_in: int) -> float:
    """How large weights start: in proportion to 1/sqrt(d_in), so that x W is equally large at
    any width (LeCun et al. 1998). At d_in = 1225 it is the 0.02 of GPT-2, 768 to 1600 wide."""
    return 0.7 / math.sqrt(d_in)


class Attention(Module):
    def __init__(self, c: TransformerConfig, rng: Rng) -> None:
        C, std, bias = c.n_embd, _std(c.n_embd), c.has_bias
        wide, width = c.n_head * c.head_size, c.kv_heads * c.head_size
        self.config = c
        self.q_proj = Linear(C, wide, bias("q_proj"), rng=rng, std=std)
        self.k_proj = Linear(C, width, bias("k_proj"), rng=rng, std=std)
        self.v_proj = Linear(C, width, bias("v_proj"), rng=rng, std=std)
        o_std = std / math.sqrt(2 * c.n_layer)
        self.o_proj = Linear(wide, C, bias("o_proj"), rng=rng, std=o_std)

    def __call__(self, x: Tensor, rng: Rng | None, cache: KVCache | None) -> Tensor:
        c, start = self.config, cache.length if cache else 0
        q = self.q_proj(x, rng)  # (B, T, C) -> (B, T, H*D)
        k, v = self.k_proj(x, rng), self.v_proj(x, rng)  # (B, T, C) -> (B, T, J*D)
        if c.positions == "rope":
            q = F.rope(q, c.n_head, start, c.rope_theta, c.rope_scaling)
            k = F.rope(k, c.kv_heads, start, c.rope_theta, c.rope_scaling)
        if cache is not None:
            k, v = cache.extend(k, v)  # (B, T, J*D) -> (B, S, J*D)
        return self.o_proj(F.attention(q, k, v, c.n_head, c.kv_heads), rng)


class MLP(Module):
    def __init__(self, c: TransformerConfig, rng: Rng) -> None:
        C, hidden = c.n_embd, c.hidden
        self.config = c
        if c.activation == "swiglu":
            self.gate_proj = Linear(C, hidden, c.has_bias("gate_proj"), rng=rng, std=_std(C))
        self.up_proj = Linear(C, hidden, c.has_bias("up_proj"), rng=rng, std=_std(C))
        down_std = _std(hidden) / math.sqrt(2 * c.n_layer)
        self.down_proj = Linear(hidden, C, c.has_bias("down_proj"), rng=rng, std=down_std)

    def __call__(self, x: Tensor, rng: Rng | None) -> Tensor:
        up = self.up_proj(x, rng)  # (B, T, C) -> (B, T, hidden)
        gated = self.config.activation == "swiglu"
        h = F.silu(self.gate_proj(x, rng)) * up if gated else F.gelu(up)
        return self.down_proj(h, rng)  # (B, T, hidden) -> (B, T, C)


class Block(Module):
    def __init__(self, c: TransformerConfig, rng: Rng) -> None:
        self.dropout = c.dropout
        self.attn_norm = make_norm(c)
        self.attn = Attention(c, rng)
        self.mlp_norm = make_norm(c)
        self.mlp = MLP(c, rng)

    def __call__(self, x: Tensor, rng: Rng | None, cache: KVCache | None) -> Tensor:
        x = x + F.dropout(self.attn(self.attn_norm(x), rng, cache), self.dropout, rng)
        return x + F.dropout(self.mlp(self.mlp_norm(x), rng), self.dropout, rng)


def make_norm(c: TransformerConfig) -> LayerNorm | RMSNorm:
    norm = LayerNorm if c.norm == "layernorm" else RMSNorm
    return norm(c.n_embd, c.norm_eps)


class Transformer(Module):
    """The model. `rng` draws the initial weights: small normal ones, smaller still where a
    layer adds to the stream (GPT-2's 1/sqrt(2 n_layer))."""

    loaded_from: str | None = None  # the name or folder that load_model was given
    can_cache = True  # not once vectors stand in front of the text: prompt tuning

    def __init__(self, config: TransformerConfig, *, rng: Rng) -> None:
        c = self.config = config
        self.tok_embed = Embedding(c.vocab_size, c.n_embd, rng=rng)
        if c.positions == "learned":
            self.pos_embed = Embedding(c.block_size, c.n_embd, rng=rng)
        self.layers = ModuleList([Block(c, rng) for _ in range(c.n_layer)])
        self.norm = make_norm(c)
        if not c.tie_embeddings:
            self.head = Linear(c.n_embd, c.vocab_size, bias=False, rng=rng, std=0.02)

    def __call__(
        self, ids: np.ndarray, rng: Rng | None = None, cache: list[KVCache] | None = None
    ) -> Tensor:
        """ids int (B, T) -> logits (B, T, V).

        rng: draws dropout; None switches it off. cache: one KVCache per layer, which ids then
        continue; within no_grad() only. Raises ValueError for more tokens than block_size and
        for ids of another shape or type, IndexError for an id outside the vocabulary.
        """
        return self.logits(self.hidden(ids, rng, cache), rng)

    def hidden(
        self, ids: np.ndarray, rng: Rng | None = None, cache: list[KVCache] | None = None
    ) -> Tensor:
        """ids int (B, T) -> (B, T, C): all but the head, for who needs few of the logits."""
        ids, c = np.asarray(ids), self.config
        if ids.ndim != 2 or not ids.size or not np.issubdtype(ids.dtype, np.integer):
            found = f"{ids.dtype} {ids.shape}"
            raise UsageError(f"ids must be integers of shape (B, T), B and T > 0; got {found}")
        if cache is not None and not self.can_cache:
            raise UsageError("vectors stand in front of the text here: it can use no cache")
        if cache is not None and len(set(cache)) != len(self.layers):
            raise UsageError("cache must be a list of one KVCache for each layer")
        start = cache[0].length if cache else 0
        end, block_size = start + ids.shape[1], c.block_size
        if end > block_size:
            raise UsageError(f"{end} tokens do not fit the model's block_size of {block_size}")
        x = self.tok_embed(ids)  # (B, T) -> (B, T, C)
        if c.positions == "learned":
            x = x + self.pos_embed(np.arange(start, end))  # (T, C) is repeated over B
        x = F.dropout(x, c.dropout, rng)
        for i, block in enumerate(self.layers):
            x = block(x, rng, cache[i] if cache else None)
        return self.norm(x)

    def logits(self, x: Tensor, rng: Rng | None = None) -> Tensor:
        """The head.   x (..., C), rows of hidden(ids) -> (..., V)"""
        if self.config.tie_embeddings:
            return F.linear(x, self.tok_embed.weight.swapaxes(0, 1))  # (V, C) -> (C, V)
        return self.head(x, rng)
