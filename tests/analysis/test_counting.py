"""Claims about counting: the sums agree with a model that was made, with PEFT, and with papers.

The totals of published models are those of their weights on Hugging Face.
"""

import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import few, seeds

from minilora.analysis.counting import (
    ARCHITECTURES,
    NF4_BITS,
    break_even_rank,
    checkpoint_bytes,
    count_rows,
    lora_parameters,
    matrix_shapes,
    memory_ladder,
    total_parameters,
    training_bytes,
)
from minilora.experiments.tasks import BASE_MODELS
from minilora.lora import add_adapter
from minilora.lora_config import LoraConfig
from minilora.nn import Linear
from minilora.transformer import Transformer, TransformerConfig

QV = ("q_proj", "v_proj")
FUSED = ("c_attn", "o_proj", "up_proj", "down_proj")  # the Linears of GPT-2 as PEFT finds them


@st.composite
def configs(draw):
    """Small models with every mix of switches, and no two sizes that must be equal."""
    kv, group, pairs = (draw(st.integers(1, 3)) for _ in range(3))
    return TransformerConfig(
        vocab_size=draw(st.integers(1, 13)),
        block_size=draw(st.integers(1, 11)),
        n_layer=draw(st.integers(1, 3)),
        n_head=kv * group,
        n_embd=kv * group * 2 * pairs,
        n_kv_head=draw(st.sampled_from([kv, None])),
        mlp_hidden=draw(st.sampled_from([None, 5, 24])),
        norm=draw(st.sampled_from(["layernorm", "rmsnorm"])),
        activation=draw(st.sampled_from(["gelu", "swiglu"])),
        positions=draw(st.sampled_from(["learned", "rope"])),
        bias=draw(st.booleans()),
        tie_embeddings=draw(st.booleans()),
    )


def made(config, seed=0):
    return Transformer(config, rng=np.random.default_rng(seed))


def size(model, trainable=False):
    parameters = model.trainable_parameters() if trainable else model.parameters()
    return sum(p.size for p in parameters)


@few
@given(config=configs())
def test_the_formula_counts_what_a_model_has(config):
    assert total_parameters(config) == size(made(config))


@few
@given(config=configs())
def test_the_shapes_are_those_of_the_linears_of_a_block_in_order(config):
    block = made(config).layers[0]
    linears = {path: m for path, m in block.named_modules() if isinstance(m, Linear)}
    there = {path.rpartition(".")[2]: m.weight.shape for path, m in linears.items()}
    assert list(matrix_shapes(config).items()) == list(there.items())


@few
@given(config=configs(), seed=seeds)
def test_the_formula_counts_what_an_adapter_trains(config, seed):
    rng = np.random.default_rng(seed)
    names = list(matrix_shapes(config))
    some = list(rng.choice(names, rng.integers(1, len(names) + 1), replace=False))
    for r, targets in ((1, some), (2, "all-linear")):
        model = made(config)
        add_adapter(model, LoraConfig(r=r, target_modules=targets), rng=rng)
        assert lora_parameters(config, r, targets) == size(model, trainable=True)


@pytest.mark.parametrize(
    ("name", "published"),
    [
        ("gpt2", 124_439_808),
        ("gpt2-medium", 354_823_168),
        ("gpt2-large", 774_030_080),
        ("gpt2-xl", 1_557_611_200),
        ("llama-2-7b", 6_738_415_616),
        ("llama-2-13b", 13_015_864_320),
        ("llama-2-70b", 68_976_648_192),
        ("llama-3-8b", 8_030_261_248),
    ],
)
def test_the_formula_gives_the_published_totals(name, published):
    assert total_parameters(ARCHITECTURES[name]) == published


def test_the_bundled_models_are_counted_as_they_are():
    assert {name: ARCHITECTURES[name] for name in BASE_MODELS} == {
        name: base.model for name, base in BASE_MODELS.items()
    }
    assert total_parameters(ARCHITECTURES["docs-tiny"]) == 417_280
    assert lora_parameters(ARCHITECTURES["docs-tiny"], 4, "all-linear") == 18_432


def test_peft_fuses_q_k_and_v_of_gpt2_and_so_trains_fewer():
    gpt2 = ARCHITECTURES["gpt2"]
    assert lora_parameters(gpt2, 8, "c_attn") == lora_parameters(gpt2, 8, ["c_attn"]) == 294_912
    assert lora_parameters(gpt2, 8, FUSED) == 1_179_648
    assert lora_parameters(gpt2, 8, "all-linear") == 1_327_104
    assert 1_327_104 - 1_179_648 == 12 * 8 * 2 * 768  # two more As


@pytest.mark.parametrize(
    ("targets", "every", "per_cent"),
    [("c_attn", 124_734_720, "0.2364"), (FUSED, 125_619_456, "0.9391")],
)
def test_peft_prints_the_share_of_base_and_adapter_together(targets, every, per_cent):
    gpt2 = ARCHITECTURES["gpt2"]
    trained = lora_parameters(gpt2, 8, targets)
    assert total_parameters(gpt2) + trained == every
    assert f"{100 * trained / every:.4f}" == per_cent


def test_llama_2_7b_with_q_and_v_at_rank_8_trains_4_194_304_numbers():
    assert lora_parameters(ARCHITECTURES["llama-2-7b"], 8, QV) == 4_194_304


def test_grouped_key_value_heads_make_narrow_matrices_and_small_adapters():
    shapes = matrix_shapes(ARCHITECTURES["llama-3-8b"])
    assert shapes["q_proj"] == (4096, 4096) and shapes["v_proj"] == (4096, 1024)
    assert lora_parameters(ARCHITECTURES["llama-3-8b"], 8, QV) == 32 * 8 * (8192 + 5120)


def test_one_matrix_of_4096_by_4096_at_rank_8_trains_0_39_per_cent():
    one = replace(ARCHITECTURES["llama-2-7b"], n_layer=1)
    trained = lora_parameters(one, 8, "q_proj")
    assert trained == 65_536
    assert f"{100 * trained / 4096**2:.2f}" == "0.39"


@pytest.mark.parametrize(
    ("r", "targets", "sentence"),
    [
        (0, QV, "r must be a whole number of at least 1, got 0"),
        (8, ["q_proj", "query"], r"targets \['query'\] are not in a block; it has: q_proj, k_proj"),
        (8, ["gate_proj"], r"targets \['gate_proj'\] are not in a block"),
        (8, ["all-linear", "q_proj"], r"targets \['all-linear'\] are not in a block"),
        (8, [], "name at least one target"),
        (8, ["q_proj", "q_proj"], "name each target once"),
        (8, ["c_attn", "v_proj"], "name each target once"),
    ],
)
def test_what_cannot_be_counted_is_explained(r, targets, sentence):
    with pytest.raises(ValueError, match=sentence):
        lora_parameters(ARCHITECTURES["gpt2"], r, targets)


@pytest.mark.parametrize(
    ("shape", "rank"), [((4096, 4096), 2048), ((64, 64), 32), ((768, 3072), 614.4), ((1, 1), 0.5)]
)
def test_the_break_even_rank_of_known_matrices(shape, rank):
    assert break_even_rank(*shape) == break_even_rank(*shape[::-1]) == rank


@few
@given(d_in=st.integers(1, 99), d_out=st.integers(1, 99), r=st.integers(1, 99))
def test_lora_saves_exactly_below_the_break_even_rank(d_in, d_out, r):
    assert (r * (d_in + d_out) < d_in * d_out) == (r < break_even_rank(d_in, d_out))


def test_a_matrix_without_rows_has_no_break_even_rank():
    with pytest.raises(ValueError, match="d_in must be a whole number of at least 1, got 0"):
        break_even_rank(0, 4)


def test_full_training_of_7_billion_takes_14_14_and_56_gigabytes():
    assert training_bytes(0, 7 * 10**9) == {
        "weights": 14e9, "gradients": 14e9, "optimizer": 56e9, "total": 84e9
    }  # fmt: skip


def test_a_frozen_number_is_only_stored():
    assert training_bytes(1000, 10, frozen_bits=4) == {
        "weights": 520, "gradients": 20, "optimizer": 80, "total": 620
    }  # fmt: skip


def test_double_quantization_leaves_0_127_bits_of_scales_to_a_weight():
    assert NF4_BITS == 4.126953125
    assert f"{NF4_BITS - 4:.3f}" == "0.127"
    assert f"{32 / 64 - (NF4_BITS - 4):.3f}" == "0.373"  # what it saves: QLoRA, section 3


def test_lora_saves_gradients_and_optimizer_and_qlora_weights_too():
    llama = ARCHITECTURES["llama-2-7b"]
    ladder = memory_ladder(llama, 8, QV)
    total, adapter = 6_738_415_616, 4_194_304
    matrices = 32 * (4 * 4096**2 + 3 * 4096 * 11008)
    rest = 2 * 32000 * 4096 + 65 * 4096  # two tables and the norms
    assert matrices + rest == total
    assert list(ladder) == ["full", "lora", "qlora"]
    assert ladder["full"] == training_bytes(0, total)
    assert ladder["lora"]["weights"] == 2 * (total + adapter)
    assert ladder["qlora"]["weights"] == matrices * 4.126953125 / 8 + 2 * (rest + adapter)
    for step in (ladder["lora"], ladder["qlora"]):
        assert (step["gradients"], step["optimizer"]) == (2 * adapter, 8 * adapter)
        assert step["total"] == step["weights"] + 10 * adapter
    gigabytes = [f"{step['total'] / 1e9:.1f}" for step in ladder.values()]
    assert gigabytes == ["80.9", "13.5", "3.9"]


def test_a_file_in_float16_has_2_bytes_for_each_number():
    assert checkpoint_bytes(18_432) == 36_864


def test_there_is_a_row_for_every_architecture_in_plain_json():
    rows = count_rows(8, QV)
    assert json.loads(json.dumps(rows)) == rows
    assert [row["model"] for row in rows] == list(ARCHITECTURES)
    assert rows[2] == {
        "model": "gpt2",
        "total": 124_439_808,
        "trainable": 294_912,
        "share": 294_912 / 124_439_808,
        "model_bytes": 248_879_616,
        "adapter_bytes": 589_824,
    }
    assert count_rows(4, "all-linear")[0]["trainable"] == 18_432
