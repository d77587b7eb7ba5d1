"""Many independent runs: side by side, each saved when it is finished, none repeated.

A run is a function called with JSON-able settings that returns JSON-able rows. Its rows are written
to a file of their own, so that a sweep that was stopped, by Ctrl-C or by a power cut, goes on with
the runs that are missing. Runs share nothing and each computes with one thread, so the results do
not depend on how many run at a time, nor where: in processes of this machine (joblib's loky) or on
the workers of a Dask cluster, which gives the runs of a lost worker to another.
Imports files.py, parallel.py.
"""

from __future__ import annotations

import gc
import json
import signal
import threading
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from tqdm import tqdm

from minilora.system.cores import one_blas_thread, usable_cores
from minilora.system.errors import MissingExtraError, StateError
from minilora.system.files import write_atomically
from minilora.system.version import __version__

Rows = list[dict[str, Any]]
Run = Callable[..., Rows]


class SweepInterrupted(KeyboardInterrupt):
    """Ctrl-C came; the finished runs are saved."""


def sweep(
    run: Run,
    settings: Iterable[dict[str, Any]],
    folder: Path,
    *,
    jobs: int | None = None,
    scheduler: str | None = None,
    identity: str = "",
    name: str = "runs",
    quiet: bool = False,
) -> Rows:
    """The rows of run(**s) for every s of `settings`, in their order.

    folder: where the rows of finished runs are kept; those found there are not run again. identity:
    of what the settings only name, such as the content of a file: another one's runs do not count.
    jobs: processes at a time (default: one for each core). scheduler: the address of a Dask
    scheduler, whose workers run them instead; minilora must be installed there.
    Raises ModuleNotFoundError, which says what to install, without joblib (or distributed);
    ConnectionError if the scheduler does not answer; RuntimeError if a process was killed.
    """
    settings = list(settings)
    ordered = run_files(run, settings, folder, identity)
    files = dict(zip(ordered, settings, strict=True))
    missing = {file: s for file, s in files.items() if not file.exists()}
    jobs = min(usable_cores() if jobs is None else jobs, max(len(missing), 1))
    calls = [(run, file.name, s) for file, s in missing.items()]
    folder.mkdir(parents=True, exist_ok=True)
    bar = tqdm(
        total=len(files), initial=len(files) - len(missing), desc=name, unit="run",
        disable=quiet or None, dynamic_ncols=True, smoothing=0,
    )  # fmt: skip
    finished = len(files) - len(missing)
    try:
        with bar:
            for file_name, rows in _results(calls, jobs, scheduler):
                save_rows(rows, folder / file_name)
                finished += 1
                bar.update()
    except KeyboardInterrupt:
        raise SweepInterrupted(
            f"stopped: {finished} of {len(files)} runs are finished and saved in {folder}; "
            "the same command goes on from here"
        ) from None
    return [row for file in ordered for row in json.loads(file.read_text("utf-8"))]


def save_rows(rows: Any, file: Path) -> None:
    """Write JSON, whole or not at all."""
    write_atomically(file, lambda path: path.write_text(json.dumps(rows), "utf-8"))


def run_files(
    run: Run, settings: Iterable[dict[str, Any]], folder: Path, identity: str = ""
) -> list[Path]:
    """The file for the rows of each of these runs."""
    known = [__version__, *([identity] if identity else [])]
    what = (json.dumps([*known, s], sort_keys=True).encode() for s in settings)
    return [folder / f"{run.__name__}-{zlib.crc32(text):08x}.json" for text in what]


def forget_runs(files: Iterable[Path]) -> None:
    """Remove the files of these runs, once their rows are safe, and their folder if it is empty:
    the same sweep then starts anew."""
    files = list(files)
    for file in files:
        file.unlink(missing_ok=True)
    with suppress(OSError):  # another sweep's may be there
        files[0].parent.rmdir()


def _results(
    calls: list[tuple[Run, str, dict[str, Any]]], jobs: int, scheduler: str | None
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
    with ExitStack() as stack:
        if scheduler is None:
            config = joblib.parallel_config("loky", n_jobs=jobs, inner_max_num_threads=1)
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


def _call(run: Run, file_name: str, settings: dict[str, Any]) -> tuple[str, Rows]:
    tqdm.set_lock(threading.RLock())  # its own, between processes, is left behind by killed ones
    with one_blas_thread():
        return file_name, run(**settings)


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
