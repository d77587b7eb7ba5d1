"""Claims about files: what is saved is loaded bit for bit, in the names and shapes of others, and
whatever is wrong is said in a sentence and changes nothing."""

import json
import math
import os
import re
import shutil
import warnings

import numpy as np
import pytest
from safetensors import deserialize
from safetensors.numpy import load_file, save_file

import minilora as ml
from minilora.hub import hf_layout as hf_layouts
from minilora.hub import (
    load_adapter,
    load_model,
    models,
    safetensors_files,
    save_adapter,
    save_model,
)
from minilora.hub.models import base_arrays, slot_names
from minilora.hub.safetensors_files import ADAPTER_FILES, MODEL_FILES
from minilora.lora import active_adapter, adapters, lora_layers
from minilora.methods.registry import METHODS

V, T, C = 11, 6, 8
IDS = np.random.default_rng(3).integers(0, V, (2, T))
LLAMA = dict(norm="rmsnorm", activation="swiglu", positions="rope", bias=False)
KINDS = {
    "gpt2": {},
    "gpt2-untied": dict(tie_embeddings=False, mlp_hidden=12, norm_eps=1e-3, dropout=0.25),
    "llama-grouped": LLAMA | dict(n_kv_head=2, tie_embeddings=False, mlp_hidden=10, dropout=0.25),
    "llama-tied": LLAMA | dict(rope_theta=77.0, norm_eps=1e-3),
    "mixed": dict(activation="swiglu", positions="rope", n_kv_head=2, dropout=0.25),
    "mixed-untied": dict(norm="rmsnorm", tie_embeddings=False),
}


def make_model(kind="gpt2", seed=0, **changes):
    """A model in which every parameter is random, so that none can pass for another."""
    rng = np.random.default_rng(seed)
    sizes = dict(vocab_size=V, block_size=T, n_layer=2, n_head=4, n_embd=C)
    model = ml.Transformer(ml.TransformerConfig(**sizes | KINDS[kind] | changes), rng=rng)
    return shake(model, rng)


def shake(model, rng):
    for p in model.trainable_parameters():
        p.data += rng.standard_normal(p.shape).astype(p.dtype) * 0.3
    return model


def adapt(model, name="default", seed=1, **options):
    """Add an adapter in which everything that trains is random."""
    rng = np.random.default_rng(seed)
    ml.add_adapter(model, ml.LoraConfig(**dict(r=2, lora_alpha=3) | options), name, rng=rng)
    return shake(model, rng)


def logits(model):
    with ml.no_grad():
        return model(IDS).data


def same_state(a, b):
    return a.keys() == b.keys() and all(a[k].tobytes() == b[k].tobytes() for k in a)


def read(folder, which="model"):
    weights = dict(model="model.safetensors", adapter="adapter_model.safetensors")[which]
    config = dict(model="config.json", adapter="adapter_config.json")[which]
    return json.loads((folder / config).read_text()), load_file(folder / weights)


def rewrite(folder, which="model", config=(), drop=(), tensors=()):
    """Change a saved folder: entries of its JSON, keys to drop, tensors to put in."""
    data, arrays = read(folder, which)
    data = {k: v for k, v in (data | dict(config)).items() if k not in drop}
    arrays = {k: v for k, v in (arrays | dict(tensors)).items() if k not in drop}
    names = MODEL_FILES if which == "model" else ADAPTER_FILES
    (folder / names[0]).write_text(json.dumps(data))
    save_file(arrays, folder / names[1], metadata={"format": "pt"})


def snapshot(model):
    """Everything that a failed load must leave alone."""
    parameters = [
        (n, id(p), p.requires_grad, p.data.tobytes()) for n, p in model.named_parameters()
    ]
    modules = [(path, id(m)) for path, m in model.named_modules()]
    return parameters, modules, active_adapter(model), list(adapters(model))


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("kind", KINDS)
def test_saved_model_is_loaded_bit_for_bit(kind, tmp_path):
    model = make_model(kind)
    save_model(model, tmp_path)
    again = load_model(tmp_path)
    assert same_state(again.state_dict(), model.state_dict())
    assert logits(again).tobytes() == logits(model).tobytes()
    for field in ("norm activation positions bias tie_embeddings dropout norm_eps").split():
        assert getattr(again.config, field) == getattr(model.config, field)
    assert again.config.rope_theta == model.config.rope_theta or kind.startswith("gpt2")
    assert (again.config.kv_heads, again.config.hidden) == (
        model.config.kv_heads,
        model.config.hidden,
    )
    assert all(p.requires_grad for p in again.parameters())


def test_gpt2_file_has_the_names_and_shapes_of_transformers(tmp_path):
    model = make_model("gpt2", n_layer=1)
    save_model(model, tmp_path)
    config, tensors = read(tmp_path)
    assert {key: array.shape for key, array in tensors.items()} == {
        "transformer.wte.weight": (V, C),
        "transformer.wpe.weight": (T, C),
        "transformer.h.0.ln_1.weight": (C,),
        "transformer.h.0.ln_1.bias": (C,),
        "transformer.h.0.attn.c_attn.weight": (C, 3 * C),
        "transformer.h.0.attn.c_attn.bias": (3 * C,),
        "transformer.h.0.attn.c_proj.weight": (C, C),
        "transformer.h.0.attn.c_proj.bias": (C,),
        "transformer.h.0.ln_2.weight": (C,),
        "transformer.h.0.ln_2.bias": (C,),
        "transformer.h.0.mlp.c_fc.weight": (C, 4 * C),
        "transformer.h.0.mlp.c_fc.bias": (4 * C,),
        "transformer.h.0.mlp.c_proj.weight": (4 * C, C),
        "transformer.h.0.mlp.c_proj.bias": (C,),
        "transformer.ln_f.weight": (C,),
        "transformer.ln_f.bias": (C,),
    }
    attn = model.layers[0].attn
    q, k, v = (p.weight.data for p in (attn.q_proj, attn.k_proj, attn.v_proj))
    fused = tensors["transformer.h.0.attn.c_attn.weight"]
    assert np.array_equal(fused, np.concatenate([q, k, v], axis=1))
    wanted = dict(model_type="gpt2", architectures=["GPT2LMHeadModel"], n_embd=C, n_layer=1)
    wanted |= dict(n_head=4, n_positions=T, n_ctx=T, vocab_size=V, n_inner=None, embd_pdrop=0.0)
    wanted |= dict(activation_function="gelu_new", layer_norm_epsilon=1e-5, resid_pdrop=0.0)
    wanted |= dict(attn_pdrop=0.0, tie_word_embeddings=True, dtype="float32")
    assert wanted.items() <= config.items()


def test_llama_file_has_the_names_and_shapes_of_transformers(tmp_path):
    model = make_model("llama-grouped", n_layer=1)
    save_model(model, tmp_path)
    config, tensors = read(tmp_path)
    block = "model.layers.0."
    assert {key: array.shape for key, array in tensors.items()} == {
        "model.embed_tokens.weight": (V, C),
        block + "input_layernorm.weight": (C,),
        block + "self_attn.q_proj.weight": (C, C),
        block + "self_attn.k_proj.weight": (C // 2, C),
        block + "self_attn.v_proj.weight": (C // 2, C),
        block + "self_attn.o_proj.weight": (C, C),
        block + "post_attention_layernorm.weight": (C,),
        block + "mlp.gate_proj.weight": (10, C),
        block + "mlp.up_proj.weight": (10, C),
        block + "mlp.down_proj.weight": (C, 10),
        "model.norm.weight": (C,),
        "lm_head.weight": (V, C),
    }
    assert np.array_equal(tensors["lm_head.weight"], model.head.weight.data.T)
    wanted = dict(model_type="llama", architectures=["LlamaForCausalLM"], hidden_size=C)
    wanted |= dict(num_attention_heads=4, num_key_value_heads=2, intermediate_size=10)
    wanted |= dict(max_position_embeddings=T, rms_norm_eps=1e-5, rope_theta=1e4, hidden_act="silu")
    wanted |= dict(rope_parameters=dict(rope_type="default", rope_theta=1e4))
    wanted |= dict(tie_word_embeddings=False, attention_bias=False, mlp_bias=False, vocab_size=V)
    wanted |= dict(attention_dropout=0.0, dtype="float32")
    assert wanted.items() <= config.items()


def test_mixed_model_keeps_our_own_names(tmp_path):
    model = make_model("mixed")
    save_model(model, tmp_path)
    config, tensors = read(tmp_path)
    assert same_state(tensors, model.state_dict())
    assert config["model_type"] == "minilora" and config["activation"] == "swiglu"


def test_file_says_that_its_format_is_pytorchs_and_the_same_model_gives_the_same_bytes(tmp_path):
    for name in ("a", "b"):
        save_model(make_model(), tmp_path / "new" / name)
    assert contents(tmp_path / "new" / "a") == contents(tmp_path / "new" / "b")
    header = (tmp_path / "new" / "a" / "model.safetensors").read_bytes()
    assert b'"__metadata__":{"format":"pt"}' in header


def test_float16_halves_the_file_and_rounds_each_number_once(tmp_path):
    model = make_model()
    save_model(model, tmp_path, dtype=np.float16)
    config, tensors = read(tmp_path)
    assert config["dtype"] == "float16"
    assert {array.dtype for array in tensors.values()} == {np.dtype(np.float16)}
    rounded = {k: v.astype(np.float16).astype(np.float32) for k, v in model.state_dict().items()}
    assert same_state(load_model(tmp_path).state_dict(), rounded)


def test_float64_model_is_saved_as_float32(tmp_path):
    model = make_model()
    expected = model.state_dict()
    save_model(model.to(np.float64), tmp_path)
    assert same_state(load_model(tmp_path).state_dict(), expected)


def break_with_nan(model):
    model.layers[1].mlp.up_proj.weight.data[0, 0] = np.nan


def break_with_infinity(model):
    model.norm.bias.data[0] = -np.inf


def break_with_adapter(model):
    adapt(model)


def break_with_foreign_parameter(model):
    model.prompt = ml.Parameter(np.zeros(3, np.float32))


@pytest.mark.parametrize(
    ("spoil", "options", "sentence"),
    [
        (break_with_nan, {}, "transformer.h.1.mlp.c_fc.weight holds NaN or infinity"),
        (break_with_infinity, {}, "transformer.ln_f.bias holds NaN or infinity"),
        (break_with_adapter, {}, r"adapters \(default\).*merge_and_unload.*save_adapter"),
        (break_with_foreign_parameter, {}, "no prompt"),
        (lambda model: None, dict(dtype=np.int8), "dtype must be"),
        (lambda model: None, dict(dtype=np.float64), "dtype must be"),
        (
            lambda m: m.norm.bias.data.fill(7e4),
            dict(dtype=np.float16),
            "overflows float16 .*; save as",
        ),
    ],
)
def test_model_that_cannot_be_saved_is_refused_and_nothing_is_written(
    spoil, options, sentence, tmp_path
):
    model = make_model()
    spoil(model)
    with pytest.raises(ValueError, match=sentence):
        save_model(model, tmp_path / "folder", **options)
    assert not (tmp_path / "folder").exists()


def test_model_with_foreign_parameters_takes_and_gives_no_adapter(tmp_path):
    plain, adapted = make_model(), adapt(make_model())
    save_adapter(adapted, tmp_path)
    for model in (plain, adapted):
        model.layers[0].mlp.extra = {"scale": ml.Parameter(np.ones(3, np.float32))}
    sentence = "no layers.0.mlp.extra.scale; remove what added them"
    with pytest.raises(ValueError, match=sentence):
        load_adapter(plain, tmp_path)
    with pytest.raises(ValueError, match=sentence):
        save_adapter(adapted, tmp_path)


def test_merged_model_can_be_saved(tmp_path):
    model = adapt(make_model("llama-grouped"))
    expected = logits(model)
    ml.merge_and_unload(model)
    save_model(model, tmp_path)
    assert np.abs(logits(load_model(tmp_path)) - expected).max() < 1e-4


def write_bfloat16(path):
    """The file at path again, each number cut to the upper half of its bits, by hand."""
    header, data = {}, b""
    for key, array in load_file(path).items():
        half = (np.ascontiguousarray(array).view(np.uint32) >> 16).astype("<u2").tobytes()
        offsets = [len(data), len(data) + len(half)]
        header[key] = dict(dtype="BF16", shape=list(array.shape), data_offsets=offsets)
        data += half
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)


def test_bfloat16_is_widened_without_changing_a_number(tmp_path):
    model = make_model()
    save_model(model, tmp_path)
    write_bfloat16(tmp_path / "model.safetensors")
    content = deserialize((tmp_path / "model.safetensors").read_bytes())
    assert {info["dtype"] for _, info in content} == {"BF16"}
    cut = {
        k: (v.view(np.uint32) & np.uint32(0xFFFF0000)).view(np.float32)
        for k, v in model.state_dict().items()
    }
    loaded = load_model(tmp_path).state_dict()
    assert same_state(loaded, cut)


def test_float64_files_load_and_integers_are_refused_by_name(tmp_path):
    model = make_model()
    save_model(model, tmp_path)
    rewrite(tmp_path, tensors={k: v.astype(np.float64) for k, v in read(tmp_path)[1].items()})
    assert same_state(load_model(tmp_path).state_dict(), model.state_dict())
    rewrite(tmp_path, tensors={"transformer.ln_f.bias": np.zeros(C, np.int8)})
    with pytest.raises(ValueError, match=r"transformer.ln_f.bias.*I8.*save it as float32"):
        load_model(tmp_path)


def without_first_part(folder):
    _, tensors = read(folder)
    shorter = {re.sub(r"^(transformer|model)\.", "", k): v for k, v in tensors.items()}
    save_file(shorter, folder / "model.safetensors")


@pytest.mark.parametrize("kind", [kind for kind in KINDS if "mixed" not in kind])
def test_names_without_their_first_part_load(kind, tmp_path):
    model = make_model(kind)
    save_model(model, tmp_path)
    without_first_part(tmp_path)
    assert same_state(load_model(tmp_path).state_dict(), model.state_dict())


@pytest.mark.parametrize("first", ["transformer.", ""])
def test_constants_of_old_files_are_ignored(first, tmp_path):
    model = make_model()
    save_model(model, tmp_path)
    if not first:
        without_first_part(tmp_path)
    mask = np.tril(np.ones((1, 1, T, T), np.uint8))
    old = {f"{first}h.{i}.attn.bias": mask for i in range(2)}
    old |= {f"{first}h.{i}.attn.masked_bias": np.array(-np.inf, np.float32) for i in range(2)}
    rewrite(tmp_path, tensors=old)
    assert same_state(load_model(tmp_path).state_dict(), model.state_dict())


def test_rotary_constants_of_old_llama_files_are_ignored(tmp_path):
    model = make_model("llama-grouped")
    save_model(model, tmp_path)
    key = "model.layers.0.self_attn.rotary_emb.inv_freq"
    rewrite(tmp_path, tensors={key: np.ones(1, np.float32)})
    assert same_state(load_model(tmp_path).state_dict(), model.state_dict())


@pytest.mark.parametrize("kind", ["gpt2", "llama-tied"])
def test_tied_head_in_the_file_must_be_the_embedding(kind, tmp_path):
    model = make_model(kind)
    save_model(model, tmp_path)
    head = model.tok_embed.weight.data.copy()
    rewrite(tmp_path, tensors={"lm_head.weight": head})
    assert same_state(load_model(tmp_path).state_dict(), model.state_dict())
    head[3, 3] += 1
    rewrite(tmp_path, tensors={"lm_head.weight": head})
    with pytest.raises(ValueError, match=r"lm_head.weight.*set tie_word_embeddings to false"):
        load_model(tmp_path)


def test_bundled_model_is_found_by_its_name(tmp_path, monkeypatch):
    monkeypatch.setattr(models, "ASSETS", tmp_path)
    model = make_model()
    save_model(model, tmp_path / "docs-tiny", dtype=np.float16)
    assert load_model("docs-tiny").config == model.config
    with pytest.raises(FileNotFoundError, match=r"'no-such'; bundled models: docs-tiny"):
        load_model("no-such")


def split_in_shards(folder):
    _, tensors = read(folder)
    files = {key: f"model-0000{1 + i % 2}-of-00002.safetensors" for i, key in enumerate(tensors)}
    for file in set(files.values()):
        save_file({k: tensors[k] for k in tensors if files[k] == file}, folder / file)
    (folder / "model.safetensors.index.json").write_text(json.dumps(dict(weight_map=files)))
    (folder / "model.safetensors").unlink()


def test_model_in_shards_loads(tmp_path):
    model = make_model()
    save_model(model, tmp_path)
    split_in_shards(tmp_path)
    assert same_state(load_model(tmp_path).state_dict(), model.state_dict())
    (tmp_path / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match="model-00002-of-00002.safetensors is missing"):
        load_model(tmp_path)
    (tmp_path / "model.safetensors.index.json").write_text("{}")
    with pytest.raises(ValueError, match="index.json is damaged"):
        load_model(tmp_path)


@pytest.mark.parametrize(
    ("kind", "changes", "sentence"),
    [
        ("gpt2", dict(model_type="mistral"), "model_type='mistral'.*gpt2, llama, minilora"),
        ("gpt2", dict(model_type=None), "model_type=None"),
        ("gpt2", dict(activation_function="relu"), "activation_function='relu' is not supported"),
        ("gpt2", dict(scale_attn_weights=False), "scale_attn_weights=False is not"),
        ("gpt2", dict(scale_attn_by_inverse_layer_idx=True), "scale_attn_by_inverse_layer_idx"),
        ("gpt2", dict(add_cross_attention=True), "add_cross_attention=True is not"),
        ("gpt2", dict(quantization_config=dict(bits=4)), "quantization_config"),
        ("gpt2", dict(n_layer="2"), "n_layer='2' has the wrong type"),
        ("gpt2", dict(n_layer=2.0), "n_layer=2.0 has the wrong type"),
        ("gpt2", dict(n_embd=None), "n_embd=None has the wrong type"),
        ("gpt2", dict(n_head=True), "n_head=True has the wrong type"),
        ("gpt2", dict(layer_norm_epsilon="1e-5"), "layer_norm_epsilon='1e-5' has the wrong type"),
        ("gpt2", dict(layer_norm_epsilon=math.nan), "layer_norm_epsilon=nan has the wrong type"),
        ("gpt2", dict(n_head=3), "n_embd=8 must be a multiple of n_head=3"),
        ("gpt2", dict(tie_word_embeddings="no"), "tie_word_embeddings='no' has the wrong type"),
        ("llama-tied", dict(hidden_act="gelu"), "hidden_act='gelu' is not supported, only 'silu'"),
        ("llama-tied", dict(attention_bias=True), "attention_bias=True"),
        ("llama-tied", dict(mlp_bias=True), "mlp_bias=True"),
        ("llama-tied", dict(head_dim=4), "head_dim=4 is not supported"),
        ("llama-tied", dict(rope_scaling=dict(type="linear", factor=2.0)), "rope_scaling=.*linear"),
        ("llama-tied", dict(rope_parameters=dict(rope_type="yarn")), "rope_parameters=.*yarn"),
        ("llama-tied", dict(rope_parameters="default"), "rope_parameters='default'"),
        (
            "llama-tied",
            dict(rope_parameters=dict(rope_theta=1e4, partial_rotary_factor=0.5)),
            "partial_rotary_factor",
        ),
        ("llama-tied", dict(partial_rotary_factor=0.5), "partial_rotary_factor=0.5"),
        ("llama-tied", dict(rope_theta="x", rope_parameters=None), "rope_theta='x' has the wrong"),
        ("mixed", dict(parallel_blocks=True), "not known: parallel_blocks"),
        ("mixed", dict(norm="batchnorm"), "norm must be one of"),
    ],
)
def test_config_that_we_cannot_compute_is_refused_by_name(kind, changes, sentence, tmp_path):
    save_model(make_model(kind), tmp_path)
    rewrite(tmp_path, config=changes)
    with pytest.raises(ValueError, match=f"cannot load .*config.json: .*{sentence}"):
        load_model(tmp_path)


@pytest.mark.parametrize(
    ("kind", "changes"),
    [
        ("gpt2", dict(activation_function="gelu_pytorch_tanh")),
        ("gpt2", dict(reorder_and_upcast_attn=True, summary_type="cls_index", n_ctx=9999)),
        ("gpt2", dict(scale_attn_weights=True, add_cross_attention=None)),
        ("llama-tied", dict(head_dim=2, pretraining_tp=2, attention_dropout=0.5)),
        ("llama-tied", dict(rope_scaling=None, partial_rotary_factor=1.0)),
        ("llama-tied", dict(rope_parameters=None, rope_theta=77)),
        ("llama-tied", dict(rope_theta=5.0)),  # rope_parameters comes first
        ("llama-tied", dict(rope_parameters=None, rope_scaling=dict(type="default"))),
    ],
)
def test_config_that_means_the_same_loads(kind, changes, tmp_path):
    model = make_model(kind)
    save_model(model, tmp_path)
    rewrite(tmp_path, config=changes)
    assert logits(load_model(tmp_path)).tobytes() == logits(model).tobytes()


def test_what_a_config_leaves_out_means_what_it_means_in_transformers(tmp_path):
    save_model(make_model("llama-grouped", norm_eps=1e-2, n_kv_head=None), tmp_path)
    drop = "rms_norm_eps rope_theta rope_parameters num_key_value_heads tie_word_embeddings".split()
    rewrite(tmp_path, drop=drop)
    config = load_model(tmp_path).config
    assert (config.norm_eps, config.rope_theta, config.kv_heads) == (1e-6, 10000.0, 4)
    assert not config.tie_embeddings
    save_model(make_model("gpt2"), tmp_path)
    rewrite(tmp_path, drop=["layer_norm_epsilon", "tie_word_embeddings", "activation_function"])
    config = load_model(tmp_path).config
    assert (config.norm_eps, config.tie_embeddings) == (1e-5, True)
    rewrite(tmp_path, drop=["n_layer", "n_positions"])
    with pytest.raises(ValueError, match="it lacks n_positions, n_layer"):
        load_model(tmp_path)


def test_one_error_names_every_key_and_both_shapes(tmp_path):
    save_model(make_model(), tmp_path)
    wrong = {"transformer.wpe.weight": np.zeros((T, C + 1), np.float32), "extra": np.ones(1)}
    drop = ["transformer.ln_f.bias", "transformer.h.0.attn.c_attn.weight"]
    rewrite(tmp_path, drop=drop, tensors=wrong)
    with pytest.raises(ValueError, match="do not fit its config.json") as error:
        load_model(tmp_path)
    text = str(error.value)
    assert "missing transformer.ln_f.bias (8,)" in text
    assert "missing transformer.h.0.attn.c_attn.weight (8, 24)" in text
    assert text.endswith(" and 2 more") and text.count(";") == 1


def test_weights_of_another_size_name_the_keys_of_the_file(tmp_path):
    save_model(make_model("llama-grouped"), tmp_path)
    rewrite(tmp_path, config=dict(num_key_value_heads=4))
    with pytest.raises(
        ValueError, match=r"self_attn.k_proj.weight is \(4, 8\) where \(8, 8\) is needed"
    ):
        load_model(tmp_path)


def test_nan_in_a_file_is_named(tmp_path):
    save_model(make_model(), tmp_path)
    bias = np.full(C, np.nan, np.float32)
    rewrite(tmp_path, tensors={"transformer.ln_f.bias": bias})
    with pytest.raises(ValueError, match="ln_f.bias in .*tensors holds NaN or infinity"):
        load_model(tmp_path)


@pytest.mark.parametrize("which", ["model", "adapter"])
def test_weights_cut_short_anywhere_are_damaged(which, tmp_path):
    model = adapt(make_model())
    save_adapter(model, tmp_path)
    save_model(make_model(), tmp_path)
    path = tmp_path / dict(model="model", adapter="adapter_model")[which]
    path = path.with_suffix(".safetensors")
    whole = path.read_bytes()
    fresh = make_model()
    for length in (0, 1, 7, 8, 9, 100, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(ValueError, match=r"safetensors is damaged \(.*download it again"):
            load_model(tmp_path) if which == "model" else load_adapter(fresh, tmp_path)
    path.write_bytes(b"\xff" * 64)
    with pytest.raises(ValueError, match="safetensors is damaged"):
        load_model(tmp_path) if which == "model" else load_adapter(fresh, tmp_path)


@pytest.mark.parametrize("which", ["model", "adapter"])
@pytest.mark.parametrize("text", [b"", b'{"n_embd": 8', b"[]", b"\xff\xfe{", b"null"])
def test_damaged_json_is_said_to_be_damaged(which, text, tmp_path):
    save_adapter(adapt(make_model()), tmp_path)
    save_model(make_model(), tmp_path)
    (tmp_path / dict(model="config.json", adapter="adapter_config.json")[which]).write_bytes(text)
    with pytest.raises(ValueError, match=r"config.json is damaged \(.*copy or download it again"):
        load_model(tmp_path) if which == "model" else load_adapter(make_model(), tmp_path)


def load_any(which, folder, kind="gpt2"):
    return load_model(folder) if which == "model" else load_adapter(make_model(kind), folder)


@pytest.mark.parametrize("which", ["model", "adapter"])
def test_missing_files_are_named_with_a_remedy(which, tmp_path):
    config, weights = MODEL_FILES if which == "model" else ADAPTER_FILES
    with pytest.raises(FileNotFoundError, match="there is no folder .*nowhere"):
        load_any(which, tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match=f"has no {config} and no {weights}$"):
        load_any(which, tmp_path)
    (tmp_path / weights.replace("safetensors", "bin")).touch()
    (tmp_path / "pytorch_model.bin").touch()
    (tmp_path / config).write_text("{}")
    with pytest.raises(FileNotFoundError, match=r"model.bin.* is a pickle.*save_pretrained"):
        load_any(which, tmp_path)
    (tmp_path / config).unlink()
    (tmp_path / weights).touch()
    with pytest.raises(FileNotFoundError, match=f"has no {config}$"):
        load_any(which, tmp_path)


def test_folder_of_the_other_kind_is_told_apart(tmp_path):
    model = make_model()
    save_model(model, tmp_path / "model")
    save_adapter(adapt(model), tmp_path / "adapter")
    with pytest.raises(FileNotFoundError, match="it is an adapter: load its model, then load_ad"):
        load_model(tmp_path / "adapter")
    with pytest.raises(FileNotFoundError, match=r"it is a model: load_model\(folder\)"):
        load_adapter(make_model(), tmp_path / "model")


def test_sub_folders_with_adapters_are_named(tmp_path):
    model = adapt(adapt(make_model(), "french"), "german")
    for name in ("french", "german"):
        save_adapter(model, tmp_path / name, name)
    with pytest.raises(FileNotFoundError, match="these sub-folders of it have: french, german"):
        load_adapter(make_model(), tmp_path)


class Interrupted(BaseException):
    """As KeyboardInterrupt: not an Exception."""


@pytest.mark.parametrize("nth", [1, 2, 3, 4])
@pytest.mark.parametrize("which", ["model", "adapter"])
def test_interrupted_save_leaves_the_old_files_and_nothing_else(which, nth, tmp_path, monkeypatch):
    def save(model):
        save_model(model, tmp_path) if which == "model" else save_adapter(model, tmp_path)

    save(make_model() if which == "model" else adapt(make_model()))
    before = contents(tmp_path)
    steps = []

    def interrupt(owner, name):
        real = getattr(owner, name)

        def step(path, content, *args, **kwargs):
            steps.append(name)
            if len(steps) == nth:
                if name.startswith("write"):
                    real(path, content[: len(content) // 2], *args, **kwargs)
                raise Interrupted
            return real(path, content, *args, **kwargs)

        monkeypatch.setattr(owner, name, step)

    interrupt(safetensors_files.Path, "write_bytes")
    interrupt(safetensors_files.Path, "write_text")
    interrupt(os, "replace")
    other = make_model(seed=5)
    with pytest.raises(Interrupted):
        save(other if which == "model" else adapt(other, seed=6, use_rslora=True))
    monkeypatch.undo()
    assert steps[:4] == ["write_bytes", "write_text", "replace", "replace"][:nth]
    after = contents(tmp_path)
    config, weights = MODEL_FILES if which == "model" else ADAPTER_FILES
    assert after == before and before.keys() == {config, weights}
    load_any(which, tmp_path)


def test_save_into_a_file_is_refused_and_a_folder_is_made(tmp_path):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(ValueError, match="file is a file; give a folder"):
        save_model(make_model(), tmp_path / "file")
    assert (tmp_path / "file").read_text() == "mine"
    save_model(make_model(), str(tmp_path / "a" / "b"))
    (tmp_path / "a" / "b" / "tokenizer.json").write_text("{}")
    save_model(make_model(seed=9), tmp_path / "a" / "b")
    assert contents(tmp_path / "a" / "b").keys() == {*MODEL_FILES, "tokenizer.json"}


CONFIG_KEYS = (
    "peft_type r lora_alpha target_modules task_type fan_in_fan_out bias use_rslora use_dora "
    "lora_dropout init_lora_weights inference_mode modules_to_save rank_pattern alpha_pattern "
    "base_model_name_or_path"
).split()

OPTIONS = {
    "q and v": {},
    "k": dict(target_modules=["k_proj"]),
    "all linear": dict(target_modules="all-linear"),
    "one layer": dict(target_modules="all-linear", layers_to_transform=1),
    "rslora": dict(target_modules="all-linear", use_rslora=True),
    "patterns": dict(
        target_modules="all-linear",
        rank_pattern={"v_proj": 1, "layers.1.attn.o_proj": 3},
        alpha_pattern={"up_proj": 7, "layers.0.mlp.*": 0.3},
    ),
    "rslora and patterns": dict(
        target_modules="all-linear",
        use_rslora=True,
        rank_pattern={"v_proj": 1},
        alpha_pattern={"up_proj": 7},
    ),
    "lora_only": dict(bias="lora_only", target_modules=["q_proj", "down_proj"]),
    "all biases": dict(bias="all"),
    "norms": dict(modules_to_save=["norm", "mlp_norm"]),
    "norm and biases": dict(modules_to_save=["norm"], bias="all"),
    "one norm": dict(modules_to_save=["layers.1.attn_norm"], lora_dropout=0.5),
}


def state(model, name):
    """An adapter's own numbers, by path."""
    found = {}
    for path, layer in lora_layers(model).items():
        if name in layer.adapters:
            found[f"{path}.A"], found[f"{path}.B"] = (
                layer.adapters[name].A.data,
                layer.adapters[name].B.data,
            )
            found[f"{path}.s"] = np.float32(layer.adapters[name].s)
    names = slot_names(model)
    copies = adapters(model)[name].copies
    return found | {names[id(s.owner), s.attribute]: s.copy.data for s in copies}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("options", OPTIONS)
def test_saved_adapter_is_loaded_bit_for_bit(kind, options, tmp_path):
    model = adapt(make_model(kind), **OPTIONS[options])
    save_adapter(model, tmp_path)
    again = make_model(kind)
    load_adapter(again, tmp_path)
    unequal_scales = "patterns" in options and kind.startswith("gpt2")  # folded into B
    if unequal_scales:
        assert np.abs(logits(again) - logits(model)).max() < 1e-5
    else:
        assert same_state(state(again, "default"), state(model, "default"))
        assert logits(again).tobytes() == logits(model).tobytes()
    assert [n for n, p in again.named_parameters() if p.requires_grad] == [
        n for n, p in model.named_parameters() if p.requires_grad
    ]
    written, _ = read(tmp_path, "adapter")
    assert sorted(written) == sorted(CONFIG_KEYS)
    mine, its = adapters(model)["default"].config, adapters(again)["default"].config
    for key in "bias use_rslora lora_dropout init_lora_weights".split():
        assert getattr(mine, key) == getattr(its, key) == written[key]


def scale_by_pefts_rules(config, path):
    """As in peft/utils/other.py and tuners/lora/layer.py."""

    def pick(pattern, default):
        hits = [v for k, v in pattern.items() if re.match(rf"(.*\.)?({k})$", path)]
        return hits[0] if hits else default

    r = pick(config["rank_pattern"], config["r"])
    alpha = pick(config["alpha_pattern"], config["lora_alpha"])
    return r, alpha / (math.sqrt(r) if config["use_rslora"] else r)


def selected_by_pefts_rules(config, paths):
    """As check_target_module_exists in peft/tuners/tuners_utils.py."""
    ends = config["target_modules"]
    return {p for p in paths if p in ends or any(p.endswith(f".{end}") for end in ends)}


@pytest.mark.parametrize("kind", ["gpt2", "llama-grouped", "mixed"])
@pytest.mark.parametrize("options", OPTIONS)
def test_peft_would_select_the_same_modules_and_compute_the_same_update(kind, options, tmp_path):
    model = adapt(make_model(kind), **OPTIONS[options])
    save_adapter(model, tmp_path)
    config, tensors = read(tmp_path, "adapter")
    head = "base_model.model."
    ends = [k.removeprefix(head).removesuffix(".lora_A.weight") for k in tensors if "lora_A" in k]
    where = hf_layouts.layout_of(model.config)
    assert selected_by_pefts_rules(config, {p.path for p in where.values()}) == set(ends)
    assert config["fan_in_fan_out"] is (kind != "llama-grouped")
    assert all(key.startswith(head) for key in tensors)
    for path in ends:
        A, B = (tensors[f"{head}{path}.lora_{x}.weight"].astype(np.float64) for x in "AB")
        r, scale = scale_by_pefts_rules(config, path)
        assert A.shape[0] == B.shape[1] == r
        ours = [own for own, place in where.items() if place.path == path]
        width = B.shape[0] // len(ours)
        for i, own in enumerate(ours):
            update = scale * (B @ A).T[:, i * width : (i + 1) * width]  # ΔW = s B A, transposed
            layer = lora_layers(model).get(own)
            expected = layer.delta_weight("default") if layer else np.zeros_like(update)
            assert np.abs(update - expected).max() < 1e-6


@pytest.mark.parametrize(
    ("kind", "options", "expected"),
    [
        ("gpt2", {}, ["c_attn"]),
        ("gpt2", dict(target_modules=["o_proj"]), ["attn.c_proj"]),
        ("gpt2", dict(target_modules=["o_proj", "down_proj"]), ["c_proj"]),
        ("gpt2", dict(target_modules="all-linear"), ["c_attn", "c_fc", "c_proj"]),
        ("gpt2", dict(layers_to_transform=0), ["transformer.h.0.attn.c_attn"]),
        ("gpt2-untied", dict(target_modules=["head"]), ["lm_head"]),
        ("llama-tied", {}, ["q_proj", "v_proj"]),
        (
            "llama-tied",
            dict(target_modules=["up_proj"], layers_to_transform=[1]),
            ["model.layers.1.mlp.up_proj"],
        ),
        ("mixed", {}, ["q_proj", "v_proj"]),
    ],
)
def test_target_modules_are_the_shortest_ends_that_fit(kind, options, expected, tmp_path):
    save_adapter(adapt(make_model(kind), **options), tmp_path)
    assert read(tmp_path, "adapter")[0]["target_modules"] == expected


def test_gpt2_adapters_of_q_and_v_stand_side_by_side_in_c_attn(tmp_path):
    model = adapt(make_model(n_layer=1), rank_pattern={"v_proj": 3}, alpha_pattern={"v_proj": 4.5})
    save_adapter(model, tmp_path)
    config, tensors = read(tmp_path, "adapter")
    assert (config["r"], config["lora_alpha"]) == (5, 7.5)  # both have s = 1.5
    q, v = (lora_layers(model)[f"layers.0.attn.{x}_proj"] for x in "qv")
    path = "base_model.model.transformer.h.0.attn.c_attn.lora_"
    assert {k: a.shape for k, a in tensors.items()} == {
        f"{path}A.weight": (5, C),
        f"{path}B.weight": (3 * C, 5),
    }
    A, B = tensors[f"{path}A.weight"].T, tensors[f"{path}B.weight"].T
    expected = np.zeros((5, 3 * C), np.float32)
    expected[:2, :C], expected[2:, 2 * C :] = (
        q.adapters["default"].B.data,
        v.adapters["default"].B.data,
    )
    assert np.array_equal(B, expected)
    assert np.array_equal(
        A, np.concatenate([q.adapters["default"].A.data, v.adapters["default"].A.data], 1)
    )


def write_c_attn_adapter(folder, r=3, layers=2, seed=0, config=(), **tensors):
    """What PEFT would write for c_attn, all of A and B random unless given."""
    rng = np.random.default_rng(seed)
    save_adapter(adapt(make_model(n_layer=layers)), folder)
    found = {}
    for i in range(layers):
        path = f"base_model.model.transformer.h.{i}.attn.c_attn.lora_"
        found[f"{path}A.weight"] = rng.standard_normal((r, C)).astype(np.float32)
        found[f"{path}B.weight"] = rng.standard_normal((3 * C, r)).astype(np.float32)
    rewrite(folder, "adapter", dict(r=r, lora_alpha=r / 2) | dict(config), tensors=found | tensors)
    return read(folder, "adapter")[1]


def test_c_attn_adapter_becomes_three_with_the_same_A(tmp_path):
    tensors = write_c_attn_adapter(tmp_path)
    model = make_model()
    load_adapter(model, tmp_path)
    assert len(lora_layers(model)) == 6
    for i in range(2):
        path = f"base_model.model.transformer.h.{i}.attn.c_attn.lora_"
        A, B = tensors[f"{path}A.weight"].T, tensors[f"{path}B.weight"].T
        for third, x in enumerate("qkv"):
            layer = lora_layers(model)[f"layers.{i}.attn.{x}_proj"]
            assert np.array_equal(layer.adapters["default"].A.data, A)
            assert np.array_equal(layer.adapters["default"].B.data, np.split(B, 3, 1)[third])
            assert layer.adapters["default"].s == 0.5


def test_c_attn_adapter_loaded_and_saved_is_the_same_file_however_often(tmp_path):
    tensors = write_c_attn_adapter(tmp_path)
    for _ in range(3):
        model = make_model()
        load_adapter(model, tmp_path)
        save_adapter(model, tmp_path)
        assert same_state(read(tmp_path, "adapter")[1], tensors)
    assert read(tmp_path, "adapter")[0]["r"] == 3


def test_untrained_row_of_c_attn_stays_with_q_k_and_v(tmp_path):
    B = np.ones((3 * C, 3), np.float32)
    B[:, 1] = 0  # a rank that nothing has used yet
    key = "base_model.model.transformer.h.0.attn.c_attn.lora_B.weight"
    write_c_attn_adapter(tmp_path, **{key: B})
    model = make_model()
    load_adapter(model, tmp_path)
    for x in "qkv":
        assert lora_layers(model)[f"layers.0.attn.{x}_proj"].adapters["default"].A.shape == (C, 3)


def test_fresh_adapter_loads_as_no_change(tmp_path):
    model = make_model()
    ml.add_adapter(model, ml.LoraConfig(r=4), rng=np.random.default_rng(0))
    save_adapter(model, tmp_path)
    again = make_model()
    load_adapter(again, tmp_path)
    assert logits(again).tobytes() == logits(make_model()).tobytes()


@pytest.mark.parametrize("kind", ["gpt2", "llama-grouped"])
def test_more_rank_than_a_matrix_has_is_loaded_as_all_it_has(kind, tmp_path):
    model = adapt(make_model(kind), target_modules=["k_proj", "up_proj", "down_proj"], r=2)
    save_adapter(model, tmp_path)
    _, tensors = read(tmp_path, "adapter")
    rng = np.random.default_rng(0)
    wide = {}
    for key, array in tensors.items():
        shape = (19, array.shape[1]) if "lora_A" in key else (array.shape[0], 19)
        wide[key] = rng.standard_normal(shape).astype(np.float32)
    rewrite(tmp_path, "adapter", dict(r=19, lora_alpha=9.5), tensors=wide)
    again = make_model(kind)
    load_adapter(again, tmp_path)
    for path, layer in lora_layers(again).items():
        place = hf_layouts.layout_of(again.config)[path]
        A, B = (wide[f"base_model.model.{place.path}.lora_{x}.weight"].T for x in "AB")
        B = B if place.third is None else np.split(B, 3, axis=1)[place.third]
        assert layer.adapters["default"].A.shape[1] == min(layer.base.weight.shape)
        assert np.abs(layer.delta_weight("default") - 0.5 * A @ B).max() < 1e-5
    save_adapter(again, tmp_path / "again")


def test_different_scales_of_q_k_and_v_are_folded_into_B(tmp_path):
    alphas = {"q_proj": 1, "k_proj": 0, "v_proj": -40}
    model = adapt(make_model(), target_modules=["q_proj", "k_proj", "v_proj"], alpha_pattern=alphas)
    save_adapter(model, tmp_path)
    again = make_model()
    load_adapter(again, tmp_path)
    for path, layer in lora_layers(model).items():
        update, expected = ml.get_delta_weight(again, path), layer.delta_weight("default")
        assert expected.any() != ("k_proj" in path)
        assert np.allclose(update, expected, rtol=1e-4, atol=1e-7)


def test_scale_of_zero_everywhere_is_kept(tmp_path):
    model = adapt(make_model(), lora_alpha=0)
    save_adapter(model, tmp_path)
    again = make_model()
    load_adapter(again, tmp_path)
    assert {layer.adapters["default"].s for layer in lora_layers(again).values()} == {0}


@pytest.mark.parametrize("use_rslora", [False, True])
def test_patterns_in_the_file_are_read_as_peft_reads_them(use_rslora, tmp_path):
    model = adapt(make_model("llama-grouped"), target_modules=["q_proj", "up_proj"])
    save_adapter(model, tmp_path)
    patterns = dict(
        alpha_pattern={
            "^model.layers.0.self_attn.q_proj": 5,
            "q_proj": 7,
            r"layers\.\d\.mlp\..*": 9,
        },
        rank_pattern={"roj": 1, "odel.layers": 1},  # not the end of a path, so without effect
        use_rslora=use_rslora,
        lora_alpha=11,
    )
    rewrite(tmp_path, "adapter", patterns)
    again = make_model("llama-grouped")
    load_adapter(again, tmp_path)
    divisor = math.sqrt(2) if use_rslora else 2
    assert {p: layer.adapters["default"].s for p, layer in lora_layers(again).items()} == {
        "layers.0.attn.q_proj": 5 / divisor,
        "layers.1.attn.q_proj": 7 / divisor,
        "layers.0.mlp.up_proj": 9 / divisor,
        "layers.1.mlp.up_proj": 9 / divisor,
    }


def test_layers_to_adapt_are_those_of_the_file_whatever_target_modules_says(tmp_path):
    save_adapter(adapt(make_model("mixed"), layers_to_transform=1), tmp_path)
    rewrite(tmp_path, "adapter", dict(target_modules=r".*\.nothing", layers_to_transform=[7]))
    again = make_model("mixed")
    load_adapter(again, tmp_path)
    assert list(lora_layers(again)) == ["layers.1.attn.q_proj", "layers.1.attn.v_proj"]


def test_what_the_config_leaves_out_has_pefts_defaults(tmp_path):
    save_adapter(adapt(make_model("mixed"), r=8, target_modules=["q_proj"]), tmp_path)
    rewrite(tmp_path, "adapter", drop=[k for k in CONFIG_KEYS if k != "peft_type"])
    again = make_model("mixed")
    load_adapter(again, tmp_path)
    config = adapters(again)["default"].config
    assert (config.r, config.lora_alpha, config.bias, config.lora_dropout) == (8, 8, "none", 0.0)
    assert (config.init_lora_weights, config.use_rslora) == (True, False)


BIASES = {
    "gpt2": {
        "lora_only": {"attn.c_attn.base_layer", "mlp.c_proj.base_layer"},
        "all": {
            "attn.c_attn.base_layer",
            "mlp.c_proj.base_layer",
            "attn.c_proj",
            "mlp.c_fc",
            "ln_1",
            "ln_2",
        },
    },
}


@pytest.mark.parametrize("bias", ["lora_only", "all"])
def test_biases_have_the_keys_of_peft(bias, tmp_path):
    model = adapt(make_model(n_layer=1), bias=bias, target_modules=["q_proj", "down_proj"])
    save_adapter(model, tmp_path)
    _, tensors = read(tmp_path, "adapter")
    expected = {f"base_model.model.transformer.h.0.{p}.bias" for p in BIASES["gpt2"][bias]}
    if bias == "all":
        expected.add("base_model.model.transformer.ln_f.bias")
    assert {key for key in tensors if "lora_" not in key} == expected
    fused = tensors["base_model.model.transformer.h.0.attn.c_attn.base_layer.bias"]
    attn = model.layers[0].attn
    assert np.array_equal(fused[:C], attn.q_proj.base.bias.data)
    assert np.array_equal(fused[C : 2 * C], attn.k_proj.bias.data)


def test_bias_of_an_adapted_layer_loads_under_its_old_key_too(tmp_path):
    model = adapt(make_model(n_layer=1), bias="lora_only", target_modules=["down_proj"])
    save_adapter(model, tmp_path)
    key = "base_model.model.transformer.h.0.mlp.c_proj.base_layer.bias"
    array = read(tmp_path, "adapter")[1][key]
    rewrite(tmp_path, "adapter", drop=[key], tensors={key.replace(".base_layer", ""): array})
    again = make_model(n_layer=1)
    load_adapter(again, tmp_path)
    assert logits(again).tobytes() == logits(model).tobytes()


def test_trained_bias_of_a_layer_without_update_is_kept(tmp_path):
    base = make_model(n_layer=1)
    attn = base.layers[0].attn
    biases = [p.bias.data for p in (attn.q_proj, attn.k_proj, attn.v_proj)]
    biases[1] = biases[1] + 1
    path = "base_model.model.transformer.h.0.attn.c_attn."
    B = np.zeros((3 * C, 3), np.float32)
    B[:C] = 1  # an update of q alone
    tensors = {f"{path}lora_B.weight": B, f"{path}base_layer.bias": np.concatenate(biases)}
    write_c_attn_adapter(tmp_path, layers=1, config=dict(bias="lora_only"), **tensors)
    load_adapter(base, tmp_path)
    assert list(lora_layers(base)) == ["layers.0.attn.q_proj", "layers.0.attn.k_proj"]
    assert np.array_equal(attn.k_proj.base.bias.data, biases[1])
    assert not ml.get_delta_weight(base, "layers.0.attn.k_proj").any()


def test_what_peft_repeats_with_biases_and_saved_modules_is_ignored(tmp_path):
    model = adapt(make_model(), bias="all", modules_to_save=["norm"])
    save_adapter(model, tmp_path)
    norm = "base_model.model.transformer.ln_f"
    bias = read(tmp_path, "adapter")[1][f"{norm}.bias"]
    repeated = {f"{norm}.modules_to_save.bias": bias, f"{norm}.original_module.bias": bias * 0}
    rewrite(tmp_path, "adapter", tensors=repeated)
    again = make_model()
    load_adapter(again, tmp_path)
    assert logits(again).tobytes() == logits(model).tobytes()


@pytest.mark.parametrize(
    ("kind", "ours", "theirs", "keys"),
    [
        ("gpt2", ["norm"], ["ln_f"], ["transformer.ln_f.weight", "transformer.ln_f.bias"]),
        ("gpt2", ["attn_norm"], ["ln_1"], ["transformer.h.0.ln_1.weight"]),
        ("gpt2", ["pos_embed"], ["wpe"], ["transformer.wpe.weight"]),
        ("gpt2", ["o_proj"], ["attn.c_proj"], ["transformer.h.1.attn.c_proj.weight"]),
        ("gpt2-untied", ["head", "tok_embed"], ["lm_head", "wte"], ["lm_head.weight"]),
        ("llama-grouped", ["head"], ["lm_head"], ["lm_head.weight"]),
        ("llama-grouped", ["norm"], ["model.norm"], ["model.norm.weight"]),
        (
            "llama-grouped",
            ["mlp_norm"],
            ["post_attention_layernorm"],
            ["model.layers.1.post_attention_layernorm.weight"],
        ),
        ("llama-grouped", ["mlp"], ["down_proj", "gate_proj", "up_proj"], []),
        ("mixed-untied", ["norm"], ["norm"], ["norm.weight"]),
    ],
)
def test_modules_to_save_get_the_names_that_select_them_in_peft(kind, ours, theirs, keys, tmp_path):
    model = adapt(make_model(kind), modules_to_save=ours)
    save_adapter(model, tmp_path)
    config, tensors = read(tmp_path, "adapter")
    assert config["modules_to_save"] == theirs
    assert {f"base_model.model.{key}" for key in keys} <= tensors.keys()
    again = make_model(kind)
    load_adapter(again, tmp_path)
    assert same_state(state(again, "default"), state(model, "default"))


def test_word_that_ends_several_paths_means_all_of_them_as_in_peft(tmp_path):
    model = adapt(make_model("llama-grouped"), modules_to_save=["norm", "attn_norm", "mlp_norm"])
    save_adapter(model, tmp_path)
    rewrite(tmp_path, "adapter", dict(modules_to_save=["norm"]))
    again = make_model("llama-grouped")
    load_adapter(again, tmp_path)
    assert logits(again).tobytes() == logits(model).tobytes()
    drop = ["base_model.model.model.layers.0.input_layernorm.weight"]
    rewrite(tmp_path, "adapter", drop=drop)
    with pytest.raises(ValueError, match=r"missing model.layers.0.input_layernorm.weight \(8,\)$"):
        load_adapter(make_model("llama-grouped"), tmp_path)


def test_trained_head_that_the_file_lost_is_missed(tmp_path):
    save_adapter(adapt(make_model("llama-grouped"), modules_to_save=["head"]), tmp_path)
    rewrite(tmp_path, "adapter", drop=["base_model.model.lm_head.weight"])
    with pytest.raises(ValueError, match="missing lm_head.weight"):
        load_adapter(make_model("llama-grouped"), tmp_path)


def test_k_trained_whole_takes_q_and_v_of_the_base_along(tmp_path):
    options = dict(target_modules=["up_proj"], modules_to_save=["layers.1.attn.k_proj"])
    model = adapt(make_model(), **options)
    save_adapter(model, tmp_path)
    config, tensors = read(tmp_path, "adapter")
    assert config["modules_to_save"] == ["transformer.h.1.attn.c_attn"]
    attn = model.layers[1].attn
    parts = [p.weight.data for p in (attn.q_proj, attn.k_proj, attn.v_proj)]
    fused = tensors["base_model.model.transformer.h.1.attn.c_attn.weight"]
    assert np.array_equal(fused, np.concatenate(parts, 1))
    again = make_model()
    load_adapter(again, tmp_path)
    assert logits(again).tobytes() == logits(model).tobytes()


def test_c_attn_cannot_be_adapted_and_trained_whole(tmp_path):
    model = adapt(make_model(), target_modules=["q_proj"], modules_to_save=["v_proj"])
    with pytest.raises(ValueError, match=r"c_attn fuses q, k and v.*change target_modules"):
        save_adapter(model, tmp_path / "folder")
    assert not (tmp_path / "folder").exists()


def test_each_adapter_is_saved_with_its_own_numbers_whichever_is_active(tmp_path):
    model = make_model()
    adapt(model, "first", seed=1, bias="all", modules_to_save=["norm"])
    adapt(model, "second", seed=2, bias="lora_only", target_modules=["o_proj"])
    adapt(
        model, "third", seed=3, modules_to_save=["layers.0.attn.q_proj"], target_modules=["up_proj"]
    )
    for name in adapters(model):
        save_adapter(model, tmp_path / name, name)
        ml.set_adapter(model, name)
        save_adapter(model, tmp_path / "active")
        assert contents(tmp_path / name) == contents(tmp_path / "active")
        again = make_model()
        load_adapter(again, tmp_path / name, name="other")
        assert active_adapter(again) == "other"
        assert logits(again).tobytes() == logits(model).tobytes()


def test_loading_several_adapters_lets_one_switch_between_them(tmp_path):
    expected = {}
    for i, name in enumerate(("first", "second")):
        model = adapt(make_model(), seed=i, modules_to_save=["norm"], bias="all")
        save_adapter(model, tmp_path / name)
        expected[name] = logits(model)
    model = make_model()
    for name in expected:
        load_adapter(model, tmp_path / name, name)
    for name in ("first", "second", "first"):
        ml.set_adapter(model, name)
        assert logits(model).tobytes() == expected[name].tobytes()
    with ml.disable_adapter(model):
        assert logits(model).tobytes() == logits(make_model()).tobytes()


def test_merged_adapter_is_saved_as_it_was_before_merging(tmp_path):
    model = adapt(make_model(), "whole", modules_to_save=["k_proj"], target_modules=["up_proj"])
    adapt(model, "merged", seed=4)
    for folder in ("before", "after"):
        save_adapter(model, tmp_path / folder / "merged", "merged")
        save_adapter(model, tmp_path / folder / "whole", "whole")
        if folder == "before":
            ml.merge_adapter(model)
    for name in ("merged", "whole"):
        assert contents(tmp_path / "before" / name) == contents(tmp_path / "after" / name)


@pytest.mark.parametrize("kind", ["gpt2", "llama-grouped"])
def test_loaded_adapter_trains_on_and_is_saved_again(kind, tmp_path):
    save_adapter(adapt(make_model(kind), bias="all", modules_to_save=["norm"]), tmp_path)
    model = make_model(kind)
    load_adapter(model, tmp_path)
    base = {n: v.tobytes() for n, v in base_arrays(model).items()}
    before, start = state(model, "default"), logits(model)
    before = {k: v.copy() for k, v in before.items()}
    optimizer = ml.AdamW(model.trainable_parameters(), lr=1e-2)
    for _ in range(2):
        ml.cross_entropy(model(IDS), np.roll(IDS, -1, 1)).backward()
        optimizer.step()
        optimizer.zero_grad()
    assert {n: v.tobytes() for n, v in base_arrays(model).items()} == base
    moved = {k for k, v in state(model, "default").items() if v.tobytes() != before[k].tobytes()}
    assert moved == {k for k in before if not k.endswith(".s")}
    save_adapter(model, tmp_path)
    again = make_model(kind)
    load_adapter(again, tmp_path)
    assert logits(again).tobytes() == logits(model).tobytes() != start.tobytes()
    assert same_state(state(again, "default"), state(model, "default"))


def test_adapter_is_loaded_in_the_precision_of_the_model(tmp_path):
    save_adapter(adapt(make_model()), tmp_path)
    model = make_model().to(np.float64)
    load_adapter(model, tmp_path)
    assert {p.dtype for p in model.parameters()} == {np.dtype(np.float64)}
    assert logits(model).dtype == np.float64


@pytest.mark.parametrize(
    ("name", "what"), [("nobody", "adapter 'nobody'"), (None, "active adapter")]
)
def test_adapter_that_is_not_there_cannot_be_saved(name, what, tmp_path):
    with pytest.raises(ValueError, match=f"no {what} to save; adapters of this model: none"):
        save_adapter(make_model(), tmp_path / "folder", name)
    model = adapt(make_model(), "french")
    with pytest.raises(ValueError, match="'nobody' to save; adapters of this model: french"):
        save_adapter(model, tmp_path / "folder", "nobody")
    assert not (tmp_path / "folder").exists()


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_adapter_with_nan_is_not_saved(bad, tmp_path):
    model = adapt(make_model("mixed"))
    layer = lora_layers(model)["layers.1.attn.q_proj"]
    layer.adapters["default"].A.data[0, 0] = bad
    with pytest.raises(ValueError, match="1.attn.q_proj.lora_A.weight holds NaN"):
        save_adapter(model, tmp_path / "folder")
    layer.adapters["default"].A.data[0, 0] = 1
    layer.adapters["default"].s = bad
    with pytest.raises(ValueError, match=r"scale is .*change lora_alpha"):
        save_adapter(model, tmp_path / "folder")
    assert not (tmp_path / "folder").exists()


HARMLESS = dict(
    base_model_name_or_path="gpt2",
    revision="main",
    auto_mapping={"a": 1},
    peft_version="9.9",
    megatron_config={"a": 1},
    loftq_config={"a": 1},
    eva_config={"rho": 2.0},
    inference_mode=False,
    task_type=None,
    layers_pattern="h",
    exclude_modules=["mlp"],
    use_dora=None,
    lora_bias=False,
    layer_replication=None,
    trainable_token_indices=None,
    target_parameters=[],
    fan_in_fan_out=False,
    init_lora_weights="orthogonal",
    modules_to_save=None,
    rank_pattern=None,
    alpha_pattern=None,
)


def test_options_of_peft_without_effect_pass_in_silence(tmp_path):
    model = adapt(make_model("mixed"))
    save_adapter(model, tmp_path)
    rewrite(tmp_path, "adapter", HARMLESS)
    again = make_model("mixed")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load_adapter(again, tmp_path)
    assert logits(again).tobytes() == logits(model).tobytes()


def test_unknown_options_are_named_in_one_warning_at_the_callers_line(tmp_path):
    model = adapt(make_model("mixed"))
    save_adapter(model, tmp_path)
    rewrite(tmp_path, "adapter", dict(zeta=None, alpha_of_tomorrow=1))
    again = make_model("mixed")
    with pytest.warns(UserWarning, match="ignored alpha_of_tomorrow, zeta") as caught:
        load_adapter(again, tmp_path)
    assert len(caught) == 1 and caught[0].filename == __file__
    assert logits(again).tobytes() == logits(model).tobytes()


BAD_OPTIONS = [
    (dict(peft_type="IA3"), "peft_type='IA3' is not supported, only 'LORA'"),
    (dict(peft_type=None), "peft_type=None"),
    (dict(lora_bias=True), "lora_bias=True"),
    (dict(layer_replication=[[0, 1]]), "layer_replication"),
    (dict(trainable_token_indices=[0]), "trainable_token_indices"),
    (dict(target_parameters=["a"]), "target_parameters"),
    (dict(alora_invocation_tokens=[1]), "alora_invocation_tokens"),
    (dict(use_qalora=True), "use_qalora"),
    (dict(arrow_config={"top_k": 1}), "arrow_config"),
    (dict(use_bdlora={"nblocks": 2}), "use_bdlora"),
    (dict(kasa_config={"a": 1}), "kasa_config"),
    (dict(monteclora_config={"a": 1}), "monteclora_config"),
    (dict(init_lora_weights="pissa_niter_4"), "pissa_niter_4.*path_initial_model_for_weight"),
    (dict(init_lora_weights="olora"), "olora"),
    (dict(r="4"), "wrong type"),
    (dict(r=0), "rank must be at least 1, got 0"),
    (dict(r=None), "wrong type"),
    (dict(lora_alpha="x"), "wrong type"),
    (dict(lora_alpha=None), "wrong type"),
    (dict(lora_alpha=math.nan), "must be finite"),
    (dict(alpha_pattern={"q_proj": math.inf}), "must be finite"),
    (dict(alpha_pattern={"q_proj": "3"}), "wrong type"),
    (dict(alpha_pattern={"(": 3}), "not a regular expression"),
    (dict(rank_pattern=["q_proj"]), "wrong type"),
    (dict(rank_pattern={"q_proj": 0}), "rank must be at least 1"),
    (dict(bias="some"), "bias must be"),
    (dict(lora_dropout=1.5), "lora_dropout must lie"),
    (dict(lora_dropout="a"), "wrong type"),
    (dict(modules_to_save=7), "wrong type"),
]


@pytest.mark.parametrize(("changes", "sentence"), BAD_OPTIONS)
def test_option_that_cannot_be_followed_is_refused_by_name(changes, sentence, tmp_path):
    save_adapter(adapt(make_model("mixed")), tmp_path)
    rewrite(tmp_path, "adapter", changes)
    model = make_model("mixed")
    before = snapshot(model)
    with pytest.raises(ValueError, match=f"cannot load the adapter in .*: .*{sentence}"):
        load_adapter(model, tmp_path)
    assert snapshot(model) == before


ODD_VALUES = (None, True, 0, -1, 2.5, "x", "", [], [1], {}, {"x": 1}, math.nan, math.inf)


@pytest.mark.parametrize(
    ("which", "kind"), [("model", "gpt2"), ("model", "llama-grouped"), ("adapter", "mixed")]
)
def test_no_value_of_any_option_leads_to_another_error_than_a_sentence(which, kind, tmp_path):
    save_adapter(adapt(make_model(kind)), tmp_path)
    save_model(make_model(kind), tmp_path)
    names = MODEL_FILES if which == "model" else ADAPTER_FILES
    config = json.loads((tmp_path / names[0]).read_text())
    sentences = []
    for key in config:
        for value in ODD_VALUES:
            (tmp_path / names[0]).write_text(json.dumps(config | {key: value}))
            try:
                load_any(which, tmp_path, kind)
            except ValueError as error:
                sentences.append(str(error))
    assert len(sentences) > 50
    assert all(str(tmp_path) in text or "modules_to_save" in text for text in sentences)


Q = "base_model.model.layers.0.attn.q_proj."
UNFIT = [
    (dict(drop=[f"{Q}lora_A.weight"]), r"missing layers.0.attn.q_proj.lora_A.weight \(2, 8\)"),
    (dict(drop=[f"{Q}lora_B.weight"]), r"missing layers.0.attn.q_proj.lora_B.weight \(8, 2\)"),
    (dict(config=dict(r=3)), r"q_proj.lora_A.weight is \(2, 8\) where \(3, 8\) is needed"),
    (dict(drop=["r"]), r"q_proj.lora_B.weight is \(8, 2\) where \(8, 8\) is needed"),
    (dict(config=dict(rank_pattern={"v_proj": 1})), r"v_proj.lora_A.weight is \(2, 8\) where \(1"),
    (dict(config=dict(bias="all")), "missing layers.0.attn_norm.bias"),
    (dict(config=dict(bias="lora_only")), "missing layers.0.attn.v_proj.bias"),
    (dict(config=dict(modules_to_save=["norm"])), "missing norm.weight"),
    (dict(config=dict(use_dora=True)), r"missing .*q_proj.lora_magnitude_vector \(8,\)"),
    (dict(config=dict(modules_to_save=["score"])), "modules_to_save='score' of the adapter is not"),
    (dict(tensors={f"{Q}lora_magnitude_vector": np.ones(C)}), "unexpected .*lora_magnitude_vector"),
    (dict(tensors={"base_model.model.norm.bias": np.ones(C)}), "unexpected norm.bias"),
    (
        dict(tensors={"base_model.model.head.weight": np.ones(C)}),
        "beside another head.weight",
    ),
    (
        dict(tensors={"base_model.model.tok_embed.weight": np.ones((V, C))}),
        "embedding to which the head is tied",
    ),
    (
        dict(tensors={f"{Q}base_layer.weight": np.ones((C, C))}),
        "trained beside another layers.0.attn.q_proj.weight",
    ),
    (dict(tensors={f"{Q}lora_A.weight": np.ones((2, C + 1))}), r"is \(2, 9\) where \(2, 8\)"),
    (dict(tensors={f"{Q}lora_A.weight": np.full((2, C), np.nan)}), "holds NaN or infinity"),
]


@pytest.mark.parametrize(("damage", "sentence"), UNFIT)
@pytest.mark.parametrize("others", [0, 2])
def test_adapter_that_does_not_fit_is_explained_and_changes_nothing(
    damage, sentence, others, tmp_path
):
    save_adapter(adapt(make_model("mixed")), tmp_path)
    rewrite(tmp_path, "adapter", **damage)
    model = make_model("mixed")
    model.norm.weight.requires_grad = False  # flags of the user's own
    for i in range(others):
        adapt(model, f"other{i}", seed=i, modules_to_save=["norm"], bias="all")
    before = snapshot(model)
    with pytest.raises(ValueError, match=sentence):
        load_adapter(model, tmp_path)
    assert snapshot(model) == before


@pytest.mark.parametrize("target", ["llama-grouped", "mixed", "gpt2-untied"])
def test_adapter_of_another_architecture_or_size_is_refused_with_a_remedy(target, tmp_path):
    save_adapter(adapt(make_model("gpt2"), target_modules=["up_proj"]), tmp_path)
    model = make_model(target)
    before = snapshot(model)
    with pytest.raises(ValueError, match=r"does not fit this model \(.*load the model it was") as e:
        load_adapter(model, tmp_path)
    assert "transformer.h.0.mlp.c_fc.lora_A.weight" in str(e.value) or target == "gpt2-untied"
    assert snapshot(model) == before


def test_adapter_without_any_factors_is_refused(tmp_path):
    save_adapter(adapt(make_model("mixed")), tmp_path)
    save_file({"base_model.model.norm.weight": np.ones(C)}, tmp_path / "adapter_model.safetensors")
    with pytest.raises(ValueError, match="holds no lora_A and lora_B"):
        load_adapter(make_model("mixed"), tmp_path)


def test_frozen_weight_that_peft_writes_beside_an_adapted_head_is_ignored(tmp_path):
    model = adapt(make_model("gpt2-untied"), target_modules=["head"])
    save_adapter(model, tmp_path)
    frozen = np.ascontiguousarray(model.head.base.weight.data.T)
    rewrite(tmp_path, "adapter", tensors={"base_model.model.lm_head.base_layer.weight": frozen})
    again = make_model("gpt2-untied")
    load_adapter(again, tmp_path)
    assert logits(again).tobytes() == logits(model).tobytes()


def test_name_that_is_taken_and_a_merged_model_are_refused_and_unchanged(tmp_path):
    model = adapt(make_model())
    save_adapter(model, tmp_path)
    before = snapshot(model)
    with pytest.raises(ValueError, match="has an adapter 'default' already"):
        load_adapter(model, tmp_path)
    assert snapshot(model) == before
    ml.merge_adapter(model)
    before = snapshot(model)
    with pytest.raises(ValueError, match="unmerge_adapter"):
        load_adapter(model, tmp_path, "other")
    assert snapshot(model) == before


def test_adapter_folder_can_be_moved_and_holds_two_files_only(tmp_path):
    model = adapt(make_model())
    save_adapter(model, tmp_path / "a")
    assert contents(tmp_path / "a").keys() == set(ADAPTER_FILES)
    shutil.move(tmp_path / "a", tmp_path / "b")
    again = make_model()
    load_adapter(again, str(tmp_path / "b"))
    assert logits(again).tobytes() == logits(model).tobytes()


@pytest.mark.parametrize("name", ["adapter", "prefix", "prompt"])
def test_a_model_with_modules_of_another_method_is_not_saved(name, tmp_path):
    model = ml.load_model("docs-tiny")
    METHODS[name].prepare(model, ml.LoraConfig(r=2), np.random.default_rng(0))
    with pytest.raises(ValueError, match=r"a plain Transformer has no .*; remove what added them"):
        ml.save_model(model, tmp_path / "model")
    assert not (tmp_path / "model").exists()
