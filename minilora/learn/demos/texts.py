"""Published sentences on LoRA that are wrong: what each would mean, beside what is measured."""

from __future__ import annotations

import numpy as np

import minilora as ml
from minilora.analysis.counting import ARCHITECTURES, lora_parameters, total_parameters
from minilora.analysis.deltas import delta_weights
from minilora.functional import gelu
from minilora.learn.demos.demo import Measured, demo
from minilora.learn.demos.learners import (
    adapter_of,
    cross_entropy_of,
    fit,
    learned_to_reverse,
    near,
    new_words,
    old_words,
    rank_of,
    ratio,
    teacher,
    with_lora,
)
from minilora.lora import lora_layers
from minilora.lora_config import LoraConfig
from minilora.lora_init import initial_factors
from minilora.tensor import Tensor


def norm_of(x: np.ndarray | None) -> float:
    """Its length; 0 for a gradient that was not computed."""
    return 0.0 if x is None else float(np.linalg.norm(x))


@demo(
    low_rank=lambda m: (
        m["rank of ΔW, highest"] <= m["r"] < m["rank of W + ΔW, lowest"]
        and m["blocks"] == m["blocks of the base"]
        and m["share of adapters that move in step 1"] == 1
    ),
    one_after_another=lambda m: m["share of adapters that move in step 1"] < 0.5,
    approximation=lambda m: m["rank of W + ΔW, lowest"] <= m["r"],
    layers_dropped=lambda m: m["blocks"] < m["blocks of the base"],
)
def what_becomes_of_the_layers() -> Measured:
    """Train words-tiny with LoRA, and look at its layers after the first step and at the end."""
    start, model = learned_to_reverse("lora", 2e-2, steps=1), learned_to_reverse("lora", 2e-2)
    moved = [layer.adapters["default"].B.data.any() for layer in lora_layers(start).values()]
    layers = lora_layers(model).values()
    return {
        "r": next(iter(layers)).adapters["default"].A.shape[1],
        "rank of ΔW, highest": max(rank_of(layer.delta_weight("default")) for layer in layers),
        "rank of W + ΔW, lowest": min(
            rank_of(layer.base.weight.data + layer.delta_weight("default")) for layer in layers
        ),
        "share of adapters that move in step 1": sum(moved) / len(moved),
        "blocks": len(model.layers),
        "blocks of the base": len(ml.load_model("words-tiny").layers),
    }


@demo(
    the_change=lambda m: (
        m["share of W that the product misses"] > 0.9
        and m["numbers of W that changed"] == 0
        and m["rank of the product"] <= m["r"]
        and m["factors that train"] == 2
        and m["numbers in A and B, of W's"] < 1
    ),
    three_factors=lambda m: m["factors that train"] == 3,
    not_smaller=lambda m: m["numbers in A and B, of W's"] >= 1,
    all_layers=lambda m: m["share of W that the product misses"] < 0.5,
)
def what_the_two_matrices_give() -> Measured:
    """Train words-tiny with LoRA, and compare the product of its factors with W itself."""
    path = "layers.0.attn.q_proj"
    layer = lora_layers(learned_to_reverse("lora", 2e-2))[path]
    W, factors = layer.base.weight.data, layer.adapters["default"].named_parameters()
    before = ml.load_model("words-tiny").layers[0].attn.q_proj.weight.data
    product = layer.delta_weight("default")
    sizes = [p.size for _, p in factors]
    return {
        "r": layer.adapters["default"].A.shape[1],
        "rank of the product": rank_of(product),
        "share of W that the product misses": ratio(W - product, W),
        "numbers of W that changed": (before != W).sum(),
        "factors that train": len(sizes),
        "numbers in A and B, of W's": sum(sizes) / W.size,
    }


@demo(
    most_is_lost=lambda m: (
        m["loss on what it knew, W as two factors"] > 10 * m["loss on what it knew, base"]
        and m["loss on what it knew, LoRA at its start"] == m["loss on what it knew, base"]
    ),
    little_is_lost=lambda m: (
        m["loss on what it knew, W as two factors"] < 1.1 * m["loss on what it knew, base"]
    ),
    both_lose=lambda m: (
        m["loss on what it knew, LoRA at its start"]
        > 0.9 * m["loss on what it knew, W as two factors"]
    ),
    nothing_at_first=lambda m: (
        m["loss on what it knew, W as two factors"] == m["loss on what it knew, base"]
    ),
)
def train_the_factors_of_w_instead() -> Measured:
    """Put the best factors of rank 2 in the place of every W of words-tiny; start LoRA beside."""
    base, cut = ml.load_model("words-tiny"), ml.load_model("words-tiny")
    adapted = ml.load_model("words-tiny")
    lora = LoraConfig(r=2, target_modules="all-linear")
    ml.add_adapter(adapted, lora, rng=np.random.default_rng(0))
    for path in lora_layers(adapted):
        W = cut.get_submodule(path).weight
        W.data = ml.analysis.truncate(W.data, 2).astype(W.dtype)
    words = old_words(np.random.default_rng(7))
    return {
        "loss on what it knew, base": cross_entropy_of(base, words),
        "loss on what it knew, W as two factors": cross_entropy_of(cut, words),
        "loss on what it knew, LoRA at its start": cross_entropy_of(adapted, words),
    }


@demo(
    base_too=lambda m: (
        m["bytes of frozen weights"] > 10 * m["bytes of A and B"]
        and m["bytes of gradients"] == m["bytes of A and B"]
        and m["bytes of the optimizer's state"] == 2 * m["bytes of A and B"]
    ),
    moments_of_all=lambda m: (
        m["bytes of the optimizer's state"] >= 2 * m["bytes of frozen weights"]
    ),
    gradients_of_all=lambda m: m["bytes of gradients"] >= m["bytes of frozen weights"],
    sentence_is_right=lambda m: m["bytes of frozen weights"] < m["bytes of A and B"],
)
def what_is_in_memory() -> Measured:
    """Take a step of words-tiny with LoRA, and add up the bytes of every array that is kept."""
    model = ml.load_model("words-tiny")
    lora = LoraConfig(r=2, target_modules="all-linear")
    ml.add_adapter(model, lora, rng=np.random.default_rng(0))
    optimizer = ml.AdamW(model.trainable_parameters(), lr=1e-3)
    ids, targets = new_words(np.random.default_rng(0))
    ml.cross_entropy(model(ids), targets).backward()
    optimizer.step()
    parameters = model.parameters()
    return {
        "bytes of frozen weights": sum(p.data.nbytes for p in parameters if not p.requires_grad),
        "bytes of A and B": sum(p.data.nbytes for p in parameters if p.requires_grad),
        "bytes of gradients": sum(p.grad.nbytes for p in parameters if p.grad is not None),
        "bytes of the optimizer's state": optimizer.state_bytes,
    }


@demo(
    twelve_longer=lambda m: (
        near(m["s, lora_alpha = 12"], 2) and near(m["ΔW with 12, of its length with 8"], 1.5)
    ),
    twelve_same=lambda m: near(m["ΔW with 12, of its length with 8"], 1),
    three=lambda m: near(m["s, lora_alpha = 3"], 2),
    sixteen=lambda m: near(m["s, lora_alpha = 16"], 2),
)
def the_alpha_of_the_example() -> Measured:
    """Train a layer with r = 6, and take its A and B with four values of lora_alpha."""
    task = teacher(6)
    trained = with_lora(task.W, 6, lora_alpha=8)
    fit(trained, task.x, task.y, 20, 2e-2)
    A, B = adapter_of(trained).A.data, adapter_of(trained).B.data
    changes = {}
    for alpha in (3, 8, 12, 16):
        adapter = adapter_of(with_lora(task.W, 6, lora_alpha=alpha))
        adapter.A.data, adapter.B.data = A, B
        changes[alpha] = adapter.delta(task.W)
    scales = {f"s, lora_alpha = {alpha}": ratio(changes[alpha], A @ B) for alpha in (3, 12, 16)}
    return scales | {"ΔW with 12, of its length with 8": ratio(changes[12], changes[8])}


@demo(
    no_bias=lambda m: (
        m["biases that change, none"] == 0
        and 0 < m["biases that change, lora_only"] < m["biases that change, all"]
        and m["biases within A and B"] == 0
    ),
    comment_is_right=lambda m: m["biases that change, none"] == m["biases that change, all"],
    adapted_layers=lambda m: m["biases that change, none"] == m["biases that change, lora_only"],
    own_biases=lambda m: m["biases within A and B"] > 0,
)
def which_biases_are_updated() -> Measured:
    """Train words-tiny for two steps with each value of `bias`, and compare all its biases."""
    before = ml.load_model("words-tiny")
    old = [p.data for name, p in before.named_parameters() if name.endswith("bias")]
    changed, own = {}, 0
    for bias in ("none", "lora_only", "all"):
        model = ml.load_model("words-tiny")
        lora = LoraConfig(r=2, bias=bias)
        ml.add_adapter(model, lora, rng=np.random.default_rng(0))
        ml.train(model, new_words, ml.TrainConfig(2, 1e-2), threads=1, quiet=True)
        new = [p.data for name, p in model.named_parameters() if name.endswith("bias")]
        pairs = zip(old, new, strict=True)
        changed[f"biases that change, {bias}"] = sum((a != b).any() for a, b in pairs)
        own += sum(".adapters." in n and n.endswith("bias") for n, _ in model.named_parameters())
    return changed | {"biases within A and B": own}


@demo(
    too_little=lambda m: (
        min(m["GPT-2, c_attn, r = 8"], m["Llama-2-7B, q and v, r = 8"]) > 99
        and m["GPT-2, every matrix, r = 8"] > 98
        and m["words-tiny, every matrix, r = 2"] > 90
        and max(m.values()) - min(m.values()) > 1
    ),
    about_right=lambda m: abs(m["GPT-2, c_attn, r = 8"] - 90) < 2,
    too_much=lambda m: max(m.values()) < 60,
    always_the_same=lambda m: min(m.values()) > 99.98,
)
def by_how_much_lora_cuts() -> Measured:
    """Count by how many per cent LoRA cuts what trains, on models of three sizes."""
    gpt2, llama = ARCHITECTURES["gpt2"], ARCHITECTURES["llama-2-7b"]
    small = learned_to_reverse("lora", 2e-2)
    trains, there = ml.count_parameters(small)
    counts = {
        "GPT-2, c_attn, r = 8": (lora_parameters(gpt2, 8, "c_attn"), total_parameters(gpt2)),
        "GPT-2, every matrix, r = 8": (
            lora_parameters(gpt2, 8, "all-linear"),
            total_parameters(gpt2),
        ),
        "Llama-2-7B, q and v, r = 8": (
            lora_parameters(llama, 8, ["q_proj", "v_proj"]),
            total_parameters(llama),
        ),
        "words-tiny, every matrix, r = 2": (trains, there - trains),
    }
    return {name: 100 * (1 - lora / full) for name, (lora, full) in counts.items()}


@demo(
    shorter=lambda m: (
        0 < m["LoRA's ΔW, of full's length"] < 0.5
        and m["LoRA's loss, ten times the rate"] < m["LoRA's loss, same rate"] / 1.5
    ),
    longer=lambda m: m["LoRA's ΔW, of full's length"] > 2,
    same=lambda m: abs(m["LoRA's ΔW, of full's length"] - 1) < 0.1,
    zero=lambda m: m["LoRA's ΔW, of full's length"] == 0,
)
def lengths_at_the_same_rate() -> Measured:
    """Train words-tiny for 5 steps at a rate of 0.003, fully and with LoRA, and LoRA at 0.03."""
    base, words = ml.load_model("words-tiny"), new_words(np.random.default_rng(7))
    lora, full = (learned_to_reverse(method, 3e-3, steps=5) for method in ("lora", "full"))
    faster = learned_to_reverse("lora", 3e-2, steps=5)
    lora_delta, full_delta = (_all_in_one(delta_weights(base, model)) for model in (lora, full))
    return {
        "LoRA's ΔW, of full's length": ratio(lora_delta, full_delta),
        "LoRA's loss, same rate": cross_entropy_of(lora, words),
        "LoRA's loss, ten times the rate": cross_entropy_of(faster, words),
    }


def _all_in_one(matrices: dict[str, np.ndarray]) -> np.ndarray:
    return np.concatenate([M.ravel() for M in matrices.values()])


@demo(
    rate_too=lambda m: (
        m["error left, r = 4"] < 0.05
        and m["error left, r = 4, a hundredth of the rate"] > 0.5
        and m["error left, r = 1"] > 0.5
        and m["error left, r = 4, a hundredth of the rate, s = 4"] > 0.5
    ),
    rank_alone=lambda m: (
        abs(m["error left, r = 4"] - m["error left, r = 4, a hundredth of the rate"]) < 0.05
    ),
    rank_is_nothing=lambda m: abs(m["error left, r = 4"] - m["error left, r = 1"]) < 0.05,
    alpha_makes_up=lambda m: m["error left, r = 4, a hundredth of the rate, s = 4"] < 0.05,
)
def rank_beside_rate_and_scale() -> Measured:
    """Teach a layer a change of rank 4 in 100 steps, with other ranks, rates and scales."""
    task, good = teacher(4), 2e-2

    def error_left(r: int, lr: float, s: float = 1) -> float:
        losses = fit(with_lora(task.W, r, lora_alpha=s * r), task.x, task.y, 100, lr)
        return losses[-1] / losses[0]

    return {
        "error left, r = 4": error_left(4, good),
        "error left, r = 1": error_left(1, good),
        "error left, r = 4, a hundredth of the rate": error_left(4, good / 100),
        "error left, r = 4, a hundredth of the rate, s = 4": error_left(4, good / 100, s=4),
    }


@demo(
    root_r=lambda m: (
        near(m["length of ΔW, rule √r kept, of the first's"], m["√r"])
        and near(m["length of ΔW, rule α / r, of the first's"], 1)
    ),
    rounding=lambda m: near(m["length of ΔW, rule √r kept, of the first's"], 1),
    halved=lambda m: near(m["length of ΔW, rule √r kept, of the first's"], 1 / 2),
    scale_twice=lambda m: near(m["length of ΔW, rule √r kept, of the first's"], m["s"]),
)
def one_adapter_with_weight_one() -> Measured:
    """Train a layer with rsLoRA; put √s into A and B, and give the copy alpha = r by both rules."""
    task, r = teacher(4), 4
    first = with_lora(task.W, r, lora_alpha=6, use_rslora=True)
    fit(first, task.x, task.y, 30, 2e-2)
    adapter = adapter_of(first)
    lengths = {}
    for use_rslora in (True, False):
        combined = with_lora(task.W, r, lora_alpha=r, use_rslora=use_rslora)
        copied = adapter_of(combined)
        root = adapter.s**0.5
        copied.A.data, copied.B.data = adapter.A.data * root, adapter.B.data * root
        lengths[use_rslora] = ratio(copied.delta(task.W), adapter.delta(task.W))
    return {
        "√r": r**0.5,
        "s": adapter.s,
        "length of ΔW, rule √r kept, of the first's": lengths[True],
        "length of ΔW, rule α / r, of the first's": lengths[False],
    }


@demo(
    through_w=lambda m: (
        m["gradient of the first B"] > 0
        and m["gradient of the second B"] > 0
        and m["gradient of the second W"] == 0
        and m["gradient handed down by the second adapter"] == 0
    ),
    only_the_last=lambda m: m["gradient of the first B"] == 0 and m["gradient of the second B"] > 0,
    w_computed_too=lambda m: m["gradient of the second W"] > 0,
    none_yet=lambda m: m["gradient of the first B"] == 0 == m["gradient of the second B"],
)
def two_adapted_layers_in_a_row() -> Measured:
    """Put one adapted layer behind another, each B still zero, and take the gradients."""
    task = teacher(3)
    first, second = with_lora(task.W, 3), with_lora(task.W, 3)
    hidden = gelu(first[0](Tensor(task.x)))
    error = second[0](hidden) - Tensor(task.y)
    (error * error).mean().backward()
    B = [adapter_of(model).B for model in (first, second)]
    A = adapter_of(second).A.data
    down = 2 * error.data / error.data.size @ B[1].data.T @ A.T  # s (G Bᵀ) Aᵀ
    return {
        "gradient of the first B": norm_of(B[0].grad),
        "gradient of the second B": norm_of(B[1].grad),
        "gradient of the second W": norm_of(second[0].base.weight.grad),
        "gradient handed down by the second adapter": norm_of(down),
    }


@demo(
    formula=lambda m: m["q and v"] == 393_216 and m["q and v"] == 2 * m["one factor of each"],
    as_printed=lambda m: near(m["q and v"], 350_000),
    one_factor=lambda m: m["q and v"] == 196_608,
    all_four=lambda m: m["q and v"] == 786_432,
)
def numbers_of_gpt2_medium() -> Measured:
    """Make A and B of rank 4 for q and v in every block of GPT-2 Medium, and count them."""
    config, rng = ARCHITECTURES["gpt2-medium"], np.random.default_rng(0)
    W = np.zeros((config.n_embd, config.n_embd), np.float32)
    pairs = [initial_factors(W, 4, 1.0, True, rng) for _ in range(2 * config.n_layer)]
    return {
        "q and v": sum(A.size + B.size for A, B in pairs),
        "one factor of each": sum(A.size for A, _ in pairs),
    }
