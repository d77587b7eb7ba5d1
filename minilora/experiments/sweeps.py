"""Many independent runs: side by side, each saved when it is finished, none repeated.

A run is a function called with JSON-able settings that returns JSON-able rows. Its rows are written
to a file of their own, so that a sweep that was stopped, by Ctrl-C or by a power cut, goes on with
the runs that are missing. Runs share nothing and each computes with one thread, so the results do
not depend on how many run at a time, nor where: in processes of this machine (joblib's loky) or on
the workers of a Dask cluster, which gives the runs of a lost worker to another.
"""

from __future__ import annotations

import gc
import inspect
import json
import os
import pickle
import signal
import threading
import time
import warnings
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from minilora.experiments.rows import Rows, save_json
from minilora.system.checks import require_whole
from minilora.system.cores import one_blas_thread, usable_cores
from minilora.system.errors import MissingExtraError, StateError, UsageError
from minilora.system.files import make_folder, usable_path
from minilora.system.readers import LARGEST_TABLE, parse_json, read_json
from minilora.system.scratch import remove_left_behind
from minilora.system.version import __version__

Run = Callable[..., Rows]
Settings = dict[str, Any]


class SweepInterrupted(KeyboardInterrupt):
    """Ctrl-C came; the finished runs are saved."""


def sweep(
    run: Run,
    settings: Iterable[Settings],
    folder: str | Path,
    *,
    jobs: int | None = None,
    scheduler: str | None = None,
    identity: str = "",
    name: str = "runs",
    quiet: bool = False,
    say: Callable[[str], None] | None = None,
) -> Rows:
    """The rows of run(**s) for every s of `settings`, in their order; of equal ones it is run once.

    folder: where the rows of finished runs are kept; those found there are not run again, if they
        are of this very run: the same text of the function, the same settings, version of minilora
        and `identity`. What the function calls is not looked at: after a change there, remove the
        folder.
    identity: stands for what the settings only name, such as the content of a file.
    jobs: processes at a time (default: one for each core).
    scheduler: the address of a Dask scheduler, whose workers run them instead; minilora must be
        installed there.
    say: told of every finished run where no progress bar is shown.
    Raises ValueError for arguments that cannot be meant; ModuleNotFoundError, which says what to
    install, without joblib (or distributed); ConnectionError if the scheduler does not answer;
    RuntimeError if a process was killed. What a run raises is passed on; the others stay saved.
    """
    settings, folder = _listed(settings), usable_path(folder)
    if jobs is not None:
        require_whole(1, jobs=jobs)
    if not settings:
        return []
    ordered = run_files(run, settings, folder, identity)
    files = dict(zip(ordered, settings, strict=True))
    found = {file: _read_rows(file) for file in files}
    calls = [(run, file.name, s) for file, s in files.items() if found[file] is None]
    finished = len(files) - len(calls)
    make_folder(folder)
    bar = tqdm(
        total=len(files), initial=finished, desc=name, unit="run",
        disable=quiet or None, dynamic_ncols=True, smoothing=0,
    )  # fmt: skip
    jobs = min(usable_cores() if jobs is None else jobs, max(len(calls), 1))
    try:
        with bar:
            for file_name, returned in _results(calls, jobs, scheduler):
                rows = _as_read_back(returned, run)
                save_json({"seal": _seal(rows, file_name), "rows": rows}, folder / file_name)
                found[folder / file_name] = rows
                finished += 1
                bar.update()
                if say and bar.disable:
                    say(f"{name}: {finished} of {len(files)} runs are finished")
    except KeyboardInterrupt:
        finished = sum(file.exists() for file in files)  # one may have been saved in that moment
        raise SweepInterrupted(
            f"stopped: {finished} of {len(files)} runs are finished and saved in {folder}; "
            "the same command goes on from here"
        ) from None
    return [row for file in ordered for row in found[file] or []]


def _listed(settings: Iterable[Settings]) -> list[Settings]:
    listed = list(settings)
    if not all(isinstance(s, dict) and all(isinstance(key, str) for key in s) for s in listed):
        raise UsageError(
            f"settings must be a list of dictionaries by name, one for each run, not {settings!r}"
        )
    return listed


def run_files(
    run: Run, settings: Iterable[Settings], folder: str | Path, identity: str = ""
) -> list[Path]:
    """The file for the rows of each of these runs."""
    try:
        source = inspect.getsource(run)
        title = run.__name__.strip("<>")  # of a lambda
    except (OSError, TypeError, AttributeError):
        raise UsageError(
            f"the source of {run!r} cannot be read, so that its rows could not be told from those "
            "of another function of this name; define it with def, in a file or a notebook"
        ) from None
    files = []
    for s in settings:
        try:
            text = json.dumps([source, __version__, identity, s], sort_keys=True)
        except TypeError as error:
            raise UsageError(f"the settings {s!r} are not plain JSON ({error})") from None
        files.append(Path(folder, f"{title}-{zlib.crc32(text.encode()):08x}.json"))
    return files


def forget_runs(files: Iterable[Path]) -> None:
    """Remove the files of these runs, once their rows are safe, and their folder if it is empty:
    the same sweep then starts anew."""
    files = list(files)
    for file in files:
        file.unlink(missing_ok=True)
    for folder in {file.parent for file in files}:
        remove_left_behind(folder)
        with suppress(OSError):  # another sweep's may be there
            folder.rmdir()


def _read_rows(file: Path) -> Rows | None:
    """The rows of a finished run; None if it is missing, or not as it was written."""
    if not file.exists():
        return None
    try:
        found = read_json(file, _RunFile, LARGEST_TABLE)
        if found.seal == _seal(found.rows, file.name):
            return found.rows
    except (OSError, UsageError):
        pass
    warnings.warn(f"{file} is damaged; its run is repeated", stacklevel=3)
    return None


@dataclass(frozen=True)
class _RunFile:
    """seal: of the rows and the file's name, so that neither a digit that changed on the disk nor
    the rows of another run are its result."""

    seal: str
    rows: list[dict[str, Any]]


def _seal(rows: Rows, name: str) -> str:
    return f"{zlib.crc32(json.dumps([name, rows], sort_keys=True).encode()):08x}"


def _as_read_back(returned: Any, run: Run) -> Rows:
    """The rows as their file will have them. Raises UsageError for what cannot be read from one."""
    what = f"what {run.__name__} returned"
    if not isinstance(returned, list) or not all(isinstance(row, dict) for row in returned):
        raise UsageError(
            f"{run.__name__} must return rows, a list of dictionaries, and returned "
            f"{type(returned).__name__}"
        )
    try:
        text = json.dumps(returned)
    except (TypeError, ValueError, RecursionError) as error:
        raise UsageError(
            f"{what} is not plain JSON ({error}); return numbers, texts and the like"
        ) from None
    return parse_json(text, what, list[dict[str, Any]], "return what a JSON file can hold")


def _results(
    calls: list[tuple[Run, str, Settings]], jobs: int, scheduler: str | None
) -> Iterator[tuple[str, Rows]]:
    """(file name, rows) of each call, as they come."""
    if not calls:
        return
    if jobs == 1 and scheduler is None:
        yield from (_call(*call) for call in calls)
        return
    try:
        import joblib
        from joblib.externals.loky.process_executor import TerminatedWorkerError
    except ModuleNotFoundError:
        raise MissingExtraError(
            'several runs at a time need joblib: pip install "minilora[sweep]", or use --jobs 1'
        ) from None
    # Ctrl-C is answered by our own sentence, not by joblib's on tasks that "have been cancelled".
    warnings.filterwarnings("ignore", r"\d+ tasks ", UserWarning, r"joblib\.")
    with ExitStack() as stack:
        if scheduler is None:
            config = joblib.parallel_config(
                "loky",
                n_jobs=jobs,
                inner_max_num_threads=1,
                initializer=_end_with,
                initargs=(os.getpid(),),
            )
        else:
            stack.enter_context(_client(scheduler))
            config = joblib.parallel_config("dask")
        stack.enter_context(config)
        pool = joblib.Parallel(return_as="generator_unordered", batch_size=1)
        try:
            with _children_ignore_ctrl_c():
                results = pool(joblib.delayed(_call)(*call) for call in calls)
            yield from results
        except TerminatedWorkerError:
            raise StateError(
                "a process was killed, perhaps for want of memory; finished runs are saved and the "
                "same command goes on with the others: use fewer --jobs"
            ) from None
        except pickle.PicklingError as error:
            raise UsageError(
                f"{calls[0][0].__name__} cannot be sent to another process ({error}); it must not "
                "hold on to open files, locks or the like, or run with jobs=1"
            ) from None


@contextmanager
def _children_ignore_ctrl_c() -> Iterator[None]:
    """A terminal sends Ctrl-C to every process. This one answers it, and ends those that it started
    within this context: they ignore it while they start, as what is ignored is inherited (not on
    Windows)."""
    if threading.current_thread() is not threading.main_thread():  # Python allows no other this
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _call(run: Run, file_name: str, settings: Settings) -> tuple[str, Rows]:
    tqdm.set_lock(threading.RLock())  # its own, between processes, is left behind by killed ones
    with one_blas_thread():
        return file_name, run(**settings)


def _end_with(parent: int) -> None:
    """In a worker, at its start: end soon after the parent, which cannot see to it when it is
    killed (not on Windows, where a process keeps the number of a parent that is no more)."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        os._exit(1)

    if os.name == "posix":
        threading.Thread(target=watch, daemon=True).start()


def _client(scheduler: str) -> Any:
    try:
        from distributed import Client
    except ModuleNotFoundError:
        raise MissingExtraError(
            'a Dask cluster needs distributed: pip install "minilora[dask]"'
        ) from None
    # An earlier Client that found no scheduler must not be collected while this one starts: its
    # __del__ would wait for a lock that the start holds (distributed 2026.8).
    gc.collect()
    try:
        client = Client(scheduler, timeout=10)
    except (OSError, ValueError) as error:
        raise ConnectionError(
            f"no Dask scheduler answers at {scheduler} ({error}); start one with `dask scheduler` "
            "and give the address that it prints"
        ) from None
    try:
        client.wait_for_workers(1, timeout=10)
    except TimeoutError:
        client.close()
        raise ConnectionError(
            f"the Dask scheduler at {scheduler} has no workers; start some with "
            f"`dask worker {scheduler}`"
        ) from None
    return client
