"""Claims about teaching a real model a file of one's own: what is read, held out and measured, and
that the run is set up where all runs are. The model is tiny; a real one differs in size only."""

import json
import math

import numpy as np
import pytest
from tokens import smollm2, write_chat_model

from minilora.experiments.own_data import own_task
from minilora.experiments.tuning import measure, set_up, tune
from minilora.hub import load_model
from minilora.lora import disable_adapter
from minilora.system.errors import UsageError
from minilora.text.alphabet import TextError
from minilora.text.windows import IGNORE_INDEX

PAIRS = [{"question": f"What is {i} + {i}?", "answer": f"It is {2 * i}."} for i in range(20)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("own")
    write_chat_model(folder / "model")
    (folder / "sums.jsonl").write_text("\n".join(map(json.dumps, PAIRS)))
    (folder / "few.jsonl").write_text("\n".join(map(json.dumps, PAIRS[:3])))
    (folder / "text.txt").write_text("LoRA learns a low-rank change of a frozen matrix. 😀\n" * 400)
    return folder


@pytest.fixture(scope="module")
def task(folder):
    return own_task(folder / "model", folder / "sums.jsonl")


def test_answers_are_learned_and_some_are_held_out(task):
    data = task.data
    assert (len(data.learned), len(data.judged)) == (18, 2)
    assert data.about == "20 chats (question, answer), 2 of them held out to judge by"
    learned = {tuple(ids) for ids, _ in data.learned}
    assert not learned & {tuple(ids) for ids, _ in data.judged}
    ids, targets = task.batch(np.random.default_rng(0))
    assert ids.shape == targets.shape and len(ids) == 4
    said = [task.tokenizer.decode(row[row != IGNORE_INDEX]) for row in targets]
    assert all(text.startswith("It is ") for text in said)


def test_of_a_few_answers_none_is_held_out_and_the_measure_says_so(folder):
    data = own_task(folder / "model", folder / "few.jsonl").data
    assert data.judged == [] and data.measured_on == "what was learned"
    assert data.about == "3 chats (question, answer), none held out"
    assert math.isfinite(data.quality(load_model(folder / "model"), "test"))


def test_of_a_text_the_last_twentieth_is_held_out(folder):
    task = own_task(folder / "model", folder / "text.txt")
    data, text = task.data, (folder / "text.txt").read_text()
    pieces = [*data.learned, *data.judged]
    ids = np.concatenate([piece[0] for piece in pieces])
    assert (
        text.startswith(task.tokenizer.decode(ids))
        and len(ids) == len(task.tokenizer.encode(text)) - 1
    )
    assert all((ids[1:] == targets[:-1]).all() for ids, targets in pieces)
    assert len(data.judged) == math.ceil(len(pieces) / 20) and data.length == 256
    assert isinstance(data.asked, str) and task.prompts == (data.asked,)


def test_a_run_is_set_up_with_the_recipe_of_a_real_model(task):
    tuned = set_up(task, "lora")
    config, row = tuned.training.config, tuned.row
    assert (config.steps, config.lr, config.warmup) == (48, 2e-3, 5)
    assert (row["r"], row["s"], row["metric"]) == (8, 2.0, "nats_per_token")
    assert set_up(task, "full").training.config.lr == 1e-4
    with pytest.raises(UsageError, match="has no learning rate for dora; choose one with lr"):
        set_up(task, "dora")


@pytest.mark.parametrize("method", ["lora", "full"])
def test_training_leaves_the_base_as_it_was(task, method):
    tuned = set_up(task, method, steps=4, lr=1e-2)
    before = {name: p.data.copy() for name, p in tuned.base.named_parameters()}
    loss = task.test(tuned.base)
    while not tuned.training.done:
        tuned.training.step()
    for name, p in tuned.base.named_parameters():
        np.testing.assert_array_equal(p.data, before[name])
    assert task.test(tuned.base) == loss != task.test(tuned.model)
    if method == "lora":
        with disable_adapter(tuned.model):
            assert task.test(tuned.model) == loss


def test_an_adapter_s_base_is_not_copied(task):
    tuned = set_up(task, "lora")
    own = tuned.model.layers[0].attn.q_proj.base.weight.data
    assert np.shares_memory(own, tuned.base.layers[0].attn.q_proj.weight.data)


def test_what_is_learned_shows_on_what_is_held_out(task):
    row = measure(tune(task, "lora", steps=40, lr=2e-2))
    assert row["test"] < task.test(load_model(task.base)) - 0.5
    assert math.isnan(row["old"])  # nobody knows what the base was trained for


def test_a_run_that_was_cut_off_goes_on_as_if_it_had_not_been(task, tmp_path):
    whole = set_up(task, "lora", steps=6, checkpoint=tmp_path / "whole")
    cut = set_up(task, "lora", steps=6, checkpoint=tmp_path / "cut", save_every=2)
    while not whole.training.done:
        whole.training.step()
    for _ in range(5):
        cut.training.step()
    again = set_up(task, "lora", steps=6, checkpoint=tmp_path / "cut", save_every=2)
    assert again.training.steps_done == 4
    while not again.training.done:
        again.training.step()
    assert again.training.history.losses == whole.training.history.losses
    for p, q in zip(whole.training.params, again.training.params, strict=True):
        np.testing.assert_array_equal(p.data, q.data)


def test_what_cannot_be_learned_is_one_sentence(folder, tmp_path):
    (tmp_path / "short.txt").write_text("too short")
    with pytest.raises(TextError, match=r"short\.txt is too short: it has \d+ tokens and needs"):
        own_task(folder / "model", tmp_path / "short.txt")
    write_chat_model(tmp_path / "small", block_size=24)
    task = own_task(tmp_path / "small", folder / "sums.jsonl")
    with pytest.raises(UsageError, match="reads 24 symbols at a time and sums.jsonl needs"):
        set_up(task, "lora")
    with pytest.raises(UsageError, match="docs-tiny reads the symbols of ALPHABET"):
        own_task("docs-tiny", folder / "sums.jsonl")


def test_chats_that_are_too_long_are_counted_and_named(folder, tmp_path):
    file = tmp_path / "long.jsonl"
    long = {"question": "Say it", "answer": "low " * 600}
    file.write_text("\n".join(map(json.dumps, [*PAIRS[:2], long])))
    data = own_task(folder / "model", file).data
    assert data.about.endswith("none held out, 1 longer than 512 tokens and cut off")
    assert data.length == 512
    file.write_text(
        json.dumps(PAIRS[0]) + "\n\n" + json.dumps({"question": "a " * 600, "answer": "b"})
    )
    with pytest.raises(UsageError, match=r"long\.jsonl, line 3: the chat has no answer within its"):
        own_task(folder / "model", file)


@pytest.mark.system
def test_the_real_model_learns(folder):
    assert smollm2()
    task = own_task("smollm2", folder / "sums.jsonl")
    tuned = tune(task, "lora", steps=6)
    assert task.test(tuned.model) < task.test(tuned.base) - 0.5
