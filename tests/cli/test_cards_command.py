"""Claims about `minilora cards`: what it lists and writes, and what it says when it cannot."""

import json
import os
import sys
import zipfile

import pytest

from minilora import cli
from minilora.cli import exporting
from minilora.cli.exporting import FORMATS
from minilora.learn.exam.cards import by_topic, load_cards

CARDS = load_cards()
TOPIC = CARDS[-1].topic


def run(capsys, *argv):
    status = cli.main(["cards", *argv])
    return status, capsys.readouterr()


@pytest.mark.parametrize("columns", ["40", "120"])
def test_without_a_format_the_cards_are_listed(capsys, monkeypatch, columns):
    monkeypatch.setenv("COLUMNS", columns)
    status, said = run(capsys)
    assert status == 0 and f"{len(CARDS)} cards." in said.out
    assert max(map(len, said.out.splitlines()[:-2])) <= int(columns)
    shown = "".join(said.out.split())  # as one line, since ids too are broken at 40 columns
    for card in CARDS:
        assert card.id in shown
    assert "WhatisLoRAandhowdoesithelp" in shown


def test_a_topic_limits_what_is_listed_and_what_is_written(capsys, here):
    wanted = [card.id for card in by_topic(CARDS, TOPIC)]
    _, said = run(capsys, "--topic", TOPIC)
    assert [card.id in said.out.split() for card in CARDS].count(True) == len(wanted)
    run(capsys, "--topic", TOPIC, "--json", "cards.json")
    written = json.loads((here / "cards.json").read_text("utf-8"))["cards"]
    assert [card["id"] for card in written] == wanted


def test_several_formats_at_once_each_with_a_line_that_says_what_to_do_with_it(capsys, here):
    files = {"anki": "a.apkg", "anki_text": "a.txt", "moodle": "a.xml", "gift": "A.GIFT"}
    files |= {"qti": "a.zip", "json": "a.json"}
    options = [f"--{name.replace('_', '-')}={file}" for name, file in files.items()]
    status, said = run(capsys, *options)
    assert status == 0
    assert sorted(os.listdir()) == sorted(files.values())
    for name, file in files.items():
        assert f"{len(CARDS)} cards in {file}. {FORMATS[name][1]}\n" in said.out
    assert zipfile.is_zipfile("a.apkg") and zipfile.is_zipfile("a.zip")


def test_the_page_is_that_of_minilora_page(capsys, here, monkeypatch):
    monkeypatch.setattr(exporting, "write_page", lambda path: path.write_text("it"))
    assert run(capsys, "--html", "page.html")[0] == 0
    assert (here / "page.html").read_text() == "it"


@pytest.mark.parametrize(
    ("argv", "sentence"),
    [
        (["--topic", "cooking"], "no card has the topic 'cooking'; choose one of: definition, "),
        (["--json", "a folder.json"], "a folder.json is a folder: give the name of a file"),
        (["--qti", "nowhere/cards.zip"], "cannot write nowhere/cards.zip: its folder does not"),
        (
            ["--qti", "a file/cards.zip"],
            "cannot write a file/cards.zip: a file is not a folder;",
        ),
        (["--gift", "a.txt", "--anki-text", "a.txt"], "two formats cannot both be written to a.t"),
        (["--topic", TOPIC, "--html", "a.html"], "the page always has all topics: leave out --to"),
        (["--json", "fine.json", "--gift", "a folder.gift"], "a folder.gift is a folder: give"),
    ],
)
def test_wrong_use_is_one_sentence_and_writes_nothing(capsys, here, argv, sentence):
    for folder in ("a folder.json", "a folder.gift"):
        (here / folder).mkdir()
    (here / "a file").write_text("")
    status, said = run(capsys, *argv)
    assert status == 1 and said.out == ""
    assert said.err.startswith(f"minilora: {sentence}") and said.err.count("\n") == 1
    assert sorted(os.listdir()) == ["a file", "a folder.gift", "a folder.json"]


@pytest.mark.parametrize(
    ("option", "file", "endings"),
    [
        ("--anki", "cards.zip", ".apkg"),
        ("--moodle", "cards", ".xml"),
        ("--gift", "cards.xml", ".txt or .gift"),
        ("--qti", "cards.qti", ".zip"),
    ],
)
def test_a_file_has_the_ending_that_the_other_program_expects(capsys, option, file, endings):
    with pytest.raises(SystemExit):
        run(capsys, option, file)
    assert f"argument {option}: '{file}' does not end in {endings}\n" in capsys.readouterr().err


def test_a_failure_while_writing_leaves_the_old_file(capsys, here, monkeypatch):
    (here / "cards.apkg").write_text("old")
    monkeypatch.setitem(sys.modules, "genanki", None)
    status, said = run(capsys, "--anki", "cards.apkg")
    assert status == 1 and "minilora[cards]" in said.err
    assert os.listdir() == ["cards.apkg"] and (here / "cards.apkg").read_text() == "old"
