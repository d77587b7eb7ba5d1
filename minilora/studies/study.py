"""What each of the other files of this room holds: a question, a grid, a measurement, a figure."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from minilora.experiments.sweeps import Run

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Settings = dict[str, Any]
QUALITY = ("val", "test", "old")


@dataclass(frozen=True)
class Study:
    """run(**s) is called for every s of settings(seeds) and returns rows. In a table of them there
    is a line for each combination of `by`, with the means of `shows`. figure(rows) draws them;
    beside: other studies, whose rows the figure takes after its own. at_scale answers "Does it hold
    at scale?" in measured numbers with their source, or says that none is known to us."""

    question: str
    settings: Callable[[range], list[Settings]]
    run: Run
    by: tuple[str, ...]
    shows: tuple[str, ...]
    figure: Callable[..., Figure]
    at_scale: str
    beside: tuple[str, ...] = ()


def each(changes: list[Settings], tasks: tuple[str, ...], seeds: range) -> list[Settings]:
    """Every change on every task with every seed."""
    return [{"task": task, "seed": s} | c for task in tasks for c in changes for s in seeds]
