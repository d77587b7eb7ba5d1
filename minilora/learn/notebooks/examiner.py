"""A process that runs what a notebook's answers need, and checks them: `python -m` of this file.

It reads a job from its input and writes a line of JSON for each thing that it begins or finds; what
the learner's own code prints goes nowhere. marking.py starts it, and ends it if it takes too long.
The checks are those of this copy of minilora, taken before any code of the learner's runs: what a
notebook says about itself has no effect.
"""

from __future__ import annotations

import ast
import codeop
import json
import linecache
import os
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from types import ModuleType
from typing import Any

from minilora.learn import check
from minilora.learn.exercises import STRICT
from minilora.learn.notebooks.selecting import needed, statements

MEMORY = 4 * 2**30  # bytes, of addresses: the answers of the lessons need a fraction of it


def main() -> None:
    """The job: cells, names of the exercises, whole (whether to run every statement), skip_cells
    and skip_checks, where an earlier process ended."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the process that started this one
    _limit_memory()
    job = json.load(sys.stdin)
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    nothing = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(nothing, stream)

    def tell(**event: object) -> None:
        out.write(json.dumps(event) + "\n")
        out.flush()

    examine(job, tell)
    tell(end=True)
    os._exit(0)  # without waiting for threads that the learner has started


def _limit_memory() -> None:
    """Where the system can; elsewhere there is none."""
    with suppress(ImportError, ValueError, OSError):
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))


def examine(job: dict[str, Any], tell: Callable[..., None]) -> None:
    names = job["names"]
    checks = {name: getattr(check, name) for name in names}
    parsed: list[list[ast.stmt]] = []
    for number, cell in enumerate(job["cells"]):
        try:
            parsed.append(statements(cell))
        except SyntaxError as error:
            parsed.append([])
            tell(failed=number, why=f"SyntaxError: {error.msg} (line {error.lineno})")
    chosen = parsed if job["whole"] else needed(parsed, names)
    notebook = ModuleType("__main__")
    sys.modules["__main__"] = notebook  # for what looks its own module up, as dataclasses do
    variables = vars(notebook)
    variables["display"] = print
    compile_cell = codeop.Compile()  # remembers `from __future__ import annotations`
    for number, nodes in enumerate(chosen):
        if not nodes or number in job["skip_cells"]:
            continue
        tell(cell=number)
        lines = job["cells"][number].splitlines(keepends=True)
        filename = f"<cell {number + 1}>"
        linecache.cache[filename] = len(job["cells"][number]), None, lines, filename
        try:
            tree: Any = ast.Module(nodes, [])
            exec(compile_cell(tree, filename, "exec"), variables)
        except BaseException as error:
            tell(failed=number, why=f"{type(error).__name__}: {error}")
    for name in names:
        if name not in job["skip_checks"]:
            tell(check=name)
            os.environ.pop(STRICT, None)
            verdict = checks[name](variables.get(name))
            tell(verdict=name, status=verdict.status, message=verdict.message)


if __name__ == "__main__":
    main()
