"""Which modules an adapter can and should reach, measured on tiny models and single layers."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

import minilora as ml
from minilora import functional as F
from minilora.hub.safetensors_files import read_safetensors
from minilora.learn.demos.demo import Measured, demo
from minilora.learn.demos.small_models import (
    IDS,
    SIZES,
    difference,
    learn_text,
    minimize,
    one_linear,
    squared,
    tiny_gpt2,
    tiny_llama,
)
from minilora.lora import lora_layers
from minilora.lora_init import initial_factors
from minilora.system.errors import UsageError
from minilora.system.files import temporary_folder

Targets = str | Sequence[str]
C, V, LAYERS = SIZES["n_embd"], SIZES["vocab_size"], SIZES["n_layer"]


def _adapted(model: ml.Transformer, targets: Targets) -> list[str]:
    """The paths that an adapter with these targets adapts; none if it is refused."""
    config = ml.LoraConfig(r=2, target_modules=targets)
    try:
        ml.add_adapter(model, config, rng=np.random.default_rng(0))
    except UsageError:
        return []
    return list(lora_layers(model))


def _two_layers(model: ml.ModuleList, x: np.ndarray) -> ml.Tensor:
    return model[1](F.gelu(model[0](x)))


def _left_after_lora(places: list[str], r: int) -> tuple[float, int]:
    """A network of two matrices learns a teacher whose matrices both differ by a change of rank 2.
    The squared error left, of that at the start, and how many numbers trained."""
    rng, d = np.random.default_rng(0), 24
    x = rng.standard_normal((256, d)).astype(np.float32)
    model = ml.ModuleList([ml.Linear(d, d, bias=False, rng=rng) for _ in range(2)])
    pretrained = [layer.weight.data for layer in model]
    for layer in model:
        layer.weight.data = layer.weight.data + (
            rng.standard_normal((d, 2)) @ rng.standard_normal((2, d)) / d
        ).astype(np.float32)
    wanted = _two_layers(model, x).data
    for layer, W in zip(model, pretrained, strict=True):
        layer.weight.data = W
    config = ml.LoraConfig(r=r, lora_alpha=r, target_modules=places)
    ml.add_adapter(model, config, rng=rng)
    params = model.trainable_parameters()
    left = minimize(params, lambda: squared(_two_layers(model, x), wanted), steps=150, lr=3e-2)
    return left, ml.count_parameters(model)[0]


@demo(
    spread=lambda m: (
        m["error left, rank 2 in both"] < 0.5 * m["error left, rank 4 in the first"]
        and m["error left, rank 2 in both"] < 0.5 * m["error left, rank 4 in the second"]
        and m["trained, rank 2 in both"] == m["trained, rank 4 in one"]
    ),
    concentrate=lambda m: (
        m["error left, rank 4 in the first"] < m["error left, rank 2 in both"]
        or m["error left, rank 4 in the second"] < m["error left, rank 2 in both"]
    ),
    only_the_count=lambda m: (
        abs(m["error left, rank 4 in the first"] - m["error left, rank 2 in both"]) < 0.05
    ),
    more_numbers=lambda m: m["trained, rank 2 in both"] > m["trained, rank 4 in one"],
)
def where_the_budget_goes() -> Measured:
    """Teach two matrices a change of both, with LoRA of rank 4 in one or of rank 2 in each."""
    first, count = _left_after_lora(["0"], r=4)
    second, _ = _left_after_lora(["1"], r=4)
    both, spread_count = _left_after_lora(["0", "1"], r=2)
    return {
        "error left, rank 4 in the first": first,
        "error left, rank 4 in the second": second,
        "error left, rank 2 in both": both,
        "trained, rank 4 in one": count,
        "trained, rank 2 in both": spread_count,
    }


@demo(
    blocks=lambda m: (
        m["adapted in the blocks"] == m["Linears in the blocks"]
        and m["heads adapted"] == 0 == m["embeddings adapted"]
    ),
    attention=lambda m: m["adapted in the blocks"] == m["of these in attention"],
    head_too=lambda m: m["heads adapted"] == 1,
    everything=lambda m: m["embeddings adapted"] == 1,
)
def what_all_linear_adapts() -> Measured:
    """Adapt a Llama whose head is a Linear of its own with "all-linear", and list what is."""
    model = tiny_llama()
    linears = [path for path, module in model.named_modules() if isinstance(module, ml.Linear)]
    adapted = _adapted(model, "all-linear")
    return {
        "Linears in the blocks": sum(path.startswith("layers.") for path in linears),
        "of these in attention": sum(".attn." in path for path in linears),
        "adapted in the blocks": sum(path.startswith("layers.") for path in adapted),
        "heads adapted": adapted.count("head"),
        "embeddings adapted": sum("embed" in path for path in adapted),
    }


@demo(
    one_a=lambda m: (
        m["rank of q's third of ΔW"] == m["rank of v's third of ΔW"] == m["r"]
        and m["rank of all of ΔW"] == m["r"]
        and m["numbers that train"] == m["r"] * (m["d"] + 3 * m["d"])
    ),
    three_a=lambda m: m["rank of all of ΔW"] == 3 * m["r"],
    a_third_each=lambda m: m["rank of q's third of ΔW"] == m["r"] / 3,
    only_q=lambda m: m["rank of v's third of ΔW"] == 0,
)
def an_adapter_of_fused_q_k_v() -> Measured:
    """Train LoRA of rank 6 on one 24 x 72 layer that holds q, k and v, then split its ΔW."""
    d, r, rng = 24, 6, np.random.default_rng(0)
    model = one_linear(d, 3 * d)
    ml.add_adapter(model, ml.LoraConfig(r=r, target_modules=["0"]), rng=rng)
    x, wanted = (rng.standard_normal((64, n)).astype(np.float32) for n in (d, 3 * d))
    minimize(model.trainable_parameters(), lambda: squared(model[0](x), wanted), 20, lr=1e-2)
    delta = ml.get_delta_weight(model, "0")
    q, _, v = np.split(delta, 3, axis=1)
    rank_q, rank_v, rank = (int(np.linalg.matrix_rank(M, tol=1e-5)) for M in (q, v, delta))
    return {
        "d": d,
        "r": r,
        "rank of q's third of ΔW": rank_q,
        "rank of v's third of ΔW": rank_v,
        "rank of all of ΔW": rank,
        "numbers that train": ml.count_parameters(model)[0],
    }


@demo(
    error=lambda m: (
        m["adapted with query and value"] == 0
        and m["parameters that trained before and after the attempt"] == 1
        and m["adapted with q_proj and v_proj"] == 2 * LAYERS
    ),
    translated=lambda m: m["adapted with query and value"] == m["adapted with q_proj and v_proj"],
    silent=lambda m: m["parameters that trained before and after the attempt"] < 1,
    all_linear=lambda m: m["adapted with query and value"] > m["adapted with q_proj and v_proj"],
)
def names_of_another_model() -> Measured:
    """Target "query" and "value" in a model whose layers are called q_proj and v_proj."""
    model = tiny_llama()
    before = ml.count_parameters(model)[0]
    wrong = _adapted(model, ["query", "value"])
    after = ml.count_parameters(model)[0]
    return {
        "adapted with query and value": len(wrong),
        "parameters that trained before and after the attempt": after / before,
        "adapted with q_proj and v_proj": len(_adapted(model, ["q_proj", "v_proj"])),
    }


@demo(
    pattern=lambda m: (
        m["adapted by the string"] == 0
        and m["adapted by the list"] == m["adapted by the pattern .*q_proj"] == LAYERS
    ),
    same=lambda m: m["adapted by the string"] == m["adapted by the list"],
    first_only=lambda m: m["adapted by the string"] == 1,
    letters=lambda m: m["adapted by the string"] > m["adapted by the list"],
)
def a_string_in_place_of_a_list() -> Measured:
    """Give target_modules "q_proj", ["q_proj"] and a pattern, each to a fresh model."""
    return {
        "adapted by the string": len(_adapted(tiny_llama(), "q_proj")),
        "adapted by the list": len(_adapted(tiny_llama(), ["q_proj"])),
        "adapted by the pattern .*q_proj": len(_adapted(tiny_llama(), ".*q_proj")),
    }


def _embedding_after_training(table_side_zero: bool) -> tuple[float, float, float]:
    """LoRA of rank 2 on a table of 12 ids, of which 6 occur, one factor zero and one random.
    How far it starts from the table, and the largest change of ids that occur and that do not."""
    rng = np.random.default_rng(0)
    zero_rows, random_rows = np.zeros((12, 2)), rng.standard_normal((12, 2))
    A = ml.Parameter(zero_rows if table_side_zero else random_rows)
    B = ml.Parameter(rng.standard_normal((2, 8)) if table_side_zero else np.zeros((2, 8)))
    start = difference(A.data @ B.data, np.zeros((12, 8)))
    ids, wanted = rng.integers(0, 6, 40), rng.standard_normal((40, 8))
    minimize([A, B], lambda: squared(F.embedding(A, ids) @ B, wanted), steps=10, lr=1e-2)
    change = np.abs(A.data @ B.data)
    return start, float(change[:6].max()), float(change[6:].max())


@demo(
    untouched=lambda m: (
        m["change of ids that do not occur, table side zero"] == 0
        and m["change of ids that do not occur, other side zero"] > 0
        and m["change of ids that occur, table side zero"] > 0
        and m["ΔE at the start"] == 0
    ),
    no_start_at_base=lambda m: m["ΔE at the start"] > 0,
    nothing_learns=lambda m: m["change of ids that occur, table side zero"] == 0,
    all_drift=lambda m: m["change of ids that do not occur, table side zero"] > 0,
)
def an_embedding_adapted_either_way() -> Measured:
    """Train LoRA of a table on half of its ids, with the one or the other factor zero at first."""
    start, occurs, never = _embedding_after_training(table_side_zero=True)
    return {
        "ΔE at the start": start,
        "change of ids that occur, table side zero": occurs,
        "change of ids that do not occur, table side zero": never,
        "change of ids that do not occur, other side zero": _embedding_after_training(False)[2],
    }


def _logits_moved_by_one_row(model: ml.Transformer) -> tuple[int, int]:
    """How many of the V logits move when the embedding of id 5 does: in a text without it, and
    with it."""
    texts = [np.array([[1, 2, 3, 4]]), np.array([[1, 5, 3, 4]])]
    before = [model(ids).data for ids in texts]
    model.tok_embed.weight.data[5] += np.random.default_rng(0).standard_normal(C)
    moved = [
        np.abs(model(ids).data - old)[0] > 1e-7 for ids, old in zip(texts, before, strict=True)
    ]
    return int(moved[0].any(0).sum()), int(moved[1].any(0).sum())


@demo(
    its_logit=lambda m: (
        m["tied: logits that move without the word in the text"] == 1
        and m["head of its own: logits that move without the word in the text"] == 0
        and m["tied: logits that move with the word in the text"] == V
    ),
    nothing=lambda m: m["tied: logits that move without the word in the text"] == 0,
    every_logit=lambda m: m["tied: logits that move without the word in the text"] == V,
    input_only=lambda m: m["tied: logits that move without the word in the text"] == V - 1,
)
def one_row_of_a_tied_embedding() -> Measured:
    """Move the embedding of one id, with a tied and an untied head, and see which logits move."""
    tied = _logits_moved_by_one_row(tiny_gpt2())
    untied = _logits_moved_by_one_row(tiny_gpt2(tie_embeddings=False))
    return {
        "tied: logits that move without the word in the text": tied[0],
        "tied: logits that move with the word in the text": tied[1],
        "head of its own: logits that move without the word in the text": untied[0],
    }


@demo(
    frozen=lambda m: (
        m["LoRA alone: change of the head"] == 0
        and m["with modules_to_save: change of the head"] > 0
        and m["LoRA alone: loss after, of before"]
        > m["with modules_to_save: loss after, of before"]
    ),
    trains_anyway=lambda m: m["LoRA alone: change of the head"] > 0,
    no_matter=lambda m: (
        m["LoRA alone: loss after, of before"] <= m["with modules_to_save: loss after, of before"]
    ),
    cannot=lambda m: m["with modules_to_save: change of the head"] == 0,
)
def a_new_head() -> Measured:
    """Give a tiny Llama a new random head, and train LoRA for 30 steps without and with it."""
    measured: Measured = {}
    for label, names in {"LoRA alone": (), "with modules_to_save": ("head",)}.items():
        model = tiny_llama()
        model.head = ml.Linear(C, V, bias=False, rng=np.random.default_rng(9), std=0.02)
        start = model.head.weight.data.copy()
        before = float(ml.cross_entropy(model(IDS[:, :-1]), IDS[:, 1:]).data)
        config = ml.LoraConfig(r=2, modules_to_save=names)
        ml.add_adapter(model, config, rng=np.random.default_rng(0))
        after = learn_text(model, IDS, steps=30, lr=3e-2)
        measured[f"{label}: change of the head"] = difference(model.head.weight, start)
        measured[f"{label}: loss after, of before"] = after / before
    return measured


def _adapter_bytes(model: ml.Transformer, whole: Sequence[str]) -> int:
    """Bytes of the tensors in the file of an adapter that also trains these modules whole."""
    config = ml.LoraConfig(r=2, modules_to_save=whole)
    ml.add_adapter(model, config, rng=np.random.default_rng(0))
    with temporary_folder() as scratch:
        ml.save_adapter(model, scratch)
        tensors = read_safetensors(scratch / "adapter_model.safetensors")
    return sum(tensor.nbytes for tensor in tensors.values())


@demo(
    whole_head=lambda m: (
        m["bytes that the head adds to the file"] == m["bytes of the head"]
        and m["bytes that the head adds to the file"] > 4 * m["bytes of A and B"]
        and m["bytes of the model"] > 2 * m["bytes of the head"]
    ),
    low_rank=lambda m: m["bytes that the head adds to the file"] < m["bytes of A and B"],
    a_note=lambda m: m["bytes that the head adds to the file"] == 0,
    everything=lambda m: m["bytes that the head adds to the file"] >= m["bytes of the model"],
)
def file_with_a_whole_head() -> Measured:
    """Save an adapter of a Llama with 400 symbols, without and with its head trained whole."""
    plain, with_head = tiny_llama(vocab_size=400), tiny_llama(vocab_size=400)
    model_bytes = sum(p.data.nbytes for p in plain.parameters())
    without = _adapter_bytes(plain, ())
    return {
        "bytes of A and B": without,
        "bytes of the head": plain.head.weight.data.nbytes,
        "bytes of the model": model_bytes,
        "bytes that the head adds to the file": _adapter_bytes(with_head, ["head"]) - without,
    }


@demo(
    too_small=lambda m: (
        m["numbers of a LoRA of rank 1"] > m["numbers of a norm's weight"]
        and m["norms named as targets that are adapted"] == 0
        and m["gradient of the norms, largest"] > 0
    ),
    no_gradient=lambda m: m["gradient of the norms, largest"] == 0,
    included=lambda m: m["norms named as targets that are adapted"] > 0,
    too_many=lambda m: m["share of the model that is in norms"] > 0.5,
)
def low_rank_of_a_norm() -> Measured:
    """Compare the weight of a norm with a LoRA of rank 1 for it, and take the norms' gradients."""
    model = tiny_llama()
    ml.cross_entropy(model(IDS[:, :-1]), IDS[:, 1:]).backward()
    norms = [p for path, p in model.named_parameters() if "norm" in path]
    column = model.norm.weight.data[:, None]  # (C,) -> (C, 1)
    A, B = initial_factors(column, 1, 1.0, True, np.random.default_rng(0))
    return {
        "numbers of a norm's weight": column.size,
        "numbers of a LoRA of rank 1": A.size + B.size,
        "gradient of the norms, largest": max(difference(p.grad, 0) for p in norms),
        "share of the model that is in norms": sum(p.size for p in norms)
        / ml.count_parameters(model)[1],
        "norms named as targets that are adapted": len(_adapted(tiny_llama(), ["attn_norm"])),
    }


def _saved_shapes(model: ml.Transformer) -> dict[str, tuple[int, ...]]:
    """The shapes of block 0's weights in the file that Transformers reads, by the module's name."""
    with temporary_folder() as scratch:
        ml.save_model(model, scratch)
        tensors = read_safetensors(scratch / "model.safetensors")
    keys = [key for key in tensors if ".0." in key and key.endswith(".weight")]
    return {key.split(".")[-2]: tensors[key].shape for key in keys}


@demo(
    right=lambda m: (
        m["GPT-2: outputs of c_attn, times C"] == 3
        and m["GPT-2: outputs of c_fc, times C"] == 4
        and m["Llama: inputs of down_proj, of the hidden width"] == 1
        and m["Llama: has q_proj"] == 1
    ),
    mlp_swapped=lambda m: (
        m["GPT-2: outputs of c_attn, times C"] == 4 and m["GPT-2: outputs of c_fc, times C"] == 3
    ),
    same_names=lambda m: m["GPT-2: has q_proj"] == 1,
    down_is_query=lambda m: m["Llama: inputs of down_proj, of the hidden width"] < 1,
)
def names_in_the_files() -> Measured:
    """Save a GPT-2 and a Llama as Transformers has them, and look at the names and shapes."""
    gpt2, llama = _saved_shapes(tiny_gpt2()), _saved_shapes(tiny_llama())
    return {
        "GPT-2: outputs of c_attn, times C": gpt2["c_attn"][1] / C,
        "GPT-2: outputs of c_fc, times C": gpt2["c_fc"][1] / C,
        "GPT-2: has q_proj": "q_proj" in gpt2,
        "Llama: has q_proj": "q_proj" in llama,
        "Llama: inputs of down_proj, of the hidden width": llama["down_proj"][1]
        / llama["up_proj"][0],
    }
