"""Suite: the same seed gives the same bits, whatever the machine is doing otherwise.

    python tests/suites/determinism.py --trials 60 --seed 0

Each trial is a fresh interpreter that does one job of jobs.py under random conditions: the number
of threads (or, of a sweep, processes), of BLAS's own threads, the seed of Python's hashes, other
jobs before it, in a thread or a forked or a spawned process. Its fingerprint, of losses, weights,
texts, rows and files, must be that of the same job done plainly.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import suite
from jobs import JOBS

SAME, OTHER = "the same bits", "other bits"
LIMIT = 600  # seconds, after which a job hangs
HERE = Path(__file__).parent
PLAIN = {"PYTHONHASHSEED": "0"}


def conditions(rng: np.random.Generator) -> tuple[dict[str, Any], dict[str, str]]:
    """A job and how it is done; the variables of its environment."""

    def one(*values: Any) -> Any:
        return values[int(rng.integers(len(values)))]

    asked = dict(
        job=one(*JOBS),
        seed=int(rng.integers(2)),
        threads=one(None, 1, 2, 3),
        where=one("here", "here", "thread", "fork", "spawn"),
        before=[one("full", "lora", "dora", "files", "generation") for _ in range(one(0, 0, 1, 2))],
    )
    if asked["job"] in ("sweep", "compare") and asked["where"] in ("fork", "spawn"):
        asked["where"] = "here"  # a sweep starts its own processes; a pool's may start none
    environment = {"PYTHONHASHSEED": str(int(rng.integers(2**32)))}
    if blas := one(None, 1, 2, 3, 4):
        environment |= {"OPENBLAS_NUM_THREADS": str(blas), "OMP_NUM_THREADS": str(blas)}
    return asked, environment


def done(asked: dict[str, Any], environment: dict[str, str]) -> tuple[str, str]:
    """The fingerprint, and what went wrong, if there is none."""
    plain = {k: v for k, v in os.environ.items() if not k.endswith("_NUM_THREADS")}
    job = [sys.executable, str(HERE / "jobs.py"), json.dumps(asked)]
    how: dict[str, Any] = dict(capture_output=True, encoding="utf-8", timeout=LIMIT)
    try:
        ended = subprocess.run(job, env=plain | environment, **how)
    except subprocess.TimeoutExpired:
        return "", f"it takes more than {LIMIT} seconds"
    return ended.stdout.strip(), ended.stderr.strip() if ended.returncode else ""


@cache
def plainly(job: str, seed: int) -> str:
    found, wrong = done({"job": job, "seed": seed, "threads": 1}, PLAIN)
    if wrong:
        raise RuntimeError(f"{job} does not run: {wrong}")
    return found


def trial(seed: int, i: int) -> tuple[str, str]:
    asked, environment = conditions(np.random.default_rng((seed, i)))
    expected = plainly(asked["job"], asked["seed"])
    found, wrong = done(asked, environment)
    variables = " ".join(f"{key}={value}" for key, value in environment.items())
    how = f"{variables} python tests/suites/jobs.py '{json.dumps(asked)}'"
    if wrong:
        return "failed", f"{how}\n{wrong}"
    return (SAME, "") if found == expected else (OTHER, f"{how}: {found}, expected {expected}")


SUITE = suite.Suite(
    name="determinism",
    promise="The same seed gives the same bits, whatever else the machine does.",
    trial=trial,
    kept={SAME},
    trials=60,
)

if __name__ == "__main__":
    sys.exit(suite.main(SUITE))
