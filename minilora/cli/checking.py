"""Commands on notebooks that were worked on: check, grade."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from statistics import mean

from rich import box
from rich.markup import escape
from rich.status import Status
from rich.table import Table

from minilora.cli.terminal.console import Console
from minilora.cli.terminal.output import prepare_folder, say
from minilora.cli.terminal.tables import print_table
from minilora.learn.notebooks import grading
from minilora.learn.notebooks.lessons import Lesson, Task, lesson_of
from minilora.learn.notebooks.marking import Mark, mark_notebook
from minilora.system.errors import UsageError, how_many

_SHOWN = {"correct": "correct", "wrong": "not yet", "not attempted": "not attempted"}
_STYLES = {"correct": "green", "wrong": "yellow", "not attempted": "dim"}


def run_check(args: argparse.Namespace) -> int:
    console = Console()
    notebooks = _notebooks(args.notebooks)
    begun: list[Task] = []  # what is left of lessons in which something was attempted
    other: list[Task] = []
    for notebook in notebooks:
        with Status("", console=Console(stderr=True), spinner="line") as status:

            def watch(number: str, name: str = notebook.name, status: Status = status) -> None:
                status.update(escape(f"{name} {number} …"))

            lesson, marks = mark_notebook(notebook, watch)
        attempted = any(mark.status != "not attempted" for mark in marks)
        left = [mark.task for mark in marks if mark.status != "correct"]
        (begun if attempted else other).extend(left)
        if (attempted and left) or len(notebooks) == 1:
            _print_marks(lesson, marks, console)
        else:
            state = "not begun" if left else "all correct"
            console.print(escape(f"{lesson.title}: {state}"), highlight=False)
    if begun or other:
        head = (begun or other)[0].heading
        title = escape(f"{head.number}, {head.title}: {how_many(head.minutes, 'minute')}")
        console.print(f"Next: {title}.", style="bold", highlight=False)
    else:
        console.print("All exercises are correct.", style="bold")
    return 0


def _print_marks(lesson: Lesson, marks: Sequence[Mark], console: Console) -> None:
    print_table(_check_table(lesson, marks), console)
    for mark in marks:
        if mark.remark:
            remark = escape(f"{mark.task.heading.number}: {mark.remark}")
            console.print(remark, style=_STYLES[mark.status], highlight=False)


def _notebooks(places: Sequence[Path]) -> list[Path]:
    """The notebooks themselves; of a folder, those in it that are of lessons."""
    found = []
    for place in places:
        if not place.is_dir():
            found.append(place)
            continue
        inside = []
        for notebook in sorted(place.glob("*.ipynb")):
            try:
                lesson_of(notebook)
            except UsageError as error:
                say(f"minilora: {error}")
            else:
                inside.append(notebook)
        if not inside:
            raise UsageError(f"there is no lesson in {place}: minilora check FOLDER or NOTEBOOK")
        found += inside
    return found


def _check_table(lesson: Lesson, marks: Sequence[Mark]) -> Table:
    done = sum(mark.status == "correct" for mark in marks)
    table = Table(
        title=escape(f"{lesson.title}: {done} of {len(marks)} correct"),
        title_justify="left",
        box=box.SIMPLE_HEAD,
        show_edge=False,
    )
    table.add_column("exercise")
    table.add_column("", no_wrap=True)
    for mark in marks:
        head = mark.task.heading
        table.add_row(
            escape(f"{head.number} {head.title}"),
            _SHOWN[mark.status],
            style=_STYLES[mark.status],
        )
    return table


def run_grade(args: argparse.Namespace) -> int:
    submissions = grading.find_submissions(args.submissions)
    lessons, problems = grading.lessons_in(submissions)
    for problem in problems:
        say(f"minilora: {problem}")
    if not lessons:
        raise UsageError("none of these notebooks is a lesson's")
    tasks = [task for lesson in lessons for task in lesson.tasks]
    done = grading.read_table(args.csv, tasks) if args.csv else {}
    if args.csv:
        prepare_folder(args.csv.parent, "--csv")
    if args.feedback:
        prepare_folder(args.feedback, "--feedback")
    rows, kept = _grade_all(submissions, lessons, done, args)
    console = Console()
    print_table(_grade_table(rows, tasks), console)
    average = mean(int(row["points"]) for row in rows)
    students = how_many(len(rows), "student")
    again = f"; {kept} unchanged since the last time" if kept else ""
    summary = f"{students}: {average:.1f} of {rows[0]['of']} points on average{again}."
    console.print(summary, style="bold", highlight=False)
    return 0


def _grade_all(
    submissions: Sequence[grading.Submission],
    lessons: Sequence[Lesson],
    done: dict[str, dict[str, str]],
    args: argparse.Namespace,
) -> tuple[list[dict[str, str]], int]:
    """A row of the table for each student, and how many were kept from `done`. What is marked is
    written at once, so that a stopped command goes on from there."""
    tasks = [task for lesson in lessons for task in lesson.tasks]
    rows: list[dict[str, str]] = []
    kept = 0
    with Status("", console=Console(stderr=True), spinner="line") as status:
        for i, one in enumerate(submissions, 1):
            status.update(escape(f"{i} of {len(submissions)}: {one.student} …"))
            page = args.feedback / f"{one.student}.html" if args.feedback else None
            row = done.get(one.student + one.fingerprint)
            if row is None or (page and not page.exists()):
                marks = _marks(one)
                row = grading.row_of(one, tasks, marks)
                if page:
                    grading.write_feedback(page, one.student, lessons, marks)
            else:
                kept += 1
            rows.append(row)
            if args.csv:
                names = {row["student"] for row in rows}
                not_yet_seen = [row for row in done.values() if row["student"] not in names]
                grading.write_table([*rows, *not_yet_seen], args.csv)
    if args.csv:
        grading.write_table(rows, args.csv)
    return rows, kept


def _marks(submission: grading.Submission) -> dict[str, Mark]:
    marks: list[Mark] = []
    for notebook in submission.notebooks:
        try:
            marks += mark_notebook(notebook)[1]
        except UsageError:
            continue  # told above
    return grading.best_of(marks)


def _grade_table(rows: Sequence[dict[str, str]], tasks: Sequence[Task]) -> Table:
    """The exercises, those that fewest got right first."""
    table = Table(
        title="Exercises, the hardest first",
        title_justify="left",
        box=box.SIMPLE_HEAD,
        show_edge=False,
    )
    table.add_column("exercise")
    for name in ("correct", "not yet", "not attempted"):
        table.add_column(name, justify="right")

    def right(task: Task) -> int:
        return sum(row[grading.column(task)] not in ("", "0") for row in rows)

    for task in sorted(tasks, key=right):
        cells = [row[grading.column(task)] for row in rows]
        head = task.heading
        table.add_row(
            escape(f"{head.number} {head.title}"),
            str(right(task)),
            str(cells.count("0")),
            str(cells.count("")),
        )
    return table
