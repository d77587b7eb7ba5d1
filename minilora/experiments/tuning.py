"""The one place where a fine-tuning is set up: a task, a method, and what differs from the recipe.

`compare` runs several of them side by side, `finetune` one with a checkpoint, every study many.
Whoever sets up a run here has the recipe's rate, batches and adapter, and its row in the words of
rows.py, without having to know them.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from minilora.experiments.rows import Row, Rows
from minilora.experiments.tasks import Task, TextData, load_task
from minilora.hub import load_model
from minilora.lora import lora_layers
from minilora.lora_config import LoraConfig
from minilora.methods.registry import LABELS, METHODS
from minilora.methods.trainable import count_parameters
from minilora.system.cores import one_blas_thread
from minilora.system.errors import UsageError
from minilora.text.alphabet import ALPHABET
from minilora.text.windows import WINDOW
from minilora.training.loop import DivergedError, Evaluate, TrainConfig, Training, run
from minilora.transformer import Transformer

_OWN_RANKS = {"vera": 64, "lora-xs": 16}  # of methods that do not train r (d_in + d_out) numbers


@dataclass
class Tuned:
    """A fine-tuning: the model it starts from, the model it changes, and the training that does."""

    task: Task
    method: str
    base: Transformer
    model: Transformer
    training: Training
    diverged: bool = False

    @property
    def row(self) -> Row:
        """What was asked for, and how many numbers train."""
        adapter = next((m.adapters["default"] for m in lora_layers(self.model).values()), None)
        return {
            "task": self.task.name.encode("utf-8", "replace").decode(),  # no half letters
            "metric": self.task.metric.name,
            "method": self.method,
            "seed": self.training.config.seed,
            "lr": self.training.config.lr,
            "steps": self.training.config.steps,
            "r": None if adapter is None else adapter.A.shape[1],
            "s": None if adapter is None else adapter.s,
            "trainable": count_parameters(self.model)[0],
            "total": count_parameters(self.base)[1],
            "diverged": self.diverged,
        }


def set_up(
    task: Task | Path | str,
    method: str,
    seed: int = 0,
    *,
    lr: float | None = None,
    steps: int | None = None,
    r: int | None = None,
    lora_alpha: float | None = None,
    target_modules: str | Sequence[str] | None = None,
    use_rslora: bool | None = None,
    model: str | Path | None = None,
    characters: int | None = None,
    evaluate: Evaluate | None = None,
    evaluate_every: int = 0,
    checkpoint: str | Path | None = None,
    save_every: int = 100,
    start: Callable[[Transformer], None] | None = None,
) -> Tuned:
    """Prepare a copy of the task's base model for a method, and its training; nothing is run yet.

    What is None is as in the task's recipe. seed draws the batches, and what the method adds.

    task: a Task, the name of one, or a text file. method: one of METHODS, or "scratch", which
        trains the base model's architecture from random weights, to show what the base is worth.
    r, lora_alpha, target_modules, use_rslora: of LoRA, its kin and the additive methods, which take
        their size from it: see `adjust`.
    model: another base than the task's, by name or folder. characters: learn from so many of the
        text only.
    evaluate(model): measured at both ends and every `evaluate_every` steps, if that is not 0
        (default: the quality on the validation split, and without evaluate_every nothing).
    checkpoint: the file to save to every `save_every` steps, and to go on from if it is there.
    start(model): called on the prepared model, before anything else, to let its adapter start
        elsewhere: see methods/starts.py.
    Raises ValueError for values that have no meaning or would have no effect.
    """
    task = load_task(task)
    require_method(method)
    if model is not None:
        task = replace(task, base=str(model))
    if characters is not None:
        task = _shortened(task, characters)
    if lr is None and method not in task.lr:
        raise UsageError(f"{task.name} has no learning rate for {method}; choose one with lr")
    config = TrainConfig(
        steps=task.steps if steps is None else steps,
        lr=task.lr[method] if lr is None else lr,
        warmup=task.warmup,
        seed=seed,
        loraplus_lr_ratio=METHODS[method].loraplus_lr_ratio if method in METHODS else 1,
    )
    changes = (r, lora_alpha, target_modules, use_rslora)
    if not uses_lora(method) and any(change is not None for change in changes):
        raise UsageError(
            f"{LABELS[method]} has no rank, alpha or targets; leave them out, or choose a method "
            f"that has: {', '.join(filter(uses_lora, LABELS))}"
        )
    base = _load_base(task)
    lora = adjust(_own_lora(task, method), *changes)
    tuned = _prepared(base, method, lora, seed, share=task.tokenizer is not None)
    if start is not None:
        start(tuned)
    if evaluate is None and evaluate_every:
        evaluate = task.val
    training = Training(
        tuned,
        task.batch,
        config,
        name=LABELS[method],
        evaluate=evaluate,
        evaluate_every=evaluate_every,
        checkpoint=None if checkpoint is None else Path(checkpoint),
        save_every=save_every,
        identity=f"{task.data.checksum():08x}" if checkpoint else "",
    )
    return Tuned(task, method, base, tuned, training)


def tune(
    task: Task | Path | str, method: str, seed: int = 0, *, quiet: bool = True, **options: Any
) -> Tuned:
    """`set_up` with its options, and run to the end in one thread; with a progress bar unless
    quiet, as the many runs of a study are.

    A training that diverges ends there, and its row says so.
    """
    tuned = set_up(task, method, seed, **options)
    try:
        run([tuned.training], threads=1, quiet=quiet)
    except DivergedError:
        tuned.diverged = True
    return tuned


def pause_at(tuned: Tuned, stops: Iterable[int]) -> Iterator[int]:
    """Train, in one thread, and pause after each of these numbers of steps, ascending, which is
    what is yielded: the model can be looked at there.

    A training that diverges ends there, and its row says so.
    """
    for stop in stops:
        try:
            with one_blas_thread():
                while tuned.training.steps_done < stop:
                    tuned.training.step()
        except DivergedError:
            tuned.diverged = True
            return
        yield stop


def measure(tuned: Tuned) -> Row:
    """The row of a training that is done: also its quality, None if it diverged."""
    splits = {"val": tuned.task.val, "test": tuned.task.test, "old": tuned.task.old}
    if tuned.diverged:
        return tuned.row | dict.fromkeys(splits)
    return tuned.row | {name: quality(tuned.model) for name, quality in splits.items()}


def require_method(method: str) -> None:
    """Raise ValueError unless there is this method, or it is "scratch"."""
    if method not in LABELS:
        raise UsageError(f"there is no method {method!r}; use one of: {', '.join(LABELS)}")


def uses_lora(method: str) -> bool:
    """Do a rank, an alpha and targets mean something to it? Additive methods take their size from
    what LoRA would train; but IA³, which has one size."""
    sized = method in METHODS and METHODS[method].family in ("reparameterized", "additive")
    return sized and method != "ia3"


def adjust(
    config: LoraConfig,
    r: int | None = None,
    lora_alpha: float | None = None,
    target_modules: str | Sequence[str] | None = None,
    use_rslora: bool | None = None,
) -> LoraConfig:
    """`config` with another rank, alpha or targets; None leaves a thing as it is.

    Where lora_alpha is given, s is lora_alpha / r as always, or lora_alpha / √r with use_rslora.
    Where only r is, s follows it as in `with_rank`.
    """
    if use_rslora is not None and lora_alpha is None:
        raise UsageError("use_rslora says how s follows from lora_alpha; give lora_alpha too")
    if r is not None:
        config = with_rank(config, r) if lora_alpha is None else replace(config, r=r)
    if lora_alpha is not None:
        config = replace(config, lora_alpha=lora_alpha)
    if use_rslora is not None:
        config = replace(config, use_rslora=use_rslora)
    return config if target_modules is None else replace(config, target_modules=target_modules)


def with_rank(config: LoraConfig, r: int) -> LoraConfig:
    """`config` with another rank, and s in proportion to 1/√r, as rsLoRA has it (Kalajdzievski
    2023): with s fixed, ΔW grows with r until the learning rate is too high for it.

    In s = alpha / r that is alpha in proportion to √r; with use_rslora, alpha as it is.
    """
    resized = replace(config, r=r)
    if config.use_rslora:
        return resized
    return replace(resized, lora_alpha=config.lora_alpha * math.sqrt(r / config.r))


def _own_lora(task: Task, method: str) -> LoraConfig:
    """rsLoRA has its own rule for s, which `with_rank` has to know. Where a rank costs few numbers
    or none, it is higher."""
    if method in _OWN_RANKS:
        return with_rank(task.lora, _OWN_RANKS[method])
    return replace(task.lora, use_rslora=True) if method == "rslora" else task.lora


def _shortened(task: Task, characters: int) -> Task:
    if not isinstance(task.data, TextData):
        raise UsageError(f"{task.name} is not learned from a text; leave characters out")
    corpus, text = task.data.corpus, task.data.corpus.train
    whole = isinstance(characters, int) and not isinstance(characters, bool)
    if not whole or not WINDOW <= characters <= len(text):
        raise UsageError(
            f"characters must be a whole number from {WINDOW} to {len(text)}, all there are of "
            f"{task.name}; got {characters!r}"
        )
    return replace(task, data=replace(task.data, corpus=replace(corpus, train=text[:characters])))


def _load_base(task: Task) -> Transformer:
    base = load_model(task.base, quantized=task.quantized)
    if task.tokenizer is not None:
        task.tokenizer.require_fit(base)
    elif base.config.vocab_size != len(ALPHABET):
        raise UsageError(
            f"the tasks are of {len(ALPHABET)} symbols and {task.base} has "
            f"{base.config.vocab_size}; use a model of this alphabet, such as docs-tiny tuned"
        )
    if base.config.block_size < task.data.length:
        raise UsageError(
            f"{task.base} reads {base.config.block_size} symbols at a time and {task.name} needs "
            f"{task.data.length}; use a larger model"
        )
    return base


def _prepared(
    base: Transformer, method: str, lora: LoraConfig, seed: int, share: bool
) -> Transformer:
    """share: the weights, not copied. An adapter leaves them as they are, and AdamW makes a copy of
    what it trains; of a real model a second copy would not be small."""
    if method == "scratch":
        return Transformer(base.config, rng=np.random.default_rng(seed))
    plain = [p.data for p in base.parameters() if share and not p.fixed]
    fixed = [p for p in base.parameters() if p.fixed]  # nothing can change them
    shared: dict[int, Any] = {id(held): held for held in (*plain, *fixed)}
    model = copy.deepcopy(base, shared)
    METHODS[method].prepare(model, lora, np.random.default_rng((seed, 0)))
    return model


def quality_run(**settings: Any) -> Rows:
    """The run of a sweep in which quality is asked for: the row of tune(**settings)."""
    return [measure(tune(**settings))]
