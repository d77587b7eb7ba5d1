"""The primitive operations, each beside its derivative.

Every function reads the same way: compute with NumPy, then say for each parent how a gradient
g of the result becomes a gradient of that parent. Broadcasting needs no thought here: the
engine sums over repeated axes (`unbroadcast`). Each vjp may capture arrays, never its own
output Tensor, so that no reference cycle keeps memory alive.

Everything a transformer needs can be composed from this file; functional.py holds the same
things fused by hand, and the tests check that both agree.
"""

from __future__ import annotations

from collections.abc import Iterable
from numbers import Real
from typing import Any

import numpy as np

from minilora.system.errors import UsageError
from minilora.tensor import Tensor, record, to_array

Axis = int | tuple[int, ...] | None


def as_tensor(value: Any, like: Tensor) -> Tensor:
    """Numbers and arrays take part as constants, in the dtype of the tensor they meet."""
    return value if isinstance(value, Tensor) else Tensor(to_array(value, like.dtype))


def _array(a: Tensor) -> np.ndarray:
    if not isinstance(a, Tensor):
        raise TypeError(f"expected a Tensor, got {type(a).__name__}; wrap it: Tensor(x)")
    return a.data


def _pair(a: Any, b: Any) -> tuple[Tensor, Tensor]:
    like = a if isinstance(a, Tensor) else b
    _array(like)
    return as_tensor(a, like), as_tensor(b, like)


def add(a: Any, b: Any) -> Tensor:
    a, b = _pair(a, b)
    return record(a.data + b.data, (a, lambda g: g), (b, lambda g: g))


def sub(a: Any, b: Any) -> Tensor:
    a, b = _pair(a, b)
    return record(a.data - b.data, (a, lambda g: g), (b, lambda g: -g))


def mul(a: Any, b: Any) -> Tensor:
    a, b = _pair(a, b)
    x, y = a.data, b.data
    return record(x * y, (a, lambda g: g * y), (b, lambda g: g * x))


def div(a: Any, b: Any) -> Tensor:
    a, b = _pair(a, b)
    x, y = a.data, b.data
    return record(x / y, (a, lambda g: g / y), (b, lambda g: -g * x / (y * y)))


def neg(a: Tensor) -> Tensor:
    return record(-_array(a), (a, lambda g: -g))


def power(a: Tensor, exponent: float) -> Tensor:
    """a ** exponent, a fixed number. Squares are multiplied out: `**` is slow on float32."""
    if not isinstance(exponent, Real):
        kind = type(exponent).__name__
        raise TypeError(f"an exponent is a number, not {kind!r}; a ** b is exp(b * log(a))")
    x, exponent = _array(a), float(exponent)  # a NumPy float64 would turn float32 into float64
    if exponent == 2:
        return record(x * x, (a, lambda g: g * (2 * x)))
    if exponent == 0:  # x ** -1 would be infinite at 0
        return record(np.ones_like(x), (a, lambda g: np.zeros_like(g)))
    return record(x**exponent, (a, lambda g: g * (exponent * x ** (exponent - 1))))


def matmul(a: Any, b: Any) -> Tensor:
    """a (..., n, k) @ b (..., k, m) -> (..., n, m); vectors as in NumPy."""
    a, b = _pair(a, b)
    if b.ndim == 1:
        out = matmul(a, reshape(b, (b.size, 1)))  # (k,) -> (k, 1)
        return reshape(out, out.shape[:-1])
    if a.ndim == 1:
        out = matmul(reshape(a, (1, a.size)), b)  # (k,) -> (1, k)
        return reshape(out, out.shape[:-2] + out.shape[-1:])
    x, y = a.data, b.data
    return record(
        x @ y,
        (a, lambda g: g @ y.swapaxes(-1, -2)),
        (b, lambda g: x.swapaxes(-1, -2) @ g),
    )


def exp(a: Tensor) -> Tensor:
    y = np.exp(_array(a))
    return record(y, (a, lambda g: g * y))


def log(a: Tensor) -> Tensor:
    x = _array(a)
    return record(np.log(x), (a, lambda g: g / x))


def sqrt(a: Tensor) -> Tensor:
    y = np.sqrt(_array(a))
    return record(y, (a, lambda g: g / (2 * y)))


def tanh(a: Tensor) -> Tensor:
    y = np.tanh(_array(a))
    return record(y, (a, lambda g: g * (1 - y * y)))


def tensor_sum(a: Tensor, axis: Axis = None, keepdims: bool = False) -> Tensor:
    x = _array(a)
    y = x.sum(axis=axis, keepdims=True)
    shape, kept = x.shape, y.shape
    return record(
        y if keepdims else np.squeeze(y, axis),
        (a, lambda g: np.broadcast_to(g.reshape(kept), shape)),
    )


def mean(a: Tensor, axis: Axis = None, keepdims: bool = False) -> Tensor:
    total = tensor_sum(a, axis, keepdims)
    if total.size and not a.size:
        raise UsageError(f"the mean over an empty axis of shape {a.shape} is not a number")
    return total * (total.size / max(a.size, 1))


def tensor_max(a: Tensor, axis: Axis = None, keepdims: bool = False) -> Tensor:
    """The largest entries; several that are equal share the gradient equally."""
    x = _array(a)
    y = x.max(axis=axis, keepdims=True)

    def da(g: np.ndarray) -> np.ndarray:
        largest = (x == y).astype(x.dtype)
        return largest * (g.reshape(y.shape) / largest.sum(axis=axis, keepdims=True))

    return record(y if keepdims else np.squeeze(y, axis), (a, da))


def reshape(a: Tensor, *shape: Any) -> Tensor:
    old = _array(a).shape
    return record(a.data.reshape(*shape), (a, lambda g: g.reshape(old)))


def swapaxes(a: Tensor, i: int, j: int) -> Tensor:
    return record(_array(a).swapaxes(i, j), (a, lambda g: g.swapaxes(i, j)))


def getitem(a: Tensor, index: Any) -> Tensor:
    """a[index] for every index that NumPy takes; an entry picked twice collects twice."""
    shape, dtype = _array(a).shape, a.dtype

    def da(g: np.ndarray) -> np.ndarray:
        out = np.zeros(shape, dtype)
        np.add.at(out, index, g)
        return out

    return record(np.asarray(a.data[index]), (a, da))


def concatenate(tensors: Iterable[Any], axis: int = 0) -> Tensor:
    """Tensors, and arrays as constants, one after the other along an axis that they have."""
    given = list(tensors)
    like = next((t for t in given if isinstance(t, Tensor)), None)
    if like is None:
        raise TypeError("expected at least one Tensor to concatenate; wrap one: Tensor(x)")
    parts = [as_tensor(t, like) for t in given]
    out = np.concatenate([t.data for t in parts], axis=axis)
    ends = np.cumsum([t.shape[axis] for t in parts])[:-1]

    def part(i: int) -> Any:
        return lambda g: np.split(g, ends, axis=axis)[i]

    return record(out, *((t, part(i)) for i, t in enumerate(parts)))


def where(condition: np.ndarray, a: Any, b: Any) -> Tensor:
    """a where the boolean array `condition` holds, b elsewhere."""
    a, b = _pair(a, b)
    if np.asarray(condition).dtype != bool:
        raise TypeError("where needs a condition of True and False, such as x.data > 0")
    zero = a.dtype.type(0)
    return record(
        np.where(condition, a.data, b.data),
        (a, lambda g: np.where(condition, g, zero)),
        (b, lambda g: np.where(condition, zero, g)),
    )


Tensor.__add__, Tensor.__radd__ = add, lambda a, b: add(b, a)
Tensor.__sub__, Tensor.__rsub__ = sub, lambda a, b: sub(b, a)
Tensor.__mul__, Tensor.__rmul__ = mul, lambda a, b: mul(b, a)
Tensor.__truediv__, Tensor.__rtruediv__ = div, lambda a, b: div(b, a)
Tensor.__matmul__, Tensor.__rmatmul__ = matmul, lambda a, b: matmul(b, a)
Tensor.__pow__, Tensor.__neg__, Tensor.__getitem__ = power, neg, getitem
Tensor.sum, Tensor.mean, Tensor.max = tensor_sum, mean, tensor_max
Tensor.exp, Tensor.log = exp, log
Tensor.reshape, Tensor.swapaxes = reshape, swapaxes
