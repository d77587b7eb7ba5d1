"""Modules: objects that own parameters, and how these are found, named, saved and loaded.

A `Module` finds its parameters by looking at its own attributes, so a layer is a plain class:
set attributes in `__init__`, compute in `__call__`. Names follow PyTorch.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import is_dataclass
from typing import Any, Self

import numpy as np

from minilora.system.errors import UsageError
from minilora.tensor import Tensor, to_array
from minilora.tree import tree


class Parameter(Tensor):
    """A Tensor that a Module owns and training may change, unless it is `fixed`."""

    __slots__ = ()

    def __init__(self, data: Any, requires_grad: bool = True) -> None:
        super().__init__(data, requires_grad)


class Module:
    """Base of every layer. Parameters and sub-modules are its attributes, or stand in lists,
    tuples and dicts among them: the path of the first in `self.rest = [...]` is "rest.0".

    What stands in several places is one thing: it is listed once, by its first path.
    """

    one_line = False  # True: print(model) does not list the modules within

    def named_children(self) -> list[tuple[str, Module]]:
        """(name, module) of the modules directly within this one."""
        return [(name, m) for name, m in _members(self) if isinstance(m, Module)]

    def named_modules(self, prefix: str = "") -> Iterator[tuple[str, Module]]:
        """(path, module) of this module and all below it, in the order they were made."""
        stack: list[tuple[str, Module]] = [(prefix, self)]
        seen: set[int] = set()
        while stack:
            path, module = stack.pop()
            if id(module) not in seen:
                seen.add(id(module))
                yield path, module
                stack += [(_join(path, k), m) for k, m in reversed(module.named_children())]

    def named_parameters(self) -> Iterator[tuple[str, Parameter]]:
        """(path, parameter), for example ("layers.0.attn.q_proj.weight", ...)."""
        seen: set[int] = set()
        for path, module in self.named_modules():
            for name, p in _members(module):
                if isinstance(p, Parameter) and id(p) not in seen:
                    seen.add(id(p))
                    yield _join(path, name), p

    def parameters(self) -> list[Parameter]:
        return [p for _, p in self.named_parameters()]

    def trainable_parameters(self) -> list[Parameter]:
        return [p for p in self.parameters() if p.requires_grad]

    def requires_grad_(self, flag: bool = True) -> Self:
        """Let every parameter of this module train but fixed ones, or (False) freeze them all."""
        if flag is not True and flag is not False:
            raise TypeError(f"requires_grad_ takes True or False, not {flag!r}")
        for p in self.parameters():
            p.requires_grad = flag and not p.fixed
        return self

    def zero_grad(self) -> None:
        """Forget the gradients: the next backward pass adds to nothing."""
        for p in self.parameters():
            p.grad = None

    def to(self, dtype: Any) -> Self:
        """Convert all that the module holds in place, for example to(np.float64) for gradient
        checks: parameters and their gradients, constants, plain arrays. float32 or float64."""
        if dtype is None or np.dtype(dtype) not in (np.float32, np.float64):
            raise UsageError(f"a model computes in np.float32 or np.float64, not in {dtype}")
        if np.dtype(dtype) != np.float32:
            self._require_no_fixed()
        _convert(self, np.dtype(dtype), set())
        return self

    def get_submodule(self, path: str) -> Any:
        """The module at a dotted path. Raises KeyError that names it."""
        found: Any = self
        for name in filter(None, str(path).split(".")):
            found = {str(key): value for key, value in _items(found)}.get(name)
        if not isinstance(found, Module):
            raise KeyError(f"no module named {path!r}; see model.named_modules()")
        return found

    def set_submodule(self, path: str, module: Module) -> None:
        """Put a module in the place of the one at `path`, in all its places if it has several."""
        self.set_submodules({path: module})

    def set_submodules(self, new: Mapping[str, Module]) -> None:
        """The same for several, by path, in one walk through the model."""
        replaced = {}
        for path, module in new.items():
            old = self.get_submodule(path)
            if old is self or not isinstance(module, Module):
                kind = type(module).__name__
                raise UsageError(f"cannot put a {kind} in the place of the module at {path!r}")
            replaced[id(old)] = module
        for _, owner in list(self.named_modules()):
            _replace(owner, replaced)

    def state_dict(self) -> dict[str, np.ndarray]:
        """A copy of every parameter's array, by path."""
        return {name: p.data.copy() for name, p in self.named_parameters()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Copy arrays into the parameters; all or nothing.

        Raises UsageError naming missing and unexpected keys and wrong shapes, in which case no
        parameter was changed.
        """
        if not isinstance(state, Mapping):
            raise UsageError(
                f"weights come as a dict of arrays by path, not as {type(state).__name__}"
            )
        own = dict(self.named_parameters())
        self._require_no_fixed()
        arrays = {key: to_array(value) for key, value in state.items()}
        wrong = [f"missing {key}" for key in own if key not in arrays]
        wrong += [f"unexpected {key}" for key in arrays if key not in own]
        wrong += [
            f"{key} is {arrays[key].shape} where the model has {p.shape}"
            for key, p in own.items()
            if key in arrays and arrays[key].shape != p.shape
        ]
        if wrong:
            more = [f"and {len(wrong) - 8} more"] if len(wrong) > 8 else []
            listed = "; ".join(wrong[:8] + more)
            raise UsageError(f"these weights do not fit the model: {listed}")
        for name, p in own.items():
            p.data[...] = arrays[name]
            p.version += 1

    def _require_no_fixed(self) -> None:
        if fixed := next((name for name, p in self.named_parameters() if p.fixed), None):
            raise UsageError(f"{fixed} is kept in few bits: call dequantize(model) first")

    def describe(self) -> str:
        """This module's line in `print(model)`."""
        return type(self).__name__

    def __repr__(self) -> str:
        return tree(self)


def _items(held: Any) -> list[tuple[Any, Any]]:
    """What a module or a container holds, by name, key or index."""
    if isinstance(held, Module):
        return list(vars(held).items())
    if isinstance(held, dict):
        return list(held.items())
    return list(enumerate(held)) if isinstance(held, list | tuple) else []


def _members(held: Any) -> Iterator[tuple[str, Module | Parameter]]:
    """(name, member) of every module and parameter in a module, or in a container there."""
    for key, value in _items(held):
        if isinstance(value, Module | Parameter):
            yield str(key), value
        elif isinstance(value, set | frozenset) and any(isinstance(v, Module) for v in value):
            raise UsageError(f"{key} is a set of modules, which has no order: use a list")
        else:
            yield from ((f"{key}.{name}", member) for name, member in _members(value))


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def _replace(held: Any, new: Mapping[int, Module]) -> None:
    """Put new modules where old ones stand, which are known by their id."""
    for name, value in _items(held):
        if id(value) in new and isinstance(held, tuple):
            raise UsageError("a module in a tuple cannot be replaced: keep them in a list")
        if id(value) in new:
            (vars(held) if isinstance(held, Module) else held)[name] = new[id(value)]
        elif not isinstance(value, Module):
            _replace(value, new)


def _convert(held: Any, dtype: np.dtype[Any], seen: set[int]) -> Any:
    """held, changed in place where it can be, or else its copy in another dtype."""
    if isinstance(held, np.ndarray):
        return held.astype(dtype) if held.dtype in (np.float32, np.float64) else held
    if id(held) in seen:
        return held
    seen.add(id(held))
    if isinstance(held, Tensor):
        if held.dtype != dtype:
            held.data, held.version = held.data.astype(dtype), held.version + 1
            held.grad = None if held.grad is None else held.grad.astype(dtype)
    elif type(held) is tuple:
        return tuple(_convert(value, dtype, seen) for value in held)
    else:
        inside = vars(held) if isinstance(held, Module) or is_dataclass(held) else held
        for name, value in _items(inside):
            inside[name] = _convert(value, dtype, seen)
    return held


class ModuleList(Module):
    """Modules in order, numbered "0", "1", ... in paths."""

    def __init__(self, modules: Iterable[Module]) -> None:
        for i, module in enumerate(modules):
            if not isinstance(module, Module):
                raise TypeError(f"a ModuleList holds modules, not {module!r}")
            setattr(self, str(i), module)

    def __len__(self) -> int:
        return len(vars(self))

    def __iter__(self) -> Iterator[Any]:
        return iter(vars(self).values())

    def __getitem__(self, i: int) -> Any:
        return list(self)[i]
