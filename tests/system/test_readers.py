"""Claims about readers: whatever lies at a path, it is read, or refused in one sentence at once."""

import errno
import json
import os
import socket
import tracemalloc
from pathlib import Path

import pytest

from minilora.system import readers
from minilora.system.errors import UsageError
from minilora.system.readers import read_bytes, read_json, read_text, read_toml
from minilora.system.readers import require_the_file_itself as require_itself

READERS = {"json": read_json, "toml": read_toml, "text": lambda path: read_text(path, 1000)}


def a_pipe(path):
    os.mkfifo(path)


def a_socket(path):
    here = os.getcwd()
    os.chdir(path.parent)  # the path of a socket must be short
    with socket.socket(socket.AF_UNIX) as one:
        one.bind(path.name)
    os.chdir(here)


def a_link_to_nothing(path):
    path.symlink_to("gone")


def a_link_to_itself(path):
    path.symlink_to(path)


def a_link_to_a_device(path):
    path.symlink_to("/dev/zero")


def too_large(path):
    with path.open("wb") as file:
        file.truncate(10**10)  # takes no room on the disk


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="Windows has other kinds of files")
@pytest.mark.parametrize("kind", READERS)
@pytest.mark.parametrize(
    ("make", "error", "sentence"),
    [
        (lambda path: None, FileNotFoundError, "cannot read .*: there is no such file; check its"),
        (Path.mkdir, UsageError, "is a folder; give a file in it"),
        (a_pipe, UsageError, "is a pipe or a device; save its content to a file first"),
        (a_socket, UsageError, "is a pipe or a device; save its content to a file first"),
        (a_link_to_a_device, UsageError, "is a pipe or a device; save its content"),
        (a_link_to_nothing, FileNotFoundError, "it is a link to gone, which is not there"),
        (a_link_to_itself, OSError, "its links go in a circle; give the file itself"),
        (too_large, UsageError, r"has 9,537 MiB, and at most \d+ are read"),
    ],
)
def test_what_is_no_file_to_read_is_refused_before_it_is_opened(
    kind, make, error, sentence, tmp_path, monkeypatch
):
    make(tmp_path / "x")
    monkeypatch.setattr(readers, "open", None, raising=False)
    with pytest.raises(error, match=sentence) as caught:
        READERS[kind](tmp_path / "x")
    assert str(tmp_path / "x") in str(caught.value)


@pytest.mark.parametrize(
    ("path", "error", "sentence"),
    [
        ("file/x", OSError, "a part of its path is a file"),
        ("x" * 5000, OSError, "its name is too long"),
        ("a\0b", UsageError, "is no name of a file: it has a NUL character"),
        ("a\ud800b", UsageError, "is no name of a file: it has half of a character"),
    ],
)
def test_an_impossible_path_is_refused_with_the_cause(path, error, sentence, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(error, match=sentence):
        read_json(tmp_path / path)


@pytest.mark.parametrize("number", [errno.EACCES, errno.EIO])
def test_an_error_of_reading_keeps_its_kind_and_names_the_cause(number, tmp_path, monkeypatch):
    (tmp_path / "x").write_text("{}")

    def refuse(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(readers, "open", refuse, raising=False)
    kind = PermissionError if number == errno.EACCES else OSError
    with pytest.raises(kind, match="cannot read .*(you may not read it|disk fails to read it)"):
        read_json(tmp_path / "x")
    if number == errno.EACCES:
        monkeypatch.setattr(os, "access", lambda *_: False)
        with pytest.raises(kind, match=f"you may not look into {tmp_path}; ask its owner"):
            read_json(tmp_path / "x")


def test_a_file_that_grows_while_it_is_read_is_refused(tmp_path, monkeypatch):
    (tmp_path / "x").write_text("{}")
    monkeypatch.setattr(readers, "require_file", lambda path, largest: 1)
    with pytest.raises(UsageError, match="grew while it was read"):
        read_bytes(tmp_path / "x", 100)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", r"is damaged \(it is empty\); copy"),
        (b" \n ", r"is damaged \(it is empty\); copy"),
        (b'{"a": 1', r"is damaged \(Expecting"),
        (b"[" * 100_000, "nested more than 100 deep"),
        (b"[" * 101 + b"]" * 101, "nested more than 100 deep"),
        (b'{"a":' * 100_000, "nested more than 100 deep"),
        (b'{"a": 1, "b": 2, "a": 3}', "it has 'a' twice"),
        (b'{"a": NaN}', "a is NaN, infinity"),
        (b'{"a": [1, {"b-c": -Infinity}]}', r"a\[1\]\['b-c'\] is NaN, infinity"),
        (b'{"a": 1, "b": 1e400}', "b is NaN, infinity"),
        (b'{"a": 1' + b"0" * 400 + b"}", "a is .* a number of hundreds of digits"),
        (b'{"a": 1' + b"0" * 5000 + b"}", "a number in it has thousands of digits"),
        (rb'{"a": ["\ud800"]}', r"a\[0\] has half of a character"),
        (rb'{"\udc00": 1}', r"'\\udc00' has half of a character"),
        (b'{"a": "\xff"}', "byte 0xff at offset 7 does not fit"),
        (b"\xff\xfe{", "is not UTF-8: byte 0xff at offset 0"),
        ('{"a": 1}'.encode("utf-16"), "NUL bytes, so it is a binary file or UTF-16"),
        (b"[1]", "must be an object, got a list of 1"),
        (b"null", "must be an object, got null"),
        (b"version https://git-lfs.github.com/spec/v1\n", "is a Git LFS pointer.*git lfs pull"),
        (b"<!DOCTYPE html><p>Log in", "is a web page, not the file"),
        (b"<html><p>Log in", "is a web page, not the file"),
    ],
)
def test_json_that_cannot_be_meant_is_refused_by_its_file(content, sentence, tmp_path):
    (tmp_path / "x.json").write_bytes(content)
    with pytest.raises(UsageError, match=sentence) as caught:
        read_json(tmp_path / "x.json")
    assert str(tmp_path / "x.json") in str(caught.value) and len(str(caught.value)) < 300


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"a = 1\na = 2", "is damaged"),
        (b"a = inf", "a is NaN, infinity"),
        (b"a = 1" + b"0" * 400, "a is .* a number of hundreds of digits"),
        (b"a = 1" + b"0" * 5000, "a number in it has thousands of digits"),
        (b"a = " + b"[" * 100_000, "nested more than 100 deep"),
        (b"[" + b"a." * 200 + b"a]", "nested more than 100 deep"),
        (b"a = 1\n" + b"a . " * 200_000 + b"a = 1", "nested more than 100 deep"),
        (b"b = {" + b"""'a'."a".""" * 100_000 + b"a = 1}", "nested more than 100 deep"),
        (b"a = '\xff'", "byte 0xff at offset 5"),
        (b"version https://git-lfs.github.com/spec/v1\n", "is a Git LFS pointer"),
    ],
)
def test_toml_that_cannot_be_meant_is_refused_by_its_file(content, sentence, tmp_path):
    (tmp_path / "x.toml").write_bytes(content)
    with pytest.raises(UsageError, match=sentence) as caught:
        read_toml(tmp_path / "x.toml")
    assert str(tmp_path / "x.toml") in str(caught.value) and len(str(caught.value)) < 300


@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
def test_what_is_whole_is_read_with_and_without_byte_order_mark(mark, tmp_path):
    value = {"ä": [1, -2.5e300, 10**30, None, True, {"x": "😀"}], "deep": {"a": {"b": [[]]}}}
    (tmp_path / "x.json").write_bytes(mark + json.dumps(value, ensure_ascii=False).encode())
    assert read_json(tmp_path / "x.json") == value
    (tmp_path / "x.toml").write_bytes(mark + "a = ['é', 2.5]".encode())
    assert read_toml(tmp_path / "x.toml") == {"a": ["é", 2.5]}
    (tmp_path / "x.txt").write_bytes(mark + b"text\r\n")
    assert read_text(tmp_path / "x.txt", 100) == "text\r\n"


def test_the_file_itself_is_told_from_what_stands_in_for_it_without_reading_it(tmp_path):
    path = tmp_path / "model.gguf"
    too_large(path)
    tracemalloc.start()
    require_itself(path)
    assert tracemalloc.get_traced_memory()[1] < 250_000
    tracemalloc.stop()
    path.write_text("version https://git-lfs.github.com/spec/v1\n")
    with pytest.raises(UsageError, match=r"model.gguf is a Git LFS pointer.*git lfs pull"):
        require_itself(path)
