"""Answers to lesson 06's exercises: right ones in other styles, and wrong ones with their reasons.

See test_check.py for what the tables mean.
"""

from fractions import Fraction
from statistics import mean, median
from typing import Any

import numpy as np

import minilora as ml


def _sigma(M):
    return np.linalg.svd(M, compute_uv=False)


def _nearest(M, r):
    U, sigma, Vt = np.linalg.svd(M, full_matrices=False)
    return (U[:, :r] * sigma[:r]) @ Vt[:r]


def _by_deflation(M, r):
    rest = np.array(M, np.float64)
    for _ in range(r):
        U, sigma, Vt = np.linalg.svd(rest)
        rest = rest - sigma[0] * np.outer(U[:, 0], Vt[0])
    return np.sum(rest**2)


def _by_eigenvalues(M, r):
    M = M.astype(np.float64)
    gram = M @ M.T if M.shape[0] < M.shape[1] else M.T @ M
    return float(np.linalg.eigvalsh(gram)[: len(gram) - r].sum())


def _adapter(M, r, factor, power=1):
    U, sigma, Vt = np.linalg.svd(M, full_matrices=False)
    return U[:, :r] * sigma[:r] ** power, Vt[:r] * factor


def _adapter_in_halves(M, r, alpha):
    U, sigma, Vt = np.linalg.svd(M, full_matrices=False)
    half = np.sqrt(sigma[:r] * r / alpha)
    return [U[:, :r] * half, half[:, None] * Vt[:r]]


def _adapter_by_eigenvectors(M, r, alpha):
    M = M.astype(np.float64)
    V = np.linalg.eigh(M.T @ M)[1][:, ::-1][:, :r]
    return M @ V, V.T * (r / alpha)


def _adapter_mixed(M, r, alpha):
    """Another pair of factors with the same product: A C and C⁻¹ B."""
    A, B = _adapter(M, r, r / alpha)
    C = np.triu(np.ones((r, r))) + np.eye(r)
    return A @ C, np.linalg.solve(C, B)


def _adapter_of_lists(M, r, alpha):
    A, B = _adapter(M, r, r / alpha)
    return A.tolist(), B.tolist()


def _adapter_of_tensors(M, r, alpha):
    A, B = _adapter(M.astype(np.float64), r, r / alpha)
    return ml.Tensor(A), ml.Tensor(B)


def _adapter_by_power(M, r, alpha):
    """Subspace iteration: M' M, again and again, from random directions."""
    M = M.astype(np.float64)
    V = np.random.default_rng(0).standard_normal((M.shape[1], r))
    for _ in range(2000):
        V = np.linalg.qr(M.T @ (M @ V))[0]
    return M @ V * (r / alpha), V.T


def _wrong_side(M, r, alpha):
    U, sigma, Vt = np.linalg.svd(M, full_matrices=False)
    return U[:, :r] * sigma[:r], Vt[:, :r].T * r / alpha


def _weakest(M, r, alpha):
    U, sigma, Vt = np.linalg.svd(M, full_matrices=False)
    return U[:, -r:] * sigma[-r:], Vt[-r:] * r / alpha


def _by_qr(M, r, alpha):
    Q, R = np.linalg.qr(M)
    return Q[:, :r], R[:r] * r / alpha


def _first_rows(M, r, alpha):
    A = np.zeros((len(M), r))
    A[:r] = np.eye(r)
    return A, M[:r] * r / alpha


def _projected(M, r, alpha):
    """The best A for a random B: what one has who trains A alone."""
    B = np.random.default_rng(0).standard_normal((r, M.shape[1]))
    return M @ np.linalg.pinv(B) * r / alpha, B


def _all_ranks(M, r, alpha):
    U, sigma, Vt = np.linalg.svd(M, full_matrices=False)
    return U * sigma, Vt * r / alpha


def _gain_in_steps(base, full, lora):
    whole, part = full - base, lora - base
    return part / whole


def _line(base, full):
    """Points of the line through (base, 0) and (full, 1), far enough out, in rising order."""
    ends = [base + far * (full - base) for far in (-9, 9)]
    return (ends, [-9, 9]) if ends[0] < ends[1] else (ends[::-1], [9, -9])


def _smallest(losses, of, limit, default=0):
    return min((r for r in losses if of(losses[r]) <= limit), default=default)


def _smallest_in_order(losses, full, tolerance):
    for r in sorted(losses):
        if all(loss <= sorted(full)[0] + tolerance for loss in losses[r]):
            return r
    return 0


def _smallest_by_arrays(losses, full, tolerance):
    ranks = np.array(list(losses))
    worst = np.array(list(losses.values())).max(axis=1)
    good = ranks[worst <= np.min(full) + tolerance]
    return good.min() if good.size else 0


def _smallest_by_a_loop(losses, full, tolerance):
    best = None
    for r, values in losses.items():
        if max(values) <= min(full) + tolerance and (best is None or r < best):
            best = r
    return 0 if best is None else best


def _up_to_the_first_bad(losses, full, tolerance):
    """The lowest rank from which on, upwards, all are good enough."""
    smallest = 0
    for r in sorted(losses, reverse=True):
        if max(losses[r]) > min(full) + tolerance:
            break
        smallest = r
    return smallest


def _zero(ranks, losses):
    slope, start = np.polyfit(ranks, losses, 1)
    return -start / slope


def _below(losses, least=1e-6):
    return {r: loss for r, loss in losses.items() if loss > least}


def _knee_by_normal_equations(losses):
    r = np.array([r for r in losses if losses[r] >= 1e-6], float)
    y = np.array([losses[int(one)] for one in r])
    slope = np.sum((r - r.mean()) * (y - y.mean())) / np.sum((r - r.mean()) ** 2)
    return int(np.rint(r.mean() - y.mean() / slope))


def _knee_by_trial(losses):
    """The k for which (k - r) times one constant fits best."""
    ranks, heights = (
        np.array(list(part), float) for part in zip(*_below(losses).items(), strict=True)
    )

    def miss(k):
        c = np.sum(heights * (k - ranks)) / np.sum((k - ranks) ** 2)
        return np.sum((heights - c * (k - ranks)) ** 2)

    return min(range(int(ranks.max()) + 1, 65), key=miss)


def _knee_by_lstsq(losses):
    below = _below(losses)
    design = np.array([[1, r] for r in below])
    (start, slope), *_ = np.linalg.lstsq(design, np.array(list(below.values())), rcond=None)
    return np.round(-start / slope)


def _knee_from_the_outermost(losses):
    below = sorted(_below(losses).items())
    (r0, y0), (r1, y1) = below[0], below[-1]
    return round(r0 + y0 * (r1 - r0) / (y0 - y1))


def _knee_the_other_way(losses):
    below = _below(losses)
    return round(np.polyfit(list(below.values()), list(below), 1)[1])


RIGHT: dict[str, list[Any]] = {
    "best_rank_error": [
        lambda M, r: np.linalg.norm(M - _nearest(M, r)) ** 2,
        lambda matrix, rank: float(sum(s * s for s in _sigma(matrix)[rank:])),
        _by_deflation,
        _by_eigenvalues,
        lambda M, r: np.linalg.norm(M) ** 2 - np.linalg.norm(_nearest(M, r)) ** 2,
        lambda M, r: ml.Tensor(np.sum(_sigma(M)[r:] ** 2)),
        lambda M, r: np.sort(np.square(_sigma(M)))[: min(M.shape) - r].sum(),
    ],
    "best_adapter": [
        lambda M, r, alpha: _adapter(M, r, r / alpha),
        _adapter_in_halves,
        _adapter_by_eigenvectors,
        _adapter_mixed,
        _adapter_of_lists,
        _adapter_of_tensors,
        _adapter_by_power,
    ],
    "share_of_gain": [
        _gain_in_steps,
        lambda base, full, lora: 1 - (lora - full) / (base - full),
        lambda b, f, a: np.float32((b - a) / (b - f)),
        lambda base, full, lora: Fraction(base - lora) / Fraction(base - full),
        lambda base, full, lora: np.interp(lora, *_line(base, full)),
        lambda *x: np.subtract(x[0], x[2]) / np.subtract(x[0], x[1]),
    ],
    "smallest_rank": [
        _smallest_in_order,
        _smallest_by_arrays,
        _smallest_by_a_loop,
        lambda x, f, t: next((r for r in sorted(x) if max(x[r]) - min(f) <= t), 0),
        lambda x, f, t: float(min([r for r in x if max(x[r]) <= min(f) + t] or [0])),
    ],
    "predict_knee": [
        _knee_by_normal_equations,
        _knee_by_trial,
        _knee_by_lstsq,
        _knee_from_the_outermost,
        _knee_the_other_way,
        lambda losses: float(round(_zero(list(_below(losses)), list(_below(losses).values())))),
    ],
}  # fmt: skip


WRONG: dict[str, list[tuple[Any, str | None]]] = {
    "best_rank_error": [
        (lambda M, r: (_sigma(M)[:r] ** 2).sum(), "that is what rank r keeps"),
        (lambda M, r: _sigma(M)[r:].sum(), "must be squared"),
        (lambda M, r: (_sigma(M)[r:] ** 2).sum() ** 0.5, "the length of the error"),
        (lambda M, r: (_sigma(M)[r + 1 :] ** 2).sum(), "leaves out one value too many"),
        (lambda M, r: (_sigma(M)[r - 1 :] ** 2).sum(), "has one value too many"),
        (lambda M, r: _sigma(M)[r] ** 2, "the first value that is lost"),
        (lambda M, r: (_sigma(M)[r:] ** 2).sum() / (M**2).sum(), "leave it undivided"),
        (lambda M, r: np.mean((M - _nearest(M, r)) ** 2), "the mean over the entries"),
        (lambda M, r: (M**2).sum(), "as if nothing were kept"),
        (lambda M, r: np.sum(M[:, r:] ** 2), "not r columns"),
        (lambda M, r: np.linalg.eigvals(M)[r:].sum(), "raised LinAlgError"),
        (lambda M, r: _sigma(M)[r:] ** 2, "an array of shape (2,); expected a number"),
        (lambda M, r: np.sum((M - _by_qr(M, r, r)[0] @ _by_qr(M, r, r)[1]) ** 2), None),
        (lambda M, r: np.sum(np.sort(np.abs(M).ravel())[: M.size - r] ** 2), None),
        (lambda M, r: np.sum(np.abs(M - _nearest(M, r))), None),
        (lambda M, r: np.sum(np.diag(M @ M.T)[r:]), None),
        (lambda M, r: 2.59, None),
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
            "A has the shape (3, 5) for M (5, 7), r=3, alpha=7; expected (5, 3), the transpose",
        ),
        (lambda M, r, alpha: np.matmul(*_adapter(M, r, r / alpha)), "expected 2 values"),
        (lambda M, r, alpha: _adapter(M, r + 1, r / alpha), "has the shape (5, 4) for M (5, 7)"),
        (_all_ranks, "A has the shape (5, 5) for M (5, 7)"),
        (_by_qr, None),
        (_first_rows, None),
        (_projected, None),
        (lambda M, r, alpha: (np.ones((len(M), r)), np.zeros((r, M.shape[1]))), None),
        (lambda M, r, alpha: (M[:, :r], np.eye(r, M.shape[1]) * r / alpha), None),
    ],
    "share_of_gain": [
        (lambda base, full, lora: lora / full, "start from the base model"),
        (lambda base, full, lora: (base - full) / (base - lora), "upside down"),
        (lambda base, full, lora: (lora - full) / (base - full), "is short of"),
        (lambda base, full, lora: (base - lora) / base, "in units of the base"),
        (lambda base, full, lora: (base - lora) / full, "in units of full's quality"),
        (lambda base, full, lora: base - lora, "that is the gain itself"),
        (lambda base, full, lora: (lora - base) / (base - full), "in the same order"),
        (lambda base, full, lora: abs(base - lora) / abs(base - full), "the signs tell"),
        (lambda base, full, lora: 100 * (base - lora) / (base - full), "in per cent"),
        (lambda base, full, lora: min(1, (base - lora) / (base - full)), "cut it off at 1"),
        (lambda base, full, lora: max(0, (base - lora) / (base - full)), "LoRA may do worse"),
        (
            lambda base, full, lora: np.clip((base - lora) / (base - full), 0, 1),
            "do not cut it off at 0 and 1",
        ),
        (lambda base, full, lora: full / lora, None),
        (lambda base, full, lora: (base / lora - 1) / (base / full - 1), None),
        (lambda base, full, lora: np.log(base / lora) / np.log(base / full), None),
        (lambda base, full, lora: (base - lora) / max(base - full, 1), None),
        (lambda base, full, lora: round((base - lora) / (base - full), 1), None),
    ],
    "smallest_rank": [
        (lambda losses, full, t: _smallest(losses, max, min(full) * (1 + t)), "not a share of it"),
        (lambda losses, full, t: _smallest(losses, lambda x: abs(max(x) - min(full)), t), None),
        (lambda losses, full, t: _smallest(losses, lambda x: mean(x) + 0.1, min(full) + t), None),
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
        (lambda losses, full, t: _smallest(losses, median, min(full) + t), None),
        (lambda losses, full, t: _smallest(losses, lambda x: x[-1], min(full) + t), None),
        (lambda losses, full, t: _smallest(losses, max, min(full) * (1 + t) + t), None),
        (lambda losses, full, t: _smallest(losses, lambda x: abs(max(x) - min(full)), t / 2), None),
        (_up_to_the_first_bad, None),
        (lambda losses, full, t: min(losses), None),
    ],
    "predict_knee": [
        (lambda losses: round(_zero(list(losses), list(losses.values()))), "leave them out"),
        (lambda losses: min(r for r in losses if losses[r] < 1e-6), "k may lie before it"),
        (lambda losses: max(_below(losses)), "k lies beyond it"),
        (lambda losses: max(_below(losses)) + 1, "k need not be the next rank"),
        (
            lambda losses: round(
                (max(_below(losses)) + min(r for r in losses if losses[r] < 1e-6)) / 2
            ),
            "in the middle between",
        ),
        (
            lambda losses: round(_zero(range(len(_below(losses))), list(_below(losses).values()))),
            "not one apart",
        ),
        (
            lambda losses: round(
                _zero(list(_below(losses))[:2], list(_below(losses).values())[:2])
            ),
            "each is off a little",
        ),
        (
            lambda losses: float(_zero(list(_below(losses)), list(_below(losses).values()))),
            "is a whole number",
        ),
        (
            lambda losses: int(_zero(list(_below(losses)), list(_below(losses).values()))),
            "not down",
        ),
        (
            lambda losses: int(
                np.ceil(_zero(list(_below(losses)), list(_below(losses).values())))
            ),
            "not up",
        ),
        (lambda losses: len(losses), None),
        (lambda losses: min(losses), None),
        (lambda losses: round(mean(losses)), None),
        (lambda losses: round(max(losses.values()) * 64), None),
        (
            lambda losses: round(
                _zero(list(_below(losses, 1e-4)), list(_below(losses, 1e-4).values()))
            ),
            "raised TypeError",
        ),
        (lambda losses: round(2 * mean(_below(losses))), None),
    ],
}  # fmt: skip

EQUIVALENT = {
    "best_adapter": {
        "line 5: False -> True": "the columns of U beyond the singular values are not used"
    },
    "predict_knee": {"line 3: loss > 1e-06 -> loss >= 1e-06": "no loss is exactly 1e-6"},
}
