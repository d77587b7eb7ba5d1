"""The singular value decomposition (SVD) of a product A B of thin matrices, without forming it.

With A = Q R and Bᵀ = P T, A B = Q (R Tᵀ) Pᵀ: Q and P have orthonormal columns, so the singular
values of A B are those of the small matrix between them. For r = 16 that is 16 × 16, however large
W is.
"""

from __future__ import annotations

import numpy as np

from minilora.system.cores import one_blas_thread


@one_blas_thread()
def svd_of_product(A: np.ndarray, B: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """U (d_in, n), σ (n,) and Vᵀ (n, d_out) of A B in float64.   A (d_in, R), B (R, d_out)

    σ falls from the largest on, and n is the least of d_in, R and d_out.
    """
    Q, R = np.linalg.qr(A.astype(np.float64))
    P, T = np.linalg.qr(B.astype(np.float64).T)
    U, S, Vt = np.linalg.svd(R @ T.T, full_matrices=False)
    return Q @ U, S, Vt @ P.T


@one_blas_thread()
def best_factors(
    U: np.ndarray, S: np.ndarray, Vt: np.ndarray, r: int, s: float = 1.0
) -> tuple[np.ndarray, np.ndarray, float]:
    """A and B of rank r (or all n, if these are fewer), for which s A B is nearest to U diag(σ) Vᵀ,
    and how far off it still is: ‖U diag(σ) Vᵀ - s A B‖ / ‖U diag(σ) Vᵀ‖, 0 for a zero matrix.

    No matrix of rank r is nearer (Eckart & Young 1936). A and B share each σ evenly.
    """
    root, whole = np.sqrt(S[:r] / s), np.sum(S**2)
    error = float(np.sqrt(np.sum(S[r:] ** 2) / whole)) if whole else 0.0
    return U[:, :r] * root, root[:, None] * Vt[:r], error
