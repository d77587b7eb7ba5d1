"""A decoder-only transformer that is GPT-2 or Llama, depending on five switches.

ids (B, T) -> embedding (B, T, C) -> n_layer blocks -> norm -> logits (B, T, V). Each block adds two
things to the stream: what attention gathers from earlier positions, and what an MLP makes of each
position alone. q, k and v are separate Linears, so that LoRA has clear targets.
Sources: Radford et al. 2019 (GPT-2), Touvron et al. 2023 (Llama). Imports tensor, nn, functional.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from minilora import functional as F
from minilora.nn import Embedding, LayerNorm, Linear, Module, ModuleList, RMSNorm, Rng
from minilora.system.errors import UsageError
from minilora.tensor import Tensor

_SWITCHES = dict(
    norm=("layernorm", "rmsnorm"), activation=("gelu", "swiglu"), positions=("learned", "rope")
)


@dataclass(frozen=True)
class TransformerConfig:
    """Sizes and switches. What changed from GPT-2 (the defaults) to Llama: norm="rmsnorm",
    activation="swiglu", positions="rope", bias=False, and fewer key/value heads (n_kv_head).

    mlp_hidden defaults to 4 C. dropout acts on the embedding and on what attention and MLP add.
    Raises ValueError for sizes that do not fit together.
    """

    vocab_size: int
    block_size: int
    n_layer: int
    n_head: int
    n_embd: int
    n_kv_head: int | None = None
    mlp_hidden: int | None = None
    norm: str = "layernorm"
    activation: str = "gelu"
    positions: str = "learned"
    bias: bool = True
    tie_embeddings: bool = True
    dropout: float = 0.0
    norm_eps: float = 1e-5
    rope_theta: float = 10000.0

    def __post_init__(self) -> None:
        for name in "vocab_size block_size n_layer n_head n_embd kv_heads hidden".split():
            if getattr(self, name) < 1:
                raise UsageError(f"{name} must be at least 1, got {getattr(self, name)}")
        for name, allowed in _SWITCHES.items():
            if getattr(self, name) not in allowed:
                raise UsageError(f"{name} must be one of {allowed}, got {getattr(self, name)!r}")
        if self.n_embd % self.n_head:
            raise UsageError(f"n_embd={self.n_embd} must be a multiple of n_head={self.n_head}")
        if self.n_head % self.kv_heads:
            raise UsageError(f"n_kv_head={self.kv_heads} must divide n_head={self.n_head}")
        if self.positions == "rope" and self.head_size % 2:
            raise UsageError(f"rope turns pairs: n_embd / n_head = {self.head_size} must be even")
        if not 0 <= self.dropout < 1:
            raise UsageError(f"dropout must lie in [0, 1), got {self.dropout}")

    @property
    def head_size(self) -> int:
        return self.n_embd // self.n_head

    @property
    def kv_heads(self) -> int:
        return self.n_head if self.n_kv_head is None else self.n_kv_head

    @property
    def hidden(self) -> int:
        return 4 * self.n_embd if self.mlp_hidden is None else self.mlp_hidden


class KVCache:
    """Keys and values of the positions one layer has already seen, so that they are not computed
    again for every new token: (B, block_size, J*D) each, filled from the left."""

    def __init__(self) -> None:
        self.length = 0

    def extend(self, k: Tensor, v: Tensor, room: int) -> tuple[Tensor, Tensor]:
        """Append k, v (B, T, J*D) and return all keys and values so far (B, S, J*D)."""
        if self.length == 0:
            B, _, width = k.shape
            self.k, self.v = (np.empty((B, room, width), k.dtype) for _ in range(2))
        end = self.length + k.shape[1]
        self.k[:, self.length : end], self.v[:, self.length : end] = k.data, v.data
        self.length = end
        return Tensor(self.k[:, :end]), Tensor(self.v[:, :end])


class Attention(Module):
    def __init__(self, c: TransformerConfig, rng: Rng) -> None:
        C, width = c.n_embd, c.kv_heads * c.head_size
        std = 0.7 / math.sqrt(C)
        self.config = c
        self.q_proj = Linear(C, C, c.bias, rng=rng, std=std)
        self.k_proj = Linear(C, width, c.bias, rng=rng, std=std)
        self.v_proj = Linear(C, width, c.bias, rng=rng, std=std)
        self.o_proj = Linear(C, C, c.bias, rng=rng, std=std / math.sqrt(2 * c.n_layer))

    def __call__(self, x: Tensor, rng: Rng | None, start: int, cache: KVCache | None) -> Tensor:
        c = self.config
        q, k, v = self.q_proj(x, rng), self.k_proj(x, rng), self.v_proj(x, rng)
        if c.positions == "rope":
            q = F.rope(q, c.n_head, start, c.rope_theta)
            k = F.rope(k, c.kv_heads, start, c.rope_theta)
        if cache is not None:
            k, v = cache.extend(k, v, c.block_size)
        return self.o_proj(F.attention(q, k, v, c.n_head, c.kv_heads), rng)


class MLP(Module):
    def __init__(self, c: TransformerConfig, rng: Rng) -> None:
        C, hidden = c.n_embd, c.hidden
        if c.activation == "swiglu":
            self.gate_proj = Linear(C, hidden, c.bias, rng=rng, std=0.7 / math.sqrt(C))
        self.up_proj = Linear(C, hidden, c.bias, rng=rng, std=0.7 / math.sqrt(C))
        down_std = 0.7 / math.sqrt(hidden) / math.sqrt(2 * c.n_layer)
        self.down_proj = Linear(hidden, C, c.bias, rng=rng, std=down_std)

    def __call__(self, x: Tensor, rng: Rng | None) -> Tensor:
        up = self.up_proj(x, rng)
        h = F.silu(self.gate_proj(x, rng)) * up if hasattr(self, "gate_proj") else F.gelu(up)
        return self.down_proj(h, rng)


class Block(Module):
    def __init__(self, c: TransformerConfig, rng: Rng) -> None:
        self.dropout = c.dropout
        self.attn_norm = make_norm(c)
        self.attn = Attention(c, rng)
        self.mlp_norm = make_norm(c)
        self.mlp = MLP(c, rng)

    def __call__(self, x: Tensor, rng: Rng | None, start: int, cache: KVCache | None) -> Tensor:
        x = x + F.dropout(self.attn(self.attn_norm(x), rng, start, cache), self.dropout, rng)
        return x + F.dropout(self.mlp(self.mlp_norm(x), rng), self.dropout, rng)


def make_norm(c: TransformerConfig) -> LayerNorm | RMSNorm:
    return (LayerNorm if c.norm == "layernorm" else RMSNorm)(c.n_embd, c.norm_eps)


class Transformer(Module):
    """The model. `rng` draws the initial weights: small normal ones, smaller still where a layer
    adds to the stream (GPT-2's 1/sqrt(2 n_layer))."""

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

        rng: draws dropout; None switches it off. cache: one KVCache per layer; ids then continue
        what it holds. Raises ValueError when the sequence is longer than block_size.
        """
        ids, c = np.asarray(ids), self.config
        if ids.ndim != 2 or not np.issubdtype(ids.dtype, np.integer):
            raise UsageError(f"ids must be integers of shape (B, T), got {ids.dtype} {ids.shape}")
        start = cache[0].length if cache else 0
        end = start + ids.shape[1]
        if end > c.block_size:
            raise UsageError(f"{end} tokens do not fit the model's block_size of {c.block_size}")
        x = self.tok_embed(ids)  # (B, T) -> (B, T, C)
        if c.positions == "learned":
            x = x + self.pos_embed(np.arange(start, end))  # (T, C) is repeated over B
        x = F.dropout(x, c.dropout, rng)
        for i, block in enumerate(self.layers):
            x = block(x, rng, start, cache[i] if cache else None)
        x = self.norm(x)
        if c.tie_embeddings:
            return F.linear(x, self.tok_embed.weight.swapaxes(0, 1))  # (V, C) -> (C, V)
        return self.head(x, rng)
