"""The command that looks at an adapter without its base model: inspect."""

from __future__ import annotations

import argparse
import json
import math

from rich import box
from rich.markup import escape
from rich.table import Table

from minilora.analysis.inspection import Inspected, Inspection, inspect_adapter
from minilora.cli.terminal.console import Console
from minilora.cli.terminal.plain import plain
from minilora.cli.terminal.tables import human_bytes, print_table
from minilora.plots import inspection_figure, save_figure


def run_inspect(args: argparse.Namespace) -> None:
    found = inspect_adapter(args.folder)
    if args.json:
        print(json.dumps(found.as_dict(), indent=2))
    else:
        print_inspection(found, Console(), every=args.all)
    if args.figure:
        save_figure(inspection_figure(found), args.figure)


def print_inspection(found: Inspection, console: Console, every: bool = False) -> None:
    """What the adapter is, a table of its modules (or with `every` of each single one), which of
    them learned most, and the warnings."""
    for line in _headlines(found):
        console.print(escape(line), highlight=False)
    groups = found.by_kind()
    if every:
        groups = {one.path: [one] for one in found.modules}
    print_table(_table(found, groups, console.encoding), console)
    if found.squared_norm and not every and len(found.modules) > len(groups):
        most = sorted(found.modules, key=lambda one: -found.share(one))[:3]
        learned = ", ".join(f"{one.path} ({100 * found.share(one):.2g} %)" for one in most)
        console.print(escape(f"Learned most: {learned}."), highlight=False)
    for warning in found.warnings:
        console.print(escape(f"Note: {warning}."), style="bold", highlight=False)


def _headlines(found: Inspection) -> list[str]:
    config = found.config
    kind = "DoRA" if config.use_dora else "LoRA"
    rule = "s = alpha / √r" if config.use_rslora else "s = alpha / r"
    return [
        f"{kind} of {found.base or 'a base model that is not recorded'}",
        f"{found.numbers:,} numbers in {human_bytes(found.bytes)}; {rule}",
    ]


def _table(found: Inspection, groups: dict[str, list[Inspected]], encoding: str) -> Table:
    table = Table(
        box=box.SIMPLE_HEAD,
        show_edge=False,
        padding=(0, 1, 0, 0),
        caption=plain(
            "‖ΔW‖: of one module, in the mean. share: of Σ ‖ΔW‖². Of r directions, eff. r are used "
            "(effective rank), and k90 hold 90 % of ‖ΔW‖², in the mean.",
            encoding,
        ),
        caption_justify="left",
    )
    table.add_column("module", no_wrap=True)
    for name in ("n", "d_in x d_out", "r", "s", "‖ΔW‖", "share", "eff. r", "k90"):
        table.add_column(plain(name, encoding), justify="right")
    for name, modules in groups.items():
        measured = [one for one in modules if one.singular_values]
        table.add_row(
            escape(name),
            str(len(modules)),
            _values(f"{one.d_in} x {one.d_out}" for one in modules),
            _values(f"{one.r}" for one in modules),
            _values(f"{one.s:.3g}" for one in modules),
            _mean(measured, "norm", ".3g"),
            f"{found.share(*modules):.1%}",
            _mean(measured, "effective_rank"),
            _mean(measured, "k90"),
        )
    return table


def _values(texts: object) -> str:
    """What all have, or the first and how many others there are."""
    distinct = list(dict.fromkeys(texts))  # type: ignore[call-overload]
    return distinct[0] if len(distinct) == 1 else f"{distinct[0]} and {len(distinct) - 1} more"


def _mean(modules: list[Inspected], measure: str, form: str = ".1f") -> str:
    values = [getattr(one, measure) for one in modules]
    return format(math.fsum(values) / len(values), form) if values else "NaN"
