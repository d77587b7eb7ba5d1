"""Full fine-tuning beside LoRA: same base model, same batches, same seed, then every cost measured.

A third run trains the same architecture from random weights, to show what the base is worth; any
other method of methods/ can be added. `compare` returns one entry of results.json: plain numbers,
from which the table and the figure are made elsewhere.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from glob import escape
from pathlib import Path
from statistics import mean
from typing import Annotated, Any, Literal, TypedDict

from minilora.experiments.costs import disk_bytes, step_memory
from minilora.experiments.rows import Columns, Row, select
from minilora.experiments.tasks import Task, load_task
from minilora.experiments.tuning import Tuned, measure, require_method, set_up, uses_lora
from minilora.generation.sampling import write
from minilora.hub import load_model, save_adapter, save_model
from minilora.lora import active_adapter, disable_adapter
from minilora.methods.registry import LABELS
from minilora.methods.trainable import count_parameters
from minilora.system.errors import UsageError
from minilora.system.schemas import NOT_EMPTY, Range
from minilora.system.scratch import remove_left_behind
from minilora.training.loop import run
from minilora.training.quality import EXACT, METRICS
from minilora.transformer import Transformer

DEFAULT_METHODS = ("full", "lora", "scratch")
EVALUATIONS = 12  # points of a learning curve


class BaseQuality(TypedDict):
    """What the base model could do before, and how many numbers it has."""

    test: float
    old: float
    total: Annotated[int, Range(1)]


class Entry(TypedDict):
    """What came of one task."""

    task: str
    about: str
    metric: Literal["nats", "exact", "nats_per_token"]
    base: BaseQuality
    runs: Annotated[list[Columns], NOT_EMPTY]
    samples: dict[str, dict[str, str]]  # by prompt and method


class Comparison(TypedDict):
    """A results.json."""

    tasks: Annotated[list[Entry], NOT_EMPTY]


def compare(
    task: Task | Path | str,
    out: str | Path,
    *,
    methods: Iterable[str] = DEFAULT_METHODS,
    seeds: Iterable[int] = (0,),
    rates: dict[str, float] | None = None,
    steps: int | None = None,
    r: int | None = None,
    lora_alpha: float | None = None,
    target_modules: str | Sequence[str] | None = None,
    threads: int | None = None,
    quiet: bool = False,
    say: Callable[[str], None] = lambda text: None,
) -> dict[str, Any]:
    """Train the base model of `task` with each method (of LABELS) and each seed, and measure.

    rates: other learning rates than the task's, by method. r, lora_alpha, target_modules: for the
    methods that have them, as in set_up. threads, quiet: see run. say: told what is going on.

    Returns {"task", "about", "metric", "base": {"test", "old", "total"}, "runs": rows, "samples"}.
    Raises ValueError for arguments that cannot be meant or would have no effect.
    Checkpoints are kept in `out` until `forget`, so that the same call goes on where it was
    interrupted and repeats no finished run. Of the first seed the fully tuned model is saved in
    `out`, and every adapter (LoRA's and its kin's), as `folder_name` says.
    """
    task, out, rates = load_task(task), Path(out), rates or {}
    methods, seeds = _each_once("methods", methods), _each_once("seeds", seeds)
    given = {"r": r, "lora_alpha": lora_alpha, "target_modules": target_modules}
    lora = {key: value for key, value in given.items() if value is not None}
    _check_effect(methods, rates, lora)
    base = load_model(task.base)
    entry: dict[str, Any] = {
        "task": task.name,
        "about": task.about,
        "metric": task.metric.name,
        "base": {
            "test": task.test(base),
            "old": task.old(base),
            "total": count_parameters(base)[1],
        },
        "runs": [],
    }
    for seed in seeds:
        say(f"{task.name}, seed {seed}: {', '.join(LABELS[method] for method in methods)}")
        tuned = [
            _set_up(task, method, seed, out, rates.get(method), steps, lora) for method in methods
        ]
        peaks = [step_memory(t.training) for t in tuned]
        run([t.training for t in tuned], threads, quiet, say)
        say("measuring on the test split, and saving")
        entry["runs"] += [
            measure(t) | _costs(t) | {"peak_memory_bytes": peak}
            for t, peak in zip(tuned, peaks, strict=True)
        ]
        if seed == seeds[0]:
            models = {"base": base} | {t.method: t.model for t in tuned}
            entry["samples"] = samples(task, models, seed)
            for t in tuned:
                _save(t, out / folder_name(task, t.method))
    return entry


def folder_name(task: Task, method: str) -> str:
    """What a tuned model or its adapter is called on disk: "code-lora", of my/notes.txt
    "notes-lora"."""
    return f"{Path(task.name).stem}-{method}"


def forget(task: Task, out: str | Path) -> None:
    """Remove the checkpoints of a task, once its results are safe: the next call starts anew."""
    out = Path(out)
    for checkpoint in _checkpoints(out).glob(f"{escape(task.name)}-*"):
        checkpoint.unlink(missing_ok=True)
    remove_left_behind(_checkpoints(out))
    with suppress(OSError):  # other tasks' may be there
        _checkpoints(out).rmdir()


def samples(task: Task, models: dict[str, Transformer], seed: int) -> dict[str, dict[str, str]]:
    """What each model writes after the same prompts: {prompt: {method: text}}."""
    return {
        prompt: {method: _continue(task, model, prompt, seed) for method, model in models.items()}
        for prompt in task.prompts
    }


def improvement(entry: dict[str, Any]) -> tuple[float, float]:
    """LoRA's share of full fine-tuning's improvement on the new task (NaN if it has not improved),
    and how far it is short of it, in the task's unit; means over seeds."""
    full, lora = (
        mean(run["test"] for run in select(entry["runs"], method=method))
        for method in ("full", "lora")
    )
    gained = full - entry["base"]["test"]
    improved = gained > 0 if METRICS[entry["metric"]].higher_is_better else gained < 0
    share = (lora - entry["base"]["test"]) / gained if improved else math.nan
    return share, abs(full - lora)


def _each_once(name: str, values: Iterable[Any]) -> list[Any]:
    listed = [] if isinstance(values, str) else list(values)
    if not listed or len(set(listed)) < len(listed):
        raise UsageError(f"{name} must be a list of different ones, got {values!r}")
    return listed


def _check_effect(methods: list[str], rates: dict[str, float], lora: dict[str, Any]) -> None:
    """Refuse what is no method, or what no method would use."""
    for method in methods:
        require_method(method)
    unused = [method for method in rates if method not in methods]
    if unused:
        raise UsageError(f"there is a rate for {unused[0]}, which is not among the methods")
    if lora and not any(uses_lora(method) for method in methods):
        raise UsageError(f"a rank, alpha or targets mean nothing to {' and '.join(methods)}")


def _set_up(
    task: Task,
    method: str,
    seed: int,
    out: Path,
    lr: float | None,
    steps: int | None,
    lora: dict[str, Any],
) -> Tuned:
    lora = lora if uses_lora(method) else {}
    steps = task.steps if steps is None else steps
    identity = zlib.crc32(repr((task.lora, task.lr.get(method), lr, steps, lora)).encode())
    return set_up(
        task,
        method,
        seed=seed,
        lr=lr,
        steps=steps,
        evaluate_every=max(1, steps // EVALUATIONS),
        checkpoint=_checkpoints(out) / f"{task.name}-{method}-{seed}-{identity:08x}.safetensors",
        **lora,
    )


def _checkpoints(out: Path) -> Path:
    return out / "checkpoints"


def _costs(tuned: Tuned) -> Row:
    model, history = tuned.model, tuned.training.history
    old_detached = None
    if active_adapter(model):
        with disable_adapter(model):
            old_detached = tuned.task.old(model)
    return {
        "old_detached": old_detached,
        "optimizer_bytes": tuned.training.optimizer.state_bytes,
        "disk_bytes": disk_bytes(model),
        "seconds_per_step": history.seconds_per_step,
        "losses": [round(loss, 4) for loss in history.losses],
        "curve": [list(point) for point in history.evaluations],
    }


def _save(tuned: Tuned, folder: Path) -> None:
    if active_adapter(tuned.model):
        save_adapter(tuned.model, folder)
    elif tuned.method == "full":
        save_model(tuned.model, folder)


def _continue(task: Task, model: Transformer, prompt: str, seed: int) -> str:
    if task.metric == EXACT:  # the likeliest answer, up to its newline
        text = write(model, prompt, 20, temperature=0, stop="\n")
    else:
        text = write(model, prompt, 160, temperature=0.7, seed=seed)
    return text.removeprefix(prompt)
