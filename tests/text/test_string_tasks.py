"""Claims about the string tasks: their rules, the form of an example, what counts in the loss."""

import numpy as np
import pytest

from minilora.text import string_tasks
from minilora.text.alphabet import decode
from minilora.text.windows import IGNORE_INDEX


@pytest.mark.parametrize(
    ("name", "symbol", "answer"),
    [
        ("copy", "=", "brave"),
        ("upper", "^", "BRAVE"),
        ("double", "2", "bbrraavvee"),
        ("rotate", "@", "raveb"),
        ("vowel", "~", "brevi"),
        ("first", "1", "b"),
        ("last", "9", "e"),
        ("reverse", "<", "evarb"),
        ("sort", "s", "aberv"),
        ("swap", "&", "rbvae"),
        ("next", "+", "csbwf"),
        ("ends", "|", "eravb"),
    ],
)
def test_each_task_has_its_symbol_and_its_answer(name, symbol, answer):
    task = string_tasks.STRING_TASKS[name]
    assert (task.name, task.symbol, task.apply("brave")) == (name, symbol, answer)


def test_pretraining_knows_seven_tasks_and_every_task_has_a_symbol_of_its_own():
    new = set(string_tasks.STRING_TASKS) - set(string_tasks.PRETRAIN_TASKS)
    assert new == {"reverse", "sort", "swap", "next", "ends"}
    assert len({task.symbol for task in string_tasks.STRING_TASKS.values()}) == 12


def test_the_letter_after_z_is_a():
    assert string_tasks.STRING_TASKS["next"].apply("zoo") == "app"


@pytest.mark.parametrize("name", ["reverse", "double", "last"])
def test_questions_of_a_draw_have_one_length_and_their_answers_are_right(name):
    words = ["cat", "lion", "horse", "badger", "giraffe", "antelope"]
    task, lengths, known = string_tasks.STRING_TASKS[name], set(), 0
    for seed in range(60):
        rng = np.random.default_rng(seed)
        prompts, answers = string_tasks.string_questions(name, words, 4, rng)
        assert prompts.dtype == answers.dtype == np.int64 and len(prompts) == len(answers) == 4
        for prompt, answer in zip(prompts, answers, strict=True):
            word = decode(prompt).removeprefix(task.symbol).removesuffix(">")
            assert decode(answer) == task.apply(word) + "\n"
            lengths.add(len(word))
            known += word in words
    assert lengths == set(range(3, 9)) and 0.3 < known / 240 < 0.7


def test_questions_need_words_of_the_length_that_was_drawn():
    lengths = [np.random.default_rng(seed).integers(3, 9) for seed in range(9)]
    for seed in (seed for seed, length in enumerate(lengths) if length > 3):
        with pytest.raises(ValueError, match=f"no word has {lengths[seed]} letters; pass those of"):
            string_tasks.string_questions("copy", ["cat"], 1, np.random.default_rng(seed))


def test_row_is_the_example_and_only_the_answer_has_targets():
    ids, targets = string_tasks.string_examples(["reverse"], ["abc"], 28, np.random.default_rng(0))
    assert ids.shape == targets.shape == (1, 28) and ids.dtype == targets.dtype == np.int64
    assert decode(ids[0]) == "<abc>cba" + "\n" * 20
    assert (targets[0] != IGNORE_INDEX).nonzero()[0].tolist() == [4, 5, 6, 7]
    assert decode(targets[0, 4:8]) == "cba\n"


def test_string_batch_rows_are_right_examples_of_the_asked_tasks():
    rng = np.random.default_rng(0)
    ids, targets = string_tasks.string_batch(
        string_tasks.PRETRAIN_TASKS, ["house", "tree"], 300, 28, rng
    )
    assert ids.shape == targets.shape == (300, 28) and ids.dtype == targets.dtype == np.int64
    by_symbol = {task.symbol: task for task in string_tasks.STRING_TASKS.values()}
    seen, lengths = set(), set()
    for row, target in zip(ids, targets, strict=True):
        line = decode(row).rstrip("\n")
        word, answer = line[1:].split(">")
        seen.add(by_symbol[line[0]].name)
        lengths.add(len(word))
        assert by_symbol[line[0]].apply(word) == answer
        assert decode(target[target != IGNORE_INDEX]) == answer + "\n"
    assert seen == set(string_tasks.PRETRAIN_TASKS) and lengths == set(range(3, 9))


def test_half_of_the_words_are_random_letters():
    rng = np.random.default_rng(0)
    ids, _ = string_tasks.string_batch(["copy"], ["house"], 1000, 28, rng)
    house = np.mean([decode(row).startswith("=house>") for row in ids])
    assert abs(house - 0.5) < 0.05


def test_string_batch_follows_the_seed():
    def draw(seed):
        rng = np.random.default_rng(seed)
        return string_tasks.string_batch(["copy", "sort"], ["house"], 9, 28, rng)[0]

    assert np.array_equal(draw(1), draw(1)) and not np.array_equal(draw(1), draw(2))


def test_words_of_nine_letters_are_left_out_and_doubles_of_eight_fit():
    words = ["elephants", "elephant", "ant"]
    ids, targets = string_tasks.string_examples(["double"], words, 28, np.random.default_rng(0))
    lines = [decode(row).rstrip("\n") for row in ids]
    assert lines == ["2elephant>eelleepphhaanntt", "2ant>aanntt"]
    assert decode(targets[0][targets[0] != IGNORE_INDEX]) == "eelleepphhaanntt\n"


def test_smallest_block_holds_the_newline_of_the_longest_example():
    for tasks, needed in ((["double"], 26), (["copy"], 18), (["first"], 11)):
        rng = np.random.default_rng(0)
        targets = string_tasks.string_examples(tasks, ["elephant"], needed, rng)[1]
        assert targets[0, -1] == 0
        with pytest.raises(ValueError, match=f"use at least {needed}"):
            string_tasks.string_examples(tasks, ["ant"], needed - 1, rng)


@pytest.mark.parametrize("tasks", [["copy", "caesar"], [], "copy"])
def test_unknown_tasks_are_answered_with_the_known_ones(tasks):
    with pytest.raises(ValueError, match="must be a list of some of: copy, upper, double, rotate"):
        string_tasks.string_batch(tasks, ["ant"], 2, 28, np.random.default_rng(0))


def test_no_usable_word_is_an_error():
    rng = np.random.default_rng(0)
    with pytest.raises(ValueError, match="no word has at most 8 letters"):
        string_tasks.string_examples(["copy"], ["elephants"], 28, rng)
    with pytest.raises(ValueError, match="no word has at most 8 letters"):
        string_tasks.string_batch(["copy"], [], 2, 28, rng)


def test_word_outside_the_alphabet_is_named():
    with pytest.raises(ValueError, match="'ß'"):
        string_tasks.string_examples(["copy"], ["groß"], 28, np.random.default_rng(0))
