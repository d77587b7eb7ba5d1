"""The checkers of lesson 07, The singular values of ΔW."""

from __future__ import annotations

import numpy as np

from minilora.learn.exercises import Yours, exercise, require


@exercise(
    hints=(
        "Make shares of them, `p = S / S.sum()`. Which p has no logarithm?",
        "Keep the p above 0. The entropy is minus the sum of p log p, with the natural logarithm; "
        "one more step makes it a number of directions.",
    )
)
def effective_rank(yours: Yours) -> str:
    for values in ([4, 2, 1, 1], [6, 6, 6, 6, 6], [3, 3, 0, 0, 0]):
        S = np.array(values, np.float64)
        got = yours(S.copy())
        what = f"effective rank of S = {values}"
        nan = isinstance(got, float) and np.isnan(got)
        require(not nan, f"your {what} is nan: 0 log 0 is nan for NumPy, so leave the zeros out")
        p, energy = (part[part > 0] / part.sum() for part in (S, S**2))
        entropy, of_energy = (-np.sum(part * np.log(part)) for part in (p, energy))
        mistakes = {
            "that is the entropy itself; take exp of it": entropy,
            "the minus sign of the entropy is missing": np.exp(-entropy),
            "that makes shares of the squares; here p is of S itself": np.exp(of_energy),
            "that is the rank, which does not ask how large they are": len(p),
            "that is the stable rank": np.sum(S**2) / S.max() ** 2,
            "log2 goes with 2 to the power of it, log with exp": np.exp(entropy / np.log(2)),
            "the shares p must add up to 1: divide S by its sum": np.exp(-np.sum(S * np.log(S)))
            if S.all()
            else np.inf,
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
    for values in ([7, 3, 2, 2, 2, 2], [3, 1], [5], [4, 4, 4, 4]):
        S = np.array(values, np.float64)
        held, plain = np.cumsum(S**2), np.cumsum(S)
        expected = int(np.argmax(held >= 0.9 * held[-1])) + 1
        mistakes = {
            "exactly 90 per cent is enough: use >=": np.argmax(held > 0.9 * held[-1]) + 1,
            "that is 90 per cent of the sum of S; take the squares": np.argmax(
                plain >= 0.9 * plain[-1]
            )
            + 1,
            "that is the index, which starts at 0; count the directions": expected - 1,
            "90 per cent is of the sum of the squares, without a root": np.argmax(
                held >= 0.81 * held[-1]
            )
            + 1,
            "that compares with 0.9 itself, not with 0.9 of the whole sum": 1,
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
    for shape, k, dtype in (((6, 5), 2, float), ((4, 6), 3, np.float32), ((5, 5), 5, float)):
        M = rng.standard_normal(shape).astype(dtype)
        U, S, Vt = np.linalg.svd(M.astype(float), full_matrices=False)
        expected = (U[:, :k] * S[:k]) @ Vt[:k]
        n = len(S)
        columns = np.where(np.arange(shape[1]) < k, M, 0)
        mistakes = {
            "the singular values are missing: scale each direction by its own": U[:, :k] @ Vt[:k],
            "that is what a truncation leaves out": M - expected,
            "that keeps the k weakest directions, not the strongest": (U[:, n - k :] * S[n - k :])
            @ Vt[n - k :],
            "that has one direction too few": (U[:, : k - 1] * S[: k - 1]) @ Vt[: k - 1],
            "those are k scaled columns of U; multiply them by the first k rows of Vt": U[:, :k]
            * S[:k],
            "its directions are the rows of Vt, not its columns": (U[:, :k] * S[:k]) @ Vt[:, :k].T,
            "that keeps k columns of M, not k directions": columns,
            "keep the shape of M": expected.T,
        }
        got = yours(M.copy(), k)
        tolerance = 1e-6 if dtype is float else 1e-5
        yours.compare(f"matrix for {yours.inputs}", got, expected, mistakes, tolerance)
    M = rng.standard_normal((3, 4))
    yours.compare("matrix for k = 0", yours(M, 0), 0 * M, {"with k = 0 nothing is kept": M})
    return "Of all matrices of rank k, this one is nearest to M (Eckart and Young 1936)."


@exercise(
    hints=(
        "`U.T @ V`, of shape (i, j), has all cosines between a direction of one and of the other.",
        "The squared norm of a matrix is the sum of the squares of its entries. i and j are the "
        "numbers of columns, `U.shape[1]` and `V.shape[1]`.",
    )
)
def similarity(yours: Yours) -> str:
    rng = np.random.default_rng(3)
    for d, i, j, dtype in ((9, 3, 3, float), (9, 2, 5, float), (12, 6, 4, np.float32)):
        U, V = (np.linalg.qr(rng.standard_normal((d, n)))[0].astype(dtype) for n in (i, j))
        cosines = U.T.astype(float) @ V
        squared = np.sum(cosines**2)
        few = min(i, j)
        mistakes = {
            "that is not divided by min(i, j)": squared,
            "the norm is squared": np.sqrt(squared) / few,
            "those are cosines without their signs; square each": np.abs(cosines).sum() / few,
            "all of it is right but the divisor, min(i, j)": squared / max(i, j),
            "divide by min(i, j), not by the number of all pairs": squared / (i * j),
            "that is the largest squared cosine alone": np.linalg.norm(cosines, 2) ** 2,
            "square each cosine before adding them up": np.sum(cosines) ** 2 / few,
            "that adds up the cosines, whose signs are arbitrary": np.sum(cosines) / few,
        }
        if i == j:
            why = "that is 1 whatever the spaces are: U V^T is transposed, you need U^T V"
            mistakes[why] = 1.0
        got = yours(U.copy(), V.copy())
        yours.compare(
            f"phi for {yours.inputs}", got, squared / few, mistakes, 1e-6 if i < 6 else 1e-5
        )
    return "A mean of squared cosines: 1 if one space holds the other, 0 if they are orthogonal."


def _planted() -> tuple[np.ndarray, np.ndarray]:
    """W (16, 16) and W_after, of whose six strongest output directions two are new: they are mixed
    evenly from eight of W's, to each of which they have the cosine 1 / √8 = 0.35."""
    rng = np.random.default_rng(1)
    U, V = (np.linalg.qr(rng.standard_normal((16, 16)))[0] for _ in range(2))
    two = np.array([[1, 1], [1, -1]])
    new = V[:, 5:13] @ np.kron(np.kron(two, two), two) / np.sqrt(8)
    top = [new[:, 0], V[:, 15], V[:, 2], new[:, 1], V[:, 0], V[:, 1]]
    rest = [*new[:, 2:].T, V[:, 3], V[:, 4], V[:, 13], V[:, 14]]
    S = np.arange(16.0, 0, -1)
    return (U * S) @ V.T, (U * S * 2) @ np.stack(top + rest)


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
    W, W_after = _planted()
    cases = ((np.abs(flipped), flipped, 6, 0.5), (W, W_after, 6, 0.5), (W, W_after, 6, 0.3))
    for before, after, k, epsilon in cases:
        (U, _, V), (U_after, _, V_after) = (np.linalg.svd(M) for M in (before, after))
        signed = V @ V_after.T
        cosines = np.abs(signed)
        best = cosines.max(axis=0)
        expected = int(np.sum(best[:k] < epsilon))
        mistakes = {
            "that counts those that W does have": k - expected,
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
        }
        if after is flipped:
            why = "a direction and its opposite are the same: take the cosine's absolute value"
            mistakes = {why: np.sum(signed.max(axis=0)[:k] < epsilon)} | mistakes
        got = yours(before.copy(), after.copy(), k, epsilon)
        yours.compare(f"count for k={k}, epsilon={epsilon}", got, expected, mistakes)
    return "Two directions that W does not have were planted, and found."


Weights = dict[str, np.ndarray]


def _tuned(
    shapes: dict[str, tuple[int, int]], r: int | None, size: float
) -> tuple[Weights, Weights]:
    """(before, after): float32 weights of standard deviation `size`, to which a ΔW of rank r is
    added or, None, of the highest rank there can be; "frozen" is not changed."""
    rng = np.random.default_rng(r)
    before, after = {}, {}
    for name, (d_in, d_out) in shapes.items():
        W = (size * rng.standard_normal((d_in, d_out))).astype(np.float32)
        n = min(d_in, d_out) if r is None else r
        U, V = (np.linalg.qr(rng.standard_normal((d, n)))[0] for d in (d_in, d_out))
        delta = 0 * W if name == "frozen" else (U * np.geomspace(1, 3e-3, n)) @ V.T
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
    for about, shapes, r, size in (
        ("LoRA of rank 3", {"q": (24, 24), "up": (16, 48)}, 3, 0.1),
        ("LoRA of rank 5 on one matrix", {"frozen": (24, 24), "down": (48, 16)}, 5, 0.1),
        ("LoRA of rank 2 on large W", {"q": (24, 24), "frozen": (16, 48)}, 2, 100.0),
        ("full fine-tuning", {"up": (16, 48), "frozen": (16, 48)}, None, 0.1),
    ):
        before, after = _tuned(shapes, r, size)
        expected = ("full", 16) if r is None else ("LoRA", r)
        got = yours(dict(before), dict(after))
        pair = isinstance(got, tuple) and len(got) == 2 and isinstance(got[1], int | np.integer)
        require(pair, 'return a method and a rank, such as ("LoRA", 4)')
        require(got[0] in ("LoRA", "full"), f'the method is "LoRA" or "full", not {got[0]!r:.40}')
        seen = f"for {about}, yours says {got[0]}, rank {got[1]}; expected {expected[0]}, rank "
        why = "the tolerance is made from W_after, whose rounding it is, not from the change"
        require(got[1] <= expected[1] or size < 1, f"{seen}{expected[1]}: {why}")
        for why, rank in _wrong_ranks(before, after).items():
            require(got[1] == expected[1] or got[1] != rank, f"{seen}{expected[1]}: {why}")
        require(got[1] == expected[1], f"{seen}{expected[1]}")
        why = "it is full if the rank of a matrix is the highest it can have, min(d_in, d_out)"
        require(got[0] == expected[0], f"{seen}{expected[1]}: {why}")
    return "Nothing but the weights was needed: a low rank points to LoRA."


def _wrong_ranks(before: Weights, after: Weights) -> dict[str, int]:
    """What known mistakes make of the rank, and what to say of each."""
    eps, ours, without, coarse = np.finfo(np.float32).eps, [], [], []
    for name, W in after.items():
        S = np.linalg.svd(W.astype(float) - before[name], compute_uv=False)
        ours.append(int(np.sum(eps * np.linalg.norm(W) < S)))
        without.append(int(np.sum(1e-12 * S[0] < S)))
        coarse.append(int(np.sum(0.01 * S[0] < S)))
    return {
        "rounding alone gives every direction some strength: use the tolerance": max(without),
        "weak directions count too; leave out only what may be rounding": max(coarse),
        "not every matrix need have an adapter: take the largest rank of all": min(ours),
    }
