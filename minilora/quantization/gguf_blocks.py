"""The blocks of a .gguf file: 32 neighbouring numbers share one scale, so each needs 4 or 8 bits.

Q8_0: a float16 d and 32 int8 q, x = d q. Q4_0: d and 32 nibbles q of 0 to 15, x = d (q - 8).
Q4_1: d, m and 32 nibbles, x = d q + m. Of 16 bytes of nibbles, the low ones are the first half of
the block, the high ones the second. F32, F16 and BF16 are no blocks: each number stands alone.
Source: ggml-common.h and ggml-quants.c in ggml-org/ggml.
"""

from __future__ import annotations

import numpy as np

from minilora.quantization.quantized import Blocks

BLOCKS = {  # kind: (numbers in a block, bytes of a block)
    "F32": (1, 4),
    "F16": (1, 2),
    "BF16": (1, 2),
    "Q4_0": (32, 18),
    "Q4_1": (32, 20),
    "Q8_0": (32, 34),
}


def dequantize(kind: str, blocks: np.ndarray) -> np.ndarray:
    """Whole rows of blocks, uint8 (n, bytes of a row) -> float32 (n, columns)."""
    per_block, block_bytes = BLOCKS[kind]
    n, row_bytes = blocks.shape
    if kind in ("F32", "F16"):
        plain = np.ascontiguousarray(blocks).view("<f4" if kind == "F32" else "<f2")
        return plain.astype(np.float32)
    if kind == "BF16":  # the upper half of a float32
        halves = np.ascontiguousarray(blocks).view("<u2").astype(np.uint32)
        return (halves << 16).view(np.float32)
    parts = blocks.reshape(-1, block_bytes)
    d = parts[:, :2].copy().view("<f2").astype(np.float32)  # (blocks, 1)
    out = np.empty((len(parts), per_block), np.float32)
    if kind == "Q8_0":
        np.multiply(parts[:, 2:].view(np.int8), d, out=out)
    else:
        nibbles = parts[:, -16:]
        np.bitwise_and(nibbles, 15, out=out[:, :16], casting="unsafe")
        np.right_shift(nibbles, 4, out=out[:, 16:], casting="unsafe")
        if kind == "Q4_0":
            out -= 8
        out *= d
        if kind == "Q4_1":
            out += parts[:, 2:4].copy().view("<f2").astype(np.float32)
    return out.reshape(n, row_bytes // block_bytes * per_block)


def is_finite(kind: str, blocks: np.ndarray) -> bool:
    """Whether no number in these rows of blocks is NaN or infinite: of a block it is enough to
    look at d and m, because d and m of float16 times 8 bits cannot overflow float32."""
    per_block, block_bytes = BLOCKS[kind]
    if per_block == 1:
        return all(np.isfinite(dequantize(kind, row[None])).all() for row in blocks)
    scales = blocks.reshape(-1, block_bytes)[:, : 4 if kind == "Q4_1" else 2]
    return bool(np.isfinite(scales.copy().view("<f2")).all())


class GgufBlocks(Blocks):
    """A matrix of a .gguf file, (rows, columns), in the file's own blocks."""

    def __init__(self, kind: str, shape: tuple[int, int], blocks: np.ndarray) -> None:
        self.kind, self.shape, self.blocks, self.nbytes = kind, shape, blocks, blocks.nbytes

    def numbers(self, rows: slice | np.ndarray = slice(None)) -> np.ndarray:
        return dequantize(self.kind, self.blocks[rows])
