"""Reads the source of a lesson: its cells, and its exercises with stub and solution.

A source, lessons/src/NN_name.py, is a script in jupytext's percent format, which holds the
solutions:

    # %%
    def double(x: float) -> float:
        # SOLUTION
        return 2 * x
        # END SOLUTION

    # %%
    check.double(double)

The stub has `...` in place of the fenced lines. In an exercise that is a repair, the lines between
`# INSTEAD` and `# END SOLUTION`, commented out, are what the student gets to mend:

    # SOLUTION
    return 2 * x
    # INSTEAD
    # return x * x
    # END SOLUTION
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import jupytext  # type: ignore[import-untyped]
from nbformat import NotebookNode

from minilora.learn.check import EXERCISES
from minilora.learn.notebooks.lessons import Heading, heading_of


class LessonError(Exception):
    """What is wrong with a lesson, in one sentence."""


@dataclass(frozen=True)
class Exercise:
    """An exercise of a source. cell and check are the positions of its two cells; stub is what the
    student's notebook has in the former, solution what the source has, without the fences.
    repair: the stub is code with a fault in it, which the student mends. heading: what stands above
    it, or None."""

    name: str
    cell: int
    check: int
    stub: str
    solution: str
    repair: bool
    heading: Heading | None


def split_solution(source: str) -> tuple[str, str]:
    """(stub, solution) of a code cell; the same text twice if it has no fences."""
    stub: list[str] = []
    solution: list[str] = []
    fenced: list[str] | None = None  # the lines since the fence that is open
    instead: list[str] | None = None  # and those since its INSTEAD
    for line in source.splitlines():
        indent = line[: len(line) - len(line.lstrip())]
        if line.strip() == "# SOLUTION":
            if fenced is not None:
                raise LessonError("a '# SOLUTION' stands inside another one")
            if not indent:
                raise LessonError("'# SOLUTION' is not indented: it belongs inside a function")
            fenced = []
        elif line.strip() == "# INSTEAD":
            if not fenced or instead is not None:
                raise LessonError("'# INSTEAD' has no '# SOLUTION', or no line, before it")
            instead = []
        elif line.strip() == "# END SOLUTION":
            if not fenced or instead == []:
                raise LessonError("'# END SOLUTION' has no '# SOLUTION', or no line, before it")
            stub += [f"{indent}..."] if instead is None else instead
            solution += fenced
            fenced = instead = None
        elif instead is not None:
            if not line.startswith(f"{indent}#"):
                raise LessonError(f"a line after '# INSTEAD' is no comment: {line.strip()!r}")
            instead.append(indent + line.strip()[1:].removeprefix(" "))
        elif fenced is not None:
            fenced.append(line)
        else:
            stub.append(line)
            solution.append(line)
    if fenced is not None:
        raise LessonError("'# SOLUTION' has no '# END SOLUTION' after it in its cell")
    return "\n".join(stub), "\n".join(solution)


def parse(text: str) -> tuple[list[NotebookNode], list[Exercise]]:
    """The cells of a source as they stand there, and its exercises.

    Raises LessonError for a missing title, for fences that are not in pairs, for a solution without
    a check after it, and for a check without a solution before it or a checker of its name.
    """
    cells = jupytext.reads(text, fmt="py:percent").cells
    if not cells or cells[0].cell_type != "markdown" or not cells[0].source.startswith("# "):
        raise LessonError("the first cell must be markdown and start with '# ' and the title")
    exercises: list[Exercise] = []
    waiting: tuple[int, str, str, bool] | None = None  # a solution that no check has followed yet
    heading: Heading | None = None
    for i, cell in enumerate(cells):
        if cell.cell_type != "code":
            heading = heading_of(cell.source) or heading
            if re.search(r"^\s*# (END )?SOLUTION$", cell.source, re.MULTILINE):
                raise LessonError("a '# SOLUTION' stands in a markdown cell; start its cell '# %%'")
            continue
        stub, solution = split_solution(cell.source)
        check = re.search(r"^check\.(?!(?:predict|strict)\b)(\w+)", cell.source, re.MULTILINE)
        if stub != solution:
            if waiting:
                raise LessonError(f"no check follows the solution {first_line(waiting[2])!r}")
            waiting = i, stub, solution, "# INSTEAD" in cell.source
        elif check:
            name = check[1]
            if cell.source.strip() != f"check.{name}({name})":
                raise LessonError(f"a check stands alone in its cell, as check.{name}({name})")
            if not waiting:
                raise LessonError(f"check.{name} has no cell with a solution before it")
            if name not in EXERCISES:
                raise LessonError(f"minilora/learn/check.py knows no checker named {name}")
            exercises.append(Exercise(name, waiting[0], i, *waiting[1:], heading))
            waiting = heading = None
    if waiting:
        raise LessonError(f"no check follows the solution {first_line(waiting[2])!r}")
    return cells, exercises


def first_line(source: str) -> str:
    return source.partition("\n")[0]
