"""What the exam cards say of PEFT, and minilora's demos cannot show, is so in PEFT itself."""

import os

os.environ["HF_HUB_OFFLINE"] = "1"

import warnings

import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
peft = pytest.importorskip("peft")

pytestmark = [pytest.mark.parity, pytest.mark.filterwarnings("ignore")]

D, LAYERS = 16, 2
HEADS = dict(num_hidden_layers=LAYERS, num_attention_heads=2)


def llama(**options):
    torch.manual_seed(0)
    sizes = dict(vocab_size=23, hidden_size=D, intermediate_size=32) | HEADS
    return transformers.LlamaForCausalLM(transformers.LlamaConfig(**sizes, **options)).eval()


def adapted(model=None, config=None, **options):
    config = config or peft.LoraConfig(**{"r": 2, "target_modules": ["q_proj"]} | options)
    return peft.get_peft_model(llama() if model is None else model, config)


def places(model):
    """The last name of every module that has a lora_A, with how many there are of it."""
    names = [name.split(".")[-2] for name, _ in model.named_modules() if name.endswith(".lora_A")]
    return {name: names.count(name) for name in names}


def trained(model):
    return {name: p for name, p in model.named_parameters() if p.requires_grad}


@pytest.mark.parametrize("targets", [["query", "value"], "q_proj"])
def test_targets_that_match_nothing_are_an_error(targets):
    with pytest.raises(ValueError, match="not found in the base model"):
        adapted(target_modules=targets)


def test_of_several_targets_those_that_match_are_adapted_without_a_word():
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        assert places(adapted(target_modules=["query", "v_proj"])) == {"v_proj": LAYERS}


def test_a_string_is_a_pattern_of_the_whole_path():
    assert places(adapted(target_modules=".*q_proj")) == {"q_proj": LAYERS}


def test_all_linear_is_every_linear_but_the_head():
    attention, mlp = ["q_proj", "k_proj", "v_proj", "o_proj"], ["gate_proj", "up_proj", "down_proj"]
    found = places(adapted(target_modules="all-linear"))
    assert found == dict.fromkeys(attention + mlp, LAYERS)


def test_a_fused_c_attn_has_one_a():
    sizes = dict(vocab_size=23, n_positions=8, n_embd=D, n_layer=1, n_head=2)
    model = transformers.GPT2LMHeadModel(transformers.GPT2Config(**sizes))
    shapes = [tuple(p.shape) for p in trained(adapted(model, target_modules=["c_attn"])).values()]
    assert shapes == [(2, D), (3 * D, 2)]


def test_an_embeddings_factor_with_a_row_for_each_token_starts_at_zero():
    model = adapted(target_modules=["embed_tokens"])
    (A,) = [p for name, p in trained(model).items() if "lora_embedding_A" in name]
    (B,) = [p for name, p in trained(model).items() if "lora_embedding_B" in name]
    assert A.shape == (2, 23) and not A.any() and B.all()


def test_adapting_a_tied_embedding_warns():
    with pytest.warns(UserWarning, match="tie_word_embeddings"):
        adapted(llama(tie_word_embeddings=True), target_modules=["embed_tokens"])


@pytest.mark.parametrize(("task", "listed"), [(None, False), ("SEQ_CLS", True)])
def test_a_new_head_trains_only_where_modules_to_save_names_it(task, listed):
    sizes = dict(vocab_size=23, hidden_size=D, intermediate_size=32)
    config = transformers.BertConfig(**sizes, **HEADS)
    model = transformers.BertForSequenceClassification(config)
    model = adapted(model, target_modules=["query"], task_type=task)
    assert any("classifier" in name for name in trained(model)) == listed


def test_a_loaded_adapter_is_frozen_unless_it_is_asked_to_train(tmp_path):
    adapted().save_pretrained(tmp_path)
    assert not trained(peft.PeftModel.from_pretrained(llama(), tmp_path))
    assert trained(peft.PeftModel.from_pretrained(llama(), tmp_path, is_trainable=True))


def test_merging_twice_warns_and_adds_nothing():
    model = adapted(init_lora_weights=False)
    layer = model.base_model.model.model.layers[0].self_attn.q_proj
    model.merge_adapter()
    once = layer.base_layer.weight.clone()
    with pytest.warns(UserWarning, match="already merged"):
        model.merge_adapter()
    assert torch.equal(layer.base_layer.weight, once)


def test_dora_can_be_merged():
    model, ids = adapted(init_lora_weights=False, use_dora=True), torch.arange(6)[None]
    with torch.no_grad():
        beside = model(ids).logits
        model.merge_adapter()
        assert torch.allclose(model(ids).logits, beside, atol=1e-5)


def test_vera_trains_two_vectors_in_each_layer():
    config = peft.VeraConfig(r=4, target_modules=["q_proj"])
    sizes = sorted(p.numel() for p in trained(adapted(config=config)).values())
    assert sizes == sorted([4, D] * LAYERS)


def test_ia3_trains_one_factor_for_each_output():
    config = peft.IA3Config(target_modules=["k_proj", "v_proj"], feedforward_modules=[])
    assert [p.numel() for p in trained(adapted(config=config)).values()] == [D, D] * LAYERS


def test_one_adapter_with_weight_one_is_not_that_adapter_under_rslora():
    model = adapted(r=4, lora_alpha=6, use_rslora=True, init_lora_weights=False)
    model.add_weighted_adapter(["default"], [1.0], "one")
    layer = model.base_model.model.model.layers[0].self_attn.q_proj
    for factor in (layer.lora_A, layer.lora_B):
        torch.testing.assert_close(factor["one"].weight, 3**0.5 * factor["default"].weight)
    assert layer.scaling == {"default": 3, "one": 2}


def test_a_rank_of_zero_is_refused_when_the_adapter_is_added():
    config = peft.LoraConfig(r=0, target_modules=["q_proj"])
    with pytest.raises(ValueError, match="should be a positive integer"):
        adapted(config=config)
