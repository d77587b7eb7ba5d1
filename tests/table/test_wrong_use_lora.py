"""What cannot be meant by a call of lora.py: an error says so, and the model is as it was."""

import numpy as np
import pytest
from builders import IDS, adapted, tiny

import minilora as ml
from minilora.lora import lora_layers

RNG = np.random.default_rng(0)
CONFIG = ml.LoraConfig(r=2)


def reset() -> ml.Transformer:
    model = adapted()
    ml.add_adapter(model, CONFIG, "second", rng=np.random.default_rng(4))
    return model


CALLS = [
    (lambda m: ml.add_adapter(CONFIG, m, rng=RNG), TypeError, "expected a model, got LoraConfig"),
    (lambda m: ml.add_adapter(None, CONFIG, rng=RNG), TypeError, "expected a model, got NoneType"),
    (lambda m: ml.add_adapter(m, None, "x", rng=RNG), TypeError, "config must be a minilora.LoraC"),
    (lambda m: ml.add_adapter(m, dict(r=2), "x", rng=RNG), TypeError, "minilora.*got dict"),
    (
        lambda m: ml.add_adapter(m, CONFIG, "x", rng=0),
        ValueError,
        r"rng must be np.random.default_",
    ),
    (lambda m: ml.add_adapter(m, CONFIG, "x", rng=None), ValueError, r"rng must be np.random.def"),
    (lambda m: ml.add_adapter(m, CONFIG, "x"), TypeError, "keyword-only argument: 'rng'"),
    (lambda m: ml.add_adapter(m, CONFIG, 3, rng=RNG), ValueError, "a word without a dot, got 3"),
    (lambda m: ml.add_adapter(m, CONFIG, rng=RNG), ValueError, "has an adapter 'default' already"),
    (lambda m: ml.set_adapter(m, None), ValueError, "no adapter None; it has: default, second"),
    (lambda m: ml.set_adapter(m, ["second"]), ValueError, r"no adapter \['second'\]; it has: def"),
    (lambda m: ml.delete_adapter(m, 1), ValueError, "no adapter 1; it has: default, second"),
    (lambda m: ml.merge_adapter("m"), TypeError, "expected a model, got str"),
    (lambda m: ml.unmerge_adapter(m), ValueError, "no adapter is merged"),
    (lambda m: ml.get_delta_weight(m, 0), KeyError, "does not adapt 0; adapted: layers.0"),
    (lambda m: ml.get_delta_weight(None, "x"), TypeError, "expected a model, got NoneType"),
]


@pytest.mark.parametrize(("call", "error", "sentence"), CALLS)
def test_what_cannot_be_meant_is_refused_and_the_model_is_as_it_was(call, error, sentence):
    model = reset()
    parameters = [(n, id(p), p.requires_grad, p.data.copy()) for n, p in model.named_parameters()]
    modules, y = [id(m) for _, m in model.named_modules()], model(IDS).data
    with pytest.raises(error, match=sentence):
        call(model)
    assert [id(m) for _, m in model.named_modules()] == modules
    for (n, p), (name, number, trains, data) in zip(
        model.named_parameters(), parameters, strict=True
    ):
        assert (n, id(p), p.requires_grad) == (name, number, trains)
        np.testing.assert_array_equal(p.data, data)
    np.testing.assert_array_equal(model(IDS).data, y)


def test_a_linear_that_nothing_holds_cannot_be_replaced():
    with pytest.raises(ValueError, match="in the module that holds it, and none holds this"):
        ml.add_adapter(ml.Linear(4, 4, rng=RNG), ml.LoraConfig(target_modules=".*"), rng=RNG)


def test_an_adapted_layer_takes_an_array_as_a_linear_does():
    layer = lora_layers(adapted())["layers.0.attn.q_proj"]
    for rows in (1, 40):
        x = np.ones((rows, 16), np.float32)
        np.testing.assert_array_equal(layer(x).data, layer(ml.Tensor(x)).data)


def test_an_adapter_chosen_while_adapters_are_disabled_stays_chosen():
    model = reset()
    with ml.disable_adapter(model):
        ml.set_adapter(model, "default")
    assert ml.active_adapter(model) == "default"
    assert all(".adapters.default." in n for n, p in model.named_parameters() if p.requires_grad)


def test_pissa_and_olora_draw_nothing_and_need_no_generator():
    for init in ("pissa", "olora"):
        model = tiny()
        ml.add_adapter(model, ml.LoraConfig(r=2, init_lora_weights=init), rng=None)
        np.testing.assert_allclose(model(IDS).data, tiny()(IDS).data, rtol=0, atol=1e-5)


def test_a_linear_used_in_two_places_is_adapted_in_both():
    model = tiny()
    shared = model.layers[0].attn.q_proj
    model.layers[1].attn.q_proj = shared
    ml.add_adapter(model, ml.LoraConfig(r=2, target_modules=["q_proj"]), rng=RNG)
    layer = model.layers[0].attn.q_proj
    assert model.layers[1].attn.q_proj is layer and layer.base is shared
    ml.delete_adapter(model, "default")
    assert model.layers[0].attn.q_proj is model.layers[1].attn.q_proj is shared


def test_reading_a_model_changes_nothing_about_it():
    model = tiny()
    before = dict(vars(model))
    assert ml.active_adapter(model) is None and not lora_layers(model)
    ml.count_parameters(model)
    assert vars(model) == before
