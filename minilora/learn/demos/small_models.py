"""Models of a few thousand numbers for the demos: a GPT-2, a Llama, and one layer that learns."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

import minilora as ml

SIZES: dict[str, Any] = dict(vocab_size=11, block_size=16, n_layer=2, n_head=2, n_embd=16)
LLAMA: dict[str, Any] = dict(
    norm="rmsnorm", activation="swiglu", positions="rope", bias=False, tie_embeddings=False
)
IDS = np.random.default_rng(1).integers(SIZES["vocab_size"], size=(2, 12))


def tiny_gpt2(seed: int = 0, **options: Any) -> ml.Transformer:
    """Two blocks of width 16 with random weights, an alphabet of 11 symbols and a tied head."""
    return ml.Transformer(ml.TransformerConfig(**SIZES | options), rng=np.random.default_rng(seed))


def tiny_llama(seed: int = 0, **options: Any) -> ml.Transformer:
    """The same as a Llama: RMSNorm, SwiGLU, rotary positions, no biases, a head of its own, which
    is as large as after training: a frozen head of tiny numbers could say little."""
    model = tiny_gpt2(seed, **LLAMA | options)
    model.head.weight.data *= 10
    return model


def moved_adapter(model: ml.Module, name: str = "default", seed: int = 0, **lora: Any) -> None:
    """Add an adapter of rank 4 whose B is not zero any more, as if it had been trained."""
    rng = np.random.default_rng(seed)
    ml.add_adapter(model, ml.LoraConfig(**{"r": 4, "lora_alpha": 8} | lora), name, rng=rng)
    for p in model.trainable_parameters():
        p.data += rng.normal(0, 0.3, p.shape).astype(p.dtype)


def one_linear(d_in: int, d_out: int, seed: int = 0) -> ml.ModuleList:
    """A model that is one Linear, at the path "0", without a bias."""
    return ml.ModuleList([ml.Linear(d_in, d_out, bias=False, rng=np.random.default_rng(seed))])


def minimize(
    params: Iterable[ml.Tensor], loss: Callable[[], ml.Tensor], steps: int, lr: float
) -> float:
    """Train with AdamW at a rate that rises and falls; what is left of the loss, at first 1."""
    optimizer, losses = ml.AdamW(params, weight_decay=0), []
    for step in range(steps):
        optimizer.lr = lr * ml.warmup_cosine(step, steps, warmup=5, final=0.01)
        now = loss()
        losses.append(now.item())
        now.backward()
        optimizer.step()
        optimizer.zero_grad()
    return losses[-1] / losses[0]


def squared(y: ml.Tensor, wanted: np.ndarray) -> ml.Tensor:
    """The mean squared error."""
    error = y - ml.Tensor(wanted)
    return (error * error).mean()


def learn_text(model: ml.Transformer, ids: np.ndarray, steps: int, lr: float) -> float:
    """Train what is trainable to continue ids (B, T); the loss after it, in nats."""
    params = model.trainable_parameters()
    minimize(params, lambda: ml.cross_entropy(model(ids[:, :-1]), ids[:, 1:]), steps, lr)
    return loss_of(model, ids)


def loss_of(model: ml.Transformer, ids: np.ndarray) -> float:
    """Nats per symbol of ids (B, T)."""
    with ml.no_grad():
        return float(ml.cross_entropy(model(ids[:, :-1]), ids[:, 1:]).data)


def difference(a: Any, b: Any) -> float:
    """The largest difference of two arrays, or Tensors, of one shape."""
    a, b = (np.asarray(getattr(x, "data", x), np.float64) for x in (a, b))
    return float(np.abs(a - b).max())
