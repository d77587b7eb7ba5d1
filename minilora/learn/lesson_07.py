"""The checkers of lesson 07, The singular values of ΔW."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from minilora.learn.exercises import Yours, as_array, exercise, require, unpack


@exercise(
    hints=(
        "Make shares of them, `p = S / S.sum()`. Which p has no logarithm?",
        "Keep the p above 0. The entropy is minus the sum of p log p, with the natural logarithm; "
        "one more step makes it a number of directions.",
    )
)
def effective_rank(yours: Yours) -> str:
    new = np.sort(np.random.default_rng().uniform(1, 5, 6))[::-1].round(2).tolist()
    for values in (
        [4, 2, 1, 1],
        [6, 6, 6, 6, 6],
        [3, 3, 0, 0, 0],
        [0.7, 0.2, 0.05, 0],
        [5, 1, 0.002],
        new,
    ):
        S = np.array(values, np.float64)
        got = yours(S.copy())
        what = f"effective rank of S = {values}"
        nan = bool(np.isnan(np.asarray(as_array(got), float)).any())
        require(not nan, f"your {what} is nan: 0 log 0 is nan for NumPy, so leave the zeros out")
        p, energy, scaled = (
            part[part > 0] / whole
            for part, whole in ((S, S.sum()), (S**2, np.sum(S**2)), (S, S.max()))
        )
        entropy, of_energy = (-np.sum(part * np.log(part)) for part in (p, energy))
        undivided = S[S > 0]
        mistakes = {
            "that is the entropy itself; take exp of it": entropy,
            "the minus sign of the entropy is missing": np.exp(-entropy),
            "that makes shares of the squares; here p is of S itself": np.exp(of_energy),
            "that is the rank, which does not ask how large they are": len(p),
            "that is the stable rank": np.sum(S**2) / S.max() ** 2,
            "that divides the sum of S by the largest": S.sum() / S.max(),
            "that is 1 / (sum of p²), without an entropy": 1 / np.sum(p**2),
            "that is exp of an entropy in log2: exp goes with log": np.exp(entropy / np.log(2)),
            "that is 2 to the power of an entropy in log: it goes with log2": 2**entropy,
            "the shares p must add up to 1: divide S by its sum": np.exp(
                -np.sum(undivided * np.log(undivided))
            ),
            "the shares p must add up to 1: divide S by its sum, not by its largest": np.exp(
                -np.sum(scaled * np.log(scaled))
            ),
            "each log p is weighted by its p": np.exp(-np.mean(np.log(p))),
        }
        yours.compare(what, got, np.exp(entropy), mistakes)
    return "n equal singular values have effective rank n, and any others of that number less."


@exercise(
    hints=(
        "`np.cumsum(S**2)` has, at index i, what the first i + 1 directions hold together.",
        "`np.argmax` of a Boolean array is the index of the first True. Where does an index start?",
    )
)
def k90(yours: Yours) -> str:
    for values in (
        [7, 3, 2, 2, 2, 2],
        [4, 4, 4, 4],
        [9, 3.2, 3.1, 1],
        [0.6, 0.3, 0.25, 0.2, 0.1, 0.1],
        [0.8, 0.6, 0.5, 0.3],
        [5, 4, 3, 2, 1, 1, 0.2, 0, 0],
        [2] * 15 + [1] * 5,
        [7, 4, 4, 3],  # just 90 per cent, and exactly so: 49 + 16 + 16 of 90
        [5],
    ):
        S = np.array(values, np.float64)
        held, plain = np.cumsum(S**2), np.cumsum(S)
        expected = int(np.argmax(held >= 0.9 * held[-1])) + 1
        below = int(np.sum(S / S[0] > 0.1))
        mistakes = {
            "that is 90 per cent of the sum of S; take the squares": np.argmax(
                plain >= 0.9 * plain[-1]
            )
            + 1,
            "that is the index, which starts at 0; count the directions": expected - 1,
            "that is one too many": expected + 1,
            "exactly 90 per cent is enough": np.argmax(held > 0.9 * held[-1]) + 1,
            "90 per cent is of the sum of the squares, without a root": np.argmax(
                held >= 0.81 * held[-1]
            )
            + 1,
            "that compares with 0.9 itself, not with 0.9 of the whole sum": np.argmax(held >= 0.9)
            + 1,
            "that counts the S above a tenth of the largest; add their squares up": below,
            "that is 90 per cent of their number, whatever they hold": int(np.ceil(0.9 * len(S))),
            "that counts all that are not 0": int(np.sum(S > 0)),
        }
        yours.compare(f"k90 of S = {values}", yours(S.copy()), expected, mistakes)
    return "Squares, because the square of the Frobenius norm is the sum of the squares of S."


@exercise(
    hints=(
        "`U, S, Vt = np.linalg.svd(M, full_matrices=False)`: which part of each do you keep?",
        "Directions are columns of U and rows of Vt: the first k of each. Where does S come in?",
    )
)
def truncate(yours: Yours) -> str:
    rng = np.random.default_rng(7)
    for shape, k, dtype in (
        ((6, 5), 2, float),
        ((4, 6), 3, np.float32),
        ((5, 5), 5, float),
        ((5, 4), 0, float),
    ):
        M = rng.standard_normal(shape).astype(dtype)
        U, S, Vt = np.linalg.svd(M.astype(float), full_matrices=False)
        n = len(S)
        U_full, _, Vt_full = np.linalg.svd(M.astype(float))
        expected = (U[:, :k] * S[:k]) @ Vt[:k]
        mistakes = {
            "the singular values are missing: scale each direction by its own": U[:, :k] @ Vt[:k],
            "that is what a truncation leaves out": M - expected,
            "that keeps the k weakest directions, not the strongest": (U[:, n - k :] * S[n - k :])
            @ Vt[n - k :],
            "that has one direction too few": (U[:, : k - 1] * S[: k - 1]) @ Vt[: k - 1],
            "that has one direction too many": (U[:, : k + 1] * S[: k + 1]) @ Vt[: k + 1],
            "each singular value must come in once": (U[:, :k] * S[:k] ** 2) @ Vt[:k],
            "those are k scaled columns of U; multiply them by the first k rows of Vt": U[:, :k]
            * S[:k],
            "its directions are the rows of Vt, not its columns": (U[:, :k] * S[:k]) @ Vt[:, :k].T,
            "that keeps k columns of M, not k directions": np.where(np.arange(shape[1]) < k, M, 0),
            "that keeps k rows of M, not k directions": np.where(
                np.arange(shape[0])[:, None] < k, M, 0
            ),
            "keep the shape of M": expected.T,
            "with k = 0 nothing is kept": expected if k else M,
            "the directions of M are not those of M transposed": (Vt_full.T[:, :k] * S[:k])
            @ U_full.T[:k],
        }
        got = yours(M.copy(), k)
        found = as_array(got)
        if k == 0 and found is not None and found.dtype.kind == "f":
            got = np.where(np.abs(found) < 1e-5, 0, found)  # M less all of M leaves its rounding
        tolerance = 1e-6 if dtype is float else 1e-5
        yours.compare(f"matrix for {yours.inputs}", got, expected, mistakes, tolerance)
    return "Of all matrices of rank k, this one is nearest to M (Eckart and Young 1936)."


@exercise(
    hints=(
        "`U.T @ V`, of shape (i, j), has all cosines between a direction of one and of the other.",
        "The squared norm of a matrix is the sum of the squares of its entries. i and j are the "
        "numbers of columns, `U.shape[1]` and `V.shape[1]`.",
    )
)
def similarity(yours: Yours) -> str:
    rng, new = np.random.default_rng(3), np.random.default_rng()
    pairs = [
        [np.linalg.qr(draws.standard_normal((d, n)))[0] for n in (i, j)]
        for d, i, j, draws in ((9, 3, 3, rng), (9, 2, 5, rng), (12, 6, 4, rng), (11, 3, 7, new))
    ]
    U, turn = (np.linalg.qr(rng.standard_normal((d, 4)))[0] for d in (9, 4))
    pairs.append([U, U @ turn])  # the same space, described by other directions
    for U, V in pairs:
        (d, i), j = U.shape, V.shape[1]
        cosines = U.T @ V
        squared = np.sum(cosines**2)
        few = min(i, j)
        angles = np.linalg.svd(cosines, compute_uv=False)
        mistakes = {
            "that is not divided by min(i, j)": squared,
            "the norm must be squared": np.sqrt(squared) / few,
            "that is the root of phi": np.sqrt(squared / few),
            "those are cosines without their signs; square each": np.abs(cosines).sum() / few,
            "all is right but the divisor: divide by min(i, j)": squared / max(i, j),
            "divide by i j only to have the mean over all pairs; here it is by min(i, j)": squared
            / (i * j),
            "that is divided by d; divide by min(i, j)": squared / d,
            "that is the largest squared cosine alone": angles[0] ** 2,
            "that adds the cosines of the principal angles; square each": angles.sum() / few,
            "square each cosine before adding them up": np.sum(cosines) ** 2 / few,
            "that adds up the cosines, whose signs are arbitrary": np.sum(cosines) / few,
            "that is min(i, j) in every case: U V^T is transposed, you need U^T V": float(few),
            "that compares directions of the same index only; compare each with each": np.sum(
                np.diag(cosines) ** 2
            )
            / few,
        }
        got = yours(U.copy(), V.copy())
        yours.compare(f"phi for {yours.inputs}", got, squared / few, mistakes, 1e-6)
    return "A mean of squared cosines: 1 if one space holds the other, 0 if they are orthogonal."


def _planted(top: list[int], seed: int) -> tuple[np.ndarray, np.ndarray]:
    """W and W_after (16, 16). The strongest output directions of W_after are `top`: 0 to 4 are W's
    own, from the strongest, 5 to 7 W's weakest, and 8 to 15 are new: mixed evenly from the other
    eight of W's, to each of which they have the cosine 1 / √8 = 0.35. Of the input directions eight
    are new in the same way, but others than of the output directions."""
    rng = np.random.default_rng(seed)
    U, V = (np.linalg.qr(rng.standard_normal((16, 16)))[0] for _ in range(2))
    two = np.array([[1, 1], [1, -1]])
    evenly = np.kron(np.kron(two, two), two) / np.sqrt(8)
    mixed = V[:, 5:13] @ evenly
    there = np.concatenate([V[:, :5], V[:, 13:], mixed], axis=1)
    order = top + [i for i in range(16) if i not in top]
    S = np.arange(16.0, 0, -1)
    U_after = U.copy()
    new = [0, 1, 5, 6, 9, 10, 13, 14]
    U_after[:, new] = U[:, new] @ evenly
    return (U * S) @ V.T, (U_after * S * 2) @ there[:, order].T


@exercise(
    hints=(
        "The output directions are the rows of Vt. Which product of two such matrices has the "
        "cosines of all of W's with the top k of W_after's?",
        "`Vt @ Vt_after[:k].T` has these cosines, a column for each of the top k. What must hold "
        "for a whole column if its direction is an intruder?",
    )
)
def intruders(yours: Yours) -> str:
    flipped = np.diag([6.0, -5, 4, -3, 2, 1])
    one, other = _planted([8, 7, 2, 9, 0, 1, 10], seed=1), _planted([5, 8, 9, 3, 10, 6], seed=2)
    for (W, W_after), k, epsilon in (
        ((np.abs(flipped), flipped), 6, 0.5),
        (one, 6, 0.5),
        (one, 6, 0.3),
        (one, 6, 0.1),
        (one, 6, 0.7),
        (one, 9, 0.5),
        (other, 5, 0.4),
        (other, 2, 0.45),
    ):
        (U, _, Vt), (U_after, _, Vt_after) = (np.linalg.svd(M) for M in (W, W_after))
        of_delta = np.linalg.svd(W_after - W)[2]
        signed = Vt @ Vt_after.T
        cosines = np.abs(signed)
        best = cosines.max(axis=0)
        expected = int(np.sum(best[:k] < epsilon))
        mistakes = {
            "a direction and its opposite are the same: take the cosine's absolute value": np.sum(
                signed.max(axis=0)[:k] < epsilon
            ),
            "that counts those that W does have": k - expected,
            "it is none if a single cosine is large: the largest must be below epsilon": np.sum(
                cosines.min(axis=0)[:k] < epsilon
            ),
            "compare with all directions of W, not with the one of the same index": np.sum(
                np.diag(cosines)[:k] < epsilon
            ),
            "compare with all directions of W, not with its top k alone": np.sum(
                cosines[:k, :k].max(axis=0) < epsilon
            ),
            "count among the top k only": np.sum(best < epsilon),
            "that looks for W's directions in W_after; it is the other way round": np.sum(
                cosines.max(axis=1)[:k] < epsilon
            ),
            "epsilon is an argument, and not always 0.5": np.sum(best[:k] < 0.5),
            "those are input directions, columns of U; take the rows of Vt": np.sum(
                np.abs(U.T @ U_after).max(axis=0)[:k] < epsilon
            ),
            "an intruder is a direction of W_after, not of the change": np.sum(
                np.abs(Vt @ of_delta.T).max(axis=0)[:k] < epsilon
            ),
        }
        got = yours(W.copy(), W_after.copy(), k, epsilon)
        what = f"count for k={k}, epsilon={epsilon}, W {W.shape}"
        yours.compare(what, got, expected, mistakes)
    return "The directions that W does not have were planted, and all found."


Weights = dict[str, np.ndarray]


def _tuned(
    shapes: dict[str, tuple[int, int]], r: int, size: float, change: float, last: float
) -> tuple[Weights, Weights]:
    """(before, after): float32 weights of standard deviation `size`, to which a ΔW is added that
    has rank r, or the highest that its shape allows, with singular values from `change` down to
    `last` times that; "frozen" is not changed."""
    rng = np.random.default_rng(r)
    before, after = {}, {}
    for name, (d_in, d_out) in shapes.items():
        W = (size * rng.standard_normal((d_in, d_out))).astype(np.float32)
        n = min(d_in, d_out, r)
        U, V = (np.linalg.qr(rng.standard_normal((d, n)))[0] for d in (d_in, d_out))
        delta = 0 * W if name == "frozen" else (U * change * np.geomspace(1, last, n)) @ V.T
        before[name], after[name] = W, (W + delta).astype(np.float32)
    return before, after


@exercise(
    hints=(
        "For each matrix count the singular values of its change that are above the tolerance. "
        "Not every matrix need have an adapter: take the largest rank of all.",
        "`S > tolerance` has True for each singular value that counts. The highest rank that a "
        "change can have is `min(delta.shape)`.",
    )
)
def tuned_how(yours: Yours) -> str:
    for about, shapes, r, size, change, last in (
        ("LoRA of rank 3", {"q": (24, 24), "up": (16, 48)}, 3, 0.1, 1, 3e-4),
        ("LoRA of rank 5 on one matrix", {"frozen": (24, 24), "down": (48, 16)}, 5, 0.1, 1, 3e-4),
        ("LoRA of rank 2 on large W", {"q": (24, 24), "frozen": (16, 48)}, 2, 33, 1, 3e-4),
        ("LoRA of rank 13", {"frozen": (8, 30), "up": (24, 48)}, 13, 0.1, 1, 3e-4),
        ("LoRA of rank 8", {"frozen": (8, 30), "up": (24, 48)}, 8, 0.1, 1, 3e-4),
        ("LoRA of rank 4, a small change", {"k": (20, 20), "v": (20, 10)}, 4, 0.1, 0.01, 3e-4),
        ("LoRA with a hidden direction", {"q": (48, 48), "frozen": (9, 9)}, 2, 1, 5, 6e-7),
        ("full fine-tuning", {"up": (16, 48), "frozen": (16, 48)}, 99, 0.1, 1, 3e-4),
        ("full fine-tuning, small matrices", {"frozen": (9, 9), "down": (20, 4)}, 99, 1, 1, 3e-4),
    ):
        before, after = _tuned(shapes, r, size, change, last)
        method, rank = unpack(yours(dict(before), dict(after)), "method, rank")
        is_text = isinstance(method, str) and method.strip().casefold() in ("lora", "full")
        require(is_text, f'the method is "LoRA" or "full", not {method!r:.40}')
        verdicts = _verdicts(before, after)
        methods = {why: one for why, (one, _) in verdicts.items()}
        ranks = {why: number for why, (_, number) in verdicts.items()}
        yours.compare(f"rank for {about}", rank, ranks.pop("right"), ranks)
        yours.compare(f"method for {about}", method, methods.pop("right"), methods)
    return "Nothing but the weights was needed: a low rank points to LoRA."


def _verdicts(before: Weights, after: Weights) -> dict[str, tuple[str, int]]:
    """(method, rank) as they should be, "right", and as known mistakes make them."""
    eps = np.finfo(np.float32).eps
    right = _ranks(before, after, lambda W, S: eps * np.linalg.norm(W))
    method, rank = _together(right, min)
    first, *_, last = (one for _, one in right)
    large = "full" if rank > 8 else "LoRA"
    whole = "not every matrix need have an adapter: take the largest rank, not the"
    return {
        "right": (method, rank),
        "rounding alone gives every direction some strength: use the tolerance": _together(
            _ranks(before, after, lambda W, S: 1e-12 * S[0]), min
        ),
        "weak directions count too; leave out only what may be rounding": _together(
            _ranks(before, after, lambda W, S: 0.01 * S[0]), min
        ),
        "make the tolerance from W_after, whose rounding it is, not from the change": _together(
            _ranks(before, after, lambda W, S: eps * np.linalg.norm(S)), min
        ),
        "the tolerance needs the Frobenius norm, not the largest singular value": _together(
            _ranks(before, after, lambda W, S: eps * np.linalg.norm(W, 2)), min
        ),
        "the highest rank that a matrix can have is min(d_in, d_out)": (_together(right, max)),
        "it is full if a rank is the highest its matrix allows, not if it is high": (large, rank),
        f"{whole} first": (method, first),
        f"{whole} last": (method, last),
        f"{whole} smallest": (method, min(first, last)),
        "take the largest rank; the ranks of different matrices do not add up": (
            method,
            first + last,
        ),
    }


def _ranks(
    before: Weights, after: Weights, tolerance: Callable[[np.ndarray, np.ndarray], Any]
) -> list[tuple[tuple[int, ...], int]]:
    """(shape, rank of the change) of each matrix; tolerance of W_after and the singular values."""
    found = []
    for name, W in after.items():
        S = np.linalg.svd(W.astype(float) - before[name], compute_uv=False)
        found.append((W.shape, int(np.sum(tolerance(W, S) < S))))
    return found


def _together(
    ranks: list[tuple[tuple[int, ...], int]], highest: Callable[[tuple[int, ...]], int]
) -> tuple[str, int]:
    is_full = any(rank >= highest(shape) for shape, rank in ranks)
    return "full" if is_full else "LoRA", max(rank for _, rank in ranks)
