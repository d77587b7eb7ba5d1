"""Makes the lessons' notebooks from their sources, and checks that they run.

    python lessons/build.py [NAME ...]             write lessons/NAME.ipynb, executed
    python lessons/build.py --check [NAME ...]     run solutions and notebooks, write nothing
    python lessons/build.py --solved FOLDER ...    write another edition there, not run: also
                                                   --bare, --nbgrader, --otter
    python lessons/build.py --table                write the table of lessons in README.md anew

NAME may be short: 05. How a source is written is in minilora/learn/notebooks/source.py; what is
made of it, in editions.py there. What is built is the same, byte for byte, whenever it is built on
one machine.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import nbformat
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_notebook

from minilora.learn.notebooks.editions import KERNEL, NBGRADER_CONFIG, notebook
from minilora.learn.notebooks.lessons import read_lesson
from minilora.learn.notebooks.source import LessonError, first_line, parse
from minilora.system.files import make_folder, write_atomically

LESSONS = Path(__file__).resolve().parent
OTHER_EDITIONS = {
    "solved": "write the notebooks with their solutions there",
    "bare": "write them without hints and solutions",
    "nbgrader": "write nbgrader's course there",
    "otter": "write the masters for otter assign",
}
DEBRIS = {  # what no notebook may show: it would differ from run to run, or tell of a machine
    "a memory address": r"\b0x[0-9a-f]{6,}\b",
    "an absolute path": r"(?<![\w.:/<~-])/(?:[\w.-]+/)+[\w.-]+|\b[A-Z]:\\\w",
    "a date or a time": r"\b\d{4}-\d\d-\d\d\b|\b\d\d:\d\d:\d\d\b",
    "a progress bar": r"\r|(it|step)/s\b",
}


def execute(book: NotebookNode) -> None:
    """Run a notebook's cells in a new kernel of this Python, in an empty folder, and keep their
    outputs in it. Raises LessonError, which names the cell, if one fails."""
    from jupyter_client.kernelspec import KernelSpecManager
    from jupyter_client.manager import AsyncKernelManager
    from nbclient import NotebookClient
    from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError

    # With no folder to look for kernels in, what is left is the one of sys.executable.
    specs = KernelSpecManager(kernel_dirs=[])
    manager = AsyncKernelManager(kernel_name="python3", kernel_spec_manager=specs)
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryDirectory() as no_profile:
        if os.name == "posix":  # sockets in files: two kernels that start at once may pick one port
            manager.transport, manager.ip = "ipc", str(Path(no_profile, "kernel"))
        client = NotebookClient(
            book, manager, timeout=600, record_timing=False, coalesce_streams=True,
            extra_arguments=["--log-level=ERROR"],
            resources={"metadata": {"path": folder}},
        )  # fmt: skip
        environment = dict(
            os.environ, IPYTHONDIR=no_profile, OPENBLAS_NUM_THREADS="1", PYTHONHASHSEED="0",
            TQDM_DISABLE="1",  # a progress bar shows seconds, which differ each time
        )  # fmt: skip
        try:
            client.execute(cleanup_kc=True, env=environment)
        except CellExecutionError as error:
            raise LessonError(
                f"{_failed_cell(book)} raised {error.ename}: {error.evalue}"
            ) from None
        except (CellTimeoutError, DeadKernelError) as error:
            raise LessonError(f"the notebook did not run to its end: {error}") from None
    book.metadata = nbformat.from_dict(KERNEL)  # nbclient adds this Python's version


def _failed_cell(book: NotebookNode) -> str:
    for cell in book.cells:
        if any(out.output_type == "error" for out in cell.get("outputs", [])):
            return f"cell {cell.id} ({first_line(cell.source)!r})"
    return "a cell"


def output_text(cell: NotebookNode) -> str:
    """Everything a code cell shows but its pictures."""
    shown = []
    for out in cell.get("outputs", []):
        data = out.get("data", {})
        shown += [out.get("text", ""), *(data[kind] for kind in data if kind.startswith("text/"))]
    return "\n".join(shown)


def require_clean(book: NotebookNode) -> None:
    """Raise LessonError for an output that is an error or a warning, or that cannot be the same
    when the notebook is built again."""
    for cell in book.cells:
        where = f"cell {cell.id} ({first_line(cell.source)!r})"
        for out in cell.get("outputs", []):
            if out.output_type == "error" or out.get("name") == "stderr":
                text = out.get("text") or out.get("evalue")
                raise LessonError(f"{where} shows an error or a warning: {text.strip()}")
        for what, pattern in DEBRIS.items():
            if found := re.search(pattern, output_text(cell)):
                raise LessonError(f"{where} shows {what}, which changes: {found[0]!r}")


def require_figures_described(book: NotebookNode) -> None:
    """Raise LessonError for a picture without an alternative text, or not of double resolution."""
    for cell in book.cells:
        where = f"cell {cell.id} ({first_line(cell.source)!r})"
        for out in cell.get("outputs", []):
            about = out.get("metadata", {}).get("image/png", {})
            if "image/png" in out.get("data", {}) and not about.get("alt"):
                raise LessonError(
                    f"{where} shows a picture without a text: plots.show(figure, alt)"
                )
            if "image/png" in out.get("data", {}) and "width" not in about:
                raise LessonError(f"{where} shows a picture of single resolution")


def require_verdicts(book: NotebookNode, beginnings: dict[str, str]) -> None:
    """Raise LessonError unless the check of each of these exercises begins like this."""
    for cell in book.cells:
        found = re.fullmatch(r"check\.(\w+)\(\1\)", cell.source.strip())
        if not found or found[1] not in beginnings:
            continue
        verdict, beginning = output_text(cell).strip(), beginnings[found[1]]
        if not verdict.startswith(beginning):
            raise LessonError(f"{cell.source} says {verdict!r}, not {beginning!r}")


def untouched(name: str) -> dict[str, str]:
    """How the verdicts on a lesson's exercises begin before anything was attempted."""
    exercises = parse(source_of(name))[1]
    return {e.name: "Not yet" if e.repair else "Not attempted yet" for e in exercises}


def each_cell_twice(book: NotebookNode) -> NotebookNode:
    """The notebook of somebody who runs every cell a second time."""
    cells = []
    for cell in book.cells:
        cells.append(cell)
        if cell.cell_type == "code":
            cells.append(new_code_cell(cell.source, id=f"{cell.id}-again"))
    return new_notebook(cells=cells, metadata=book.metadata)


def require_the_same_again(book: NotebookNode) -> None:
    """Raise LessonError for a cell of an executed each_cell_twice that shows something else the
    second time."""
    code = [cell for cell in book.cells if cell.cell_type == "code"]
    for first, again in zip(code[::2], code[1::2], strict=True):
        if _everything_shown(first) != _everything_shown(again):
            raise LessonError(f"cell {first.id} ({first_line(first.source)!r}), run twice, differs")


def _everything_shown(cell: NotebookNode) -> list[object]:
    return [out.get("text") or out.get("data") for out in cell.outputs]


def source_of(name: str) -> str:
    return (LESSONS / "src" / f"{name}.py").read_text(encoding="utf-8")


def build(name: str) -> str:
    """Write a lesson's notebook, whole or not at all, and say how large it is."""
    book = notebook(name, source_of(name))
    execute(book)
    require_clean(book)
    require_figures_described(book)
    require_verdicts(book, untouched(name))
    path = LESSONS / f"{name}.ipynb"
    write_atomically(path, lambda file: nbformat.write(book, file))
    return f"{path.stat().st_size / 1000:.0f} kB"


def check_solutions(name: str) -> str:
    """Run a lesson with its solutions in, each cell twice: every check must find them correct, and
    every cell must show the same both times."""
    book = each_cell_twice(notebook(name, source_of(name), "solved"))
    execute(book)
    require_clean(book)
    require_the_same_again(book)
    require_verdicts(book, dict.fromkeys(untouched(name), "Correct"))
    return "solutions are correct, each cell twice"


def check_student(name: str) -> str:
    """Run the notebook as it lies in lessons/: no error, nothing attempted."""
    path = LESSONS / f"{name}.ipynb"
    if not path.exists():
        raise LessonError(f"there is no {path.name} yet: run python lessons/build.py {name}")
    book = nbformat.read(path, as_version=4)
    execute(book)
    require_verdicts(book, untouched(name))
    return "notebook runs"


def with_table(readme: str) -> str:
    """The README with its table of lessons as their notebooks have it: question and times."""
    rows = [
        "| | lesson | the question it answers | to run | to read | with exercises |",
        "|---|---|---|--:|--:|--:|",
    ]
    for path in sorted(LESSONS.glob("*.ipynb")):
        lesson = read_lesson(path)
        number, _, title = lesson.title.partition(" · ")
        run, read, work = lesson.times or ("?", "?", "?")
        times = f"{run} s | {read} min | {work} min"
        rows.append(f"| {number} | [{title}]({path.name}) | {lesson.question} | {times} |")
    return re.sub(r"(?m)^\| \| lesson \|.*\n(\|.*\n)*", lambda _: "\n".join(rows) + "\n", readme)


def write_edition(edition: str, folder: Path, names: Sequence[str]) -> None:
    """Write notebooks, not executed; for nbgrader as a course, with its configuration."""
    for name in names:
        place = folder / "source" / name if edition == "nbgrader" else folder
        make_folder(place)
        book = notebook(name, source_of(name), edition)
        write_atomically(place / f"{name}.ipynb", partial(nbformat.write, book))
    config = folder / "nbgrader_config.py"
    if edition == "nbgrader" and not config.exists():
        write_atomically(config, lambda file: file.write_text(NBGRADER_CONFIG, "utf-8"))


def do(work: Callable[[str], str], name: str) -> tuple[bool, str]:
    """(whether it went well, a line to print) for some work on a lesson, in a process of its own"""
    start = time.perf_counter()
    try:
        done, result = True, work(name)
    except (LessonError, OSError) as error:
        done, result = False, f"FAILED: {error}"
    return done, f"{name:<28} {time.perf_counter() - start:5.1f} s  {result}"


def find(names: Sequence[str]) -> list[str]:
    """Full names of the lessons that begin with one of these; of all lessons for no names."""
    known = sorted(path.stem for path in (LESSONS / "src").glob("*.py"))
    for name in names:
        if not any(one.startswith(name) for one in known):
            raise LessonError(f"there is no lesson {name!r}; there are: {', '.join(known)}")
    return [one for one in known if not names or any(one.startswith(name) for name in names)]


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Build the lessons' notebooks, or check them.")
    parser.add_argument(
        "names", nargs="*", metavar="NAME", help="lessons, such as 05 (default: all)"
    )
    way = parser.add_mutually_exclusive_group()
    way.add_argument("--check", action="store_true", help="run both editions and write nothing")
    way.add_argument("--table", action="store_true", help="write README.md's table anew")
    for edition, about in OTHER_EDITIONS.items():
        way.add_argument(f"--{edition}", type=Path, metavar="FOLDER", help=about)
    args = parser.parse_args(arguments)
    try:
        names = find(args.names)
        if args.table:
            readme = LESSONS / "README.md"
            text = with_table(readme.read_text(encoding="utf-8"))
            write_atomically(readme, lambda file: file.write_text(text, encoding="utf-8"))
            return 0
        for edition in OTHER_EDITIONS:
            if folder := getattr(args, edition):
                write_edition(edition, folder, names)
                return 0
    except LessonError as error:
        print(f"build.py: {error}", file=sys.stderr)
        return 1
    works = [check_solutions, check_student] if args.check else [build]
    jobs = [(work, name) for name in names for work in works]
    all_done = True
    with ProcessPoolExecutor(2) as pool:
        for done, line in pool.map(do, *zip(*jobs, strict=True)):
            print(line, flush=True)
            all_done = all_done and done
    return 0 if all_done else 1


if __name__ == "__main__":
    sys.exit(main())
