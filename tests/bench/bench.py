"""How fast is minilora? Every engine in a process of its own, in turn, and the ratios.

    python tests/bench/bench.py

Wall times on a shared machine mean little, so each round runs all engines one after the other and
gives one ratio; the table shows the median of the rounds. One-thread rows are CPU time.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from statistics import median

HERE = Path(__file__).parent
ONE_THREAD = {f"{name}_NUM_THREADS": "1" for name in ("OMP", "OPENBLAS", "MKL")}


class Worker:
    """A running worker.py."""

    def __init__(self, engine: str, job: str, shape: str, rank: int = 8, threads: int = 1) -> None:
        environment = os.environ | (ONE_THREAD if threads == 1 else {})
        self.process = subprocess.Popen(
            [sys.executable, str(HERE / "worker.py"), engine, job, shape, str(rank)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment | {"BENCH_THREADS": str(threads)},
        )
        if self.process.stdout.readline().strip() != "ready":
            raise RuntimeError(f"{engine} {job} {shape} did not start; its error is above")

    def measure(self, times: int) -> dict:
        self.process.stdin.write(f"{times}\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())

    def close(self) -> None:
        self.process.stdin.close()
        self.process.wait()


def interleave(workers: dict[str, Worker], rounds: int, times: int) -> dict[str, list[dict]]:
    found = {name: [] for name in workers}
    for _ in range(rounds):
        for name, worker in workers.items():
            found[name].append(worker.measure(times))
    for worker in workers.values():
        worker.close()
    return found


def ratio(found, name: str, to: str, key: str = "cpu") -> float:
    pairs = zip(found[name], found[to], strict=True)
    return median(a[key] / b[key] for a, b in pairs)
