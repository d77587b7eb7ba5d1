"""What commands share when they write: progress, folders, what machine it was, what to do next."""

from __future__ import annotations

import os
import platform
import shlex
import sys
from pathlib import Path
from typing import Any

import numpy as np

from minilora.cli.terminal.plain import harmless
from minilora.system.errors import UsageError
from minilora.system.files import make_folder

MAKING_PAGE = "The adapter of the live model is trained, and every card's demo is run …"


def say(text: str) -> None:
    print(harmless(text), file=sys.stderr, flush=True)


def show(text: str) -> None:
    """Print a piece of what a model writes, at once."""
    print(harmless(text), end="", flush=True)


def suggest(*argv: object) -> str:
    """A command line to try next, started as this one was: by its name, or with python -m."""
    by_module = Path(sys.argv[0]).parts[-2:] == ("minilora", "__main__.py")
    program = [sys.orig_argv[0], "-m", "minilora"] if by_module else ["minilora"]
    return f"Try: {shlex.join([*program, *map(str, argv)])}"


def machine() -> dict[str, Any]:
    return {
        "python": platform.python_version(),
        "numpy": np.__version__,
        "system": f"{platform.system()} {platform.machine()}",
        "cores": os.cpu_count(),
    }


def prepare_folder(folder: Path, option: str = "--out") -> None:
    """Make the folder for results. Raises ValueError if nothing can be written there: before the
    training, not after it."""
    try:
        make_folder(folder)
    except OSError as error:
        raise UsageError(f"{error} with {option}") from None
