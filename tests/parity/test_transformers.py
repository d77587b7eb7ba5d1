"""Claims about models: transformers computes what we save, and we compute what it saves.

Tiny random models, configurations built here, nothing downloaded.
"""

import os

os.environ["HF_HUB_OFFLINE"] = "1"

import json

import numpy as np
import pytest

import minilora as ml
from minilora.hub import load_model, save_model
from minilora.hub.hf_config import read_config
from minilora.rope_scaling import RopeScaling

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
save_file = pytest.importorskip("safetensors.torch").save_file

pytestmark = [pytest.mark.parity, pytest.mark.filterwarnings("ignore")]

V, T = 23, 12
GPT2 = dict(vocab_size=V, n_positions=T, n_embd=16, n_layer=2, n_head=4)
LLAMA = dict(
    vocab_size=V,
    hidden_size=16,
    intermediate_size=20,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    max_position_embeddings=T,
)
LLAMA_3 = dict(rope_type="llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0)
LLAMA_3 |= dict(original_max_position_embeddings=20, rope_theta=30.0)
HF_MODELS = {
    "gpt2": ("gpt2", {}),
    "gpt2-untied": ("gpt2", dict(tie_word_embeddings=False)),
    "gpt2-narrow-mlp": ("gpt2", dict(n_inner=24, layer_norm_epsilon=1e-3)),
    "gpt2-pytorch-tanh": ("gpt2", dict(activation_function="gelu_pytorch_tanh")),
    "gpt2-python-tanh": ("gpt2", dict(activation_function="gelu_python_tanh")),
    "gpt2-accurate": ("gpt2", dict(activation_function="gelu_accurate")),
    "gpt2-fast": ("gpt2", dict(activation_function="gelu_fast")),
    "llama-swish": ("llama", dict(hidden_act="swish")),
    "llama-grouped": ("llama", {}),
    "llama-tied": ("llama", dict(tie_word_embeddings=True)),
    "llama-full-heads": ("llama", dict(num_key_value_heads=None, rms_norm_eps=1e-3)),
    "llama-theta": ("llama", dict(rope_parameters=dict(rope_type="default", rope_theta=50.0))),
    "llama-linear": ("llama", dict(rope_parameters=dict(rope_type="linear", factor=2.5))),
    "llama-3": ("llama", dict(rope_parameters=LLAMA_3)),
    "llama-attention-bias": ("llama", dict(attention_bias=True)),
    "llama-all-biases": ("llama", dict(attention_bias=True, mlp_bias=True)),
    "llama-wide-heads": ("llama", dict(head_dim=6)),
    "qwen2": ("qwen2", dict(tie_word_embeddings=True)),
    "qwen2-linear": ("qwen2", dict(rope_parameters=dict(rope_type="linear", factor=2.0))),
    "mistral": ("mistral", dict(sliding_window=None)),
    "mistral-wide": ("mistral", dict(sliding_window=T, head_dim=8)),
}
OUR_MODELS = {
    "gpt2": {},
    "gpt2-untied": dict(tie_embeddings=False, mlp_hidden=24, norm_eps=1e-3),
    "llama-grouped": dict(n_kv_head=2, tie_embeddings=False, mlp_hidden=20, rope_theta=50.0),
    "llama-tied": dict(norm_eps=1e-3),
    "llama-linear": dict(rope_scaling=RopeScaling("linear", 2.5)),
    "llama-3": dict(rope_scaling=RopeScaling("llama3", 8.0, 1.0, 4.0, 20), rope_theta=30.0),
    "llama-attention-bias": dict(bias="attention"),
    "llama-all-biases": dict(bias=True),
    "llama-wide-heads": dict(head_dim=6, n_kv_head=2),
    "qwen2": dict(bias="qkv", n_kv_head=2, rope_scaling=RopeScaling("linear", 3.0)),
}
SWITCHES = dict(norm="rmsnorm", activation="swiglu", positions="rope", bias=False)
IDS = np.random.default_rng(3).integers(0, V, (2, T))


def hf_model(kind, seed=0):
    """A model of transformers in which every parameter, biases and norms too, is random."""
    family, options = HF_MODELS[kind]
    torch.manual_seed(seed)
    if family == "gpt2":
        config = transformers.GPT2Config(**GPT2 | options, bos_token_id=None, eos_token_id=None)
        model = transformers.GPT2LMHeadModel(config)
    else:
        name = family.capitalize()
        config = getattr(transformers, f"{name}Config")(**LLAMA | options)
        model = getattr(transformers, f"{name}ForCausalLM")(config)
    with torch.no_grad():
        for p in model.parameters():
            p.add_(torch.randn_like(p) * 0.3)
    return model.eval()


def our_model(kind):
    rng = np.random.default_rng(0)
    switches = {} if kind.startswith("gpt2") else SWITCHES
    sizes = dict(vocab_size=V, block_size=T, n_layer=2, n_head=4, n_embd=16)
    model = ml.Transformer(ml.TransformerConfig(**sizes, **(switches | OUR_MODELS[kind])), rng=rng)
    for p in model.parameters():
        p.data += rng.standard_normal(p.shape).astype(np.float32) * 0.3
    return model


def hf_logits(model):
    with torch.no_grad():
        return model(torch.tensor(IDS)).logits.float().numpy()


def our_logits(model):
    with ml.no_grad():
        return model(IDS).data


@pytest.mark.parametrize("kind", HF_MODELS)
def test_we_compute_the_logits_of_what_transformers_saves(kind, tmp_path):
    theirs = hf_model(kind)
    theirs.save_pretrained(tmp_path)
    assert np.abs(our_logits(load_model(tmp_path)) - hf_logits(theirs)).max() <= 1e-4


@pytest.mark.parametrize("kind", OUR_MODELS)
def test_transformers_computes_the_logits_of_what_we_save(kind, tmp_path):
    ours = our_model(kind)
    save_model(ours, tmp_path)
    auto = transformers.AutoModelForCausalLM
    theirs, report = auto.from_pretrained(tmp_path, output_loading_info=True)
    names = dict(gpt2="GPT2LMHeadModel", llama="LlamaForCausalLM", qwen2="Qwen2ForCausalLM")
    assert type(theirs).__name__ == names[kind.partition("-")[0]]
    assert not any(report.values())
    assert np.abs(hf_logits(theirs.eval()) - our_logits(ours)).max() <= 1e-4


@pytest.mark.parametrize("kind", ["gpt2", "llama-grouped"])
def test_transformers_loads_our_float16_files(kind, tmp_path):
    ours = our_model(kind)
    save_model(ours, tmp_path, dtype=np.float16)
    auto = transformers.AutoModelForCausalLM
    theirs = auto.from_pretrained(tmp_path, dtype=torch.float32).eval()
    assert np.abs(hf_logits(theirs) - our_logits(load_model(tmp_path))).max() <= 1e-4


def test_dropout_that_a_config_leaves_out_is_that_of_transformers():
    theirs = transformers.GPT2Config(**GPT2)
    ours = read_config({"model_type": "gpt2", **GPT2})
    assert ours.dropout == theirs.resid_pdrop == theirs.embd_pdrop


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("kind", ["gpt2", "llama-grouped"])
def test_half_precision_files_become_the_same_float32_numbers(kind, dtype, tmp_path):
    hf_model(kind).to(dtype).save_pretrained(tmp_path)
    auto = transformers.AutoModelForCausalLM
    theirs = auto.from_pretrained(tmp_path, dtype=torch.float32).eval()
    ours = load_model(tmp_path)
    assert all(p.dtype == np.float32 for p in ours.parameters())
    assert np.abs(our_logits(ours) - hf_logits(theirs)).max() <= 1e-4


@pytest.mark.parametrize("kind", ["gpt2", "llama-tied"])
def test_bare_models_without_the_leading_prefix_load(kind, tmp_path):
    theirs = hf_model(kind)
    theirs.base_model.save_pretrained(tmp_path)
    assert np.abs(our_logits(load_model(tmp_path)) - hf_logits(theirs)).max() <= 1e-4


@pytest.mark.parametrize("kind", ["gpt2", "llama-grouped"])
def test_shards_load(kind, tmp_path):
    theirs = hf_model(kind)
    theirs.save_pretrained(tmp_path, max_shard_size="10kB")
    assert (tmp_path / "model.safetensors.index.json").exists()
    assert np.abs(our_logits(load_model(tmp_path)) - hf_logits(theirs)).max() <= 1e-4


@pytest.mark.parametrize("wrap", [torch.compile, torch.nn.DataParallel])
@pytest.mark.parametrize("kind", ["gpt2", "llama-grouped"])
def test_weights_saved_within_a_wrapper_of_torch_load(kind, wrap, tmp_path):
    theirs = hf_model(kind)
    theirs.save_pretrained(tmp_path)
    wrapped = {key: value.clone() for key, value in wrap(theirs).state_dict().items()}
    assert not wrapped.keys() & theirs.state_dict().keys()
    save_file(wrapped, tmp_path / "model.safetensors")
    assert np.abs(our_logits(load_model(tmp_path)) - hf_logits(theirs)).max() <= 1e-4


def test_old_top_level_rope_theta_loads(tmp_path):
    theirs = hf_model("llama-theta")
    theirs.save_pretrained(tmp_path)
    data = json.loads((tmp_path / "config.json").read_text())
    data["rope_theta"] = data.pop("rope_parameters")["rope_theta"]
    data["rope_scaling"] = None
    (tmp_path / "config.json").write_text(json.dumps(data))
    assert np.abs(our_logits(load_model(tmp_path)) - hf_logits(theirs)).max() <= 1e-4


@pytest.mark.parametrize(
    ("kind", "changes", "named"),
    [
        ("gpt2", dict(scale_attn_by_inverse_layer_idx=True), "scale_attn_by_inverse_layer_idx"),
        ("gpt2", dict(scale_attn_weights=False), "scale_attn_weights"),
        ("gpt2", dict(activation_function="relu"), "activation_function"),
        ("llama-grouped", dict(hidden_act="gelu"), "hidden_act"),
        ("llama-grouped", dict(mlp_bias=True), "mlp_bias"),
        (
            "llama-grouped",
            dict(rope_parameters=dict(rope_type="yarn", factor=2.0, rope_theta=1e4)),
            "rope_parameters",
        ),
        ("mistral", dict(sliding_window=4), "sliding_window"),
    ],
)
def test_each_option_that_we_refuse_does_change_what_transformers_computes(
    kind, changes, named, tmp_path, monkeypatch
):
    plain = hf_model(kind)
    family, options = HF_MODELS[kind]
    monkeypatch.setitem(HF_MODELS, "changed", (family, options | changes))
    theirs = hf_model("changed")
    shapes = {name: p.shape for name, p in plain.named_parameters()}
    if shapes == {name: p.shape for name, p in theirs.named_parameters()}:
        theirs.load_state_dict(plain.state_dict())
        assert np.abs(hf_logits(theirs) - hf_logits(plain)).max() > 1e-3
    theirs.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=f"{named}.* is not supported"):
        load_model(tmp_path)


def test_reorder_and_upcast_changes_nothing_and_loads(tmp_path, monkeypatch):
    monkeypatch.setitem(HF_MODELS, "upcast", ("gpt2", dict(reorder_and_upcast_attn=True)))
    theirs = hf_model("upcast")
    theirs.save_pretrained(tmp_path)
    assert np.abs(our_logits(load_model(tmp_path)) - hf_logits(theirs)).max() <= 1e-4
