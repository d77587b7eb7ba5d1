"""Claims about `minilora quiz` and `minilora exam`: what a person types, sees and keeps.

Most run in this process, with lines on stdin as a pipe has them; what needs a terminal has one.
"""

import errno
import io
import json
import random
import re
import sys
from collections import Counter
from datetime import UTC, datetime, timedelta
from itertools import chain, repeat
from pathlib import Path

import pytest
from test_cli import error_of, exit_of, start

from minilora import cli
from minilora.cli import quizzing
from minilora.cli.terminal import keyboard
from minilora.cli.terminal.plain import plain
from minilora.learn.demos.demo import Proof, prove
from minilora.learn.exam import progress, review
from minilora.learn.exam.answers import is_typed
from minilora.learn.exam.cards import TOPICS, load_cards
from minilora.learn.exam.maths import to_text
from minilora.learn.exam.quiz import Answer, draw, question

CARDS = {card.id: card for card in load_cards()}
CORE = CARDS["what-is-lora"]


@pytest.fixture(autouse=True)
def home(monkeypatch, tmp_path):
    """A user data folder of its own. Cards are read once, not by every command."""
    folder = tmp_path / "home"
    monkeypatch.setattr(quizzing, "load_cards", lambda: [*CARDS.values()])
    monkeypatch.setattr(progress.platformdirs, "user_data_path", lambda name: folder)
    monkeypatch.setenv("COLUMNS", "88")
    return folder


def questions(seed, n=20, topic=None):
    """What a quiz with this seed asks."""
    rng = random.Random(seed)
    cards = [card for card in CARDS.values() if topic in (None, *card.tags)]
    return [question(card, rng) for card in draw(cards, n, rng)]


def right_line(asked):
    return (
        to_text(asked.card.right.text) if is_typed(asked.card) else asked.letter(asked.card.right)
    )


def wrong_line(asked):
    wrong = next(c for c in asked.choices if c.key != asked.card.answer)
    return to_text(wrong.text) if is_typed(asked.card) else asked.letter(wrong)


class Typed(io.StringIO):
    """Lines, as from a pipe, or as from a person."""

    def __init__(self, lines, by_hand=False):
        super().__init__("".join(f"{line}\n" for line in lines))
        self.isatty = lambda: by_hand


@pytest.fixture
def quiz(monkeypatch, capsys):
    """Run a command with these lines typed: what it printed, on one line."""

    def run(argv, lines, by_hand=False):
        monkeypatch.setattr(sys, "stdin", Typed(lines, by_hand))
        assert cli.main(argv) == 0
        captured = capsys.readouterr()
        run.err = captured.err
        return " ".join(captured.out.split())

    return run


def kept(home):
    return json.loads((home / "progress.json").read_text("utf-8"))["cards"]


def shown(text):
    return " ".join(to_text(text).split())


# practice


def test_a_right_answer_is_explained_with_its_source_and_lesson(quiz):
    (asked,) = questions(1, 1)
    out = quiz(["quiz", "--seed", "1", "--questions", "1"], [right_line(asked)])
    card = asked.card
    assert f"1 of 1 {TOPICS[card.topic]}" in out and shown(card.question) in out
    assert "Right:" in out and "Wrong" not in out
    assert shown(card.right.why) in out and shown(card.explanation) in out
    assert f"Source: {shown(card.source)}" in out and f"Lesson {card.lesson}, " in out
    assert "1 of 1 right (100 %)" in out and "To read again" not in out


def test_a_wrong_answer_is_explained_by_the_reason_of_the_choice_and_of_the_right_one(quiz):
    asked = next(q for q in questions(1) if not is_typed(q.card))
    out = quiz(["quiz", "--seed", "1"], [
        line for q in questions(1)[: questions(1).index(asked)] for line in [right_line(q)]
    ] + [wrong_line(asked)])  # fmt: skip
    wrong, right = wrong_line(asked), right_line(asked)
    assert f"Wrong: not {wrong}, but {right}." in out
    why = next(c.why for c in asked.choices if asked.letter(c) == wrong)
    assert shown(why) in out and shown(asked.card.right.why) in out
    assert f"To read again: {asked.card.lesson} " in out


def test_piped_answers_all_right_score_all(quiz):
    out = quiz(["quiz", "--seed", "5"], map(right_line, questions(5)))
    assert "20 of 20 right (100 %)" in out and out.count("Right:") == 20
    for topic, n in Counter(q.card.topic for q in questions(5)).items():
        assert re.search(rf"{topic} █+ {n} of {n}", out)


@pytest.mark.parametrize("end", [[], ["q"]])
def test_the_end_of_the_input_and_q_show_the_score_so_far(quiz, end):
    lines = [right_line(q) for q in questions(5)[:3]]
    out = quiz(["quiz", "--seed", "5"], [*lines, *end])
    assert "3 of 3 right (100 %)" in out and "3 of 20" in out and "5 of 20" not in out


def test_nothing_on_stdin_is_no_error(quiz, monkeypatch, capsys):
    assert "No question was answered." in quiz(["quiz"], [])
    monkeypatch.setattr(sys, "stdin", None)
    assert cli.main(["quiz"]) == 0
    assert "No question was answered." in capsys.readouterr().out


def test_ctrl_c_shows_the_score_so_far_and_keeps_progress(quiz, monkeypatch, home):
    pytest.importorskip("fsrs")
    first = questions(5)[0]
    answers = iter([right_line(first), KeyboardInterrupt, ""])

    def read():
        line = next(answers)
        if line is KeyboardInterrupt:
            raise line
        return line

    monkeypatch.setattr("builtins.input", read)
    out = quiz(["quiz", "--seed", "5"], [])
    assert "1 of 1 right (100 %)" in out
    assert list(kept(home)) == [first.card.id]


def test_a_seed_asks_the_same_and_a_quiz_without_one_says_its_own(quiz):
    first, again = (quiz(["quiz", "--seed", "8"], ["-"] * 20) for _ in range(2))
    assert first == again != quiz(["quiz", "--seed", "9"], ["-"] * 20)
    seed = re.search(r"20 questions, seed (\d+)", quiz(["quiz"], []))[1]
    asked = questions(int(seed), 1)
    assert shown(asked[0].card.question) in quiz(["quiz", "--seed", seed, "--questions", "1"], [])


def test_show_me_runs_the_demo_and_names_the_choice_that_it_supports(quiz):
    topic = "definition"
    asked = next(
        (seed, q) for seed in range(1000) for q in questions(seed, 1, topic) if q.card == CORE
    )
    seed, asked = asked
    argv = ["quiz", "--seed", str(seed), "--topic", topic, "--questions", "1"]
    out = quiz(argv, [wrong_line(asked), "s"])
    proof = prove(CORE)
    assert f"Measured just now: {proof.does}" in out
    assert "LoRA trains 9,216" in out and "entries of W that changed 0" in out
    assert f"This supports {asked.letter(CORE.right)}, and refutes the others." in out


def test_what_a_demo_supports_is_said_even_if_it_is_not_the_answer(quiz, monkeypatch):
    (asked,) = questions(1, 1)
    wrong = next(c for c in asked.choices if c.key != asked.card.answer)
    for supported in ([], [wrong.key]):
        proof = Proof("Nothing is done.", {"measured": 1.5}, supported)
        monkeypatch.setattr(quizzing, "prove", lambda card, proof=proof: proof)
        out = quiz(["quiz", "--seed", "1", "--questions", "1"], [right_line(asked), "s"])
        name = asked.letter(wrong) if not is_typed(asked.card) else shown(wrong.text)
        assert f"This supports {name if supported else 'none of the choices'}." in out
        assert "refutes" not in out


def test_help_says_what_can_be_typed_and_is_no_answer(quiz):
    out = quiz(["quiz", "--seed", "5"], ["?"], by_hand=True)
    assert "to leave it open; q to end." in out and "No question was answered." in out


def test_what_a_person_types_that_is_no_answer_is_asked_again_in_one_sentence(quiz):
    asked = next(q for q in questions(5) if not is_typed(q.card))
    before = [
        line for q in questions(5)[: questions(5).index(asked)] for line in (right_line(q), "")
    ]
    lines = [*before, "E", "nonsense", right_line(asked)]
    out = quiz(["quiz", "--seed", "5"], lines, by_hand=True)
    assert out.count("Please type a letter from A to D; ? for help.") == 2
    n = len(before) // 2 + 1
    assert f"{n} of {n} right" in out


@pytest.mark.parametrize("argv", [["quiz"], ["quiz", "--exam"]])
@pytest.mark.parametrize("line", ["", "?", "-", "s", "r", "nonsense ((", "A"])
def test_a_pipe_that_says_the_same_for_ever_comes_to_an_end(argv, line, quiz, monkeypatch):
    monkeypatch.setattr(quizzing, "prove", lambda card: Proof("Nothing.", {}, [card.answer]))
    assert " of 20 right" in quiz([*argv, "--seed", "5"], [line] * 100)


@pytest.mark.parametrize("argv", [["quiz"], ["quiz", "--exam"]])
@pytest.mark.parametrize("line", ["?", "-", "nonsense (("])
def test_a_line_of_a_pipe_that_is_no_answer_leaves_the_others_with_their_questions(
    argv, line, quiz
):
    lines = [line, *map(right_line, questions(5)[1:])]
    assert "19 of 20 right" in quiz([*argv, "--seed", "5"], lines)


def test_not_knowing_is_not_right_and_explained(quiz, home):
    out = quiz(["quiz", "--seed", "5", "--questions", "1"], ["-"])
    assert "Not answered: right is" in out and "0 of 1 right (0 %)" in out


def test_the_choices_of_a_gap_are_shown_on_enter_and_can_then_be_chosen(quiz):
    seed, at = next(
        (seed, i) for seed in range(99) for i, q in enumerate(questions(seed)) if is_typed(q.card)
    )
    asked = questions(seed)[at]
    before = [right_line(q) for q in questions(seed)[:at]]
    argv = ["quiz", "--seed", str(seed)]
    hidden = quiz(argv, [*before, wrong_line(asked)])
    letter = asked.letter(asked.card.right)
    # Each answer is followed by Enter, so that the empty line shows choices.
    lines = [line for answer in before for line in (answer, "")]
    out = quiz(argv, [*lines, "", letter])
    assert f"{letter} {shown(asked.card.right.text)}" in out
    assert f"{letter} {shown(asked.card.right.text)}" not in hidden
    assert f"{at + 1} of {at + 1} right" in out


def test_a_person_types_enter_between_questions_and_anything_else_is_not_taken_for_an_answer(quiz):
    first, second = questions(5, 2)
    lines = [right_line(first), "B", "", right_line(second)]
    out = quiz(["quiz", "--seed", "5", "--questions", "2"], lines, by_hand=True)
    assert "2 of 2 right" in out and quiz.err.count("Type one of: Enter, s, q") == 1


def test_wrong_answers_can_be_looked_at_again_with_their_reasons(quiz):
    lines = [line for q in questions(5, 3) for line in (wrong_line(q), "")]
    out = quiz(["quiz", "--seed", "5", "--questions", "3"], [*lines, "r", "", "s", ""])
    score = out.index("0 of 3 right")
    for i, asked in enumerate(questions(5, 3)):
        assert f"{i + 1} of 3" in out[score:]
        assert shown(asked.card.question) in out[score:]
        assert shown(asked.card.right.why) in out[score:]
    assert out[score:].count("Measured just now") == 1


def test_lessons_to_read_again_name_the_notebook_if_it_is_there(quiz, monkeypatch, tmp_path):
    monkeypatch.setattr(quizzing, "LESSONS", tmp_path)
    (asked,) = questions(5, 1)
    name = f"{asked.card.lesson}_a_lesson.ipynb"
    argv = ["quiz", "--seed", "5", "--questions", "1"]
    nowhere = quiz(argv, ["-"])
    (tmp_path / "99_another.ipynb").write_text("{}")
    elsewhere = quiz(argv, ["-"])
    (tmp_path / name).write_text("{}")
    assert name in quiz(argv, ["-"]) and name not in nowhere + elsewhere
    assert "(1 wrong), no notebook yet" in elsewhere and "no notebook" not in nowhere


def test_a_topic_limits_the_questions_and_too_many_are_said(quiz):
    n = sum("serving" in card.tags for card in CARDS.values())
    out = quiz(["quiz", "--topic", "serving", "--questions", str(n + 1)], ["-"] * n)
    assert f"There are {n} cards to ask: all of them are asked, not {n + 1}" in quiz.err
    assert f"0 of {n} right" in out
    assert all(shown(q.card.question) in out for q in questions(0, n, "serving"))


def test_that_there_are_fewer_cards_is_said_only_to_whoever_asked_for_more(quiz):
    topics = Counter(tag for card in CARDS.values() for tag in card.tags)
    topic = next(name for name in TOPICS if topics[name] < 20)
    quiz(["quiz", "--topic", topic], [])
    assert "There are" not in quiz.err


@pytest.mark.parametrize("lesson", ["05", "5"])
def test_the_number_of_a_lesson_asks_the_cards_that_it_prepares(lesson, quiz):
    cards = [card for card in CARDS.values() if card.lesson == "05"]
    out = quiz(["quiz", "--topic", lesson, "--questions", str(len(cards))], ["-"] * len(cards))
    assert all(shown(card.question) in out for card in cards) and len(cards) > 5


def test_no_gap_is_filled_by_what_is_a_command():
    texts = [t for c in CARDS.values() if c.kind == "cloze" for t in (c.right.text, *c.accept)]
    assert not {"q", "s", "?", "-"} & {to_text(text).strip().lower() for text in texts}


# mock exam


def test_an_exam_says_nothing_of_right_and_wrong_until_the_end(quiz):
    asked = questions(7, 4)
    lines = [right_line(asked[0]), wrong_line(asked[1]), right_line(asked[2]), right_line(asked[3])]
    out = quiz(["quiz", "--exam", "4", "--seed", "7"], lines)
    today = datetime.now().date()
    score = f"3 of 4 right (75 %): passed on {today}; the pass line is 70 %."
    before, after = out.split(score)
    assert "Right:" not in before and "Wrong" not in before
    assert not any(shown(q.card.explanation) in before for q in asked)
    assert "r: what was wrong (1)" in after and "Mock exam, seed 7: 4 questions in 4:00." in out
    assert "4:00 left" in before or "3:59 left" in before


def test_an_exam_below_the_pass_line_is_not_passed(quiz):
    asked = questions(7, 4)
    lines = [*map(right_line, asked[:2]), *map(wrong_line, asked[2:])]
    out = quiz(["quiz", "--exam", "4", "--seed", "7"], lines)
    assert "2 of 4 right (50 %): not passed" in out


def test_a_question_that_is_left_for_later_comes_again_at_the_end(quiz):
    asked = questions(7, 3)
    lines = ["-", right_line(asked[1]), right_line(asked[2]), right_line(asked[0])]
    out = quiz(["quiz", "--exam", "3", "--seed", "7"], lines, by_hand=True)
    places = re.findall(r"(\d) of 3 (?!right)[A-Z]", out)
    assert places == ["1", "2", "3", "1"] and "3 of 3 right" in out


def test_questions_without_an_answer_count_as_not_right_and_are_explained(quiz):
    asked = questions(7, 3)
    lines = [right_line(asked[0]), "q"]
    out = quiz(["quiz", "--exam", "3", "--seed", "7"], lines)
    assert "Unanswered, which counts as not right: 2 of 3." in out
    assert "1 of 3 right (33 %): not passed" in out and "r: what was wrong (2)" in out


def test_when_the_time_is_over_the_rest_counts_as_unanswered(quiz, monkeypatch):
    now = chain([0.0, 0.0, 1.0, 30.0, 31.0], repeat(61.0))
    for module in (quizzing, keyboard):
        monkeypatch.setattr(module, "monotonic", lambda: next(now))
    monkeypatch.delattr(keyboard.signal, "setitimer")
    out = quiz(["quiz", "--exam", "3", "--minutes", "1", "--seed", "7"], ["A"] * 9)
    assert "The time is over." in out and "Unanswered, which counts as not right:" in out
    assert "1:00 left" in out


def test_exam_without_a_number_has_20_questions(quiz):
    assert "20 questions in 20:00" in quiz(["quiz", "--exam"], [])


# progress and review


def test_every_answer_is_kept_at_once_in_quiz_and_exam(quiz, home):
    pytest.importorskip("fsrs")
    first, second = questions(5, 2)
    quiz(["quiz", "--seed", "5", "--questions", "2"], [right_line(first), wrong_line(second)])
    assert [kept(home)[q.card.id]["right"] for q in (first, second)] == [1, 0]
    quiz(["quiz", "--seed", "5", "--exam", "2"], [right_line(first), right_line(second)])
    entry = kept(home)[second.card.id]
    assert (entry["answered"], entry["right"]) == (2, 1)
    assert datetime.fromisoformat(entry["due"]) > datetime.now(UTC)


def test_progress_goes_to_the_file_that_is_named(quiz, home, here):
    pytest.importorskip("fsrs")
    quiz(["quiz", "--progress", "mine.json", "--questions", "1"], ["-"])
    assert len(json.loads(Path("mine.json").read_text("utf-8"))["cards"]) == 1
    assert not home.exists()


def test_two_quizzes_at_once_keep_the_answers_of_both(home):
    pytest.importorskip("fsrs")
    records = [quizzing.Record(None), quizzing.Record(None)]
    asked = questions(5, 4)
    for i, each in enumerate(asked):
        records[i % 2].keep(Answer(each))
    assert list(kept(home)) == [each.card.id for each in asked]


def test_review_asks_what_is_due_then_new_cards_and_says_what_is_next(quiz, home):
    pytest.importorskip("fsrs")
    home.mkdir()
    now = datetime.now(UTC)
    first, *_ = CARDS.values()
    others = [*CARDS.values()][1:4]
    old = [review.answered(None, True, now - timedelta(days=30 + i)) for i in range(3)]
    entries = {card.id: entry for card, entry in zip(others, old, strict=True)}
    (home / "progress.json").write_text(json.dumps({progress.FORMAT: 1, "cards": entries}))
    out = quiz(["quiz", "--review"], ["-"] * 13)
    new = len(CARDS) - 3
    assert f"3 of {len(CARDS)} cards are due, {new} are new: 10 of these today" in quiz.err
    order = [out.index(shown(card.question)) for card in (*reversed(others), first)]
    assert order == sorted(order) and "0 of 13 right" in out
    assert "Next: 13 cards due tomorrow, for minilora quiz --review" in quiz.err
    assert f"progress is kept in {home / 'progress.json'}" in quiz.err
    assert "seed" not in out
    again = quiz(["quiz", "--review"], [])
    assert f"0 of {len(CARDS)} cards are due" in quiz.err and ": 0 of these today" in quiz.err
    assert "Next: 13 cards due tomorrow" in quiz.err and again == ""


def test_review_of_a_topic_asks_about_it_alone(quiz):
    pytest.importorskip("fsrs")
    out = quiz(["quiz", "--review", "--topic", "memory"], ["-"] * 20)
    asked = [card for card in CARDS.values() if shown(card.question) in out]
    assert asked and all("memory" in card.tags for card in asked)


def test_without_fsrs_the_quiz_runs_and_says_once_that_progress_is_not_kept(
    quiz, home, monkeypatch, capsys
):
    monkeypatch.setitem(sys.modules, "fsrs", None)
    out = quiz(["quiz", "--questions", "2"], ["-", "-"])
    assert "0 of 2 right" in out and not home.exists()
    sentence = 'progress is not kept without fsrs: pip install "minilora[cards]"'
    assert quiz.err.count(sentence) == 1 and "Next" not in quiz.err
    monkeypatch.setattr(sys, "stdin", Typed([]))
    line = error_of(["quiz", "--review"], capsys)
    assert 'reviewing needs fsrs: pip install "minilora[cards]"' in line


def test_a_broken_progress_file_is_said_in_one_sentence_and_kept(quiz, home):
    home.mkdir()
    (home / "progress.json").write_bytes(b"{half")
    out = quiz(["quiz", "--questions", "1"], ["-"])
    assert "0 of 1 right" in out
    (sentence,) = (line for line in quiz.err.splitlines() if line.startswith("minilora: "))
    assert "progress.json" in sentence and "is kept as progress.broken-1.json" in sentence
    assert (home / "progress.broken-1.json").read_bytes() == b"{half"


def test_a_folder_that_cannot_be_written_is_said_once_before_the_first_question(
    quiz, home, monkeypatch
):
    pytest.importorskip("fsrs")

    def refuse(path, write):
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr(progress, "write_atomically", refuse)
    out = quiz(["quiz", "--questions", "2"], ["-", "-"])
    assert "0 of 2 right" in out and quiz.err.count("progress is not kept") == 1


def test_progress_of_a_later_version_is_refused_and_left_alone(home, capsys):
    home.mkdir()
    content = json.dumps({progress.FORMAT: 9, "cards": {}})
    (home / "progress.json").write_text(content)
    line = error_of(["quiz"], capsys)
    assert "written by a later minilora (progress 9" in line and "--progress" in line
    assert (home / "progress.json").read_text() == content


# wrong use


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["quiz", "--topic", "no-such"], "no card has the topic 'no-such'; choose one of: defin"),
        (["exam", "--topic", "no-such"], "no card has the topic 'no-such'; choose one of: defin"),
        (["quiz", "--topic", ""], "no card has the topic ''; choose one of: defin"),
        (["quiz", "--topic", "99"], "no card has the topic '99'; choose one of: defin"),
        (["quiz", "--minutes", "5"], "--minutes is the time of a mock exam: add --exam"),
        (["exam", "--out", "no/such/exam.html"], "its folder does not exist; make it first"),
        (["exam", "--out", "a.html"], "cannot write a.html: there is a folder of that name"),
    ],
)
def test_what_cannot_be_done_is_one_sentence(argv, message, here, capsys):
    (here / "a.html").mkdir()
    assert message in error_of(argv, capsys)


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["quiz", "--exam", "0"], "'0' is not a whole number of at least 1"),
        (["quiz", "--exam", "4", "--review"], "--review: not allowed with argument --exam"),
        (
            ["quiz", "--exam", "--minutes", "0"],
            "'0' is not a number of minutes above 0, at",
        ),
        (["quiz", "--exam", "--minutes", "nan"], "'nan' is not a number of minutes"),
        (["quiz", "--exam", "--minutes", "1e9"], "'1e9' is not a number of minutes"),
        (["quiz", "--seed", "x"], "'x' is not a whole number"),
        (["exam", "--versions", "A,A"], "'A,A' are not different short names such as A,B"),
        (["exam", "--versions", ""], "'' are not different short names"),
        (["exam", "--versions", "A,<b>"], "'A,<b>' are not different short names"),
        (["exam", "--out", "exam.pdf"], "'exam.pdf' does not end in .html or .htm"),
        (["exam", "--questions", "-1"], "'-1' is not a whole number"),
    ],
)
def test_option_that_makes_no_sense_exits_with_2_and_says_which(argv, message, capsys):
    assert exit_of(argv) == 2
    assert message in capsys.readouterr().err


# how it looks


@pytest.mark.parametrize("columns", [40, 80, 120])
def test_no_line_is_wider_than_the_terminal_nor_than_88_and_none_is_cut(
    columns, monkeypatch, capsys
):
    monkeypatch.setenv("COLUMNS", str(columns))
    asked = questions(5)
    monkeypatch.setattr(
        sys, "stdin", Typed([wrong_line(asked[0]), "s", *map(wrong_line, asked[1:]), "r"])
    )
    assert cli.main(["quiz", "--seed", "5"]) == 0
    out = capsys.readouterr().out
    lines = [line.rstrip() for line in out.splitlines()]
    typed = [line for line in lines if re.match("Enter: |Your answer|r: ", line)]
    assert max(len(line) for line in lines if line not in typed) <= min(columns, 88)
    assert all(len(prompt) <= 40 for prompt in typed if not prompt.startswith("Your answer"))
    assert len(typed) > 40
    assert "…" not in "".join(lines).replace("‘…’", "") or any(
        "…" in c.question + c.explanation for c in CARDS.values()
    )


def test_choices_have_a_hanging_indent(monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "40")
    monkeypatch.setattr(sys, "stdin", Typed([]))
    cli.main(["quiz", "--topic", "definition", "--questions", "1", "--seed", "0"])
    lines = [line.rstrip() for line in capsys.readouterr().out.splitlines()]
    first = next(i for i, line in enumerate(lines) if line.startswith("  A  "))
    assert lines[first + 1].startswith(("     ", "  B  ")) and not lines[first + 1][5:6].isspace()


@pytest.mark.parametrize(
    ("text", "encoding", "expected"),
    [
        ("$ΔW = s A B$", "cp1252", "Delta W = s A B"),
        ("$α/√r$", "cp1252", "alpha/sqrt r"),
        ("$x^T$, $W_0$, $r^2$", "ascii", "x^T, W_0, r^2"),
        ("$r^2$ × 3 ≤ 4", "cp1252", "r² × 3 <= 4"),
        ("$10^{-4}$", "ascii", "10^-4"),
        ("é → ☃", "ascii", "e -> ?"),
        ("“so” … it’s", "ascii", '"so" ... it\'s'),
        ("α", "utf-8", "α"),
    ],
)
def test_what_a_terminal_lacks_is_spelled(text, encoding, expected):
    assert plain(to_text(text), encoding) == expected


def test_no_card_needs_a_question_mark_for_a_character_that_a_windows_console_lacks():
    for card in CARDS.values():
        texts = [card.question, card.explanation, card.source, *card.items, *card.options]
        texts += [text for c in card.choices for text in (c.text, c.why)]
        for text in map(to_text, texts):
            for encoding in ("cp1252", "ascii"):
                assert plain(text, encoding).count("?") == text.count("?"), text


# real processes


@pytest.mark.system
@pytest.mark.parametrize("encoding", ["cp1252", "ascii", "utf-8"])
def test_a_real_pipe_of_any_encoding(encoding, tmp_path):
    lines = "".join(f"{plain(right_line(q), encoding)}\n" for q in questions(5, 6))
    env = {
        "PYTHONIOENCODING": "utf-8:strict" if encoding == "utf-8" else encoding,
        "HOME": str(tmp_path),
    }
    done = start("quiz", "--seed", "5", "--questions", "6", env=env,
                 input=lines.encode(encoding) + b"\xff\xfe\n")  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert b"Traceback" not in done.stderr
    assert "6 of 6 right" in done.stdout.decode(encoding)


@pytest.mark.system
def test_in_a_terminal_a_wrong_answer_a_demo_and_ctrl_c(terminal):
    asked = questions(5)[0]
    shell = terminal("quiz", "--seed", "5")
    shell.type("Your answer", f"{wrong_line(asked)}\n")
    shell.type("Enter: next", "s\n")
    shell.until("This supports")
    shell.type("Enter: next", "\n")
    shell.type_later("Your answer", "\x03")
    shell.type("Enter: end", "\n")
    assert shell.status() == 0
    assert "Measured just now" in shell.out and "0 of 1 right" in shell.out
    assert "\x1b[" in shell.out and "Traceback" not in shell.out


@pytest.mark.system
def test_in_a_terminal_without_colour_there_is_none(terminal):
    shell = terminal("quiz", "--seed", "5", NO_COLOR="1")
    shell.type("Your answer", "-\n")
    shell.type("Enter: next", "q\n")
    shell.type("Enter: end", "\n")
    assert shell.status() == 0 and not re.search(r"\x1b\[(?:\d+;)*3[0-7]", shell.out)


@pytest.mark.system
def test_in_a_terminal_the_time_ends_an_exam_that_waits_for_an_answer(terminal):
    shell = terminal("quiz", "--exam", "3", "--minutes", "0.05")
    shell.until("The time is over.")
    shell.type("Enter: end", "\n")
    assert shell.status() == 0 and "Traceback" not in shell.out
    assert "0 of 3 right (0 %): not passed" in shell.out


# exam on paper


def test_a_paper_exam_is_written_where_it_is_said(here, capsys):
    assert cli.main(["exam", "--seed", "7", "--versions", "A,B", "--questions", "5"]) == 0
    out = capsys.readouterr().out
    assert "Written to minilora-exam-7.html: 2 versions of 5 questions" in out
    first = Path("minilora-exam-7.html").read_text("utf-8")
    argv = ["exam", "--seed", "7", "--versions", "A,B", "--questions", "5", "--out", "again.html"]
    assert cli.main(argv) == 0
    assert Path("again.html").read_text("utf-8") == first


def test_a_paper_exam_of_more_questions_than_cards_has_them_all(here, capsys):
    n = sum("serving" in card.tags for card in CARDS.values())
    assert cli.main(["exam", "--topic", "serving", "--questions", "999", "--versions", "X"]) == 0
    captured = capsys.readouterr()
    assert f"There are {n} cards to ask" in captured.err
    assert f"1 version of {n} questions" in captured.out
    (written,) = Path().glob("minilora-exam-*.html")
    assert written.read_text("utf-8").count('class="question"') == n


def test_the_key_of_a_paper_exam_cannot_be_made_without_its_seed(here, capsys):
    seeds = set()
    for _ in range(3):
        assert cli.main(["exam", "--questions", "3"]) == 0
        seeds.add(re.search(r"its seed, (\d+), can make the key", capsys.readouterr().out)[1])
    assert len(seeds) > 1
