"""Where commands are disturbed: a place as a command finds it, and what it makes of it undisturbed.

What it may have under a name is what it was seen to put there, or to find there.
"""

from __future__ import annotations

import argparse
import shutil
import signal
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from processes import Blow, Ended, Order, Server, empty_folder, make_place
from small_commands import (
    AS_IT_IS,
    Command,
    config_that_loads,
    is_scratch,
    pairs_of,
    read,
    without_paths,
)
from suite import Suite, main

CHECKPOINT, CHECKPOINTS = "checkpoint.safetensors", "checkpoints"
EMPTY_FOLDER = "an empty folder"
_UNREADABLE = "cannot be read,"
Files = dict[str, str]  # relative path -> what stands in it, as read() says it


@dataclass(frozen=True)
class Undisturbed:
    """What a command does when it is left alone. found, after: the files before it and after it.
    may: for each path the contents that it has at any time. before: a copy of the place."""

    ended: Ended
    found: Files
    after: Files
    may: dict[str, set[str]]
    before: Path


class Stage:
    """One place, in a folder that is empty at first. Every command is set up in it anew."""

    def __init__(self, folder: Path, server: Server) -> None:
        self.folder, self.server = folder, server
        self.place = folder / "place"
        self._known: dict[str, Undisturbed] = {}

    def set_up(self, command: Command) -> Undisturbed:
        """Put the place into the state in which the command finds it."""
        known = self.undisturbed(command)
        self._restore(known.before)
        return known

    def run(self, command: Command, blow: Blow | None = None, **how: Any) -> Ended:
        env = dict(how.pop("env", {})) | ({AS_IT_IS: "1"} if command.as_it_is else {})
        return self.server.run(Order(command.line, self.place, command.typed, blow, env=env, **how))

    def undisturbed(self, command: Command) -> Undisturbed:
        """From one run, of which a copy of each file is kept as it is put under its name."""
        if command.name not in self._known:
            self._known[command.name] = self._leave_alone(command)
        return self._known[command.name]

    def files(self, command: Command) -> Files:
        """All that lies in the place, and empty folders too."""
        found = {}
        for path in sorted(self.place.rglob("*")):
            name = str(path.relative_to(self.place))
            if path.is_file():
                found[name] = _content(path, command)
            elif not any(path.iterdir()) and path.parent != self.place:
                found[name] = EMPTY_FOLDER
        return found

    def wrong_files(self, command: Command, interrupted: bool = False) -> str:
        """A file that is torn, of no version, or lost; "" if there is none. interrupted: by Ctrl-C,
        at which a training saves the step that it has come to, which need be none of those that it
        saves by itself; that the same command goes on from there is asked elsewhere."""
        known = self.undisturbed(command)
        for path in sorted(self.place.rglob("*")):
            name = path.relative_to(self.place)
            if not path.is_file() or is_scratch(name) or name.parts[0] == "tmp":
                continue
            content = _content(path, command)
            training = name.name == CHECKPOINT or name.parent.name == CHECKPOINTS
            if interrupted and training and not content.startswith(_UNREADABLE):
                continue
            if content not in known.may.get(str(name), ()):
                return f"{name}: {content} is none of its versions"
        for lost in known.found.keys() & known.after.keys():
            if not (self.place / lost).exists():
                return f"{lost} is lost"
        return self._mixed_pair(known)

    def other_results(self, command: Command) -> list[str]:
        """What is missing, or not as the undisturbed command makes it."""
        after, found = self.undisturbed(command).after, self.files(command)
        return [path for path, content in after.items() if found.get(path) != content]

    def scratch(self, command: Command) -> list[str]:
        """What lies in the place and is none of the command's results."""
        return sorted(self.files(command).keys() - self.undisturbed(command).after.keys())

    def _mixed_pair(self, known: Undisturbed) -> str:
        """A config of one save beside the weights of another, unless they are refused, or loaded
        with the config that goes with the weights."""
        for config, weights in pairs_of(self.place / "work"):
            names = [str(file.relative_to(self.place)) for file in (config, weights)]
            new = [known.after.get(n) == read(self.place / n) for n in names]
            both_change = all(len(known.may[name]) > 1 for name in names)
            if not both_change or new[0] == new[1]:
                continue
            loaded = config_that_loads(config.parent)
            if loaded and (loaded == known.after[names[0]]) != new[1]:
                return (
                    f"{names[0]} is {'new' if new[0] else 'old'}, {names[1]} is not, and they load"
                )
        return ""

    def _leave_alone(self, command: Command) -> Undisturbed:
        before = self._before(command)
        keep = self.folder / "kept"
        shutil.rmtree(keep, ignore_errors=True)
        keep.mkdir()
        self._restore(before)
        found = self.files(command)
        ended = self.run(command, keep=keep)
        if ended.status != 0:
            raise RuntimeError(f"{command.name} fails undisturbed: {ended.err}")
        after = self.files(command)
        may = {path: {content} for path, content in found.items()}
        for path, content in after.items():
            may.setdefault(path, set()).add(content)
        for name in keep.glob("*.name"):
            path = Path(name.read_text())
            kept = name.with_suffix("").rename(name.with_suffix(path.suffix))
            versions = may.setdefault(str(path.relative_to(self.place)), set())
            versions.add(read(kept, path.name in command.timed))
        return Undisturbed(ended, found, after, may, before)

    def _before(self, command: Command) -> Path:
        make_place(self.place)
        command.given(self.place / "work")
        if not command.cold:
            shutil.copytree(self._with_text(), self.place / "home", dirs_exist_ok=True)
        if command.before:
            ended = self.server.run(Order(command.before, self.place))
            assert ended.status == 0, ended.err
        return self.place.rename(self.folder / command.name)

    def _with_text(self) -> Path:
        """A home with the cache of the library's text."""
        home = self.folder / "home"
        if not home.exists():
            place = make_place(self.folder / "first")
            self.server.run(Order("compare --steps 1 --methods bitfit", place))
            (place / "home").rename(home)
        return home

    def _restore(self, before: Path) -> None:
        shutil.rmtree(self.place, ignore_errors=True)
        shutil.copytree(before, self.place, symlinks=True)


def run_suite(suite_of: Callable[..., Suite], commands: Sequence[Command]) -> int:
    """The command line of a suite of commands: that of all suites, and --only COMMAND."""
    names = argparse.ArgumentParser(add_help=False)
    names.add_argument("--only", action="append", help="a command of small_commands.py")
    names.add_argument("--seed", type=int, default=0)
    given, rest = names.parse_known_args()
    sys.argv[1:] = [*rest, "--seed", str(given.seed)]
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that no disk stays mounted
    chosen = [command for command in commands if not given.only or command.name in given.only]
    with empty_folder() as folder, Server() as server:
        Path(folder).chmod(0o755)  # for another user
        return main(suite_of(Stage(Path(folder), server), chosen, given.seed))


def same_output(one: Ended, other: Ended, command: Command) -> bool:
    return "out" in command.timed or without_paths(one.out) == without_paths(other.out)


def _content(path: Path, command: Command) -> str:
    try:
        return read(path, path.name in command.timed)
    except Exception as error:
        return f"{_UNREADABLE} {error}"
