"""Commands that run studies and draw their figures: study, sweep, spectrum, figures.

`study` repeats one of the studies; `sweep` and `spectrum` ask the same questions of a text and a
model of the user's; `figures` draws every figure again from the results that are shipped.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from statistics import mean
from typing import Any

from rich.table import Table

import minilora
from minilora.analysis.deltas import delta_weights, weight_matrices
from minilora.cli.terminal.console import Console
from minilora.cli.terminal.output import machine, prepare_folder, say
from minilora.cli.terminal.tables import print_table
from minilora.experiments.comparison import Comparison
from minilora.experiments.exam import shipped_exam
from minilora.experiments.rows import Rows, in_six_digits, save_json
from minilora.experiments.sweeps import Run, forget_runs, run_files, sweep
from minilora.experiments.tasks import load_task
from minilora.experiments.tuning import quality_run
from minilora.hub import load_adapter, load_model
from minilora.lora import lora_layers
from minilora.lora_targets import find_targets
from minilora.plots import compare_figure, exam_figure, exam_rates_figure, lora_picture, save_figure
from minilora.studies import SHIPPED, STUDIES, shipped_rows, study_figures
from minilora.studies.rank_sweep import rank_sweep_figure
from minilora.studies.spectrum import describe_delta, spectrum_figure, spectrum_run
from minilora.system.cores import one_blas_thread
from minilora.system.errors import UsageError
from minilora.system.readers import LARGEST_TABLE, checksum, read_json


def run_study(args: argparse.Namespace) -> None:
    names = list(STUDIES) if args.name == "all" else [args.name]
    prepare_folder(args.out)
    results, files = {}, []
    for name in names:
        study, runs = STUDIES[name], args.out / f"{name}-runs"
        settings = study.settings(range(args.seeds))
        say(f"{name}: {study.question} ({len(settings)} runs)")
        rows = in_six_digits(sweep(study.run, settings, runs, name=name, **_workers(args)))
        about = {
            "study": name,
            "question": study.question,
            "command": args.command_line,
            "version": minilora.__version__,
            "machine": machine(),
            "seeds": args.seeds,
        }
        save_json(about | {"rows": rows}, args.out / f"{name}.json")
        files.append(run_files(study.run, settings, runs))
        results[name] = _without_diverged(rows)
        _print_rows(f"{name}: {study.question}", results[name], study.by, study.shows)
        at_scale = f"Does it hold at scale? {study.at_scale}\n"
        Console(markup=False, highlight=False).print(at_scale)
    drawn = _draw(results, args.out)
    for one in files:
        forget_runs(one)
    print(f"Written to {args.out}: {', '.join([f'{name}.json' for name in names] + drawn)}")


def run_figures(args: argparse.Namespace) -> None:
    out, kind = (args.svg, "svg") if args.svg else (args.out, "png")
    prepare_folder(out, "--svg" if args.svg else "--out")
    drawn = [f"lora.{kind}"]
    save_figure(lora_picture(), out / drawn[0])
    for entry in read_json(SHIPPED / "compare.json", Comparison, LARGEST_TABLE)["tasks"]:
        drawn.append(f"compare-{entry['task']}.{kind}")
        save_figure(compare_figure(entry), out / drawn[-1])
    for name, figure in (("exam", exam_figure), ("exam-rates", exam_rates_figure)):
        drawn.append(f"{name}.{kind}")
        save_figure(figure(shipped_exam()), out / drawn[-1])
    drawn += _draw({name: shipped_rows(name) for name in STUDIES}, out, kind)
    print(f"Written to {out}: {', '.join(drawn)}")


def run_sweep(args: argparse.Namespace) -> None:
    prepare_folder(args.out)
    study = STUDIES["rank_sweep"]
    with _swept(quality_run, args, "sweep") as rows:
        _print_rows(study.question, rows, ("task", "method", "r", "s"), study.shows)
        save_figure(rank_sweep_figure(rows), args.out / "rank-sweep.png")
    print(f"Written to {args.out}: sweep.json, rank-sweep.png.")


def run_spectrum(args: argparse.Namespace) -> None:
    prepare_folder(args.out)
    if args.adapter or args.tuned:
        with one_blas_thread():
            rows = _given_spectrum(args)
        save_json(rows, args.out / "spectrum.json")
        _show_spectrum(rows, ("path",), args.out)
        return
    with _swept(spectrum_run, args, "spectrum") as rows:
        _show_spectrum(rows, ("method", "r"), args.out)


def _show_spectrum(rows: Rows, by: tuple[str, ...], out: Path) -> None:
    _print_rows("The singular values of ΔW", rows, by, STUDIES["spectrum"].shows)
    save_figure(spectrum_figure(rows), out / "spectrum.png")
    print(f"Written to {out}: spectrum.json, spectrum.png.")


def _draw(results: dict[str, Rows], out: Path, kind: str = "png") -> list[str]:
    """Every figure for which the results are there, by file name; the shipped ones stand in for
    studies that a figure needs beside."""
    names = []
    shipped = {name: shipped_rows(name) for name in STUDIES if (SHIPPED / f"{name}.json").exists()}
    for name, figure in study_figures(shipped | results, only=results):
        names.append(f"{name}.{kind}")
        save_figure(figure, out / names[-1])
    return names


def _workers(args: argparse.Namespace) -> dict[str, Any]:
    if (args.backend == "dask") != (args.scheduler is not None):
        raise UsageError("--backend dask and --scheduler ADDRESS go together: give both or neither")
    jobs = args.jobs
    if jobs is None and args.scheduler is None and find_spec("joblib") is None:
        say('one run at a time; for several: pip install "minilora[sweep]"')
        jobs = 1
    return {"jobs": jobs, "scheduler": args.scheduler, "say": say}


def _own_settings(args: argparse.Namespace) -> list[dict[str, Any]]:
    """Full fine-tuning and LoRA of every rank, each with every seed. Raises ValueError for a rank
    that the model cannot have."""
    fixed = {"task": str(args.text.resolve()) if args.text else args.task or "code"}
    options = {"steps": args.steps, "model": args.model}
    fixed |= {key: value for key, value in options.items() if value is not None}
    task = load_task(fixed["task"])
    base = load_model(args.model or task.base)
    for r in args.ranks:
        find_targets(base, replace(task.lora, r=r))
    changes = [{"method": "full"}, *({"method": "lora", "r": r} for r in args.ranks)]
    return [fixed | change | {"seed": seed} for change in changes for seed in range(args.seeds)]


@contextmanager
def _swept(run: Run, args: argparse.Namespace, name: str) -> Iterator[Rows]:
    """The rows of a sweep, written to NAME.json, without runs that diverged. What is kept for going
    on is removed at the end of the `with` block."""
    settings = _own_settings(args)
    runs, identity = args.out / f"{name}-runs", _identity(args)
    rows = sweep(run, settings, runs, name=name, identity=identity, **_workers(args))
    save_json(rows, args.out / f"{name}.json")
    yield _without_diverged(rows)
    forget_runs(run_files(run, settings, runs, identity))


def _identity(args: argparse.Namespace) -> str:
    """Changes with the content of the user's text and model."""
    files = [args.text] if args.text else []
    if args.model and Path(args.model).exists():
        place = Path(args.model)
        files += sorted([*place.glob("*.json"), *place.glob("*.safetensors")]) or [place]
    return " ".join(map(checksum, files))


def _without_diverged(rows: Rows) -> Rows:
    kept = [row for row in rows if not row.get("diverged")]
    for row in rows:
        if row.get("diverged"):
            which = f"{row['method']}, r = {row['r']}, rate {row['lr']:g}, seed {row['seed']}"
            say(f"left out, as it diverged: {row['task']}, {which}")
    if not kept:
        raise UsageError("every run diverged, so there is nothing to show; is the model sound?")
    return kept


def _given_spectrum(args: argparse.Namespace) -> Rows:
    """ΔW of an adapter or of a tuned model that are there already."""
    base = load_model(args.model or "docs-tiny")
    if args.adapter:
        after, name, method = load_model(args.model or "docs-tiny"), args.adapter, "lora"
        load_adapter(after, args.adapter)
    else:
        after, name, method = load_model(args.tuned), args.tuned, "full"
    W = weight_matrices(base)
    ranks = [layer.adapters["default"].A.shape[1] for layer in lora_layers(after).values()]
    about = {"task": Path(name).name, "method": method, "r": max(ranks, default=None), "seed": 0}
    deltas = delta_weights(base, after)
    rows = [about | describe_delta(path, W[path], D) for path, D in deltas.items() if D.any()]
    if not rows:
        raise UsageError(f"ΔW is zero everywhere: {name} changes none of the model's matrices")
    return rows


def _print_rows(title: str, rows: Rows, by: tuple[str, ...], shows: tuple[str, ...]) -> None:
    """A line for each combination of `by`, with the means of `shows`."""
    table = Table()
    for name in by:
        table.add_column(name, no_wrap=True)
    for name in shows:
        table.add_column(name.replace("_", "\n"), justify="right")
    for key, same in _grouped(rows, by):
        values = [[row[name] for row in same if row[name] is not None] for name in shows]
        cells = (_rounded(mean(v)) if v else "–" for v in values)
        table.add_row(*map(_part, key), *cells)
    console = Console(markup=False)
    console.print(title, style="bold")
    print_table(table, console)
    seeds = len({row.get("seed", 0) for row in rows})
    if seeds > 1:
        console.print(f"Means of {seeds} seeds; every run is in the JSON file.")


def _part(value: object) -> str:
    if value is None:
        return "–"
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _rounded(number: float) -> str:
    return f"{number:,.0f}" if number >= 1000 else f"{number:.4g}"


def _grouped(rows: Rows, by: tuple[str, ...]) -> Iterator[tuple[tuple[Any, ...], Rows]]:
    keys = dict.fromkeys(tuple(row[name] for name in by) for row in rows)
    for key in keys:
        yield key, [row for row in rows if tuple(row[name] for name in by) == key]
