"""Wrong use of files, in tables: what was changed or called -> the sentence. Nothing changes."""

import json
import math

import numpy as np
import pytest
from folders import (
    FILES,
    PREFIX,
    C,
    V,
    adapt,
    contents,
    load_any,
    loaded_with,
    make,
    rewrite,
    snapshot,
)
from safetensors.numpy import save_file

import minilora as ml
from minilora.analysis.inspection import inspect_adapter
from minilora.hub import (
    adapter_base,
    load_adapter,
    load_model,
    load_tokenizer,
    save_adapter,
    save_model,
)
from minilora.hub.gguf.reader import read_gguf
from minilora.lora import lora_layers
from minilora.methods.registry import METHODS
from minilora.system.errors import UsageError


def up_proj(model):
    return model.layers[1].mlp.up_proj.weight.data


def add_parameter(model):
    model.prompt = ml.Parameter(np.zeros(3, np.float32))


OTHERS = (
    "adapter",
    "prefix",
    "prompt",
    "ia3",
)  # methods that put modules of their own into a model


def prepare(method):
    rng = np.random.default_rng(0)
    return lambda model: METHODS[method].prepare(model, ml.LoraConfig(r=2), rng)


@pytest.mark.parametrize(
    ("spoil", "dtype", "sentence"),
    [
        (lambda m: up_proj(m)[0].fill(np.nan), "f4", "h.1.mlp.c_fc.weight holds NaN or infinity"),
        (lambda m: m.norm.bias.data.fill(-np.inf), "f4", "ln_f.bias holds NaN or infinity; use an"),
        (lambda m: m.norm.bias.data.fill(7e4), "f2", "ln_f.bias overflows float16.*as float32$"),
        (lambda m: m.to("f8").norm.bias.data.fill(1e99), "f4", "ln_f.bias overflows float32"),
        (adapt, "f4", r"adapters \(default\).*merge_and_unload.*save_adapter"),
        (add_parameter, "f4", "no prompt; remove what added"),
        (id, "i1", "dtype must be np.float32 or np.float16, got i1"),
        (id, "f8", "dtype must be np.float32 or np.float16, got f8"),
        (id, None, "dtype must be np.float32 or np.float16, got None"),
        *[(prepare(name), "f4", "a plain .* has no .*; remove what") for name in OTHERS],
    ],
)
def test_model_that_cannot_be_saved_is_refused_and_nothing_is_written(
    spoil, dtype, sentence, tmp_path
):
    model = make()
    spoil(model)
    with pytest.raises(ValueError, match=sentence) as raised:
        save_model(model, tmp_path / "folder", dtype=dtype)
    assert not (tmp_path / "folder").exists() and len(str(raised.value)) < 250


def test_model_with_foreign_parameters_takes_and_gives_no_adapter(tmp_path):
    plain, adapted = make(), adapt(make())
    save_adapter(adapted, tmp_path)
    for model in (plain, adapted):
        model.layers[0].mlp.extra = {"scale": ml.Parameter(np.ones(3, np.float32))}
    sentence = "no layers.0.mlp.extra.scale; remove what added them"
    with pytest.raises(ValueError, match=sentence):
        load_adapter(plain, tmp_path)
    with pytest.raises(ValueError, match=sentence):
        save_adapter(adapted, tmp_path)


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda f: load_model(None), "expected str.*NoneType|argument should be a str"),
        (lambda f: load_model(make()), "expected str.*Transformer|argument should be a str"),
        (lambda f: save_model(make(), None), "expected str.*NoneType|argument should be a str"),
        (lambda f: save_model(f, make()), "the model must be a Transformer, got .*Path"),
        (lambda f: save_model({}, f), "the model must be a Transformer, got dict"),
        (lambda f: load_adapter("docs-tiny", f), "the model must be a Transformer, got str"),
        (lambda f: load_adapter(f, make()), "the model must be a Transformer, got .*Path"),
        (lambda f: load_adapter(make(), None), "expected str.*NoneType|argument should be a str"),
        (lambda f: save_adapter(None, f), "the model must be a Transformer, got NoneType"),
        (lambda f: save_adapter(adapt(make()), None), "expected str.*NoneType|argument should be"),
        (lambda f: adapter_base(None), "expected str.*NoneType|argument should be a str"),
    ],
)
def test_arguments_of_another_type_are_named(call, sentence, tmp_path):
    with pytest.raises(TypeError, match=sentence):
        call(tmp_path)
    assert contents(tmp_path) == {}


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("nobody", "adapter 'nobody' to save; adapters of this model: french"),
        ("", "adapter '' to save; adapters of this model: french"),
        (3, "adapter 3 to save; adapters of this model: french"),
        (["french"], "adapter .'french'. to save; adapters of this model: french"),
    ],
)
def test_adapter_that_is_not_there_cannot_be_saved(name, sentence, tmp_path):
    with pytest.raises(ValueError, match=f"no {sentence}"):
        save_adapter(adapt(make(), "french"), tmp_path / "folder", name)
    with pytest.raises(ValueError, match=r"no active adapter to save; .*: none \(see add_adapter"):
        save_adapter(make(), tmp_path / "folder")
    assert not (tmp_path / "folder").exists()


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_adapter_with_nan_is_not_saved(bad, tmp_path):
    model = adapt(make("mixed"))
    one = lora_layers(model)["layers.1.attn.q_proj"].adapters["default"]
    one.A.data[0, 0] = bad
    with pytest.raises(ValueError, match="layers.1.attn.q_proj.lora_A.weight holds NaN"):
        save_adapter(model, tmp_path / "folder")
    one.A.data[0, 0] = 1
    one.s = bad
    with pytest.raises(ValueError, match=r"scale is .*change lora_alpha"):
        save_adapter(model, tmp_path / "folder")
    assert not (tmp_path / "folder").exists()


def test_c_attn_cannot_be_adapted_and_trained_whole(tmp_path):
    model = adapt(make(), target_modules=["q_proj"], modules_to_save=["v_proj"])
    with pytest.raises(ValueError, match=r"c_attn fuses q, k and v.*change target_modules"):
        save_adapter(model, tmp_path / "folder")
    assert not (tmp_path / "folder").exists()


BAD_CONFIGS = [
    ("gpt2", dict(model_type="gpt_neo"), "model_type='gpt_neo'.*gpt2, llama, minilora"),
    ("gpt2", dict(model_type=None), "model_type=None"),
    ("gpt2", dict(activation_function="relu"), "activation_function='relu' is not supported"),
    ("gpt2", dict(activation_function="gelu"), "activation_function='gelu' is not supported"),
    ("gpt2", dict(scale_attn_weights=False), "scale_attn_weights=False is not"),
    ("gpt2", dict(scale_attn_weights=1), "scale_attn_weights=1 is not supported, only True"),
    ("gpt2", dict(scale_attn_by_inverse_layer_idx=True), "scale_attn_by_inverse_layer_idx"),
    ("gpt2", dict(add_cross_attention=True), "add_cross_attention=True is not"),
    ("gpt2", dict(quantization_config=dict(bits=4)), "quantization_config"),
    ("gpt2", dict(n_layer="2"), "n_layer='2' has the wrong type"),
    ("gpt2", dict(n_layer=2.0), "n_layer=2.0 has the wrong type"),
    ("gpt2", dict(n_layer=-1), "n_layer"),
    ("gpt2", dict(n_embd=None), "n_embd=None has the wrong type"),
    ("gpt2", dict(n_head=True), "n_head=True has the wrong type"),
    ("gpt2", dict(layer_norm_epsilon="1e-5"), "layer_norm_epsilon='1e-5' has the wrong type"),
    ("gpt2", dict(layer_norm_epsilon=math.nan), "layer_norm_epsilon is NaN, infinity"),
    ("gpt2", dict(layer_norm_epsilon=-1), "norm_eps .*-1"),
    ("gpt2", dict(n_head=3), "n_embd=8 must be a multiple of n_head=3"),
    ("gpt2", dict(tie_word_embeddings="no"), "tie_word_embeddings='no' has the wrong type"),
    ("gpt2", dict(is_causal=False), "is_causal=False is not supported, only True"),
    ("gpt2", dict(embd_pdrop=0.3), "embd_pdrop=0.3 beside resid_pdrop=0.0 is not supported"),
    ("gpt2", dict(num_attention_heads=2), "n_head=4 and num_attention_heads=2 are two names of"),
    ("gpt2", dict(num_hidden_layers=1), "n_layer=2 and num_hidden_layers=1 are two names of one"),
    ("llama-tied", dict(is_causal=False), "is_causal=False is not supported, only True"),
    ("llama-tied", dict(hidden_act="gelu"), "hidden_act='gelu' is not supported, only 'silu'"),
    ("llama-tied", dict(mlp_bias=True), "attention_bias=False with mlp_bias=True"),
    ("llama-tied", dict(attention_bias="yes"), "attention_bias='yes'"),
    ("llama-tied", dict(head_dim="2"), "head_dim='2' has the wrong type"),
    ("llama-tied", dict(head_dim=3), "a head's size, 3, must be even"),
    ("llama-tied", dict(head_dim=-2), "head_dim .*-2"),
    ("llama-tied", dict(rope_scaling=dict(type="dynamic", factor=2.0)), "rope_scaling=.*dynamic"),
    ("llama-tied", dict(rope_scaling=dict(type="linear"), rope_parameters=None), "lacks factor"),
    ("llama-tied", dict(rope_scaling=dict(type="linear", factor=0.0)), "factor .*0.0"),
    (
        "llama-tied",
        dict(rope_scaling=dict(rope_type="llama3", factor=8)),
        "scaling lacks low_freq_factor, high",
    ),
    ("llama-tied", dict(rope_scaling=dict(type="linear", factor="2")), "factor='2' of the rope sc"),
    ("llama-tied", dict(model_type="mistral", sliding_window=2), "sliding_window=2 is not"),
    ("llama-tied", dict(model_type="mistral", sliding_window="x"), "sliding_window='x' is not"),
    ("llama-tied", dict(model_type="qwen2", use_sliding_window=True), "use_sliding_window=True"),
    ("llama-tied", dict(layer_types=["sliding_attention"]), "layer_types=.*sliding_attention"),
    ("mixed", dict(rope_scaling="linear"), "rope_scaling='linear' has the wrong type"),
    ("mixed", dict(rope_scaling=dict(kind="linear")), "rope_scaling=.* has the wrong type"),
    ("mixed", dict(bias="q_proj"), "bias must be one of"),
    ("llama-tied", dict(rope_parameters=dict(rope_type="yarn")), "rope_parameters=.*yarn"),
    ("llama-tied", dict(rope_parameters="default"), "rope_parameters='default'"),
    ("llama-tied", dict(rope_parameters=dict(partial_rotary_factor=0.5)), "partial_rotary_factor"),
    ("llama-tied", dict(partial_rotary_factor=0.5), "partial_rotary_factor=0.5"),
    ("llama-tied", dict(rope_theta="x", rope_parameters=None), "rope_theta='x' has the wrong"),
    ("llama-tied", dict(rope_theta=0, rope_parameters=None), "rope_theta"),
    ("llama-tied", dict(rope_theta=-1e4, rope_parameters=None), "rope_theta"),
    ("mixed", dict(parallel_blocks=True), "not known: parallel_blocks"),
    ("mixed", dict(norm="batchnorm"), "norm must be one of"),
]


@pytest.mark.parametrize(("kind", "changes", "sentence"), BAD_CONFIGS)
def test_config_that_we_cannot_compute_is_refused_by_name(kind, changes, sentence, tmp_path):
    save_model(make(kind), tmp_path)
    rewrite(tmp_path, config=changes)
    with pytest.raises(ValueError, match=f"config.json(: | is damaged ).*{sentence}"):
        load_model(tmp_path)


def zeros(*shape, dtype=np.float32):
    return np.zeros(shape, dtype)


WTE, LN, C_ATTN = (
    f"transformer.{path}" for path in ("wte.weight", "ln_f.bias", "h.0.attn.c_attn.weight")
)


@pytest.mark.parametrize(
    ("kind", "damage", "sentence"),
    [
        ("gpt2", dict(drop=[LN]), rf"do not fit its config.json: missing {LN} \(8,\); copy or"),
        (
            "gpt2",
            dict(drop=[LN, C_ATTN]),
            rf"missing {C_ATTN} \(8, 24\), missing {LN} \(8,\); co",
        ),
        ("gpt2", dict(tensors={"extra": zeros(1)}), r"unexpected extra \(1,\); copy or"),
        ("gpt2", dict(tensors={WTE: zeros(V, 9)}), r"wte.weight is \(11, 9\) where \(11, 8\) is"),
        (
            "gpt2",
            dict(drop=[LN, C_ATTN], tensors={WTE: zeros(V, 9), "extra": zeros(1)}),
            rf": missing {C_ATTN} \(8, 24\), missing {LN} \(8,\) and 2 more; copy or",
        ),
        (
            "llama",
            dict(config=dict(num_key_value_heads=4)),
            r"self_attn.k_proj.weight is \(4, 8\) where \(8, 8\) is needed",
        ),
        ("gpt2", dict(tensors={LN: zeros(C) + np.nan}), f"{LN} in .*safetensors holds NaN or inf"),
        ("gpt2", dict(tensors={LN: zeros(C, dtype="f8") + 1e99}), f"{LN} in .*overflows float32"),
        (
            "gpt2",
            dict(tensors={f"module.{LN}": zeros(C)}),
            f"two different {LN} in .* module.{LN} and {LN}; del",
        ),
        (
            "gpt2",
            dict(tensors={LN.partition(".")[2]: zeros(C)}),
            f"two different {LN} in .* and {LN}; del",
        ),
    ],
)
def test_weights_that_do_not_fit_are_explained_briefly(kind, damage, sentence, tmp_path):
    save_model(make(kind), tmp_path)
    rewrite(tmp_path, **damage)
    with pytest.raises(ValueError, match=sentence) as raised:
        load_model(tmp_path)
    assert len(str(raised.value).replace(str(tmp_path), "")) < 250


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
    (dict(init_lora_weights="OLoRA"), "OLoRA' has changed the base model's weights; convert"),
    (dict(init_lora_weights="nonsense"), "init_lora_weights='nonsense' is not known"),
    (dict(init_lora_weights=1), "init_lora_weights=1 is not known"),
    (dict(init_lora_weights=["pissa"]), "init_lora_weights=.'pissa'. is not known"),
    (dict(target_modules=7), "target_modules must be a name or a list of names, got 7"),
    (dict(target_modules="("), "is not a regular expression"),
    (dict(target_modules=r"((.|\S|..)+)+\d"), "takes too long to compare with 'layers.0"),
    (dict(exclude_modules=[1]), "exclude_modules must be a name or a list of names"),
    (dict(exclude_modules={"x": 1}), "exclude_modules must be a name or a list of names"),
    (dict(layers_to_transform="1"), "layers_to_transform must be a whole number"),
    (dict(layers_to_transform=""), "layers_to_transform must be a whole number"),
    (dict(layers_to_transform={}), "layers_to_transform must be a whole number"),
    (dict(lora_alpha=1e300), "lora_alpha must be a number from 0 to 1e.09, got 1e.300"),
    (dict(rank_pattern={"q_proj": 10**12}), r"rank_pattern\['q_proj'\] must be at most 2,147"),
    (dict(r="4"), "r must be a whole number of at least 1, got '4'"),
    (dict(r=0), "r must be a whole number of at least 1, got 0"),
    (dict(r=None), "r must be a whole number of at least 1, got None"),
    (dict(lora_alpha="x"), "lora_alpha must be a positive number, got 'x'"),
    (dict(lora_alpha=None), "lora_alpha must be a positive number, got None"),
    (dict(lora_alpha=0), "lora_alpha must be a positive number, got 0"),
    (dict(lora_alpha=math.nan), "lora_alpha"),
    (dict(alpha_pattern={"q_proj": math.inf}), "alpha_pattern"),
    (dict(alpha_pattern={"q_proj": "3"}), "alpha_pattern"),
    (dict(alpha_pattern={"(": 3}), "not a regular expression"),
    (dict(rank_pattern=["q_proj"]), "rank_pattern"),
    (dict(rank_pattern={"q_proj": 0}), r"rank_pattern\['q_proj'\] must be a whole number"),
    (dict(bias="some"), "bias must be"),
    (dict(lora_dropout=1.5), "lora_dropout must lie"),
    (dict(lora_dropout="a"), "lora_dropout"),
    (dict(modules_to_save=7), "modules_to_save=7|modules_to_save .* 7"),
]


@pytest.mark.parametrize(("changes", "sentence"), BAD_OPTIONS)
def test_option_that_cannot_be_followed_is_refused_by_name(changes, sentence, tmp_path):
    save_adapter(adapt(make("mixed")), tmp_path)
    rewrite(tmp_path, "adapter", changes)
    model = make("mixed")
    before = snapshot(model)
    where = r"(cannot load the adapter in .*: |adapter_config.json is damaged \()"
    with pytest.raises(ValueError, match=f"{where}.*({sentence})"):
        load_adapter(model, tmp_path)
    assert snapshot(model) == before


ODD_VALUES = (None, True, 0, -1, 2.5, "x", "", [], [1], {}, {"x": 1}, math.nan, math.inf, 10**400)


@pytest.mark.parametrize(
    ("which", "kind"), [("model", "gpt2"), ("model", "llama"), ("adapter", "mixed")]
)
def test_no_value_of_any_option_leads_to_another_error_than_a_sentence(which, kind, tmp_path):
    save_adapter(adapt(make(kind)), tmp_path)
    save_model(make(kind), tmp_path)
    config_file = tmp_path / FILES[which][0]
    config = json.loads(config_file.read_text())
    sentences = []
    for key in config:
        for value in ODD_VALUES:
            config_file.write_text(json.dumps(config | {key: value}))
            try:
                load_any(which, tmp_path, kind)
            except ValueError as error:
                sentences.append(str(error))
    assert len(sentences) > 50
    assert all(str(tmp_path) in text or "modules_to_save" in text for text in sentences)


Q = f"{PREFIX}layers.0.attn.q_proj."
A, B, M = (f"{Q}{end}" for end in ("lora_A.weight", "lora_B.weight", "lora_magnitude_vector"))
UNFIT = [
    ("mixed", dict(drop=[A]), r"missing layers.0.attn.q_proj.lora_A.weight \(2, 8\)"),
    ("mixed", dict(drop=[B]), r"missing layers.0.attn.q_proj.lora_B.weight \(8, 2\)"),
    ("mixed", dict(config=dict(r=3)), r"q_proj.lora_A.weight is \(2, 8\) where \(3, 8\) is needed"),
    ("mixed", dict(drop=["r"]), r"lora_A.weight is \(2, 8\) where \(8, 8\) .* and 6 more;"),
    ("mixed", dict(config=dict(rank_pattern={"v_proj": 1})), r"v_proj.lora_A.* where \(1, 8\)"),
    ("mixed", dict(config=dict(bias="all")), "missing layers.0.attn_norm.bias .* and 17 more;"),
    ("mixed", dict(config=dict(bias="lora_only")), "missing layers.0.attn.v_proj.bias"),
    ("mixed", dict(config=dict(modules_to_save=["norm"])), "missing norm.weight"),
    ("mixed", dict(config=dict(use_dora=True)), r"missing .*q_proj.lora_magnitude_vector \(8,\)"),
    (
        "mixed",
        dict(config=dict(modules_to_save=["score"])),
        "trains 'score' .*, which this model",
    ),
    ("mixed", dict(tensors={M: zeros(C)}), "unexpected .*lora_magnitude_vector"),
    ("mixed", dict(tensors={f"{PREFIX}norm.bias": zeros(C)}), "unexpected norm.bias"),
    ("mixed", dict(tensors={f"{PREFIX}other.weight": zeros(C)}), "unexpected other.weight"),
    ("mixed", dict(tensors={f"{PREFIX}head.weight": zeros(V, C)}), "beside another head.weight"),
    ("mixed", dict(tensors={f"{PREFIX}tok_embed.weight": zeros(V, C)}), "the head is tied"),
    ("mixed", dict(tensors={f"{Q}base_layer.weight": zeros(C, C)}), "beside another .*q_proj.wei"),
    ("mixed", dict(tensors={A: zeros(2, 9)}), r"is \(2, 9\) where \(2, 8\)"),
    ("mixed", dict(tensors={A: zeros(2, C) + np.nan}), "lora_A.weight in .* holds NaN or infinity"),
    (
        "mixed",
        dict(config=dict(modules_to_save=["head"])),
        "trains head, but the head is tied here",
    ),
    ("gpt2", dict(config=dict(modules_to_save=["lm_head"])), "lm_head, but the head is tied here"),
    (
        "gpt2",
        dict(tensors={f"{PREFIX}lm_head.lora_A.weight": zeros(2, C)}),
        "trains lm_head, but the head is tied here, to the embedding; load the base model",
    ),
    (
        "llama",
        dict(tensors={f"{PREFIX}model.embed_tokens.lora_embedding_A": zeros(2, V)}),
        "embed_tokens, but LoRA of an embedding is not supported",
    ),
]


@pytest.mark.parametrize(("kind", "damage", "sentence"), UNFIT)
@pytest.mark.parametrize("others", [0, 2])
def test_adapter_that_does_not_fit_is_explained_and_changes_nothing(
    kind, damage, sentence, others, tmp_path
):
    save_adapter(adapt(make(kind)), tmp_path)
    rewrite(tmp_path, "adapter", **damage)
    model = make(kind)
    model.norm.weight.requires_grad = False  # flags of the user's own
    for i in range(others):
        adapt(model, f"other{i}", seed=i, modules_to_save=["norm"], bias="all")
    before = snapshot(model)
    with pytest.raises(ValueError, match=sentence) as raised:
        load_adapter(model, tmp_path)
    assert snapshot(model) == before
    assert len(str(raised.value).replace(str(tmp_path), "")) < 300


@pytest.mark.parametrize("target", ["llama", "mixed", "gpt2-untied"])
def test_adapter_of_another_architecture_or_size_is_refused_with_a_remedy(target, tmp_path):
    save_adapter(adapt(make("gpt2"), target_modules=["up_proj"]), tmp_path)
    model = make(target)
    before = snapshot(model)
    with pytest.raises(ValueError, match=r"does not fit this model \(.*load the model it was") as e:
        load_adapter(model, tmp_path)
    assert "transformer.h.0.mlp.c_fc.lora_A.weight" in str(e.value) or target == "gpt2-untied"
    assert snapshot(model) == before


def test_adapter_without_any_factors_is_refused(tmp_path):
    save_adapter(adapt(make("mixed")), tmp_path)
    save_file({f"{PREFIX}norm.weight": np.ones(C)}, tmp_path / "adapter_model.safetensors")
    with pytest.raises(ValueError, match="holds no lora_A and lora_B"):
        loaded_with("mixed", tmp_path)


def test_trained_head_that_the_file_lost_is_missed(tmp_path):
    save_adapter(adapt(make("llama"), modules_to_save=["head"]), tmp_path)
    rewrite(tmp_path, "adapter", drop=[f"{PREFIX}lm_head.weight"])
    with pytest.raises(ValueError, match="missing lm_head.weight"):
        loaded_with("llama", tmp_path)


@pytest.mark.parametrize("name", ["default", "", "a.b", 3, None])
def test_name_that_cannot_be_taken_and_a_merged_model_are_refused_and_unchanged(name, tmp_path):
    model = adapt(make())
    save_adapter(model, tmp_path)
    before = snapshot(model)
    with pytest.raises(ValueError, match="adapter"):
        load_adapter(model, tmp_path, name)
    assert snapshot(model) == before
    ml.merge_adapter(model)
    before = snapshot(model)
    with pytest.raises(ValueError, match="unmerge_adapter"):
        load_adapter(model, tmp_path, "other")
    assert snapshot(model) == before


@pytest.mark.parametrize(
    "use",
    [
        load_model,
        load_tokenizer,
        read_gguf,
        inspect_adapter,
        lambda folder: load_adapter(make(), folder),
        lambda folder: save_adapter(adapt(make()), folder),
        lambda folder: save_model(make(), folder),
    ],
)
@pytest.mark.parametrize("name", ["x" * 300, "x/" * 3000, "a\0b", "a\ud800b"])
def test_what_is_no_name_of_a_file_is_said_to_be_none(use, name):
    with pytest.raises((OSError, UsageError), match=" is no name of a file: it") as caught:
        use(name)
    assert len(str(caught.value)) < 200
