"""Wrong solutions of lesson 05's exercises, with words of the diagnosis that each must get."""

import math
from collections.abc import Callable
from typing import Any

Answer = tuple[Callable[..., Any], str]


def _per_rank(shapes, n_layer, targets):
    return n_layer * sum(sum(shapes[name]) for name in targets)


def _gb(frozen, trained, bits, bytes_trained=12):
    return (frozen * bits / 8 + bytes_trained * trained) / 1e9


def _rank(frozen, per_rank, gpu, reserve, bits):
    return int(((gpu - reserve) * 1e9 - frozen * bits / 8) // (12 * per_rank))


WRONG: dict[str, list[Answer]] = {
    "count_lora": [
        (lambda d_in, d_out, r: d_in * d_out, "that is W, which is frozen"),
        (lambda d_in, d_out, r: d_in * d_out + r * (d_in + d_out), "counts the frozen W too"),
        (lambda d_in, d_out, r: r * d_in, "A alone"),
        (lambda d_in, d_out, r: r * d_out, "B alone"),
        (lambda d_in, d_out, r: 2 * r * d_in, "B has d_out columns"),
        (lambda d_in, d_out, r: (d_in * r) * (r * d_out), "do not multiply"),
        (lambda d_in, d_out, r: r * d_in * d_out, "that is r times W"),
        (lambda d_in, d_out, r: d_in + d_out, "that is for r = 1"),
        (lambda d_in, d_out, r: r * (d_in + d_out) + 1, "is 1,281; expected 1,280."),
        (lambda d_in, d_out, r: (d_in * r, r * d_out), "an array of shape (2,); expected a number"),
        (lambda d_in, d_out, r: d_in // (r - r), "raised ZeroDivisionError"),
        (lambda d_in, d_out: d_in + d_out, "raised TypeError"),
        (lambda d_in, d_out, r: print if r else None, "builtin_function_or_method; expected a num"),
    ],
    "count_model": [
        (lambda s, n_layer, r, targets: sum(r * sum(s[t]) for t in targets), "that is one block"),
        (lambda s, n_layer, r, targets: n_layer * r * sum(map(sum, s.values())), "every matrix"),
        (lambda s, n_layer, r, targets: n_layer * r * sum(s[targets[0]]), "one target; sum over"),
        (lambda s, n_layer, r, targets: n_layer * sum(sum(s[t]) for t in targets), "for r = 1"),
        (
            lambda s, n_layer, r, targets: n_layer * sum(2 * r * s[t][0] for t in targets),
            "takes each matrix as square",
        ),
        (
            lambda s, n_layer, r, targets: n_layer * sum(math.prod(s[t]) for t in targets),
            "the matrices themselves, which are frozen",
        ),
        (lambda s, n_layer, r, targets: s["query"], "raised KeyError: 'query'"),
    ],
    "break_even_rank": [
        (lambda d_in, d_out: min(d_in, d_out), "the largest rank W can have"),
        (lambda d_in, d_out: d_in / 2, "a square matrix only"),
        (lambda d_in, d_out: (d_in + d_out) / (d_in * d_out), "upside down"),
        (lambda d_in, d_out: d_in * d_out // (d_in + d_out), "leave it unrounded"),
        (lambda d_in, d_out: 2 * d_in * d_out / (d_in + d_out), "twice as many numbers as W"),
    ],
    "largest_rank": [
        (lambda s, n, targets, budget: -(-budget // _per_rank(s, n, targets)), "round down"),
        (lambda s, n, targets, budget: budget / _per_rank(s, n, targets), "a whole number"),
        (lambda s, n, targets, budget: budget // _per_rank(s, 1, targets), "every block has its"),
        (lambda s, n, targets, budget: (budget - 1) // _per_rank(s, n, targets), "exactly the bud"),
        (lambda s, n, targets, budget: max(1, budget // _per_rank(s, n, targets)), "answer is 0"),
    ],
    "training_gigabytes": [
        (lambda frozen, trained, bits: _gb(frozen, trained, bits) * 1e9, "that is bytes"),
        (lambda frozen, trained, bits: _gb(frozen, trained, bits) * 1e9 / 2**30, "are a GiB"),
        (lambda frozen, trained, bits: _gb(0, trained, bits), "must be in memory too"),
        (
            lambda frozen, trained, bits: _gb(frozen, trained, bits) + 10 * frozen / 1e9,
            "have no gradient and no moments",
        ),
        (lambda frozen, trained, bits: _gb(frozen, trained, bits, 4), "lacks AdamW's two moments"),
        (lambda frozen, trained, bits: _gb(frozen, trained, bits, 8), "8 in all"),
        (lambda frozen, trained, bits: _gb(frozen, trained, bits, 10), "take 12"),
        (lambda frozen, trained, bits: _gb(frozen, trained, 8 * bits), "a byte has 8"),
        (lambda frozen, trained, bits: _gb(frozen, trained, 16), "take frozen_bits each, not 16"),
        (
            lambda frozen, trained, bits: _gb(frozen, trained, bits, bits / 8 + 10),
            "2 bytes for itself, whatever",
        ),
    ],
    "rank_for_gpu": [
        (lambda *a: _rank(*a), "nothing is left for an adapter"),
        (lambda f, n, gpu, reserve, bits: max(0, _rank(f, n, gpu, 0, bits)), "take it off first"),
        (lambda f, n, gpu, reserve, bits: max(0, _rank(f, n / 6, gpu, reserve, bits)), "12 bytes"),
        (lambda f, n, gpu, reserve, bits: _rank(0, n, gpu, reserve, bits), "take their place"),
        (lambda f, n, gpu, reserve, bits: max(0, _rank(f, n, gpu, reserve, 16)), "not 16"),
        (
            lambda f, n, gpu, reserve, bits: ((gpu - reserve) * 1e9 - f * bits / 8) / (12 * n),
            "round down",
        ),
    ],
}  # fmt: skip
