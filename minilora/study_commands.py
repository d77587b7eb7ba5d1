"""The commands that run studies, draw their figures and hand out the lessons.

`study` repeats one of study.py; `sweep` and `spectrum` ask the same questions of a text and a model
of the user's; `figures` draws every figure again from the results that are shipped.
Imports the floors below and commands.py.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from statistics import mean
from typing import Any

from rich.console import Console
from rich.table import Table

import minilora
from minilora.analysis import delta_weights, weight_matrices
from minilora.commands import machine, make_folder, say
from minilora.delta_plots import spectrum_figure
from minilora.experiment import describe_delta, quality_run, spectrum_run
from minilora.hub import load_adapter, load_model
from minilora.lora import lora_layers
from minilora.plots import compare_figure, save_figure
from minilora.study import RESULTS, STUDIES, shipped_rows
from minilora.study_plots import rank_sweep_figure, study_figures
from minilora.sweep import Rows, save_rows, sweep

LESSONS = next(
    (
        folder
        for folder in (Path(__file__).parent / "lessons", Path(__file__).parents[1] / "lessons")
        if folder.is_dir()
    ),
    None,
)  # in an installed package, in a clone


def run_study(args: argparse.Namespace) -> None:
    names = list(STUDIES) if args.name == "all" else [args.name]
    make_folder(args.out)
    results = {}
    for name in names:
        study, runs = STUDIES[name], args.out / f"{name}-runs"
        say(f"{name}: {study.question}")
        settings = study.settings(range(args.seeds))
        rows = sweep(study.run, settings, runs, name=name, **_workers(args))
        about = {
            "study": name,
            "question": study.question,
            "command": args.command_line,
            "version": minilora.__version__,
            "machine": machine(),
            "seeds": args.seeds,
        }
        save_rows(about | {"rows": rows}, args.out / f"{name}.json")
        shutil.rmtree(runs)  # the next time it is computed anew
        _print_rows(f"{name}: {study.question}", rows, study.by, study.shows)
        results[name] = rows
    _draw(results, args.out)


def run_figures(args: argparse.Namespace) -> None:
    make_folder(args.out)
    for entry in json.loads((RESULTS / "compare.json").read_text("utf-8"))["tasks"]:
        save_figure(compare_figure(entry), args.out / f"compare-{entry['task']}.png")
    _draw({name: shipped_rows(name) for name in STUDIES}, args.out)


def run_sweep(args: argparse.Namespace) -> None:
    make_folder(args.out)
    fixed = _own_task(args)
    settings = [fixed | {"method": "full", "seed": seed} for seed in range(args.seeds)]
    settings += [
        fixed | {"method": "lora", "r": r, "seed": seed}
        for r in args.ranks
        for seed in range(args.seeds)
    ]
    rows = _swept(quality_run, settings, args, "sweep")
    study = STUDIES["rank_sweep"]
    _print_rows(study.question, rows, study.by, study.shows)
    save_figure(rank_sweep_figure(rows), args.out / "rank-sweep.png")
    print(f"Written to {args.out}: sweep.json, rank-sweep.png.")


def run_spectrum(args: argparse.Namespace) -> None:
    make_folder(args.out)
    by: tuple[str, ...]
    if args.adapter or args.tuned:
        rows, by = _given_spectrum(args), ("path",)
        save_rows(rows, args.out / "spectrum.json")
    else:
        fixed = _own_task(args)
        methods: list[dict[str, Any]] = [{"method": "full"}]
        methods += [{"method": "lora", "r": r} for r in args.ranks]
        settings = [fixed | m | {"seed": seed} for m in methods for seed in range(args.seeds)]
        rows, by = _swept(spectrum_run, settings, args, "spectrum"), ("method", "r")
    _print_rows("The singular values of ΔW", rows, by, STUDIES["spectrum"].shows)
    save_figure(spectrum_figure(rows), args.out / "spectrum.png")
    print(f"Written to {args.out}: spectrum.json, spectrum.png.")


def run_lessons(args: argparse.Namespace) -> int:
    if LESSONS is None:
        raise ValueError("the lessons are not installed with this copy of minilora; clone it")
    notebooks = sorted(LESSONS.glob("[0-9]*.ipynb"))
    if not (args.copy or args.open):
        table = Table("notebook", "question")
        for path in notebooks:
            table.add_row(path.name, _question(path))
        Console(markup=False).print(table)
        print("Work on a copy of them: minilora lessons --copy FOLDER --open")
        return 0
    folder = args.copy or Path("minilora-lessons")
    make_folder(folder)
    for path in notebooks:
        if (folder / path.name).exists():
            say(f"{folder / path.name} is there already and stays as it is")
        else:
            shutil.copyfile(path, folder / path.name)
    print(f"The lessons are in {folder}: {', '.join(path.name for path in notebooks)}")
    if not args.open:
        return 0
    if find_spec("jupyterlab") is None:
        raise ValueError('opening them needs Jupyter: pip install "minilora[lessons]"')
    return subprocess.run([sys.executable, "-m", "jupyterlab", str(folder)], check=False).returncode


def _question(notebook: Path) -> str:
    """What a notebook's first cell says after "The question."."""
    title = "".join(json.loads(notebook.read_text("utf-8"))["cells"][0]["source"])
    found = re.search(r"\*\*The question\.\*\* (.+?)\n\n", title, re.DOTALL)
    return " ".join(found[1].split()) if found else ""


def _draw(results: dict[str, Rows], out: Path) -> None:
    """Every figure for which the results are there; the shipped ones stand in for studies that a
    figure needs beside."""
    names = []
    shipped = {name: shipped_rows(name) for name in STUDIES if (RESULTS / f"{name}.json").exists()}
    for name, figure in study_figures(shipped | results, only=results):
        save_figure(figure, out / f"{name}.png")
        names.append(f"{name}.png")
    print(f"Written to {out}: {', '.join(names)}")


def _workers(args: argparse.Namespace) -> dict[str, Any]:
    if (args.backend == "dask") != (args.scheduler is not None):
        raise ValueError("--backend dask and --scheduler ADDRESS go together: give both or neither")
    return {"jobs": args.jobs, "scheduler": args.scheduler}


def _own_task(args: argparse.Namespace) -> dict[str, Any]:
    fixed: dict[str, Any] = {"task": args.task if args.text is None else str(args.text.resolve())}
    options = {"steps": args.steps, "model": args.model, "lr": None}
    return fixed | {key: value for key, value in options.items() if value is not None}


def _swept(run: Any, settings: list[dict[str, Any]], args: argparse.Namespace, name: str) -> Rows:
    runs = args.out / f"{name}-runs"
    rows = sweep(run, settings, runs, name=name, **_workers(args))
    save_rows(rows, args.out / f"{name}.json")
    shutil.rmtree(runs)
    return rows


def _given_spectrum(args: argparse.Namespace) -> Rows:
    """ΔW of an adapter or of a tuned model that are there already."""
    base = load_model(args.model or "docs-tiny")
    if args.adapter:
        after, name, method = load_model(args.model or "docs-tiny"), args.adapter, "lora"
        load_adapter(after, args.adapter)
    else:
        after, name, method = load_model(args.tuned), args.tuned, "full"
    W = weight_matrices(base)
    ranks = [layer.lora_A["default"].shape[1] for layer in lora_layers(after).values()]
    about = {"task": Path(name).name, "method": method, "r": max(ranks, default=None), "seed": 0}
    deltas = delta_weights(base, after)
    return [about | describe_delta(path, W[path], D) for path, D in deltas.items() if D.any()]


def _print_rows(title: str, rows: Rows, by: tuple[str, ...], shows: tuple[str, ...]) -> None:
    """A line for each combination of `by`, with the means of `shows`."""
    table = Table()
    for name in by:
        table.add_column(name, no_wrap=True)
    for name in shows:
        table.add_column(name.replace("_", " "), justify="right")
    for key, same in _grouped(rows, by):
        values = [[row[name] for row in same if row[name] is not None] for name in shows]
        cells = (_short(mean(v)) if v else "–" for v in values)
        table.add_row(*("–" if part is None else str(part) for part in key), *cells)
    console = Console(markup=False)
    console.print(title, style="bold")
    console.print(table)
    seeds = len({row.get("seed", 0) for row in rows})
    if seeds > 1:
        console.print(f"Means of {seeds} seeds; every run is in the JSON file.")


def _short(number: float) -> str:
    return f"{number:,.0f}" if number >= 1000 else f"{number:.4g}"


def _grouped(rows: Rows, by: tuple[str, ...]) -> Iterator[tuple[tuple[Any, ...], Rows]]:
    keys = dict.fromkeys(tuple(row[name] for name in by) for row in rows)
    for key in keys:
        yield key, [row for row in rows if tuple(row[name] for name in by) == key]
