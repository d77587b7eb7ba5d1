"""Claims about EVA, LoRA-GA and MiCA: where they start, that the start is the base model, what
trains from there, and that files say the same."""

from functools import partial

import numpy as np
import pytest
from safetensors.numpy import load_file

import minilora as ml
from minilora.lora import LoraLinear, lora_layers
from minilora.methods import starts
from minilora.methods.trainable import count_parameters
from minilora.nn import Linear
from minilora.system.errors import UsageError
from tests.builders import IDS, adapted, tiny

TARGETS = np.roll(IDS, -1, axis=1)
R = 3
STARTS = {
    "eva": partial(starts.eva, ids=IDS),
    "lora_ga": partial(starts.lora_ga, ids=IDS, targets=TARGETS),
    "mica": starts.mica,
}
ALL = pytest.mark.parametrize("start", STARTS)
FAMILIES = pytest.mark.parametrize("family", ["gpt2", "llama"])


def plain(family="gpt2", **lora):
    """A tiny model with plain LoRA on every Linear, untrained."""
    model = tiny(family)
    config = ml.LoraConfig(**{"r": R, "lora_alpha": 6, "target_modules": "all-linear"} | lora)
    ml.add_adapter(model, config, rng=np.random.default_rng(3))
    return model


def started(start, family="gpt2", **lora):
    model = plain(family, **lora)
    STARTS[start](model)
    return model


def logits(model):
    with ml.no_grad():
        return model(IDS).data


def learn(model, steps=3):
    """A few steps of SGD; returns the gradients of the first."""
    optimizer, first = ml.SGD(model.trainable_parameters(), lr=0.1), None
    for _ in range(steps):
        ml.cross_entropy(model(IDS), TARGETS).backward()
        if first is None:
            first = {name: p.grad for name, p in model.named_parameters() if p.requires_grad}
        optimizer.step()
        optimizer.zero_grad()
    return first


def factors(model):
    return {path: layer.adapters["default"] for path, layer in lora_layers(model).items()}


def read_by_each_linear(family, monkeypatch):
    """What every Linear of the plain model reads of IDS, by path: (N, d_in)."""
    model, seen = tiny(family), {}
    paths = {id(module): path for path, module in model.named_modules()}
    call = Linear.__call__

    def noting(self, x, rng=None):
        seen[paths[id(self)]] = x.data.reshape(-1, x.shape[-1])
        return call(self, x, rng)

    monkeypatch.setattr(Linear, "__call__", noting)
    logits(model)
    monkeypatch.undo()
    return seen


def gradients_of_W(family):
    model = tiny(family)
    ml.cross_entropy(model(IDS), TARGETS).backward()
    return {name.removesuffix(".weight"): p.grad for name, p in model.named_parameters()}


@FAMILIES
@pytest.mark.parametrize("start", ["eva", "mica"])
def test_eva_and_mica_start_as_the_base_bit_for_bit(family, start):
    np.testing.assert_array_equal(logits(started(start, family)), logits(tiny(family)))


@FAMILIES
def test_lora_ga_starts_as_the_base_but_for_rounding(family):
    model = started("lora_ga", family)
    np.testing.assert_allclose(logits(model), logits(tiny(family)), atol=1e-5)
    assert all(np.abs(one.A.data @ one.B.data).max() > 0.01 for one in factors(model).values())


@FAMILIES
def test_no_directions_hold_more_of_what_a_layer_reads_than_evas(family, monkeypatch):
    seen = read_by_each_linear(family, monkeypatch)
    for path, one in factors(started("eva", family)).items():
        A, X = one.A.data, seen[path]
        np.testing.assert_allclose(A.T @ A, np.eye(R), atol=1e-5)
        most = np.sum(np.linalg.svd(X, compute_uv=False)[:R] ** 2)
        assert np.sum((X @ A) ** 2) == pytest.approx(most, rel=1e-4), path
        assert not one.B.data.any()


@FAMILIES
def test_lora_gas_first_step_is_the_best_of_rank_2r_that_full_fine_tunings_could_be_cut_to(family):
    model, gradients = started("lora_ga", family), gradients_of_W(family)
    starts_at = {
        path: (one.A.data.copy(), one.B.data.copy()) for path, one in factors(model).items()
    }
    first = learn(model, steps=1)
    for path, (A, B) in starts_at.items():
        wrapped = next(name for name in first if ml.lora.plain_path(name).startswith(path))
        dA, dB = (first[wrapped[: wrapped.rindex(".") + 1] + part] for part in "AB")
        change, G = dA @ B + A @ dB, gradients[path]
        best = ml.analysis.truncate(G, 2 * R)
        c = G.shape[1] ** 0.25 / 4
        s = 6 / R
        np.testing.assert_allclose(change, s * c * c * best, atol=2e-4 * np.abs(change).max())


@FAMILIES
def test_micas_B_is_where_W_does_least_and_only_A_trains(family):
    model = started("mica", family)
    B = {path: one.B.data.copy() for path, one in factors(model).items()}
    for path, layer in lora_layers(model).items():
        np.testing.assert_allclose(B[path] @ B[path].T, np.eye(R), atol=1e-5)
        W = layer.base.weight.data
        sigma = np.linalg.svd(W, compute_uv=False)
        assert np.sum((W @ B[path].T) ** 2) == pytest.approx(np.sum(sigma[-R:] ** 2), rel=1e-3)
    assert count_parameters(model)[0] == sum(one.A.size for one in factors(model).values())
    ml.set_adapter(model, "default")  # lets everything of an adapter train that can
    gradients = learn(model)
    assert {name[-2:] for name in gradients} == {".A"}
    assert all(g.any() for g in gradients.values())
    for path, one in factors(model).items():
        np.testing.assert_array_equal(one.B.data, B[path])
        assert one.A.data.any()


@ALL
def test_a_start_leaves_the_base_and_lets_training_change_the_model(start):
    model = started(start)
    gradients = learn(model)
    moving = {"eva": {".B"}, "lora_ga": {".A", ".B"}, "mica": {".A"}}[start]
    assert {name[-2:] for name, g in gradients.items() if g.any()} == moving
    assert np.abs(logits(model) - logits(tiny())).max() > 0.01
    with ml.disable_adapter(model):
        np.testing.assert_array_equal(logits(model), logits(tiny()))
    for path, layer in lora_layers(model).items():
        np.testing.assert_array_equal(
            layer.base.weight.data, tiny().get_submodule(path).weight.data
        )
        assert layer.base.weight.grad is None and not layer.base.weight.requires_grad


@ALL
@FAMILIES
def test_what_is_saved_after_training_is_loaded_as_the_same_model(start, family, tmp_path):
    model = started(start, family)
    learn(model)
    ml.save_adapter(model, tmp_path)
    again = tiny(family)
    ml.load_adapter(again, tmp_path)
    np.testing.assert_allclose(logits(again), logits(model), atol=1e-5)
    ranks = {len(a) for key, a in load_file(tmp_path / "adapter_model.safetensors").items()
             if "o_proj.lora_A" in key or "c_fc.lora_A" in key}  # fmt: skip
    assert ranks == {2 * R if start == "lora_ga" else R}


@ALL
def test_merged_is_beside_and_unmerging_is_exact(start):
    model = started(start)
    learn(model)
    beside = logits(model)
    ml.merge_adapter(model)
    np.testing.assert_allclose(logits(model), beside, atol=1e-5)
    ml.unmerge_adapter(model)
    np.testing.assert_array_equal(logits(model), beside)


@ALL
@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (tiny, "there is no active adapter to start elsewhere"),
        (partial(plain, use_dora=True), "only plain LoRA .* of another kind"),
        (partial(plain, init_lora_weights="pissa"), "only plain LoRA"),
        (adapted, "has B other than zero: add a new one"),
    ],
    ids=["none", "dora", "pissa", "trained"],
)
def test_only_plain_lora_before_its_first_step_is_started_elsewhere(start, make, sentence):
    model = make()
    before = {name: p.data.copy() for name, p in model.named_parameters()}
    with pytest.raises(UsageError, match=sentence):
        STARTS[start](model)
    for name, p in model.named_parameters():
        np.testing.assert_array_equal(p.data, before[name])


@pytest.mark.parametrize(
    ("start", "r", "sentence"),
    [
        (
            partial(starts.eva, ids=IDS[:1, :2]),
            3,
            "in the inputs of layers.0.attn.q_proj there are 2 dir",
        ),
        (
            partial(starts.lora_ga, ids=IDS, targets=TARGETS),
            9,
            "there are 16 directions, and 18 are",
        ),
    ],
    ids=["eva", "lora_ga"],
)
def test_a_start_that_would_need_more_directions_than_there_are_changes_nothing(start, r, sentence):
    model = plain(r=r)
    A = {path: one.A.data.copy() for path, one in factors(model).items()}
    with pytest.raises(UsageError, match=sentence):
        start(model)
    for path, layer in lora_layers(model).items():
        assert type(layer) is LoraLinear and type(layer.adapters["default"]) is ml.lora.LowRank
        np.testing.assert_array_equal(layer.adapters["default"].A.data, A[path])
        assert not layer.base.weight.requires_grad
