"""Claims about adapters_per_row: each row computes what it computes in a run of its own."""

import numpy as np
import pytest
from builders import tiny

import minilora as ml
from minilora.generation.decoder import is_plain
from minilora.quantization.nf4 import quantize_nf4

RNG = np.random.default_rng
KINDS = {
    "LoRA": {},
    "rsLoRA": dict(use_rslora=True),
    "DoRA": dict(use_dora=True),
    "PiSSA": dict(init_lora_weights="pissa"),
    "DoRA from PiSSA": dict(use_dora=True, init_lora_weights="pissa"),
}
NAMES = ["a", "b", None, "a", "one_layer"]
IDS = RNG(1).integers(11, size=(5, 10))


def served(family="llama", dtype=np.float32, **options):
    return add_three(tiny(family).to(dtype), dtype, **options)


def add_three(model, dtype=np.float32, **options):
    for i, name in enumerate(("a", "b", "one_layer")):
        targets = ["layers.0.attn.q_proj"] if name == "one_layer" else "all-linear"
        config = ml.LoraConfig(r=2 + i, lora_alpha=5, target_modules=targets, **options)
        ml.add_adapter(model, config, name, rng=RNG(i))
        for j, p in enumerate(model.trainable_parameters()):
            p.data += RNG([i, j]).standard_normal(p.shape).astype(dtype) * 0.2
    return model


def alone(model, name, compute):
    """What a function of the model gives under one adapter, or under none."""
    if name is None:
        with ml.disable_adapter(model):
            return compute(model)
    ml.set_adapter(model, name)
    return compute(model)


@pytest.mark.parametrize("family", ["gpt2", "llama"])
@pytest.mark.parametrize("kind", KINDS)
def test_each_row_is_what_it_is_in_a_run_of_its_own(kind, family):
    model = served(family, np.float64, **KINDS[kind])  # rounding is far below any mistake
    with ml.adapters_per_row(model, NAMES):
        together = model(IDS).data
    for i, name in enumerate(NAMES):
        own = alone(model, name, lambda m, i=i: m(IDS[i : i + 1]).data[0])
        assert np.abs(together[i] - own).max() < 1e-12, name
    assert np.abs(together[0] - alone(model, "b", lambda m: m(IDS[:1]).data[0])).max() > 0.01


def test_in_float32_a_row_differs_from_its_own_run_in_the_last_digits_only():
    model = served()
    with ml.adapters_per_row(model, NAMES):
        together = model(IDS).data
    own = alone(model, "a", lambda m: m(IDS[:1]).data[0])
    assert together.dtype == np.float32 and np.abs(together[0] - own).max() < 5e-6


@pytest.mark.parametrize("kind", KINDS)
def test_each_row_writes_what_it_writes_alone(kind):
    model = served(**KINDS[kind])
    with ml.adapters_per_row(model, NAMES):
        together = ml.generate(model, IDS, 30, temperature=0)  # past the end of block_size
    for i, name in enumerate(NAMES):
        own = alone(model, name, lambda m, i=i: ml.generate(m, IDS[i], 30, temperature=0)[0])
        assert together[i].tolist() == own.tolist(), name


def test_afterwards_the_model_is_as_it_was():
    model = served()
    ml.set_adapter(model, "b")
    before, modules = model(IDS).data, [(p, id(m)) for p, m in model.named_modules()]
    with ml.adapters_per_row(model, NAMES):
        assert not is_plain(model)  # the decoder adds ΔW to W, which here is another in each row
    with pytest.raises(ValueError, match="rows"), ml.adapters_per_row(model, NAMES):
        model(IDS[:2])
    assert [(p, id(m)) for p, m in model.named_modules()] == modules
    assert ml.active_adapter(model) == "b" and model(IDS).data.tobytes() == before.tobytes()


def test_a_base_in_4_bits_serves_rows_too():
    model = tiny(n_embd=64, mlp_hidden=64)
    quantize_nf4(model)
    model = add_three(model)
    with ml.adapters_per_row(model, NAMES):
        together = model(IDS).data
    own = alone(model, "a", lambda m: m(IDS[:1]).data[0])
    assert np.abs(together[0] - own).max() < 1e-5


WRONG = [
    (["a", "b"], ValueError, "was given 2 names, and this batch has 5 rows"),
    (["a", "z"] * 2, ValueError, "no adapter 'z'; it has: a, b, one_layer"),
    (["a", "whole"], ValueError, "'whole' trains biases or whole modules"),
    ("a", ValueError, r'names is a list such as \["a", None\].* has: a, b, one_layer'),
    ([], ValueError, "names is a list such as"),
]


@pytest.mark.parametrize(("names", "error", "sentence"), WRONG)
def test_rows_that_cannot_be_meant_are_refused(names, error, sentence):
    model = served()
    config = ml.LoraConfig(r=2, modules_to_save=["norm"])
    ml.add_adapter(model, config, "whole", rng=RNG(0))
    before = model(IDS).data
    with pytest.raises(error, match=sentence), ml.adapters_per_row(model, names):
        model(IDS)
    assert model(IDS).data.tobytes() == before.tobytes()


def test_rows_are_not_for_training_nor_within_each_other():
    model = served()
    with ml.adapters_per_row(model, NAMES):
        with pytest.raises(RuntimeError, match="train one adapter at a time"):
            model(IDS, RNG(0))
        with (
            pytest.raises(RuntimeError, match="has an adapter already"),
            ml.adapters_per_row(model, NAMES),
        ):
            pass
        with pytest.raises(RuntimeError):
            ml.cross_entropy(model(IDS), IDS).backward()
    ml.merge_adapter(model)
    with pytest.raises(ValueError, match="already merged"), ml.adapters_per_row(model, NAMES):
        pass
