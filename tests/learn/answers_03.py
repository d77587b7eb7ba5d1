"""Answers to lesson 03's exercises: right ones in other styles, and wrong ones with the words of
the reason that each must get, or None."""

from collections.abc import Callable
from typing import Any

import numpy as np

from minilora.learn import lesson_03 as L
from minilora.tensor import Tensor

# memory_ledger(frozen, trained, weight_bytes, gradient_bytes, copy)


def ledger_by_loops(frozen, trained, weight_bytes, gradient_bytes, copy):
    weights = gradients = optimizer = 0
    for trains, count in ((False, frozen), (True, trained)):
        weights += count * weight_bytes
        if trains:
            gradients += count * gradient_bytes
            optimizer += count * 4 + count * 4
            if copy:
                optimizer += count * 4
    return [weights, gradients, optimizer]


def ledger_by_product(f, t, w, g, c):
    return np.array([[w, w], [0, g], [0, 12 if c else 8]]) @ np.array([f, t])


# kept_numbers(tokens, widths, trains)


def kept_from_the_first(tokens, widths, trains):
    if True not in trains:
        return 0
    first = trains.index(True)
    linears = np.dot(widths[:-1], trains)
    return int(tokens * (linears + sum(widths[first + 1 : -1])))


def kept_by_flag(tokens, widths, trains):
    needed, total = False, 0
    pairs = list(zip(widths, widths[1:], trains, strict=False))
    for i, (d_in, d_out, trained) in enumerate(pairs):
        needed |= trained
        total += d_in * trained + d_out * (needed and i + 1 < len(pairs))
    return total * tokens


def kept_backwards(tokens, widths, trains):
    if not trains:
        return 0
    shorter = kept_backwards(tokens, widths[:-1], trains[:-1])
    gelu = widths[-2] if any(trains[:-1]) else 0
    return shorter + tokens * (gelu + (widths[-2] if trains[-1] else 0))


def kept_gelu(inputs, gelus, last=False):
    """A solution whose Linear and GELU follow other rules."""

    def answer(tokens, widths, trains):
        n, total = len(trains), 0
        for i in range(n):
            total += widths[i] * inputs(trains, i)
            if i < n - 1 or last:
                total += widths[i + 1] * gelus(trains, i)
        return tokens * total

    return answer


def own(trains, i):
    return trains[i]


def so_far(trains, i):
    return any(trains[: i + 1])


# adamw_step(p, g, m, v, t, lr, betas, eps, decay)


def adamw(slip=""):
    return lambda *a: L._adamw(*a, slip=slip)


def adamw_one_by_one(p, g, m, v, t, lr, betas, eps, decay):
    out = [np.empty(p.shape) for _ in range(3)]
    for i in np.ndindex(p.shape):
        one = betas[0] * m[i] + (1 - betas[0]) * g[i]
        two = betas[1] * v[i] + (1 - betas[1]) * g[i] * g[i]
        step = one / (1 - betas[0] ** t) / ((two / (1 - betas[1] ** t)) ** 0.5 + eps)
        out[0][i], out[1][i], out[2][i] = p[i] - lr * decay * p[i] - lr * step, one, two
    return tuple(out)


def adamw_in_tensors(p, g, m, v, t, lr, betas, eps, decay):
    p, m, v = L._adamw(p, g, m, v, t, lr, betas, eps, decay)
    return [Tensor(p), Tensor(m), Tensor(v)]


def adamw_by_lerp(p, g, m, v, t, lr, betas, eps, decay):
    m = m + (1 - betas[0]) * (g - m)
    v = v + (1 - betas[1]) * (np.square(g) - v)
    rate = lr * np.sqrt(1 - betas[1] ** t) / (1 - betas[0] ** t)
    kept = p - p * lr * decay
    return kept - rate * m / (np.sqrt(v) + eps * np.sqrt(1 - betas[1] ** t)), m, v


class AdamwAsAClass:
    def __call__(self, p, g, m, v, t, lr, betas, eps, decay):
        new = L._adamw(p, g, m, v, t, lr, betas, eps, decay)
        return tuple(part.tolist() for part in new)


def sign_sgd(p, g, m, v, t, lr, betas, eps, decay):
    return (1 - lr * decay) * p - lr * np.sign(g), m, v


def rmsprop(p, g, m, v, t, lr, betas, eps, decay):
    v = betas[1] * v + (1 - betas[1]) * g**2
    return p - lr * g / (np.sqrt(v) + eps), m, v


def adagrad(p, g, m, v, t, lr, betas, eps, decay):
    v = v + g**2
    return (1 - lr * decay) * p - lr * g / (np.sqrt(v) + eps), m, v


def lion(p, g, m, v, t, lr, betas, eps, decay):
    update = np.sign(betas[0] * m + (1 - betas[0]) * g)
    return (1 - lr * decay) * p - lr * update, betas[1] * m + (1 - betas[1]) * g, v


def nadam(p, g, m, v, t, lr, betas, eps, decay):
    _, m, v = L._adamw(p, g, m, v, t, lr, betas, eps, decay)
    ahead = betas[0] * m / (1 - betas[0] ** (t + 1)) + (1 - betas[0]) * g / (1 - betas[0] ** t)
    return (1 - lr * decay) * p - lr * ahead / (np.sqrt(v / (1 - betas[1] ** t)) + eps), m, v


def amsgrad(p, g, m, v, t, lr, betas, eps, decay):
    new, m, v_new = L._adamw(p, g, m, np.maximum(v, g**2), t, lr, betas, eps, decay)
    return new, m, np.maximum(v, v_new)


# learning_rate_at(step, steps, peak, warmup, final)


def rate(slip):
    return lambda *a: L._rate(*a, slip)


def rate_by_if(step, steps, peak, warmup, final):
    low = final * peak
    falling = low + (peak - low) * np.cos(np.pi * step / (2 * steps)) ** 2
    if step + 1 < warmup:
        falling *= (step + 1) / warmup
    return falling


def linear(step, steps, peak, warmup, final):
    rise = min(1, (step + 1) / warmup) if warmup else 1
    return peak * rise * (1 - step / steps * (1 - final)) ** 2


def by_steps(step, steps, peak, warmup, final):
    return peak * (1 if step < steps / 2 else 0.1)


def inverse_root(step, steps, peak, warmup, final):
    return peak * min((step + 1) / max(warmup, 1), np.sqrt(max(warmup, 1) / (step + 1)))


def exponential(step, steps, peak, warmup, final):
    return peak * min(1, (step + 1) / max(warmup, 1)) * final ** (step / steps)


# clip_together(gradients, max_norm)


def clip(slip):
    return lambda gradients, limit: L._clipped(gradients, limit, slip)


def clip_by_long_vector(gradients, limit):
    long = np.concatenate([g.ravel() for g in gradients])
    shorter = long * min(1.0, limit / max(np.linalg.norm(long), 1e-30))
    parts = np.split(shorter, np.cumsum([g.size for g in gradients])[:-1])
    return [part.reshape(g.shape) for part, g in zip(parts, gradients, strict=True)]


def clip_by_vdot(gradients, limit):
    square = 0.0
    for g in gradients:
        square += float(np.vdot(g, g))
    if square <= limit**2:
        return list(gradients)
    return tuple(g / square**0.5 * limit for g in gradients)


def clip_as_package(gradients, limit):
    norm = np.sqrt(sum((g * g).sum() for g in gradients))
    return [g * (limit / (norm + 1e-6)) if norm > limit else g for g in gradients]


def clip_softly(gradients, limit):
    norm = np.sqrt(sum((g * g).sum() for g in gradients))
    return [g * limit / (limit + norm) for g in gradients]


def clip_rows(gradients, limit):
    return [
        g * np.minimum(1, limit / (np.linalg.norm(g, axis=-1, keepdims=True) + 1e-30))
        for g in gradients
    ]


# diagnose(train, val)


def diagnosis(slip="", best=np.nanargmin):
    return lambda train, val: (L._diagnosis(train, val, slip), int(best(val)))


def diagnosis_by_table(train, val):
    lowest = min(v for v in val if v == v)
    rules = [
        ("diverging", not np.isfinite(train[-1]) or train[-1] > train[0]),
        ("underfitting", train[-1] > 0.9 * train[0]),
        ("overfitting", val[-1] / lowest > 1.02),
        ("learning", True),
    ]
    return [next(word for word, holds in rules if holds), val.index(lowest)]


def diagnosis_shouted(train, val):
    word, best = diagnosis_by_table(train, val)
    return word.upper(), float(best)


def diagnosis_by_finite_ends(train, val):
    ends = np.isfinite(train[-1]) and train[-1] <= train[0]
    word, best = diagnosis_negated(train, val)
    return (word if ends else "diverging"), best


def diagnosis_negated(train, val):
    best = int(np.argmin(np.nan_to_num(val, nan=np.inf)))
    if not train[-1] <= train[0]:
        word = "diverging"
    elif train[0] * 0.9 < train[-1]:
        word = "underfitting"
    else:
        word = "overfitting" if val[-1] - val[best] > 0.02 * val[best] else "learning"
    return word, best


# race(h, start, rates, target, limit)


def run(slip=""):
    return lambda *a: L._race(*a, slip)


def race_in_python(h, start, rates, target, limit):
    """Plain numbers, no arrays."""
    found = []
    for kind in range(3):
        best = None
        for lr in rates:
            x, m, v = list(start), [0.0] * len(h), [0.0] * len(h)
            for t in range(1, limit + 1):
                for i, (curvature, at) in enumerate(zip(h, list(x), strict=True)):
                    g = curvature * at
                    if kind == 0:
                        x[i] = at - lr * g
                    elif kind == 1:
                        m[i] = 0.9 * m[i] + g
                        x[i] = at - lr * m[i]
                    else:
                        m[i] = 0.9 * m[i] + 0.1 * g
                        v[i] = 0.99 * v[i] + 0.01 * g * g
                        root = (v[i] / (1 - 0.99**t)) ** 0.5 + 1e-8
                        x[i] = at - lr * m[i] / (1 - 0.9**t) / root
                if sum(c * a * a for c, a in zip(h, x, strict=True)) / 2 < target:
                    best = min(best or (t, lr), (t, lr))
                    break
        found.append((best[1], best[0]))
    return found


def race_as_array(*arguments):
    return np.array(L._race(*arguments))


def race_as_lists(*arguments):
    return [[rate, float(n)] for rate, n in L._race(*arguments)]


def race_with_tuples(h, start, rates, target, limit):
    return tuple(L._race(np.asarray(h, np.longdouble), start, tuple(rates), target, limit))


def all_sgd(*arguments):
    return [L._race(*arguments)[0]] * 3


def two_over_sum(h, start, rates, target, limit):
    ideal = 2 / (min(h) + max(h))
    nearest = min(rates, key=lambda lr: abs(lr - ideal))
    return [(nearest, n) for _, n in L._race(h, start, rates, target, limit)]


def _by_a_fixed_margin(train, val):
    word = L._diagnosis(train, val)
    if word in ("overfitting", "learning"):
        word = "overfitting" if val[-1] > np.nanmin(val) + 0.02 else "learning"
    return word, np.nanargmin(val)


def _with_any_nan(train, val):
    return L._diagnosis(train, val) if np.isfinite(train).all() else "diverging"


RIGHT: dict[str, list[Callable[..., Any]]] = {
    "memory_ledger": [
        ledger_by_loops,
        ledger_by_product,
        lambda f, t, w, g, c: (w * f + w * t, g * t, t * (8 + 4 * c)),
        lambda *a: list(map(np.float64, ledger_by_product(*a))),
        lambda *a: tuple(float(part) for part in ledger_by_loops(*a)),
    ],
    "kept_numbers": [
        kept_from_the_first,
        kept_by_flag,
        kept_backwards,
        kept_gelu(own, so_far),
        lambda *a: float(kept_by_flag(*a)),
    ],
    "adamw_step": [
        adamw(),
        adamw_one_by_one,
        adamw_in_tensors,
        adamw_by_lerp,
        AdamwAsAClass(),
        lambda *a: [part.astype(np.float32) for part in L._adamw(*a)],
    ],
    "learning_rate_at": [
        rate(""),
        rate_by_if,
        lambda *a: np.float32(L._rate(*a)),
        lambda *a: Tensor(np.array(L._rate(*a))),
        lambda *a: [L._rate(*a)][0],
    ],
    "clip_together": [
        clip(""),
        clip_by_long_vector,
        clip_by_vdot,
        clip_as_package,
        lambda *a: [Tensor(g) for g in L._clipped(*a)],
        lambda *a: [g.tolist() for g in L._clipped(*a)],
    ],
    "diagnose": [
        diagnosis(),
        diagnosis_by_table,
        diagnosis_shouted,
        diagnosis_by_finite_ends,
        lambda t, v: [L._diagnosis(t, v), np.nanargmin(v)],
    ],
    "race": [race_in_python, race_as_array, race_as_lists, race_with_tuples, run()],
}

WRONG: dict[str, list[tuple[Callable[..., Any], str | None]]] = {
    "memory_ledger": [
        (lambda f, t, w, g, c: (w * t, g * t, (8 + 4 * c) * t), "frozen weight is in memory too"),
        (lambda f, t, w, g, c: (w * (f + t), g * (f + t), (8 + 4 * c) * t), "has no gradient"),
        (
            lambda f, t, w, g, c: (w * (f + t), g * t, (8 + 4 * c) * (f + t)),
            "keeps nothing for a frozen",
        ),
        (lambda f, t, w, g, c: (w * (f + t), g * t, (4 + 4 * c) * t), "AdamW has two moments"),
        (lambda f, t, w, g, c: (w * (f + t), g * t, (2 * w + 4 * c) * t), "are in float32 what"),
        (lambda f, t, w, g, c: (w * (f + t), g * t, 12 * t), "only if copy is True"),
        (lambda f, t, w, g, c: (w * (f + t), g * t, 8 * t), "the copy is missing"),
        (
            lambda f, t, w, g, c: (w * (f + t), g * t, 8 * t + 4 * c * (f + t)),
            "only what trains is copied",
        ),
        (lambda f, t, w, g, c: (w * (f + t) + 4 * c * t, g * t, 8 * t), "optimizer's parts"),
        (lambda f, t, w, g, c: (w * (f + t), w * t, (8 + 4 * c) * t), "bytes of their own"),
        (lambda f, t, w, g, c: (2 * t, 2 * t, 8 * t), None),
        (lambda f, t, w, g, c: (w * t, g * t, 12 * t), None),
        (lambda f, t, w, g, c: (4 * (f + t), 4 * t, 8 * t), None),
        (lambda f, t, w, g, c: (w * (f + t), w * t, (4 + 2 * w) * t), None),
        (lambda f, t, w, g, c: (g * (f + t), w * t, (8 + 4 * c) * t), None),
    ],
    "kept_numbers": [
        (kept_gelu(lambda t, i: True, so_far), "does not need its input on the way back"),
        (kept_gelu(own, lambda t, i: True), "no gradient passes a GELU"),
        (kept_gelu(own, own), "is on the way back too"),
        (kept_gelu(own, lambda t, i: any(t[i + 1 :])), "not at those after it"),
        (kept_gelu(own, lambda t, i: False), "the GELUs keep their inputs"),
        (kept_gelu(own, so_far, last=True), "after the last Linear there is no GELU"),
        (lambda n, w, t: sum(a * b * c for a, b, c in zip(w, w[1:], t, strict=False)), "weights;"),
        (lambda n, w, t: kept_by_flag(n, w, t) // n, "each of the tokens"),
        (
            lambda n, w, t: (
                n * (np.dot(w[1:], t) + sum(w[i + 1] for i in range(len(t) - 1) if so_far(t, i)))
            ),
            "a Linear keeps its input",
        ),
        (lambda n, w, t: n * sum(w), None),
        (lambda n, w, t: n * sum(w[:-1]) * any(t), None),
        (lambda n, w, t: n * sum(w) * sum(t), None),
        (kept_gelu(so_far, so_far), None),
        (kept_gelu(lambda t, i: any(t[i:]), so_far), None),
        (kept_gelu(lambda t, i: True, lambda t, i: True), None),
    ],
    "adamw_step": [
        *((adamw(slip), why) for why, slip in L._ADAMW_SLIPS.items()),
        (sign_sgd, None),
        (rmsprop, None),
        (adagrad, None),
        (lion, None),
        (nadam, None),
        (amsgrad, None),
        (lambda p, g, m, v, t, lr, *_: (p - lr * g, m, v), None),
    ],
    "learning_rate_at": [
        *((rate(slip), why) for why, slip in L._RATE_SLIPS.items()),
        (lambda *a: L._rate(*a) / a[2], "multiply by the peak"),
        (linear, None),
        (by_steps, None),
        (inverse_root, None),
        (exponential, None),
        (lambda step, steps, peak, warmup, final: peak, None),
    ],
    "clip_together": [
        *((clip(slip), why) for why, slip in L._CLIP_SLIPS.items()),
        (clip_softly, None),
        (clip_rows, None),
        (lambda g, limit: [np.tanh(x / limit) * limit for x in g], None),
        (lambda g, limit: [np.sign(x) * limit for x in g], None),
        (lambda g, limit: [x / (1 + np.linalg.norm(x)) for x in g], None),
        (lambda g, limit: [x * 0 if np.linalg.norm(x) > limit else x for x in g], None),
        (lambda g, limit: L._clipped(g, limit)[:2], "return a list with an array for each"),
    ],
    "diagnose": [
        *((diagnosis(slip), why) for why, slip in L._DIAGNOSIS_SLIPS.items()),
        (diagnosis_negated, "infinity is no finite number either"),
        (diagnosis(best=np.argmin), "nan is not the lowest"),
        (diagnosis(best=lambda v: len(v) - 1), "that is the last step"),
        (diagnosis(best=lambda v: np.nanargmin(v) + 1), "count the steps from 0"),
        (lambda t, v: (L._diagnosis(t, v), np.nanargmin(t)), "the lowest training loss"),
        (lambda t, v: L._diagnosis(t, v), "expected 2 values"),
        (lambda t, v: ("overfitting" if v[-1] > t[-1] else "learning", np.nanargmin(v)), None),
        (lambda t, v: ("learning", np.nanargmin(v)), None),
        (diagnosis(best=lambda v: np.argmin([x for x in v if x == x])), None),
        (diagnosis(best=lambda v: v.index(min(v))), None),
        (_by_a_fixed_margin, None),
        (lambda t, v: (_with_any_nan(t, v), np.nanargmin(v)), None),
        (lambda t, v: ("overfitting" if np.argmin(v) < len(v) - 1 else "learning", 0), None),
        (lambda t, v: ("underfitting" if v[-1] > 2 else "overfitting", np.nanargmin(v)), None),
        (lambda t, v: ("diverging" if max(v) > v[0] else "learning", np.nanargmin(v)), None),
    ],
    "race": [
        *((run(slip), why) for why, slip in L._RACE_SLIPS.items()),
        (all_sgd, None),
        (two_over_sum, None),
        (lambda *a: L._race(*a)[::-1], None),
        (lambda *a: [(max(a[2]), n) for _, n in L._race(*a)], None),
        (lambda *a: [(lr, a[4]) for lr, _ in L._race(*a)], None),
        (lambda *a: L._race(*a)[0], "expected 3 values"),
    ],
}

EQUIVALENT: dict[str, dict[str, str]] = {
    "clip_together": {
        "line 4: norm > max_norm -> norm >= max_norm": "at the limit the factor is 1",
    },
    "diagnose": {
        "line 6: train[-1] > 0.9 * train[0] -> train[-1] >= 0.9 * train[0]": "rounding decides",
        "line 8: val[-1] > 1.02 * val[best] -> val[-1] >= 1.02 * val[best]": "rounding decides",
    },
    "race": {
        "line 8: 1 -> 2": "a rate that needs limit + 1 updates is never the best of several",
    },
}
