"""The checkers of lesson 01, Autograd from scratch."""

from __future__ import annotations

import functools
import operator
import sys
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from minilora import ops
from minilora.learn.exercises import (
    Wrong,
    Yours,
    as_array,
    exercise,
    require,
    unpack,
)  # fmt: skip
from minilora.system.errors import how_many
from minilora.tensor import Tensor

Vjp = Callable[[Any], Any]


def _use_vjp(yours: Yours, vjp: Any, g: np.ndarray) -> Any:
    require(callable(vjp), f"it returns {type(vjp).__name__}, where a function of g is expected")
    return yours.use(vjp, g, may_be_none=False)


@exercise(
    hints=(
        "Move x by a little, h. By how much does x y move? And how much does the loss move if the "
        "product moves by 1?",
        "The first function is `lambda g: g * y`. The second one says the same of y.",
    )
)
def product_vjps(yours: Yours) -> str:
    rng = np.random.default_rng()
    for shape in ((), (3,), (2, 3)):
        x, y, g = rng.uniform(1.1, 3, (3, *shape)) * rng.choice([-1, 1], (3, *shape))
        of_x, of_y = unpack(yours(x, y), "to_x, to_y")
        for name, other, itself, vjp in (("x", y, x, of_x), ("y", x, y, of_y)):
            mistakes = {
                "that is g as it is; x y moves as much as the other factor says": g,
                "that is the derivative of x y alone; the chain rule multiplies it by g": other,
                "that is g times the same factor; the derivative of x y by x is y": g * itself,
                "that divides; the derivative of x y by x is y": g / other,
                "that is g times x y, and not times one factor": g * x * y,
            }
            got = _use_vjp(yours, vjp, g)
            yours.compare(f"gradient of {name}, {yours.inputs},", got, g * other, mistakes)
    return "Each function has kept the other factor: that is what a forward pass must remember."


class _Node:
    """A value as the exercise `gradients` describes it. sent: what its vjps were given."""

    def __init__(self, data: Any, *edges: tuple[_Node, Vjp]) -> None:
        self.data = np.asarray(data, float)
        self.sent: list[Any] = []
        self.edges = [(parent, self._noted(vjp)) for parent, vjp in edges]

    def _noted(self, vjp: Vjp) -> Vjp:
        def noting(g: Any) -> Any:
            self.sent.append(np.array(as_array(g), float))
            return vjp(g)

        return noting

    def __repr__(self) -> str:
        return f"a node with {how_many(len(self.edges), 'edge')}"


def _times(node: _Node, factor: float) -> tuple[_Node, Vjp]:
    return node, lambda g: factor * g


def _chain(length: int) -> list[_Node]:
    nodes = [_Node(1.0)]
    for _ in range(length):
        nodes.append(_Node(1.0, _times(nodes[-1], 1.0005)))
    return nodes


def _used_again(in_order: bool) -> list[_Node]:
    """a -> b = 3 a -> c = -5 b, and the root uses a, b and c (c last, or c first)."""
    a = _Node(2.0)
    b = _Node(6.0, _times(a, 3.0))
    c = _Node(-30.0, _times(b, -5.0))
    edges = [_times(a, 7.0), _times(b, 11.0), _times(c, 13.0)]
    return [a, b, c, _Node(1.0, *(edges if in_order else edges[::-1]))]


def _squares(levels: int) -> list[_Node]:
    """Each node is used twice by the next one: 2^levels paths."""
    nodes = [_Node(1.01)]
    for _ in range(levels):
        x = nodes[-1]
        nodes.append(_Node(x.data * x.data, _times(x, float(x.data)), _times(x, float(x.data))))
    return nodes


def _arrays() -> list[_Node]:
    """The sum of all entries of x y, where x and y are arrays."""
    x, y = _Node([[1.0, -2.0, 3.0]]), _Node([[4.0, 5.0, -6.0]])
    xy = _Node(x.data * y.data, (x, lambda g: g * y.data), (y, lambda g: g * x.data))
    return [x, y, xy, _Node(xy.data.sum(), (xy, lambda g: g * np.ones((1, 3))))]


def _walked(nodes: Sequence[_Node], mistake: str = "") -> np.ndarray:
    """The gradients of nodes, which stand in the order of their making, rightly or not."""
    grads: dict[int, Any] = {id(nodes[-1]): 1.0}
    for node in nodes[::-1]:
        for parent, vjp in node.edges:
            new = vjp(1.0 if mistake == "local" else grads.get(id(node), 0.0))
            sum_up = id(parent) in grads and mistake != "overwrite"
            grads[id(parent)] = grads[id(parent)] + new if sum_up else new
    return np.concatenate([np.ravel(grads.get(id(node), 0.0)) for node in nodes])


def _added_to_itself() -> list[_Node]:
    """The sum of all entries of x + x: both vjps hand on the array they are given."""
    x = _Node([1.0, -2.0])
    twice = _Node(x.data + x.data, (x, lambda g: g), (x, lambda g: g))
    return [x, twice, _Node(twice.data.sum(), (twice, lambda g: g * np.ones(2)))]


def _without_effect() -> list[_Node]:
    """The root does not depend on its parent, so both nodes before it have the gradient 0."""
    a = _Node(2.0)
    b = _Node(6.0, _times(a, 3.0))
    return [a, b, _Node(0.0, _times(b, 0.0))]


_GRAPHS: dict[str, Callable[[], list[_Node]]] = {
    "a node used by three others": lambda: _used_again(True),
    "a node used by three others, in another order": lambda: _used_again(False),
    "arrays": _arrays,
    "an array added to itself": _added_to_itself,
    "a factor of 0": _without_effect,
    "squares of squares": lambda: _squares(12),
    "a chain of 3,200 nodes": lambda: _chain(3200),
}
_WALKS = {
    "a node that is used twice gets the sum of both gradients, not the later one": "overwrite",
    "each vjp must be given the gradient that has arrived, not 1": "local",
}


_TOO_EARLY = "a node passed its gradient on before all that use it had sent theirs"


def _sent_too_early(nodes: Sequence[_Node], gradients: Sequence[np.ndarray]) -> bool:
    """Whether a node before the root has passed on another gradient than it has in the end. Who
    passes on 1 everywhere makes another mistake."""
    passed = [(node.sent, own) for node, own in zip(nodes, gradients, strict=True) if node.sent]
    if all(np.all(g == 1) for sent, _ in passed for g in sent):
        return False
    *early, of_root = [not np.allclose(sent[-1], own) for sent, own in passed]
    return any(early) and not of_root


@functools.cache
def _expected(name: str) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """The gradients of a graph's nodes, and what each mistake makes of them."""
    nodes = _GRAPHS[name]()
    return _walked(nodes), {why: _walked(nodes, how) for why, how in _WALKS.items()}


@exercise(
    hints=(
        "When may a node pass its gradient on? Only when all the nodes that use it have sent "
        "theirs. So order the nodes first, then walk.",
        "A list as a stack gives the order: take a node off; if its parents are done, put it into "
        "`order`; else put it back, marked, and its parents on top. Walk `order` from its end, "
        "and add to what a parent already has.",
    )
)
def gradients(yours: Yours) -> str:
    for name, make in _GRAPHS.items():
        nodes = make()
        expected, mistakes = _expected(name)
        before = [(node.data.copy(), list(node.edges)) for node in nodes]
        limit = sys.getrecursionlimit()
        try:
            found = yours(nodes[-1])
            deeper = sys.getrecursionlimit() > limit
        finally:
            sys.setrecursionlimit(limit)
        calls = sum(len(node.sent) for node in nodes)
        require(not deeper, "it raises Python's limit of nested calls; a stack needs none")
        for node, (data, edges) in zip(nodes, before, strict=True):
            kept = np.array_equal(node.data, data) and list(node.edges) == edges
            require(kept, "it changes the data or the edges of a node; leave the graph as it is")
        require(isinstance(found, dict), f"it returns {type(found).__name__}, not a dictionary")
        lacking = [node for node in nodes if node not in found]
        which = f"{len(lacking)} of {how_many(len(nodes), 'node')}, in the graph with {name}"
        require(not lacking, f"it returns no gradient for {which}")
        arrays = [np.asarray(as_array(found[node]), float) for node in nodes]
        got = np.concatenate([array.ravel() for array in arrays])
        early = {_TOO_EARLY: got if _sent_too_early(nodes, arrays) else expected}
        yours.compare(f"gradient in the graph with {name}", got, expected, mistakes | early)
        total = sum(len(node.edges) for node in nodes)
        if calls > total and np.allclose(got, expected):
            raise Wrong(
                f"it is right, but calls vjps {calls:,} times for {how_many(total, 'edge')}: a "
                "node must wait until all gradients have come, then pass on their sum once"
            )
    return "Each edge was walked once: one walk gives all gradients, however many leaves there are."


@exercise(
    hints=(
        "Which axes did NumPy add in front, and along which did it repeat a single entry? Sum g "
        "over both kinds.",
        "`extra = g.ndim - len(shape)` axes are new: sum over them. Then, for each axis where "
        "shape has 1, sum with keepdims=True.",
    )
)
def unbroadcast(yours: Yours) -> str:
    rng = np.random.default_rng()
    for full, shape in (
        ((2, 3), (2, 3)), ((4, 3), (3,)), ((3, 3), (3,)), ((4, 3), (4, 1)), ((3, 3), (3, 1)),
        ((2, 4, 3), (4, 1)), ((5, 2), ()), ((2, 1, 3), (1, 1, 3)), ((3, 3, 3), (3, 1, 3)),
        ((2, 3), (1, 1)), ((1, 3), (3,)),
    ):  # fmt: skip
        g = rng.standard_normal(full)
        extra = len(full) - len(shape)
        axes = (*range(extra), *(extra + i for i, n in enumerate(shape) if n == 1))
        expected = g.sum(axis=axes).reshape(shape)
        count = g.size / max(expected.size, 1)
        mistakes = {
            "that is the mean; every repeat has its own effect, so they add up": expected / count,
            "that is one of the repeats; all of them add up": g.reshape(-1)[
                : expected.size
            ].reshape(shape),
            "the sums are right, but the shape must be the parent's": g.sum(axis=axes),
            "that is g as it came": g,
        }
        if full == (3, 3):
            wrong_axis = g.sum(axis=1 - axes[0]).reshape(shape)
            mistakes["that is summed over the axis that was not repeated"] = wrong_axis
        what = f"gradient for a parent of shape {shape}, from g of shape {full},"
        yours.compare(what, yours(g, shape), expected, mistakes)
    return "In a layer x W + bias this sums the gradient of the bias over all rows of x."


@exercise(
    hints=(
        "Shapes decide: g has the shape of x W, (n, d_out). Which product of g and W has the shape "
        "of x? And which product of x and g has the shape of W?",
        "`g @ W.T` is (n, d_out) times (d_out, d_in).",
    )
)
def matmul_vjps(yours: Yours) -> str:
    rng = np.random.default_rng()
    for n, d_in, d_out in ((4, 3, 2), (3, 3, 3), (1, 5, 2)):
        x, W, g = (rng.standard_normal(s) for s in ((n, d_in), (d_in, d_out), (n, d_out)))
        to_x, to_W = unpack(yours(x, W), "to_x, to_W")
        of_x, of_W = g @ W.T, x.T @ g
        both = "that is the transpose"
        swapped = "that is the gradient of the other one: return to_x, to_W, in this order"
        first = {
            swapped: of_W,
            both: of_x.T,
            "the gradient of x is the transpose": of_x.T,
            "that has the wrong sign": -of_x,
            "that is divided by the rows; g holds all there is to divide": of_x / n,
            "that is the derivative without the gradient that comes in": np.ones_like(g) @ W.T,
        }
        second = {
            swapped: of_x,
            both: of_W.T,
            "the gradient of W is the transpose": of_W.T,
            "that has the wrong sign": -of_W,
            "that is divided by the rows; g holds all there is to divide": of_W / n,
            "the gradient of W is divided by the rows; they all add up": of_W / n,
            "that is the derivative without the gradient that comes in": x.T @ np.ones_like(g),
        }
        what = f"with x {x.shape} and W {W.shape},"
        yours.compare(f"gradient of x, {what}", _use_vjp(yours, to_x, g), of_x, first)
        yours.compare(f"gradient of W, {what}", _use_vjp(yours, to_W, g), of_W, second)
    return "Only W needs x.T @ g, and x kept for it: what if W is not trained? See *Frozen* below."


def _slopes() -> list[tuple[str, Any, Any, np.ndarray, bool]]:
    """(what, f, its alleged gradient, x, whether it is right)"""
    x, M = np.array([0.5, -1.0, 2.0]), np.array([[0.3, -0.7], [1.1, 0.4]])
    w = np.array([3.0, -2.0, 5.0])
    cubes, slope = (lambda x: float((x**3).sum())), (lambda x: 3 * x**2)
    one_off = np.array([0.0, 0.0, 0.5])
    large, ones, small = np.array([1e4, 1.0, 2.0]), np.ones(3), np.full(3, 0.1)
    second, wide = np.array([0.0, 1.0, 0.0]), np.array([[0.3, -0.7, 1.3], [1.1, 0.4, -0.2]])
    falls, its_slope = (lambda x: float(-2000 * np.exp(x).sum())), (lambda x: -2000 * np.exp(x))
    return [
        ("the right gradient", cubes, slope, x, True),
        ("twice the gradient", cubes, lambda x: 6 * x**2, x, False),
        ("the gradient with the sign of a descent", cubes, lambda x: -3 * x**2, x, False),
        ("zeros", cubes, np.zeros_like, x, False),
        ("a gradient with one wrong entry", cubes, lambda x: slope(x) + one_off, x, False),
        ("entries of the gradient in another order", cubes, lambda x: slope(x)[[1, 2, 0]], x,
         False),
        ("a gradient that is off by 1 %", cubes, lambda x: 1.01 * slope(x), x, False),
        ("the right gradient of a linear function", lambda x: float(w @ x), lambda x: w, x, True),
        ("x for the gradient of a linear function", lambda x: float(w @ x), lambda x: x, x, False),
        ("the right gradient for a matrix", lambda x: float(np.sin(x).sum()), np.cos, M, True),
        ("the transpose", lambda x: float(np.sin(x).sum()), lambda x: np.cos(x).T, M, False),
        ("the right gradient of a steep function", lambda x: float(2000 * np.exp(x).sum()),
         lambda x: 2000 * np.exp(x), x, True),
        ("the right zeros at a minimum", lambda x: float(50 * ((x - 1) ** 2).sum()),
         lambda x: 100 * (x - 1), np.ones(3), True),
        ("the right zeros of a constant", lambda x: 7.0, np.zeros_like, x, True),
        ("a wrong small entry beside a large one", lambda x: float(large @ x),
         lambda x: large + 0.01 * second, x, False),
        ("slopes of about -5000 with an allowed error of 0.003 %", falls,
         lambda x: 1.00003 * its_slope(x), x, True),
        ("a slope of 1 with an error of 0.00025", lambda x: float(ones @ x),
         lambda x: ones + 2.5e-4 * second, x, False),
        ("a gradient with an entry of nan", cubes, lambda x: np.where(second, np.nan, slope(x)),
         x, False),
        ("the rows of a matrix read backward", lambda x: float(np.sin(x).sum()),
         lambda x: np.cos(x)[:, ::-1], wide, False),
        ("slopes of 0.1 with an allowed error of 0.00005", lambda x: float(small @ x),
         lambda x: small + 5e-5 * second, x, True),
    ]  # fmt: skip


_SLIPS = [  # each with the only cases in which it changes the verdict
    ("it adds up all slopes; compare each with its own entry", (5, 10, 14, 16, 18), True),
    ("it looks at the first entry only", (4, 10, 14, 16, 17), True),
    ("one right entry is enough for it; each must be right", (4, 10, 14, 16, 17, 18), True),
    ("it compares sizes without signs", (2,), True),
    ("that is a forward difference, which is off by h times the curvature", (12,), False),
    ("the tolerance must grow with the size of the slope", (15,), False),
    ("below a slope of 1 the tolerance is 1e-4 itself", (12, 19), False),
    ("`nan > tolerance` is False, so nan passes; ask whether it is within", (17,), True),
    ("one large slope hides the error of a small one; each has its own tolerance", (14,), True),
]


@exercise(
    hints=(
        "For each entry: a copy of x with that entry a little larger, one with it a little "
        "smaller; what is the slope between them?",
        "`for i in np.ndindex(x.shape)`: `up = x.copy(); up[i] += h`, likewise down, and "
        "`(f(up) - f(down)) / (2 * h)`. Compare each with its own entry of gradient(x).",
    )
)
def gradient_is_right(yours: Yours) -> str:
    for i, (what, f, gradient, x, right) in enumerate(_slopes()):
        known = {
            "it finds every gradient right": True,
            "it finds every gradient wrong": False,
        }
        for why, cases, verdict in _SLIPS:
            if i in cases:
                known[why] = verdict
        got = yours(f, gradient, x)
        answer = as_array(got)
        require(
            answer is not None and answer.shape == () and answer.dtype.kind in "biu",
            f"it returns {type(got).__name__}; expected True or False",
        )
        yours.compare(f"verdict on {what}", bool(got), right, known)
    return f"It saw through {sum(not right for *_, right in _slopes())} wrong gradients."


def _graph_of(make: Callable[..., Any], tanh: Callable[..., Any], arrays: Sequence[Any]) -> Any:
    """A loss of five trainable arrays with every operation, a value and a result used twice."""
    x, W, b, A, B = (make(a, True) for a in arrays)
    h = tanh(x @ W + b)
    return (h * h + (h @ A) @ B * b).sum(), (x, W, b, A, B)


@exercise(
    hints=(
        "A frozen parent is one whose requires_grad is False. What does a result need if none of "
        "its parents does?",
        "In `record`: `kept = [(parent, fit(vjp, parent)) for parent, vjp in edges if "
        "parent.requires_grad]`, and the result requires a gradient if kept is not empty. "
        "`__mul__` is like `__add__`, with the functions of your product_vjps.",
    )
)
def Value(yours: Yours) -> str:
    make = yours.function

    def new(*arguments: Any) -> Any:
        return yours.use(make, *arguments)

    def do(operation: Callable[..., Any], *values: Any) -> Any:
        return yours.use(operation, *values, may_be_none=False)

    product = do(operator.mul, new(3.0, True), new(5.0, True))
    yours.compare("Value(3) * Value(5)", product.data, 15.0)
    frozen = do(operator.mul, new(3.0), new(5.0))
    require(not frozen.requires_grad, "a product of frozen Values must be frozen too")
    require(len(list(frozen.edges)) == 0, "a product of frozen Values must keep no edges")
    W, A = new([[1.0, 2.0]]), new([[3.0], [4.0]], True)
    half = do(operator.matmul, W, A)
    require(half.requires_grad, "a result needs a gradient if one of its parents does")
    parents = [parent for parent, _ in half.edges]
    require(W not in parents, "record keeps an edge to a frozen parent")
    require(parents == [A], "record drops the edge to a parent that trains")
    do(operator.matmul, half, new([[2.0]])).sum().backward()
    require(W.grad is None, "a frozen Value got a gradient")
    require(A.grad is not None, "after backward(), a leaf that trains has no gradient in .grad")
    yours.compare("gradient behind a frozen W", A.grad, [[2.0], [4.0]])

    rng = np.random.default_rng()
    shapes = ((4, 3), (3, 5), (5,), (5, 2), (2, 5))
    arrays = [rng.standard_normal(shape) for shape in shapes]
    loss, leaves = do(lambda *a: _graph_of(make, lambda v: v.tanh(), a), *arrays)
    reference, others = _graph_of(Tensor, ops.tanh, arrays)
    yours.compare("loss of a layer with LoRA's detour", loss.data, reference.data)
    reference.backward()
    yours.use(loss.backward)
    kept = all(np.array_equal(mine.data, a) for mine, a in zip(leaves, arrays, strict=True))
    require(kept, "backward() changes the data; gradients belong into .grad")
    for name, mine, other in zip(("x", "W", "b", "A", "B"), leaves, others, strict=True):
        require(mine.grad is not None, f"after backward(), {name} has no gradient in .grad")
        yours.compare(f"gradient of {name} in that layer", mine.grad, other.grad)
    return "On a layer with five arrays, your engine and minilora's give the same gradients."


_DIVISORS = {"sum": lambda y: 1, "rows": len, "no 2": lambda y: 2 * y.size}


def _train(
    x: np.ndarray, y: np.ndarray, weights: Sequence[np.ndarray], lr: float, steps: int,
    mistake: str = "",
) -> list[np.ndarray]:  # fmt: skip
    """What train_network returns, rightly or with one of its mistakes."""
    W1, b1, W2, b2 = weights
    first = None
    for _ in range(steps):
        h = np.tanh(x @ W1 + b1)
        G = 2 * (h @ W2 + b2 - y) / _DIVISORS.get(mistake, np.size)(y)
        seen = W2 - lr * h.T @ G if mistake == "one by one" else W2
        back = (G @ seen.T) * (1 if mistake == "linear" else 1 - h * h)
        new = [x.T @ back, back.sum(0), h.T @ G, G.sum(0)]
        if mistake == "no biases":
            new[1], new[3] = 0 * b1, 0 * b2
        if mistake == "stale":
            first = new if first is None else first
            new = first
        W1, b1, W2, b2 = (w - lr * g for w, g in zip((W1, b1, W2, b2), new, strict=True))
    return [W1, b1, W2, b2]


@exercise(
    hints=(
        "In each step make four new Values that train, compute the loss from them, call "
        "backward(), and take lr times each .grad off the arrays.",
        "`error = (Value(x) @ W1 + b1).tanh() @ W2 + b2 + Value(-y)`, "
        "`loss = (error * error).sum() * Value(1 / y.size)`, `loss.backward()`, and "
        "`weights = [w.data - lr * w.grad for w in values]`.",
    )
)
def train_network(yours: Yours) -> str:
    rng = np.random.default_rng()
    x, y = rng.standard_normal((7, 5)), rng.standard_normal((7, 3))
    weights = [rng.standard_normal(s) for s in ((5, 4), (4,), (4, 3), (3,))]
    known = {
        "that goes up the slope: take lr times the gradient off": ("", -1, 0),
        "the loss is the mean over all entries of y, not the sum": ("sum", 1, 0),
        "the mean is over all entries of y, not over its rows": ("rows", 1, 0),
        "the derivative of a square has a factor 2": ("no 2", 1, 0),
        "all gradients must be computed before the first array moves": ("one by one", 1, 0),
        "the biases did not train": ("no biases", 1, 0),
        "the gradients must be computed anew in every step": ("stale", 1, 0),
        "the way back through tanh lacks its derivative": ("linear", 1, 0),
        "that is one step too many": ("", 1, 1),
        "that is one step too few": ("", 1, -1),
    }
    for lr, steps in ((0.05, 2), (0.02, 25), (0.1, 0)):
        handed = [array.copy() for array in (x, y, *weights)]
        got = unpack(yours(*handed, lr, steps), "W1, b1, W2, b2")
        expected = _train(x, y, weights, lr, steps)
        with np.errstate(over="ignore", invalid="ignore"):
            wrong = {
                why: _train(x, y, weights, sign * lr, steps + more, how)
                for why, (how, sign, more) in known.items()
            }
        for i, name in enumerate(("W1", "b1", "W2", "b2")):
            mistakes = {why: w[i] for why, w in wrong.items() if np.isfinite(w[i]).all()}
            yours.compare(f"{name} after {steps} steps", got[i], expected[i], mistakes)
    return "With a network ten thousand times as large, this loop would train a language model."
