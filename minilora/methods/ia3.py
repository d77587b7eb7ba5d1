"""IA³ (Liu et al. 2022) trains one factor for each key, each value and each hidden unit of the MLP.

Its name is short for "infused adapter by inhibiting and amplifying inner activations". The factors
start at one, where they change nothing.
"""

from __future__ import annotations

import numpy as np

from minilora.lora_config import LoraConfig
from minilora.nn import Linear, Module, Parameter, Rng
from minilora.tensor import Tensor
from minilora.transformer import Transformer


class ScaledOutput(Module):
    """y = base(x) l   l (d_out,)"""

    def __init__(self, base: Linear) -> None:
        self.base = base
        self.l = _ones(base, 1)

    def __call__(self, x: Tensor, rng: Rng | None = None) -> Tensor:
        return self.base(x, rng) * self.l


class ScaledInput(Module):
    """y = base(x l)   l (d_in,)"""

    def __init__(self, base: Linear) -> None:
        self.base = base
        self.l = _ones(base, 0)

    def __call__(self, x: Tensor, rng: Rng | None = None) -> Tensor:
        return self.base(x * self.l, rng)


def ia3(model: Transformer, lora: LoraConfig, rng: Rng) -> None:
    """IA³: the outputs of k_proj and v_proj are scaled, and what down_proj reads."""
    model.requires_grad_(False)
    for block in model.layers:
        block.attn.k_proj = ScaledOutput(block.attn.k_proj)
        block.attn.v_proj = ScaledOutput(block.attn.v_proj)
        block.mlp.down_proj = ScaledInput(block.mlp.down_proj)


def _ones(base: Linear, axis: int) -> Parameter:
    return Parameter(np.ones(base.weight.shape[axis], base.weight.dtype))
