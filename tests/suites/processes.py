"""Runs commands in processes that can be killed before any of their file operations, or any time.

    with Server() as server:
        ended = server.run(Order("params --out here", place))

Most of a short command is its start, so a server imports minilora once and forks for each order; an
order may also ask for a new Python. A place is a folder with all that the process sees: work/ (its
current folder), home/ and tmp/.

File operations are told by Python's own audit events: files opened for writing, renamed, removed;
folders made and removed. What a process does to a file between these is not cut in two on purpose,
but an opening is: a process can be killed before it, and after it, with the file there and empty.
Where Python itself makes a file to find out which folder is for temporary ones, no blow falls.
"""

from __future__ import annotations

import atexit
import importlib
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
GRACE = (
    3.0  # seconds after which nothing that a process had started may live on, on an idle machine
)
LIMIT = 120.0  # seconds after which a process hangs
_CHANGES = {"os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate", "os.link",
            "os.symlink", "sqlite3.connect"}  # fmt: skip
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND


@dataclass(frozen=True)
class Blow:
    """A signal, and when: before file operation number `operation` (from 0), or after it if it is
    an opening that leaves an empty file (`opened`); else after so many seconds. SIGINT goes to all
    processes, as a terminal's Ctrl-C does. anew: of a new Python, as a person starts it; operations
    and steps are not counted then."""

    signal: int = signal.SIGKILL
    operation: int | None = None
    opened: bool = False
    seconds: float | None = None
    anew: bool = False

    def __str__(self) -> str:
        name = signal.Signals(self.signal).name
        if self.operation is None:
            return f"{name} after {self.seconds:.3f} s{', started anew' if self.anew else ''}"
        return f"{name} {'after' if self.opened else 'before'} operation {self.operation}"


@dataclass(frozen=True)
class Order:
    """A command line of minilora, the place it works in, and what it is typed.

    keep: a folder for a copy of each file that is renamed to its name. user: the id of the user who
    the process is to be.
    """

    command: str
    place: Path
    typed: str = ""
    blow: Blow | None = None
    keep: Path | None = None
    user: int | None = None
    env: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Ended:
    """status: as subprocess has it, or None for a process that had to be ended. operations: those
    that it began. steps: of training, that it finished. left: processes that lived on for longer
    than GRACE, and what they shared. modules: that it had to import, if it came to its end."""

    status: int | None
    out: str
    err: str
    seconds: float
    operations: list[str]
    steps: int
    left: list[str]
    modules: list[str]


class Server:
    """prepare: the name of a function of small_commands.py that the server calls at its start."""

    def __init__(self, prepare: str = "in_small") -> None:
        self._process = subprocess.Popen(
            [sys.executable, __file__, prepare],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT,
            env=_environment() | {"PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests")])},
        )  # fmt: skip

    def run(self, order: Order) -> Ended:
        assert self._process.stdin and self._process.stdout
        self._process.stdin.write(json.dumps(asdict(order), default=str) + "\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        if not answer:
            raise RuntimeError(f"the server died of {order}")
        return Ended(**json.loads(answer))

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *error: object) -> None:
        assert self._process.stdin and self._process.stdout
        self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()


def empty_folder() -> tempfile.TemporaryDirectory[str]:
    """For places: in memory if possible, or every file that is written waits for the disk."""
    memory = Path("/dev/shm")
    return tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None)


def make_place(place: Path) -> Path:
    """An empty place; what was there is removed."""
    shutil.rmtree(place, ignore_errors=True)
    for part in ("work", "home", "tmp"):
        (place / part).mkdir(parents=True)
    return place


def _environment() -> dict[str, str]:
    """One thread for BLAS: so many cores as a machine has must not decide what bits come out."""
    of_ours = ("MINILORA", "XDG_", "HF_", "MPL")
    kept = {k: v for k, v in os.environ.items() if not k.startswith(of_ours)}
    threads = {"OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    return kept | threads | {"PYTHONDONTWRITEBYTECODE": "1", "COLUMNS": "100"}


def _serve(prepare: str) -> None:
    importlib.import_module("matplotlib.pyplot")  # which makes its list of fonts, once

    import minilora.__main__
    import minilora.cli

    for module in ("options", *minilora.cli.COMMANDS.values()):
        importlib.import_module(f"minilora.cli.{module}")
    getattr(importlib.import_module("suites.small_commands"), prepare)()
    # What the processes of a sweep take for the program that they were started by.
    sys.modules["__main__"] = minilora.__main__
    for line in sys.stdin:
        fields = json.loads(line)
        blow = fields.pop("blow")
        order = Order(**fields, blow=Blow(**blow) if blow else None)
        ended = _run(order)
        print(json.dumps(asdict(ended)), flush=True)
        _import(ended.modules)


def _import(names: list[str]) -> None:
    """What a process had to import, the next ones have: another user may not read it."""
    for name in names:
        if name not in sys.modules:
            with suppress(Exception):
                importlib.import_module(name)


def _run(order: Order) -> Ended:
    place = Path(order.place)
    told = place.with_name(place.name + "-told")
    shutil.rmtree(told, ignore_errors=True)
    told.mkdir()
    (told / "typed").write_text(order.typed, "utf-8")
    anew = order.blow is not None and order.blow.anew
    pid = (_start_anew if anew else _fork)(order, place, told)
    began = time.monotonic()
    status = _wait(pid, order.blow, began)
    seconds = time.monotonic() - began
    lines = (told / "log").read_text("utf-8").splitlines() if (told / "log").exists() else []
    return Ended(
        status,
        (told / "out").read_text("utf-8", "replace"),
        (told / "err").read_text("utf-8", "replace"),
        seconds,
        [line.removeprefix("operation ") for line in lines if line.startswith("operation ")],
        lines.count("step"),
        _left_of(pid),
        [line.removeprefix("module ") for line in lines if line.startswith("module ")],
    )


def _variables(order: Order, place: Path) -> dict[str, str]:
    home = place / "home"
    return {
        "HOME": str(home),
        "XDG_CACHE_HOME": str(home / "cache"),
        "XDG_DATA_HOME": str(home / "data"),
        "TMPDIR": str(place / "tmp"),
    } | order.env


def _start_anew(order: Order, place: Path, told: Path) -> int:
    import matplotlib

    env = _environment() | _variables(order, place)
    env |= {"PYTHONPATH": str(ROOT), "MPLCONFIGDIR": matplotlib.get_cachedir()}
    with (
        open(told / "typed") as typed,
        open(told / "out", "w") as out,
        open(told / "err", "w") as e,
    ):
        return subprocess.Popen(
            [sys.executable, "-m", "minilora", *shlex.split(order.command)],
            stdin=typed, stdout=out, stderr=e, cwd=place / "work", env=env,
            start_new_session=True,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
        ).pid  # fmt: skip


def _fork(order: Order, place: Path, told: Path) -> int:
    ready, begin = os.pipe()
    pid = os.fork()
    if pid:
        os.close(begin)
        os.read(ready, 1)
        os.close(ready)
        return pid
    os.close(ready)
    os.setsid()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number, name, flags in (
        (0, "typed", os.O_RDONLY),
        (1, "out", os.O_WRONLY | os.O_CREAT),
        (2, "err", os.O_WRONLY | os.O_CREAT),
    ):
        os.dup2(os.open(told / name, flags), number)
    sys.stdin = os.fdopen(0, encoding="utf-8", closefd=False)  # the server's has been read from
    log = os.open(told / "log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.environ.update(_variables(order, place))
    os.chdir(place / "work")
    if order.user is not None:
        os.setgroups([])
        os.setgid(order.user)
        os.setuid(order.user)
    tempfile.gettempdir()
    _count_steps(log)
    sys.addaudithook(_Hook(order.blow, log, Path(order.keep) if order.keep else None))
    from minilora.__main__ import run

    status, loaded = 1, set(sys.modules)
    try:
        os.write(begin, b".")
        status = run(shlex.split(order.command))
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else 1
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:  # what the interpreter does at its end
        threading._shutdown()  # type: ignore[attr-defined]
        atexit._run_exitfuncs()
        with suppress(OSError):
            sys.stdout.flush()
        sys.stderr.flush()
        for name in sorted(set(sys.modules) - loaded):
            os.write(log, f"module {name}\n".encode())
        os._exit(status)


def _count_steps(log: int) -> None:
    from minilora.training.loop import Training

    step = Training.step

    def counted(self: Any, *rest: Any) -> float:
        loss = step(self, *rest)
        os.write(log, b"step\n")
        return loss

    Training.step = counted  # type: ignore[method-assign]


class _Hook:
    """Counts this process's file operations, tells of each, and strikes."""

    def __init__(self, blow: Blow | None, log: int, keep: Path | None) -> None:
        self._blow, self._log, self._keep = blow, log, keep
        self._count = 0
        self._busy = False
        self._home = os.getpid()

    def __call__(self, event: str, args: tuple[Any, ...]) -> None:
        if self._busy or (event != "open" and event not in _CHANGES) or os.getpid() != self._home:
            return
        if event == "open" and not self._is_writing(*args):
            return
        self._busy = True
        try:
            self._operation(event, args)
        finally:
            self._busy = False

    def _is_writing(self, path: Any, mode: Any, flags: int) -> bool:
        return (
            isinstance(path, str | bytes | os.PathLike)
            and not Path(os.fsdecode(path)).is_char_device()  # a place may lie in /dev/shm itself
            and not os.path.isdir(path)  # a file without a name
            and bool(flags & _WRITING)
        )

    def _operation(self, event: str, args: tuple[Any, ...]) -> None:
        what = " ".join([event, *(os.fsdecode(a) for a in args if isinstance(a, str | bytes))])
        os.write(self._log, f"operation {what}\n".encode())
        number, self._count = self._count, self._count + 1
        if self._keep and event == "os.rename" and os.path.isfile(args[0]):
            shutil.copyfile(args[0], self._keep / f"{number}")
            (self._keep / f"{number}.name").write_text(os.path.abspath(args[1]))
        if not self._blow or self._blow.operation != number:
            return
        if self._blow.opened and event == "open":
            os.close(os.open(args[0], args[2] & ~os.O_EXCL, 0o600))
        if self._blow.signal == signal.SIGINT:
            os.killpg(0, signal.SIGINT)
        else:
            os.kill(os.getpid(), self._blow.signal)


def _wait(pid: int, blow: Blow | None, began: float) -> int | None:
    """The status with which it ended; None if it took too long."""
    struck = blow is None or blow.seconds is None
    while time.monotonic() - began < LIMIT:
        found, status = os.waitpid(pid, os.WNOHANG)
        if found:
            return os.waitstatus_to_exitcode(status)
        if not struck and blow and time.monotonic() - began >= (blow.seconds or 0):
            struck = True
            (os.killpg if blow.signal == signal.SIGINT else os.kill)(pid, blow.signal)
        time.sleep(0.002)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    return None


def _left_of(session: int) -> list[str]:
    """What is left of this session after GRACE, and is ended and removed then: command lines of
    processes, and what they share in memory."""
    busy = max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1))
    end = time.monotonic() + GRACE * busy
    while (found := _members(session)) or _shared(session):
        if time.monotonic() > end:
            break
        time.sleep(0.05)
    for pid in found:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    shared = _shared(session)
    for path in shared:
        shutil.rmtree(path, ignore_errors=True)
        path.unlink(missing_ok=True)
    return [*found.values(), *map(str, shared)]


def _shared(pid: int) -> list[Path]:
    """Semaphores and folders of joblib, which have its process's number in their names."""
    return [path for path in Path("/dev/shm").glob("*") if re.search(rf"[-_]{pid}[-_]", path.name)]


def _members(session: int) -> dict[int, str]:
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError, IndexError):
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
            if int(fields[3]) == session and fields[0] != "Z":
                line = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode()
                found[int(folder.name)] = line.strip()
    return found


if __name__ == "__main__":
    _serve(sys.argv[1])
