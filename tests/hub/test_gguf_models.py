"""Claims about a Llama in a GGUF file: it is the model whose rows and names were changed for it."""

import numpy as np
import pytest
from folders import make, same
from gguf_files import gguf, random_blocks

import minilora as ml
from minilora.hub import load_model
from minilora.quantization.gguf_blocks import BLOCKS, dequantize
from minilora.system.errors import UsageError

C, H, J, D, HIDDEN, V, LAYERS = 32, 4, 2, 8, 64, 20, 2
SAID = {
    "general.architecture": "llama",
    "llama.context_length": 16,
    "llama.block_count": LAYERS,
    "llama.attention.head_count": H,
    "llama.attention.head_count_kv": J,
    "llama.embedding_length": C,
    "llama.feed_forward_length": HIDDEN,
    "llama.attention.layer_norm_rms_epsilon": 0.0009765625,
    "llama.rope.freq_base": 50.0,
}
NAMES = {
    "attn_q": ("attn.q_proj", H * D, C), "attn_k": ("attn.k_proj", J * D, C),
    "attn_v": ("attn.v_proj", J * D, C), "attn_output": ("attn.o_proj", C, H * D),
    "ffn_gate": ("mlp.gate_proj", HIDDEN, C), "ffn_up": ("mlp.up_proj", HIDDEN, C),
    "ffn_down": ("mlp.down_proj", C, HIDDEN),
}  # fmt: skip


def tensors(kind: str, seed: int = 0) -> dict:
    rng = np.random.default_rng(seed)
    found = {"token_embd.weight": (kind, (V, C), random_blocks(kind, V, C, rng))}
    for i in range(LAYERS):
        for name, (_, rows, columns) in NAMES.items():
            raw = random_blocks(kind, rows, columns, rng)
            found[f"blk.{i}.{name}.weight"] = (kind, (rows, columns), raw)
        for name in ("attn_norm", "ffn_norm"):
            found[f"blk.{i}.{name}.weight"] = ("F32", (C,), random_blocks("F32", 1, C, rng))
    found["output_norm.weight"] = ("F32", (C,), random_blocks("F32", 1, C, rng))
    return found


def written(tmp_path, said=SAID, held=None, kind="Q4_1"):
    path = tmp_path / "tiny.gguf"
    path.write_bytes(gguf(said, tensors(kind) if held is None else held))
    return path


def numbers(kind: str, shape, raw: bytes) -> np.ndarray:
    return dequantize(kind, np.frombuffer(raw, np.uint8).reshape(shape[0], -1))


@pytest.mark.parametrize("kind", BLOCKS)
def test_each_weight_is_its_tensor_transposed_and_q_and_k_are_put_back_in_order(kind, tmp_path):
    model = load_model(written(tmp_path, kind=kind))
    held, own = tensors(kind), model.state_dict()
    assert np.array_equal(own["tok_embed.weight"], numbers(*held["token_embd.weight"]))
    for i in range(LAYERS):
        for theirs, (ours, rows, columns) in NAMES.items():
            stored = numbers(*held[f"blk.{i}.{theirs}.weight"])
            if theirs in ("attn_q", "attn_k"):  # the file has pair 0's two rows first, and so on
                heads = stored.reshape(-1, D, columns)
                stored = np.concatenate([heads[:, 0::2], heads[:, 1::2]], axis=1)
                stored = stored.reshape(rows, columns)
            assert np.array_equal(own[f"layers.{i}.{ours}.weight"], stored.T), theirs


def test_the_configuration_is_what_the_metadata_say(tmp_path):
    c = load_model(written(tmp_path)).config
    assert (c.vocab_size, c.block_size, c.n_layer, c.n_head, c.kv_heads) == (V, 16, LAYERS, H, J)
    assert (c.n_embd, c.hidden, c.norm_eps, c.rope_theta) == (C, HIDDEN, 0.0009765625, 50.0)
    assert c.tie_embeddings and c.head_dim is None and c.bias is False


def test_a_head_of_its_own_linear_rope_scaling_and_wide_heads_are_read(tmp_path):
    said = SAID | {"llama.rope.scaling.type": "linear", "llama.rope.scaling.factor": 2.0}
    said |= {"llama.attention.head_count": 2, "llama.attention.head_count_kv": 1}
    said |= {"llama.attention.key_length": 16, "llama.rope.dimension_count": 16}
    held = tensors("F32")
    held["output.weight"] = ("F32", (V, C), random_blocks("F32", V, C, np.random.default_rng(1)))
    c = load_model(written(tmp_path, said, held)).config
    assert not c.tie_embeddings and c.rope_scaling.factor == 2.0 and c.head_size == 16


def test_a_model_of_a_gguf_file_writes_trains_an_adapter_and_can_be_saved(tmp_path):
    model = load_model(written(tmp_path, kind="Q8_0"))
    assert ml.generate(model, np.array([[1, 2]]), 3, temperature=0).shape == (1, 5)
    ml.save_model(model, tmp_path / "folder")
    assert same(load_model(tmp_path / "folder").state_dict(), model.state_dict())
    ml.add_adapter(model, ml.LoraConfig(r=2), rng=np.random.default_rng(0))
    ml.save_adapter(model, tmp_path / "adapter")
    again = load_model(str(tmp_path / "tiny.gguf"))
    ml.load_adapter(again, tmp_path / "adapter")


WRONG = [
    (dict(SAID, **{"general.architecture": "qwen2"}), None, "of kind 'qwen2'; supported: 'llama'"),
    (dict(SAID, **{"llama.block_count": "two"}), None, "llama.block_count is 'two'"),
    (
        dict(SAID, **{"llama.block_count": 10**6}),
        None,
        "says 1000000 layers, but holds only 20 tensors",
    ),
    (dict(SAID, **{"llama.embedding_length": 64}), None, r"is \(20, 32\) where \(20, 64\)"),
    (dict(SAID, **{"llama.attention.head_count": 3}), None, "n_kv_head=2 must divide n_head=3"),
    (dict(SAID, **{"llama.attention.head_count": 0}), None, "n_head must be a whole number"),
    (dict(SAID, **{"llama.expert_count": 8}), None, "has 8 experts"),
    (dict(SAID, **{"llama.rope.dimension_count": 4}), None, "turns 4 of 8 channels"),
    (dict(SAID, **{"llama.rope.scaling.type": "yarn"}), None, "rope scaling 'yarn'"),
    (dict(SAID, **{"llama.rope.scaling.attn_factor": 2.0}), None, "of Llama 3 or YaRN"),
    (dict(SAID, **{"llama.attention.value_length": 4}), None, "has 4 channels of v where k has 8"),
    (dict(SAID, **{"llama.attention.head_count": [4, 4]}), None, "head_count is a list, which is"),
    (dict(SAID, **{"split.count": 2}), None, "is one of several files; join them with llama.cpp"),
    (dict(SAID, **{"llama.rope.freq_base": -5.0}), None, "rope_theta must be a number from 1"),
    ({}, None, "of kind None"),
    (dict(SAID, **{"llama.block_count": 0}), None, "n_layer must be a whole number of at least 1"),
    (dict(SAID, **{"llama.rope.freq_base": float("inf")}), None, "rope_theta must be a number"),
    (dict(SAID, **{"llama.attention.layer_norm_rms_epsilon": -1.0}), None, "norm_eps must be"),
    (dict(SAID, **{"llama.attention.layer_norm_rms_epsilon": float("nan")}), None, "norm_eps mu"),
    (
        dict(SAID, **{"llama.rope.scaling.type": "linear", "llama.rope.scaling.factor": 0.0}),
        None,
        "factor must be a number from 0.001",
    ),
    (dict(SAID, **{"llama.context_length": 2**31}), None, "block_size must be at most 2,147,483"),
    (dict(SAID, **{"general.architecture": "x" * 5000}), None, "of kind 'xxx"),
    (SAID, {}, "says 2 layers, but holds only 0 tensors"),
    (
        SAID,
        {"a": tensors("F32")["output_norm.weight"], "b": tensors("F32")["output_norm.weight"]},
        "has no token_embd",
    ),
    (SAID, tensors("F32") | {"rope_freqs.weight": ("F32", (4,), bytes(16))}, "of Llama 3 or YaRN"),
]


@pytest.mark.parametrize(
    ("said", "factor"),
    [
        ({"rope.scaling.factor": 4.0}, 4.0),  # its type is linear unless something else is said
        ({"rope.scale_linear": 4.0}, 4.0),
        ({"rope.scaling.factor": 2.0, "rope.scale_linear": 4.0}, 2.0),
        ({"rope.scaling.type": "none", "rope.scaling.factor": 4.0}, None),
        ({"rope.scaling.type": "linear"}, None),
    ],
)
def test_a_factor_of_the_rope_scales_it_as_llama_cpp_has_it(said, factor, tmp_path):
    said = SAID | {f"llama.{key}": value for key, value in said.items()}
    scaling = load_model(written(tmp_path, said, None)).config.rope_scaling
    assert factor == (scaling and scaling.factor)


@pytest.mark.parametrize(("said", "held", "sentence"), WRONG)
def test_what_ours_cannot_compute_is_refused_by_name(said, held, sentence, tmp_path):
    with pytest.raises(UsageError, match=rf"tiny\.gguf.*{sentence}"):
        load_model(written(tmp_path, said, held))


def test_numbers_that_are_not_finite_are_refused(tmp_path):
    held = tensors("Q4_1")
    kind, shape, raw = held["blk.1.ffn_up.weight"]
    held["blk.1.ffn_up.weight"] = (kind, shape, np.float16(np.inf).tobytes() + raw[2:])
    with pytest.raises(UsageError, match=r"layers.1.mlp.up_proj.weight .*NaN or infinity"):
        load_model(written(tmp_path, held=held))


def test_a_layer_count_beyond_the_file_is_refused_before_anything_is_made(tmp_path, monkeypatch):
    monkeypatch.setattr(ml.Transformer, "__init__", lambda *_, **__: pytest.fail("was made"))
    with pytest.raises(UsageError, match="do not fit"):
        load_model(written(tmp_path, SAID | {"llama.block_count": 4}))


def test_what_make_gives_is_still_loaded_from_folders(tmp_path):
    ml.save_model(make("llama"), tmp_path)
    assert same(load_model(tmp_path).state_dict(), make("llama").state_dict())


@pytest.mark.parametrize("kind", BLOCKS)
def test_a_model_kept_in_its_blocks_gives_the_same_logits_bit_for_bit(kind, tmp_path):
    path = written(tmp_path, kind=kind)
    plain, blocks = load_model(path), load_model(path, quantized=True)
    ids = np.random.default_rng(0).integers(0, V, (2, 9))
    with ml.no_grad():
        assert np.array_equal(blocks(ids).data, plain(ids).data)
    assert np.array_equal(*(ml.generate(m, ids, 4, temperature=0) for m in (plain, blocks)))
    assert f"q_proj: Linear(32 -> 32, {kind})" in str(blocks)


def test_an_adapter_trained_beside_blocks_names_its_base_and_fits_the_plain_model(tmp_path):
    path = written(tmp_path)
    model = load_model(path, quantized=True)
    ml.add_adapter(model, ml.LoraConfig(r=2), rng=np.random.default_rng(0))
    ids = np.array([[1, 2, 3]])
    ml.train(model, lambda rng: (ids, ids), ml.TrainConfig(steps=2, lr=1e-2), quiet=True)
    ml.save_adapter(model, tmp_path / "adapter")
    assert ml.hub.adapter_base(tmp_path / "adapter") == str(path)
    plain = load_model(path)
    ml.load_adapter(plain, tmp_path / "adapter")
    with ml.no_grad():
        np.testing.assert_allclose(plain(ids).data, model(ids).data, atol=1e-5)


def test_a_folder_has_no_blocks_to_keep(tmp_path):
    ml.save_model(make("llama"), tmp_path)
    with pytest.raises(UsageError, match=r"not in few bits.*quantize_nf4"):
        load_model(tmp_path, quantized=True)
