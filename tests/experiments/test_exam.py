"""Claims about the exam, on a tiny model with a tiny tokenizer: what it measures, and that it can
be passed, and that a placebo does not help. The real model's results are in test_results.py."""

from dataclasses import replace

import numpy as np
import pytest
from small_exam import FEW, ITEMS, write_chat_model

from minilora.experiments import exam
from minilora.experiments.exam import (
    COURSES,
    MARKED,
    common_start,
    course_task,
    exam_run,
    exam_settings,
    mcnemar,
    sit,
    wilson,
)
from minilora.experiments.rows import save_json
from minilora.hub import load_model
from minilora.hub.tokenizers import load_tokenizer
from minilora.system.errors import UsageError


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_chat_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(autouse=True)
def few_items(monkeypatch):
    monkeypatch.setattr(exam, "load_exam", lambda: FEW)
    monkeypatch.setattr(exam, "ANSWER", 3)


def run(folder, course, **options):
    (row,) = exam_run(course, model=folder, steps=2, **options)
    return row


@pytest.mark.parametrize("course", COURSES)
def test_every_course_gives_a_row_that_can_be_saved(folder, course, tmp_path):
    row = run(folder, course)
    save_json([row], tmp_path / "rows.json")
    assert row["course"] == course and set(row["samples"]) == set(FEW.samples)
    assert all(len(row["marks"][part]) > 2 and 0 <= row[part] <= 1 for part in MARKED)


def test_rows_have_the_same_keys(folder):
    """So that a table of them has no holes."""
    assert run(folder, "base").keys() == run(folder, "lora").keys() == run(folder, "full").keys()


def test_switched_off_a_course_of_lora_leaves_exactly_the_base(folder):
    base, taught = run(folder, "base"), run(folder, "lora")
    assert taught["perplexity"] != base["perplexity"]
    assert taught["perplexity_detached"] == base["perplexity"]


def test_a_run_repeated_or_with_two_threads_says_the_same(folder):
    measured = dict.fromkeys(("cpu_seconds_per_step", "peak_memory_bytes"))
    first, again, wide = (run(folder, "lora", threads=t) | measured for t in (1, 1, 2))
    assert first == again == wide


def test_the_rows_of_two_seeds_differ(folder):
    assert run(folder, "lora")["losses"] != run(folder, "lora", seed=1)["losses"]


def test_ranks_change_only_what_the_rule_for_s_says():
    r8, r1 = COURSES["lora"].lora, COURSES["lora-r1"].lora
    assert r1.lora_alpha / 1 == pytest.approx(r8.lora_alpha / 8 * np.sqrt(8))


def test_the_placebo_is_taught_as_much_of_something_else():
    assert len(ITEMS.pairs) == len(ITEMS.placebo) and not {*ITEMS.pairs} & {*ITEMS.placebo}
    assert replace(COURSES["placebo"], label="", about="pairs") == replace(
        COURSES["lora"], label="", rates=COURSES["placebo"].rates
    )


def test_a_course_is_the_recipe_for_real_models_with_its_own_pairs_and_adapter(folder):
    tokenizer = load_tokenizer(folder)
    for name, pairs in (("lora-r1", ITEMS.pairs), ("placebo", ITEMS.placebo)):
        task = course_task(COURSES[name], ITEMS, folder, tokenizer)
        assert (task.steps, task.data.batch_size, task.lora) == (48, 4, COURSES[name].lora)
        assert COURSES[name].rates[0] == task.lr["lora"]
        learned = [tokenizer.decode(ids) for ids, _ in task.data.learned]
        assert len(learned) == len(pairs)
        assert all(p.answer in text for p, text in zip(pairs, learned, strict=True))
    assert COURSES["full"].rates[0] == task.lr["full"]


def test_who_knows_the_answers_passes(folder, monkeypatch):
    right = {question.right for question in (*FEW.questions, *FEW.controls)}
    right |= {pair.right for pair in FEW.statements}
    tokenizer = load_tokenizer(folder)

    def log_p(text):
        return np.full(len(text), np.log(0.9 if tokenizer.decode(text) in right else 0.1))

    class Knowing:
        def __init__(self, model, start):
            pass

        def __call__(self, prompts, texts):
            return [list(map(log_p, some)) for some in texts]

    monkeypatch.setattr(exam, "Likelihood", Knowing)
    row = sit(load_model(folder), tokenizer, FEW)
    assert [row[part] for part in MARKED] == [1, 1, 1, 1]
    assert row["nats_right"] == pytest.approx(-np.log(0.9))
    assert row["nats_wrong"] == pytest.approx(-np.log(0.1))


def test_who_finds_all_texts_equally_likely_fails(folder, monkeypatch):
    class Indifferent:
        def __init__(self, model, start):
            pass

        def __call__(self, prompts, texts):
            return [[np.zeros(1)] * len(some) for some in texts]

    monkeypatch.setattr(exam, "Likelihood", Indifferent)
    row = sit(load_model(folder), load_tokenizer(folder), FEW)
    assert [row[part] for part in MARKED] == [0, 0, 0, 0]


def test_the_settings_are_the_base_once_and_every_course_with_every_seed():
    settings = exam_settings(COURSES, 3, other_rates=True)
    courses = [s["course"] for s in settings]
    assert courses.count("base") == 1
    assert courses.count("full") == 5 and courses.count("placebo") == 3
    assert len({str(s) for s in settings}) == len(settings)
    assert exam_settings(["full"], 1) == [
        {"course": "base", "seed": 0},
        {"course": "full", "seed": 0},
    ]


def test_prompts_share_what_they_begin_with():
    assert common_start([np.array([1, 2, 3]), np.array([1, 2, 4, 5])]).tolist() == [1, 2]


def test_mcnemar_is_the_binomial_of_those_that_changed():
    assert mcnemar("0" * 10 + "1" * 5, "1" * 10 + "1" * 5) == pytest.approx(2 / 2**10)
    assert mcnemar("0110", "0110") == 1
    assert mcnemar("01", "10") == 1
    assert mcnemar("0" * 8 + "1", "1" * 8 + "0") == pytest.approx(2 * 10 / 2**9)
    with pytest.raises(UsageError, match="cannot be compared"):
        mcnemar("01", "0")


@pytest.mark.parametrize(
    ("right", "n", "interval"),  # Newcombe 1998, table I, method 3
    [(81, 263, (0.2553, 0.3662)), (15, 148, (0.0624, 0.1605)), (0, 20, (0, 0.1611))],
)
def test_wilsons_interval_is_as_published(right, n, interval):
    assert wilson(right / n, n) == pytest.approx(interval, abs=5e-5)


def test_a_course_that_is_none_is_refused(folder):
    with pytest.raises(UsageError, match="no course 'lorra'"):
        run(folder, "lorra")
