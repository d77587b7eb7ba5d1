"""The studies: each asks one question about LoRA and answers it with many short trainings.

A study is a list of settings for one of the experiments; sweep.py runs them. Learning rates are
chosen on the validation split, results are those on the test split. The results that come with the
package are of three seeds. Imports the floors below, sweep.py and experiment.py.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from minilora.experiments.sweeps import Rows, Run
from minilora.experiments.tuning import (
    counts_run,
    frontier_run,
    place_run,
    quality_run,
    small_data_run,
    spectrum_run,
    subspace_run,
    teacher_run,
    truncation_run,
)
from minilora.hub.models import ASSETS
from minilora.methods.registry import METHODS

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
        "How do all methods compare?",
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
