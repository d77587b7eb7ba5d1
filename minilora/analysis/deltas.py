"""What training did to the weights: ΔW of any method, its singular values, where it lies beside W.

LoRA bets that ΔW needs few directions. Its singular value decomposition (SVD) ΔW = U Σ Vᵀ tells how
many it has: each σ is the strength of one direction. In our layout, y = x W, the columns of U (left
singular vectors) are directions of the layer's input x, those of V (right) of its output y; papers
that write y = W x call these right and left. All is computed in float64.
Sources: Hu et al. 2021, section 7 (similarity of subspaces, amplification); Shuttleworth et al.
2024 (intruder dimensions); each function names its own. Imports nn.py, lora.py.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from minilora.lora import lora_layers
from minilora.lora_config import base_modules
from minilora.nn import Linear, Module, Rng
from minilora.system.errors import UsageError


def weight_matrices(model: Module) -> dict[str, np.ndarray]:
    """The weight (d_in, d_out) that each Linear of the blocks has in effect, in float64, by path.

    An active adapter counts, merged or not: W + ΔW. Paths are those of the plain model, such as
    "layers.0.attn.q_proj", whatever wraps the Linear as its `base`. Left out are the embeddings,
    the head, and Linears that a wrapper adds beside its base, as a bottleneck adapter does.
    """
    found, adapted = {}, lora_layers(model)
    for path, module in base_modules(model).items():
        if isinstance(module, Linear) and path.startswith("layers."):
            found[path] = module.weight.data.astype(np.float64)
            layer = adapted.get(path)
            if layer is not None and layer.active and layer.unmerged_weight is None:
                found[path] += layer.delta_weight(layer.active)
    return found


def delta_weights(before: Module, after: Module) -> dict[str, np.ndarray]:
    """ΔW = W_after - W_before (d_in, d_out) of each Linear of the blocks, by path.

    Works for whatever the training method was. Raises ValueError, which names the matrices, if the
    two models do not have the same ones.
    """
    old, new = weight_matrices(before), weight_matrices(after)
    shapes = {p: [getattr(m.get(p), "shape", "missing") for m in (old, new)] for p in old | new}
    wrong = [f"{p} is {a} before and {b} after" for p, (a, b) in shapes.items() if a != b]
    if wrong:
        raise UsageError("compare two models of the same architecture: " + "; ".join(wrong))
    return {path: new[path] - old[path] for path in old}


def singular_values(M: np.ndarray) -> np.ndarray:
    """σ_1 ≥ σ_2 ≥ ... ≥ 0 of M (d_in, d_out): min(d_in, d_out) of them.

    Raises ValueError, as all functions here, if M is not a matrix of finite numbers.
    """
    return np.linalg.svd(_matrix(M), compute_uv=False)


def effective_rank(M: np.ndarray) -> float:
    """exp of the entropy of p_i = σ_i / Σ σ: n for n equal singular values, 0 for a zero matrix.

    Source: Roy & Vetterli 2007, "The effective rank".
    """
    S = singular_values(M)
    p = S[S > 0] / S.sum() if S[0] > 0 else S[:0]
    return math.exp(-np.sum(p * np.log(p))) if p.size else 0.0


def stable_rank(M: np.ndarray) -> float:
    """‖M‖_F² / σ_1², at most the rank, and unmoved by small singular values; 0 for a zero matrix.

    Source: Rudelson & Vershynin 2007, "Sampling from large matrices" ("numerical rank" there).
    """
    return float(np.sum(_relative_energy(M)))


def k90(M: np.ndarray, share: float = 0.9) -> int:
    """The fewest directions k with Σ_{i≤k} σ_i² at least `share` of ‖M‖_F²; 0 for a zero matrix.

    No approximation of a lower rank leaves so little out (Eckart & Young 1936). Raises ValueError
    for a share outside (0, 1].
    """
    if not 0 < share <= 1:
        raise UsageError(f"share must lie in (0, 1], such as 0.9, got {share}")
    held = np.cumsum(_relative_energy(M))
    enough = held >= share * held[-1] * (1 - 1e-12)  # 9 of 10 equal ones are 0.9, rounding or not
    return int(np.argmax(enough)) + 1 if held[-1] > 0 else 0


def _relative_energy(M: np.ndarray) -> np.ndarray:
    """(σ_i / σ_1)², or zeros: squares of σ itself could leave the range of floats."""
    S = singular_values(M)
    return (S / S[0]) ** 2 if S[0] > 0 else S


def relative_norm(delta: np.ndarray, W: np.ndarray) -> float:
    """‖ΔW‖_F / ‖W‖_F. Raises ValueError for different shapes or W = 0."""
    delta, W = _pair(delta, W, same=2)
    if not W.any():
        raise UsageError("W is all zeros, so no ΔW is large or small beside it: check the order")
    return float(np.linalg.norm(delta) / np.linalg.norm(W))


def truncate(M: np.ndarray, k: int) -> np.ndarray:
    """The matrix of rank k nearest to M (d_in, d_out), its top k directions: U_k Σ_k V_kᵀ.

    k from 0 (zeros) to min(d_in, d_out), else ValueError. Source: Eckart & Young 1936.
    """
    M = _matrix(M)
    _check_count("k", k, 0, min(M.shape))
    U, S, Vt = np.linalg.svd(M, full_matrices=False)
    return (U[:, :k] * S[:k]) @ Vt[:k]


def eckart_young_tail(M: np.ndarray, k: int) -> float:
    """Σ_{i>k} σ_i² = ‖M - truncate(M, k)‖_F²: what the best matrix of rank k still gets wrong.

    k from 0 to min(d_in, d_out), else ValueError. Source: Eckart & Young 1936.
    """
    S = singular_values(M)
    _check_count("k", k, 0, len(S))
    return float(np.sum(S[k:] ** 2))


def principal_angles(X: np.ndarray, Y: np.ndarray) -> np.ndarray:
    """Angles between the column spaces of X (d, p) and Y (d, q), in radians, ascending.

    There are as many as the smaller space has dimensions. With orthonormal bases Q_X and Q_Y, the
    singular values of Q_Xᵀ Q_Y are the cosines. The cosine of 1e-9 is 1 in floating point, so the
    sines are computed too, from what of Q_Y lies outside X, and each angle is taken from both.
    Raises ValueError for different d or a zero matrix. Source: Björck & Golub 1973.
    """
    X, Y = _pair(X, Y, same=1)
    Q_X, Q_Y = _directions(X)[0], _directions(Y)[0]
    if Q_X.shape[1] < Q_Y.shape[1]:
        Q_X, Q_Y = Q_Y, Q_X  # each direction of the smaller space has its angle to the larger one
    inside = Q_X.T @ Q_Y  # (p, q)
    cosines = np.linalg.svd(inside, compute_uv=False)  # descending: ascending angles
    sines = np.linalg.svd(Q_Y - Q_X @ inside, compute_uv=False)[::-1]
    return np.arctan2(sines, cosines)


def subspace_similarities(X: np.ndarray, Y: np.ndarray) -> np.ndarray:
    """φ(i, j) = ‖U_iᵀ U'_j‖_F² / min(i, j) for all i and j, at index [i - 1, j - 1].

    U_i (d_in, i) are the top i input-side singular directions of X (d_in, ...), here the left ones,
    U'_j those of Y: two A (d_in, r) or two ΔW. φ is the mean squared cosine of their principal
    angles: 1 when one space holds the other, 0 when they are orthogonal. Only directions with a
    non-zero singular value count. Compare with chance_similarity.
    Raises ValueError for different d_in or a zero matrix.
    Source: Hu et al. 2021, section 7.2, equation 4.
    """
    X, Y = _pair(X, Y, same=1)
    U, U_other = _directions(X)[0], _directions(Y)[0]
    squares = (U.T @ U_other) ** 2  # (i_max, j_max)
    i, j = (np.arange(1, n + 1) for n in squares.shape)
    return squares.cumsum(axis=0).cumsum(axis=1) / np.minimum(i[:, None], j)


def subspace_similarity(
    A: np.ndarray, A_other: np.ndarray, i: int | None = None, j: int | None = None
) -> float:
    """φ(i, j) of subspace_similarities for one i and j; None stands for all directions there are.

    Raises ValueError for i or j below 1 or above that number.
    """
    phi = subspace_similarities(A, A_other)
    i, j = (n if given is None else given for given, n in zip((i, j), phi.shape, strict=True))
    _check_count("i", i, 1, phi.shape[0])
    _check_count("j", j, 1, phi.shape[1])
    return float(phi[i - 1, j - 1])


def chance_similarity(i: int, j: int, d: int) -> float:
    """max(i, j) / d: what φ(i, j) is on average for two random subspaces of d dimensions.

    A random unit vector u of d entries has E u_k² = 1/d for each k, as the d squares sum to 1 and
    no axis is preferred. So its squared cosine with any fixed unit vector is 1/d on average, and
    ‖U_iᵀ U'_j‖_F², a sum of i j of them, is i j / d; φ divides by min(i, j). Hu et al. 2021 compare
    r = 8 with r = 64 at d_in = 12,288: 64/12,288 = 0.005. Raises ValueError unless 1 ≤ i, j ≤ d.
    """
    _check_count("i", i, 1, d)
    _check_count("j", j, 1, d)
    return max(i, j) / d


@dataclass(frozen=True)
class Amplification:
    """How strong W is along the directions of ΔW, beside how strong ΔW is (Hu et al., Table 7)."""

    delta_norm: float  # ‖ΔW‖_F
    projected: float  # ‖Uᵀ W V‖_F with U, V the top r directions of ΔW
    own: float  # the same with the top r directions of W: the most there can be
    random: float  # the same with random directions: the level of chance
    factor: float  # delta_norm / projected


def amplification(
    W: np.ndarray, delta: np.ndarray, r: int, rng: Rng, draws: int = 20
) -> Amplification:
    """Does ΔW strengthen what W does already? W and ΔW (d_in, d_out), top r directions of each.

    Hu et al. 2021, section 7.3 and Table 7 (GPT-3, layer 48, r = 4): ‖ΔW_q‖ = 6.91; W along ΔW's
    directions 0.32, its own 21.67, random ones 0.02; so ΔW amplifies by 21.5 directions that W has
    but does not stress. `random` is the mean over `draws` pairs of random orthonormal U and V, near
    r ‖W‖_F / √(d_in d_out); factor is infinite when W has nothing along ΔW.
    Raises ValueError for different shapes, ΔW = 0 or an r above the rank of ΔW.
    """
    W, delta = _pair(W, delta, same=2)
    U, V = _directions(delta)
    _check_count("r", r, 1, U.shape[1])
    delta_norm = float(np.linalg.norm(delta))
    projected = float(np.linalg.norm(U[:, :r].T @ W @ V[:, :r]))
    own = float(np.linalg.norm(singular_values(W)[:r]))
    by_chance = []
    for _ in range(draws):
        U_random, V_random = (np.linalg.qr(rng.standard_normal((d, r)))[0] for d in W.shape)
        by_chance.append(np.linalg.norm(U_random.T @ W @ V_random))
    factor = delta_norm / projected if projected > 0 else math.inf
    return Amplification(delta_norm, projected, own, float(np.mean(by_chance)), factor)


def intruder_dimensions(
    W: np.ndarray, W_after: np.ndarray, k: int = 10, epsilon: float = 0.5
) -> int:
    """How many of the top k output directions of W_after have |cosine| < epsilon with all of W's.

    Source: Shuttleworth et al. 2024, "LoRA vs full fine-tuning: an illusion of equivalence". Their
    left singular vectors of W (d_out, d_in) are the right ones of our W (d_in, d_out). Directions
    with singular value 0 are arbitrary and count on neither side. In few dimensions cosines are
    large by chance, and intruders go unseen: see chance_best_cosine.
    Raises ValueError for different shapes, a zero matrix or k outside 1 ... min(d_in, d_out).
    """
    W, W_after = _pair(W, W_after, same=2)
    _check_count("k", k, 1, min(W.shape))
    V, V_after = _directions(W)[1], _directions(W_after)[1][:, :k]
    best = np.abs(V.T @ V_after).max(axis=0)  # (n, k) -> (k,)
    return int(np.sum(best < epsilon))


def chance_best_cosine(d: int, rng: Rng, draws: int = 1000) -> float:
    """The mean best |cosine| of a random unit vector with the d vectors of an orthonormal basis.

    What intruder_dimensions sees by chance alone: 0.53 at d = 16, 0.33 at d = 64, 0.12 at d = 768.
    The axes serve as the basis, as a random vector prefers none.
    """
    x = rng.standard_normal((draws, d))
    return float(np.mean(np.abs(x).max(axis=1) / np.linalg.norm(x, axis=1)))


def _directions(M: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """U (d_in, n) and V (d_out, n): the n singular directions of M with a singular value above 0.

    "Above 0" is above what rounding of float32 weights leaves, σ_1 max(d_in, d_out) 2⁻²³: the rule
    of np.linalg.matrix_rank. Raises ValueError for a zero matrix.
    """
    U, S, Vt = np.linalg.svd(M, full_matrices=False)
    if S[0] == 0:
        raise UsageError("a zero matrix has no directions; is this adapter still at B = 0?")
    n = int(np.sum(S / S[0] > max(M.shape) * np.finfo(np.float32).eps))
    return U[:, :n], Vt[:n].T


def _matrix(M: np.ndarray) -> np.ndarray:
    M = np.asarray(M, np.float64)
    if M.ndim != 2 or M.size == 0:
        raise UsageError(f"expected a matrix (d_in, d_out) of at least one entry, got {M.shape}")
    if not np.isfinite(M).all():
        raise UsageError("the matrix holds inf or nan: train again with a lower learning rate")
    return M


def _pair(M: np.ndarray, N: np.ndarray, same: int) -> tuple[np.ndarray, np.ndarray]:
    """Two matrices that agree in the first `same` of their two sizes."""
    M, N = _matrix(M), _matrix(N)
    if M.shape[:same] != N.shape[:same]:
        what = "d_in" if same == 1 else "(d_in, d_out)"
        raise UsageError(f"the two must have the same {what}: got {M.shape} and {N.shape}")
    return M, N


def _check_count(name: str, value: int, low: int, high: int) -> None:
    if not low <= value <= high:
        raise UsageError(f"{name} must lie between {low} and {high} for these sizes, got {value}")
