"""What a person types, a line at a time; a pipe types too, and then each line is an answer.

It ends in three ways, each an exception: Ended at the end of the input or at "q", TimeOver at a
deadline, KeyboardInterrupt at Ctrl-C.
"""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from time import monotonic
from types import FrameType

from minilora.cli.terminal.output import say


class Ended(Exception):  # noqa: N818
    """There is no more input, or it was "q"."""


class TimeOver(Exception):  # noqa: N818
    """The deadline has passed."""


class Keyboard:
    """by_hand: does a person sit at it? Else what is read is shown, as a terminal would."""

    def __init__(self) -> None:
        self.by_hand = sys.stdin is not None and sys.stdin.isatty()
        self._waiting = ""
        if hasattr(sys.stdin, "reconfigure"):
            sys.stdin.reconfigure(errors="replace")

    def line(self, prompt: str, deadline: float | None = None) -> str:
        """The next line, without spaces around it. deadline: as monotonic() counts."""
        typed = self._read(prompt, deadline)
        self._show(typed)
        if deadline is not None and monotonic() > deadline:
            raise TimeOver  # where there is no alarm
        return self._unless_ended(typed)

    def message(self, prompt: str) -> str:
        """The next line likewise, whatever it says: "q" too."""
        typed = self._read(prompt)
        self._show(typed)
        return typed

    def key(self, prompt: str, keys: str) -> str:
        """One of the keys, or "" for Enter. Any other line of a pipe is the next answer."""
        while True:
            typed = self._read(prompt)
            if len(typed) < 2 and typed.lower() in [*keys, "q", ""]:
                self._show(typed)
                return self._unless_ended(typed.lower())
            if not self.by_hand:
                self._show("")
                self._waiting = typed
                return ""
            say(f"Type one of: Enter, {', '.join([*keys, 'q'])}")

    def _read(self, prompt: str, deadline: float | None = None) -> str:
        print(prompt, end=" ", flush=True)
        if self._waiting:
            typed, self._waiting = self._waiting, ""
            return typed
        if sys.stdin is None:
            raise Ended
        try:
            with _interrupted_at(deadline):
                return input().strip()
        except EOFError:
            raise Ended from None

    def _show(self, typed: str) -> None:
        if not self.by_hand:
            print(typed)

    def _unless_ended(self, typed: str) -> str:
        if typed.lower() == "q":
            raise Ended
        return typed


@contextmanager
def _interrupted_at(deadline: float | None) -> Iterator[None]:
    """Within it, waiting ends with TimeOver at the deadline, where the system has alarms."""
    in_main_thread = threading.current_thread() is threading.main_thread()
    if deadline is None or not hasattr(signal, "setitimer") or not in_main_thread:
        yield
        return

    def ring(number: int, frame: FrameType | None) -> None:
        raise TimeOver

    before = signal.signal(signal.SIGALRM, ring)
    try:
        signal.setitimer(signal.ITIMER_REAL, max(deadline - monotonic(), 1e-3))
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
