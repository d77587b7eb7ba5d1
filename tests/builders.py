"""Tiny models that tests share: a GPT-2 and a Llama of a few thousand numbers, and noise on them.

`shake` gives every parameter, B too, a value that is not where it starts: with B = 0 a merge that
did nothing would pass.
"""

from typing import Any

import numpy as np

from minilora.lora import add_adapter
from minilora.lora_config import LoraConfig
from minilora.nn import Module
from minilora.transformer import Transformer, TransformerConfig

SIZES: dict[str, Any] = dict(vocab_size=11, block_size=24, n_layer=2, n_head=4, n_embd=16)
FAMILIES: dict[str, dict[str, Any]] = {
    "gpt2": dict(mlp_hidden=32),
    "llama": dict(
        n_kv_head=2, mlp_hidden=24, norm="rmsnorm", activation="swiglu", positions="rope",
        bias=False, tie_embeddings=False,
    ),
}  # fmt: skip
IDS = np.random.default_rng(1).integers(SIZES["vocab_size"], size=(2, SIZES["block_size"]))


def shake(module: Module, seed: int = 0, size: float = 0.1) -> Module:
    """Add normal noise to every parameter, in place."""
    rng = np.random.default_rng(seed)
    for p in module.parameters():
        p.data += (rng.standard_normal(p.shape) * size).astype(p.dtype)
    return module


def tiny(family: str = "gpt2", seed: int = 0, **options: Any) -> Transformer:
    """A model of one family, away from where biases and norms start."""
    config = TransformerConfig(**SIZES | FAMILIES[family] | options)
    model = Transformer(config, rng=np.random.default_rng(seed))
    shake(model, seed + 1)
    return model


def adapted(family: str = "gpt2", seed: int = 0, **lora: Any) -> Transformer:
    """A tiny model with an adapter (r = 4, alpha = 12 unless said) that has left its start."""
    model = tiny(family, seed)
    config = LoraConfig(**{"r": 4, "lora_alpha": 12} | lora)
    add_adapter(model, config, rng=np.random.default_rng(seed))
    rng = np.random.default_rng(seed + 2)
    for p in model.trainable_parameters():
        p.data += (rng.standard_normal(p.shape) * 0.1).astype(p.dtype)
    return model
