"""Modules: objects that own parameters, and the layers a transformer is built from.

A `Module` finds its parameters by looking at its own attributes, so a layer is a plain class: set
attributes in `__init__`, compute in `__call__`. Names follow PyTorch. There is no train/eval mode:
dropout happens when a random generator is passed to the call, and only then.
Imports tensor.py, ops.py, functional.py.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np

from minilora import functional as F
from minilora.ops import as_tensor
from minilora.system.errors import UsageError
from minilora.tensor import Tensor

Rng = np.random.Generator


class Parameter(Tensor):
    """A Tensor that a Module owns and training may change."""

    __slots__ = ()

    def __init__(self, data: Any, requires_grad: bool = True) -> None:
        super().__init__(data, requires_grad)


class Module:
    """Base of every layer. Parameters and sub-modules are its attributes (or dicts of them)."""

    def _members(self) -> Iterator[tuple[str, Module | Parameter]]:
        for name, value in vars(self).items():
            if isinstance(value, Module | Parameter):
                yield name, value
            elif isinstance(value, dict):
                for key, item in value.items():
                    if isinstance(item, Module | Parameter):
                        yield f"{name}.{key}", item

    def named_modules(self, prefix: str = "") -> Iterator[tuple[str, Module]]:
        """(path, module) of this module and all below it, in the order they were made."""
        yield prefix, self
        for name, member in self._members():
            if isinstance(member, Module):
                yield from member.named_modules(f"{prefix}.{name}" if prefix else name)

    def named_parameters(self) -> Iterator[tuple[str, Parameter]]:
        """(path, parameter), for example ("layers.0.attn.q_proj.weight", ...)."""
        for path, module in self.named_modules():
            for name, member in module._members():
                if isinstance(member, Parameter):
                    yield f"{path}.{name}" if path else name, member

    def parameters(self) -> list[Parameter]:
        return [p for _, p in self.named_parameters()]

    def trainable_parameters(self) -> list[Parameter]:
        return [p for p in self.parameters() if p.requires_grad]

    def requires_grad_(self, flag: bool = True) -> None:
        """Let every parameter of this module train, or (False) freeze them all."""
        for p in self.parameters():
            p.requires_grad = flag

    def to(self, dtype: Any) -> Module:
        """Convert all parameters in place, for example to(np.float64) for gradient checks."""
        for p in self.parameters():
            p.data = p.data.astype(dtype)
        return self

    def get_submodule(self, path: str) -> Module:
        """The module at a dotted path. Raises KeyError that names it."""
        modules = dict(self.named_modules())
        if path not in modules:
            raise KeyError(f"no module named {path!r}; see model.named_modules()")
        return modules[path]

    def set_submodule(self, path: str, module: Module) -> None:
        parent, _, name = path.rpartition(".")
        self.get_submodule(path)
        setattr(self.get_submodule(parent), name, module)

    def state_dict(self) -> dict[str, np.ndarray]:
        """A copy of every parameter's array, by path."""
        return {name: p.data.copy() for name, p in self.named_parameters()}

    def load_state_dict(self, state: Mapping[str, np.ndarray]) -> None:
        """Copy arrays into the parameters; all or nothing.

        Raises ValueError naming every missing and unexpected key and every wrong shape, in which
        case no parameter was changed.
        """
        own = dict(self.named_parameters())
        wrong = [f"missing {k}" for k in own if k not in state]
        wrong += [f"unexpected {k}" for k in state if k not in own]
        wrong += [
            f"{k} is {state[k].shape} where the model has {p.shape}"
            for k, p in own.items()
            if k in state and state[k].shape != p.shape
        ]
        if wrong:
            raise UsageError("these weights do not fit the model: " + "; ".join(wrong))
        for name, p in own.items():
            p.data[...] = state[name]


class ModuleList(Module):
    """Modules in order, numbered "0", "1", ... in paths."""

    def __init__(self, modules: Iterable[Module]) -> None:
        for i, module in enumerate(modules):
            setattr(self, str(i), module)

    def __len__(self) -> int:
        return len(vars(self))

    def __iter__(self) -> Iterator[Any]:
        return iter(vars(self).values())

    def __getitem__(self, i: int) -> Any:
        return list(self)[i]


class Linear(Module):
    """y = x W + b with W (d_in, d_out), the transpose of PyTorch's layout."""

    def __init__(
        self, d_in: int, d_out: int, bias: bool = True, *, rng: Rng, std: float | None = None
    ) -> None:
        std = 1 / math.sqrt(d_in) if std is None else std
        self.weight = Parameter(rng.standard_normal((d_in, d_out), dtype=np.float32) * std)
        self.bias = Parameter(np.zeros(d_out, np.float32)) if bias else None

    def __call__(self, x: Any, rng: Rng | None = None) -> Tensor:
        """x (..., d_in) -> (..., d_out). rng is for wrappers with dropout: a Linear has none."""
        return F.linear(as_tensor(x, self.weight), self.weight, self.bias)


class Embedding(Module):
    """A table with one row of C numbers per id."""

    def __init__(self, n: int, C: int, *, rng: Rng, std: float = 0.02) -> None:
        self.weight = Parameter(rng.standard_normal((n, C), dtype=np.float32) * std)

    def __call__(self, ids: np.ndarray) -> Tensor:
        """ids int (...) -> (..., C)"""
        return F.embedding(self.weight, ids)


class LayerNorm(Module):
    def __init__(self, C: int, eps: float = 1e-5) -> None:
        self.weight = Parameter(np.ones(C, np.float32))
        self.bias = Parameter(np.zeros(C, np.float32))
        self.eps = eps

    def __call__(self, x: Tensor) -> Tensor:
        return F.layer_norm(x, self.weight, self.bias, self.eps)


class RMSNorm(Module):
    def __init__(self, C: int, eps: float = 1e-5) -> None:
        self.weight = Parameter(np.ones(C, np.float32))
        self.eps = eps

    def __call__(self, x: Tensor) -> Tensor:
        return F.rms_norm(x, self.weight, self.eps)
