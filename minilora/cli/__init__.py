"""What a person types. `python -m minilora` compares both methods, other commands do single things.

Here is which file has a command, and how it ends: an error that a user can mend is one sentence;
any other is a fault of ours and keeps its traceback. MINILORA_TRACEBACK=1 shows it for both.
"""

from __future__ import annotations

import errno
import os
import shlex
import sys
import warnings
from _thread import interrupt_main
from collections.abc import Sequence
from difflib import get_close_matches
from importlib import import_module
from threading import Timer

from minilora.cli.terminal.plain import ERRORS, harmless
from minilora.system.errors import MiniloraError
from minilora.system.memory import keep_freed_memory

COMMANDS = {  # the file of this room that has run_NAME; it is imported when it is needed
    "compare": "training",
    "finetune": "training",
    "generate": "writing",
    "pretrain": "training",
    "params": "looking",
    "profile": "looking",
    "inspect": "inspecting",
    "doctor": "looking",
    "study": "studying",
    "figures": "studying",
    "sweep": "studying",
    "spectrum": "studying",
    "lessons": "learning",
    "check": "checking",
    "grade": "checking",
    "page": "learning",
    "quiz": "quizzing",
    "exam": "quizzing",
    "sit-exam": "sitting",
    "cards": "exporting",
}
_REMEDIES = {
    errno.ENOSPC: "the disk is full: free some space, or choose another folder",
    errno.EDQUOT: "your quota is used up: free some space, or choose another folder",
    errno.EACCES: "you may not do that there: choose another folder, or change its permissions",
    errno.EPERM: "you may not do that there: choose another folder, or change its permissions",
    errno.EROFS: "that disk can only be read: choose a folder on another",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit status: 0, 1 after an error, 2 for wrong options, 130 after
    Ctrl-C."""
    unraisable, sys.unraisablehook = sys.unraisablehook, _raise_ctrl_c_again
    try:
        _prepare_streams()
        try:
            return _run(list(sys.argv[1:] if argv is None else argv))
        finally:  # a reader who has left, or a full disk, is noticed here
            sys.stdout.flush()
    except KeyboardInterrupt as interrupt:
        print(harmless(f"\n{str(interrupt) or 'stopped'}"), file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader has left
        _give_up_output()
        return 0
    except (MiniloraError, OSError) as error:
        if os.environ.get("MINILORA_TRACEBACK"):
            raise
        print(harmless(f"minilora: {_sentence(error)}"), file=sys.stderr)
        try:
            sys.stdout.flush()
        except OSError:
            _give_up_output()
        return 1
    finally:
        sys.unraisablehook = unraisable


def _run(argv: list[str]) -> int:
    if not argv or (argv[0].startswith("-") and argv[0] not in ("-h", "--help", "--version")):
        argv = ["compare", *argv]
    if argv[0] not in COMMANDS and not argv[0].startswith("-"):
        print(harmless(f"minilora: {_unknown(argv[0])}"), file=sys.stderr)
        return 2
    from minilora.cli.options import parser

    args = parser(argv[0]).parse_args(argv)
    args.command_line = shlex.join(["minilora", *argv])
    keep_freed_memory()
    os.environ.pop("MPLBACKEND", None)  # of a notebook or a window; figures are files here
    module = import_module(f"minilora.cli.{COMMANDS[args.command]}")
    with warnings.catch_warnings():
        warnings.showwarning = _say_warning  # type: ignore[assignment]
        return int(getattr(module, f"run_{args.command.replace('-', '_')}")(args) or 0)


def _prepare_streams() -> None:
    """A closed stream swallows what is printed, and one that lacks "→" shows "->" instead."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115
        elif hasattr(getattr(sys, name), "reconfigure"):
            getattr(sys, name).reconfigure(errors=ERRORS)


def _give_up_output() -> None:
    """What could not be written is forgotten; the interpreter would try again at its exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _raise_ctrl_c_again(lost: sys.UnraisableHookArgs) -> None:
    """Python prints and forgets what is raised while it cleans up an object; a Ctrl-C that falls
    into such a moment comes again soon after it."""
    if issubclass(lost.exc_type, KeyboardInterrupt):
        Timer(0.01, interrupt_main).start()
    else:
        sys.__unraisablehook__(lost)


def _say_warning(message: Warning | str, *where: object) -> None:
    print(harmless(f"minilora: {message}"), file=sys.stderr, flush=True)


def _unknown(command: str) -> str:
    nearest = get_close_matches(command, COMMANDS, n=1)
    meant = f"; did you mean {nearest[0]}?" if nearest else "."
    return f"there is no command {command!r}{meant} Commands: {', '.join(COMMANDS)}"


def _sentence(error: Exception) -> str:
    if not isinstance(error, OSError) or error.errno is None:
        return str(error)
    where = f"{error.filename}: " if error.filename else ""
    if error.errno == errno.ENOSPC and not where:  # files are named by those who write them
        return "the disk that standard output goes to, or /dev/shm, is full: free some space"
    return f"{where}{_REMEDIES.get(error.errno, error.strerror)}"
