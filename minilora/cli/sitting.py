"""The command by which a real model sits an exam on LoRA: sit-exam."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from statistics import mean

from rich.markup import escape
from rich.table import Table

import minilora
from minilora.cli.terminal.console import Console
from minilora.cli.terminal.output import machine, prepare_folder, say
from minilora.cli.terminal.tables import human_bytes, print_table
from minilora.experiments.exam import (
    CHANCE,
    COURSES,
    MARKED,
    MODEL,
    at_recipe_rate,
    exam_run,
    exam_settings,
    mcnemar,
    wilson,
)
from minilora.experiments.rows import Row, Rows, in_six_digits, save_json, select
from minilora.experiments.sweeps import forget_runs, run_files, sweep
from minilora.plots import save_figure
from minilora.plots.exams import TITLES, exam_figure, exam_rates_figure


def run_sit_exam(args: argparse.Namespace) -> None:
    prepare_folder(args.out)
    options = {} if args.model == MODEL else {"model": args.model}
    options |= {} if args.threads is None else {"threads": args.threads}
    settings = [s | options for s in exam_settings(args.courses, args.seeds, args.other_rates)]
    runs = args.out / "exam-runs"
    rows = in_six_digits(sweep(exam_run, settings, runs, jobs=1, quiet=True, say=say, name="exam"))
    about = {
        "command": args.command_line,
        "version": minilora.__version__,
        "machine": machine(),
        "seeds": args.seeds,
    }
    save_json(about | {"rows": rows}, args.out / "exam.json")
    save_figure(exam_figure(rows), args.out / "exam.png")
    written = ["exam.json", "exam.png"]
    if args.other_rates:
        save_figure(exam_rates_figure(rows), args.out / "exam-rates.png")
        written.append("exam-rates.png")
    forget_runs(run_files(exam_run, settings, runs))
    console, rows = Console(highlight=False), at_recipe_rate(rows)
    courses = list(dict.fromkeys(row["course"] for row in rows))
    print_table(_table(rows, courses), console)
    _print_samples(rows, courses, console)
    print(f"Written to {args.out}: {', '.join(written)}.")


def _table(rows: Rows, courses: list[str]) -> Table:
    """A column for each course, a row for each thing measured."""
    base = select(rows, course="base")[0]
    runs = [select(rows, course=name) for name in courses]
    table = Table(
        title="An exam on LoRA: the share that was right",
        caption="±: half of the 95 % interval (Wilson), from the number of questions alone. "
        "p: McNemar's exact test of the same questions, seed 0.",
        title_justify="left",
        caption_justify="left",
    )
    table.add_column("", no_wrap=True)
    for name in courses:
        table.add_column(COURSES[name].label.replace(", ", "\n"), justify="right")
    for part in MARKED:
        asked = f"{TITLES[part]} ({len(base['marks'][part])})"
        table.add_row(f"{asked}, chance {CHANCE[part]:.0%}", *(_share(same, part) for same in runs))
        table.add_row("  p of the change", *(_change(base, same[0], part) for same in runs))
    table.add_section()

    def row(label: str, key: str, form: Callable[[float], str]) -> None:
        table.add_row(label, *(_mean(same, key, form) for same in runs))

    row("nats a token, right choice", "nats_right", lambda v: f"{v:.2f}")
    row("nats a token, wrong choice", "nats_wrong", lambda v: f"{v:.2f}")
    row("perplexity of English", "perplexity", lambda v: f"{v:.2f}")
    table.add_row("  adapter switched off", *(_detached(same[0]) for same in runs))
    row("numbers that train", "trainable", lambda v: f"{v:,.0f}")
    row("optimizer state", "optimizer_bytes", human_bytes)
    row("on disk", "disk_bytes", human_bytes)
    row("peak memory of a step", "peak_memory_bytes", human_bytes)
    row("CPU time of a step", "cpu_seconds_per_step", lambda v: f"{v:.2f} s")
    return table


def _share(same: Rows, part: str) -> str:
    share = mean(row[part] for row in same)
    low, high = wilson(share, len(same[0]["marks"][part]))
    return f"{share:.0%} ± {(high - low) / 2:.0%}"


def _change(base: Row, row: Row, part: str) -> str:
    return "" if row is base else f"{mcnemar(base['marks'][part], row['marks'][part]):.2g}"


def _mean(same: Rows, key: str, form: Callable[[float], str]) -> str:
    values = [row[key] for row in same if row[key] is not None]
    return form(mean(values)) if values else "–"


def _detached(row: Row) -> str:
    before, after = row["perplexity_base"], row["perplexity_detached"]
    if after is None:
        return "–"
    return f"{after:.2f}, exactly" if after == before else f"{after:.6f}, not {before:.6f}"


def _print_samples(rows: Rows, courses: list[str], console: Console) -> None:
    answers = {name: select(rows, course=name)[0].get("samples", {}) for name in courses}
    for question in answers["base"]:
        console.print(f"\n{escape(question)}", style="bold")
        for name in courses:
            console.print(f"  {COURSES[name].label}: {escape(answers[name].get(question, '–'))}")
    console.print()
