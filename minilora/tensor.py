"""The engine: an array that remembers how it was made, and the walk back through that memory.

A `Tensor` holds a NumPy array. An operation computes its result and calls `record`, handing
over, for each parent, a function that turns "gradient of the result" into "gradient of this
parent" (a vector-Jacobian product, vjp). `backward` walks the recorded graph from the loss to
the leaves and calls those functions. Nothing here knows any particular operation: those are in
ops.py.

One rule carries the whole package: `record` keeps a vjp only if its parent needs a gradient.
For a frozen weight W the function that would compute dL/dW, and the input x that it alone
would keep alive, are dropped on the spot. That is where a step of LoRA saves time; its smaller
optimizer state and gradients come from training fewer numbers.

The idea of a gradient as one function per argument is HIPS autograd's (Maclaurin et al. 2015).
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from minilora.arraylike import ArrayLike, to_array
from minilora.system.errors import StateError, UsageError

Vjp = Callable[[np.ndarray], np.ndarray]


class _Mode(threading.local):
    recording = True
    observer: Callable[..., Any] | None = None


_mode = _Mode()


class Node:
    """What the walk needs to know of a computed value: how to go on from there, not its data.

    Because edges lead to Nodes, an activation lives only as long as some vjp has captured it.
    """

    __slots__ = ("dtype", "edges", "shape", "versions")
    version = 0  # a computed value never changes

    def __init__(self, data: np.ndarray, edges: tuple[Edge, ...]) -> None:
        self.shape, self.dtype = data.shape, data.dtype
        self.edges: tuple[Edge, ...] | None = edges  # None once used and freed
        self.versions = [parent.version for parent, _ in edges]


class Tensor(ArrayLike):
    """An array, and, if it was computed from trainable ones, the node that leads back to them.

    data: ndarray of float32 (float64 is kept when NumPy made it: gradient checks use it).
    requires_grad: whether gradients flow to, or through, this tensor.
    grad: ndarray of data's shape after `backward()`; only leaves (inputs, parameters) get one.
    node: None for a leaf.
    version: how often it was changed in place. A trainable leaf changed between the forward
        and the backward pass is an error. Optimizers, load_state_dict and `p.data -= x` count;
        `p.data[...] = x` cannot be seen, and giving it another array does no harm.
    """

    __slots__ = ("__weakref__", "_data", "grad", "node", "requires_grad", "version")
    fixed = False  # True: in so few bits that no step could change it: quantization

    if TYPE_CHECKING:  # for mypy; ops.py binds them: the engine need not know any operation
        _op: Callable[..., Tensor] = abs
        __add__ = __radd__ = __sub__ = __rsub__ = __mul__ = __rmul__ = __neg__ = _op
        __truediv__ = __rtruediv__ = __matmul__ = __rmatmul__ = __pow__ = __getitem__ = _op
        sum = mean = max = exp = log = reshape = swapaxes = _op

    def __init__(self, data: Any, requires_grad: bool = False) -> None:
        if requires_grad is not True and requires_grad is not False:
            raise TypeError(f"requires_grad is True or False, not {requires_grad!r}")
        self._data = to_array(data)
        self.grad: np.ndarray | None = None
        self.requires_grad = requires_grad
        self.node: Node | None = None
        self.version = 0

    @property
    def data(self) -> np.ndarray:
        return self._data

    @data.setter
    def data(self, value: np.ndarray) -> None:
        if self.node is not None:
            raise StateError("a computed value cannot be changed; change its .detach()")
        self.version += value is self._data  # what `p.data -= step` assigns
        new = to_array(value)
        if new.shape != self.shape:
            raise UsageError(f"data of shape {self.shape} cannot become data of {new.shape}")
        self._data = new

    def detach(self) -> Tensor:
        """The same array as a constant, through which no gradient flows."""
        return Tensor(self._data)

    def held(self) -> Callable[[], np.ndarray]:
        """What a vjp keeps to get at the data later: the array itself. A fixed one keeps none,
        and makes its numbers again."""
        data = self._data
        return lambda: data

    def backward(self, gradient: Any = None) -> None:
        """Add d(self)/d(leaf) to `.grad` of every trainable leaf.

        gradient: numbers of self's shape to start from; without, self must have one element.
        UsageError for another shape; StateError where nothing trains, or on a second call.
        """
        for leaf, g in _walk(self, gradient).values():
            leaf.grad = g if leaf.grad is None else np.asarray(leaf.grad + g)


Edge = tuple[Node | Tensor, Vjp]  # to a computed value's node, or to a trainable leaf itself


def record(data: np.ndarray, *edges: tuple[Tensor | None, Vjp]) -> Tensor:
    """The result of an operation, remembering only the parents through which a gradient flows.

    data: the result. edges: for each parent, it (None if there is none) and its vjp.
    Raises TypeError for parents of another dtype.
    """
    if _mode.observer is not None and edges:
        edges = _mode.observer(data, edges)
    out, kept = Tensor(data), []
    for parent, vjp in edges:
        if parent is not None and parent._data.dtype != out._data.dtype:  # NumPy would upcast
            raise TypeError(
                f"{op_name(vjp)}: operands mix {parent.dtype} and {out.dtype}; "
                "convert one of them, for example with model.to(np.float32)"
            )
        if parent is not None and parent.requires_grad and _mode.recording:
            kept.append((parent.node or parent, vjp))
    if kept:
        out.requires_grad, out.node = True, Node(out._data, tuple(kept))
    return out


def needs_grad(*tensors: Tensor) -> bool:
    """Whether an operation on these will be recorded: lets an op skip what backward needs."""
    return _mode.recording and any(t.requires_grad for t in tensors)


@contextmanager
def no_grad() -> Iterator[None]:
    """Within it nothing is recorded, in this thread only: for evaluation and generation."""
    before, _mode.recording = _mode.recording, False
    try:
        yield
    finally:
        _mode.recording = before


@contextmanager
def observe(observer: Callable[..., Any]) -> Iterator[None]:
    """Within it, in this thread, `record` shows all operations to observer(data, edges), which
    returns the edges to go on with (profiler.py). StateError inside another observe."""
    if _mode.observer is not None:
        raise StateError("operations are already being observed; leave that profile first")
    _mode.observer = observer
    try:
        yield
    finally:
        _mode.observer = None


def grad(loss: Tensor, params: Iterable[Tensor]) -> list[np.ndarray]:
    """d(loss)/d(param) for each of `params`, leaving every `.grad` alone.

    It writes no shared state, so shards of a batch can run in threads over shared weights.
    A parameter on which the loss does not depend gets zeros.
    Raises UsageError for a computed or frozen tensor, and for anything but a list of tensors.
    """
    if isinstance(params, Tensor):
        raise UsageError("grad takes a list of tensors: grad(loss, [x])")
    params = list(params)
    for p in params:
        if not isinstance(p, Tensor) or p.node is not None or not p.requires_grad:
            raise UsageError(
                "grad gives the gradients of leaves that have requires_grad=True; "
                f"frozen, computed, or no Tensor at all: {p!r:.60}"
            )
    found = _walk(loss, None)
    return [found[id(p)][1] if id(p) in found else np.zeros_like(p.data) for p in params]


def _walk(root: Tensor, seed: Any) -> dict[int, tuple[Tensor, np.ndarray]]:
    """Gradients of the leaves under `root`. Frees the graph on the way: memory falls."""
    if not isinstance(root, Tensor):
        raise UsageError(
            f"only a Tensor can be differentiated, not {type(root).__name__}; gradients are "
            "plain arrays, so there are no second derivatives"
        )
    if not root.requires_grad:
        raise StateError(
            "nothing to differentiate: no trainable parameter led to this value. Is all of it "
            "frozen, the adapter merged, or was it computed under no_grad() or from .data?"
        )
    if seed is None and root.size != 1:
        raise UsageError(
            f"backward() starts from a single number, but this tensor has shape {root.shape}; "
            "reduce it with .sum() or .mean(), or pass gradient="
        )
    g = np.ones_like(root.data) if seed is None else to_array(seed, root.dtype)
    if g.shape != root.shape:
        raise UsageError(f"backward() got a gradient of {g.shape} for a value of {root.shape}")
    start = root.node or root
    order = _topological_order(start)
    grads, taken = {id(start): g}, {id(g)}
    leaves: dict[int, tuple[Tensor, np.ndarray]] = {}
    while order:
        node = order.pop()
        g = grads.pop(id(node))
        if isinstance(node, Tensor):
            leaves[id(node)] = (node, _own(g, taken))
        else:
            _pass_back(g, node.edges or (), grads)
            node.edges = None
    return leaves


def _pass_back(g: np.ndarray, edges: Sequence[Edge], grads: dict[int, np.ndarray]) -> None:
    """Send g along the edges. Ownership: a vjp never changes the g it is given. So the first
    gradient to arrive can be adopted as it is, though others may share it; later ones are
    summed into a new array."""
    for parent, vjp in edges:
        new, key = unbroadcast(vjp(g), parent, vjp), id(parent)
        grads[key] = grads[key] + new if key in grads else new


def _own(g: np.ndarray, taken: set[int]) -> np.ndarray:
    """g, or a copy where others have it too: what a leaf gets may be changed in place."""
    g = np.asarray(g)  # 0-d sums are NumPy scalars
    if g.base is not None or not g.flags.writeable or id(g) in taken:
        g = g.copy()
    taken.add(id(g))
    return g


def _topological_order(start: Node | Tensor) -> list[Node | Tensor]:
    """Every node after all the nodes it was computed from. A stack of our own instead of
    recursion, so that a graph thousands of operations deep works."""
    order: list[Node | Tensor] = []
    seen: set[int] = set()
    stack: list[tuple[Node | Tensor, bool]] = [(start, False)]
    while stack:
        node, parents_done = stack.pop()
        if parents_done:
            order.append(node)
        elif id(node) not in seen:
            seen.add(id(node))
            stack.append((node, True))
            if isinstance(node, Node):
                _require_unchanged(node)
                stack += [(parent, False) for parent, _ in node.edges or ()]
    return order


def _require_unchanged(node: Node) -> None:
    if node.edges is None:
        raise StateError(
            "this graph was already used by a backward pass and its memory was freed; "
            "compute the loss again before calling backward() again"
        )
    for (parent, vjp), version in zip(node.edges, node.versions, strict=True):
        if parent.version != version:
            raise StateError(
                f"{op_name(vjp)}: a value of shape {parent.shape} was changed after it was "
                "used, so the gradient would be wrong; compute the loss again"
            )


def unbroadcast(g: np.ndarray, parent: Node | Tensor, vjp: Callable[..., Any]) -> np.ndarray:
    """Undo broadcasting: sum g over the axes along which NumPy repeated the parent's values.

    A value used n times collects n gradients. Every gradient passes here, so this is also
    where a wrong shape or dtype is caught and the operation at fault is named.
    """
    g, shape = np.asarray(g), parent.shape
    if g.shape != shape:
        extra = g.ndim - len(shape)
        sizes = zip(g.shape[max(extra, 0) :], shape, strict=False)
        if extra < 0 or any(n not in (1, size) for size, n in sizes):
            raise AssertionError(
                f"{op_name(vjp)}: gradient of shape {g.shape} for a value of {shape}"
            )
        stretched = [extra + i for i, n in enumerate(shape) if n == 1]
        g = g.sum(axis=(*range(extra), *stretched)).reshape(shape)
    if g.dtype != parent.dtype:
        name = op_name(vjp)
        raise AssertionError(f"{name}: gradient is {g.dtype}, the value is {parent.dtype}")
    return g


def op_name(vjp: Callable[..., Any]) -> str:
    """The operation that defined a vjp: "mul" for the lambdas within `mul`."""
    return getattr(vjp, "__qualname__", type(vjp).__name__).partition(".")[0]
