"""The command by which a real model sits an exam on LoRA: sit-exam."""

from __future__ import annotations

import argparse
from statistics import mean

from rich.console import Console
from rich.markup import escape
from rich.table import Table

import minilora
from minilora.cli.output import machine, make_folder, say
from minilora.cli.tables import human_bytes, print_table
from minilora.experiments.exam import (
    CHANCE,
    COURSES,
    MARKED,
    MODEL,
    at_chosen_rate,
    exam_run,
    exam_settings,
    mcnemar,
    wilson,
)
from minilora.experiments.rows import Row, Rows, in_six_digits, save_json, select
from minilora.experiments.sweeps import forget_runs, run_files, sweep
from minilora.plots import save_figure
from minilora.plots.exams import TITLES, exam_figure


def run_sit_exam(args: argparse.Namespace) -> None:
    make_folder(args.out)
    options = {} if args.model == MODEL else {"model": args.model}
    options |= {} if args.threads is None else {"threads": args.threads}
    settings = [s | options for s in exam_settings(args.courses, args.seeds, args.tried_rates)]
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
    forget_runs(run_files(exam_run, settings, runs))
    console, rows = Console(highlight=False), at_chosen_rate(rows)
    courses = list(dict.fromkeys(row["course"] for row in rows))
    print_table(_table(rows, courses), console)
    _print_findings(rows, courses, console)
    _print_samples(rows, courses, console)
    print(f"Written to {args.out}: exam.json, exam.png.")


def _table(rows: Rows, courses: list[str]) -> Table:
    table = Table(
        title="An exam on LoRA: the share that was right",
        caption="± : half of the 95 % interval (Wilson), from the number of questions alone.",
        title_justify="left",
        caption_justify="left",
    )
    table.add_column("", no_wrap=True)
    for part in MARKED:
        count = len(rows[0]["marks"][part])
        header = f"{TITLES[part]}\n{count} (chance {CHANCE[part]:.0%})"
        table.add_column(header, justify="right")
    for header in ("perplexity\nof English", "numbers\ntrained", "on disk", "CPU s\na step"):
        table.add_column(header, justify="right")
    for name in courses:
        same = select(rows, course=name)
        table.add_row(
            COURSES[name].label,
            *(_share(same, part) for part in MARKED),
            f"{mean(row['perplexity'] for row in same):.1f}",
            f"{same[0]['trainable']:,}",
            "–" if same[0]["disk_bytes"] is None else human_bytes(same[0]["disk_bytes"]),
            _mean(same, "cpu_seconds_per_step"),
        )
    return table


def _share(same: Rows, part: str) -> str:
    share = mean(row[part] for row in same)
    low, high = wilson(share, len(same[0]["marks"][part]))
    return f"{share:.0%} ± {(high - low) / 2:.0%}"


def _mean(same: Rows, key: str) -> str:
    values = [row[key] for row in same if row[key] is not None]
    return f"{mean(values):.2f}" if values else "–"


def _print_findings(rows: Rows, courses: list[str], console: Console) -> None:
    """Which changes are more than luck, and whether the base is still there."""
    base = select(rows, course="base")[0]
    for name in courses[1:]:
        first = select(rows, course=name)[0]
        console.print(f"{COURSES[name].label}, seed 0: {', '.join(_changes(base, first))}.")
        if first["perplexity_detached"] is not None:
            before, after = first["perplexity_base"], first["perplexity_detached"]
            found = "exactly the base's" if before == after else f"not the base's {before:.4f}"
            console.print(f"  adapter switched off: perplexity {after:.4f}, {found}")


def _changes(base: Row, row: Row) -> list[str]:
    return [
        f"{TITLES[part]} {base['marks'][part].count('1')} → {row['marks'][part].count('1')} "
        f"(p = {mcnemar(base['marks'][part], row['marks'][part]):.2g})"
        for part in MARKED
    ]


def _print_samples(rows: Rows, courses: list[str], console: Console) -> None:
    answers = {name: select(rows, course=name)[0].get("samples", {}) for name in courses}
    for question in answers["base"]:
        console.print(f"\n{escape(question)}", style="bold")
        for name in courses:
            console.print(f"  {COURSES[name].label}: {escape(answers[name].get(question, '–'))}")
    console.print()
