"""Full fine-tuning and other methods beside LoRA: what each trains, keeps and can learn."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

import minilora as ml
from minilora.analysis import delta_weights
from minilora.analysis.profiler import profile
from minilora.functional import gelu
from minilora.learn.demos.demo import Measured, demo
from minilora.learn.demos.small_models import (
    IDS,
    difference,
    learn_text,
    minimize,
    one_linear,
    squared,
    tiny_gpt2,
)
from minilora.methods.registry import METHODS
from minilora.text.windows import IGNORE_INDEX

LORA = ml.LoraConfig(r=2, lora_alpha=4, target_modules=["q_proj", "v_proj"])
EVERYWHERE = ml.LoraConfig(r=2, lora_alpha=4, target_modules="all-linear")


def _noise(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def _prepared(method: str) -> ml.Transformer:
    """A tiny GPT-2 made ready for a method, and all that trains moved a little."""
    model, rng = tiny_gpt2(), np.random.default_rng(0)
    METHODS[method].prepare(model, LORA, rng)
    for p in model.trainable_parameters():
        p.data += 0.1 * rng.standard_normal(p.shape).astype(p.dtype)
    return model


def _own_and_new(method: str) -> tuple[int, int, int]:
    """How many of the model's own numbers train, how many new ones, and how many entries of its
    weight matrices are changed by that."""
    base, model = tiny_gpt2(), tiny_gpt2()
    own = {id(p) for p in model.parameters()}
    METHODS[method].prepare(model, LORA, np.random.default_rng(0))
    trained = model.trainable_parameters()
    for p in trained:
        p.data += 0.1
    changed = sum(int((delta != 0).sum()) for delta in delta_weights(base, model).values())
    of_the_base = sum(p.size for p in trained if id(p) in own)
    return of_the_base, sum(p.size for p in trained) - of_the_base, changed


@demo(
    right=lambda m: (
        m["BitFit: new numbers that train"] == 0
        and m["bottleneck: entries of W in effect changed"] == 0
        and m["prefix: own numbers that train"] == 0 == m["LoRA: own numbers that train"]
        and m["LoRA: entries of W in effect changed"] > 0
    ),
    adapter_merges=lambda m: m["bottleneck: entries of W in effect changed"] > 0,
    prefix_selects=lambda m: (
        m["prefix: own numbers that train"] > 0 or m["BitFit: new numbers that train"] > 0
    ),
    lora_selects=lambda m: m["LoRA: own numbers that train"] > 0,
)
def families_of_methods() -> Measured:
    """Prepare a tiny model for four methods, move what trains, and see whose numbers these are."""
    _, bitfit_new, _ = _own_and_new("bitfit")
    _, _, bottleneck_changed = _own_and_new("adapter")
    prefix_own, _, _ = _own_and_new("prefix")
    lora_own, _, lora_changed = _own_and_new("lora")
    return {
        "BitFit: new numbers that train": bitfit_new,
        "bottleneck: entries of W in effect changed": bottleneck_changed,
        "prefix: own numbers that train": prefix_own,
        "LoRA: own numbers that train": lora_own,
        "LoRA: entries of W in effect changed": lora_changed,
    }


@demo(
    biases=lambda m: m["biases that train"] == m["numbers that train"] == m["biases there are"],
    norms=lambda m: m["numbers of norms that train"] == m["numbers that train"],
    head=lambda m: m["numbers of the embedding and head that train"] > 0,
    last_block=lambda m: m["numbers in the first block that train"] == 0,
)
def what_bitfit_trains() -> Measured:
    """Prepare a tiny GPT-2 for BitFit, and count what trains by its name."""
    model = _prepared("bitfit")
    trained = {name: p.size for name, p in model.named_parameters() if p.requires_grad}

    def count(word: str) -> int:
        return sum(size for name, size in trained.items() if word in name)

    every = sum(p.size for name, p in model.named_parameters() if name.endswith("bias"))
    return {
        "numbers that train": sum(trained.values()),
        "biases that train": count("bias"),
        "biases there are": every,
        "numbers of norms that train": count("norm"),
        "numbers of the embedding and head that train": count("embed") + count("head"),
        "numbers in the first block that train": count("layers.0."),
    }


def _operations(model: ml.Transformer) -> int:
    with profile() as seen:
        model(IDS[:1, :1])
    return sum(cost.forward_flops for cost in seen.ops.values())


def _bend(f: Callable[[np.ndarray], ml.Tensor]) -> float:
    """How far a layer is from f(x) + f(y) = f(x + y) + f(0), which holds if it is x M + b."""
    x, y = _noise(4, 16), _noise(4, 16, seed=1)
    return difference(f(x) + f(y), f(x + y) + f(0 * x))


@demo(
    cannot_fold=lambda m: (
        m["bottleneck: distance from a linear map"] > 0.001
        and m["LoRA: distance from a linear map"] < 1e-5
        and m["bottleneck: operations, of the base's"] > 1
        and m["LoRA merged: operations, of the base's"] == 1
    ),
    both_fold=lambda m: m["bottleneck: distance from a linear map"] < 1e-5,
    neither=lambda m: m["LoRA merged: operations, of the base's"] > 1,
    bottleneck_free=lambda m: m["bottleneck: operations, of the base's"] == 1,
)
def bottleneck_at_inference() -> Measured:
    """Ask whether a layer with a bottleneck, or with LoRA, is still linear; count operations."""
    base = _operations(tiny_gpt2())
    bottleneck, lora = _prepared("adapter"), _prepared("lora")
    measured: Measured = {
        "bottleneck: distance from a linear map": _bend(bottleneck.layers[0].attn.o_proj),
        "LoRA: distance from a linear map": _bend(lora.layers[0].attn.q_proj),
        "bottleneck: operations, of the base's": _operations(bottleneck) / base,
    }
    ml.merge_and_unload(lora)
    return measured | {"LoRA merged: operations, of the base's": _operations(lora) / base}


def _vectors_in_front(method: str) -> tuple[ml.Transformer, dict[str, np.ndarray]]:
    """A tiny model after three steps of a method, and what trained, by path."""
    model = tiny_gpt2()
    METHODS[method].prepare(model, LORA, np.random.default_rng(0))
    learn_text(model, IDS, steps=3, lr=2e-2)
    return model, {name: p.data for name, p in model.named_parameters() if p.requires_grad}


@demo(
    input_and_layers=lambda m: (
        m["prompt tuning: arrays that train"] == 1
        and m["prefix tuning: arrays that train in each block"] == 2
        and m["prompt tuning: rows of the embedding that changed"] == 0
        and m["prompt tuning: vectors that are embeddings of symbols"] == 0
    ),
    swapped=lambda m: (
        m["prompt tuning: arrays that train"] > m["prefix tuning: arrays that train in each block"]
    ),
    words=lambda m: m["prompt tuning: vectors that are embeddings of symbols"] > 0,
    table=lambda m: m["prompt tuning: rows of the embedding that changed"] > 0,
)
def prompt_and_prefix() -> Measured:
    """Take three steps of prompt tuning and of prefix tuning, and look at all that changed."""
    prompted, prompt = _vectors_in_front("prompt")
    _, prefix = _vectors_in_front("prefix")
    table = tiny_gpt2().tok_embed.weight.data
    (vectors,) = prompt.values()
    same = (vectors[:, None] == table).all(-1).any(-1)  # (n, V, C) -> (n,)
    moved = (prompted.tok_embed.weight.data != table).any(-1)
    return {
        "prompt tuning: arrays that train": len(prompt),
        "prefix tuning: arrays that train in each block": sum("layers.0." in key for key in prefix),
        "prompt tuning: rows of the embedding that changed": int(moved.sum()),
        "prompt tuning: vectors that are embeddings of symbols": int(same.sum()),
    }


def _with_dora() -> ml.ModuleList:
    """A 24 x 32 layer with DoRA of rank 2."""
    model = one_linear(24, 32)
    config = ml.LoraConfig(r=2, target_modules=["0"], use_dora=True)
    ml.add_adapter(model, config, rng=np.random.default_rng(0))
    return model


def _train(model: ml.ModuleList) -> None:
    """Towards a random target, for 60 steps."""
    x, wanted = _noise(64, 24), _noise(64, 32, seed=1)
    minimize(model.trainable_parameters(), lambda: squared(model[0](x), wanted), 60, lr=2e-2)


def _lengths(W: np.ndarray) -> np.ndarray:
    return np.linalg.norm(W, axis=0)


@demo(
    length_and_direction=lambda m: (
        m["numbers that train beside A and B"] == m["columns of W"]
        and m["trained lengths of columns, off m"] < 1e-5
        and m["lengths at the start, off those of W"] < 1e-5
    ),
    second_pair=lambda m: m["numbers that train beside A and B"] > 2 * m["columns of W"],
    rows_of_a=lambda m: m["numbers that train beside A and B"] == m["r"],
    fixed_lengths=lambda m: m["change of the columns' lengths, largest"] < 1e-5,
)
def what_dora_adds() -> Measured:
    """Train DoRA of rank 2 on a 24 x 32 layer, and compare the lengths of the columns of W'."""
    model = _with_dora()
    W, adapter = model[0].base.weight.data, model[0].adapters["default"]
    begin = adapter.m.data.copy()
    beside = ml.count_parameters(model)[0] - adapter.A.size - adapter.B.size
    _train(model)
    trained = W + ml.get_delta_weight(model, "0")
    return {
        "columns of W": W.shape[1],
        "r": adapter.A.shape[1],
        "numbers that train beside A and B": beside,
        "lengths at the start, off those of W": difference(begin, _lengths(W)),
        "trained lengths of columns, off m": difference(_lengths(trained), adapter.m.data),
        "change of the columns' lengths, largest": difference(_lengths(trained), _lengths(W)),
    }


@demo(
    fixed_matrix=lambda m: (
        m["outputs, merged and beside, differ by"] < 1e-5 and m["rank of ΔW"] > 4 * m["r"]
    ),
    depends_on_x=lambda m: m["outputs, merged and beside, differ by"] > 1e-3,
    merges_to_low_rank=lambda m: m["rank of ΔW"] <= m["r"],
    only_at_start=lambda m: m["m after training, off the lengths in W"] < 1e-5,
)
def merging_dora() -> Measured:
    """Train DoRA of rank 2 on a 24 x 32 layer, merge it, and compare outputs before and after."""
    model = _with_dora()
    W = model[0].base.weight.data
    _train(model)
    x, m = _noise(5, 24, seed=7), model[0].adapters["default"].m.data
    beside, delta = model[0](x).data, ml.get_delta_weight(model, "0")
    ml.merge_adapter(model)
    return {
        "r": model[0].adapters["default"].A.shape[1],
        "outputs, merged and beside, differ by": difference(model[0](x), beside),
        "rank of ΔW": int(np.linalg.matrix_rank(delta, tol=1e-4)),
        "m after training, off the lengths in W": difference(m, _lengths(W)),
    }


@demo(
    top_of_w=lambda m: (
        m["s A B at the start, off the top r directions of W"] < 1e-5
        and m["model at the start, off the base"] < 1e-4
        and m["frozen part, off W"] > 0.1
        and m["B at the start, largest"] > 0
    ),
    small_ones=lambda m: m["s A B at the start, off the least r directions of W"] < 1e-5,
    zero_start=lambda m: m["B at the start, largest"] == 0,
    other_function=lambda m: m["model at the start, off the base"] > 0.1,
)
def start_of_pissa() -> Measured:
    """Add PiSSA of rank 4 to a 32 x 32 layer, and compare its start with the SVD of W."""
    model, x = one_linear(32, 32), _noise(8, 32)
    W, before = model[0].weight.data, model[0](x).data
    config = ml.LoraConfig(r=4, target_modules=["0"], init_lora_weights="pissa")
    ml.add_adapter(model, config, rng=np.random.default_rng(0))
    adapter = model[0].adapters["default"]
    part = adapter.A.data @ adapter.B.data * adapter.s
    U, S, Vt = np.linalg.svd(W.astype(np.float64))
    return {
        "s A B at the start, off the top r directions of W": difference(
            part, U[:, :4] * S[:4] @ Vt[:4]
        ),
        "s A B at the start, off the least r directions of W": difference(
            part, U[:, -4:] * S[-4:] @ Vt[-4:]
        ),
        "frozen part, off W": difference(adapter.residual, W),
        "B at the start, largest": difference(adapter.B, 0),
        "model at the start, off the base": difference(model[0](x), before),
    }


@demo(
    vectors=lambda m: (
        m["numbers that train in each layer"] == m["r"] + m["d_out"]
        and m["change of A and B"] == 0
        and m["loss after, of before"] < 0.9
    ),
    one_pair=lambda m: m["change of A and B"] > 0,
    only_b=lambda m: m["numbers that train in each layer"] == m["r"] * m["d_out"],
    learns_nothing=lambda m: m["loss after, of before"] > 0.99,
)
def what_vera_trains() -> Measured:
    """Train VeRA of rank 16 on two layers that share one random pair A, B, for 60 steps."""
    d, r = 24, 16
    weights = [ml.Tensor(_noise(d, d, seed=i)) for i in (1, 2)]
    A, B = ml.Tensor(_noise(d, r, seed=3) / d**0.5), ml.Tensor(_noise(r, d, seed=4))
    before = A.data.copy(), B.data.copy()
    inner = [ml.Parameter(np.full(r, 0.1, np.float32)) for _ in weights]
    outer = [ml.Parameter(np.zeros(d, np.float32)) for _ in weights]
    x, wanted = _noise(64, d, seed=5), _noise(64, d, seed=6)

    def layer(h: ml.Tensor, i: int) -> ml.Tensor:
        return h @ weights[i] + ((h @ A) * inner[i]) @ B * outer[i]

    params = [*inner, *outer]
    left = minimize(params, lambda: squared(layer(layer(ml.Tensor(x), 0), 1), wanted), 60, lr=2e-2)
    return {
        "d_out": d,
        "r": r,
        "numbers that train in each layer": inner[0].size + outer[0].size,
        "change of A and B": difference(A, before[0]) + difference(B, before[1]),
        "loss after, of before": left,
    }


@demo(
    rescales=lambda m: (
        m["outputs, merged into columns and not, differ by"] < 1e-4
        and m["outputs of the MLP, merged into rows and not, differ by"] < 1e-4
        and m["ranks of ΔW, least"] > m["outputs of W"] / 2
        and m["outputs for an input of zeros, largest"] == 0
    ),
    shifts=lambda m: m["outputs for an input of zeros, largest"] > 0,
    low_rank=lambda m: m["ranks of ΔW, least"] <= 2,
    stays=lambda m: (
        m["outputs, merged into columns and not, differ by"] > 1e-3
        or m["outputs of the MLP, merged into rows and not, differ by"] > 1e-3
    ),
)
def what_ia3_trains() -> Measured:
    """Train IA³'s factors on the outputs of a layer and within an MLP, and merge both into W."""
    x, wanted = _noise(64, 24, seed=1), _noise(64, 16, seed=2)
    W, up, down = (ml.Tensor(_noise(*shape)) for shape in ((24, 16), (24, 32), (32, 16)))
    key, hidden = (ml.Parameter(np.ones(n, np.float32)) for n in (16, 32))

    def layer(h: np.ndarray) -> ml.Tensor:
        return (ml.Tensor(h) @ W) * key

    def mlp(h: np.ndarray) -> ml.Tensor:
        return (gelu(ml.Tensor(h) @ up) * hidden) @ down

    minimize([key], lambda: squared(layer(x), wanted), steps=60, lr=2e-2)
    minimize([hidden], lambda: squared(mlp(x), wanted), steps=60, lr=2e-2)
    columns, rows = W.data * key.data, hidden.data[:, None] * down.data
    merged_mlp = gelu(ml.Tensor(x) @ up) @ ml.Tensor(rows)
    ranks = [np.linalg.matrix_rank(D, tol=1e-4) for D in (columns - W.data, rows - down.data)]
    zeros = np.zeros_like(x)
    return {
        "outputs, merged into columns and not, differ by": difference(layer(x), x @ columns),
        "outputs of the MLP, merged into rows and not, differ by": difference(mlp(x), merged_mlp),
        "ranks of ΔW, least": int(min(ranks)),
        "outputs of W": W.shape[1],
        "outputs for an input of zeros, largest": max(
            difference(layer(zeros), 0), difference(mlp(zeros), 0)
        ),
    }


def _says(model: ml.Transformer, question: str, answer: str) -> bool:
    """Is every symbol of the answer, and the newline after it, the likeliest where it stands?"""
    ids = ml.encode(f"{question}{answer}\n")[None].astype(np.int64)
    with ml.no_grad():
        likeliest = model(ids[:, :-1]).data.argmax(-1)
    return bool((likeliest[0, len(question) - 1 :] == ids[0, len(question) :]).all())


@demo(
    context=lambda m: (
        m["from a text in the prompt: right before and after the change"] == 2
        and m["numbers that training had changed for that"] == 0
        and m["tuned once: right before the change"] == 1
        and m["tuned once: right after the change"] == 0
        and m["base without the text: right"] == 0
    ),
    tune_once=lambda m: m["tuned once: right after the change"] == 1,
    ask_the_base=lambda m: m["base without the text: right"] == 1,
    tune_to_read=lambda m: m["numbers that training had changed for that"] > 0,
)
def a_fact_that_changes() -> Measured:
    """Teach words-tiny a fact by LoRA, change the fact, and compare with a fact in the prompt."""
    base, tuned = ml.load_model("words-tiny"), ml.load_model("words-tiny")
    today, tomorrow = "plumix", "qatrek"
    ml.add_adapter(tuned, EVERYWHERE, rng=np.random.default_rng(0))
    ids = ml.encode(f"?>{today}\n")[None].astype(np.int64)
    learn_text(tuned, ids, steps=25, lr=2e-2)
    in_the_prompt = sum(_says(base, f"={fact}>", fact) for fact in (today, tomorrow))
    untouched = ml.load_model("words-tiny").parameters()
    changed = sum(
        int((p.data != q.data).sum()) for p, q in zip(base.parameters(), untouched, strict=True)
    )
    return {
        "from a text in the prompt: right before and after the change": in_the_prompt,
        "numbers that training had changed for that": changed,
        "tuned once: right before the change": _says(tuned, "?>", today),
        "tuned once: right after the change": _says(tuned, "?>", tomorrow),
        "base without the text: right": _says(base, "?>", tomorrow),
    }


WORDS = """able acid area army baby back ball bank bath bear belt bird blue boat book camp
card city clay coat cold copy dark desk dish door duck east fire fish food gold""".split()


def _in_our_form(words: list[str], example: str = "") -> tuple[np.ndarray, np.ndarray]:
    """Rows "^word>WORD!" and a newline, perhaps behind an example: ids, and targets in which only
    the answer counts."""
    rows = [ml.encode(f"{example}^{word}>{word.upper()}!\n") for word in words]
    ids = np.stack(rows).astype(np.int64)  # (B, T + 1)
    targets = ids[:, 1:].copy()
    targets[:, : len(example) + len("word>")] = IGNORE_INDEX
    return ids[:, :-1], targets


@demo(
    tune=lambda m: (
        m["tuned on other words: answers in the form"] > 0.5
        and m["an example in the prompt: answers in the form"] < 0.1
        and m["asked as it is: answers in the form"] < 0.1
    ),
    examples=lambda m: m["an example in the prompt: answers in the form"] > 0.5,
    as_it_is=lambda m: m["asked as it is: answers in the form"] > 0.5,
    memorizes=lambda m: m["tuned on other words: answers in the form"] < 0.1,
)
def a_form_of_answers() -> Measured:
    """Teach words-tiny to end its answers with "!", by an example in the prompt and by LoRA on 16
    words; ask for 16 others."""
    base, tuned = ml.load_model("words-tiny"), ml.load_model("words-tiny")
    ml.add_adapter(tuned, EVERYWHERE, rng=np.random.default_rng(0))
    ids, targets = _in_our_form(WORDS[:16])
    params = tuned.trainable_parameters()
    minimize(params, lambda: ml.cross_entropy(tuned(ids), targets), steps=40, lr=2e-2)
    plain, shown = _in_our_form(WORDS[16:]), _in_our_form(WORDS[16:], "^able>ABLE!\n")
    return {
        "asked as it is: answers in the form": ml.exact_match(base, *plain),
        "an example in the prompt: answers in the form": ml.exact_match(base, *shown),
        "tuned on other words: answers in the form": ml.exact_match(tuned, *plain),
    }


def _learn_a_change(method: str, rank: int, steps: int = 100) -> float:
    """A 24 x 24 layer learns a change of this rank from 128 samples, in full or with LoRA of rank
    2: the squared error left, of that at the start."""
    d, model = 24, one_linear(24, 24)
    delta = _noise(d, rank, seed=1) @ _noise(rank, d, seed=2) / (d * rank) ** 0.5
    x, goal = _noise(128, d, seed=4), model[0].weight.data + delta
    if method == "LoRA":
        config = ml.LoraConfig(r=2, lora_alpha=2, target_modules=["0"])
        ml.add_adapter(model, config, rng=np.random.default_rng(3))
    params = model.trainable_parameters()
    return minimize(params, lambda: squared(model[0](x), x @ goal), steps, lr=3e-2)


@demo(
    high_rank=lambda m: (
        m["change of full rank: error left by full"] < 0.01
        and m["change of full rank: error left by LoRA"] > 0.3
        and m["change of full rank: error left by LoRA, twice the steps"] > 0.3
        and m["change of rank 2: error left by LoRA"] < 0.01
        and m["numbers to keep for each task: LoRA, of full"] < 0.5
    ),
    low_rank=lambda m: m["change of rank 2: error left by LoRA"] > 0.1,
    many_tasks=lambda m: m["numbers to keep for each task: LoRA, of full"] > 1,
    only_longer=lambda m: m["change of full rank: error left by LoRA, twice the steps"] < 0.1,
)
def where_full_wins() -> Measured:
    """Teach one layer a change of full rank and one of rank 2, in full and with LoRA of rank 2."""
    counts = []
    for method in ("lora", "full"):
        model = tiny_gpt2()
        METHODS[method].prepare(model, LORA, np.random.default_rng(0))
        counts.append(ml.count_parameters(model)[0])
    longer = _learn_a_change("LoRA", 24, steps=200)
    return {
        "change of full rank: error left by full": _learn_a_change("full", 24),
        "change of full rank: error left by LoRA": _learn_a_change("LoRA", 24),
        "change of full rank: error left by LoRA, twice the steps": longer,
        "change of rank 2: error left by LoRA": _learn_a_change("LoRA", 2),
        "numbers to keep for each task: LoRA, of full": counts[0] / counts[1],
    }
