"""Answers to lesson 01's exercises: right ones in other styles, and wrong ones with the words of
the reason that each must get (None: no reason may be named)."""

import sys
from collections import deque
from collections.abc import Callable
from typing import Any

import numpy as np

from minilora import Tensor, grad, ops

Answer = tuple[Callable[..., Any], str | None]


def _vjps_with_defs(x, y):
    def to_x(gradient):
        return np.multiply(gradient, y)

    def to_y(gradient):
        return np.multiply(gradient, x)

    return [to_x, to_y]


class _Times:
    def __init__(self, factor):
        self.factor = factor

    def __call__(self, g):
        return self.factor * g


def _by_the_engine(x, y):
    def vjp(i):
        def pull(g):
            inputs = [Tensor(np.asarray(v), requires_grad=True) for v in (x, y)]
            return grad((inputs[0] * inputs[1] * np.asarray(g)).sum(), inputs)[i]

        return pull

    return vjp(0), vjp(1)


def _difference_quotient(x, y):
    h = 1e-4
    return (
        lambda g: g * ((x + h) * y - (x - h) * y) / (2 * h),
        lambda g: g * (x * (y + h) - x * (y - h)) / (2 * h),
    )


def _topological(root):
    order, seen, stack = [], set(), [(root, iter(root.edges))]
    seen.add(id(root))
    while stack:
        node, edges = stack[-1]
        for parent, _ in edges:
            if id(parent) not in seen:
                seen.add(id(parent))
                stack.append((parent, iter(parent.edges)))
                break
        else:
            order.append(node)
            stack.pop()
    return order[::-1]


def _send(root, order, start=1.0, combine=lambda old, new: old + new, along=lambda vjp, g: vjp(g)):
    found = {root: start}
    for node in order:
        for parent, vjp in node.edges:
            new = along(vjp, found[node])
            found[parent] = combine(found[parent], new) if parent in found else new
    return found


def _with_iterators(root):
    return _send(root, _topological(root))


def _adding_in_place(root):
    found = {root: np.array(1.0)}
    for node in _topological(root):
        for parent, vjp in node.edges:
            new = vjp(found[node])
            if parent in found:
                found[parent] += new
            else:
                found[parent] = new
    return found


def _only_with_effect(root):
    found = {root: 1.0}
    for node in _topological(root):
        for parent, vjp in node.edges:
            if np.any(found.get(node, 0.0)):
                found[parent] = found.get(parent, 0.0) + vjp(found[node])
    return {node: g for node, g in found.items() if np.any(g)}


def _emptying(root):
    found = _with_iterators(root)
    for node in found:
        node.edges = []
    return found


def _deeper(root):
    sys.setrecursionlimit(20_000)
    return _with_iterators(root)


def _counting_users(root):
    """Kahn's way: a node is ready when all that use it have sent."""
    users, stack, seen = {}, [root], {root}
    while stack:
        for parent, _ in stack.pop().edges:
            users[parent] = users.get(parent, 0) + 1
            if parent not in seen:
                seen.add(parent)
                stack.append(parent)
    found, ready = {root: 1.0}, deque([root])
    while ready:
        node = ready.popleft()
        for parent, vjp in node.edges:
            found[parent] = found.get(parent, 0) + vjp(found[node])
            users[parent] -= 1
            if users[parent] == 0:
                ready.append(parent)
    return found


def _collecting_parts(root):
    parts = {node: [] for node in _topological(root)}
    parts[root].append(np.ones(np.shape(root.data)))
    found = {}
    for node in _topological(root):
        found[node] = sum(parts[node])
        for parent, vjp in node.edges:
            parts[parent].append(vjp(found[node]))
    return found


def _as_tensors(root):
    return {node: Tensor(np.asarray(g)) for node, g in _with_iterators(root).items()}


def _as_lists(root):
    return {node: np.asarray(g).tolist() for node, g in _with_iterators(root).items()}


def _levels(root):
    """By the longest way from the root, the nearest first."""
    depth = {root: 0}
    for node in _topological(root):
        for parent, _ in node.edges:
            depth[parent] = max(depth.get(parent, 0), depth[node] + 1)
    return _send(root, sorted(depth, key=lambda node: depth[node]))


def _paths(root):
    found, stack = {}, [(root, 1.0)]
    while stack:
        node, g = stack.pop()
        found[node] = found.get(node, 0) + g
        stack += [(parent, vjp(g)) for parent, vjp in node.edges]
    return found


def _recursive(root):
    order = {}

    def visit(node):
        if node not in order:
            for parent, _ in node.edges:
                visit(parent)
            order[node] = True

    visit(root)
    return _send(root, list(order)[::-1])


def _depth_first(root):
    order, stack = [], [root]
    seen = set()
    while stack:
        node = stack.pop()
        if node not in seen:
            seen.add(node)
            order.append(node)
            stack += [parent for parent, _ in node.edges[::-1]]
    return _send(root, order)


def _last_edge_first(root):
    order, stack, seen = [], [root], set()
    while stack:
        node = stack.pop()
        if node not in seen:
            seen.add(node)
            order.append(node)
            stack += [parent for parent, _ in node.edges]
    return _send(root, order)


def _breadth_first(root):
    order = [root]
    for node in order:
        order += [parent for parent in dict(node.edges) if parent not in order]
    return _send(root, order)


def _only_leaves(root):
    return {node: g for node, g in _with_iterators(root).items() if not node.edges}


def _by_name(root):
    return {id(node): g for node, g in _with_iterators(root).items()}


def _visited_once(root):
    found, stack = {root: 1.0}, [root]
    while stack:
        node = stack.pop()
        for parent, vjp in node.edges:
            if parent not in found:
                found[parent] = vjp(found[node])
                stack.append(parent)
    return found


def _axes(g, shape, keep=lambda n: n == 1):
    extra = g.ndim - len(shape)
    return (*range(extra), *(extra + i for i, n in enumerate(shape) if keep(n)))


def _sum_to(g, shape):
    return g.sum(axis=_axes(g, shape)).reshape(shape)


def _by_loop(g, shape):
    out = np.zeros(shape)
    places = np.broadcast_to(np.arange(out.size).reshape(shape), g.shape)
    np.add.at(out.reshape(-1), places.ravel(), g.ravel())
    return out


def _by_bincount(g, shape):
    size = int(np.prod(shape))
    places = np.broadcast_to(np.arange(size).reshape(shape), g.shape)
    return np.bincount(places.ravel(), weights=g.ravel(), minlength=size).reshape(shape)


def _by_product(g, shape):
    x = Tensor(np.ones(shape), requires_grad=True)
    return grad((x * g).sum(), [x])[0]


def _padded(g, shape):
    padded = (1,) * (g.ndim - len(shape)) + tuple(shape)
    for axis, (have, want) in enumerate(zip(g.shape, padded, strict=True)):
        if have != want:
            g = np.add.reduce(g, axis=axis, keepdims=True)
    return g.reshape(shape).tolist()


def _first_repeat(g, shape):
    index = tuple(0 if i in _axes(g, shape) else slice(None) for i in range(g.ndim))
    return g[index].reshape(shape)


def _one_extra_axis(g, shape):
    if g.ndim > len(shape):
        g = g.sum(axis=0)
    for axis, n in enumerate(shape):
        if n == 1:
            g = g.sum(axis=axis, keepdims=True)
    return g


def _last_axes(g, shape):
    while g.ndim > len(shape):
        g = g.sum(axis=-1)
    for axis, n in enumerate(shape):
        if n == 1:
            g = g.sum(axis=axis, keepdims=True)
    return g


def _in_place(g, shape):
    g *= 1.5
    return _sum_to(g, shape)


def _slopes(f, x, h=1e-5):
    found = np.zeros(x.shape)
    for i in range(x.size):
        step = np.zeros(x.size)
        step[i] = h
        step = step.reshape(x.shape)
        found.flat[i] = (f(x + step) - f(x - step)) / (2 * h)
    return found


def _all_close(f, gradient, x):
    slopes = _slopes(f, x)
    return np.all(np.abs(gradient(x) - slopes) <= 1e-4 * np.maximum(1, np.abs(slopes)))


def _five_points(f, gradient, x):
    slopes = (8 * _slopes(f, x, 5e-4) - 2 * _slopes(f, x, 1e-3)) / 6
    return bool(np.allclose(gradient(x), slopes, rtol=1e-4, atol=1e-4))


def _random_directions(f, gradient, x):
    rng, h = np.random.default_rng(0), 1e-5
    for _ in range(5):
        v = rng.standard_normal(x.shape)
        slope = (f(x + h * v) - f(x - h * v)) / (2 * h)
        if not np.isclose(np.sum(np.asarray(gradient(x)) * v), slope, rtol=1e-4, atol=1e-3):
            return False
    return True


def _restoring(f, gradient, x):
    claimed, worst = gradient(x), 0.0
    for i in np.ndindex(x.shape):
        before = x[i]
        x[i] = before + 1e-5
        up = f(x)
        x[i] = before - 1e-5
        down = f(x)
        x[i] = before
        slope = (up - down) / 2e-5
        worst = np.maximum(worst, abs(claimed[i] - slope) / max(1, abs(slope)))
    return int(worst <= 1e-4)


def _one_by_one(f, gradient, x):
    claimed, slopes = gradient(x), _slopes(f, x)
    for i in np.ndindex(x.shape):
        if abs(claimed[i] - slopes[i]) > 1e-4 * max(1, abs(slopes[i])):
            return False
    return True


def _by_length(f, gradient, x):
    slopes = _slopes(f, x)
    return np.linalg.norm(gradient(x) - slopes) <= 1e-4 * max(1, np.linalg.norm(slopes))


def _relative(f, gradient, x):
    slopes = _slopes(f, x)
    return np.all(np.abs(gradient(x) - slopes) <= 1e-4 * np.abs(slopes))


def _tolerance_without_size(f, gradient, x):
    slopes = _slopes(f, x)
    return np.all(np.abs(gradient(x) - slopes) <= 1e-4 * np.maximum(1, slopes))


def _mean_error(f, gradient, x):
    return np.mean(np.abs(gradient(x) - _slopes(f, x))) <= 1e-4


def _any_entry(f, gradient, x):
    slopes = _slopes(f, x)
    return np.any(np.abs(gradient(x) - slopes) <= 1e-4 * np.maximum(1, np.abs(slopes)))


def _summed(f, gradient, x):
    slopes = _slopes(f, x)
    return abs(np.sum(gradient(x)) - slopes.sum()) <= 1e-4 * max(1, np.abs(slopes).sum())


def _first_only(f, gradient, x):
    return np.isclose(np.ravel(gradient(x))[0], _slopes(f, x).ravel()[0], rtol=1e-4, atol=1e-4)


def _forward(f, gradient, x):
    h = 1e-5
    slopes = np.zeros(x.shape)
    for i in np.ndindex(x.shape):
        up = x.copy()
        up[i] += h
        slopes[i] = (f(up) - f(x)) / h
    return np.all(np.abs(gradient(x) - slopes) <= 1e-4 * np.maximum(1, np.abs(slopes)))


def _unsigned(f, gradient, x):
    slopes = np.abs(_slopes(f, x))
    return np.all(np.abs(np.abs(gradient(x)) - slopes) <= 1e-4 * np.maximum(1, slopes))


def _absolute(f, gradient, x):
    return np.all(np.abs(gradient(x) - _slopes(f, x)) < 1e-9)


def _cosine(f, gradient, x):
    ours, theirs = _slopes(f, x).ravel(), np.ravel(gradient(x))
    return ours @ theirs > 0.999 * np.linalg.norm(ours) * np.linalg.norm(theirs)


def _forgets_to_restore(f, gradient, x):
    for i in np.ndindex(x.shape):
        x[i] += 1e-5
    return True


def _make_value(
    rule=lambda parent: parent.requires_grad, product=None, keep="sum", leaf_only=False,
    needs=bool, to_shape=True, matmul=None, slope=lambda t: 1 - t * t,
):  # fmt: skip
    """A class Value, right, or with one of its parts made otherwise."""

    class Value:
        def __init__(self, data, requires_grad=False, edges=()):
            self.data = np.asarray(data, dtype=float)
            self.requires_grad, self.edges, self.grad = requires_grad, edges, None

        def _made(self, data, *edges):
            kept = []
            for parent, vjp in edges:
                if rule(parent):
                    kept.append((parent, self._fitted(vjp, parent)))
            return Value(data, needs(kept), kept)

        @staticmethod
        def _fitted(vjp, parent):
            return lambda g: _sum_to(vjp(g), parent.data.shape) if to_shape else vjp(g)

        def __add__(self, other):
            return self._made(self.data + other.data, (self, lambda g: g), (other, lambda g: g))

        def __mul__(self, other):
            to_self, to_other = (product or _vjps_with_defs)(self.data, other.data)
            return self._made(self.data * other.data, (self, to_self), (other, to_other))

        def __matmul__(self, other):
            x, W = self.data, other.data
            to_x, to_W = (lambda g: g @ W.T), (lambda g: x.T @ g)
            if matmul:
                to_x, to_W = matmul(x, W)
            return self._made(x @ W, (self, to_x), (other, to_W))

        def tanh(self):
            t = np.tanh(self.data)
            return self._made(t, (self, lambda g: g * slope(t)))

        def sum(self):
            return self._made(np.sum(self.data), (self, lambda g: g + 0 * self.data))

        def backward(self):
            if keep == "nothing":
                return
            found = _depth_first(self) if keep == "first come" else _with_iterators(self)
            for node, g in found.items():
                if not (leaf_only and node.edges):
                    node.grad = g

    return Value


def _some_trains(edges):
    return any(parent.requires_grad for parent, _ in edges)


class _Borrowed:
    """minilora's own engine, dressed as a Value."""

    def __init__(self, data, requires_grad=False, edges=()):
        ready = isinstance(data, Tensor)
        self.tensor = data if ready else Tensor(np.asarray(data, float), requires_grad)
        self.edges = edges

    @property
    def data(self):
        return self.tensor.data

    @property
    def grad(self):
        return self.tensor.grad

    @property
    def requires_grad(self):
        return self.tensor.requires_grad

    def _made(self, tensor, *parents):
        return _Borrowed(tensor, edges=[(p, None) for p in parents if p.requires_grad])

    def __add__(self, other):
        return self._made(self.tensor + other.tensor, self, other)

    def __mul__(self, other):
        return self._made(self.tensor * other.tensor, self, other)

    def __matmul__(self, other):
        return self._made(self.tensor @ other.tensor, self, other)

    def tanh(self):
        return self._made(ops.tanh(self.tensor), self)

    def sum(self):
        return self._made(self.tensor.sum(), self)

    def backward(self):
        self.tensor.backward()


def _net(W1, b1, W2, b2, x):
    return np.tanh(x @ W1 + b1) @ W2 + b2


def _network(
    rate=1.0, mean=True, move=lambda grads: grads, more=0, slope=lambda h: 1 - h**2, once=False,
    pack=tuple,
):  # fmt: skip
    """A train_network by hand, right, or with one of its parts made otherwise."""

    def train_network(x, y, W1, b1, W2, b2, lr, steps):
        w, grads = [W1, b1, W2, b2], None
        for _ in range(steps + more):
            h = np.tanh(x @ w[0] + w[1])
            G = 2 * (h @ w[2] + w[3] - y) / (y.size if mean else 1)
            back = G @ w[2].T * slope(h)
            new = [x.T @ back, back.sum(axis=0), h.T @ G, G.sum(axis=0)]
            grads = new if grads is None or not once else grads
            w = [a - rate * lr * g for a, g in zip(w, move(grads), strict=True)]
        return pack(w)

    return train_network


def _network_by_engine(engine):
    def train_network(x, y, W1, b1, W2, b2, lr, steps):
        w = [W1, b1, W2, b2]
        for _ in range(steps):
            nodes = [engine(a, True) for a in w]
            hidden = engine(x) @ nodes[0] + nodes[1]
            hidden = ops.tanh(hidden) if engine is Tensor else hidden.tanh()
            error = hidden @ nodes[2] + nodes[3] + engine(-y)
            ((error * error).sum() * engine(np.array(1 / y.size))).backward()
            w = [a - lr * node.grad for a, node in zip(w, nodes, strict=True)]
        return w

    return train_network


def _slope_of_loss(x, y, w, k):
    def loss(array):
        return ((_net(*w[:k], array, *w[k + 1 :], x) - y) ** 2).mean()

    return _slopes(loss, w[k], 1e-4)


def _by_differences(x, y, W1, b1, W2, b2, lr, steps):
    w = [W1, b1, W2, b2]
    for _ in range(steps):
        slopes = [_slope_of_loss(x, y, w, k) for k in range(4)]
        w = [a - lr * slope for a, slope in zip(w, slopes, strict=True)]
    return w


def _in_turn(x, y, W1, b1, W2, b2, lr, steps):
    w = [W1, b1, W2, b2]
    for _ in range(steps):
        for k in range(4):
            step = _network()(x, y, *w, lr, 1)
            w[k] = step[k]
    return w


def _changes_inputs(x, y, W1, b1, W2, b2, lr, steps):
    for array, new in zip((W1, b1, W2, b2), _network()(x, y, W1, b1, W2, b2, lr, steps)):  # noqa: B905
        array[...] = new
    return W1, b1, W2, b2


RIGHT: dict[str, list[Callable[..., Any]]] = {
    "product_vjps": [
        _vjps_with_defs,
        lambda x, y: (_Times(y), _Times(x)),
        _by_the_engine,
        _difference_quotient,
        lambda x, y: (lambda g: (g * y).tolist(), lambda g: (g * x).tolist()),
        lambda x, y: [lambda upstream, f=f: np.asarray(upstream) * f for f in (y, x)],
    ],
    "gradients": [
        _with_iterators, _counting_users, _collecting_parts, _as_tensors, _as_lists, _levels,
    ],
    "unbroadcast": [
        _sum_to, _by_loop, _by_bincount, _by_product, _padded,
        lambda grad_of_result, wanted: Tensor(_sum_to(grad_of_result, wanted)),
    ],
    "matmul_vjps": [
        lambda x, W: (lambda g: g @ W.T, lambda g: x.T @ g),
        lambda x, W: [
            lambda g: np.einsum("nj,kj->nk", g, W), lambda g: np.einsum("nk,nj->kj", x, g),
        ],
        lambda x, W: (lambda g: (W @ g.T).T, lambda g: (g.T @ x).T),
        lambda x, W: (
            lambda g: [[float(row @ w) for w in W] for row in g],
            lambda g: sum(np.outer(x[i], g[i]) for i in range(len(x))),
        ),
        lambda x, W: (
            lambda g: np.dot(g, W.transpose()), lambda g: np.tensordot(x, g, axes=(0, 0)),
        ),
    ],
    "gradient_is_right": [
        _all_close, _five_points, _restoring,
        lambda f, gradient, x: bool(_all_close(f, gradient, x)),
        lambda f, gradient, x: np.array(_all_close(f, gradient, x)),
    ],
    "Value": [
        _make_value(), _make_value(leaf_only=True), _Borrowed,
        _make_value(needs=lambda kept: len(kept) > 0),
        lambda data, requires_grad=False: _make_value()(data, requires_grad),
    ],
    "train_network": [
        _network(), _network(pack=list), _network_by_engine(Tensor),
        _network_by_engine(_make_value()), _by_differences,
        _network(pack=lambda w: [a.tolist() for a in w]),
        _network(pack=lambda w: [a.astype(np.float32) for a in w]),
    ],
}  # fmt: skip


WRONG: dict[str, list[Answer]] = {
    "product_vjps": [
        (lambda x, y: (lambda g: g, lambda g: g), "that is g as it is"),
        (lambda x, y: (lambda g: y, lambda g: x), "the derivative of x y alone"),
        (lambda x, y: (lambda g: g * x, lambda g: g * y), "g times the same factor"),
        (lambda x, y: (lambda g: g / y, lambda g: g / x), "that divides"),
        (lambda x, y: (lambda g: g * x * y, lambda g: g * x * y), "g times x y"),
        (lambda x, y: (y, x), "where a function of g is expected"),
        (lambda x, y: lambda g: (g * y, g * x), "expected 2 values"),
        (lambda x, y: (lambda g: g * y, lambda g: None), "in one of its branches"),
        (lambda x, y: (lambda: y, lambda: x), "raised TypeError"),
        (lambda x, y: (lambda g: g * abs(y), lambda g: g * abs(x)), None),
        (lambda x, y: (lambda g: g * y, lambda g: g), None),
        (lambda x, y: (lambda g: -g * y, lambda g: -g * x), None),
        (lambda x, y: (lambda g: g + y, lambda g: g + x), None),
        (lambda x, y: (lambda g: np.sum(g * y), lambda g: np.sum(g * x)), None),
    ],
    "gradients": [
        (
            lambda root: _send(root, _topological(root), combine=lambda old, new: new),
            "gets the sum of both gradients",
        ),
        (_depth_first, "before all that use it had sent theirs"),
        (_last_edge_first, "before all that use it had sent theirs"),
        (_breadth_first, "before all that use it had sent theirs"),
        (
            lambda root: _send(root, _topological(root), along=lambda vjp, g: vjp(1.0)),
            "not 1",
        ),
        (_only_leaves, "no gradient for 3 of 4 nodes"),
        (_by_name, "no gradient for 4 of 4 nodes"),
        (_paths, "a node must wait until"),
        (_recursive, "raised RecursionError"),
        (_deeper, "raises Python's limit"),
        (_emptying, "changes the data or the edges"),
        (_only_with_effect, "nodes, in the graph with a factor of 0"),
        (_adding_in_place, None),
        (lambda root: list(_with_iterators(root).values()), "not a dictionary"),
        (_visited_once, None),
        (lambda root: _send(root, _topological(root), start=2.0), None),
        (lambda root: _send(root, _topological(root), combine=lambda old, new: (old + new) / 2),
         None),
        (lambda root: _send(root, _topological(root), combine=np.maximum), None),
        (lambda root: {node: -g for node, g in _with_iterators(root).items()}, None),
    ],
    "unbroadcast": [
        (lambda g, shape: g.mean(axis=_axes(g, shape)).reshape(shape), "that is the mean"),
        (_first_repeat, None),
        (lambda g, shape: g.sum(axis=_axes(g, shape)), "must be the parent's"),
        (lambda g, shape: g, "g as it came"),
        (_in_place, "you changed the g you were given"),
        (_one_extra_axis, None),
        (_last_axes, None),
        (lambda g, shape: g.sum(axis=tuple(range(g.ndim - len(shape)))), None),
        (lambda g, shape: np.broadcast_to(g.sum(), shape), None),
        (lambda g, shape: np.abs(_sum_to(g, shape)), None),
        (lambda g, shape: g.max(axis=_axes(g, shape)).reshape(shape), None),
        (lambda g, shape: np.resize(g, shape) if g.ndim > 1 else g, "one of the repeats"),
        (lambda g, shape: 2 * _sum_to(g, shape), None),
    ],
    "matmul_vjps": [
        (lambda x, W: (lambda g: x.T @ g, lambda g: g @ W.T), "return to_x, to_W, in this order"),
        (lambda x, W: (lambda g: W @ g.T, lambda g: g.T @ x), "that is the transpose"),
        (lambda x, W: (lambda g: -g @ W.T, lambda g: -x.T @ g), "the wrong sign"),
        (
            lambda x, W: (lambda g: g @ W.T / len(x), lambda g: x.T @ g / len(x)),
            "divided by the rows",
        ),
        (
            lambda x, W: (
                lambda g: np.ones_like(g) @ W.T, lambda g: x.T @ np.ones_like(g),
            ),
            "without the gradient that comes in",
        ),
        (lambda x, W: (lambda g: g @ W, lambda g: x.T @ g), "raised ValueError"),
        (lambda x, W: (W.T, x.T), "where a function of g is expected"),
        (lambda x, W: (lambda g: g @ W.T, lambda g: x.T @ g * 2), None),
        (lambda x, W: (lambda g: g @ W.T, lambda g: abs(x.T @ g)), None),
        (lambda x, W: (lambda g: g @ np.linalg.pinv(W), lambda g: np.linalg.pinv(x) @ g), None),
        (lambda x, W: (lambda g: g @ np.sign(W.T), lambda g: np.sign(x.T) @ g), None),
        (lambda x, W: (lambda g: g.sum() * x, lambda g: g.sum() * W), None),
    ],
    "gradient_is_right": [
        (lambda f, gradient, x: True, "finds every gradient right"),
        (lambda f, gradient, x: False, "finds every gradient wrong"),
        (_summed, "adds up all slopes"),
        (_forward, "that is a forward difference"),
        (_unsigned, "compares sizes without signs"),
        (_forgets_to_restore, "you changed the x you were given"),
        (lambda f, gradient, x: gradient(x), "it returns ndarray"),
        (lambda f, gradient, x: "right", "it returns str"),
        (_absolute, None),
        (_cosine, None),
        (_random_directions, None),
        (_one_by_one, "nan passes"),
        (_by_length, "one large slope hides"),
        (_relative, "below a slope of 1"),
        (_tolerance_without_size, "must grow with the size"),
        (_mean_error, None),
        (_any_entry, "one right entry is enough"),
        (lambda f, gradient, x: np.allclose(gradient(x), _slopes(f, x)), None),
        (lambda f, gradient, x: not _all_close(f, gradient, x), None),
        (_first_only, "looks at the first entry only"),
        (lambda f, gradient, x: f(x) > f(x - 1e-3 * np.asarray(gradient(x))), None),
    ],
    "Value": [
        (
            _make_value(rule=lambda parent: True, needs=_some_trains),
            "a product of frozen Values must keep no edges",
        ),
        (_make_value(needs=lambda kept: True), "must be frozen too"),
        (_make_value(rule=lambda parent: False), "if one of its parents does"),
        (_make_value(keep="nothing"), "has no gradient in .grad"),
        (_make_value(keep="first come"), None),
        (_make_value(to_shape=False), "is an array of shape (4, 5); expected an array of shape (5"),
        (_make_value(product=lambda x, y: (lambda g: g * x, lambda g: g * y)), None),
        (_make_value(product=lambda x, y: (lambda g: g, lambda g: g)), None),
        (
            _make_value(matmul=lambda x, W: (lambda g: g @ W, lambda g: x.T @ g)),
            "raised ValueError",
        ),
        (_make_value(matmul=lambda x, W: (lambda g: g @ W.T, lambda g: -x.T @ g)), None),
        (_make_value(slope=lambda t: 1), None),
        (_make_value(slope=lambda t: 1 - t), None),
    ],
    "train_network": [
        (_network(rate=-1), "up the slope"),
        (_network(mean=False), "the mean over all entries"),
        (_network(move=lambda g: [g[0], 0 * g[1], g[2], 0 * g[3]]), "the biases did not train"),
        (_network(once=True), "computed anew in every step"),
        (_network(slope=lambda h: 1), "lacks its derivative"),
        (_network(more=1), "one step too many"),
        (_network(more=-1), "one step too few"),
        (_changes_inputs, "you changed the"),
        (_network(pack=lambda w: w[0]), "expected 4 values"),
        (_network(rate=2), None),
        (_network(rate=0.5), "has a factor 2"),
        (_network(rate=3), "not over its rows"),
        (_in_turn, None),
        (_network(slope=lambda h: 1 - h), None),
        (_network(move=lambda g: [np.sign(a) for a in g]), None),
        (_network(move=lambda g: [g[0], g[1], 0 * g[2], 0 * g[3]]), None),
    ],
}  # fmt: skip

EQUIVALENT: dict[str, dict[str, str]] = {
    "gradient_is_right": {
        "line 10: 1 -> 2": "np.allclose adds both tolerances, and is let pass",
        "line 10: abs(claimed[i] - slope) <= 0.0001 * max(1, abs(slope)) -> "
        "abs(claimed[i] - slope) < 0.0001 * max(1, abs(slope))": "no case lies on the edge",
    },
    "Value": {"line 35: g * np.ones(self.data.shape) -> g / np.ones(self.data.shape)": "ones"},
    "train_network": {"line 12: True -> False": "zip is strict: the lengths agree anyway"},
}
