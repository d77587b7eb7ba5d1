"""A class: whose notebook is whose, a table of points as CSV, and each student's feedback.

The table is also what was done so far: a student whose notebooks have not changed since is not
marked again.
"""

from __future__ import annotations

import csv
import hashlib
import io
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from html import escape
from pathlib import Path

from minilora.learn.notebooks.lessons import Lesson, Task, all_lessons, lesson_of
from minilora.learn.notebooks.marking import Mark
from minilora.system.errors import UsageError
from minilora.system.files import write_atomically
from minilora.system.readers import LARGEST_TABLE, checksum, read_text
from minilora.system.schemas import shown
from minilora.system.version import __version__

_ENCODING = "utf-8-sig"  # without its mark Excel takes a name such as Müller for MÃ¼ller
_STYLE = """
  :root { color-scheme: light dark; }
  body { font: 16px/1.5 system-ui, sans-serif; max-width: 46em; margin: 2em auto; padding: 0 1em; }
  h1 { font-size: 1.5em; } h2 { font-size: 1.15em; margin-top: 2em; }
  section > div { border-top: 1px solid #8886; padding: .6em 0; }
  b { font-weight: 600; } p { margin: .2em 0; overflow-wrap: anywhere; }
"""

_HEAD = """\
<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>{style}</style>
</head>
<body>"""


@dataclass(frozen=True)
class Submission:
    """All that a student has handed in."""

    student: str
    notebooks: tuple[Path, ...]

    @property
    def fingerprint(self) -> str:
        """Differs whenever a notebook does, or minilora's version."""
        seen = hashlib.sha256(__version__.encode())
        for notebook in self.notebooks:
            with suppress(OSError):  # of one that cannot be read nothing is marked
                seen.update(checksum(notebook).encode())
        return seen.hexdigest()[:16]


def find_submissions(places: Iterable[Path]) -> list[Submission]:
    """One for each student: a folder of notebooks, one for each student or a folder for each, or
    notebooks by their own names.

    A folder's name is the student's; a single notebook's is, without the name of its lesson. Raises
    UsageError where there is no notebook.
    """
    found: dict[str, list[Path]] = {}
    for place in places:
        notebooks = sorted(place.rglob("*.ipynb")) if place.is_dir() else [place]
        for notebook in notebooks:
            inside = notebook.relative_to(place).parts if place.is_dir() else (notebook.name,)
            hidden = any(part.startswith(".") for part in inside)
            if notebook.is_file() and not hidden:
                found.setdefault(_student(place, inside), []).append(notebook)
        if not found:
            raise UsageError(f"there is no notebook in {place}: give the folder of submissions")
    return [Submission(student, tuple(found[student])) for student in sorted(found)]


def _student(place: Path, inside: tuple[str, ...]) -> str:
    if len(inside) > 1:
        return inside[0]
    name = Path(inside[0]).stem
    for lesson in all_lessons():
        name = name.replace(lesson.name, "")
    return name.strip(" _-.") or place.resolve().name


def lessons_in(submissions: Iterable[Submission]) -> tuple[list[Lesson], list[str]]:
    """The lessons that any student has handed in, in order, and what is wrong with the notebooks
    that are of none, a sentence each."""
    found: set[str] = set()
    problems = []
    for submission in submissions:
        for notebook in submission.notebooks:
            try:
                found.add(lesson_of(notebook).name)
            except UsageError as error:
                problems.append(str(error))
    return [lesson for lesson in all_lessons() if lesson.name in found], problems


def best_of(marks: Iterable[Mark]) -> dict[str, Mark]:
    """By the exercise's name. Of two notebooks of one lesson the better mark of each counts."""
    rank = {"not attempted": 0, "wrong": 1, "correct": 2}
    best: dict[str, Mark] = {}
    for mark in marks:
        name = mark.task.name
        if name not in best or rank[mark.status] > rank[best[name].status]:
            best[name] = mark
    return best


def column(task: Task) -> str:
    return f"{task.heading.number} {task.name}"


def row_of(submission: Submission, tasks: Sequence[Task], marks: dict[str, Mark]) -> dict[str, str]:
    """A line of the table: points for each exercise, 0 if it is wrong, empty if not attempted."""
    row = {"student": submission.student, "points": "", "of": ""}
    for task in tasks:
        mark = marks.get(task.name)
        attempted = mark is not None and mark.status != "not attempted"
        row[column(task)] = str(mark.points) if mark and attempted else ""
    row["points"] = str(sum(mark.points for mark in marks.values()))
    row["of"] = str(sum(task.heading.points for task in tasks))
    row["notebooks"] = submission.fingerprint
    return row


def write_table(rows: Sequence[dict[str, str]], path: Path) -> None:
    text = io.StringIO(newline="")
    table = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    table.writeheader()
    table.writerows(rows)
    write_atomically(path, lambda file: file.write_text(text.getvalue(), _ENCODING))


def read_table(path: Path, tasks: Sequence[Task]) -> dict[str, dict[str, str]]:
    """The lines of an earlier table for the same exercises, by fingerprint; none if there is no
    such file, or it is for others. Raises UsageError for a file that is no such table."""
    if not path.exists():
        return {}
    no_table = UsageError(f"{path} is no table of grades: choose another file with --csv")
    try:
        text = read_text(path, LARGEST_TABLE)
        table = csv.DictReader(io.StringIO(text, newline=""), strict=True)
        rows, columns = list(table), list(table.fieldnames or [])
    except (UsageError, csv.Error):
        raise no_table from None
    if not rows or not {"student", "points", "notebooks"} <= set(columns):
        raise no_table
    if columns != ["student", "points", "of", *map(column, tasks), "notebooks"]:
        return {}
    for line, row in enumerate(rows, 2):
        _require_points(row, tasks, f"{path}, line {line}")
    return {row["student"] + row["notebooks"]: row for row in rows}


def _require_points(row: dict[str, str], tasks: Sequence[Task], where: str) -> None:
    """Raise UsageError, which names the column, for what cannot be the points of an exercise."""
    if None in row or None in row.values():  # as csv says it
        raise UsageError(f"{where}: it has more columns than the first line, or fewer; mend it")
    possible = {column(task): task.heading.points for task in tasks}
    total = sum(possible.values())
    for name, most in (possible | {"points": total, "of": total}).items():
        given = row[name]
        is_empty = given == "" and name in possible
        if not is_empty and given not in map(str, range(most + 1)):
            raise UsageError(
                f"{where}: {name} must be a whole number from 0 to {most}, got {shown(given)}; "
                "mend the table, or choose another file with --csv"
            )


def write_feedback(
    path: Path, student: str, lessons: Sequence[Lesson], marks: dict[str, Mark]
) -> None:
    """Write what a student is told, one HTML file: each exercise, its points, our diagnosis."""
    total = sum(mark.points for mark in marks.values())
    possible = sum(task.heading.points for lesson in lessons for task in lesson.tasks)
    parts = [f"<h1>{escape(student)}: {total} of {possible} points</h1>"]
    for lesson in lessons:
        parts.append(f"<section>\n<h2>{escape(lesson.title)}</h2>")
        for task in lesson.tasks:
            mark = marks.get(task.name)
            head = task.heading
            status = mark.status if mark else "not handed in"
            status = {"correct": "Correct", "wrong": "Not yet"}.get(status, status.capitalize())
            points = mark.points if mark else 0
            words = mark.remark if mark else ""
            remark = f"<p>{escape(words[0].upper() + words[1:])}</p>" if words else ""
            parts.append(
                f"<div><b>{head.number} {escape(head.title)}</b>: {status}, {points} of "
                f"{head.points}{remark}</div>"
            )
        parts.append("</section>")
    head_of_file = _HEAD.format(title=escape(student), style=_STYLE)
    text = "\n".join([head_of_file, *parts, "</body>\n</html>\n"])
    write_atomically(path, lambda file: file.write_text(text, "utf-8"))
