"""Claims about inspect_adapter: A and B alone tell how large ΔW is, and what to beware of."""

import json
import math

import numpy as np
import pytest
from adapter_files import PREFIX, factors, write_adapter
from builders import adapted

from minilora import analysis
from minilora.analysis.inspection import inspect_adapter
from minilora.hub import save_adapter
from minilora.lora import get_delta_weight, lora_layers

Q, V = "layers.0.attn.q", "layers.10.attn.v"
A_OF_Q = f"{PREFIX}{Q}.lora_A.weight"


def by_path(found):
    return {one.path.removeprefix("model."): one for one in found.modules}


@pytest.mark.parametrize("use_rslora", [False, True])
def test_the_numbers_are_those_of_delta_w_itself(use_rslora, tmp_path):
    model = adapted("llama", r=3, target_modules=["q_proj", "v_proj"], use_rslora=use_rslora)
    save_adapter(model, tmp_path)
    found = by_path(inspect_adapter(tmp_path))
    assert len(found) == len(lora_layers(model)) == 4
    for path in lora_layers(model):
        delta, one = get_delta_weight(model, path), found[path.replace("attn", "self_attn")]
        assert one.norm == pytest.approx(np.linalg.norm(delta), rel=1e-5)
        assert np.allclose(one.singular_values, analysis.singular_values(delta)[:3], rtol=1e-4)
        for measure in ("effective_rank", "stable_rank", "k90"):
            wanted = getattr(analysis, measure)(delta)
            assert getattr(one, measure) == pytest.approx(wanted, rel=1e-4), measure
        assert (one.d_in, one.d_out, one.r) == (*delta.shape, 3)


def test_the_shares_add_up_and_the_modules_are_in_the_order_of_layers(tmp_path):
    tensors = {
        **factors("layers.10.attn.v", seed=1), **factors("layers.2.attn.q", seed=2),
        **factors("layers.2.mlp.up", 12, 30, seed=3), **factors("layers.10.attn.q", seed=4),
    }  # fmt: skip
    found = inspect_adapter(write_adapter(tmp_path, tensors))
    assert list(by_path(found)) == [
        "layers.2.attn.q", "layers.2.mlp.up", "layers.10.attn.q", "layers.10.attn.v",
    ]  # fmt: skip
    assert sum(found.share(one) for one in found.modules) == pytest.approx(1)
    kinds = found.by_kind()
    assert set(kinds) == {"attn.q", "attn.v", "mlp.up"} and len(kinds["attn.q"]) == 2
    shares = [found.share(*modules) for modules in kinds.values()]
    assert shares == sorted(shares, reverse=True)


def test_patterns_give_each_module_its_own_scale(tmp_path):
    tensors = factors(Q) | factors(V, r=2)
    options = dict(rank_pattern={"attn.v": 2}, alpha_pattern={"attn.v": 12})
    found = by_path(inspect_adapter(write_adapter(tmp_path, tensors, **options)))
    assert (found[Q].s, found[V].s) == (2.0, 6.0) and found[V].r == 2


def test_convolutions_and_embeddings_are_read_as_matrices(tmp_path):
    rng = np.random.default_rng(0)
    conv = rng.standard_normal((4, 3, 2, 2)), rng.standard_normal((5, 4, 1, 1))
    table = rng.standard_normal((4, 20)), rng.standard_normal((6, 4))
    tensors = {
        f"{PREFIX}conv.lora_A.weight": conv[0], f"{PREFIX}conv.lora_B.weight": conv[1],
        f"{PREFIX}embed.lora_embedding_A": table[0], f"{PREFIX}embed.lora_embedding_B": table[1],
    }  # fmt: skip
    found = by_path(inspect_adapter(write_adapter(tmp_path, tensors)))
    assert (found["conv"].d_in, found["conv"].d_out) == (12, 5)
    wanted = np.linalg.norm(2 * table[1] @ table[0])
    assert found["embed"].norm == pytest.approx(wanted, rel=1e-5)


def test_it_is_json_without_nan(tmp_path):
    tensors = factors(Q) | factors(V)
    tensors[A_OF_Q][0, 0] = np.nan
    data = inspect_adapter(write_adapter(tmp_path, tensors)).as_dict()
    again = json.loads(json.dumps(data, allow_nan=False))
    assert again["modules"][0]["delta_norm"] is None and again["modules"][1]["k90"] >= 1
    assert again["bytes"] == sum(p.stat().st_size for p in tmp_path.iterdir())


def with_b(value, path=Q):
    tensors = factors(path)
    tensors[f"{PREFIX}{path}.lora_B.weight"][...] = value
    return tensors


def of_effective_rank_one():
    tensors = factors(Q, r=16, d_in=30, d_out=30)
    tensors[f"{PREFIX}{Q}.lora_B.weight"][:, 1:] *= 1e-3
    return tensors


NORM = {f"{PREFIX}norm.weight": np.ones(12, np.float32)}
M = {f"{PREFIX}{Q}.lora_magnitude_vector": np.ones(9, np.float32)}
WARNINGS = {
    "nothing": (factors(Q), {}, None),
    "untrained": (with_b(0), {}, "ΔW is zero everywhere: this adapter has not been trained"),
    "one of two": (with_b(0) | factors(V), {}, f"ΔW is zero in 1 of 2 modules: model.{Q}"),
    "nan": (with_b(np.nan), {}, f"NaN or infinity in model.{Q}.lora_B.weight"),
    "infinity": (with_b(np.inf), {}, "NaN or infinity in"),
    "large alpha": (factors(Q), dict(lora_alpha=512), "s = 128 is unusual, alpha / r"),
    "small alpha": (factors(Q), dict(lora_alpha=0.01), "s = 0.0025 is unusual"),
    "rank not used": (of_effective_rank_one(), dict(r=16), "r = 1 would hold 90 % of every"),
    "another rank": (factors(Q), dict(r=8), "has rank 4 and the configuration says 8"),
    "too much rank": (factors(Q, r=11), dict(r=11), "r is more than model.layers.0.attn.q can"),
    "whole": (factors(Q) | NORM, {}, "model.norm.weight trained whole: 12 numbers, 12% of all"),
    "dora": (factors(Q) | M, dict(use_dora=True), "DoRA also scales the columns"),
    "pissa": (factors(Q), dict(init_lora_weights="pissa"), "has changed the base model's weights"),
    "lora_bias": (factors(Q), dict(lora_bias=True), "lora_bias=True is not supported.*alone"),
}


@pytest.mark.parametrize("case", WARNINGS)
def test_what_one_should_know_is_said_and_nothing_else(case, tmp_path):
    import re

    tensors, options, sentence = WARNINGS[case]
    found = inspect_adapter(write_adapter(tmp_path, tensors, **options))
    assert len(found.warnings) == (sentence is not None)
    assert all(re.search(sentence, said) for said in found.warnings)
    assert math.isnan(found.modules[0].norm) == (case in ("nan", "infinity"))


HOSTILE = {
    "another method": (factors(Q), dict(peft_type="IA3"), "peft_type='IA3' is not supported"),
    "no lora": (NORM, {}, "holds no lora_A and lora_B: it was not saved as LoRA"),
    "half": ({A_OF_Q: np.ones((4, 12), np.float32)}, {}, "has no lora_B: download"),
    "two ranks": (factors(Q) | {A_OF_Q: np.ones((3, 12), np.float32)}, {}, "A of rank 3 and a B"),
    "flat": ({A_OF_Q: np.ones(12, np.float32)}, {}, "holds no lora_A"),
    "empty": ({A_OF_Q: np.ones((0, 12), np.float32)}, {}, "holds no lora_A"),
    "r no number": (factors(Q), dict(r="four"), "cannot inspect .* r must be a whole number"),
    "r zero": (factors(Q), dict(r=0), "cannot inspect .* r must be a whole number"),
    "alpha": (factors(Q), dict(lora_alpha=-1), "lora_alpha must be a positive number"),
    "pattern": (factors(Q), dict(rank_pattern={"(": 2}), "is not a regular expression"),
    "patterns": (factors(Q), dict(rank_pattern=[1]), "rank_pattern must be a dict"),
    "integers": ({A_OF_Q: np.ones((4, 12), np.int64)}, {}, "stored as I64"),
    "long number": (factors("layers." + "9" * 5000), {}, "is no name of a tensor"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_files_that_cannot_be_meant_are_one_sentence(case, tmp_path):
    tensors, options, sentence = HOSTILE[case]
    write_adapter(tmp_path, tensors, **options)
    with pytest.raises(ValueError, match=sentence):
        inspect_adapter(tmp_path)


def test_damaged_and_missing_files_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="there is no folder"):
        inspect_adapter(tmp_path / "absent")
    write_adapter(tmp_path, factors(Q))
    file = tmp_path / "adapter_model.safetensors"
    file.write_bytes(file.read_bytes()[:-7])
    with pytest.raises(ValueError, match="adapter_model.safetensors is damaged"):
        inspect_adapter(tmp_path)
    (tmp_path / "adapter_config.json").write_text("[]")
    with pytest.raises(ValueError, match="adapter_config.json must be an object"):
        inspect_adapter(tmp_path)


def test_it_reads_a_large_model_without_forming_delta_w(tmp_path):
    import tracemalloc

    tensors = {}
    for i in range(8):
        tensors |= factors(f"layers.{i}.attn.q", 4096, 4096, 16)
    write_adapter(tmp_path, tensors, r=16)
    tracemalloc.start()
    inspect_adapter(tmp_path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4096 * 4096 * 4 / 4  # a quarter of one ΔW in float32
