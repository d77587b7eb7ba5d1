"""Claims about setting up a run: what is left out is the recipe's, what is given is trained, and
what would have no effect is refused."""

import copy
from dataclasses import replace

import numpy as np
import pytest

import minilora as ml
from minilora.experiments import tuning
from minilora.experiments.comparison import compare
from minilora.experiments.tasks import BASE_MODELS, TASKS, ExampleData, load_task, new_model
from minilora.experiments.tuning import (
    adjust,
    measure,
    pause_at,
    quality_run,
    set_up,
    tune,
    with_rank,
)
from minilora.lora import LowRank, lora_layers
from minilora.lora_config import LoraConfig
from minilora.methods.registry import LABELS, METHODS
from minilora.system.errors import UsageError
from minilora.text.alphabet import decode
from minilora.text.corpora import load_corpus
from minilora.training.loop import run

PROSE = "It was the best of times, it was the worst of times, it was the age of wisdom. " * 40


def quick(name):
    return replace(load_task(name), examples=4)


def weights(model):
    return {name: p.data.copy() for name, p in model.named_parameters()}


def assert_same(first, other):
    assert first.keys() == other.keys()
    for name in first:
        np.testing.assert_array_equal(first[name], other[name])


def s_of(task, method="lora", **lora):
    """s of a run that is set up, which is that of its row."""
    t = set_up(task, method, **lora)
    (s,) = {layer.adapters["default"].s for layer in lora_layers(t.model).values()}
    assert t.row["s"] == s
    return s


def test_setting_up_trains_nothing_and_tuning_is_setting_up_and_running():
    by_hand, done = (
        set_up(quick("code"), "lora", 3, steps=2),
        tune(quick("code"), "lora", 3, steps=2),
    )
    assert by_hand.training.steps_done == 0
    run([by_hand.training], threads=1, quiet=True)
    assert_same(weights(by_hand.model), weights(done.model))
    assert by_hand.row == done.row


def test_a_training_with_pauses_is_the_training_without():
    paused, whole = (f(quick("code"), "lora", 3, steps=4) for f in (set_up, tune))
    seen = {stop: weights(paused.model) for stop in pause_at(paused, [0, 1, 4])}
    assert list(seen) == [0, 1, 4] and not paused.diverged
    assert_same(seen[0], weights(set_up(quick("code"), "lora", 3, steps=4).model))
    assert_same(seen[4], weights(whole.model))
    assert paused.training.history.losses == whole.training.history.losses


def test_a_training_with_pauses_ends_where_it_diverges():
    t = set_up(quick("code"), "full", steps=9, lr=1e30)
    assert list(pause_at(t, [0, 9])) == [0] and t.row["diverged"]


def test_a_start_changes_the_prepared_model_before_its_training_is_made():
    def begin(model):
        for layer in lora_layers(model).values():
            one = layer.adapters["default"]
            layer.adapters["default"] = LowRank(one.A.data + 1, one.B.data, one.s)

    t, usual = set_up("code", "lora", start=begin), set_up("code", "lora")
    path, layer = next(iter(lora_layers(t.model).items()))
    A = layer.adapters["default"].A
    np.testing.assert_array_equal(
        A.data, lora_layers(usual.model)[path].adapters["default"].A.data + 1
    )
    assert any(p is A for p in t.training.params)


@pytest.mark.parametrize("method", LABELS)
def test_every_method_is_set_up_with_the_recipes_rate_and_steps(method):
    task = load_task("reverse")
    t = set_up(task, method)
    assert (t.row["lr"], t.row["steps"], t.row["method"]) == (task.lr[method], task.steps, method)
    assert t.training.name == LABELS[method] and not t.row["diverged"]
    ratio = METHODS[method].loraplus_lr_ratio if method in METHODS else 1
    assert t.training.config.loraplus_lr_ratio == ratio
    assert (t.row["r"] is None) == (t.row["s"] is None) == (not lora_layers(t.model))


def test_from_scratch_is_the_base_models_architecture_with_the_seeds_weights():
    t = set_up("reverse", "scratch", 5)
    assert_same(weights(t.model), weights(new_model(BASE_MODELS["words-tiny"], 5)))


def test_a_method_prepares_a_copy_with_the_seeds_generator():
    t = set_up("code", "lora", 5)
    base = ml.load_model("docs-tiny")
    assert_same(weights(t.base), weights(base))
    by_hand = copy.deepcopy(base)
    METHODS["lora"].prepare(by_hand, load_task("code").lora, np.random.default_rng((5, 0)))
    assert_same(weights(t.model), weights(by_hand))


def test_a_row_says_what_was_asked_for_and_what_came_of_it():
    t = tune(quick("reverse"), "lora", 3, steps=2, lr=0.005)
    row = measure(t)
    values = {key: row.pop(key) for key in ("val", "test", "old")}
    assert values == {"val": t.task.val(t.model), "test": t.task.test(t.model), "old": 1.0}
    assert row == t.row == {
        "task": "reverse",
        "metric": "exact",
        "method": "lora",
        "seed": 3,
        "lr": 0.005,
        "steps": 2,
        "r": 2,
        "s": pytest.approx(4 / 2**0.5),
        "trainable": 9_216,
        "total": sum(p.size for p in t.base.parameters()),
        "diverged": False,
    }  # fmt: skip


def test_qualities_are_those_of_the_tuned_model_on_each_split():
    task = quick("code")
    t = tune(task, "full", steps=2)
    (row,) = quality_run(task=task, method="full", steps=2)
    assert row["val"] == task.val(t.model) != task.val(t.base)
    assert (row["test"], row["old"]) == (task.test(t.model), task.old(t.model))
    assert_same(weights(t.base), weights(ml.load_model("docs-tiny")))


def test_seed_draws_batches_and_adapter():
    rows = [measure(tune(quick("code"), "lora", seed, steps=2)) for seed in (0, 0, 1)]
    assert rows[0] == rows[1] and rows[0]["test"] != rows[2]["test"]


@pytest.mark.parametrize("r", [1, 16])
def test_when_only_the_rank_changes_s_goes_with_its_root_everywhere(r):
    assert s_of("code") == 2
    assert s_of("code", r=r) == pytest.approx(4 / r**0.5)
    assert s_of("reverse", r=r) == pytest.approx(4 / r**0.5)
    assert s_of("code", "rslora", r=r) == pytest.approx(8 / r**0.5)  # from its own 8 / √4
    assert s_of("code", "dora", r=r) == s_of("code", "pissa", r=r) == pytest.approx(4 / r**0.5)
    assert with_rank(LoraConfig(r=4, lora_alpha=8), r).rank_and_scale("q_proj")[1] == s_of(
        "code", r=r
    )


def test_when_alpha_is_given_s_is_alpha_by_the_rule():
    assert s_of("code", r=16, lora_alpha=12) == 12 / 16
    assert s_of("code", r=16, lora_alpha=12, use_rslora=True) == 3
    assert s_of("reverse", lora_alpha=6) == pytest.approx(6 / 2**0.5)
    config = LoraConfig(r=4, lora_alpha=8)
    assert adjust(config) == config
    assert adjust(config, target_modules=["q_proj"]) == replace(config, target_modules=["q_proj"])


def test_a_comparison_at_a_rank_and_a_sweep_at_that_rank_train_the_same_bits(tmp_path):
    """`minilora compare --rank 16` and `minilora sweep --ranks 16`."""
    task = replace(quick("code"), prompts=())
    entry = compare(task, tmp_path, methods=["lora"], r=16, steps=3, quiet=True)
    swept = tune(task, "lora", 0, r=16, steps=3)
    assert entry["runs"][0]["losses"] == [round(x, 4) for x in swept.training.history.losses]
    compared = ml.load_model("docs-tiny")
    ml.load_adapter(compared, tmp_path / "code-lora")
    assert_same(weights(compared), weights(swept.model))
    assert {k: entry["runs"][0][k] for k in swept.row} == swept.row


@pytest.mark.parametrize("method", ["full", "lora"])
def test_a_rate_that_diverges_ends_there_and_its_row_says_so(method):
    t = tune("code", method, steps=4, lr=1e30)
    assert t.row["diverged"] is True and t.training.steps_done < 4 == t.row["steps"]
    assert all(np.isfinite(p.data).all() for p in t.model.parameters())
    row = measure(t)
    assert row["val"] is row["test"] is row["old"] is None


def test_quality_is_measured_along_the_way_on_val_unless_something_else_is_asked():
    task = quick("code")
    t = tune(task, "lora", steps=3, evaluate_every=2)
    assert [step for step, _ in t.training.history.evaluations] == [0, 2, 3]
    assert t.training.history.evaluations[0][1] == task.val(t.base)
    t = tune(task, "lora", steps=3, evaluate_every=2, evaluate=lambda model: 7.0)
    assert t.training.history.evaluations == [(0, 7.0), (2, 7.0), (3, 7.0)]


def test_a_checkpoint_is_gone_on_from(tmp_path):
    file = tmp_path / "run.safetensors"
    whole = tune("code", "lora", steps=4)
    half = set_up("code", "lora", steps=4, checkpoint=file)
    half.training.step()
    half.training.save()
    again = set_up("code", "lora", steps=4, checkpoint=str(file))
    assert again.training.steps_done == 1
    run([again.training], threads=1, quiet=True)
    assert again.training.history.losses == whole.training.history.losses


@pytest.mark.parametrize("changed", ["learned", "judged by while it is learned"])
def test_a_checkpoint_is_not_gone_on_from_with_another_text(changed, tmp_path):
    text, checkpoint = tmp_path / "text.txt", tmp_path / "run.safetensors"
    content = PROSE * 20
    text.write_text(content)
    set_up(text, "lora", steps=4, checkpoint=checkpoint).training.save()
    at = len(content) * (50 if changed == "learned" else 92) // 100
    for end in range(at, at + 3):  # one letter, which the first batch may not have
        text.write_text(f"{content[:end]}#{content[end + 1 :]}")
        with pytest.raises(UsageError, match=r"of another run \(it differs in: .*data\)"):
            set_up(text, "lora", steps=4, checkpoint=checkpoint)
    text.write_text(content)
    set_up(text, "lora", steps=4, checkpoint=checkpoint)


def test_the_checksum_of_data_is_of_all_that_is_learned():
    code, words = load_task("code").data, load_task("reverse").data
    ids = np.arange(4)
    chats = ExampleData([(ids, ids)], [], "", "")
    others = [
        replace(code, corpus=replace(code.corpus, train=code.corpus.train[:-1])),
        replace(words, words=words.words | {"train": words.words["train"][1:]}),
        replace(chats, learned=[(ids, ids + 1)]),
    ]
    for data, other in zip((code, words, chats), others, strict=True):
        assert data.checksum() == copy.deepcopy(data).checksum() != other.checksum()


def test_another_base_model_is_taken_from_its_folder(tmp_path):
    base = ml.load_model("docs-tiny")
    base.tok_embed.weight.data *= np.float32(1.25)
    ml.save_model(base, tmp_path / "mine")
    for folder in (tmp_path / "mine", str(tmp_path / "mine")):
        t = set_up("code", "lora", model=folder)
        assert t.task.base == str(folder)
        for model in (t.base, t.model):
            np.testing.assert_array_equal(model.tok_embed.weight.data, base.tok_embed.weight.data)


def test_so_many_characters_of_the_text_are_trained_on(tmp_path):
    few, first = set_up("code", "lora", characters=100).task, load_corpus("code").train[:100]
    seen = {decode(few.batch(np.random.default_rng(seed))[0][0]) for seed in range(20)}
    assert all(window in decode(first) for window in seen) and len(seen) > 5
    assert few.data.corpus.test is load_task("code").data.corpus.test
    (tmp_path / "times.txt").write_text(PROSE, "utf-8")
    mine = set_up(tmp_path / "times.txt", "lora", characters=80).task
    assert decode(mine.data.corpus.train) == PROSE[:80]


MODEL = {"r": 4, "lora_alpha": 8, "target_modules": ["q_proj"]}


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"task": "no-such"}, "there is no task 'no-such'; use one of: code, reverse, sort, or"),
        ({"task": ""}, "there is no task ''"),
        ({"task": None}, "a task is its name, the path of a text file, or a Task; got None"),
        ({"task": 3}, "a task is .* got 3"),
        ({"method": "lore"}, "there is no method 'lore'; use one of: full, head, .*, scratch"),
        ({"method": None}, "there is no method None"),
        ({"lr": 0}, "lr must be"),
        ({"lr": float("nan")}, "lr must be"),
        ({"lr": -1e-3}, "lr must be"),
        ({"steps": 0}, "steps must be .* got 0"),
        ({"steps": 2.5}, "steps must be .* got 2.5"),
        ({"steps": True}, "steps must be .* got True"),
        ({"seed": -1}, "seed must be .* got -1"),
        ({"seed": 1.5}, "seed must be .* got 1.5"),
        ({"seed": None}, "seed must be .* got None"),
        ({"r": 0}, "rank must be at least 1, got 0|r must be"),
        ({"r": -3}, "rank must be at least 1, got -3|r must be"),
        ({"r": 129}, "r=129 is more than layers.0.attn.q_proj"),
        ({"target_modules": ["query"]}, "matches no Linear; this model has: q_proj"),
        ({"use_rslora": True}, "give lora_alpha too"),
        *[
            ({"method": method, key: value}, f"{LABELS[method]} has no rank, alpha or targets")
            for method in ("full", "bitfit", "scratch")
            for key, value in MODEL.items()
        ],
        ({"characters": 64}, "characters must be a whole number from 65 to .* got 64"),
        ({"characters": 10**9}, "characters must be .* got 1000000000"),
        ({"characters": 100.0}, "characters must be .* got 100.0"),
        ({"characters": True}, "characters must be .* got True"),
        ({"task": "sort", "characters": 100}, "sort is not learned from a text"),
        ({"evaluate_every": -1}, "evaluate_every"),
        ({"evaluate_every": 1, "evaluate": 3}, "evaluate"),
        ({"model": "no-such"}, "there is no folder 'no-such'"),
        ({"model": "words-tiny"}, "words-tiny reads 28 symbols at a time and code needs 64"),
    ],
)
def test_what_has_no_meaning_or_no_effect_is_refused_before_anything_is_trained(change, sentence):
    arguments = {"task": "code", "method": "lora"} | change
    with pytest.raises((UsageError, OSError), match=sentence):
        set_up(**arguments)


def test_a_method_without_a_rate_for_the_task_asks_for_one(monkeypatch):
    monkeypatch.setitem(METHODS, "mine", METHODS["lora"])
    monkeypatch.setitem(LABELS, "mine", "my own")
    with pytest.raises(UsageError, match="code has no learning rate for mine; choose one with lr"):
        set_up("code", "mine")
    assert set_up("code", "mine", lr=1e-3).row["lr"] == 1e-3


def test_a_base_model_of_another_alphabet_is_refused(tmp_path):
    config = ml.TransformerConfig(50, 64, n_layer=1, n_head=2, n_embd=8)
    ml.save_model(ml.Transformer(config, rng=np.random.default_rng(0)), tmp_path)
    with pytest.raises(UsageError, match="the tasks are of 96 symbols and .* has 50; use"):
        set_up("code", "lora", model=tmp_path)


def test_tasks_are_found_by_name():
    assert [set_up(name, "full").row["task"] for name in TASKS] == list(TASKS)


@pytest.mark.parametrize("quiet", [True, False])
def test_tune_shows_a_bar_only_if_it_is_asked_to(monkeypatch, quiet):
    asked = []
    monkeypatch.setattr(tuning, "run", lambda trainings, threads, quiet: asked.append(quiet))
    tune(quick("reverse"), "lora", steps=1, **({} if quiet else {"quiet": False}))
    assert asked == [quiet]
