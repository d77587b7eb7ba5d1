"""Initialization, gradients and the loop: measured on one Linear layer and on words-tiny."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import minilora as ml
from minilora.learn.demos import learners as S
from minilora.learn.demos.demo import Measured, demo
from minilora.lora import lora_layers
from minilora.lora_config import LoraConfig
from minilora.optim import SGD, AdamW, clip_grad_norm
from minilora.system.errors import MiniloraError, StateError
from minilora.system.files import temporary_folder
from minilora.tensor import Tensor, no_grad, observe, op_name
from minilora.text.windows import IGNORE_INDEX


def _adapted_words(init: bool = True, r: int = 4) -> ml.Transformer:
    """words-tiny with LoRA on every Linear of its blocks, s = 2."""
    model = ml.load_model("words-tiny")
    config = LoraConfig(r=r, lora_alpha=2 * r, target_modules="all-linear", init_lora_weights=init)
    ml.add_adapter(model, config, rng=np.random.default_rng(0))
    return model


def _gradient_lengths(model: ml.Transformer, batch: S.Batch) -> tuple[float, float]:
    """‖dA‖ and ‖dB‖, over all adapters."""
    ml.cross_entropy(model(batch[0]), batch[1]).backward()
    adapters = [layer.adapters["default"] for layer in lora_layers(model).values()]
    lengths = [
        math.sqrt(sum(float(np.sum(p.grad**2)) for p in factors if p.grad is not None))
        for factors in ([a.A for a in adapters], [a.B for a in adapters])
    ]
    model.zero_grad()
    return lengths[0], lengths[1]


def _moved(model: ml.Transformer, before: dict[str, np.ndarray], end: str) -> int:
    """How many entries of the parameters whose path ends so are not what they were."""
    after = model.state_dict()
    return sum(int(np.sum(after[k] != before[k])) for k in before if k.endswith(end))


def _logits(model: ml.Transformer, ids: np.ndarray) -> np.ndarray:
    with no_grad():
        return model(ids).data


@demo(
    same_as_base=lambda m: (
        m["logits differ from the base's by"] == 0
        and m["the same, were B random too"] > 0.1
        and m["length of B's gradient at the start"] > 0.1
        and m["length of A's gradient"] == 0
    ),
    waits=lambda m: (
        m["length of B's gradient at the start"] == 0 and m["length of A's gradient"] > 0
    ),
    stays_small=lambda m: (
        m["‖ΔW‖ / ‖W‖ after 12 steps"] < 0.01 and m["logits differ from the base's by"] < 0.01
    ),
    smaller_file=lambda m: m["bytes of the new adapter's file"] < 4 * m["entries of A and B"],
)
def starts_as_the_base() -> Measured:
    """Add LoRA to words-tiny, compare its logits, gradients and file, and train it for 12 steps."""
    model, base = _adapted_words(), ml.load_model("words-tiny")
    batch = S.new_words(np.random.default_rng(0))
    logits = _logits(base, batch[0])
    dA, dB = _gradient_lengths(model, batch)
    with temporary_folder() as folder:
        ml.save_adapter(model, folder)
        size = (folder / "adapter_model.safetensors").stat().st_size
    later = S.learned_to_reverse("lora", 1e-2)
    layer = lora_layers(later)["layers.0.attn.q_proj"]
    delta = layer.delta_weight("default")
    return {
        "logits differ from the base's by": float(np.abs(_logits(model, batch[0]) - logits).max()),
        "the same, were B random too": float(
            np.abs(_logits(_adapted_words(init=False), batch[0]) - logits).max()
        ),
        "length of A's gradient": dA,
        "length of B's gradient at the start": dB,
        "‖ΔW‖ / ‖W‖ after 12 steps": float(
            np.linalg.norm(delta) / np.linalg.norm(layer.base.weight.data)
        ),
        "entries of A and B": ml.count_parameters(model)[0],
        "bytes of the new adapter's file": size,
    }


@demo(
    nothing_learns=lambda m: (
        m["entries of A that moved"] == m["entries of B that moved"] == 0
        and m["loss after, per cent of before"] == 100
        and m["the same with A random"] < 90
    ),
    later=lambda m: (
        m["entries of A that moved"] > 0
        and m["entries of B that moved"] > 0
        and m["loss after, per cent of before"] < 100
    ),
    only_b=lambda m: m["entries of A that moved"] == 0 < m["entries of B that moved"],
    not_a_number=lambda m: m["the loss is no finite number"] > 0,
)
def both_factors_at_zero() -> Measured:
    """Set A to zero as well, train a layer with AdamW for 100 steps, and look what has moved."""
    t = S.teacher(2)
    dead, alive = S.with_lora(t.W, 2), S.with_lora(t.W, 2)
    adapter = S.adapter_of(dead)
    adapter.A.data[...] = 0
    losses = S.fit(dead, t.x, t.y, steps=100, lr=2e-2)
    usual = S.fit(alive, t.x, t.y, steps=100, lr=2e-2)
    return {
        "entries of A that moved": int(np.count_nonzero(adapter.A.data)),
        "entries of B that moved": int(np.count_nonzero(adapter.B.data)),
        "loss after, per cent of before": 100 * losses[-1] / losses[0],
        "the same with A random": 100 * usual[-1] / usual[0],
        "the loss is no finite number": not np.isfinite(losses).all(),
    }


@demo(
    worse_at_once=lambda m: (
        m["old loss, in times the base's"] > 10
        and m["entries of W that changed"] == 0
        and m["length of A's gradient"] > 0
    ),
    averages_out=lambda m: 0.9 < m["old loss, in times the base's"] < 1.1,
    base_is_lost=lambda m: m["entries of W that changed"] > 0,
    no_gradient=lambda m: m["length of A's gradient"] == 0,
)
def both_factors_random() -> Measured:
    """Add LoRA with A and B random to words-tiny, and measure it on what it can do already."""
    base, model = ml.load_model("words-tiny"), _adapted_words(init=False)
    batch = S.old_words(np.random.default_rng(0))
    weights = dict(base.named_parameters())
    changed = sum(
        int((layer.base.weight.data != weights[f"{path}.weight"].data).sum())
        for path, layer in lora_layers(model).items()
    )
    return {
        "old loss, in times the base's": (
            S.cross_entropy_of(model, batch) / S.cross_entropy_of(base, batch)
        ),
        "entries of W that changed": changed,
        "length of A's gradient": _gradient_lengths(model, batch)[0],
    }


def _is_one(square: float) -> bool:
    return 0.94 < square <= 1 + 1e-9  # the largest of 3,200 draws comes close to its bound


@demo(
    sqrt_d_in=lambda m: _is_one(m["the largest entry of A"] ** 2 * m["d_in"]),
    sqrt_r=lambda m: _is_one(m["the largest entry of A"] ** 2 * m["r"]),
    d_in=lambda m: _is_one((m["the largest entry of A"] * m["d_in"]) ** 2),
    both=lambda m: _is_one(m["the largest entry of A"] ** 2 * (m["d_in"] + m["r"]) / 6),
)
def how_far_a_spreads() -> Measured:
    """Add LoRA of rank 8 to a layer with 400 inputs, and look for the largest entry of A."""
    model = S.with_lora(np.zeros((400, 30)), r=8)
    A = S.adapter_of(model).A.data
    return {"d_in": A.shape[0], "r": A.shape[1], "the largest entry of A": float(np.abs(A).max())}


def _slopes(f: Callable[[], float], array: np.ndarray, step: float = 1e-5) -> np.ndarray:
    """df / d(entry) for every entry of an array, by changing one after the other."""
    slopes = np.empty_like(array)
    for i in np.ndindex(array.shape):
        value = array[i]
        array[i] = value + step
        above = f()
        array[i] = value - step
        slopes[i] = (above - f()) / (2 * step)
        array[i] = value
    return slopes


def _off(formula: np.ndarray, measured: np.ndarray) -> float:
    """The largest difference, in units of the largest entry; 1 for another shape."""
    if formula.shape != measured.shape:
        return 1.0
    return float(np.abs(formula - measured).max() / np.abs(measured).max())


def _layer_and_loss(seed: int = 3) -> tuple[Any, np.ndarray, np.ndarray, Callable[[], float]]:
    """A layer of random A and B with s = 2, inputs x, G, and a loss whose gradient by y is G."""
    rng = np.random.default_rng(seed)
    model = S.with_lora(rng.standard_normal((4, 4)), r=4, lora_alpha=8, init_lora_weights=False)
    x, G = rng.standard_normal((4, 4)), rng.standard_normal((4, 4))

    def loss() -> float:
        with no_grad():
            return float((model[0](Tensor(x)).data * G).sum())

    return model[0], x, G, loss


@demo(
    right=lambda m: m["s (x A)^T G is off by"] < 1e-6,
    without_s=lambda m: m["(x A)^T G is off by"] < 1e-6,
    that_of_a=lambda m: m["s x^T (G B^T) is off by"] < 1e-6,
    through_b=lambda m: m["s (x B)^T G is off by"] < 1e-6,
)
def slope_of_b() -> Measured:
    """Change every entry of B a little, see how the loss follows, and compare four formulae."""
    layer, x, G, loss = _layer_and_loss()
    adapter = layer.adapters["default"]
    A, B, s = adapter.A.data, adapter.B.data, adapter.s
    slopes = _slopes(loss, B)
    return {
        "s (x A)^T G is off by": _off(s * (x @ A).T @ G, slopes),
        "(x A)^T G is off by": _off((x @ A).T @ G, slopes),
        "s x^T (G B^T) is off by": _off(s * x.T @ (G @ B.T), slopes),
        "s (x B)^T G is off by": _off(s * (x @ B).T @ G, slopes),
    }


@demo(
    both_ways=lambda m: m["G W^T + s (G B^T) A^T is off by"] < 1e-6,
    only_w=lambda m: m["G W^T is off by"] < 1e-6,
    only_adapter=lambda m: m["s (G B^T) A^T is off by"] < 1e-6,
    nothing=lambda m: m["the largest slope"] < 1e-6,
)
def slope_of_x() -> Measured:
    """Change every input of an adapted layer a little, and see how the loss follows."""
    layer, x, G, loss = _layer_and_loss()
    adapter, W = layer.adapters["default"], layer.base.weight.data
    A, B, s = adapter.A.data, adapter.B.data, adapter.s
    slopes = _slopes(loss, x)
    return {
        "G W^T + s (G B^T) A^T is off by": _off(G @ W.T + s * (G @ B.T) @ A.T, slopes),
        "G W^T is off by": _off(G @ W.T, slopes),
        "s (G B^T) A^T is off by": _off(s * (G @ B.T) @ A.T, slopes),
        "the largest slope": float(np.abs(slopes).max()),
    }


@demo(
    only_b=lambda m: m["entries of B that moved"] > 0 == m["entries of A that moved"],
    only_a=lambda m: m["entries of A that moved"] > 0 == m["entries of B that moved"],
    both=lambda m: m["entries of A that moved"] > 0 < m["entries of B that moved"],
    neither=lambda m: m["entries of A that moved"] == 0 == m["entries of B that moved"],
)
def first_step() -> Measured:
    """Take one AdamW step with a fresh adapter on words-tiny, and count what has moved."""
    model = _adapted_words()
    before = model.state_dict()
    config = ml.TrainConfig(steps=1, lr=1e-2, warmup=0)
    ml.train(model, S.new_words, config, threads=1, quiet=True)
    return {
        "entries of A that moved": _moved(model, before, ".A"),
        "entries of B that moved": _moved(model, before, ".B"),
    }


def _gradients_formed(model: ml.Transformer, batch: S.Batch) -> dict[str, int]:
    """How many gradients the backward pass of the Linears forms: of the inputs of those with and
    of those without an adapter, and of whole W.

    The first parent of these operations is x, the second W or, with LoRA, A.
    """
    formed = {"x of lora_linear": 0, "x of linear": 0, "W": 0}

    def counted(vjp: Any, parent: Tensor, name: str, whole: tuple[int, int]) -> Any:
        def count(g: np.ndarray) -> np.ndarray:
            formed[f"x of {name}"] += parent.ndim == 3
            formed["W"] += parent.shape == whole
            out: np.ndarray = vjp(g)
            return out

        return count

    def counting(data: np.ndarray, edges: Any) -> Any:
        name = op_name(edges[0][1])
        if name not in ("linear", "lora_linear"):
            return edges
        whole = (edges[0][0].shape[-1], data.shape[-1])  # of W (d_in, d_out)
        given = [(parent, vjp) for parent, vjp in edges if parent is not None]
        return tuple((parent, counted(vjp, parent, name, whole)) for parent, vjp in given)

    with observe(counting):
        loss = ml.cross_entropy(model(batch[0]), batch[1])
    loss.backward()
    return formed


@demo(
    to_the_adapters=lambda m: (
        m["gradients of inputs of frozen layers"] == 1
        and 1 < m["gradients of inputs"] <= m["layers of the last block, and the head"]
        and m["gradients of a W"] == 0
    ),
    no_frozen=lambda m: m["gradients of inputs of frozen layers"] == 0,
    all_blocks=lambda m: m["gradients of inputs"] > 0.8 * m["gradients of inputs, full"],
    every_w=lambda m: m["gradients of a W"] > 0,
)
def adapters_in_the_last_block() -> Measured:
    """Adapt the last block of words-tiny, and count the gradients that a backward pass forms."""
    batch, model = S.new_words(np.random.default_rng(0)), ml.load_model("words-tiny")
    full = _gradients_formed(model, batch)
    config = LoraConfig(r=4, target_modules=rf"layers\.{model.config.n_layer - 1}\..*_proj")
    ml.add_adapter(model, config, rng=np.random.default_rng(0))
    last = _gradients_formed(model, batch)
    return {
        "gradients of inputs of frozen layers": last["x of linear"],
        "gradients of inputs": last["x of linear"] + last["x of lora_linear"],
        "layers of the last block, and the head": len(lora_layers(model)) + 1,
        "gradients of inputs, full": full["x of linear"],
        "gradients of a W": last["W"],
    }


@demo(
    of_a_and_b=lambda m: m["numbers in AdamW's state"] == 2 * m["entries of A and B"],
    of_all=lambda m: (
        m["numbers in AdamW's state"] == 2 * (m["entries of A and B"] + m["frozen numbers"])
    ),
    one_each=lambda m: m["numbers in AdamW's state"] == m["entries of A and B"],
    first_full=lambda m: (
        m["numbers in AdamW's state"] == 2 * m["entries of A and B"] + m["frozen numbers"]
    ),
)
def state_of_the_optimizer() -> Measured:
    """Make AdamW for words-tiny with LoRA, take a step, and count the numbers of its state."""
    model = _adapted_words()
    trained, total = ml.count_parameters(model)
    config = ml.TrainConfig(steps=1, lr=1e-2)
    training = ml.Training(model, S.new_words, config)
    training.step()
    return {
        "entries of A and B": trained,
        "frozen numbers": total - trained,
        "numbers in AdamW's state": training.optimizer.state_bytes // 4,  # float32
    }


@demo(
    wrong_parameters=lambda m: (
        m["entries of A and B in the early optimizer"] == 0
        and m["largest entry of B after a step, optimizer made later"] > 0
    ),
    gradient_is_zero=lambda m: m["length of B's gradient"] == 0,
    not_in_forward=lambda m: m["a random B changes the output by"] == 0,
    step_too_small=lambda m: (
        m["entries of A and B in the early optimizer"] > 0
        and m["largest entry of B after a step, optimizer made later"] == 0
    ),
)
def optimizer_made_too_early() -> Measured:
    """Make one optimizer before the adapter is added and one after, and take a step."""
    t = S.teacher(2)
    model = S.one_layer(t.W)
    early = SGD(model.trainable_parameters(), lr=1e-3)
    config = LoraConfig(r=2, lora_alpha=2, target_modules=["0"])
    ml.add_adapter(model, config, rng=np.random.default_rng(0))
    A, B = S.adapter_of(model).A, S.adapter_of(model).B
    late = SGD(model.trainable_parameters(), lr=1e-3)
    S.squared_error(model, t.x, t.y).backward()
    assert B.grad is not None
    gradient = float(np.linalg.norm(B.grad))
    late.step()
    moved = float(np.abs(B.data).max())
    plain = t.x @ t.W
    B.data[...] = np.random.default_rng(1).standard_normal(B.shape)
    with no_grad():
        changed = float(np.abs(model[0](Tensor(t.x)).data - plain).max())
    return {
        "entries of A and B in the early optimizer": sum(
            p.size for p in early.params if p is A or p is B
        ),
        "largest entry of B after a step, optimizer made later": moved,
        "length of B's gradient": gradient,
        "a random B changes the output by": changed,
    }


@demo(
    decays=lambda m: (
        m["‖W‖ after 100 steps, per cent"] < 99
        and m["cosine of W and its change"] < -0.99
        and m["moments that are kept for W"] > 0
    ),
    follows_the_adapter=lambda m: (
        m["‖W‖ after 100 steps, per cent"] != 100 and abs(m["cosine of W and its change"]) < 0.9
    ),
    divides_by_zero=lambda m: m["W is no finite number"] > 0,
    stays=lambda m: (
        m["‖W‖ after 100 steps, per cent"] == 100 and m["moments that are kept for W"] > 0
    ),
)
def gradient_set_to_zero() -> Measured:
    """Train a layer with its W in AdamW, weight decay 0.01, and W's gradient set to zero."""
    t = S.teacher(2)
    model = S.with_lora(t.W, 2)
    W = model[0].base.weight
    W.requires_grad = True
    optimizer = AdamW(model.trainable_parameters(), lr=2e-2, weight_decay=0.01)
    for _ in range(100):
        adapter = S.adapter_of(model)
        y = Tensor(t.x) @ W + adapter.s * (Tensor(t.x) @ adapter.A @ adapter.B)
        ((y - Tensor(t.y)) * (y - Tensor(t.y))).mean().backward()
        W.grad = np.zeros_like(W.data)
        optimizer.step()
        optimizer.zero_grad()
    change = W.data - t.W
    length = float(np.linalg.norm(change) * np.linalg.norm(t.W))
    return {
        "‖W‖ after 100 steps, per cent": 100 * float(np.linalg.norm(W.data) / np.linalg.norm(t.W)),
        "cosine of W and its change": float((change * t.W).sum()) / length if length else 0.0,
        "moments that are kept for W": 2 * sum(p.size for p in optimizer.params if p is W),
        "W is no finite number": not np.isfinite(W.data).all(),
    }


def _backward_works(loss: Callable[[], Tensor]) -> bool:
    try:
        loss().backward()
    except StateError:
        return False
    return True


@demo(
    cut=lambda m: m["it works from an array of the logits"] == 0 < m["it works from the logits"],
    frozen=lambda m: m["it works from the logits"] == 0,
    zero=lambda m: m["it works with B = 0"] == 0,
    inputs=lambda m: m["it works with inputs that need no gradient"] == 0,
)
def where_the_graph_is_cut() -> Measured:
    """Call backward() on the output of an adapted layer with a frozen W in four situations."""
    t = S.teacher(2)

    def works(B_zero: bool = False, x_needs: bool = True, as_array: bool = False) -> bool:
        model = S.with_lora(t.W, 2, init_lora_weights=B_zero)
        y = model[0](Tensor(t.x, requires_grad=x_needs))
        if as_array:
            y = Tensor(y.data)
        try:
            (y * y).mean().backward()
        except StateError:
            return False
        return True

    return {
        "it works from the logits": works(),
        "it works from an array of the logits": works(as_array=True),
        "it works with B = 0": works(B_zero=True),
        "it works with inputs that need no gradient": works(x_needs=False),
    }


@demo(
    inputs=lambda m: (
        0.4 < m["share of the adapter's outputs that are 0"] < 0.6
        and m["all rows lose the same"] == m["a row is lost altogether"] == 0
        and m["outputs of W that changed"] == 0
        and m["the same without a generator"] == 0
    ),
    factors=lambda m: (
        m["all rows lose the same"] > 0 < m["share of the adapter's outputs that are 0"]
    ),
    frozen_too=lambda m: m["outputs of W that changed"] > 0,
    whole_adapter=lambda m: (
        m["a row is lost altogether"] > 0 < m["share of the adapter's outputs that are 0"]
    ),
)
def what_is_dropped() -> Measured:
    """Let an adapter with A = B = I pass ones through, with lora_dropout = 0.5."""
    d, rows = 16, 64
    W = np.random.default_rng(0).standard_normal((d, d))
    through = S.with_lora(np.zeros((d, d)), r=d, lora_dropout=0.5)
    adapter = S.adapter_of(through)
    adapter.A.data[...] = adapter.B.data[...] = np.eye(d)
    fresh = S.with_lora(W, r=2, lora_dropout=0.5)  # B = 0
    x = np.ones((rows, d))
    zero = through[0](Tensor(x), np.random.default_rng(0)).data == 0  # (rows, d)
    of_W = fresh[0](Tensor(x), np.random.default_rng(0)).data
    return {
        "share of the adapter's outputs that are 0": float(zero.mean()),
        "the same without a generator": float((through[0](Tensor(x)).data == 0).mean()),
        "all rows lose the same": bool((zero == zero[0]).all()),
        "a row is lost altogether": bool(zero.all(axis=1).any()),
        "outputs of W that changed": int(np.sum(np.abs(of_W - x @ W) > 1e-9)),
    }


class _Run:
    """The steps of a run, to be taken in any order; `restored` is what comes of it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.model = ml.Transformer(ml.load_model("words-tiny").config, rng=_rng())
        self.optimizer: AdamW | None = None

    def load(self) -> None:
        self.model = ml.load_model("words-tiny")

    def add(self) -> None:
        config = LoraConfig(r=4, lora_alpha=8, target_modules="all-linear")
        ml.add_adapter(self.model, config, rng=_rng())

    def make_optimizer(self) -> None:
        self.optimizer = AdamW(self.model.trainable_parameters(), lr=2e-2)

    def train(self) -> None:
        assert self.optimizer is not None
        for i in range(5):
            ids, targets = S.new_words(np.random.default_rng(i))
            ml.cross_entropy(self.model(ids), targets).backward()
            self.optimizer.step()
            self.optimizer.zero_grad()

    def save(self) -> None:
        ml.save_adapter(self.model, self.folder)

    def merge(self) -> None:
        ml.merge_and_unload(self.model)


def _rng() -> np.random.Generator:
    return np.random.default_rng(0)


def _loss_after(order: str) -> float:
    """Per cent of the base's loss, of the base with the adapter that this order of steps saved."""
    restored = ml.load_model("words-tiny")
    batch = S.new_words(np.random.default_rng(9))
    before = S.cross_entropy_of(restored, batch)
    with temporary_folder() as folder:
        run = _Run(folder)
        steps = (run.train, run.load, run.merge, run.save, run.make_optimizer, run.add)
        try:
            for number in order.split():
                steps[int(number) - 1]()
            ml.load_adapter(restored, folder)
        except (MiniloraError, OSError):
            return 100.0  # the run stopped, and there is no adapter to load
    return 100 * S.cross_entropy_of(restored, batch) / before


_ORDERS = {
    "right": "2 6 5 1 4 3",
    "optimizer_first": "2 5 6 1 4 3",
    "merged_first": "2 6 5 1 3 4",
    "saved_first": "2 6 5 4 1 3",
}


@demo(
    **{
        key: lambda m, order=order: m[f"loss, per cent of the base's, after {order}"] < 90
        for key, order in _ORDERS.items()
    }
)
def order_of_a_run() -> Measured:
    """Take the steps in four orders on words-tiny, and load what was saved into the base anew."""
    return {
        f"loss, per cent of the base's, after {order}": _loss_after(order)
        for order in _ORDERS.values()
    }


def _second_step(order: str) -> float:
    """The length of the second step that this order of parts makes, in units of rate × limit."""
    t = S.teacher(2, sigma=100)  # gradients far longer than the limit
    model = S.with_lora(t.W, 2, init_lora_weights=False)
    params, lr, limit = model.trainable_parameters(), 1e-4, 1.0
    optimizer, loss = SGD(params, lr=lr), [Tensor(0.0)]

    def forward() -> None:
        loss[0] = S.squared_error(model, t.x, t.y)

    parts = (
        lambda: clip_grad_norm(params, limit),
        optimizer.zero_grad,
        forward,
        optimizer.step,
        lambda: loss[0].backward(),
    )
    length = 0.0
    for _ in range(2):
        before = [p.data.copy() for p in params]
        try:
            for number in order.split():
                parts[int(number) - 1]()
        except StateError:
            return 0.0
        moved = [np.sum((p.data - b) ** 2) for p, b in zip(params, before, strict=True)]
        length = math.sqrt(sum(moved)) / (lr * limit)
    return float(length)


_PARTS = {
    "right": "3 5 1 4 2",
    "clip_late": "3 5 4 1 2",
    "clip_early": "3 1 5 4 2",
    "zero_early": "3 5 2 1 4",
}


@demo(
    **{
        key: lambda m, order=order: 0.99 < m[f"step of {order}, in units of rate × limit"] < 1.01
        for key, order in _PARTS.items()
    }
)
def order_of_a_step() -> Measured:
    """Train a layer for two steps in four orders, and measure how long the second step is."""
    return {
        f"step of {order}, in units of rate × limit": _second_step(order)
        for order in _PARTS.values()
    }


@demo(
    gap_opens=lambda m: (
        m["training loss, end"] < 0.8 * m["training loss, when validation was best"]
        and m["validation loss, end"] > 1.05 * m["validation loss, best"]
    ),
    both_fall=lambda m: (
        m["training loss, end"] < m["training loss, start"]
        and m["validation loss, end"] <= 1.01 * m["validation loss, best"]
    ),
    both_stay=lambda m: (
        m["training loss, end"] > 0.9 * m["training loss, start"]
        and m["validation loss, end"] > 0.9 * m["training loss, start"]
    ),
    training_rises=lambda m: (
        m["training loss, end"] > m["training loss, when validation was best"]
        and m["validation loss, end"] <= 1.01 * m["validation loss, best"]
    ),
)
def too_many_passes() -> Measured:
    """Train a layer with LoRA of rank 8 on 16 noisy samples, far past its best on new ones."""
    t = S.teacher(2, samples=16, noise=0.3)
    model = S.with_lora(t.W, 8)
    training, validation = [], []
    for _ in range(60):
        training.append(S.loss_of(model, t.x, t.y))
        validation.append(S.loss_of(model, t.x_new, t.y_new))
        S.fit(model, t.x, t.y, steps=3, lr=1e-2)
    best = int(np.argmin(validation))
    return {
        "training loss, start": training[0],
        "training loss, when validation was best": training[best],
        "training loss, end": training[-1],
        "validation loss, best": validation[best],
        "validation loss, end": validation[-1],
    }


@demo(
    read_not_graded=lambda m: (
        m["largest gradient at a prompt's logits"] == 0
        and m["loss after another prompt, in times"] > 2
        and abs(m["loss, in units of the mean over the answers"] - 1) < 1e-3
    ),
    not_read=lambda m: 0.99 < m["loss after another prompt, in times"] < 1.01,
    counted_as_zero=lambda m: (
        abs(
            m["loss, in units of the mean over the answers"]
            - m["share of positions that are of an answer"]
        )
        < 1e-3
    ),
    pushed_away=lambda m: m["largest gradient at a prompt's logits"] > 0,
)
def masked_prompts() -> Measured:
    """Take the loss of words-tiny where the prompts' targets are -100, and change the prompts."""
    model = ml.load_model("words-tiny")
    ids, targets = S.old_words(np.random.default_rng(0))
    asked = targets != IGNORE_INDEX
    logits = Tensor(_logits(model, ids) / 4, requires_grad=True)  # less sure, for a larger loss
    loss = ml.cross_entropy(logits, targets)
    loss.backward()
    assert logits.grad is not None
    rows = logits.data[asked].astype(np.float64)
    chosen = rows[np.arange(len(rows)), targets[asked]]
    of_answers = float(np.mean(np.log(np.exp(rows).sum(axis=1)) - chosen))
    answer = np.roll(asked, 1, axis=1)  # where what was asked for stands among the ids
    shuffled = np.random.default_rng(1).permutation(ids.ravel()).reshape(ids.shape)
    other = np.where(answer, ids, shuffled)
    return {
        "loss, in units of the mean over the answers": loss.item() / of_answers,
        "share of positions that are of an answer": float(asked.mean()),
        "largest gradient at a prompt's logits": float(np.abs(logits.grad[~asked]).max()),
        "loss after another prompt, in times": (
            S.cross_entropy_of(model, (other, targets)) / S.cross_entropy_of(model, (ids, targets))
        ),
    }


_ARRAYS = ("dA", "dB", "dx", "x A")


def _has_shapes(m: Measured, pairing: str) -> bool:
    """Do the arrays have the shapes that "1C 2D 3A 4B" gives them?"""
    sizes = {"A": ("N", "d_in"), "B": ("N", "r"), "C": ("d_in", "r"), "D": ("r", "d_out")}
    return all(
        m[f"rows of {_ARRAYS[int(pair[0]) - 1]}"] == m[sizes[pair[1]][0]]
        and m[f"columns of {_ARRAYS[int(pair[0]) - 1]}"] == m[sizes[pair[1]][1]]
        for pair in pairing.split()
    )


@demo(
    right=lambda m: _has_shapes(m, "1C 2D 3A 4B"),
    swapped=lambda m: _has_shapes(m, "1D 2C 3A 4B"),
    rotated=lambda m: _has_shapes(m, "1C 2D 3B 4A"),
    thin=lambda m: _has_shapes(m, "1B 2D 3A 4C"),
)
def shapes_in_backward() -> Measured:
    """Send 5 inputs through an adapted layer 6 → 10 of rank 3 and back, and read the shapes."""
    model = S.with_lora(np.ones((6, 10)), r=3)
    adapter = S.adapter_of(model)
    x = Tensor(np.ones((5, 6)), requires_grad=True)
    model[0](x).sum().backward()
    found = dict(zip(_ARRAYS, (adapter.A.grad, adapter.B.grad, x.grad, x @ adapter.A), strict=True))
    sizes: Measured = {"N": 5, "d_in": 6, "d_out": 10, "r": 3}
    for name, array in found.items():
        assert array is not None
        sizes |= {f"rows of {name}": array.shape[0], f"columns of {name}": array.shape[1]}
    return sizes


@demo(
    to_the_base=lambda m: (
        m["‖ΔW‖ with decay, in times that without"] < 0.8
        and m["‖W + ΔW‖, likewise"] > 0.9
        and m["entries of W that changed"] == 0
    ),
    to_zero=lambda m: m["‖W + ΔW‖, likewise"] < 0.8,
    w_alone=lambda m: (
        m["entries of W that changed"] > 0 and m["‖ΔW‖ with decay, in times that without"] > 0.98
    ),
    nothing=lambda m: (
        m["‖ΔW‖ with decay, in times that without"] > 0.98 and m["entries of W that changed"] == 0
    ),
)
def what_decays() -> Measured:
    """Train a layer with LoRA and AdamW, without weight decay and with a strong one."""
    t = S.teacher(2)
    free, decayed = S.with_lora(t.W, 4), S.with_lora(t.W, 4)
    S.fit(free, t.x, t.y, steps=100, lr=2e-2)
    S.fit(decayed, t.x, t.y, steps=100, lr=2e-2, weight_decay=10)
    deltas = [ml.get_delta_weight(model, "0") for model in (decayed, free)]
    sums = [t.W + delta for delta in deltas]
    return {
        "‖ΔW‖ with decay, in times that without": S.ratio(*deltas),
        "‖W + ΔW‖, likewise": S.ratio(*sums),
        "entries of W that changed": int(np.sum(decayed[0].base.weight.data != t.W)),
    }


def _symptom(fault: str) -> int:
    """The number of the letter that the card gives to what is seen; 5 if the layer learns."""
    t = S.teacher(2)
    model = S.one_layer(t.W)
    early = model.trainable_parameters()
    config = LoraConfig(r=2, lora_alpha=2, target_modules=["0"])
    ml.add_adapter(model, config, rng=np.random.default_rng(0))
    adapter = S.adapter_of(model)
    if fault == "both zero":
        adapter.A.data[...] = 0
    if fault == "merged":
        ml.merge_adapter(model)
    params = early if fault == "optimizer too early" else model.trainable_parameters()
    lr = 1e-5 if fault == "rate too low" else 1e-2
    before, gradient = S.loss_of(model, t.x, t.y), 0.0
    for _ in range(50):
        try:
            S.squared_error(model, t.x, t.y).backward()
        except StateError:
            return 1
        assert adapter.B.grad is not None
        gradient = max(gradient, float(np.abs(adapter.B.grad).max()))
        for p in params:  # as PyTorch's optimizers do: who has no gradient is passed over
            if p.grad is not None:
                p.data -= lr * p.grad / (np.abs(p.grad).max() + 1e-12)
        model.zero_grad()
    if gradient == 0:
        return 2
    if not adapter.B.data.any():
        return 3
    return 4 if S.loss_of(model, t.x, t.y) > 0.9 * before else 5


_FAULTS = ("both zero", "optimizer too early", "merged", "rate too low")


def _has_symptoms(m: Measured, pairing: str) -> bool:
    return all(
        m[f"{_FAULTS[int(p[0]) - 1]}: symptom (A is 1)"] == " ABCD".index(p[1])
        for p in pairing.split()
    )


@demo(
    right=lambda m: _has_symptoms(m, "1B 2C 3A 4D") and m["none: symptom (5: it learns)"] == 5,
    zero_is_stuck=lambda m: _has_symptoms(m, "1C 2B 3A 4D"),
    merged_runs=lambda m: _has_symptoms(m, "1B 2A 3C 4D"),
    rate_is_stuck=lambda m: _has_symptoms(m, "1B 2D 3A 4C"),
)
def faults_and_symptoms() -> Measured:
    """Train a layer with LoRA for 50 steps with one fault at a time, and note what is seen."""
    found: Measured = {f"{fault}: symptom (A is 1)": _symptom(fault) for fault in _FAULTS}
    return found | {"none: symptom (5: it learns)": _symptom("none")}
