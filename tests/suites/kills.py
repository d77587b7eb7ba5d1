"""The suite of kills: every command is killed before each of its file operations, and at any time.

    python tests/suites/kills.py [--only "finetune again"]

A command is first run undisturbed; that tells what it makes, in how many file operations, and how
long it takes. Then, each time in the same place from the start: it is killed, and

    nothing of it lives on three seconds later;
    every file under its name is one that the undisturbed run had put there, or had found there;
    the config and the weights of a model or adapter are of one save, or the two are refused;

then the same command is given again, and

    it ends well, repeats no step of training that was saved, and has made and printed the same, to
    the bit but for times;
    nothing else lies in its folders, nor in those for caches and for temporary files.

Signals are SIGKILL, and SIGTERM and SIGINT for some of the random times; SIGINT also before each
operation. It must leave no traceback.
"""

from __future__ import annotations

import argparse
import random
import shutil
import signal
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from processes import Blow, Ended, Order, Server, make_place
from small_commands import (
    COMMANDS,
    Command,
    is_scratch,
    loads,
    pairs_of,
    read,
    saved_steps,
    without_paths,
)
from suite import Suite, main

RANDOM = (*[signal.SIGKILL] * 14, *[signal.SIGTERM] * 3, *[signal.SIGINT] * 3)
Files = dict[str, str]  # relative path -> what stands in it, as read() says it


@dataclass(frozen=True)
class Undisturbed:
    """What a command does when it is left alone. may: for each path the contents that it may have
    at any time. before: a copy of the place as it was."""

    ended: Ended
    after: Files
    may: dict[str, set[str]]
    before: Path


class Kills:
    """The trials: (command, blow) each."""

    def __init__(self, commands: Sequence[Command], folder: Path, server: Server) -> None:
        self._commands, self._folder, self._server = commands, folder, server
        self._known: dict[str, Undisturbed] = {}

    def plan(self, seed: int) -> Iterator[tuple[Command, Blow]]:
        for command in self._commands:
            known = self.undisturbed(command)
            for number, what in enumerate(known.ended.operations):
                yield command, Blow(signal.SIGKILL, number)
                yield command, Blow(signal.SIGINT, number)
                if what.startswith("open "):
                    yield command, Blow(signal.SIGKILL, number, opened=True)
            rng = random.Random(f"{seed} {command.name}")
            for number in RANDOM:
                yield command, Blow(number, seconds=rng.uniform(0, known.ended.seconds))

    def trial(self, command: Command, blow: Blow) -> tuple[str, str]:
        known = self.undisturbed(command)
        place = self._place_of(known.before)
        killed = self._server.run(self._order(command, blow))
        how = f"{command.name}, {blow}"
        if blow.operation is not None and blow.operation < len(killed.operations):
            how += f" ({killed.operations[blow.operation]})"
        if killed.left:
            return "a process lived on", f"{how}: {killed.left}"
        if "Traceback" in killed.err or killed.status is None:
            return "a traceback, or it hung", f"{how}: {killed.err[-600:]}"
        if wrong := self._wrong_files(command, known):
            return "a torn file", f"{how}: {wrong}"
        if wrong := self._mixed_pairs(known):
            return "a new config beside old weights", f"{how}: {wrong}"
        saved = saved_steps(place, command)
        again = self._server.run(self._order(command))
        if again.status != 0:
            return "the same command failed", f"{how}: {again.status} {again.err[-600:]}"
        if known.ended.steps and again.steps > known.ended.steps - saved:
            return "steps repeated", f"{how}: {again.steps} of {known.ended.steps}, {saved} saved"
        found = self._files(command)
        if other := [path for path, text in known.after.items() if found.get(path) != text]:
            return "other results", f"{how}: {other[:3]}"
        if blow.seconds is not None and killed.status == 0:
            return "it had ended before", ""
        if "out" not in command.timed and _shown(again) != _shown(known.ended):
            return "it printed something else", f"{how}: {again.out[-300:]}"
        if odd := sorted(found.keys() - known.after.keys()):
            return "scratch was left", f"{how}: {odd[:3]}"
        return "went on, the same to the bit", ""

    def undisturbed(self, command: Command) -> Undisturbed:
        """From one run, of which a copy of each file is kept as it is put under its name."""
        if command.name in self._known:
            return self._known[command.name]
        before = self._before(command)
        keep = self._folder / "kept"
        shutil.rmtree(keep, ignore_errors=True)
        keep.mkdir()
        self._place_of(before)
        found = self._files(command)
        ended = self._server.run(self._order(command, keep=keep))
        if ended.status != 0:
            raise RuntimeError(f"{command.name} fails undisturbed: {ended.err}")
        after = self._files(command)
        may = {path: {content} for path, content in found.items()}
        for path, content in after.items():
            may.setdefault(path, set()).add(content)
        for name in keep.glob("*.name"):
            path = Path(name.read_text()).relative_to(self._folder / "place")
            kept = name.with_name(name.stem + path.suffix)
            name.with_suffix("").rename(kept)
            timed = path.name in command.timed
            may.setdefault(str(path), set()).add(read(kept, timed))
        self._known[command.name] = Undisturbed(ended, after, may, before)
        return self._known[command.name]

    def _before(self, command: Command) -> Path:
        """A copy of the place as the command finds it; the text of the library is there already."""
        place = make_place(self._folder / "place")
        command.given(place / "work")
        if command.name != "finetune":
            first = Command("the library's text", "compare --steps 1 --methods bitfit --out none")
            cache = self._folder / "cache"
            if not cache.exists():
                self._server.run(self._order(first))
                shutil.copytree(place / "home", cache)
                shutil.rmtree(place / "work" / "none")
            shutil.copytree(cache, place / "home", dirs_exist_ok=True)
        if command.before:
            ended = self._server.run(Order(command.before, place, command.typed))
            assert ended.status == 0, ended.err
        return place.rename(self._folder / command.name)

    def _place_of(self, before: Path) -> Path:
        place = self._folder / "place"
        shutil.rmtree(place, ignore_errors=True)
        return Path(shutil.copytree(before, place, symlinks=True))

    def _order(self, command: Command, blow: Blow | None = None, keep: Path | None = None) -> Order:
        return Order(command.line, self._folder / "place", command.typed, blow, keep=keep)

    def _files(self, command: Command) -> Files:
        """All that lies in the place."""
        place = self._folder / "place"
        found = {}
        for path in sorted(place.rglob("*")):
            name = str(path.relative_to(place))
            if path.is_file():
                found[name] = _content(path, command)
            elif not any(path.iterdir()) and len(Path(name).parts) > 1:
                found[name] = "an empty folder"
        return found

    def _wrong_files(self, command: Command, known: Undisturbed) -> str:
        place = self._folder / "place"
        for path in sorted(place.rglob("*")):
            name = path.relative_to(place)
            if not path.is_file() or is_scratch(name) or name.parts[0] == "tmp":
                continue
            content = _content(path, command)
            if content not in known.may.get(str(name), ()):
                return f"{name}: {content} is none of its versions"
        return ""

    def _mixed_pairs(self, known: Undisturbed) -> str:
        """A config of one save and the weights of another, which are loaded without a word."""
        place = self._folder / "place"
        for pair in pairs_of(place / "work"):
            names = [str(file.relative_to(place)) for file in pair]
            new = [
                known.after.get(name) == read(file) for name, file in zip(names, pair, strict=True)
            ]
            both_change = all(len(known.may[name]) > 1 for name in names)
            if both_change and new[0] != new[1] and loads(pair[0].parent):
                return f"{names[0]} is {'new' if new[0] else 'old'}, {names[1]} is not"
        return ""


def _shown(ended: Ended) -> str:
    return without_paths(ended.out)


def _content(path: Path, command: Command) -> str:
    try:
        return read(path, path.name in command.timed)
    except Exception as error:
        return f"cannot be read, {error}"


def suite_of(kills: Kills, seed: int) -> Suite:
    plan = list(kills.plan(seed))
    random.Random(seed).shuffle(plan)  # so that fewer trials are some of every kind

    def trial(seed: int, i: int) -> tuple[str, str]:
        return kills.trial(*plan[i])

    return Suite(
        "kills",
        "A command that is killed leaves no torn file and no process; given again, it goes on and "
        "ends with the same results to the bit.",
        trial,
        ("went on, the same to the bit", "it had ended before"),
        len(plan),
    )


if __name__ == "__main__":
    names = argparse.ArgumentParser(add_help=False)
    names.add_argument("--only", action="append", help="a command of small_commands.py")
    chosen, sys.argv[1:] = names.parse_known_args()
    only = [c for c in COMMANDS if not chosen.only or c.name in chosen.only]
    with tempfile.TemporaryDirectory() as scratch, Server() as server:
        sys.exit(main(suite_of(Kills(only, Path(scratch), server), 0)))
