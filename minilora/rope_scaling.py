"""How rotary positions are slowed, so that a model reads longer texts than it was pretrained on.

Pair i of a head turns by position · frequency[i]. A text that is longer than all training texts
would turn the slow pairs by angles that were never seen; slower frequencies keep them in the range.
Sources: Chen et al. 2023 ("linear"); modeling_rope_utils.py in transformers ("llama3").
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from minilora.system.checks import require_between, require_size
from minilora.system.errors import UsageError, brief


@dataclass(frozen=True)
class RopeScaling:
    """kind "linear": every frequency is divided by `factor`. kind "llama3": only those that make
    fewer than low_freq_factor turns in the original_block_size positions of pretraining; those with
    more than high_freq_factor stay; in between, a mixture. Raises ValueError for other kinds, and
    for numbers that are not positive or in the wrong order."""

    kind: str
    factor: float
    low_freq_factor: float = 1.0
    high_freq_factor: float = 4.0
    original_block_size: int = 8192

    def __post_init__(self) -> None:
        if self.kind not in ("linear", "llama3"):
            raise UsageError(f'rope scaling must be "linear" or "llama3", got {brief(self.kind)}')
        low, high = self.low_freq_factor, self.high_freq_factor
        require_between(1e-3, 1e6, factor=self.factor, low_freq_factor=low, high_freq_factor=high)
        require_size(original_block_size=self.original_block_size)
        if low >= high:
            raise UsageError(f"low_freq_factor={low} must be below high_freq_factor={high}")

    def scaled(self, frequencies: np.ndarray) -> np.ndarray:
        """The slower frequencies, in radians per position."""
        if self.kind == "linear":
            return frequencies / self.factor
        turns = self.original_block_size * frequencies / (2 * np.pi)
        low, high = self.low_freq_factor, self.high_freq_factor
        kept = np.clip((turns - low) / (high - low), 0, 1)
        return frequencies * (kept + (1 - kept) / self.factor)
