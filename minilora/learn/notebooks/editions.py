"""The editions of a lesson: notebooks, not executed, that are made of its source.

A code cell with the tag hide-input (`# %% tags=["hide-input"]`) shows what it puts out, and its
code only to who asks. Every notebook gets the same set-up cell after its title.
"""

from __future__ import annotations

from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from minilora.learn.check import EXERCISES
from minilora.learn.notebooks.source import Exercise, parse

KERNEL = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}
SETUP = """\
# Set-up, the same in every lesson. If minilora is missing, it is installed from the clone around.
import os

for blas in ("OPENBLAS", "MKL"):  # one thread: more would be slower here, and NumPy asks only once
    os.environ.setdefault(f"{blas}_NUM_THREADS", "1")
try:
    import minilora
except ImportError:
    places = [f for f in ("..", ".", "./minilora") if os.path.exists(f + "/minilora/lora.py")]
    assert places, "minilora is missing: git clone it beside this notebook, then run this again"
    %pip install -q {places[0]}

%matplotlib inline
%config InlineBackend.figure_formats = ["retina"]"""


def notebook(name: str, text: str, solved: bool = False) -> NotebookNode:
    """The notebook of a source, not executed: the student's or, solved, with solutions, no hints.

    Cell ids are the lesson's number and the position: a rebuilt notebook differs only where its
    source does. Raises LessonError.
    """
    cells, exercises = parse(text)
    help_after = {}
    for e in exercises:
        cells[e.cell].source = e.solution if solved else e.stub
        help_after[e.check] = folded_help(e)
    made = [new_markdown_cell(cells[0].source), new_code_cell(SETUP)]
    for i, cell in enumerate(cells[1:], 1):
        new = new_code_cell if cell.cell_type == "code" else new_markdown_cell
        made.append(new(cell.source, metadata=_shown(cell)))
        if i in help_after and not solved:
            made.append(new_markdown_cell(help_after[i]))
    for position, cell in enumerate(made):
        cell.id = f"{name.partition('_')[0]}-{position:03}"
    return new_notebook(cells=made, metadata=KERNEL)


def _shown(cell: NotebookNode) -> dict[str, object]:
    """Metadata that hide a cell's code in JupyterLab, nbconvert and Jupyter Book."""
    if "hide-input" not in cell.metadata.get("tags", []):
        return {}
    return {"jupyter": {"source_hidden": True}, "tags": ["hide-input"]}


def folded_help(exercise: Exercise) -> str:
    """Both hints and the solution in markdown, each to be unfolded by a click."""
    parts = {f"Hint {i}": hint for i, hint in enumerate(EXERCISES[exercise.name], 1)}
    parts["Solution"] = f"```python\n{exercise.solution}\n```"
    return "\n\n".join(
        f"<details><summary>{title}</summary>\n\n{text}\n\n</details>"
        for title, text in parts.items()
    )
