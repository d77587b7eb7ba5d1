"""Random programs of the engine's operations, as Python source that runs alone and in PyTorch.

A `Graph` is leaves and lines: `v2 = F.softmax(v1, 0)`. `draw` adds line after line, each with
values that are there already (so values are used again, and in the middle) or with new leaves, of
any shape that fits: broadcast, empty, of size 1, of strided memory, frozen; some lines stand within
no_grad(). Values stay away from where a derivative jumps or grows without end, because there the
differences that judge it mean nothing.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from types import CodeType
from typing import Any

import numpy as np
import suite  # noqa: F401  (finds strategies)
from strategies import lay_out

from minilora import functional as F
from minilora import ops
from minilora.tensor import Tensor, no_grad

LARGEST = 30.0  # a value
STEEP = 60  # what scores are multiplied by
NEAREST = 0.3  # to a pole; and the least gap between the two largest of a maximum is a tenth of it
LAYOUTS = ("contiguous", "transposed", "stepped", "reversed")
OURS = {
    "np": np,
    "ops": ops,
    "F": F,
    "no_grad": no_grad,
    "array": lambda numbers: np.array(numbers, np.float64),
}
Shape = tuple[int, ...]


class Unsuitable(Exception):  # noqa: N818
    """A line whose values are too large, or too near to where a derivative jumps."""


@dataclass(frozen=True)
class Leaf:
    array: np.ndarray
    layout: str
    train: bool

    def source(self) -> str:
        array = f"lay_out({literal(self.array)}, {self.layout!r})"
        return f"Tensor({array}, requires_grad={self.train})"


@dataclass(frozen=True)
class Line:
    expression: str
    constant: bool  # no gradient flows through it: computed within no_grad(), or detached


@dataclass
class Graph:
    """leaves are x0, x1, …; lines make v0, v1, …; the last is the output. values: of all names."""

    rng: np.random.Generator
    leaves: list[Leaf] = field(default_factory=list)
    lines: list[Line] = field(default_factory=list)
    values: dict[str, np.ndarray] = field(default_factory=dict)

    def leaf(self, shape: Shape, train: bool | None = None) -> str:
        """The name of a new leaf with magnitudes from 0.5 to 2."""
        rng = self.rng
        signs = rng.choice([-1, 1], shape)
        array = np.asarray(np.round(rng.uniform(0.5, 2, shape), 3) * signs, np.float64)
        train = bool(rng.random() < 0.85) if train is None else train
        return self.given(array, str(rng.choice(LAYOUTS)), train)

    def given(self, array: np.ndarray, layout: str = "contiguous", train: bool = True) -> str:
        name = f"x{len(self.leaves)}"
        self.leaves.append(Leaf(array, layout, train))
        self.values[name] = array
        return name

    def line(self, expression: str, constant: bool = False) -> str:
        """The name of a new value. Raises Unsuitable, and what the operation raises."""
        names = {n: Tensor(self.values[n]) for n in names_in(expression)}
        with np.errstate(all="ignore"), no_grad():
            value = eval(expression, OURS | names).data
        if not np.isfinite(value).all() or (value.size and np.abs(value).max() > LARGEST):
            raise Unsuitable
        name = f"v{len(self.lines)}"
        self.lines.append(Line(expression, constant))
        self.values[name] = value
        return name

    def pick(self, suits: Callable[[np.ndarray], bool] = lambda x: True) -> str | None:
        """A name whose value suits, the latest more often; None if there is none."""
        found = [name for name, value in self.values.items() if suits(value)]
        if not found:
            return None
        latest = found[-1] if self.rng.random() < 0.5 else None
        return latest or str(self.rng.choice(found))

    def any(self, least_ndim: int = 0) -> str:
        """A name whose value has so many axes."""
        found = self.pick(lambda x: x.ndim >= least_ndim)
        return found or self.leaf(shape(self.rng, least_ndim))

    def fit(self, wanted: Shape) -> str:
        """A name whose value has this shape: there already, a leaf, or a leaf times what is."""
        same = self.pick(lambda x: x.shape == wanted)
        if same and self.rng.random() < 0.7:
            return same
        other = self.pick(lambda x: broadcast(x.shape, wanted) == wanted)
        leaf = self.leaf(wanted)
        if other and self.rng.random() < 0.6:
            return self.line(f"ops.mul({leaf}, {other})")
        return leaf

    def away_from_zero(self, positive: bool) -> str:
        def suits(x: np.ndarray) -> bool:
            return bool((x if positive else np.abs(x)).min(initial=1) > NEAREST)

        found = self.pick(suits)
        if found and self.rng.random() < 0.6:
            return found
        return self.line(f"ops.exp(ops.tanh({self.any()}))")

    def arrays(self, dtype: Any = np.float64) -> list[np.ndarray]:
        """New arrays of all leaves, each in its layout."""
        return [lay_out(leaf.array.astype(dtype), leaf.layout) for leaf in self.leaves]

    def entries(self) -> list[tuple[int, tuple[int, ...]]]:
        """(leaf, index) of every number that trains."""
        trained = [(i, leaf) for i, leaf in enumerate(self.leaves) if leaf.train]
        return [(i, index) for i, leaf in trained for index in np.ndindex(leaf.array.shape)]

    def up_to(self, i: int) -> Graph:
        """The graph whose output is line i, without what this does not need."""
        needed, short = {f"v{i}"}, Graph(self.rng)
        for j in range(i, -1, -1):
            if f"v{j}" in needed:
                needed |= set(names_in(self.lines[j].expression))
        names: dict[str, str] = {}
        for j, leaf in enumerate(self.leaves):
            if f"x{j}" in needed:
                names[f"x{j}"] = short.given(leaf.array, leaf.layout, leaf.train)
        for j, line in enumerate(self.lines[: i + 1]):
            if f"v{j}" in needed:
                expression = renamed(line.expression, names)
                names[f"v{j}"] = short.line(expression, line.constant)
        return short

    def alone(self, i: int) -> Graph:
        """Line i by itself: the values that it uses are leaves."""
        names: dict[str, str] = {}
        single, line = Graph(self.rng), self.lines[i]
        for name in names_in(line.expression):
            frozen = name[0] == "x" and not self.leaves[int(name[1:])].train
            names[name] = single.given(self.values[name], train=not frozen)
        single.line(renamed(line.expression, names), line.constant)
        return single

    def source(self) -> str:
        """The function graph(x0, x1, …, held) -> [v0, v1, …]. held, if it is not None, has the
        values of the constant lines."""
        arguments = "".join(f"x{i}, " for i in range(len(self.leaves)))
        text = [f"def graph({arguments}held=None):"]
        for i, line in enumerate(self.lines):
            made = f"v{i} = {line.expression}"
            if line.constant:
                made = f"{made} if held is None else held[{i}]"
                if "detach" not in made:
                    made = f"with no_grad(): {made}"
            text.append(f"    {made}")
        values = ", ".join(f"v{i}" for i in range(len(self.lines)))
        return "\n".join([*text, f"    return [{values}]"])

    def function(self, namespace: dict[str, Any]) -> Callable[..., list[Any]]:
        made: dict[str, Any] = {}
        exec(_compiled(self.source()), namespace, made)
        return made["graph"]

    def script(self, weights: np.ndarray) -> str:
        """What repeats the graph and its gradients, to be run in tests/."""
        names = [f"x{i}" for i in range(len(self.leaves))]
        trained = [f"x{i}" for i, leaf in enumerate(self.leaves) if leaf.train]
        lines = [
            "import numpy as np",
            "from minilora import functional as F, ops",
            "from minilora.tensor import Tensor, grad, no_grad",
            "from strategies import lay_out",
            "array = np.array",
            *(f"{name} = {leaf.source()}" for name, leaf in zip(names, self.leaves, strict=True)),
            self.source(),
            f"out = graph({', '.join(names)})[-1]",
            f"print(grad((out * {literal(weights)}).sum(), [{', '.join(trained)}]))",
        ]
        return "\n".join(lines)


@lru_cache(maxsize=8)
def _compiled(source: str) -> CodeType:
    return compile(source, "<graph>", "exec")


def names_in(expression: str) -> list[str]:
    return list(dict.fromkeys(re.findall(r"\b[xv]\d+\b", expression)))


def renamed(expression: str, names: dict[str, str]) -> str:
    return re.sub(r"\b[xv]\d+\b", lambda found: names[found[0]], expression)


def literal(array: np.ndarray) -> str:
    """Source of an array."""
    if not array.size:
        return f"np.zeros({array.shape}, np.{array.dtype})"
    return f"np.array({array.tolist()})"


def broadcast(*shapes: Shape) -> Shape | None:
    try:
        return np.broadcast_shapes(*shapes)
    except ValueError:
        return None


def shape(rng: np.random.Generator, least_ndim: int = 0) -> Shape:
    ndim = int(rng.integers(least_ndim, 4))
    return tuple(int(n) for n in rng.choice([0, 1, 2, 3, 4], ndim, p=[0.04, 0.21, 0.3, 0.3, 0.15]))


def draw(rng: np.random.Generator) -> Graph:
    """A graph of 1 to 8 lines, or a few more."""
    graph = Graph(rng)
    graph.leaf(shape(rng), train=True)
    lines, tries = int(rng.integers(1, 9)), 0
    while len(graph.lines) < lines and tries < 40:
        tries += 1
        before = len(graph.leaves), len(graph.lines)
        kind = KINDS[int(rng.integers(len(KINDS)))]
        try:
            expression = kind(graph)
            graph.line(
                expression, constant=bool(len(graph.lines) < lines - 1 and rng.random() < 0.06)
            )
        except Unsuitable:
            _take_back(graph, *before)
    if not graph.lines:
        graph.line("ops.neg(x0)")
    return graph


def _take_back(graph: Graph, leaves: int, lines: int) -> None:
    for i in range(leaves, len(graph.leaves)):
        del graph.values[f"x{i}"]
    for i in range(lines, len(graph.lines)):
        del graph.values[f"v{i}"]
    del graph.leaves[leaves:], graph.lines[lines:]


def _choice(rng: np.random.Generator, values: Any) -> Any:
    return values[int(rng.integers(len(values)))]


def _axis(g: Graph, ndim: int) -> int:
    return int(g.rng.integers(-ndim, ndim))


def _partner(g: Graph, wanted: Shape) -> str:
    """What broadcasts with a value of this shape: a value, a leaf, a number, an array."""
    rng, kind = g.rng, g.rng.random()
    if kind < 0.4:
        found = g.pick(lambda x: broadcast(x.shape, wanted) is not None and x.size < 60)
        if found:
            return found
    axes = [1 if rng.random() < 0.3 else n for n in wanted[int(rng.integers(0, 2)) :]]
    if kind < 0.7 or not axes:
        return g.leaf(tuple(axes))
    if kind < 0.75:
        return g.leaf((2, *wanted))
    if kind < 0.85:
        return repr(_choice(rng, [2, -1.5, 0.25, 3]))
    numbers = np.round(rng.uniform(0.5, 2, axes), 2)
    return f"array({literal(numbers)})"


def arithmetic(g: Graph) -> str:
    name, sign = _choice(g.rng, [("add", "+"), ("sub", "-"), ("mul", "*")])
    a = g.any()
    pair = [a, _partner(g, g.values[a].shape)]
    if g.rng.random() < 0.5:
        pair.reverse()
    written = f"{pair[0]} {sign} {pair[1]}"
    return written if g.rng.random() < 0.5 else f"ops.{name}({', '.join(pair)})"


def division(g: Graph) -> str:
    b = g.away_from_zero(positive=False)
    a = _partner(g, g.values[b].shape)
    return f"{a} / {b}" if g.rng.random() < 0.5 else f"ops.div({a}, {b})"


def elementwise(g: Graph) -> str:
    module, name = _choice(
        g.rng,
        [("ops", "neg"), ("ops", "exp"), ("ops", "tanh"), ("F", "gelu"), ("F", "silu")],
    )
    return f"{module}.{name}({g.any()})"


def of_positive(g: Graph) -> str:
    x = g.away_from_zero(positive=True)
    name = _choice(g.rng, ["sqrt", "log", "power"])
    return (
        f"ops.power({x}, {_choice(g.rng, [0.5, -1.5, 1.7])})"
        if name == "power"
        else (f"ops.{name}({x})")
    )


def power(g: Graph) -> str:
    exponent = _choice(g.rng, [2, 3, 2.0, 0, 1, -1, -2])
    x = g.any() if exponent >= 0 else g.away_from_zero(positive=False)
    return f"{x} ** {exponent}"


def matmul(g: Graph) -> str:
    a = g.any(1)
    *batch, k = g.values[a].shape
    rng = g.rng
    m = int(rng.integers(1, 4))
    batch = batch[: max(len(batch) - 1, 0)]
    kept = [1 if rng.random() < 0.3 else n for n in batch[int(rng.integers(0, 2)) :]]
    wanted = _choice(rng, [(k,), (k, m), (*kept, k, m)])
    b = g.fit(wanted)
    if len(wanted) == 2 and rng.random() < 0.3:  # the other way round, as W x
        c = g.fit((m, wanted[0]))
        return f"ops.matmul({c}, {b})"
    return f"{a} @ {b}" if rng.random() < 0.5 else f"ops.matmul({a}, {b})"


def reduction(g: Graph) -> str:
    name = _choice(g.rng, ["tensor_sum", "mean", "tensor_max"])
    x = g.any()
    value = g.values[x]
    axes: list[Any] = [None]
    if value.ndim:
        axes += [_axis(g, value.ndim)] * 2
    if value.ndim > 1:
        axes.append(tuple(int(i) for i in g.rng.permutation(value.ndim)[:2]))
    axis, keepdims = _choice(g.rng, axes), bool(g.rng.random() < 0.4)
    if name != "tensor_sum" and not value.size:
        raise Unsuitable
    if name == "tensor_max":
        _require_clear_maximum(value, axis)
    return f"ops.{name}({x}, {axis}, keepdims={keepdims})"


def _require_clear_maximum(x: np.ndarray, axis: Any) -> None:
    """Equal entries may be largest together, as they share; near ones may not."""
    near = x > x.max(axis=axis, keepdims=True) - NEAREST / 10
    if ((x < x.max(axis=axis, keepdims=True)) & near).any():
        raise Unsuitable


def reshape(g: Graph) -> str:
    x = g.any()
    size = g.values[x].size
    rows = _choice(g.rng, [n for n in range(1, size + 1) if size % n == 0] or [1])
    wanted = [n for n in (rows, size // rows) if n != 1 or g.rng.random() < 0.7]
    if g.rng.random() < 0.3:
        wanted.insert(int(g.rng.integers(len(wanted) + 1)), 1)
    if wanted and size and g.rng.random() < 0.4:
        wanted[int(g.rng.integers(len(wanted)))] = -1
    if g.rng.random() < 0.5:
        return f"ops.reshape({x}, {tuple(wanted)})"
    return f"{x}.reshape({', '.join(map(str, wanted))})" if wanted else f"{x}.reshape(())"


def swapaxes(g: Graph) -> str:
    x = g.any(1)
    ndim = g.values[x].ndim
    if ndim == 2 and g.rng.random() < 0.4:
        return f"{x}.T"
    return f"ops.swapaxes({x}, {_axis(g, ndim)}, {_axis(g, ndim)})"


def getitem(g: Graph) -> str:
    x = g.any(1)
    rng, value = g.rng, g.values[x]
    if rng.random() < 0.15:
        return f"ops.getitem({x}, {literal(rng.random(value.shape) < 0.6)})"
    parts, array_used = [], False
    for n in value.shape[: int(rng.integers(1, value.ndim + 1))]:
        kind = rng.random()
        if kind < 0.2 and n:
            parts.append(str(int(rng.integers(-n, n))))
        elif kind < 0.4 and n and not array_used:
            array_used = True
            parts.append(literal(rng.integers(-n, n, int(rng.integers(1, 4)))))
        elif kind < 0.5 and not array_used:
            array_used = True
            parts.append(literal(rng.random(n) < 0.6))
        else:
            parts.append(_choice(rng, [":", "::-1", "1:", ":-1", "::2", "-2::-1"]))
    if rng.random() < 0.2:
        parts.insert(int(rng.integers(len(parts) + 1)), "None")
    if rng.random() < 0.2:
        parts.append("...")
    return f"ops.getitem({x}, np.s_[{', '.join(parts)}])"


def concatenate(g: Graph) -> str:
    a = g.any(1)
    first = g.values[a].shape
    axis = _axis(g, len(first))
    parts = [a]
    for _ in range(int(g.rng.integers(1, 3))):
        wanted = list(first)
        if g.rng.random() < 0.5:
            wanted[axis] = int(g.rng.integers(0, 3))
        parts.append(g.fit(tuple(wanted)))
    order = g.rng.permutation(len(parts))
    return f"ops.concatenate([{', '.join(parts[i] for i in order)}], {axis})"


def where(g: Graph) -> str:
    a = g.any()
    b = _partner(g, g.values[a].shape)
    mask = literal(g.rng.random(g.values[a].shape) < 0.5)
    if g.values[a].size == 0:
        mask = f"np.zeros({g.values[a].shape}, bool)"
    pair = [a, b] if g.rng.random() < 0.5 else [b, a]
    return f"ops.where({mask}, {', '.join(pair)})"


def detach(g: Graph) -> str:
    constant = g.line(f"{g.any()}.detach()", constant=True)
    return f"{constant} * {_partner(g, g.values[constant].shape)}"


def linear(g: Graph) -> str:
    x = g.any(1)
    d_in, d_out = g.values[x].shape[-1], int(g.rng.integers(1, 4))
    W = g.fit((d_in, d_out))
    return f"F.linear({x}, {W}, {g.fit((d_out,)) if g.rng.random() < 0.6 else None})"


def lora_linear(g: Graph) -> str:
    x = g.any(1)
    d_in, d_out, r = g.values[x].shape[-1], *(int(n) for n in g.rng.integers(1, 4, 2))
    W = g.leaf((d_in, d_out), train=False)
    bias = g.fit((d_out,)) if g.rng.random() < 0.6 else None
    scale = _choice(g.rng, [0.5, 1, 1.5])
    return f"F.lora_linear({x}, {W}, {bias}, {g.fit((d_in, r))}, {g.fit((r, d_out))}, {scale})"


def embedding(g: Graph) -> str:
    table = g.pick(lambda x: x.ndim == 2 and len(x) > 0) or g.leaf((3, 2))
    ids = g.rng.integers(0, len(g.values[table]), shape(g.rng))
    return f"F.embedding({table}, {literal(np.asarray(ids))})"


def norm(g: Graph) -> str:
    """Of one entry, or of equal ones, the norm is all eps."""

    def suits(x: np.ndarray) -> bool:
        return x.ndim > 0 and x.shape[-1] > 1 and bool((x.std(-1) > NEAREST).all())

    x = g.pick(suits)
    if x is None:
        raise Unsuitable
    C, eps = g.values[x].shape[-1], _choice(g.rng, [1e-5, 1e-3, 0.5])
    if g.rng.random() < 0.5:
        return f"F.layer_norm({x}, {g.fit((C,))}, {g.fit((C,))}, {eps})"
    return f"F.rms_norm({x}, {g.fit((C,))}, {eps})"


def softmax(g: Graph) -> str:
    x = g.any(1)
    axis = _axis(g, g.values[x].ndim)
    if not g.values[x].shape[axis]:
        raise Unsuitable
    return f"F.softmax({_scores(g, x)}, {axis})"


def _scores(g: Graph, x: str) -> str:
    """A value, now and then so large that its exp in float32 overflows."""
    return f"{STEEP} * {x}" if g.rng.random() < 0.2 else x


def cross_entropy(g: Graph) -> str:
    x = g.any(1)
    *rows, V = g.values[x].shape
    targets = np.asarray(g.rng.integers(0, max(V, 1), rows))
    ignored = g.rng.random(rows) < 0.2
    if not targets.size or not V or ignored.all():
        raise Unsuitable
    return f"F.cross_entropy({_scores(g, x)}, {literal(np.where(ignored, -100, targets))})"


def dropout(g: Graph) -> str:
    p = _choice(g.rng, [0.3, 0.6])  # at 0 the value itself is returned, within no_grad() too
    return f"F.dropout({g.any()}, {p}, np.random.default_rng({int(g.rng.integers(99))}))"


def _sequence(g: Graph, B: int, T: int, C: int) -> str:
    """(B, T, C), now and then made of what is there by a Linear."""
    x = g.pick(lambda x: x.shape[:2] == (B, T) and x.ndim == 3)
    if x is None or g.rng.random() < 0.3:
        return g.fit((B, T, C))
    d_in = g.values[x].shape[2]
    return x if d_in == C else g.line(f"F.linear({x}, {g.leaf((d_in, C))})")


def rope(g: Graph) -> str:
    x = g.pick(lambda x: x.ndim == 3)
    B, T = g.values[x].shape[:2] if x else g.rng.integers(1, 4, 2)
    H, start = int(g.rng.integers(1, 3)), int(g.rng.integers(0, 5))
    x = _sequence(g, int(B), int(T), 2 * H)
    return f"F.rope({x}, {H}, {start}, {_choice(g.rng, [10000.0, 50.0])})"


def attention(g: Graph) -> str:
    found = g.pick(lambda x: x.ndim == 3 and x.shape[1] > 0)
    B, T = g.values[found].shape[:2] if found else g.rng.integers(1, 4, 2)
    if g.rng.random() < 0.1:
        B, T = 1, F.QUERIES + g.rng.integers(1, 4)  # more than one block
    D = int(g.rng.integers(1, 3))
    H, J = _choice(g.rng, [(1, 1), (2, 1), (2, 2), (4, 2), (3, 1)])
    S = int(T) + int(g.rng.choice([0, 0, 1, 2]))
    q = _sequence(g, int(B), int(T), H * D)
    k, v = _sequence(g, int(B), S, J * D), _sequence(g, int(B), S, J * D)
    if g.rng.random() < 0.2:
        v = k
    return f"F.attention({q}, {k}, {v}, {H}, {J})"


KINDS = [
    arithmetic, arithmetic, arithmetic, division, elementwise, elementwise, of_positive, power,
    matmul, matmul, reduction, reduction, reshape, swapaxes, getitem, getitem, concatenate, where,
    detach, linear, linear, lora_linear, embedding, norm, norm, softmax, cross_entropy, dropout,
    rope, attention, attention,
]  # fmt: skip
