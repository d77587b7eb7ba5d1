"""Which directions ΔW uses: are they those of another run, and does W stress them already?

Source: Hu et al. 2021, section 7 (similarity of subspaces, amplification). Directions are singular
vectors: see spectrum.py.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from minilora.analysis.spectrum import directions, require_count, require_pair, singular_values
from minilora.nn import Rng
from minilora.system.checks import require_rng, require_whole
from minilora.system.cores import one_blas_thread


def subspace_similarities(X: np.ndarray, Y: np.ndarray) -> np.ndarray:
    """φ(i, j) = ‖U_iᵀ U'_j‖_F² / min(i, j) for all i and j, at index [i - 1, j - 1].

    U_i (d_in, i) are the top i input-side singular directions of X (d_in, ...), here the left ones,
    U'_j those of Y: two A (d_in, r) or two ΔW. φ is the mean squared cosine of their principal
    angles: 1 when one space holds the other, 0 when they are orthogonal. Only directions with a
    non-zero singular value count. Compare with chance_similarity.
    Raises ValueError for different d_in or a zero matrix.
    Source: Hu et al. 2021, section 7.2, equation 4.
    """
    X, Y = require_pair(X, Y, same=1)
    U, U_other = directions(X)[0], directions(Y)[0]
    squares = (U.T @ U_other) ** 2  # (i_max, j_max)
    i, j = (np.arange(1, n + 1) for n in squares.shape)
    return squares.cumsum(axis=0).cumsum(axis=1) / np.minimum(i[:, None], j)


def subspace_similarity(X: np.ndarray, Y: np.ndarray) -> float:
    """φ(i, j) of subspace_similarities with all the directions there are of X and of Y."""
    return float(subspace_similarities(X, Y)[-1, -1])


def chance_similarity(i: int, j: int, d: int) -> float:
    """max(i, j) / d: what φ(i, j) is on average for two random subspaces of d dimensions.

    A random unit vector u of d entries has E u_k² = 1/d for each k, as the d squares sum to 1 and
    no axis is preferred. So its squared cosine with any fixed unit vector is 1/d on average, and
    ‖U_iᵀ U'_j‖_F², a sum of i j of them, is i j / d; φ divides by min(i, j). Hu et al. 2021 compare
    r = 8 with r = 64 at d_in = 12,288: 64/12,288 = 0.005. Raises ValueError unless 1 ≤ i, j ≤ d.
    """
    require_whole(1, d=d)
    require_count("i", i, 1, d)
    require_count("j", j, 1, d)
    return max(i, j) / d


@dataclass(frozen=True)
class Amplification:
    """How strong W is along the directions of ΔW, beside how strong ΔW is (Hu et al., Table 7)."""

    delta_norm: float  # ‖ΔW‖_F
    projected: float  # ‖Uᵀ W V‖_F with U, V the top r directions of ΔW
    own: float  # the same with the top r directions of W: the most there can be
    random: float  # the same with random directions: the level of chance
    factor: float  # delta_norm / projected


@one_blas_thread()
def amplification(W: np.ndarray, delta: np.ndarray, r: int, rng: Rng) -> Amplification:
    """Does ΔW strengthen what W does already? W and ΔW (d_in, d_out), top r directions of each.

    Hu et al. 2021, section 7.3 and Table 7 (GPT-3, layer 48, r = 4): ‖ΔW_q‖ = 6.91; W along ΔW's
    directions 0.32, its own 21.67, random ones 0.02; so ΔW amplifies by 21.5 directions that W has
    but does not stress. `random` is the mean over 20 pairs of random orthonormal U and V, near
    r ‖W‖_F / √(d_in d_out); factor is infinite when W has nothing along ΔW.
    Raises ValueError for different shapes, ΔW = 0 or an r above the rank of ΔW.
    """
    W, delta = require_pair(W, delta, same=2)
    require_rng(rng)
    U, V = directions(delta)
    require_count("r", r, 1, U.shape[1])
    delta_norm = float(np.linalg.norm(delta))
    projected = float(np.linalg.norm(U[:, :r].T @ W @ V[:, :r]))
    own = float(np.linalg.norm(singular_values(W)[:r]))
    by_chance = []
    for _ in range(20):
        U_random, V_random = (np.linalg.qr(rng.standard_normal((d, r)))[0] for d in W.shape)
        by_chance.append(np.linalg.norm(U_random.T @ W @ V_random))
    factor = delta_norm / projected if projected > 0 else math.inf
    return Amplification(delta_norm, projected, own, float(np.mean(by_chance)), factor)
