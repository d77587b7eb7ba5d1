"""What a learner has done in a notebook: each exercise correct, not yet, or not attempted.

Only what the answers need is run (selecting.py), in a process of its own (examiner.py) with a limit
of time and of memory. Where a process crashes or hangs, the next one leaves that cell, or that
check, out: what comes before and after it counts. If an answer lacks a name after all, everything
is run.
"""

from __future__ import annotations

import ast
import json
import os
import queue
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import minilora
from minilora.learn.notebooks.lessons import Lesson, Task, lesson_of, read_cells
from minilora.learn.notebooks.selecting import statements
from minilora.system.files import temporary_folder
from minilora.system.readers import parse_json

LIMIT = 60.0  # seconds for a cell or a check
LIMIT_OF_ALL = 300.0  # and for a notebook


@dataclass(frozen=True)
class Mark:
    """status: "correct", "wrong" or "not attempted"; remark: what is wrong, one sentence, or ""."""

    task: Task
    status: str
    remark: str = ""

    @property
    def points(self) -> int:
        return self.task.heading.points if self.status == "correct" else 0


@dataclass
class _Found:
    """What the processes have told about one notebook."""

    verdicts: dict[str, tuple[str, str]] = field(default_factory=dict)  # name: (status, message)
    failed: dict[int, str] = field(default_factory=dict)  # cell: why
    ended_cells: set[int] = field(default_factory=set)  # in which a process ended
    ended_checks: set[str] = field(default_factory=set)


def mark_notebook(
    notebook: Path, watch: Callable[[str], None] = lambda exercise: None
) -> tuple[Lesson, list[Mark]]:
    """The lesson of a notebook, and a mark for each of its exercises.

    watch: is called with "5.1" when the check of 5.1 begins. Raises UsageError for a file that is
    no notebook, or of no lesson.
    """
    lesson = lesson_of(notebook)
    cells = [text for kind, text in read_cells(notebook) if kind == "code"]
    found = _examine(notebook, cells, lesson, watch, whole=False)
    if _lacks_a_name(found):
        everything = _examine(notebook, cells, lesson, watch, whole=True)
        found.verdicts |= everything.verdicts
        found.failed = everything.failed
    return lesson, [_mark(task, cells, found) for task in lesson.tasks]


def _lacks_a_name(found: _Found) -> bool:
    """Whether a statement that was left out may be missing: it bound a name in another way."""
    messages = [message for status, message in found.verdicts.values() if status == "wrong"]
    return any("raised NameError" in m for m in messages) or any(
        why.startswith("NameError") for why in found.failed.values()
    )


def _examine(
    notebook: Path, cells: list[str], lesson: Lesson, watch: Callable[[str], None], whole: bool
) -> _Found:
    found = _Found()
    numbers = {task.name: task.heading.number for task in lesson.tasks}
    deadline = time.monotonic() + LIMIT_OF_ALL
    at_end = False
    while not at_end and time.monotonic() < deadline:
        job = {
            "cells": cells,
            "names": [name for name in numbers if name not in found.verdicts],
            "whole": whole,
            "skip_cells": sorted(found.ended_cells),
            "skip_checks": sorted(found.ended_checks),
        }
        begun: dict[str, Any] = {}
        why = "it ends Python"
        for event in _events(job, notebook.resolve().parent, deadline):
            if "verdict" in event:
                found.verdicts[event["verdict"]] = event["status"], event["message"]
            elif "failed" in event:
                found.failed[event["failed"]] = event["why"]
            elif "end" in event:
                at_end = True
            elif "late" in event:
                why = f"it takes more than {LIMIT:g} seconds"
            else:
                begun = event
                watch(numbers.get(event.get("check", ""), ""))
        if at_end or not begun:
            break
        if "cell" in begun:
            found.ended_cells.add(begun["cell"])
            found.failed[begun["cell"]] = why
        else:
            found.ended_checks.add(begun["check"])
            found.verdicts[begun["check"]] = "wrong", f"Not yet: called by the check, {why}."
    return found


def _events(job: dict[str, Any], home: Path, deadline: float) -> Iterator[dict[str, Any]]:
    """What a new process tells, until it ends or takes too long. It works in an empty folder; what
    lies in the notebook's can be imported."""
    places = [str(Path(minilora.__file__).parents[1]), str(home), os.environ.get("PYTHONPATH")]
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join(place for place in places if place),
        "MPLBACKEND": "agg",
        "OPENBLAS_NUM_THREADS": "1",
        "MKL_NUM_THREADS": "1",
        "TQDM_DISABLE": "1",
    }
    lines: queue.Queue[str | None] = queue.Queue()
    with temporary_folder() as folder:
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "minilora.learn.notebooks.examiner"],
            cwd=folder, env=environment, text=True, encoding="utf-8",
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        assert process.stdin and process.stdout

        def listen(out: Any) -> None:
            with out:
                for line in out:
                    lines.put(line)
            lines.put(None)

        threading.Thread(target=listen, args=(process.stdout,), daemon=True).start()
        try:
            with suppress(BrokenPipeError), process.stdin:
                json.dump(job, process.stdin)
            while True:
                patience = min(LIMIT, deadline - time.monotonic())
                line = lines.get(timeout=max(0, patience))
                if line is None:
                    return
                yield parse_json(line, "what the process tells")
        except queue.Empty:
            yield {"late": True}
        except ValueError:  # the learner's code has written there
            return
        finally:
            process.kill()
            process.wait()


def _mark(task: Task, cells: Sequence[str], found: _Found) -> Mark:
    unknown = ("wrong", f"Not yet: no result after {LIMIT_OF_ALL:g} seconds for the notebook.")
    status, message = found.verdicts.get(task.name, unknown)
    remark = message.partition("\n")[0]
    if status == "correct":
        return Mark(task, status)
    if _definition(task.name, reversed(cells)) == _definition(task.name, [task.stub]) != "":
        return Mark(task, "not attempted")
    if status == "not attempted":
        remark = ""
        for number, why in found.failed.items():
            binds = rf"^\s*((def|class) +{task.name}\b|{task.name} *[:=])"
            if re.search(binds, cells[number], re.MULTILINE):
                status, remark = "wrong", f"the cell with your answer does not run: {why}."
    return Mark(task, status, remark.removeprefix("Not yet: "))


def _definition(name: str, cells: Iterator[str] | Sequence[str]) -> str:
    """The def of a function as Python reads it, from the first of these cells that has one."""
    for cell in cells:
        with suppress(SyntaxError):
            for node in statements(cell):
                if getattr(node, "name", None) == name:
                    return ast.dump(node)
    return ""
