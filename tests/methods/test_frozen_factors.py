"""Claims about LoRA-FA, VeRA, LoRA-XS and IA³: what is frozen, what ΔW is, and how it is saved."""

import copy

import numpy as np
import pytest
from builders import IDS, tiny

import minilora as ml
from minilora.lora import lora_layers
from minilora.methods.frozen_factors import D_START
from minilora.methods.registry import METHODS
from minilora.training.loop import TrainConfig, train

KINDS = pytest.mark.parametrize("method", ["lora-fa", "vera", "lora-xs"])
LORA = ml.LoraConfig(r=3, lora_alpha=6, target_modules="all-linear")


def prepared(method, lora=LORA, seed=1):
    base = tiny()
    model = copy.deepcopy(base)
    METHODS[method].prepare(model, lora, np.random.default_rng(seed))
    return base, model


def stirred(model, seed=2):
    rng = np.random.default_rng(seed)
    for p in model.trainable_parameters():
        p.data += (0.3 * rng.standard_normal(p.shape)).astype(p.dtype)
    return model


def adapters_of(model):
    return {path: layer.adapters["default"] for path, layer in lora_layers(model).items()}


def test_lora_fa_is_lora_with_the_same_a_held():
    _, fa = prepared("lora-fa")
    _, lora = prepared("lora")
    starts = adapters_of(lora)
    before = {path: one.A.data.copy() for path, one in adapters_of(fa).items()}
    train(fa, lambda rng: (IDS[:, :-1], IDS[:, 1:]), TrainConfig(3, 1e-2), quiet=True)
    for path, one in adapters_of(fa).items():
        np.testing.assert_array_equal(before[path], starts[path].A.data)
        np.testing.assert_array_equal(one.A.data, before[path])
        assert one.B.data.any()


def test_veras_factors_are_corners_of_one_a_and_one_b():
    _, model = prepared("vera")
    adapters = adapters_of(model).values()
    A = max((one.A.data for one in adapters), key=len)
    B = max((one.B.data for one in adapters), key=lambda B: B.shape[1])
    assert (
        len({one.A.data.shape for one in adapters})
        == 2
        == len({len(one.b.data) for one in adapters})
    )
    for one in adapters:
        np.testing.assert_array_equal(one.A.data, A[: len(one.A.data)])
        np.testing.assert_array_equal(one.B.data, B[:, : one.B.data.shape[1]])
        assert (one.d.data == np.float32(D_START)).all() and not one.b.data.any() and one.s == 1
    assert np.abs(A).max() <= (6 / len(A)) ** 0.5 and np.abs(B).max() <= (6 / len(B)) ** 0.5


def test_lora_xs_lies_between_ws_largest_singular_directions():
    base, model = prepared("lora-xs")
    for path, one in adapters_of(stirred(model)).items():
        W = base.get_submodule(path).weight.data
        U, S, Vt = np.linalg.svd(W.astype(np.float64), full_matrices=False)
        best = (U[:, :3] * S[:3]) @ Vt[:3]
        np.testing.assert_allclose(one.A.data @ one.B.data, best, rtol=0, atol=1e-5)
        D = one.delta(W)
        inside = U[:, :3] @ (U[:, :3].T @ D @ Vt[:3].T) @ Vt[:3]
        np.testing.assert_allclose(D, inside, rtol=0, atol=1e-5)
        assert one.s == 2 and np.abs(D).max() > 0.01


@KINDS
def test_delta_is_what_the_adapter_adds_and_merges(method):
    base, model = prepared(method)
    beside = stirred(model)(IDS).data
    assert np.abs(beside - base(IDS).data).max() > 0.01
    ml.merge_adapter(model)
    np.testing.assert_allclose(model(IDS).data, beside, rtol=0, atol=1e-4)
    for path, delta in ml.analysis.delta_weights(base, model).items():
        np.testing.assert_allclose(delta, ml.get_delta_weight(model, path), rtol=0, atol=1e-6)
    ml.unmerge_adapter(model)
    with ml.disable_adapter(model):
        np.testing.assert_array_equal(model(IDS).data, base(IDS).data)


@KINDS
def test_it_is_saved_as_a_plain_adapter_with_the_same_change(method, tmp_path):
    base, model = prepared(method)
    after = stirred(model)(IDS).data
    ml.save_adapter(model, tmp_path)
    ml.load_adapter(base, tmp_path)
    np.testing.assert_allclose(base(IDS).data, after, rtol=0, atol=1e-5)


@KINDS
def test_what_stays_frozen_stays_so_when_the_adapter_is_chosen_again(method):
    _, model = prepared(method)
    trained = {name for name, p in model.named_parameters() if p.requires_grad}
    ml.add_adapter(model, ml.LoraConfig(r=1), "other", rng=np.random.default_rng(0))
    ml.set_adapter(model, "default")
    assert {name for name, p in model.named_parameters() if p.requires_grad} == trained


@KINDS
def test_exceptions_to_the_rank_are_followed(method):
    lora = ml.LoraConfig(r=1, target_modules="all-linear", rank_pattern={"up_proj": 4})
    _, model = prepared(method, lora)
    ranks = {path.rpartition(".")[2]: len(one.B.data) for path, one in adapters_of(model).items()}
    assert ranks.pop("up_proj") == 4 and set(ranks.values()) == {1}


@KINDS
def test_dropout_drops_inputs_of_the_adapter_in_training_alone(method):
    dropping = ml.LoraConfig(r=3, lora_alpha=6, target_modules="all-linear", lora_dropout=0.5)
    same, model = stirred(prepared(method)[1]), stirred(prepared(method, dropping)[1])
    np.testing.assert_array_equal(model(IDS).data, same(IDS).data)
    assert np.abs(model(IDS, np.random.default_rng(0)).data - same(IDS).data).max() > 0.01


def test_ia3_scales_keys_values_and_what_down_proj_reads():
    base, model = prepared("ia3")
    stirred(model)
    for block, scaled in zip(base.layers, model.layers, strict=True):
        for linear, one in (
            (block.attn.k_proj, scaled.attn.k_proj),
            (block.attn.v_proj, scaled.attn.v_proj),
        ):
            linear.weight.data *= one.l.data
            linear.bias.data *= one.l.data
        block.mlp.down_proj.weight.data *= scaled.mlp.down_proj.l.data[:, None]
    np.testing.assert_allclose(model(IDS).data, base(IDS).data, rtol=0, atol=1e-5)
