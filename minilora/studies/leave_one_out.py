"""Can adapters that were trained apart be added up?

Several adapters of one base model, each for a task of its own: the sum of their ΔW, and of every
smaller set of them, on all tasks. Beside it, the mean of A and the mean of B multiplied.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import combinations
from statistics import mean
from typing import TYPE_CHECKING

import numpy as np

from minilora.experiments.rows import Rows, select
from minilora.experiments.tasks import StringData, Task, TextData, load_task
from minilora.experiments.tuning import tune
from minilora.lora import LowRank, lora_layers
from minilora.plots.axes import figure_with_panels
from minilora.plots.house_style import COLORS, style
from minilora.studies.study import Settings, Study
from minilora.text.alphabet import decode, encode
from minilora.text.corpora import Corpus, load_corpus
from minilora.text.string_tasks import PRETRAIN_TASKS
from minilora.training.quality import EXACT, METRICS

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Adapters = dict[str, dict[str, LowRank]]  # by task and path
STEPS = {"words-tiny": 300, "docs-tiny": 200}
EXAMPLES = {"words-tiny": 200, "docs-tiny": 64}  # words, and windows of text
SUM, MEAN, APART = "sum of ΔW", "mean of ΔW", "means of A and B"
WORDS = ("reverse", "swap", "next", "ends")
NO_VOWELS = str.maketrans("", "", "aeiouAEIOU")
TEXTS: dict[str, Callable[[str], str]] = {
    "capitals": str.upper,
    "no vowels": lambda text: text.translate(NO_VOWELS),
}


def settings(seeds: range) -> list[Settings]:
    return [{"model": model, "seed": s} for model in STEPS for s in seeds]


def combine_run(model: str, seed: int) -> Rows:
    """A row for each combination of adapters and each task: quality on the test split. The task
    "old" is what the base model was trained for."""
    tasks, adapters = dict(_tasks(model)), {}
    for i, (name, task) in enumerate(tasks.items()):
        own = 10 * seed + i  # each starts with an A of its own
        t = tune(_rehearsed(task), "lora", own, r=4, steps=STEPS[model])
        adapters[name] = {p: layer.adapters["default"] for p, layer in lora_layers(t.model).items()}
    base, rows = t.base, []
    W = {path: base.get_submodule(path).weight.data for path in adapters[name]}
    for how, names, delta in _combinations(adapters):
        for path in W:
            base.get_submodule(path).weight.data = W[path] + delta[path]
        about = {"model": model, "seed": seed, "how": how, "adapters": " + ".join(names)}
        about["together"] = len(names)
        for name, task in tasks.items():
            row = {"task": name, "metric": task.metric.name, "own": name in names}
            rows.append(about | row | {"test": task.test(base)})
        row = {"task": "old", "metric": task.metric.name, "own": False}
        rows.append(about | row | {"test": task.old(base)})
    return rows


def _tasks(model: str) -> Iterator[tuple[str, Task]]:
    if model == "words-tiny":
        reverse = replace(load_task("reverse"), examples=EXAMPLES[model])
        for name in WORDS:
            yield name, replace(reverse, name=name, data=StringData((name,), 32))
        return
    code, prose = replace(load_task("code"), examples=EXAMPLES[model]), load_corpus("prose")
    yield "code", code
    for name, change in TEXTS.items():
        parts = (decode(part[:400_000]) for part in (prose.train, prose.val, prose.test))
        corpus = Corpus(name, *(encode(change(part)) for part in parts))
        yield name, replace(code, name=name, data=TextData(corpus, 12))


def _rehearsed(task: Task) -> Task:
    """A string task with the old ones among its examples, half of them: its adapter alone then
    keeps what the base could do."""
    if not isinstance(task.data, StringData):
        return task
    mixed = task.data.tasks * len(PRETRAIN_TASKS) + PRETRAIN_TASKS
    return replace(task, data=replace(task.data, tasks=mixed))


def _combinations(
    adapters: Adapters,
) -> Iterator[tuple[str, tuple[str, ...], dict[str, np.ndarray]]]:
    """(how, names, ΔW): the sum of ΔW of every set of adapters, and two means of all."""
    paths = list(next(iter(adapters.values())))
    for n in range(len(adapters) + 1):
        for names in combinations(adapters, n):
            yield SUM, names, {p: _sum_of_deltas(adapters, names, p) for p in paths}
    names = tuple(adapters)
    right = {p: _sum_of_deltas(adapters, names, p) / len(names) for p in paths}
    yield MEAN, names, right
    yield APART, names, {p: _mixed_factors(adapters, p) for p in paths}


def _sum_of_deltas(adapters: Adapters, names: tuple[str, ...], path: str) -> np.ndarray:
    """ΔW of the adapters together: that of their A beside each other and their B in one column."""
    chosen = [adapters[name][path] for name in names]
    if not chosen:
        return np.zeros((), np.float32)  # W + this is W
    A = np.concatenate([one.A.data * one.s for one in chosen], axis=1)
    B = np.concatenate([one.B.data for one in chosen])
    return A @ B


def _mixed_factors(adapters: Adapters, path: str) -> np.ndarray:
    """The wrong way: each A meets every B, also those it was not trained with."""
    every = [one[path] for one in adapters.values()]
    A = np.mean([one.A.data for one in every], axis=0)
    B = np.mean([one.B.data for one in every], axis=0)
    return A @ B * every[0].s


@style()
def leave_one_out_figure(rows: Rows) -> Figure:
    title = "Adapters trained apart, then combined"
    models = [model for model in STEPS if select(rows, model=model)]
    figure, panels = figure_with_panels(title, rows, max(len(models), 1), 1, "darker is better")
    for model, ax in zip(models, panels, strict=True):
        plot_leave_one_out(select(rows, model=model), ax)
    return figure


def plot_leave_one_out(rows: Rows, ax: Axes) -> Axes:
    """The tasks of one base model by what is combined: the mean quality in words and, as a shade,
    how far it is from the worst of its line to the best."""
    from matplotlib.colors import LinearSegmentedColormap

    metric, tasks = METRICS[rows[0]["metric"]], [*dict.fromkeys(row["task"] for row in rows)]
    columns = _columns([task for task in tasks if task != "old"])
    values = np.array([[_mean_of(rows, task, *c) for c in columns.values()] for task in tasks])
    low, high = values.min(axis=1, keepdims=True), values.max(axis=1, keepdims=True)
    shares = (values - low) / np.maximum(high - low, 1e-9)
    shades = LinearSegmentedColormap.from_list("", ["white", COLORS["lora"]])
    ax.imshow(shares if metric.higher_is_better else 1 - shares, cmap=shades, aspect="auto")
    for (i, j), value in np.ndenumerate(values):
        text = f"{100 * value:.0f}%" if metric is EXACT else f"{value:.2f}"
        ax.text(j, i, text, ha="center", va="center")
    ax.set_xticks(range(len(columns)), list(columns))
    ax.set_yticks(range(len(tasks)), ["the base's own" if t == "old" else t for t in tasks])
    ax.grid(False)
    ax.tick_params(length=0)
    ax.set_xlabel("what is added to the base model")
    ax.set_title(f"{rows[0]['model']}: {metric.unit}")
    return ax


def _columns(new: list[str]) -> dict[str, tuple[str, int, str | None]]:
    """What a column shows: how adapters are combined, how many, and which one is left out."""
    columns: dict[str, tuple[str, int, str | None]] = {"nothing": (SUM, 0, None)}
    columns["its own\nadapter"] = (SUM, 1, None)
    columns["with one\nother"] = (SUM, 2, None)
    columns |= {f"all but\n{name}": (SUM, len(new) - 1, name) for name in new}
    columns["all"] = (SUM, len(new), None)
    columns["mean\nof ΔW"] = (MEAN, len(new), None)
    return columns | {"means of\nA and B": (APART, len(new), None)}


def _mean_of(rows: Rows, task: str, how: str, together: int, left_out: str | None) -> float:
    """The mean quality of a task; of one or two adapters, of those among which is its own."""
    same = select(rows, task=task, how=how, together=together)
    if left_out is not None:
        same = [row for row in same if left_out not in row["adapters"].split(" + ")]
    elif task != "old" and together in (1, 2):
        same = select(same, own=True)
    return mean(row["test"] for row in same)


STUDY = Study(
    "Can adapters that were trained apart be added up?",
    settings,
    combine_run,
    by=("model", "how", "together", "own"),
    shows=("test",),
    figure=leave_one_out_figure,
    at_scale=(
        "We know of no measurement of a large model that answers it. What is exact holds at any "
        "size: the adapters beside each other, [A1 A2] times [B1; B2], are the sum of their ΔW, "
        "and the mean of A times the mean of B is another matrix."
    ),
)
