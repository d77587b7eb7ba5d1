"""What several demos train: one Linear that misses a known change, and words-tiny on reversing."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

import minilora as ml
from minilora.lora import LowRank
from minilora.lora_config import LoraConfig
from minilora.methods.registry import METHODS
from minilora.module import ModuleList
from minilora.nn import Linear, Rng
from minilora.optim import AdamW
from minilora.tensor import Tensor, no_grad
from minilora.text.string_tasks import PRETRAIN_TASKS, string_batch
from minilora.transformer import Transformer

Batch = tuple[np.ndarray, np.ndarray]  # ids and targets, int64 (B, T) each
WORDS = ("adapter", "frozen", "matrix", "rank", "scale", "small", "train", "weight")


@dataclass(frozen=True)
class Teacher:
    """A layer x W that must become x (W + Δ): samples x (N, d), their y (N, d), and others."""

    W: np.ndarray
    delta: np.ndarray
    x: np.ndarray
    y: np.ndarray
    x_new: np.ndarray
    y_new: np.ndarray


def teacher(
    k: int, samples: int = 96, d: int = 24, noise: float = 0.0, sigma: float = 1.0, seed: int = 0
) -> Teacher:
    """Δ (d, d) has k singular values sigma; noise: the deviation of what is added to each y."""
    rng = np.random.default_rng(seed)
    W = rng.standard_normal((d, d)) / np.sqrt(d)
    U, V = (np.linalg.qr(rng.standard_normal((d, k)))[0] for _ in range(2))
    delta = sigma * U @ V.T
    x, x_new = rng.standard_normal((samples, d)), rng.standard_normal((1024, d))
    y, y_new = (
        inputs @ (W + delta) + noise * rng.standard_normal(inputs.shape) for inputs in (x, x_new)
    )
    return Teacher(W, delta, x, y, x_new, y_new)


def one_layer(W: np.ndarray) -> ModuleList:
    """A model of one Linear without bias, of path "0", in float64."""
    d_in, d_out = W.shape
    model = ModuleList([Linear(d_in, d_out, bias=False, rng=np.random.default_rng(0))])
    model.to(np.float64)
    model[0].weight.data = W.copy()
    return model


def with_lora(W: np.ndarray, r: int, lora_alpha: float | None = None, **lora: Any) -> ModuleList:
    """one_layer(W) with an adapter; lora_alpha is r unless said, so that s is 1."""
    model = one_layer(W)
    alpha = r if lora_alpha is None else lora_alpha
    config = LoraConfig(r=r, lora_alpha=alpha, target_modules=["0"], **lora)
    ml.add_adapter(model, config, rng=np.random.default_rng(1))
    return model


def adapter_of(model: ModuleList) -> LowRank:
    adapter: LowRank = model[0].adapters["default"]
    return adapter


def squared_error(
    model: ModuleList, x: np.ndarray, y: np.ndarray, rng: Rng | None = None
) -> Tensor:
    """The mean over all entries of y; rng draws dropout."""
    error = model[0](Tensor(x), rng) - Tensor(y)
    return (error * error).mean()


def loss_of(model: ModuleList, x: np.ndarray, y: np.ndarray) -> float:
    with no_grad():
        return squared_error(model, x, y).item()


def fit(
    model: ModuleList,
    x: np.ndarray,
    y: np.ndarray,
    steps: int,
    lr: float,
    weight_decay: float = 0.0,
    rng: Rng | None = None,
) -> list[float]:
    """Train with AdamW, all samples in every step; the loss before each step and at the end."""
    optimizer = AdamW(model.trainable_parameters(), lr=lr, weight_decay=weight_decay)
    losses = []
    for _ in range(steps):
        loss = squared_error(model, x, y, rng)
        losses.append(loss.item())
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    return [*losses, loss_of(model, x, y)]


def rank_of(M: np.ndarray) -> int:
    """How many singular values are above rounding."""
    return int(np.linalg.matrix_rank(M))


def ratio(X: np.ndarray, Y: np.ndarray) -> float:
    """‖X‖ / ‖Y‖"""
    return float(np.linalg.norm(X) / np.linalg.norm(Y))


def near(value: float, expected: float) -> bool:
    """Within a hundredth; False for NaN."""
    return abs(value - expected) < 0.01 * abs(expected)


def new_words(rng: Rng, rows: int = 32) -> Batch:
    """Words to reverse, which words-tiny has not learned."""
    return string_batch(("reverse",), WORDS, rows, 28, rng)


def old_words(rng: Rng, rows: int = 32) -> Batch:
    """Examples of the seven tasks that words-tiny has learned."""
    return string_batch(PRETRAIN_TASKS, WORDS, rows, 28, rng)


def cross_entropy_of(model: Transformer, batch: Batch) -> float:
    """The loss of a model on ids and targets."""
    with no_grad():
        return ml.cross_entropy(model(batch[0]), batch[1]).item()


def learn_to_reverse(model: Transformer, lr: float, steps: int) -> None:
    """Train what is trainable in a model, 16 words a step."""
    config = ml.TrainConfig(steps=steps, lr=lr, warmup=1)
    ml.train(model, lambda rng: new_words(rng, rows=16), config, threads=1, quiet=True)


@cache
def learned_to_reverse(method: str, lr: float, r: int = 2, steps: int = 12) -> Transformer:
    """words-tiny after a few steps of reversing words; s is 2. Who changes it copies it first."""
    model = ml.load_model("words-tiny")
    lora = LoraConfig(r=r, lora_alpha=2 * r, target_modules="all-linear")
    METHODS[method].prepare(model, lora, np.random.default_rng(0))
    learn_to_reverse(model, lr, steps)
    return model


def copy_of(model: Transformer) -> Transformer:
    return copy.deepcopy(model)
