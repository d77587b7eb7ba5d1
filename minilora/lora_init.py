"""Where the factors A and B of an adapter start.

LoRA starts A at random and B at zero, so that ΔW = 0. Were both zero, neither would ever have a
gradient: dA needs B, and dB needs A. PiSSA and OLoRA start A and B as a part of W itself and take
that part out of W, so that the sum is W again, but what trains is what W does most.
Sources: Hu et al. 2021, section 4.1 (LoRA); Meng et al. 2024 (PiSSA); Büyükakyüz 2024 (OLoRA).
Imports nn.py.
"""

from __future__ import annotations

import math

import numpy as np

from minilora.nn import Rng

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
    """
    d_in, d_out = W.shape
    if init == "pissa":
        U, S, Vt = np.linalg.svd(W.astype(np.float64), full_matrices=False)
        root = np.sqrt(S[:r] / scale)
        A, B = U[:, :r] * root, root[:, None] * Vt[:r]
    elif init == "olora":
        Q, R = np.linalg.qr(W.astype(np.float64).T)
        A, B = R[:r].T, Q[:, :r].T
    else:
        assert rng is not None
        if init == "gaussian":
            A = rng.standard_normal((d_in, r)) / r
        else:
            A = rng.uniform(-1, 1, (d_in, r)) / math.sqrt(d_in)
        B = np.zeros((r, d_out))
        if init is False:
            B = rng.uniform(-1, 1, (r, d_out)) / math.sqrt(r)
    return A.astype(W.dtype), B.astype(W.dtype)
