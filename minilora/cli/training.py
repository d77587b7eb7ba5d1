"""Commands that train a model: compare, finetune, pretrain.

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
from typing import Any, TypedDict

import numpy as np

import minilora
from minilora.cli.options import QUICK_STEPS, RESULTS, lora_options
from minilora.cli.terminal.console import Console
from minilora.cli.terminal.output import machine, prepare_folder, say, suggest
from minilora.cli.terminal.plain import harmless
from minilora.cli.terminal.tables import human_bytes, print_comparison
from minilora.experiments.comparison import compare, folder_name, forget
from minilora.experiments.own_data import PAIRS, own_task
from minilora.experiments.rows import save_json
from minilora.experiments.tasks import (
    BASE_MODELS,
    TASKS,
    ExampleData,
    Task,
    load_task,
    new_model,
)
from minilora.experiments.tuning import Tuned, set_up
from minilora.generation.answers import answer
from minilora.generation.sampling import write
from minilora.hub import load_model, save_adapter, save_model
from minilora.hub.safetensors_files import ADAPTER_FILES, MODEL_FILES
from minilora.hub.tokenizers import reads_symbols, save_tokenizer
from minilora.methods.registry import LABELS
from minilora.methods.trainable import print_trainable_parameters
from minilora.plots import compare_figure, save_figure
from minilora.system.errors import UsageError
from minilora.system.readers import read_json
from minilora.training.loop import Training, run

LOG = "training.json"  # stands beside a model or an adapter that was made here
_SAVE_EVERY = {"lora": 4, "full": 24}  # steps of a real model, of which each takes seconds
_SHOWN = 60  # tokens of what a real model says before and after


def run_compare(args: argparse.Namespace) -> None:
    names = TASKS if args.task == "all" else [args.text or args.task or "code"]
    tasks = [load_task(name) for name in names]
    folders = {(t.name, m): args.out / folder_name(t, m) for t in tasks for m in args.methods}
    logs = {folder: _log(args, name) for (name, _), folder in folders.items()}
    prepare_folder(args.out)
    _look_at_what_is_there(logs, args.out / "results.json")
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
    saved = [folder for folder in folders.values() if folder.is_dir()]
    for folder in saved:
        save_json(logs[folder], folder / LOG)
    for task, entry in zip(tasks, entries, strict=True):
        save_figure(compare_figure(entry), args.out / f"{entry['task']}.png")
        forget(task, args.out)
    if args.json:
        print(json.dumps(results))
        return
    for entry in entries:
        print_comparison(entry, Console())
    if args.quick:
        steps = entries[0]["runs"][0]["steps"]
        print(f"These were {steps} steps, to see it work; leave out --quick for the real ones.")
    written = ["results.json", *(f"{task.name}.png" for task in tasks)]
    written += [folder.name for folder in saved]
    print(f"Written to {args.out}: {', '.join(written)}.")
    methods = [m for m in args.methods if folders[tasks[0].name, m] in saved]
    if unsaved := [LABELS[m] for m in args.methods if m not in methods]:
        print(f"Measured, but not saved: {', '.join(unsaved)}.")
    if methods:
        shown = "lora" if "lora" in methods else methods[0]
        print(_generating(folders[tasks[0].name, shown], shown, tasks[0]))


def _log(args: argparse.Namespace, task: str) -> dict[str, Any]:
    """What stands beside a tuned model: what it was made of, and with which command."""
    about = {"command": args.command_line, "version": minilora.__version__, "machine": machine()}
    return about | {"task": str(args.text.resolve()) if args.text else task}


def _look_at_what_is_there(logs: dict[Path, dict[str, Any]], *files: Path) -> None:
    """Raise ValueError if one of these folders is of another text, as notes-lora may be of another
    notes.txt; say what will be replaced."""
    replaced = [str(file) for file in files if file.exists()]
    for folder, log in logs.items():
        before = _logged_task(folder)
        if before not in (None, log["task"]):
            raise UsageError(f"{folder} is of {before}; choose another folder with --out")
        if before or any((folder / name).exists() for name in (MODEL_FILES[1], ADAPTER_FILES[1])):
            replaced.append(str(folder))
    if replaced:
        say(f"will be replaced (another --out keeps them): {', '.join(replaced)}")


class _Log(TypedDict):
    task: str


def _logged_task(folder: Path) -> str | None:
    with suppress(OSError, UsageError):  # then there is no log
        return read_json(folder / LOG, _Log)["task"]
    return None


def _generating(folder: Path, method: str, task: Task) -> str:
    option = "--model" if method == "full" else "--adapter"
    going_on = ["--prompt", task.prompts[0]] if task.prompts else ["--chat"]
    return suggest("generate", option, folder, *going_on)


def run_finetune(args: argparse.Namespace) -> None:
    task = _task(args)
    out = args.out or RESULTS / folder_name(task, args.method)
    prepare_folder(out)
    log = _log(args, task.name)
    _look_at_what_is_there({out: log})
    checkpoint = out / "checkpoint.safetensors"
    real = isinstance(task.data, ExampleData)
    tuned = set_up(
        task,
        args.method,
        args.seed,
        lr=args.lr,
        steps=args.steps,
        checkpoint=checkpoint,
        save_every=_SAVE_EVERY[args.method] if real else 100,
        **lora_options(args),
    )
    if isinstance(task.data, ExampleData):
        say(f"{task.name}: {task.data.about}")
    print_trainable_parameters(tuned.model)
    run([tuned.training], args.threads, say=say)
    (save_adapter if args.method == "lora" else save_model)(tuned.model, out)
    if task.tokenizer and args.method == "full":
        save_tokenizer(task.tokenizer, out)
    save_json(log, out / LOG)
    checkpoint.unlink(missing_ok=True)  # another may have ended here too
    before, after = (task.metric.format.format(task.test(m)) for m in (tuned.base, tuned.model))
    if isinstance(task.data, ExampleData):
        print(f"{task.metric.unit} on {task.data.measured_on}: {before} → {after}")
        _show_what_changed(tuned, task.data)
    else:
        print(f"{task.metric.unit} on the text's last twentieth: {before} → {after}")
    files = ADAPTER_FILES if args.method == "lora" else MODEL_FILES
    size = sum((out / name).stat().st_size for name in files)
    print(f"Saved to {out}: {human_bytes(size)}.")
    print(_generating(out, args.method, task))


def _task(args: argparse.Namespace) -> Task:
    """Questions and answers need a real model that chats; a text goes to docs-tiny, unless another
    model is asked for."""
    chats = args.text.suffix.lower() in PAIRS
    model = args.model or ("smollm2" if chats else "docs-tiny")
    if not reads_symbols(model):
        return own_task(model, args.text, args.quantized)
    if args.quantized:
        raise UsageError(f"--quantized is for a .gguf file, such as smollm2's, not for {model}")
    if chats:
        raise UsageError(
            f"{model} continues texts, symbol by symbol, and learns no chats such as {args.text}; "
            "leave out --model, or use --model smollm2"
        )
    return replace(load_task(args.text), base=model)


def _show_what_changed(tuned: Tuned, data: ExampleData) -> None:
    """What the base and the tuned model say, in the likeliest tokens."""
    tokenizer = tuned.task.tokenizer
    assert tokenizer is not None
    asked = data.asked if isinstance(data.asked, str) else data.asked[-1]["content"]
    print(f"\nAsked: {harmless(asked)}")
    for name, model in (("base", tuned.base), (LABELS[tuned.method], tuned.model)):
        if isinstance(data.asked, str):
            text = write(model, asked, _SHOWN, tokenizer=tokenizer, temperature=0)
            text = text.removeprefix(asked)
        else:
            text = answer(model, tokenizer, data.asked, _SHOWN, temperature=0)
        print(f"{name}: {harmless(text).strip()}")
    print()


def run_pretrain(args: argparse.Namespace) -> None:
    unknown = [name for name in args.names if name not in BASE_MODELS]
    if unknown:
        raise UsageError(f"there is no base model {unknown[0]!r}; use: {', '.join(BASE_MODELS)}")
    for name in args.names or BASE_MODELS:
        base, folder = BASE_MODELS[name], args.out / name
        config = replace(base.training, steps=args.steps or base.training.steps)
        config = config if args.seed is None else replace(config, seed=args.seed)
        prepare_folder(folder)
        data = base.data()
        model, checkpoint = new_model(base, config.seed), folder / "checkpoint.safetensors"
        training = Training(
            model,
            data.batch,
            config,
            name=name,
            evaluate=partial(data.quality, split="val"),
            evaluate_every=250,
            checkpoint=checkpoint,
            identity=f"{data.checksum():08x}",
        )
        run([training], args.threads, say=say)
        save_model(model, folder, dtype=np.float16)
        stored = load_model(folder)
        losses = np.array(training.history.losses)
        log = {
            "command": args.command_line,
            "version": minilora.__version__,
            "machine": machine(),
            "metric": data.metric.name,
            "val": data.quality(stored, "val"),
            "test": data.quality(stored, "test"),
            "val_by_step": training.history.evaluations,
            "mean_loss_of_10_steps": [
                round(float(part.mean()), 4)
                for part in np.split(losses, range(10, len(losses), 10))
            ],
        }
        save_json(log, folder / LOG)
        checkpoint.unlink(missing_ok=True)  # another may have ended here too
        val, test = (data.metric.format.format(log[split]) for split in ("val", "test"))
        print(f"{name}: {data.metric.unit} {val} (val), {test} (test) → {folder}")
