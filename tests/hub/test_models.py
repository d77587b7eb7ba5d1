"""Claims about models as files: what is saved is loaded bit for bit, in the names and shapes of
transformers, and a file of theirs means here what it means there."""

import json
import os

import numpy as np
import pytest
from folders import (
    FILES,
    KINDS,
    C,
    T,
    V,
    adapt,
    contents,
    logits,
    make,
    read,
    rewrite,
    same,
    same_logits,
)

import minilora as ml
from minilora.hub import load_model, models, places, save_model
from minilora.hub.hf_layout import parameter_shapes
from minilora.hub.models import unchanged_source


@pytest.mark.parametrize("kind", KINDS)
def test_saved_model_is_loaded_bit_for_bit(kind, tmp_path):
    model = make(kind)
    save_model(model, tmp_path)
    again = load_model(tmp_path)
    assert same(again.state_dict(), model.state_dict()) and same_logits(again, model)
    for field in (
        "norm", "activation", "positions", "bias", "tie_embeddings", "dropout", "norm_eps",
        "kv_heads", "hidden",
    ):  # fmt: skip
        assert getattr(again.config, field) == getattr(model.config, field)
    assert again.config.rope_theta == model.config.rope_theta or kind.startswith("gpt2")
    assert all(p.requires_grad for p in again.parameters())


def test_gpt2_config_without_dropout_means_what_it_means_in_transformers(tmp_path):
    save_model(make("gpt2"), tmp_path)
    config, _ = read(tmp_path)
    del config["resid_pdrop"]
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match="embd_pdrop=0.0 beside resid_pdrop=0.1 is not supported"):
        load_model(tmp_path)
    del config["embd_pdrop"]
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert load_model(tmp_path).config.dropout == 0.1


@pytest.mark.parametrize("kind", KINDS)
def test_shapes_follow_from_the_config_alone(kind):
    model = make(kind)
    shapes = {name: p.shape for name, p in model.named_parameters()}
    assert parameter_shapes(model.config) == shapes


def test_gpt2_file_has_the_names_and_shapes_of_transformers(tmp_path):
    model = make("gpt2", n_layer=1)
    save_model(model, tmp_path)
    config, tensors = read(tmp_path)
    block = "transformer.h.0."
    assert {key: array.shape for key, array in tensors.items()} == {
        "transformer.wte.weight": (V, C),
        "transformer.wpe.weight": (T, C),
        block + "ln_1.weight": (C,),
        block + "ln_1.bias": (C,),
        block + "attn.c_attn.weight": (C, 3 * C),
        block + "attn.c_attn.bias": (3 * C,),
        block + "attn.c_proj.weight": (C, C),
        block + "attn.c_proj.bias": (C,),
        block + "ln_2.weight": (C,),
        block + "ln_2.bias": (C,),
        block + "mlp.c_fc.weight": (C, 4 * C),
        block + "mlp.c_fc.bias": (4 * C,),
        block + "mlp.c_proj.weight": (4 * C, C),
        block + "mlp.c_proj.bias": (C,),
        "transformer.ln_f.weight": (C,),
        "transformer.ln_f.bias": (C,),
    }
    attn = model.layers[0].attn
    parts = [p.weight.data for p in (attn.q_proj, attn.k_proj, attn.v_proj)]
    fused = tensors[block + "attn.c_attn.weight"]
    assert np.array_equal(fused, np.concatenate(parts, axis=1))
    wanted = dict(model_type="gpt2", architectures=["GPT2LMHeadModel"], n_embd=C, n_layer=1)
    wanted |= dict(n_head=4, n_positions=T, n_ctx=T, vocab_size=V, n_inner=None, embd_pdrop=0.0)
    wanted |= dict(activation_function="gelu_new", layer_norm_epsilon=1e-5, resid_pdrop=0.0)
    wanted |= dict(attn_pdrop=0.0, tie_word_embeddings=True, dtype="float32")
    assert wanted.items() <= config.items()


def test_llama_file_has_the_names_and_shapes_of_transformers(tmp_path):
    model = make("llama", n_layer=1)
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
    model = make("mixed")
    save_model(model, tmp_path)
    config, tensors = read(tmp_path)
    assert same(tensors, model.state_dict())
    assert config["model_type"] == "minilora" and config["activation"] == "swiglu"


def test_file_says_that_its_format_is_pytorchs_and_the_same_model_gives_the_same_bytes(tmp_path):
    for name in ("a", "b"):
        save_model(make(), tmp_path / "new" / name)
    assert contents(tmp_path / "new" / "a") == contents(tmp_path / "new" / "b")
    header = (tmp_path / "new" / "a" / "model.safetensors").read_bytes()
    assert b'"__metadata__":{"format":"pt"}' in header


@pytest.mark.parametrize("dtype", [np.float16, "float16", ">f2"])
def test_float16_halves_the_file_and_rounds_each_number_once(dtype, tmp_path):
    model = make()
    save_model(model, tmp_path, dtype=dtype)
    config, tensors = read(tmp_path)
    assert config["dtype"] == "float16"
    assert {array.dtype for array in tensors.values()} == {np.dtype(np.float16)}
    rounded = {k: v.astype(np.float16).astype(np.float32) for k, v in model.state_dict().items()}
    assert same(load_model(tmp_path).state_dict(), rounded)


@pytest.mark.parametrize("dtype", ["<f8", ">f4"])
def test_model_in_another_format_is_saved_as_float32(dtype, tmp_path):
    model = make()
    expected = model.state_dict()
    for p in model.parameters():
        p.data = p.data.astype(dtype)
    save_model(model, tmp_path)
    assert same(load_model(tmp_path).state_dict(), expected)


def test_merged_model_can_be_saved(tmp_path):
    model = adapt(make("llama"))
    expected = logits(model)
    ml.merge_and_unload(model)
    save_model(model, tmp_path)
    assert np.abs(logits(load_model(tmp_path)) - expected).max() < 1e-4


def test_folder_is_made_and_what_else_is_in_it_is_kept(tmp_path):
    save_model(make(), str(tmp_path / "a" / "b"))
    (tmp_path / "a" / "b" / "tokenizer.json").write_text("{}")
    save_model(make(seed=9), tmp_path / "a" / "b")
    assert contents(tmp_path / "a" / "b").keys() == {*FILES["model"], "tokenizer.json"}


RENAMED = {
    "no first part": (r"^(transformer|model)\.", ""),
    "torch.compile": (r"^", "_orig_mod."),
    "DataParallel": (r"^", "module."),
    "a compiled block": (r"\.([01])\.", r".\1._orig_mod."),
    "both": (r"^", "module._orig_mod."),
}


@pytest.mark.parametrize("kind", ["gpt2", "gpt2-untied", "llama", "llama-tied"])
@pytest.mark.parametrize("rename", RENAMED)
def test_names_that_a_wrapper_changed_load(kind, rename, tmp_path):
    model = make(kind)
    save_model(model, tmp_path)
    rewrite(tmp_path, rename=RENAMED[rename])
    assert same(load_model(tmp_path).state_dict(), model.state_dict())


@pytest.mark.parametrize(
    ("kind", "first", "constants"),
    [
        ("gpt2", "transformer.", {"h.0.attn.bias": np.ones((1, 1, T, T), np.uint8)}),
        ("gpt2", "", {"h.1.attn.masked_bias": np.array(-np.inf, np.float32)}),
        ("llama", "model.", {"layers.0.self_attn.rotary_emb.inv_freq": np.ones(1, np.float32)}),
    ],
)
def test_constants_of_old_files_are_ignored(kind, first, constants, tmp_path):
    model = make(kind)
    save_model(model, tmp_path)
    old = {f"{first}{key}": array for key, array in constants.items()}
    rewrite(tmp_path, tensors=old, rename=(r"^(transformer|model)\.", first))
    assert same(load_model(tmp_path).state_dict(), model.state_dict())


@pytest.mark.parametrize("kind", ["gpt2", "llama-tied"])
def test_tied_head_in_the_file_must_be_the_embedding(kind, tmp_path):
    model = make(kind)
    save_model(model, tmp_path)
    head = model.tok_embed.weight.data.copy()
    rewrite(tmp_path, tensors={"lm_head.weight": head})
    assert same(load_model(tmp_path).state_dict(), model.state_dict())
    head[3, 3] += 1
    rewrite(tmp_path, tensors={"lm_head.weight": head})
    with pytest.raises(ValueError, match=r"lm_head.weight.*set tie_word_embeddings to false"):
        load_model(tmp_path)


def test_bundled_model_is_found_by_its_name(tmp_path, monkeypatch):
    monkeypatch.setattr(places, "ASSETS", tmp_path)
    model = make()
    save_model(model, tmp_path / "docs-tiny", dtype=np.float16)
    assert load_model("docs-tiny").config == model.config
    with pytest.raises(
        FileNotFoundError, match=r"'no-such'; models known by name: docs-tiny, smollm2"
    ):
        load_model("no-such")


def test_model_knows_where_it_was_loaded_from(tmp_path, monkeypatch):
    assert make().loaded_from is None
    assert load_model("docs-tiny").loaded_from == "docs-tiny"
    save_model(make(), tmp_path / "mine")
    monkeypatch.chdir(tmp_path)
    assert load_model("mine").loaded_from == os.path.abspath("mine")


@pytest.mark.parametrize(
    ("kind", "changes"),
    [
        *[
            ("gpt2", dict(activation_function=f"gelu_{name}"))
            for name in ("pytorch_tanh", "python_tanh", "accurate", "fast")
        ],
        ("gpt2", dict(reorder_and_upcast_attn=True, summary_type="cls_index", n_ctx=9999)),
        ("gpt2", dict(scale_attn_weights=True, add_cross_attention=None)),
        ("llama-tied", dict(hidden_act="swish")),
        ("llama-tied", dict(head_dim=2, pretraining_tp=2, attention_dropout=0.5)),
        ("llama-tied", dict(rope_scaling=None, partial_rotary_factor=1.0)),
        ("llama-tied", dict(rope_parameters=None, rope_theta=77)),
        ("llama-tied", dict(rope_theta=5.0)),  # rope_parameters comes first
        ("llama-tied", dict(rope_parameters=None, rope_scaling=dict(type="default"))),
        ("llama-tied", dict(model_type="mistral", attention_bias=True, mlp_bias=True)),  # unread
        ("gpt2", dict(num_attention_heads=4, hidden_size=8, is_causal=True)),
    ],
)
def test_config_that_means_the_same_loads(kind, changes, tmp_path):
    model = make(kind)
    save_model(model, tmp_path)
    rewrite(tmp_path, config=changes)
    assert same_logits(load_model(tmp_path), model)


@pytest.mark.parametrize("size", ["n_head", "n_embd", "n_layer", "n_positions"])
def test_a_size_of_gpt2_may_have_the_name_that_llama_has_for_it(size, tmp_path):
    model = make("gpt2")
    save_model(model, tmp_path)
    names = dict(n_head="num_attention_heads", n_embd="hidden_size", n_layer="num_hidden_layers")
    other = names.get(size, "max_position_embeddings")
    rewrite(tmp_path, config={other: read(tmp_path)[0][size]}, drop=[size])
    assert same_logits(load_model(tmp_path), model)


@pytest.mark.parametrize(
    ("changes", "factor", "theta"),
    [
        (dict(rope_scaling=dict(type="linear", factor=4.0)), 4.0, 10000.0),
        (dict(rope_scaling=dict(type="linear", factor=4.0), rope_theta=5.0), 4.0, 5.0),
        (dict(rope_scaling=dict(type="linear", factor=4.0, rope_theta=6.0)), 4.0, 6.0),
        (dict(rope_scaling={}, rope_theta=5.0), 2.0, 77.0),
    ],
)
def test_rope_scaling_comes_before_rope_parameters(changes, factor, theta, tmp_path):
    save_model(make("llama"), tmp_path)
    rope = dict(rope_type="linear", factor=2.0, rope_theta=77.0)
    rewrite(tmp_path, config=dict(rope_parameters=rope) | changes, drop={"rope_theta"} - {*changes})
    config = load_model(tmp_path).config
    assert (config.rope_scaling.factor, config.rope_theta) == (factor, theta)


def test_the_length_before_the_scaling_may_stand_outside_it(tmp_path):
    save_model(make("llama"), tmp_path)
    rope = dict(rope_type="llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0)
    outside = dict(original_max_position_embeddings=6)
    for scaling in (rope, rope | dict(original_max_position_embeddings=5)):
        rewrite(tmp_path, config=outside | dict(rope_scaling=scaling))
        assert load_model(tmp_path).config.rope_scaling.original_block_size == 6


def test_a_head_that_is_missing_may_be_the_embedding(tmp_path):
    save_model(make("llama-tied"), tmp_path)
    rewrite(tmp_path, config=dict(tie_word_embeddings=False))
    with pytest.raises(ValueError, match="missing lm_head.weight.*set tie_word_embeddings to true"):
        load_model(tmp_path)


def test_what_a_config_leaves_out_means_what_it_means_in_transformers(tmp_path):
    save_model(make("llama", norm_eps=1e-2, n_kv_head=None), tmp_path)
    drop = ["rms_norm_eps", "rope_theta", "rope_parameters"]
    rewrite(tmp_path, drop=[*drop, "num_key_value_heads", "tie_word_embeddings"])
    config = load_model(tmp_path).config
    assert (config.norm_eps, config.rope_theta, config.kv_heads) == (1e-6, 10000.0, 4)
    assert not config.tie_embeddings
    save_model(make("gpt2"), tmp_path)
    rewrite(tmp_path, drop=["layer_norm_epsilon", "tie_word_embeddings", "activation_function"])
    config = load_model(tmp_path).config
    assert (config.norm_eps, config.tie_embeddings) == (1e-5, True)
    rewrite(tmp_path, drop=["n_layer", "n_positions"])
    with pytest.raises(ValueError, match="it lacks n_positions, n_layer"):
        load_model(tmp_path)


def test_loading_draws_no_weights_and_makes_no_model_that_does_not_fit(tmp_path, monkeypatch):
    class Counting(models.Transformer):
        made = 0

        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)
            assert all(not p.data.any() or p.data.ndim == 1 for p in self.parameters())
            Counting.made += 1

    save_model(make("llama"), tmp_path)
    monkeypatch.setattr(models, "Transformer", Counting)
    load_model(tmp_path)
    assert Counting.made == 1
    for key, value in dict(
        vocab_size=10**12, num_hidden_layers=10**5, intermediate_size=10**12
    ).items():
        old, _ = read(tmp_path)
        rewrite(tmp_path, config={key: value})
        with pytest.raises(
            ValueError, match="do not fit its config.json|only 21 tensors|at most 2,147"
        ):
            load_model(tmp_path)
        rewrite(tmp_path, config=old)
    assert Counting.made == 1


def test_weights_are_views_of_the_file_until_they_change(tmp_path):
    model = make("llama")
    save_model(model, tmp_path)
    before = (tmp_path / "model.safetensors").read_bytes()
    loaded = load_model(tmp_path)
    for name, p in loaded.named_parameters():
        assert not p.data.flags.owndata, name
    for p in loaded.parameters():
        p.data += 1.0  # in memory alone
    assert (tmp_path / "model.safetensors").read_bytes() == before
    assert same(load_model(tmp_path).state_dict(), model.state_dict())


def test_the_files_of_a_loaded_model_can_be_replaced_and_removed(tmp_path):
    save_model(make("gpt2", seed=0), tmp_path)
    loaded = load_model(tmp_path)
    save_model(make("gpt2", seed=1), tmp_path)
    assert same(loaded.state_dict(), make("gpt2", seed=0).state_dict())
    for file in tmp_path.iterdir():
        file.unlink()
    assert same(loaded.state_dict(), make("gpt2", seed=0).state_dict())


def test_a_source_that_has_changed_is_not_recorded(tmp_path):
    save_model(make("gpt2", seed=0), tmp_path)
    loaded = load_model(tmp_path)
    assert unchanged_source(loaded) == str(tmp_path)
    save_model(make("gpt2", seed=1), tmp_path)
    assert unchanged_source(loaded) is None
