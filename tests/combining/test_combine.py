"""Claims about combined adapters: one alone is itself, several are the sum of what they change.

`moved` makes all that trains random, so that nothing holds only because B, or a bias, is zero.
"""

import numpy as np
import pytest
from builders import IDS, tiny

import minilora as ml
from minilora.analysis import eckart_young_tail, truncate
from minilora.combining.combine import HOWS, merged_changes
from minilora.combining.low_rank import best_factors, svd_of_product
from minilora.hub import load_adapter, save_adapter
from minilora.lora import adapters, lora_layers
from minilora.methods.registry import METHODS
from minilora.quantization.nf4 import quantize_nf4
from minilora.quantization.quantized import dequantize

KINDS = {
    "LoRA": {},
    "rsLoRA": dict(use_rslora=True),
    "DoRA": dict(use_dora=True),
    "PiSSA": dict(init_lora_weights="pissa"),
    "OLoRA": dict(init_lora_weights="olora"),
    "DoRA from PiSSA": dict(use_dora=True, init_lora_weights="pissa"),
    "patterns": dict(rank_pattern={"v_proj": 2}, alpha_pattern={"0.attn.q_proj": 7.7}),
    "bias": dict(bias="all"),
    "biases of the adapted": dict(bias="lora_only", use_rslora=True),
    "modules_to_save": dict(modules_to_save=["norm", "mlp_norm"]),
}
PLAIN = [kind for kind in KINDS if "DoRA" not in kind]
Q = "layers.0.attn.q_proj"
RNG = np.random.default_rng


def moved(model, name, seed, **options):
    config = ml.LoraConfig(**dict(r=3, lora_alpha=5) | options)
    ml.add_adapter(model, config, name, rng=RNG(seed))
    for i, p in enumerate(model.trainable_parameters()):
        p.data[...] += RNG([seed, i]).standard_normal(p.shape) * 0.1
    return model


def two(first=(), second=()):
    model = moved(tiny("llama"), "a", 1, **dict(first))
    return moved(model, "b", 2, **dict(r=2, lora_alpha=7) | dict(second))


def logits(model, name=None):
    if name is not None:
        ml.set_adapter(model, name)
    with ml.no_grad():
        return model(IDS).data


def delta(model, name, path=Q):
    return ml.get_delta_weight(model, path, name).astype(np.float64)


@pytest.mark.parametrize("kind", KINDS)
def test_one_adapter_with_weight_1_is_that_adapter_bit_for_bit(kind):
    model = moved(tiny(), "a", 1, **KINDS[kind])
    before = logits(model)
    errors = ml.combine_adapters(model, {"a": 1.0}, "again")
    assert ml.active_adapter(model) == "again" and set(errors.values()) == {0.0}
    assert logits(model).tobytes() == before.tobytes()
    for layer in lora_layers(model).values():
        assert layer.delta_weight("again").tobytes() == layer.delta_weight("a").tobytes()


@pytest.mark.parametrize("kind", KINDS)
def test_one_adapter_combined_is_written_as_the_same_files(kind, tmp_path):
    model = moved(tiny(), "a", 1, **KINDS[kind])
    ml.combine_adapters(model, {"a": 1.0}, "again")
    for name in ("a", "again"):
        save_adapter(model, tmp_path / name, name)
    for file in ("adapter_config.json", "adapter_model.safetensors"):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "again" / file).read_bytes()


def test_the_copy_trains_apart_from_the_original():
    model = moved(tiny(), "a", 1, bias="all", init_lora_weights="pissa")
    before = logits(model)
    ml.combine_adapters(model, {"a": 1.0}, "again")
    for p in model.trainable_parameters():
        p.data += 1
    assert logits(model, "a").tobytes() == before.tobytes()


@pytest.mark.parametrize("kind", PLAIN)
def test_cat_is_the_weighted_sum_whatever_the_ranks_and_scales(kind):
    model = moved(moved(tiny(), "a", 1, **KINDS[kind]), "b", 2, r=2, lora_alpha=7)
    ml.combine_adapters(model, {"a": 0.7, "b": -1.0}, "ab")
    for path in lora_layers(model):
        wanted = 0.7 * delta(model, "a", path) - delta(model, "b", path)
        assert np.allclose(delta(model, "ab", path), wanted, atol=1e-6)


@pytest.mark.parametrize("method", ["lora-fa", "vera", "lora-xs"])
def test_kinds_with_frozen_factors_are_combined_too(method):
    model = tiny("llama")
    METHODS[method].prepare(model, ml.LoraConfig(r=2, lora_alpha=3), RNG(0))
    for p in model.trainable_parameters():
        p.data[...] += RNG(1).standard_normal(p.shape) * 0.1
    moved(model, "b", 2)
    before = logits(model, "default")
    ml.combine_adapters(model, {"default": 1.0}, "again")
    assert logits(model).tobytes() == before.tobytes()
    ml.combine_adapters(model, {"default": -0.5, "b": 2.0}, "sum")
    wanted = 2 * delta(model, "b") - 0.5 * delta(model, "default")
    assert np.allclose(delta(model, "sum"), wanted, atol=1e-6)


def test_an_adapter_minus_itself_is_the_base():
    model = moved(tiny(), "a", 1, modules_to_save=["norm"], bias="all")
    with ml.disable_adapter(model):
        base = logits(model)
    ml.combine_adapters(model, {"a": 1.0}, "same")
    ml.combine_adapters(model, {"a": 1.0, "same": -1.0}, "nothing")
    assert np.abs(logits(model) - base).max() < 1e-5 < np.abs(logits(model, "a") - base).max()


def test_layers_that_only_one_adapter_has_are_its_own_with_its_weight():
    model = two(dict(target_modules=["q_proj"]), dict(target_modules=["v_proj"]))
    ml.combine_adapters(model, {"a": 0.5, "b": 2.0}, "ab")
    assert np.allclose(delta(model, "ab"), 0.5 * delta(model, "a"))
    v = "layers.1.attn.v_proj"
    assert np.allclose(delta(model, "ab", v), 2 * delta(model, "b", v))


def test_biases_and_whole_modules_move_by_the_weighted_sum_of_their_changes():
    model = moved(tiny(), "a", 1, modules_to_save=["norm"], bias="all")
    moved(model, "b", 2, modules_to_save=["norm"])
    ml.combine_adapters(model, {"a": 0.5, "b": -2.0}, "ab")

    def change(name, attribute):
        found = [c for c in adapters(model)[name].copies if c.owner is model.norm]
        return {c.attribute: c.copy.data - c.original.data for c in found}[attribute]

    for attribute in ("weight", "bias"):
        wanted = 0.5 * change("a", attribute) - 2 * change("b", attribute)
        assert np.allclose(change("ab", attribute), wanted, atol=1e-6)


@pytest.mark.parametrize("kind", PLAIN)
def test_a_combined_adapter_is_saved_and_loaded(kind, tmp_path):
    model = moved(moved(tiny(), "a", 1, **KINDS[kind]), "b", 2, r=2, bias="lora_only")
    ml.combine_adapters(model, {"a": 0.7, "b": -1.0}, "ab")
    save_adapter(model, tmp_path)
    fresh = tiny()
    load_adapter(fresh, tmp_path)
    assert np.allclose(logits(fresh), logits(model), atol=1e-5)


def test_svd_is_the_best_of_its_rank_and_says_what_it_leaves_out():
    model = two()
    errors = ml.combine_adapters(model, {"a": 1.0, "b": 1.0}, "ab", "svd", r=2)
    both = delta(model, "a") + delta(model, "b")
    assert len(lora_layers(model)[Q].adapters["ab"].B.data) == 2
    assert np.allclose(delta(model, "ab"), truncate(both, 2), atol=1e-6)
    wanted = (eckart_young_tail(both, 2) / np.sum(both**2)) ** 0.5
    assert errors[Q] == pytest.approx(wanted, rel=1e-5) and wanted > 0.1


def test_svd_of_dora_gives_its_whole_change_at_full_rank_and_less_below():
    model = moved(tiny(), "a", 1, use_dora=True)
    low = ml.combine_adapters(model, {"a": 1.0}, "low", "svd", r=3)
    full = ml.combine_adapters(model, {"a": 1.0}, "full", "svd", r=16)
    assert max(full.values()) < 1e-6 < 0.1 < min(low.values())
    assert np.allclose(delta(model, "full"), delta(model, "a"), atol=1e-6)


def test_the_svd_of_thin_factors_is_the_svd_of_their_product():
    A, B = RNG(0).standard_normal((30, 4)), RNG(1).standard_normal((4, 20))
    U, S, Vt = svd_of_product(A, B)
    assert np.allclose(S, ml.analysis.singular_values(A @ B)[:4])
    assert np.allclose((U * S) @ Vt, A @ B)
    assert best_factors(U, 0 * S, Vt, 2)[2] == 0.0


def test_ties_trims_elects_a_sign_and_takes_the_mean_of_those_that_agree():
    a = np.array([[3.0, -2.0, 0.1, 4.0]])
    b = np.array([[-1.0, -4.0, 5.0, 0.2]])
    merged = merged_changes([a, b], [1.0, 1.0], "ties_svd", density=0.75)
    assert merged.tolist() == [[3.0, -3.0, 5.0, 4.0]]


@pytest.mark.parametrize(("density", "kept"), [(0.01, 0), (0.25, 1), (0.5, 2), (1.0, 4)])
def test_ties_keeps_the_largest_share(density, kept):
    a = np.array([2.0, -4.0, 1.0, 3.0])
    merged = merged_changes([a], [1.0], "ties_svd", density)
    assert merged.tolist() == np.where(np.abs(a) > 4 - kept, a, 0).tolist()


def test_ties_elects_the_sign_of_what_the_weights_make_of_the_changes():
    merged = merged_changes([np.array([[3.0]]), np.array([[-2.0]])], [1.0, -1.0], "ties_svd", 1.0)
    assert merged.tolist() == [[2.5]]  # both push up: 3, and minus -2


def test_dare_drops_a_share_and_keeps_the_mean():
    a = np.ones((200, 200))
    kept = merged_changes([a], [1.0], "dare_linear_svd", 0.25, RNG(0))
    assert set(np.unique(kept)) == {0.0, 4.0} and kept.mean() == pytest.approx(1, abs=0.03)


@pytest.mark.parametrize("how", HOWS[1:])
def test_with_nothing_dropped_one_adapter_is_itself_up_to_rounding(how):
    model = moved(tiny(), "a", 1, use_rslora=True)
    options = dict(density=1.0) if how != "svd" else {}
    options |= dict(rng=RNG(0)) if "dare" in how else {}
    ml.combine_adapters(model, {"a": 1.0}, "again", how, r=3, **options)
    assert np.allclose(delta(model, "again"), delta(model, "a"), atol=1e-6)


def test_the_same_seed_drops_the_same_numbers():
    model, options = two(), dict(how="dare_ties_svd", r=4, density=0.5)
    for name in ("one", "two"):
        ml.combine_adapters(model, {"a": 1, "b": 1}, name, rng=RNG(7), **options)
    assert logits(model, "one").tobytes() == logits(model, "two").tobytes()


def test_beside_a_base_in_4_bits_adapters_are_combined_as_beside_its_numbers():
    deltas = []
    for prepare in (quantize_nf4, lambda m: (quantize_nf4(m), dequantize(m))):
        model = tiny("llama", n_embd=64, mlp_hidden=64)
        prepare(model)
        for seed, name in enumerate("ab"):
            moved(model, name, seed, use_dora=True)
        ml.combine_adapters(model, {"a": 1.0, "b": -0.5}, "ab", "svd", r=4)
        deltas.append(ml.get_delta_weight(model, Q, "ab"))
    assert np.allclose(*deltas, atol=1e-6) and np.abs(deltas[0]).max() > 0.01


def snapshot(model):
    numbers = [(n, id(p), p.requires_grad, p.data.tobytes()) for n, p in model.named_parameters()]
    return numbers, ml.active_adapter(model), list(adapters(model))


A_B = {"a": 1.0, "b": 1.0}
WRONG = [
    (A_B, "x", dict(how="linear"), "combines A and B apart, .* take one of cat, svd"),
    (A_B, "x", dict(how="mean"), "how must be one of cat, svd, ties_svd, .* got 'mean'"),
    (A_B, "x", dict(how="svd"), "how='svd' needs r="),
    (A_B, "x", dict(r=2), "how='cat' takes no r: leave it out"),
    (A_B, "x", dict(how="svd", r=0), "r must be a whole number of at least 1, got 0"),
    (A_B, "x", dict(how="svd", r=2, density=0.5), "takes no density"),
    (A_B, "x", dict(how="ties_svd", r=2, density=0), r"density must lie in \(0, 1\], got 0"),
    (A_B, "x", dict(how="dare_linear_svd", r=2, density=0.5), "needs rng="),
    (A_B, "x", dict(how="dare_ties_svd", r=2, density=0.5, rng=0), "rng must be np.random"),
    (A_B, "a", {}, "has an adapter 'a' already"),
    (A_B, "x.y", {}, "a word without a dot"),
    ({}, "x", {}, "weights is a dict such as .* this model has: a, b"),
    (["a", "b"], "x", {}, "weights is a dict such as"),
    ({"c": 1.0}, "x", {}, "no adapter 'c'; it has: a, b"),
    ({"a": float("nan")}, "x", {}, "weight of 'a' must be a finite number, got nan"),
    ({"a": "1"}, "x", {}, "weight of 'a' must be a finite number, got '1'"),
]


@pytest.mark.parametrize(("weights", "name", "options", "sentence"), WRONG)
def test_what_cannot_be_combined_is_refused_and_changes_nothing(weights, name, options, sentence):
    model = two()
    before = snapshot(model)
    with pytest.raises(ValueError, match=sentence):
        ml.combine_adapters(model, weights, name, **options)
    assert snapshot(model) == before


MODELS = {
    "DoRA in cat": (dict(use_dora=True), {}, "DoRA is not of low rank"),
    "too many ranks": (dict(r=8), dict(r=8), "ranks add up to 16, more .* r=8 loses nothing"),
    "adapted and whole": (
        dict(target_modules=["q_proj"], modules_to_save=["v_proj"]),
        dict(target_modules=["v_proj"]),
        "v_proj is adapted by one adapter and trained whole by another",
    ),
}


@pytest.mark.parametrize("case", MODELS)
def test_adapters_that_do_not_go_together_are_named(case):
    first, second, sentence = MODELS[case]
    model = two(first, second)
    before = snapshot(model)
    with pytest.raises(ValueError, match=sentence):
        ml.combine_adapters(model, A_B, "x")
    assert snapshot(model) == before


def test_nothing_is_combined_while_an_adapter_is_merged():
    model = two()
    ml.merge_adapter(model)
    with pytest.raises(ValueError, match="'b' is already merged"):
        ml.combine_adapters(model, A_B, "x")
