"""Matrices whose singular values and directions are known without computing them."""

import numpy as np

from minilora.analysis.subspaces import amplification


def orthonormal(d: int, n: int, seed: int) -> np.ndarray:
    return np.linalg.qr(np.random.default_rng(seed).standard_normal((d, n)))[0]


def matrix(sigma: list[float], d_in: int, d_out: int, seed: int = 0) -> np.ndarray:
    U, V = orthonormal(d_in, len(sigma), seed), orthonormal(d_out, len(sigma), seed + 1)
    return (U * sigma) @ V.T


def axes(*numbers: int, d: int = 6) -> np.ndarray:
    return np.eye(d)[:, list(numbers)]


def amplify(W, delta, r, seed=0):
    return amplification(W, delta, r, np.random.default_rng(seed))
