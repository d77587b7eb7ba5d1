"""Writing a file so that it is either the old one or the new one, never half of either.

Imports nothing of the package.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path


def write_atomically(path: str | Path, write: Callable[[Path], object]) -> None:
    """Call `write` with a temporary path in the same folder, then rename it to `path`.

    If `write` fails, its exception is passed on, and `path` is as it was before.
    """
    path = Path(path)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}-") as scratch:
        temporary = Path(scratch, path.name)
        write(temporary)
        os.replace(temporary, path)
