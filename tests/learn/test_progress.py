"""Progress is never lost: a broken file is set aside, a later one refused, a folder that cannot be
written said once; what is unknown stays in the file."""

import json
import math
import os

import pytest
from made_cards import ENTRY, NEVER_ASKED

from minilora.learn.exam import progress
from minilora.learn.exam.progress import FORMAT, Progress, is_entry
from minilora.system.errors import UsageError


def written(path, cards, version=1, **more):
    path.write_text(json.dumps({FORMAT: version, "cards": cards, **more}), "utf-8")
    return path


def test_what_is_saved_is_read_again(tmp_path):
    kept = Progress(tmp_path / "p.json")
    assert kept.cards == {} and kept.kept and not kept.note
    kept.cards["what-is-lora"] = dict(ENTRY)
    kept.save()
    again = Progress(tmp_path / "p.json")
    assert again.cards == {"what-is-lora": ENTRY} and not again.note


def test_the_default_place_is_the_users_data_folder_and_is_made(tmp_path, monkeypatch):
    folder = tmp_path / "not there" / "minilora"
    monkeypatch.setattr(progress.platformdirs, "user_data_path", lambda name: folder)
    kept = Progress()
    kept.save()
    assert kept.path == folder / "progress.json" and kept.path.is_file() and kept.kept


def test_unknown_cards_and_unknown_fields_stay_in_the_file(tmp_path):
    cards = {"card-of-another-version": ENTRY, "b": ENTRY | {"note": "mine"}}
    path = written(tmp_path / "p.json", cards, name="Ada")
    kept = Progress(path)
    kept.cards["new"] = dict(ENTRY)
    kept.save()
    assert json.loads(path.read_text("utf-8")) == {
        FORMAT: 1,
        "cards": cards | {"new": ENTRY},
        "name": "Ada",
    }


BROKEN = {
    "half": b'{"minilora progress": 1, "cards": {"a": {"sta',
    "not json": b"once upon a time",
    "binary": bytes(range(128, 256)),
    "a list": b"[1, 2]",
    "a number": b"7",
    "no version": b'{"cards": {}}',
    "version a word": b'{"minilora progress": "1", "cards": {}}',
    "version true": b'{"minilora progress": null, "cards": {}}',
    "version 0": b'{"minilora progress": 0, "cards": {}}',
    "no cards": b'{"minilora progress": 1}',
    "cards a list": b'{"minilora progress": 1, "cards": []}',
    "deep": b"[" * 100_000,
    "nan in a list": b"[NaN]",
    "nan as a version": b'{"minilora progress": NaN, "cards": {}}',
    "nan and half": b'{"minilora progress": 1, "cards": {"a": NaN',
    "long number": b'{"minilora progress": 1' + b"0" * 10_000 + b"}",
}


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setattr(progress.platformdirs, "user_data_path", lambda name: tmp_path)
    return tmp_path


@pytest.mark.parametrize("depth", [900, 1200, 5000, 20_000])
def test_what_is_nested_too_deeply_to_be_written_again_is_not_lost(depth, home):
    nested = "[" * depth + "]" * depth
    text = f'{{"{FORMAT}": 1, "cards": {{}}, "more": {nested}}}'
    (home / "progress.json").write_text(text, "utf-8")
    kept = Progress()
    kept.save()
    name = "progress.broken-1.json" if kept.note else "progress.json"
    assert nested in "".join((home / name).read_text("utf-8").split())


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_file_is_set_aside_said_and_never_overwritten(name, home):
    for number in (1, 2, 3):
        (home / "progress.json").write_bytes(BROKEN[name])
        kept = Progress()
        assert kept.cards == {} and kept.kept
        assert f"kept as progress.broken-{number}.json" in kept.note and "\n" not in kept.note
        kept.save()
    for number in (1, 2, 3):
        assert (home / f"progress.broken-{number}.json").read_bytes() == BROKEN[name]
    assert Progress().note == ""


def test_of_a_file_with_broken_cards_the_others_go_on(home):
    cards = {"good": ENTRY, "bad": ENTRY | {"right": -1}, "new": NEVER_ASKED}
    before = written(home / "progress.json", cards).read_bytes()
    kept = Progress()
    assert kept.cards == {"good": ENTRY, "new": NEVER_ASKED}
    assert "1 card of 3 that cannot be read" in kept.note and "progress.broken-1.json" in kept.note
    assert (home / "progress.broken-1.json").read_bytes() == before


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_nan_in_one_card_costs_that_card_alone(bad, home):
    before = written(home / "progress.json", {"good": ENTRY, "bad": ENTRY | {"stability": bad}})
    content = before.read_bytes()
    kept = Progress()
    assert kept.cards == {"good": ENTRY}
    assert "1 card of 2 that cannot be read" in kept.note and "progress.broken-1.json" in kept.note
    kept.save()
    assert (home / "progress.broken-1.json").read_bytes() == content
    assert Progress().cards == {"good": ENTRY} and Progress().note == ""


def test_nan_beside_the_cards_is_said_and_costs_none(home):
    written(home / "progress.json", {"good": ENTRY}, more=math.nan)
    kept = Progress()
    assert kept.cards == {"good": ENTRY}
    assert "has NaN or infinity beside its cards, and the file is kept as" in kept.note


@pytest.mark.parametrize("cards", [{}, {"a": ENTRY}, "in another form"])
def test_a_later_version_is_refused_by_its_number_and_left_alone(cards, home):
    path = written(home / "progress.json", cards, version=2)
    before = path.read_bytes()
    with pytest.raises(UsageError, match="by a later minilora \\(progress 2, this one knows 1\\)"):
        Progress()
    assert path.read_bytes() == before and os.listdir(home) == ["progress.json"]


def test_a_file_that_was_named_and_is_no_progress_is_left_alone(tmp_path):
    path = tmp_path / "thesis.json"
    path.write_text('{"title": "LoRA"}', "utf-8")
    with pytest.raises(UsageError, match=r"thesis.json is not a file of progress"):
        Progress(path)
    assert os.listdir(tmp_path) == ["thesis.json"]


@pytest.mark.parametrize("content", [b"", b"\n"])
def test_an_empty_file_is_a_beginning(content, tmp_path):
    (tmp_path / "p.json").write_bytes(content)
    assert Progress(tmp_path / "p.json").note == ""


@pytest.mark.parametrize("place", ["no/such/folder/p.json", ".", "a file/p.json"])
def test_where_nothing_can_be_written_that_is_said_once_and_answers_are_kept_in_memory(
    place, tmp_path
):
    (tmp_path / "a file").write_text("x")
    kept = Progress(tmp_path / place)
    kept.cards["a"] = ENTRY
    kept.save()
    assert not kept.kept and kept.note.startswith("progress is not kept: ")
    kept.note = ""
    kept.save()
    assert kept.note == "" and kept.cards == {"a": ENTRY}


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_a_pipe_is_not_waited_for_and_stays_one(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    kept = Progress(tmp_path / "pipe")
    kept.save()
    assert not kept.kept and "pipe is a pipe or a device" in kept.note
    assert (tmp_path / "pipe").is_fifo()


def test_a_file_too_large_to_be_progress_is_neither_read_nor_overwritten(tmp_path):
    path = tmp_path / "disk.img"
    with path.open("wb") as file:
        file.truncate(10**8)
    kept = Progress(path)
    kept.save()
    assert not kept.kept and "has 96 MiB, and at most 10 are read" in kept.note
    assert path.stat().st_size == 10**8


def test_a_broken_file_that_cannot_be_renamed_is_not_overwritten(home, monkeypatch):
    def refuse(self, target):
        raise PermissionError(13, "Permission denied", str(self))

    (home / "progress.json").write_bytes(b"broken")
    monkeypatch.setattr(progress.Path, "rename", refuse)
    kept = Progress()
    kept.save()
    assert not kept.kept and "progress is not kept" in kept.note
    assert (home / "progress.json").read_bytes() == b"broken"


@pytest.mark.parametrize(
    "entry",
    [
        ENTRY,
        NEVER_ASKED,
        ENTRY | {"more": 1},
        ENTRY | {"step": 0, "state": 3},
        ENTRY | {"stability": 0.001, "difficulty": 1},
        ENTRY | {"stability": 36500, "difficulty": 10.0},
        ENTRY | {"answered": 1, "right": 1},
        ENTRY | {"due": "2026-11-28T09:00:00Z"},
    ],
    ids=str,
)
def test_an_entry_of_fsrs_is_one(entry):
    assert is_entry(entry)


@pytest.mark.parametrize(
    "change",
    [
        {"state": 0},
        {"state": 4},
        {"state": 2.0},
        {"state": True},
        {"state": "2"},
        {"state": 3},
        {"state": 1, "stability": None},
        {"answered": 0, "right": 0, "stability": None},
        {"step": -1},
        {"step": "0"},
        {"stability": 0},
        {"stability": -1},
        {"stability": float("nan")},
        {"stability": float("inf")},
        {"stability": "2"},
        {"stability": None},
        {"difficulty": 0.9},
        {"difficulty": 10.1},
        {"difficulty": None},
        {"due": None},
        {"due": 5},
        {"due": ""},
        {"due": "tomorrow"},
        {"due": "2026-11-28T09:00:00"},
        {"due": "0001-01-01T00:00:00+23:59"},
        {"due": "9999-12-31T23:59:59-23:59"},
        {"last_review": None},
        {"last_review": "2026-02-30T09:00:00+00:00"},
        {"last_review": []},
        {"answered": -1},
        {"answered": 1},
        {"answered": 3.0},
        {"answered": 10**4299},
        {"right": None},
        {"right": 4},
    ],
    ids=str,
)
def test_an_entry_with_an_impossible_value_is_none(change):
    assert not is_entry(ENTRY | change)


@pytest.mark.parametrize(
    "entry",
    [None, 3, "x", [], {}, *({k: v for k, v in ENTRY.items() if k != name} for name in ENTRY)],
)
def test_an_entry_with_a_missing_field_or_of_another_type_is_none(entry):
    assert not is_entry(entry)
