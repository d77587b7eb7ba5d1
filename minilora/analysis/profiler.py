"""Where the time of a training step goes: seconds, bytes and floating-point operations per op.

Within `profile()` the engine's `record` shows us every operation as it ends. An op's forward
seconds are those since the op, or the gradient, before it ended: with the Python code in between,
which belongs to the way to this op. Its backward seconds are those spent in its vjps, which are
timed one by one. What is left, the "between ops", is the engine's own walk. Nothing is changed:
what the ops compute, and which vjps `record` keeps, is the same to the last bit.

`profile_methods` profiles full fine-tuning and LoRA in turn, on the same batches, and returns
plain numbers, from which cli/terminal/tables.py makes the table and plots the figure.
"""

from __future__ import annotations

import copy
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import wraps
from time import perf_counter
from typing import Any

import numpy as np
from tqdm import tqdm

from minilora import functional
from minilora.kernels import merging_pays
from minilora.lora import add_adapter
from minilora.lora_config import LoraConfig
from minilora.optim import AdamW, clip_grad_norm
from minilora.system.cores import one_blas_thread
from minilora.tensor import Tensor, Vjp, observe, op_name
from minilora.training.parallel import loss_and_gradients
from minilora.transformer import Transformer

Edges = Sequence[tuple[Tensor | None, Vjp]]


@dataclass
class OpCost:
    """What one kind of operation has cost so far. An optimizer has no backward; its seconds are
    under forward."""

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


def _linear(out: np.ndarray, x: Tensor, *_: Any) -> Work:
    product = 2 * x.size * out.shape[-1]  # 2 N d_in d_out
    return Work(product, (product, product))  # dx, dW; a sum of rows (db) is no matrix product


def _lora_linear(out: np.ndarray, x: Tensor, A: Tensor, B: Tensor, *_: Any) -> Work:
    (d_in, r), d_out = A.shape, B.shape[1]
    N = x.size // d_in
    product, x_A, H = 2 * N * d_in * d_out, 2 * N * d_in * r, 2 * N * r * d_out
    if merging_pays(N, d_in, d_out):
        return Work(2 * d_in * r * d_out + product, (product, x_A, x_A + H), H)  # dx, dA, dB
    return Work(product + x_A + H, (product + x_A, x_A, x_A + H), H)


def _matmul(out: np.ndarray, a: Tensor, b: Tensor) -> Work:
    product = 2 * out.size * a.shape[-1]
    return Work(product, (product, product))


def _attention(out: np.ndarray, q: Tensor, k: Tensor, v: Tensor) -> Work:
    (B, T, C), S, block = q.shape, k.shape[1], functional.QUERIES
    ends = [(t, min(t + block, T)) for t in range(0, T, block)]
    pairs = sum((end - t) * (S - T + end) for t, end in ends)  # each block sees keys to its end
    product = 2 * B * C * pairs
    return Work(2 * product, (product, product, product), product)  # QKᵀ, EV; dQ, dK, dV; GVᵀ


_WORK: dict[str, Callable[..., Work]] = {
    "linear": _linear,
    "lora_linear": _lora_linear,
    "matmul": _matmul,
    "attention": _attention,
}


@dataclass
class Profile:
    """Costs by name of the op, and the seconds spent within profile(), between ops too."""

    ops: defaultdict[str, OpCost] = field(default_factory=lambda: defaultdict(OpCost))
    seconds: float = 0.0
    _running: bool = field(default=False, repr=False)
    _last: float = field(default=0.0, repr=False)  # when the last thing that was timed ended

    @property
    def op_seconds(self) -> float:
        return sum(cost.forward_seconds + cost.backward_seconds for cost in self.ops.values())

    @contextmanager
    def timed(self, name: str) -> Iterator[None]:
        """Count what is done within as one call of an op of this name."""
        self._last = perf_counter()
        yield
        self._end(name)

    def _end(self, name: str) -> OpCost:
        now, cost = perf_counter(), self.ops[name]
        cost.calls += 1
        cost.forward_seconds += now - self._last
        self._last = now
        return cost

    def _observe(self, data: np.ndarray, edges: Edges) -> Edges:
        vjp, parents = edges[0][1], [parent for parent, _ in edges]
        name, ours = op_name(vjp), str(vjp.__module__).startswith("minilora.")
        cost = self._end(name)
        work = _WORK[name](data, *parents) if ours and name in _WORK else Work()
        cost.forward_flops += work.forward
        cost.bytes += _new_bytes(np.asarray(data), *(p.data for p in parents if p is not None))
        timed = [(p, self._timed_vjp(vjp, cost, work, i)) for i, (p, vjp) in enumerate(edges)]
        self._last = perf_counter()
        return timed

    def _timed_vjp(self, vjp: Vjp, cost: OpCost, work: Work, parent: int) -> Vjp:
        @wraps(vjp)  # its name is by which the engine names an op at fault
        def timed(g: np.ndarray) -> np.ndarray:
            if not self._running:
                return vjp(g)
            began = perf_counter()
            out = vjp(g)
            cost.backward_seconds += perf_counter() - began
            cost.backward_flops += work.shared + sum(work.backward[parent : parent + 1])
            cost.bytes += _new_bytes(np.asarray(out), g)
            work.shared = 0
            self._last = perf_counter()
            return out

        return timed


def _new_bytes(made: np.ndarray, *given: np.ndarray) -> int:
    """Bytes of an array, unless it is one of those given or a view of it."""
    return 0 if any(np.may_share_memory(made, x) for x in given) else made.nbytes


@contextmanager
def profile(into: Profile | None = None) -> Iterator[Profile]:
    """Within it (`with profile() as p: loss.backward()`) every op is timed; then see `p.ops`.

    into: a Profile to add to. Only the operations of this thread are seen. Results are
    bit-identical to those without. Raises StateError inside another profile.
    """
    found = Profile() if into is None else into
    with observe(found._observe):
        found._running, began = True, perf_counter()
        found._last = began
        try:
            yield found
        finally:
            found.seconds += perf_counter() - began
            found._running = False


def profiled_step(
    model: Transformer, optimizer: AdamW, ids: np.ndarray, targets: np.ndarray, into: Profile
) -> float:
    """One training step, as in training/loop.py, added to a profile. ids, targets int (B, T);
    returns the loss."""
    with profile(into):
        loss, gradients = loss_and_gradients(model, optimizer.params, ids, targets)
        for p, g in zip(optimizer.params, gradients, strict=True):
            p.grad = g
        with into.timed("clip_grad_norm"):
            clip_grad_norm(optimizer.params, 1.0)
        with into.timed("AdamW.step"):
            optimizer.step()
        optimizer.zero_grad()
    return loss


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

    models = {"full": copy.deepcopy(model), "lora": copy.deepcopy(model)}
    add_adapter(models["lora"], lora, rng=np.random.default_rng(0))
    optimizers = {name: AdamW(m.trainable_parameters(), 1e-4) for name, m in models.items()}
    profiles = {method: Profile() for method in models}
    with (
        one_blas_thread(),
        tqdm(
            total=warmup + steps, desc="profile", unit="step", dynamic_ncols=True,
            disable=quiet or None,
        ) as bar,
    ):  # fmt: skip
        for i in range(warmup + steps):
            ids = np.random.default_rng(i).integers(0, c.vocab_size, (batch, length + 1))
            for method, found in profiles.items():
                into = Profile() if i < warmup else found
                profiled_step(models[method], optimizers[method], ids[:, :-1], ids[:, 1:], into)
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
