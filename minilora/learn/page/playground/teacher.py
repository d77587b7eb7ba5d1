"""The random arrays of the page's playground, drawn again in Python, number for number.

random.js and teacher.js say the same in JavaScript. With NumPy's own generator a browser could not
follow; this one is three lines of integer arithmetic.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from minilora.system.checks import require_between, require_whole
from minilora.system.errors import UsageError

SAMPLES = 256


@dataclass(frozen=True)
class Task:
    """x (256, d_in): inputs. delta (d_in, d_out): what is to be learned. A (d_in, r): its start."""

    x: np.ndarray
    delta: np.ndarray
    A: np.ndarray


def draw_task(d_in: int, d_out: int, k: int, spectrum: str, r: int, seed: int) -> Task:
    """The arrays that the page draws for these settings, in float64.

    Δ has rank k; its singular values are 1 ("flat") or fall from 2 to 0.2 ("geometric"). Raises
    UsageError for another spectrum and for ranks that matrices of this size cannot have.
    """
    require_whole(1, d_in=d_in, d_out=d_out, k=k, r=r)
    require_between(1, min(d_in, d_out), k=k, r=r)
    require_whole(0, seed=seed)
    if spectrum not in ("flat", "geometric"):
        raise UsageError(f'spectrum must be "flat" or "geometric", got {spectrum!r}')
    sizes = {"x": (SAMPLES, d_in), "U": (d_in, k), "V": (d_out, k)}
    counts = [2 * rows * columns for rows, columns in sizes.values()]
    drawn = uniform(seed, sum(counts) + d_in * r)
    parts = np.split(drawn, np.cumsum(counts))
    x, U, V = (_normal(part, shape) for part, shape in zip(parts, sizes.values(), strict=False))
    sigma = np.ones(k) if spectrum == "flat" else np.geomspace(2, 0.2, k)
    A = (2 * parts[3].reshape(d_in, r) - 1) / np.sqrt(d_in)
    return Task(x, (_orthonormal(U) * sigma) @ _orthonormal(V).T, A)


def uniform(seed: int, n: int) -> np.ndarray:
    """n numbers in [0, 1): mulberry32 (Tommy Ettinger 2017), whose i-th number mixes the bits of
    seed + i · 0x6D2B79F5 modulo 2^32."""
    i = np.arange(1, n + 1, dtype=np.uint64)
    t = (np.uint64(seed) + i * np.uint64(0x6D2B79F5)).astype(np.uint32)
    t = (t ^ t >> 15) * (t | 1)
    t ^= t + (t ^ t >> 7) * (t | 61)
    return (t ^ t >> 14) / 2**32


def _normal(u: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """A matrix of standard normal numbers, each of two uniform ones (Box & Muller 1958)."""
    return (np.sqrt(-2 * np.log(1 - u[::2])) * np.cos(2 * np.pi * u[1::2])).reshape(shape)


def _orthonormal(M: np.ndarray) -> np.ndarray:
    """Its columns made orthonormal one after the other; np.linalg.qr may turn some round."""
    Q, R = np.linalg.qr(M)
    return Q * np.sign(np.diag(R))
