"""The checkers of lesson 03, Full fine-tuning and what it costs."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from minilora.learn.exercises import Yours, as_array, exercise, require, unpack
from minilora.optim import AdamW
from minilora.tensor import Tensor


@exercise(
    hints=(
        "Every number is a weight that is stored. What exists for the trained ones only?",
        "The optimizer has 4 + 4 bytes for each trained number, and 4 more if there is a copy; it "
        "has nothing for a frozen one.",
    )
)
def memory_ledger(yours: Yours) -> str:
    cases = (
        (0, 1000, 2, 2, False),
        (0, 1000, 2, 2, True),
        (0, 1000, 2, 4, True),
        (7000, 90, 2, 4, True),
        (640, 30, 4, 3, False),
    )
    for frozen, trained, wide, slope, copy in cases:
        n, copied = frozen + trained, 4 * copy
        right = [wide * n, slope * trained, (8 + copied) * trained]
        moments = "the moments are in float32 whatever the weights are in: 4 bytes each"
        mistakes = {
            "a frozen weight is in memory too": [wide * trained, *right[1:]],
            "a frozen weight has no gradient": [right[0], slope * n, right[2]],
            "the optimizer keeps nothing for a frozen weight": [*right[:2], (8 + copied) * n],
            "AdamW has two moments for each trained number": [*right[:2], (4 + copied) * trained],
            moments: [*right[:2], (2 * wide + copied) * trained],
            "there is a copy only if copy is True": [*right[:2], 12 * trained],
            "the copy is missing": [*right[:2], 8 * trained],
            "only what trains is copied": [*right[:2], 8 * trained + copied * n],
            "the copy is one of the optimizer's parts": [
                right[0] + copied * trained,
                right[1],
                8 * trained,
            ],
            "gradients have bytes of their own, gradient_bytes": [
                right[0],
                wide * trained,
                right[2],
            ],
        }
        got = unpack(yours(frozen, trained, wide, slope, copy), "weights, gradients, optimizer")
        yours.compare(f"ledger for {yours.inputs}", got, right, mistakes)
    return "For one number that trains these were 12, 16 and 18 bytes."


def _kept(
    tokens: int,
    widths: Sequence[int],
    trains: Sequence[bool],
    inputs: Callable[[int], bool],
    gelus: Callable[[int], bool],
) -> int:
    """inputs(i), gelus(i): is the input of Linear i, or of the GELU after it, kept?"""
    n = len(trains)
    kept = sum(widths[i] for i in range(n) if inputs(i))
    return tokens * (kept + sum(widths[i + 1] for i in range(n - 1) if gelus(i)))


@exercise(
    hints=(
        "Go through the layers once, from the input on. Remember whether any layer so far trains.",
        "Linear i adds `tokens * widths[i]` if `trains[i]`. The GELU after it, if i is not the "
        "last, adds `tokens * widths[i + 1]` if `any(trains[: i + 1])`.",
    )
)
def kept_numbers(yours: Yours) -> str:
    cases: tuple[tuple[int, list[int], list[bool]], ...] = (
        (5, [8, 32, 6], [True, True]),
        (3, [4, 7, 9, 5], [False, True, False]),
        (3, [4, 7, 9, 5], [True, False, False]),
        (11, [6, 3], [True]),
        (4, [5, 9, 2, 8, 3], [False, False, True, True]),
        (2, [5, 9, 2, 8], [False, False, False]),
    )
    for tokens, widths, trains in cases:
        n = len(trains)

        def own(i: int, trains: list[bool] = trains) -> bool:
            return trains[i]

        def before(i: int, trains: list[bool] = trains) -> bool:
            return any(trains[: i + 1])

        def always(i: int) -> bool:
            return True

        def never(i: int) -> bool:
            return False

        def after(i: int, trains: list[bool] = trains) -> bool:
            return any(trains[i + 1 :])

        right = _kept(tokens, widths, trains, own, before)
        last = tokens * widths[-1] * any(trains)
        matrices = sum(a * b for a, b, t in zip(widths, widths[1:], trains, strict=False) if t)
        outputs = tokens * sum(b for b, t in zip(widths[1:], trains, strict=True) if t)
        mistakes = {
            "a frozen Linear does not need its input on the way back": _kept(
                tokens, widths, trains, always, before
            ),
            "no gradient passes a GELU before which nothing trains": _kept(
                tokens, widths, trains, own, always
            ),
            "a GELU after a frozen layer is on the way back too, if an earlier layer trains": _kept(
                tokens, widths, trains, own, own
            ),
            "look at the layers before the GELU, not at those after it": _kept(
                tokens, widths, trains, own, after
            ),
            "the GELUs keep their inputs as well": _kept(tokens, widths, trains, own, never),
            "after the last Linear there is no GELU": right + last,
            "those are weights; activations are tokens times width": matrices,
            "that is what the Linears put out; a Linear keeps its input": outputs
            + _kept(tokens, widths, [False] * n, never, never)
            + tokens * sum(widths[i + 1] for i in range(n - 1) if before(i)),
            "each of the tokens has its own activations": right // tokens,
        }
        got = yours(tokens, list(widths), list(trains))
        yours.compare(f"count for {yours.inputs}", got, right, mistakes)
    return "What lies before the first trained layer is not kept: nothing has to go back there."


State = tuple[np.ndarray, np.ndarray, np.ndarray]  # p, m, v


def _adamw(
    p: np.ndarray,
    g: np.ndarray,
    m: np.ndarray,
    v: np.ndarray,
    t: int,
    lr: float,
    betas: tuple[float, float],
    eps: float,
    decay: float,
    *,
    slip: str = "",
) -> State:
    """One step of AdamW, or of one that makes a known mistake."""
    b1, b2 = betas[::-1] if slip == "swapped" else betas
    if slip == "coupled":
        g = g + decay * p
    m = b1 * m + (1 if slip == "unweighted" else 1 - b1) * g
    v = b2 * v + (1 - b2) * (np.abs(g) if slip == "not squared" else g * g)
    t = t + {"early": -1, "late": 1}.get(slip, 0)
    one, two = (1 - b1**t, 1 - b2**t) if slip != "uncorrected" and t > 0 else (1.0, 1.0)
    if slip == "first only":
        two = 1.0
    if slip == "second only":
        one = 1.0
    root = np.sqrt(v / two + eps) if slip == "eps inside" else np.sqrt(v / two) + eps
    if slip == "no root":
        root = v / two + eps
    step = lr * (m / one) / root
    factor = {"coupled": 1.0, "no decay": 1.0, "decay alone": 1 - decay}.get(slip, 1 - lr * decay)
    if slip == "uphill":
        return factor * p + step, m, v
    if slip == "decays late":
        return factor * (p - step), m, v
    return factor * p - step, m, v


_ADAMW_SLIPS = {
    "the moments start at zero, so divide them by 1 - beta ** t": "uncorrected",
    "the second moment needs its correction too": "first only",
    "the first moment needs its correction too": "second only",
    "t is 1 in the first step already": "late",
    "decay is apart from the gradient: that is what the W in AdamW says": "coupled",
    "the decay is missing": "no decay",
    "the weight decays by lr * decay, not by decay alone": "decay alone",
    "first let p decay, then take the step from it": "decays late",
    "eps is added to the root, not under it": "eps inside",
    "the root of the second moment is missing": "no root",
    "the second moment averages g squared": "not squared",
    "g counts with 1 - beta in an average": "unweighted",
    "beta 1 belongs to the first moment, beta 2 to the second": "swapped",
    "the step goes against the gradient: subtract it": "uphill",
}


@exercise(
    hints=(
        "Line by line as in the formula: new m, new v, both corrected, then p. t is 1 in the first "
        "step.",
        "`m_hat = m / (1 - b1**t)` and `v_hat = v / (1 - b2**t)`, made of the new m and v; then "
        "`(1 - lr * decay) * p - lr * m_hat / (np.sqrt(v_hat) + eps)`.",
    )
)
def adamw_step(yours: Yours) -> str:
    rng = np.random.default_rng(4)
    for shape, lr, betas, eps, decay in (
        ((3, 4), 0.05, (0.9, 0.99), 0.1, 0.4),
        ((5,), 0.02, (0.8, 0.95), 0.03, 0.9),
    ):
        p, zero = rng.standard_normal(shape), np.zeros(shape)
        state: State = (p, zero, zero)
        for t in (1, 2, 3):
            g = rng.standard_normal(shape)
            how: tuple[Any, ...] = (t, lr, betas, eps, decay)
            right = _adamw(state[0], g, state[1], state[2], *how)
            wrong = {why: _adamw(state[0], g, state[1], state[2], *how, slip=slip) for why, slip
                     in _ADAMW_SLIPS.items()}  # fmt: skip
            got = unpack(yours(state[0].copy(), g, *(s.copy() for s in state[1:]), *how), "p, m, v")
            for i, name in enumerate(("p", "m", "v")):
                mistakes = {why: found[i] for why, found in wrong.items()}
                yours.compare(f"{name} at t={t}", got[i], right[i], mistakes)
            state = right
    _as_the_package_does(yours)
    return "Five steps of yours are five steps of ml.AdamW."


def _as_the_package_does(yours: Yours) -> None:
    """Five steps beside ml.AdamW on one matrix, which decays."""
    rng = np.random.default_rng(5)
    start, zero = rng.standard_normal((4, 3)), np.zeros((4, 3))
    weight = Tensor(start.copy(), requires_grad=True)
    optimizer = AdamW([weight], lr=0.03, betas=(0.9, 0.99), eps=1e-3, weight_decay=0.2)
    state: State = (start, zero, zero)
    wrong = dict.fromkeys(_ADAMW_SLIPS, state)
    for t in range(1, 6):
        g = rng.standard_normal((4, 3))
        weight.grad = g.copy()
        optimizer.step()
        how: tuple[Any, ...] = (t, 0.03, (0.9, 0.99), 1e-3, 0.2)
        got = unpack(yours(state[0], g, *state[1:], *how), "p, m, v")
        p, m, v = (np.asarray(as_array(part), np.float64) for part in got)
        state = (p, m, v)
        for why, (p, m, v) in wrong.items():
            wrong[why] = _adamw(p, g, m, v, *how, slip=_ADAMW_SLIPS[why])
    mistakes = {why: found[0] for why, found in wrong.items()}
    yours.compare("p after five steps", state[0], weight.data, mistakes)


def _rate(step: int, steps: int, peak: float, warmup: int, final: float, slip: str = "") -> float:
    part = step / max(steps, 1)
    if slip == "after warm-up":
        part = max(step - warmup, 0) / (steps - warmup)
    wave = math.cos(math.pi * part * (2 if slip == "whole wave" else 1))
    half = 0.5 * (1 + wave)
    low = 0.0 if slip == "to zero" else final
    fall = half * (1 - low) + low
    if slip == "not scaled":
        fall = half + low
    if slip == "line":
        fall = 1 - part * (1 - low)
    if slip == "floor":
        fall = max(half, low)
    rise = 1.0 if slip == "no rise" or not warmup else min(1.0, (step + 1) / warmup)
    if slip == "from zero" and warmup:
        rise = min(1.0, step / warmup)
    if slip == "either" and rise < 1:
        fall = 1.0
    return peak * rise * fall


_RATE_SLIPS = {
    "step 0 has a rate too: the rise is (step + 1) / warmup": "from zero",
    "the warm-up is missing": "no rise",
    "the cosine runs over all steps, those of the warm-up too": "after warm-up",
    "the two factors are multiplied, in the warm-up too": "either",
    "it falls to final, not to 0": "to zero",
    "it starts at 1 and ends at final: scale the cosine's part by 1 - final": "not scaled",
    "final is where the cosine ends, not a floor that cuts it off": "floor",
    "half a wave takes it down, a whole one up again": "whole wave",
    "that falls in a straight line": "line",
}


@exercise(
    hints=(
        "Two factors: one rises to 1 and stays there, the other falls from 1 to final. Multiply "
        "them with the peak.",
        "`min(1, (step + 1) / warmup)`, and "
        "`final + (1 - final) * (1 + np.cos(np.pi * step / steps)) / 2`.",
    )
)
def learning_rate_at(yours: Yours) -> str:
    for case in (
        (0, 100, 0.01, 20, 0.1),
        (7, 90, 0.02, 20, 0.25),
        (30, 120, 0.005, 20, 0.1),
        (80, 90, 0.04, 10, 0.2),
        (60, 60, 0.003, 5, 0.5),
        (9, 40, 0.01, 0, 0.1),
    ):
        got, right = yours(*case), _rate(*case)
        mistakes = {why: _rate(*case, slip) for why, slip in _RATE_SLIPS.items()}
        mistakes["multiply by the peak"] = right / case[2]
        yours.compare(f"rate for {yours.inputs}", got, right, mistakes)
    return "With warmup = 0 there is no warm-up, and nothing to divide by."


def _clipped(gradients: list[np.ndarray], limit: float, slip: str = "") -> list[np.ndarray]:
    norms = [float(np.linalg.norm(g)) for g in gradients]
    joint = math.sqrt(sum(norm**2 for norm in norms))
    of_all = {
        "sum": sum(norms),
        "largest": max(norms),
        "squared": joint**2,
        "entry": max(float(np.abs(g).max()) for g in gradients),
        "mean": joint / math.sqrt(sum(g.size for g in gradients)),
    }.get(slip, joint)
    factor = limit / of_all if of_all > limit else 1.0
    if slip == "always" and joint:
        factor = limit / joint
    if slip == "to one" and joint > limit:
        factor = 1 / joint
    if slip == "each":
        factors = [limit / norm if norm > limit else 1.0 for norm in norms]
        return [g * f for g, f in zip(gradients, factors, strict=True)]
    if slip == "entries":
        return [np.clip(g, -limit, limit) for g in gradients]
    return [g * factor for g in gradients]


_CLIP_SLIPS = {
    "all gradients together have one length, and get one factor": "each",
    "that cuts single entries, which turns the step": "entries",
    "short gradients stay as they are": "always",
    "square the lengths before adding them, and take the root": "sum",
    "the length of all together, not of the longest": "largest",
    "the root is missing": "squared",
    "max_norm is not always 1": "to one",
    "the length of all together, not the largest entry": "entry",
    "that length is a mean; take the root of the sum of squares": "mean",
}


@exercise(
    hints=(
        "The joint length is that of one long vector with all entries of all arrays.",
        "`norm = np.sqrt(sum((g**2).sum() for g in gradients))`. If it is above `max_norm`, "
        "multiply every array by `max_norm / norm`.",
    )
)
def clip_together(yours: Yours) -> str:
    rng = np.random.default_rng(6)
    shapes = ((2, 3), (4,), (1, 5))
    for scale, limit in ((3.0, 2.5), (0.02, 0.5), (0.7, 0.8), (0.0, 1.5)):
        gradients = [scale * (i + 1) * rng.standard_normal(shape) for i, shape in enumerate(shapes)]
        right = _clipped(gradients, limit)
        wrong = {why: _clipped(gradients, limit, slip) for why, slip in _CLIP_SLIPS.items()}
        got = yours([g.copy() for g in gradients], limit)
        require(
            isinstance(got, list | tuple) and len(got) == len(shapes),
            "return a list with an array for each of the gradients",
        )
        for i in range(len(shapes)):
            mistakes = {why: found[i] for why, found in wrong.items()}
            what = f"array {i} for max_norm={limit} and a joint length of {_length(gradients):.3g}"
            yours.compare(what, got[i], right[i], mistakes)
    return "Together they keep their direction: the step becomes shorter, and does not turn."


def _length(gradients: list[np.ndarray]) -> float:
    return math.sqrt(sum(float((g**2).sum()) for g in gradients))


def _diagnosis(train: list[float], val: list[float], slip: str = "") -> str:
    bad = not math.isfinite(train[-1]) or train[-1] > train[0]
    if slip == "val diverges":
        bad = not math.isfinite(val[-1]) or val[-1] > val[0]
    if slip == "only nan":
        bad = not math.isfinite(train[-1])
    if slip == "not infinity":
        bad = not train[-1] <= train[0]
    if bad:
        return "diverging"
    judged = val if slip == "val underfits" else train
    if judged[-1] > 0.9 * judged[0] and slip != "never under":
        return "underfitting"
    lowest = np.nanmin(val)
    limits = {
        "a gap": 1.02 * train[-1],
        "above start": 1.02 * val[0],
        "any rise": lowest,
        "last step": val[-2],
    }
    return "overfitting" if val[-1] > limits.get(slip, 1.02 * lowest) else "learning"


_DIAGNOSIS_SLIPS = {
    "validation above training is normal: compare it with its own lowest": "a gap",
    "compare with the lowest validation loss, not with the first": "above start",
    "a rise of less than 2 per cent is noise": "any rise",
    "compare with the lowest validation loss, not with the one before": "last step",
    "underfitting shows in the training loss, and so is asked of it": "val underfits",
    "a run that hardly learns is underfitting": "never under",
    "diverging is asked of the training loss": "val diverges",
    "a training loss that ends above its start is diverging": "only nan",
    "infinity is no finite number either": "not infinity",
}
_CURVES = {
    "a rise at the end": ([3.0, 2.0, 1.2, 0.6, 0.3], [3.1, 2.4, 2.0, 2.2, 2.6]),
    "a gap that stays": ([3.0, 2.0, 1.6, 1.5, 1.4], [3.3, 2.5, 2.2, 2.1, 2.05]),
    "a small rise": ([2.5, 1.9, 1.7, 1.6], [2.6, 2.1, 2.0, 2.01]),
    "a rise beyond the start": ([2.0, 1.0, 0.4, 0.2], [2.2, 1.9, 2.6, 3.1]),
    "hardly a change": ([3.0, 2.95, 2.93, 2.9], [3.1, 3.04, 3.02, 2.6]),
    "a slow fall on new text": ([3.0, 2.6, 2.4, 2.1], [3.0, 2.9, 2.85, 2.8]),
    "a climb": ([2.0, 1.8, 2.4, 5.0], [2.1, 1.9, 2.5, 5.2]),
    "a climb that ends in nan": ([2.0, 2.2, 9.0, math.nan], [2.1, 2.0, 8.0, math.nan]),
    "a fall after a bump": ([3.0, 2.0, 1.5, 1.2, 1.0], [3.0, 2.2, 1.8, 1.9, 1.75]),
    "a bump in training": ([2.0, 2.4, 2.1, 1.95], [2.1, 2.5, 2.2, 1.4]),
    "a bump just before the end": ([2.0, 1.0, 2.3, 0.9], [2.0, 1.2, 2.4, 1.15]),
    "a climb in the last step": ([2.0, 1.5, 1.2, 2.1], [2.0, 1.6, 1.4, 1.9]),
    "a fall in the last step": ([2.0, 1.97, 1.95, 1.7], [2.1, 2.05, 2.03, 1.8]),
    "a loss that comes back": ([2.0, 1.4, 1.5, 1.9], [2.1, 1.6, 1.65, 1.7]),
    "a rise of 10 per cent": ([3.0, 2.0, 1.5, 1.2], [3.1, 2.2, 2.0, 2.2]),
    "a rise of 3 per cent of a small loss": ([1.0, 0.7, 0.5, 0.4], [1.1, 0.7, 0.5, 0.515]),
    "a rise of 1 per cent of a large loss": ([9.0, 6.0, 4.0, 3.5], [9.5, 6.0, 5.0, 5.05]),
    "a loss that comes back to its start": ([2.0, 1.4, 1.5, 2.0], [2.1, 1.6, 1.65, 1.7]),
    "a loss that is never finite": ([math.inf, math.inf, math.inf], [2.1, 2.0, 2.05]),
    "nan at the start of validation": ([3.0, 2.0, 1.0, 0.5], [math.nan, 2.0, 1.5, 2.2]),
    "nan in the middle of training": ([2.0, math.nan, 1.2, 0.8], [2.1, 1.9, 1.5, 1.3]),
    "a late turn back": ([3.0, 2.0, 1.0, 0.5, 0.4], [3.0, 2.0, 1.7, 2.3, 2.2]),
}


@exercise(
    hints=(
        "Ask the questions in the order of the statement, and return at the first that is answered "
        "with yes.",
        "`train[-1] > train[0] or not np.isfinite(train[-1])`; then `train[-1] > 0.9 * train[0]`; "
        "then `val[-1] > 1.02 * val[best]`, where `best = np.nanargmin(val)` passes over nan.",
    )
)
def diagnose(yours: Yours) -> str:
    for about, (train, val) in _CURVES.items():
        word, best = unpack(yours(list(train), list(val)), "word, best")
        mistakes = {why: _diagnosis(train, val, slip) for why, slip in _DIAGNOSIS_SLIPS.items()}
        yours.compare(f"word for {about}", word, _diagnosis(train, val), mistakes)
        wrong = {
            "that is the lowest training loss; the validation loss decides": int(
                np.nanargmin(train)
            ),
            "that is the last step, not the best": len(val) - 1,
            "nan is not the lowest": int(np.argmin(val)),
            "count the steps from 0": int(np.nanargmin(val)) + 1,
        }
        yours.compare(f"best step for {about}", best, int(np.nanargmin(val)), wrong)
    return "Two curves, four verdicts; and the best step is where one should have stopped."


Race = list[tuple[float, int]]
_RULES = ("SGD", "momentum", "AdamW")


def _updates(
    rule: str, h: np.ndarray, x: np.ndarray, lr: float, target: float, limit: int, slip: str = ""
) -> int | None:
    """How many updates until the loss is below the target; None if so many do not do."""
    m = v = np.zeros_like(x)
    for t in range(1, limit + 1):
        g = h * x
        if rule == "SGD":
            x = x - lr * g
        elif rule == "momentum":
            m = 0.9 * m + (0.1 if slip == "damped" else 1) * g
            x = x - lr * (g + 0.9 * m if slip == "nesterov" else m)
        else:
            if slip == "forgets":
                m = v = np.zeros_like(x)
            stuck = 1 if slip == "t stays 1" else t
            x, m, v = _adamw(x, g, m, v, stuck, lr, (0.9, 0.99), 1e-8, 0.0)
        found = np.sum(h * x * x) if slip == "no half" else 0.5 * np.sum(h * x * x)
        if slip == "distance":
            found = float(np.sum(x * x))
        if found < target or (slip == "at most" and found == target):
            return t - (slip == "one less")
    return None


@np.errstate(all="ignore")  # a rate that is too high for a mistaken rule
def _race(
    h: np.ndarray, start: np.ndarray, rates: Sequence[float], target: float, limit: int,
    slip: str = "",
) -> Race:  # fmt: skip
    best = []
    for rule in _RULES:
        tried = [(_updates(rule, h, start, lr, target, limit, slip), lr) for lr in rates]
        done = [(n, lr) for n, lr in tried if n is not None]
        if slip == "slowest":
            n, lr = max(done, default=(limit, rates[0]))
        elif slip == "largest rate":
            n, lr = max(done, key=lambda one: one[1], default=(limit, rates[0]))
        elif slip == "larger":
            n, lr = min(done, key=lambda one: (one[0], -one[1]), default=(limit, rates[0]))
        else:
            n, lr = min(done, default=(limit, rates[0]))
        best.append((lr, n))
    return best


_RACE_SLIPS = {
    "momentum is v = 0.9 v + g, with all of g": "damped",
    "that looks ahead, as Nesterov's momentum does; here x moves by lr * v": "nesterov",
    "t counts the steps: it must grow": "t stays 1",
    "m and v of one step go into the next": "forgets",
    "the loss has a factor of one half": "no half",
    "the target is for the loss, not for the distance": "distance",
    "count the update after which the loss is below the target": "one less",
    "the fewest updates win": "slowest",
    "of two rates that are equally good take the smaller": "larger",
    "the best rate need not be the largest that arrives": "largest rate",
    "a loss that equals the target is not yet below it": "at most",
}


_BOWLS = (  # curvatures, start, rates, target, limit
    ((1.0, 40.0), (2.0, 1.0), (0.01, 0.04, 0.06, 0.1), 1e-3, 100),
    ((1.0, 1.5, 2.0), (1.0, -2.0, 0.5), (0.03, 0.1, 0.5, 1.1), 1e-4, 85),
    ((0.5, 5.0, 60.0), (-1.0, 1.0, 0.7), (0.005, 0.02, 0.03, 0.08), 1e-2, 107),
    ((1.0,), (4.0,), (1.5, 0.5, 0.25), 1e-6, 300),  # SGD: 1.5 and 0.5 halve x alike
    ((1.0,), (4.0,), (0.5, 0.125), 8 / 4**5, 300),  # SGD with 0.5 is at the target once, not below
)


@functools.cache
def _results(i: int) -> tuple[Race, dict[str, Race]]:
    """Right and wrong results in one bowl: many short descents, made once."""
    curvatures, begin, rates, target, limit = _BOWLS[i]

    def result(slip: str = "") -> Race:
        return _race(np.array(curvatures), np.array(begin), rates, target, limit, slip)

    return result(), {why: result(slip) for why, slip in _RACE_SLIPS.items()}


@exercise(
    hints=(
        "Write a function for one rule and one rate first: it starts at a copy of start, and "
        "counts updates until the loss is below the target.",
        "The gradient is `h * x`. Give each rate a new x and new moments of zeros, skip those that "
        "need more than limit updates, and take the min over (updates, rate).",
    )
)
def race(yours: Yours) -> str:
    for i, (curvatures, begin, rates, target, limit) in enumerate(_BOWLS):
        right, wrong = _results(i)
        got = yours(np.array(curvatures), np.array(begin), list(rates), target, limit)
        where = f"for h={list(curvatures)}"
        for k, (rule, pair) in enumerate(
            zip(_RULES, unpack(got, "sgd, momentum, adamw"), strict=True)
        ):
            rate, n = unpack(pair, "rate, updates")
            rated: dict[str, Any] = {why: found[k][0] for why, found in wrong.items()}
            counted: dict[str, Any] = {why: found[k][1] for why, found in wrong.items()}
            yours.compare(f"number of {rule}'s updates {where}", n, right[k][1], counted)
            yours.compare(f"rate of {rule} {where}", rate, right[k][0], rated)
    return "Where all curvatures are alike plain SGD wins; the more they differ, the less."
