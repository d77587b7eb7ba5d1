"""What every engine of the benchmark is given: shapes, weights, batches, and what a step is.

A step is forward, backward, AdamW and reading the loss. Weights are named and laid out as in
minilora; B of LoRA is not zero, so that all gradients can be compared.
"""

from dataclasses import dataclass, replace

import numpy as np

R, SCALE = 8, 2.0
ADAMW = dict(lr=1e-3, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.0)


@dataclass(frozen=True)
class Shape:
    """C channels, layers, heads, T positions, B sequences, V symbols; an untied head."""

    C: int
    layers: int
    heads: int
    T: int
    B: int
    V: int

    def flops(self) -> int:
        """Multiplications and additions of the matrix products of a full step."""
        n = self.B * self.T
        forward = 2 * n * (self.layers * (12 * self.C**2 + 2 * self.T * self.C) + self.C * self.V)
        return 3 * forward


SHAPES = {
    "S": Shape(C=64, layers=2, heads=4, T=64, B=16, V=96),
    "M": Shape(C=128, layers=4, heads=4, T=128, B=16, V=256),
    "L": Shape(C=256, layers=6, heads=8, T=256, B=8, V=512),
}
TARGETS = {"qv": ("q_proj", "v_proj"), "all": "all-linear"}
LINEARS = (*(f"attn.{p}_proj" for p in "qkvo"), "mlp.up_proj", "mlp.down_proj")


def parse_shape(text: str) -> Shape:
    """ "M", or "M,T=256,layers=2": a named shape with some sizes changed."""
    name, *changes = text.split(",")
    sizes = {key: int(value) for key, value in (change.split("=") for change in changes)}
    return replace(SHAPES[name], **sizes)


def base_weights(s: Shape) -> dict[str, np.ndarray]:
    """float32 by minilora's names; Linears (d_in, d_out)."""
    rng = np.random.default_rng(0)

    def normal(*shape: int) -> np.ndarray:
        return rng.standard_normal(shape, dtype=np.float32) * np.float32(0.05)

    w = {"tok_embed.weight": normal(s.V, s.C), "pos_embed.weight": normal(s.T, s.C)}
    for i in range(s.layers):
        for norm in ("attn_norm", "mlp_norm"):
            w[f"layers.{i}.{norm}.weight"] = 1 + normal(s.C)
            w[f"layers.{i}.{norm}.bias"] = normal(s.C)
        for name in LINEARS:
            d_in, d_out = linear_shape(s, name)
            w[f"layers.{i}.{name}.weight"] = normal(d_in, d_out)
            w[f"layers.{i}.{name}.bias"] = normal(d_out)
    w |= {"norm.weight": 1 + normal(s.C), "norm.bias": normal(s.C)}
    return w | {"head.weight": normal(s.C, s.V)}


def linear_shape(s: Shape, name: str) -> tuple[int, int]:
    return {"mlp.up_proj": (s.C, 4 * s.C), "mlp.down_proj": (4 * s.C, s.C)}.get(name, (s.C, s.C))


def lora_weights(s: Shape, mode: str, r: int = R) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """A (d_in, r) and B (r, d_out) by the path of their Linear, for mode "qv" or "all"."""
    rng = np.random.default_rng(1)
    chosen = [n for n in LINEARS if mode == "all" or n.endswith(("q_proj", "v_proj"))]
    factors = {}
    for i in range(s.layers):
        for name in chosen:
            d_in, d_out = linear_shape(s, name)
            A = rng.standard_normal((d_in, r), dtype=np.float32) * np.float32(0.05)
            B = rng.standard_normal((r, d_out), dtype=np.float32) * np.float32(0.05)
            factors[f"layers.{i}.{name}"] = (A, B)
    return factors


def batch(s: Shape) -> tuple[np.ndarray, np.ndarray]:
    """ids and targets, int64 (B, T) each."""
    ids = np.random.default_rng(2).integers(0, s.V, (s.B, s.T + 1))
    return np.ascontiguousarray(ids[:, :-1]), np.ascontiguousarray(ids[:, 1:])
