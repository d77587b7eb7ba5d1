"""Claims about marking a notebook and a class: nothing that a notebook says about itself counts, an
accident costs its own exercise alone, and what was marked once is not marked again.

The notebooks are lesson 05's, with other answers. Where no accident is to be expected, the process
that runs them is this one.
"""

import ast

import nbformat
import pytest
from handed_in import EVEN, RIGHT, run_here, write_book

from minilora.learn.notebooks import grading, marking
from minilora.learn.notebooks.editions import notebook
from minilora.learn.notebooks.lessons import (
    LESSONS,
    Heading,
    Task,
    all_lessons,
    heading_of,
    lesson_of,
)
from minilora.learn.notebooks.marking import mark_notebook
from minilora.learn.notebooks.selecting import needed, statements
from minilora.system.errors import UsageError


@pytest.fixture
def in_this_process(monkeypatch):
    run_here(monkeypatch)


@pytest.fixture
def marks(tmp_path):
    """{name: (status, remark)} of a notebook of these cells, without what was not attempted."""

    def of(*cells: str) -> dict[str, tuple[str, str]]:
        found = mark_notebook(write_book(tmp_path / "mine.ipynb", *cells))[1]
        return {
            mark.task.name: (mark.status, mark.remark)
            for mark in found
            if mark.status != "not attempted"
        }

    return of


def test_a_correct_answer_a_wrong_one_and_none(marks):
    wrong = "def break_even_rank(d_in, d_out):\n    return d_in + d_out"
    found = marks(RIGHT, wrong, "def count_model(shapes, n_layer, r, targets):\n    ...")
    assert found.keys() == {"count_lora", "break_even_rank"}
    assert found["count_lora"] == ("correct", "")
    status, remark = found["break_even_rank"]
    assert status == "wrong" and "expected" in remark and "\n" not in remark


@pytest.mark.parametrize(
    "claim",
    [
        "print('Correct.')",
        "check.count_lora = lambda answer: True",
        "class check:\n    count_lora = staticmethod(lambda answer: True)",
        "import minilora.learn.check as check\ncheck.count_lora = print",
    ],
)
def test_what_a_notebook_says_about_itself_gives_nothing(marks, in_this_process, claim):
    wrong = "def count_lora(d_in, d_out, r):\n    print('Correct.')\n    return 7"
    assert marks(wrong, claim, "check.count_lora(count_lora)")["count_lora"][0] == "wrong"


@pytest.mark.parametrize(
    "cell",
    [
        f"%%time\n{RIGHT}",
        f"!echo hello\n%matplotlib inline\n{RIGHT}",
        f"{RIGHT}\nwhile True:\n    pass",
        f"{RIGHT}\n1 / 0",
        "factor = [1]\nfactor.append(2)\n\ndef count_lora(a, b, r):\n"
        "    return factor[1] * r * (a + b) // 2",
        "from __future__ import annotations\n\ndef count_lora(a: unknown, b, r):\n"
        "    return r * (a + b)",
        "exec('def both(a, b): return a + b')\n\ndef count_lora(a, b, r):\n"
        "    return r * both(a, b)",
        "def both(a, b):\n    return a + b\n\ndef count_lora(a, b, r):\n    return r * both(a, b)",
        "import helper\n\ndef count_lora(a, b, r):\n    return helper.r_times(r, a + b)",
        "from helper import *\n\ndef count_lora(a, b, r):\n    return r_times(r, a + b)",
        "count_lora = lambda a, b, r: r * (a + b)",
        "class Count:\n    pass\n\nCount.__call__ = lambda self, a, b, r: r * (a + b)\n"
        "count_lora = Count()",
        "class Count:\n    def __call__(self, a, b, r):\n        return r * (a + b)\n\n"
        "count_lora = Count()",
        f"{RIGHT}\ndisplay(count_lora)\nfrom dataclasses import dataclass\n\n"
        "@dataclass\nclass Unused:\n    x: int",
    ],
)
def test_an_answer_counts_whatever_else_stands_in_its_cell(marks, in_this_process, tmp_path, cell):
    (tmp_path / "helper.py").write_text("def r_times(r, x):\n    return r * x\n")
    assert marks(cell) == {"count_lora": ("correct", "")}


@pytest.mark.parametrize(
    ("cell", "words"),
    [
        ("def count_lora(a, b, r)\n    return r * (a + b)", "does not run: SyntaxError"),
        ("def count_lora(a, b, r):\n    s = a + b\nreturn r * s", "SyntaxError: 'return' outside"),
        ("@unknown\ndef count_lora(a, b, r):\n    return 1", "does not run: NameError"),
        ("def count_lora(a, b, r):\n    return unknown", "raised NameError"),
    ],
)
def test_an_error_costs_its_own_exercise_alone(marks, in_this_process, cell, words):
    found = marks(EVEN, cell)
    assert found["break_even_rank"] == ("correct", "")
    status, remark = found["count_lora"]
    assert status == "wrong" and words in remark


@pytest.mark.system
@pytest.mark.parametrize(
    ("cell", "words"),
    [
        ("import os\n\ndef count_lora(a, b, r):\n    os._exit(0)", "it ends Python"),
        ("import os\n\ncount_lora = os._exit(0)", "it ends Python"),
        ("def count_lora(a, b, r):\n    return input()", "raised EOFError"),
        ("def count_lora(a, b, r):\n    return sum([[0]] * 10**10)", "raised MemoryError"),
        (
            "import os\n\ndef count_lora(a, b, r):\n"
            "    for file in range(3, 20):\n        try: os.write(file, b'nonsense\\n')\n"
            "        except OSError: pass\n    return 1",
            "it ends Python",
        ),
    ],
)
def test_an_accident_costs_its_own_exercise_alone(marks, cell, words):
    found = marks(EVEN, cell)
    assert found["break_even_rank"] == ("correct", "")
    status, remark = found["count_lora"]
    assert status == "wrong" and words in remark


@pytest.mark.system
def test_a_thread_that_is_still_at_work_is_not_waited_for(marks):
    start = "import threading, time\nsleeper = threading.Thread(target=time.sleep, args=(99,))"
    answer = f"{RIGHT} + 0 * sleeper.daemon"
    assert marks(f"{start}\nsleeper.start()", answer) == {"count_lora": ("correct", "")}


@pytest.mark.system
@pytest.mark.parametrize(
    "endless",
    [
        "def wait():\n    while True:\n        pass\n\ncount_lora = wait()",
        "def count_lora(a, b, r):\n    return sum(iter(int, 1))",  # Python itself cannot end it
    ],
)
def test_what_never_ends_is_ended_and_the_rest_is_marked(marks, monkeypatch, endless):
    monkeypatch.setattr(marking, "LIMIT", 3.0)
    found = marks(endless, EVEN)
    assert found["break_even_rank"] == ("correct", "")
    assert "it takes more than 3 seconds" in found["count_lora"][1]


def test_the_last_of_several_answers_counts(marks, in_this_process):
    assert marks("def count_lora(a, b, r):\n    return 0", RIGHT)["count_lora"][0] == "correct"
    assert marks(RIGHT, "def count_lora(a, b, r):\n    return 0")["count_lora"][0] == "wrong"


def test_a_repair_that_nobody_has_touched_is_not_attempted():
    heading = Heading("5.1", "one matrix", 1, 2)
    task = Task("count_lora", heading, "def count_lora(a, b, r):\n    return r * a")
    found = marking._Found(verdicts={"count_lora": ("wrong", "Not yet: it is 3.\nHint 1: no")})
    same = "# my note\ndef count_lora(a, b,  r):\n    return r*a"
    assert marking._mark(task, [same], found).status == "not attempted"
    assert marking._mark(task, ["def count_lora(a, b, r):\n    return r * b"], found) == (
        marking.Mark(task, "wrong", "it is 3.")
    )


def test_only_what_the_answers_need_is_chosen():
    cells = [
        "import numpy as np\nimport matplotlib.pyplot as plt",
        "model = load()\nmodel.train()\nlosses = fit(model)\nplt.plot(losses)",
        "size = 3\nsizes = {}\nsizes['a'] = size\nother = {}\nother['a'] = 1",
        "def half(x):\n    return x / np.float64(sizes['a'])",
        "def answer(model, W):\n    return half(W) + model",
        "print(answer(1, 2))",
    ]
    chosen = needed([statements(cell) for cell in cells], ["answer"])
    assert ["; ".join(map(ast.unparse, cell)) for cell in chosen] == [
        "import numpy as np",
        "",
        "size = 3; sizes = {}; sizes['a'] = size",
        "def half(x):\n    return x / np.float64(sizes['a'])",
        "def answer(model, W):\n    return half(W) + model",
        "",
    ]


def test_the_heading_of_an_exercise_is_read():
    text = "### Exercise 5.3: where it stops\n\n*Difficulty 2 of 5, 1 minute.* At which rank?"
    assert heading_of(text) == Heading("5.3", "where it stops", 2, 1)
    project = text.replace("5.3:", "5.3, a small project:")
    assert heading_of(f"# A title\n\n{project}") == heading_of(text)
    assert heading_of("## Exercise") is None


def test_a_lesson_is_known_by_its_exercises_or_its_title_and_else_refused(tmp_path):
    by_name = write_book(tmp_path / "x.ipynb", RIGHT, title="# Mine")
    by_title = write_book(tmp_path / "y.ipynb")
    neither = write_book(tmp_path / "z.ipynb", title="# Mine")
    assert lesson_of(by_name).name == lesson_of(by_title).name == "05_counting_parameters"
    with pytest.raises(UsageError, match=r"z\.ipynb is none of the lessons"):
        lesson_of(neither)


@pytest.mark.parametrize(
    ("text", "cause"),
    [
        ("", "is damaged"),
        ("[]", "must be an object"),
        ("{}", "lacks cells"),
        ('{"cells": [{}]}', r"cells\[0\] lacks cell_type, source"),
        ('{"cells": [{"cell_type": 3, "source": ""}]}', r"cells\[0\].cell_type must be a text"),
        ('{"cells": [{"cell_type": "code", "source": [1]}]}', r"cells\[0\].source\[0\] must be"),
        ('{"cells": ' + "[" * 100_000, "deep"),
        ("\0", "holds NUL bytes"),
    ],
)
def test_a_file_that_is_no_notebook_is_told_as_that(tmp_path, text, cause):
    path = tmp_path / "x.ipynb"
    path.write_text(text)
    with pytest.raises(UsageError, match=rf"x.ipynb.*{cause}.*saved as .ipynb from Jupyter"):
        mark_notebook(path)


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        (",1,", ",999,", r"grades.csv, line 2: points must be a whole .* to \d+, got '999'; mend"),
        (",1,", ",1.5,", "must be a whole number from 0 to"),
        (",1,", ",-1,", "must be a whole number from 0 to"),
        (",1,", ",one,", "got 'one'; mend the table"),
        (",1,", ",1,,", "line 2: it has more columns than the first line, or fewer"),
        (",1,", ",", "line 2: it has more columns than the first line, or fewer"),
    ],
)
def test_a_table_with_impossible_points_is_refused_by_line_and_column(old, new, sentence, tmp_path):
    submission = grading.Submission("anna", (write_book(tmp_path / "x.ipynb"),))
    tasks, path = all_lessons()[0].tasks, tmp_path / "grades.csv"
    assert tasks[0].heading.points == 1
    row = grading.row_of(submission, tasks, {tasks[0].name: marking.Mark(tasks[0], "correct")})
    grading.write_table([row], path)
    head, line = path.read_text("utf-8-sig").splitlines()
    begins, _, rest = line.partition(old)
    assert rest
    path.write_text("\n".join([head, begins + new + rest]), "utf-8")
    with pytest.raises(UsageError, match=sentence):
        grading.read_table(path, tasks)


def test_of_a_class_one_notebook_that_cannot_be_read_is_told_and_the_others_are_marked(tmp_path):
    write_book(tmp_path / "anna.ipynb")
    (tmp_path / "ben.ipynb").write_bytes(b"\xff")
    submissions = grading.find_submissions([tmp_path])
    lessons, (problem,) = grading.lessons_in(submissions)
    assert len(lessons) == 1 and "ben.ipynb is not UTF-8" in problem
    assert len({one.fingerprint for one in submissions}) == 2


@pytest.mark.parametrize(
    "cell",
    ["-" * 100_000 + "1", "a" + ".b" * 50_000, "1" + "+1" * 500, "lambda:" * 20_000 + "1", "a\0"],
    ids=["signs", "attributes", "sums", "functions", "NUL"],
)
def test_a_cell_that_python_gives_up_on_is_no_cell_and_the_others_are_marked(
    cell, in_this_process, tmp_path
):
    path = write_book(tmp_path / "x.ipynb", RIGHT, cell)
    assert mark_notebook(path)[1][0].status == "correct"


def test_every_exercise_of_every_lesson_has_a_heading_and_a_stub():
    for lesson in all_lessons():
        assert lesson.tasks
        for task in lesson.tasks:
            assert task.heading.number.startswith(f"{lesson.title.split()[0].lstrip('0') or 0}.")
            assert f"{task.name}" in task.stub


@pytest.mark.thorough
@pytest.mark.parametrize("lesson", all_lessons(), ids=lambda lesson: lesson.name)
@pytest.mark.parametrize(
    ("edition", "status"), [("student", "not attempted"), ("solved", "correct")]
)
def test_each_lesson_untouched_and_solved(lesson, edition, status, in_this_process, tmp_path):
    source = (LESSONS / "src" / f"{lesson.name}.py").read_text("utf-8")
    path = tmp_path / "mine.ipynb"
    nbformat.write(notebook(lesson.name, source, edition), path)
    found, marks = mark_notebook(path)
    assert found == lesson
    assert {mark.task.name: (mark.status, mark.remark) for mark in marks} == {
        task.name: (status, "") for task in lesson.tasks
    }


def test_whose_notebook_is_whose(tmp_path):
    for path in (
        "flat/anna_05_counting_parameters.ipynb",
        "flat/ben.ipynb",
        "nested/cleo/05/work.ipynb",
        "nested/cleo/06.ipynb",
        "nested/cleo/.ipynb_checkpoints/06.ipynb",
        "dora/05_counting_parameters.ipynb",
    ):
        write_book(tmp_path / path)
    places = [tmp_path / "flat", tmp_path / "nested", tmp_path / "dora"]
    found = {one.student: len(one.notebooks) for one in grading.find_submissions(places)}
    assert found == {"anna": 1, "ben": 1, "cleo": 2, "dora": 1}
    alone = grading.find_submissions([tmp_path / "flat" / "ben.ipynb"])
    assert [one.student for one in alone] == ["ben"]


def test_of_two_notebooks_the_better_mark_of_each_exercise_counts():
    first, second = (Task(name, Heading("5.1", name, 2, 2), "") for name in ("a", "b"))
    statuses = [(first, "wrong"), (second, "correct"), (first, "correct"), (second, "wrong")]
    best = grading.best_of(marking.Mark(task, status) for task, status in statuses)
    assert [best[name].status for name in ("a", "b")] == ["correct", "correct"]


def test_a_table_is_read_again_only_for_the_same_exercises(tmp_path):
    submission = grading.Submission("anna, A.", (write_book(tmp_path / "x.ipynb"),))
    tasks = all_lessons()[0].tasks
    row = grading.row_of(submission, tasks, {tasks[0].name: marking.Mark(tasks[0], "correct")})
    assert row["points"] == str(tasks[0].heading.points) and row[grading.column(tasks[1])] == ""
    grading.write_table([row], tmp_path / "grades.csv")
    again = grading.read_table(tmp_path / "grades.csv", tasks)
    assert again == {"anna, A." + submission.fingerprint: row}
    assert grading.read_table(tmp_path / "grades.csv", tasks[1:]) == {}
    assert grading.read_table(tmp_path / "none.csv", tasks) == {}


@pytest.mark.parametrize("text", ["", "a,b\n1,2\n", "student\n"])
def test_another_file_is_not_taken_for_a_table_of_grades(tmp_path, text):
    (tmp_path / "mine.csv").write_text(text)
    with pytest.raises(UsageError, match=r"mine\.csv is no table of grades"):
        grading.read_table(tmp_path / "mine.csv", [])
    assert (tmp_path / "mine.csv").read_text() == text


def test_feedback_is_text_and_never_markup(tmp_path):
    lesson = all_lessons()[0]
    mark = marking.Mark(lesson.tasks[0], "wrong", "your <b>result</b> & more")
    path = tmp_path / "f.html"
    grading.write_feedback(path, "<script>", [lesson], {lesson.tasks[0].name: mark})
    text = path.read_text("utf-8")
    assert "Your &lt;b&gt;result&lt;/b&gt; &amp; more" in text and "<script>" not in text
    assert text.count("Not handed in") == len(lesson.tasks) - 1
