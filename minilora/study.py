"""The studies: each asks one question about LoRA and answers it with many short trainings.

A study is a list of settings and a run function that turns one of them into rows; sweep.py does the
rest. All start from the bundled models and train as in recipes.py; learning rates are chosen on the
validation split, results are on the test split unless a row says val.
Sources: the questions are those of Hu et al. 2021, section 7, Biderman et al. 2024 and Shuttleworth
et al. 2024, asked of models that train in seconds. Imports the floors below and sweep.py.
"""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np

from minilora import analysis
from minilora.counting import count_rows
from minilora.data import load_corpus, load_text
from minilora.hub import ASSETS, load_model
from minilora.lora import LoraLinear, lora_layers
from minilora.lora_config import LoraConfig
from minilora.methods import METHODS, count_parameters
from minilora.nn import Linear
from minilora.optim import AdamW, warmup_cosine
from minilora.recipes import TASKS, Task, load_task, text_task
from minilora.sweep import Rows, Run
from minilora.tensor import Tensor
from minilora.train import DivergedError, TrainConfig, Training, run
from minilora.transformer import Transformer

Settings = dict[str, Any]
RESULTS = ASSETS / "results"


@dataclass(frozen=True)
class Study:
    """run(**settings) is called for every one of settings(seeds). In a table of its rows there is a
    line for each combination of `by`, with the means of `shows`."""

    question: str
    run: Run
    settings: Callable[[range], list[Settings]]
    by: tuple[str, ...]
    shows: tuple[str, ...]


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
    rank is changed, s goes with 1/√r. A training that diverges ends there,
    and its row says so."""
    found = find_task(task, model, characters)
    base = load_model(found.base)
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
    """How well a method does, on the new task and on the old one."""
    t = tune(**settings)
    return [
        t.row
        | {"val": t.task.val(t.model), "test": t.task.test(t.model), "old": t.task.old(t.model)}
    ]


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
    """What ΔW looks like, matrix by matrix."""
    t = tune(**settings)
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
        "intruders": analysis.intruder_dimensions(W, W + delta),
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


RANKS = (1, 2, 4, 8, 16, 64)
LOW_RANK_RATES = (1e-3, 3e-3, 1e-2, 2e-2, 4e-2)
RATES = {
    "full": (1e-4, 3e-4, 1e-3, 2e-3, 3e-3, 1e-2),
    "head": (1e-3, 3e-3, 1e-2, 3e-2),
    "last-block": (1e-3, 3e-3, 1e-2, 3e-2),
    "bitfit": (3e-3, 1e-2, 3e-2, 1e-1, 3e-1),
    "adapter": (1e-3, 3e-3, 1e-2, 3e-2, 1e-1),
    "prompt": (1e-2, 3e-2, 1e-1, 3e-1, 1.0),
    "prefix": (1e-2, 3e-2, 1e-1, 3e-1, 1.0),
    "lora": LOW_RANK_RATES,
    "rslora": LOW_RANK_RATES,
    "lora+": (3e-4, 1e-3, 3e-3, 1e-2),
    "dora": LOW_RANK_RATES,
    "pissa": (3e-4, 1e-3, 3e-3, 1e-2, 3e-2),
    "olora": (3e-4, 1e-3, 3e-3, 1e-2),
}
PLACES = {
    "q": ("q_proj",),
    "v": ("v_proj",),
    "q,v": ("q_proj", "v_proj"),
    "q,k,v,o": ("q_proj", "k_proj", "v_proj", "o_proj"),
    "MLP": ("up_proj", "down_proj"),
    "all": "all-linear",
}
BUDGETS = {  # ranks that train about as many numbers everywhere: 18,000 of code's, 9,700 of sort's
    "code": {"q": 36, "v": 36, "q,v": 18, "q,k,v,o": 9, "MLP": 7, "all": 4},
    "sort": {"q": 19, "v": 19, "q,v": 9, "q,k,v,o": 5, "MLP": 4, "all": 2},
}


def _teacher(seeds: range) -> list[Settings]:
    ranks = {4: (1, 2, 3, 4, 5, 6, 8, 16, 32, 64), 16: (1, 2, 4, 8, 12, 15, 16, 17, 20, 32, 64)}
    return [
        {"k": k, "spectrum": spectrum, "r": r, "seed": seed}
        for k in ranks for spectrum in ("flat", "geometric") for r in ranks[k] for seed in seeds
    ]  # fmt: skip


def _rank_sweep(seeds: range) -> list[Settings]:
    methods: list[Settings] = [{"method": "full"}, *({"method": "lora", "r": r} for r in RANKS)]
    return _each(methods, ("code", "reverse", "sort"), seeds)


def _learning_rates(seeds: range) -> list[Settings]:
    """Full fine-tuning and LoRA with all seeds; with the first, the rates that recipes.py has for
    the other methods."""
    pairs = [{"method": m, "lr": lr} for m, rates in RATES.items() for lr in rates]
    main = [pair for pair in pairs if pair["method"] in ("full", "lora")]
    others = [pair for pair in pairs if pair not in main]
    tasks = ("code", "reverse")
    return _each(main, tasks, seeds) + _each(others, tasks, seeds[:1])


def _methods(seeds: range) -> list[Settings]:
    return _each([{"method": name} for name in METHODS], ("code", "reverse"), seeds)


def _alphas(seeds: range) -> list[Settings]:
    rules = [{"lora_alpha": 8, "use_rslora": False}, {"lora_alpha": 4, "use_rslora": True}]
    changes = [rule | {"r": r} for rule in rules for r in (1, 4, 16, 64)]
    changes += [{"lora_alpha": a, "use_rslora": False, "r": 4} for a in (2, 32)]
    return _each([{"method": "lora"} | c for c in changes], ("code", "reverse"), seeds)


def _places(seeds: range) -> list[Settings]:
    return [
        {"task": task, "method": "lora", "seed": seed, "target_modules": targets, "place": place}
        | {"r": BUDGETS[task][place]}
        for task in BUDGETS
        for place, targets in PLACES.items()
        for seed in seeds
    ]


def place_run(place: str, **settings: Any) -> Rows:
    """quality_run, with the name of the place in its row."""
    return [row | {"place": place} for row in quality_run(**settings)]


def _frontier(seeds: range) -> list[Settings]:
    rates = {"full": (3e-4, 1e-3, 2e-3), "lora": (2e-3, 1e-2)}
    runs: list[Settings] = [
        {"method": method, "lr": lr, "steps": 600} for method in rates for lr in rates[method]
    ]
    return _each(runs, ("code",), seeds)


def _small_data(seeds: range) -> list[Settings]:
    sizes = [{"characters": n} for n in (5_000, 20_000, 100_000, 600_000)]
    methods: list[Settings] = [{"method": "full"}, *({"method": "lora", "r": r} for r in (1, 4))]
    return _each([m | size for m in methods for size in sizes], ("code",), seeds)


def _spectra(seeds: range) -> list[Settings]:
    ranks = (1, 4, 16, 64)
    methods: list[Settings] = [{"method": "full"}, *({"method": "lora", "r": r} for r in ranks)]
    return _each(methods, ("code", "reverse"), seeds)


def _truncations(seeds: range) -> list[Settings]:
    return _each([{"method": "full"}], ("code", "reverse"), seeds)


def _subspaces(seeds: range) -> list[Settings]:
    return _each([{"r": r, "r_other": 64} for r in (8, 64)], ("code", "reverse"), seeds)


def _each(changes: list[Settings], tasks: tuple[str, ...], seeds: range) -> list[Settings]:
    return [{"task": task, "seed": s} | c for task in tasks for c in changes for s in seeds]


_QUALITY = ("val", "test", "old")
STUDIES = {
    "known_rank_teacher": Study(
        "Does LoRA find a change of known rank?",
        teacher_run,
        _teacher,
        by=("k", "spectrum", "r"),
        shows=("loss", "bound"),
    ),
    "rank_sweep": Study(
        "How large must r be?",
        quality_run,
        _rank_sweep,
        by=("task", "method", "r"),
        shows=_QUALITY,
    ),
    "learning_rate_sweep": Study(
        "Which learning rate does each method need?",
        quality_run,
        _learning_rates,
        by=("task", "method", "lr"),
        shows=_QUALITY,
    ),
    "methods": Study(
        "How do all methods compare, at about LoRA's budget?",
        quality_run,
        _methods,
        by=("task", "method", "lr", "trainable"),
        shows=_QUALITY,
    ),
    "alpha_sweep": Study(
        "What does alpha do, divided by r or by √r?",
        quality_run,
        _alphas,
        by=("task", "r", "scale"),
        shows=_QUALITY,
    ),
    "which_weights": Study(
        "Where to adapt, at equal budget?",
        place_run,
        _places,
        by=("task", "place", "r", "trainable"),
        shows=_QUALITY,
    ),
    "forgetting_frontier": Study(
        "What is forgotten for what is learned?",
        frontier_run,
        _frontier,
        by=("method", "lr"),
        shows=("val", "old"),
    ),
    "small_data": Study(
        "Who overfits when there is little text?",
        small_data_run,
        _small_data,
        by=("method", "r", "characters"),
        shows=("test",),
    ),
    "spectrum": Study(
        "Which singular values does ΔW have?",
        spectrum_run,
        _spectra,
        by=("task", "method", "r"),
        shows=("effective_rank", "stable_rank", "k90", "relative_norm", "intruders"),
    ),
    "truncation": Study(
        "Is full fine-tuning's ΔW of low rank?",
        truncation_run,
        _truncations,
        by=("task", "k"),
        shows=("test",),
    ),
    "subspace_similarity": Study(
        "Do two ranks find the same space?",
        subspace_run,
        _subspaces,
        by=("task", "r", "r_other", "i", "j"),
        shows=("phi", "phi_start"),
    ),
    "parameter_counts": Study(
        "How many numbers train?",
        counts_run,
        lambda seeds: [{"rank": r} for r in (1, 4, 8, 64)],
        by=("model", "rank"),
        shows=("total", "trainable", "share"),
    ),
}


def shipped_rows(name: str) -> Rows:
    """The rows of a study as they come with the package, three seeds each."""
    return json.loads((RESULTS / f"{name}.json").read_text("utf-8"))["rows"]


def best_rates(rows: Rows, task: str, higher_is_better: bool) -> dict[str, float]:
    """Of learning_rate_sweep: the rate of each method with the best mean over seeds on val."""
    sign = -1 if higher_is_better else 1
    means: dict[str, dict[float, float]] = {}
    for row in rows:
        if row["task"] == task:
            same = [
                other["val"] for other in rows
                if all(other[key] == row[key] for key in ("task", "method", "lr"))
            ]  # fmt: skip
            means.setdefault(row["method"], {})[row["lr"]] = sign * mean(same)
    return {method: min(by_rate, key=lambda lr: by_rate[lr]) for method, by_rate in means.items()}
