"""One operation with shapes that need not fit, and a judge of whether they do.

The judge says what the docstrings say: NumPy's rules for ops.py, the shapes in functional.py.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from random_graphs import Graph, Shape, broadcast, literal, shape

Fits = Callable[..., bool]


@dataclass(frozen=True)
class Call:
    """leaves: (shape, train) of x0, x1, …"""

    expression: str
    leaves: list[tuple[Shape, bool]]
    fits: bool

    def graph(self, rng: np.random.Generator) -> Graph:
        """Raises Unsuitable where leaves happen to be too large together, or too near."""
        graph = Graph(rng)
        for wanted, train in self.leaves:
            graph.leaf(wanted, train)
        graph.line(self.expression)
        return graph


def draw_call(rng: np.random.Generator) -> Call:
    template, shapes, fits = KINDS[int(rng.integers(len(KINDS)))](rng)
    shapes = list(shapes)
    for _ in range(int(rng.integers(1, 3))):
        i = int(rng.integers(len(shapes)))
        shapes[i] = _another(rng, shapes[i])
    frozen = "x1" if template.startswith("F.lora_linear") else ""
    leaves = [(s, f"x{i}" != frozen) for i, s in enumerate(shapes)]
    return Call(template, leaves, bool(fits(*shapes)))


def _another(rng: np.random.Generator, old: Shape) -> Shape:
    new = list(old)
    kind = int(rng.integers(4))
    if kind == 0:
        new.insert(int(rng.integers(len(new) + 1)), int(rng.integers(1, 3)))
    elif new:
        i = int(rng.integers(len(new)))
        if kind == 1:
            new.pop(i)
        elif kind == 2:
            new[i] = int(rng.integers(0, 5))
        else:
            j = int(rng.integers(len(new)))
            new[i], new[j] = new[j], new[i]
    return tuple(new)


def _numpy_takes(f: Callable[..., Any]) -> Fits:
    def fits(*shapes: Shape) -> bool:
        try:
            f(*(np.ones(s) for s in shapes))
        except (ValueError, IndexError, TypeError):
            return False
        return True

    return fits


def _size(rng: np.random.Generator) -> int:
    return int(rng.integers(1, 4))


def binary(rng: np.random.Generator) -> tuple[str, list[Shape], Fits]:
    name = ("add", "sub", "mul", "div")[int(rng.integers(4))]
    wanted = shape(rng, 1)
    return f"ops.{name}(x0, x1)", [wanted, wanted], lambda a, b: broadcast(a, b) is not None


def matmul(rng: np.random.Generator) -> tuple[str, list[Shape], Fits]:
    n, k, m, B = (_size(rng) for _ in range(4))
    pairs: list[list[Shape]] = [
        [(n, k), (k, m)], [(B, n, k), (k, m)], [(k,), (k, m)], [(B, n, k), (B, k, m)], [(k,), (k,)]
    ]  # fmt: skip
    return "ops.matmul(x0, x1)", pairs[int(rng.integers(5))], _numpy_takes(np.matmul)


def where(rng: np.random.Generator) -> tuple[str, list[Shape], Fits]:
    wanted = shape(rng, 1)
    mask = rng.random(wanted) < 0.5
    source = literal(mask) if mask.size else f"np.zeros({wanted}, bool)"

    def fits(a: Shape, b: Shape) -> bool:
        return broadcast(wanted, a, b) is not None

    return f"ops.where({source}, x0, x1)", [wanted, wanted], fits


def concatenate(rng: np.random.Generator) -> tuple[str, list[Shape], Fits]:
    wanted = shape(rng, 1)
    axis = int(rng.integers(-len(wanted), len(wanted)))
    fits = _numpy_takes(lambda a, b: np.concatenate([a, b], axis))
    return f"ops.concatenate([x0, x1], {axis})", [wanted, wanted], fits


def of_axis(rng: np.random.Generator) -> tuple[str, list[Shape], Fits]:
    wanted = shape(rng, 1)
    axis = int(rng.integers(-len(wanted), len(wanted)))
    module, name = (("ops", "tensor_sum"), ("ops", "mean"), ("F", "softmax"))[rng.integers(3)]

    in_range = _numpy_takes(lambda x: x.sum(axis))

    def fits(s: Shape) -> bool:
        if not in_range(s) or name == "tensor_sum" or not s:
            return in_range(s)
        rows = s[:axis] + s[axis:][1:]
        return s[axis] > 0 or (name == "mean" and 0 in rows)

    return f"{module}.{name}(x0, {axis})", [wanted], fits


def moved_axes(rng: np.random.Generator) -> tuple[str, list[Shape], Fits]:
    wanted = shape(rng, 1)
    i, j = (int(n) for n in rng.integers(-len(wanted), len(wanted), 2))
    fits = _numpy_takes(lambda x: x.swapaxes(i, j))
    return f"ops.swapaxes(x0, {i}, {j})", [wanted], fits


def reshape(rng: np.random.Generator) -> tuple[str, list[Shape], Fits]:
    wanted = shape(rng, 1)
    new = tuple(int(n) for n in rng.permutation(wanted))
    return f"ops.reshape(x0, {new})", [wanted], _numpy_takes(lambda x: x.reshape(new))


def getitem(rng: np.random.Generator) -> tuple[str, list[Shape], Fits]:
    wanted = shape(rng, 1)
    index = tuple(int(rng.integers(0, max(n, 1))) for n in wanted)
    fits = _numpy_takes(lambda x: x[index])
    return f"ops.getitem(x0, {index})", [wanted], fits


def linear(rng: np.random.Generator) -> tuple[str, list[Shape], Fits]:
    d_in, d_out = _size(rng), _size(rng)

    def fits(x: Shape, W: Shape, b: Shape) -> bool:
        return len(x) > 0 and len(W) == 2 and x[-1] == W[0] and b == W[1:]

    shapes = [(*shape(rng)[:2], d_in), (d_in, d_out), (d_out,)]
    return "F.linear(x0, x1, x2)", shapes, fits


def lora_linear(rng: np.random.Generator) -> tuple[str, list[Shape], Fits]:
    d_in, d_out, r = (_size(rng) for _ in range(3))

    def fits(x: Shape, W: Shape, b: Shape, A: Shape, B: Shape) -> bool:
        ranks = len(A) == len(B) == 2 and A[1] == B[0]
        base = len(x) > 0 and len(W) == 2 and x[-1] == W[0] and b == W[1:]
        return ranks and base and A[0] == W[0] and B[1] == W[1]

    shapes = [(*shape(rng)[:2], d_in), (d_in, d_out), (d_out,), (d_in, r), (r, d_out)]
    return "F.lora_linear(x0, x1, x2, x3, x4, 1.5)", shapes, fits


def layer_norm(rng: np.random.Generator) -> tuple[str, list[Shape], Fits]:
    C = _size(rng)

    def fits(x: Shape, w: Shape, b: Shape) -> bool:
        return len(x) > 0 and x[-1] > 0 and x[-1:] == w == b

    return "F.layer_norm(x0, x1, x2, 0.5)", [(*shape(rng)[:2], C), (C,), (C,)], fits


def rms_norm(rng: np.random.Generator) -> tuple[str, list[Shape], Fits]:
    C = _size(rng)

    def fits(x: Shape, w: Shape) -> bool:
        return len(x) > 0 and x[-1] > 0 and x[-1:] == w

    return "F.rms_norm(x0, x1, 0.5)", [(*shape(rng)[:2], C), (C,)], fits


def embedding(rng: np.random.Generator) -> tuple[str, list[Shape], Fits]:
    V, wanted = _size(rng), shape(rng)
    ids = np.asarray(rng.integers(0, V, wanted))
    most = int(ids.max(initial=-1))

    def fits(table: Shape) -> bool:
        return len(table) == 2 and most < table[0]

    return f"F.embedding(x0, {literal(ids)})", [(V, _size(rng))], fits


def cross_entropy(rng: np.random.Generator) -> tuple[str, list[Shape], Fits]:
    V, rows = 1 + _size(rng), shape(rng)
    targets = np.asarray(rng.integers(0, V, rows))

    def fits(logits: Shape) -> bool:
        return (
            len(logits) > 0
            and logits[:-1] == rows
            and targets.size > 0
            and int(targets.max(initial=0)) < logits[-1]
        )

    return f"F.cross_entropy(x0, {literal(targets)})", [(*rows, V)], fits


def rope(rng: np.random.Generator) -> tuple[str, list[Shape], Fits]:
    H = _size(rng)

    def fits(x: Shape) -> bool:
        return len(x) == 3 and x[2] % (2 * H) == 0

    return f"F.rope(x0, {H}, 3, 50.0)", [(_size(rng), _size(rng), 2 * H)], fits


def attention(rng: np.random.Generator) -> tuple[str, list[Shape], Fits]:
    H, J = ((1, 1), (2, 1), (2, 2), (4, 2))[int(rng.integers(4))]
    B, T, D = (_size(rng) for _ in range(3))
    S = T + int(rng.integers(2))

    def fits(q: Shape, k: Shape, v: Shape) -> bool:
        if len(q) != 3 or len(k) != 3 or k != v or q[0] != k[0] or q[1] > k[1]:
            return False
        return q[2] > 0 and q[2] % H == 0 and k[2] == q[2] // H * J

    shapes = [(B, T, H * D), (B, S, J * D), (B, S, J * D)]
    return f"F.attention(x0, x1, x2, {H}, {J})", shapes, fits


KINDS: list[Callable[[np.random.Generator], tuple[str, list[Shape], Fits]]] = [
    binary, matmul, where, concatenate, of_axis, moved_axes, reshape, getitem, linear, lora_linear,
    layer_norm, rms_norm, embedding, cross_entropy, rope, attention,
]  # fmt: skip
