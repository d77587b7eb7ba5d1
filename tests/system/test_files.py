"""Claims about writing: a file is the old one or the new one, errors name it, nothing is left."""

import errno
import os
import time
from pathlib import Path

import pytest

from minilora.system import files
from minilora.system.files import write_atomically


def fail_with(number):
    def write(path):
        path.write_text("half")
        raise OSError(number, os.strerror(number))

    return write


def test_a_file_is_replaced_and_nothing_else_is_left(tmp_path):
    for path in (tmp_path / "a.txt", str(tmp_path / "a.txt")):
        write_atomically(path, lambda temporary: temporary.write_text(str(temporary)))
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]
    assert (tmp_path / "a.txt").read_text() != str(tmp_path / "a.txt")


@pytest.mark.parametrize("error", [ValueError("mine"), KeyboardInterrupt(), OSError("odd")])
def test_a_failed_write_passes_its_error_on_and_leaves_the_old_file(error, tmp_path):
    def write(path):
        path.write_text("half")
        raise error

    (tmp_path / "a.txt").write_text("old")
    with pytest.raises(type(error)) as raised:
        write_atomically(tmp_path / "a.txt", write)
    assert raised.value is error
    assert {p.name: p.read_text() for p in tmp_path.iterdir()} == {"a.txt": "old"}


@pytest.mark.parametrize(
    ("number", "kind", "sentence"),
    [
        (errno.ENOSPC, OSError, "a.txt: the disk is full; free some space"),
        (errno.EACCES, PermissionError, "a.txt: you may not write there; choose another"),
        (errno.EROFS, OSError, "a.txt: that disk is read-only; choose another"),
    ],
)
def test_an_error_of_the_disk_names_the_file_and_the_remedy(number, kind, sentence, tmp_path):
    with pytest.raises(kind, match=f"^cannot write .*{sentence}"):
        write_atomically(tmp_path / "a.txt", fail_with(number))
    assert list(tmp_path.iterdir()) == []


def test_a_place_that_cannot_be_written_is_named_with_the_remedy(tmp_path):
    (tmp_path / "file").write_text("")
    (tmp_path / "folder" / "full").mkdir(parents=True)
    for path, sentence in (
        ("nowhere/a.txt", "its folder does not exist; make it first"),
        ("file/a.txt", "a part of its path is a file"),
        ("folder", "there is a folder of that name"),
        ("x" * 300, "its name is too long"),
    ):
        with pytest.raises(OSError, match=f"^cannot write .*{path}: {sentence}"):
            write_atomically(tmp_path / path, lambda temporary: temporary.write_text("new"))


@pytest.mark.skipif(os.name != "posix", reason="links and pipes as POSIX has them")
def test_a_link_stays_a_link_and_the_file_that_it_names_is_written(tmp_path):
    (tmp_path / "synced").mkdir()
    for target in ("synced/a.txt", "synced/not there yet"):
        link = tmp_path / f"to {Path(target).name}"
        link.symlink_to(target)
        write_atomically(link, lambda temporary: temporary.write_text("new"))
        assert link.is_symlink() and (tmp_path / target).read_text() == "new"


@pytest.mark.skipif(os.name != "posix", reason="links and pipes as POSIX has them")
def test_a_pipe_or_device_is_refused_and_never_replaced_by_a_file(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OSError, match="pipe: it is a device or a pipe; choose another name"):
        write_atomically(tmp_path / "pipe", lambda temporary: temporary.write_text("new"))
    assert (tmp_path / "pipe").is_fifo()


def test_only_old_folders_of_killed_writers_are_removed(tmp_path):
    old, fresh, another, plain = (
        tmp_path / name for name in (".minilora-old", ".minilora-new", ".old", ".minilora-file")
    )
    for folder in (old, fresh, another):
        folder.mkdir()
        (folder / "a.txt").write_text("half")
    plain.write_text("mine")
    before = time.time() - 2 * files._LEFT_BEHIND
    for path in (old, another, plain):
        os.utime(path, (before, before))
    write_atomically(tmp_path / "b.txt", Path.touch)
    assert {p.name for p in tmp_path.iterdir()} == {fresh.name, another.name, plain.name, "b.txt"}
