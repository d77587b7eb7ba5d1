"""Tables in the terminal. Nothing is computed here but sums and ratios of what was measured.

No number is ever cut: `print_table` turns a table that is wider than the terminal into a block of
lines for each of its rows.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from statistics import mean
from typing import Any

from rich import box
from rich.console import Group
from rich.markup import escape
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from minilora.cli.terminal.console import Console
from minilora.experiments.comparison import improvement
from minilora.methods.registry import LABELS
from minilora.training.quality import EXACT, METRICS

_NAMES = {"base": "base model"} | LABELS
_STYLES = dict.fromkeys(_NAMES, "") | {"full": "blue", "lora": "yellow", "scratch": "dim"}


def fits(table: Table, console: Console) -> bool:
    room = console.options.update(max_width=1000)  # measuring stops at the console's width
    return console.measure(table, options=room).maximum <= console.width


def print_table(table: Table, console: Console) -> None:
    """The table as it is, or, where the terminal is too narrow, a block of lines for each row."""
    if fits(table, console):
        console.print(table)
        return
    if table.title:
        console.print(table.title, style="italic")
    names = [str(column.header).replace("\n", " ") for column in table.columns]
    for cells in zip(*(column.cells for column in table.columns), strict=True):
        console.print(cells[0], style="bold")
        for name, cell in zip(names[1:], cells[1:], strict=True):
            if cell:
                console.print(f"  {name}: {cell}" if name else f"  {cell}")
    if table.caption:
        console.print(table.caption, style="dim italic")


def human_bytes(n: float) -> str:
    """1536 -> "1.5 KiB": three digits are enough to compare."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if n < 1000 or unit == "GiB":
            return f"{n:.0f} {unit}" if unit == "B" or n >= 100 else f"{n:.1f} {unit}"
        n /= 1024
    raise AssertionError


def _spread(runs: list[dict[str, Any]], key: str, form: Callable[[float], str]) -> str:
    """The mean over seeds, and the lowest and highest where they differ."""
    values = [run[key] for run in runs if run[key] is not None]
    if not values:
        return "–"
    low, high = form(min(values)), form(max(values))
    return form(mean(values)) if low == high else f"{form(mean(values))} ({low} to {high})"


def compare_table(entry: dict[str, Any]) -> Table:
    """A column for each method, a row for each thing measured."""
    quality = _quality(entry)
    methods = list(dict.fromkeys(run["method"] for run in entry["runs"]))
    runs = {m: [run for run in entry["runs"] if run["method"] == m] for m in methods}
    table = Table(
        title=escape(_what_was_done(entry)),
        caption=f"Quality on the test split: {_what_is_better(entry)}.",
        title_justify="left",
        caption_justify="left",
    )
    table.add_column("", no_wrap=True)
    for method in methods:
        table.add_column(_NAMES[method], style=_STYLES[method], justify="right")

    def row(label: str, key: str, form: Callable[[float], str]) -> None:
        table.add_row(label, *(_spread(runs[m], key, form) for m in methods))

    row("learning rate", "lr", lambda v: f"{v:g}")
    row("trainable parameters", "trainable", lambda v: f"{v:,.0f}")
    row("  of the base's", "trainable", lambda v: f"{v / entry['base']['total']:.1%}")
    row("optimizer state", "optimizer_bytes", human_bytes)
    row("on disk", "disk_bytes", human_bytes)
    row("peak memory of a step", "peak_memory_bytes", human_bytes)
    row("time per step", "seconds_per_step", lambda v: f"{1000 * v:.1f} ms")
    table.add_section()
    for label, key in (("new task", "test"), ("old task", "old")):
        before = quality(entry["base"][key])
        table.add_row(label, *(
            ("" if m == "scratch" else f"{before} → ") + _spread(runs[m], key, quality)
            for m in methods
        ))  # fmt: skip
    detached = (_detached(runs[m], entry["base"]["old"], quality) for m in methods)
    table.add_row("  adapter detached", *detached)
    return table


def methods_table(entry: dict[str, Any]) -> Table:
    """A row for each method: where there are too many for columns."""
    quality = _quality(entry)
    new, old = (quality(entry["base"][key]) for key in ("test", "old"))
    table = Table(
        title=escape(_what_was_done(entry)),
        caption=f"Quality on the test split: {_what_is_better(entry)}. The base model: new task "
        f"{new}, old task {old}.",
        title_justify="left",
        caption_justify="left",
        box=box.SIMPLE_HEAD,
        show_edge=False,
        padding=(0, 1, 0, 0),
    )
    table.add_column("method", no_wrap=True)
    for name in ("rate", "trainable", "share", "on disk", "ms per\nstep", "new\ntask", "old\ntask"):
        table.add_column(name, justify="right")
    for method in dict.fromkeys(run["method"] for run in entry["runs"]):
        runs = [run for run in entry["runs"] if run["method"] == method]
        trained = runs[0]["trainable"]
        table.add_row(
            _NAMES[method],
            f"{runs[0]['lr']:g}",
            f"{trained:,}",
            f"{trained / entry['base']['total']:.1%}",
            human_bytes(runs[0]["disk_bytes"]),
            f"{1000 * mean(run['seconds_per_step'] for run in runs):.1f}",
            _spread(runs, "test", quality),
            _spread(runs, "old", quality),
            style=_STYLES[method],
        )
    return table


def _what_was_done(entry: dict[str, Any]) -> str:
    seeds = len({run["seed"] for run in entry["runs"]})
    note = "1 seed" if seeds == 1 else f"mean of {seeds} seeds (lowest to highest)"
    return f"{entry['about']}: {entry['runs'][0]['steps']} steps, {note}"


def _quality(entry: dict[str, Any]) -> Callable[[float], str]:
    return METRICS[entry["metric"]].format.format


def _what_is_better(entry: dict[str, Any]) -> str:
    metric = METRICS[entry["metric"]]
    return f"{metric.unit}, {'higher' if metric.higher_is_better else 'lower'} is better"


def _detached(runs: list[dict[str, Any]], base: float, quality: Callable[[float], str]) -> str:
    values = [run["old_detached"] for run in runs]
    if None in values:
        return "–"
    same = all(value == base for value in values)
    return f"{quality(base)} = the base" if same else _spread(runs, "old_detached", quality)


def summary(entry: dict[str, Any]) -> str:
    """One sentence with what was measured."""
    lora = next(run for run in entry["runs"] if run["method"] == "lora")
    share, short = improvement(entry)
    exact = METRICS[entry["metric"]] is EXACT
    distance = f"{100 * short:.1f} points" if exact else f"{short:.2f} nats"
    side = f"{distance} {'ahead of it' if share > 1 else 'short of it'}"
    if float(distance.split()[0]) == 0:
        side = "level with it"
    part = lora["trainable"] / entry["base"]["total"]
    trained = f"LoRA trained {part:.1%} of the parameters"
    if math.isnan(share):
        return f"{trained}; so far full fine-tuning has not improved on the base model."
    return (
        f"{trained} and reached {share:.0%} of full fine-tuning's improvement, {side}; "
        "the base model is untouched."
    )


def sample_panels(entry: dict[str, Any]) -> Group:
    """What each model writes after the same prompt, one below the other."""
    if METRICS[entry["metric"]] is EXACT:
        table = Table(title="The likeliest answer", title_justify="left")
        table.add_column("prompt")
        methods = list(next(iter(entry["samples"].values())))
        for method in methods:
            table.add_column(_NAMES[method], style=_STYLES[method])
        for prompt, texts in entry["samples"].items():
            table.add_row(Text(prompt), *(Text(texts[m]) for m in methods))
        return Group(table)
    return Group(
        *(
            Panel(
                Text(prompt + text), title=_NAMES[method], title_align="left", style=_STYLES[method]
            )
            for prompt, texts in entry["samples"].items()
            for method, text in texts.items()
        )
    )


def print_comparison(entry: dict[str, Any], console: Console) -> None:
    methods = {run["method"] for run in entry["runs"]}
    print_table(compare_table(entry) if len(methods) <= 3 else methods_table(entry), console)
    if {"full", "lora"} <= methods:
        console.print(summary(entry), style="bold")
    console.print(sample_panels(entry))


_LINEAR = ("linear", "lora_linear", "matmul")  # matmul: x A B beside x W, with dropout
_UPDATE = ("AdamW.step", "clip_grad_norm")


def print_profile(result: dict[str, Any], console: Console) -> None:
    """Both methods in one table, or on a narrow console one below the other; then in words."""
    tables = [profile_table(result, ["full", "lora"])]
    if not fits(tables[0], console):
        tables = [profile_table(result, [method]) for method in ("full", "lora")]
    for table in tables:
        print_table(table, console)
    for sentence in profile_summary(result):
        console.print(sentence, style="bold")


def profile_table(result: dict[str, Any], methods: list[str]) -> Table:
    """A row per op, the costliest first; for each method, what it costs in one step."""
    r = result["lora"]["r"]
    names = " and ".join(LABELS[m] + (f" (rank {r})" if m == "lora" else "") for m in methods)
    size = f"{result['batch']} x {result['length']} tokens, mean of {result['steps']} steps"
    table = Table(
        title=escape(f"{result['model']}, {names}: {size}"),
        caption="Per step. MiB: results and gradients. GFLOP/s: of the matrix products. "
        "Under fwd stand the Python that leads to an op, and the time of AdamW.step and "
        "clip_grad_norm. Between ops: the walk through the graph, adding up gradients, and "
        "the stopwatches.",
        title_justify="left",
        caption_justify="left",
        box=box.SIMPLE_HEAD,
        show_edge=False,
        padding=0,
    )
    table.add_column("op", no_wrap=True)
    for method in methods:
        short = {"full": "full", "lora": "LoRA"}[method]
        for name in ("calls", "fwd ms", "bwd ms", "MiB", "GFLOP/s", "share"):
            style = _STYLES[method]
            table.add_column(f"{short}\n{name}", style=style, justify="right", no_wrap=True)
    rows = [row for row in result["rows"] if any(row[m] for m in methods)]
    rows.sort(key=lambda row: sum(row[m]["share"] for m in methods if row[m]), reverse=True)
    for row in rows:
        table.add_row(row["op"], *(cell for m in methods for cell in _cost_cells(row[m])))
    table.add_section()
    between, whole = [], []
    for m in methods:
        seconds, outside = (result["methods"][m][k] for k in ("seconds", "seconds_between_ops"))
        between += ["", "", "", "", "", f"{outside / seconds:.1%}"]
        used = [row[m] for row in rows if row[m]]
        total = {key: sum(costs[key] for costs in used) for key in used[0]} | {"share": 1.0}
        whole += _cost_cells(total, seconds)
    table.add_row("between ops", *between)
    table.add_row("whole step", *whole)
    return table


def _cost_cells(costs: dict[str, float] | None, seconds: float | None = None) -> list[str]:
    """One op's costs. `seconds` are those by which its operations are divided, if not its own."""
    if costs is None:
        return ["–"] * 6
    seconds = seconds or costs["forward_seconds"] + costs["backward_seconds"]
    flops = costs["forward_flops"] + costs["backward_flops"]
    return [
        f"{costs['calls']:.0f}",
        _milliseconds(costs["forward_seconds"]),
        _milliseconds(costs["backward_seconds"]) if costs["backward_seconds"] else "–",
        f"{costs['bytes'] / 2**20:.1f}" if costs["bytes"] else "–",
        f"{flops / seconds / 1e9:.1f}" if flops else "–",
        f"{costs['share']:.1%}" if costs["share"] < 1 else "100%",
    ]


def _milliseconds(seconds: float) -> str:
    return f"{1e3 * seconds:.2f}" if seconds < 0.1 else f"{1e3 * seconds:.0f}"


def profile_summary(result: dict[str, Any]) -> list[str]:
    """Where LoRA's step is shorter than full fine-tuning's and where it is not, in two sentences.

    "Shorter" is at least 15 % less of a part, and 1 % of the step; below that it may be chance.
    """

    def total(method: str, ops: tuple[str, ...], *keys: str) -> float:
        rows = [row[method] for row in result["rows"] if row["op"] in ops and row[method]]
        return sum(costs[key] for costs in rows for key in keys)

    def both(ops: tuple[str, ...], *keys: str) -> tuple[float, float]:
        return total("full", ops, *keys), total("lora", ops, *keys)

    forward, backward = "forward_seconds", "backward_seconds"
    flops = both(_LINEAR, "backward_flops")
    no_dW = f", {flops[1] / flops[0]:.0%} of the floating-point operations: no dW of frozen weights"
    parts = [
        ("backward of the linear layers", both(_LINEAR, backward), " of the time" + no_dW),
        (" and ".join(_UPDATE), both(_UPDATE, forward), ""),
        ("forward of the linear layers", both(_LINEAR, forward), ": x W as in full, then A and B"),
    ]
    named = {*_LINEAR, *_UPDATE}
    parts += [
        (row["op"], both((row["op"],), forward, backward), "")
        for row in result["rows"]
        if row["op"] not in named
    ]
    step = [result["methods"][m]["seconds"] for m in ("full", "lora")]
    saves, same = [], []
    for name, (full, lora), note in parts:
        if lora < 0.85 * full and full - lora >= 0.01 * step[0]:
            saves.append(f"{name} ({lora / full:.0%}{note})")
        elif full >= 0.02 * step[0]:
            same.append(f"{name} ({lora / full:.0%}{note})")
        elif lora >= 0.02 * step[0]:
            same.append(f"{name} ({1e3 * lora:.2f} ms instead of {1e3 * full:.2f})")
    return [
        f"LoRA's step takes {step[1] / step[0]:.0%} of full fine-tuning's ({1e3 * step[1]:.1f} of "
        f"{1e3 * step[0]:.1f} ms). It saves in: {'; '.join(saves) or 'nothing'}.",
        f"It does not save in: {'; '.join(same) or 'nothing'}.",
    ]
