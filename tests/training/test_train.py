"""Claims about the training loop: what a step is, and that no run is ever lost or mixed up.

Real processes are killed and interrupted here, in lockstep with the test: the child announces each
step and waits for a line, so that it is known where the signal strikes.
"""

import errno
import gc
import importlib
import json
import math
import random
import signal
import subprocess
import sys
import textwrap
import threading
import tracemalloc
import weakref
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file, save_file
from threadpoolctl import threadpool_info, threadpool_limits

from minilora import functional as F
from minilora.lora import LoraConfig, add_adapter
from minilora.methods.trainable import count_parameters
from minilora.optim import AdamW, clip_grad_norm, warmup_cosine
from minilora.text.corpora import load_corpus
from minilora.text.windows import random_windows
from minilora.training.loop import (
    DivergedError,
    History,
    TrainConfig,
    Training,
    TrainingInterrupted,
    run,
    train,
)
from minilora.training.quality import text_loss
from minilora.transformer import Transformer, TransformerConfig

train_module = importlib.import_module("minilora.training.loop")  # minilora.train is the function

SIZES = dict(vocab_size=96, block_size=16, n_layer=1, n_head=2, n_embd=16)
CONFIG = TrainConfig(steps=10, lr=1e-2, warmup=3)
METHODS = pytest.mark.parametrize("method", ["full", "lora"])


def make(method="full", seed=0, lora=None, **options):
    model = Transformer(
        TransformerConfig(**{**SIZES, **options}), rng=np.random.default_rng((seed, 0))
    )
    if method == "lora":
        config = lora or LoraConfig(r=2, lora_alpha=8, target_modules="all-linear")
        add_adapter(model, config, rng=np.random.default_rng((seed, 1)))
    return model


def batch(rng, text="prose", rows=4):
    return random_windows(load_corpus(text).train, rows, 16, rng)


def large_batch(rng):
    """512 symbols, which are computed in two shards."""
    return batch(rng, rows=32)


def code_batch(rng):
    return batch(rng, "code")


def assert_same_weights(first, second):
    for name, value in first.items():
        np.testing.assert_array_equal(second[name], value, err_msg=name)


@METHODS
def test_training_is_the_loop_one_would_write_by_hand(method):
    """Bit for bit; the learning rate moves and the clipping bites at every step."""
    c = TrainConfig(12, 0.02, warmup=4, weight_decay=0.1, betas=(0.8, 0.95), clip=0.01, seed=5)
    lora = LoraConfig(r=2, lora_dropout=0.2)
    model = make(method, lora=lora, dropout=0.1)
    history = train(model, batch, c)

    twin = make(method, lora=lora, dropout=0.1)
    params = twin.trainable_parameters()
    optimizer = AdamW(params, c.lr, c.betas, weight_decay=c.weight_decay)
    losses = []
    for i in range(c.steps):
        ids, targets = batch(np.random.default_rng((c.seed, i)))
        loss = F.cross_entropy(twin(ids, np.random.default_rng((c.seed, i, 1))), targets)
        optimizer.zero_grad()
        loss.backward()
        assert clip_grad_norm(params, c.clip) > c.clip
        optimizer.lr = c.lr * warmup_cosine(i, c.steps, c.warmup)
        optimizer.step()
        losses.append(loss.item())
    assert history.losses == losses
    assert_same_weights(twin.state_dict(), model.state_dict())


def test_lora_plus_trains_every_lora_B_at_a_multiple_of_the_rate_and_nothing_else():
    """Also of an adapter that has biases and a norm of its own, sorted behind matrices."""
    lora = LoraConfig(r=2, target_modules="all-linear", bias="all", modules_to_save=["norm"])
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
    assert {name.split(".")[-2] for name in factors} >= {"default", "norm", "base"}
    for name, factor in factors.items():
        assert factor == pytest.approx(16 if name.endswith(".B") else 1, rel=1e-3), name
    assert sum(name.endswith(".B") for name in factors) == 6


@pytest.mark.parametrize("ratio", [1, 16])
def test_lora_plus_is_the_loop_with_factors_that_one_would_write_by_hand(ratio):
    model, twin = make("lora"), make("lora")
    c = replace(CONFIG, steps=6, loraplus_lr_ratio=ratio)
    losses = train(model, batch, c).losses
    names = [name for name, p in twin.named_parameters() if p.requires_grad]
    params = twin.trainable_parameters()
    factors = [ratio if name.endswith(".B") else 1 for name in names]
    optimizer = AdamW(params, c.lr, c.betas, weight_decay=0, lr_factors=factors)
    for i in range(c.steps):
        ids, targets = batch(np.random.default_rng((c.seed, i)))
        loss = F.cross_entropy(twin(ids), targets)
        assert loss.item() == losses[i]
        optimizer.zero_grad()
        loss.backward()
        clip_grad_norm(params, c.clip)
        optimizer.lr = c.lr * warmup_cosine(i, c.steps, c.warmup)
        optimizer.step()
    assert_same_weights(twin.state_dict(), model.state_dict())


def test_a_run_of_lora_plus_goes_on_from_its_checkpoint_bit_for_bit(tmp_path):
    config = replace(CONFIG, loraplus_lr_ratio=16)
    undisturbed, model = make("lora"), make("lora")
    train(undisturbed, batch, config)
    first = Training(model, batch, config, checkpoint=tmp_path / "c", save_every=4)
    for _ in range(6):
        first.step()
    again = make("lora")
    second = Training(again, batch, config, checkpoint=tmp_path / "c")
    assert second.steps_done == 4
    run([second])
    assert_same_weights(undisturbed.state_dict(), again.state_dict())
    with pytest.raises(ValueError, match="another run .it differs in: loraplus_lr_ratio"):
        Training(make("lora"), batch, CONFIG, checkpoint=tmp_path / "c")


@METHODS
def test_a_large_batch_is_trained_on_in_halves_as_one_would_write_by_hand(method):
    """Bit for bit; each half has dropout of its own, and counts by its share of the targets."""
    c = TrainConfig(6, 0.02, warmup=4, weight_decay=0.1, seed=5)
    lora = LoraConfig(r=2, lora_dropout=0.2)

    def draw(rng):
        ids, targets = large_batch(rng)
        targets = targets.copy()  # it shares memory with ids
        targets[:3] = -100
        return ids, targets

    model = make(method, lora=lora, dropout=0.1)
    history = train(model, draw, c)

    twin = make(method, lora=lora, dropout=0.1)
    params = twin.trainable_parameters()
    optimizer = AdamW(params, c.lr, c.betas, weight_decay=c.weight_decay)
    losses = []
    for i in range(c.steps):
        ids, targets = draw(np.random.default_rng((c.seed, i)))
        optimizer.zero_grad()
        loss = 0.0
        for half, (rows, share) in enumerate([(slice(16), 13 / 29), (slice(16, 32), 16 / 29)]):
            logits = twin(ids[rows], np.random.default_rng((c.seed, i, 1 + half)))
            part = F.cross_entropy(logits, targets[rows]) * share
            part.backward()
            loss += part.item()
        clip_grad_norm(params, c.clip)
        optimizer.lr = c.lr * warmup_cosine(i, c.steps, c.warmup)
        optimizer.step()
        losses.append(loss)
    assert history.losses == losses
    assert_same_weights(twin.state_dict(), model.state_dict())


class WhereItRuns(Transformer):
    """Notes the thread of every forward pass in `where`."""

    def __call__(self, *args):
        self.where.append(threading.get_ident())
        return super().__call__(*args)


def trained_in(threads, method, checkpoint=None, steps=None):
    """A Training on large batches with dropout, after its end or some steps, and its threads."""
    lora = LoraConfig(r=2, lora_alpha=8, target_modules="all-linear", lora_dropout=0.2)
    model = make(method, lora=lora, dropout=0.1)
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
        assert other.history.losses == one.history.losses
        assert_same_weights(one.model.state_dict(), other.model.state_dict())


@METHODS
@pytest.mark.parametrize(("before", "after"), [(2, 1), (1, 2)])
def test_a_checkpoint_is_gone_on_from_with_another_number_of_threads(
    method, before, after, tmp_path
):
    whole = trained_in(before, method)
    trained_in(before, method, tmp_path / "c", steps=5)
    resumed = trained_in(after, method, tmp_path / "c")
    assert len(resumed.model.where) == 2 * (CONFIG.steps - 3)  # on from step 3, in two shards
    assert resumed.history.losses == whole.history.losses
    assert_same_weights(whole.model.state_dict(), resumed.model.state_dict())


@pytest.mark.parametrize("threads", [0, -2])
def test_less_than_one_thread_is_refused(threads):
    with pytest.raises(ValueError, match=f"whole number of at least 1, got {threads}"):
        train(make(), batch, CONFIG, threads)
    with pytest.raises(ValueError, match=f"whole number of at least 1, got {threads}"):
        run([], threads)


@pytest.mark.parametrize(
    ("cores", "threads", "workers"),
    [(1, None, []), (2, None, [2]), (64, None, [2]), (64, 1, []), (1, 2, [2]), (1, 3, [2])],
)
def test_threads_are_as_many_as_usable_cores_and_at_most_two(cores, threads, workers, monkeypatch):
    started = []

    def pool(workers):
        started.append(workers)
        return ThreadPoolExecutor(workers)

    monkeypatch.setattr(train_module, "usable_cores", lambda: cores)
    monkeypatch.setattr(train_module, "ThreadPoolExecutor", pool)
    train(make(), batch, CONFIG, threads)
    assert started == workers


def test_the_threads_end_with_the_training():
    before = threading.active_count()
    train(make(), large_batch, CONFIG, 2)
    with pytest.raises(DivergedError):
        train(make(), large_batch, replace(CONFIG, lr=1e20), 2)
    assert threading.active_count() == before


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
    base, code, prose = make(), load_corpus("code"), load_corpus("prose")
    fresh = text_loss(base, prose.test, 64)
    losses = train(base, batch, TrainConfig(steps=400, lr=1e-2)).losses
    assert np.mean(losses[-10:]) < np.mean(losses[:3]) - 1
    assert text_loss(base, prose.test, 64) < fresh - 1
    weights, before = base.state_dict(), text_loss(base, code.test, 64)
    for method, fall in (("full", 0.3), ("lora", 0.15)):
        model = make(method)
        own = dict(model.named_parameters())
        for name, value in weights.items():
            head, _, leaf = name.rpartition(".")
            own[name if name in own else f"{head}.base.{leaf}"].data[...] = value
        assert text_loss(model, code.test, 64) == before
        rate = 1e-2 if method == "full" else 4e-2
        losses = train(model, lambda rng: batch(rng, "code", 16), TrainConfig(100, rate)).losses
        assert np.mean(losses[-10:]) < np.mean(losses[:10]) - fall, method
        assert text_loss(model, code.test, 64) < before - fall, method


def recorded(draw):
    """The same batches, and a list of what was drawn."""
    drawn = []

    def watched(rng):
        drawn.append(draw(rng))
        return drawn[-1]

    return watched, drawn


def test_both_methods_see_the_same_batches():
    seen = {}
    for method in ("full", "lora"):
        watched, seen[method] = recorded(batch)
        train(make(method, dropout=0.1 if method == "lora" else 0), watched, CONFIG)
    assert len(seen["full"]) == CONFIG.steps
    for a, b in zip(seen["full"], seen["lora"], strict=True):
        np.testing.assert_array_equal(a, b)
    assert not np.array_equal(seen["full"][0][0], seen["full"][1][0])


@METHODS
@pytest.mark.parametrize("dropout", [0.0, 0.2])
def test_the_seed_decides_every_loss_bit_for_bit(method, dropout):
    lora = LoraConfig(r=2, lora_alpha=8, lora_dropout=dropout)
    options = dict(dropout=dropout) if method == "full" else dict(lora=lora)
    first, again = (train(make(method, **options), batch, CONFIG).losses for _ in range(2))
    assert first == again
    assert train(make(method, **options), batch, replace(CONFIG, seed=1)).losses != first


@METHODS
def test_dropout_changes_the_training_and_not_the_evaluation(method):
    def options(p):
        return dict(dropout=p) if method == "full" else dict(lora=LoraConfig(lora_dropout=p))

    def evaluate(model):
        return text_loss(model, load_corpus("prose").val, 8)

    plain, dropping = (
        train(make(method, **options(p)), batch, CONFIG, evaluate=evaluate) for p in (0.0, 0.3)
    )
    assert plain.losses != dropping.losses
    assert plain.evaluations[0] == dropping.evaluations[0]  # before the first step
    assert plain.evaluations[1] != dropping.evaluations[1]


def test_lora_trains_the_adapter_and_leaves_the_base_byte_for_byte():
    model = make("lora")
    before = model.state_dict()
    training = Training(model, batch, CONFIG)
    run([training])
    for name, p in model.named_parameters():
        same = p.data.tobytes() == before[name].tobytes()
        assert same == (not p.requires_grad), name
        assert p.grad is None, name
    trainable, total = count_parameters(model)
    assert training.optimizer.state_bytes == 2 * 4 * trainable < 2 * 4 * total / 5


def test_activations_die_after_their_step_without_the_garbage_collector():
    class Watched(Transformer):
        def __call__(self, *args):
            out = super().__call__(*args)
            backward = out.node.edges[0][1]
            alive.extend(map(weakref.ref, (out, out.data, backward)))
            return out

    alive = []
    model = make(dropout=0.1)
    model.__class__ = Watched
    training = Training(model, batch, replace(CONFIG, steps=20))
    gc.collect()
    gc.disable()
    tracemalloc.start()
    try:
        in_use = []
        for _ in range(15):
            training.step()
            assert not any(ref() is not None for ref in alive)
            in_use.append(bytes_in_arrays())
    finally:
        tracemalloc.stop()
        gc.enable()
    assert len(alive) == 3 * 15
    smallest = 4 * 4 * 16 * 16  # bytes of one activation (B, T, C)
    assert in_use[14] - in_use[4] < smallest, f"it grew by {in_use[14] - in_use[4]} bytes"


def test_activations_in_threads_die_after_their_step_too():
    class Watched(Transformer):
        def __call__(self, *args):
            out = super().__call__(*args)
            alive.extend(map(weakref.ref, (out, out.data, out.node.edges[0][1])))
            return out

    alive = []
    model = make(dropout=0.1)
    model.__class__ = Watched
    training = Training(model, large_batch, CONFIG)
    gc.collect()
    gc.disable()
    try:
        with ThreadPoolExecutor(2) as pool:
            for step in range(1, 6):
                training.step(pool)
                assert len(alive) == 3 * 2 * step
                assert not any(ref() is not None for ref in alive)
    finally:
        gc.enable()


def bytes_in_arrays():
    ours = tracemalloc.DomainFilter(inclusive=True, domain=np.lib.tracemalloc_domain)
    return sum(trace.size for trace in tracemalloc.take_snapshot().filter_traces([ours]).traces)


@pytest.mark.parametrize(
    ("every", "steps"), [(0, [0, 10]), (4, [0, 4, 8, 10]), (5, [0, 5, 10]), (50, [0, 10])]
)
def test_evaluations_are_at_both_ends_and_every_so_many_steps(every, steps):
    drawn = []

    def counted(rng):
        drawn.append(0)
        return batch(rng)

    history = train(
        make(), counted, CONFIG, evaluate=lambda model: float(len(drawn)), evaluate_every=every
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
    model = make()
    seen = []
    train(model, batch, CONFIG, evaluate=lambda m: float(len(seen)), evaluate_every=5)
    train(model, batch, CONFIG, evaluate=lambda m: seen.append(m) or 0.0)
    assert len(seen) == 2 and all(m is model for m in seen)


def checkpointed(path, method="full", steps_before_stop=None, **options):
    """A Training of ten steps with dropout and evaluations, saved every 3 steps."""
    lora = LoraConfig(r=2, lora_alpha=8, target_modules="all-linear", lora_dropout=0.1)
    settings = dict(
        checkpoint=path,
        save_every=3,
        evaluate=lambda model: float(model.parameters()[-1].data.sum()),
        evaluate_every=4,
    )
    model = make(method, lora=lora, dropout=0.1)
    training = Training(model, batch, CONFIG, **{**settings, **options})
    for _ in range(steps_before_stop or 0):
        training.step()
    return training


@METHODS
@pytest.mark.parametrize("stop", [1, 3, 5, 9])
def test_a_run_cut_off_goes_on_from_its_checkpoint_bit_for_bit(method, stop, tmp_path):
    whole = checkpointed(None, method)
    run([whole])
    path = tmp_path / "new folder" / "run.safetensors"
    checkpointed(path, method, stop)
    resumed = checkpointed(path, method)
    assert resumed.steps_done == stop // 3 * 3
    run([resumed])
    assert resumed.history.losses == whole.history.losses
    assert resumed.history.evaluations == whole.history.evaluations
    assert len(resumed.history.seconds) == 10
    assert_same_weights(whole.model.state_dict(), resumed.model.state_dict())


def test_a_finished_run_is_not_run_again(tmp_path):
    first = checkpointed(tmp_path / "c")
    run([first])
    again = checkpointed(tmp_path / "c")
    assert again.done and again.history == first.history
    assert_same_weights(first.model.state_dict(), again.model.state_dict())
    watched, drawn = recorded(batch)
    again.batch = watched
    run([again])
    assert drawn == [] and again.steps_done == 10


def test_the_last_step_is_saved_whatever_save_every_is(tmp_path):
    training = checkpointed(tmp_path / "c", save_every=1000)
    run([training])
    assert len(list(tmp_path.iterdir())) == 1
    np.testing.assert_array_equal(load_file(tmp_path / "c")["flat"], training.optimizer.flat)


def test_without_a_checkpoint_nothing_is_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    training = checkpointed(None, steps_before_stop=4)
    training.save()
    assert list(tmp_path.iterdir()) == []


def other_rank(r):
    return make("lora", lora=LoraConfig(r=r, lora_alpha=8, target_modules="all-linear"))


@pytest.mark.parametrize(
    ("make_model", "draw", "config", "differs"),
    [
        (make, batch, replace(CONFIG, lr=2e-2), "lr"),
        (make, batch, replace(CONFIG, seed=1), "seed, first batch"),
        (make, batch, replace(CONFIG, steps=11), "steps"),
        (make, batch, replace(CONFIG, warmup=4), "warmup"),
        (make, batch, replace(CONFIG, weight_decay=0.1), "weight_decay"),
        (make, batch, replace(CONFIG, betas=(0.9, 0.98)), "betas"),
        (make, batch, replace(CONFIG, clip=0.5), "clip"),
        (make, batch, replace(CONFIG, steps=11, lr=2e-2), "steps, lr"),
        (lambda: make(seed=1), batch, CONFIG, "first weights"),
        (lambda: make(n_embd=32), batch, CONFIG, "model, first weights"),
        (lambda: make(n_head=4), batch, CONFIG, "model"),  # of the same weights
        (lambda: make(dropout=0.1), batch, CONFIG, "model"),
        (make, code_batch, CONFIG, "first batch"),
        (lambda: other_rank(2), batch, CONFIG, "adapters, trained parameters, first weights"),
    ],
)
def test_a_checkpoint_of_another_run_is_refused_and_the_difference_named(
    make_model, draw, config, differs, tmp_path
):
    path = tmp_path / "c"
    train(make(), batch, CONFIG, checkpoint=path)
    content, model = path.read_bytes(), make_model()
    before = model.state_dict()
    with pytest.raises(ValueError, match="checkpoint of another run") as caught:
        Training(model, draw, config, checkpoint=path)
    message = str(caught.value)
    assert str(path) in message and f"(it differs in: {differs})" in message
    assert "delete it, or choose another folder" in message
    assert path.read_bytes() == content
    assert_same_weights(before, model.state_dict())


def frozen_embedding():
    model = make()
    model.tok_embed.weight.requires_grad = False
    return model


def test_a_checkpoint_of_another_set_of_trained_parameters_is_refused(tmp_path):
    train(make(), batch, CONFIG, checkpoint=tmp_path / "c")
    with pytest.raises(ValueError, match=r"differs in: trained parameters\)"):
        Training(frozen_embedding(), batch, CONFIG, checkpoint=tmp_path / "c")


@pytest.mark.parametrize(
    "change", [dict(lora_alpha=16), dict(lora_dropout=0.1), dict(use_rslora=True)]
)
def test_a_checkpoint_of_another_adapter_of_the_same_weights_is_refused(change, tmp_path):
    lora = LoraConfig(r=2, lora_alpha=8)
    train(make("lora", lora=lora), batch, CONFIG, checkpoint=tmp_path / "c")
    model = make("lora", lora=replace(lora, **change))
    with pytest.raises(ValueError, match=r"differs in: adapters\)"):
        Training(model, batch, CONFIG, checkpoint=tmp_path / "c")


def truncated(path):
    path.write_bytes(path.read_bytes()[:-100])


def without_history(path):
    save_file(load_file(path), path, {"run": "{}"})


def without_metadata(path):
    save_file(load_file(path), path)


@pytest.mark.parametrize(
    "damage",
    [
        truncated,
        without_history,
        without_metadata,
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(b"not a checkpoint at all" * 100),
        lambda path: path.write_bytes(path.read_bytes()[:40]),
    ],
    ids="truncated no-history no-metadata empty garbage header-only".split(),
)
def test_a_damaged_checkpoint_is_an_error_that_says_to_delete_it(damage, tmp_path):
    path = tmp_path / "c"
    train(make(), batch, CONFIG, checkpoint=path)
    damage(path)
    model = make()
    before = model.state_dict()
    with pytest.raises(ValueError, match=r"incomplete or damaged .*; delete it to start") as caught:
        Training(model, batch, CONFIG, checkpoint=path)
    assert str(path) in str(caught.value) and caught.value.__suppress_context__
    assert_same_weights(before, model.state_dict())


def test_a_save_that_fails_half_way_leaves_the_old_checkpoint(tmp_path, monkeypatch):
    path = tmp_path / "c"
    training = checkpointed(path, steps_before_stop=5)  # saved at 3
    content = path.read_bytes()

    def disk_full(self, data):
        with self.open("wb") as file:
            file.write(data[: len(data) // 2])
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", disk_full)
        with pytest.raises(OSError, match="the disk is full"):
            training.step()
    assert path.read_bytes() == content
    assert list(tmp_path.iterdir()) == [path]  # and no litter
    run([training])  # with room again, the run goes on
    whole = checkpointed(None)
    run([whole])
    assert training.history.losses == whole.history.losses
    assert checkpointed(path).done


def test_weights_that_are_not_finite_do_not_replace_a_checkpoint(tmp_path):
    training = checkpointed(tmp_path / "c", steps_before_stop=3)
    content = (tmp_path / "c").read_bytes()
    training.optimizer.flat[7] = np.inf
    training.save()
    assert (tmp_path / "c").read_bytes() == content


def step_until_it_diverges(training):
    """The error, and all state as it was before the failed step."""
    while True:
        before = {**training.model.state_dict(), **training.optimizer.state()}
        before = {key: np.array(value) for key, value in before.items()}
        try:
            training.step()
        except (DivergedError, ValueError) as error:
            return str(error), before
        assert not training.done, "it should have diverged"


def assert_unchanged(training, before):
    assert_same_weights(before, {**training.model.state_dict(), **training.optimizer.state()})


@METHODS
@pytest.mark.parametrize("lr", [1e20, 1e30])
def test_a_rate_that_is_too_high_diverges_without_harm_and_without_warnings(method, lr, tmp_path):
    """pytest turns any warning of NumPy's into an error here."""
    c = replace(CONFIG, lr=lr, warmup=1)
    path = tmp_path / "c"
    training = Training(make(method), batch, c, name="huge", checkpoint=path, save_every=1)
    message, before = step_until_it_diverges(training)
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
    message, _ = step_until_it_diverges(training)
    assert "the loss is nan at step 5" in message and "is of step 3." in message
    assert checkpointed(tmp_path / "c").steps_done == 3


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("checkpoint", [None, "c"])
def test_weights_that_are_not_finite_are_found_at_the_first_step(bad, checkpoint, tmp_path):
    model = make()
    model.layers[0].mlp.up_proj.weight.data[3, 4] = bad
    path = tmp_path / checkpoint if checkpoint else None
    training = Training(model, batch, CONFIG, checkpoint=path)
    message, before = step_until_it_diverges(training)
    assert "in layers.0.mlp.up_proj.weight; load it anew" in message and "rate" not in message
    assert_unchanged(training, before)
    assert list(tmp_path.iterdir()) == [] and training.history == History()


def test_a_gradient_that_is_not_finite_is_found_though_the_loss_is(monkeypatch):
    training = Training(make(), batch, CONFIG)
    training.step()
    monkeypatch.setattr(train_module, "clip_grad_norm", lambda *args: math.inf)
    message, before = step_until_it_diverges(training)
    assert "at step 1 and its gradient is not finite" in message
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
    run([a, b])
    assert a.done and b.done
    assert "".join(order) == "abababbb"
    assert a.history.losses == train(make(), batch, replace(CONFIG, steps=3)).losses
    assert b.history.losses == train(make("lora"), batch, replace(CONFIG, steps=5)).losses


@pytest.mark.parametrize("quiet", [False, True])
def test_nothing_is_printed_where_there_is_no_terminal(quiet, capfd):
    run([Training(make(), batch, CONFIG)], quiet=quiet)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("quiet", [False, True])
def test_on_a_terminal_a_bar_shows_name_and_loss_unless_quiet(quiet, capsys, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    run([Training(make(), batch, CONFIG, name="full")], quiet=quiet)
    out, err = capsys.readouterr()
    assert out == ""
    if quiet:
        assert err == ""
    else:
        assert "full" in err and "10/10" in err and "loss=" in err


def test_training_uses_one_blas_thread_and_gives_the_others_back():
    def threads():
        return [pool["num_threads"] for pool in threadpool_info()]

    inside = []
    with threadpool_limits(2):
        before = threads()
        train(make(), lambda rng: inside.append(threads()) or batch(rng), CONFIG)
        assert threads() == before and max(before) > 1
    assert inside == [[1] * len(before)] * CONFIG.steps


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
    assert resumed.history.losses == whole.history.losses
    assert_same_weights(whole.model.state_dict(), resumed.model.state_dict())


def test_ctrl_c_without_a_checkpoint_says_that_nothing_is_saved(handler):
    with pytest.raises(TrainingInterrupted, match=r"step 3 of 10\. There is no checkpoint file"):
        train(make(), interrupting(2), CONFIG)
    assert signal.getsignal(signal.SIGINT) is handler


def test_ctrl_c_stops_every_training_after_its_turn(tmp_path):
    a = checkpointed(tmp_path / "a", save_every=100, name="a")
    b = checkpointed(tmp_path / "b", save_every=100, name="b")
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
    assert signal.getsignal(signal.SIGINT) is handler


def test_the_handler_of_before_is_back_after_the_end_and_after_an_error(handler):
    train(make(), batch, CONFIG)
    assert signal.getsignal(signal.SIGINT) is handler
    with pytest.raises(DivergedError):
        train(make(), batch, replace(CONFIG, lr=1e20))
    assert signal.getsignal(signal.SIGINT) is handler


def test_training_works_outside_the_main_thread_and_leaves_ctrl_c_alone(handler):
    seen = []

    def work():
        seen.append(train(make(), lambda rng: seen.append(handled()) or batch(rng), CONFIG))

    def handled():
        return signal.getsignal(signal.SIGINT)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen[:-1] == [handler] * CONFIG.steps
    assert seen[-1].losses == train(make(), batch, CONFIG).losses


@pytest.mark.parametrize("steps", [0, -3])
def test_a_run_of_no_steps_is_refused(steps):
    with pytest.raises(ValueError, match=f"whole number of at least 1, got {steps}"):
        TrainConfig(steps=steps, lr=1e-3)


@pytest.mark.parametrize("lr", [0, -1e-3, math.nan, math.inf])
def test_a_rate_that_is_no_positive_number_is_refused(lr):
    with pytest.raises(ValueError, match=f"lr must be a positive number, got {lr}"):
        TrainConfig(steps=1, lr=lr)


def test_a_frozen_model_is_refused():
    model = make()
    model.requires_grad_(False)
    with pytest.raises(ValueError, match="is everything frozen"):
        train(model, batch, CONFIG)


SCRIPT = textwrap.dedent("""
    import sys
    from pathlib import Path

    import numpy as np

    from minilora.lora import LoraConfig, add_adapter
    from minilora.training.loop import TrainConfig, Training, TrainingInterrupted, run
    from minilora.transformer import Transformer, TransformerConfig

    method, folder = sys.argv[1], Path(sys.argv[2])
    tokens = np.random.default_rng(0).integers(20, size=2000)

    class Announced(Training):
        def step(self, pool=None):
            print(self.steps_done, flush=True)
            sys.stdin.readline()
            return super().step(pool)

    def batch(rng):
        rows = tokens[rng.integers(1900, size=(4, 1)) + np.arange(17)]
        return rows[:, :-1], rows[:, 1:]

    rng = np.random.default_rng(0)
    model = Transformer(TransformerConfig(20, 16, 1, 2, 16, dropout=0.1), rng=rng)
    if method == "lora":
        lora = LoraConfig(r=2, target_modules="all-linear", lora_dropout=0.2)
        add_adapter(model, lora, rng=rng)
    training = Announced(
        model, batch, TrainConfig(steps=40, lr=1e-2, seed=3), name=method,
        evaluate=lambda model: float(model.norm.bias.data.sum()), evaluate_every=7,
        checkpoint=folder / "checkpoint.safetensors", save_every=2,
    )
    try:
        run([training])
    except TrainingInterrupted as stopped:
        sys.exit(f"caught: {stopped}")
    h = training.history
    np.savez(folder / "end.npz", losses=h.losses, evaluations=h.evaluations, **model.state_dict())
""")


class Child:
    """The script in a process of its own, stepped from here. It ends with the `with` block."""

    def __init__(self, folder, method):
        folder.mkdir(exist_ok=True)
        script = folder / "script.py"
        script.write_text(SCRIPT, encoding="utf-8")
        self.process = subprocess.Popen(
            [sys.executable, str(script), method, str(folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.process.kill()
        self.process.communicate()

    def announced(self):
        """The step the child is about to make, or None at its end."""
        line = self.process.stdout.readline()
        return int(line) if line else None

    def go(self):
        self.process.stdin.write("\n")
        self.process.stdin.flush()

    def go_to(self, step):
        """Let it make every step before this one; returns the first it made."""
        at = first = self.announced()
        assert first is not None, self.process.stderr.read()
        while at != step:
            self.go()
            at = self.announced()
            assert at is not None, self.process.stderr.read()
        return first

    def go_to_the_end(self):
        first = at = self.announced()
        while at is not None:
            self.go()
            at = self.announced()
        assert self.process.wait() == 0, self.process.stderr.read()
        return first


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """The end of the script's runs that nobody disturbs, by method."""
    ends = {}
    for method in ("full", "lora"):
        folder = tmp_path_factory.mktemp(f"undisturbed-{method}")
        with Child(folder, method) as child:
            assert child.go_to_the_end() == 0
        ends[method] = dict(np.load(folder / "end.npz"))
    return ends


def steps_saved(path):
    with safe_open(path, framework="np") as file:
        return len(json.loads(file.metadata()["history"])["losses"])


@METHODS
def test_a_run_killed_again_and_again_ends_as_if_it_had_not_been(method, undisturbed, tmp_path):
    moments = random.Random(method)
    resumed_at = 0
    for kill in range(3):
        with Child(tmp_path, method) as child:
            step = moments.randrange(12 * kill + 3, 12 * kill + 12)
            assert child.go_to(step) == resumed_at
            child.go()
            threading.Event().wait(moments.random() * 0.003)  # it dies somewhere in this step
            child.process.kill()
            child.process.wait()
        # Saved every two steps: at the latest save before this step, or right after it.
        resumed_at = steps_saved(tmp_path / "checkpoint.safetensors")
        assert resumed_at in {step // 2 * 2, (step + 1) // 2 * 2}
        assert not (tmp_path / "end.npz").exists()
    with Child(tmp_path, method) as child:
        assert child.go_to_the_end() == resumed_at
    assert_same_weights(undisturbed[method], dict(np.load(tmp_path / "end.npz")))


@pytest.mark.skipif(sys.platform == "win32", reason="Windows sends Ctrl-C to whole consoles only")
@METHODS
def test_a_run_stopped_by_ctrl_c_says_so_and_goes_on(method, undisturbed, tmp_path):
    with Child(tmp_path, method) as child:
        child.go_to(6)
        child.process.send_signal(signal.SIGINT)
        child.go()
        out, err = child.process.communicate()
    assert (child.process.returncode, out) == (1, "")
    assert err.startswith("caught: stopped:") and "Traceback" not in err
    assert f"{method} at step 7 of 40. All is saved; the same command goes on from here" in err
    with Child(tmp_path, method) as child:
        assert child.go_to_the_end() == 7
    assert_same_weights(undisturbed[method], dict(np.load(tmp_path / "end.npz")))
