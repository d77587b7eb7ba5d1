"""DoRA, PiSSA and OLoRA: kinds of LoRA that train something more, or a part of W itself.

Each is a LowRank that does one thing more, so that lora.py can show LoRA alone. Where A and B of
PiSSA and OLoRA start is said in lora_init.py.
Sources: Liu et al. 2024 (DoRA); Meng et al. 2024 (PiSSA); Büyükakyüz 2024 (OLoRA).
"""

from __future__ import annotations

import numpy as np

from minilora.lora import KINDS, LowRank
from minilora.nn import Parameter, Rng
from minilora.system.errors import UsageError
from minilora.tensor import Tensor


class Dora(LowRank):
    """DoRA trains the length m of every column of W apart from its direction:

    W' = m V / ‖V‖ by columns, with V = W + s A B and m (d_out,) starting as ‖W‖.
    ‖V‖ counts as a constant: no gradient flows through it (Liu et al. 2024, section 4.3).
    """

    def start(self, W: np.ndarray) -> None:
        self.m = Parameter(np.linalg.norm(W, axis=0))

    def __call__(self, x: Tensor, W: Tensor, b: Tensor | None, rng: Rng | None) -> Tensor:
        lengths = np.linalg.norm(W.data + super().delta(W.data), axis=0)  # (d_out,)
        y = super().__call__(x, W, None, rng) * (self.m / lengths)
        return y if b is None else y + b

    def delta(self, W: np.ndarray) -> np.ndarray:
        V = W + super().delta(W)
        return V * (self.m.data / np.linalg.norm(V, axis=0)) - W


class PartOfW(LowRank):
    """PiSSA and OLoRA start A and B as a part of W, s A0 B0, and take that part out of W.

    What is left of W, the residual, is frozen: W' = (W - s A0 B0) + s A B.
    """

    def start(self, W: np.ndarray) -> None:
        super().start(W)
        self.A0, self.B0 = Tensor(self.A.data.copy()), Tensor(self.B.data.copy())
        self.residual = Tensor(W - self.A.data @ self.B.data * self.s)

    def __call__(self, x: Tensor, W: Tensor, b: Tensor | None, rng: Rng | None) -> Tensor:
        return super().__call__(x, self.residual, b, rng)

    def delta(self, W: np.ndarray) -> np.ndarray:
        return super().delta(self.residual.data) + (self.residual.data - W)

    def factors(self, W: np.ndarray) -> dict[str, np.ndarray]:
        """ΔW = s (A B - A0 B0) is a plain adapter of twice the rank, [A, A0] times [B; -B0].

        PEFT calls this conversion (subtract_mutated_init). Raises ValueError if W is not the one
        that the part was taken from.
        """
        A0, B0 = self.A0.data, self.B0.data
        off = np.abs(W - A0 @ B0 * self.s - self.residual.data).max()
        if not off <= 1e-5 * np.abs(W).max():
            raise UsageError(
                "the base model's weights have changed since PiSSA or OLoRA took a part out of "
                "them, so that ΔW is not of low rank any more; change the base first, then add "
                "the adapter"
            )
        plain = super().factors(W)
        A, B = np.concatenate([plain["A"], A0], axis=1), np.concatenate([plain["B"], -B0])
        return plain | {"A": A, "B": B}  # r -> 2r


class DoraOfPartOfW(PartOfW, Dora):
    """DoRA whose A and B start as a part of W: PartOfW hands Dora the residual in W's place."""


KINDS |= {"dora": Dora, "part of W": PartOfW, "dora of a part of W": DoraOfPartOfW}
