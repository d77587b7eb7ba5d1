"""The progress bar: shown to a person in a notebook or at a terminal, and to nobody else."""

from __future__ import annotations

import os
import sys
import threading
import warnings
from typing import Any

_one_at_a_time = threading.Lock()


def progress_bar(
    name: str, done: int, steps: int, position: int, quiet: bool, unit: str = "step"
) -> Any:
    """A bar of tqdm's, at the given line of several. Nothing is shown where output goes into a pipe
    or a file, if `quiet`, and where the environment has TQDM_DISABLE."""
    # Python's filters of warnings belong to all threads: two that changed them at a time could
    # leave them changed.
    with _one_at_a_time, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # without ipywidgets a notebook gets the bar made of text
        from tqdm.auto import tqdm

    class Bar(tqdm):
        monitor_interval = 0  # no watching thread: in a browser there are none

    options: dict[str, Any] = dict(position=position, unit=unit, dynamic_ncols=True)
    if quiet or os.environ.get("TQDM_DISABLE"):  # which tqdm itself overlooks in notebooks
        options["disable"] = True
    elif _in_notebook():
        options["file"] = sys.stdout  # what comes by stderr is red there
    else:
        options["disable"] = None  # unless this is a terminal
    return Bar(initial=done, total=steps, desc=f"{name!s:<16}", **options)


def _in_notebook() -> bool:
    ipython = sys.modules.get("IPython")
    return hasattr(ipython.get_ipython(), "kernel") if ipython else False
