"""The suite of missing rights: every command as a user who may not read or write some of its files.

    python tests/suites/other_user.py [--only "finetune again"]

The user has no rights beyond what everybody has, and, in turn, may not

    read one of the files that the command finds in its folder;
    write in that folder; or write the folders and files in it that are there already;
    write in the home, or has none; or write in the folder for temporary files.

The command then ends well with the same results, or with status 1 and one sentence that names the
file or folder and says that it may not be read or written. After that nothing has changed (but for
an empty folder), no scratch is left, and what a command does not need cannot stop it. To become
another user, one must be root.
"""

from __future__ import annotations

import os
import random
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from small_commands import COMMANDS, Command
from stage import EMPTY_FOLDER, Stage, run_suite, same_output
from suite import Suite

import minilora

NOBODY = 65534
# doctor answers with a table; the others need what everybody may not be allowed where root has it:
# to start this Python, or to read its standard library.
TRIED = [
    one
    for one in COMMANDS
    if one.name not in ("doctor", "check", "grade", "sweep in processes") and not one.cold
]
KEPT = ("one sentence, nothing changed", "it did not need it, and did the same")
_READING = re.compile(
    r"^minilora: .*(cannot be read|may not (be )?read|may not look).*", re.MULTILINE
)
_WRITING = re.compile(r"^minilora: cannot write \S+: you may not (write|replace)", re.MULTILINE)
_PLACES = ("the folder", "what is in the folder", "the home", "no home", "the temporary files")


def can_be_another() -> bool:
    """Whether this process may become another user, who can read the package."""
    if not hasattr(os, "getuid") or os.getuid() != 0:
        return False
    pid = os.fork()
    if pid == 0:
        os.setuid(NOBODY)
        os._exit(0 if os.access(minilora.__file__, os.R_OK) else 1)
    return os.waitpid(pid, 0)[1] == 0


def plan(stage: Stage, commands: Sequence[Command], seed: int) -> Iterator[tuple[Command, str]]:
    """(command, what may not be used: the name of a file to read, or one of _PLACES)."""
    for command in commands:
        for path in sorted(stage.undisturbed(command).found):
            if path.startswith("work/"):
                yield command, path
        for place in _PLACES:
            yield command, place


def forbid(stage: Stage, command: Command, what: str) -> tuple[str, str]:
    known = stage.set_up(command)
    how = f"{command.name}, {what}"
    _give(stage.place)
    env = _take_away(stage.place, what)
    ended = stage.run(command, user=NOBODY, env=env)
    if "Traceback" in ended.err or ended.status not in (0, 1):
        return "a traceback, or it hung", f"{how}: {ended.status} {ended.err[-600:]}"
    if wrong := stage.wrong_files(command):
        return "a torn or lost file", f"{how}: {wrong}"
    if hidden := list(stage.place.rglob(".minilora*")):
        return "scratch was left", f"{how}: {hidden}"
    if ended.status == 1:
        sentence = (_READING if "/" in what else _WRITING).search(ended.err)
        if not sentence or ("/" in what and Path(what).name not in sentence[0]):
            return "no sentence with the reason and the file", f"{how}: {ended.err[-400:]}"
        changed = stage.files(command).items() ^ known.found.items()
        if other := sorted(path for path, said in changed if said != EMPTY_FOLDER):
            return "refused, and something changed", f"{how}: {other}"
        return "one sentence, nothing changed", ""
    unkept = "home/" if "home" in what else "\0"
    if other := [path for path in stage.other_results(command) if not path.startswith(unkept)]:
        return "it ended well without its results", f"{how}: {other}"
    if not same_output(ended, known.ended, command):
        return "it printed something else", f"{how}: {ended.out[-300:]}"
    return "it did not need it, and did the same", ""


def _give(place: Path) -> None:
    """All of the place to the other user."""
    for path in [place, *place.rglob("*")]:
        os.chown(path, NOBODY, NOBODY)


def _take_away(place: Path, what: str) -> dict[str, str]:
    """Take the rights from the other user; what is to be set in the environment for that."""
    if "/" in what:
        os.chown(place / what, 0, 0)
        (place / what).chmod(0o600)
    elif what == "the folder":
        os.chown(place / "work", 0, 0)
    elif what == "what is in the folder":
        for path in (place / "work").rglob("*"):
            os.chown(path, 0, 0)
    elif what == "the home":
        for path in [place / "home", *(place / "home").rglob("*")]:
            os.chown(path, 0, 0)
    elif what == "no home":
        nowhere = {"HOME": "/nonexistent", "XDG_DATA_HOME": "/nonexistent/data"}
        return nowhere | {"XDG_CACHE_HOME": str(place / "home" / "cache")}
    else:
        os.chown(place / "tmp", 0, 0)
    return {}


def suite_of(stage: Stage, commands: Sequence[Command], seed: int) -> Suite:
    rights = list(plan(stage, commands, seed))
    random.Random(seed).shuffle(rights)  # so that fewer trials are some of every kind
    return Suite(
        "other_user",
        "A command that may not read or write something says so of that file, changes nothing, "
        "and does without what it does not need.",
        lambda seed, i: forbid(stage, *rights[i]),
        KEPT,
        len(rights),
    )


if __name__ == "__main__":
    if not can_be_another():
        sys.exit(
            "to try what another user may do, one must be root, with a package that all can read"
        )
    sys.exit(run_suite(suite_of, TRIED))
