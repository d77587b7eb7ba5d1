"""Claims about DoRA, PiSSA, OLoRA and the other starts: PEFT starts where we start, has our
gradients, and computes what we save, as we compute what it saves.

Tiny random models, nothing downloaded. PEFT takes PiSSA's and OLoRA's part out of the base model
itself; we keep the base, so that files go from us to PEFT, and PEFT's own come converted.
"""

import os

os.environ["HF_HUB_OFFLINE"] = "1"

import numpy as np
import pytest

import minilora as ml
from minilora.hub import load_adapter, load_model, save_adapter
from minilora.hub.hf_layout import layout_of
from minilora.lora import lora_layers
from minilora.methods import starts

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
peft = pytest.importorskip("peft")

pytestmark = [pytest.mark.parity, pytest.mark.filterwarnings("ignore")]

V, T, C = 23, 12, 16
IDS = np.random.default_rng(3).integers(0, V, (2, T))
SHARED = dict(vocab_size=V, tie_word_embeddings=False, bos_token_id=None, eos_token_id=None)
SIZES = {
    "gpt2": dict(n_positions=T, n_embd=C, n_layer=2, n_head=4, resid_pdrop=0, embd_pdrop=0),
    "llama": dict(
        hidden_size=C,
        intermediate_size=20,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=T,
    ),
}
GPT2_LINEARS = ["c_attn", "c_proj", "c_fc"]
FAMILIES = pytest.mark.parametrize("family", SIZES)
PISSA, OLORA = dict(init_lora_weights="pissa"), dict(init_lora_weights="olora")


def hf_model(family):
    """Every parameter random, biases and norms too: a mixed-up pair of them then shows."""
    torch.manual_seed(0)
    if family == "gpt2":
        config = transformers.GPT2Config(**SHARED, **SIZES[family], attn_pdrop=0)
        model = transformers.GPT2LMHeadModel(config)
    else:
        model = transformers.LlamaForCausalLM(transformers.LlamaConfig(**SHARED, **SIZES[family]))
    randomise(model.parameters(), 0.2)
    return model.eval()


def randomise(parameters, size):
    with torch.no_grad():
        for p in parameters:
            p.add_(torch.randn_like(p) * size)


def both_bases(family, folder):
    theirs = hf_model(family)
    theirs.save_pretrained(folder)
    return theirs, load_model(folder)


def their_adapter(base, options):
    torch.manual_seed(1)
    config = peft.LoraConfig(**dict(r=4, lora_alpha=6, task_type="CAUSAL_LM") | options)
    return peft.get_peft_model(base, config)


def train_theirs(model, steps=4, lr=0.05):
    """A few steps of Adam, which move every number by about lr each."""
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=lr)
    for _ in range(steps):
        their_loss(model).backward()
        optimizer.step()
        optimizer.zero_grad()
    return model.eval()


def train_ours(model, steps=4, lr=0.05):
    optimizer = ml.AdamW(model.trainable_parameters(), lr=lr)
    for _ in range(steps):
        our_loss(model).backward()
        optimizer.step()
        optimizer.zero_grad()


def their_loss(model):
    ids = torch.tensor(IDS)
    return model(ids, labels=ids).loss


def our_loss(model):
    return ml.cross_entropy(model(IDS[:, :-1]), IDS[:, 1:])


def hf_logits(model):
    with torch.no_grad():
        return model(torch.tensor(IDS)).logits.numpy()


def our_logits(model):
    with ml.no_grad():
        return model(IDS).data


def relative(found, expected):
    return float(np.abs(found - expected).max() / np.abs(expected).max())


def their_parameter(model, path, kind, name="default"):
    module = model.get_submodule(f"base_model.model.{path}.lora_{kind}")[name]
    return module.weight


def our_layers(model):
    """(our layer, the path of its counterpart in PEFT's model, which third of it)"""
    where = layout_of(model.config)
    for path, layer in lora_layers(model).items():
        yield layer, where[path].path, where[path].third


THEIR_DORA = {
    "gpt2 c_attn": ("gpt2", dict(target_modules=["c_attn"])),
    "gpt2 all linear": ("gpt2", dict(target_modules=GPT2_LINEARS)),
    "gpt2 head too": ("gpt2", dict(target_modules=["c_attn", "lm_head"])),
    "gpt2 rslora": ("gpt2", dict(target_modules=GPT2_LINEARS, use_rslora=True)),
    "gpt2 patterns": (
        "gpt2",
        dict(
            target_modules=GPT2_LINEARS,
            rank_pattern={"c_attn": 5, r"h\.1\..*c_proj": 2},
            alpha_pattern={"^transformer.h.0.mlp.c_fc": 3, "attn.c_proj": 7},
        ),
    ),
    "gpt2 lora_only": ("gpt2", dict(target_modules=["c_attn", "c_fc"], bias="lora_only")),
    "gpt2 norms saved, all biases": (
        "gpt2",
        dict(target_modules=["c_attn"], modules_to_save=["ln_f", "ln_1"], bias="all"),
    ),
    "gpt2 more rank than there is": ("gpt2", dict(target_modules=["c_attn", "c_fc"], r=40)),
    "llama q and v": ("llama", {}),
    "llama all linear": ("llama", dict(target_modules="all-linear", use_rslora=True)),
    "llama patterns": (
        "llama",
        dict(
            target_modules="all-linear",
            rank_pattern={"v_proj": 3, "model.layers.1.self_attn.k_proj": 5},
            alpha_pattern={"layers.1.*": 9},
        ),
    ),
    "llama head saved": ("llama", dict(modules_to_save=["lm_head"])),
}


@pytest.mark.parametrize("kind", THEIR_DORA)
def test_dora_that_peft_trained_crosses_to_us_and_back(kind, tmp_path):
    family, options = THEIR_DORA[kind]
    theirs, ours = both_bases(family, tmp_path / "base")
    base = our_logits(ours)
    theirs = train_theirs(their_adapter(theirs, dict(use_dora=True) | options))
    theirs.save_pretrained(tmp_path / "theirs")
    expected = hf_logits(theirs)
    load_adapter(ours, tmp_path / "theirs")
    assert relative(base, expected) > 1e-2
    assert relative(our_logits(ours), expected) <= 1e-5
    save_adapter(ours, tmp_path / "ours")
    again = peft.PeftModel.from_pretrained(hf_model(family), tmp_path / "ours").eval()
    assert relative(hf_logits(again), expected) <= 1e-5
    ml.merge_adapter(ours)
    assert relative(our_logits(ours), expected) <= 1e-5
    assert relative(hf_logits(theirs.merge_and_unload()), our_logits(ours)) <= 1e-5


OUR_OPTIONS = {
    "gpt2 q and v": ("gpt2", {}),
    "gpt2 k alone": ("gpt2", dict(target_modules=["k_proj"])),
    "gpt2 all linear": ("gpt2", dict(target_modules="all-linear")),
    "gpt2 with the head": ("gpt2", dict(target_modules=["q_proj", "head"])),
    "gpt2 mixed layers": ("gpt2", dict(target_modules=r"layers\.(0\.attn\.q|1\.attn\.v|1.*)_proj")),
    "gpt2 patterns": (
        "gpt2",
        dict(
            target_modules="all-linear",
            rank_pattern={"v_proj": 6, "layers.1.attn.q_proj": 2, "up_proj": 3},
            alpha_pattern={"k_proj": 9, "layers.1.*": 1.7},
        ),
    ),
    "gpt2 rslora and patterns": (
        "gpt2",
        dict(
            target_modules="all-linear",
            use_rslora=True,
            rank_pattern={"v_proj": 6, "layers.1.*": 2},
            alpha_pattern={"k_proj": 9},
        ),
    ),
    "gpt2 lora_only": ("gpt2", dict(target_modules=["q_proj", "o_proj"], bias="lora_only")),
    "gpt2 norms saved, all biases": ("gpt2", dict(modules_to_save=["norm"], bias="all")),
    "gpt2 high rank": ("gpt2", dict(r=12)),
    "llama q and v": ("llama", {}),
    "llama all linear": ("llama", dict(target_modules="all-linear", use_rslora=True)),
    "llama patterns": (
        "llama",
        dict(rank_pattern={"v_proj": 2}, alpha_pattern={"layers.1.attn.q_proj": 9}),
    ),
    "llama head saved": ("llama", dict(modules_to_save=["head"])),
}
METHODS = {
    "dora": dict(use_dora=True),
    "pissa": PISSA,
    "olora": OLORA,
    "dora from pissa": dict(use_dora=True) | PISSA,
    "dora from olora": dict(use_dora=True) | OLORA,
}


def our_adapter(model, options):
    config = ml.LoraConfig(**dict(r=4, lora_alpha=6) | options)
    ml.add_adapter(model, config, rng=np.random.default_rng(2))


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("kind", OUR_OPTIONS)
def test_peft_computes_on_the_unchanged_base_what_we_trained(method, kind, tmp_path):
    family, options = OUR_OPTIONS[kind]
    theirs, ours = both_bases(family, tmp_path / "base")
    base = our_logits(ours)
    our_adapter(ours, METHODS[method] | options)
    train_ours(ours)
    save_adapter(ours, tmp_path / "ours")
    expected = our_logits(ours)
    theirs = peft.PeftModel.from_pretrained(theirs, tmp_path / "ours").eval()
    assert relative(base, expected) > 1e-2
    assert relative(hf_logits(theirs), expected) <= 1e-5
    assert relative(hf_logits(theirs.merge_and_unload()), expected) <= 1e-5


@pytest.mark.parametrize("method", ["dora", "pissa", "dora from pissa"])
@FAMILIES
def test_peft_finds_every_tensor_of_ours_and_no_other(method, family, tmp_path):
    theirs, ours = both_bases(family, tmp_path / "base")
    our_adapter(ours, METHODS[method] | dict(target_modules="all-linear"))
    save_adapter(ours, tmp_path / "ours")
    theirs = peft.PeftModel.from_pretrained(theirs, tmp_path / "ours", is_trainable=True)
    theirs.save_pretrained(tmp_path / "theirs")
    files = [peft.utils.load_peft_weights(str(tmp_path / who)) for who in ("ours", "theirs")]
    assert files[0].keys() == files[1].keys()
    for key, array in files[0].items():
        assert torch.equal(array, files[1][key]), key


@FAMILIES
def test_peft_starts_dora_with_our_magnitudes(family, tmp_path):
    theirs, ours = both_bases(family, tmp_path / "base")
    targets = ["c_attn", "c_fc"] if family == "gpt2" else "all-linear"
    theirs = their_adapter(theirs, dict(use_dora=True, target_modules=targets))
    names = ["q_proj", "k_proj", "v_proj", "up_proj"] if family == "gpt2" else "all-linear"
    our_adapter(ours, dict(use_dora=True, target_modules=names))
    for layer, path, third in our_layers(ours):
        m = their_parameter(theirs, path, "magnitude_vector").detach().numpy()
        m = m if third is None else np.split(m, 3)[third]
        np.testing.assert_allclose(layer.adapters["default"].m.data, m, rtol=1e-6)


@pytest.mark.parametrize("method", ["lora", "dora"])
@FAMILIES
def test_gradients_of_A_B_and_m_are_those_of_peft(method, family, tmp_path):
    theirs, ours = both_bases(family, tmp_path / "base")
    targets = GPT2_LINEARS if family == "gpt2" else "all-linear"
    theirs = their_adapter(theirs, dict(use_dora=method == "dora", target_modules=targets))
    train_theirs(theirs).save_pretrained(tmp_path / "theirs")
    load_adapter(ours, tmp_path / "theirs")
    their_loss(theirs).backward()
    our_loss(ours).backward()
    shared_A = {}  # q, k and v share one A in PEFT, whose gradient is the sum of three
    for layer, path, third in our_layers(ours):
        A, B = (layer.adapters["default"].A.grad, layer.adapters["default"].B.grad)
        shared_A[path] = shared_A.get(path, 0) + A
        found = {"B": B}
        if method == "dora":
            found["magnitude_vector"] = layer.adapters["default"].m.grad
        for kind, gradient in found.items():
            expected = their_parameter(theirs, path, kind).grad.numpy()
            expected = expected if third is None else np.split(expected, 3)[third]
            assert relative(gradient, expected.T) <= 1e-4, (path, kind)
    for path, gradient in shared_A.items():
        expected = their_parameter(theirs, path, "A").grad.numpy().T
        assert relative(gradient, expected) <= 1e-4, path
    assert len(shared_A) == (8 if family == "gpt2" else 14)


# In GPT-2 PEFT factors the whole of c_attn, and we factor q, k and v. Its OLoRA (0.21) does not
# transpose the weight of a Conv1D: it fails, or, where W is square, starts away from the base.
STARTS = {
    "pissa gpt2": ("gpt2", PISSA, ["c_proj", "c_fc"], ["o_proj", "up_proj", "down_proj"]),
    "pissa llama": ("llama", PISSA, "all-linear", "all-linear"),
    "pissa llama rslora": ("llama", PISSA | dict(use_rslora=True), "all-linear", "all-linear"),
    "olora llama": ("llama", OLORA, "all-linear", "all-linear"),
    "olora llama rslora": ("llama", OLORA | dict(use_rslora=True), "all-linear", "all-linear"),
}


def both_started(kind, folder):
    family, options, their_targets, our_targets = STARTS[kind]
    theirs, ours = both_bases(family, folder)
    theirs = their_adapter(theirs, options | dict(target_modules=their_targets))
    our_adapter(ours, options | dict(target_modules=our_targets))
    return theirs, ours


@pytest.mark.parametrize("kind", STARTS)
def test_pefts_first_factors_and_changed_base_are_ours(kind, tmp_path):
    theirs, ours = both_started(kind, tmp_path)
    assert lora_layers(ours)
    for layer, path, _ in our_layers(ours):
        A, B = (their_parameter(theirs, path, x).detach().numpy().T for x in "AB")
        mine = layer.adapters["default"].A.data @ layer.adapters["default"].B.data
        assert relative(mine, A @ B) <= 1e-5, path
        for own, its in (
            (layer.adapters["default"].A.data, A),
            (layer.adapters["default"].B.data, B),
        ):
            assert relative(np.abs(own), np.abs(its)) <= 1e-4, path  # the signs are arbitrary
        module = theirs.get_submodule(f"base_model.model.{path}.base_layer")
        changed = module.weight.detach().numpy()
        changed = changed if "gpt2" in kind else changed.T
        W, residual = layer.base.weight.data, layer.adapters["default"].residual.data
        assert float(np.abs(residual - changed).max()) <= 1e-5 * np.abs(W).max(), path
        np.testing.assert_array_equal(residual, W - layer.adapters["default"].s * mine)


@pytest.mark.parametrize("kind", STARTS)
def test_training_from_the_same_start_gives_the_logits_of_peft(kind, tmp_path):
    theirs, ours = both_started(kind, tmp_path / "base")
    base = our_logits(ours)
    assert relative(base, hf_logits(theirs)) <= 1e-5
    train_both(theirs, ours)
    assert relative(base, our_logits(ours)) > 1e-2
    assert relative(our_logits(ours), hf_logits(theirs)) <= 1e-4


def train_both(theirs, ours, steps=5, lr=0.05):
    optimizers = [
        torch.optim.SGD([p for p in theirs.parameters() if p.requires_grad], lr=lr),
        ml.SGD(ours.trainable_parameters(), lr=lr),
    ]
    for _ in range(steps):
        their_loss(theirs).backward()
        our_loss(ours).backward()
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()


def test_training_dora_from_the_same_start_gives_the_logits_of_peft(tmp_path):
    theirs, ours = both_bases("llama", tmp_path / "base")
    base = our_logits(ours)
    theirs = their_adapter(theirs, dict(use_dora=True, target_modules="all-linear"))
    theirs.save_pretrained(tmp_path / "start")
    load_adapter(ours, tmp_path / "start")
    train_both(theirs.eval(), ours)
    assert relative(base, our_logits(ours)) > 1e-2
    assert relative(our_logits(ours), hf_logits(theirs)) <= 1e-4


@pytest.mark.parametrize("kind", ["pissa gpt2", "pissa llama", "olora llama"])
def test_what_peft_trained_is_refused_as_it_is_and_loaded_once_converted(kind, tmp_path):
    family, options, targets, _ = STARTS[kind]
    theirs, ours = both_bases(family, tmp_path / "base")
    theirs = their_adapter(theirs, options | dict(target_modules=targets))
    config = theirs.peft_config["default"]
    config.init_lora_weights = True  # as PEFT's manual tells: what it converts from
    theirs.save_pretrained(tmp_path / "start")
    config.init_lora_weights = options["init_lora_weights"]
    expected = hf_logits(train_theirs(theirs))
    theirs.save_pretrained(tmp_path / "theirs")
    with pytest.raises(ValueError, match="path_initial_model_for_weight_conversion"):
        load_adapter(ours, tmp_path / "theirs")
    assert not lora_layers(ours)
    theirs.save_pretrained(
        tmp_path / "converted", path_initial_model_for_weight_conversion=str(tmp_path / "start")
    )
    load_adapter(ours, tmp_path / "converted")
    assert relative(our_logits(ours), expected) <= 1e-5


def test_pefts_mica_starts_trains_and_ends_as_ours(tmp_path):
    theirs, ours = both_bases("llama", tmp_path / "base")
    theirs = their_adapter(theirs, dict(init_lora_weights="mica", target_modules="all-linear"))
    our_adapter(ours, dict(target_modules="all-linear"))
    starts.mica(ours)
    for layer, path, _ in our_layers(ours):
        B = their_parameter(theirs, path, "B").detach().numpy().T
        mine = layer.adapters["default"].B.data
        np.testing.assert_allclose(np.abs(mine), np.abs(B), atol=1e-4)  # the signs are arbitrary
    base = our_logits(ours)
    train_both(theirs, ours)
    assert relative(base, our_logits(ours)) > 1e-2
    assert relative(our_logits(ours), hf_logits(theirs)) <= 1e-4


OUR_STARTS = {
    "eva": lambda model: starts.eva(model, IDS),
    "lora_ga": lambda model: starts.lora_ga(model, IDS[:, :-1], IDS[:, 1:]),
    "mica": starts.mica,
}


@FAMILIES
@pytest.mark.parametrize("start", OUR_STARTS)
def test_peft_computes_on_the_unchanged_base_what_we_trained_from_another_start(
    start, family, tmp_path
):
    theirs, ours = both_bases(family, tmp_path / "base")
    base = our_logits(ours)
    our_adapter(ours, dict(target_modules="all-linear"))
    OUR_STARTS[start](ours)
    train_ours(ours)
    save_adapter(ours, tmp_path / "ours")
    theirs = peft.PeftModel.from_pretrained(theirs, tmp_path / "ours").eval()
    assert relative(base, our_logits(ours)) > 1e-2
    assert relative(hf_logits(theirs), our_logits(ours)) <= 1e-5
