"""Claims about the editions for nbgrader and Otter, proved with these programs themselves: an
untouched notebook scores 0, a solved one full, and one with a mistake in it between.

They need a virtual environment with the extra "graders": .ci/run makes one.
"""

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

from minilora.learn.notebooks.editions import NBGRADER_CONFIG, notebook

pytestmark = pytest.mark.graders

NAME = "05_small"
LESSON = """\
# %% [markdown]
# # A small lesson

# %%
from minilora.learn import check

# %% [markdown]
# ### Exercise 5.1: count
#
# *Difficulty 2 of 5, 2 minutes.* Count.

# %%
def count_lora(d_in, d_out, r):
    \"\"\"A docstring, as in every stub.\"\"\"
    # SOLUTION
    return r * (d_in + d_out)
    # END SOLUTION


# %%
check.count_lora(count_lora)

# %% [markdown]
# ### Exercise 5.2: mend
#
# *Difficulty 3 of 5, 5 minutes.* Mend.

# %%
def break_even_rank(d_in, d_out):
    \"\"\"It has a fault.\"\"\"
    # SOLUTION
    return d_in * d_out / (d_in + d_out)
    # INSTEAD
    # return d_in + d_out
    # END SOLUTION


# %%
check.break_even_rank(break_even_rank)
"""
COUNT = "def count_lora(a, b, r):\n    return r * (a + b)"
WRONG = "def count_lora(a, b, r):\n    return r * a * b"
MENDED = "def break_even_rank(a, b):\n    return 1 / (1 / a + 1 / b)"
ANSWERS = {  # student: what stands in the two cells, None for what was handed out
    "untouched": (None, None),
    "solved": (COUNT, MENDED),
    "mistaken": (WRONG, MENDED),
}
SCORES = {"untouched": 0, "solved": 5, "mistaken": 3}


def program(name: str, *arguments: str, folder: Path) -> None:
    """Run one of this virtual environment, which need not be active."""
    programs = Path(sys.executable).parent
    environment = os.environ | {"PATH": f"{programs}{os.pathsep}{os.environ['PATH']}"}
    command = [programs / name, *arguments]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def handed_in(handed_out: Path, student: str) -> nbformat.NotebookNode:
    """A student's copy; the mistaken one also claims to be right where it is checked."""
    book = nbformat.read(handed_out, as_version=4)
    names = ("count_lora", "break_even_rank")
    for name, answer in zip(names, ANSWERS[student], strict=True):
        cell = next(cell for cell in book.cells if f"def {name}(" in cell.source)
        assert "# SOLUTION" not in cell.source and "return r" not in cell.source
        assert name == "count_lora" or "return d_in + d_out" in cell.source
        cell.source = answer or cell.source
    for cell in book.cells:
        if student == "mistaken" and "assert verdict" in cell.source:
            cell.source = "assert True"
    return book


def test_nbgrader_gives_each_notebook_what_it_is_worth(tmp_path):
    source = tmp_path / "source" / NAME / f"{NAME}.ipynb"
    source.parent.mkdir(parents=True)
    nbformat.write(notebook(NAME, LESSON, "nbgrader"), source)
    (tmp_path / "nbgrader_config.py").write_text(NBGRADER_CONFIG)
    program("nbgrader", "generate_assignment", NAME, folder=tmp_path)
    release = tmp_path / "release" / NAME / f"{NAME}.ipynb"
    for student in ANSWERS:
        copy = tmp_path / "submitted" / student / NAME / f"{NAME}.ipynb"
        copy.parent.mkdir(parents=True)
        nbformat.write(handed_in(release, student), copy)
    program("nbgrader", "autograde", NAME, folder=tmp_path)
    program("nbgrader", "export", folder=tmp_path)
    with (tmp_path / "grades.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row["student_id"]: float(row["score"]) for row in rows} == SCORES
    assert {float(row["max_score"]) for row in rows} == {5}


def test_otter_gives_each_notebook_what_it_is_worth(tmp_path):
    nbformat.write(notebook(NAME, LESSON, "otter"), tmp_path / f"{NAME}.ipynb")
    program("otter", "assign", f"{NAME}.ipynb", "dist", folder=tmp_path)  # grades the solution
    grader = next((tmp_path / "dist" / "autograder").glob("*.zip"))
    release = tmp_path / "dist" / "student" / f"{NAME}.ipynb"
    scores = {}
    for student in ANSWERS:
        folder = tmp_path / student
        folder.mkdir()
        nbformat.write(handed_in(release, student), folder / f"{NAME}.ipynb")
        program("otter", "run", "-a", str(grader), f"{NAME}.ipynb", folder=folder)
        tests = json.loads((folder / "results.json").read_text())["tests"]
        scores[student] = sum(test.get("score", 0) for test in tests)
    assert scores == SCORES
