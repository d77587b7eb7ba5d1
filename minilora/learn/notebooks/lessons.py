"""The lessons as they are handed out: which exercises each has, and what each of these is worth.

Everything is read from the notebooks themselves, which are JSON: nothing of Jupyter is needed.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TypedDict

import minilora
from minilora.system.errors import UsageError
from minilora.system.readers import LARGEST_TABLE, read_json

_PACKAGE = Path(minilora.__file__).parent
_HOMES = (_PACKAGE / "lessons", _PACKAGE.parent / "lessons")  # in an installed package, in a clone
LESSONS = next((folder for folder in _HOMES if folder.is_dir()), None)


@dataclass(frozen=True)
class Heading:
    """What stands above an exercise: "5.1", "one matrix", how difficult it is from 1 to 5, which
    is also what it is worth in points, and how many minutes it takes."""

    number: str
    title: str
    points: int
    minutes: int


@dataclass(frozen=True)
class Task:
    """An exercise of a lesson. name: of its function and its check; stub: the cell to work in."""

    name: str
    heading: Heading
    stub: str


@dataclass(frozen=True)
class Lesson:
    """name: "05_counting_parameters"; title: "05 · Counting parameters"; times: seconds to run,
    minutes to read, minutes with the exercises, or None where it does not say."""

    name: str
    title: str
    question: str
    times: tuple[int, int, int] | None
    tasks: tuple[Task, ...]


def heading_of(markdown: str) -> Heading | None:
    """The last heading of an exercise in a text, or None."""
    title = r"^### Exercise (\w+\.\d+)(?:, [^:\n]*)?[:.]? *(.*)$"
    about = r"\*Difficulty (\d) of 5, (\d+) minutes?\.\*"
    found = re.findall(rf"{title}\s*{about}", markdown, re.MULTILINE)
    if not found:
        return None
    number, name, difficulty, minutes = found[-1]
    return Heading(number, name, int(difficulty), int(minutes))


class _Cell(TypedDict):
    cell_type: str
    source: str | list[str]  # in one piece or in lines


class _Notebook(TypedDict):
    """As in nbformat 4; what else a notebook has is not looked at."""

    cells: list[_Cell]


def read_cells(notebook: Path) -> list[tuple[str, str]]:
    """(kind, text) of every cell. Raises UsageError for a file that is no notebook."""
    try:
        cells = read_json(notebook, _Notebook, LARGEST_TABLE)["cells"]
    except OSError as error:
        raise UsageError(str(error)) from None
    except UsageError as error:
        raise UsageError(f"{error}; it must be a notebook, saved as .ipynb from Jupyter") from None
    return [(cell["cell_type"], "".join(cell["source"])) for cell in cells]


def read_lesson(notebook: Path) -> Lesson:
    """A lesson from its notebook: an exercise is a heading, a cell to work in and a check."""
    cells = read_cells(notebook)
    tasks: list[Task] = []
    heading, code = None, [""]
    for kind, text in cells:
        check = re.fullmatch(r"check\.(\w+)\(\1\)", text.strip())
        if kind == "markdown":
            heading = heading_of(text) or heading
        elif check and heading:
            tasks.append(Task(check[1], heading, _cell_of(check[1], code)))
            heading = None
        else:
            code.append(text)
    opening = cells[0][1]
    question = re.search(r"\*\*The question\.\*\* (.+?)\n\n", opening, re.DOTALL)
    times = re.search(
        r"\*\*Time:\*\* (\d+) seconds to run, (\d+) minutes to read, (\d+) with the exercises\.",
        " ".join(opening.split()),
    )
    return Lesson(
        notebook.stem,
        opening.partition("\n")[0].removeprefix("# "),
        " ".join(question[1].split()) if question else "",
        (int(times[1]), int(times[2]), int(times[3])) if times else None,
        tuple(tasks),
    )


def _cell_of(name: str, code: list[str]) -> str:
    """The last cell that defines an exercise's function: not always the one before its check."""
    defines = re.compile(rf"^(def|class) {name}\b", re.MULTILINE)
    return next((text for text in reversed(code) if defines.search(text)), code[-1])


@cache
def all_lessons() -> tuple[Lesson, ...]:
    """Every lesson that comes with minilora, in order. Raises UsageError if none does."""
    if LESSONS is None:
        raise UsageError("the lessons are not installed with this copy of minilora; clone it")
    return tuple(read_lesson(path) for path in sorted(LESSONS.glob("*.ipynb")))


def lesson_of(notebook: Path) -> Lesson:
    """The lesson that a notebook was made from, by its title or, if that was changed, by the
    exercises in it. Raises UsageError if it is none."""
    texts = [text for _, text in read_cells(notebook)]
    code = "\n".join(texts)

    def likeness(lesson: Lesson) -> tuple[bool, int]:
        has_title = any(text.startswith(f"# {lesson.title}") for text in texts)
        return has_title, sum(bool(re.search(rf"\b{t.name}\(", code)) for t in lesson.tasks)

    best = max(all_lessons(), key=likeness)
    if likeness(best) == (False, 0):
        raise UsageError(f"{notebook} is none of the lessons: it has none of their exercises")
    return best
