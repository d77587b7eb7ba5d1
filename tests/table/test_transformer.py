"""Claims about the model: its two families, its names and sizes, and that it never looks ahead.

GPT2 and LLAMA are the smallest models in which every switch is thrown one way or the other; LLAMA
also has grouped key/value heads.
"""

import dataclasses
import math

import builders
import numpy as np
import pytest

from minilora import functional as F
from minilora.nn import LayerNorm, RMSNorm
from minilora.tensor import Tensor, no_grad
from minilora.testing import gradcheck
from minilora.transformer import KVCache, Transformer, TransformerConfig, make_norm

SIZES = dict(vocab_size=11, block_size=8, n_layer=2, n_head=4, n_embd=16)
GPT2 = TransformerConfig(**SIZES)
LLAMA = TransformerConfig(**SIZES, **builders.FAMILIES["llama"])
FAMILIES = pytest.mark.parametrize("config", [GPT2, LLAMA], ids=["gpt2", "llama"])


def make(config: TransformerConfig, seed: int = 0, scramble: bool = True) -> Transformer:
    """A model whose biases and norms are not the zeros and ones it would start with."""
    rng = np.random.default_rng(seed)
    model = Transformer(config, rng=rng)
    for p in model.parameters() if scramble else []:
        p.data += rng.standard_normal(p.shape, dtype=np.float32) * np.float32(0.2)
    return model


def some_ids(config: TransformerConfig, B: int = 2, T: int | None = None, seed: int = 1):
    shape = (B, config.block_size if T is None else T)
    return np.random.default_rng(seed).integers(config.vocab_size, size=shape)


def new_cache(config: TransformerConfig) -> list[KVCache]:
    return [KVCache(config.block_size) for _ in range(config.n_layer)]


def changed(config: TransformerConfig, **changes) -> TransformerConfig:
    return dataclasses.replace(config, **changes)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        (dict(vocab_size=0), "vocab_size must be a whole number of at least 1, got 0"),
        (dict(block_size=0), "block_size must be a whole number of at least 1"),
        (dict(n_layer=0), "n_layer must be a whole number of at least 1"),
        (dict(n_head=0), "n_head must be a whole number of at least 1"),
        (dict(n_embd=-16), "n_embd must be a whole number of at least 1, got -16"),
        (dict(n_kv_head=0), "n_kv_head must be a whole number of at least 1"),
        (dict(mlp_hidden=0), "mlp_hidden must be a whole number of at least 1"),
        (
            dict(norm="batchnorm"),
            r"norm must be one of \('layernorm', 'rmsnorm'\), got 'batchnorm'",
        ),
        (dict(activation="relu"), r"activation must be one of \('gelu', 'swiglu'\), got 'relu'"),
        (dict(positions="sinus"), r"positions must be one of \('learned', 'rope'\), got 'sinus'"),
        (dict(n_head=3), "n_embd=16 must be a multiple of n_head=3"),
        (dict(n_kv_head=3), "n_kv_head=3 must divide n_head=4"),
        (dict(n_kv_head=8), "n_kv_head=8 must divide n_head=4"),
        (dict(positions="rope", n_head=16), "a head's size, 1, must be even"),
        (dict(dropout=1.0), r"dropout must lie in \[0, 1\), got 1.0"),
        (dict(dropout=-0.1), r"dropout must lie in \[0, 1\), got -0.1"),
        (dict(dropout=math.nan), r"dropout must lie in \[0, 1\), got nan"),
        (dict(n_embd=16.0), "n_embd must be a whole number of at least 1, got 16.0"),
        (dict(n_layer=True), "n_layer must be a whole number of at least 1, got True"),
        (dict(n_head=None), "n_head must be a whole number of at least 1, got None"),
        (dict(n_kv_head=2.0), "n_kv_head must be a whole number of at least 1, got 2.0"),
        (dict(mlp_hidden=math.nan), "mlp_hidden must be a whole number of at least 1, got nan"),
        (dict(bias="no"), r"bias must be one of \(True, False, 'attention', 'qkv'\), got 'no'"),
        (dict(tie_embeddings=None), r"tie_embeddings must be one of \(True, False\), got None"),
        (dict(dropout="much"), r"dropout must lie in \[0, 1\), got 'much'"),
        (dict(norm_eps=None), "norm_eps must be a number from 1e-30 to 1, got None"),
        (dict(norm_eps=0), "norm_eps must be a number from 1e-30 to 1, got 0"),
        (dict(norm_eps=math.nan), "norm_eps must be a number from 1e-30 to 1, got nan"),
        (dict(rope_theta=-1.0), "rope_theta must be a number from 1 to 1e.15, got -1.0"),
        (dict(rope_theta=math.inf), "rope_theta must be a number from 1 to 1e.15, got inf"),
    ],
)
def test_a_config_whose_sizes_do_not_fit_is_refused_with_a_reason(changes, sentence):
    with pytest.raises(ValueError, match=sentence):
        TransformerConfig(**{**SIZES, **changes})


def test_an_odd_head_is_fine_without_rope_and_a_config_cannot_be_changed():
    assert TransformerConfig(**{**SIZES, "n_head": 16}).head_size == 1
    with pytest.raises(dataclasses.FrozenInstanceError):
        GPT2.n_layer = 3


def test_defaults_are_gpt2_and_derived_sizes_follow():
    assert (GPT2.norm, GPT2.activation, GPT2.positions) == ("layernorm", "gelu", "learned")
    assert GPT2.bias and GPT2.tie_embeddings and GPT2.dropout == 0
    assert (GPT2.head_size, GPT2.kv_heads, GPT2.hidden) == (4, 4, 64)
    assert (LLAMA.head_size, LLAMA.kv_heads, LLAMA.hidden) == (4, 2, 24)
    assert (GPT2.norm_eps, GPT2.rope_theta) == (1e-5, 10000.0)


def block_shapes(i: int, C: int, width: int, hidden: int, bias: bool) -> dict[str, tuple]:
    norm = ["weight", "bias"] if bias else ["weight"]
    shapes = {f"layers.{i}.attn_norm.{n}": (C,) for n in norm}
    sizes = dict(q=(C, C), k=(C, width), v=(C, width), o=(C, C))
    for name, size in sizes.items():
        shapes[f"layers.{i}.attn.{name}_proj.weight"] = size
        if bias:
            shapes[f"layers.{i}.attn.{name}_proj.bias"] = size[1:]
    shapes |= {f"layers.{i}.mlp_norm.{n}": (C,) for n in norm}
    sizes = dict(up=(C, hidden), down=(hidden, C))
    if not bias:
        sizes = dict(gate=(C, hidden)) | sizes
    for name, size in sizes.items():
        shapes[f"layers.{i}.mlp.{name}_proj.weight"] = size
        if bias:
            shapes[f"layers.{i}.mlp.{name}_proj.bias"] = size[1:]
    return shapes


def test_gpt2s_parameters_have_designs_names_order_and_shapes():
    expected = {"tok_embed.weight": (11, 16), "pos_embed.weight": (8, 16)}
    expected |= block_shapes(0, 16, 16, 64, True) | block_shapes(1, 16, 16, 64, True)
    expected |= {"norm.weight": (16,), "norm.bias": (16,)}
    assert [(n, p.shape) for n, p in make(GPT2).named_parameters()] == list(expected.items())


def test_llamas_parameters_have_designs_names_order_and_shapes():
    expected = {"tok_embed.weight": (11, 16)}
    expected |= block_shapes(0, 16, 8, 24, False) | block_shapes(1, 16, 8, 24, False)
    expected |= {"norm.weight": (16,), "head.weight": (16, 11)}
    assert [(n, p.shape) for n, p in make(LLAMA).named_parameters()] == list(expected.items())


class _CountingRng(np.random.Generator):
    """Stands in for a generator: the arrays it draws are one zero, seen at every place."""

    def standard_normal(self, shape, dtype):
        return _Broadcast(np.broadcast_to(np.zeros((), dtype), shape))


class _Broadcast:
    """An array that stays a view of one number when multiplied."""

    def __init__(self, view: np.ndarray) -> None:
        self.view = view

    def __mul__(self, factor: float) -> np.ndarray:
        return self.view


def test_gpt2_has_124439808_parameters():
    config = TransformerConfig(vocab_size=50257, block_size=1024, n_layer=12, n_head=12, n_embd=768)
    model = Transformer(config, rng=_CountingRng(np.random.PCG64()))
    assert sum(p.size for p in model.parameters()) == 124_439_808


def test_a_llama_has_the_parameters_that_its_sizes_say():
    C, width, hidden, V = 16, 8, 24, 11
    block = 2 * C + 2 * C * C + 2 * C * width + 3 * C * hidden
    assert sum(p.size for p in make(LLAMA).parameters()) == 2 * V * C + 2 * block + C


def test_what_adds_to_the_stream_starts_smaller_by_the_root_of_twice_the_layers():
    config = TransformerConfig(vocab_size=300, block_size=200, n_layer=8, n_head=4, n_embd=256)
    model = Transformer(config, rng=np.random.default_rng(0))
    std = {name: p.data.std() for name, p in model.named_parameters() if p.ndim == 2}
    base = 0.7 / math.sqrt(256)
    assert std["tok_embed.weight"] == pytest.approx(0.02, rel=0.02)
    assert std["pos_embed.weight"] == pytest.approx(0.02, rel=0.02)
    for name in ("attn.q_proj", "attn.k_proj", "attn.v_proj", "mlp.up_proj"):
        assert std[f"layers.3.{name}.weight"] == pytest.approx(base, rel=0.02)
    assert std["layers.3.attn.o_proj.weight"] == pytest.approx(base / 4, rel=0.02)
    assert std["layers.3.mlp.down_proj.weight"] == pytest.approx(base / 8, rel=0.02)


@FAMILIES
@pytest.mark.parametrize("shape", [(1, 1), (3, 5), (2, 8)])
def test_logits_are_float32_of_shape_batch_time_vocabulary(config, shape):
    logits = make(config)(some_ids(config, *shape))
    assert logits.shape == (*shape, config.vocab_size)
    assert logits.dtype == np.float32 and np.isfinite(logits.data).all()


@FAMILIES
def test_float64_weights_give_float64_logits_close_to_the_float32_ones(config):
    model, ids = make(config), some_ids(config)
    single = model(ids).data
    double = model.to(np.float64)(ids).data
    assert double.dtype == np.float64
    np.testing.assert_allclose(single, double, atol=2e-5)


@FAMILIES
@pytest.mark.parametrize("position", [1, 4, 7])
def test_changing_a_token_changes_no_earlier_logit_and_does_change_later_ones(config, position):
    model, ids = make(config), some_ids(config)
    before = model(ids).data
    other = ids.copy()
    other[0, position] = (ids[0, position] + 1) % config.vocab_size
    after = model(other).data
    np.testing.assert_array_equal(after[0, :position], before[0, :position])
    np.testing.assert_array_equal(after[1], before[1])
    assert (np.abs(after[0, position:] - before[0, position:]).max(axis=-1) > 1e-4).all()


@FAMILIES
def test_a_shorter_sequence_has_the_same_logits(config):
    model, ids = make(config), some_ids(config)
    np.testing.assert_allclose(model(ids[:, :5]).data, model(ids).data[:, :5], atol=1e-5)


@FAMILIES
def test_the_same_tokens_at_other_positions_give_other_logits(config):
    ids = np.array([[3, 3, 5, 3]])
    logits = make(config)(ids).data[0]
    if config.positions == "learned":
        assert np.abs(logits[0] - logits[1]).max() > 1e-3
    swapped = make(config)(ids[:, [0, 2, 1, 3]]).data[0]
    assert np.abs(logits[3] - swapped[3]).max() > 1e-4  # attention knows the order of what it saw


def test_a_tied_head_is_the_token_table_and_its_gradient_has_both_parts():
    model, ids = make(GPT2), some_ids(GPT2)
    assert not hasattr(model, "head")
    unused = 10 if not (ids == 10).any() else int(np.setdiff1d(np.arange(11), ids)[0])
    (model(ids) ** 2).sum().backward()
    assert np.abs(model.tok_embed.weight.grad[unused]).max() > 0  # by the head alone


def test_an_untied_head_leaves_unused_rows_of_the_table_without_gradient():
    model = make(changed(GPT2, tie_embeddings=False))
    (model(np.array([[1, 2, 3]])) ** 2).sum().backward()
    table = model.tok_embed.weight.grad
    assert (np.abs(table).max(axis=1) > 0).tolist() == [i in (1, 2, 3) for i in range(11)]
    assert np.abs(model.head.weight.grad).min(axis=0).max() > 0


def test_tied_equals_untied_when_the_head_is_the_tables_transpose():
    tied, untied = make(GPT2), make(changed(GPT2, tie_embeddings=False))
    state = tied.state_dict()
    untied.load_state_dict(state | {"head.weight": state["tok_embed.weight"].T})
    ids = some_ids(GPT2)
    np.testing.assert_allclose(untied(ids).data, tied(ids).data, atol=1e-5)


@FAMILIES
def test_dropout_happens_only_with_a_generator_and_is_reproducible(config):
    model, ids = make(changed(config, dropout=0.3)), some_ids(config)
    plain = make(config)(ids).data
    np.testing.assert_array_equal(model(ids).data, plain)
    first, second = (model(ids, rng=np.random.default_rng(5)).data for _ in range(2))
    np.testing.assert_array_equal(first, second)
    assert np.abs(first - plain).max() > 1e-2
    assert np.abs(first - model(ids, rng=np.random.default_rng(6)).data).max() > 1e-2


def test_without_dropout_a_generator_changes_nothing_and_is_not_used():
    rng = np.random.default_rng(5)
    np.testing.assert_array_equal(
        make(GPT2)(some_ids(GPT2), rng).data, make(GPT2)(some_ids(GPT2)).data
    )
    assert rng.random() == np.random.default_rng(5).random()


def test_dropout_acts_on_the_embedding_and_on_both_halves_of_every_block(monkeypatch):
    shapes = []

    def spy(x, p, rng):
        shapes.append((x.shape, p))
        return x

    monkeypatch.setattr(F, "dropout", spy)
    make(changed(GPT2, dropout=0.3))(some_ids(GPT2), np.random.default_rng(0))
    assert shapes == [((2, 8, 16), 0.3)] * (1 + 2 * GPT2.n_layer)


def test_grouped_heads_equal_full_heads_whose_keys_and_values_are_repeated():
    grouped, full = make(LLAMA), make(changed(LLAMA, n_kv_head=None))
    state = grouped.state_dict()
    for name, W in state.items():
        if "k_proj" in name or "v_proj" in name:
            heads = W.reshape(16, 2, 4)  # (C, K*D) -> (C, K, D)
            state[name] = heads.repeat(2, axis=1).reshape(16, 16)  # -> (C, H*D)
    full.load_state_dict(state)
    ids = some_ids(LLAMA)
    np.testing.assert_allclose(grouped(ids).data, full(ids).data, atol=1e-5)


def test_rope_makes_attention_depend_only_on_distances():
    rng = np.random.default_rng(0)
    q, k = (Tensor(rng.standard_normal((1, 1, 12))) for _ in range(2))

    def score(i: int, j: int) -> np.ndarray:
        turned = [F.rope(x, 3, at, 10000.0).data.reshape(3, 4) for x, at in ((q, i), (k, j))]
        return (turned[0] * turned[1]).sum(-1)

    for i, j in ((5, 2), (40, 37), (3, 0)):
        np.testing.assert_allclose(score(i, j), score(103, 100), rtol=1e-10)
    assert np.abs(score(5, 2) - score(5, 1)).max() > 0.05


@pytest.mark.parametrize("rope_theta", [10000.0, 50.0])
def test_a_model_with_rope_gives_the_same_logits_from_any_starting_position(rope_theta):
    model, ids = make(changed(LLAMA, rope_theta=rope_theta)), some_ids(LLAMA, T=4)

    class FromHundred(KVCache):
        length = 100

        def extend(self, k, v):
            return k, v

    x = model.tok_embed(ids)
    for block in model.layers:
        x = block(x, None, FromHundred.__new__(FromHundred))
    np.testing.assert_allclose(model.head(model.norm(x)).data, model(ids).data, atol=1e-5)


def test_rope_theta_and_norm_eps_reach_the_computation():
    ids = some_ids(LLAMA)
    base = make(LLAMA)(ids).data
    assert np.abs(make(changed(LLAMA, rope_theta=10.0))(ids).data - base).max() > 1e-3
    assert np.abs(make(changed(LLAMA, norm_eps=0.5))(ids).data - base).max() > 1e-3
    assert isinstance(make_norm(GPT2), LayerNorm) and isinstance(make_norm(LLAMA), RMSNorm)
    assert make_norm(changed(GPT2, norm_eps=0.5)).eps == 0.5


def test_too_many_tokens_are_refused():
    with pytest.raises(ValueError, match="9 tokens do not fit the model's block_size of 8"):
        make(GPT2)(some_ids(GPT2, T=9))


@FAMILIES
def test_a_full_cache_refuses_one_token_more(config):
    model, cache = make(config), new_cache(config)
    with no_grad():
        model(some_ids(config), cache=cache)
        with pytest.raises(ValueError, match="9 tokens do not fit"):
            model(some_ids(config, T=1), cache=cache)


@pytest.mark.parametrize(
    "ids",
    [
        np.zeros(3, int),
        np.zeros((1, 2, 3), int),
        np.array(5),
        np.zeros((2, 3)),
        np.zeros((2, 3), bool),
        np.zeros((2, 0), int),
        np.zeros((0, 3), int),
        [],
        None,
    ],
    ids=["1-d", "3-d", "0-d", "float", "bool", "T=0", "B=0", "[]", "None"],
)
def test_ids_of_another_shape_or_type_are_refused(ids):
    with pytest.raises(ValueError, match=r"ids must be integers of shape \(B, T\), B and T > 0"):
        make(GPT2)(ids)


def test_ids_may_be_lists_or_any_integer_type_and_must_be_in_the_vocabulary():
    model, ids = make(GPT2), some_ids(GPT2)
    expected = model(ids).data
    for same in (ids.tolist(), ids.astype(np.uint8), ids.astype(np.int32), np.asfortranarray(ids)):
        np.testing.assert_array_equal(model(same).data, expected)
    for bad in (-1, 11):
        with pytest.raises(IndexError, match=r"token ids must lie in 0\.\.10"):
            model(np.array([[0, bad]]))


@FAMILIES
@pytest.mark.parametrize("pieces", [[1] * 8, [3, 1, 4], [8], [5, 2]])
def test_reading_in_pieces_with_a_cache_gives_the_logits_of_reading_at_once(config, pieces):
    model, cache = make(config), new_cache(config)
    ids = some_ids(config, T=sum(pieces))
    with no_grad():
        parts = [model(part, cache=cache) for part in np.split(ids, np.cumsum(pieces)[:-1], axis=1)]
    together = np.concatenate([part.data for part in parts], axis=1)
    np.testing.assert_allclose(together, model(ids).data, atol=1e-5)
    assert [layer.length for layer in cache] == [sum(pieces)] * config.n_layer


@FAMILIES
def test_a_cache_under_a_graph_is_refused_where_it_would_cut_a_gradient(config):
    model, ids = make(config), some_ids(config)
    with pytest.raises(RuntimeError, match=r"passes no gradient on: .* within no_grad\(\)"):
        model(ids, cache=new_cache(config))
    model.requires_grad_(False)
    np.testing.assert_array_equal(model(ids, cache=new_cache(config)).data, model(ids).data)


@no_grad()
@FAMILIES
def test_hidden_and_the_head_are_the_model_and_the_head_takes_any_of_the_rows(config):
    model, ids = make(config), some_ids(config, B=2, T=5)
    x = model.hidden(ids)
    assert x.shape == (2, 5, config.n_embd)
    np.testing.assert_array_equal(model.logits(x).data, model(ids).data)
    last = model.logits(x[:, -1])
    np.testing.assert_allclose(last.data, model(ids).data[:, -1], rtol=1e-5, atol=1e-6)


@no_grad()
def test_a_cache_is_one_object_per_layer():
    model, ids, one = make(GPT2), some_ids(GPT2), KVCache(8)
    for wrong in ([], [one], [one, one], [*new_cache(GPT2), one]):
        with pytest.raises(ValueError, match="one KVCache for each layer"):
            model(ids, cache=wrong)


@no_grad()
def test_a_cache_goes_on_with_its_own_batch_and_no_further_than_its_block():
    model, cache = make(GPT2), new_cache(GPT2)
    model(some_ids(GPT2, B=2, T=3), cache=cache)
    with pytest.raises(ValueError, match=r"filled up to position 3, .* \(1, 1, 16\)"):
        model(some_ids(GPT2, B=1, T=1), cache=cache)
    with pytest.raises(ValueError, match=r"a cache of shape \(2, 8, 16\), .* start with a new"):
        cache[0].append(*np.zeros((2, 2, 6, 16), np.float32))
    assert cache[0].length == 3


GRADCHECKS = {
    "gpt2": TransformerConfig(vocab_size=5, block_size=4, n_layer=2, n_head=2, n_embd=4),
    "llama": TransformerConfig(
        vocab_size=5, block_size=4, n_layer=2, n_head=4, n_embd=8,
        **builders.FAMILIES["llama"] | {"mlp_hidden": 6},
    ),
}  # fmt: skip


@pytest.mark.parametrize("family", GRADCHECKS)
def test_every_gradient_of_the_whole_model_agrees_with_finite_differences(family):
    model = make(GRADCHECKS[family])
    model.to(np.float64)
    ids = np.array([[0, 3, 3, 1], [2, 0, 4, 4]])  # repeated ids

    def logits(*parameters: Tensor) -> Tensor:
        return model(ids)

    gradcheck(logits, *model.parameters(), tol=1e-6)


@FAMILIES
def test_every_parameter_gets_a_gradient_of_its_shape(config):
    model, ids = make(config), some_ids(config)
    F.cross_entropy(model(ids), np.roll(ids, -1, axis=1)).backward()
    for name, p in model.named_parameters():
        assert p.grad is not None and p.grad.shape == p.shape and p.grad.dtype == p.dtype, name
        if not name.endswith("k_proj.bias") or config.positions == "rope":
            assert np.abs(p.grad).max() > 1e-5, name
        else:  # adds the same to all scores of a query, which softmax does not see
            assert np.abs(p.grad).max() < 1e-7, name


@FAMILIES
@pytest.mark.parametrize("V", [16, 97, 1000])
def test_a_fresh_model_guesses_evenly_so_its_loss_is_the_log_of_the_vocabulary(config, V):
    sizes = dict(vocab_size=V, block_size=32, n_embd=64, mlp_hidden=None, dropout=0.0)
    model = make(changed(config, **sizes), scramble=False)
    rng = np.random.default_rng(2)
    ids, targets = rng.integers(V, size=(2, 8, 32))
    loss = F.cross_entropy(model(ids), targets).item()
    assert loss == pytest.approx(math.log(V), abs=0.06)


def test_the_same_seed_gives_the_same_model_and_another_seed_another():
    first, again, other = (make(GPT2, seed, scramble=False).state_dict() for seed in (0, 0, 1))
    for name, data in first.items():
        np.testing.assert_array_equal(data, again[name])
    assert not np.array_equal(first["tok_embed.weight"], other["tok_embed.weight"])
