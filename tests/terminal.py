"""A command in a terminal of its own, at which a test sits: it waits for a prompt, and types."""

import os
import select
import signal
import struct
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]


class Terminal:
    def __init__(self, argv, home, columns=80, **env):
        import fcntl
        import pty
        import termios

        self.pid, self.screen = pty.fork()
        if self.pid == 0:
            signal.signal(signal.SIGINT, signal.SIG_DFL)  # a job in the background ignores Ctrl-C
            os.environ.update(PYTHONPATH=str(ROOT), HOME=str(home), TERM="xterm", **env)
            os.execv(sys.executable, [sys.executable, "-m", "minilora", *argv])
        fcntl.ioctl(self.screen, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
        self.out = self.unread = ""

    def until(self, prompt, seconds=60):
        """Wait until this appears; empty for the end of the process."""
        end = time.monotonic() + seconds
        while not (prompt and prompt in self.unread):
            assert time.monotonic() < end, f"no {prompt!r} in {self.unread!r}"
            if select.select([self.screen], [], [], 0.1)[0]:
                try:
                    read = os.read(self.screen, 65536).decode("utf-8", "replace")
                except OSError:  # the process has ended
                    read = ""
                self.out, self.unread = self.out + read, self.unread + read
                if not read:
                    assert not prompt, f"ended before {prompt!r}: {self.unread!r}"
                    return
        self.unread = self.unread.partition(prompt)[2]

    def type(self, prompt, keys):
        self.until(prompt)
        self.press(keys)

    def type_later(self, prompt, keys):
        """As a person does, not at once: a Ctrl-C between the prompt and the wait for a line would
        be heard at the next key only."""
        self.until(prompt)
        time.sleep(0.5)
        self.press(keys)

    def press(self, keys):
        os.write(self.screen, keys.encode())

    def status(self):
        self.until("")
        status = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        self.pid = None
        return status
