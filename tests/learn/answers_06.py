"""Wrong solutions of lesson 06's exercises, with words of the diagnosis that each must get."""

from collections.abc import Callable
from statistics import mean
from typing import Any

import numpy as np

Answer = tuple[Callable[..., Any], str]


def _sigma(M):
    return np.linalg.svd(M, compute_uv=False)


def _adapter(M, r, factor, power=1):
    U, sigma, Vt = np.linalg.svd(M, full_matrices=False)
    return U[:, :r] * sigma[:r] ** power, Vt[:r] * factor


def _wrong_side(M, r, alpha):
    U, sigma, Vt = np.linalg.svd(M, full_matrices=False)
    return U[:, :r] * sigma[:r], Vt[:, :r].T * r / alpha


def _weakest(M, r, alpha):
    U, sigma, Vt = np.linalg.svd(M, full_matrices=False)
    return U[:, -r:] * sigma[-r:], Vt[-r:] * r / alpha


def _smallest(losses, of, limit, default=0):
    return min((r for r in losses if of(losses[r]) <= limit), default=default)


def _zero(ranks, losses):
    slope, start = np.polyfit(ranks, losses, 1)
    return -start / slope


def _below(losses):
    return {r: loss for r, loss in losses.items() if loss > 1e-6}


WRONG: dict[str, list[Answer]] = {
    "best_rank_error": [
        (lambda M, r: (_sigma(M)[:r] ** 2).sum(), "that is what rank r keeps"),
        (lambda M, r: _sigma(M)[r:].sum(), "must be squared"),
        (lambda M, r: (_sigma(M)[r:] ** 2).sum() ** 0.5, "the length of the error"),
        (lambda M, r: (_sigma(M)[r + 1 :] ** 2).sum(), "leaves out one value too many"),
        (lambda M, r: (_sigma(M)[r - 1 :] ** 2).sum(), "has one value too many"),
        (lambda M, r: _sigma(M)[r] ** 2, "the first value that is lost"),
        (lambda M, r: (_sigma(M)[r:] ** 2).sum() / (M**2).sum(), "leave it undivided"),
        (lambda M, r: (M**2).sum(), "as if nothing were kept"),
        (lambda M, r: np.linalg.eigvals(M)[r:].sum(), "raised LinAlgError"),
        (lambda M, r: _sigma(M)[r:] ** 2, "an array of shape (2,); expected a number"),
    ],
    "best_adapter": [
        (lambda M, r, alpha: _adapter(M, r, 1), "the layer adds s A B: divide by s"),
        (lambda M, r, alpha: _adapter(M, r, alpha / r), "multiplies by s once more"),
        (lambda M, r, alpha: _adapter(M, r, 1 / alpha), "s is alpha / r, not alpha"),
        (
            lambda M, r, alpha: tuple(factor * r / alpha for factor in _adapter(M, r, 1)),
            "divided out of both A and B",
        ),
        (lambda M, r, alpha: _adapter(M, r, r / alpha, 0), "singular values are missing"),
        (lambda M, r, alpha: _adapter(M, r, r / alpha, 2), "must come in once"),
        (_weakest, "the smallest singular values"),
        (_wrong_side, "NumPy gives V transposed"),
        (lambda M, r, alpha: _adapter(M, r, r / alpha)[::-1], "that is B, A; return A, B"),
        (
            lambda M, r, alpha: tuple(factor.T for factor in _adapter(M, r, r / alpha)),
            "A has the shape (2, 6) for M (6, 4), r=2, alpha=5; expected (6, 2), the transpose",
        ),
        (lambda M, r, alpha: np.matmul(*_adapter(M, r, r / alpha)), "return two arrays"),
        (lambda M, r, alpha: _adapter(M, r + 1, r / alpha), "has the shape (6, 3) for M (6, 4)"),
    ],
    "share_of_gain": [
        (lambda base, full, lora: lora / full, "start from the base model"),
        (lambda base, full, lora: (base - full) / (base - lora), "upside down"),
        (lambda base, full, lora: (lora - full) / (base - full), "is short of"),
        (lambda base, full, lora: (base - lora) / base, "in units of the base"),
        (lambda base, full, lora: (lora - base) / (base - full), "in the same order"),
        (lambda base, full, lora: 100 * (base - lora) / (base - full), "in per cent"),
        (lambda base, full, lora: min(1, (base - lora) / (base - full)), "do not cut it off"),
    ],
    "smallest_rank": [
        (lambda losses, full, t: _smallest(losses, min, min(full) + t), "its best seed only"),
        (lambda losses, full, t: _smallest(losses, mean, min(full) + t), "on average only"),
        (lambda losses, full, t: _smallest(losses, max, max(full) + t), "not with its worst"),
        (lambda losses, full, t: _smallest(losses, max, mean(full) + t), "not with its mean"),
        (
            lambda losses, full, t: _smallest(losses, max, min(full) + t, max(losses)),
            "the answer is 0",
        ),
        (
            lambda losses, full, t: _smallest(losses, lambda x: max(x) + 1e-12, min(full) + t),
            "just at the limit",
        ),
        (
            lambda losses, full, t: next(
                (r for r in losses if max(losses[r]) <= min(full) + t), 0
            ),
            "the first in the dictionary",
        ),
        (
            lambda losses, full, t: max(
                (r for r in losses if max(losses[r]) <= min(full) + t), default=0
            ),
            "the largest that is good enough",
        ),
        (lambda losses, full, t: min(losses, key=lambda r: mean(losses[r])), "the best rank"),
    ],
    "predict_knee": [
        (lambda losses: round(_zero(list(losses), list(losses.values()))), "leave them out"),
        (lambda losses: min(r for r in losses if losses[r] < 1e-6), "k may lie before it"),
        (lambda losses: max(_below(losses)), "k lies beyond it"),
        (lambda losses: max(_below(losses)) + 1, "k need not be the next rank"),
        (
            lambda losses: round(_zero(range(len(_below(losses))), list(_below(losses).values()))),
            "not one apart",
        ),
        (
            lambda losses: round(_zero(list(losses)[:2], list(losses.values())[:2])),
            "each is off a little",
        ),
        (
            lambda losses: float(_zero(list(_below(losses)), list(_below(losses).values()))),
            "is a whole number",
        ),
        (
            lambda losses: int(
                1e-9 + _zero(list(_below(losses)), list(_below(losses).values()))
            ),
            "not down",
        ),
    ],
}  # fmt: skip
