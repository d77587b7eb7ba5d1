"""Claims about the shards of a batch: together they are the batch, whoever computes them.

The whole batch in one piece is the reference. Threads are made to meet, to fail and to wait for
each other here; no claim is about speed.
"""

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from builders import tiny

from minilora import functional as F
from minilora.lora import LoraConfig, add_adapter, lora_layers
from minilora.nn import Module
from minilora.tensor import grad
from minilora.text.windows import IGNORE_INDEX
from minilora.training.parallel import SHARDS, loss_and_gradients
from minilora.transformer import Transformer, TransformerConfig

V, T = 20, 64
METHODS = pytest.mark.parametrize("method", ["full", "lora"])
POOLS = pytest.mark.parametrize("threads", [1, 2, 3])


def make(method="full", dropout=0.0, dtype=np.float64):
    """A model in which no gradient is zero by construction: LoRA's B is not."""
    rng = np.random.default_rng(0)
    model = Transformer(TransformerConfig(V, T, 2, 2, 16, dropout=dropout), rng=rng)
    if method == "lora":
        add_adapter(model, LoraConfig(target_modules="all-linear", lora_dropout=dropout), rng=rng)
        for layer in lora_layers(model).values():
            B = layer.adapters["default"].B
            B.data[...] = rng.standard_normal(B.shape)
    return model.to(dtype)


def draw(rows=8, length=T, seed=1):
    rng = np.random.default_rng(seed)
    return rng.integers(V, size=(rows, length)), rng.integers(V, size=(rows, length))


def of_whole_batch(model, ids, targets):
    loss = F.cross_entropy(model(ids), targets)
    return loss.item(), grad(loss, model.trainable_parameters())


def of_shards(model, ids, targets, *, rng_of_shard=None, pool=None):
    return loss_and_gradients(model, model.trainable_parameters(), ids, targets, rng_of_shard, pool)


def trained(model):
    return [name for name, p in model.named_parameters() if p.requires_grad]


def assert_close(model, found, expected):
    assert found[0] == pytest.approx(expected[0], rel=1e-12)
    for name, g, h in zip(trained(model), found[1], expected[1], strict=True):
        np.testing.assert_allclose(g, h, rtol=1e-12, atol=1e-12, err_msg=name)


def assert_identical(model, found, expected):
    assert found[0] == expected[0]
    for name, g, h in zip(trained(model), found[1], expected[1], strict=True):
        np.testing.assert_array_equal(g, h, err_msg=name)


class Watched(Transformer):
    """Hands the ids of every forward pass to `seen` first."""

    def hidden(self, ids, *args):
        self.seen(ids)
        return super().hidden(ids, *args)


def watched(model, seen):
    model.__class__, model.seen = Watched, seen
    return model


def rows_of_shards(ids, width=16):
    """How many rows each forward pass was given."""
    sizes, config = [], TransformerConfig(V, T, 1, 2, width)
    model = Transformer(config, rng=np.random.default_rng(0))
    of_shards(watched(model, lambda part: sizes.append(len(part))), ids, ids)
    return sizes


def ignoring(fewer):
    """Targets of 8 rows, some of which do not count: `fewer` keeps so many in each row."""
    ids, targets = draw()
    for row, keep in enumerate(fewer):
        targets[row, keep:] = IGNORE_INDEX
    return ids, targets


BATCHES = {
    "even": draw(8),
    "odd": draw(9),
    "very odd": draw(37, 17),
    "uneven targets": ignoring([64, 64, 60, 64, 3, 0, 1, 2]),
    "no target in the first shard": ignoring([0, 0, 0, 0, 64, 1, 0, 7]),
    "no target in the second shard": ignoring([5, 0, 64, 9, 0, 0, 0, 0]),
    "one target in all": ignoring([0, 0, 0, 1, 0, 0, 0, 0]),
    "small": draw(7),
    "one row": draw(1),
    "one symbol": draw(1, 1),
}


@METHODS
def test_no_gradient_is_zero_in_these_models(method):
    model = make(method)
    for name, g in zip(trained(model), of_shards(model, *BATCHES["even"])[1], strict=True):
        assert g.any(), name


@METHODS
@pytest.mark.parametrize("batch", BATCHES.values(), ids=BATCHES)
def test_shards_add_up_to_the_whole_batch(method, batch):
    model = make(method)
    expected = of_whole_batch(model, *batch)
    assert_close(model, of_shards(model, *batch), expected)
    with ThreadPoolExecutor(2) as pool:
        assert_close(model, of_shards(model, *batch, pool=pool), expected)


def test_one_long_row_is_a_batch_too():
    rng = np.random.default_rng(0)
    model = Transformer(TransformerConfig(V, 600, 1, 2, 16), rng=rng).to(np.float64)
    batch = draw(1, 600)  # enough symbols for two shards, of which one would be empty
    with ThreadPoolExecutor(2) as pool:
        assert_close(model, of_shards(model, *batch, pool=pool), of_whole_batch(model, *batch))


@POOLS
@METHODS
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_threads_change_no_bit(method, threads, dtype):
    model = make(method, dropout=0.2, dtype=dtype)
    for batch in BATCHES.values():
        options = dict(rng_of_shard=lambda i: np.random.default_rng((5, i)))
        alone = of_shards(model, *batch, **options)
        with ThreadPoolExecutor(threads) as pool:
            for _ in range(3):
                assert_identical(model, of_shards(model, *batch, **options, pool=pool), alone)


@METHODS
def test_each_shard_draws_dropout_from_a_generator_of_its_own(method):
    model, (ids, targets) = make(method, dropout=0.2), draw(9)
    params = model.trainable_parameters()
    loss, expected = 0.0, [np.zeros_like(p.data) for p in params]
    for i, rows in enumerate([slice(5), slice(5, 9)]):
        logits = model(ids[rows], np.random.default_rng((3, i)))
        part = F.cross_entropy(logits, targets[rows]) * (len(ids[rows]) / 9)
        loss += part.item()
        expected = [g + h for g, h in zip(expected, grad(part, params), strict=True)]
    asked = []

    def rng_of_shard(i):
        asked.append(i)
        return np.random.default_rng((3, i))

    found = of_shards(model, ids, targets, rng_of_shard=rng_of_shard)
    assert asked == [0, 1]
    assert_close(model, found, (loss, expected))
    without = of_shards(model, ids, targets)
    assert without[0] != found[0]  # dropout there was


def test_dropout_of_a_shard_does_not_move_when_another_has_no_targets():
    """A shard that is left out keeps its number, so the one that is left keeps its generator."""
    asked = []
    ids, targets = BATCHES["no target in the first shard"]
    of_shards(make(), ids, targets, rng_of_shard=asked.append)
    assert asked == [1]


def test_batch_below_512_symbols_is_one_shard_and_from_there_on_two():
    assert rows_of_shards(draw(73, 7)[0]) == [73]
    assert rows_of_shards(draw(64, 8)[0]) == [32, 32]
    assert rows_of_shards(draw(103, 5)[0]) == [52, 51]
    assert SHARDS == 2


def test_of_a_model_wider_than_128_fewer_symbols_are_two_shards():
    assert rows_of_shards(draw(36, 7)[0], width=256) == [36]
    assert rows_of_shards(draw(32, 8)[0], width=256) == [16, 16]
    assert rows_of_shards(draw(64, 7)[0], width=128) == [64]


def test_shard_without_targets_is_not_computed():
    ids, targets = BATCHES["no target in the second shard"]
    seen = []
    of_shards(watched(make(), seen.append), ids, targets)
    (part,) = seen
    np.testing.assert_array_equal(part, ids[:4])


def test_the_head_is_computed_only_where_a_target_counts():
    class Counting(Transformer):
        def logits(self, x, *args):
            seen.append(x.shape)
            return super().logits(x, *args)

    seen, model = [], make()
    model.__class__ = Counting
    of_shards(model, *ignoring([5, 1, 0, 2, 64, 64, 64, 64]))
    assert seen == [(5 + 1 + 0 + 2, 16), (4, T, 16)]


def test_shards_are_under_way_at_the_same_time():
    meeting = threading.Barrier(2, timeout=20)  # one after the other would break it
    model = watched(make(), lambda ids: meeting.wait())
    with ThreadPoolExecutor(2) as pool:
        of_shards(model, *draw(), pool=pool)
    assert not meeting.broken


def test_gradients_come_in_the_order_of_the_shards_whichever_is_ready_first():
    model, batch = make(dtype=np.float32), draw()
    expected = of_shards(model, *batch)
    second_begins, first_may_go = threading.Event(), batch[0][0, 0]

    def first_waits(ids):
        if ids[0, 0] == first_may_go and np.array_equal(ids, batch[0][:4]):
            assert second_begins.wait(20)
        else:
            second_begins.set()

    with ThreadPoolExecutor(2) as pool:
        assert_identical(model, of_shards(watched(model, first_waits), *batch, pool=pool), expected)


@METHODS
def test_grad_of_the_parameters_is_left_alone(method):
    model = make(method)
    before = {}
    for i, p in enumerate(model.parameters()):
        p.grad = before[id(p)] = None if i % 2 else np.full(p.shape, 7.0)
    with ThreadPoolExecutor(2) as pool:
        of_shards(model, *draw(), pool=pool)
    for name, p in model.named_parameters():
        assert p.grad is before[id(p)], name
        assert p.grad is None or (p.grad == 7).all(), name


def test_gradients_are_of_the_asked_parameters_in_their_order():
    model, (ids, targets) = make(), draw()
    names, params = zip(*reversed(list(model.named_parameters())), strict=True)
    asked = params[1:4]
    _, found = loss_and_gradients(model, asked, ids, targets)
    _, everything = of_whole_batch(model, ids, targets)
    expected = dict(zip(trained(model), everything, strict=True))
    for name, g in zip(names[1:4], found, strict=True):
        np.testing.assert_allclose(g, expected[name], rtol=1e-12, atol=1e-12, err_msg=name)


@pytest.mark.parametrize("threads", [None, 1, 2])
@pytest.mark.parametrize("row", [0, 7])
def test_exception_in_a_shard_comes_out_and_the_pool_can_go_on(row, threads):
    model, (ids, targets) = make(), draw()
    wrong = ids.copy()
    wrong[row, 3] = V
    pool = ThreadPoolExecutor(threads) if threads else None
    try:
        with pytest.raises(IndexError, match=f"token ids must lie in 0..{V - 1}, got 0..{V}"):
            of_shards(model, wrong, targets, pool=pool)
        assert_close(
            model, of_shards(model, ids, targets, pool=pool), of_whole_batch(model, ids, targets)
        )
    finally:
        if pool:
            pool.shutdown()


@pytest.mark.parametrize("threads", [None, 2])
@pytest.mark.parametrize("bad", [np.nan, np.inf, 1e25])
def test_loss_that_is_no_number_is_returned_without_warnings(bad, threads):
    """pytest turns any warning of NumPy's into an error here, also one in a thread."""
    model = make(dtype=np.float32)
    with np.errstate(invalid="ignore"):
        for name in ("q_proj", "k_proj"):  # of a product that overflows
            model.get_submodule(f"layers.1.attn.{name}").weight.data *= np.float32(bad)
    pool = ThreadPoolExecutor(threads) if threads else None
    try:
        loss, _ = of_shards(model, *draw(), pool=pool)
    finally:
        if pool:
            pool.shutdown()
    assert np.isnan(loss)


@pytest.mark.parametrize("rows", [2, 8])
def test_batch_without_any_target_is_an_error_that_says_so(rows):
    ids, targets = draw(rows)
    targets[:] = IGNORE_INDEX
    with pytest.raises(ValueError, match=r"every target is ignore_index \(-100\)"):
        of_shards(make(), ids, targets)
    with (
        ThreadPoolExecutor(2) as pool,
        pytest.raises(ValueError, match=r"every target is ignore_index \(-100\)"),
    ):
        of_shards(make(), ids, targets, pool=pool)


def test_a_model_with_a_call_of_its_own_is_trained_by_that_call():
    class Twice(Transformer):
        def __call__(self, ids, rng=None, cache=None):
            return super().__call__(ids, rng, cache) * 2.0

    class Alone(Module):
        def __init__(self, inner):
            self.inner = inner

        def __call__(self, ids, rng=None):
            return self.inner(ids, rng)

    plain = tiny()
    twice = Twice(plain.config, rng=np.random.default_rng(0))
    twice.load_state_dict(plain.state_dict())
    ids = np.random.default_rng(0).integers(0, plain.config.vocab_size, (2, 6))
    targets = np.where(np.arange(6) < 3, IGNORE_INDEX, ids)
    for model in (twice, Alone(plain)):
        loss, _ = loss_and_gradients(model, model.parameters(), ids, targets)
        assert loss == pytest.approx(F.cross_entropy(model(ids), targets).item(), rel=1e-6)
