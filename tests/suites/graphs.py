"""Suite: every gradient of a random graph is the true one, and shapes that do not fit raise.

    python tests/suites/graphs.py --trials 27000 --seed 0

Three trials of four are graphs (random_graphs.py). Judges of a graph's gradients:

- central differences. D(h) = (f(x + h) - f(x - h)) / 2h is off by h² f''' / 6 + …, so that
  (4 D(h) - D(2h)) / 3 is off by h⁴ only (Richardson). The tolerance is |D(2h) - D(h)|, which is
  about h² f''' / 2 and far more than the error left, plus what rounding may do: EPS S / h, where
  S is the sum of all magnitudes in the graph, and 64 roundings of each are allowed for.
- PyTorch, where it is installed (torch_twin.py), to 64 roundings, and its values, too;
- the engine itself: `backward` gives the bits of `grad`, to the trained leaves alone, whose arrays
  are their own and whose data stay; reference.py has the same values; float32 stays float32.

The fourth trial is one operation with shapes that mostly do not fit (random_calls.py): it must
raise one sentence, or be right. A fault is printed as a script: the first wrong line of the graph,
alone if it is wrong alone.
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import suite
from random_calls import draw_call
from random_graphs import OURS, Graph, Unsuitable, draw, literal

from minilora import reference
from minilora.system.errors import StateError
from minilora.tensor import Tensor, grad, no_grad

try:
    import torch_twin
except ModuleNotFoundError:
    torch_twin = None  # type: ignore[assignment]

H = 1e-4
EPS = 64 * np.finfo(np.float64).eps
EPS32 = 64 * float(np.finfo(np.float32).eps)
MOST = 6  # entries of a graph that are moved
RIGHT, REFUSED, NOTHING = "gradients right", "wrong shapes refused", "nothing trains, refused"


class Wrong(Exception):  # noqa: N818
    """A judge found a graph wrong: args[0] says how."""


def judge(graph: Graph, weights: np.ndarray, moved: list[tuple[int, tuple[int, ...]]]) -> bool:
    """Whether anything trains. Raises Wrong. weights: of the output's entries in the loss. moved:
    the (leaf, index) that central differences are taken of."""
    run, arrays = graph.function(OURS), graph.arrays()
    trained = [leaf.train for leaf in graph.leaves]
    tensors = _tensors(arrays, trained)
    values = run(*tensors)
    if not values[-1].requires_grad:
        _require_refusal(values[-1])
        return False
    gradients = grad(_loss(values[-1], weights), _trained(tensors))
    found = dict(zip((i for i, train in enumerate(trained) if train), gradients, strict=True))
    size = sum(float(np.abs(value).sum()) for value in graph.values.values())
    size *= max([1.0, *(float(np.abs(g).max(initial=0)) for g in gradients)])
    size *= max(1.0, float(np.abs(weights).max(initial=0)))
    _by_backward(run, arrays, trained, weights, gradients)
    _by_differences(run, arrays, weights, values, found, moved, size)
    _by_reference(graph, arrays, values, size)
    _in_float32(graph, weights, found, size)
    if torch_twin:
        _by_torch(graph, arrays, trained, weights, values, found, size)
    return True


def _tensors(arrays: list[np.ndarray], trained: list[bool]) -> list[Tensor]:
    return [Tensor(x, requires_grad=t) for x, t in zip(arrays, trained, strict=True)]


def _trained(tensors: list[Tensor]) -> list[Tensor]:
    return [t for t in tensors if t.requires_grad]


def _loss(out: Tensor, weights: np.ndarray) -> Tensor:
    return (out * weights).sum()


def _require_refusal(out: Tensor) -> None:
    try:
        out.sum().backward()
    except StateError:
        return
    raise Wrong("a constant was differentiated")


def _by_backward(
    run: Any, arrays: list, trained: list, weights: np.ndarray, expected: list[np.ndarray]
) -> None:
    before = [x.copy() for x in arrays]
    tensors = _tensors(arrays, trained)
    out = run(*tensors)[-1]
    out.backward(weights)
    used = [t for t in tensors if t.grad is not None]
    if not all(t.requires_grad for t in used):
        raise Wrong("a frozen leaf got a gradient")
    for t, g in zip(_trained(tensors), expected, strict=True):
        mine = np.zeros_like(g) if t.grad is None else t.grad
        if not np.array_equal(mine, g) or mine.dtype != g.dtype:
            raise Wrong("backward and grad differ")
        if not mine.flags.writeable or mine.base is not None:
            raise Wrong("a leaf's gradient is not its own array")
    if any(np.shares_memory(a.grad, b.data) for a in used for b in tensors if a.size):
        raise Wrong("a gradient shares memory with a leaf")
    if len({id(t.grad) for t in used}) < len(used):
        raise Wrong("two leaves share a gradient")
    if not all(np.array_equal(x, y) for x, y in zip(arrays, before, strict=True)):
        raise Wrong("a leaf's data changed")


def _by_differences(
    run: Any,
    arrays: list[np.ndarray],
    weights: np.ndarray,
    values: list[Tensor],
    found: dict[int, np.ndarray],
    moved: list[tuple[int, tuple[int, ...]]],
    size: float,
) -> None:
    held = [Tensor(value.data.copy()) for value in values]

    def f(i: int, index: tuple[int, ...], step: float) -> float:
        x = arrays[i][index]
        arrays[i][index] = x + step
        with no_grad():
            out = run(*(Tensor(a) for a in arrays), held=held)[-1].data
        loss = float((out * weights).sum())  # now: out may be a view of what was moved
        arrays[i][index] = x
        return loss

    for i, index in moved:
        near, far = ((f(i, index, step) - f(i, index, -step)) / (2 * step) for step in (H, 2 * H))
        exact, numeric = float(found[i][index]), (4 * near - far) / 3
        if not abs(exact - numeric) <= abs(far - near) + EPS * size / H:
            raise Wrong(
                f"d/dx{i}[{index}] is {exact:.9g}, central differences give {numeric:.9g} "
                f"to {abs(far - near) + EPS * size / H:.1g}"
            )


def _by_reference(
    graph: Graph, arrays: list[np.ndarray], values: list[Tensor], size: float
) -> None:
    run = graph.function(OURS | {"F": reference})
    with no_grad(), np.errstate(all="ignore"):
        others = run(*(Tensor(x) for x in arrays))
    for i, (mine, other) in enumerate(zip(values, others, strict=True)):
        if not np.isfinite(other.data).all():
            return  # reference.py overflows in softmax, as it says
        if not _close(mine.data, other.data, EPS * size):
            raise Wrong(f"v{i} is not what reference.py computes")


def _in_float32(
    graph: Graph, weights: np.ndarray, found: dict[int, np.ndarray], size: float
) -> None:
    tensors = _tensors(graph.arrays(np.float32), [leaf.train for leaf in graph.leaves])
    values = graph.function(OURS)(*tensors)
    gradients = grad(_loss(values[-1], weights), _trained(tensors))
    if {x.dtype for x in (*values, *gradients)} != {np.dtype(np.float32)}:
        raise Wrong("float32 became another type")
    for mine, exact in zip(gradients, found.values(), strict=True):
        if not _close(mine, exact, EPS32 * size):
            raise Wrong(f"a gradient in float32 is off by {np.abs(mine - exact).max():.2g}")


def _by_torch(
    graph: Graph,
    arrays: list[np.ndarray],
    trained: list[bool],
    weights: np.ndarray,
    values: list[Tensor],
    found: dict[int, np.ndarray],
    size: float,
) -> None:
    theirs = torch_twin.leaves(arrays, trained)
    others = graph.function(torch_twin.TORCH)(*theirs)
    for i, (mine, other) in enumerate(zip(values, others, strict=True)):
        if not _close(mine.data, other.detach().numpy(), EPS * size):
            raise Wrong(f"v{i} is not what PyTorch computes")
    (others[-1] * torch_twin.array(weights)).sum().backward()
    for i, mine in found.items():
        other = theirs[i].grad
        expected = np.zeros_like(mine) if other is None else other.numpy()
        if not _close(mine, expected, EPS * size):
            off = np.abs(mine - expected).max()
            raise Wrong(f"the gradient of x{i} is off PyTorch's by {off:.2g}")


def _close(mine: np.ndarray, other: np.ndarray, tolerance: float) -> bool:
    return mine.shape == other.shape and bool((np.abs(mine - other) <= tolerance).all())


def trial(seed: int, i: int) -> tuple[str, str]:
    rng = np.random.default_rng((seed, i))
    if i % 4 == 3:
        return _call_trial(rng)
    try:
        graph = draw(rng)
    except Exception as error:
        return f"raised {type(error).__name__}", str(error)
    end, how = _judged(graph, rng)
    return (end, how) if end in (RIGHT, NOTHING) else (end, smallest(graph, rng) or how)


def _judged(graph: Graph, rng: np.random.Generator) -> tuple[str, str]:
    """How a graph ends, and what repeats it."""
    weights = np.round(rng.standard_normal(graph.values[f"v{len(graph.lines) - 1}"].shape), 2)
    every = graph.entries()
    few = rng.permutation(len(every))[:MOST]
    try:
        trains = judge(graph, weights, [every[j] for j in few])
    except Wrong as wrong:
        return "wrong", f"{wrong}\n{graph.script(weights)}"
    except Exception as error:
        return f"raised {type(error).__name__}", f"{error}\n{graph.script(weights)}"
    return (RIGHT if trains else NOTHING), ""


def smallest(graph: Graph, rng: np.random.Generator) -> str:
    """A script of the first line that is wrong: alone, if it is wrong alone."""
    for i in range(len(graph.lines)):
        for part in (graph.alone(i), graph.up_to(i)):
            end, how = _judged(part, rng)
            if end not in (RIGHT, NOTHING):
                return how
    return ""


def _call_trial(rng: np.random.Generator) -> tuple[str, str]:
    call = draw_call(rng)
    if call.fits:
        try:
            return _judged(call.graph(rng), rng)
        except Unsuitable:
            return _call_trial(rng)
    tensors = [Tensor(np.ones(shape), requires_grad=train) for shape, train in call.leaves]
    try:
        out = eval(call.expression, OURS | {f"x{j}": t for j, t in enumerate(tensors)})
    except (ValueError, IndexError, TypeError) as error:
        if "\n" in str(error) or not str(error):
            return "no sentence", f"{call}: {error}"
        return REFUSED, ""
    except Exception as error:
        return f"raised {type(error).__name__}", f"{call}: {error}"
    return "wrong shapes accepted", f"{call} gave {literal(out.data)}"


SUITE = suite.Suite(
    name="graphs",
    promise="Gradients are the true ones; shapes that do not fit are refused.",
    trial=trial,
    kept={RIGHT, REFUSED, NOTHING},
    trials=27_000,
)

if __name__ == "__main__":
    if torch_twin is None:
        print("PyTorch is not installed: judged by central differences alone", file=sys.stderr)
    sys.exit(suite.main(SUITE))
