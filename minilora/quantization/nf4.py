"""NF4, QLoRA's format (Dettmers et al. 2023, section 3): about 4.13 bits a weight.

Weights are nearly normally distributed, so 16 quantiles of a normal distribution are used about
equally often. 64 neighbours of a row share a scale, their largest magnitude. Double quantization
keeps the scales in 8 bits: what each differs from their mean, in steps of 1/127 of the largest
such difference among 256 of them. The paper takes 8-bit floats there, we take whole numbers.
"""

from __future__ import annotations

from functools import lru_cache
from statistics import NormalDist

import numpy as np

from minilora.nn import Embedding, Linear, Module
from minilora.quantization.quantized import Blocks, quantize

BLOCK, SCALES = 64, 256  # weights that share a scale, and scales that share theirs


@lru_cache(maxsize=1)
def nf4_levels() -> np.ndarray:
    """The 16 numbers of NF4, float32: quantiles of a normal distribution, the outermost scaled to
    ±1, zero among them (Dettmers et al. 2023, appendix E)."""
    end, quantile = 1 - (1 / 32 + 1 / 30) / 2, NormalDist().inv_cdf
    above = [quantile(p) for p in np.linspace(end, 0.5, 9)[:-1]]
    below = [-quantile(p) for p in np.linspace(end, 0.5, 8)[:-1]]
    levels = np.array([*below, 0.0, *reversed(above)], np.float32)
    levels /= levels[-1]
    levels.flags.writeable = False
    return levels


class Nf4(Blocks):
    """A matrix (rows, columns) in NF4 with double quantization; columns divisible by 64."""

    kind = "NF4"

    def __init__(self, W: np.ndarray) -> None:
        self.shape = rows, columns = W.shape
        blocks = W.reshape(-1, BLOCK)
        self.scales = _EightBits(np.abs(blocks).max(axis=1))
        scale = self.scales.numbers()[:, None]
        middles = (nf4_levels()[1:] + nf4_levels()[:-1]) / 2
        codes = np.searchsorted(middles, blocks / np.where(scale > 0, scale, 1)).astype(np.uint8)
        self.packed = (codes[:, ::2] << 4 | codes[:, 1::2]).reshape(rows, columns // 2)
        self.nbytes = self.packed.nbytes + self.scales.nbytes

    def numbers(self, rows: slice | np.ndarray = slice(None)) -> np.ndarray:
        packed = self.packed[rows]
        out = _pairs()[packed].reshape(len(packed), -1, BLOCK)  # a byte -> two numbers
        out *= self.scales.numbers().reshape(self.shape[0], -1)[rows][:, :, None]
        return out.reshape(len(packed), -1)


class _EightBits:
    """Scales (n,) as a mean, differences from it in int8, and a step for each 256 of these."""

    def __init__(self, scales: np.ndarray) -> None:
        self.n, self.mean = len(scales), float(scales.mean())
        differences = np.zeros(-(-self.n // SCALES) * SCALES, np.float32)
        differences[: self.n] = scales - self.mean
        rows = differences.reshape(-1, SCALES)
        self.steps = np.abs(rows).max(axis=1, keepdims=True) / 127
        self.codes = np.rint(rows / np.where(self.steps > 0, self.steps, 1)).astype(np.int8)
        self.nbytes = self.codes.nbytes + self.steps.nbytes

    def numbers(self) -> np.ndarray:
        return np.maximum(self.codes * self.steps + self.mean, 0).ravel()[: self.n]


@lru_cache(maxsize=1)
def _pairs() -> np.ndarray:
    """The two numbers that each byte stands for.   (256, 2)"""
    byte = np.arange(256)
    return np.stack([nf4_levels()[byte >> 4], nf4_levels()[byte & 15]], axis=1)


def quantize_nf4(model: Module) -> None:
    """Keep the Linears of the blocks in NF4, in place, and freeze the model, for LoRA beside it.

    Embedding, head, norms and biases stay as they are, as in QLoRA; so does a Linear whose d_in is
    no multiple of 64. Raises ValueError for a model that has adapters already.
    """

    def make(path: str, module: Linear | Embedding) -> Nf4 | None:
        in_block = isinstance(module, Linear) and path.startswith("layers.")
        fits = in_block and not len(module.weight.data) % BLOCK
        return Nf4(np.ascontiguousarray(module.weight.data.T)) if fits else None

    quantize(model, make)
