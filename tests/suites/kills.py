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

Signals are SIGKILL, and SIGTERM and SIGINT for some of the random times; SIGINT also before a third
of the operations. It must leave no traceback. Most processes are forked from one that has imported
minilora; some are started anew, and may be struck while Python starts, where the answer to Ctrl-C
is that of Python and NumPy.
"""

from __future__ import annotations

import random
import signal
import sys
from collections.abc import Iterator, Sequence

from processes import Blow
from small_commands import COMMANDS, Command, saved_steps
from stage import Stage, run_suite, same_output
from suite import Suite

RANDOM = (*[signal.SIGKILL] * 14, *[signal.SIGTERM] * 3, *[signal.SIGINT] * 3)
ANEW = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
START = 1.0  # seconds that Python and its imports take, or more
KEPT = ("went on, the same to the bit", "it had ended before")


def plan(stage: Stage, commands: Sequence[Command], seed: int) -> Iterator[tuple[Command, Blow]]:
    for command in commands:
        ended = stage.undisturbed(command).ended
        rng = random.Random(f"{seed} {command.name}")
        for number, what in enumerate(ended.operations):
            yield command, Blow(signal.SIGKILL, number)
            if what.startswith("open "):
                yield command, Blow(signal.SIGKILL, number, opened=True)
            if rng.random() < 1 / 3:
                yield command, Blow(signal.SIGINT, number)
        for which in RANDOM:
            yield command, Blow(which, seconds=rng.uniform(0, ended.seconds))
        if command.as_it_is:
            for which in ANEW:
                seconds = rng.uniform(0, START + ended.seconds)
                yield command, Blow(which, seconds=seconds, anew=True)


def kill(stage: Stage, command: Command, blow: Blow) -> tuple[str, str]:
    known = stage.set_up(command)
    killed = stage.run(command, blow)
    how = f"{command.name}, {blow}"
    if blow.operation is not None and blow.operation < len(killed.operations):
        how += f" ({killed.operations[blow.operation]})"
    if killed.left:
        return "a process lived on", f"{how}: {killed.left}"
    starting = blow.anew and ", in main" not in killed.err  # the words are Python's and NumPy's
    if ("Traceback" in killed.err and not starting) or killed.status is None:
        return "a traceback, or it hung", f"{how}: {killed.err[-600:]}"
    if wrong := stage.wrong_files(command, blow.signal == signal.SIGINT):
        return "a torn or lost file", f"{how}: {wrong}"
    saved = saved_steps(stage.place, command)
    again = stage.run(command)
    if again.status != 0:
        return "the same command failed", f"{how}: {again.status} {again.err[-600:]}"
    if known.ended.steps and again.steps > known.ended.steps - saved:
        return "steps repeated", f"{how}: {again.steps} of {known.ended.steps}, {saved} saved"
    if other := stage.other_results(command):
        return "other results", f"{how}: {other[:3]}"
    if odd := stage.scratch(command):
        return "scratch was left", f"{how}: {odd[:3]}"
    if blow.seconds is not None and killed.status == 0:
        return "it had ended before", ""
    if not same_output(again, known.ended, command):
        return "it printed something else", f"{how}: {again.out[-300:]}"
    return "went on, the same to the bit", ""


def suite_of(stage: Stage, commands: Sequence[Command], seed: int) -> Suite:
    blows = list(plan(stage, commands, seed))
    random.Random(seed).shuffle(blows)  # so that fewer trials are some of every kind
    return Suite(
        "kills",
        "A command that is killed leaves no torn file and no process; given again, it goes on and "
        "ends with the same results to the bit.",
        lambda seed, i: kill(stage, *blows[i]),
        KEPT,
        len(blows),
    )


if __name__ == "__main__":
    sys.exit(run_suite(suite_of, COMMANDS))
