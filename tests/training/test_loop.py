"""Claims about the training loop: what a step is, what it depends on, and how it ends."""

import gc
import importlib
import math
import platform
import signal
import sys
import textwrap
import threading
import tracemalloc
import weakref
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from safetensors.numpy import load_file
from small_runs import (
    CONFIG,
    LORA,
    METHODS,
    assert_same_end,
    assert_same_weights,
    batch,
    checkpointed,
    large_batch,
    make,
)
from threadpoolctl import threadpool_info, threadpool_limits

import minilora as ml
from minilora import functional as F
from minilora.lora_config import LoraConfig
from minilora.optim import AdamW, clip_grad_norm, warmup_cosine
from minilora.text.corpora import load_corpus
from minilora.training.loop import (
    DivergedError,
    History,
    TrainConfig,
    Training,
    TrainingInterrupted,
    run,
    train,
)
from minilora.training.parallel import threads_for_shards
from minilora.training.quality import text_loss
from minilora.transformer import Transformer, TransformerConfig

loop = importlib.import_module("minilora.training.loop")
WHOLE = ((slice(None), 1.0),)


def by_hand(model, draw, c, factors=None, parts=WHOLE):
    """The losses of the loop that one would write, each batch in parts of (rows, share)."""
    params = model.trainable_parameters()
    optimizer = AdamW(params, c.lr, c.betas, weight_decay=c.weight_decay, lr_factors=factors)
    losses = []
    for i in range(c.steps):
        ids, targets = draw(np.random.default_rng((c.seed, i)))
        optimizer.zero_grad()
        loss = 0.0
        for shard, (rows, share) in enumerate(parts):
            logits = model(ids[rows], np.random.default_rng((c.seed, i, 1 + shard)))
            part = F.cross_entropy(logits, targets[rows])
            part = part if share == 1 else part * share
            part.backward()
            loss += part.item()
        assert clip_grad_norm(params, c.clip) > c.clip
        optimizer.lr = c.lr * warmup_cosine(i, c.steps, c.warmup)
        optimizer.step()
        losses.append(loss)
    return losses


@METHODS
def test_training_is_the_loop_in_the_docstring_bit_for_bit(method):
    lines = loop.__doc__.split("\n\n")[2]
    model, twin = make(method), make(method)
    history = train(model, batch, TrainConfig(steps=30, lr=0.02, seed=5))
    params = twin.trainable_parameters()
    losses = []
    names = dict(
        ml=SimpleNamespace(
            cross_entropy=lambda *args: losses.append(F.cross_entropy(*args)) or losses[-1],
            clip_grad_norm=clip_grad_norm,
            warmup_cosine=warmup_cosine,
        ),
        np=np, model=twin, batch=batch, params=params, steps=30, lr=0.02, seed=5,
        optimizer=ml.AdamW(params, lr=0.02, betas=(0.9, 0.99), weight_decay=0.0),
    )  # fmt: skip
    exec(textwrap.dedent(lines), names)
    assert history.losses == [loss.item() for loss in losses]
    assert_same_weights(twin.state_dict(), model.state_dict())


@METHODS
def test_training_is_the_loop_one_would_write_by_hand(method):
    """Bit for bit; the learning rate moves and the clipping bites at every step."""
    c = TrainConfig(12, 0.02, warmup=4, weight_decay=0.1, betas=(0.8, 0.95), clip=0.01, seed=5)
    options = dict(lora=LoraConfig(r=2, lora_dropout=0.2), dropout=0.1)
    model, twin = make(method, **options), make(method, **options)
    assert train(model, batch, c).losses == by_hand(twin, batch, c)
    assert_same_weights(twin.state_dict(), model.state_dict())


@METHODS
def test_a_large_batch_is_trained_on_in_halves_as_one_would_write_by_hand(method):
    """Bit for bit; each half has dropout of its own, and counts by its share of the targets."""
    c = TrainConfig(6, 0.02, warmup=4, weight_decay=0.1, clip=0.01, seed=5)
    options = dict(lora=LoraConfig(r=2, lora_dropout=0.2), dropout=0.1)

    def draw(rng):
        ids, targets = large_batch(rng)
        targets = targets.copy()  # it shares memory with ids
        targets[:3] = -100
        return ids, targets

    model, twin = make(method, **options), make(method, **options)
    halves = ((slice(16), 13 / 29), (slice(16, 32), 16 / 29))
    assert train(model, draw, c).losses == by_hand(twin, draw, c, parts=halves)
    assert_same_weights(twin.state_dict(), model.state_dict())


@pytest.mark.parametrize("ratio", [1, 16])
def test_lora_plus_is_the_loop_with_factors_that_one_would_write_by_hand(ratio):
    model, twin = make("lora"), make("lora")
    c = replace(CONFIG, steps=6, clip=0.01, loraplus_lr_ratio=ratio)
    names = [name for name, p in twin.named_parameters() if p.requires_grad]
    factors = [ratio if name.endswith(".B") else 1 for name in names]
    assert train(model, batch, c).losses == by_hand(twin, batch, c, factors)
    assert_same_weights(twin.state_dict(), model.state_dict())


def test_lora_plus_trains_every_B_at_a_multiple_of_the_rate_and_nothing_else():
    """Also of an adapter that has biases and a norm of its own, sorted behind matrices."""
    lora = replace(LORA, bias="all", modules_to_save=["norm"])
    factors, rates = {}, {}
    for ratio in (1, 16):
        model = make("lora", lora=lora)
        config = replace(CONFIG, steps=1, warmup=1, clip=1e9, loraplus_lr_ratio=ratio)
        before = model.state_dict()
        Training(model, batch, config).step()
        rates[ratio] = {k: np.abs(v - before[k]).max() for k, v in model.state_dict().items()}
    trained = [name for name, p in model.named_parameters() if p.requires_grad]
    for name in trained:  # Adam's first step is as long as the rate, where there is a gradient
        if rates[1][name] > 0.5 * CONFIG.lr:
            factors[name] = rates[16][name] / rates[1][name]
    assert {".B", ".weight", ".bias"} <= {name[name.rindex(".") :] for name in factors}
    for name, factor in factors.items():
        assert factor == pytest.approx(16 if name.endswith(".B") else 1, rel=1e-3), name
    assert sum(name.endswith(".B") for name in factors) == 6


def test_what_corpus_batches_returns_is_a_batch():
    corpus = load_corpus("code")
    model, twin = make(), make()
    losses = train(model, corpus.batches(4, 16), CONFIG).losses
    assert (
        losses
        == train(twin, lambda rng: ml.random_windows(corpus.train, 4, 16, rng), CONFIG).losses
    )


class WhereItRuns(Transformer):
    """Notes the thread of every forward pass in `where`."""

    def hidden(self, *args):
        self.where.append(threading.get_ident())
        return super().hidden(*args)


def trained_in(threads, method, checkpoint=None, steps=None):
    """A Training on large batches with dropout, after its end or some steps, and its threads."""
    model = make(method, lora=replace(LORA, lora_dropout=0.2), dropout=0.1)
    model.__class__, model.where = WhereItRuns, []
    training = Training(model, large_batch, CONFIG, checkpoint=checkpoint, save_every=3)
    if steps is None:
        run([training], threads)
    else:
        with ThreadPoolExecutor(threads) as pool:
            while training.steps_done < steps:
                training.step(pool)
    return training


@METHODS
def test_losses_and_weights_do_not_depend_on_the_threads_to_the_last_bit(method):
    one, two, many = (trained_in(threads, method) for threads in (1, 2, 7))
    assert set(one.model.where) == {threading.get_ident()}
    for other in (two, many):
        assert threading.get_ident() not in other.model.where
        assert_same_end(one, other)


@METHODS
@pytest.mark.parametrize(("before", "after"), [(2, 1), (1, 2)])
def test_a_checkpoint_is_gone_on_from_with_another_number_of_threads(
    method, before, after, tmp_path
):
    whole = trained_in(before, method)
    trained_in(before, method, tmp_path / "c", steps=5)
    resumed = trained_in(after, method, tmp_path / "c")
    assert len(resumed.model.where) == 2 * (CONFIG.steps - 3)  # on from step 3, in two shards
    assert_same_end(whole, resumed)


@pytest.mark.parametrize(
    ("cores", "threads", "workers"),
    [(1, None, []), (2, None, [2]), (64, None, [2]), (64, 1, []), (1, 2, [2]), (1, 3, [2])],
)
def test_threads_are_as_many_as_usable_cores_and_at_most_two(cores, threads, workers, monkeypatch):
    started = []

    def pool(workers):
        started.append(workers)
        return ThreadPoolExecutor(workers)

    monkeypatch.setattr(loop, "usable_cores", lambda: cores)
    monkeypatch.setattr("concurrent.futures.ThreadPoolExecutor", pool)
    train(make(), batch, CONFIG, threads)
    assert started == workers


def test_the_threads_end_with_the_training():
    before = threading.active_count()
    train(make(), large_batch, CONFIG, 2)
    with pytest.raises(DivergedError):
        train(make(), large_batch, replace(CONFIG, lr=1e20), 2)
    assert threading.active_count() == before


@pytest.mark.parametrize("terminal", [False, True])
def test_training_needs_no_threads_at_all(terminal, monkeypatch):
    """As in a browser, where Python cannot start any."""

    def refuse(self):
        raise RuntimeError("can't start new thread")

    expected = train(make(), large_batch, CONFIG, 1).losses
    monkeypatch.setattr(threading.Thread, "start", refuse)
    monkeypatch.setattr(sys, "platform", "emscripten")
    monkeypatch.setattr(platform, "libc_ver", lambda: ("emscripten", "4"))
    monkeypatch.setattr(sys.stderr, "isatty", lambda: terminal, raising=False)
    assert train(make(), large_batch, CONFIG).losses == expected


def test_the_learning_rate_rises_to_lr_and_falls_to_a_tenth():
    training = Training(make(), batch, TrainConfig(steps=50, lr=0.004, warmup=5))
    rates = []
    while not training.done:
        training.step()
        rates.append(training.optimizer.lr)
    assert rates[0] == pytest.approx(0.004 / 5, rel=1e-3)
    assert max(rates) == rates[4] == pytest.approx(0.004, rel=0.02)
    assert rates[-1] == pytest.approx(0.0004, rel=0.02)


def test_a_step_returns_the_loss_before_its_update():
    model = make()
    ids, targets = batch(np.random.default_rng((0, 0)))
    before = F.cross_entropy(model(ids), targets).item()
    training = Training(model, batch, CONFIG)
    assert training.step() == before == training.history.losses[0]
    assert F.cross_entropy(model(ids), targets).item() < before
    assert training.steps_done == 1 and not training.done


@METHODS
def test_history_has_a_loss_and_a_time_for_every_step(method):
    history = train(make(method), batch, CONFIG)
    assert len(history.losses) == len(history.seconds) == 10
    assert all(type(loss) is float and math.isfinite(loss) for loss in history.losses)
    assert all(seconds > 0 for seconds in history.seconds)


def test_seconds_per_step_is_the_median_and_nan_before_the_first():
    assert History(seconds=[1.0, 2.0, 90.0]).seconds_per_step == 2
    assert math.isnan(History().seconds_per_step)


def test_real_text_is_learned_and_both_methods_take_a_base_to_new_text():
    base = Transformer(TransformerConfig(96, 16, 1, 2, 16), rng=np.random.default_rng(0))
    code, prose = load_corpus("code"), load_corpus("prose")
    fresh = text_loss(base, prose.test, 64)
    losses = train(base, prose.batches(4, 16), TrainConfig(steps=400, lr=1e-2)).losses
    assert np.mean(losses[-10:]) < np.mean(losses[:3]) - 1
    assert text_loss(base, prose.test, 64) < fresh - 1
    weights, before = base.state_dict(), text_loss(base, code.test, 64)
    for method, fall, rate in (("full", 0.3, 1e-2), ("lora", 0.15, 4e-2)):
        model = Transformer(base.config, rng=np.random.default_rng(0))
        model.load_state_dict(weights)
        if method == "lora":
            ml.add_adapter(model, LORA, rng=np.random.default_rng(0))
        assert text_loss(model, code.test, 64) == before
        losses = train(model, code.batches(16, 16), TrainConfig(100, rate)).losses
        assert np.mean(losses[-10:]) < np.mean(losses[:10]) - fall, method
        assert text_loss(model, code.test, 64) < before - fall, method


def test_both_methods_see_the_same_batches():
    seen = {"full": [], "lora": []}
    for method, drawn in seen.items():
        model = make(method, dropout=0.1 if method == "lora" else 0)
        train(model, lambda rng, drawn=drawn: drawn.append(batch(rng)) or drawn[-1], CONFIG)
    assert len(seen["full"]) == CONFIG.steps
    for a, b in zip(seen["full"], seen["lora"], strict=True):
        np.testing.assert_array_equal(a, b)
    assert not np.array_equal(seen["full"][0][0], seen["full"][1][0])


def dropping(method, p):
    """Options of `make` for a model of either method that drops a share p while it trains."""
    return dict(dropout=p) if method == "full" else dict(lora=replace(LORA, lora_dropout=p))


@METHODS
@pytest.mark.parametrize("p", [0.0, 0.2])
def test_the_seed_decides_every_loss_bit_for_bit(method, p):
    first, again, other = (
        train(make(method, **dropping(method, p)), batch, replace(CONFIG, seed=seed)).losses
        for seed in (0, 0, 1)
    )
    assert first == again != other


@METHODS
def test_dropout_changes_the_training_and_not_the_evaluation(method):
    ids, targets = batch(np.random.default_rng(99))

    def evaluate(model):
        return F.cross_entropy(model(ids), targets).item()

    plain, dropped = (
        train(make(method, **dropping(method, p)), batch, CONFIG, evaluate=evaluate)
        for p in (0.0, 0.3)
    )
    assert plain.losses != dropped.losses
    assert plain.evaluations[0] == dropped.evaluations[0]  # before the first step
    assert plain.evaluations[1] != dropped.evaluations[1]


def test_lora_trains_the_adapter_and_leaves_the_base_byte_for_byte():
    model = make("lora")
    before = model.state_dict()
    training = Training(model, batch, CONFIG)
    run([training])
    for name, p in model.named_parameters():
        same = p.data.tobytes() == before[name].tobytes()
        assert same == (not p.requires_grad), name
        assert p.grad is None, name
    trainable, total = ml.count_parameters(model)
    assert training.optimizer.state_bytes == 2 * 4 * trainable < 2 * 4 * total / 5


@pytest.mark.parametrize(("draw", "shards"), [(batch, 1), (large_batch, 2)])
def test_activations_die_after_their_step_without_the_garbage_collector(draw, shards):
    class Watched(Transformer):
        def logits(self, *args):
            out = super().logits(*args)
            alive.extend(map(weakref.ref, (out, out.data, out.node.edges[0][1])))
            return out

    alive, in_use = [], []
    model = make(dropout=0.1)
    model.__class__ = Watched
    training = Training(model, draw, replace(CONFIG, steps=20))
    gc.collect()
    gc.disable()
    tracemalloc.start()
    try:
        with ThreadPoolExecutor(shards) as pool:
            for step in range(1, 16):
                training.step(pool)
                assert len(alive) == 3 * shards * step
                assert not any(ref() is not None for ref in alive)
                in_use.append(bytes_in_arrays())
    finally:
        tracemalloc.stop()
        gc.enable()
    smallest = 4 * 4 * 16 * 16  # bytes of one activation (B, T, C)
    assert in_use[14] - in_use[4] < smallest, f"it grew by {in_use[14] - in_use[4]} bytes"


def bytes_in_arrays():
    ours = tracemalloc.DomainFilter(inclusive=True, domain=np.lib.tracemalloc_domain)
    return sum(trace.size for trace in tracemalloc.take_snapshot().filter_traces([ours]).traces)


@pytest.mark.parametrize(
    ("every", "steps"), [(0, [0, 10]), (4, [0, 4, 8, 10]), (5, [0, 5, 10]), (50, [0, 10])]
)
def test_evaluations_are_at_both_ends_and_every_so_many_steps(every, steps):
    drawn = []
    history = train(
        make(),
        lambda rng: drawn.append(0) or batch(rng),
        CONFIG,
        evaluate=lambda model: len(drawn),
        evaluate_every=every,
    )
    assert history.evaluations == [(step, step) for step in steps]


def test_a_first_step_that_failed_is_repeated_without_a_second_evaluation():
    def fail(rng):
        raise RuntimeError("no data yet")

    training = Training(make(), fail, CONFIG, evaluate=lambda model: 1.0)
    with pytest.raises(RuntimeError, match="no data yet"):
        training.step()
    training.batch = batch
    training.step()
    assert training.history.evaluations == [(0, 1.0)]


def test_without_evaluate_there_are_no_evaluations():
    assert train(make(), batch, CONFIG).evaluations == []


def test_the_evaluation_is_given_the_model_in_training():
    model, seen = make(), []
    train(model, batch, CONFIG, evaluate=lambda m: seen.append(m) or 0.0)
    assert len(seen) == 2 and all(m is model for m in seen)


def step_until(training, error):
    """The message of the error, and all state as it was before the failed step."""
    while True:
        before = {**training.model.state_dict(), **training.optimizer.state()}
        before = {key: np.array(value) for key, value in before.items()}
        try:
            training.step()
        except error as caught:
            return str(caught), before
        assert not training.done, "it should have failed"


def assert_unchanged(training, before):
    assert_same_weights(before, {**training.model.state_dict(), **training.optimizer.state()})


@METHODS
@pytest.mark.parametrize("lr", [1e20, 1e30])
def test_a_rate_that_is_too_high_diverges_without_harm_and_without_warnings(method, lr, tmp_path):
    """pytest turns any warning of NumPy's into an error here."""
    c = replace(CONFIG, lr=lr, warmup=1)
    path = tmp_path / "c"
    training = Training(make(method), batch, c, name="huge", checkpoint=path, save_every=1)
    message, before = step_until(training, DivergedError)
    step = training.steps_done
    assert step >= 1
    assert message.startswith("huge: the loss is ") and f" at step {step} " in message
    assert f"the last good checkpoint, {path}, is of step {step}" in message
    assert f"Use a learning rate below {lr:g}" in message
    assert_unchanged(training, before)
    assert all(np.isfinite(p.data).all() for p in training.model.parameters())
    assert all(np.isfinite(part).all() for part in load_file(path).values())
    again = Training(make(method), batch, c, checkpoint=path)
    assert again.history == training.history
    assert_same_weights(training.model.state_dict(), again.model.state_dict())


@METHODS
@pytest.mark.parametrize("lr", [1e20, 1e30])
def test_divergence_in_threads_is_that_of_one_thread_and_without_warnings(method, lr):
    messages = set()
    for threads in (1, 2):
        with pytest.raises(DivergedError) as caught:
            train(make(method), large_batch, replace(CONFIG, lr=lr, warmup=1), threads)
        messages.add(str(caught.value))
    assert len(messages) == 1


def test_the_last_good_checkpoint_may_be_older_than_the_failed_step(tmp_path):
    training = checkpointed(tmp_path / "c", steps_before_stop=5)
    training.optimizer.flat[:] = np.nan
    message, _ = step_until(training, DivergedError)
    assert "the loss is nan at step 5" in message and "is of step 3." in message
    assert checkpointed(tmp_path / "c").steps_done == 3


@METHODS
@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("checkpoint", [None, "c"])
def test_weights_that_came_damaged_are_named_and_the_rate_is_not_blamed(
    method, bad, checkpoint, tmp_path
):
    model = make(method)
    path = "layers.0.mlp.up_proj" + (".base" if method == "lora" else "") + ".weight"
    dict(model.named_parameters())[path].data[3, 4] = bad
    file = tmp_path / checkpoint if checkpoint else None
    training = Training(model, batch, CONFIG, checkpoint=file)
    message, before = step_until(training, ValueError)
    assert f"weights that are not finite numbers, in {path}; load it anew" in message
    assert "rate" not in message
    assert_unchanged(training, before)
    assert list(tmp_path.iterdir()) == [] and training.history == History()


def test_weights_too_large_to_compute_with_are_not_blamed_on_the_rate():
    model = make()
    for p in model.parameters():
        p.data *= np.float32(1e30)
    message, _ = step_until(Training(model, batch, CONFIG), DivergedError)
    assert "at step 0" in message and "before any update" in message and "rate" not in message


def test_a_gradient_that_is_not_finite_is_found_though_the_loss_is(monkeypatch):
    training = Training(make(), batch, CONFIG)
    training.step()
    monkeypatch.setattr(loop, "clip_grad_norm", lambda *args: math.inf)
    message, before = step_until(training, DivergedError)
    assert "at step 1 and its gradient is not finite; no checkpoint was kept." in message
    assert_unchanged(training, before)


def test_train_passes_the_divergence_on():
    with pytest.raises(DivergedError, match="training: the loss"):
        train(make(), batch, replace(CONFIG, lr=1e20))


def test_several_trainings_step_in_turn_and_all_reach_their_end():
    order = []

    def noting(name):
        return lambda rng: order.append(name) or batch(rng)

    a = Training(make(), noting("a"), replace(CONFIG, steps=3))
    b = Training(make("lora"), noting("b"), replace(CONFIG, steps=5))
    run(training for training in (a, b))
    assert a.done and b.done
    assert "".join(order) == "abababbb"
    assert a.history.losses == train(make(), batch, replace(CONFIG, steps=3)).losses
    assert b.history.losses == train(make("lora"), batch, replace(CONFIG, steps=5)).losses


@pytest.fixture
def terminal(monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)


@pytest.fixture
def notebook(monkeypatch):
    """A kernel without ipywidgets, whose stderr is no terminal."""
    shell = SimpleNamespace(kernel=object(), config={"IPKernelApp": {}})
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: shell))
    monkeypatch.setitem(sys.modules, "ipywidgets", None)
    for name in ("tqdm.auto", "tqdm.autonotebook", "tqdm.notebook"):
        monkeypatch.delitem(sys.modules, name, raising=False)


def test_nothing_is_printed_where_nobody_looks(capfd):
    train(make(), batch, CONFIG)
    assert capfd.readouterr() == ("", "")


def test_a_pipe_hears_every_tenth_of_the_way_if_it_asks(capfd):
    told = []
    trainings = [Training(make(), batch, replace(CONFIG, steps=n), name=f"of {n}") for n in (25, 5)]
    run(trainings, say=told.append)
    assert [line.partition(",")[0] for line in told] == [
        f"step {n} of 25" for n in (3, 5, 8, 10, 13, 15, 18, 20, 23, 25)
    ]
    losses = [t.history.losses[-1] for t in trainings]
    assert told[-1] == f"step 25 of 25, loss: of 25 {losses[0]:.3f}, of 5 {losses[1]:.3f}"


def test_a_terminal_has_a_bar_instead(terminal):
    told = []
    run([Training(make(), batch, CONFIG)], say=told.append)
    assert told == []


@pytest.mark.parametrize("place", ["terminal", "notebook"])
@pytest.mark.parametrize("quiet", [False, True])
def test_a_bar_shows_name_and_loss_to_a_person_unless_quiet(place, quiet, capsys, request):
    request.getfixturevalue(place)
    train(make(), batch, CONFIG, name="mine", quiet=quiet)
    shown, other = capsys.readouterr()
    if place == "terminal":
        shown, other = other, shown
    assert other == ""
    assert shown == "" if quiet else all(part in shown for part in ("mine", "10/10", "loss="))


@pytest.mark.parametrize("place", ["terminal", "notebook"])
def test_tqdms_own_switch_turns_the_bar_off_everywhere(place, capfd, request, monkeypatch):
    request.getfixturevalue(place)
    monkeypatch.setenv("TQDM_DISABLE", "1")
    train(make(), batch, CONFIG)
    assert capfd.readouterr() == ("", "")


def test_training_uses_one_blas_thread_and_gives_the_others_back():
    def threads():
        return [lib["num_threads"] for lib in threadpool_info() if lib["user_api"] == "blas"]

    inside = []
    with threadpool_limits(2):
        before = threads()
        train(make(), lambda rng: inside.append(threads()) or batch(rng), CONFIG)
        assert threads() == before and max(before) > 1
    assert inside == [[1] * len(before)] * CONFIG.steps


@pytest.mark.parametrize("first_ends_first", [True, False])
def test_threads_take_short_turns_until_the_training_that_began_first_has_ended(first_ends_first):
    before = sys.getswitchinterval()
    first, second = threads_for_shards(2), threads_for_shards(2)
    with ExitStack() as one, ExitStack() as other:
        one.enter_context(first)
        short = sys.getswitchinterval()
        other.enter_context(second)
        assert short == sys.getswitchinterval() < before
        (one if first_ends_first else other).close()
        assert sys.getswitchinterval() == (before if first_ends_first else short)
    assert sys.getswitchinterval() == before


def interrupting(at_step, times=1):
    """Batches that press Ctrl-C while the given step is under way."""
    calls = []

    def draw(rng):
        if len(calls) == at_step:
            for _ in range(times):
                signal.raise_signal(signal.SIGINT)
        calls.append(0)
        return batch(rng)

    return draw


@pytest.fixture
def handler():
    """Somebody's own handler of Ctrl-C, which training must put back."""

    def mine(number, frame):
        raise AssertionError("the handler of before was called during training")

    before = signal.signal(signal.SIGINT, mine)
    yield mine
    assert signal.getsignal(signal.SIGINT) is mine
    signal.signal(signal.SIGINT, before)


@METHODS
def test_ctrl_c_finishes_the_step_and_saves_and_the_run_goes_on(method, tmp_path, handler):
    whole = checkpointed(None, method)
    run([whole])
    training = checkpointed(tmp_path / "c", method, save_every=100)
    training.batch, training.name = interrupting(4), "mine"
    with pytest.raises(TrainingInterrupted) as caught:
        run([training])
    assert str(caught.value) == (
        "stopped: mine at step 5 of 10. All is saved; the same command goes on from here"
    )
    assert isinstance(caught.value, KeyboardInterrupt)
    assert training.steps_done == 5 and signal.getsignal(signal.SIGINT) is handler
    resumed = checkpointed(tmp_path / "c", method)
    assert resumed.steps_done == 5
    run([resumed])
    assert_same_end(whole, resumed)


def test_ctrl_c_without_a_checkpoint_says_that_nothing_is_saved(handler):
    with pytest.raises(TrainingInterrupted, match=r"step 3 of 10\. There is no checkpoint file"):
        train(make(), interrupting(2), CONFIG)


def test_ctrl_c_stops_every_training_after_its_turn(tmp_path):
    a, b = (checkpointed(tmp_path / name, save_every=100, name=name) for name in "ab")
    a.batch = interrupting(1)
    with pytest.raises(TrainingInterrupted, match="stopped: a at step 2 of 10, b at step 2 of 10"):
        run([a, b])
    assert checkpointed(tmp_path / "a").steps_done == checkpointed(tmp_path / "b").steps_done == 2


def test_a_second_ctrl_c_interrupts_at_once(tmp_path, handler):
    training = checkpointed(tmp_path / "c", save_every=100)
    training.batch = interrupting(4, times=2)
    with pytest.raises(KeyboardInterrupt) as caught:
        run([training])
    assert caught.type is KeyboardInterrupt
    assert training.steps_done == 4 and not (tmp_path / "c").exists()


def test_the_handler_of_before_is_back_after_the_end_and_after_an_error(handler):
    train(make(), batch, CONFIG)
    assert signal.getsignal(signal.SIGINT) is handler
    with pytest.raises(DivergedError):
        train(make(), batch, replace(CONFIG, lr=1e20))


def test_training_works_outside_the_main_thread_and_leaves_ctrl_c_alone(handler):
    seen = []

    def draw(rng):
        seen.append(signal.getsignal(signal.SIGINT))
        return batch(rng)

    with ThreadPoolExecutor(1) as other:
        losses = other.submit(train, make(), draw, CONFIG).result().losses
    assert seen == [handler] * CONFIG.steps
    assert losses == train(make(), batch, CONFIG).losses
