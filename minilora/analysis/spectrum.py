"""The singular values of a matrix, such as ΔW: how many directions it has, and which are new.

LoRA bets that ΔW needs few directions. Its singular value decomposition (SVD) ΔW = U Σ Vᵀ tells
how many it has: each σ is the strength of one direction. In our layout, y = x W, the columns of U
(left singular vectors) are directions of the layer's input x, those of V (right) of its output y;
papers that write y = W x call these right and left. All is computed in float64 and, as threads of
BLAS's own only cost time at these sizes, in one thread. Each function names its source.
"""

from __future__ import annotations

import math

import numpy as np

from minilora.nn import Rng
from minilora.system.checks import require_between, require_rng, require_whole
from minilora.system.cores import one_blas_thread
from minilora.system.errors import UsageError


@one_blas_thread()
def singular_values(M: np.ndarray) -> np.ndarray:
    """σ_1 ≥ σ_2 ≥ ... ≥ 0 of M (d_in, d_out): min(d_in, d_out) of them.

    Raises ValueError, as all functions here, if M is not a matrix of finite numbers.
    """
    return np.linalg.svd(require_matrix(M), compute_uv=False)


def effective_rank(M: np.ndarray) -> float:
    """exp of the entropy of p_i = σ_i / Σ σ: n for n equal singular values, 0 for a zero matrix.

    Source: Roy & Vetterli 2007, "The effective rank".
    """
    return effective_rank_of(singular_values(M))


def effective_rank_of(S: np.ndarray) -> float:
    """effective_rank of the matrix whose singular values are S, largest first."""
    p = S[S > 0] / S.sum() if S[0] > 0 else S[:0]
    return math.exp(-np.sum(p * np.log(p))) if p.size else 0.0


def stable_rank(M: np.ndarray) -> float:
    """‖M‖_F² / σ_1², at most the rank, and unmoved by small singular values; 0 for a zero matrix.

    Source: Rudelson & Vershynin 2007, "Sampling from large matrices" ("numerical rank" there).
    """
    return stable_rank_of(singular_values(M))


def stable_rank_of(S: np.ndarray) -> float:
    """stable_rank of the matrix whose singular values are S, largest first."""
    return float(np.sum(_relative_energy(S)))


def k90(M: np.ndarray) -> int:
    """The fewest directions k with Σ_{i≤k} σ_i² at least 90 % of ‖M‖_F²; 0 for a zero matrix.

    No approximation of a lower rank leaves so little out (Eckart & Young 1936).
    """
    return k90_of(singular_values(M))


def k90_of(S: np.ndarray) -> int:
    """k90 of the matrix whose singular values are S, largest first."""
    held = np.cumsum(_relative_energy(S))
    enough = held >= 0.9 * held[-1] * (1 - 1e-12)  # 9 of 10 equal ones are 0.9, rounding or not
    return int(np.argmax(enough)) + 1 if held[-1] > 0 else 0


def _relative_energy(S: np.ndarray) -> np.ndarray:
    """(σ_i / σ_1)², or zeros: squares of σ itself could leave the range of floats."""
    return (S / S[0]) ** 2 if S[0] > 0 else S


def relative_norm(delta: np.ndarray, W: np.ndarray) -> float:
    """‖ΔW‖_F / ‖W‖_F. Raises ValueError for different shapes or W = 0."""
    delta, W = require_pair(delta, W, same=2)
    if not W.any():
        raise UsageError("W is all zeros, so no ΔW is large or small beside it: check the order")
    return float(np.linalg.norm(delta) / np.linalg.norm(W))


@one_blas_thread()
def truncate(M: np.ndarray, k: int) -> np.ndarray:
    """The matrix of rank k nearest to M (d_in, d_out), its top k directions: U_k Σ_k V_kᵀ.

    k from 0 (zeros) to min(d_in, d_out), else ValueError. Source: Eckart & Young 1936.
    """
    M = require_matrix(M)
    require_count("k", k, 0, min(M.shape))
    U, S, Vt = np.linalg.svd(M, full_matrices=False)
    return (U[:, :k] * S[:k]) @ Vt[:k]


def eckart_young_tail(M: np.ndarray, k: int) -> float:
    """Σ_{i>k} σ_i² = ‖M - truncate(M, k)‖_F²: what the best matrix of rank k still gets wrong.

    k from 0 to min(d_in, d_out), else ValueError. Source: Eckart & Young 1936.
    """
    S = singular_values(M)
    require_count("k", k, 0, len(S))
    return float(np.sum(S[k:] ** 2))


def intruder_dimensions(
    W: np.ndarray, W_after: np.ndarray, k: int = 10, epsilon: float = 0.5
) -> int:
    """How many of the top k output directions of W_after have |cosine| < epsilon with all of W's.

    Source: Shuttleworth et al. 2024, "LoRA vs full fine-tuning: an illusion of equivalence". Their
    left singular vectors of W (d_out, d_in) are the right ones of our W (d_in, d_out). Directions
    with singular value 0 are arbitrary and count on neither side. In few dimensions cosines are
    large by chance, and intruders go unseen: see chance_best_cosine.
    Raises ValueError for different shapes, a zero matrix, k outside 1 ... min(d_in, d_out) or an
    epsilon that is no cosine.
    """
    return int(np.sum(_intrudes(*require_pair(W, W_after, same=2), k, epsilon)))


@one_blas_thread()
def intruder_part(
    W: np.ndarray, W_after: np.ndarray, k: int = 10, epsilon: float = 0.5
) -> np.ndarray:
    """Σ σ u vᵀ (d_in, d_out) over the intruders of W_after: subtracted, it leaves W_after without.

    Which they are is said in intruder_dimensions. Source: Shuttleworth et al. 2024, who scale it.
    """
    W, W_after = require_pair(W, W_after, same=2)
    intrudes = _intrudes(W, W_after, k, epsilon)
    U, S, Vt = np.linalg.svd(W_after, full_matrices=False)
    chosen = np.flatnonzero(intrudes)
    return (U[:, chosen] * S[chosen]) @ Vt[chosen]


def _intrudes(W: np.ndarray, W_after: np.ndarray, k: int, epsilon: float) -> np.ndarray:
    """Of each of the top k directions of W_after (k,): is it an intruder?"""
    require_count("k", k, 1, min(W.shape))
    require_between(0, 1, epsilon=epsilon)  # a cosine
    V, V_after = directions(W)[1], directions(W_after)[1][:, :k]
    return np.abs(V.T @ V_after).max(axis=0) < epsilon  # (n, k) -> (k,)


def chance_best_cosine(d: int, rng: Rng, draws: int = 1000) -> float:
    """The mean best |cosine| of a random unit vector with the d vectors of an orthonormal basis.

    What intruder_dimensions sees by chance alone: 0.53 at d = 16, 0.33 at d = 64, 0.12 at d = 768.
    The axes serve as the basis, as a random vector prefers none. rng: draws the vectors.
    """
    require_whole(1, d=d, draws=draws)
    require_rng(rng)
    x = rng.standard_normal((draws, d))
    return float(np.mean(np.abs(x).max(axis=1) / np.linalg.norm(x, axis=1)))


@one_blas_thread()
def directions(M: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """U (d_in, n) and V (d_out, n): the n singular directions of M with a singular value above 0.

    "Above 0" is above what rounding of float32 weights leaves, σ_1 max(d_in, d_out) 2⁻²³: the rule
    of np.linalg.matrix_rank. Raises ValueError for a zero matrix.
    """
    U, S, Vt = np.linalg.svd(M, full_matrices=False)
    if S[0] == 0:
        raise UsageError("a zero matrix has no directions; is this adapter still at B = 0?")
    n = int(np.sum(S / S[0] > max(M.shape) * np.finfo(np.float32).eps))
    return U[:, :n], Vt[:n].T


def require_matrix(M: np.ndarray) -> np.ndarray:
    """M in float64. Raises ValueError if it is not a matrix of finite real numbers."""
    try:
        M = np.asarray(M)
    except ValueError:
        raise UsageError("expected a matrix of real numbers, got rows of several lengths") from None
    if M.dtype.kind not in "fiu":
        raise UsageError(f"expected a matrix of real numbers, got an array of {M.dtype}")
    M = M.astype(np.float64)
    if M.ndim != 2 or M.size == 0:
        raise UsageError(f"expected a matrix (d_in, d_out) of at least one entry, got {M.shape}")
    if not np.isfinite(M).all():
        raise UsageError("the matrix holds inf or nan: train again with a lower learning rate")
    return M


def require_pair(M: np.ndarray, N: np.ndarray, same: int) -> tuple[np.ndarray, np.ndarray]:
    """Two matrices that agree in the first `same` of their two sizes."""
    M, N = require_matrix(M), require_matrix(N)
    if M.shape[:same] != N.shape[:same]:
        what = "d_in" if same == 1 else "(d_in, d_out)"
        raise UsageError(f"the two must have the same {what}: got {M.shape} and {N.shape}")
    return M, N


def require_count(name: str, value: int, low: int, high: int) -> None:
    require_whole(low, **{name: value})
    if value > high:
        raise UsageError(f"{name} is at most {high} for these sizes, got {value}")
