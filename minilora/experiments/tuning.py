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

from minilora.analysis import deltas as analysis
from minilora.analysis.counting import count_rows
from minilora.experiments.sweeps import Rows
from minilora.experiments.tasks import TASKS, Task, load_task, text_task
from minilora.hub import load_model
from minilora.lora import LoraLinear, lora_layers
from minilora.lora_config import LoraConfig
from minilora.methods.registry import METHODS, count_parameters
from minilora.nn import Linear
from minilora.optim import AdamW, warmup_cosine
from minilora.system.errors import UsageError
from minilora.tensor import Tensor
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
        "scale": layers[0].scaling["default"] if layers else None,
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


def teacher_run(k: int, spectrum: str, r: int, seed: int) -> Rows:
    """Known-rank teacher: a linear layer W0 must become W0 + Δ, with Δ of rank k. LoRA of rank r
    learns it from 1,024 samples; its loss on new ones beside the least that rank r allows: Σ σ_i²/d
    over Δ's singular values beyond the r largest (Eckart & Young 1936)."""
    d, samples, steps = 64, 1024, 400
    rng = np.random.default_rng(seed)
    base = Linear(d, d, bias=False, rng=rng).to(np.float64)
    assert isinstance(base, Linear)
    U, V = (np.linalg.qr(rng.standard_normal((d, d)))[0][:, :k] for _ in range(2))
    sigma = {"flat": np.ones(k), "geometric": np.geomspace(2, 0.2, k)}[spectrum]
    delta = (U * sigma) @ V.T
    target = base.weight.data + delta
    x, x_test = rng.standard_normal((samples, d)), rng.standard_normal((4096, d))
    layer = LoraLinear(base)
    layer.add("default", "", LoraConfig(r=r, lora_alpha=r), rng)
    layer.active = "default"
    base.requires_grad_(False)
    params = layer.trainable_parameters()
    optimizer = AdamW(params, betas=(0.9, 0.999), weight_decay=0)
    inputs, answers = Tensor(x), Tensor(x @ target)
    for i in range(steps):
        error = layer(inputs) - answers
        (error * error).mean().backward()
        optimizer.lr = 2e-2 * warmup_cosine(i, steps, warmup=1, final=0)
        optimizer.step()
        optimizer.zero_grad()
    loss = float(
        np.mean((x_test @ (target - base.weight.data - layer.delta_weight("default"))) ** 2)
    )
    bound = analysis.eckart_young_tail(delta, r) / d
    about = {"k": k, "spectrum": spectrum, "r": r, "seed": seed}
    return [about | {"loss": loss, "bound": bound if r < k else 0.0}]


def frontier_run(**settings: Any) -> Rows:
    """New and old quality (on val and on test) together, along the way."""
    olds = []

    def both(task: Task, model: Transformer) -> float:
        olds.append(task.old(model))
        return task.val(model)

    t = tune(**settings, evaluate_every=50, evaluate=both)
    evaluations = zip(t.training.history.evaluations, olds, strict=True)
    curve = [(step, new, old) for (step, new), old in evaluations]
    return [t.row | {"val": curve[-1][1], "old": curve[-1][2], "curve": curve}]


def small_data_run(**settings: Any) -> Rows:
    """Quality along the way, where there is little to learn from."""
    t = tune(**settings, evaluate_every=50)
    curve = t.training.history.evaluations
    row = {"characters": settings["characters"], "curve": curve, "test": t.task.test(t.model)}
    return [t.row | row]


def spectrum_run(**settings: Any) -> Rows:
    """What ΔW looks like, matrix by matrix; one row without that if the training diverged."""
    t = tune(**settings)
    if t.row["diverged"]:
        return [t.row]
    W, delta = analysis.weight_matrices(t.base), analysis.delta_weights(t.base, t.model)
    return [t.row | describe_delta(path, W[path], D) for path, D in delta.items()]


def describe_delta(path: str, W: np.ndarray, delta: np.ndarray) -> dict[str, Any]:
    """The numbers that analysis.py has for one ΔW, in a row."""
    rng, sigma = np.random.default_rng(0), analysis.singular_values(delta)
    rank = np.linalg.matrix_rank(delta, rtol=max(delta.shape) * 2.0**-23)  # of float32 factors
    top = analysis.amplification(W, delta, min(4, int(rank)), rng=rng)
    return {
        "path": path,
        "effective_rank": analysis.effective_rank(delta),
        "stable_rank": analysis.stable_rank(delta),
        "k90": analysis.k90(delta),
        "relative_norm": analysis.relative_norm(delta, W),
        "intruders": analysis.intruder_dimensions(W, W + delta, k=min(10, *W.shape)),
        "amplification": top.factor,
        "singular_values": [float(f"{s:.4g}") for s in sigma if s > 1e-6 * sigma[0]],
    }


def truncation_run(**settings: Any) -> Rows:
    """Full fine-tuning, of whose every ΔW only the k strongest directions are kept. What else it
    has changed (embeddings, biases, norms) stays changed."""
    t = tune(**settings)
    W = analysis.weight_matrices(t.base)
    delta = analysis.delta_weights(t.base, t.model)
    rows = []
    for k in (0, 1, 2, 4, 8, 16, 32, 64, 128):
        if k > min(min(D.shape) for D in delta.values()):
            break
        for path, D in delta.items():
            layer = t.model.get_submodule(path)
            assert isinstance(layer, Linear)
            layer.weight.data[...] = W[path] + analysis.truncate(D, k)
        rows.append(t.row | {"k": k, "test": t.task.test(t.model)})
    return rows


def subspace_run(task: str, seed: int, r: int, r_other: int) -> Rows:
    """Do two ranks, from different random starts, find the same directions? φ(i, j) of Hu et al.,
    mean over the matrices that read the stream, beside the same of their starts (chance)."""
    first, other = (tune(task, "lora", s, r=rank) for s, rank in ((seed, r), (seed + 100, r_other)))
    pairs, starts = [], []
    for path, layer in lora_layers(first.model).items():
        if layer.base.weight.shape[0] != first.model.config.n_embd:
            continue  # down_proj reads a space of another size, where chance is lower
        twin = lora_layers(other.model)[path]
        pairs.append((layer.lora_A["default"].data, twin.lora_A["default"].data))
        starts.append(tuple(_start(t, path) for t in (first, other)))
    phi, chance = (
        np.mean([analysis.subspace_similarities(a, b)[:8] for a, b in which], axis=0)
        for which in (pairs, starts)
    )
    d = first.model.config.n_embd
    about = {"task": task, "seed": seed, "r": r, "r_other": r_other, "d": d}
    return [
        about | {"i": i + 1, "j": j + 1, "phi": float(phi[i, j]), "phi_start": float(chance[i, j])}
        for i in range(phi.shape[0])
        for j in range(phi.shape[1])
        if (j + 1) & j == 0  # 1, 2, 4, 8, ...
    ]


def _start(t: Tuned, path: str) -> np.ndarray:
    """A as it was before training."""
    model = copy.deepcopy(t.base)
    config = _lora_config(t.task.lora, r=t.row["r"])
    METHODS["lora"].prepare(model, config, np.random.default_rng((t.row["seed"], 0)))
    return lora_layers(model)[path].lora_A["default"].data


def counts_run(rank: int) -> Rows:
    return [{"rank": rank} | row for row in count_rows(rank, ["q_proj", "v_proj"])]


def place_run(place: str, **settings: Any) -> Rows:
    """quality_run, with the name of the place in its row."""
    return [row | {"place": place} for row in quality_run(**settings)]
