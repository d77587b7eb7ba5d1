"""Claims about extract_adapter: the best LoRA of its rank, and in numbers what it lacks."""

import copy

import numpy as np
import pytest
from builders import IDS, adapted, tiny

import minilora as ml
from minilora.analysis import eckart_young_tail, truncate
from minilora.hub import load_adapter, save_adapter
from minilora.lora import adapters, lora_layers

RNG = np.random.default_rng
Q = "layers.0.attn.q_proj"
EVERYWHERE = dict(target_modules="all-linear")


def tuned(base, only=()):
    """A copy in which every parameter, or every one whose name holds one of these, has moved."""
    model = copy.deepcopy(base)
    for i, (name, p) in enumerate(model.named_parameters()):
        if not only or any(word in name for word in only):
            p.data += RNG(i).standard_normal(p.shape).astype(np.float32) * 0.1
    return model


def logits(model):
    with ml.no_grad():
        return model(IDS).data


def test_each_delta_is_the_best_of_its_rank_whatever_alpha_is():
    base = tiny()
    after = tuned(base)
    whole = after.get_submodule(Q).weight.data - base.get_submodule(Q).weight.data
    report = ml.extract_adapter(base, after, ml.LoraConfig(r=3, lora_alpha=7, use_rslora=True))
    assert np.allclose(ml.get_delta_weight(base, Q), truncate(whole, 3), atol=1e-6)
    wanted = (eckart_young_tail(whole, 3) / np.sum(whole.astype(float) ** 2)) ** 0.5
    assert report.errors[Q] == pytest.approx(wanted, rel=1e-4) and wanted > 0.1


def test_at_full_rank_and_with_the_rest_trained_whole_it_is_the_tuned_model():
    base = tiny("llama")
    after = tuned(base)
    whole = ["tok_embed", "head", "norm", "attn_norm", "mlp_norm"]
    thin = dict(rank_pattern={"[kv]_proj": 8})
    config = ml.LoraConfig(r=16, modules_to_save=whole, **thin, **EVERYWHERE)
    report = ml.extract_adapter(base, after, config)
    assert np.abs(logits(base) - logits(after)).max() < 1e-4
    assert report.share == pytest.approx(1) and not report.left_out
    assert "Nothing else changed" in str(report)


def test_a_merged_lora_comes_back_at_its_own_rank():
    merged = adapted("llama", r=3)
    wanted = {path: ml.get_delta_weight(merged, path) for path in lora_layers(merged)}
    ml.merge_and_unload(merged)
    base = tiny("llama")
    report = ml.extract_adapter(base, merged, ml.LoraConfig(r=3))
    assert max(report.errors.values()) < 1e-5 and report.share == pytest.approx(1)
    assert all(np.allclose(ml.get_delta_weight(base, p), d, atol=1e-5) for p, d in wanted.items())


def test_what_is_left_out_is_named_largest_first():
    base = tiny()
    report = ml.extract_adapter(base, tuned(base), ml.LoraConfig(r=4, **EVERYWHERE))
    shares = list(report.left_out.values())
    assert shares == sorted(shares, reverse=True) and "tok_embed.weight" in report.left_out
    lost_in_rank = 1 - report.share - sum(shares)
    assert 0 < lost_in_rank < 1 and "and 2" in str(report)


def test_what_did_not_change_is_no_loss():
    base = tiny()
    report = ml.extract_adapter(base, tuned(base, ["q_proj.weight"]), ml.LoraConfig(r=16))
    assert report.left_out == {} and report.share == pytest.approx(1)
    assert report.errors["layers.0.attn.v_proj"] == 0
    same = ml.extract_adapter(tiny(), tiny(), ml.LoraConfig(r=2))
    assert same.share == 1.0 and set(same.errors.values()) == {0.0}


def test_it_is_saved_and_loaded_and_detached(tmp_path):
    base = tiny()
    plain = logits(base)
    ml.extract_adapter(base, tuned(base), ml.LoraConfig(r=4, bias="all", **EVERYWHERE))
    save_adapter(base, tmp_path)
    fresh = tiny()
    load_adapter(fresh, tmp_path)
    assert np.allclose(logits(fresh), logits(base), atol=1e-5)
    with ml.disable_adapter(base):
        assert logits(base).tobytes() == plain.tobytes()


DORA, PISSA = ml.LoraConfig(use_dora=True), ml.LoraConfig(init_lora_weights="pissa")
WRONG = [
    (tiny, DORA, ValueError, "makes plain LoRA"),
    (tiny, PISSA, ValueError, "makes plain LoRA"),
    (tiny, {"r": 4}, TypeError, "config must be a minilora.LoraConfig, got dict"),
    (tiny, ml.LoraConfig(target_modules=["qq"]), ValueError, "matches no Linear"),
    (tiny, ml.LoraConfig(r=17), ValueError, "r=17 is more than"),
    (adapted, ml.LoraConfig(), ValueError, "tuned model has adapters: call merge_and_unload"),
    (lambda: tiny("llama"), ml.LoraConfig(), ValueError, "is .* in the base and .* in the tuned"),
    (lambda: tiny(n_embd=8), ml.LoraConfig(), ValueError, r"is \(11, 16\) in the base and \(11, 8"),
    (lambda: None, ml.LoraConfig(), TypeError, "expected a model, got NoneType"),
]


@pytest.mark.parametrize(("other", "config", "error", "sentence"), WRONG)
def test_what_cannot_be_extracted_is_refused_and_changes_nothing(other, config, error, sentence):
    base = tiny()
    before = base.state_dict()
    with pytest.raises(error, match=sentence):
        ml.extract_adapter(base, other(), config)
    assert not adapters(base) and all(p.requires_grad for p in base.parameters())
    assert all(np.array_equal(before[name], a) for name, a in base.state_dict().items())
