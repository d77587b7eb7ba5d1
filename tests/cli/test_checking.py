"""Claims about check and grade in the terminal: what is next, what a class found hard, and that a
stopped command goes on where it was."""

import csv
from pathlib import Path

import pytest
from handed_in import EVEN, RIGHT, run_here, write_book

from minilora.cli import checking, main
from minilora.learn.notebooks.lessons import all_lessons
from minilora.learn.notebooks.marking import mark_notebook

WRONG = "def count_lora(d_in, d_out, r):\n    return r * d_in * d_out"


@pytest.fixture(autouse=True)
def in_this_process(monkeypatch):
    run_here(monkeypatch)
    monkeypatch.setenv("COLUMNS", "100")


@pytest.fixture
def marked(monkeypatch):
    """The names of the notebooks that are marked from now on, in order."""
    names: list[str] = []

    def mark(notebook, *watch):
        names.append(notebook.stem)
        return mark_notebook(notebook, *watch)

    monkeypatch.setattr(checking, "mark_notebook", mark)
    return names


def rows(path: Path) -> dict[str, dict[str, str]]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        return {row["student"]: row for row in csv.DictReader(file)}


def test_check_says_what_is_done_what_is_wrong_and_what_is_next(here, capsys):
    write_book(here / "mine.ipynb", RIGHT, EVEN.replace("*", "+"))
    assert main(["check", "mine.ipynb"]) == 0
    printed = capsys.readouterr().out
    lesson = next(one for one in all_lessons() if one.name.startswith("05"))
    assert f"05 · Counting parameters: 1 of {len(lesson.tasks)} correct" in printed
    assert "5.1 one matrix" in printed and "not attempted" in printed and "not yet" in printed
    todo = next(task for task in lesson.tasks if task.name != "count_lora")
    minutes = f"{todo.heading.minutes} minutes"
    assert f"Next: {todo.heading.number}, {todo.heading.title}: {minutes}." in printed


def test_check_of_a_folder_takes_its_lessons_and_names_what_is_none(here, capsys):
    write_book(here / "mine.ipynb", RIGHT)
    write_book(here / "shopping.ipynb", title="# Milk")
    assert main(["check"]) == 0
    shown = capsys.readouterr()
    assert "shopping.ipynb is none of the lessons" in shown.err and "Next: " in shown.out


def test_check_of_several_is_short_on_what_is_not_begun_and_goes_on_where_one_is(here, capsys):
    write_book(here / "a.ipynb", title=f"# {all_lessons()[0].title}")
    write_book(here / "b.ipynb", RIGHT)
    assert main(["check"]) == 0
    printed = capsys.readouterr().out
    assert f"{all_lessons()[0].title}: not begun\n" in printed
    assert "5.1 one matrix" in printed and "Next: 5.2, a whole model: 5 minutes." in printed


@pytest.mark.parametrize(
    ("argv", "sentence"),
    [
        (["check"], "there is no lesson in ."),
        (["check", "none.ipynb"], "cannot read none.ipynb: there is no such file"),
        (["grade", "none"], "there is no notebook in none"),
        (["grade", "."], "there is no notebook in ."),
        (["grade", "milk"], "none of these notebooks is a lesson"),
        (["grade", "class", "--csv", "mine.csv"], "mine.csv is no table of grades"),
    ],
)
def test_what_cannot_be_marked_is_told_in_one_sentence(here, capsys, argv, sentence):
    (here / "mine.csv").write_text("my,own\n")
    if argv[1:2] in (["milk"], ["class"]):
        write_book(here / "milk" / "x.ipynb", title="# Milk")
        write_book(here / "class" / "x.ipynb")
    assert main(argv) == 1
    assert sentence in capsys.readouterr().err
    assert (here / "mine.csv").read_text() == "my,own\n"


def test_grade_writes_a_table_and_feedback_and_shows_what_was_hard(here, capsys):
    write_book(here / "class" / "anna.ipynb", RIGHT, EVEN)
    write_book(here / "class" / "ben.ipynb", WRONG, EVEN)
    argv = ["grade", "class", "--csv", "out/grades.csv", "--feedback", "out/feedback"]
    assert main(argv) == 0
    found = rows(here / "out" / "grades.csv")
    assert [found[name]["5.1 count_lora"] for name in ("anna", "ben")] == ["1", "0"]
    assert int(found["anna"]["points"]) == int(found["ben"]["points"]) + 1
    page = (here / "out" / "feedback" / "ben.html").read_text("utf-8")
    assert "<h1>ben: " in page and "Not yet, 0 of 1<p>Your " in page
    printed = capsys.readouterr().out
    lines = [line.split() for line in printed.splitlines()]
    assert ["5.1", "one", "matrix", "1", "1", "0"] in lines
    assert "2 students: " in printed


def test_grade_goes_on_where_it_was_stopped_and_marks_only_what_has_changed(
    here, capsys, marked, monkeypatch
):
    for name in ("anna", "ben", "cleo"):
        write_book(here / "class" / f"{name}.ipynb", RIGHT)
    argv = ["grade", "class", "--csv", "grades.csv"]

    def stop_at_ben(notebook):
        if notebook.stem == "ben":
            raise KeyboardInterrupt
        return mark_notebook(notebook)

    with monkeypatch.context() as patch:
        patch.setattr(checking, "mark_notebook", stop_at_ben)
        assert main(argv) == 130
    assert list(rows(here / "grades.csv")) == ["anna"]
    assert main(argv) == 0 and marked == ["ben", "cleo"]
    write_book(here / "class" / "anna.ipynb", WRONG)
    assert main(argv) == 0 and marked == ["ben", "cleo", "anna"]
    assert rows(here / "grades.csv")["anna"]["points"] == "0"
    assert "; 2 unchanged since the last time" in capsys.readouterr().out


def test_grade_fits_a_narrow_terminal(here, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "40")
    write_book(here / "class" / "anna.ipynb", RIGHT)
    assert main(["grade", "class"]) == 0 and main(["check", "class"]) == 0
    assert max(map(len, capsys.readouterr().out.splitlines())) <= 40
