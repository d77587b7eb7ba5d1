"""Claims about the weights that each Linear has in effect, and about ΔW of any method."""

import copy

import numpy as np
import pytest

import minilora as ml
from minilora import lora as L
from minilora.analysis.deltas import delta_weights, weight_matrices
from minilora.analysis.subspaces import subspace_similarities
from minilora.lora_config import LoraConfig
from minilora.methods.registry import METHODS
from minilora.nn import Linear, Module
from minilora.tensor import Tensor
from minilora.transformer import Transformer, TransformerConfig

SIZES = dict(vocab_size=11, block_size=8, n_layer=2, n_head=2, n_embd=8)
LLAMA = dict(
    n_kv_head=1,
    mlp_hidden=12,
    norm="rmsnorm",
    activation="swiglu",
    positions="rope",
    bias=False,
    tie_embeddings=False,
)


def make(**options) -> Transformer:
    return Transformer(TransformerConfig(**SIZES, **options), rng=np.random.default_rng(0))


def add(model: Module, name: str = "default", seed: int = 1, **options) -> None:
    """An adapter with B ≠ 0 and r ≠ alpha."""
    config = LoraConfig(r=2, lora_alpha=6, **options)
    L.add_adapter(model, config, name, rng=np.random.default_rng(seed))
    rng = np.random.default_rng(seed)
    for layer in L.lora_layers(model).values():
        B = layer.adapters[name].B
        B.data[...] = rng.standard_normal(B.shape) * 0.1


class Wrapper(Module):
    """Holds a layer as `.base` and has a Linear of its own, as adapters of other kinds do."""

    def __init__(self, base: Module) -> None:
        self.base = base
        self.down = Linear(8, 2, rng=np.random.default_rng(7))


def test_every_linear_of_the_blocks_is_found_and_neither_embeddings_nor_head():
    found = weight_matrices(make(**LLAMA))
    names = "attn.q_proj attn.k_proj attn.v_proj attn.o_proj mlp.gate_proj mlp.up_proj"
    paths = [f"layers.{i}.{name}" for i in (0, 1) for name in [*names.split(), "mlp.down_proj"]]
    assert list(found) == paths
    assert found["layers.1.attn.k_proj"].shape == (8, 4)
    assert found["layers.1.mlp.down_proj"].shape == (12, 8)


def test_weights_are_float64_copies_of_the_model_s_own():
    model = make()
    before = model.state_dict()
    for path, W in weight_matrices(model).items():
        assert W.dtype == np.float64
        np.testing.assert_array_equal(W, before[f"{path}.weight"])
        W += 1
    for name, value in model.state_dict().items():
        np.testing.assert_array_equal(value, before[name])


def test_an_active_adapter_counts_under_the_path_of_the_layer_it_wraps():
    model, plain = make(), make()
    add(model)
    W, found = weight_matrices(plain), weight_matrices(model)
    assert list(found) == list(W)
    for path, layer in L.lora_layers(model).items():
        np.testing.assert_array_equal(found[path], W[path] + layer.delta_weight("default"))
        assert not np.array_equal(found[path], W[path])
    untouched = "layers.0.mlp.up_proj"
    np.testing.assert_array_equal(found[untouched], W[untouched])


@pytest.mark.parametrize(
    "options",
    [{}, {"use_rslora": True}, {"use_dora": True}, {"init_lora_weights": "pissa"}],
    ids=["lora", "rslora", "dora", "pissa"],
)
def test_the_weight_in_effect_is_what_the_layer_multiplies_with(options):
    model = make()
    add(model, target_modules="all-linear", **options)
    model.to(np.float64)
    for path, W in weight_matrices(model).items():
        x = np.random.default_rng(3).standard_normal((5, len(W)))
        layer = L.lora_layers(model)[path]
        np.testing.assert_allclose(
            layer(Tensor(x)).data, x @ W + layer.base.bias.data, rtol=0, atol=1e-13
        )


def test_only_the_active_adapter_counts():
    model = make()
    W = weight_matrices(model)
    add(model, "one", seed=1)
    one = weight_matrices(model)
    add(model, "two", seed=2)
    two = weight_matrices(model)
    L.set_adapter(model, "one")
    q = "layers.0.attn.q_proj"
    assert not np.array_equal(one[q], two[q])
    np.testing.assert_array_equal(weight_matrices(model)[q], one[q])
    with L.disable_adapter(model):
        np.testing.assert_array_equal(weight_matrices(model)[q], W[q])


def test_merged_weights_are_the_unmerged_ones_rounded_to_float32():
    model = make()
    add(model)
    unmerged = weight_matrices(model)
    L.merge_adapter(model)
    for path, W in weight_matrices(model).items():
        np.testing.assert_array_equal(W, unmerged[path].astype(np.float32))
    L.unmerge_adapter(model)
    for path, W in weight_matrices(model).items():
        np.testing.assert_array_equal(W, unmerged[path])


def test_other_wrappers_leave_the_paths_as_they_were_and_add_none():
    model = make()
    before = weight_matrices(model)
    for path in ("layers.0.attn.q_proj", "layers.1.mlp.up_proj", "layers.1.attn"):
        model.set_submodule(path, Wrapper(model.get_submodule(path)))
    found = weight_matrices(model)
    assert list(found) == list(before)
    for path, W in found.items():
        np.testing.assert_array_equal(W, before[path])


def test_a_wrapped_adapter_still_counts():
    model, plain = make(), make()
    add(model)
    q = "layers.0.attn.q_proj"
    delta = L.get_delta_weight(model, q)
    model.set_submodule(q, Wrapper(model.get_submodule(q)))
    expected = weight_matrices(plain)[q] + delta
    np.testing.assert_array_equal(weight_matrices(model)[q], expected)


def test_delta_weights_of_an_adapter_are_its_own_delta_weight():
    model = make()
    add(model)
    for path, delta in delta_weights(make(), model).items():
        if path in L.lora_layers(model):
            own = L.get_delta_weight(model, path)
            assert np.linalg.norm(own) > 0.1
            np.testing.assert_allclose(delta, own, rtol=0, atol=1e-16)
            assert len(subspace_similarities(delta, delta)) == 2  # directions: its rank
        else:
            assert not delta.any()


def test_delta_weights_of_full_fine_tuning_are_the_difference_of_the_weights():
    before = make()
    after = copy.deepcopy(before)
    rng = np.random.default_rng(4)
    for p in after.parameters():
        p.data += rng.standard_normal(p.shape, dtype=np.float32) * np.float32(0.01)
    old, new = before.state_dict(), after.state_dict()
    deltas = delta_weights(before, after)
    assert len(deltas) == 12
    for path, delta in deltas.items():
        name = f"{path}.weight"
        np.testing.assert_array_equal(delta, new[name].astype(np.float64) - old[name])
        assert delta.any()
        np.testing.assert_array_equal(delta_weights(after, before)[path], -delta)


@pytest.mark.parametrize("name", METHODS)
def test_every_method_has_delta_weights_and_starts_with_none(name):
    before, after = make(), make()
    METHODS[name].prepare(after, LoraConfig(r=2, lora_alpha=6), np.random.default_rng(1))
    deltas = delta_weights(before, after)
    assert list(deltas) == list(weight_matrices(before))
    for delta in deltas.values():  # PiSSA and OLoRA take W apart and leave its float32 rounding
        np.testing.assert_allclose(delta, 0, rtol=0, atol=2e-7)


def test_models_with_other_matrices_are_not_compared():
    wider, llama = make(mlp_hidden=16), make(**LLAMA)
    with pytest.raises(ValueError, match=r"layers.0.mlp.up_proj is \(8, 32\) before and \(8, 16\)"):
        delta_weights(make(), wider)
    with pytest.raises(ValueError, match="mlp.gate_proj is missing before and .* after"):
        delta_weights(make(), llama)
    with pytest.raises(ValueError, match="mlp.gate_proj is .* before and missing after") as error:
        delta_weights(llama, make())
    assert "q_proj" not in str(error.value)


def test_a_notebook_reaches_every_measure_as_ml_analysis():
    assert ml.analysis.delta_weights is delta_weights
    assert [name for name in ml.analysis.__all__ if not hasattr(ml.analysis, name)] == []
