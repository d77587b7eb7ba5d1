"""Commands that train a model, or let it write: compare, finetune, generate, pretrain.

Each reads its options, calls the package and prints: results to standard output, progress to
standard error.
"""

from __future__ import annotations

import argparse
import json
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
from rich.console import Console

import minilora
from minilora.cli.options import QUICK_STEPS, RESULTS, lora_options
from minilora.cli.output import machine, make_folder, say
from minilora.cli.tables import human_bytes, print_comparison
from minilora.experiments.comparison import compare, folder_name, forget
from minilora.experiments.costs import disk_bytes
from minilora.experiments.rows import save_json
from minilora.experiments.tasks import BASE_MODELS, TASKS, load_task, new_model
from minilora.experiments.tuning import set_up
from minilora.hub import load_adapter, load_model, save_adapter, save_model
from minilora.methods.trainable import print_trainable_parameters
from minilora.plots import compare_figure, save_figure
from minilora.system.errors import UsageError
from minilora.text.alphabet import decode, encode, to_alphabet
from minilora.text.sampling import generate
from minilora.training.loop import run, train


def run_compare(args: argparse.Namespace) -> None:
    names = TASKS if args.task == "all" else [args.task]
    tasks = [load_task(args.text)] if args.text else [load_task(name) for name in names]
    make_folder(args.out)
    _say_what_is_replaced(args.out / "results.json")
    rates = {"full": args.full_lr, "lora": args.lr}
    entries = [
        compare(
            task,
            args.out,
            methods=args.methods,
            seeds=range(args.seed, args.seed + args.seeds),
            rates={method: rate for method, rate in rates.items() if rate is not None},
            steps=QUICK_STEPS if args.quick and args.steps is None else args.steps,
            threads=args.threads,
            quiet=args.json,
            say=say,
            **lora_options(args),
        )
        for task in tasks
    ]
    results = {
        "version": minilora.__version__,
        "command": args.command_line,
        "machine": machine(),
        "tasks": entries,
    }
    save_json(results, args.out / "results.json")
    for task, entry in zip(tasks, entries, strict=True):
        save_figure(compare_figure(entry), args.out / f"{entry['task']}.png")
        forget(task, args.out)
    if args.json:
        print(json.dumps(results))
        return
    console = Console()
    for entry in entries:
        print_comparison(entry, console)
    if args.quick:
        steps = entries[0]["runs"][0]["steps"]
        print(f"These were {steps} steps, to see it work; leave out --quick for the real ones.")
    saved = [folder_name(task, method) for task in tasks for method in args.methods]
    saved = [name for name in saved if (args.out / name).is_dir()]
    print(f"Written to {args.out}: {', '.join(['results.json', 'the figures (.png)', *saved])}")


def _say_what_is_replaced(results: Path) -> None:
    """An earlier comparison in this folder goes; its adapters too, where the names are the same."""
    with suppress(OSError, ValueError, KeyError, TypeError):  # then it is no comparison
        before = json.loads(results.read_text("utf-8"))["command"]
        say(f"{results} of an earlier `{before}` will be replaced; --out keeps both")


def run_finetune(args: argparse.Namespace) -> None:
    task = load_task(args.text)
    out = args.out or RESULTS / folder_name(task, args.method)
    make_folder(out)
    checkpoint = out / "checkpoint.safetensors"
    tuned = set_up(
        task,
        args.method,
        args.seed,
        lr=args.lr,
        steps=args.steps,
        checkpoint=checkpoint,
        **lora_options(args),
    )
    print_trainable_parameters(tuned.model)
    run([tuned.training], args.threads)
    (save_adapter if args.method == "lora" else save_model)(tuned.model, out)
    checkpoint.unlink()
    before, after = (task.metric.format.format(task.test(m)) for m in (tuned.base, tuned.model))
    print(f"{task.metric.unit} on the text's last twentieth: {before} → {after}")
    option = "--adapter" if args.method == "lora" else "--model"
    print(f"Saved {human_bytes(disk_bytes(tuned.model))}. Try: minilora generate {option} {out}")


def run_generate(args: argparse.Namespace) -> None:
    model = load_model(args.model)
    if args.adapter:
        load_adapter(model, args.adapter)
    prompt = to_alphabet(args.prompt)
    if not prompt:
        raise UsageError("the prompt has no character that the model knows (printable ASCII)")
    before = iter([prompt])  # shown with the first token, so not if the options are wrong
    generate(
        model,
        encode(prompt)[None],
        args.tokens,
        temperature=args.temperature,
        top_k=args.top_k,
        top_p=args.top_p,
        rng=np.random.default_rng(args.seed),
        on_token=lambda new: print(next(before, "") + decode(new), end="", flush=True),
    )
    print()


def run_pretrain(args: argparse.Namespace) -> None:
    unknown = [name for name in args.names if name not in BASE_MODELS]
    if unknown:
        raise UsageError(f"there is no base model {unknown[0]!r}; use: {', '.join(BASE_MODELS)}")
    for name in args.names or BASE_MODELS:
        base, folder = BASE_MODELS[name], args.out / name
        config = replace(base.training, steps=args.steps or base.training.steps)
        config = config if args.seed is None else replace(config, seed=args.seed)
        make_folder(folder)
        data = base.data()
        model, checkpoint = new_model(base, config.seed), folder / "checkpoint.safetensors"
        history = train(
            model,
            data.batch,
            config,
            args.threads,
            name=name,
            evaluate=partial(data.quality, split="val"),
            evaluate_every=250,
            checkpoint=checkpoint,
        )
        save_model(model, folder, dtype=np.float16)
        stored = load_model(folder)
        losses = np.array(history.losses)
        log = {
            "command": args.command_line,
            "version": minilora.__version__,
            "machine": machine(),
            "metric": data.metric.name,
            "val": data.quality(stored, "val"),
            "test": data.quality(stored, "test"),
            "val_by_step": history.evaluations,
            "mean_loss_of_10_steps": [
                round(float(part.mean()), 4)
                for part in np.split(losses, range(10, len(losses), 10))
            ],
        }
        save_json(log, folder / "training.json")
        checkpoint.unlink()
        val, test = (data.metric.format.format(log[split]) for split in ("val", "test"))
        print(f"{name}: {data.metric.unit} {val} (val), {test} (test) → {folder}")
