"""What each speed trick of the package buys: the time without it over the time with it.

    python tests/bench/tricks.py [--rounds N]      writes figures/tricks.md

Both sides of a trick compute the same; they run in turn, round by round, so that a busy moment of
the machine hits both, and the table has the median of the ratios. One thread, float32, C = 128,
T = 128, B = 16, V = 256 unless a line says otherwise.
"""

import os

os.environ["OPENBLAS_NUM_THREADS"] = os.environ["MKL_NUM_THREADS"] = "1"

import argparse
import platform
import sys
import time
from collections.abc import Callable
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass
from datetime import date
from functools import partial
from pathlib import Path
from statistics import median, quantiles
from typing import Any

import numpy as np

import minilora as ml
from minilora import functional as F
from minilora import kernels, ops, optim, reference
from minilora.generation import decoder, sampling
from minilora.system.files import write_atomically
from minilora.tensor import Tensor, grad
from minilora.text.windows import IGNORE_INDEX
from minilora.training import parallel
from minilora.training.parallel import loss_and_gradients
from minilora.transformer import KVCache

TABLE = Path(__file__).parents[2] / "figures" / "tricks.md"
V_LARGE = 49152  # of SmolLM2
LONG_TURN = 0.005  # Python's own
B, T, C, V, H, N = 16, 128, 128, 256, 4, 16 * 128
rng = np.random.default_rng(0)


@dataclass(frozen=True)
class Trick:
    """without() and with_() compute the same. where: the file that uses it. clock: seconds."""

    name: str
    where: str
    without: Callable[[], Any]
    with_: Callable[[], Any]
    clock: Callable[[], float] = time.thread_time


def draw(*shape: int) -> np.ndarray:
    return rng.standard_normal(shape).astype(np.float32)


def forward_and_backward(op: Callable[..., Tensor], *inputs: Tensor) -> list[np.ndarray]:
    out = op(*inputs)
    return [out.data, *grad((out * out).sum(), [x for x in inputs if x.requires_grad])]


def both(op: str, shapes: list[tuple[int, ...]], **options: Any) -> tuple[Callable[[], Any], ...]:
    """An op's forward and backward as reference.py has it, and fused."""
    inputs = [Tensor(draw(*shape), requires_grad=True) for shape in shapes]
    sides = (getattr(module, op) for module in (reference, F))
    return tuple(
        lambda f=f: forward_and_backward(lambda *xs: f(*xs, **options), *inputs) for f in sides
    )


def lora(op: Callable[..., Tensor]) -> Callable[[], Any]:
    x, A, B_ = (Tensor(draw(*s), requires_grad=True) for s in ((N, C), (C, 8), (8, C)))
    x.data, A.data, B_.data = LORA[1:]
    W = Tensor(LORA[0])
    return lambda: forward_and_backward(lambda *xs: op(xs[0], W, None, *xs[1:], 0.5), x, A, B_)


def add_at() -> np.ndarray:
    out = np.zeros_like(TABLE_OF_IDS)
    np.add.at(out, IDS, G)
    return out


def with_runs() -> np.ndarray:
    order = np.argsort(IDS, kind="stable")
    ordered, out = IDS[order], np.zeros_like(TABLE_OF_IDS)
    starts = np.flatnonzero(np.concatenate([[True], ordered[1:] != ordered[:-1]]))
    out[ordered[starts]] = np.add.reduceat(G[order], starts, axis=0)
    return out


def adamw(p: np.ndarray, g: np.ndarray, m: np.ndarray, v: np.ndarray) -> None:
    """One step as the formula says it, with new arrays."""
    m[...] = 0.9 * m + 0.1 * g
    v[...] = 0.999 * v + 0.001 * g * g
    p[...] = p - 1e-3 * (m / 0.1) / (np.sqrt(v / 0.001) + 1e-8)


def in_blocks() -> tuple[Callable[[], Any], ...]:
    p = Tensor(np.zeros(5_000_000, np.float32), requires_grad=True)
    p.grad = draw(p.size)
    optimizer, block = ml.AdamW([p]), optim._BLOCK

    def step(numbers: int) -> None:
        optim._BLOCK = numbers
        optimizer.step()

    return lambda: step(p.size), lambda: step(block)


def thin_lora() -> tuple[Callable[[], Any], ...]:
    x, W = Tensor(draw(T, 576), requires_grad=True), Tensor(draw(576, 1536))
    A, B_ = (Tensor(draw(*s), requires_grad=True) for s in ((576, 8), (8, 1536)))

    def step(merged: bool) -> Any:
        rule, F.merging_pays = F.merging_pays, lambda *sizes: merged
        found = forward_and_backward(
            lambda *xs: F.lora_linear(xs[0], W, None, *xs[1:], 0.5), x, A, B_
        )
        F.merging_pays = rule
        return found

    return lambda: step(True), lambda: step(False)


def few_heads() -> tuple[Callable[[], Any], ...]:
    """A large vocabulary, and targets of which a quarter counts."""
    config = ml.TransformerConfig(8192, T, n_layer=2, n_head=H, n_embd=C)
    model = ml.Transformer(config, rng=rng)
    ids, targets = rng.integers(0, 8192, (2, 2, T))
    targets[:, : 3 * T // 4] = IGNORE_INDEX
    params = model.parameters()
    return (
        lambda: grad(F.cross_entropy(model(ids), targets), params),
        lambda: loss_and_gradients(model, params, ids, targets)[1],
    )


def one_token(step: Callable[..., np.ndarray], model: ml.Transformer) -> Callable[[], Any]:
    """step(ids (B,), cache) after a prompt of 32."""
    ids = np.random.default_rng(1).integers(0, 96, (1, 33))
    cache = [KVCache(model.config.block_size) for _ in model.layers]
    with ml.no_grad():
        model(ids[:, :32], cache=cache)

    def again() -> np.ndarray:
        for layer in cache:
            layer.length = 32
        with ml.no_grad():
            return step(ids[:, 32], cache)

    return again


def for_large_models(model: ml.Transformer) -> decoder.Decoder:
    rule, decoder._LARGE = decoder._LARGE, 0
    made = decoder.Decoder(model)
    decoder._LARGE = rule
    return made


def shards(*sides: tuple[int, float], **shape: int) -> tuple[Callable[[], Any], ...]:
    """Loss and gradients of a batch in two shards. sides: in how many threads, and the seconds for
    which one may keep Python's lock while the other waits."""
    model = ml.Transformer(ml.TransformerConfig(**shape), rng=rng)
    params = model.trainable_parameters()
    ids = rng.integers(0, shape["vocab_size"], (16, shape["block_size"]))

    def gradients(pool: Executor | None, turn: float) -> list[Any]:
        before = sys.getswitchinterval()
        sys.setswitchinterval(turn)
        loss, found = loss_and_gradients(model, params, ids, ids, pool=pool)
        sys.setswitchinterval(before)
        return [loss, *found]

    pools = [ThreadPoolExecutor(n) if n > 1 else None for n, _ in sides]
    return tuple(partial(gradients, p, turn) for p, (_, turn) in zip(pools, sides, strict=True))


x, square, G = draw(N, C), draw(C, C), draw(N, C)
IDS, TABLE_OF_IDS = rng.integers(0, V, N), draw(V, C)
LORA = [draw(C, C), draw(N, C), draw(C, 8), draw(8, C)]
ONES, COLUMN = np.ones(C, np.float32), np.ones(N, np.float32)
LONG = [draw(200_000) for _ in range(2)] + [np.zeros(200_000, np.float32) for _ in range(2)]
PARTS = [[part.copy() for part in np.split(array, 200)] for array in LONG]


def composed_gelu(x: Tensor) -> Tensor:
    """reference.gelu with x³ multiplied out, as x ** 3 has a line of its own."""
    return 0.5 * x * (1 + ops.tanh((x + x * x * x * 0.044715) * (2 / np.pi) ** 0.5))


def many_small_updates() -> None:
    for parts in zip(*PARTS, strict=True):
        adamw(*parts)


def tricks() -> list[Trick]:
    frozen, training = Tensor(square), Tensor(square, requires_grad=True)
    wide = Tensor(draw(N, 4 * C), requires_grad=True)
    xs, hidden = Tensor(draw(N, C), requires_grad=True), [(N, 4 * C)]
    logits, targets = [(N, V)], rng.integers(0, V, N)
    model, clock = ml.load_model("docs-tiny"), time.perf_counter
    small = dict(vocab_size=96, block_size=64, n_layer=2, n_head=4, n_embd=64)
    middle = dict(vocab_size=256, block_size=128, n_layer=4, n_head=4, n_embd=128)
    scores = draw(B, H, T, C // H), draw(B, H, T, C // H)
    head, rows = draw(8200, 576), draw(8, 576)  # a tied head, or a weight as in Llama's files
    peaked, u = 15 * draw(1, V_LARGE), np.array([[0.5]])  # as at a low temperature
    x_head, G_head = draw(T, 576), draw(T, 8200)
    return [
        Trick("x * x * x for x ** 3", "kernels.py", lambda: x**3, lambda: x * x * x),
        Trick("x * x for x ** 2", "ops.py", lambda: x**2.0, lambda: x * x),
        Trick("x @ ones for x.sum(1)", "kernels.py", lambda: x.sum(1), lambda: x @ ONES),
        Trick("ones @ x for x.sum(0)", "functional.py", lambda: x.sum(0), lambda: COLUMN @ x),
        Trick(
            "vecdot for (x * x).sum(1)", "kernels.py",
            lambda: (x * x).sum(1), lambda: np.vecdot(x, x),
        ),
        Trick(
            "einsum for (g * x).sum(0)", "functional.py",
            lambda: (G * x).sum(0), lambda: np.einsum("nc,nc->c", G, x),
        ),
        Trick(
            "Q @ Kᵀ for einsum of the scores", "functional.py",
            lambda: np.einsum("bhtd,bhsd->bhts", *scores),
            lambda: scores[0] @ scores[1].swapaxes(-1, -2),
        ),
        Trick("sorted runs for np.add.at", "functional.py", add_at, with_runs),
        Trick(
            "tanh form of σ for 1 / (1 + exp(-x))", "kernels.py",
            lambda: 1 / (1 + np.exp(-x)), lambda: kernels.silu_gate(x),
        ),
        Trick("layer_norm fused", "functional.py", *both("layer_norm", [(N, C), (C,), (C,)])),
        Trick("rms_norm fused", "functional.py", *both("rms_norm", [(N, C), (C,)])),
        Trick(
            "gelu fused (x * x * x on both sides)", "functional.py",
            lambda: forward_and_backward(composed_gelu, wide),
            lambda: forward_and_backward(F.gelu, wide),
        ),
        Trick("silu fused", "functional.py", *both("silu", hidden)),
        Trick(
            "cross_entropy fused", "functional.py",
            *both("cross_entropy", logits, targets=targets),
        ),
        Trick(
            "attention fused, in blocks of queries", "functional.py",
            *both("attention", [(B, T, C)] * 3, n_head=H),
        ),
        Trick(
            "lora_linear as one op on W + s A B", "functional.py",
            lora(reference.lora_linear), lora(F.lora_linear),
        ),
        Trick(
            "no dW for a frozen W", "tensor.py",
            lambda: forward_and_backward(F.linear, xs, training)[1],
            lambda: forward_and_backward(F.linear, xs, frozen)[1],
        ),
        Trick(
            "one flat array for AdamW's 200 parameters", "optim.py",
            many_small_updates, lambda: adamw(*LONG),
        ),
        Trick("AdamW in blocks, on 5M numbers", "optim.py", *in_blocks()),
        Trick("x W + s (x A) B, 128 rows, W 576 x 1536", "functional.py", *thin_lora()),
        Trick(
            "two threads, by the clock, C = 128, 4 layers", "training/parallel.py",
            *shards((1, LONG_TURN), (2, parallel._TURN), **middle), clock,
        ),
        Trick(
            "two threads, by the clock, C = 64, 2 layers, T = 64", "training/parallel.py",
            *shards((1, LONG_TURN), (2, parallel._TURN), **small), clock,
        ),
        Trick(
            "their short turns", "training/parallel.py",
            *shards((2, LONG_TURN), (2, parallel._TURN), **small), clock,
        ),
        Trick("head for the quarter of targets that counts", "training/parallel.py", *few_heads()),
        Trick(
            "dW of a tied head laid out as the table, 8200 x 576", "functional.py",
            lambda: head + (x_head.T @ G_head).T, lambda: head + G_head.T @ x_head,
        ),
        Trick(
            "dot products for x Wᵀ, 1 row, W 8200 x 576", "kernels.py",
            lambda: rows[:1] @ head.T, lambda: kernels.few_rows_times(rows[:1], head.T),
        ),
        Trick(
            "small products for x Wᵀ, 8 rows, W 8200 x 576", "kernels.py",
            lambda: rows @ head.T, lambda: kernels.few_rows_times(rows, head.T),
        ),
        Trick(
            "the 1024 likeliest of 49152 in order to draw one", "generation/sampling.py",
            lambda: sampling._sample(peaked, None, None, u, few=V_LARGE),
            lambda: sampling._sample(peaked, None, None, u),
        ),
        Trick(
            "decoder for one token, docs-tiny", "generation/decoder.py",
            one_token(lambda new, cache: model(new[:, None], cache=cache).data[:, -1], model),
            one_token(decoder.Decoder(model), model),
        ),
        Trick(
            "its norms folded into weights side by side", "generation/decoder.py",
            one_token(for_large_models(model), model), one_token(decoder.Decoder(model), model),
        ),
    ]  # fmt: skip


def ratios(trick: Trick, rounds: int) -> list[float]:
    def seconds(side: Callable[[], Any], calls: int) -> float:
        began = trick.clock()
        for _ in range(calls):
            side()
        return trick.clock() - began

    sides = trick.without, trick.with_
    calls = [max(1, round(0.005 / max(seconds(side, 2) / 2, 1e-7))) for side in sides]
    found = []
    for _ in range(rounds):
        spent = [seconds(side, n) / n for side, n in zip(sides, calls, strict=True)]
        found.append(spent[0] / spent[1])
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=15, help="of both sides; default: 15")
    parser.add_argument("--out", type=Path, default=TABLE, help="default: figures/tricks.md")
    args = parser.parse_args()
    ml.keep_freed_memory()
    lines = [
        "# What each speed trick buys",
        "",
        "The time without the trick over the time with it: 2 is twice as fast. Median of "
        f"{args.rounds} rounds (middle half of them), both sides in turn, CPU time of one thread "
        "where no clock is named, "
        f'float32, C = {C}, T = {T}, B = {B}, V = {V}. "Fused" is one op with a gradient derived '
        "by hand beside the same composed of ops (minilora/reference.py), forward and backward. "
        '"Sorted runs" and "one flat array" time the idea alone, not the package\'s function. '
        f"Measured {date.today()} with Python {platform.python_version()}, NumPy "
        f"{np.__version__}, on a {platform.machine()} machine that was not idle; "
        "to measure again: `python tests/bench/tricks.py`.",
        "",
        "| trick | where | times as fast |",
        "|---|---|---|",
    ]
    for trick in tricks():
        found = ratios(trick, args.rounds)
        low, _, high = quantiles(found, n=4)
        cell = f"{median(found):.3g} ({low:.3g} to {high:.3g})"
        lines.append(f"| {trick.name} | {trick.where} | {cell} |")
        print(f"{trick.name:<52} {cell}", flush=True)
    write_atomically(args.out, lambda file: file.write_text("\n".join(lines) + "\n", "utf-8"))


if __name__ == "__main__":
    main()
