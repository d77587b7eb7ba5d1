"""Where A and B of an adapter start, those of PiSSA and OLoRA too.

LoRA starts A at random and B at zero, so that ΔW = 0. Were both zero, neither would ever have a
gradient: dA needs B, and dB needs A. PiSSA and OLoRA start A and B as a part of W itself and take
that part out of W, so that the sum is W again, but what trains is what W does most.
Sources: Hu et al. 2021, section 4.1 (LoRA); Meng et al. 2024 (PiSSA); Büyükakyüz 2024 (OLoRA).
"""

from __future__ import annotations

import math

import numpy as np

from minilora.nn import Rng
from minilora.system.checks import require_positive, require_rng, require_whole
from minilora.system.errors import UsageError

PART_OF_W = ("pissa", "olora")  # with these, s A B is taken out of W when an adapter is added
INITS = (True, False, "gaussian", *PART_OF_W)


def initial_factors(
    W: np.ndarray, r: int, scale: float, init: bool | str, rng: Rng | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """A (d_in, r) and B (r, d_out) for W (d_in, d_out) and ΔW = scale · A B, of W's dtype.

    init: True: A uniform in ±1/sqrt(d_in); "gaussian": A normal with std 1/r; both with B = 0.
        False: B uniform in ±1/sqrt(r) too, so that ΔW is not zero. "pissa": s A B is W's best
        approximation of rank r, its r largest singular values shared evenly between A and B.
        "olora": with Wᵀ = Q R, B is the first r columns of Q and A the first r rows of R,
        transposed. rng: draws the random ones; "pissa" and "olora" need none.
    Raises ValueError, which names the argument, for what cannot be meant.
    """
    _check(W, r, scale, init, rng)
    d_in, d_out = W.shape
    if init == "pissa":
        U, S, Vt = np.linalg.svd(W.astype(np.float64), full_matrices=False)
        if S[r - 1] <= S[0] * max(W.shape) * np.finfo(np.float32).eps:
            raise UsageError(f"W has fewer than {r} directions for PiSSA to start from: lower r")
        root = np.sqrt(S[:r] / scale)
        A, B = U[:, :r] * root, root[:, None] * Vt[:r]
    elif init == "olora":
        Q, R = np.linalg.qr(W.astype(np.float64).T)
        A, B = R[:r].T, Q[:, :r].T
    else:
        assert rng is not None  # see _check
        if init == "gaussian":
            A = rng.standard_normal((d_in, r)) / r
        else:
            A = rng.uniform(-1, 1, (d_in, r)) / math.sqrt(d_in)
        B = np.zeros((r, d_out))
        if init is False:
            B = rng.uniform(-1, 1, (r, d_out)) / math.sqrt(r)
    return A.astype(W.dtype), B.astype(W.dtype)


def _check(W: np.ndarray, r: int, scale: float, init: bool | str, rng: Rng | None) -> None:
    if W.ndim != 2 or W.dtype not in (np.float32, np.float64):
        raise UsageError(f"W must be a matrix of floats, got {W.dtype} {W.shape}")
    require_whole(1, r=r)
    require_positive(scale=scale)
    if r > min(W.shape):
        raise UsageError(f"r is at most {min(W.shape)} for W {W.shape}, got {r}")
    if init not in INITS:
        raise UsageError(f"init must be one of {INITS}, got {init!r}")
    if init not in PART_OF_W or rng is not None:
        require_rng(rng)
    if init in PART_OF_W and not np.isfinite(W).all():
        raise UsageError("W holds inf or nan, so that nothing can start as a part of it")
