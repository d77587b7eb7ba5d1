"""What LoRA is, and what it is not: measured on a model of two blocks that learns to reverse."""

from __future__ import annotations

import numpy as np

import minilora as ml
from minilora.learn.demos.demo import Measured, demo
from minilora.lora import lora_layers
from minilora.methods.registry import METHODS


@demo(
    low_rank=lambda m: (
        m["rank of ΔW, highest"] <= m["r"] < m["least side of W"] / 4
        and m["entries of W that changed"] == 0
        and m["LoRA trains"] == m["numbers of all A and B"] < m["full fine-tuning trains"] / 10
        and m["logits, merged and beside, differ by"] < 1e-4
        and m["loss after, per cent of before"] < 99
    ),
    adds_parameters=lambda m: m["LoRA trains"] >= m["full fine-tuning trains"],
    other_technique=lambda m: (
        m["entries of W that changed"] > 0 or m["rank of ΔW, highest"] > m["r"]
    ),
    no_effect=lambda m: (
        m["loss after, per cent of before"] >= 99
        or m["LoRA trains"] >= m["full fine-tuning trains"]
    ),
)
def what_is_lora() -> Measured:
    """Train words-tiny with LoRA for 20 steps to reverse words, and compare it with its base."""
    tuned = ml.tune("reverse", "lora", steps=20, lr=2e-2)
    base, model, layers = tuned.base, tuned.model, lora_layers(tuned.model)
    deltas = [ml.get_delta_weight(model, path) for path in layers]
    ranks = [np.linalg.matrix_rank(delta) for delta in deltas]
    full = ml.load_model("words-tiny")
    METHODS["full"].prepare(full, tuned.task.lora, np.random.default_rng(0))
    changed = sum(
        int((layer.base.weight.data != dict(base.named_parameters())[f"{path}.weight"].data).sum())
        for path, layer in layers.items()
    )
    adapters = [layer.adapters["default"] for layer in layers.values()]
    ids, targets = tuned.task.batch(np.random.default_rng(7))
    before, after = (float(ml.cross_entropy(m(ids), targets).data) for m in (base, model))
    few = ids[:1, :3]  # of many rows the layer adds s A B to W first, as merging does
    beside = model(few).data
    ml.merge_adapter(model)
    return {
        "r": adapters[0].A.shape[1],
        "least side of W": min(min(delta.shape) for delta in deltas),
        "rank of ΔW, highest": int(max(ranks)),
        "entries of W that changed": changed,
        "numbers of all A and B": sum(a.A.size + a.B.size for a in adapters),
        "LoRA trains": tuned.row["trainable"],
        "full fine-tuning trains": ml.count_parameters(full)[0],
        "logits, merged and beside, differ by": float(np.abs(model(few).data - beside).max()),
        "loss after, per cent of before": 100 * after / before,
    }
