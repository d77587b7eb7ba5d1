"""Wrong solutions of lesson 07's exercises, with words of the diagnosis that each must get."""

from collections.abc import Callable
from typing import Any

import numpy as np

Answer = tuple[Callable[..., Any], str]


def _entropy(S, log=np.log):
    p = S[S > 0] / S.sum()
    return -np.sum(p * log(p))


@np.errstate(all="ignore")
def _with_zeros(S):
    p = S / S.sum()
    return np.exp(-np.sum(p * np.log(p)))


def _reach(held, share=0.9):
    return int(np.argmax(held >= share * held[-1])) + 1


def _svd(M):
    return np.linalg.svd(np.asarray(M, np.float64), full_matrices=False)


def _cut(M, k, part):
    U, S, Vt = _svd(M)
    return (U[:, part(k)] * S[part(k)]) @ Vt[part(k)]


def _columns_of_vt(M, k):
    U, S, Vt = _svd(M)
    return (U[:, :k] * S[:k]) @ Vt[:, :k].T


def _few(U, V):
    return min(U.shape[1], V.shape[1])


def _squared(U, V):
    return np.sum((U.T @ V) ** 2)


def _cosines(W, W_after, side=2):
    """|cosines| of W's output (side 2) or input (side 0) directions with those of W_after."""
    ours, theirs = (M if side == 2 else M.T for M in (_svd(W)[side], _svd(W_after)[side]))
    return np.abs(ours @ theirs.T)


def _signed(W, W_after, k, epsilon):
    cosines = _svd(W)[2] @ _svd(W_after)[2].T
    return np.sum(cosines.max(axis=0)[:k] < epsilon)


def _how(pick=max, limit=min, tolerance=lambda W, S: np.finfo(np.float32).eps * np.linalg.norm(W)):
    """A solution of tuned_how, with one of its choices made otherwise."""

    def tuned_how(before, after):
        ranks, full = [], False
        for name, W in after.items():
            S = np.linalg.svd(W.astype(float) - before[name], compute_uv=False)
            ranks.append(int(np.sum(tolerance(W, S) < S)))
            full = full or ranks[-1] >= limit(W.shape)
        return "full" if full else "LoRA", pick(ranks)

    return tuned_how


WRONG: dict[str, list[Answer]] = {
    "effective_rank": [
        (_entropy, "that is the entropy itself"),
        (lambda S: np.exp(-_entropy(S)), "minus sign"),
        (lambda S: np.exp(_entropy(S**2)), "shares of the squares"),
        (lambda S: int(np.sum(S > 0)), "that is the rank"),
        (lambda S: np.sum(S**2) / S[0] ** 2, "the stable rank"),
        (lambda S: np.exp(_entropy(S, np.log2)), "log2 goes with 2"),
        (lambda S: np.exp(-np.sum(S * np.log(S))), "must add up to 1"),
        (_with_zeros, "leave the zeros out"),
    ],
    "k90": [
        (lambda S: _reach(np.cumsum(S)), "take the squares"),
        (lambda S: _reach(np.cumsum(S**2)) - 1, "the index, which starts at 0"),
        (lambda S: _reach(np.sqrt(np.cumsum(S**2))), "without a root"),
        (lambda S: int(np.argmax(np.cumsum(S**2) >= 0.9)) + 1, "compares with 0.9 itself"),
        (
            lambda S: int(np.argmax(np.cumsum(S**2) > 0.9 * np.sum(S**2))) + 1,
            "exactly 90 per cent is enough",
        ),
        (lambda S: _reach(np.cumsum(S**2), 0.7), "is 2; expected 5."),
    ],
    "truncate": [
        (lambda M, k: _svd(M)[0][:, :k] @ _svd(M)[2][:k], "singular values are missing"),
        (lambda M, k: M - _cut(M, k, slice), "what a truncation leaves out"),
        (lambda M, k: _cut(M, k, lambda k: slice(min(M.shape) - k, None)), "k weakest directions"),
        (lambda M, k: _cut(M, k, lambda k: slice(k - 1)), "one direction too few"),
        (lambda M, k: _svd(M)[0][:, :k] * _svd(M)[1][:k], "multiply them by the first k rows"),
        (_columns_of_vt, "the rows of Vt, not its columns"),
        (lambda M, k: np.where(np.arange(M.shape[1]) < k, M, 0), "k columns of M"),
        (lambda M, k: _cut(M, k, slice).T, "keep the shape of M"),
        (lambda M, k: _cut(M, k, slice) if k else M, "with k = 0 nothing is kept"),
    ],
    "similarity": [
        (_squared, "that is not divided"),
        (lambda U, V: np.linalg.norm(U.T @ V) / _few(U, V), "the norm is squared"),
        (lambda U, V: _squared(U, V) / max(U.shape[1], V.shape[1]), "all of it is right but"),
        (lambda U, V: np.mean((U.T @ V) ** 2), "number of all pairs"),
        (lambda U, V: np.linalg.norm(U.T @ V, 2) ** 2, "largest squared cosine alone"),
        (lambda U, V: np.sum(U.T @ V) ** 2 / _few(U, V), "square each cosine before"),
        (lambda U, V: np.sum(U.T @ V) / _few(U, V), "whose signs are arbitrary"),
        (lambda U, V: np.sum(np.abs(U.T @ V)) / _few(U, V), "cosines without their signs"),
        (lambda U, V: np.sum((U @ V.T) ** 2) / _few(U, V), "is transposed, you need"),
    ],
    "intruders": [
        (_signed, "a direction and its opposite are the same"),
        (lambda W, X, k, e: np.sum(_cosines(W, X).max(axis=0)[:k] >= e), "those that W does have"),
        (lambda W, X, k, e: np.sum(np.diag(_cosines(W, X))[:k] < e), "the one of the same index"),
        (
            lambda W, X, k, e: np.sum(_cosines(W, X)[:k, :k].max(axis=0) < e),
            "not with its top k alone",
        ),
        (lambda W, X, k, e: np.sum(_cosines(W, X).max(axis=0) < e), "count among the top k only"),
        (lambda W, X, k, e: np.sum(_cosines(W, X).max(axis=1)[:k] < e), "it is the other way"),
        (lambda W, X, k, e: np.sum(_cosines(W, X).max(axis=0)[:k] < 0.5), "not always 0.5"),
        (lambda W, X, k, e: np.sum(_cosines(W, X, 0).max(axis=0)[:k] < e), "input directions"),
    ],
    "tuned_how": [
        (_how(tolerance=lambda W, S: 1e-12 * S[0]), "rounding alone gives every direction"),
        (_how(tolerance=lambda W, S: 1e-7 * np.linalg.norm(S)), "made from W_after"),
        (_how(tolerance=lambda W, S: 0.01 * S[0]), "weak directions count too"),
        (_how(pick=lambda ranks: ranks[0]), "not every matrix need have an adapter"),
        (_how(limit=max), "it is full if the rank of a matrix"),
        (lambda before, after: _how()(before, after)[1], "return a method and a rank"),
        (lambda before, after: ("lora", 3), "not 'lora'"),
    ],
}  # fmt: skip
