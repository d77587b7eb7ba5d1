"""Claims about the lessons: each notebook is what the builder makes of its source, has the parts of
a lesson, and shows nothing that differs from run to run; and the builder explains what it refuses.

Nothing is executed here; `python lessons/build.py --check` does that, in real kernels.
"""

import importlib.util
import os
import re
import subprocess
import sys
import types
from pathlib import Path

import nbformat
import pytest

from minilora.learn.check import EXERCISES
from minilora.learn.examination import FAULTS
from minilora.learn.notebooks import editions
from minilora.learn.notebooks.editions import SETUP
from minilora.learn.notebooks.lessons import all_lessons

LESSONS = Path(__file__).parents[2] / "lessons"
SOURCES = sorted(path.stem for path in (LESSONS / "src").glob("*.py"))
NAMES = [name for name in SOURCES if name[0].isdigit()]  # the lessons; the others have other parts

PARTS = {  # what must stand in a lesson, in this order
    "the question": r"\*\*The question\.\*\* .+\?",
    "what one will be able to do": r"\*\*You will be able to\*\*\n\n- ",
    "its times": r"\*\*Time:\*\* \d+ seconds to run, \d+ minutes to read, \d+ with the exercises\.",
    "prerequisites": r"\*\*Before this:\*\* ",
    "the glossary": r"\*\*Words:\*\* .*\(GLOSSARY\.md\)",
    "a picture": r"^## A picture$",
    "a formula": r"\$\$",
    "what to see": r"\*\*What to see\.\*\* ",
    "what it does not show": r"\*\*What it does not show\.\*\* ",
    "scale": r"\*\*Does it hold at scale\?\*\* ",
    "the exam cards": r"^## The exam cards this prepares$",
    "where to read on": r"^## Where to read on$",
}


def load_builder() -> types.ModuleType:
    spec = importlib.util.spec_from_file_location("lesson_builder", LESSONS / "build.py")
    assert spec and spec.loader
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


build = load_builder()
ONE_EXERCISE = """\
# %% [markdown]
# # A title

# %%
def count_lora(d_in, d_out, r):
    # SOLUTION
    both = d_in + d_out
    return r * both
    # END SOLUTION


# %%
check.count_lora(count_lora)

# %%
print("the end")
"""


def committed(name: str) -> nbformat.NotebookNode:
    return nbformat.read(LESSONS / f"{name}.ipynb", as_version=4)


def source_code(name: str) -> str:
    return build.source_of(name)


def text_of(book: nbformat.NotebookNode) -> str:
    return "\n\n".join(cell.source for cell in book.cells if cell.cell_type == "markdown")


@pytest.mark.parametrize("name", SOURCES)
def test_a_notebook_is_what_the_builder_makes_of_its_source(name):
    made, there = build.notebook(name, build.source_of(name)), committed(name)
    cells = [
        [(cell.id, cell.cell_type, cell.source, cell.metadata) for cell in book.cells]
        for book in (made, there)
    ]
    assert cells[0] == cells[1], f"run `python lessons/build.py {name}`"
    assert there.metadata == made.metadata


def test_every_source_has_its_notebook_and_every_notebook_its_source_and_line_in_the_readme():
    notebooks = sorted(path.stem for path in LESSONS.glob("*.ipynb"))
    readme = (LESSONS / "README.md").read_text(encoding="utf-8")
    assert notebooks == SOURCES == sorted(re.findall(r"\((\w+)\.ipynb\)", readme))


def test_the_readmes_table_has_the_questions_and_times_of_the_lessons():
    readme = (LESSONS / "README.md").read_text(encoding="utf-8")
    assert build.with_table(readme) == readme, "run `python lessons/build.py --table`"


def test_the_exercises_that_the_readme_names_exist_and_take_these_minutes():
    readme = (LESSONS / "README.md").read_text(encoding="utf-8")
    named = set(re.findall(r"(\d+\.\d+) `(\w+)` \((\d+)\)", readme))
    known = {
        (task.heading.number, task.name, str(task.heading.minutes))
        for lesson in all_lessons()
        for task in lesson.tasks
    }
    assert len(named) >= 5 and named <= known


@pytest.mark.parametrize("name", NAMES)
def test_a_notebook_has_the_parts_of_a_lesson_in_order(name):
    text, start = text_of(committed(name)).replace("\r", ""), 0
    for what, pattern in PARTS.items():
        found = re.compile(pattern, re.MULTILINE | re.DOTALL).search(text, start)
        assert found, f"{name} has no {what} where it is expected"
        start = found.start()


@pytest.mark.parametrize("name", NAMES)
def test_a_notebook_has_three_exercises_or_more_each_with_its_difficulty_and_minutes(name):
    text = text_of(committed(name))
    number = int(name.partition("_")[0])
    titles = re.findall(rf"^### Exercise {number}\.(\d+)", text, re.MULTILINE)
    about = re.findall(r"\*Difficulty [1-5] of 5, \d+ minutes\.\*", text)
    checks = len(build.parse(build.source_of(name))[1])
    assert checks >= 3 and titles == [str(i + 1) for i in range(checks)]
    assert len(about) == checks


def test_the_bug_clinic_has_a_sound_run_a_list_of_faults_and_ten_scripts_with_their_charts():
    text, source = text_of(committed("bug_clinic")), build.source_of("bug_clinic")
    start = 0
    for what in ("its times", "the glossary", "what to see", "what it does not show", "scale",
                 "the exam cards", "where to read on"):  # fmt: skip
        found = re.compile(PARTS[what], re.MULTILINE).search(text, start)
        assert found, f"the clinic has no {what} where it is expected"
        start = found.start()
    scripts = [f"script_{i}" for i in range(1, 11)]
    exercises = build.parse(source)[1]
    assert [one.name for one in exercises] == scripts
    assert all(one.repair and '"?"' in one.stub for one in exercises)
    assert re.findall(r"^examine\((\w+)", source, re.MULTILINE) == ["healthy", *scripts]
    titles = re.findall(r"^### Exercise C\.(\d+): ", text, re.MULTILINE)
    assert titles == [str(i) for i in range(1, 11)]
    assert len(re.findall(r"\*Difficulty [1-5] of 5, \d+ minutes\.\*", text)) == 10
    assert len(FAULTS) > len(scripts)


@pytest.mark.parametrize("name", SOURCES)
def test_code_that_is_shown_fits_a_page_of_800_pixels(name):
    for cell in committed(name).cells:
        if cell.cell_type == "code" and "hide-input" not in cell.metadata.get("tags", ()):
            too_long = [line for line in cell.source.splitlines() if len(line) > 86]
            assert not too_long, f"{cell.id} has lines of more than 86 characters"


def test_markdown_eats_no_stars_and_underscores_of_the_code_in_a_hint():
    for name, hints in EXERCISES.items():
        for hint in hints:
            assert not re.search(r"\*\*|__", re.sub("`[^`]*`", "", hint)), f"{name}: {hint!r}"


@pytest.mark.parametrize("page", [*SOURCES, "README.md", "../README.md"])
def test_what_a_page_links_to_is_there(page):
    path = LESSONS / page
    text = path.read_text(encoding="utf-8") if path.exists() else text_of(committed(page))
    links = re.findall(r"\]\((?!https?:)([^)\s]+)\)", re.sub(r"(?s)```.*?```", "", text))
    assert links
    for link in links:
        file, _, heading = link.partition("#")
        assert (path.parent / file).exists(), link
        assert not heading or heading in slugs(path.parent / file if file else path), link


def slugs(page: Path) -> list[str]:
    """The names by which a web page links to the headings of a Markdown file."""
    headings = re.findall(r"(?m)^#+ (.*)", page.read_text(encoding="utf-8"))
    return [re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings]


@pytest.mark.parametrize("name", NAMES)
def test_a_notebook_has_two_boxes_to_predict_change_and_run(name):
    assert (
        len(re.findall(r"^### Predict, change, run", text_of(committed(name)), re.MULTILINE)) >= 2
    )
    assert build.source_of(name).count("check.predict(") >= 2


@pytest.mark.parametrize("name", NAMES)
def test_an_exercise_stands_where_its_idea_is_and_not_in_a_heap(name):
    assert not re.search(r"^## Exercises", text_of(committed(name)), re.MULTILINE)


@pytest.mark.parametrize("name", NAMES)
def test_a_lesson_that_loads_a_text_says_how_to_use_your_own(name):
    if "load_corpus(" in build.source_of(name):
        assert re.search(r"\byour own text\b", text_of(committed(name)))


@pytest.mark.parametrize("name", NAMES)
def test_a_notebook_has_a_figure_and_is_small_enough_to_be_read_on_a_web_page(name):
    outputs = [out for cell in committed(name).cells for out in cell.get("outputs", [])]
    assert [out for out in outputs if "image/png" in out.get("data", {})]
    assert (LESSONS / f"{name}.ipynb").stat().st_size < 400_000


@pytest.mark.parametrize("name", SOURCES)
def test_a_notebook_was_run_from_top_to_bottom_and_shows_only_what_stays_the_same(name):
    book = committed(name)
    build.require_clean(book)
    build.require_figures_described(book)
    build.require_verdicts(book, build.untouched(name))
    counts = [cell.execution_count for cell in book.cells if cell.cell_type == "code"]
    assert counts == list(range(1, len(counts) + 1))


def test_the_students_edition_has_the_stub_the_hints_and_the_solution_folded_up():
    book = build.notebook("05_title", ONE_EXERCISE)
    assert [cell.id for cell in book.cells] == [f"05-{i:03}" for i in range(6)]
    title, setup, stub, check, help_cell, end = (cell.source for cell in book.cells)
    assert title == "# A title" and setup == SETUP and end == 'print("the end")'
    assert stub == "def count_lora(d_in, d_out, r):\n    ..."
    assert check == "check.count_lora(count_lora)"
    summaries = re.findall(r"<details><summary>(.*)</summary>\n\n", help_cell)
    assert summaries == ["Hint 1", "Hint 2", "Solution"] and help_cell.count("</details>") == 3
    assert all(hint in help_cell for hint in EXERCISES["count_lora"])
    solution = "def count_lora(d_in, d_out, r):\n    both = d_in + d_out\n    return r * both"
    assert f"```python\n{solution}\n```" in help_cell


def test_the_solved_edition_has_the_solution_in_and_no_fences_or_hints():
    book = build.notebook("05_title", ONE_EXERCISE, "solved")
    assert len(book.cells) == 5
    assert book.cells[2].source.endswith("    both = d_in + d_out\n    return r * both")
    assert "SOLUTION" not in text_of(book) + book.cells[2].source


REPAIR = ONE_EXERCISE.replace(
    "    # END SOLUTION", "    # INSTEAD\n    # if r:\n    #     return r\n    # END SOLUTION"
)


def test_of_a_repair_the_student_gets_the_faulty_lines_in_place_of_the_dots():
    book = build.notebook("05_title", REPAIR)
    assert book.cells[2].source.endswith("r):\n    if r:\n        return r")
    assert build.notebook("05_title", REPAIR, "solved").cells[2].source.endswith("r * both")
    assert [e.repair for e in build.parse(REPAIR)[1]] == [True]
    assert [e.repair for e in build.parse(ONE_EXERCISE)[1]] == [False]


HEADING = "# %% [markdown]\n# ### Exercise 5.1: x\n#\n# *Difficulty 3 of 5, 2 minutes.* Go.\n\n"
WITH_HEADING = ONE_EXERCISE.replace("# %%\ndef", f"{HEADING}# %%\ndef")


def test_the_bare_edition_has_neither_hints_nor_solutions():
    book = build.notebook("05_title", ONE_EXERCISE, "bare")
    assert [cell.source for cell in book.cells[2:4]] == [
        "def count_lora(d_in, d_out, r):\n    ...",
        "check.count_lora(count_lora)",
    ]
    whole = "\n".join(cell.source for cell in book.cells)
    assert "both" not in whole and "<details>" not in whole


@pytest.mark.parametrize(("source", "points"), [(ONE_EXERCISE, 1), (WITH_HEADING, 3)])
def test_nbgraders_edition_marks_the_answer_and_gives_the_check_points(source, points):
    book = build.notebook("05_title", source, "nbgrader")
    answer, test = [cell for cell in book.cells if "nbgrader" in cell.metadata]
    begin, end = "    ### BEGIN SOLUTION\n", "    ### END SOLUTION"
    assert answer.source.startswith(f"def count_lora(d_in, d_out, r):\n{begin}    both = ")
    assert answer.source.endswith(end) and answer.metadata.nbgrader.solution
    assert test.metadata.nbgrader.points == points and test.metadata.nbgrader.locked
    assert "assert verdict" in test.source


def test_otters_edition_has_a_question_with_its_solution_its_prompt_and_its_test():
    book = build.notebook("05_title", WITH_HEADING, "otter")
    raw = [cell.source.splitlines()[0] for cell in book.cells if cell.cell_type == "raw"]
    assert raw == [
        "# ASSIGNMENT CONFIG",
        "# BEGIN QUESTION",
        "# BEGIN SOLUTION",
        "# END SOLUTION",
        "# BEGIN TESTS",
        "# END TESTS",
        "# END QUESTION",
    ]
    question = next(cell for cell in book.cells if "BEGIN QUESTION" in cell.source)
    assert question.source.endswith("name: count_lora\npoints: 3")


@pytest.mark.parametrize("edition", ["nbgrader", "otter"])
def test_of_a_repair_the_graders_keep_the_faulty_lines_outside_the_solution(edition):
    book = build.notebook("05_title", REPAIR, edition)
    answer = next(cell for cell in book.cells if "r * both" in cell.source).source
    solution = re.search(r"BEGIN SOLUTION.*?END SOLUTION", answer, re.DOTALL)
    assert solution and "r * both" in solution[0] and "if r:" not in solution[0]
    assert "    if r:\n        return r" in answer


def test_other_places_are_linked_to_once_their_addresses_are_known():
    assert editions.links("05_x", "", "") == ""
    both = editions.links("05_x", "https://github.com/a/b", "https://a.example/b/")
    assert "https://colab.research.google.com/github/a/b/blob/HEAD/lessons/05_x.ipynb" in both
    assert "https://mybinder.org/v2/gh/a/b/HEAD?urlpath=lab/tree/lessons/05_x.ipynb" in both
    assert "https://a.example/b/lab/index.html?path=05_x.ipynb" in both
    assert "Colab" not in editions.links("05_x", "", "https://a.example/b")


def test_the_set_up_cell_installs_from_the_repository_only_if_it_is_known():
    assert editions.set_up_cell("") == SETUP and "git+" not in SETUP
    known = editions.set_up_cell("https://github.com/a/b")
    installs = '        places.append("git+https://github.com/a/b")\n        assert places'
    assert f"\n{installs}" in known


def test_a_cell_with_the_tag_shows_its_code_only_to_who_asks():
    hidden = ONE_EXERCISE.replace("# %%\nprint", '# %% tags=["hide-input"]\nprint')
    last = build.notebook("05_title", hidden).cells[-1]
    assert last.metadata == {"jupyter": {"source_hidden": True}, "tags": ["hide-input"]}


def test_a_guess_is_no_exercise():
    guess = ONE_EXERCISE.replace('print("the end")', "check.predict(..., 3)")
    assert [e.name for e in build.parse(guess)[1]] == ["count_lora"]


FENCE = "    # SOLUTION\n"
END = "    # END SOLUTION\n"


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        (END, "", "'# SOLUTION' has no '# END SOLUTION' after it"),
        (FENCE, "", "'# END SOLUTION' has no '# SOLUTION', or no line, before it"),
        (FENCE, FENCE + END, "'# END SOLUTION' has no '# SOLUTION', or no line, before it"),
        (FENCE, FENCE + FENCE, "a '# SOLUTION' stands inside another one"),
        (FENCE, "# SOLUTION\n", "'# SOLUTION' is not indented"),
        ("# %%\nprint", "# %% [markdown]\n# # SOLUTION\n# ", "stands in a markdown cell"),
        ("check.count_lora(count_lora)\n", "pass\n", "no check follows the solution 'def count_l"),
        (FENCE, "", "before it"),
        ("check.count_lora(count_lora)", "check.count(count)", "knows no checker named count"),
        ("check.count_lora(count_lora)", "check.count_lora(other)", "as check.count_lora(count_lo"),
        ("check.count_lora(", "x = 1\ncheck.count_lora(", "stands alone in its cell, as check.cou"),
        (FENCE + "    both = d_in + d_out\n", "", "has no '# SOLUTION'"),
        ('print("the end")', "check.count_lora(count_lora)", "no cell with a solution before it"),
        (END, f"    # INSTEAD\n{END}", "no line, before it"),
        (END, f"    # INSTEAD\n    return r\n{END}", "a line after '# INSTEAD' is no comment"),
        (
            FENCE,
            FENCE + "    # INSTEAD\n",
            "'# INSTEAD' has no '# SOLUTION', or no line, before it",
        ),
        ("# # A title", "# A title", "the first cell must be markdown and start with '# '"),
        ("# %% [markdown]\n# # A title\n", "", "the first cell must be markdown"),
    ],
)
def test_a_mistake_in_a_source_is_told_in_one_sentence(old, new, sentence):
    assert old in ONE_EXERCISE
    with pytest.raises(build.LessonError) as refused:
        build.parse(ONE_EXERCISE.replace(old, new, 1))
    assert sentence in str(refused.value) and "\n" not in str(refused.value)


def test_two_solutions_before_one_check_are_refused():
    head, _, tail = ONE_EXERCISE.partition("# %%\ndef")
    cell = "# %%\ndef other():\n    # SOLUTION\n    return 1\n    # END SOLUTION\n\n\n"
    with pytest.raises(build.LessonError, match="no check follows the solution 'def other"):
        build.parse(f"{head}{cell}# %%\ndef{tail}")


def book_that_shows(text: str, name: str = "stdout") -> nbformat.NotebookNode:
    output = nbformat.v4.new_output("stream", name=name, text=text)
    cell = nbformat.v4.new_code_cell("show()", id="05-003", outputs=[output])
    return nbformat.v4.new_notebook(cells=[cell])


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("<Line2D at 0x7f3a1c2b4d50>", "a memory address"),
        ("saved to /data/student/adapter", "an absolute path"),
        ("saved to C:\\Users\\student", "an absolute path"),
        ("built on 2024-05-06", "a date or a time"),
        ("at 12:34:56", "a date or a time"),
        ("40%|####      | 12.3it/s", "a progress bar"),
        ("step 1\rstep 2", "a progress bar"),
    ],
)
def test_an_output_that_would_differ_is_refused_with_its_cell(text, what):
    with pytest.raises(build.LessonError, match=rf"cell 05-003 \('show\(\)'\) shows {what}"):
        build.require_clean(book_that_shows(text))


@pytest.mark.parametrize(
    "text",
    ["q/k/v at 3 / 4", "https://arxiv.org/abs/2106.09685", "0x10", "</b></i>", "1:2", "A/B\n/r"],
)
def test_ordinary_outputs_are_not_refused(text):
    build.require_clean(book_that_shows(text))


def test_warnings_and_errors_are_refused():
    with pytest.raises(build.LessonError, match="an error or a warning: careful"):
        build.require_clean(book_that_shows("careful\n", name="stderr"))
    book = book_that_shows("")
    book.cells[0].outputs = [nbformat.v4.new_output("error", ename="E", evalue="broken")]
    with pytest.raises(build.LessonError, match="an error or a warning: broken"):
        build.require_clean(book)


def book_with_a_picture(**about: object) -> nbformat.NotebookNode:
    data, metadata = {"image/png": "iVBORw0KGgo="}, {"image/png": about}
    output = nbformat.v4.new_output("display_data", data=data, metadata=metadata)
    cell = nbformat.v4.new_code_cell("draw()", id="05-003", outputs=[output])
    return nbformat.v4.new_notebook(cells=[cell])


def test_a_picture_has_a_text_and_double_resolution():
    build.require_figures_described(book_with_a_picture(alt="Two curves.", width=400))
    with pytest.raises(build.LessonError, match=r"05-003 .* shows a picture without a text"):
        build.require_figures_described(book_with_a_picture(width=400))
    with pytest.raises(build.LessonError, match="shows a picture of single resolution"):
        build.require_figures_described(book_with_a_picture(alt="Two curves."))


def test_a_cell_that_shows_something_else_when_run_twice_is_refused():
    book = build.each_cell_twice(book_that_shows("3\n"))
    assert [cell.id for cell in book.cells] == ["05-003", "05-003-again"]
    book.cells[1].outputs = list(book.cells[0].outputs)
    build.require_the_same_again(book)
    book.cells[1].outputs = [nbformat.v4.new_output("stream", name="stdout", text="4\n")]
    with pytest.raises(build.LessonError, match=r"cell 05-003 \('show\(\)'\), run twice, differs"):
        build.require_the_same_again(book)


def test_a_check_that_says_something_else_is_refused():
    book = book_that_shows("Not yet: it is 3.")
    book.cells[0].source = "check.count_lora(count_lora)"
    with pytest.raises(build.LessonError, match=r"count_lora\) says 'Not yet: it is 3.', not 'Cor"):
        build.require_verdicts(book, {"count_lora": "Correct"})
    build.require_verdicts(book, {"another": "Correct"})


def test_a_short_name_finds_its_lesson_and_an_unknown_one_is_told_what_there_is():
    assert build.find(["05"]) == ["05_counting_parameters"]
    assert build.find([]) == SOURCES
    with pytest.raises(build.LessonError, match=r"no lesson '99'; there are: .*05_counting"):
        build.find(["99"])


def test_the_solved_edition_is_written_only_where_it_is_asked_for(tmp_path):
    before = sorted(LESSONS.rglob("*"))
    assert build.main(["--solved", str(tmp_path / "solved"), "05"]) == 0
    assert [path.name for path in (tmp_path / "solved").iterdir()] == [
        "05_counting_parameters.ipynb"
    ]
    assert sorted(LESSONS.rglob("*")) == before


def run_setup(folder: Path) -> str:
    """What the set-up cell shows, and would install, in an IPython without minilora."""
    cell = SETUP.replace("%matplotlib inline", "")
    code = (
        "import sys\n"
        "from IPython.core.interactiveshell import InteractiveShell\n"
        "sys.modules['minilora'] = None\n"
        "shell = InteractiveShell()\n"
        "shell.register_magic_function(lambda line: print('pip', line), magic_name='pip')\n"
        f"shell.run_cell({cell!r})\n"
    )
    environment = os.environ | {"IPYTHONDIR": str(folder), "NO_COLOR": "1"}
    command = [sys.executable, "-c", code]
    return subprocess.run(
        command, cwd=folder, capture_output=True, text=True, check=True, env=environment
    ).stdout


@pytest.mark.parametrize("edition", ["bare", "nbgrader", "otter"])
def test_other_editions_are_written_only_where_they_are_asked_for(tmp_path, edition):
    before = sorted(LESSONS.rglob("*"))
    assert build.main([f"--{edition}", str(tmp_path), "05"]) == 0
    written = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()}
    name = "05_counting_parameters"
    course = {f"source{os.sep}{name}{os.sep}{name}.ipynb", "nbgrader_config.py"}
    assert written == (course if edition == "nbgrader" else {f"{name}.ipynb"})
    assert sorted(LESSONS.rglob("*")) == before


@pytest.mark.system
@pytest.mark.parametrize(
    ("notebook", "clone", "path"),
    [("lessons", ".", ".."), (".", ".", "."), (".", "minilora", "./minilora")],
)
def test_the_set_up_cell_installs_from_a_clone_around_the_notebook(tmp_path, notebook, clone, path):
    package = tmp_path / clone / "minilora"
    package.mkdir(parents=True)
    (package / "lora.py").touch()
    (tmp_path / notebook).mkdir(exist_ok=True)
    assert run_setup(tmp_path / notebook).strip() == f"pip install -q {path}"


@pytest.mark.system
def test_the_set_up_cell_says_what_to_do_where_there_is_no_clone(tmp_path):
    shown = run_setup(tmp_path)
    assert "minilora is missing: git clone it" in shown and "pip install" not in shown


def test_blas_is_told_to_use_one_thread_before_numpy_is_imported():
    assert 0 < SETUP.index("_NUM_THREADS") < SETUP.index("import minilora")
