"""What the tests of marking share: notebooks as they are handed in, and a quick way to run them."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from minilora.learn.notebooks import marking
from minilora.learn.notebooks.examiner import examine

IMPORTS = "import numpy as np\nfrom minilora.learn import check"
RIGHT = "def count_lora(d_in, d_out, r):\n    return r * (d_in + d_out)"
EVEN = "def break_even_rank(d_in, d_out):\n    return d_in * d_out / (d_in + d_out)"


def write_book(path: Path, *cells: str, title: str = "# 05 · Counting parameters") -> Path:
    """A notebook of lesson 05 with these cells of code and nothing else."""
    sources = [("markdown", title), *(("code", cell) for cell in (IMPORTS, *cells))]
    made = [{"cell_type": kind, "source": source, "metadata": {}} for kind, source in sources]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"cells": made, "nbformat": 4, "nbformat_minor": 5}), "utf-8")
    return path


def run_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """From now on notebooks run in this process, where no accident is to be expected."""

    def events(job: dict[str, Any], home: Path, deadline: float) -> list[dict[str, Any]]:
        told: list[dict[str, Any]] = []
        with pytest.MonkeyPatch.context() as patch:
            patch.syspath_prepend(home)
            patch.setitem(sys.modules, "__main__", sys.modules["__main__"])
            examine(job, lambda **event: told.append(event))
        sys.modules.pop("helper", None)
        return [*told, {"end": True}]

    monkeypatch.setattr(marking, "_events", events)
