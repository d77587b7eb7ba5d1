"""The comparison as a table in the terminal; the numbers are those of results.json.

Imports compare.py.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from statistics import mean
from typing import Any

from rich.console import Console, Group
from rich.markup import escape
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from minilora.compare import METHODS

_NAMES = {"base": "base model"} | METHODS
_STYLES = {"base": "", "full": "blue", "lora": "yellow", "scratch": "dim"}


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
    first, seeds = entry["runs"][0], len(runs[methods[0]])
    note = "1 seed" if seeds == 1 else f"mean of {seeds} seeds, lowest to highest"
    better = "higher" if entry["higher_is_better"] else "lower"
    table = Table(
        title=escape(f"{entry['about']}: {first['steps']} steps, {note}"),
        caption=f"Quality on the test split: {entry['metric']}, {better} is better.",
        title_justify="left",
        caption_justify="left",
    )
    table.add_column("", no_wrap=True)
    for method in methods:
        table.add_column(_NAMES[method], style=_STYLES[method], justify="right")

    def row(label: str, key: str, form: Callable[[float], str]) -> None:
        table.add_row(label, *(_spread(runs[m], key, form) for m in methods))

    row("learning rate", "lr", lambda v: f"{v:g}")
    row("trainable parameters", "trainable_params", lambda v: f"{v:,.0f}")
    base_size = runs["full"][0]["total_params"]
    row("  of the base's", "trainable_params", lambda v: f"{v / base_size:.1%}")
    row("optimizer state", "optimizer_bytes", human_bytes)
    row("on disk", "disk_bytes", human_bytes)
    row("peak memory of a step", "peak_memory_bytes", human_bytes)
    row("time per step", "seconds_per_step", lambda v: f"{1000 * v:.1f} ms")
    table.add_section()
    for label, key in (("new task", "new"), ("old task", "old")):
        before = quality(entry["base"][key])
        table.add_row(label, *(
            ("" if m == "scratch" else f"{before} → ") + _spread(runs[m], f"{key}_after", quality)
            for m in methods
        ))  # fmt: skip
    detached = (_detached(runs[m], entry["base"]["old"], quality) for m in methods)
    table.add_row("  adapter detached", *detached)
    return table


def _quality(entry: dict[str, Any]) -> Callable[[float], str]:
    return (lambda v: f"{v:.1%}") if entry["higher_is_better"] else (lambda v: f"{v:.3f}")


def _detached(runs: list[dict[str, Any]], base: float, quality: Callable[[float], str]) -> str:
    values = [run["old_detached"] for run in runs]
    if None in values:
        return "–"
    same = all(value == base for value in values)
    return f"{quality(base)} = the base" if same else _spread(runs, "old_detached", quality)


def improvement(entry: dict[str, Any]) -> tuple[float, float]:
    """LoRA's share of full fine-tuning's improvement on the new task (NaN if it has not improved),
    and how far it is short of it, in the task's unit; means over seeds."""
    after = {
        method: mean(run["new_after"] for run in entry["runs"] if run["method"] == method)
        for method in ("full", "lora")
    }
    start = entry["base"]["new"]
    gained = after["full"] - start
    improved = gained > 0 if entry["higher_is_better"] else gained < 0
    share = (after["lora"] - start) / gained if improved else math.nan
    return share, abs(after["full"] - after["lora"])


def summary(entry: dict[str, Any]) -> str:
    """One sentence with what was measured."""
    lora = next(run for run in entry["runs"] if run["method"] == "lora")
    full = next(run for run in entry["runs"] if run["method"] == "full")
    share, short = improvement(entry)
    unit = f"{100 * short:.1f} points" if entry["higher_is_better"] else f"{short:.2f} nats"
    side = "ahead of it" if share > 1 else "short of it"
    part = lora["trainable_params"] / full["total_params"]
    trained = f"LoRA trained {part:.1%} of the parameters"
    if math.isnan(share):
        return f"{trained}; so far full fine-tuning has not improved on the base model."
    return (
        f"{trained} and reached {share:.0%} of full fine-tuning's improvement, {unit} {side}; "
        "the base model is untouched."
    )


def sample_panels(entry: dict[str, Any]) -> Group:
    """What each model writes after the same prompt, one below the other."""
    if entry["higher_is_better"]:
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
    console.print(compare_table(entry))
    console.print(summary(entry), style="bold")
    console.print(sample_panels(entry))
