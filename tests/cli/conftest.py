"""Commands in these tests work in an empty folder, and measure on few examples."""

import pytest

from minilora.experiments import tasks


@pytest.fixture(scope="package", autouse=True)
def quick_measurements():
    """Texts are measured on 8 windows instead of 256, words on 8 instead of all."""
    text_loss, exact_match = tasks.text_loss, tasks.exact_match
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tasks, "text_loss", lambda model, tokens, n: text_loss(model, tokens, 8))
        patch.setattr(tasks, "exact_match", lambda model, x, y: exact_match(model, x[:8], y[:8]))
        yield


@pytest.fixture(autouse=True)
def here(monkeypatch, tmp_path):
    """An empty current folder, so that what a command writes by default goes there."""
    monkeypatch.chdir(tmp_path)
    return tmp_path
