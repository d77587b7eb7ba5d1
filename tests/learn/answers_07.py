"""Answers to lesson 07's exercises: right ones in other styles, and wrong ones with their reasons.

See test_check.py for what the tables mean.
"""

import itertools
import math
from typing import Any

import numpy as np

import minilora as ml
from minilora import analysis


def _entropy(S, log=np.log):
    p = S[S > 0] / S.sum()
    return -np.sum(p * log(p))


@np.errstate(all="ignore")
def _with_zeros(S):
    p = S / S.sum()
    return np.exp(-np.sum(p * np.log(p)))


@np.errstate(all="ignore")
def _zeros_mended(S):
    p = S / S.sum()
    return np.exp(-np.nansum(p * np.log(p)))


def _effective_by_a_loop(values):
    whole, entropy = sum(values), 0.0
    for value in values:
        if value != 0:
            entropy -= value / whole * math.log(value / whole)
    return math.e**entropy


def _undivided(S):
    S = S[S > 0]
    return np.exp(-np.sum(S * np.log(S)))


def _reach(held, share=0.9):
    return int(np.argmax(held >= share * held[-1])) + 1


def _more_than_90(S):
    held = np.cumsum(S**2)
    return int(np.argmax(held > 0.9 * held[-1])) + 1


def _k90_by_a_loop(S):
    held, k = 0.0, 0
    while held < 0.9 * sum(s * s for s in S):
        held += S[k] ** 2
        k += 1
    return k


def _svd(M):
    return np.linalg.svd(np.asarray(M, np.float64), full_matrices=False)


def _cut(M, k, part):
    U, S, Vt = _svd(M)
    return (U[:, part(k)] * S[part(k)]) @ Vt[part(k)]


def _truncate_by_a_sum(M, k):
    U, S, Vt = _svd(M)
    result = np.zeros(M.shape)
    for i in range(k):
        result = result + S[i] * np.outer(U[:, i], Vt[i])
    return result


def _truncate_by_projection(M, k):
    M = M.astype(np.float64)
    V = np.linalg.eigh(M.T @ M)[1][:, ::-1][:, :k]
    return M @ V @ V.T


def _truncate_by_deflation(M, k):
    rest = M.astype(np.float64)
    for _ in range(k):
        U, S, Vt = np.linalg.svd(rest)
        rest = rest - S[0] * np.outer(U[:, 0], Vt[0])
    return M - rest


def _truncate_with_zeros(M, k):
    U, S, Vt = _svd(M)
    S[k:] = 0
    return U @ np.diag(S) @ Vt


def _columns_of_vt(M, k):
    U, S, Vt = _svd(M)
    return (U[:, :k] * S[:k]) @ Vt[:, :k].T


def _strongest_columns(M, k):
    keep = np.argsort(-np.linalg.norm(M, axis=0))[:k]
    return np.where(np.isin(np.arange(M.shape[1]), keep), M, 0)


def _largest_entries(M, k):
    least = np.sort(np.abs(M).ravel())[::-1][k * M.shape[1] - 1] if k else np.inf
    return np.where(np.abs(M) >= least, M, 0)


def _by_qr(M, k):
    Q, R = np.linalg.qr(M)
    return Q[:, :k] @ R[:k]


def _few(U, V):
    return min(U.shape[1], V.shape[1])


def _squared(U, V):
    return np.sum((U.T @ V) ** 2)


def _similarity_by_loops(U, V):
    total = 0.0
    for u, v in itertools.product(U.T, V.T):
        total += float(u @ v) ** 2
    return total / _few(U, V)


def _cosines(W, W_after, side=2):
    """|cosines| of W's output (side 2) or input (side 0) directions with those of W_after."""
    ours, theirs = (M if side == 2 else M.T for M in (_svd(W)[side], _svd(W_after)[side]))
    return np.abs(ours @ theirs.T)


def _signed(W, W_after, k, epsilon):
    cosines = _svd(W)[2] @ _svd(W_after)[2].T
    return np.sum(cosines.max(axis=0)[:k] < epsilon)


def _intruders_by_loops(W, W_after, k, epsilon):
    ours, theirs = np.linalg.svd(W)[2], np.linalg.svd(W_after)[2]
    found = 0
    for direction in theirs[:k]:
        if all(abs(float(direction @ old)) < epsilon for old in ours):
            found += 1
    return found


def _intruders_by_eigenvectors(W, W_after, k, epsilon):
    V, V_after = (np.linalg.eigh(M.T @ M)[1][:, ::-1] for M in (W, W_after))
    return np.count_nonzero(np.abs(V.T @ V_after[:, :k]).max(axis=0) < epsilon)


def _new_on_sides(W, W_after, epsilon):
    """Of input and of output directions, which are new."""
    return np.array([_cosines(W, W_after, side).max(axis=0) < epsilon for side in (0, 2)])


def _in_subspace(W, W_after, k, epsilon):
    """By how much of a direction lies in the space of W's top k, all together."""
    inside = _cosines(W, W_after)[:k, :k]
    return np.sum(np.sqrt(np.sum(inside**2, axis=0)) < epsilon)


EPS = np.finfo(np.float32).eps


def _how(
    pick=max,
    limit=min,
    tolerance=lambda W, S: EPS * np.linalg.norm(W),
    is_full=lambda rank, highest: rank >= highest,
):
    """A solution of tuned_how, with one of its choices made otherwise."""

    def tuned_how(before, after):
        ranks, full = [], False
        for name, W in after.items():
            S = np.linalg.svd(W.astype(float) - before[name], compute_uv=False)
            ranks.append(int(np.sum(tolerance(W, S) < S)))
            full = full or is_full(ranks[-1], limit(W.shape))
        return "full" if full else "LoRA", pick(ranks)

    return tuned_how


def _how_in_pieces(before, after):
    ranks, highest = {}, {}
    for name in before:
        new = np.asarray(after[name], dtype=np.longdouble).astype(np.float64)
        D = new - before[name].astype(np.float64)
        ranks[name] = np.linalg.matrix_rank(D, tol=EPS * np.sqrt(np.sum(new**2)))
        highest[name] = min(D.shape)
    full = any(ranks[name] == highest[name] for name in ranks)
    return ["full" if full else "LoRA", max(ranks.values())]


def _how_by_eigenvalues(before, after):
    """The squares of the singular values are eigenvalues; they need the noise to be small."""
    best, method = 0, "lora"
    for W, X in zip(before.values(), after.values(), strict=True):
        D = X.astype(np.float64) - W.astype(np.float64)
        D = D.T if D.shape[0] > D.shape[1] else D
        count = int((np.linalg.eigvalsh(D @ D.T) > (EPS * np.linalg.norm(X)) ** 2).sum())
        best, method = max(best, count), "FULL" if count == len(D) else method
    return method, best


def _how_by_counting_entries(before, after):
    changed = max(int(np.sum(before[name] != W)) for name, W in after.items())
    return ("full" if changed == max(W.size for W in after.values()) else "LoRA"), changed


def _how_by_qr(before, after):
    ranks, full = [], False
    for name, W in after.items():
        R = np.linalg.qr(W.astype(float) - before[name])[1]
        ranks.append(int(np.sum(np.abs(np.diag(R)) > EPS * np.linalg.norm(W))))
        full = full or ranks[-1] == min(W.shape)
    return "full" if full else "LoRA", max(ranks)


def _how_by_effective_rank(before, after):
    changes = [W.astype(float) - before[name] for name, W in after.items()]
    rank = max(round(analysis.effective_rank(D)) for D in changes)
    return ("full" if rank >= min(changes[0].shape) / 2 else "LoRA"), rank


RIGHT: dict[str, list[Any]] = {
    "effective_rank": [
        _effective_by_a_loop,
        _zeros_mended,
        lambda S: 2 ** _entropy(S, np.log2),
        lambda S: analysis.effective_rank(np.diag(S)),
        lambda S: ml.Tensor(np.exp(_entropy(S))),
        lambda S: np.prod([(s / S.sum()) ** (-s / S.sum()) for s in S if s]),
        lambda S: np.float32(np.exp(np.log(S.sum()) - np.sum(S * np.log(S + (S == 0))) / S.sum())),
    ],
    "k90": [
        _k90_by_a_loop,
        lambda S: analysis.k90(np.diag(S)),
        lambda S: next(k for k in range(len(S) + 1) if np.sum(S[k:] ** 2) <= 0.1 * np.sum(S**2)),
        lambda S: int(np.searchsorted(np.cumsum(S**2), 0.9 * np.sum(S**2))) + 1,
        lambda S: np.sum(np.cumsum(S**2) / np.sum(S**2) < 0.9) + 1,
        lambda S: float(_reach(np.cumsum(np.array(list(S)) ** 2))),
    ],
    "truncate": [
        lambda M, k: M - np.linalg.svd(M)[0][:, k:] @ (np.linalg.svd(M)[0][:, k:].T @ M),
        _truncate_by_a_sum,
        _truncate_by_projection,
        _truncate_by_deflation,
        _truncate_with_zeros,
        lambda M, k: analysis.truncate(M, k).tolist(),
        lambda M, k: ml.Tensor(_cut(M, k, slice)),
        lambda M, k: _cut(M.T, k, slice).T,
    ],
    "similarity": [
        _similarity_by_loops,
        lambda U, V: np.linalg.norm(U.T @ V) ** 2 / _few(U, V),
        lambda U, V: np.mean(np.sort(np.linalg.svd(V.T @ U)[1])[::-1][: _few(U, V)] ** 2),
        lambda U, V: np.trace(U @ U.T @ V @ V.T) / _few(U, V),
        lambda U, V: float(np.einsum("di,dj,ei,ej->", U, V, U, V)) / _few(U, V),
        lambda U, V: analysis.subspace_similarity(U, V),
        lambda U, V: 1 - np.sum((np.eye(len(U)) - U @ U.T) * (V @ V.T)) / V.shape[1]
        if V.shape[1] <= U.shape[1]
        else np.sum((U @ U.T) * (V @ V.T)) / U.shape[1],
    ],
    "intruders": [
        _intruders_by_loops,
        _intruders_by_eigenvectors,
        lambda W, W_after, k, epsilon: analysis.intruder_dimensions(W, W_after, k, epsilon),
        lambda W, X, k, e: np.sum(np.all(_cosines(W, X)[:, :k] < e, axis=0)),
        lambda W, X, k, e: k - len([c for c in _cosines(W, X).T[:k] if max(c) >= e]),
    ],
    "tuned_how": [
        _how_in_pieces,
        _how_by_eigenvalues,
        _how(),
        _how(tolerance=lambda W, S: EPS * np.sqrt(np.sum(W.astype(float) ** 2))),
        lambda b, a: list(_how()(b, a)),
        lambda b, a: (_how()(b, a)[0].upper(), np.int64(_how()(b, a)[1])),
    ],
}  # fmt: skip

WRONG: dict[str, list[tuple[Any, str | None]]] = {
    "effective_rank": [
        (lambda S: np.exp(_entropy(S[0.01 * S[0] < S])), None),
        (_entropy, "that is the entropy itself"),
        (lambda S: np.exp(-_entropy(S)), "minus sign"),
        (lambda S: np.exp(_entropy(S**2)), "shares of the squares"),
        (lambda S: int(np.sum(S > 0)), "that is the rank"),
        (lambda S: np.sum(S**2) / S[0] ** 2, "the stable rank"),
        (lambda S: S.sum() / S[0], "the sum of S by the largest"),
        (lambda S: S.sum() ** 2 / np.sum(S**2), "sum of p²"),
        (lambda S: np.exp(_entropy(S, np.log2)), "an entropy in log2"),
        (lambda S: 2 ** _entropy(S), "2 to the power of an entropy in log"),
        (_undivided, "divide S by its sum."),
        (lambda S: np.exp(-np.sum(S[S > 0] / S[0] * np.log(S[S > 0] / S[0]))), "by its largest"),
        (lambda S: np.exp(-np.mean(np.log(S[S > 0] / S.sum()))), "weighted by its p"),
        (_with_zeros, "leave the zeros out"),
        (lambda S: np.exp(_entropy(S[1:])), None),
        (lambda S: _reach(np.cumsum(S)), None),
        (lambda S: np.exp(_entropy(S + 1e-2)), None),
        (lambda S: np.exp(_entropy(S)) / len(S), None),
        (lambda S: round(np.exp(_entropy(S))), None),
        (lambda S: S.mean() / S.std() if S.std() else 5.0, None),
    ],
    "k90": [
        (lambda S: _reach(np.cumsum(S[::-1] ** 2)), None),
        (lambda S: _reach(np.cumsum(S) ** 2), None),
        (lambda S: _reach(np.cumsum(S)), "take the squares"),
        (lambda S: _reach(np.cumsum(S**2)) - 1, "the index, which starts at 0"),
        (lambda S: _reach(np.cumsum(S**2)) + 1, "one too many"),
        (lambda S: _reach(np.sqrt(np.cumsum(S**2))), "without a root"),
        (lambda S: int(np.argmax(np.cumsum(S**2) >= 0.9)) + 1, "compares with 0.9 itself"),
        (lambda S: int(np.sum(S / S[0] > 0.1)), "a tenth of the largest"),
        (lambda S: math.ceil(0.9 * len(S)), "whatever they hold"),
        (lambda S: int(np.sum(S > 0)), "all that are not 0"),
        (_more_than_90, "exactly 90 per cent"),
        (lambda S: _reach(np.cumsum(S**2), 0.7), None),
        (lambda S: _reach(np.cumsum(S**2), 0.95), None),
        (lambda S: _reach(np.cumsum(S**2)[::-1]), None),
        (lambda S: _reach(np.cumsum((S - S.mean()) ** 2)), None),
        (lambda S: round(float(np.exp(_entropy(S)))), None),
        (lambda S: round(float(np.sum(S**2) / S[0] ** 2)), None),
        (lambda S: np.sum(S[: _reach(np.cumsum(S**2))] ** 2), None),
    ],
    "truncate": [
        (lambda M, k: _svd(M)[0][:, :k] @ _svd(M)[2][:k], "singular values are missing"),
        (lambda M, k: M - _cut(M, k, slice), "what a truncation leaves out"),
        (lambda M, k: _cut(M, k, lambda k: slice(min(M.shape) - k, None)), "k weakest directions"),
        (lambda M, k: _cut(M, k, lambda k: slice(k - 1)), "one direction too few"),
        (lambda M, k: _cut(M, k, lambda k: slice(k + 1)), "one direction too many"),
        (lambda M, k: (_svd(M)[0] * _svd(M)[1])[:, :k] @ np.diag(_svd(M)[1][:k]) @ _svd(M)[2][:k],
         "must come in once"),
        (lambda M, k: _svd(M)[0][:, :k] * _svd(M)[1][:k], "multiply them by the first k rows"),
        (_columns_of_vt, "the rows of Vt, not its columns"),
        (lambda M, k: np.where(np.arange(M.shape[1]) < k, M, 0), "k columns of M"),
        (lambda M, k: np.where(np.arange(M.shape[0])[:, None] < k, M, 0), "k rows of M"),
        (lambda M, k: _cut(M, k, slice).T, "keep the shape of M"),
        (lambda M, k: _cut(M, k, slice) if k else M, "with k = 0 nothing is kept"),
        (_strongest_columns, None),
        (_largest_entries, None),
        (_by_qr, None),
        (lambda M, k: _cut(np.abs(M), k, slice), None),
        (lambda M, k: _cut(M - M.mean(axis=0), k, slice) + M.mean(axis=0), None),
        (lambda M, k: M * k / min(M.shape), None),
    ],
    "similarity": [
        (_squared, "that is not divided"),
        (lambda U, V: np.linalg.norm(U.T @ V) / _few(U, V), "the norm must be squared"),
        (lambda U, V: np.sqrt(_squared(U, V) / _few(U, V)), "the root of phi"),
        (lambda U, V: _squared(U, V) / max(U.shape[1], V.shape[1]), "all is right but"),
        (lambda U, V: np.mean((U.T @ V) ** 2), "mean over all pairs"),
        (lambda U, V: _squared(U, V) / len(U), "divided by d"),
        (lambda U, V: np.linalg.norm(U.T @ V, 2) ** 2, "largest squared cosine alone"),
        (lambda U, V: np.linalg.norm(U.T @ V, "nuc") / _few(U, V), "cosines of the principal"),
        (lambda U, V: np.sum(U.T @ V) ** 2 / _few(U, V), "square each cosine before"),
        (lambda U, V: np.sum(U.T @ V) / _few(U, V), "whose signs are arbitrary"),
        (lambda U, V: np.sum(np.abs(U.T @ V)) / _few(U, V), "cosines without their signs"),
        (lambda U, V: np.sum(np.diag(U.T @ V) ** 2) / _few(U, V), "each with each"),
        (lambda U, V: np.sum((U @ V.T) ** 2) / _few(U, V), None),  # raises unless i = j
        (lambda U, V: np.corrcoef(U[:, 0], V[:, 0])[0, 1] ** 2, None),
        (
            lambda U, V: np.corrcoef(U[:, : _few(U, V)].ravel(), V[:, : _few(U, V)].ravel())[0, 1],
            None,
        ),
        (lambda U, V: np.sum(U[:, : _few(U, V)] * V[:, : _few(U, V)]) ** 2, None),
        (lambda U, V: np.max((U.T @ V) ** 2, axis=0).mean(), None),
        (lambda U, V: np.max(np.abs(U.T @ V)) ** 2, None),
        (lambda U, V: max(U.shape[1], V.shape[1]) / len(U), None),
        (lambda U, V: np.prod(np.linalg.svd(U.T @ V)[1] ** 2), None),
    ],
    "intruders": [
        (lambda W, W_after, k, e: np.sum(_cosines(W, W_after)[:, :k].max(axis=0) < 1 - e), None),
        (lambda W, W_after, k, e: np.sum(_cosines(W, W_after)[:, :k].max(axis=0) ** 2 < e), None),
        (_signed, "a direction and its opposite are the same"),
        (lambda W, X, k, e: np.sum(_cosines(W, X).max(axis=0)[:k] >= e), "those that W does have"),
        (lambda W, X, k, e: np.sum(_cosines(W, X).min(axis=0)[:k] < e), "if a single cosine is"),
        (lambda W, X, k, e: np.sum(np.diag(_cosines(W, X))[:k] < e), "the one of the same index"),
        (
            lambda W, X, k, e: np.sum(_cosines(W, X)[:k, :k].max(axis=0) < e),
            "not with its top k alone",
        ),
        (lambda W, X, k, e: np.sum(_cosines(W, X).max(axis=0) < e), "count among the top k only"),
        (lambda W, X, k, e: np.sum(_cosines(W, X).max(axis=1)[:k] < e), "it is the other way"),
        (lambda W, X, k, e: np.sum(_cosines(W, X).max(axis=0)[:k] < 0.5), "not always 0.5"),
        (lambda W, X, k, e: np.sum(_cosines(W, X, 0).max(axis=0)[:k] < e), "input directions"),
        (lambda W, X, k, e: np.sum(_cosines(W, X - W).max(axis=0)[:k] < e), "not of the change"),
        (_in_subspace, None),
        (lambda W, X, k, e: np.sum((_cosines(W, X) ** 2).sum(axis=0)[:k] < e), None),
        (lambda W, X, k, e: np.sum(_cosines(W, X).max(axis=0)[-k:] < e), None),
        (lambda W, X, k, e: np.sum(_cosines(W, X).max(axis=0)[:k] < e**2), None),
        (lambda W, X, k, e: int(np.linalg.matrix_rank(X - W)), None),
        (lambda W, X, k, e: np.sum(np.abs(_svd(X)[1][:k] - _svd(W)[1][:k]) > e), None),
        (lambda W, X, k, e: np.sum(_new_on_sides(W, X, e).all(axis=0)[:k]), None),
        (lambda W, X, k, e: np.sum(_new_on_sides(W, X, e).any(axis=0)[:k]), None),
    ],
    "tuned_how": [
        (_how(tolerance=lambda W, S: 1e-12 * S[0]), "rounding alone gives every direction"),
        (_how(tolerance=lambda W, S: 1e-7 * np.linalg.norm(S)), "make the tolerance from W_after"),
        (_how(tolerance=lambda W, S: 0.01 * S[0]), "weak directions count too"),
        (_how(tolerance=lambda W, S: EPS * np.linalg.norm(W, 2)), "not the largest singular value"),
        (_how(pick=lambda ranks: ranks[0]), "not the first"),
        (_how(pick=lambda ranks: ranks[-1]), "not the last"),
        (_how(pick=min), "not the smallest"),
        (_how(pick=sum), "do not add up"),
        (_how(limit=max), "the highest rank that a matrix"),
        (_how(is_full=lambda rank, highest: rank > 8), "not if it is high"),
        (lambda before, after: _how()(before, after)[1], "expected 2 values"),
        (lambda before, after: ("PEFT", 3), "not 'PEFT'"),
        (_how_by_counting_entries, None),
        (_how_by_effective_rank, None),
        (_how(tolerance=lambda W, S: 0.1), None),
        (_how(is_full=lambda rank, highest: rank > highest / 2), None),
        (_how(tolerance=lambda W, S: 0.001), None),
        (_how_by_qr, None),
        (lambda before, after: ("LoRA", len(before)), None),
        (lambda before, after: ("full", 16), None),
    ],
}  # fmt: skip

EQUIVALENT = {
    "truncate": {"line 3: False -> True": "the columns of U that are added are cut off again"},
    "intruders": {
        "line 5: cosines.max(axis=0) < epsilon -> cosines.max(axis=0) <= epsilon": (
            "no cosine is epsilon exactly"
        )
    },
    "tuned_how": {
        "line 5: 0 -> 1": "something was tuned, so that the largest rank is 1 or more",
        "line 9: np.finfo(np.float32).eps * np.linalg.norm(W_after) < S -> "
        "np.finfo(np.float32).eps * np.linalg.norm(W_after) <= S": (
            "no singular value is the tolerance exactly"
        ),
    },
}
