"""Claims about a base in few bits: the same numbers as when it is dequantized, in less memory; it
trains nothing itself, and nothing pretends that it did."""

import numpy as np
import pytest
from builders import tiny

import minilora as ml
from minilora.lora_config import LoraConfig
from minilora.methods.registry import METHODS
from minilora.quantization.nf4 import BLOCK, Nf4, nf4_levels, quantize_nf4
from minilora.quantization.quantized import dequantize, is_quantized
from minilora.system.errors import StateError, UsageError

SIZES = dict(n_embd=64, n_head=4, mlp_hidden=128, vocab_size=11, block_size=12)
IDS = np.random.default_rng(1).integers(0, 11, (2, 12))
FAMILIES = ["gpt2", "llama"]


def in_nf4(family="gpt2", **options):
    model = tiny(family, **SIZES | options)
    quantize_nf4(model)
    return model


def restored(family="gpt2"):
    """The same numbers in float32."""
    model = in_nf4(family)
    dequantize(model)
    return model


def logits(model):
    with ml.no_grad():
        return model(IDS).data


def adapt(model, **options):
    config = LoraConfig(**dict(r=2, target_modules="all-linear") | options)
    ml.add_adapter(model, config, rng=np.random.default_rng(0))
    return model


def test_each_number_becomes_the_nearest_level_times_the_scale_of_its_block():
    W = np.random.default_rng(0).standard_normal((5, 192), dtype=np.float32)
    got = Nf4(W).numbers()
    for row in range(5):
        for block in range(3):
            part = slice(BLOCK * block, BLOCK * (block + 1))
            scale = np.abs(got[row, part]).max()  # its largest number has the level 1 or -1
            assert abs(scale / np.abs(W[row, part]).max() - 1) < 0.02  # a scale of 8 bits
            nearest = np.abs(W[row, part, None] / scale - nf4_levels()).argmin(1)
            np.testing.assert_allclose(got[row, part], nf4_levels()[nearest] * scale, rtol=1e-6)


def test_it_takes_four_bits_and_an_eighth_and_rows_can_be_had_alone():
    W = np.random.default_rng(0).standard_normal((256, 512), dtype=np.float32)
    blocks = Nf4(W)
    assert 8 * blocks.nbytes / W.size == pytest.approx(ml.analysis.NF4_BITS)
    rows = np.array([7, 0, 7])
    assert np.array_equal(blocks.numbers(rows), blocks.numbers()[rows])
    assert np.array_equal(blocks.numbers(slice(3, 9)), blocks.numbers()[3:9])


def test_zeros_stay_zeros_and_quantizing_twice_changes_little():
    assert not Nf4(np.zeros((2, 128), np.float32)).numbers().any()
    W = np.random.default_rng(0).standard_normal((16, 128), dtype=np.float32)
    once = Nf4(W).numbers()
    assert np.abs(Nf4(once).numbers() - once).max() < 0.05 * np.abs(once - W).max()


@pytest.mark.parametrize("family", FAMILIES)
def test_logits_and_gradients_are_those_of_the_dequantized_model(family):
    models = [in_nf4(family), restored(family)]
    assert np.array_equal(*map(logits, models))
    for model in models:
        adapt(model)
    gradients = []
    for model in models:
        for p in model.trainable_parameters():
            p.data += 0.01
        loss = ml.cross_entropy(model(IDS), IDS)
        gradients.append(ml.grad(loss, model.trainable_parameters()))
    for a, b in zip(*gradients, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_linears_of_the_blocks_are_quantized_and_all_is_frozen_and_counted(family):
    model = in_nf4(family)
    fixed = {name for name, p in model.named_parameters() if p.fixed}
    assert fixed == {
        f"{path}.weight"
        for path, m in model.named_modules()
        if isinstance(m, ml.Linear) and path.startswith("layers.")
    }
    assert ml.count_parameters(model) == (0, ml.count_parameters(tiny(family, **SIZES))[1])
    assert "q_proj: Linear(64 -> 64, NF4)" in str(model)


@pytest.mark.parametrize("options", [{}, dict(use_dora=True), dict(use_rslora=True)])
def test_lora_trains_beside_it_and_is_saved_and_loaded(options, tmp_path):
    model = adapt(in_nf4("llama"), **options)
    before = logits(model)
    ml.train(model, lambda rng: (IDS, IDS), ml.TrainConfig(steps=3, lr=1e-2), quiet=True)
    assert not np.array_equal(logits(model), before)
    ml.save_adapter(model, tmp_path)
    again = in_nf4("llama")
    ml.load_adapter(again, tmp_path)
    assert np.array_equal(logits(again), logits(model))
    with ml.disable_adapter(model):
        assert np.array_equal(logits(model), logits(in_nf4("llama")))


def test_the_adapter_of_a_base_in_four_bits_names_that_base(tmp_path):
    model = ml.load_model("docs-tiny")
    quantize_nf4(model)
    ml.save_adapter(adapt(model), tmp_path)
    assert ml.hub.adapter_base(tmp_path) == "docs-tiny"


def test_it_writes_token_by_token_what_it_would_write_dequantized():
    texts = [ml.generate(m, IDS[:1, :3], 6, temperature=0) for m in (in_nf4(), restored())]
    assert np.array_equal(*texts)


def test_no_layer_keeps_its_numbers_for_the_backward_pass():
    model = adapt(in_nf4())
    made = []
    for _, p in model.named_parameters():
        if p.fixed:
            numbers = p.blocks.numbers
            p.blocks.numbers = lambda rows=slice(None), f=numbers: made.append(0) or f(rows)
    loss = ml.cross_entropy(model(IDS), IDS)
    forward = len(made)
    assert forward == 12  # 6 Linears in each of 2 blocks
    loss.backward()
    # not for x of the first layer's q, k and v, behind which nothing trains
    assert len(made) == 2 * forward - 3


@pytest.mark.parametrize("method", METHODS)
def test_every_method_trains_something_beside_it_or_says_that_it_cannot(method):
    model, before = in_nf4(), logits(in_nf4())
    lora = LoraConfig(r=2, target_modules="all-linear")
    if method in ("full", "head", "last-block"):
        with pytest.raises(UsageError, match="kept in few bits and cannot train"):
            METHODS[method].prepare(model, lora, np.random.default_rng(0))
        return
    METHODS[method].prepare(model, lora, np.random.default_rng(0))
    assert model.trainable_parameters() and not any(p.fixed for p in model.trainable_parameters())
    ml.train(model, lambda rng: (IDS, IDS), ml.TrainConfig(steps=1, lr=1e-2), quiet=True)
    assert np.isfinite(logits(model)).all() and not np.array_equal(logits(model), before)


WRONG = {
    "merging": (lambda m: ml.merge_adapter(adapt(m)), "kept in NF4 and cannot change"),
    "merging for good": (lambda m: ml.merge_and_unload(adapt(m)), "kept in NF4 and cannot change"),
    "new data": (lambda m: setattr(weight(m), "data", np.zeros((64, 64))), "cannot change"),
    "a state dict": (lambda m: m.load_state_dict(m.state_dict()), "call dequantize"),
    "saving": (lambda m: ml.save_model(m, "nowhere"), r"call dequantize\(model\) first"),
    "float64": (lambda m: m.to(np.float64), "kept in few bits: call dequantize"),
    "quantizing what is adapted": (lambda m: quantize_nf4(adapt(m)), "before anything is added"),
    "dequantizing what is adapted": (lambda m: dequantize(adapt(m)), "save the adapter"),
    "dequantizing nothing": (lambda m: dequantize(tiny()), "no weight of this model"),
}


def weight(model):
    return model.layers[0].attn.q_proj.weight


@pytest.mark.parametrize("name", WRONG)
def test_what_would_change_its_weights_is_refused(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    act, sentence = WRONG[name]
    model = in_nf4()
    with pytest.raises((UsageError, StateError), match=sentence):
        act(model)
    with ml.disable_adapter(model):
        assert np.array_equal(logits(model), logits(in_nf4()))


def test_its_numbers_cannot_be_written_to_and_training_all_trains_the_rest():
    model = in_nf4()
    with pytest.raises(ValueError, match="read-only"):
        weight(model).data[...] = 0
    model.requires_grad_(True)
    assert not weight(model).requires_grad
    assert model.norm.weight.requires_grad


def test_a_width_that_is_no_multiple_of_64_stays_as_it_is():
    model = tiny(n_embd=32, n_head=4, mlp_hidden=64)
    quantize_nf4(model)
    assert [n for n, p in model.named_parameters() if p.fixed] == [
        f"layers.{i}.mlp.down_proj.weight" for i in range(2)
    ]
    assert is_quantized(model) and not is_quantized(tiny())
