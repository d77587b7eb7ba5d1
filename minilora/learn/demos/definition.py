"""What LoRA is, and what it is not: on a small model that reverses words, and on layers."""

from __future__ import annotations

import numpy as np

import minilora as ml
from minilora.analysis.profiler import profile
from minilora.analysis.subspaces import amplification
from minilora.learn.demos.demo import Measured, demo
from minilora.learn.demos.learners import (
    adapter_of,
    copy_of,
    cross_entropy_of,
    fit,
    learn_to_reverse,
    learned_to_reverse,
    loss_of,
    new_words,
    one_layer,
    rank_of,
    ratio,
    teacher,
    with_lora,
)
from minilora.lora import LowRank, lora_layers
from minilora.tensor import Tensor
from minilora.transformer import Transformer


def adapter_at(model: Transformer, path: str) -> LowRank:
    """The adapter of one layer."""
    return lora_layers(model)[path].adapters["default"]


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
    no_effect=lambda m: m["LoRA trains"] >= m["full fine-tuning trains"],
)
def what_is_lora() -> Measured:
    """Train words-tiny with LoRA for 12 steps to reverse words, and compare it with its base."""
    base, model = ml.load_model("words-tiny"), copy_of(learned_to_reverse("lora", 2e-2))
    layers = lora_layers(model)
    deltas = [ml.get_delta_weight(model, path) for path in layers]
    changed = sum(
        (layer.base.weight.data != base.get_submodule(path).weight.data).sum()
        for path, layer in layers.items()
    )
    adapters = [layer.adapters["default"] for layer in layers.values()]
    words = new_words(np.random.default_rng(7))
    before, after = (cross_entropy_of(one, words) for one in (base, model))
    few = words[0][:1, :3]  # of many rows the layer adds s A B to W first, as merging does
    trains, beside = ml.count_parameters(model)[0], model(few).data
    ml.merge_adapter(model)
    return {
        "r": adapters[0].A.shape[1],
        "least side of W": min(min(delta.shape) for delta in deltas),
        "rank of ΔW, highest": max(rank_of(delta) for delta in deltas),
        "entries of W that changed": changed,
        "numbers of all A and B": sum(a.A.size + a.B.size for a in adapters),
        "LoRA trains": trains,
        "full fine-tuning trains": ml.count_parameters(base)[0],
        "logits, merged and beside, differ by": float(np.abs(model(few).data - beside).max()),
        "loss after, per cent of before": 100 * after / before,
    }


@demo(
    update=lambda m: (
        m["rank of ΔW"] <= m["r"] < min(m["rank of W"], m["rank of W + ΔW"]) / 4
        and m["r"] < m["rank of W's gradient in full fine-tuning"] / 4
    ),
    pretrained=lambda m: m["rank of W"] <= m["r"],
    adapted=lambda m: m["rank of W + ΔW"] <= m["r"],
    gradient=lambda m: m["rank of W's gradient in full fine-tuning"] <= m["r"],
)
def what_has_low_rank() -> Measured:
    """Train words-tiny with LoRA, and count the ranks of the matrices of its first q_proj."""
    path, base = "layers.0.attn.q_proj", ml.load_model("words-tiny")
    delta = ml.get_delta_weight(learned_to_reverse("lora", 2e-2), path)
    ids, targets = new_words(np.random.default_rng(0))
    ml.cross_entropy(base(ids), targets).backward()
    W = base.layers[0].attn.q_proj.weight
    return {
        "r": adapter_at(learned_to_reverse("lora", 2e-2), path).A.shape[1],
        "rank of ΔW": rank_of(delta),
        "rank of W": rank_of(W.data),
        "rank of W + ΔW": rank_of(W.data + delta),
        "rank of W's gradient in full fine-tuning": rank_of(W.grad),
    }


@demo(
    adapter_only=lambda m: (
        m["share of A and B that changed"] > 0.9
        and m["numbers of W that changed"] == 0
        and m["biases and norms that changed"] == 0
        and m["numbers of the embeddings that changed"] == 0
    ),
    in_place=lambda m: (
        m["numbers of W that changed"] > 0 and m["share of A and B that changed"] == 0
    ),
    small_ones_too=lambda m: m["biases and norms that changed"] > 0,
    ends_too=lambda m: m["numbers of the embeddings that changed"] > 0,
)
def which_numbers_change() -> Measured:
    """Train words-tiny with LoRA, and compare every array with what it was before."""
    model, start = learned_to_reverse("lora", 2e-2), ml.load_model("words-tiny")
    lora = ml.LoraConfig(r=2, lora_alpha=4, target_modules="all-linear")
    ml.add_adapter(start, lora, rng=np.random.default_rng(0))
    before = dict(start.named_parameters())
    changed = {name: (p.data != before[name].data).sum() for name, p in model.named_parameters()}
    factors = [name for name in changed if ".adapters." in name]
    embeddings = [name for name in changed if "embed" in name]
    matrices = [name for name in changed if name.endswith("base.weight")]
    others = changed.keys() - {*factors, *embeddings, *matrices}
    return {
        "share of A and B that changed": sum(changed[name] for name in factors)
        / sum(before[name].size for name in factors),
        "numbers of W that changed": sum(changed[name] for name in matrices),
        "biases and norms that changed": sum(changed[name] for name in others),
        "numbers of the embeddings that changed": sum(changed[name] for name in embeddings),
    }


@demo(
    small_per_task=lambda m: (
        m["trained, of full's"] < 0.1
        and m["optimizer's bytes, of full's"] < 0.1
        and m["bytes on disk, of full's"] < 0.1
    ),
    more_accurate=lambda m: m["loss on the new task, of full's"] < 1,
    faster_answers=lambda m: m["numbers in the merged model, of the base's"] < 1,
    no_base_needed=lambda m: m["frozen numbers in memory, of the base's"] < 1,
)
def what_a_task_costs() -> Measured:
    """Train words-tiny to reverse words, fully and with LoRA, and compare what each leaves."""
    lora, full = learned_to_reverse("lora", 1e-2), learned_to_reverse("full", 3e-3)
    words = new_words(np.random.default_rng(7))
    base_size = ml.count_parameters(full)[1]
    trained, size = ml.count_parameters(lora)
    optimizers = [ml.AdamW(copy_of(model).trainable_parameters()) for model in (lora, full)]
    merged = copy_of(lora)
    ml.merge_and_unload(merged)
    return {
        "trained, of full's": trained / ml.count_parameters(full)[0],
        "optimizer's bytes, of full's": optimizers[0].state_bytes / optimizers[1].state_bytes,
        "bytes on disk, of full's": ml.disk_bytes(lora) / ml.disk_bytes(full),
        "loss on the new task, of full's": cross_entropy_of(lora, words)
        / cross_entropy_of(full, words),
        "numbers in the merged model, of the base's": ml.count_parameters(merged)[1] / base_size,
        "frozen numbers in memory, of the base's": (size - trained) / base_size,
    }


@demo(
    not_smaller=lambda m: (
        m["numbers of the base"] == m["numbers, merged"] < m["numbers, adapter beside"]
        and m["numbers, adapter beside"] < 1.1 * m["numbers of the base"]
        and m["blocks"] == m["blocks of the base"]
        and m["bytes a number"] == m["bytes a number of the base"]
    ),
    factors_for_w=lambda m: m["numbers, adapter beside"] < m["numbers of the base"],
    student=lambda m: m["blocks"] < m["blocks of the base"],
    doubles=lambda m: m["numbers, adapter beside"] > 1.5 * m["numbers of the base"],
)
def size_of_the_model_that_answers() -> Measured:
    """Train words-tiny with LoRA, merge the adapter, and compare the model with its base."""
    base, model = ml.load_model("words-tiny"), copy_of(learned_to_reverse("lora", 2e-2))
    beside = ml.count_parameters(model)[1]
    ml.merge_and_unload(model)
    return {
        "numbers of the base": ml.count_parameters(base)[1],
        "numbers, adapter beside": beside,
        "numbers, merged": ml.count_parameters(model)[1],
        "blocks of the base": len(base.layers),
        "blocks": len(model.layers),
        "bytes a number of the base": base.layers[0].mlp.up_proj.weight.data.itemsize,
        "bytes a number": model.layers[0].mlp.up_proj.weight.data.itemsize,
    }


@demo(
    fits_them=lambda m: (
        m["error on what is true"] > 100 * m["error after true examples only"]
        and m["distance covered towards the false answers"] > 0.3
    ),
    ignores_them=lambda m: m["error on what is true"] < 2 * m["error after true examples only"],
    refuses=lambda m: m["error left of what there was"] > 0.99,
    low_rank_filters=lambda m: m["error on what is true, at r = 1"] < 1e-3,
)
def what_false_examples_do() -> Measured:
    """Teach a layer a change of rank 1 with LoRA, once with half of the examples false."""
    true, false = teacher(1), teacher(1, seed=1)
    half = len(true.x) // 2
    false_y = true.x[half:] @ (true.W + false.delta)
    mixed = np.concatenate([true.y[:half], false_y])
    clean, dirty, thin = (with_lora(true.W, r) for r in (2, 2, 1))
    fit(clean, true.x, true.y, 150, 2e-2)
    losses = fit(dirty, true.x, mixed, 150, 2e-2)
    fit(thin, true.x, mixed, 150, 2e-2)
    learned = adapter_of(dirty).delta(true.W)
    return {
        "error after true examples only": loss_of(clean, true.x_new, true.y_new),
        "error on what is true": loss_of(dirty, true.x_new, true.y_new),
        "error on what is true, at r = 1": loss_of(thin, true.x_new, true.y_new),
        "error left of what there was": losses[-1] / losses[0],
        "distance covered towards the false answers": (learned * false.delta).sum()
        / (false.delta * false.delta).sum(),
    }


@demo(
    falls_short=lambda m: (
        m["LoRA's error"] > 100 * m["full fine-tuning's error"]
        and m["LoRA's error"] > 0.9 * m["least error at this rank"]
        and m["LoRA's error with twice the steps"] > 0.9 * m["least error at this rank"]
    ),
    more_accurate=lambda m: m["LoRA's error"] < m["full fine-tuning's error"],
    as_accurate=lambda m: (
        abs(m["LoRA's error"] - m["full fine-tuning's error"])
        < 0.05 * m["full fine-tuning's error"]
    ),
    more_steps=lambda m: m["LoRA's error with twice the steps"] < m["LoRA's error"] / 2,
)
def a_change_of_rank_eight_with_rank_two() -> Measured:
    """Teach a layer a change of rank 8, fully and with LoRA of rank 2, and measure on new data."""
    task = teacher(8)
    short, long, full = with_lora(task.W, 2), with_lora(task.W, 2), one_layer(task.W)
    fit(short, task.x, task.y, 150, 2e-2)
    fit(long, task.x, task.y, 300, 2e-2)
    fit(full, task.x, task.y, 150, 2e-2)
    least = ml.analysis.eckart_young_tail(task.delta, 2) / len(task.W)
    return {
        "LoRA's error": loss_of(short, task.x_new, task.y_new),
        "LoRA's error with twice the steps": loss_of(long, task.x_new, task.y_new),
        "full fine-tuning's error": loss_of(full, task.x_new, task.y_new),
        "least error at this rank": least,
    }


@demo(
    sum=lambda m: m["y differs from x (W + s A B) by"] < 1e-9,
    product_alone=lambda m: m["y differs from x (s A B) by"] < 1e-9,
    divided=lambda m: m["y differs from x (W + A B / s) by"] < 1e-9,
    factor_of_w=lambda m: m["y differs from x (W + s A B W) by"] < 1e-9,
)
def what_the_layer_computes() -> Measured:
    """Train an adapted layer without bias, and compare its output with four formulas."""
    task = teacher(3)
    model = with_lora(task.W, 3, lora_alpha=6)
    fit(model, task.x, task.y, 20, 2e-2)
    adapter, x = adapter_of(model), task.x_new
    A, B, s, W = adapter.A.data, adapter.B.data, adapter.s, task.W
    y = model[0](Tensor(x)).data
    formulas = {
        "x (W + s A B)": W + s * A @ B,
        "x (s A B)": s * A @ B,
        "x (W + A B / s)": W + A @ B / s,
        "x (W + s A B W)": W + s * A @ B @ W,
    }
    return {
        f"y differs from {formula} by": float(np.abs(x @ M - y).max())
        for formula, M in formulas.items()
    }


@demo(
    as_the_base=lambda m: (
        m["change of the output for this x"] < 1e-9 < m["change of the output for another x"]
        and m["length of the output for this x"] > 0.1
        and m["r"] < m["d_in"]
    ),
    zero=lambda m: m["length of the output for this x"] < 1e-9,
    a_share=lambda m: (
        m["change of the output for this x"] * m["d_in"]
        > 0.5 * m["change of the output for another x"] * m["r"]
    ),
    as_any_other=lambda m: (
        m["change of the output for this x"] > 0.5 * m["change of the output for another x"]
    ),
)
def an_input_that_the_adapter_does_not_see() -> Measured:
    """Train an adapted layer, and give it an input at right angles to every column of A."""
    task = teacher(3)
    model = with_lora(task.W, 3)
    fit(model, task.x, task.y, 60, 2e-2)
    A, other = adapter_of(model).A.data, task.x_new[:1]
    unseen = other - other @ A @ np.linalg.pinv(A)
    y, y_other = (model[0](Tensor(x)).data for x in (unseen, other))
    return {
        "r": A.shape[1],
        "d_in": A.shape[0],
        "change of the output for this x": np.linalg.norm(y - unseen @ task.W),
        "change of the output for another x": np.linalg.norm(y_other - other @ task.W),
        "length of the output for this x": np.linalg.norm(y),
    }


@demo(
    more_and_fewer=lambda m: (
        m["numbers in the model, after"] > m["numbers in the model, before"]
        and m["numbers that train, after"] < m["numbers that train, before"]
    ),
    more_and_more=lambda m: (
        m["numbers in the model, after"] > m["numbers in the model, before"]
        and m["numbers that train, after"] > m["numbers that train, before"]
    ),
    fewer_and_fewer=lambda m: (
        m["numbers in the model, after"] < m["numbers in the model, before"]
        and m["numbers that train, after"] < m["numbers that train, before"]
    ),
    same_and_fewer=lambda m: (
        m["numbers in the model, after"] == m["numbers in the model, before"]
        and m["numbers that train, after"] < m["numbers that train, before"]
    ),
)
def two_counts_before_and_after() -> Measured:
    """Load words-tiny, add an adapter, and count what is there and what trains."""
    model = ml.load_model("words-tiny")
    trains, there = ml.count_parameters(model)
    lora = ml.LoraConfig(r=4, target_modules="all-linear")
    ml.add_adapter(model, lora, rng=np.random.default_rng(0))
    trains_after, there_after = ml.count_parameters(model)
    return {
        "numbers in the model, before": there,
        "numbers in the model, after": there_after,
        "numbers that train, before": trains,
        "numbers that train, after": trains_after,
    }


@demo(
    rest_is_in_w=lambda m: (
        m["loss from the pretrained base"] < m["loss from random weights"] / 1.2
        and m["loss before, random weights"] > m["loss from random weights"]
        and m["gradient from random weights"] > 0
        and m["A starts the same"] == 1
    ),
    a_comes_from_w=lambda m: not m["A starts the same"],
    no_gradient=lambda m: m["gradient from random weights"] == 0,
    learns_as_well=lambda m: (
        abs(m["loss from the pretrained base"] - m["loss from random weights"])
        < 0.05 * m["loss from random weights"]
    ),
)
def lora_on_random_weights() -> Measured:
    """Train LoRA on reversing for 12 steps, on words-tiny and on its shape with random weights."""
    words = new_words(np.random.default_rng(7))
    trained = ml.load_model("words-tiny")
    random = Transformer(trained.config, rng=np.random.default_rng(0))
    lora = ml.LoraConfig(r=2, lora_alpha=4, target_modules="all-linear")
    for model in (trained, random):
        ml.add_adapter(model, lora, rng=np.random.default_rng(0))
    same = np.array_equal(
        adapter_at(trained, "layers.0.attn.q_proj").A.data,
        adapter_at(random, "layers.0.attn.q_proj").A.data,
    )
    before = cross_entropy_of(random, words)
    ids, targets = words
    ml.cross_entropy(random(ids), targets).backward()
    norm = ml.clip_grad_norm(random.trainable_parameters(), 1.0)
    learn_to_reverse(random, 2e-2, steps=12)
    return {
        "A starts the same": same,
        "gradient from random weights": norm,
        "loss before, random weights": before,
        "loss from random weights": cross_entropy_of(random, words),
        "loss from the pretrained base": cross_entropy_of(learned_to_reverse("lora", 2e-2), words),
    }


@demo(
    right=lambda m: (
        m["LoRA: rank of the change"] <= 2
        and m["LoRA: numbers of W that changed"] == 0
        and m["LoRA: numbers that compute, of W's"] > 1
        and m["quantization: different values"] <= 16 < m["LoRA: different values"]
        and m["quantization: numbers of W that changed"] > 0
        and m["pruning: share of zeros"] >= 0.5 > m["quantization: share of zeros"]
        and m["pruning: different values"] > 16
        and m["distillation: numbers, of the teacher's"] <= 0.5
        and m["distillation: error of the student, of the first"] < 0.9
    ),
    lora_is_quantization=lambda m: (
        m["LoRA: different values"] <= 16 and m["quantization: numbers of W that changed"] == 0
    ),
    quantization_is_pruning=lambda m: (
        m["quantization: share of zeros"] >= 0.5 and m["pruning: different values"] <= 16
    ),
    lora_is_distillation=lambda m: (
        m["LoRA: numbers that compute, of W's"] <= 0.5
        and m["distillation: numbers, of the teacher's"] == 1
    ),
)
def four_ways_to_make_something_small() -> Measured:
    """Do four things to one layer: adapt it, round it to 16 values, prune half of it, distil it."""
    task = teacher(2)
    W = task.W
    adapted = with_lora(W, 2)
    fit(adapted, task.x, task.y, 60, 2e-2)
    levels = np.quantile(W, (np.arange(16) + 0.5) / 16)
    rounded = levels[np.abs(W[..., None] - levels).argmin(-1)]
    pruned = np.where(np.abs(W) > np.median(np.abs(W)), W, 0)
    student = one_layer(np.zeros((len(W) // 2, len(W))))
    losses = fit(student, task.x[:, : len(W) // 2], task.x @ W, 60, 2e-2)
    adapter = adapter_of(adapted)
    return {
        "LoRA: rank of the change": rank_of(adapter.delta(W)),
        "LoRA: numbers of W that changed": (adapted[0].base.weight.data != W).sum(),
        "LoRA: different values": np.unique(W + adapter.delta(W)).size,
        "LoRA: numbers that compute, of W's": ml.count_parameters(adapted)[1] / W.size,
        "quantization: different values": np.unique(rounded).size,
        "quantization: numbers of W that changed": (rounded != W).sum(),
        "quantization: share of zeros": (rounded == 0).mean(),
        "pruning: share of zeros": (pruned == 0).mean(),
        "pruning: different values": np.unique(pruned).size,
        "distillation: numbers, of the teacher's": ml.count_parameters(student)[1] / W.size,
        "distillation: error of the student, of the first": losses[-1] / losses[0],
    }


@demo(
    fewer_operations=lambda m: (
        m["operations forward, of the base's"] >= 1
        and m["operations back, of full fine-tuning's"] < 1
        and m["logits that differ at the start"] == 0
        and m["logits that differ after removal"] == 0
        and m["optimizer's bytes, of full's"] < 0.1
    ),
    base_back=lambda m: m["logits that differ after removal"] > 0,
    small_optimizer=lambda m: m["optimizer's bytes, of full's"] > 0.5,
    start_at_base=lambda m: m["logits that differ at the start"] > 0,
)
def what_lora_brings() -> Measured:
    """Count operations, bytes and changed logits of words-tiny with LoRA beside full tuning."""
    base, model = ml.load_model("words-tiny"), ml.load_model("words-tiny")
    lora = ml.LoraConfig(r=2, lora_alpha=4, target_modules="all-linear")
    ml.add_adapter(model, lora, rng=np.random.default_rng(0))
    ids, targets = new_words(np.random.default_rng(7))
    at_start = (model(ids).data != base(ids).data).sum()
    forward, back = [], []
    for one in (model, base):
        with profile() as seen:
            ml.cross_entropy(one(ids), targets).backward()
        forward.append(sum(cost.forward_flops for cost in seen.ops.values()))
        back.append(sum(cost.backward_flops for cost in seen.ops.values()))
    trained = copy_of(learned_to_reverse("lora", 2e-2))
    ml.delete_adapter(trained, "default")
    states = [ml.AdamW(one.trainable_parameters()).state_bytes for one in (model, base)]
    return {
        "operations forward, of the base's": forward[0] / forward[1],
        "operations back, of full fine-tuning's": back[0] / back[1],
        "logits that differ at the start": at_start,
        "logits that differ after removal": (trained(ids).data != base(ids).data).sum(),
        "optimizer's bytes, of full's": states[0] / states[1],
    }


@demo(
    the_same=lambda m: (
        m["ΔW differs by, of its length"] < 1e-6
        and m["outputs differ by, of their length"] < 1e-6
        and m["share of A and B that is another number"] > 0.9
        and m["rank of ΔW"] == m["rank of ΔW, before"]
    ),
    mirrored=lambda m: abs(m["ΔW differs by, of its length"] - 2) < 1e-6,
    another_task=lambda m: m["outputs differ by, of their length"] > 0.01,
    rank_changes=lambda m: m["rank of ΔW"] != m["rank of ΔW, before"],
)
def other_factors_of_one_change() -> Measured:
    """Train a layer with LoRA, multiply A by a random M and B by its inverse, and compare."""
    task = teacher(4)
    model = with_lora(task.W, 4)
    fit(model, task.x, task.y, 60, 2e-2)
    adapter = adapter_of(model)
    A, B, delta = adapter.A.data, adapter.B.data, adapter.delta(task.W)
    y = model[0](Tensor(task.x_new)).data
    M = np.random.default_rng(0).standard_normal((4, 4))
    adapter.A.data, adapter.B.data = A @ M, np.linalg.inv(M) @ B
    changed = adapter.delta(task.W)
    others = (~np.isclose(adapter.A.data, A)).sum() + (~np.isclose(adapter.B.data, B)).sum()
    off = model[0](Tensor(task.x_new)).data - y
    return {
        "share of A and B that is another number": others / (A.size + B.size),
        "ΔW differs by, of its length": ratio(changed - delta, delta),
        "outputs differ by, of their length": ratio(off, y),
        "rank of ΔW, before": rank_of(delta),
        "rank of ΔW": rank_of(changed),
    }


@demo(
    amplifies=lambda m: (
        1.5 * m["W along random directions"]
        < m["W along those of ΔW"]
        < m["W along its own strongest"] / 3
        and m["ΔW along its own"] > 2 * m["W along those of ΔW"]
    ),
    top_directions=lambda m: m["W along those of ΔW"] > 0.8 * m["W along its own strongest"],
    random=lambda m: (
        abs(m["W along those of ΔW"] - m["W along random directions"])
        < 0.3 * m["W along random directions"]
    ),
    new_ones=lambda m: m["W along those of ΔW"] < 0.5 * m["W along random directions"],
)
def w_along_the_directions_of_its_change() -> Measured:
    """Train words-tiny with LoRA; measure every W of its last block along three directions."""
    rng, found = np.random.default_rng(0), []
    layers = lora_layers(learned_to_reverse("lora", 2e-2))
    for layer in [layer for path, layer in layers.items() if path.startswith("layers.3.")]:
        W, delta = layer.base.weight.data, layer.delta_weight("default")
        found.append(amplification(W, delta, 2, rng))
    return {
        "W along those of ΔW": float(np.mean([one.projected for one in found])),
        "W along its own strongest": float(np.mean([one.own for one in found])),
        "W along random directions": float(np.mean([one.random for one in found])),
        "ΔW along its own": float(np.mean([one.delta_norm for one in found])),
    }
