"""How fast is minilora? Every engine in a process of its own, in turn, and the ratios.

    python tests/bench/bench.py [--rounds 9] [--shapes S M L] [--out figures]

Wall times on a shared machine mean little, so each round runs all engines one after the other and
gives one ratio; the tables show the median of the rounds. One-thread rows compare CPU time, rows of
two threads wall time. Before anything is timed, loss and gradients of all engines are compared.
Engines that are not installed are named and left out. Writes speed.json, speed.md and speed.png.
"""

import argparse
import importlib.util
import json
import math
import os
import platform
import subprocess
import sys
from datetime import date
from pathlib import Path
from statistics import median

import matplotlib
import minilora_worker
import numpy as np
from matplotlib.figure import Figure
from shapes import SHAPES, parse_shape
from tqdm import tqdm

import minilora
from minilora.plots import COLORS, save_figure, style
from minilora.system.files import make_folder, write_atomically

HERE = Path(__file__).parent
ONE_THREAD = {f"{name}_NUM_THREADS": "1" for name in ("OMP", "OPENBLAS", "MKL")}
TORCH = importlib.util.find_spec("torch") is not None
AUTOGRAD = importlib.util.find_spec("autograd") is not None
TIMES = {"S": 10, "M": 3, "L": 1}  # steps in a round

# (row, what is compared, with what, measure, goals for S, M, L); below 1: minilora is faster.
ROWS = [
    ("full / PyTorch eager, 1 thread", "full", "eager", "cpu", (0.75, 0.86, 0.88)),
    ("full / PyTorch SDPA + fused AdamW", "full", "sdpa", "cpu", (0.90, 0.95, 1.00)),
    ("full / PyTorch eager, 2 threads", "two", "eager two", "wall", (0.75, 0.75, 0.78)),
    ("LoRA q,v / full", "qv", "full", "cpu", (0.76, 0.76, 0.76)),
    ("LoRA all / full", "all", "full", "cpu", (0.85, 0.85, 0.80)),
    ("LoRA q,v / PyTorch eager's", "qv", "eager qv", "cpu", (None, None, None)),
    ("LoRA all / PyTorch eager's", "all", "eager all", "cpu", (None, None, None)),
    ("full / HIPS autograd", "full", "autograd", "cpu", (1 / 7, 1 / 5, None)),
    ("time per token / PyTorch", "generate", "torch generate", "cpu", (0.45, 0.50, None)),
    ("peak memory q,v / full", "qv", "full", "mib", (None, 0.82, 0.75)),
]  # fmt: skip
PEAK_GOALS = {"S": 60, "M": 170, "L": 500}  # MiB of a process that does full steps


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
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"{engine} {job} {shape} did not start; its error is above")
        self.first = json.loads(line)  # what the job returned the first time

    def measure(self, times: int) -> dict[str, float]:
        """Medians of `times` runs: {"wall": seconds, "cpu": seconds, "mib": peak so far}."""
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


def check(shape: str) -> str:
    """Compare loss and gradients of all engines; raises AssertionError where they differ."""
    s = parse_shape(shape)
    others = {}
    if TORCH:
        import torch_worker

        for variant in ("eager", "sdpa"):
            for mode in ("full", "qv", "all"):
                others[f"PyTorch {variant}", mode] = torch_worker.gradients(s, mode, 8, variant)
    if AUTOGRAD and shape != "L":
        import autograd_worker

        others["HIPS autograd", "full"] = autograd_worker.gradients(s)
    worst = 0.0
    for (engine, mode), theirs in others.items():
        ours = minilora_worker.gradients(s, mode, 8)
        assert ours.keys() == theirs.keys(), (engine, mode, ours.keys() ^ theirs.keys())
        largest = max(np.abs(g).max() for name, g in ours.items() if name != "loss")
        for name, g in ours.items():
            # The gradient of a key's bias is zero but for rounding: measure it by the largest.
            size = largest if name.endswith("k_proj.bias") else np.abs(g).max()
            error = np.abs(g - theirs[name]).max() / size
            assert error < 1e-4, f"{engine} {mode}: {name} differs by {error:.1e} of its size"
            worst = max(worst, error)
    return f"{len(others)} comparisons, largest relative difference {worst:.1e}"


def measure(shape: str, rounds: int) -> dict[str, dict[str, list[dict]]]:
    """All engines on one shape, by row name; steps on one thread, on two, and generation."""
    name, times = shape[0], TIMES[shape[0]]
    one = {job: Worker("minilora", job, shape) for job in ("full", "qv", "all")}
    if TORCH:
        one |= {v: Worker(f"torch-{v}", "full", shape) for v in ("eager", "sdpa")}
        one |= {f"eager {job}": Worker("torch-eager", job, shape) for job in ("qv", "all")}
    found = interleave(one, rounds, times)
    if AUTOGRAD and name != "L":
        pair = {"full": Worker("minilora", "full", shape)}
        pair["autograd"] = Worker("autograd", "full", shape)
        found |= {f"autograd {k}": v for k, v in interleave(pair, max(3, rounds // 3), 1).items()}
    if TORCH:
        two = {"two": Worker("minilora", "full", shape, threads=2)}
        two["eager two"] = Worker("torch-eager", "full", shape, threads=2)
        found |= interleave(two, rounds, times)
    if TORCH and name != "L":
        pair = {"generate": Worker("minilora", "generate", shape)}
        pair["torch generate"] = Worker("torch-sdpa", "generate", shape)
        found |= interleave(pair, rounds, 4 * times)
    return found


def ratios(found: dict[str, list[dict]], a: str, b: str, key: str) -> list[float]:
    if b == "autograd":
        a, b = "autograd full", "autograd autograd"
    if a not in found or b not in found:
        return []
    return [x[key] / y[key] for x, y in zip(found[a], found[b], strict=True)]


GROWTH = {
    "C": [f"S,C={c}" for c in (32, 64, 128, 256)],
    "T": [f"S,T={t}" for t in (32, 64, 128, 256)],
    "layers": [f"S,layers={n}" for n in (1, 2, 4, 8)],
}
RANKS = (1, 2, 4, 8, 16, 32, 64)


def growth(rounds: int) -> dict[str, list]:
    """CPU seconds of a step: full and LoRA q,v by C, T and layers, LoRA on every linear by r."""
    found = {}
    for axis, shapes in GROWTH.items():
        for job in ("full", "qv"):
            points = []
            for shape in shapes:
                value = int(shape.rpartition("=")[2])
                runs = interleave({"x": Worker("minilora", job, shape)}, rounds, 3)["x"]
                points.append([value, median(run["cpu"] for run in runs)])
            found[f"{axis} {job}"] = points
    points = []
    for r in RANKS:
        runs = interleave({"x": Worker("minilora", "all", "S", r)}, rounds, 3)["x"]
        points.append([r, median(run["cpu"] for run in runs)])
    found["r all"] = points
    return found


def slope(points: list) -> float:
    """The exponent of growth: the slope of log(time) over log(size), by least squares."""
    x, y = np.log(np.array(points, float)).T
    return float(np.polyfit(x, y, 1)[0])


def cpu_name() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def table(results: dict) -> str:
    """The ratios as Markdown: median (lowest to highest round); goal."""
    shapes = list(results["rows"])
    lines = [
        "| a ratio below 1: minilora is faster, or smaller | " + " | ".join(shapes) + " |",
        "|---|" + "---|" * len(shapes),
    ]
    for label, *_ in ROWS:
        cells = []
        for shape in shapes:
            row = results["rows"][shape].get(label)
            if not row:
                cells.append("–")
                continue
            goal = row["goal"]
            mark = (
                "" if goal is None else f", goal {goal:.2f}" + ("" if row["met"] else " **missed**")
            )
            cells.append(f"{row['median']:.3f} ({row['low']:.2f} to {row['high']:.2f}){mark}")
        lines.append(f"| {label} | " + " | ".join(cells) + " |")
    cells = [
        f"{p['mib']:.0f} MiB, goal {p['goal']}" + ("" if p["met"] else " **missed**")
        for p in results["peak"].values()
    ]
    lines.append("| peak memory of a process, full | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def figure(results: dict) -> Figure:
    with style():
        fig = Figure(figsize=(12, 4.8), layout="constrained")
        left, right = fig.subplots(1, 2, width_ratios=[1.25, 1])
        labels = [label for label, *_ in ROWS if any(label in r for r in results["rows"].values())]
        shapes = list(results["rows"])
        height = 0.8 / len(shapes)
        for k, shape in enumerate(shapes):
            for i, label in enumerate(labels):
                row = results["rows"][shape].get(label)
                if not row:
                    continue
                y = i + (k - (len(shapes) - 1) / 2) * height
                color = matplotlib.colormaps["Blues"](0.45 + 0.22 * k)
                left.barh(
                    y, row["median"], height * 0.9, color=color, label=shape if i == 0 else None
                )
                if row["goal"] is not None:
                    left.plot([row["goal"]] * 2, [y - height / 2, y + height / 2], "k", lw=1.5)
        left.axvline(1, color="0.5", lw=1, ls=":")
        left.set_yticks(range(len(labels)), labels)
        left.invert_yaxis()
        left.grid(False)
        left.set_xlabel("ratio (below 1: minilora is faster or smaller; black line: the goal)")
        left.set_title("minilora compared")
        left.legend(ncols=len(shapes), loc="upper center", bbox_to_anchor=(0.5, -0.14))
        markers = {"C": "o", "T": "s", "layers": "^", "r": "D"}
        for name, points in results["growth"].items():
            axis, job = name.split()
            color = COLORS["full"] if job == "full" else COLORS["lora"]
            x, y = zip(*points, strict=True)
            kind = {"full": "full", "qv": "LoRA q,v", "all": "LoRA all"}[job]
            label = f"{kind} by {axis}: slope {slope(points):.2f}"
            line = "-" if job == "full" else "--"
            right.plot(
                x, [1000 * v for v in y], line, color=color, marker=markers[axis], label=label
            )
        right.set_xscale("log", base=2)
        right.set_yscale("log")
        right.set_xlabel("C, T, layers or r; the others as in shape S")
        right.set_ylabel("CPU time of a step (ms)")
        right.set_title("Growth of a step's cost")
        right.set_xticks([2**k for k in range(9)], [str(2**k) for k in range(9)])
        right.minorticks_off()
        right.set_yticks([5, 10, 20, 50, 100], ["5", "10", "20", "50", "100"])
        right.legend(fontsize=9, ncols=2, loc="upper center", bbox_to_anchor=(0.5, -0.14))
    return fig


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--shapes", nargs="+", choices=SHAPES, default=list(SHAPES))
    parser.add_argument("--out", type=Path, default=Path("figures"))
    args = parser.parse_args()
    missing = [name for name, there in (("torch", TORCH), ("autograd", AUTOGRAD)) if not there]
    for name in missing:
        print(f"{name} is not installed: its rows are left out (python -m pip install {name})")
    for shape in args.shapes:
        print(f"{shape}: same loss and gradients: {check(shape)}", flush=True)
    results = {
        "date": date.today().isoformat(),
        "machine": {
            "cpu": cpu_name(),
            "cores": os.cpu_count(),
            "python": platform.python_version(),
            "numpy": np.__version__,
            "minilora": minilora.__version__,
        },
        "command": f"python tests/bench/bench.py --rounds {args.rounds}",
        "rounds": args.rounds,
        "rows": {},
        "peak": {},
        "milliseconds": {},
    }
    for shape in tqdm(args.shapes, desc="shapes"):
        found = measure(shape, args.rounds)
        results["rows"][shape] = {}
        for label, a, b, key, goals in ROWS:
            values = ratios(found, a, b, key)
            if values:
                goal, middle = goals["SML".index(shape)], median(values)
                results["rows"][shape][label] = {
                    "median": middle,
                    "low": min(values),
                    "high": max(values),
                    "goal": goal,
                    "met": goal is None or middle <= goal,
                }
        peak = found["full"][-1]["mib"]
        results["peak"][shape] = {
            "mib": peak, "goal": PEAK_GOALS[shape], "met": peak <= PEAK_GOALS[shape],
        }  # fmt: skip
        results["milliseconds"][shape] = {
            name: round(
                1000 * median(run["cpu" if "two" not in name else "wall"] for run in runs), 3
            )
            for name, runs in found.items()
        }
    print("growth of the cost in C, T, layers and r", flush=True)
    results["growth"] = growth(max(3, args.rounds // 3))
    make_folder(args.out)
    text = json.dumps(results, indent=1) + "\n"
    write_atomically(args.out / "speed.json", lambda file: file.write_text(text, "utf-8"))
    write_atomically(args.out / "speed.md", lambda file: file.write_text(table(results), "utf-8"))
    save_figure(figure(results), args.out / "speed.png")
    print(table(results))
    for name, points in results["growth"].items():
        print(f"{name}: time grows as the power {slope(points):.2f}")
    assert math.isfinite(sum(slope(p) for p in results["growth"].values()))


if __name__ == "__main__":
    main()
