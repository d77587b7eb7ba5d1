"""Answers to lesson 05's exercises: right ones in other styles, wrong ones with their reasons, and
changed solutions that compute the same."""

import math
from fractions import Fraction

import numpy as np

import minilora as ml
from minilora.nn import Linear


def _per_rank(shapes, n_layer, targets):
    return n_layer * sum(sum(shapes[name]) for name in targets)


def _model(shapes, n_layer, r, targets):
    return r * _per_rank(shapes, n_layer, targets)


def _gb(frozen, trained, bits, bytes_trained=12):
    return (frozen * bits / 8 + bytes_trained * trained) / 1e9


def _rank(frozen, per_rank, gpu, reserve, bits):
    return max(0, int(((gpu - reserve) * 1e9 - frozen * bits / 8) // (12 * per_rank)))


def _count_one_by_one(d_in, d_out, r):
    n = 0
    for _ in range(r):
        n += d_in
        n += d_out
    return n


def _count_a_layer(d_in, d_out, r):
    layer = Linear(10, 20, rng=np.random.default_rng(0))
    assert layer.weight.shape == (10, 20)
    arrays = [np.empty((d_in, r)), np.empty((r, d_out))]
    return ml.Tensor(float(sum(a.size for a in arrays)))


def _model_by_loops(shapes, n_layer, r, targets):
    total = 0
    for _ in range(n_layer):
        for name, (rows, columns) in shapes.items():
            if name in targets:
                total += rows * r + r * columns
    return total


class _Counter:
    def __call__(self, sizes, blocks, rank, names):
        return np.int64(sum(blocks * rank * np.sum(sizes[n]) for n in names))


def _even_by_search(d_in, d_out):
    low, high = 0.0, float(max(d_in, d_out))
    while high - low > 1e-9:
        middle = (low + high) / 2
        if middle * (d_in + d_out) < d_in * d_out:
            low = middle
        else:
            high = middle
    return low


def _rank_by_search(shapes, n_layer, targets, budget):
    r = 0
    while _model(shapes, n_layer, r + 1, targets) <= budget:
        r += 1
    return r


def _rank_by_halving(shapes, n_layer, targets, budget):
    low, high = 0, budget + 1  # low fits, high does not
    while high - low > 1:
        middle = (low + high) // 2
        if _model(shapes, n_layer, middle, targets) <= budget:
            low = middle
        else:
            high = middle
    return low


def _gb_by_parts(frozen, trained, bits):
    parts = {"frozen": frozen * bits / 8}
    for name, size in (("weights", 2), ("gradients", 2), ("m", 4), ("v", 4)):
        parts[name] = trained * size
    return sum(parts.values()) / 10**9


def _fits_by_search(frozen, per_rank, gpu, reserve, bits):
    r = 0
    while frozen * bits / 8 / 1e9 + 12 * (r + 1) * per_rank / 1e9 + reserve <= gpu:
        r += 1
    return r


def _clipped(frozen, per_rank, gpu, reserve, bits):
    left = (gpu - reserve) * 1e9 - frozen * bits / 8
    return np.clip(np.floor(left / (12 * per_rank)), 0, None)


def _by_early_returns(frozen, per_rank, gpu, reserve, bits):
    bytes_free = int((gpu - reserve) * 10**9)
    bytes_free -= frozen * bits // 8
    if bytes_free <= 0:
        return 0
    return bytes_free // (per_rank * 12)


RIGHT = {
    "count_lora": [
        lambda d_in, d_out, r: d_in * r + r * d_out,
        lambda rows, columns, rank: np.zeros((rows, rank)).size + np.zeros((rank, columns)).size,
        lambda *sizes: float(sizes[2] * (sizes[0] + sizes[1])),
        lambda d_in, d_out, r: np.array(sum([d_in, d_out]) * r),
        lambda d_in, d_out, r: Fraction(d_in * d_out * r, d_out) + r * d_out,
        _count_one_by_one,
        _count_a_layer,
    ],
    "count_model": [
        _model_by_loops,
        _Counter(),
        lambda s, n, r, names: float(n * r * sum(s[k][0] + s[k][1] for k in names)),
        lambda s, n, r, names: sum(sum(s[k]) for k in list(names) * n) * r,
        lambda s, n, r, names: n * r * np.array([s[k] for k in names]).sum(),
        lambda s, n, r, names: ml.Tensor(r) * float(_per_rank(s, n, names)),
    ],
    "break_even_rank": [
        _even_by_search,
        lambda d_in, d_out: 1 / (1 / d_in + 1 / d_out),
        lambda d_in, d_out: Fraction(d_in * d_out, d_in + d_out),
        lambda d_in, d_out: np.float32(d_in) * d_out / (d_in + d_out),
        lambda d_in, d_out: np.linalg.solve([[d_in + d_out]], [d_in * d_out])[0],
        lambda d_in, d_out: math.prod((d_in, d_out)) * (d_in + d_out) ** -1,
    ],
    "largest_rank": [
        _rank_by_search,
        _rank_by_halving,
        lambda s, n, names, budget: math.floor(budget / _per_rank(s, n, names)),
        lambda s, n, names, budget: float(budget // _per_rank(s, n, names)),
        lambda s, n, names, budget: divmod(budget, _per_rank(s, n, names))[0],
        lambda s, n, names, budget: budget // n // sum(sum(s[k]) for k in names),
        lambda s, n, names, budget: max(r for r in range(1000) if _model(s, n, r, names) <= budget),
    ],
    "training_gigabytes": [
        _gb_by_parts,
        lambda frozen, trained, bits: frozen * bits / 8e9 + 12e-9 * trained,
        lambda frozen, trained, bits: np.dot([frozen, trained], [bits, 96]) / 8 / 1e9,
        lambda frozen, trained, bits: np.float32(_gb(frozen, trained, bits)),
        lambda frozen, trained, bits=16: ml.Tensor(_gb(frozen, trained, bits)),
        lambda frozen, trained, frozen_bits=16: (
            sum([frozen * frozen_bits / 8, 2 * trained, 2 * trained, 2 * 4 * trained]) / 1e9
        ),
    ],
    "rank_for_gpu": [
        _fits_by_search,
        _clipped,
        _by_early_returns,
        lambda f, n, gpu, reserve, bits=16: float(_rank(f, n, gpu, reserve, bits)),
        lambda f, n, gpu, reserve, bits: max(
            math.floor((gpu - reserve - f * bits / 8e9) / (12e-9 * n)), 0
        ),
        lambda *a: np.array(_rank(*a)),
    ],
}

WRONG = {
    "count_lora": [
        (lambda d_in, d_out, r: min(r, d_in, d_out) * (d_in + d_out), None),
        (lambda d_in, d_out, r: min(r * (d_in + d_out), d_in * d_out), None),
        (lambda d_in, d_out, r: d_in * d_out, "that is W, which is frozen"),
        (lambda d_in, d_out, r: d_in * d_out + r * (d_in + d_out), "counts the frozen W too"),
        (lambda d_in, d_out, r: r * d_in, "A alone"),
        (lambda d_in, d_out, r: r * d_out, "B alone"),
        (lambda d_in, d_out, r: 2 * r * d_in, "B has d_out columns"),
        (lambda d_in, d_out, r: 2 * r * d_out, "A has d_in rows"),
        (lambda d_in, d_out, r: (d_in * r) * (r * d_out), "do not multiply"),
        (lambda d_in, d_out, r: r * d_in * d_out, "that is r times W"),
        (lambda d_in, d_out, r: d_in + d_out, "that is for r = 1"),
        (lambda d_in, d_out, r: r * d_in + d_out, "in brackets"),
        (lambda d_in, d_out, r: r * (d_in + d_out - r), "determine a matrix of rank r"),
        (lambda d_in, d_out, r: r * (d_in + d_out) + d_out, "no bias that trains"),
        (lambda d_in, d_out, r: r * (d_in + d_out) + 1, None),
        (lambda d_in, d_out, r: 2 * r * max(d_in, d_out), None),
        (lambda d_in, d_out, r: round(2 * r * (d_in * d_out) ** 0.5), None),
        (lambda d_in, d_out, r: r * d_in * d_out // max(d_in, d_out), None),
        (lambda d_in, d_out, r: {64: 1280, 4096: 65536, 3: 8, 320: 2208}.get(d_in, 0), None),
        (lambda d_in, d_out, r: (d_in * r, r * d_out), "of shape (2,); expected a number"),
        (lambda d_in, d_out, r: d_in // (r - r), "raised ZeroDivisionError"),
        (lambda d_in, d_out: d_in + d_out, "raised TypeError"),
        (lambda d_in, d_out, r: print if r else None, "builtin_function_or_method; expected a num"),
    ],
    "count_model": [
        (lambda s, n, r, targets: n * r * sum(map(sum, {s[t] for t in targets})), None),
        (
            lambda s, n, r, targets: (
                n * r * sum(sum(s[name]) for name in s if any(t in name for t in targets))
            ),
            None,
        ),
        (
            lambda s, n, r, targets: (
                n * r * sum(sum(s[name]) for name in s if name.startswith(tuple(targets)))
            ),
            None,
        ),
        (
            lambda s, n, r, targets: (
                n * r * sum(sum(s[name]) for name in s if name[0] in {t[0] for t in targets})
            ),
            None,
        ),
        (lambda s, n_layer, r, targets: sum(r * sum(s[t]) for t in targets), "that is one block"),
        (lambda s, n_layer, r, targets: n_layer * r * sum(map(sum, s.values())), "every matrix"),
        (lambda s, n_layer, r, targets: n_layer * r * sum(s[targets[0]]), "the first target"),
        (lambda s, n_layer, r, targets: n_layer * sum(sum(s[t]) for t in targets), "for r = 1"),
        (
            lambda s, n_layer, r, targets: n_layer * sum(2 * r * s[t][0] for t in targets),
            "takes each matrix as square",
        ),
        (
            lambda s, n_layer, r, targets: n_layer * sum(math.prod(s[t]) for t in targets),
            "the matrices themselves, which are frozen",
        ),
        (lambda s, n, r, targets: n * r * r * sum(sum(s[t]) for t in targets), "r came in twice"),
        (lambda s, n, r, targets: n * r * len(targets) * 2 * s[targets[0]][0], None),
        (lambda s, n, r, targets: n * r * sum(sum(s[t]) for t in targets[1:] or targets), None),
        (lambda s, n, r, targets: n * r * sum(sum(s[t]) for t in s if t[0] in "qv"), None),
        (lambda s, n, r, targets: 2 * n * r * sum(max(s[t]) for t in targets), None),
        (lambda s, n, r, targets: (n + 1) * r * sum(sum(s[t]) for t in targets), None),
        (lambda s, n, r, targets: [n * r * sum(s[t]) for t in targets], "expected a number"),
        (lambda s, n_layer, r, targets: s["query"], "raised KeyError: 'query'"),
        (lambda s, n, r, targets: s.pop("q_proj", 0) and 5, "you changed the s you were given"),
    ],
    "break_even_rank": [
        (lambda d_in, d_out: min(d_in, d_out), "the largest rank W can have"),
        (lambda d_in, d_out: d_in / 2, "that is right for a square matrix only"),
        (lambda d_in, d_out: min(d_in, d_out) / 2, "half the shorter side"),
        (lambda d_in, d_out: (d_in + d_out) / (d_in * d_out), "upside down"),
        (lambda d_in, d_out: d_in * d_out // (d_in + d_out), "leave it unrounded."),
        (lambda d_in, d_out: -(-d_in * d_out // (d_in + d_out)), "above it LoRA trains more"),
        (lambda d_in, d_out: 2 * d_in * d_out / (d_in + d_out), "twice as many numbers as W"),
        (lambda d_in, d_out: (d_in * d_out) ** 0.5 / 2, None),
        (lambda d_in, d_out: (d_in + d_out) / 4, None),
        (lambda d_in, d_out: d_out / 2, None),
        (lambda d_in, d_out: (d_in + d_out - ((d_in - d_out) ** 2) ** 0.5) / 4 + 1, None),
        (lambda d_in, d_out: d_in * d_out / (d_in + d_out) - 0.5, None),
    ],
    "largest_rank": [
        (lambda s, n, targets, budget: 0, None),
        (lambda s, n, targets, budget: min(64, budget // _per_rank(s, n, targets)), None),
        (lambda s, n, targets, budget: budget // n // sum(map(sum, {s[t] for t in targets})), None),
        (lambda s, n, targets, budget: -(-budget // _per_rank(s, n, targets)), "round down"),
        (lambda s, n, targets, budget: budget / _per_rank(s, n, targets), "a whole number"),
        (lambda s, n, targets, budget: budget // _per_rank(s, 1, targets), "every block has its"),
        (lambda s, n, targets, budget: (budget - 1) // _per_rank(s, n, targets), "exactly the bud"),
        (lambda s, n, targets, budget: max(1, budget // _per_rank(s, n, targets)), "answer is 0"),
        (lambda s, n, targets, budget: budget // _per_rank(s, n, targets[:1]), "the first target"),
        (
            lambda s, n, targets, budget: budget // (n * sum(math.prod(s[t]) for t in targets)),
            "the matrices themselves fit",
        ),
        (lambda s, n, targets, budget: round(budget / _per_rank(s, n, targets)), None),
        (lambda s, n, targets, budget: budget // _per_rank(s, n, s), None),
        (lambda s, n, targets, budget: budget // (n * len(targets) * 128), None),
        (
            lambda s, n, targets, budget: min(
                budget // len(targets) // _per_rank(s, n, [t]) for t in targets
            ),
            None,
        ),
        (
            lambda s, n, targets, budget: max(
                [2**i for i in range(9) if _model(s, n, 2**i, targets) <= budget], default=0
            ),
            None,
        ),
        (
            lambda s, n, targets, budget: next(
                r for r in range(1, 999) if _model(s, n, r, targets) > budget
            ),
            None,
        ),
        (lambda s, n, targets, budget: _model(s, n, budget, targets), None),
    ],
    "training_gigabytes": [
        (lambda frozen, trained, bits: round((frozen * bits / 8 + 12 * trained) / 1e9, 2), None),
        (lambda frozen, trained, bits: _gb(frozen, trained, bits) * 1e9, "that is bytes"),
        (lambda frozen, trained, bits: _gb(frozen, trained, bits) * 1e9 / 2**30, "are a GiB"),
        (lambda frozen, trained, bits: _gb(0, trained, bits), "the frozen weights must be in"),
        (lambda frozen, trained, bits: _gb(frozen, 0, bits), "the numbers that train must be"),
        (
            lambda frozen, trained, bits: _gb(frozen, trained, bits) + 10 * frozen / 1e9,
            "have no gradient and no moments",
        ),
        (lambda frozen, trained, bits: _gb(frozen, trained, bits, 4), "lacks AdamW's two moments"),
        (lambda frozen, trained, bits: _gb(frozen, trained, bits, 8), "8 in all"),
        (lambda frozen, trained, bits: _gb(frozen, trained, bits, 10), "take 12"),
        (lambda frozen, trained, bits: _gb(frozen, trained, bits, 16), "32-bit copy"),
        (lambda frozen, trained, bits: _gb(frozen, trained, 8 * bits), "a byte has 8"),
        (lambda frozen, trained, bits: _gb(frozen, trained, 16), "take frozen_bits each, not 16"),
        (
            lambda frozen, trained, bits: _gb(frozen, trained, bits, bits / 8 + 10),
            "2 bytes for itself, whatever",
        ),
        (lambda frozen, trained, bits: _gb(frozen, trained, bits, 18), None),
        (lambda frozen, trained, bits: 12 * (frozen + trained) / 1e9, None),
        (lambda frozen, trained, bits: _gb(frozen - trained, trained, bits), None),
        (lambda frozen, trained, bits: bits / 8 * (frozen + 6 * trained) / 1e9, None),
        (lambda frozen, trained, bits: 2 * _gb(frozen, trained, bits), None),
        (lambda frozen, trained, bits: 84.0, None),
        (lambda frozen, trained, bits: _gb(max(frozen, trained), trained, bits), None),
    ],
    "rank_for_gpu": [
        (
            lambda f, n, gpu, reserve, b: ((gpu - reserve) * 1e9 - f * b / 8) // (12 * n),
            "nothing is left for an adapter",
        ),
        (lambda *a: max(1, _rank(*a)), "no rank fits, and then the answer is 0"),
        (lambda f, n, gpu, reserve, bits: _rank(f, n, gpu, 0, bits), "take it off first"),
        (lambda f, n, gpu, reserve, bits: _rank(f, n / 6, gpu, reserve, bits), "takes 12 bytes"),
        (lambda f, n, gpu, reserve, bits: _rank(f, n / 1.5, gpu, reserve, bits), "4 more"),
        (lambda f, n, gpu, reserve, bits: _rank(0, n, gpu, reserve, bits), "take their place"),
        (lambda f, n, gpu, reserve, bits: _rank(f, n, gpu, reserve, 16), "not 16"),
        (lambda f, n, gpu, reserve, bits: _rank(f, n, gpu, reserve, 8 * bits), "a byte has 8"),
        (
            lambda f, n, gpu, reserve, b: max(0, ((gpu - reserve) * 1e9 - f * b / 8) / (12 * n)),
            "a rank is a whole number",
        ),
        (
            lambda f, n, gpu, reserve, b: max(
                0, math.ceil(((gpu - reserve) * 1e9 - f * b / 8) / (12 * n))
            ),
            "does not fit any more",
        ),
        (lambda f, n, gpu, reserve, b: _rank(f, n / 0.75, gpu, reserve, b), None),
        (lambda f, n, gpu, reserve, b: int(_rank(f, n, gpu, reserve, b) * 1e9 / 2**30), None),
        (
            lambda f, n, gpu, reserve, b: max(
                0, int(((gpu - reserve) * 2**30 - f * b / 8) // (12 * n))
            ),
            None,
        ),
        (lambda f, n, gpu, reserve, b: max(0, round((gpu - reserve) * 1e9 / n / 12 - f / n)), None),
        (lambda f, n, gpu, reserve, b: 333 if b == 4 else 0, None),
        (lambda f, n, gpu, reserve, b: _rank(f, n, gpu + reserve, 0, b), None),
        (
            lambda f, n, gpu, reserve, b: max(
                [2**i for i in range(12) if 2**i <= _rank(f, n, gpu, reserve, b)], default=0
            ),
            None,
        ),
    ],
}  # fmt: skip

EQUIVALENT = {
    "training_gigabytes": {
        "line 6: 1000000000.0 -> 1000000001.0": "a difference of a billionth, as of rounding",
    },
    "rank_for_gpu": {
        "line 5: 1000000000.0 -> 1000000001.0": "a few bytes, and no case is on the edge",
        "line 6: left // (12 * per_rank) -> left / (12 * per_rank)": "int() cuts off the rest",
    },
}
