"""Where the time of a training step goes: seconds, bytes and floating-point operations per op.

`profile()` puts a stopwatch around everything that computes: the functions of ops.py and
functional.py, the vjps they hand to `record`, gradient clipping and the optimizers' steps. It does
so from outside, by putting timed stand-ins into every place of the package that holds one of those
functions, and takes them away again. Nothing else is changed: what the ops compute, and which vjps
`record` keeps, is the same to the last bit.

`profile_methods` profiles full fine-tuning and LoRA in turn, on the same batches, and returns plain
numbers, from which report.py makes the table and plots.py the figure.
Imports the floors below: tensor.py, nn.py, ops.py, functional.py, optim.py, lora.py, train.py.
"""

from __future__ import annotations

import copy
import math
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from functools import wraps
from inspect import isfunction
from time import perf_counter
from types import ModuleType
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits
from tqdm import tqdm

from minilora import functional, ops
from minilora.lora import add_adapter
from minilora.lora_config import LoraConfig
from minilora.nn import Rng
from minilora.optim import SGD, AdamW, clip_grad_norm
from minilora.system.errors import StateError
from minilora.tensor import Tensor, Vjp, _op_name, record
from minilora.training.loop import TrainConfig, Training
from minilora.transformer import Transformer


@dataclass
class OpCost:
    """What one kind of operation has cost so far. Seconds are exclusive: an op that calls another
    is charged without it. An optimizer has no backward; its seconds are under forward."""

    calls: int = 0
    forward_seconds: float = 0.0
    backward_seconds: float = 0.0  # in its vjps
    bytes: int = 0  # of the results and of the gradients its vjps returned, views left out
    forward_flops: int = 0  # of matrix products only: a product and a sum are two
    backward_flops: int = 0


@dataclass
class Work:
    """Floating-point operations of one call's matrix products. `shared` is what the first vjp to
    run computes for the others too."""

    forward: int = 0
    backward: tuple[int, ...] = ()  # one for each parent, in record's order
    shared: int = 0


def _linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Work:
    product = 2 * x.size * weight.shape[1]  # 2 N d_in d_out
    return Work(product, (product, product))  # dx, dW; a sum of rows (db) is no matrix product


def _lora_linear(
    x: Tensor, weight: Tensor, bias: Tensor | None, A: Tensor, B: Tensor, scale: float
) -> Work:
    (d_in, r), d_out = A.shape, B.shape[1]
    product, thin = 2 * x.size * d_out, 2 * (x.size // d_in) * r * (d_in + d_out)
    return Work(2 * d_in * r * d_out + product, (product, thin, thin))  # A B, x W; dx, dA, dB


def _matmul(a: Any, b: Any) -> Work:
    x, y = np.shape(a), np.shape(b)
    if len(x) < 2 or len(y) < 2:
        return Work()  # a vector becomes a matrix, and matmul is called again
    product = 2 * math.prod(np.broadcast_shapes(x[:-2], y[:-2])) * x[-2] * x[-1] * y[-1]
    return Work(product, (product, product))


def _attention(q: Tensor, k: Tensor, v: Tensor, n_head: int, n_kv_head: int | None = None) -> Work:
    (B, T, C), S, block = q.shape, k.shape[1], functional.QUERIES
    ends = [(t, min(t + block, T)) for t in range(0, T, block)]
    pairs = sum((end - t) * (S - T + end) for t, end in ends)  # each block sees keys to its end
    product = 2 * B * C * pairs
    return Work(2 * product, (product, product, product), product)  # Q Kᵀ, E V; dQ, dK, dV; G Vᵀ


_WORK: dict[str, Callable[..., Work]] = {
    "linear": _linear,
    "lora_linear": _lora_linear,
    "matmul": _matmul,
    "attention": _attention,
}


@dataclass
class _Clock:
    """A call under way: the seconds of the timed calls within it, then its own; and its work."""

    inner: float = 0.0
    own: float = 0.0
    work: Work = field(default_factory=Work)


@dataclass
class Profile:
    """Costs by name of the op, and the seconds spent within profile(), between ops too."""

    ops: defaultdict[str, OpCost] = field(default_factory=lambda: defaultdict(OpCost))
    seconds: float = 0.0
    _open: list[_Clock] = field(default_factory=list, repr=False)
    _running: bool = field(default=False, repr=False)

    @property
    def op_seconds(self) -> float:
        return sum(cost.forward_seconds + cost.backward_seconds for cost in self.ops.values())

    def _run(self, clock: _Clock, call: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        self._open.append(clock)
        began = perf_counter()
        try:
            return call(*args, **kwargs)
        finally:
            took = perf_counter() - began
            self._open.pop()
            clock.own = took - clock.inner
            if self._open:
                self._open[-1].inner += took

    def _timed(self, function: Callable[..., Any]) -> Callable[..., Any]:
        name = function.__qualname__
        work_of = _WORK.get(name)

        @wraps(function)
        def timed(*args: Any, **kwargs: Any) -> Any:
            clock = _Clock()
            out = self._run(clock, function, *args, **kwargs)
            if any(out is x for x in args):
                return out  # dropout without a generator: nothing was done
            clock.work = work_of(*args, **kwargs) if work_of else Work()
            cost = self.ops[name]
            cost.calls += 1
            cost.forward_seconds += clock.own
            cost.forward_flops += clock.work.forward
            if isinstance(out, Tensor):
                cost.bytes += _new_bytes(out.data, *(x.data for x in args if isinstance(x, Tensor)))
            return out

        return timed

    def _timed_vjp(self, vjp: Vjp, call: _Clock, parent: int) -> Vjp:
        name = _op_name(vjp)

        def timed(g: np.ndarray) -> np.ndarray:
            if not self._running:
                return vjp(g)
            clock, work = _Clock(), call.work
            out = self._run(clock, vjp, g)
            cost = self.ops[name]
            cost.backward_seconds += clock.own
            cost.backward_flops += work.shared + sum(work.backward[parent : parent + 1])
            cost.bytes += _new_bytes(out, g)
            work.shared = 0
            return out

        timed.__qualname__ = vjp.__qualname__  # by which the engine names an op at fault
        return timed

    def _timed_record(self, *args: Any) -> Tensor:
        """`record` with timed vjps; which of them are kept, it decides itself."""
        data, *edges = args
        call = self._open[-1] if self._open else _Clock()
        timed = ((p, self._timed_vjp(vjp, call, i)) for i, (p, vjp) in enumerate(edges))
        return record(data, *timed)

    def _stand_ins(self) -> dict[Any, Callable[..., Any]]:
        found: dict[Any, Callable[..., Any]] = {record: self._timed_record}
        for function in [*_functions(ops), *_functions(functional), clip_grad_norm]:
            found[function] = self._timed(function)
        for step in (AdamW.step, SGD.step):
            found[step] = self._timed(step)
        for value in vars(Tensor).values():
            if isfunction(value) and value.__name__ == "<lambda>":  # number + tensor: __radd__
                (op,) = value.__defaults__ or ()
                found[value] = lambda self, other, op=found[op]: op(other, self)
        return found


def _functions(module: ModuleType) -> list[Callable[..., Any]]:
    """The ops that a module defines (as_tensor only converts)."""
    return [
        value
        for name, value in vars(module).items()
        if isfunction(value)
        and value.__module__ == module.__name__
        and not name.startswith("_")
        and value is not ops.as_tensor
    ]


def _new_bytes(made: np.ndarray, *given: np.ndarray) -> int:
    """Bytes of an array, unless it is one of those given or a view of it."""
    return 0 if any(np.may_share_memory(made, x) for x in given) else made.nbytes


@contextmanager
def profile(into: Profile | None = None) -> Iterator[Profile]:
    """Within it (`with profile() as p: training.step()`) every op is timed; then see `p.ops`.

    into: a Profile to add to. Results are bit-identical to those without. Not for threads: what is
    timed is the whole process, so step without a pool. Raises RuntimeError inside another profile.
    """
    if hasattr(functional.linear, "__wrapped__"):
        raise StateError("a profile is already being taken; leave that one first")
    found = Profile() if into is None else into
    stand_ins = found._stand_ins()
    modules = [
        module
        for name, module in sys.modules.items()
        if name.partition(".")[0] == "minilora" and name != __name__  # which needs the originals
    ]
    with ExitStack() as restore:
        for place in (*modules, Tensor, AdamW, SGD):
            for name, value in list(vars(place).items()):
                if isfunction(value) and value in stand_ins:
                    restore.callback(setattr, place, name, value)
                    setattr(place, name, stand_ins[value])
        found._running, began = True, perf_counter()
        try:
            yield found
        finally:
            found.seconds += perf_counter() - began
            found._running = False


def profile_methods(
    model: Transformer,
    lora: LoraConfig,
    batch: int = 12,
    length: int | None = None,
    steps: int = 30,
    *,
    warmup: int = 5,
    quiet: bool = False,
) -> dict[str, Any]:
    """Profile `steps` training steps of full fine-tuning and of LoRA, from copies of `model`.

    One step of each in turn, so that a busy moment of the machine hits both alike, on the same
    batches of random ids, batch x length (default: 64, or the model's block_size): time does not
    depend on the text. Before, `warmup` steps that do not count. BLAS has one thread.
    Returns {"batch", "length", "steps", "lora", "methods", "rows"}: of each method seconds per
    step, in all and between ops; and a row per op, the costliest first, with its costs per step
    under "full" and "lora" (None where the method does not use it).
    """
    c = model.config
    length = min(64, c.block_size) if length is None else length

    def draw(rng: Rng) -> tuple[np.ndarray, np.ndarray]:
        ids = rng.integers(0, c.vocab_size, (batch, length + 1))
        return ids[:, :-1], ids[:, 1:]

    models = {"full": copy.deepcopy(model), "lora": copy.deepcopy(model)}
    add_adapter(models["lora"], lora, rng=np.random.default_rng(0))
    plan = TrainConfig(steps=warmup + steps, lr=1e-4)
    trainings = {method: Training(m, draw, plan, name=method) for method, m in models.items()}
    profiles = {method: Profile() for method in trainings}
    with (
        threadpool_limits(1),
        tqdm(
            total=warmup + steps, desc="profile", unit="step", dynamic_ncols=True,
            disable=quiet or None,
        ) as bar,
    ):  # fmt: skip
        for step in range(warmup + steps):
            for method, training in trainings.items():
                if step < warmup:
                    training.step()
                else:
                    with profile(profiles[method]):
                        training.step()
            bar.update()
    return {
        "batch": batch,
        "length": length,
        "steps": steps,
        "lora": {"r": lora.r, "alpha": lora.lora_alpha, "targets": lora.target_modules},
        "methods": {
            method: {
                "seconds": p.seconds / steps,
                "seconds_between_ops": (p.seconds - p.op_seconds) / steps,
            }
            for method, p in profiles.items()
        },
        "rows": _rows(profiles, steps),
    }


def _rows(profiles: dict[str, Profile], steps: int) -> list[dict[str, Any]]:
    """Per op, {"op", "full", "lora"}: costs per step and the share of the method's step."""
    rows: list[dict[str, Any]] = []
    for op in dict.fromkeys(op for p in profiles.values() for op in p.ops):
        row: dict[str, Any] = {"op": op}
        for method, p in profiles.items():
            row[method] = None
            if op in p.ops:
                costs = {key: value / steps for key, value in asdict(p.ops[op]).items()}
                spent = costs["forward_seconds"] + costs["backward_seconds"]
                row[method] = {**costs, "share": spent * steps / p.seconds}
        rows.append(row)

    def shares(row: dict[str, Any]) -> float:
        return sum(row[method]["share"] for method in profiles if row[method])

    return sorted(rows, key=shares, reverse=True)
