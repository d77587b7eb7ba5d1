"""The experiments: functions that fine-tune a model as their arguments say, and what they measure.

An experiment, `..._run`, takes JSON-able settings and returns rows, flat dictionaries of numbers;
a study (study.py) is a list of its settings. All start from the bundled models and train as in
recipes.py. "val" and "test" are qualities on these splits of the new task, "old" on the old one.
Sources: Hu et al. 2021, section 7; Biderman et al. 2024; Shuttleworth et al. 2024.
Imports the floors below and sweep.py.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np

from minilora.analysis import spectrum, subspaces
from minilora.experiments.sweeps import Rows
from minilora.experiments.tasks import TASKS, Task, load_task, text_task
from minilora.hub import load_model
from minilora.lora import lora_layers
from minilora.lora_config import LoraConfig
from minilora.methods.registry import METHODS, count_parameters
from minilora.system.errors import UsageError
from minilora.text.alphabet import ALPHABET
from minilora.text.corpora import load_corpus, load_text
from minilora.training.loop import DivergedError, TrainConfig, Training, run
from minilora.transformer import Transformer


@dataclass(frozen=True)
class Tuned:
    """A model before and after fine-tuning."""

    task: Task
    base: Transformer
    model: Transformer
    training: Training
    row: dict[str, Any]  # what was asked for and what it cost


@cache
def find_task(name: str, model: str | None = None, characters: int | None = None) -> Task:
    """A task of recipes.py, or a text file of the user's. model: another base than the task's own.
    characters: train on so many of the corpus only."""
    if characters is not None:
        corpus = load_corpus(name)
        task = text_task(replace(corpus, train=corpus.train[:characters]))
    else:
        task = load_task(name) if name in TASKS else text_task(load_text(Path(name)))
    return task if model is None else replace(task, base=model)


def tune(
    task: str,
    method: str,
    seed: int,
    *,
    lr: float | None = None,
    steps: int | None = None,
    model: str | None = None,
    characters: int | None = None,
    evaluate_every: int = 0,
    evaluate: Callable[[Task, Transformer], float] | None = None,
    **lora: Any,
) -> Tuned:
    """Fine-tune a task's base model. `lora` are changes of the task's LoraConfig; where only the
    rank is changed, s goes with 1/√r. A training that diverges ends there, and its row says so.
    Raises ValueError for a base of another alphabet."""
    found = find_task(task, model, characters)
    base = load_model(found.base)
    if base.config.vocab_size != len(ALPHABET):
        raise UsageError(
            f"the tasks are of {len(ALPHABET)} symbols and {found.base} has "
            f"{base.config.vocab_size}; use a model of this alphabet, such as docs-tiny tuned"
        )
    config = _lora_config(found.lora, **lora)
    tuned = copy.deepcopy(base)
    METHODS[method].prepare(tuned, config, np.random.default_rng((seed, 0)))
    training = Training(
        tuned,
        found.batch,
        TrainConfig(
            steps=steps or found.steps,
            lr=lr or found.lr[method],
            seed=seed,
            loraplus_lr_ratio=METHODS[method].loraplus_lr_ratio,
        ),
        evaluate=partial(evaluate, found) if evaluate else found.val if evaluate_every else None,
        evaluate_every=evaluate_every,
    )
    with suppress(DivergedError):
        run([training], threads=1, quiet=True)
    layers = list(lora_layers(tuned).values())
    row = {
        "task": Path(task).name,
        "method": method,
        "seed": seed,
        "lr": training.config.lr,
        "steps": training.config.steps,
        "r": config.r if layers else None,
        "scale": layers[0].adapters["default"].s if layers else None,
        "trainable": count_parameters(tuned)[0],
        "total": count_parameters(base)[0],
        "diverged": not training.done,
    }
    return Tuned(found, base, tuned, training, row)


def _lora_config(config: LoraConfig, **changes: Any) -> LoraConfig:
    """Where only the rank changes, s goes with 1/√r, as for rsLoRA: with s fixed, ΔW grows with r
    until the learning rate is too high for it."""
    if "r" in changes and "lora_alpha" not in changes and not config.use_rslora:
        changes["lora_alpha"] = config.lora_alpha * math.sqrt(changes["r"] / config.r)
    return replace(config, **changes)


def quality_run(**settings: Any) -> Rows:
    """How well a method does, on the new task and on the old one; None if it diverged."""
    t = tune(**settings)
    measures = {"val": t.task.val, "test": t.task.test, "old": t.task.old}
    diverged = t.row["diverged"]
    return [t.row | {name: None if diverged else f(t.model) for name, f in measures.items()}]


def describe_delta(path: str, W: np.ndarray, delta: np.ndarray) -> dict[str, Any]:
    """The numbers that analysis/ has for one ΔW, in a row."""
    rng, sigma = np.random.default_rng(0), spectrum.singular_values(delta)
    rank = np.linalg.matrix_rank(delta, rtol=max(delta.shape) * 2.0**-23)  # of float32 factors
    top = subspaces.amplification(W, delta, min(4, int(rank)), rng=rng)
    return {
        "path": path,
        "effective_rank": spectrum.effective_rank(delta),
        "stable_rank": spectrum.stable_rank(delta),
        "k90": spectrum.k90(delta),
        "relative_norm": spectrum.relative_norm(delta, W),
        "intruders": spectrum.intruder_dimensions(W, W + delta, k=min(10, *W.shape)),
        "amplification": top.factor,
        "singular_values": [float(f"{s:.4g}") for s in sigma if s > 1e-6 * sigma[0]],
    }
