"""Rank, alpha and the learning rate: measured on a layer that misses a change of known rank."""

from __future__ import annotations

import math
from statistics import mean, stdev
from typing import Any

import numpy as np

import minilora as ml
from minilora.learn.demos import learners as S
from minilora.learn.demos.demo import Measured, demo
from minilora.learn.demos.learners import near, ratio
from minilora.lora_config import LoraConfig
from minilora.methods.registry import METHODS
from minilora.optim import SGD, AdamW
from minilora.tensor import Tensor, no_grad


def _delta(model: ml.ModuleList) -> np.ndarray:
    return ml.get_delta_weight(model, "0")


def _of_random_factors(r: int, lora_alpha: float, **lora: Any) -> ml.ModuleList:
    """A layer whose A and B are both random, the same for any alpha."""
    return S.with_lora(np.eye(24), r, lora_alpha, init_lora_weights=False, **lora)


@demo(
    constant=lambda m: (
        m["alpha 16 gives ΔW, in times that of 8"] == 2
        and m["numbers that train"] == m["entries of A and B"]
        and m["s after training, in times that before"] == 1
        and m["a fresh adapter changes the output by"] == 0
    ),
    learned=lambda m: (
        m["numbers that train"] > m["entries of A and B"]
        or abs(m["s after training, in times that before"] - 1) > 1e-6
    ),
    rate=lambda m: m["alpha 16 gives ΔW, in times that of 8"] == 1,
    share_of_w=lambda m: m["a fresh adapter changes the output by"] > 0,
)
def what_alpha_does() -> Measured:
    """Give the same A and B two values of lora_alpha, and train a layer for 20 steps."""
    t = S.teacher(2)
    model = S.with_lora(t.W, 4, 8)
    adapter, x = S.adapter_of(model), Tensor(t.x)
    changed = float(np.abs(model[0](x).data - t.x @ t.W).max())
    before = adapter.s
    S.fit(model, t.x, t.y, steps=20, lr=1e-2)
    return {
        "alpha 16 gives ΔW, in times that of 8": ratio(
            _delta(_of_random_factors(4, 16)), _delta(_of_random_factors(4, 8))
        ),
        "numbers that train": ml.count_parameters(model)[0],
        "entries of A and B": adapter.A.size + adapter.B.size,
        "s after training, in times that before": adapter.s / before,
        "a fresh adapter changes the output by": changed,
    }


@demo(
    four=lambda m: near(m["‖ΔW‖ / ‖A B‖"], 4),
    inverse=lambda m: near(m["‖ΔW‖ / ‖A B‖"], 1 / 4),
    root=lambda m: near(m["‖ΔW‖ / ‖A B‖"], 8),
    alpha=lambda m: near(m["‖ΔW‖ / ‖A B‖"], 16),
)
def scale_of_one_adapter() -> Measured:
    """Add an adapter with r = 4 and lora_alpha = 16, and divide ‖ΔW‖ by ‖A B‖."""
    model = _of_random_factors(4, 16)
    adapter = S.adapter_of(model)
    return {"‖ΔW‖ / ‖A B‖": ratio(_delta(model), adapter.A.data @ adapter.B.data)}


@demo(
    halves=lambda m: near(m["s at r = 16, in times that at 8"], 1 / 2),
    stays=lambda m: near(m["s at r = 16, in times that at 8"], 1),
    doubles=lambda m: near(m["s at r = 16, in times that at 8"], 2),
    root=lambda m: near(m["s at r = 16, in times that at 8"], 1 / math.sqrt(2)),
)
def rank_up_alpha_kept() -> Measured:
    """Add adapters with lora_alpha = 16 and r = 8 or 16, and compare ‖ΔW‖ / ‖A B‖."""
    scales = []
    for r in (8, 16):
        model = _of_random_factors(r, 16)
        adapter = S.adapter_of(model)
        scales.append(ratio(_delta(model), adapter.A.data @ adapter.B.data))
    return {"s at r = 16, in times that at 8": scales[1] / scales[0]}


def _first_delta(optimizer: str, alpha: float = 4, lr: float = 1e-3, weight: float = 1) -> float:
    """‖ΔW‖ after one step from B = 0; weight multiplies the loss."""
    t = S.teacher(2)
    model = S.with_lora(t.W, 4, alpha)
    params = model.trainable_parameters()
    step = SGD(params, lr) if optimizer == "SGD" else AdamW(params, lr, weight_decay=0)
    (S.squared_error(model, t.x, t.y) * weight).backward()
    step.step()
    return float(np.linalg.norm(_delta(model)))


_CHANGES = ("SGD, alpha × 2", "SGD, rate × 2", "AdamW, loss × 2", "AdamW, alpha × 2")
_FACTORS = {"A": 1, "B": 2, "C": 4}


def _fits(m: Measured, pairing: str) -> bool:
    """Does "1C 2B 3A 4B" name the factors that were measured?"""
    return all(near(m[_CHANGES[int(p[0]) - 1]], _FACTORS[p[1]]) for p in pairing.split())


@demo(
    right=lambda m: _fits(m, "1C 2B 3A 4B"),
    alpha_is_rate=lambda m: _fits(m, "1B 2B 3A 4B"),
    adam_squares=lambda m: _fits(m, "1C 2B 3B 4C"),
    adam_ignores=lambda m: _fits(m, "1C 2B 3A 4A"),
)
def alpha_and_rate() -> Measured:
    """Take one step from B = 0 with alpha, the rate or the loss doubled, and compare ‖ΔW‖."""
    sgd, adam = _first_delta("SGD"), _first_delta("AdamW")
    found = (
        _first_delta("SGD", alpha=8) / sgd,
        _first_delta("SGD", lr=2e-3) / sgd,
        _first_delta("AdamW", weight=2) / adam,
        _first_delta("AdamW", alpha=8) / adam,
    )
    return dict(zip(_CHANGES, found, strict=True))


@demo(
    same=lambda m: near(m["change of the output, in times that before"], 1),
    double=lambda m: near(m["change of the output, in times that before"], 2),
    half=lambda m: near(m["change of the output, in times that before"], 1 / 2),
    quarter=lambda m: near(m["change of the output, in times that before"], 1 / 4),
)
def alpha_against_b() -> Measured:
    """Double lora_alpha and halve B of a trained adapter, and compare the outputs."""
    t = S.teacher(2)
    trained, other = S.with_lora(t.W, 4, 8), S.with_lora(t.W, 4, 16)
    S.fit(trained, t.x, t.y, steps=30, lr=1e-2)
    S.adapter_of(other).A.data[...] = S.adapter_of(trained).A.data
    S.adapter_of(other).B.data[...] = S.adapter_of(trained).B.data / 2
    x, plain = Tensor(t.x), t.x @ t.W
    with no_grad():
        return {
            "change of the output, in times that before": ratio(
                other[0](x).data - plain, trained[0](x).data - plain
            )
        }


@demo(
    root=lambda m: near(m["s at r = 4"], 16 / 4**0.5) and near(m["s at r = 16"], 16 / 16**0.5),
    plain=lambda m: near(m["s at r = 4"], 16 / 8) and near(m["s at r = 16"], 16 / 32),
    square=lambda m: near(m["s at r = 4"], 16 / 4**2) and near(m["s at r = 16"], 16 / 16**2),
    of_both=lambda m: (
        near(m["s at r = 4"], (16 / 4) ** 0.5) and near(m["s at r = 16"], (16 / 16) ** 0.5)
    ),
)
def scale_of_rslora() -> Measured:
    """Add adapters with use_rslora and lora_alpha = 16, and divide ‖ΔW‖ by ‖A B‖."""
    found: Measured = {}
    for r in (4, 16):
        model = _of_random_factors(r, 16, use_rslora=True)
        adapter = S.adapter_of(model)
        found[f"s at r = {r}"] = ratio(_delta(model), adapter.A.data @ adapter.B.data)
    return found


@demo(
    b_faster=lambda m: (
        15 < m["step of B, in times that of A"] < 17
        and 0.9 < m["step in the last block, in times that in the first"] < 1.1
    ),
    a_faster=lambda m: 15 < m["step of A, in times that of B"] < 17,
    by_layer=lambda m: (
        0.9 < m["step of B, in times that of A"] < 1.1
        and m["step in the last block, in times that in the first"] > 1.5
    ),
    alike=lambda m: (
        0.9 < m["step of B, in times that of A"] < 1.1
        and 0.9 < m["step in the last block, in times that in the first"] < 1.1
    ),
)
def rates_of_lora_plus() -> Measured:
    """Take one step of LoRA+ from a random A and B in words-tiny, and compare its steps."""
    model = ml.load_model("words-tiny")
    lora = LoraConfig(r=4, target_modules="all-linear", init_lora_weights=False)
    METHODS["lora+"].prepare(model, lora, np.random.default_rng(0))
    before = model.state_dict()
    ratio = METHODS["lora+"].loraplus_lr_ratio
    config = ml.TrainConfig(steps=1, lr=1e-4, warmup=0, loraplus_lr_ratio=ratio)
    ml.train(model, S.new_words, config, threads=1, quiet=True)
    moved = {key: np.abs(value - before[key]) for key, value in model.state_dict().items()}

    def step(beginning: str, end: str) -> float:
        """The middle one: AdamW's first steps all have the length of the rate."""
        steps = [v.ravel() for k, v in moved.items() if k.startswith(beginning) and k.endswith(end)]
        return float(np.median(np.concatenate(steps)))

    return {
        "step of B, in times that of A": step("", ".B") / step("", ".A"),
        "step of A, in times that of B": step("", ".A") / step("", ".B"),
        "step in the last block, in times that in the first": (
            step("layers.3.", ".B") / step("layers.0.", ".B")
        ),
    }


@demo(
    through_a=lambda m: (
        near(m["step of B's entries, in units of the rate"], 1)
        and m["‖ΔW‖ after a step of LoRA, in times full's"] < 0.5
        and near(m["the same with A ten times as large, in times that"], 10)
    ),
    shorter_steps=lambda m: m["step of B's entries, in units of the rate"] < 0.5,
    few_rows=lambda m: m["share of W's entries that ΔW reaches"] < 0.5,
    weak_gradient=lambda m: m["the same with the loss times ten, likewise"] > 1.5,
)
def first_step_of_w() -> Measured:
    """Take one AdamW step in full and with LoRA at the same rate, and compare ‖ΔW‖."""
    t, lr = S.teacher(2, d=64), 1e-3

    def step(larger_A: float = 1, larger_loss: float = 1) -> tuple[np.ndarray, np.ndarray]:
        model = S.with_lora(t.W, 4)
        adapter = S.adapter_of(model)
        adapter.A.data *= larger_A
        optimizer = AdamW([adapter.A, adapter.B], lr=lr, weight_decay=0)
        (S.squared_error(model, t.x, t.y) * larger_loss).backward()
        optimizer.step()
        return _delta(model), adapter.B.data

    full = S.one_layer(t.W)
    S.fit(full, t.x, t.y, steps=1, lr=lr)
    delta, B = step()
    return {
        "step of B's entries, in units of the rate": float(np.median(np.abs(B))) / lr,
        "‖ΔW‖ after a step of LoRA, in times full's": ratio(delta, full[0].weight.data - t.W),
        "the same with A ten times as large, in times that": ratio(step(larger_A=10)[0], delta),
        "the same with the loss times ten, likewise": ratio(step(larger_loss=10)[0], delta),
        "share of W's entries that ΔW reaches": float(np.mean(delta != 0)),
    }


@demo(
    nothing=lambda m: (
        m["ΔW at r = 8, off that at r = 4"] < 1e-6
        and near(m["s at r = 8, in times that at r = 4"], 1 / 2)
        and m["rank of ΔW at r = 8"] == 4
        and m["the same, trained from another A"] < 0.02
    ),
    exactly=lambda m: m["rank of ΔW at r = 8"] == 8,
    scale=lambda m: (
        near(m["s at r = 8, in times that at r = 4"], 1 / 2)
        and m["ΔW at r = 8, off that at r = 4"] > 0.1
    ),
    start=lambda m: m["the same, trained from another A"] > 0.1,
)
def rank_eight_beside_rank_four() -> Measured:
    """Train an adapter of rank 4, write it as one of rank 8, and train another of rank 8 on it."""
    t = S.teacher(4)
    four, eight, other = (S.with_lora(t.W, r, lora_alpha=8) for r in (4, 8, 8))
    S.fit(four, t.x, t.y, steps=30, lr=1e-2)
    small, large, wanted = S.adapter_of(four), S.adapter_of(eight), _delta(four)
    large.A.data[:, :4], large.B.data[:4] = small.A.data, 2 * small.B.data
    S.fit(other, t.x, t.x @ (t.W + wanted), steps=300, lr=2e-2)
    return {
        "s at r = 8, in times that at r = 4": large.s / small.s,
        "ΔW at r = 8, off that at r = 4": ratio(_delta(eight) - wanted, wanted),
        "rank of ΔW at r = 8": S.rank_of(_delta(eight)),
        "the same, trained from another A": ratio(_delta(other) - wanted, wanted),
    }


@demo(
    hardly=lambda m: all(0.5 < m[f"best rate at r = {r}, in times that at 2"] < 2 for r in (8, 32)),
    falls=lambda m: m["best rate at r = 32, in times that at 2"] < 1 / 8,
    rises=lambda m: m["best rate at r = 32, in times that at 2"] > 8,
    falls_by_root=lambda m: 1 / 8 <= m["best rate at r = 32, in times that at 2"] <= 0.5,
)
def best_rate_by_rank() -> Measured:
    """Train a layer with LoRA of three ranks, lora_alpha = 8, at six rates each."""
    t, best = S.teacher(2, d=32), {}
    for r in (2, 8, 32):
        losses = {}
        for lr in (1e-3, 3e-3, 1e-2, 3e-2, 1e-1, 3e-1):
            losses[lr] = S.fit(S.with_lora(t.W, r, 8), t.x, t.y, steps=30, lr=lr)[-1]
        best[r] = min(losses, key=lambda lr: losses[lr])
    return {f"best rate at r = {r}, in times that at 2": best[r] / best[2] for r in (8, 32)}


def _remains(
    r: int, steps: int = 150, lr: float = 2e-2, s: float = 1.0, samples: int = 96
) -> float:
    """Per cent of the loss on new samples that LoRA leaves of a missing Δ of rank 4."""
    t = S.teacher(4, samples=samples)
    model = S.with_lora(t.W, r, s * r)
    before = S.loss_of(model, t.x_new, t.y_new)
    S.fit(model, t.x, t.y, steps, lr)
    return 100 * S.loss_of(model, t.x_new, t.y_new) / before


@demo(
    rank=lambda m: _only_cure(m, "r = 4"),
    alpha=lambda m: _only_cure(m, "alpha × 4"),
    longer=lambda m: _only_cure(m, "steps × 4"),
    data=lambda m: _only_cure(m, "samples × 4"),
)
def rank_too_low() -> Measured:
    """Learn a change of rank 4 with r = 1, and with one thing changed; what is left of the loss."""
    return {
        "% left at r = 1": _remains(1),
        "% left with r = 4": _remains(4),
        "% left with alpha × 4": _remains(1, s=4),
        "% left with steps × 4": _remains(1, steps=600),
        "% left with samples × 4": _remains(1, samples=384),
    }


def _only_cure(m: Measured, change: str) -> bool:
    """Did this change bring the loss to less than half, where the run had got stuck?"""
    return m["% left at r = 1"] > 50 and m[f"% left with {change}"] < m["% left at r = 1"] / 2


_SWEPT = (1, 2, 4, 8, 16)


@demo(
    knee_at_k=lambda m: (
        all(m[f"% left at r = {r}"] > 10 for r in (1, 2))
        and m["% left at r = 1"] > m["% left at r = 2"]
        and all(m[f"% left at r = {r}"] < 0.1 for r in (4, 8, 16))
    ),
    every_doubling=lambda m: all(
        0.1 * m[f"% left at r = {r}"] < m[f"% left at r = {2 * r}"] < 0.9 * m[f"% left at r = {r}"]
        for r in _SWEPT[:-1]
    ),
    best_in_the_middle=lambda m: (
        min(m[f"% left at r = {r}"] for r in _SWEPT) < 0.1 and m["% left at r = 16"] > 10
    ),
    first_is_enough=lambda m: m["% left at r = 1"] < 0.1,
)
def sweep_over_a_known_rank() -> Measured:
    """Learn a change of rank 4 with LoRA of five ranks; what is left of the loss on new samples."""
    return {f"% left at r = {r}": _remains(r) for r in _SWEPT}


@demo(
    fits_noise=lambda m: (
        m["training loss, r = 24 in times r = 2"] < 0.9 and m["loss on new samples, likewise"] > 1.1
    ),
    better=lambda m: m["loss on new samples, likewise"] < 0.9,
    nothing=lambda m: (
        0.95 < m["training loss, r = 24 in times r = 2"] < 1.05
        and 0.95 < m["loss on new samples, likewise"] < 1.05
    ),
    cannot_train=lambda m: m["training loss, r = 24 in times r = 2"] > 1.1,
)
def rank_too_high() -> Measured:
    """Learn a change of rank 2 from 32 noisy samples with LoRA of rank 2 and of rank 24."""
    t = S.teacher(2, samples=32, noise=0.3)
    models = {r: S.with_lora(t.W, r) for r in (2, 24)}
    for model in models.values():
        S.fit(model, t.x, t.y, steps=150, lr=1e-2)
    low, high = models[2], models[24]
    return {
        "training loss, r = 24 in times r = 2": S.loss_of(high, t.x, t.y)
        / S.loss_of(low, t.x, t.y),
        "loss on new samples, likewise": S.loss_of(high, t.x_new, t.y_new)
        / S.loss_of(low, t.x_new, t.y_new),
    }


def _moves_most(m: Measured, change: str) -> bool:
    """Is the loss far lower after this change, and after no other?"""
    others = [value for name, value in m.items() if name not in ("% left as it was", change)]
    return (
        m["% left as it was"] > 80
        and m[change] < 50
        and all(m[change] < 0.6 * value for value in others)
    )


@demo(
    rate=lambda m: _moves_most(m, "% left, rate × 10"),
    rank=lambda m: _moves_most(m, "% left, r × 4 at the same s"),
    dropout=lambda m: _moves_most(m, "% left, lora_dropout 0.1"),
    alpha=lambda m: _moves_most(m, "% left, alpha / 4"),
)
def loss_that_hardly_moves() -> Measured:
    """Train a layer with LoRA at a rate that is too low, then with one thing changed."""
    t = S.teacher(4)
    dropping = S.with_lora(t.W, 4, 8, lora_dropout=0.1)
    before = S.loss_of(dropping, t.x_new, t.y_new)
    S.fit(dropping, t.x, t.y, steps=60, lr=3e-4, rng=np.random.default_rng(0))
    return {
        "% left as it was": _remains(4, steps=60, lr=3e-4, s=2),
        "% left, rate × 10": _remains(4, steps=60, lr=3e-3, s=2),
        "% left, r × 4 at the same s": _remains(16, steps=60, lr=3e-4, s=2),
        "% left, lora_dropout 0.1": 100 * S.loss_of(dropping, t.x_new, t.y_new) / before,
        "% left, alpha / 4": _remains(4, steps=60, lr=3e-4, s=0.5),
    }


def _left_by_sgd(r: int, lr: float, s: float = 2.0, steps: int = 60) -> float:
    """Per cent of the loss that is left after training with SGD; a million if it diverges."""
    t = S.teacher(4)
    model = S.with_lora(t.W, r, s * r)
    before = S.loss_of(model, t.x, t.y)
    optimizer = SGD(model.trainable_parameters(), lr=lr)
    with np.errstate(over="ignore", invalid="ignore"):
        for _ in range(steps):
            S.squared_error(model, t.x, t.y).backward()
            optimizer.step()
            optimizer.zero_grad()
        left = 100 * S.loss_of(model, t.x, t.y) / before
    return min(left, 1e6) if math.isfinite(left) else 1e6


def _tames(m: Measured, change: str) -> bool:
    return m["% left as it was"] > 100 and m[f"% left, {change}"] < 20


@demo(
    lower=lambda m: _tames(m, "rate / 10"),
    rank=lambda m: _tames(m, "r × 4 at the same s"),
    longer=lambda m: _tames(m, "steps × 3"),
    alpha=lambda m: _tames(m, "alpha × 4"),
)
def loss_that_explodes() -> Measured:
    """Train a layer with LoRA and SGD at a rate that is too high, then with one thing changed."""
    return {
        "% left as it was": _left_by_sgd(4, 8.0),
        "% left, rate / 10": _left_by_sgd(4, 0.8),
        "% left, r × 4 at the same s": _left_by_sgd(16, 8.0),
        "% left, steps × 3": _left_by_sgd(4, 8.0, steps=180),
        "% left, alpha × 4": _left_by_sgd(4, 8.0, s=8.0),
    }


def _is_true(m: Measured, way: str) -> bool:
    return 0.97 < m[f"chosen on {way}: reported / true"] < 1.03


_BY_TRAINING = "chosen on training: true loss, in times that of validation's choice"


@demo(
    val_test=lambda m: _is_true(m, "validation, reported on test") and m[_BY_TRAINING] > 1.1,
    test_test=lambda m: _is_true(m, "test, reported on test"),
    val_val=lambda m: _is_true(m, "validation, reported on validation"),
    train_test=lambda m: m[_BY_TRAINING] < 1.03,
)
def where_to_choose() -> Measured:
    """Train with 4 ranks and 2 rates on noisy samples; choose one and report it, 2,000 times, on 5
    other samples each."""
    t = S.teacher(2, samples=48, noise=0.5)
    training, others = [], []
    for r in (1, 2, 3, 24):
        for lr in (5e-3, 1e-2):
            model = S.with_lora(t.W, r)
            training.append(S.fit(model, t.x, t.y, steps=60, lr=lr)[-1])
            with no_grad():
                errors = model[0](Tensor(t.x_new)).data - t.y_new
            others.append((errors**2).mean(axis=1))
    of_each = np.array(others)  # (8, 1024)
    true, draws = of_each.mean(axis=1), np.arange(2000)
    picked = np.random.default_rng(0).integers(1024, size=(2, 2000, 5))
    val, test = of_each[:, picked].mean(axis=-1).swapaxes(0, 1)  # (8, 2000) each
    by_val, by_test = val.argmin(axis=0), test.argmin(axis=0)
    ways = {
        "validation, reported on test": (by_val, test),
        "test, reported on test": (by_test, test),
        "validation, reported on validation": (by_val, val),
    }
    found: Measured = {
        f"chosen on {way}: reported / true": float(
            reported[chosen, draws].mean() / true[chosen].mean()
        )
        for way, (chosen, reported) in ways.items()
    }
    found[_BY_TRAINING] = float(true[int(np.argmin(training))] / true[by_val].mean())
    return found


@demo(
    noise=lambda m: (
        0 < m["seeds of 8 in which r = 8 is better"] < 8
        and abs(m["mean gain of r = 8 over r = 4"]) < m["deviation of the gain over seeds"]
    ),
    higher=lambda m: m["seeds of 8 in which r = 8 is better"] == 8,
    lower=lambda m: m["seeds of 8 in which r = 8 is better"] == 0,
    again=lambda m: m["mean gain of r = 16 over r = 8"] > 0,
)
def one_seed_each() -> Measured:
    """Learn a change of rank 4 from noisy samples with r = 4, 8 and 16, for 8 seeds each."""
    losses: dict[int, list[float]] = {4: [], 8: [], 16: []}
    for seed in range(8):
        t = S.teacher(4, samples=96, noise=0.5, seed=seed)
        for r, of_rank in losses.items():
            model = S.with_lora(t.W, r)
            S.fit(model, t.x, t.y, steps=40, lr=1e-2)
            of_rank.append(S.loss_of(model, t.x_new, t.y_new))
    gains = [low - high for low, high in zip(losses[4], losses[8], strict=True)]
    return {
        "seeds of 8 in which r = 8 is better": sum(gain > 0 for gain in gains),
        "mean gain of r = 8 over r = 4": mean(gains),
        "deviation of the gain over seeds": stdev(gains),
        "mean gain of r = 16 over r = 8": mean(losses[8]) - mean(losses[16]),
    }


@demo(
    half=lambda m: _loaded_is(m, 1 / 2) and m["loss after loading, in times that before"] > 10,
    nothing=lambda m: (
        _loaded_is(m, 1) and 0.9 < m["loss after loading, in times that before"] < 1.1
    ),
    double=lambda m: _loaded_is(m, 2),
    quarter=lambda m: _loaded_is(m, 1 / 4),
)
def scale_applied_twice() -> Measured:
    """Train a layer that multiplies by s twice, and load its A and B into one that does it once."""
    t = S.teacher(2)
    loaded = S.with_lora(t.W, 4, 8)
    adapter, x = S.adapter_of(loaded), Tensor(t.x)
    A, B, s = adapter.A, adapter.B, adapter.s
    optimizer = AdamW([A, B], lr=1e-2, weight_decay=0)
    for _ in range(100):
        error = x @ Tensor(t.W) + s * ((s * (x @ A)) @ B) - Tensor(t.y)
        loss = (error * error).mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    return {
        "ΔW after loading, in times that trained": ratio(_delta(loaded), s * s * A.data @ B.data),
        "loss after loading, in times that before": S.loss_of(loaded, t.x, t.y) / loss.item(),
    }


def _loaded_is(m: Measured, times: float) -> bool:
    return near(m["ΔW after loading, in times that trained"], times)
