"""Claims about adapters: PEFT computes what we save, and we compute what it saves.

Tiny random models, adapters with non-zero A and B, nothing downloaded.
"""

import os

os.environ["HF_HUB_OFFLINE"] = "1"

import json
import warnings

import numpy as np
import pytest

import minilora as ml
from minilora.hub import load_adapter, load_model, save_adapter
from minilora.lora import lora_layers

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
peft = pytest.importorskip("peft")

pytestmark = [pytest.mark.parity, pytest.mark.filterwarnings("ignore")]

V, T = 23, 12
IDS = np.random.default_rng(3).integers(0, V, (2, T))
GPT2_LINEARS = ["c_attn", "c_proj", "c_fc"]
LLAMA_ATTENTION = ["q_proj", "k_proj", "v_proj", "o_proj"]


def hf_model(family, tied):
    """Every parameter random, biases and norms too: a mixed-up pair of them then shows."""
    torch.manual_seed(0)
    shared = dict(vocab_size=V, tie_word_embeddings=tied, bos_token_id=None, eos_token_id=None)
    if family == "gpt2":
        sizes = dict(n_positions=T, n_embd=16, n_layer=3, n_head=4)
        model = transformers.GPT2LMHeadModel(transformers.GPT2Config(**shared, **sizes))
    else:
        sizes = dict(hidden_size=16, intermediate_size=20, num_hidden_layers=3)
        heads = dict(num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=T)
        config = transformers.LlamaConfig(**shared, **sizes, **heads)
        model = transformers.LlamaForCausalLM(config)
    randomise(model.parameters())
    return model.eval()


def randomise(parameters):
    with torch.no_grad():
        for p in parameters:
            p.add_(torch.randn_like(p) * 0.3)


def hf_logits(model):
    with torch.no_grad():
        return model(torch.tensor(IDS)).logits.numpy()


def our_logits(model):
    with ml.no_grad():
        return model(IDS).data


def both_bases(family, folder, tied=False):
    theirs = hf_model(family, tied)
    theirs.save_pretrained(folder)
    return theirs, load_model(folder)


def differ(a, b):
    return float(np.abs(a - b).max())


THEIR_ADAPTERS = {
    "gpt2 c_attn": ("gpt2", dict(target_modules=["c_attn"])),
    "gpt2 c_proj": ("gpt2", dict(target_modules=["c_proj"])),
    "gpt2 default targets": ("gpt2", {}),
    "gpt2 all linear": ("gpt2", dict(target_modules="all-linear", r=3, lora_alpha=5)),
    "gpt2 a regular expression": ("gpt2", dict(target_modules=r".*\.[02]\.attn\.c_attn")),
    "gpt2 one layer": ("gpt2", dict(target_modules=["c_attn"], layers_to_transform=[1])),
    "gpt2 rslora": ("gpt2", dict(target_modules=GPT2_LINEARS, use_rslora=True)),
    "gpt2 rank_pattern": (
        "gpt2",
        dict(
            target_modules=GPT2_LINEARS,
            rank_pattern={"c_attn": 5, r"h\.1\..*c_proj": 2},
            alpha_pattern={"^transformer.h.0.mlp.c_fc": 3, "attn.c_proj": 7},
        ),
    ),
    "gpt2 rslora and patterns": (
        "gpt2",
        dict(
            target_modules=GPT2_LINEARS,
            use_rslora=True,
            rank_pattern={"mlp.c_proj": 7},
            alpha_pattern={"c_attn": 11},
        ),
    ),
    "gpt2 lora_only": ("gpt2", dict(target_modules=["c_attn", "c_fc"], bias="lora_only")),
    "gpt2 all biases": ("gpt2", dict(target_modules=["c_attn"], bias="all")),
    "gpt2 norms saved": ("gpt2", dict(target_modules=["c_attn"], modules_to_save=["ln_f", "ln_1"])),
    "gpt2 norms saved, all biases": (
        "gpt2",
        dict(target_modules=["c_attn"], modules_to_save=["ln_f", "ln_1"], bias="all"),
    ),
    "gpt2 c_attn saved": ("gpt2", dict(target_modules=["c_fc"], modules_to_save=["c_attn"])),
    "gpt2 mlp saved": ("gpt2", dict(target_modules=["c_attn"], modules_to_save=["mlp"])),
    "gpt2 positions saved": ("gpt2", dict(target_modules=["c_attn"], modules_to_save=["wpe"])),
    "gpt2 head saved": (
        "gpt2",
        dict(target_modules=["c_attn"], modules_to_save=["lm_head", "wte"]),
    ),
    "gpt2 head adapted": ("gpt2", dict(target_modules=["c_attn", "lm_head"])),
    "gpt2 more rank than there is": ("gpt2", dict(target_modules=["c_attn", "c_fc"], r=40)),
    "llama q and v": ("llama", {}),
    "llama attention": ("llama", dict(target_modules=LLAMA_ATTENTION)),
    "llama all linear": ("llama", dict(target_modules="all-linear", use_rslora=True)),
    "llama rank_pattern": (
        "llama",
        dict(
            target_modules=LLAMA_ATTENTION,
            rank_pattern={"v_proj": 3, "model.layers.1.self_attn.k_proj": 5},
            alpha_pattern={"layers.2.*": 9},
        ),
    ),
    "llama norm saved": ("llama", dict(modules_to_save=["norm"])),
    "llama head saved": ("llama", dict(modules_to_save=["lm_head"])),
    "llama embedding saved": ("llama", dict(modules_to_save=["embed_tokens", "o_proj"])),
    "llama all biases, of which there are none": ("llama", dict(bias="all")),
    "llama more rank than there is": ("llama", dict(target_modules=LLAMA_ATTENTION, r=40)),
    "llama orthogonal start": ("llama", dict(init_lora_weights="orthogonal")),
}


def their_adapter(theirs, folder, options, name="default", **how_to_save):
    """PEFT's model with an adapter in which all that trains is random, saved."""
    torch.manual_seed(1)
    config = peft.LoraConfig(**dict(r=4, lora_alpha=6, task_type="CAUSAL_LM") | options)
    model = peft.get_peft_model(theirs, config, adapter_name=name)
    randomise(p for p in model.parameters() if p.requires_grad)
    model.save_pretrained(folder, **how_to_save)
    return model.eval()


@pytest.mark.parametrize("kind", THEIR_ADAPTERS)
def test_we_compute_the_logits_of_an_adapter_that_peft_saves(kind, tmp_path):
    family, options = THEIR_ADAPTERS[kind]
    theirs, ours = both_bases(family, tmp_path / "base")
    base = our_logits(ours)
    theirs = their_adapter(theirs, tmp_path / "adapter", options)
    load_adapter(ours, tmp_path / "adapter")
    expected = hf_logits(theirs)
    assert differ(base, expected) > 1e-2
    assert differ(our_logits(ours), expected) <= 1e-4


@pytest.mark.parametrize("kind", THEIR_ADAPTERS)
def test_an_adapter_of_peft_loaded_and_saved_by_us_is_still_the_same_in_peft(kind, tmp_path):
    family, options = THEIR_ADAPTERS[kind]
    theirs, ours = both_bases(family, tmp_path / "base")
    expected = hf_logits(their_adapter(theirs, tmp_path / "adapter", options))
    load_adapter(ours, tmp_path / "adapter")
    save_adapter(ours, tmp_path / "ours")
    again = peft.PeftModel.from_pretrained(hf_model(family, False), tmp_path / "ours").eval()
    assert differ(hf_logits(again), expected) <= 1e-4
    ours_again = load_model(tmp_path / "base")
    load_adapter(ours_again, tmp_path / "ours")
    assert differ(our_logits(ours_again), expected) <= 1e-4


@pytest.mark.parametrize("kind", ["gpt2 all linear", "gpt2 lora_only", "llama all linear"])
def test_merged_models_agree(kind, tmp_path):
    family, options = THEIR_ADAPTERS[kind]
    theirs, ours = both_bases(family, tmp_path / "base")
    theirs = their_adapter(theirs, tmp_path / "adapter", options)
    load_adapter(ours, tmp_path / "adapter")
    unmerged = hf_logits(theirs)
    ml.merge_and_unload(ours)
    ml.save_model(ours, tmp_path / "merged")
    assert differ(our_logits(ours), unmerged) <= 1e-4
    assert differ(hf_logits(theirs.merge_and_unload()), our_logits(ours)) <= 1e-4
    auto = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "merged").eval()
    assert differ(hf_logits(auto), unmerged) <= 1e-4


OUR_ADAPTERS = {
    "gpt2 q and v": ("gpt2", dict()),
    "gpt2 k alone": ("gpt2", dict(target_modules=["k_proj"])),
    "gpt2 c_proj of attention": ("gpt2", dict(target_modules=["o_proj"])),
    "gpt2 all linear": ("gpt2", dict(target_modules="all-linear")),
    "gpt2 everything with the head": ("gpt2", dict(target_modules=["q_proj", "head"])),
    "gpt2 some layers": ("gpt2", dict(layers_to_transform=[0, 2])),
    "gpt2 mixed layers": ("gpt2", dict(target_modules=r"layers\.(0\.attn\.q|1\.attn\.v|2.*)_proj")),
    "gpt2 rslora": ("gpt2", dict(target_modules="all-linear", use_rslora=True)),
    "gpt2 patterns": (
        "gpt2",
        dict(
            target_modules="all-linear",
            rank_pattern={"v_proj": 6, "layers.1.attn.q_proj": 2, "up_proj": 3},
            alpha_pattern={"k_proj": 9, "layers.2.*": 1.7},
        ),
    ),
    "gpt2 rslora and patterns": (
        "gpt2",
        dict(
            target_modules="all-linear",
            use_rslora=True,
            rank_pattern={"v_proj": 6, "layers.1.*": 2},
            alpha_pattern={"k_proj": 9, "layers.2.*": 1.7},
        ),
    ),
    "gpt2 lora_only": ("gpt2", dict(target_modules=["q_proj", "o_proj"], bias="lora_only")),
    "gpt2 all biases": ("gpt2", dict(bias="all")),
    "gpt2 norms saved": ("gpt2", dict(modules_to_save=["norm", "mlp_norm"])),
    "gpt2 norms saved, all biases": ("gpt2", dict(modules_to_save=["norm"], bias="all")),
    "gpt2 head saved": ("gpt2", dict(modules_to_save=["head", "pos_embed"])),
    "gpt2 k trained whole": (
        "gpt2",
        dict(target_modules=["up_proj"], modules_to_save=["layers.1.attn.k_proj"]),
    ),
    "gpt2 attention trained whole": (
        "gpt2",
        dict(target_modules=["up_proj"], modules_to_save=["attn"]),
    ),
    "llama q and v": ("llama", {}),
    "llama all linear": ("llama", dict(target_modules="all-linear", use_rslora=True)),
    "llama patterns": (
        "llama",
        dict(rank_pattern={"v_proj": 2}, alpha_pattern={"layers.1.attn.q_proj": 9}),
    ),
    "llama norm saved": ("llama", dict(modules_to_save=["norm"])),
    "llama all norms saved": ("llama", dict(modules_to_save=["norm", "attn_norm", "mlp_norm"])),
    "llama head saved": ("llama", dict(modules_to_save=["head", "tok_embed", "mlp_norm"])),
}


def our_adapter(model, options, name="default"):
    """Add an adapter in which all that trains is random."""
    rng = np.random.default_rng(2)
    ml.add_adapter(model, ml.LoraConfig(**dict(r=4, lora_alpha=6) | options), name, rng=rng)
    for p in model.trainable_parameters():
        p.data += rng.standard_normal(p.shape).astype(np.float32) * 0.3


@pytest.mark.parametrize("kind", OUR_ADAPTERS)
def test_peft_computes_the_logits_of_an_adapter_that_we_save(kind, tmp_path):
    family, options = OUR_ADAPTERS[kind]
    theirs, ours = both_bases(family, tmp_path / "base")
    base = our_logits(ours)
    our_adapter(ours, options)
    save_adapter(ours, tmp_path / "adapter")
    theirs = peft.PeftModel.from_pretrained(theirs, tmp_path / "adapter").eval()
    assert differ(base, our_logits(ours)) > 1e-2
    assert differ(hf_logits(theirs), our_logits(ours)) <= 1e-4
    assert differ(hf_logits(theirs.merge_and_unload()), our_logits(ours)) <= 1e-4


@pytest.mark.parametrize("kind", OUR_ADAPTERS)
def test_peft_finds_every_tensor_of_ours_and_no_other(kind, tmp_path):
    family, options = OUR_ADAPTERS[kind]
    theirs, ours = both_bases(family, tmp_path / "base")
    our_adapter(ours, options)
    save_adapter(ours, tmp_path / "ours")
    theirs = peft.PeftModel.from_pretrained(theirs, tmp_path / "ours", is_trainable=True)
    theirs.save_pretrained(tmp_path / "theirs")
    files = [
        {k: v.shape for k, v in peft.utils.load_peft_weights(str(tmp_path / who)).items()}
        for who in ("ours", "theirs")
    ]
    # PEFT repeats what is in its wrappers: with bias="all" that of modules_to_save, and the
    # frozen weight of an adapted head.
    wrapped = (".modules_to_save.", ".original_module.", "lm_head.base_layer.")
    assert files[0] == {k: v for k, v in files[1].items() if not any(w in k for w in wrapped)}
    configs = [
        json.loads((tmp_path / who / "adapter_config.json").read_text())
        for who in ("ours", "theirs")
    ]
    lists = {"target_modules", "modules_to_save"}  # their order is arbitrary
    head = {"fan_in_fan_out"} if "head" in kind else set()  # PEFT's is that of the last module
    for key in configs[0].keys() - head - {"inference_mode"}:
        mine, its = (sorted(c[key] or ()) if key in lists else c[key] for c in configs)
        assert mine == its, key


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_adapters_of_tied_models_cross_over(family, tmp_path):
    theirs, ours = both_bases(family, tmp_path / "base", tied=True)
    their = their_adapter(theirs, tmp_path / "adapter", dict(target_modules="all-linear"))
    load_adapter(ours, tmp_path / "adapter")
    assert differ(our_logits(ours), hf_logits(their)) <= 1e-4
    save_adapter(ours, tmp_path / "ours")
    again = peft.PeftModel.from_pretrained(hf_model(family, True), tmp_path / "ours").eval()
    assert differ(hf_logits(again), hf_logits(their)) <= 1e-4


@pytest.mark.parametrize("family", ["gpt2", "llama"])
@pytest.mark.parametrize("tied", [False, True])
def test_embeddings_that_peft_writes_but_did_not_train_are_no_part_of_the_adapter(
    family, tied, tmp_path
):
    theirs, ours = both_bases(family, tmp_path / "base", tied)
    options = dict(target_modules=["c_attn"] if family == "gpt2" else ["q_proj"])
    their = their_adapter(theirs, tmp_path / "adapter", options, save_embedding_layers=True)
    load_adapter(ours, tmp_path / "adapter")
    assert differ(our_logits(ours), hf_logits(their)) <= 1e-4
    names = [name for name, p in ours.named_parameters() if p.requires_grad]
    assert names and all(".adapters." in name for name in names)


@pytest.mark.parametrize("family", ["gpt2", "llama"])
@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (dict(target_modules=["c_proj", "o_proj", "lm_head"]), "lm_head, but the head is tied"),
        (dict(modules_to_save=["lm_head"]), "lm_head, but the head is tied here"),
        (dict(target_modules=["wte", "embed_tokens"]), "LoRA of an embedding is not supported"),
    ],
)
def test_what_a_tied_model_cannot_take_is_refused_with_its_cause(
    family, options, sentence, tmp_path
):
    theirs, ours = both_bases(family, tmp_path / "base", tied=True)
    their_adapter(theirs, tmp_path / "adapter", options)
    with pytest.raises(ValueError, match=sentence):
        load_adapter(ours, tmp_path / "adapter")
    assert not lora_layers(ours)


def test_adapter_with_a_name_is_in_the_sub_folder_that_the_error_names(tmp_path):
    theirs, ours = both_bases("gpt2", tmp_path / "base")
    theirs = their_adapter(theirs, tmp_path / "adapter", {}, name="french")
    with pytest.raises(FileNotFoundError, match="french"):
        load_adapter(ours, tmp_path / "adapter")
    load_adapter(ours, tmp_path / "adapter" / "french", name="other")
    assert differ(our_logits(ours), hf_logits(theirs)) <= 1e-4


def test_fresh_adapter_of_peft_leaves_our_model_bitwise_at_its_base(tmp_path):
    theirs, ours = both_bases("gpt2", tmp_path / "base")
    base = our_logits(ours)
    config = peft.LoraConfig(target_modules=["c_attn"], r=4)
    peft.get_peft_model(theirs, config).save_pretrained(tmp_path / "adapter")
    load_adapter(ours, tmp_path / "adapter")
    assert np.array_equal(our_logits(ours), base)
    assert len(lora_layers(ours)) == 9  # q, k and v of three layers


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (dict(lora_bias=True), "lora_bias"),
        (dict(init_lora_weights="pissa"), "init_lora_weights='pissa'"),
        (dict(init_lora_weights="olora"), "init_lora_weights='olora'"),
        (dict(layer_replication=[(0, 3), (1, 3)]), "layer_replication"),
        (dict(trainable_token_indices=[1, 2]), "trainable_token_indices"),
        (dict(alora_invocation_tokens=[1, 2]), "alora_invocation_tokens"),
    ],
)
def test_what_changes_the_function_is_refused_by_name(options, named, tmp_path):
    theirs, ours = both_bases("llama", tmp_path / "base")
    their_adapter(theirs, tmp_path / "adapter", options)
    with pytest.raises(ValueError, match=named):
        load_adapter(ours, tmp_path / "adapter")
    assert not lora_layers(ours)


def test_other_methods_of_peft_are_refused_by_name(tmp_path):
    theirs, ours = both_bases("llama", tmp_path / "base")
    peft.get_peft_model(theirs, peft.IA3Config(task_type="CAUSAL_LM")).save_pretrained(
        tmp_path / "adapter"
    )
    with pytest.raises(ValueError, match="IA3"):
        load_adapter(ours, tmp_path / "adapter")


def test_every_option_of_this_peft_is_known_to_us(tmp_path):
    theirs, ours = both_bases("llama", tmp_path / "base")
    their_adapter(theirs, tmp_path / "adapter", {})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load_adapter(ours, tmp_path / "adapter")


def changed(folder, **options):
    """The adapter_config.json of a folder with other options."""
    file = folder / "adapter_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | options))


STARTS = [True, False, None, "gaussian", "Gaussian", "mica", "MiCA", "eva", "orthogonal"]
CHANGED = ["OLoRA", "olora", "pissa", "pissa_niter_2"]  # W too, when PEFT loads it
UNKNOWN = ["PiSSA", "EVA", "nonsense", 2, "True"]  # to PEFT


@pytest.mark.parametrize("start", [*STARTS, *CHANGED, *UNKNOWN], ids=str)
def test_each_init_lora_weights_means_what_it_means_in_peft_or_is_refused(start, tmp_path):
    theirs, ours = both_bases("llama", tmp_path / "base")
    options = dict(target_modules=["q_proj", "v_proj"])
    trained = hf_logits(their_adapter(theirs, tmp_path / "adapter", options))
    changed(tmp_path / "adapter", init_lora_weights=start)
    base = hf_model("llama", False)
    if start in UNKNOWN:
        with pytest.raises((ValueError, AttributeError)):
            peft.PeftModel.from_pretrained(base, tmp_path / "adapter")
    else:
        again = peft.PeftModel.from_pretrained(base, tmp_path / "adapter").eval()
        assert (differ(hf_logits(again), trained) <= 1e-4) == (start in STARTS)
    if start in STARTS:
        load_adapter(ours, tmp_path / "adapter")
        assert differ(our_logits(ours), trained) <= 1e-4
    else:
        with pytest.raises(ValueError, match="init_lora_weights="):
            load_adapter(ours, tmp_path / "adapter")


NAMING = {
    "all of them": (dict(target_modules=["q_proj", "v_proj"]), "all"),
    "a pattern of them": (dict(target_modules=r".*\.(q|v)_proj"), "all"),
    "their layers": (dict(layers_to_transform=[0, 1, 2], layers_pattern="layers"), "all"),
    "PEFT's default": (dict(target_modules=None), "all"),
    "one of them": (dict(target_modules=["q_proj"]), "some left out"),
    "one excluded": (dict(exclude_modules=r".*v_proj"), "some left out"),
    "one layer": (dict(layers_to_transform=1), "some left out"),
    "another name of the layers": (dict(layers_to_transform=1, layers_pattern="h"), "nothing"),
    "more": (dict(target_modules=["q_proj", "v_proj", "k_proj"]), "missing"),
    "every Linear": (dict(target_modules="all-linear"), "missing"),
}


@pytest.mark.parametrize("case", NAMING)
def test_where_peft_leaves_tensors_out_in_silence_we_refuse_and_where_it_warns_we_warn(
    case, tmp_path
):
    options, happens = NAMING[case]
    theirs, ours = both_bases("llama", tmp_path / "base")
    theirs = their_adapter(theirs, tmp_path / "adapter", dict(target_modules=["q_proj", "v_proj"]))
    expected = hf_logits(theirs)
    changed(tmp_path / "adapter", **options)
    base = hf_model("llama", False)
    if happens == "nothing":
        with pytest.raises(ValueError, match="not found in the base model"):
            peft.PeftModel.from_pretrained(base, tmp_path / "adapter")
    else:
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            again = peft.PeftModel.from_pretrained(base, tmp_path / "adapter").eval()
        warned = any("missing adapter keys" in str(one.message) for one in said)
        assert warned == (happens == "missing")
        same = differ(hf_logits(again), expected) <= 1e-4
        assert same == (happens != "some left out")
    if happens in ("nothing", "some left out"):
        with pytest.raises(ValueError, match="which its options do not name"):
            load_adapter(ours, tmp_path / "adapter")
    else:
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            load_adapter(ours, tmp_path / "adapter")
        assert any("no tensors for" in str(one.message) for one in said) == (happens == "missing")
        assert differ(our_logits(ours), expected) <= 1e-4
