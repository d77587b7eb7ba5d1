"""A base model in few bits: weights whose numbers exist only while they are used.

QLoRA (Dettmers et al. 2023) freezes the base in 4 bits and trains LoRA beside it in full precision.
A `Blocks` holds a matrix in some format (nf4.py, or the blocks of a .gguf file). A
`QuantizedWeight` looks like a frozen Parameter and makes its numbers anew whenever they are asked
for: in the forward pass, and once more in the backward pass, so that no layer keeps them.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import numpy as np

from minilora.functional import require_ids
from minilora.module import Module, Parameter
from minilora.nn import Embedding, Linear
from minilora.system.errors import StateError, UsageError
from minilora.tensor import Tensor


class Blocks(ABC):
    """A matrix (rows, columns) kept in few bits."""

    kind: str
    shape: tuple[int, int]
    nbytes: int

    @abstractmethod
    def numbers(self, rows: slice | np.ndarray = slice(None)) -> np.ndarray:
        """These rows in float32 (n, columns), made anew on every call."""


class QuantizedWeight(Parameter):
    """A frozen weight in blocks: the matrix itself, or (transposed) its transpose, as the W
    (d_in, d_out) of a Linear has the d_out rows of its blocks as columns."""

    __slots__ = ("blocks", "transposed")
    fixed = True

    def __init__(self, blocks: Blocks, transposed: bool) -> None:
        shape = blocks.shape[::-1] if transposed else blocks.shape
        super().__init__(np.broadcast_to(np.float32(np.nan), shape), requires_grad=False)
        self.blocks, self.transposed = blocks, transposed

    @property
    def data(self) -> np.ndarray:
        numbers = self.blocks.numbers()
        numbers.flags.writeable = False  # whoever writes here would write to a copy
        return numbers.T if self.transposed else numbers

    @data.setter
    def data(self, value: Any) -> None:
        raise StateError(
            f"this weight is kept in {self.blocks.kind} and cannot change: apply an adapter beside "
            "it, or call dequantize(model) first"
        )

    def held(self) -> Callable[[], np.ndarray]:
        return lambda: self.data

    def detach(self) -> Tensor:
        return Tensor(self.data)

    def swapaxes(self, i: int, j: int) -> QuantizedWeight:
        """The transpose, in blocks as well: the head of a model with a tied embedding."""
        return QuantizedWeight(self.blocks, not self.transposed)


class QuantizedLinear(Linear):
    """y = x W + b with W in blocks of shape (d_out, d_in)."""

    def __init__(self, blocks: Blocks, bias: Parameter | None = None) -> None:
        self.weight: Parameter = QuantizedWeight(blocks, transposed=True)
        self.bias = bias

    def describe(self) -> str:
        return f"{super().describe()[:-1]}, {_blocks(self).kind})"


class QuantizedEmbedding(Embedding):
    """A table in blocks, of which only the rows that are asked for become numbers."""

    def __init__(self, blocks: Blocks) -> None:
        self.weight: Parameter = QuantizedWeight(blocks, transposed=False)

    def __call__(self, ids: np.ndarray) -> Tensor:
        ids = np.asarray(ids)
        require_ids(self.weight, ids)
        return Tensor(_blocks(self).numbers(ids.ravel()).reshape(*ids.shape, -1))

    def describe(self) -> str:
        return f"{super().describe()[:-1]}, {_blocks(self).kind})"


def is_quantized(model: Module) -> bool:
    """Whether any weight of the model is kept in few bits."""
    return any(isinstance(p, QuantizedWeight) for p in model.parameters())


def quantize(model: Module, make: Callable[[str, Linear | Embedding], Blocks | None]) -> None:
    """Put the weight of Linears and Embeddings in blocks, in place, and freeze the rest.

    make(path, module) gives the blocks of its weight, for a Linear of the transpose (d_out, d_in),
    or None where it is to stay as it is. Raises ValueError for a model that has adapters already.
    """
    if any("base" in vars(m) for _, m in model.named_modules()):
        raise UsageError("quantize a model before anything is added to it: load it again")
    model.requires_grad_(False)
    new: dict[str, Module] = {}
    for path, module in model.named_modules():
        if type(module) is Linear:
            if blocks := make(path, module):
                new[path] = QuantizedLinear(blocks, module.bias)
        elif type(module) is Embedding and (blocks := make(path, module)):
            new[path] = QuantizedEmbedding(blocks)
    model.set_submodules(new)


def dequantize(model: Module) -> None:
    """Make every weight in blocks a plain one in float32, in place: it can then be merged into,
    trained and saved. Raises ValueError for a model with adapters, and for one without blocks."""
    if not is_quantized(model):
        raise UsageError("no weight of this model is kept in few bits")
    if any("base" in vars(m) for _, m in model.named_modules()):
        raise UsageError("save the adapter, load the base again, dequantize it, load the adapter")
    new: dict[str, Module] = {}
    for path, module in model.named_modules():
        if isinstance(module, QuantizedLinear):
            new[path] = Linear.__new__(Linear)
            vars(new[path]).update(weight=Parameter(_copy(module.weight)), bias=module.bias)
        elif isinstance(module, QuantizedEmbedding):
            new[path] = Embedding.__new__(Embedding)
            vars(new[path]).update(weight=Parameter(_copy(module.weight)))
    model.set_submodules(new)
    model.requires_grad_(True)


def _copy(weight: Parameter) -> np.ndarray:
    return np.array(weight.data)  # in the same memory order, which rounding depends on


def _blocks(module: Linear | Embedding) -> Blocks:
    assert isinstance(module.weight, QuantizedWeight)
    return module.weight.blocks
