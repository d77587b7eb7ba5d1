"""Claims about the tasks: shapes, sizes and rates, and which split is used for what.

The numbers are written out once more, as the experiments settled them. What a measure looks at is
asked of a model that keeps all it is shown. The corpora are the real ones.
"""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from minilora.experiments.tasks import (
    BASE_MODELS,
    TASKS,
    load_task,
    new_model,
    text_task,
)
from minilora.lora import add_adapter
from minilora.lora_config import LoraConfig
from minilora.methods.registry import LABELS, METHODS
from minilora.methods.trainable import count_parameters
from minilora.studies import shipped_rows
from minilora.tensor import Tensor
from minilora.text.alphabet import decode, encode
from minilora.text.corpora import Corpus, load_corpus, load_words
from minilora.text.string_tasks import PRETRAIN_TASKS, STRING_TASKS
from minilora.text.windows import IGNORE_INDEX
from minilora.training.loop import TrainConfig
from minilora.training.quality import EXACT, METRICS, NATS
from minilora.transformer import TransformerConfig

STRING_NAMES = ["reverse", "sort"]


class Onlooker:
    """A model that always says symbol 2, and keeps the ids it was shown."""

    def __init__(self, config):
        self.config, self.seen = config, []

    def __call__(self, ids):
        self.seen.append(ids)
        logits = np.zeros((*ids.shape, 96), np.float32)
        logits[..., 2] = 30
        return Tensor(logits)


def shown(measure, base):
    model = Onlooker(BASE_MODELS[base].model)
    measure(model)
    return np.concatenate(model.seen)


def of(data, split):
    return lambda model: data.quality(model, split)


def examples(ids):
    """(command symbol, word, answer) of each row of a string task."""
    texts = [decode(row).rstrip("\n") for row in ids]
    return [(text[0], *text[1:].split(">")) for text in texts]


def test_docs_tiny_is_the_language_model_of_the_experiments():
    base = BASE_MODELS["docs-tiny"]
    assert base.model == TransformerConfig(96, 64, n_layer=2, n_head=4, n_embd=128)
    assert base.model.tie_embeddings and base.model.dropout == 0
    assert base.data().metric is NATS
    total = count_parameters(new_model(base, 0))
    assert total[0] == total[1] and 416_000 <= total[1] <= 418_500


def test_words_tiny_is_the_string_model_of_the_experiments():
    base = BASE_MODELS["words-tiny"]
    assert base.model == TransformerConfig(96, 28, n_layer=4, n_head=4, n_embd=64)
    assert base.data().metric is EXACT
    total = count_parameters(new_model(base, 0))
    assert total[0] == total[1] and 207_000 <= total[1] <= 208_500


@pytest.mark.parametrize("name", BASE_MODELS)
def test_the_base_models_are_pretrained_as_the_experiments_were(name):
    assert BASE_MODELS[name].name == name
    assert replace(BASE_MODELS[name].training, seed=0) == TrainConfig(
        steps=3000, lr=2e-3, warmup=100, weight_decay=0.05, betas=(0.9, 0.99), clip=1.0
    )


def test_fine_tuning_has_no_decay_and_a_short_warm_up():
    c = TrainConfig(steps=1, lr=1)
    assert (c.weight_decay, c.warmup, c.betas, c.clip) == (0.0, 20, (0.9, 0.99), 1.0)


def test_a_new_model_depends_on_its_seed_alone():
    first, again, other = (new_model(BASE_MODELS["words-tiny"], s).state_dict() for s in (0, 0, 1))
    assert all(np.array_equal(first[key], again[key]) for key in first)
    assert not np.array_equal(first["tok_embed.weight"], other["tok_embed.weight"])


@pytest.mark.parametrize(
    ("name", "base", "steps", "rows", "lora", "scale", "metric"),
    [
        ("code", "docs-tiny", 300, 12, LoraConfig(4, 8), 2.0, NATS),
        ("reverse", "words-tiny", 600, 32, LoraConfig(2, 4, use_rslora=True), 4 / 2**0.5, EXACT),
        ("sort", "words-tiny", 600, 32, LoraConfig(4, 4, use_rslora=True), 2.0, EXACT),
    ],
)
def test_the_tasks_are_trained_as_the_headline_says(name, base, steps, rows, lora, scale, metric):
    task = load_task(name)
    assert (task.name, task.base, task.steps) == (name, base, steps)
    assert (task.lr["full"], task.lr["lora"]) == (1e-3 if name == "code" else 3e-3, 1e-2)
    assert task.lr.keys() == LABELS.keys()
    assert task.lr["scratch"] == BASE_MODELS[base].training.lr  # which no fine-tuning has
    assert task.lora == replace(lora, target_modules="all-linear")
    r, s = task.lora.rank_and_scale("layers.0.attn.q_proj")
    assert (r, s) == (lora.r, pytest.approx(scale))
    assert task.metric is metric
    assert len(task.batch(np.random.default_rng(0))[0]) == rows


@pytest.mark.parametrize(("name", "share"), [("code", 0.044), ("reverse", 0.045), ("sort", 0.088)])
def test_lora_trains_the_share_of_the_base_model_that_the_headline_says(name, share):
    task = load_task(name)
    model = new_model(BASE_MODELS[task.base], 0)
    add_adapter(model, task.lora, rng=np.random.default_rng(0))
    trainable, total = count_parameters(model)
    assert trainable / (total - trainable) == pytest.approx(share, abs=1e-3)


def test_every_name_in_tasks_loads_and_another_is_an_error_that_lists_them():
    assert [load_task(name).name for name in TASKS] == ["code", "reverse", "sort"] == list(TASKS)
    for name in ("prose", "copy", "", "Code"):
        with pytest.raises(ValueError, match=f"no task '{name}'; use one of: code, reverse, sort"):
            load_task(name)


@pytest.mark.parametrize("name", TASKS)
def test_a_batch_fits_the_base_model_and_depends_on_its_generator_alone(name):
    task = load_task(name)
    T = BASE_MODELS[task.base].model.block_size
    ids, targets = task.batch(np.random.default_rng(3))
    assert ids.shape == targets.shape == (len(ids), T)
    assert ids.dtype == targets.dtype == np.int64
    assert ids.min() >= 0 and ids.max() < 96
    for a, b in zip((ids, targets), task.batch(np.random.default_rng(3)), strict=True):
        np.testing.assert_array_equal(a, b)
    assert not np.array_equal(ids, task.batch(np.random.default_rng(4))[0])


@pytest.mark.parametrize(("name", "rows"), [("docs-tiny", 16), ("words-tiny", 64)])
def test_a_pretraining_batch_has_the_size_of_the_recipe(name, rows):
    data = BASE_MODELS[name].data()
    ids, targets = data.batch(np.random.default_rng(0))
    assert ids.shape == targets.shape == (rows, BASE_MODELS[name].model.block_size)
    np.testing.assert_array_equal(ids, data.batch(np.random.default_rng(0))[0])


def test_text_is_learned_on_train_chosen_on_val_and_reported_on_test():
    """With a text whose parts are of one symbol each: the Onlooker is right about val only."""
    parts = [np.full(500, symbol, np.uint8) for symbol in (1, 2, 3)]
    task = text_task(Corpus("mine", *parts))
    ids, targets = task.batch(np.random.default_rng(0))
    assert np.unique(ids).tolist() == np.unique(targets).tolist() == [1]
    model = Onlooker(BASE_MODELS["docs-tiny"].model)
    assert task.val(model) == pytest.approx(0, abs=1e-6)
    assert task.test(model) == pytest.approx(30, abs=1e-3)
    assert np.unique(shown(task.test, task.base)).tolist() == [3]


@pytest.mark.parametrize("corpus", ["code", "prose"])
def test_code_and_prose_windows_come_from_the_right_split(corpus):
    text = load_corpus(corpus)
    data = load_task("code").data if corpus == "code" else BASE_MODELS["docs-tiny"].data()
    windows = {
        "train": data.batch(np.random.default_rng(0))[0],
        "val": shown(of(data, "val"), "docs-tiny"),
        "test": shown(of(data, "test"), "docs-tiny"),
    }
    assert len(windows["val"]) == len(windows["test"]) == 256
    for split, ids in windows.items():
        part = getattr(text, split).tobytes()
        assert all(row.astype(np.uint8).tobytes() in part for row in ids), split


def test_what_was_learned_before_is_measured_on_prose_or_the_seven_old_tasks():
    prose = load_corpus("prose").test.tobytes()
    ids = shown(load_task("code").old, "docs-tiny")
    assert len(ids) == 256 and all(row.astype(np.uint8).tobytes() in prose for row in ids)
    symbols = {STRING_TASKS[name].symbol for name in PRETRAIN_TASKS}
    for name in STRING_NAMES:
        old = examples(shown(load_task(name).old, "words-tiny"))
        assert {symbol for symbol, _, _ in old} == symbols
        assert {word for _, word, _ in old} <= set(load_words()["test"])


@pytest.mark.parametrize("name", STRING_NAMES)
def test_string_tasks_ask_for_one_thing_in_words_of_each_split(name):
    task, words, rule = load_task(name), load_words(), STRING_TASKS[name]
    for split, measure in (("val", task.val), ("test", task.test)):
        rows = examples(shown(measure, "words-tiny"))
        assert [word for _, word, _ in rows] == [w for w in words[split] if len(w) <= 8], split
        assert all((s, a) == (rule.symbol, rule.apply(w)) for s, w, a in rows)
    ids = np.concatenate([task.batch(np.random.default_rng(i))[0] for i in range(20)])
    rows = examples(ids)
    assert all((s, a) == (rule.symbol, rule.apply(w)) for s, w, a in rows)
    # Half of the words are random letters, which are none of the long words but by a miracle.
    long = {word for _, word, _ in rows if len(word) >= 6}
    assert long & set(words["train"]) and long - set(words["train"])
    assert not long & set(words["val"]) and not long & set(words["test"])


def test_pretraining_asks_for_all_seven_tasks_in_words_of_each_split():
    data = BASE_MODELS["words-tiny"].data()
    symbols, words = {STRING_TASKS[name].symbol for name in PRETRAIN_TASKS}, load_words()
    for split in ("val", "test"):
        rows = examples(shown(of(data, split), "words-tiny"))
        assert {symbol for symbol, _, _ in rows} == symbols
        assert {word for _, word, _ in rows} <= set(words[split])
    rows = examples(np.concatenate([data.batch(np.random.default_rng(i))[0] for i in range(10)]))
    assert {symbol for symbol, _, _ in rows} == symbols
    long = {word for _, word, _ in rows if len(word) >= 6}
    assert long & set(words["train"])
    assert not long & set(words["val"]) and not long & set(words["test"])


@pytest.mark.parametrize("name", [*TASKS, *BASE_MODELS])
def test_a_measure_sees_the_same_examples_every_time_it_is_loaded(name):
    def load():
        if name in TASKS:
            task = load_task(name)
            return task.base, task.val, task.test, task.old
        data = BASE_MODELS[name].data()
        return name, of(data, "val"), of(data, "test")

    (base, *first), (_, *again) = load(), load()
    for a, b in zip(first, again, strict=True):
        np.testing.assert_array_equal(shown(a, base), shown(b, base))


class Clairvoyant(Onlooker):
    """A model that names the symbol it is shown next, and a newline after the last one."""

    def __call__(self, ids):
        logits = np.zeros((*ids.shape, 96), np.float32)
        following = np.pad(ids[:, 1:], [(0, 0), (0, 1)])
        np.put_along_axis(logits, following[..., None], 30, axis=-1)
        return Tensor(logits)


@pytest.mark.parametrize("name", TASKS)
def test_the_best_quality_is_1_for_words_and_nearly_0_nats_for_text(name):
    task = load_task(name)
    config = BASE_MODELS[task.base].model
    best, worst = Clairvoyant(config), Onlooker(config)
    if task.metric is EXACT:
        assert (task.val(best), task.test(best)) == (1, 1)
        assert (task.val(worst), task.test(worst)) == (0, 0)
        assert (task.batch(np.random.default_rng(0))[1] == IGNORE_INDEX).mean() > 0.5
    else:  # it cannot see what follows the last of 64 symbols
        assert 0 < task.val(best) <= 30 / 64 + 1e-3 and 0 < task.test(best) <= 30 / 64 + 1e-3
        assert task.val(worst) > 20


@pytest.mark.parametrize("name", TASKS)
def test_the_prompts_can_be_encoded_and_leave_room_for_an_answer(name):
    task = load_task(name)
    assert task.prompts and all(task.prompts)
    for prompt in task.prompts:
        assert len(encode(prompt)) <= BASE_MODELS[task.base].model.block_size // 2
    if name == "code":
        assert task.prompts == ("def ",)
    else:
        assert len(set(task.prompts)) == 3
        form = {(prompt[0], prompt[-1], len(prompt)) for prompt in task.prompts}
        assert form == {(STRING_TASKS[name].symbol, ">", 8)}
        assert {p[1:-1] for p in task.prompts} <= set(load_words()["test"])


def test_a_text_of_ones_own_is_trained_like_code_and_prompted_with_its_first_test_words():
    text = encode("In the beginning was the word. " * 40)
    task = text_task(Corpus("john.txt", text, text, text[7:]))
    code = load_task("code")
    assert task.name == "john.txt" and "john.txt" in task.about
    assert (task.base, task.steps, task.lr, task.lora) == (
        (code.base, code.steps, code.lr, code.lora)
    )
    assert task.prompts == ("beginning was the ",)


@pytest.mark.parametrize(("name", "rows"), [("code", 3), ("sort", 3)])
def test_quality_can_be_measured_on_fewer_examples(name, rows):
    task = replace(load_task(name), examples=rows)
    whole = shown(load_task(name).test, task.base)
    for measure in (task.val, task.test, task.old):
        assert len(shown(measure, task.base)) == rows < len(whole)


@pytest.mark.parametrize("name", ["code", "sort"])
def test_a_text_that_has_the_name_of_a_task_is_not_mistaken_for_it(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path(name).write_text("Once upon a midnight dreary, while I pondered. " * 60, "utf-8")
    for which in (Path(name), f"./{name}", str(tmp_path / name)):
        task = load_task(which)
        assert (task.name, task.metric, task.base) == (f"{name}-text", NATS, "docs-tiny")
        assert decode(task.data.corpus.train[:9]) == "Once upon"
    assert load_task(name).about == load_task(load_task(name)).about != task.about


def test_a_text_that_was_edited_is_read_anew(tmp_path):
    path = tmp_path / "mine.txt"
    for words in ("the first draft of it. ", "something else by now. "):
        path.write_text(words * 100, "utf-8")
        assert decode(load_task(path).data.corpus.train[: len(words)]) == words


@pytest.mark.parametrize("name", [None, 3, 2.5, [], b"code"])
def test_a_task_is_a_name_a_path_or_a_task(name):
    with pytest.raises(ValueError, match="a task is its name, the path of a text file, or a Task"):
        load_task(name)


def test_every_task_says_what_it_is_about():
    assert load_task("code").about == "English documentation → Python code"
    assert load_task("sort").about == "seven string tasks → sort a word"


@pytest.mark.parametrize("name", ["code", "reverse"])
def test_every_methods_rate_is_within_a_hundredth_of_its_best_on_val(name):
    task = load_task(name)
    quality: dict[tuple[str, float], list[float]] = {}
    ranks = {"ia3": None, "vera": 64, "lora-xs": 16, "lora-fa": task.lora.r}  # of the recipe
    few = [row for row in shipped_rows("how_few_numbers") if row["method"] in ranks]
    few = [row for row in few if row["r"] == ranks[row["method"]]]
    for row in shipped_rows("learning_rate_sweep") + few:
        if row["task"] == name:
            value = row["val"] if METRICS[row["metric"]].higher_is_better else -row["val"]
            quality.setdefault((row["method"], row["lr"]), []).append(value)
    for method in METHODS:
        rate = task.lr[method]
        best = max(np.mean(values) for (one, _), values in quality.items() if one == method)
        assert np.mean(quality[method, rate]) > best - 0.0101, method
