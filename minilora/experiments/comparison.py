"""Full fine-tuning beside LoRA: same base model, same batches, same seed, then every cost measured.

A third run trains the same architecture from random weights, to show what the base is worth; any
other method of methods.py can be added. `compare` returns one entry of results.json: plain numbers,
from which the table and the figure are made elsewhere. Imports floors 0 to 4.
"""

from __future__ import annotations

import copy
import tempfile
import tracemalloc
import zlib
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from glob import escape
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save

from minilora.experiments.tasks import BASE_MODELS, EXACT, Task, new_model
from minilora.functional import cross_entropy
from minilora.hub import load_model, save_adapter, save_model
from minilora.lora import active_adapter, disable_adapter
from minilora.lora_config import LoraConfig
from minilora.methods.registry import LABELS, METHODS, count_parameters
from minilora.optim import AdamW
from minilora.text.alphabet import decode, encode
from minilora.text.sampling import generate
from minilora.training.loop import TrainConfig, Training, run
from minilora.transformer import Transformer

DEFAULT_METHODS = ("full", "lora", "scratch")
EVALUATIONS = 12  # points of a learning curve


@dataclass(frozen=True)
class Settings:
    """What a user may change of a task's recipe; None leaves it as it is."""

    lora: LoraConfig | None = None
    lr_full: float | None = None
    lr_lora: float | None = None
    steps: int | None = None


def compare(
    task: Task,
    seeds: list[int],
    out: Path,
    settings: Settings | None = None,
    threads: int | None = None,
    quiet: bool = False,
    say: Callable[[str], None] = lambda text: None,
    methods: Sequence[str] = DEFAULT_METHODS,
) -> dict[str, Any]:
    """Train the base model of `task` with each method (of LABELS) and each seed, and measure.

    Returns {"task", "about", "metric", "higher_is_better", "base", "runs", "samples"}. Checkpoints
    are kept in `out` until `forget`, so that the same call goes on where it was interrupted and
    repeats no finished run. Of the first seed the fully tuned model is saved in `out`, and every
    adapter (LoRA's and its kin's).
    """
    settings = settings or Settings()
    base = load_model(task.base)
    entry: dict[str, Any] = {
        "task": task.name,
        "about": task.about,
        "metric": task.metric,
        "higher_is_better": task.higher_is_better,
        "base": {
            "new": task.test(base),
            "old": task.old(base),
            "params": count_parameters(base)[1],
        },
        "runs": [],
    }
    for seed in seeds:
        say(f"{task.name}, seed {seed}: {', '.join(LABELS[method] for method in methods)}")
        models = {method: _prepare(task, base, method, seed, settings) for method in methods}
        trainings = {
            method: _training(task, model, method, seed, settings, out)
            for method, model in models.items()
        }
        peaks = {method: step_memory(t) for method, t in trainings.items()}
        run(list(trainings.values()), threads, quiet)
        say("measuring on the test split, and saving")
        entry["runs"] += [
            _measure(task, t, method, seed) | {"peak_memory_bytes": peaks[method]}
            for method, t in trainings.items()
        ]
        if seed == seeds[0]:
            entry["samples"] = samples(task, {"base": base, **models}, seed)
            for method, model in models.items():
                if active_adapter(model):
                    save_adapter(model, out / f"{task.name}-{method}")
                elif method == "full":
                    save_model(model, out / f"{task.name}-full")
    return entry


def forget(task: Task, out: Path) -> None:
    """Remove the checkpoints of a task, once its results are safe: the next call starts anew."""
    for checkpoint in _checkpoints(out).glob(f"{escape(task.name)}-*"):
        checkpoint.unlink()
    with suppress(OSError):  # other tasks' may be there
        _checkpoints(out).rmdir()


def _prepare(
    task: Task, base: Transformer, method: str, seed: int, settings: Settings
) -> Transformer:
    if method == "scratch":
        return new_model(BASE_MODELS[task.base], seed)
    model = copy.deepcopy(base)
    METHODS[method].prepare(model, settings.lora or task.lora, np.random.default_rng((seed, 0)))
    return model


def _training(
    task: Task, model: Transformer, method: str, seed: int, settings: Settings, out: Path
) -> Training:
    # From scratch: the rate at which the base model itself was trained.
    lr = BASE_MODELS[task.base].training.lr if method == "scratch" else task.lr[method]
    chosen = {"lora": settings.lr_lora, "full": settings.lr_full}.get(method)
    lr = lr if chosen is None else chosen
    ratio = METHODS[method].loraplus_lr_ratio if method in METHODS else 1
    steps = settings.steps or task.steps
    config = TrainConfig(steps=steps, lr=lr, seed=seed, loraplus_lr_ratio=ratio)
    identity = zlib.crc32(repr((config, settings.lora or task.lora)).encode())
    return Training(
        model,
        task.batch,
        config,
        name=LABELS[method],
        evaluate=task.val,
        evaluate_every=max(1, config.steps // EVALUATIONS),
        checkpoint=_checkpoints(out) / f"{task.name}-{method}-{seed}-{identity:08x}.safetensors",
    )


def _checkpoints(out: Path) -> Path:
    return out / "checkpoints"


def step_memory(training: Training) -> int:
    """Bytes at the highest point of a training step, beyond the model's own weights: activations,
    gradients, and AdamW's moments and working arrays. Taken on a copy, with tracemalloc, for the
    whole batch at once, which is also what two threads with half of it each come to."""
    ids, targets = training.batch(np.random.default_rng(training.config.seed))
    tracemalloc.start()
    try:
        twin = copy.deepcopy(training.model)
        weights = tracemalloc.get_traced_memory()[0]
        optimizer = AdamW(twin.trainable_parameters())
        cross_entropy(twin(ids), targets).backward()
        optimizer.step()
        return tracemalloc.get_traced_memory()[1] - weights
    finally:
        tracemalloc.stop()


def _measure(task: Task, training: Training, method: str, seed: int) -> dict[str, Any]:
    model, history = training.model, training.history
    trainable, total = count_parameters(model)
    detached = None
    if active_adapter(model):
        with disable_adapter(model):
            detached = task.old(model)
    return {
        "method": method,
        "seed": seed,
        "lr": training.config.lr,
        "steps": training.config.steps,
        "trainable_params": trainable,
        "total_params": total,
        "optimizer_bytes": training.optimizer.state_bytes,
        "disk_bytes": disk_bytes(model),
        "seconds_per_step": history.seconds_per_step,
        "new_after": task.test(model),
        "old_after": task.old(model),
        "old_detached": detached,
        "losses": [round(loss, 4) for loss in history.losses],
        "evaluations": history.evaluations,
    }


def disk_bytes(model: Transformer) -> int:
    """Size of what has to be kept of a tuned model: its adapter as PEFT's files, a model all of
    which was trained as Transformers' files, and of other methods the trained numbers alone."""
    trained = {name: p.data for name, p in model.named_parameters() if p.requires_grad}
    if not active_adapter(model) and len(trained) < len(model.parameters()):
        return len(save(trained))
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch, "saved")
        (save_adapter if active_adapter(model) else save_model)(model, folder)
        return sum(file.stat().st_size for file in folder.iterdir())


def samples(task: Task, models: dict[str, Transformer], seed: int) -> dict[str, dict[str, str]]:
    """What each model writes after the same prompts: {prompt: {method: text}}."""
    return {
        prompt: {method: _continue(task, model, prompt, seed) for method, model in models.items()}
        for prompt in task.prompts
    }


def _continue(task: Task, model: Transformer, prompt: str, seed: int) -> str:
    rng = np.random.default_rng(seed)
    if task.metric == EXACT:  # the likeliest answer, up to its newline
        answer = generate(model, encode(prompt)[None], 20, temperature=0)
        return decode(answer[0, len(prompt) :]).partition("\n")[0]
    text = generate(model, encode(prompt)[None], 160, temperature=0.7, rng=rng)
    return decode(text[0, len(prompt) :])
