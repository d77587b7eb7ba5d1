"""Claims about writing: a file is the old one or the new one, errors name it, nothing is left."""

import errno
import os
import signal
import stat
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from minilora.system import files, scratch
from minilora.system.errors import UsageError
from minilora.system.files import make_folder, temporary_folder, write_atomically


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


def test_what_a_library_leaves_beside_the_temporary_file_is_removed(tmp_path):
    def write(path):
        path.write_text("new")
        path.with_name(".tmp of a library").touch()

    write_atomically(tmp_path / "a.txt", write)
    assert {p.name: p.read_text() for p in tmp_path.iterdir()} == {"a.txt": "new"}


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
    (tmp_path / "dead link").symlink_to("nowhere")
    (tmp_path / "loop").symlink_to("loop")
    for path, sentence in (
        ("nowhere/a.txt", "its folder does not exist; make it first"),
        ("file/a.txt", f"{tmp_path / 'file'} is not a folder; choose another"),
        ("dead link/a.txt", f"{tmp_path / 'dead link'} is not a folder; choose another"),
        ("loop/a.txt", f"{tmp_path / 'loop'} is not a folder; choose another"),
        ("folder", "there is a folder of that name"),
    ):
        with pytest.raises(OSError, match=f"^cannot write .*{path}: {sentence}"):
            write_atomically(tmp_path / path, lambda temporary: temporary.write_text("new"))


@pytest.mark.parametrize("use", [make_folder, lambda path: write_atomically(path, Path.touch)])
def test_what_is_no_name_is_said_to_be_none(use, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, sentence in (
        ("x" * 300, "its name is too long; choose a shorter one"),
        ("x/" * 3000, "its name is too long; choose a shorter one"),
        ("a\0b", "it has a NUL character"),
        ("a\ud800b", "it has half of a character"),
    ):
        with pytest.raises((OSError, UsageError), match=f" is no name of a file: {sentence}"):
            use(name)
    assert list(tmp_path.iterdir()) == []


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


def test_a_writer_that_reads_what_is_missing_is_not_said_to_write_badly(tmp_path):
    def write(path):
        path.write_bytes((tmp_path / "source").read_bytes())

    with pytest.raises(FileNotFoundError, match="source") as raised:
        write_atomically(tmp_path / "a.txt", write)
    assert "cannot write" not in str(raised.value)


@pytest.mark.skipif(not scratch.LOCKS, reason="without locks only what is old is removed")
def test_what_killed_writers_left_behind_is_removed_by_the_next_and_nothing_else(tmp_path):
    dead = tmp_path / f"{scratch.SCRATCH}1"
    dead.mkdir()
    others = {".minilora-mine", ".other", "minilora-scratch-3"}
    for path in (dead / "a.txt", dead / ".of a library", *(tmp_path / name for name in others)):
        path.write_text("half")
    write_atomically(tmp_path / "b.txt", Path.touch)
    assert {p.name for p in tmp_path.iterdir()} == {*others, "b.txt"}


def test_without_locks_what_is_old_is_taken_for_left_behind(tmp_path, monkeypatch):
    monkeypatch.setattr(scratch, "LOCKS", False)
    old, new = (tmp_path / f"{scratch.SCRATCH}{x}" for x in ("old", "new"))
    for path in (old, new):
        path.mkdir()
        (path / "a.txt").write_text("half")
    before = time.time() - 2 * scratch._LEFT_BEHIND
    os.utime(old, (before, before))
    write_atomically(tmp_path / "b.txt", Path.touch)
    assert {p.name for p in tmp_path.iterdir()} == {new.name, "b.txt"}


@pytest.mark.parametrize("locks", [True, False])
def test_a_file_that_is_being_written_is_never_taken_for_one_left_behind(
    locks, tmp_path, monkeypatch
):
    if not locks:
        monkeypatch.setattr(scratch, "LOCKS", False)

    def write(path):
        path.write_text("a")
        write_atomically(tmp_path / "b.txt", lambda other: other.write_text("b"))
        assert path.read_text() == "a"

    write_atomically(tmp_path / "a.txt", write)
    assert {p.name: p.read_text() for p in tmp_path.iterdir()} == {"a.txt": "a", "b.txt": "b"}


def test_many_threads_that_write_in_one_folder_all_succeed(tmp_path):
    def write(number):
        for i in range(10):
            name = f"{number}-{i}"
            write_atomically(tmp_path / name, lambda path, name=name: path.write_text(name))

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(write, range(8)))
    assert {p.name for p in tmp_path.iterdir()} == {f"{n}-{i}" for n in range(8) for i in range(10)}
    assert all(p.read_text() == p.name for p in tmp_path.iterdir())


def test_file_and_folder_reach_the_disk_before_and_after_the_rename(tmp_path, monkeypatch):
    seen = []

    def sync(path):
        seen.append((path.is_dir(), (tmp_path / "a.txt").exists()))

    monkeypatch.setattr(files, "_to_disk", sync)
    write_atomically(tmp_path / "a.txt", Path.touch)
    assert seen == [(False, False), (True, True)]


def test_a_new_file_has_the_usual_permissions(tmp_path):
    (tmp_path / "usual").touch()
    write_atomically(tmp_path / "a.txt", lambda path: path.write_text("new"))
    assert (tmp_path / "a.txt").stat().st_mode == (tmp_path / "usual").stat().st_mode


def test_a_temporary_folder_is_removed_even_after_an_error(tmp_path, monkeypatch):
    monkeypatch.setattr(files.tempfile, "tempdir", str(tmp_path))
    (tmp_path / f"{scratch.SCRATCH}dead").mkdir()
    with temporary_folder() as folder:
        assert list(tmp_path.iterdir()) == [folder]
        (folder / "a").mkdir()
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(KeyError), temporary_folder():
        raise KeyError
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_for_temporary_files_is_named_with_the_remedy(tmp_path, monkeypatch):
    monkeypatch.setattr(files.tempfile, "tempdir", str(tmp_path))
    sentence = f"there is no room for temporary files in {tmp_path}: free some space, or set TMPDIR"
    write = fail_with(errno.ENOSPC)
    for fail in (write, lambda path: write_atomically(path, write)):
        with pytest.raises(OSError, match=sentence), temporary_folder() as folder:
            fail(folder / "a")


@pytest.mark.system
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
class TestProcesses:
    """What only another process, or another user, can show."""

    def test_nothing_is_left_of_a_killed_writer_after_the_next(self, tmp_path):
        def killed():
            def write(path):
                path.write_text("half")
                os.kill(os.getpid(), signal.SIGKILL)

            write_atomically(tmp_path / "a.txt", write)

        in_a_child(killed)
        (left,) = tmp_path.iterdir()
        assert left.name.startswith(scratch.SCRATCH)
        write_atomically(tmp_path / "b.txt", Path.touch)
        assert [p.name for p in tmp_path.iterdir()] == ["b.txt"]

    def test_what_a_living_process_writes_is_left_alone(self, tmp_path):
        def write(path):
            path.write_text("a")
            said = in_a_child(lambda: write_atomically(tmp_path / "b.txt", Path.touch))
            assert said == ""

        write_atomically(tmp_path / "a.txt", write)
        assert sorted(p.name for p in tmp_path.iterdir()) == ["a.txt", "b.txt"]

    @pytest.mark.skipif(os.name != "posix" or os.geteuid() != 0, reason="needs another user")
    def test_the_true_reason_is_said_to_a_user_who_may_not(self, tmp_path):
        for parent in (tmp_path, *tmp_path.parents[:2]):
            parent.chmod(0o755)
        places = {}
        for name, mode in (("read-only", 0o555), ("closed", 0o700), ("sticky", 0o1777)):
            places[name] = tmp_path / name
            places[name].mkdir()
            (places[name] / "old.txt").write_text("old")
            places[name].chmod(mode)
        (tmp_path / "file").write_text("")

        def attempt():
            os.setuid(65534)
            for path in (
                places["read-only"] / "old.txt",
                places["closed"] / "new.txt",
                places["sticky"] / "old.txt",
                tmp_path / "file" / "new.txt",
            ):
                try:
                    write_atomically(path, Path.touch)
                except OSError as error:
                    print(error)
            try:
                make_folder(places["read-only"] / "a" / "b")
            except OSError as error:
                print(error)

        assert in_a_child(attempt).splitlines() == [
            f"cannot write {places['read-only']}/old.txt: you may not write in "
            f"{places['read-only']}; choose another folder",
            f"cannot write {places['closed']}/new.txt: you may not look into {places['closed']}; "
            "choose another folder",
            f"cannot write {places['sticky']}/old.txt: you may not replace the one that is there; "
            "choose another name",
            f"cannot write {tmp_path}/file/new.txt: {tmp_path}/file is not a folder; "
            "choose another",
            f"cannot write {places['read-only']}/a/b: you may not write in {places['read-only']}; "
            "choose another folder",
        ]


def in_a_child(function):
    """What a function prints in a process of its own, and its error if it has one."""
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        os.dup2(writing, 1)
        os.dup2(writing, 2)
        sys.stdout = open(1, "w", closefd=False)  # noqa: SIM115
        try:
            function()
        except BaseException as error:
            print(repr(error))
        sys.stdout.flush()
        os._exit(0)
    os.close(writing)
    with open(reading, encoding="utf-8") as file:
        said = file.read()
    os.waitpid(child, 0)
    return said


def test_a_file_is_on_the_disk_before_it_has_its_name_and_the_name_is_after(tmp_path, monkeypatch):
    done, replace = [], os.replace

    def recorded(old, new):
        done.append("renamed")
        replace(old, new)

    def synced(descriptor):
        is_folder = stat.S_ISDIR(os.fstat(descriptor).st_mode)
        done.append("folder" if is_folder else "file")

    monkeypatch.setattr(os, "replace", recorded)
    monkeypatch.setattr(os, "fsync", synced)
    write_atomically(tmp_path / "a.txt", lambda path: path.write_text("a"))
    assert done == ["file", "renamed", "folder"]
