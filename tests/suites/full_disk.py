"""The suite of full disks: every command works where only so many bytes are left.

    python tests/suites/full_disk.py [--only "finetune again"]

The folder that it writes to, that for temporary files, or the home is a disk of its own (a tmpfs,
which root alone may mount), filled but for some pages. The command then

    ends well with the same results, or with status 1 and one sentence that names what could not be
    written, says that the disk is full, and what to do;
    leaves no traceback, no scratch, and every file as it was or as it was to become;

and once there is space, the same command ends well, with the same results to the bit.
"""

from __future__ import annotations

import os
import random
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from small_commands import COMMANDS, Command
from stage import Stage, run_suite, same_output
from suite import Suite

PAGE = 4096  # bytes, in which a tmpfs counts
SIZE = 64 * 2**20  # bytes, of the disk
DISKS = {"work": 5, "tmp": 2, "home": 2}  # each is tried with so many sizes
TRIED = [one for one in COMMANDS if one.name != "doctor"]  # which answers with a table
KEPT = ("one sentence, and later the same", "it needed no more")
_SENTENCE = re.compile(
    r"^minilora: (cannot write \S+: the disk is full|there is no room for temporary files in \S+:)"
    r".* free some space.*$",
    re.MULTILINE,
)


def can_mount() -> bool:
    """Whether this user may mount a disk."""
    with tempfile.TemporaryDirectory() as folder:
        try:
            with _disk(Path(folder)):
                return True
        except (OSError, subprocess.CalledProcessError):
            return False


def plan(
    stage: Stage, commands: Sequence[Command], seed: int
) -> Iterator[tuple[Command, str, int]]:
    """(command, disk, pages that are left): none, and some up to what the command needs."""
    for command in commands:
        known = stage.undisturbed(command)
        stage.set_up(command)
        stage.run(command)
        made = sum(f.stat().st_size for f in stage.place.rglob("*") if f.is_file())
        found = sum(f.stat().st_size for f in known.before.rglob("*") if f.is_file())
        most = 4 + 2 * max(made - found, PAGE) // PAGE
        rng = random.Random(f"{seed} {command.name}")
        for disk, sizes in DISKS.items():
            yield command, disk, 0
            for _ in range(sizes - 1):
                yield command, disk, round(most ** rng.random())


def fill(stage: Stage, command: Command, disk: str, pages: int) -> tuple[str, str]:
    known = stage.set_up(command)
    how = f"{command.name}, {pages} pages of {disk} left"
    place = stage.place / disk
    shutil.rmtree(place)
    place.mkdir()
    with _disk(place):
        shutil.copytree(known.before / disk, place, symlinks=True, dirs_exist_ok=True)
        filler = place / ".filler"
        _fill(filler, pages)
        full = stage.run(command)
        filler.unlink()
        if "Traceback" in full.err or full.status not in (0, 1):
            return "a traceback, or it hung", f"{how}: {full.status} {full.err[-600:]}"
        if wrong := stage.wrong_files(command):
            return "a torn or lost file", f"{how}: {wrong}"
        if hidden := [path for path in stage.place.rglob(".minilora*")]:
            return "scratch was left", f"{how}: {hidden}"
        if full.status == 1 and not _SENTENCE.search(full.err):
            return "no sentence with file and remedy", f"{how}: {full.err[-400:]}"
        if full.status == 0:
            lost = [path for path in stage.other_results(command) if not path.startswith("home")]
            if lost:
                return "it ended well without its results", f"{how}: {lost}"
        again = stage.run(command)
        if again.status != 0:
            return "the same command failed later", f"{how}: {again.err[-400:]}"
        if other := stage.other_results(command):
            return "other results later", f"{how}: {other}"
        if odd := stage.scratch(command):
            return "scratch was left", f"{how}: {odd}"
        if not same_output(again, known.ended, command):
            return "it printed something else later", f"{how}: {again.out[-300:]}"
    return ("it needed no more" if full.status == 0 else "one sentence, and later the same"), ""


@contextmanager
def _disk(place: Path) -> Iterator[None]:
    mount = ["mount", "-t", "tmpfs", "-o", f"size={SIZE},mode=0755", "tmpfs", place]
    subprocess.run(mount, check=True, capture_output=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", place], check=True, capture_output=True)


def _fill(filler: Path, pages: int) -> None:
    """Leave so many pages of its disk."""
    left = os.statvfs(filler.parent)
    with filler.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, max(left.f_bavail - pages, 1) * left.f_frsize)


def suite_of(stage: Stage, commands: Sequence[Command], seed: int) -> Suite:
    disks = list(plan(stage, commands, seed))
    random.Random(seed).shuffle(disks)  # so that fewer trials are some of every kind
    return Suite(
        "full_disk",
        "On a full disk a command says in one sentence what could not be written and what to do; "
        "nothing is lost, and once there is space it goes on.",
        lambda seed, i: fill(stage, *disks[i]),
        KEPT,
        len(disks),
    )


if __name__ == "__main__":
    if not can_mount():
        sys.exit("full disks need the right to mount one: run this as root")
    sys.exit(run_suite(suite_of, TRIED))
