"""The editions of a lesson: notebooks, not executed, that are made of its source.

    student   stubs; below each check both hints and the solution, folded up
    bare      stubs alone
    solved    the solutions in, no hints
    nbgrader  the teacher's notebook of nbgrader: `nbgrader generate_assignment` makes the student's
    otter     the teacher's notebook of Otter-Grader: `otter assign` makes the student's

Both graders give an exercise its difficulty in points. Every edition has the same set-up cell after
the title. A code cell with the tag hide-input (`# %% tags=["hide-input"]`) shows what it puts out,
and its code only to who asks.

nbgrader's marks are those of its documentation, "Metadata format" and "Creating and grading
assignments" (nbgrader.readthedocs.io); Otter's are those of "Creating assignments", "Python
notebook format" (otter-grader.readthedocs.io).
"""

from __future__ import annotations

from collections.abc import Callable

from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_raw_cell

from minilora.learn.check import EXERCISES
from minilora.learn.notebooks.source import Exercise, parse

KERNEL = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}
# With the address of a public copy, such as https://github.com/OWNER/NAME, each lesson links to
# Colab and Binder; with that of a JupyterLite site it links there. Nothing else has to be changed.
REPOSITORY = ""
SITE = ""
SETUP = """\
# Set-up, the same everywhere: a missing minilora is installed from the clone around.
import os
import sys

for blas in ("OPENBLAS", "MKL"):  # one thread: more is slower here; NumPy asks once
    os.environ.setdefault(f"{blas}_NUM_THREADS", "1")
try:
    import minilora
except ImportError:
    if sys.platform == "emscripten":  # in a browser: from this notebook's own site
        %pip install -q minilora
    else:
        places = ("..", ".", "./minilora")
        places = [f for f in places if os.path.exists(f + "/minilora/lora.py")]
        assert places, "minilora is missing: git clone it here, then run this again"
        %pip install -q {places[0]}

%matplotlib inline
%config InlineBackend.figure_formats = ["retina"]"""
NBGRADER_CONFIG = """\
c = get_config()
c.CourseDirectory.course_id = "minilora"
c.ClearSolutions.code_stub = {"python": "..."}  # what the lessons' checks call "not attempted"
c.ExecutePreprocessor.timeout = 300
"""
# Code that is shown only to who asks for it: JupyterLab reads the one, Jupyter Book the other.
_FOLDED = {"jupyter": {"source_hidden": True}, "tags": ["hide-input"]}
_GRADED = """\
verdict = check.{name}({name})
assert verdict, verdict.message
verdict"""


def notebook(name: str, text: str, edition: str = "student") -> NotebookNode:
    """The notebook of a source in one of EDITIONS, not executed.

    Cell ids are the lesson's number and the position: a rebuilt notebook differs only where its
    source does. Raises LessonError.
    """
    cells, exercises = parse(text)
    exercise_cells = EDITIONS[edition]
    made = {i: [_as_it_stands(cell)] for i, cell in enumerate(cells)}
    for e in exercises:
        fenced = cells[e.cell].source
        made[e.cell], made[e.check] = exercise_cells(e, fenced)
    made[0] = [new_markdown_cell(cells[0].source + links(name, REPOSITORY, SITE))]
    made[0].append(new_code_cell(set_up_cell(REPOSITORY), metadata=_FOLDED))
    if edition == "otter":
        config = "# ASSIGNMENT CONFIG\nname: " + name + "\nexport_cell: false\ninit_cell: true"
        made[0].insert(0, new_raw_cell(config))
    together = [cell for group in made.values() for cell in group]
    for position, cell in enumerate(together):
        cell.id = f"{name.partition('_')[0]}-{position:03}"
    return new_notebook(cells=together, metadata=KERNEL)


def set_up_cell(repository: str) -> str:
    """SETUP; if the address is known, it installs from there what is found nowhere else."""
    last_place = f'        places.append("git+{repository}")\n' if repository else ""
    return SETUP.replace("        assert ", f"{last_place}        assert ")


def links(name: str, repository: str, site: str) -> str:
    """A line with the places that open a lesson without an installation, as far as their addresses
    are known. Links and no badges: a badge is a picture that a reader's browser fetches elsewhere.
    """
    places = []
    if repository:
        path = repository.removeprefix("https://github.com/")
        colab = f"https://colab.research.google.com/github/{path}/blob/HEAD/lessons/{name}.ipynb"
        binder = f"https://mybinder.org/v2/gh/{path}/HEAD?urlpath=lab/tree/lessons/{name}.ipynb"
        places += [f"[Colab]({colab})", f"[Binder]({binder})"]
    if site:
        places.append(f"[the browser alone]({site.rstrip('/')}/lab/index.html?path={name}.ipynb)")
    return f"\n\n**Open it in** {' · '.join(places)}." if places else ""


Cells = list[NotebookNode]


def _student(e: Exercise, fenced: str) -> tuple[Cells, Cells]:
    return [new_code_cell(e.stub)], [_check(e), new_markdown_cell(folded_help(e))]


def _bare(e: Exercise, fenced: str) -> tuple[Cells, Cells]:
    return [new_code_cell(e.stub)], [_check(e)]


def _solved(e: Exercise, fenced: str) -> tuple[Cells, Cells]:
    return [new_code_cell(e.solution)], [_check(e)]


def _nbgrader(e: Exercise, fenced: str) -> tuple[Cells, Cells]:
    begin, end = "### BEGIN SOLUTION", "### END SOLUTION"
    answer = fenced.replace("# SOLUTION", begin).replace("# END SOLUTION", end)
    if e.repair:  # the faulty function stays in the student's notebook, the mended one does not
        answer = f"{e.stub}\n\n\n{begin}\n{e.solution}\n{end}"
    marks = {"schema_version": 3, "locked": False, "task": False}
    solution = marks | {"grade_id": e.name, "grade": False, "solution": True}
    test = marks | {"grade_id": f"test_{e.name}", "grade": True, "solution": False}
    test |= {"locked": True, "points": _points(e)}
    return (
        [new_code_cell(answer, metadata={"nbgrader": solution})],
        [new_code_cell(_GRADED.format(name=e.name), metadata={"nbgrader": test})],
    )


def _otter(e: Exercise, fenced: str) -> tuple[Cells, Cells]:
    quotes = "'''"  # a stub has a docstring in the other ones
    answer = (
        f"# BEGIN SOLUTION NO PROMPT\n{e.solution}\n# END SOLUTION\n"
        f"{quotes} # BEGIN PROMPT\n{e.stub}\n{quotes} # END PROMPT"
    )
    test = _GRADED.format(name=e.name).removesuffix("\nverdict")  # any output would be compared
    about = f"# BEGIN QUESTION\nname: {e.name}\npoints: {_points(e)}"
    return (
        [
            new_raw_cell(about),
            new_raw_cell("# BEGIN SOLUTION"),
            new_code_cell(answer),
            new_raw_cell("# END SOLUTION"),
        ],
        [
            new_raw_cell("# BEGIN TESTS"),
            new_code_cell(test),
            new_raw_cell("# END TESTS"),
            new_raw_cell("# END QUESTION"),
        ],
    )


EDITIONS: dict[str, Callable[[Exercise, str], tuple[Cells, Cells]]] = {
    "student": _student,
    "bare": _bare,
    "solved": _solved,
    "nbgrader": _nbgrader,
    "otter": _otter,
}


def _points(e: Exercise) -> int:
    return e.heading.points if e.heading else 1


def _check(e: Exercise) -> NotebookNode:
    return new_code_cell(f"check.{e.name}({e.name})")


def _as_it_stands(cell: NotebookNode) -> NotebookNode:
    """A cell of the source, with metadata that hide the code of a tagged one in JupyterLab,
    nbconvert and Jupyter Book."""
    new = new_code_cell if cell.cell_type == "code" else new_markdown_cell
    if "hide-input" not in cell.metadata.get("tags", []):
        return new(cell.source)
    return new(cell.source, metadata=_FOLDED)


def folded_help(exercise: Exercise) -> str:
    """Both hints and the solution in markdown, each to be unfolded by a click."""
    parts = {f"Hint {i}": hint for i, hint in enumerate(EXERCISES[exercise.name], 1)}
    parts["Solution"] = f"```python\n{exercise.solution}\n```"
    return "\n\n".join(
        f"<details><summary>{title}</summary>\n\n{text}\n\n</details>"
        for title, text in parts.items()
    )
