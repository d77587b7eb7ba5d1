"""`minilora` in a terminal, or `python -m minilora`."""

import signal
import sys
from collections.abc import Sequence

from minilora.cli import main


def run(argv: Sequence[str] | None = None) -> int:
    """main, and then an end of the process in which Ctrl-C ends it at once: what waits there for
    other processes would show a traceback."""
    try:
        return main(argv)
    finally:
        signal.signal(signal.SIGINT, signal.SIG_DFL)


if __name__ == "__main__":
    sys.exit(run())
