"""`minilora page` writes where it is told to, opens what it wrote, and says what hinders it."""

import os

import pytest

from minilora import cli
from minilora.cli import learning


@pytest.fixture(autouse=True)
def written(monkeypatch):
    """The paths that a page was written to, in place of the training and the measuring."""
    paths = []

    def write_page(path):
        path.write_text("<!doctype html>", "utf-8")
        paths.append(path)

    monkeypatch.setattr(learning, "write_page", write_page)
    return paths


def test_the_page_is_written_to_the_file_that_is_named(capsys, here, written):
    assert cli.main(["page", "--out", "new folder/lora.html"]) == 0
    assert [str(path) for path in written] == [os.path.join("new folder", "lora.html")]
    assert "new folder" in capsys.readouterr().out


def test_without_a_name_it_is_page_html_among_the_results(here, written):
    assert cli.main(["page"]) == 0
    assert (here / "minilora-results" / "page.html").exists()


def test_it_is_opened_in_the_browser_if_asked(monkeypatch, here):
    opened = []
    monkeypatch.setattr(learning.webbrowser, "open", opened.append)
    assert cli.main(["page", "--out", "lora.html", "--open"]) == 0
    assert opened == [(here / "lora.html").as_uri()]


@pytest.mark.parametrize(
    ("out", "sentence"),
    [
        (".", "is a folder: give the name of a file"),
        ("taken/lora.html", "cannot write taken: there is a file of that name"),
    ],
)
def test_a_place_that_cannot_be_written_is_said_before_the_training(
    capsys, here, written, out, sentence
):
    (here / "taken").write_text("a file where a folder is meant", "utf-8")
    assert cli.main(["page", "--out", out]) == 1
    error = capsys.readouterr().err
    assert sentence in error and error.count("\n") == 1
    assert written == []
