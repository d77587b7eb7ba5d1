"""Claims about generation: the cache changes nothing but the speed, and sampling does as told.

What generation should see is written here without a cache (`reference`): everything so far while it
fits block_size; from then on, each time the window is full, its later half and what follows.
"""

import tracemalloc
from contextlib import nullcontext

import numpy as np
import pytest
from builders import FAMILIES

from minilora.generation import sampling
from minilora.generation.decoder import Decoder, is_plain
from minilora.generation.sampling import generate, write
from minilora.lora import add_adapter, disable_adapter, merge_adapter
from minilora.lora_config import LoraConfig
from minilora.methods.registry import METHODS
from minilora.nn import Module
from minilora.tensor import Tensor, no_grad
from minilora.text.alphabet import ALPHABET, decode, encode
from minilora.transformer import KVCache, Transformer, TransformerConfig

SIZES = dict(vocab_size=13, block_size=8, n_layer=2, n_head=4, n_embd=16)
LLAMA = FAMILIES["llama"]


def make(seed: int = 0, **options) -> Transformer:
    rng = np.random.default_rng(seed)
    model = Transformer(TransformerConfig(**{**SIZES, **options}), rng=rng)
    for p in model.parameters():  # so strong that the next token depends on all that came before
        if p.ndim == 2:
            p.data[...] = rng.standard_normal(p.shape) * (1 if p.shape[0] < 16 else 0.5)
    return model


IN_BOTH_FAMILIES = pytest.mark.parametrize("options", [{}, LLAMA], ids=["gpt2", "llama"])
PROMPT = np.array([[1, 2, 3]])


class Says(Transformer):
    """A model of chosen logits: the same ones at every position, whatever it is shown."""

    def __init__(self, logits: np.ndarray, block_size: int = 8) -> None:
        V = logits.shape[-1]
        super().__init__(
            TransformerConfig(V, block_size, n_layer=1, n_head=1, n_embd=2),
            rng=np.random.default_rng(0),
        )
        self.logits = logits

    def __call__(self, ids, rng=None, cache=None):
        for layer in cache:
            layer.length += ids.shape[1]
        B, T = ids.shape
        logits = np.broadcast_to(self.logits, (B, T, self.logits.shape[-1]))
        return Tensor(np.array(logits, np.float32))


def reference(model: Transformer, ids: np.ndarray, new: int) -> np.ndarray:
    """Greedy continuation, computing everything again for every token."""
    block, start = model.config.block_size, max(0, ids.shape[1] - model.config.block_size)
    for _ in range(new):
        if ids.shape[1] - start > block:
            start = ids.shape[1] - max(1, block // 2)
        following = model(ids[:, start:]).data[:, -1].argmax(axis=1)
        ids = np.concatenate([ids, following[:, None]], axis=1)
    return ids


@IN_BOTH_FAMILIES
@pytest.mark.parametrize("T", [1, 3, 7, 8, 9, 20])
def test_generation_with_the_cache_equals_computing_everything_again(options, T):
    for seed in range(3):
        model = make(seed, **options)
        prompt = np.random.default_rng(seed).integers(13, size=(2, T))
        greedy = generate(model, prompt, 25, temperature=0)
        np.testing.assert_array_equal(greedy, reference(model, prompt, 25))
        assert len(np.unique(greedy[:, T:])) > 3  # a text in which something happens


@pytest.mark.parametrize("block_size", [1, 2, 3, 7])
def test_windows_of_any_size_slide(block_size):
    model = make(block_size=block_size)
    greedy = generate(model, PROMPT, 12, temperature=0)
    np.testing.assert_array_equal(greedy, reference(model, PROMPT, 12))


def windows_seen(model: Transformer, prompt: np.ndarray, new: int) -> list[list[int]]:
    """What the model was shown, call by call, as positions in the final sequence."""
    shown: list[tuple[list[int], list[int]]] = []
    length = prompt.shape[1]

    class Watched:
        config, layers, can_cache = model.config, model.layers, True

        def __call__(self, ids, rng=None, cache=None):
            end = length + len(shown)
            shown.append((list(range(end - ids.shape[1], end)), [c.length for c in cache]))
            return model(ids, rng, cache)

    generate(Watched(), prompt, new, temperature=0)
    return shown


def test_a_full_window_goes_on_with_its_later_half():
    shown = windows_seen(make(), PROMPT, 12)
    assert [positions for positions, _ in shown] == [
        [0, 1, 2],
        *[[i] for i in range(3, 8)],
        [5, 6, 7, 8],  # 0..7 filled the block of 8: the newest four are read again
        *[[i] for i in range(9, 13)],
        [10, 11, 12, 13],
    ]
    assert [held[0] for _, held in shown] == [0, 3, 4, 5, 6, 7, 0, 4, 5, 6, 7, 0]


def test_of_a_prompt_longer_than_the_block_the_end_is_read():
    shown = windows_seen(make(), np.arange(13)[None, :], 2)
    assert [positions for positions, _ in shown] == [list(range(5, 13)), [10, 11, 12, 13]]


def test_the_start_of_a_long_prompt_does_not_matter():
    model, prompt = make(), np.random.default_rng(0).integers(13, size=(1, 20))
    other = prompt.copy()
    other[:, :12] = (prompt[:, :12] + 1) % 13
    new = generate(model, prompt, 10, temperature=0)[:, 20:]
    np.testing.assert_array_equal(generate(model, other, 10, temperature=0)[:, 20:], new)


@IN_BOTH_FAMILIES
def test_the_result_begins_with_the_prompt_and_has_as_many_tokens_as_asked(options):
    model = make(**options)
    for new in (0, 1, 15):
        ids = generate(model, PROMPT, new, temperature=0)
        assert ids.shape == (1, 3 + new) and np.issubdtype(ids.dtype, np.integer)
        np.testing.assert_array_equal(ids[:, :3], PROMPT)
        assert ids.min() >= 0 and ids.max() < 13


def test_a_single_sequence_is_a_batch_of_one_and_the_prompt_is_left_alone():
    model, prompt = make(), np.array([1, 2, 3])
    np.testing.assert_array_equal(
        generate(model, prompt, 5, temperature=0), generate(model, PROMPT, 5, temperature=0)
    )
    np.testing.assert_array_equal(prompt, [1, 2, 3])


@IN_BOTH_FAMILIES
def test_every_row_of_a_batch_continues_as_if_alone(options):
    model, prompts = make(**options), np.random.default_rng(3).integers(13, size=(4, 5))
    together = generate(model, prompts, 20, temperature=0)
    for row, prompt in zip(together, prompts, strict=True):
        np.testing.assert_array_equal(row, generate(model, prompt[None], 20, temperature=0)[0])


def test_temperature_zero_is_deterministic_and_needs_no_generator():
    model, rng = make(), np.random.default_rng(0)
    first = generate(model, PROMPT, 20, temperature=0, rng=rng)
    np.testing.assert_array_equal(first, generate(model, PROMPT, 20, temperature=0))
    assert rng.random() == np.random.default_rng(0).random()


def test_the_same_seed_samples_the_same_text_and_another_seed_another():
    model = make()
    first, again, other = (
        generate(model, PROMPT, 30, rng=np.random.default_rng(seed)) for seed in (5, 5, 6)
    )
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


@IN_BOTH_FAMILIES
def test_top_k_of_one_and_a_tiny_top_p_are_greedy(options):
    model, rng = make(**options), np.random.default_rng(0)
    greedy = generate(model, PROMPT, 25, temperature=0)
    for only in (dict(top_k=1), dict(top_p=1e-9), dict(temperature=1e-3)):
        np.testing.assert_array_equal(generate(model, PROMPT, 25, rng=rng, **only), greedy)


P = np.array([0.05, 0.4, 0.2, 0.25, 0.1])  # in no particular order


def frequencies(n: int = 20_000, logits: np.ndarray | None = None, **options) -> np.ndarray:
    """How often each token is drawn by a model whose next-token probabilities are P."""
    model = Says(np.log(P) + 3 if logits is None else logits)
    drawn = generate(model, np.zeros((n, 1), int), 1, rng=np.random.default_rng(1), **options)
    return np.bincount(drawn[:, 1], minlength=len(P)) / n


def renormalised(*tokens: int) -> np.ndarray:
    kept = np.where(np.isin(np.arange(len(P)), tokens), P, 0)
    return kept / kept.sum()


SAMPLED = dict(atol=0.015)  # four standard errors of a frequency at n = 20,000


def test_sampling_follows_the_models_probabilities():
    np.testing.assert_allclose(frequencies(), P, **SAMPLED)


@pytest.mark.parametrize("temperature", [0.5, 2.0])
def test_temperature_sharpens_or_flattens_the_probabilities(temperature):
    expected = P ** (1 / temperature)
    expected /= expected.sum()
    np.testing.assert_allclose(frequencies(temperature=temperature), expected, **SAMPLED)


@pytest.mark.parametrize(
    ("options", "tokens"),
    [
        (dict(top_k=2), [1, 3]),
        (dict(top_k=4), [1, 3, 2, 4]),
        (dict(top_k=99), [0, 1, 2, 3, 4]),
        (dict(top_p=0.39), [1]),
        (dict(top_p=0.41), [1, 3]),
        (dict(top_p=0.64), [1, 3]),
        (dict(top_p=0.66), [1, 3, 2]),
        (dict(top_p=0.96), [0, 1, 2, 3, 4]),
        (dict(top_p=1.0), [0, 1, 2, 3, 4]),
        (dict(top_k=3, top_p=0.8), [1, 3, 2]),  # top_p of what top_k left: 0.4/0.85, 0.65/0.85
        (dict(top_k=3, top_p=0.7), [1, 3]),
    ],
    ids=str,
)
def test_top_k_and_top_p_draw_from_the_likeliest_only_in_proportion(options, tokens):
    found, expected = frequencies(**options), renormalised(*tokens)
    assert np.flatnonzero(found).tolist() == sorted(tokens)
    np.testing.assert_allclose(found, expected, **SAMPLED)


def test_top_p_is_taken_after_temperature():
    # at temperature 2 the likeliest token has 0.29 of the probability, so that 0.39 needs two
    found = frequencies(temperature=2.0, top_p=0.39)
    assert np.flatnonzero(found).tolist() == [1, 3]


def test_every_row_has_its_own_support():
    logits = np.log(np.array([P, P[::-1]]))[:, None, :]  # (B, 1, V)
    prompt = np.zeros((2, 1), int)
    drawn = generate(Says(logits), prompt, 200, top_k=2, rng=np.random.default_rng(0))[:, 1:]
    assert set(drawn[0]) == {1, 3} and set(drawn[1]) == {3, 1}
    rates = (drawn == 1).mean(axis=1)
    np.testing.assert_allclose(rates, [0.4 / 0.65, 0.25 / 0.65], atol=0.14)


def test_rows_of_a_batch_are_drawn_independently():
    drawn = generate(Says(np.zeros(5)), np.zeros((2, 1), int), 100, rng=np.random.default_rng(0))
    assert 5 <= (drawn[0, 1:] == drawn[1, 1:]).sum() <= 40  # 20 of 100 by chance


def test_on_token_sees_every_new_column_once_and_in_order():
    model, seen = make(), []
    prompts = np.array([[1, 2], [3, 4]])
    ids = generate(model, prompts, 12, rng=np.random.default_rng(0), on_token=seen.append)
    assert len(seen) == 12 and all(column.shape == (2,) for column in seen)
    np.testing.assert_array_equal(np.stack(seen, axis=1), ids[:, 2:])


def test_on_token_is_called_while_generating_not_at_the_end():
    calls = []

    def stop(column):
        calls.append(column)
        if len(calls) == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        generate(make(), PROMPT, 100, temperature=0, on_token=stop)
    assert len(calls) == 3


def test_nothing_is_recorded_and_no_gradient_appears():
    model, outputs = make(), []

    class Watched:
        config, layers, can_cache = model.config, model.layers, True

        def __call__(self, ids, rng=None, cache=None):
            outputs.append(model(ids, rng, cache))
            return outputs[-1]

    generate(Watched(), PROMPT, 3, temperature=0)
    assert len(outputs) == 3 and all(logits.node is None for logits in outputs)
    assert all(p.grad is None for p in model.parameters())
    assert model(PROMPT).requires_grad  # recording is on again


def test_only_new_tokens_go_through_the_model():
    sizes = [len(positions) for positions, _ in windows_seen(make(block_size=64), PROMPT, 40)]
    assert sizes == [3] + [1] * 39


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (dict(temperature=-1), "temperature must be >= 0"),
        (dict(top_k=0), "top_k must be a whole number of at least 1"),
        (dict(top_k=-2), "top_k must be a whole number of at least 1"),
        (dict(top_p=0.0), r"top_p must lie in \(0, 1\]"),
        (dict(top_p=-0.1), r"top_p must lie in \(0, 1\]"),
        (dict(top_p=1.1), r"top_p must lie in \(0, 1\]"),
        (dict(rng=None), r"sampling needs rng=np.random.default_rng\(seed\), or temperature=0"),
    ],
    ids=str,
)
def test_options_outside_their_range_are_refused(options, sentence):
    with pytest.raises(ValueError, match=sentence):
        generate(make(), PROMPT, 3, **{"rng": np.random.default_rng(0), **options})


def test_an_empty_prompt_is_refused_and_unknown_ids_are_named():
    for empty in ([], [[]], np.zeros((3, 0), int)):
        with pytest.raises(ValueError, match="the prompt is empty"):
            generate(make(), empty, 3, temperature=0)
    with pytest.raises(IndexError, match=r"token ids must lie in 0\.\.12"):
        generate(make(), [[13]], 3, temperature=0)


def test_sampling_never_draws_a_token_of_probability_zero():
    model = Says(np.array([0.0, -np.inf, 1.0, -np.inf, -200.0]))
    drawn = generate(model, np.zeros((50_000, 1), int), 1, rng=np.random.default_rng(0))
    assert set(drawn[:, 1]) == {0, 2}


@pytest.mark.parametrize(
    ("method", "options"),
    [(m, o) for m in METHODS for o in ({}, LLAMA) if (m, o) != ("bitfit", LLAMA)],
    ids=lambda value: value if isinstance(value, str) else "llama" if value else "gpt2",
)
def test_generation_with_any_method_equals_computing_everything_again(method, options):
    """With a cache, but for prompt tuning: its prompt stays in front of the newest symbols."""
    model, rng = make(**options), np.random.default_rng(1)
    lora = LoraConfig(r=2, target_modules=["q_proj", "v_proj"])
    METHODS[method].prepare(model, lora, rng)
    for p in model.trainable_parameters():
        p.data += (0.2 * rng.standard_normal(p.shape)).astype(np.float32)
    again = newest_in_the_block if method == "prompt" else reference
    prompts = rng.integers(13, size=(4, 3))
    greedy = generate(model, prompts, 17, temperature=0)  # past the block's end, twice
    np.testing.assert_array_equal(greedy, again(model, prompts, 17))
    assert len(np.unique(greedy[:, 3:])) > 3
    decoded = {"adapter", "prefix", "prompt", "ia3"}  # these have parts that Decoder does not know
    assert is_plain(model) == (method not in decoded)


def newest_in_the_block(model, ids, new):
    block = model.config.block_size
    for _ in range(new):
        following = model(ids[:, -block:]).data[:, -1].argmax(axis=1)
        ids = np.concatenate([ids, following[:, None]], axis=1)
    return ids


@IN_BOTH_FAMILIES
@pytest.mark.parametrize("method", ["adapter", "prefix"])
def test_only_new_tokens_go_through_a_model_with_added_parts(method, options):
    model = make(**options)
    METHODS[method].prepare(model, LoraConfig(r=2), np.random.default_rng(0))
    ids = np.random.default_rng(1).integers(13, size=(2, 8))
    cache = [KVCache(8) for _ in model.layers]
    with no_grad():
        parts = [model(ids[:, a:b], cache=cache).data for a, b in ((0, 3), (3, 4), (4, 8))]
    assert [c.length for c in cache] == [8, 8]  # the prefix takes no room
    np.testing.assert_allclose(np.concatenate(parts, axis=1), model(ids).data, rtol=1e-4, atol=1e-4)


def test_rows_that_ended_repeat_their_end_and_the_last_one_ends_all():
    model = make()
    prompts = np.random.default_rng(3).integers(13, size=(4, 5))
    whole = generate(model, prompts, 30, temperature=0)[:, 5:]
    end = int(whole[0, 2])
    ends = [np.flatnonzero(row == end)[0] if end in row else 30 for row in whole]
    assert len(set(ends)) > 1
    seen = []
    ids = generate(model, prompts, 30, temperature=0, eos_token_id=end, on_token=seen.append)
    assert ids.shape[1] == 5 + min(30, max(ends) + 1) == 5 + len(seen)
    for row, expected, at in zip(ids[:, 5:], whole, ends, strict=True):
        np.testing.assert_array_equal(row[: at + 1], expected[: at + 1][: len(row)])
        assert (row[at:] == end).all()


def test_a_token_that_ends_no_row_changes_nothing():
    model, absent = make(), Says(np.array([0.0, 0.0, -np.inf]))
    for m, end in ((model, None), (absent, 2)):
        first, again = (
            generate(m, [[1, 0]], 9, rng=np.random.default_rng(0), eos_token_id=e)
            for e in (None, end)
        )
        np.testing.assert_array_equal(first, again)


@pytest.mark.parametrize("sharpness", [0.1, 3, 15])  # at 0.1 the likeliest have little of it
@pytest.mark.parametrize("only", [{}, {"top_k": 40}, {"top_k": 2500}, {"top_p": 0.9}], ids=str)
def test_of_a_large_vocabulary_the_same_is_drawn_as_if_all_of_it_were_in_order(only, sharpness):
    rng = np.random.default_rng(0)
    logits = rng.standard_normal((3, 3000), dtype=np.float32) * np.float32(sharpness)
    order = np.argsort(-logits, axis=1)[:, : only.get("top_k")]
    p = np.exp(np.take_along_axis(logits, order, axis=1) - logits.max(axis=1, keepdims=True))
    p = (p / p.sum(axis=1, keepdims=True)).astype(np.float64)
    p[np.cumsum(p, axis=1) - p >= only.get("top_p", 2)] = 0
    ends = np.cumsum(p, axis=1)
    for _ in range(50):
        u = rng.random((3, 1))
        picked = (ends < u * ends[:, -1:]).sum(axis=1)
        drawn = sampling._sample(logits, only.get("top_k"), only.get("top_p"), u)
        np.testing.assert_array_equal(drawn, order[np.arange(3), picked])


SIZES_OF_TEXT = SIZES | {"vocab_size": len(ALPHABET)}


def test_write_is_generate_on_text():
    model = make(**SIZES_OF_TEXT)
    for options in ({}, dict(temperature=0.9, top_k=5), dict(top_p=0.8), dict(temperature=0)):
        told = {"temperature": 0.7} | options
        ids = generate(model, encode("def "), 30, rng=np.random.default_rng(4), **told)[0]
        assert write(model, "def ", 30, seed=4, **options) == decode(ids)
    assert write(model, "def ", 0) == "def " == write(model, "d\u00e9f\u00a0", 0)


def test_write_stops_before_its_stop_and_shows_what_it_returns():
    model, shown = make(**SIZES_OF_TEXT), []
    whole = write(model, "ab", 40, temperature=0)
    stop = whole[7]
    text = write(model, "ab", 40, temperature=0, stop=stop, on_text=shown.append)
    assert text == "ab" + whole[2:].partition(stop)[0] == "ab" + "".join(shown)
    assert write(model, stop, 5, temperature=0, stop=stop).startswith(stop)


def test_a_model_with_a_prompt_in_front_refuses_a_cache():
    model = make()
    METHODS["prompt"].prepare(model, LoraConfig(r=2), np.random.default_rng(0))
    with no_grad(), pytest.raises(ValueError, match="vectors stand in front .* no cache"):
        model(PROMPT, cache=[KVCache(8), KVCache(8)])


def decoded_and_recomputed(model, ids):
    """Logits after each token but the first: token by token by Decoder, and by the Transformer."""
    cache = [KVCache(model.config.block_size) for _ in model.layers]
    with no_grad():
        model(ids[:, :1], cache=cache)
    decoder = Decoder(model)
    steps = [decoder(ids[:, t], cache) for t in range(1, ids.shape[1])]
    return np.stack(steps, axis=1), model(ids).data[:, 1:]


WIDE = dict(n_embd=512, mlp_hidden=64)  # q and o are so large that weights stay as they are


@pytest.mark.parametrize("transposed", [False, True], ids=["own layout", "Llama's files"])
@pytest.mark.parametrize("adapted", ["plain", "adapted", "merged", "disabled"])
@pytest.mark.parametrize(
    "switches", [{}, LLAMA, WIDE, LLAMA | WIDE, dict(norm="rmsnorm", bias=False)], ids=str
)
def test_decoder_equals_the_transformer(switches, adapted, transposed):
    rng = np.random.default_rng(1)
    config = TransformerConfig(13, 16, **{"n_layer": 2, "n_head": 4, "n_embd": 32} | switches)
    model = Transformer(config, rng=rng)
    for p in model.parameters():
        p.data += rng.standard_normal(p.shape, dtype=np.float32) * np.float32(
            0.1 / 2 ** len(p.shape)
        )
        if transposed and p.ndim == 2:
            p.data = np.asfortranarray(p.data)
    if adapted != "plain":
        random_B = LoraConfig(r=3, target_modules="all-linear", init_lora_weights=False)
        add_adapter(model, random_B, rng=rng)
    if adapted == "merged":
        merge_adapter(model)
    with disable_adapter(model) if adapted == "disabled" else nullcontext():
        assert is_plain(model)
        decoded, recomputed = decoded_and_recomputed(model, rng.integers(13, size=(3, 16)))
    np.testing.assert_allclose(decoded, recomputed, rtol=1e-4, atol=1e-4)


@IN_BOTH_FAMILIES
def test_a_text_is_always_of_the_weights_as_they_are_now(options):
    model = make(**options)
    before = generate(model, PROMPT, 12, temperature=0)
    for _, p in model.named_parameters():
        p.data *= -1.5  # in place, norms and biases too
    now = generate(model, PROMPT, 12, temperature=0)
    np.testing.assert_array_equal(now, reference(model, PROMPT, 12))
    assert not np.array_equal(now, before)


def test_a_decoder_copies_no_large_weight_with_an_adapter_neither():
    sizes = {"n_layer": 2, "n_head": 4} | LLAMA | WIDE | {"mlp_hidden": 1024}
    config = TransformerConfig(13, 16, **sizes)
    model = Transformer(config, rng=np.random.default_rng(0))
    add_adapter(model, LoraConfig(r=2, target_modules="all-linear"), rng=np.random.default_rng(0))
    tracemalloc.start()
    try:
        decoder = Decoder(model)
        copied, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert decoder.layers
    assert copied < 0.2 * sum(p.data.nbytes for p in model.parameters())  # k and v are not large


def test_a_model_with_parts_of_its_own_is_not_decoded_as_a_plain_one():
    model = make()
    assert is_plain(model)
    model.layers[0].mlp.__class__ = type("Gated", (type(model.layers[0].mlp),), {})
    assert not is_plain(model)
    assert not is_plain(Says(np.zeros(3)))
    changed = make()
    changed.layers[1].attn.o_proj.extra = type("Extra", (Module,), {})()
    assert not is_plain(changed)


def test_a_subclass_is_asked_for_every_token():
    class Shifted(Transformer):
        def __call__(self, ids, rng=None, cache=None):
            return super().__call__(ids, rng, cache) * -1

    model = make()
    model.__class__ = Shifted
    new = generate(model, PROMPT, 3, temperature=0)
    for t in range(PROMPT.shape[1], new.shape[1]):
        assert new[0, t] == (-Transformer.__call__(model, new[:, :t]).data[0, -1]).argmax()
