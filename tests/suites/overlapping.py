"""Suite: work that overlaps in the threads of one process has the results of work alone.

    python tests/suites/overlapping.py --trials 100 --seed 0

Each trial starts two to four jobs of jobs.py in threads, each after a random moment. Some are
interrupted: by an exception of the function that they call at every step, by a KeyboardInterrupt
that is raised in their thread wherever it may be, or, in the main thread, by Ctrl-C. Every job that
was not must have its fingerprint to the bit; one that was, done again in its folder, goes on from
its checkpoint and must have it too. Afterwards BLAS's threads, no_grad, NumPy's error state and the
handlers of signals are as they were.
"""

from __future__ import annotations

import ctypes
import signal
import sys
import tempfile
import threading
import time
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import suite
from jobs import JOBS, do
from threadpoolctl import ThreadpoolController

from minilora.ops import mul
from minilora.tensor import Tensor

BLAS = ThreadpoolController().select(user_api="blas")
THREADS = 3  # of BLAS's own at the start of a trial: so that one that is left behind is seen
LIMIT = 120  # seconds, after which a thread hangs
NAMES = ("full", "lora", "dora", "files", "generation")
ALONE, KEPT = "all as alone", "all as alone, some interrupted"


class Broken(Exception):  # noqa: N818
    """What a job's own function raises."""


@cache
def alone(name: str, seed: int) -> str:
    return do(name, seed, 1)


@dataclass
class Job:
    """One job and what will happen to it. breaks_at: the call of its own function that raises;
    struck_after: seconds until KeyboardInterrupt is raised in its thread."""

    name: str
    seed: int
    threads: int
    delay: float
    folder: Path
    breaks_at: int | None = None
    struck_after: float | None = None
    calls: int = 0
    made: str | None = None
    raised: BaseException | None = None
    thread: Any = field(default=None, repr=False)
    lock: Any = field(default_factory=threading.Lock, repr=False)
    over: bool = False

    @property
    def interrupted(self) -> bool:
        return isinstance(self.raised, Broken | KeyboardInterrupt)

    def on_step(self, what: Any) -> None:
        self.calls += 1
        if self.calls != self.breaks_at:
            return
        if threading.current_thread() is threading.main_thread():
            signal.raise_signal(signal.SIGINT)
        else:
            raise Broken

    def run(self) -> None:
        try:
            try:
                time.sleep(self.delay)
                self.made = JOBS[self.name](self.seed, self.threads, self.folder, self.on_step)
            finally:
                with self.lock:
                    self.over = True
        except BaseException as error:
            self.raised = error.with_traceback(None)  # whose frames would keep all alive

    def strike(self) -> None:
        """Raise KeyboardInterrupt in the thread, at its next instruction of Python. It must not end
        meanwhile: another would get its number, and the exception."""
        assert self.struck_after is not None
        time.sleep(self.delay + self.struck_after)
        with self.lock:
            if self.over:
                return
            number = ctypes.c_ulong(self.thread.ident)
            ctypes.pythonapi.PyThreadState_SetAsyncExc(number, ctypes.py_object(KeyboardInterrupt))


def drawn(rng: np.random.Generator, folder: Path) -> list[Job]:
    jobs = []
    for i in range(int(rng.integers(2, 5))):
        job = Job(
            name=NAMES[int(rng.integers(len(NAMES)))],
            seed=int(rng.integers(2)),
            threads=int(rng.integers(1, 4)),
            delay=float(rng.uniform(0, 0.03)),
            folder=folder / str(i),
        )
        job.folder.mkdir()
        if rng.random() < 0.2:
            job.breaks_at = int(rng.integers(1, 12))
        elif rng.random() < 0.25:
            job.struck_after = float(rng.uniform(0, 0.12))
            job.threads = 1  # until it runs, a new thread has its parent's number (CPython 3.11)
        jobs.append(job)
    return jobs


def process_state() -> dict[str, Any]:
    """What belongs to the process or the thread, and no job may leave changed."""
    x = Tensor(np.ones(1), requires_grad=True)
    return {
        "BLAS's threads": [library["num_threads"] for library in BLAS.info()],
        "no_grad": mul(x, x).requires_grad,
        "NumPy's error state": np.geterr(),
        "the handler of Ctrl-C": signal.getsignal(signal.SIGINT),
        "threads": threading.active_count(),
    }


def trial(seed: int, i: int) -> tuple[str, str]:
    rng = np.random.default_rng((seed, i))
    with tempfile.TemporaryDirectory() as folder:
        jobs = drawn(rng, Path(folder))
        expected = [alone(job.name, job.seed) for job in jobs]
        BLAS.limit(limits=THREADS)
        before = process_state()
        ended = _run_together(jobs, in_main=bool(rng.random() < 0.5))
        told = "; ".join(map(repr, jobs))
        if not ended:
            return "a thread hangs", told
        for name, value in process_state().items():
            if value != before[name]:
                return f"{name} left changed", f"{told}: {before[name]} became {value}"
        for job, fingerprint in zip(jobs, expected, strict=True):
            if job.made is None and not job.interrupted:
                return f"raised {type(job.raised).__name__}", f"{told}: {job.raised}"
            if job.made is None:
                job.made = JOBS[job.name](job.seed, job.threads, job.folder)
            if job.made != fingerprint:
                return "other bits", f"{job} of {told}: expected {fingerprint}"
    return (KEPT if any(job.interrupted for job in jobs) else ALONE), ""


def _run_together(jobs: list[Job], in_main: bool) -> bool:
    """Whether all came to an end. The first job in the main thread, if that is asked; no exception
    is raised in that."""
    here = jobs[0] if in_main and jobs[0].struck_after is None else None
    for job in jobs:
        if job is not here:
            job.thread = threading.Thread(target=job.run, daemon=True)
            job.thread.start()
    struck = [job for job in jobs if job.struck_after is not None]
    strikers = [threading.Thread(target=job.strike, daemon=True) for job in struck]
    for striker in strikers:
        striker.start()
    if here is not None:
        here.run()
    threads = [*strikers, *(job.thread for job in jobs if job.thread)]
    for thread in threads:
        thread.join(LIMIT)
    return not any(thread.is_alive() for thread in threads)


SUITE = suite.Suite(
    name="overlapping",
    promise="Work that overlaps in threads, and is interrupted, has the results of work alone.",
    trial=trial,
    kept={ALONE, KEPT},
    trials=100,
)

if __name__ == "__main__":
    sys.exit(suite.main(SUITE))
