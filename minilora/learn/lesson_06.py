"""The checkers of lesson 06, Rank sweep."""

from __future__ import annotations

from collections.abc import Callable
from statistics import mean

import numpy as np

from minilora.learn.exercises import Yours, as_array, exercise, require, unpack


def _matrices() -> list[tuple[np.ndarray, int, float]]:
    """(M, r, tolerance): wide, tall, in float32, whose rounding counts, and one that is new each
    time."""
    rng = np.random.default_rng(6)
    tall, wide = rng.standard_normal((6, 4)), rng.standard_normal((5, 7))
    new = np.random.default_rng().standard_normal((8, 5))
    float32 = wide.astype(np.float32)
    return [(wide, 3, 1e-6), (tall, 2, 1e-6), (float32, 1, 1e-4), (new, 3, 1e-6)]


@exercise(
    hints=(
        "`np.linalg.svd(M, compute_uv=False)` has the singular values, the largest first. Which "
        "of them does a matrix of rank r leave out?",
        "Python counts from 0: the first r have the indices 0 to r - 1. Which slice has the rest?",
    )
)
def best_rank_error(yours: Yours) -> str:
    for M, r, tolerance in _matrices():
        sigma = np.linalg.svd(M, compute_uv=False)
        squares = sigma**2
        lost = squares[r:].sum()
        mistakes = {
            "that is what rank r keeps; the error is what it loses": squares[:r].sum(),
            "the singular values must be squared before they are summed": sigma[r:].sum(),
            "that is the length of the error; here its square is asked for": np.sqrt(lost),
            "that leaves out one value too many: Python counts from 0": squares[r + 1 :].sum(),
            "that has one value too many: Python counts from 0": squares[r - 1 :].sum(),
            "that is the first value that is lost, and there are more": squares[r],
            "that is a share of the whole; leave it undivided": lost / squares.sum(),
            "that is the mean over the entries; the sum is asked for": lost / M.size,
            "that is the whole of M, as if nothing were kept": squares.sum(),
            "keep r directions, not r columns": np.sum(M[:, r:] ** 2),
        }
        got = yours(M.copy(), r)
        yours.compare(f"error for {yours.inputs}", got, lost, mistakes, tolerance)
    return "No matrix of rank r comes closer, whatever training finds."


@exercise(
    hints=(
        "`U, sigma, Vt = np.linalg.svd(M, full_matrices=False)`. Which columns of U and which rows "
        "of Vt does the nearest matrix of rank r use, and where can its singular values go?",
        "First find A and B for s = 1. The layer multiplies their product by s: what must you do "
        "to one of the two, and to one only?",
    )
)
def best_adapter(yours: Yours) -> str:
    for M, r, tolerance in _matrices():
        alpha = 2 * r + 1
        s = alpha / r
        U, sigma, Vt = np.linalg.svd(M, full_matrices=False)
        top, bottom = slice(None, r), slice(-r, None)
        best = (U[:, top] * sigma[top]) @ Vt[top]
        squared, weakest = (
            (U[:, part] * strength) @ Vt[part]
            for part, strength in ((top, sigma[top] ** 2), (bottom, sigma[bottom]))
        )
        mistakes = {
            "A B is the nearest matrix, but the layer adds s A B: divide by s": s * best,
            "that multiplies by s once more; divide by it": s * s * best,
            "s is alpha / r, not alpha": best / r,
            "s is divided out of both A and B; once is enough": best / s,
            "the singular values are missing: they belong into A or into B": U[:, top] @ Vt[top],
            "each singular value must come in once, in A or in B": squared,
            "that has the smallest singular values; the largest come first": weakest,
        }
        A, B = map(as_array, unpack(yours(M.copy(), r, alpha), "A, B"))
        require(A is not None and B is not None, "A and B should be matrices of numbers")
        assert A is not None and B is not None
        shapes = {"A": (M.shape[0], r), "B": (r, M.shape[1])}
        require((B.shape, A.shape) != tuple(shapes.values()), "that is B, A; return A, B")
        for name, factor in (("A", A), ("B", B)):
            seen = f"your {name} has the shape {factor.shape} for {yours.inputs}; expected "
            seen += f"{shapes[name]}"
            require(factor.shape != shapes[name][::-1], f"{seen}, the transpose")
            why = "NumPy gives V transposed: its directions are the rows of Vt"
            require(name == "A" or factor.shape != (r, M.shape[0]), f"{seen}: {why}")
            require(factor.shape == shapes[name], seen)
        yours.compare(f"s A B for {yours.inputs}", s * A @ B, best, mistakes, tolerance)
    return "That is what LoRA would learn, if it knew the goal and took one look at it."


@exercise(
    hints=(
        "How far did full fine-tuning come from the base model, and how far LoRA?",
        "Take both differences from `base`, in the same order. Which of the two is the whole?",
    )
)
def share_of_gain(yours: Yours) -> str:
    for base, full, lora in (
        (3.0, 1.5, 1.75),
        (0.125, 0.875, 0.75),
        (3.0, 2.0, 1.5),
        (3, 2, 3.5),
        (0.25, 0.75, 0.125),
    ):
        share = (base - lora) / (base - full)
        mistakes = {
            "start from the base model, and see how much better each of the two is": lora / full,
            "that is upside down": (base - full) / (base - lora),
            "that is the share that LoRA is short of": (lora - full) / (base - full),
            "that is the gain in units of the base, not of full's gain": (base - lora) / base,
            "that is the gain in units of full's quality, not of its gain": (base - lora) / full,
            "that is the gain itself; it is asked for as a share of full's": base - lora,
            "take both differences in the same order": -share,
            "the signs tell whether LoRA is better or worse than the base": abs(share),
            "that is in per cent; leave it as a share": 100 * share,
            "LoRA may do better than full fine-tuning: do not cut it off at 1": min(1, share),
            "LoRA may do worse than the base: do not cut it off at 0": max(0, share),
            "LoRA may do better than full fine-tuning, or worse than the base: do not cut it off "
            "at 0 and 1": min(1, max(0, share)),
        }
        got = yours(base, full, lora)
        yours.compare(f"share for {yours.inputs}", got, share, mistakes)
    return "It is the same for losses and for accuracies, since both signs change."


_SWEEP = {  # in no order; full fine-tuning has 1.00, 1.03, 1.06, and the tolerance is 0.1
    16: [1.05, 1.07, 1.06],
    1: [1.30, 1.01, 1.20],
    8: [1.08, 1.05, 1.07],
    2: [1.04, 1.35, 1.03],
    32: [1.01, 1.02, 1.00],
    6: [1.12, 1.11, 1.12],
    4: [1.15, 1.14, 1.14],
    64: [1.06, 1.04, 1.15],
    3: [1.17, 1.06, 1.06],
    48: [1.06, 1.05, 1.07],
}


def _smallest(
    losses: dict[int, list[float]], of: Callable[[list[float]], float], limit: float
) -> int:
    return min((r for r in losses if of(losses[r]) <= limit), default=0)


@exercise(
    hints=(
        "The limit is full's best seed, the lowest loss, plus the tolerance. A rank is good enough "
        "if its worst seed is within it.",
        "The worst seed of rank r is `max(losses[r])`. Collect the ranks that are good enough. "
        "`min` of nothing is an error, unless it is told a `default`.",
    )
)
def smallest_rank(yours: Yours) -> str:
    too_high = {5: [1.50, 1.40], 3: [1.30, 1.20]}
    better = {  # than full fine-tuning, whose best seed is 2.0: the limit is 2.25
        32: [1.90, 2.00, 1.95, 1.90], 16: [1.20, 1.30, 1.25, 1.20], 1: [2.55, 2.20, 2.10, 2.20],
        6: [2.30, 2.10, 2.20, 2.30], 2: [2.40, 2.30, 2.20, 2.30], 8: [2.10, 2.20, 2.15, 2.10],
        3: [2.00, 2.00, 2.00, 2.30], 4: [1.60, 1.70, 1.65, 1.60],
    }  # fmt: skip
    edge = {2: [1.5, 1.25], 4: [1.25, 1.0], 8: [1.0, 1.125]}  # binary fractions: no rounding
    for losses, full, tolerance in (
        (_SWEEP, [1.03, 1.00, 1.06], 0.1),
        (too_high, [1.03, 1.00, 1.06], 0.1),
        (edge, [1.0, 1.125], 0.25),
        (better, [2.4, 2.0], 0.25),
    ):
        limit = min(full) + tolerance
        good = [r for r in losses if max(losses[r]) <= limit]
        expected = min(good, default=0)
        mistakes = {
            "that rank is good with its best seed only; look at its worst": _smallest(
                losses, min, limit
            ),
            "that rank is good on average only; look at its worst seed": _smallest(
                losses, mean, limit
            ),
            "compare with full's best seed, not with its worst": _smallest(
                losses, max, max(full) + tolerance
            ),
            "compare with full's best seed, not with its mean": _smallest(
                losses, max, mean(full) + tolerance
            ),
            "the tolerance is added to the loss, it is not a share of it": _smallest(
                losses, max, min(full) * (1 + tolerance)
            ),
            "no rank is good enough here, and then the answer is 0": expected or max(losses),
            "a rank that is just at the limit is good enough": min(
                (r for r in losses if max(losses[r]) < limit), default=0
            ),
            "that is the first in the dictionary, whose ranks are in no order": next(iter(good), 0),
            "that is the largest that is good enough": max(good, default=0),
            "that is the best rank; a smaller one is good enough": min(
                losses, key=lambda r: mean(losses[r])
            ),
        }
        got = yours({r: list(values) for r, values in losses.items()}, list(full), tolerance)
        what = f"rank for {len(losses)} ranks, limit {min(full):g} + {tolerance:g}"
        yours.compare(what, got, expected, mistakes)
    return "What is good with one seed may be luck; what its worst seed does, you can rely on."


def _zero_of_line(ranks: list[int], losses: list[float]) -> float:
    slope, start = np.polyfit(ranks, losses, 1)
    return float(-start / slope)


@exercise(
    hints=(
        "Below k the losses lie on a line, (k - r) times a constant, and it meets zero at r = k. "
        "Losses below 1e-6 are zero but for rounding: they are not on that line.",
        "Leave those out. `slope, start = np.polyfit(x, y, 1)` fits the line y = slope x + start "
        "to the others. At which x is it zero?",
    )
)
def predict_knee(yours: Yours) -> str:
    c = 1 / 64
    for losses in (
        {2: 9.85 * c, 4: 7.9 * c, 7: 4.85 * c, 16: 4e-9, 32: 2e-8},  # k = 12
        {2: 0.1825, 4: 0.1575, 8: 0.1180, 14: 0.0590, 32: 3e-9},  # k = 20
        {24: 2e-9, 6: 0.31, 1: 0.797, 3: 0.612, 48: 1e-9},  # k = 9
        {20: 1e-9, 5: 8.8e-6, 1: 2.6e-5},  # k = 7
    ):
        below = {r: loss for r, loss in losses.items() if loss > 1e-6}
        ranks, heights = list(below), list(below.values())
        exact = _zero_of_line(ranks, heights)
        expected = round(exact)
        zeros = [r for r in losses if r not in below]
        log_slope, log_start = np.polyfit(ranks, np.log(heights), 1)
        mistakes = {
            "losses of zero lie beyond the knee, not on the line: leave them out": round(
                _zero_of_line(list(losses), list(losses.values()))
            ),
            "that is the first rank tried that is large enough; k may lie before it": min(zeros),
            "that is the last rank tried that is too small; k lies beyond it": max(ranks),
            "k need not be the next rank after those that are too small": max(ranks) + 1,
            "k need not be in the middle between the two": round((max(ranks) + min(zeros)) / 2),
            "the ranks are not one apart: the line is over r, not over 0, 1, 2 and so on": round(
                _zero_of_line(list(range(len(heights))), heights)
            ),
            "that uses two points, and each is off a little: fit a line to all": round(
                _zero_of_line(ranks[:2], heights[:2])
            ),
            "the losses themselves lie on a line, not their logarithms": round(
                (np.log(1e-6) - log_start) / log_slope
            ),
            "a rank is a whole number: round it": exact,
            "round to the nearest, not down": int(exact),
            "round to the nearest, not up": int(np.ceil(exact)),
        }
        got = yours(dict(losses))
        tried = ", ".join(f"{r}: {loss:.3g}" for r, loss in losses.items())
        yours.compare(f"rank for the losses {tried}", got, expected, mistakes)
    return "A few ranks that are too small tell which one is enough, if the spectrum is flat."
