"""Methods on models that are not plain any more work, or are refused and leave all as it was."""

import math

import numpy as np
import pytest
from builders import IDS, adapted, shake, tiny

import minilora as ml
from minilora.lora import adapters, lora_layers
from minilora.lora_init import initial_factors
from minilora.methods.registry import METHODS
from minilora.methods.trainable import lora_state_dict

LORA = ml.LoraConfig(r=2, lora_alpha=6)
KIN = [name for name, method in METHODS.items() if method.family == "reparameterized"]
OTHERS = [name for name in METHODS if name not in KIN]
SELECTIVE = ["full", "head", "last-block", "bitfit"]
ADDITIVE = ["adapter", "prompt", "prefix"]
RNG = np.random.default_rng(0)


def prepared(method: str, model: ml.Transformer | None = None) -> ml.Transformer:
    model = tiny() if model is None else model
    METHODS[method].prepare(model, LORA, np.random.default_rng(3))
    return model


def snapshot(model: ml.Transformer) -> tuple:
    return (
        [(path, id(m)) for path, m in model.named_modules()],
        [(n, id(p), p.requires_grad, p.data.tobytes()) for n, p in model.named_parameters()],
        [(path, layer.active, list(layer.adapters)) for path, layer in lora_layers(model).items()],
        dict(adapters(model)),
        model.can_cache,
    )


def refuse(model: ml.Transformer, method: str, sentence: str) -> None:
    before, y = snapshot(model), model(IDS).data.tobytes()
    with pytest.raises(ValueError, match=sentence):
        METHODS[method].prepare(model, LORA, np.random.default_rng(3))
    assert snapshot(model) == before and model(IDS).data.tobytes() == y


@pytest.mark.parametrize("method", OTHERS)
@pytest.mark.parametrize("merged", [False, True], ids=["adapted", "merged"])
def test_other_methods_refuse_a_model_with_adapters(method, merged):
    model = adapted()
    if merged:
        ml.merge_adapter(model)
    refuse(model, method, "starts from a plain model, .* holds a LoraLinear.*merge_and_unload")


@pytest.mark.parametrize("method", OTHERS)
@pytest.mark.parametrize("first", ADDITIVE)
def test_other_methods_refuse_a_model_with_something_added(method, first):
    refuse(prepared(first), method, "starts from a plain model, and this one has been changed")


@pytest.mark.parametrize("method", KIN)
def test_kin_of_lora_refuse_a_merged_model_and_a_second_adapter_of_one_name(method):
    refuse(adapted(), method, "this model has an adapter 'default' already")
    model = adapted()
    ml.merge_adapter(model)
    refuse(model, method, "adapter 'default' is already merged: call unmerge_adapter")


@pytest.mark.parametrize("method", SELECTIVE)
@pytest.mark.parametrize("first", SELECTIVE)
def test_a_selective_method_after_another_trains_what_it_would_alone(first, method):
    twice, once = prepared(method, prepared(first)), prepared(method)
    assert [(n, p.requires_grad) for n, p in twice.named_parameters()] == [
        (n, p.requires_grad) for n, p in once.named_parameters()
    ]


@pytest.mark.parametrize("method", KIN)
@pytest.mark.parametrize("first", ADDITIVE)
def test_lora_on_top_of_something_added_keeps_it_and_trains_the_adapter_alone(first, method):
    model = prepared(first)
    shake(model, 5)
    before = model(IDS).data
    config = ml.LoraConfig(r=2, target_modules="all-linear")
    METHODS[method].prepare(model, config, np.random.default_rng(4))
    np.testing.assert_allclose(model(IDS).data, before, rtol=0, atol=2e-5)
    assert list(lora_layers(model)) == [f"layers.{i}.{x}" for i in (0, 1) for x in ALL_LINEAR]
    assert all(".adapters." in n for n, p in model.named_parameters() if p.requires_grad)
    for p in model.trainable_parameters():
        p.data += 0.1
    tuned = model(IDS).data
    assert np.abs(tuned - before).max() > 1e-2
    ml.merge_adapter(model)
    np.testing.assert_allclose(model(IDS).data, tuned, rtol=0, atol=1e-4)
    ml.unmerge_adapter(model)
    ml.delete_adapter(model, "default")
    np.testing.assert_array_equal(model(IDS).data, before)


ALL_LINEAR = [
    "attn.q_proj", "attn.k_proj", "attn.v_proj", "attn.o_proj", "mlp.up_proj", "mlp.down_proj",
]  # fmt: skip


def test_lora_on_top_of_bottleneck_adapters_by_the_name_of_the_layer_they_wrap():
    model = prepared("adapter")
    ml.add_adapter(model, ml.LoraConfig(r=2, target_modules=["o_proj"]), rng=RNG)
    assert type(model.layers[0].attn.o_proj).__name__ == "Bottleneck"
    assert model.layers[0].attn.o_proj.base is lora_layers(model)["layers.0.attn.o_proj"]
    assert ml.get_delta_weight(model, "layers.0.attn.o_proj").shape == (16, 16)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    ("arguments", "error", "sentence"),
    [
        (lambda m: (None, LORA, RNG), TypeError, "needs a Transformer and a LoraConfig, got None"),
        (lambda m: (ml.Linear(3, 3, rng=RNG), LORA, RNG), TypeError, "Transformer .* got Linear"),
        (lambda m: (m, None, RNG), TypeError, "a LoraConfig, got Transformer and NoneType"),
        (lambda m: (m, LORA, 0), ValueError, r"rng must be np.random.default_rng\(seed\), got 0"),
        (lambda m: (m, LORA, None), ValueError, r"rng must be np.random.default_rng\(seed\)"),
    ],
    ids=["no model", "a layer", "no config", "a seed", "no rng"],
)
def test_what_a_method_needs_is_named(method, arguments, error, sentence):
    model = tiny()
    before = snapshot(model)
    with pytest.raises(error, match=sentence):
        METHODS[method].prepare(*arguments(model))
    assert snapshot(model) == before


W = np.random.default_rng(2).standard_normal((6, 5)).astype(np.float32)
ONE_DIRECTION = np.outer(W[:, 0], W[0])


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: initial_factors(W, 2, 1.0, True, 0), r"rng must be np.random.default_rng\(seed"),
        (lambda: initial_factors(W, 2, 1.0, True), r"rng must be np.random.default_rng\(seed"),
        (lambda: initial_factors(W, 2, 1.0, "pissa", 0), r"rng must be np.random.default_rng\("),
        (lambda: initial_factors(W, 6, 1.0, True, RNG), r"r is at most 5 for W \(6, 5\), got 6"),
        (lambda: initial_factors(W, 2.0, 1.0, True, RNG), "r must be a whole number"),
        (lambda: initial_factors(W, 2, 0, "pissa"), "scale must be a positive number, got 0"),
        (lambda: initial_factors(W, 2, math.nan, True, RNG), "scale must be a positive number"),
        (lambda: initial_factors(W, 2, 1.0, "svd", RNG), "init must be one of .* got 'svd'"),
        (lambda: initial_factors(W * np.nan, 2, 1.0, "olora"), "W holds inf or nan"),
        (lambda: initial_factors(W[0], 1, 1.0, True, RNG), r"W must be a matrix of floats, got"),
        (lambda: initial_factors(W.astype(int), 1, 1.0, True, RNG), "matrix of floats, got int64"),
        (lambda: initial_factors(ONE_DIRECTION, 2, 1.0, "pissa"), "fewer than 2 directions"),
    ],
)
def test_factors_that_cannot_be_are_refused(call, sentence):
    with pytest.raises(ValueError, match=sentence):
        call()


def test_lora_state_dict_is_what_the_adapter_trains_by_plain_paths():
    model = adapted(bias="lora_only", modules_to_save=["norm"], use_dora=True)
    state = lora_state_dict(model)
    layers = [f"layers.{i}.attn.{x}_proj" for i in (0, 1) for x in "qv"]
    parts = {f"{path}.{part}" for path in layers for part in ("A", "B", "m", "bias")}
    assert state.keys() == parts | {"norm.weight", "norm.bias"}
    assert sum(array.size for array in state.values()) == ml.count_parameters(model)[0]
    layer = lora_layers(model)[layers[1]]
    np.testing.assert_array_equal(state[f"{layers[1]}.A"], layer.adapters["default"].A.data)
    np.testing.assert_array_equal(state[f"{layers[1]}.bias"], layer.base.bias.data)
    state[f"{layers[1]}.A"][...] = 7
    assert not (layer.adapters["default"].A.data == 7).any()  # a copy


def test_lora_state_dict_of_a_named_adapter_whichever_is_active():
    model = adapted()
    before = lora_state_dict(model)
    ml.add_adapter(model, ml.LoraConfig(r=1, target_modules=["o_proj"]), "other", rng=RNG)
    assert len(lora_state_dict(model)) == 4
    found = lora_state_dict(model, "default")
    assert found.keys() == before.keys()
    assert all(np.array_equal(found[key], before[key]) for key in before)


@pytest.mark.parametrize(("name", "has"), [(None, "none"), ("other", "none"), ("x", "default")])
def test_lora_state_dict_of_an_adapter_that_is_not_there_says_which_are(name, has):
    with pytest.raises(ValueError, match=f"no adapter {name!r} in use; it has: {has}"):
        lora_state_dict(adapted() if has == "default" else tiny(), name)


def test_a_number_shared_by_two_modules_counts_once():
    model = tiny()
    total = ml.count_parameters(model)[1]
    model.layers[1].mlp_norm.weight = model.layers[0].mlp_norm.weight
    assert ml.count_parameters(model) == (total - 16, total - 16)


def test_a_model_without_parameters_has_none_to_print():
    with pytest.raises(ValueError, match="no parameters to count"):
        ml.print_trainable_parameters(ml.Module())
