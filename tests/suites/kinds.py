"""What a kind of file is to the suite of damaged files: how whole ones are made and loaded, what a
load could change, and who judges what was loaded.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from mutations import Files, Rng
from plain_readers import Unreadable, need

Arrays = dict[str, np.ndarray]

AS_SAID = "loaded, as the file says"
REFUSED = "refused, one sentence, unchanged"
ANEW = "made anew, and said"


class Kind:
    """Subclasses say what differs; what is here holds for files that are only looked at."""

    name = ""
    damaged_before = False  # whether what `whole` makes is no whole file already
    times = 2  # how often the size of its files a load may take in memory
    makes_anew = False  # whether a load writes files that were missing before it refuses another
    bit_for_bit: tuple[str, ...] = ()  # the files in which an editor may change nothing

    def whole(self, rng: Rng) -> Mapping[str, bytes]:
        """A folder of undamaged files, one of several."""
        raise NotImplementedError

    def target(self) -> Any:
        """What the files are loaded into, made anew for each trial."""
        return None

    def state(self, target: Any) -> Any:
        """All of the target that a load that fails must leave as it was."""
        return None

    def load(self, folder: Path, target: Any) -> Any:
        raise NotImplementedError

    def must_load(self, whole: Mapping[str, bytes], files: Files) -> bool:
        """Whether what was changed leaves files that are whole all the same."""
        return files == whole

    def judge(self, files: Files, loaded: Any) -> str:
        """AS_SAID or ANEW. Raises Unreadable that says what is wrong, if anything is: also where
        the files are none that can be loaded."""
        raise NotImplementedError


def differing(found: Mapping[str, Any], said: Mapping[str, Any]) -> str:
    """The first thing of two dicts that is not the same, or ""; arrays are compared bit for bit."""
    if found.keys() != said.keys():
        return f"{sorted(found.keys() ^ said.keys())[:3]} only on one side"
    for key, value in said.items():
        one, other = found[key], value
        if hasattr(other, "tobytes"):
            one = (one.shape, one.astype("<f4", copy=False).tobytes())
            other = (other.shape, other.tobytes())
            if one != other:
                return f"{key} has other numbers"
            continue
        if one != other or not (type(one) is type(other) or isinstance(other, int | float)):
            return f"{key} is {one!r:.60}, said is {other!r:.60}"
    return ""


def contents(folder: Path) -> dict[str, bytes]:
    """The files of a folder, by name."""
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def need_bytes(files: Files, *names: str) -> Iterator[bytes]:
    """What is in these files. Raises Unreadable where there is none."""
    for name in names:
        need(isinstance(files.get(name), bytes), f"there is no file {name}")
        yield files[name]


def only_numbers_differ(
    whole: Mapping[str, bytes], files: Files, read: Callable[[bytes], tuple[Arrays, Any]]
) -> bool:
    """Whether the files are as before but for weights, and these are finite: no one can tell that
    they are damaged."""
    try:
        for name in whole.keys() | files.keys():
            before, after = whole.get(name), files.get(name)
            if before != after:
                need(isinstance(after, bytes) and not name.endswith(".json"), name)
                (old, about), (new, about_new) = read(before or b""), read(after)
                need(about == about_new and old.keys() == new.keys(), name)
                for key, array in new.items():
                    need(array.shape == old[key].shape and np.isfinite(array).all(), key)
    except Unreadable:
        return False
    return True
