"""What merging, swapping, combining, saving and loading adapters really does, on tiny models."""

from __future__ import annotations

from typing import Any

import numpy as np

import minilora as ml
from minilora.analysis.profiler import profile
from minilora.hub.safetensors_files import read_safetensors
from minilora.learn.demos.demo import Measured, demo
from minilora.learn.demos.small_models import (
    IDS,
    difference,
    learn_text,
    loss_of,
    moved_adapter,
    one_linear,
    tiny_gpt2,
    tiny_llama,
)
from minilora.lora import lora_layers
from minilora.system.errors import UsageError
from minilora.system.files import temporary_folder

SAME = 1e-5  # float32 results that differ by less are the same but for rounding


@demo(
    half=lambda m: m["W + s A B / 2, off the mean"] < SAME and m["ΔW, largest entry"] > 0.1,
    quarter=lambda m: m["W + s A B / 4, off the mean"] < SAME,
    root=lambda m: m["W + √s A B, off the mean"] < SAME,
    half_of_all=lambda m: m["(W + s A B) / 2, off the mean"] < SAME,
)
def half_an_adapter() -> Measured:
    """Take the mean of a weight before and after merging, and compare four formulas with it."""
    model = one_linear(32, 32)
    moved_adapter(model, lora_alpha=12, target_modules=["0"])
    adapter = model[0].adapters["default"]
    W, A, B, s = model[0].base.weight.data, adapter.A.data, adapter.B.data, adapter.s
    ml.merge_adapter(model)
    merged = model[0].base.weight.data
    mean = (W + merged) / 2
    return {
        "W + s A B / 2, off the mean": difference(W + s * A @ B / 2, mean),
        "W + s A B / 4, off the mean": difference(W + s * (A / 2) @ (B / 2), mean),
        "W + √s A B, off the mean": difference(W + np.sqrt(s) * A @ B, mean),
        "(W + s A B) / 2, off the mean": difference(merged / 2, mean),
        "ΔW, largest entry": difference(merged, W),
    }


def _operations(model: Any, x: np.ndarray) -> int:
    """Floating-point operations of all matrix products for this input."""
    with profile() as seen:
        model(x)
    return sum(cost.forward_flops for cost in seen.ops.values())


@demo(
    like_base=lambda m: (
        m["operations, merged"] == m["operations, base"] < m["operations, beside"]
        and m["parameters, merged"] == m["parameters, base"]
    ),
    slower=lambda m: m["operations, merged"] > m["operations, base"],
    faster=lambda m: m["operations, merged"] < m["operations, base"],
    larger=lambda m: m["parameters, merged"] > m["parameters, base"],
)
def cost_of_a_merged_model() -> Measured:
    """Count the arithmetic for one symbol, and the parameters: base, adapter beside, merged."""
    model = tiny_gpt2()
    measured: Measured = {"parameters, base": ml.count_parameters(model)[1]}
    one = IDS[:1, :1]
    measured["operations, base"] = _operations(model, one)
    moved_adapter(model, target_modules="all-linear")
    measured["operations, beside"] = _operations(model, one)
    ml.merge_and_unload(model)
    measured["operations, merged"] = _operations(model, one)
    return measured | {"parameters, merged": ml.count_parameters(model)[1]}


@demo(
    two_thin=lambda m: m["products more, for one row"] == m["r"] * (m["d_in"] + m["d_out"]),
    whole_matrix=lambda m: m["products more, for one row"] == m["d_in"] * m["d_out"],
    through_delta=lambda m: m["products more, for one row"] == m["r"] * m["d_in"] * m["d_out"],
    rank_only=lambda m: m["products more, for one row"] == 2 * m["r"] == 16,
)
def extra_work_beside_a_layer() -> Measured:
    """Count the multiplications of a 4,096 x 1,024 layer for one row, bare and with rank 8."""
    d_in, d_out, r = 4096, 1024, 8
    model, x = one_linear(d_in, d_out), np.ones((1, d_in), np.float32)
    bare = _operations(model[0], x)
    moved_adapter(model, r=r, target_modules=["0"])
    more = (_operations(model[0], x) - bare) / 2  # a product and a sum are two operations
    return {"d_in": d_in, "d_out": d_out, "r": r, "products more, for one row": more}


@demo(
    rounding=lambda m: (
        m["share of W changed by adding and subtracting"] > 0.05
        and 0 < m["largest change, of the largest weight"] < 1e-5
        and m["share of W changed by putting W back"] == 0
    ),
    exact=lambda m: m["share of W changed by adding and subtracting"] == 0,
    lost=lambda m: m["largest change, of the largest weight"] > 0.01,
    copy_rounds_too=lambda m: m["share of W changed by putting W back"] > 0,
)
def undoing_a_merge() -> Measured:
    """Merge into a 64 x 64 weight and undo it in two ways: subtract ΔW, or put W back."""
    model = one_linear(64, 64)
    moved_adapter(model, target_modules=["0"])
    W, delta = model[0].base.weight.data.copy(), ml.get_delta_weight(model, "0")
    subtracted = (W + delta) - delta
    ml.merge_adapter(model)
    ml.unmerge_adapter(model)
    return {
        "share of W changed by adding and subtracting": float((subtracted != W).mean()),
        "largest change, of the largest weight": difference(subtracted, W) / np.abs(W).max(),
        "share of W changed by putting W back": float((model[0].base.weight.data != W).mean()),
    }


@demo(
    twice=lambda m: m["merged twice, off W + 2 s A B"] < SAME and m["ΔW, largest entry"] > 0.1,
    once=lambda m: m["merged twice, off W + s A B"] < SAME,
    undone=lambda m: m["merged twice, off W"] < SAME,
    squared=lambda m: m["merged twice, off W + (s A B)²"] < SAME,
)
def merging_twice() -> Measured:
    """Add s A B to a weight twice, and compare it with what each reading predicts."""
    model = one_linear(32, 32)
    moved_adapter(model, target_modules=["0"])
    W, delta = model[0].base.weight.data, ml.get_delta_weight(model, "0")
    twice = W.copy()
    for _ in range(2):
        twice += delta
    return {
        "merged twice, off W + 2 s A B": difference(twice, W + 2 * delta),
        "merged twice, off W + s A B": difference(twice, W + delta),
        "merged twice, off W": difference(twice, W),
        "merged twice, off W + (s A B)²": difference(twice, W + delta @ delta),
        "ΔW, largest entry": float(np.abs(delta).max()),
    }


@demo(
    nothing=lambda m: (
        m["first 2 then 4, off first 4 then 2"] < SAME
        and m["first 2 then 4, off W + both ΔW"] < SAME
        and m["ΔW of the shape of W"] == 2
    ),
    from_new_w=lambda m: m["first 2 then 4, off first 4 then 2"] > 1e-3,
    overwrites=lambda m: m["first 2 then 4, off W + the last ΔW"] < SAME,
    same_rank=lambda m: m["ΔW of the shape of W"] < 2,
)
def two_merges_in_either_order() -> Measured:
    """Merge an adapter of rank 2 and one of rank 4 into one layer, in both orders."""
    W, merged, deltas = one_linear(24, 40)[0].weight.data, [], {}
    for order in ((2, 4), (4, 2)):
        model = one_linear(24, 40)
        for r in order:
            moved_adapter(model, seed=r, r=r, target_modules=["0"])
            deltas[r] = ml.get_delta_weight(model, "0")
            ml.merge_and_unload(model)
        merged.append(model[0].weight.data)
    return {
        "first 2 then 4, off first 4 then 2": difference(*merged),
        "first 2 then 4, off W + both ΔW": difference(merged[0], W + deltas[2] + deltas[4]),
        "first 2 then 4, off W + the last ΔW": difference(merged[0], W + deltas[4]),
        "ΔW of the shape of W": sum(delta.shape == W.shape for delta in deltas.values()),
    }


def _all_numbers(model: ml.Module) -> np.ndarray:
    return np.concatenate([p.data.ravel() for p in model.parameters()])


@demo(
    which_factors=lambda m: (
        m["weights that switching changed"] == 0
        and m["logits of P before and after using Q differ by"] == 0
        and m["logits of P and Q differ by"] > 0.01
        and m["logits of P, merged and beside, differ by"] < 1e-3
    ),
    swapped_in_w=lambda m: m["weights that switching changed"] > 0,
    same_rank=lambda m: m["logits of P and Q differ by"] == 0,
    must_merge=lambda m: m["logits of P, merged and beside, differ by"] > 0.01,
)
def switching_adapters() -> Measured:
    """Answer with adapter P, with Q and with P again, and look at all numbers of the model."""
    model, logits = tiny_gpt2(), []
    for seed, name in enumerate("PQ"):
        moved_adapter(model, name, seed)
    before = _all_numbers(model)
    for name in "PQP":
        ml.set_adapter(model, name)
        logits.append(model(IDS).data)
    changed = int((_all_numbers(model) != before).sum())
    ml.merge_adapter(model)
    return {
        "weights that switching changed": changed,
        "logits of P before and after using Q differ by": difference(logits[0], logits[2]),
        "logits of P and Q differ by": difference(logits[0], logits[1]),
        "logits of P, merged and beside, differ by": difference(logits[0], model(IDS)),
    }


@demo(
    same_array=lambda m: (
        m["put back, off W"] > 0.1 and m["put back, off W + ΔW"] == 0 == m["with copy(), off W"]
    ),
    works=lambda m: m["put back, off W"] == 0,
    minus=lambda m: m["put back, off W - ΔW"] < SAME,
    copy_too=lambda m: m["with copy(), off W"] > 0,
)
def keeping_w_without_a_copy() -> Measured:
    """Run the three lines on a 16 x 16 array, and again with a copy; see what is put back."""
    model = one_linear(16, 16)
    moved_adapter(model, target_modules=["0"])
    W, delta = model[0].base.weight.data.copy(), ml.get_delta_weight(model, "0")
    put_back = []
    for copied in (False, True):
        weight = W.copy()
        kept = weight.copy() if copied else weight
        weight += delta
        put_back.append(kept)
    return {
        "put back, off W": difference(put_back[0], W),
        "put back, off W + ΔW": difference(put_back[0], W + delta),
        "put back, off W - ΔW": difference(put_back[0], W - delta),
        "with copy(), off W": difference(put_back[1], W),
    }


def _can_unmerge(model: ml.Transformer) -> bool:
    try:
        ml.unmerge_adapter(model)
    except UsageError:
        return False
    return True


@demo(
    stays=lambda m: (
        m["logits, off the merged model's"] < SAME
        and m["logits, off the base's"] > 0.01
        and m["can be unmerged afterwards"] == 0
        and m["adapters left"] == 0
    ),
    base_again=lambda m: m["logits, off the base's"] < SAME,
    still_undone=lambda m: m["can be unmerged afterwards"] == 1,
    kept_hidden=lambda m: m["adapters left"] > 0,
)
def removing_what_is_merged() -> Measured:
    """Merge an adapter, remove its A and B, and compare the model with base and merged model."""
    model = tiny_gpt2()
    base = model(IDS)
    moved_adapter(model)
    ml.merge_adapter(model)
    merged = model(IDS)
    ml.merge_and_unload(model)
    return {
        "logits, off the merged model's": difference(model(IDS), merged),
        "logits, off the base's": difference(model(IDS), base),
        "adapters left": len(lora_layers(model)),
        "can be unmerged afterwards": _can_unmerge(model),
    }


@demo(
    per_row=lambda m: m["one x W, then each row's own s A B: off"] < SAME,
    averaged=lambda m: m["mean of the adapters for all rows: off"] < SAME,
    all_merged=lambda m: m["all adapters merged into W: off"] < SAME,
    largest=lambda m: m["the first row's adapter for all rows: off"] < SAME,
)
def tenants_in_one_batch() -> Measured:
    """Serve a batch of three rows, each with an adapter of its own, in four ways."""
    model = one_linear(24, 40)
    for seed, name in enumerate("abc"):
        moved_adapter(model, name, seed, target_modules=["0"])
    W, adapters = model[0].base.weight.data, model[0].adapters
    x = np.random.default_rng(9).standard_normal((3, 24)).astype(np.float32)
    wanted = []
    for name, row in zip("abc", x, strict=True):
        ml.set_adapter(model, name)
        wanted.append(model[0](row[None]).data[0])
    A, B = (np.stack([getattr(a, part).data for a in adapters.values()]) for part in "AB")
    deltas = [ml.get_delta_weight(model, "0", name) for name in "abc"]
    each = ((x[:, None] @ A) @ B)[:, 0] * adapters["a"].s  # (3, 1, 24) (3, 24, r) (3, r, 40)
    return {
        "one x W, then each row's own s A B: off": difference(x @ W + each, wanted),
        "mean of the adapters for all rows: off": difference(x @ (W + sum(deltas) / 3), wanted),
        "all adapters merged into W: off": difference(x @ (W + sum(deltas)), wanted),
        "the first row's adapter for all rows: off": difference(x @ (W + deltas[0]), wanted),
    }


@demo(
    cross_terms=lambda m: (
        m["mean of A times mean of B, relative error"] > 0.5
        and m["A side by side, B stacked, relative error"] < SAME
        and m["rank of the mean of ΔW"] == 2 * m["r"]
    ),
    same=lambda m: m["mean of A times mean of B, relative error"] < SAME,
    sum_instead=lambda m: m["sum of A times sum of B, relative error"] < SAME,
    impossible=lambda m: m["rank of the mean of ΔW"] > 2 * m["r"],
)
def averaging_two_adapters() -> Measured:
    """Average two adapters of rank 4, factor by factor and exactly, and compare with the mean."""
    model = one_linear(48, 48)
    for seed, name in enumerate("ab"):
        moved_adapter(model, name, seed, target_modules=["0"])
    a, b = model[0].adapters["a"], model[0].adapters["b"]
    mean = (ml.get_delta_weight(model, "0", "a") + ml.get_delta_weight(model, "0", "b")) / 2
    A, B, s = np.hstack([a.A.data, b.A.data]), np.vstack([a.B.data, b.B.data]), a.s

    def error(delta: np.ndarray) -> float:
        return float(np.linalg.norm(delta - mean) / np.linalg.norm(mean))

    A_sum, B_sum = a.A.data + b.A.data, a.B.data + b.B.data
    return {
        "mean of A times mean of B, relative error": error(s * (A_sum / 2) @ (B_sum / 2)),
        "sum of A times sum of B, relative error": error(s * A_sum @ B_sum),
        "A side by side, B stacked, relative error": error(s * A @ B / 2),
        "r": len(a.B.data),
        "rank of the mean of ΔW": int(np.linalg.matrix_rank(mean, tol=1e-4)),
    }


@demo(
    silent_nonsense=lambda m: (
        m["loads on another base"] == 1
        and m["loss, own base"] < 0.5 * m["loss, untrained"]
        and m["loss, other base"] > 0.9 * m["loss, untrained"]
        and m["tensors of the base in the file"] == 0
    ),
    refused=lambda m: not m["loads on another base"],
    same_result=lambda m: abs(m["loss, other base"] - m["loss, own base"]) < 0.1,
    brings_base=lambda m: m["tensors of the base in the file"] > 0,
)
def adapter_on_another_base() -> Measured:
    """Train an adapter on one tiny model, then load it into another of the same shapes."""
    own, other = tiny_llama(0), tiny_llama(1)
    untrained = loss_of(own, IDS)
    everything = ml.LoraConfig(r=4, lora_alpha=8, target_modules="all-linear")
    ml.add_adapter(own, everything, rng=np.random.default_rng(0))
    trained = learn_text(own, IDS, steps=40, lr=2e-2)
    with temporary_folder() as scratch:
        ml.save_adapter(own, scratch)
        keys = read_safetensors(scratch / "adapter_model.safetensors")
        try:
            ml.load_adapter(other, scratch)
            loads = True
        except UsageError:
            loads = False
    return {
        "loss, untrained": untrained,
        "loss, own base": trained,
        "loss, other base": loss_of(other, IDS),
        "loads on another base": loads,
        "tensors of the base in the file": sum("lora_" not in key for key in keys),
    }


def _head_after_reloading(listed: bool) -> tuple[float, float, int, float]:
    """Train LoRA and the head, listed in modules_to_save or unfrozen by hand; save and reload. The
    loss before and after, how many tensors of the head were in the file, and how far ΔW is off."""
    names = ("head",) if listed else ()
    model, fresh = tiny_llama(), tiny_llama()
    config = ml.LoraConfig(target_modules=["v_proj"], modules_to_save=names)
    ml.add_adapter(model, config, rng=np.random.default_rng(0))
    model.head.requires_grad_(True)
    before = learn_text(model, IDS, steps=50, lr=5e-2)
    with temporary_folder() as scratch:
        ml.save_adapter(model, scratch)
        ml.load_adapter(fresh, scratch)
        keys = read_safetensors(scratch / "adapter_model.safetensors")
    path = "layers.0.attn.v_proj"
    off = difference(ml.get_delta_weight(model, path), ml.get_delta_weight(fresh, path))
    return before, loss_of(fresh, IDS), sum("head" in key for key in keys), off


@demo(
    not_in_file=lambda m: (
        m["by hand: tensors of the head in the file"] == 0
        and m["by hand: loss after reloading, times before"] > 2
        and m["by hand: ΔW after reloading, off"] == 0
        and m["in modules_to_save: loss after reloading, times before"] < 1.001
    ),
    head_saved=lambda m: m["by hand: tensors of the head in the file"] > 0,
    rounded=lambda m: m["by hand: ΔW after reloading, off"] > 1e-4,
    lost_anyway=lambda m: m["in modules_to_save: loss after reloading, times before"] > 1.1,
)
def a_head_trained_by_hand() -> Measured:
    """Train LoRA and the head of a tiny model, save the adapter, load it into a fresh model."""
    by_hand, listed = _head_after_reloading(False), _head_after_reloading(True)
    return {
        "by hand: loss after reloading, times before": by_hand[1] / by_hand[0],
        "by hand: tensors of the head in the file": by_hand[2],
        "by hand: ΔW after reloading, off": by_hand[3],
        "in modules_to_save: loss after reloading, times before": listed[1] / listed[0],
    }


@demo(
    frozen=lambda m: (
        m["numbers that train after loading"] == 0
        and m["logits, before saving and after loading, differ by"] < SAME
        and m["numbers that train when switched on"] > 0
        and m["loss after 10 more steps, of before"] < 0.95
    ),
    empty=lambda m: m["logits, loaded and base, differ by"] < SAME,
    merged=lambda m: m["entries of W that loading changed"] > 0,
    finished=lambda m: m["loss after 10 more steps, of before"] >= 1,
)
def training_a_loaded_adapter() -> Measured:
    """Save a trained adapter, load it frozen as PEFT does, then switch its gradients on."""
    model = tiny_llama()
    ml.add_adapter(model, ml.LoraConfig(), rng=np.random.default_rng(0))
    learn_text(model, IDS, steps=10, lr=1e-2)
    loaded, base = tiny_llama(), tiny_llama()
    with temporary_folder() as scratch:
        ml.save_adapter(model, scratch)
        ml.load_adapter(loaded, scratch)
    loaded.requires_grad_(False)  # PeftModel.from_pretrained without is_trainable=True
    measured: Measured = {
        "numbers that train after loading": ml.count_parameters(loaded)[0],
        "logits, before saving and after loading, differ by": difference(model(IDS), loaded(IDS)),
        "logits, loaded and base, differ by": difference(loaded(IDS), base(IDS)),
        "entries of W that loading changed": sum(
            int((layer.base.weight.data != base.get_submodule(path).weight.data).sum())
            for path, layer in lora_layers(loaded).items()
        ),
    }
    ml.set_adapter(loaded, "default")  # lets A and B train
    before = loss_of(loaded, IDS)
    return measured | {
        "numbers that train when switched on": ml.count_parameters(loaded)[0],
        "loss after 10 more steps, of before": learn_text(loaded, IDS, 10, 2e-2) / before,
    }


def _served(order: str) -> int:
    """How many of the tasks P and Q a matrix serves, first P, then Q, if steps have this order."""
    model = one_linear(16, 16)
    for seed, name in enumerate("PQ"):
        moved_adapter(model, name, seed, target_modules=["0"])
    start = model[0].base.weight.data
    P, Q = (ml.get_delta_weight(model, "0", name) for name in "PQ")
    W, kept, wanted = start.copy(), None, [start + P, start + Q]
    for step in order.split():
        if step == "1":
            W = W + Q
        elif step == "2" and kept is not None:
            W = kept
        elif step == "3":
            kept = W.copy()
        elif step == "4":
            W = W + P
        if wanted and difference(W, wanted[0]) < SAME:
            wanted.pop(0)
    return 2 - len(wanted)


@demo(
    copy_first=lambda m: m["tasks served by 3 4 2 1"] == 2,
    copy_second=lambda m: m["tasks served by 4 3 2 1"] == 2,
    back_last=lambda m: m["tasks served by 3 4 1 2"] == 2,
    back_second=lambda m: m["tasks served by 4 2 3 1"] == 2,
)
def order_of_two_merges() -> Measured:
    """Carry out four orders of the steps on a 16 x 16 weight, and count the tasks it serves."""
    orders = ("3 4 2 1", "4 3 2 1", "3 4 1 2", "4 2 3 1")
    return {f"tasks served by {order}": _served(order) for order in orders}
