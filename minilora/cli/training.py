"""Commands that train a model, or let it write: compare, finetune, generate, pretrain.

Each reads its options, calls the package and prints: results to standard output, progress to
standard error.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from typing import Any

import numpy as np
from rich.console import Console

import minilora
from minilora.cli.options import QUICK_STEPS, RESULTS
from minilora.cli.output import machine, make_folder, say, write_json
from minilora.cli.tables import human_bytes, print_comparison
from minilora.experiments.comparison import Settings, compare, disk_bytes, forget
from minilora.experiments.tasks import BASE_MODELS, TASKS, Task, load_task, new_model, text_task
from minilora.hub import load_adapter, load_model, save_adapter, save_model
from minilora.lora import add_adapter
from minilora.lora_config import LoraConfig
from minilora.methods.registry import print_trainable_parameters
from minilora.plots import compare_figure, save_figure
from minilora.system.errors import UsageError
from minilora.text.alphabet import decode, encode, to_alphabet
from minilora.text.corpora import load_text
from minilora.text.sampling import generate
from minilora.training.loop import TrainConfig, train


def _lora_config(args: argparse.Namespace, start: LoraConfig) -> LoraConfig:
    """`start` with what the user asked for. Changing only the rank keeps alpha / r, or with rsLoRA
    (the string tasks) alpha."""
    changed: dict[str, Any] = {}
    if args.rank is not None:
        changed["r"] = args.rank
        if not start.use_rslora:
            changed["lora_alpha"] = start.lora_alpha * args.rank / start.r
    if args.alpha is not None:
        changed["lora_alpha"] = args.alpha
    if args.targets is not None:
        all_linear = args.targets == "all-linear"
        changed["target_modules"] = (
            args.targets if all_linear else [name.strip() for name in args.targets.split(",")]
        )
    return replace(start, **changed)


def run_compare(args: argparse.Namespace) -> None:
    tasks = _tasks(args)
    make_folder(args.out)
    entries = []
    for task in tasks:
        settings = Settings(
            _lora_config(args, task.lora),
            args.full_lr,
            args.lr,
            QUICK_STEPS if args.quick and args.steps is None else args.steps,
        )
        seeds = list(range(args.seed, args.seed + args.seeds))
        options = {"threads": args.threads, "quiet": args.json, "say": say}
        entry = compare(task, seeds, args.out, settings, methods=args.methods, **options)
        entries.append(entry)
    results = {
        "version": minilora.__version__,
        "command": args.command_line,
        "machine": machine(),
        "tasks": entries,
    }
    write_json(args.out / "results.json", results)
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
    saved = [f"{task.name}-{m}" for task in tasks for m in args.methods]
    saved = [name for name in saved if (args.out / name).is_dir()]
    print(f"Written to {args.out}: {', '.join(['results.json', 'the figures (.png)', *saved])}")


def _tasks(args: argparse.Namespace) -> list[Task]:
    if args.text:
        return [text_task(load_text(args.text))]
    return [load_task(name) for name in (TASKS if args.task == "all" else [args.task])]


def run_finetune(args: argparse.Namespace) -> None:
    task = text_task(load_text(args.text))
    out = args.out or RESULTS / f"{args.text.stem}-{args.method}"
    make_folder(out)
    model = load_model(task.base)
    before = task.test(model)
    if args.method == "lora":
        rng = np.random.default_rng((args.seed, 0))
        add_adapter(model, _lora_config(args, task.lora), rng=rng)
    print_trainable_parameters(model)
    lr = task.lr[args.method] if args.lr is None else args.lr
    config = TrainConfig(args.steps or task.steps, lr, seed=args.seed)
    checkpoint = out / "checkpoint.safetensors"
    train(model, task.batch, config, args.threads, name=args.method, checkpoint=checkpoint)
    (save_adapter if args.method == "lora" else save_model)(model, out)
    checkpoint.unlink()
    print(f"{task.metric} on the text's last twentieth: {before:.3f} → {task.test(model):.3f}")
    option = "--adapter" if args.method == "lora" else "--model"
    print(f"Saved {human_bytes(disk_bytes(model))}. Try: minilora generate {option} {out}")


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
        batch, val, test = base.data()
        model, checkpoint = new_model(base, config.seed), folder / "checkpoint.safetensors"
        history = train(
            model,
            batch,
            config,
            args.threads,
            name=name,
            evaluate=val,
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
            "metric": base.metric,
            "val": val(stored),
            "test": test(stored),
            "val_by_step": history.evaluations,
            "mean_loss_of_10_steps": [
                round(float(part.mean()), 4)
                for part in np.split(losses, range(10, len(losses), 10))
            ],
        }
        write_json(folder / "training.json", log)
        checkpoint.unlink()
        print(f"{name}: {base.metric} {log['val']:.3f} (val), {log['test']:.3f} (test) → {folder}")
