"""One engine in one process: reads "k" from standard input, does its job k times, answers in JSON.

Its first line, once it is ready, is what the job returned the first time.

    python worker.py ENGINE JOB SHAPE [RANK]

ENGINE: minilora, torch-eager, torch-sdpa, autograd. JOB: full, qv, all (training steps), generate
(one greedy continuation to the end of the context). Where SHAPE is a folder with a model, ENGINE is
minilora or transformers, and JOB one of real_jobs.py.
"""

import json
import os
import resource
import sys
import time
from pathlib import Path

import numpy as np
from shapes import parse_shape


def make_job(engine: str, job: str, shape: str, rank: int, threads: int):
    if engine == "minilora":
        from minilora.system.memory import keep_freed_memory

        keep_freed_memory()  # as training and the command line do
    elif engine != "autograd":
        import torch

        torch.set_num_threads(threads)
    if Path(shape).is_dir():
        import real_jobs

        return real_jobs.MAKERS[engine](job, Path(shape))
    s = parse_shape(shape)
    if engine == "minilora":
        import minilora_worker

        if job == "generate":
            return minilora_worker.make_generate(s)
        return minilora_worker.make_step(s, job, rank, threads)
    if engine == "autograd":
        import autograd_worker

        return autograd_worker.make_step(s)
    import torch_worker

    variant = engine.removeprefix("torch-")
    if job == "generate":
        generate = torch_worker.make_generate(s, variant)
        return lambda: generate(s.T - 1)
    return torch_worker.make_step(s, job, rank, variant)


def peak_mib() -> float:
    status = Path("/proc/self/status")
    if status.exists():  # ru_maxrss would count the process from which this one was forked
        (line,) = [x for x in status.read_text().splitlines() if x.startswith("VmHWM")]
        return int(line.split()[1]) / 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20  # macOS: in bytes


def main() -> None:
    engine, job, shape = sys.argv[1:4]
    rank = int(sys.argv[4]) if len(sys.argv) > 4 else 8
    run = make_job(engine, job, shape, rank, int(os.environ.get("BENCH_THREADS", "1")))
    first = run()
    for _ in range(1 if Path(shape).is_dir() else 2):
        run()
    print(json.dumps(first if isinstance(first, float | list) else "ready"), flush=True)
    for line in sys.stdin:
        wall, cpu = [], []
        for _ in range(int(line)):
            began, cpu_began = time.perf_counter(), time.process_time()
            run()
            cpu.append(time.process_time() - cpu_began)
            wall.append(time.perf_counter() - began)
        answer = {"wall": float(np.median(wall)), "cpu": float(np.median(cpu)), "mib": peak_mib()}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
