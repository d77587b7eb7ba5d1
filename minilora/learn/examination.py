"""The bug clinic's instruments: a training script is run, and its curves and lengths are charted.

A script is a function of `load`, which gives the base model anew, the batches, and the chart; it
returns its diagnosis and the model that it would ship. The optimizer, `Adam`, writes the chart in
every step, so a script need not know what is measured. `examine` runs one on words-tiny, which
learns to reverse words, and draws it beside a sound run.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache
from typing import Any

import numpy as np

import minilora as ml
from minilora.lora import LoraLinear, LowRank, lora_layers
from minilora.lora_config import LoraConfig
from minilora.lora_targets import plain_path
from minilora.nn import Module
from minilora.system.errors import UsageError
from minilora.tensor import Tensor, no_grad
from minilora.text.string_tasks import PRETRAIN_TASKS, string_batch
from minilora.transformer import Transformer, TransformerConfig

CONFIG = LoraConfig(r=4, lora_alpha=16, target_modules="all-linear")
CONFIG_WITH_HEAD = LoraConfig(
    r=4, lora_alpha=16, target_modules="all-linear", modules_to_save=["head"]
)
RATE = 0.01  # a sound rate for LoRA on this model
STEPS = 60
_EVERY = 5  # steps between two measurements of the losses

FAULTS = {
    "A": "the learning rate is far too high",
    "B": "the learning rate is the base's, a tenth of LoRA's",
    "C": "both factors start at zero",
    "D": "both factors start at random",
    "E": "the base trains along with the adapter",
    "F": "the optimizer holds frozen weights instead of the adapter",
    "G": "gradients of earlier steps are not forgotten",
    "H": "the graph is cut: below the cut nothing gets a gradient",
    "I": "some of the names to adapt match nothing",
    "J": "the prompt is learned too: its labels are not masked",
    "K": "alpha counts twice",
    "L": "the adapter counts twice: merged, and still beside",
    "M": "another adapter is used than the one that was trained",
    "N": "a part that was trained is missing from the file",
}

Examples = tuple[np.ndarray, np.ndarray]  # ids and targets, int (B, T) each


class Batches(list[Examples]):
    def __repr__(self) -> str:
        return f"{len(self)} batches"


class Adam:
    """Adam with clipped gradients, as in PyTorch: what has no gradient is passed over in silence.

    step() also writes the chart, and forgets all gradients.
    """

    def __init__(self, params: Iterable[Tensor], lr: float, chart: Chart) -> None:
        self.params, self.lr, self.chart, self.t = list(params), lr, chart, 0
        self.m = [np.zeros_like(p.data) for p in self.params]
        self.v = [np.zeros_like(p.data) for p in self.params]
        chart.begin(self.params)

    def step(self) -> None:
        self.t += 1
        lengths = self.chart.gradient_lengths()
        moving = sum(p.size for p in self.params if p.grad is not None)
        self.chart.held = sum(p.size for p in self.params), moving
        ml.clip_grad_norm(self.params, 1.0)
        moved = 0.0
        for p, m, v in zip(self.params, self.m, self.v, strict=True):
            if p.grad is None:
                continue
            m += 0.1 * (p.grad - m)
            v += 0.01 * (p.grad**2 - v)
            scale = math.sqrt(1 - 0.99**self.t) / (1 - 0.9**self.t)
            change = self.lr * scale * m / (np.sqrt(v) + 1e-8)
            p.data -= change
            moved += float(np.vdot(change, change))
        for p in self.params:
            p.grad = None
        self.chart.note(lengths, math.sqrt(moved))


def weights(model: Module) -> dict[str, np.ndarray]:
    """What a model computes with, by the paths of the plain model: W + s A B where an adapter is
    active."""
    found = {
        plain_path(name): p.data.copy()
        for name, p in model.named_parameters()
        if ".adapters." not in name
    }
    for path, layer in lora_layers(model).items():
        if layer.active is not None and layer.unmerged_weight is None:
            found[f"{path}.weight"] = found[f"{path}.weight"] + layer.delta_weight(layer.active)
    return found


def nats(model: Transformer, examples: Examples) -> float:
    """The loss on examples, in nats per symbol that counts."""
    with no_grad():
        return ml.cross_entropy(model(examples[0]), examples[1]).item()


class Chart:
    """What is seen of one run. `load` gives the base model; of those that it gave, the one whose
    parameters the optimizer holds is watched.

    rows: for every step the lengths of A, B and ΔW over all layers, of the gradients of A and B by
    block, and of the step itself ("moved"). losses: every few steps those on new and old examples,
    if there are any. at_start, at_end: what the model computes with before the first and after the
    last of `steps` steps.
    """

    def __init__(
        self,
        base: Callable[[], Transformer],
        steps: int,
        new: Examples | None = None,
        old: Examples | None = None,
    ) -> None:
        self.base, self.steps, self.new, self.old = base, steps, new, old
        self.model: Transformer | None = None
        self._loaded: list[Transformer] = []
        self.rows: list[dict[str, Any]] = []
        self.losses: list[tuple[int, float, float]] = []  # (step, new, old)
        self.at_start: dict[str, np.ndarray] = {}
        self.at_end: dict[str, np.ndarray] = {}
        self.held = (0, 0)  # numbers in the optimizer, and those of them with a gradient
        self._layers: list[tuple[int, LoraLinear]] = []  # with the number of their block

    def __repr__(self) -> str:
        return "chart"

    def load(self) -> Transformer:
        """The base model anew."""
        self._loaded.append(self.base())
        return self._loaded[-1]

    def begin(self, params: list[Tensor]) -> None:
        """Watch the model that these parameters are of. Raises UsageError if there is none."""
        held = {id(p) for p in params}
        found = (m for m in self._loaded if any(id(p) in held for p in m.parameters()))
        self.model, self._layers = next(found, None), []
        if self.model is None:
            raise UsageError(
                "the optimizer holds no parameter of a model that load() gave; make it with "
                "Adam(model.trainable_parameters(), ...)"
            )
        self.at_start = weights(self.model)
        self._measure_losses()

    def gradient_lengths(self) -> dict[str, list[float]]:
        """Of A and of B, by block."""
        assert self.model is not None
        if not self._layers:  # there is none when the optimizer is made before the adapter
            found = lora_layers(self.model).items()
            self._layers = [(int(path.split(".")[1]), layer) for path, layer in found]
        blocks = self.model.config.n_layer
        squares = {"A": [0.0] * blocks, "B": [0.0] * blocks}
        for block, adapter in self._active():
            for name, p in (("A", adapter.A), ("B", adapter.B)):
                squares[name][block] += 0.0 if p.grad is None else float(np.vdot(p.grad, p.grad))
        return {name: [math.sqrt(one) for one in both] for name, both in squares.items()}

    def note(self, gradients: dict[str, list[float]], moved: float) -> None:
        """Write down a step that was made, and forget the adapter's gradients."""
        squares = {"A": 0.0, "B": 0.0, "ΔW": 0.0}
        for _, adapter in self._active():
            A, B = adapter.A.data, adapter.B.data
            for name, array in (("A", A), ("B", B), ("ΔW", adapter.s * A @ B)):
                squares[name] += float(np.vdot(array, array))
            adapter.A.grad = adapter.B.grad = None
        lengths: dict[str, Any] = {name: math.sqrt(one) for name, one in squares.items()}
        self.rows.append(lengths | {"gradients": gradients, "moved": moved})
        if len(self.rows) == self.steps:
            assert self.model is not None
            self.at_end = weights(self.model)
        if len(self.rows) % _EVERY == 0:
            self._measure_losses()

    def _active(self) -> Iterator[tuple[int, LowRank]]:
        """(number of its block, adapter) of every layer's active adapter."""
        for block, layer in self._layers:
            if layer.active is not None:
                yield block, layer.adapters[layer.active]

    def _measure_losses(self) -> None:
        if self.new is not None and self.old is not None:
            assert self.model is not None
            found = nats(self.model, self.new), nats(self.model, self.old)
            self.losses.append((len(self.rows), *found))


Script = Callable[[Callable[[], Transformer], Batches, Chart], tuple[str, Transformer]]


def sound_script(
    load: Callable[[], Transformer], batches: Batches, chart: Chart
) -> tuple[str, Transformer]:
    """LoRA as it should be."""
    model = load()
    ml.add_adapter(model, CONFIG, rng=np.random.default_rng(0))
    optimizer = Adam(model.trainable_parameters(), lr=RATE, chart=chart)
    for ids, targets in batches:
        ml.cross_entropy(model(ids), targets).backward()
        optimizer.step()
    return "", model


def with_new_head(model: Transformer) -> Transformer:
    """The same model with a head of its own, drawn at random, that has to be trained."""
    options = vars(model.config) | {"tie_embeddings": False}
    untied = Transformer(TransformerConfig(**options), rng=np.random.default_rng(0))
    untied.load_state_dict(untied.state_dict() | model.state_dict())
    return untied


def _words_tiny() -> Transformer:
    return ml.load_model("words-tiny")


def _words_tiny_with_head() -> Transformer:
    return with_new_head(_words_tiny())


@lru_cache(maxsize=1)
def _material() -> tuple[Batches, Examples, Examples]:
    """Batches of the new task, and what new and old are measured on."""
    words = ml.load_words()

    def draw(tasks: tuple[str, ...], rows: int, seed: int, part: str) -> Examples:
        return string_batch(tasks, words[part], rows, 28, np.random.default_rng((4, seed)))

    batches = Batches(draw(("reverse",), 16, i, "train") for i in range(STEPS))
    return batches, draw(("reverse",), 32, 1000, "val"), draw(PRETRAIN_TASKS, 32, 1001, "val")


def run(script: Script, new_head: bool = False) -> tuple[Chart, str, Transformer]:
    """Run a script on words-tiny: the chart, its diagnosis and the model it ships."""
    batches, new, old = _material()
    chart = Chart(_words_tiny_with_head if new_head else _words_tiny, STEPS, new, old)
    diagnosis, shipped = script(chart.load, batches, chart)
    return chart, diagnosis, shipped


@lru_cache(maxsize=1)
def _sound_chart() -> Chart:
    return run(sound_script)[0]


def length_of_change(model: dict[str, np.ndarray], base: dict[str, np.ndarray]) -> float:
    """Of all that a model computes with, minus its base's: a Frobenius norm."""
    squares = (np.vdot(model[k] - base[k], model[k] - base[k]) for k in base)
    return math.sqrt(float(sum(squares)))


def examine(script: Script, new_head: bool = False) -> None:
    """Run a script on words-tiny and show its chart. new_head: on a base with a new head."""
    chart, _, shipped = run(script, new_head)
    print(_table(chart, shipped))
    _draw(chart, shipped)


def _table(chart: Chart, shipped: Transformer) -> str:
    sound, base = _sound_chart(), chart.base()
    assert chart.model is not None and chart.new is not None and chart.old is not None
    before, (_, new, old) = weights(base), sound.losses[-1]
    changes = [length_of_change(now, before) for now in (chart.at_end, weights(shipped))]
    measured = {
        "loss on the new task": [
            nats(base, chart.new), new, chart.losses[-1][1], nats(shipped, chart.new),
        ],
        "loss on the old tasks": [
            nats(base, chart.old), old, chart.losses[-1][2], nats(shipped, chart.old),
        ],
        "length of the change": [0.0, sound.rows[-1]["ΔW"], *changes],
    }  # fmt: skip
    columns = ("base", "sound run", "this run", "as shipped")
    lines = [f"{'':<22}" + "".join(f"{name:>12}" for name in columns)]
    for name, values in measured.items():
        lines.append(f"{name:<22}" + "".join(f"{value:>12.2f}" for value in values))
    layers = lora_layers(chart.model)
    linears = sum(isinstance(module, ml.Linear) for _, module in base.named_modules())
    held, moving = chart.held
    lines += [
        f"layers with an adapter: {len(layers)} of {linears}",
        f"numbers in the optimizer: {held:,}, with a gradient: {moving:,}",
    ]
    return "\n".join(lines)


def _draw(chart: Chart, shipped: Transformer) -> None:
    from matplotlib import pyplot as plt

    from minilora import plots

    orange, grey, brown = plots.COLORS["lora"], "0.35", plots.shade(plots.COLORS["lora"], 0.5)
    sound = {"color": "0.55", "ls": (0, (1, 1.4)), "lw": 1.4}
    assert chart.new is not None and chart.old is not None
    with plots.style():
        figure, (left, middle, right) = plt.subplots(1, 3, figsize=(7.4, 2.4), layout="constrained")
        steps, new, old = zip(*chart.losses, strict=True)
        left.plot(steps, [n for _, n, _ in _sound_chart().losses], **sound, label="new, sound run")
        left.plot(steps, new, color=orange, label="new task")
        left.plot(steps, old, color=grey, ls="--", label="old tasks")
        for examples, color, mark in ((chart.new, orange, "o"), (chart.old, grey, "s")):
            look = {"marker": mark, "ms": 8, "mfc": "none", "mec": color, "mew": 2}
            left.plot([STEPS + 3], [nats(shipped, examples)], clip_on=False, **look)
        left.plot([], [], "o", color="0.2", ms=7, mfc="none", label="as shipped")
        left.set(title="Loss, nats", xlabel="step", ylim=(0, 11.5), yticks=range(0, 9, 2))
        left.legend(fontsize=7.5, loc="upper center", ncols=2, columnspacing=0.8, handlelength=1.4)
        at = range(1, len(chart.rows) + 1)
        for name, color, style in (("A", grey, "--"), ("B", orange, "-"), ("ΔW", brown, "-.")):
            middle.plot(at, [r[name] for r in _sound_chart().rows], **sound)
            middle.plot(at, [r[name] for r in chart.rows], color=color, ls=style, label=f"‖{name}‖")
        middle.set(title="Lengths", xlabel="step", yscale="symlog", ylim=(-0.05, None))
        middle.legend(fontsize=7.5, loc="lower right")
        blocks = np.arange(len(chart.rows[0]["gradients"]["B"]))
        for name, shift, color in (("A", -0.2, grey), ("B", 0.2, orange)):
            mean, usual = _mean_gradients(chart, name), _mean_gradients(_sound_chart(), name)
            right.bar(blocks + shift, mean, 0.36, color=color, label=f"of {name}")
            right.plot(blocks + shift, usual, ls="", marker="_", ms=12, mew=2, color="0.55")
        right.set(title="Gradients, by block", xlabel="block", xticks=blocks)
        right.legend(fontsize=7.5)
        plots.show(figure, _in_words(chart, shipped))


def _mean_gradients(chart: Chart, name: str) -> np.ndarray:
    """The mean length over the steps, by block."""
    return np.mean([row["gradients"][name] for row in chart.rows], axis=0)


def _in_words(chart: Chart, shipped: Transformer) -> str:
    """What the figure of a chart shows."""
    assert chart.new is not None
    last, bars = chart.rows[-1], _mean_gradients(chart, "B")
    return (
        f"Left: the loss on the new task goes from {chart.losses[0][1]:.2f} to "
        f"{chart.losses[-1][1]:.2f}, as shipped it is {nats(shipped, chart.new):.2f}. Middle: at "
        f"the end A has the length {last['A']:.1f}, B {last['B']:.1f}, ΔW {last['ΔW']:.1f}. Right: "
        f"the mean gradient of B by block is {', '.join(f'{bar:.1f}' for bar in bars)}."
    )
