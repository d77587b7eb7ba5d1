"""How a Tensor behaves where Python or NumPy expect a number or an array.

It answers like an array where that is safe (`len`, a loop, `float(loss)`, `f"{loss:.3f}"`), and
refuses where the gradient would be lost in silence: `np.exp(t)`, `if t`, `t == u`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np

from minilora.system.errors import UsageError

FLOATS = (np.dtype(np.float32), np.dtype(np.float64))


def to_array(value: Any, dtype: Any = None) -> np.ndarray:
    """Numbers as an array: of `dtype`, or float64 where NumPy made it so, or else float32.

    TypeError for what holds no real numbers: None, text, a Tensor, complex numbers.
    """
    if dtype is None and type(value) is np.ndarray and value.dtype in FLOATS:
        return value
    array = np.asarray(value)
    if array.dtype.kind not in "fiub":
        raise TypeError(f"a Tensor holds real numbers, not {type(value).__name__}: {value!r:.60}")
    if dtype is None:
        from_numpy = isinstance(value, np.ndarray | np.floating)
        dtype = np.float64 if from_numpy and array.dtype.char == "d" else np.float32
    return np.asarray(array, dtype)  # also from another byte order


class ArrayLike:
    """What Tensor has in common with arrays, except for arithmetic (ops.py)."""

    __slots__ = ()
    __array_ufunc__ = None  # makes `ndarray + tensor` call Tensor.__radd__ instead of looping

    if TYPE_CHECKING:
        _data: np.ndarray
        requires_grad: bool
        swapaxes: Callable[..., Any]
        __getitem__: Callable[..., Any]

    shape = property(lambda self: self._data.shape)
    ndim = property(lambda self: self._data.ndim)
    size = property(lambda self: self._data.size)
    dtype = property(lambda self: self._data.dtype)

    @property
    def T(self) -> Any:
        """The transpose of a matrix."""
        if self.ndim != 2:
            raise UsageError(f".T is for matrices, not for shape {self.shape}: use swapaxes(i, j)")
        return self.swapaxes(0, 1)

    def item(self) -> float:
        """The value of a one-element tensor as a Python float."""
        return float(self._data.item())

    def __repr__(self) -> str:
        flag = ", requires_grad=True" if self.requires_grad else ""
        return f"{type(self).__name__}({self._data!r}{flag})"

    def __format__(self, spec: str) -> str:
        return format(self.item(), spec) if spec else repr(self)

    def __float__(self) -> float:
        return self.item()

    def __len__(self) -> int:
        if self.ndim == 0:
            raise TypeError("a single number has no length and no entries: use .item()")
        return len(self._data)

    def __iter__(self) -> Iterator[Any]:
        return iter([self[i] for i in range(len(self))])

    def __array__(self, *args: Any, **kwargs: Any) -> NoReturn:
        raise TypeError("NumPy was given a Tensor, which has a gradient to keep: use .data")

    def __bool__(self) -> NoReturn:
        raise TypeError("a Tensor is neither true nor false: use .data, or `is None`")

    def __eq__(self, other: object) -> NoReturn:
        raise TypeError("== of a Tensor: compare the arrays, .data, or ask `is` for the same one")

    __hash__ = object.__hash__
