"""Claims about combined and extracted adapters: PEFT computes the same from the same files.

PEFT's add_weighted_adapter is compared where it is right: plain LoRA, and of the ways to combine
those that work on ΔW.
"""

import os

os.environ["HF_HUB_OFFLINE"] = "1"

import numpy as np
import pytest
from builders import IDS, tiny

import minilora as ml
from minilora.analysis.inspection import inspect_adapter

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
peft = pytest.importorskip("peft")

pytestmark = [pytest.mark.parity, pytest.mark.filterwarnings("ignore")]
RNG = np.random.default_rng


def our_logits(model):
    with ml.no_grad():
        return model(IDS).data


def their_logits(model):
    with torch.no_grad():
        return model(torch.tensor(IDS)).logits.numpy()


@pytest.fixture
def both(tmp_path):
    """The same Llama with the same two adapters, ours and PEFT's."""
    ours = tiny("llama")
    ml.save_model(ours, tmp_path / "base")
    for seed, (name, r) in enumerate((("a", 3), ("b", 2))):
        config = ml.LoraConfig(r=r, lora_alpha=5, target_modules=["q_proj", "v_proj"])
        ml.add_adapter(ours, config, name, rng=RNG(seed))
        for p in ours.trainable_parameters():
            p.data += RNG(seed + 5).standard_normal(p.shape).astype(np.float32) * 0.2
        ml.save_adapter(ours, tmp_path / name)
    base = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "base").eval()
    theirs = peft.PeftModel.from_pretrained(base, tmp_path / "a", adapter_name="a")
    theirs.load_adapter(tmp_path / "b", adapter_name="b")
    return ours, theirs


WAYS = {
    "cat": ([0.7, -1.0], {}, {}),
    "svd": ([0.7, -1.0], dict(r=2), dict(svd_rank=2)),
    "ties_svd": ([1.0, 1.0], dict(r=4, density=0.5), dict(svd_rank=4, density=0.5)),
}


@pytest.mark.parametrize("how", WAYS)
def test_peft_combines_two_adapters_to_the_same_model(how, both):
    ours, theirs = both
    weights, our_options, their_options = WAYS[how]
    before = our_logits(ours)
    ml.combine_adapters(ours, dict(zip("ab", weights, strict=True)), "ab", how, **our_options)
    theirs.add_weighted_adapter(["a", "b"], weights, "ab", combination_type=how, **their_options)
    theirs.set_adapter("ab")
    assert np.abs(our_logits(ours) - their_logits(theirs)).max() < 1e-4
    assert np.abs(our_logits(ours) - before).max() > 0.01


def test_peft_reads_a_combined_adapter(both, tmp_path):
    ours, theirs = both
    ml.combine_adapters(ours, {"a": 0.7, "b": -1.0}, "ab")
    ml.save_adapter(ours, tmp_path / "ab")
    theirs.load_adapter(tmp_path / "ab", adapter_name="read")
    theirs.set_adapter("read")
    assert np.abs(our_logits(ours) - their_logits(theirs)).max() < 1e-4


def test_peft_reads_an_adapter_that_was_extracted_from_a_tuned_model(both, tmp_path):
    _, theirs = both
    base, tuned = tiny("llama"), tiny("llama")
    for p in tuned.parameters():
        p.data += RNG(p.size).standard_normal(p.shape).astype(np.float32) * 0.1
    config = ml.LoraConfig(r=3, target_modules="all-linear", modules_to_save=["norm"])
    ml.extract_adapter(base, tuned, config)
    ml.save_adapter(base, tmp_path / "extracted")
    theirs.load_adapter(tmp_path / "extracted", adapter_name="extracted")
    theirs.set_adapter("extracted")
    assert np.abs(our_logits(base) - their_logits(theirs)).max() < 1e-4
    assert np.abs(our_logits(base) - our_logits(tiny("llama"))).max() > 0.01


@pytest.mark.parametrize("options", [{}, dict(use_rslora=True), dict(rank_pattern={"v_proj": 2})])
def test_what_is_read_without_the_base_is_peft_s_delta_weight(options, both, tmp_path):
    _, theirs = both
    config = peft.LoraConfig(
        r=4, lora_alpha=6, target_modules=["q_proj", "v_proj", "embed_tokens"], **options
    )
    theirs.add_adapter("new", config)
    with torch.no_grad():
        for name, p in theirs.named_parameters():
            if ".new." in name or name.endswith(".new"):
                p.copy_(torch.randn_like(p))
    theirs.save_pretrained(tmp_path, selected_adapters=["new"])
    found = inspect_adapter(tmp_path / "new")
    layers = dict(theirs.base_model.model.named_modules())
    assert len(found.modules) == 5
    for one in found.modules:
        delta = layers[one.path].get_delta_weight("new")
        assert one.norm == pytest.approx(float(torch.linalg.norm(delta)), rel=1e-4), one.path


def test_peft_gives_each_row_its_adapter_as_we_do(both):
    ours, theirs = both
    ids = np.concatenate([IDS, IDS])[:3]
    with torch.no_grad():
        names = ["b", "__base__", "a"]
        wanted = theirs(torch.tensor(ids), adapter_names=names).logits.numpy()
    with ml.adapters_per_row(ours, ["b", None, "a"]), ml.no_grad():
        got = ours(ids).data
    assert np.abs(got - wanted).max() < 1e-4
