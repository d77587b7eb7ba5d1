"""Additive methods freeze the model and put small new modules into it, which train.

To compare like with like, bottleneck adapters and prefixes get about as many numbers as LoRA would
train (a prompt fewer): `lora` is LoRA's configuration, from which they take their size.
"""

from __future__ import annotations

import numpy as np

from minilora import functional as F
from minilora import ops
from minilora.lora_config import LoraConfig
from minilora.lora_targets import find_targets
from minilora.nn import Embedding, LayerNorm, Linear, Module, Parameter, RMSNorm, Rng
from minilora.tensor import Tensor, no_grad
from minilora.transformer import Attention, KVCache, Transformer


class Bottleneck(Module):
    """y + gelu(y D + c) U + e with y = base(x): a small MLP beside a shortcut (Houlsby et al.
    2019). U starts at zero, so that it changes nothing yet.   D (C, m), U (m, C)"""

    def __init__(self, base: Linear, m: int, rng: Rng) -> None:
        C = base.weight.shape[1]
        self.base = base
        self.down = Linear(C, m, rng=rng)
        self.up = Linear(m, C, rng=rng, std=0.0)

    def __call__(self, x: Tensor, rng: Rng | None = None) -> Tensor:
        y = self.base(x, rng)
        return y + self.up(F.gelu(self.down(y)))


def bottleneck_adapter(model: Transformer, lora: LoraConfig, rng: Rng) -> None:
    """Two in each block: after attention and after the MLP, before they are added to the stream."""
    C, per_block = model.config.n_embd, lora_size(model, lora) / len(model.layers)
    m = max(1, round(per_block / 2 / (2 * C)))
    model.requires_grad_(False)
    for block in model.layers:
        block.attn.o_proj = Bottleneck(block.attn.o_proj, m, rng)
        block.mlp.down_proj = Bottleneck(block.mlp.down_proj, m, rng)


class PrefixAttention(Module):
    """Attention in which every query also sees n trained keys and values.   (n, J*D) each

    To the wrapped Attention they look like a cache that is not empty when the text begins.
    """

    def __init__(self, base: Attention, k: np.ndarray, v: np.ndarray) -> None:
        self.base = base
        self.prefix_k, self.prefix_v = Parameter(k.copy()), Parameter(v.copy())

    def __call__(self, x: Tensor, rng: Rng | None, cache: KVCache | None) -> Tensor:
        return self.base(x, rng, _PrefixedCache(self.prefix_k, self.prefix_v, cache))


class _PrefixedCache(KVCache):
    def __init__(self, prefix_k: Tensor, prefix_v: Tensor, cache: KVCache | None) -> None:
        self.prefix_k, self.prefix_v, self.cache = prefix_k, prefix_v, cache
        self.length = cache.length if cache else 0  # the prefix takes none of the positions

    def extend(self, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        if self.cache is not None:
            k, v = self.cache.extend(k, v)
        return _put_before(self.prefix_k, k), _put_before(self.prefix_v, v)  # (B, n + S, J*D)


def _put_before(prefix: Tensor, x: Tensor) -> Tensor:
    """(n, C), (B, T, C) -> (B, n + T, C)"""
    repeated = prefix + Tensor(np.zeros((x.shape[0], *prefix.shape), x.dtype))
    return ops.concatenate([repeated, x], axis=1)


def prefix_tuning(model: Transformer, lora: LoraConfig, rng: Rng) -> None:
    """n keys and n values in every layer, trained as they are (Li & Liang 2021 train them through
    an MLP). They start as the activations of n random symbols, as Li & Liang advise."""
    c = model.config
    width = c.kv_heads * c.head_size
    n = max(1, round(lora_size(model, lora) / len(model.layers) / (2 * width)))
    n = min(n, c.block_size)
    caches = [KVCache(n) for _ in model.layers]
    with no_grad():
        model(rng.integers(0, c.vocab_size, (1, n)), cache=caches)
    model.requires_grad_(False)
    for block, cache in zip(model.layers, caches, strict=True):
        block.attn = PrefixAttention(block.attn, cache.k[0], cache.v[0])


class PromptEmbedding(Module):
    """The token embedding with n trained vectors in front.   ids (B, T) -> (B, n + T, C)"""

    def __init__(self, base: Embedding, n: int, rng: Rng) -> None:
        self.base = base
        rows = rng.choice(base.weight.shape[0], n)  # Lester et al. start from words' embeddings
        self.prompt = Parameter(base.weight.data[rows].copy())

    @property
    def weight(self) -> Parameter:
        return self.base.weight

    def __call__(self, ids: np.ndarray) -> Tensor:
        return _put_before(self.prompt, self.base(ids))


class ShiftedPositions(Module):
    """The position embedding, with none for the n prompt vectors.   (T,) -> (n + T, C)"""

    def __init__(self, base: Embedding, n: int) -> None:
        self.base, self.none = base, Tensor(np.zeros((n, base.weight.shape[1]), base.weight.dtype))

    def __call__(self, positions: np.ndarray) -> Tensor:
        return ops.concatenate([self.none, self.base(positions)])


class DropPrompt(Module):
    """The last norm, of the text alone.   (B, n + T, C) -> (B, T, C)"""

    def __init__(self, base: LayerNorm | RMSNorm, n: int) -> None:
        self.base, self.n = base, n

    def __call__(self, x: Tensor) -> Tensor:
        return self.base(x[:, self.n :])


def prompt_tuning(model: Transformer, lora: LoraConfig, rng: Rng) -> None:
    """n vectors in front of the text (Lester et al. 2021); at most 20, as attention has to read
    them all, and they find little gain beyond."""
    n = min(20, max(1, lora_size(model, lora) // model.config.n_embd))
    model.requires_grad_(False)
    model.set_submodule("tok_embed", PromptEmbedding(model.tok_embed, n, rng))
    if model.config.positions == "learned":
        model.set_submodule("pos_embed", ShiftedPositions(model.pos_embed, n))
    model.set_submodule("norm", DropPrompt(model.norm, n))
    model.can_cache = False


def lora_size(model: Transformer, lora: LoraConfig) -> int:
    """How many numbers LoRA would train: r (d_in + d_out) for each target."""
    return sum(
        lora.rank_and_scale(path)[0] * sum(linear.weight.shape)
        for path, linear in find_targets(model, lora).items()
    )
