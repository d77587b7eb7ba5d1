"""LoRA-FA, VeRA and LoRA-XS: kinds of LoRA that freeze A, or A and B, and train fewer numbers.

Each is a LowRank whose frozen factors are Tensors instead of Parameters. ΔW is zero before
training. It is saved as a plain adapter with the same ΔW, of more numbers than were trained.
Sources: Zhang et al. 2023 (LoRA-FA); Kopiczko et al. 2024 (VeRA); Bałazy et al. 2024 (LoRA-XS).
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from minilora import functional as F
from minilora.lora import LoraLinear, LowRank, add_adapter, lora_layers
from minilora.lora_config import DEFAULT, LoraConfig
from minilora.nn import Parameter, Rng
from minilora.tensor import Tensor
from minilora.transformer import Transformer

D_START = 0.1  # where PEFT, too, starts VeRA's d


class LoraFa(LowRank):
    """LoRA-FA: A stays as it was drawn, B (r, d_out) trains."""

    def __init__(self, A: np.ndarray, B: np.ndarray, s: float, dropout: float) -> None:
        super().__init__(A, B, s, dropout)
        self.A = Tensor(A)  # type: ignore[assignment]

    def factors(self, W: np.ndarray) -> dict[str, np.ndarray]:
        return {"A": self.A.data, "B": self.B.data}


class Vera(LowRank):
    """VeRA: A and B are random, frozen, and shared by all layers; two vectors train.

    y = x W + ((x A) d) B b + bias, so ΔW = (A d) (B b).   d (r,), b (d_out,), no s
    """

    def __init__(self, A: np.ndarray, B: np.ndarray, dropout: float) -> None:
        super().__init__(A, B, 1.0, dropout)
        self.A, self.B = Tensor(A), Tensor(B)  # type: ignore[assignment]
        self.d = Parameter(np.full(A.shape[1], D_START, A.dtype))
        self.b = Parameter(np.zeros(B.shape[1], B.dtype))

    def __call__(self, x: Tensor, W: Tensor, b: Tensor | None, rng: Rng | None) -> Tensor:
        x_A = F.dropout(x, self.dropout, rng) @ self.A  # (..., r)
        return F.linear(x, W, b) + ((x_A * self.d) @ self.B) * self.b

    def delta(self, W: np.ndarray) -> np.ndarray:
        factors = self.factors(W)
        return factors["A"] @ factors["B"]

    def factors(self, W: np.ndarray) -> dict[str, np.ndarray]:
        return {"A": self.A.data * self.d.data, "B": self.B.data * self.b.data}


class LoraXs(LowRank):
    """LoRA-XS: with W = U S Vᵀ, A = U_r S_r and B = V_rᵀ are frozen; R (r, r) between them trains.

    y = x W + s (x A R) B + bias, so ΔW = s A R B. R starts at zero; the paper draws numbers of
    about 1e-5.
    """

    def __init__(self, W: np.ndarray, r: int, s: float, dropout: float) -> None:
        U, S, Vt = np.linalg.svd(W.astype(np.float64), full_matrices=False)
        A, B = (U[:, :r] * S[:r]).astype(W.dtype), Vt[:r].astype(W.dtype)
        super().__init__(A, B, s, dropout)
        self.A, self.B = Tensor(A), Tensor(B)  # type: ignore[assignment]
        self.R = Parameter(np.zeros((r, r), W.dtype))

    def __call__(self, x: Tensor, W: Tensor, b: Tensor | None, rng: Rng | None) -> Tensor:
        x_A = F.dropout(x, self.dropout, rng) @ self.A  # (..., r)
        return F.linear(x, W, b) + self.s * ((x_A @ self.R) @ self.B)

    def delta(self, W: np.ndarray) -> np.ndarray:
        return self.A.data @ self.R.data @ self.B.data * self.s

    def factors(self, W: np.ndarray) -> dict[str, np.ndarray]:
        return {"A": self.A.data @ self.R.data, "B": self.B.data}


def lora_fa(model: Transformer, lora: LoraConfig, rng: Rng) -> None:
    """LoRA-FA: r d_out numbers a matrix."""
    for layer, plain in _add_plain(model, lora, rng):
        layer.adapters[DEFAULT] = LoraFa(plain.A.data, plain.B.data, plain.s, plain.dropout)


def vera(model: Transformer, lora: LoraConfig, rng: Rng) -> None:
    """VeRA: r + d_out numbers a matrix, so that r may be large. Of one A and one B, uniform in
    ±√(6 / d_in) and ±√(6 / r), each matrix uses as many rows and columns as it has."""
    added = _add_plain(model, lora, rng)
    r = max(len(plain.B.data) for _, plain in added)
    shapes = [layer.base.weight.shape for layer, _ in added]
    d_in, d_out = (max(sizes) for sizes in zip(*shapes, strict=True))
    A = rng.uniform(-1, 1, (d_in, r)) * math.sqrt(6 / d_in)
    B = rng.uniform(-1, 1, (r, d_out)) * math.sqrt(6 / r)
    for layer, plain in added:
        own_A, own_B = plain.A.data, plain.B.data  # of the sizes that are wanted here
        cut_A = A[: len(own_A), : own_A.shape[1]].astype(own_A.dtype)
        cut_B = B[: len(own_B), : own_B.shape[1]].astype(own_B.dtype)
        layer.adapters[DEFAULT] = Vera(cut_A, cut_B, plain.dropout)


def lora_xs(model: Transformer, lora: LoraConfig, rng: Rng) -> None:
    """LoRA-XS: r² numbers a matrix, whatever its size."""
    for layer, plain in _add_plain(model, lora, rng):
        W, r = layer.base.weight.data, len(plain.B.data)
        layer.adapters[DEFAULT] = LoraXs(W, r, plain.s, plain.dropout)


def _add_plain(model: Transformer, lora: LoraConfig, rng: Rng) -> list[tuple[LoraLinear, LowRank]]:
    """Add LoRA's adapter, and return the layers that have it, for another kind to replace it."""
    add_adapter(model, replace(lora, use_dora=False, init_lora_weights=True), rng=rng)
    layers = lora_layers(model).values()
    return [(layer, layer.adapters[DEFAULT]) for layer in layers if DEFAULT in layer.adapters]
