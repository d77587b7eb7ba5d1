"""The engine: an array that remembers how it was made, and the walk back through that memory.

A `Tensor` holds a NumPy array. An operation computes its result and calls `record`, handing over,
for each parent, a function that turns "gradient of the result" into "gradient of this parent" (a
vector-Jacobian product, vjp). `backward` walks the recorded graph from the loss to the leaves and
calls those functions. Nothing here knows any particular operation: those are in ops.py.

One rule carries the whole package: `record` keeps a vjp only if its parent needs a gradient. For a
frozen weight W the function that would compute dL/dW, and the input x that it alone would keep
alive, are dropped on the spot. That is where LoRA saves time (a step with LoRA on q and v is 1.3
times as fast as one that computes these gradients, with LoRA on all layers 1.1 times); its smaller
optimizer state and gradients come from training fewer numbers.

The idea of a gradient as one function per argument is HIPS autograd's (Maclaurin et al. 2015).
Imports nothing of the package.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from minilora.system.errors import StateError, UsageError

Vjp = Callable[[np.ndarray], np.ndarray]

_mode = threading.local()
# Stands where ops.py puts the operators, so that the engine need not know any of them.
_set_by_ops: Callable[..., Tensor] = None  # type: ignore[assignment]


class Node:
    """What the walk needs to know of a computed value: how to go on from there, not its data.

    Because edges lead to Nodes, an activation lives only as long as some vjp has captured it.
    """

    __slots__ = ("dtype", "edges", "shape")

    def __init__(self, data: np.ndarray, edges: tuple[Edge, ...]) -> None:
        self.shape, self.dtype = data.shape, data.dtype
        self.edges: tuple[Edge, ...] | None = edges  # None once used and freed


class Tensor:
    """An array, and, if it was computed from trainable ones, the node that leads back to them.

    data: ndarray of float32 (float64 is kept when NumPy made it: gradient checks use it).
    requires_grad: whether gradients flow to, or through, this tensor.
    grad: ndarray of data's shape after `backward()`; only leaves (inputs, parameters) get one.
    node: None for a leaf.
    """

    __slots__ = ("__weakref__", "data", "grad", "node", "requires_grad")
    __array_ufunc__ = None  # makes `ndarray + tensor` call Tensor.__radd__ instead of looping

    __add__ = __radd__ = __sub__ = __rsub__ = __mul__ = __rmul__ = __neg__ = _set_by_ops
    __truediv__ = __rtruediv__ = __matmul__ = __rmatmul__ = __pow__ = __getitem__ = _set_by_ops
    sum = mean = reshape = swapaxes = _set_by_ops

    def __init__(self, data: Any, requires_grad: bool = False) -> None:
        keep = isinstance(data, (np.ndarray, np.floating)) and data.dtype.char in "fd"
        self.data: np.ndarray = np.asarray(data, None if keep else np.float32)
        self.grad: np.ndarray | None = None
        self.requires_grad = requires_grad
        self.node: Node | None = None

    shape = property(lambda self: self.data.shape)
    ndim = property(lambda self: self.data.ndim)
    size = property(lambda self: self.data.size)
    dtype = property(lambda self: self.data.dtype)

    def item(self) -> float:
        """The value of a one-element tensor as a Python float."""
        return float(self.data.item())

    def __repr__(self) -> str:
        flag = ", requires_grad=True" if self.requires_grad else ""
        return f"{type(self).__name__}({self.data!r}{flag})"

    def backward(self, gradient: np.ndarray | None = None) -> None:
        """Add d(self)/d(leaf) to `.grad` of every trainable leaf. `gradient` (self's shape) seeds
        the walk; without it self must have one element. Raises RuntimeError on a second call."""
        for leaf, g in _walk(self, gradient).values():
            leaf.grad = g if leaf.grad is None else np.asarray(leaf.grad + g)


Edge = tuple[Node | Tensor, Vjp]  # to a computed value's node, or to a trainable leaf itself


def record(data: np.ndarray, *edges: tuple[Tensor | None, Vjp]) -> Tensor:
    """The result of an operation, remembering only the parents through which a gradient flows."""
    out, kept, recording = Tensor(data), [], getattr(_mode, "recording", True)
    for parent, vjp in edges:
        if parent is not None and parent.data.dtype != out.data.dtype:  # float64: 2.1 times slower
            raise TypeError(
                f"{_op_name(vjp)}: operands mix {parent.dtype} and {out.dtype}; "
                "convert one of them, for example with model.to(np.float32)"
            )
        if recording and parent is not None and parent.requires_grad:
            kept.append((parent.node or parent, vjp))
    if kept:
        out.requires_grad, out.node = True, Node(out.data, tuple(kept))
    return out


def needs_grad(*tensors: Tensor) -> bool:
    """Whether an operation on these will be recorded: lets an op skip work only backward needs."""
    return getattr(_mode, "recording", True) and any(t.requires_grad for t in tensors)


@contextmanager
def no_grad() -> Iterator[None]:
    """Within it nothing is recorded, in this thread only: for evaluation and generation."""
    before = getattr(_mode, "recording", True)
    _mode.recording = False
    try:
        yield
    finally:
        _mode.recording = before


def grad(loss: Tensor, params: Sequence[Tensor]) -> list[np.ndarray]:
    """d(loss)/d(param) for each of `params`, leaving every `.grad` alone.

    Because it writes no shared state, shards of a batch can run in threads over shared weights.
    A parameter that the loss does not depend on gets zeros (as does a computed value: ask leaves).
    """
    found = _walk(loss, None)
    return [found[id(p)][1] if id(p) in found else np.zeros_like(p.data) for p in params]


def _walk(root: Tensor, seed: np.ndarray | None) -> dict[int, tuple[Tensor, np.ndarray]]:
    """Gradients of the leaves under `root`. Frees the graph on the way: memory falls as it goes."""
    if not root.requires_grad:
        raise StateError(
            "nothing to differentiate: no trainable parameter led to this value. Is everything "
            "frozen, the adapter merged, or was it computed under no_grad() or from .data?"
        )
    if seed is None:
        if root.size != 1:
            raise UsageError(
                f"backward() starts from a single number, but this tensor has shape {root.shape}; "
                "reduce it with .sum() or .mean(), or pass gradient="
            )
        seed = np.ones_like(root.data)
    start = root.node or root
    grads = {id(start): unbroadcast(seed, start, root.backward)}
    leaves: dict[int, tuple[Tensor, np.ndarray]] = {}
    order = _topological_order(start)
    while order:
        node = order.pop()
        g = grads.pop(id(node))
        if isinstance(node, Tensor):
            leaves[id(node)] = (node, np.asarray(g))  # 0-d sums are NumPy scalars
        else:
            _pass_back(g, node.edges or (), grads)
            node.edges = None
    return leaves


def _pass_back(g: np.ndarray, edges: Sequence[Edge], grads: dict[int, np.ndarray]) -> None:
    """Send g along the edges. Ownership: a vjp never changes the g it is given, and the first
    gradient to arrive is adopted as it is (others may share it), which makes a step 1.05 times as
    fast as adding it to zeros; later ones are summed into a new array."""
    for parent, vjp in edges:
        new, key = unbroadcast(vjp(g), parent, vjp), id(parent)
        grads[key] = grads[key] + new if key in grads else new


def _topological_order(start: Node | Tensor) -> list[Node | Tensor]:
    """Every node after all the nodes it was computed from. A stack of our own instead of recursion,
    so that a graph thousands of operations deep works."""
    order: list[Node | Tensor] = []
    seen: set[int] = set()
    stack: list[tuple[Node | Tensor, bool]] = [(start, False)]
    while stack:
        node, parents_done = stack.pop()
        if parents_done:
            order.append(node)
        elif id(node) not in seen:
            seen.add(id(node))
            if isinstance(node, Tensor):
                order.append(node)
            elif node.edges is None:
                raise StateError(
                    "this graph was already used by a backward pass and its memory was freed; "
                    "compute the loss again before calling backward() again"
                )
            else:
                stack.append((node, True))
                stack += [(parent, False) for parent, _ in node.edges]
    return order


def unbroadcast(g: np.ndarray, parent: Node | Tensor, vjp: Callable[..., Any]) -> np.ndarray:
    """Undo broadcasting: sum g over the axes along which NumPy repeated the parent's values.

    A value used n times collects n gradients. Every gradient passes here, so this is also where a
    wrong shape or dtype is caught and the operation at fault is named.
    """
    g, shape = np.asarray(g), parent.shape
    if g.shape != shape:
        extra = g.ndim - len(shape)
        sizes = zip(g.shape[max(extra, 0) :], shape, strict=False)
        if extra < 0 or any(n not in (1, size) for size, n in sizes):
            raise AssertionError(
                f"{_op_name(vjp)}: gradient of shape {g.shape} for a value of {shape}"
            )
        stretched = [extra + i for i, n in enumerate(shape) if n == 1]
        g = g.sum(axis=(*range(extra), *stretched)).reshape(shape)
    if g.dtype != parent.dtype:
        raise AssertionError(f"{_op_name(vjp)}: gradient is {g.dtype}, the value is {parent.dtype}")
    return g


def _op_name(vjp: Callable[..., Any]) -> str:
    return vjp.__qualname__.removeprefix("Tensor.").partition(".")[0]
