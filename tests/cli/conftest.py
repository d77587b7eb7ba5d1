"""Commands in these tests work in an empty folder, and do not measure for long.

What the measurements are is tests/experiments' subject; tests of real processes measure in full.
"""

import os
import signal

import pytest
from terminal import Terminal

from minilora.experiments import comparison, tasks


@pytest.fixture(scope="module", autouse=True)
def quick_measurements():
    """Texts are measured on 8 windows instead of 256, words on 8 instead of all; samples have 8
    symbols, and the peak of memory, which takes several steps under tracemalloc, is made up."""
    text_loss, exact_match, write = tasks.text_loss, tasks.exact_match, comparison.write
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tasks, "text_loss", lambda model, tokens, n: text_loss(model, tokens, 8))
        patch.setattr(tasks, "exact_match", lambda model, x, y: exact_match(model, x[:8], y[:8]))
        patch.setattr(
            comparison, "write", lambda model, prompt, n, **o: write(model, prompt, 8, **o)
        )
        patch.setattr(comparison, "step_memory", lambda training: 2**20)
        yield


@pytest.fixture(autouse=True)
def here(monkeypatch, tmp_path):
    """An empty current folder, so that what a command writes by default goes there."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def terminal(tmp_path):
    pytest.importorskip("pty")
    started = []

    def start(*argv, **env):
        started.append(Terminal(argv, tmp_path, **env))
        return started[-1]

    yield start
    for left in started:
        if left.pid:
            os.kill(left.pid, signal.SIGKILL)
            os.waitpid(left.pid, 0)
