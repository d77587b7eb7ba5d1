"""Commands that only look: params, profile, doctor."""

from __future__ import annotations

import argparse
import json

import numpy as np
from rich.table import Table

from minilora.analysis.profiler import profile_methods
from minilora.cli import doctor
from minilora.cli.options import lora_options
from minilora.cli.terminal.console import Console
from minilora.cli.terminal.output import machine, prepare_folder
from minilora.cli.terminal.tables import print_profile, print_table
from minilora.experiments.tasks import TEXT_LORA
from minilora.experiments.tuning import adjust
from minilora.hub import load_model
from minilora.lora import add_adapter, lora_layers
from minilora.methods.trainable import count_parameters
from minilora.plots import counts_figure, profile_figure, save_figure


def run_profile(args: argparse.Namespace) -> None:
    if args.out:
        prepare_folder(args.out)
    config = adjust(TEXT_LORA, **lora_options(args))
    sizes = (args.batch, args.length, args.steps)
    result = profile_methods(load_model(args.model), config, *sizes, quiet=args.json)
    about = {"model": args.model, "command": args.command_line, "machine": machine()}
    result = about | result
    if args.out:
        save_figure(profile_figure(result), args.out / "profile.png")
    if args.json:
        print(json.dumps(result))
    else:
        print_profile(result, Console())


def run_params(args: argparse.Namespace) -> None:
    config = adjust(TEXT_LORA, **lora_options(args))
    if args.out:
        prepare_folder(args.out)
    if args.shapes:
        matrices = [(f"{n} x {m}", n, m, config.r, args.times) for n, m in args.shapes]
        total, whole = sum(n * m * args.times for n, m in args.shapes), "all these"
        title = f"LoRA of rank {config.r}: r (d_in + d_out) numbers per matrix"
    else:
        model = load_model(args.model)
        total, whole = count_parameters(model)[1], "the whole model"
        add_adapter(model, config, rng=np.random.default_rng(0))
        matrices = [
            (path, *layer.base.weight.shape, layer.adapters["default"].A.shape[1], 1)
            for path, layer in lora_layers(model).items()
        ]
        title = f"LoRA of rank {config.r} on {args.model}: r (d_in + d_out) numbers per matrix"
    table = Table(title=title, title_justify="left")
    for name in ("matrix", "d_in x d_out", "full", "LoRA", "share"):
        table.add_column(name, justify="left" if name == "matrix" else "right")
    rows = []
    for name, d_in, d_out, r, times in matrices:
        full, lora = d_in * d_out * times, r * (d_in + d_out) * times
        shape = f"{d_in} x {d_out}" + (f" ({times} times)" if times > 1 else "")
        table.add_row(name, shape, f"{full:,}", f"{lora:,}", f"{lora / full:.2%}")
        rows.append({"model": name, "total": full, "trainable": lora, "share": lora / full})
    trained = sum(row["trainable"] for row in rows)
    table.add_section()
    table.add_row(whole, "", f"{total:,}", f"{trained:,}", f"{trained / total:.2%}")
    print_table(table, Console(markup=False))  # brackets in a folder's name are brackets
    if args.out:
        share = trained / total
        rows.append({"model": whole, "total": total, "trainable": trained, "share": share})
        save_figure(counts_figure(rows, f"LoRA, r = {config.r}"), args.out / "params.png")
        print(f"Written to {args.out}: params.png.")


def run_doctor(args: argparse.Namespace) -> int:
    report = doctor.examine()
    table = Table(show_header=False)
    for check in report:
        mark = {True: "ok", False: "MISSING", None: "optional"}[check.ok]
        table.add_row(check.name, mark, check.found)
    print_table(table, Console(markup=False))  # brackets in a folder's name are brackets
    for check in report:
        if check.remedy:
            print(f"{check.name}: {check.remedy}")
    return int(any(check.ok is False for check in report))
