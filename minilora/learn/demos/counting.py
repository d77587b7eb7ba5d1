"""How many numbers LoRA trains: counted on adapted models, and on factors of full-size matrices."""

from __future__ import annotations

import numpy as np
from safetensors.numpy import load_file

import minilora as ml
from minilora.analysis.counting import ARCHITECTURES, lora_parameters, matrix_shapes
from minilora.analysis.paper import GPT3_PRINTED
from minilora.learn.demos.demo import Measured, demo
from minilora.learn.demos.small_models import one_linear, tiny_gpt2, tiny_llama
from minilora.lora import LowRank, lora_layers
from minilora.lora_config import LoraConfig
from minilora.lora_init import initial_factors
from minilora.methods.registry import METHODS
from minilora.nn import Module
from minilora.system.errors import UsageError
from minilora.system.files import temporary_folder
from minilora.transformer import Transformer


def trained(model: Module, **lora: object) -> int:
    """How many numbers train once an adapter of these options has been added."""
    config = LoraConfig(**lora)  # type: ignore[arg-type]
    ml.add_adapter(model, config, rng=np.random.default_rng(0))
    return ml.count_parameters(model)[0]


def numbers_of_factors(d_in: int, d_out: int, r: int) -> int:
    """Make A and B for a matrix of this size, which may be a large model's, and count them."""
    W = np.zeros((d_in, d_out), np.float32)  # takes no memory, as nothing is written into it
    A, B = initial_factors(W, r, 1.0, True, np.random.default_rng(0))
    return A.size + B.size


@demo(
    sum=lambda m: m["trained"] == m["r"] * (m["d_in"] + m["d_out"]),
    one_side=lambda m: m["trained"] == 2 * m["r"] * m["d_in"],
    times_w=lambda m: m["trained"] == m["r"] * m["d_in"] * m["d_out"],
    part_of_w=lambda m: m["trained"] * m["r"] == m["d_in"] * m["d_out"],
)
def numbers_of_one_matrix() -> Measured:
    """Adapt one layer of 48 inputs and 80 outputs, and count what trains."""
    model = one_linear(48, 80)
    d_in, d_out = model[0].weight.shape
    return {
        "d_in": d_in,
        "d_out": d_out,
        "r": 4,
        "trained": trained(model, r=4, target_modules="0"),
    }


@demo(
    two_r_by_d=lambda m: m["trained"] * m["d"] == m["numbers in W"] * 2 * m["r"],
    r_by_d=lambda m: m["trained"] * m["d"] == m["numbers in W"] * m["r"],
    by_area=lambda m: m["trained"] * m["d"] ** 2 == m["numbers in W"] * 2 * m["r"],
    squares=lambda m: m["trained"] * m["d"] ** 2 == m["numbers in W"] * m["r"] ** 2,
)
def share_of_a_square_matrix() -> Measured:
    """Adapt one layer of 64 inputs and 64 outputs, and compare what trains with W."""
    model = one_linear(64, 64)
    W = model[0].weight
    train = trained(model, r=5, target_modules="0")
    return {"d": W.shape[0], "r": 5, "numbers in W": W.size, "trained": train}


@demo(
    both_factors=lambda m: m["trained"] == 2 * m["L"] * m["n"] * m["r"] * m["d"],
    one_factor=lambda m: m["trained"] == m["L"] * m["n"] * m["r"] * m["d"],
    one_block=lambda m: m["trained"] == 2 * m["n"] * m["r"] * m["d"],
    area=lambda m: m["trained"] == 2 * m["L"] * m["n"] * m["r"] * m["d"] ** 2,
)
def numbers_of_a_whole_model() -> Measured:
    """Adapt q, k, v and o of a GPT-2 of three blocks, and count what trains."""
    targets = ["q_proj", "k_proj", "v_proj", "o_proj"]
    model = tiny_gpt2(n_layer=3)
    train = trained(model, r=5, target_modules=targets)
    return {"L": 3, "n": len(targets), "d": model.config.n_embd, "r": 5, "trained": train}


@demo(
    all_blocks=lambda m: m["trained in all blocks"] == 4_194_304 == 32 * m["trained in one block"],
    one_block=lambda m: m["trained in all blocks"] == 131_072,
    half=lambda m: m["trained in all blocks"] == 2_097_152,
    four_matrices=lambda m: m["trained in all blocks"] == 8_388_608,
)
def q_and_v_of_llama_2_7b() -> Measured:
    """Make A and B of rank 8 for q and v in every block of Llama-2-7B, and count them."""
    config = ARCHITECTURES["llama-2-7b"]
    shapes = matrix_shapes(config)
    blocks = [
        sum(numbers_of_factors(*shapes[name], r=8) for name in ("q_proj", "v_proj"))
        for _ in range(config.n_layer)
    ]
    return {"trained in one block": blocks[0], "trained in all blocks": sum(blocks)}


@demo(
    one_a=lambda m: m["trained"] == 294_912 < m["trained, were q, k and v apart"],
    three_adapters=lambda m: (
        m["trained"] == 442_368 or m["trained"] == m["trained, were q, k and v apart"]
    ),
    one_third=lambda m: m["trained"] == 147_456,
    b_alone=lambda m: m["trained"] == 221_184,
)
def c_attn_of_gpt2() -> Measured:
    """Make A and B of rank 8 for c_attn in every block of GPT-2, and for q, k and v apart."""
    d, blocks = ARCHITECTURES["gpt2"].n_embd, ARCHITECTURES["gpt2"].n_layer
    return {
        "trained": sum(numbers_of_factors(d, 3 * d, r=8) for _ in range(blocks)),
        "trained, were q, k and v apart": 3 * blocks * numbers_of_factors(d, d, r=8),
    }


@demo(
    q_v_4=lambda m: 0.9 < m["fewer, q and v, r = 4"] / 10_000 < 1.1,
    q_v_1=lambda m: 0.9 < m["fewer, q and v, r = 1"] / 10_000 < 1.1,
    q_v_8=lambda m: 0.9 < m["fewer, q and v, r = 8"] / 10_000 < 1.1,
    all_four_4=lambda m: 0.9 < m["fewer, q, k, v and o, r = 4"] / 10_000 < 1.1,
)
def ten_thousand_times_fewer() -> Measured:
    """Divide the paper's size of GPT-3 by what LoRA trains on it, in four configurations."""
    config, four = ARCHITECTURES["gpt3-175b"], ["q_proj", "k_proj", "v_proj", "o_proj"]
    fewer = {
        f"fewer, q and v, r = {r}": GPT3_PRINTED / lora_parameters(config, r, ["q_proj", "v_proj"])
        for r in (1, 4, 8)
    }
    return fewer | {"fewer, q, k, v and o, r = 4": GPT3_PRINTED / lora_parameters(config, 4, four)}


@demo(
    r_103=lambda m: (
        m["A and B, r = 65"]
        < m["A and B, r = 102"]
        <= m["W"]
        < m["A and B, r = 103"]
        < m["A and B, r = 128"]
    ),
    r_65=lambda m: m["W"] < m["A and B, r = 65"],
    r_128=lambda m: m["A and B, r = 103"] <= m["W"] < m["A and B, r = 128"],
    at_none=lambda m: m["A and B, r = 128"] <= m["W"],
)
def where_lora_stops_saving() -> Measured:
    """Make A and B of several ranks for a matrix of 128 × 512, and count them."""
    ranks = (65, 102, 103, 128)
    counts = {f"A and B, r = {r}": numbers_of_factors(128, 512, r) for r in ranks}
    return {"W": one_linear(128, 512)[0].weight.size} | counts


@demo(
    double_and_four=lambda m: m["LoRA's numbers, times"] == 2 and m["W's numbers, times"] == 4,
    both_four=lambda m: m["LoRA's numbers, times"] == 4 and m["W's numbers, times"] == 4,
    both_double=lambda m: m["LoRA's numbers, times"] == 2 and m["W's numbers, times"] == 2,
    same_and_four=lambda m: m["LoRA's numbers, times"] == 1 and m["W's numbers, times"] == 4,
)
def a_model_twice_as_wide() -> Measured:
    """Adapt all matrices of a small GPT-2, and of one twice as wide, with the same rank."""
    lora, adapted = [], []
    for width in (16, 32):
        model = tiny_gpt2(n_embd=width)
        lora.append(trained(model, r=2, target_modules="all-linear"))
        adapted.append(sum(layer.base.weight.size for layer in lora_layers(model).values()))
    return {
        "LoRA's numbers, times": lora[1] / lora[0],
        "W's numbers, times": adapted[1] / adapted[0],
    }


@demo(
    one_per_output=lambda m: m["more with lora_only"] == 512 < m["more with all"],
    nothing=lambda m: m["more with lora_only"] == 0,
    every_bias=lambda m: m["more with lora_only"] == m["more with all"],
    both_sides=lambda m: m["more with lora_only"] == 1024,
)
def what_lora_only_adds() -> Measured:
    """Adapt q and v of words-tiny with each of the three values of `bias`, and count."""
    none, some, every = (
        trained(ml.load_model("words-tiny"), r=4, bias=bias)
        for bias in ("none", "lora_only", "all")
    )
    return {"more with lora_only": some - none, "more with all": every - none}


@demo(
    outputs=lambda m: m["trained"] == m["r"] * (m["d_in"] + m["d_out"]) + m["d_out"],
    inputs=lambda m: m["trained"] == m["r"] * (m["d_in"] + m["d_out"]) + m["d_in"],
    directions=lambda m: m["trained"] == m["r"] * (m["d_in"] + m["d_out"]) + m["r"],
    matrix=lambda m: m["trained"] == m["r"] * (m["d_in"] + m["d_out"]) + m["d_in"] * m["d_out"],
)
def numbers_of_dora() -> Measured:
    """Adapt one layer of 48 inputs and 80 outputs with DoRA, and count what trains."""
    model = one_linear(48, 80)
    d_in, d_out = model[0].weight.shape
    train = trained(model, r=4, use_dora=True, target_modules="0")
    return {"d_in": d_in, "d_out": d_out, "r": 4, "trained": train}


@demo(
    factors=lambda m: 4 <= m["bytes for each trained number"] < 4.5,
    moments=lambda m: 12 <= m["bytes for each trained number"] < 13,
    with_base=lambda m: m["bytes for each trained number"] > m["bytes of the base for each"],
    one_byte=lambda m: 1 <= m["bytes for each trained number"] < 1.5,
)
def bytes_of_an_adapter_file() -> Measured:
    """Train a small Llama's adapter for a step, save it, and weigh the file."""
    model = tiny_llama(n_embd=128)
    train = trained(model, r=16)
    optimizer = ml.AdamW(model.trainable_parameters(), lr=1e-3)
    ml.cross_entropy(model(np.zeros((1, 4), int)), np.ones((1, 4), int)).backward()
    optimizer.step()
    with temporary_folder() as folder:
        ml.save_adapter(model, folder)
        size = (folder / "adapter_model.safetensors").stat().st_size
    frozen = ml.count_parameters(model)[1] - train
    return {
        "bytes for each trained number": size / train,
        "bytes of the base for each": 4 * frozen / train,
    }


@demo(
    nothing=lambda m: (
        m["numbers in A and B"] == 0 == m["rank of ΔW"] and m["LoraConfig refuses r = 0"] == 1
    ),
    whole=lambda m: m["numbers in A and B"] >= m["numbers in W"],
    as_one=lambda m: m["rank of ΔW"] == 1 and m["LoraConfig refuses r = 0"] == 0,
    biases=lambda m: m["numbers in A and B"] == m["outputs"],
)
def a_rank_of_zero() -> Measured:
    """Make an adapter whose A has no columns and whose B has no rows, and ask for one."""
    W = one_linear(24, 40)[0].weight.data
    adapter = LowRank(np.zeros((24, 0), np.float32), np.zeros((0, 40), np.float32), 1.0)
    try:
        LoraConfig(r=0)
        refused = 0
    except UsageError:
        refused = 1
    return {
        "numbers in W": W.size,
        "outputs": W.shape[1],
        "numbers in A and B": ml.count_parameters(adapter)[1],
        "rank of ΔW": int(np.linalg.matrix_rank(adapter.delta(W))),
        "LoraConfig refuses r = 0": refused,
    }


def _trained_by(method: str, **lora: object) -> int:
    model, config = ml.load_model("docs-tiny"), LoraConfig(**lora)  # type: ignore[arg-type]
    METHODS[method].prepare(model, config, np.random.default_rng(0))
    return ml.count_parameters(model)[0]


@demo(
    right=lambda m: m["LoRA q,v"] < m["BitFit"] < m["LoRA all"] < m["last block"],
    bitfit_first=lambda m: m["BitFit"] < m["LoRA q,v"] < m["LoRA all"] < m["last block"],
    bitfit_after_lora=lambda m: m["LoRA q,v"] < m["LoRA all"] < m["BitFit"] < m["last block"],
    block_before_all=lambda m: m["LoRA q,v"] < m["BitFit"] < m["last block"] < m["LoRA all"],
)
def fewest_trained_first() -> Measured:
    """Prepare docs-tiny for each of four methods, and count what trains."""
    return {
        "LoRA q,v": _trained_by("lora", r=1),
        "BitFit": _trained_by("bitfit"),
        "LoRA all": _trained_by("lora", r=4, target_modules="all-linear"),
        "last block": _trained_by("last-block"),
    }


def _highest_rank(model: Transformer, targets: str | list[str], budget: int) -> int:
    """The highest r whose adapter trains no more numbers than the budget."""
    one = trained(model, r=1, target_modules=targets)
    r = budget // one
    ml.delete_adapter(model, "default")
    assert trained(model, r=r, target_modules=targets) <= budget
    ml.delete_adapter(model, "default")
    return r


@demo(
    right=lambda m: m["all"] < m["MLP"] < m["q, v"] < m["q"],
    reverse=lambda m: m["q"] < m["q, v"] < m["MLP"] < m["all"],
    by_count=lambda m: m["all"] < m["q, v"] < m["MLP"] < m["q"],
    mlp_highest=lambda m: m["all"] < m["q, v"] < m["q"] < m["MLP"],
)
def ranks_at_one_budget() -> Measured:
    """Find the highest rank that each placement allows docs-tiny at a budget of 18,432 numbers."""
    model, budget = ml.load_model("docs-tiny"), 18_432
    return {
        "all": _highest_rank(model, "all-linear", budget),
        "MLP": _highest_rank(model, ["up_proj", "down_proj"], budget),
        "q, v": _highest_rank(model, ["q_proj", "v_proj"], budget),
        "q": _highest_rank(model, ["q_proj"], budget),
    }


@demo(
    right=lambda m: (
        (m["rows of A"], m["columns of A"])
        == (16, 4)
        == (m["columns of lora_A"], m["rows of lora_A"])
        and (m["rows of B"], m["columns of B"]) == (4, 64)
        and (m["rows of lora_B"], m["columns of lora_B"]) == (64, 4)
    ),
    same_in_file=lambda m: (
        (m["rows of lora_A"], m["columns of lora_A"]) == (16, 4)
        and (m["rows of lora_B"], m["columns of lora_B"]) == (4, 64)
    ),
    roles_swapped=lambda m: (
        (m["rows of lora_A"], m["columns of lora_A"]) == (64, 4)
        and (m["rows of lora_B"], m["columns of lora_B"]) == (4, 16)
    ),
    ours_transposed=lambda m: (
        (m["rows of A"], m["columns of A"]) == (4, 16)
        and (m["rows of B"], m["columns of B"]) == (64, 4)
    ),
)
def shapes_here_and_in_the_file() -> Measured:
    """Adapt up_proj (16 inputs, 64 outputs) of a small Llama, save the adapter, read the file."""
    model = tiny_llama(n_layer=1)
    trained(model, r=4, target_modules=["up_proj"])
    adapter = lora_layers(model)["layers.0.mlp.up_proj"].adapters["default"]
    with temporary_folder() as folder:
        ml.save_adapter(model, folder)
        saved = load_file(folder / "adapter_model.safetensors")
    lora_A, lora_B = (saved[key] for key in sorted(saved))
    arrays = {"A": adapter.A.data, "B": adapter.B.data, "lora_A": lora_A, "lora_B": lora_B}
    return {f"rows of {name}": M.shape[0] for name, M in arrays.items()} | {
        f"columns of {name}": M.shape[1] for name, M in arrays.items()
    }


@demo(
    narrow_output=lambda m: m["trained"] == 81_920 and m["outputs of v"] == m["inputs of v"] / 4,
    square=lambda m: m["trained"] == 131_072 and m["outputs of v"] == m["inputs of v"],
    narrow_both=lambda m: m["trained"] == 32_768,
    a_alone=lambda m: m["trained"] == 65_536,
)
def v_proj_of_llama_3_8b() -> Measured:
    """Make A and B of rank 16 for one v_proj of Llama-3-8B, and count them."""
    d_in, d_out = matrix_shapes(ARCHITECTURES["llama-3-8b"])["v_proj"]
    return {
        "inputs of v": d_in,
        "outputs of v": d_out,
        "trained": numbers_of_factors(d_in, d_out, r=16),
    }


@demo(
    head_whole=lambda m: (
        m["LoRA and head train"] == 298_752 == m["LoRA trains"] + m["numbers in the head"]
        and m["small model: more with the head"] == m["small model: numbers in the head"]
    ),
    head_low_rank=lambda m: m["LoRA and head train"] == 301_096,
    frozen_head=lambda m: m["small model: more with the head"] == 0,
    twice=lambda m: (
        m["small model: more with the head"] == 2 * m["small model: numbers in the head"]
    ),
)
def numbers_with_a_trained_head() -> Measured:
    """Count a small Llama with and without its head in modules_to_save, and the sizes asked for."""
    without = trained(tiny_llama(), r=4)
    with_head = trained(model := tiny_llama(), r=4, modules_to_save=["head"])
    lora, head = 12 * 2 * numbers_of_factors(768, 768, r=8), one_linear(768, 5)[0].weight.size
    return {
        "small model: more with the head": with_head - without,
        "small model: numbers in the head": model.head.weight.size,
        "LoRA trains": lora,
        "numbers in the head": head,
        "LoRA and head train": lora + head,
    }
