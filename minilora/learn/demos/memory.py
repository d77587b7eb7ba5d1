"""What training keeps in memory, and what 4 bits change: measured in bytes and operations."""

from __future__ import annotations

import math
import tracemalloc
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np

import minilora as ml
from minilora import functional as F
from minilora.analysis.profiler import profile
from minilora.learn.demos.demo import Measured, demo
from minilora.learn.demos.small_models import (
    difference,
    minimize,
    one_linear,
    squared,
    tiny_gpt2,
)
from minilora.quantization.nf4 import BLOCK, nf4_levels
from minilora.system.files import temporary_folder
from minilora.tensor import record


def quantize(W: np.ndarray, levels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """For each weight the number of the nearest level, uint8 (n, 64), and for each 64 weights the
    scale that makes their largest ±1, float32 (n, 1)."""
    blocks = W.reshape(-1, BLOCK)
    scales = np.abs(blocks).max(1, keepdims=True)
    middles = (levels[1:] + levels[:-1]) / 2
    return np.searchsorted(middles, blocks / scales).astype(np.uint8), scales


def dequantize(codes: np.ndarray, scales: np.ndarray, levels: np.ndarray) -> np.ndarray:
    """The weights (n, 64) that the codes stand for."""
    return levels[codes] * scales


def packed(codes: np.ndarray) -> np.ndarray:
    """Two codes of 4 bits in each byte."""
    flat = codes.ravel()
    return flat[::2] << 4 | flat[1::2]


def _normal_weights(n: int, m: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((n, m)).astype(np.float32)


def _batch(rows: int) -> tuple[np.ndarray, np.ndarray]:
    ids = np.random.default_rng(0).integers(0, 96, (rows, 65))
    return ids[:, :-1], ids[:, 1:]


def _model(method: str) -> ml.Transformer:
    """Two blocks of width 64, to be trained in full or with LoRA of rank 2."""
    model = tiny_gpt2(vocab_size=96, block_size=64, n_embd=64, n_head=4)
    if method == "LoRA":
        config = ml.LoraConfig(r=2, target_modules="all-linear")
        ml.add_adapter(model, config, rng=np.random.default_rng(0))
    return model


def _bytes_of_a_step(method: str, rows: int = 1) -> dict[str, float]:
    """Bytes of weights, gradients and AdamW's moments, and of what the operations compute."""
    model, (ids, targets) = _model(method), _batch(rows)
    optimizer = ml.AdamW(model.trainable_parameters())
    with profile() as seen:
        loss = ml.cross_entropy(model(ids), targets)
    loss.backward()
    return {
        "weights": sum(p.data.nbytes for p in model.parameters()),
        "gradients": sum(p.grad.nbytes for p in model.parameters() if p.grad is not None),
        "moments": optimizer.state_bytes,
        "activations": sum(cost.bytes for cost in seen.ops.values()),
    }


def _gigabytes(m: Measured) -> float:
    return m["GB of weights"] + m["GB of gradients"] + m["GB of AdamW's moments"]


@demo(
    weights=lambda m: math.isclose(_gigabytes(m), 14),
    moments=lambda m: math.isclose(_gigabytes(m), 56),
    all_three=lambda m: math.isclose(_gigabytes(m), 84),
    no_moments=lambda m: math.isclose(_gigabytes(m), 28),
)
def full_fine_tuning_of_7b() -> Measured:
    """Take the bytes for each number of a small model that trains, and scale them to 7 billion."""
    found = _bytes_of_a_step("full")
    billions = 7 / (found["weights"] / 4)  # of bytes here to gigabytes there
    return {
        "GB of weights": found["weights"] / 2 * billions,  # 16 bits in place of our 32
        "GB of gradients": found["gradients"] / 2 * billions,
        "GB of AdamW's moments": found["moments"] * billions,
    }


@demo(
    gradients_and_moments=lambda m: (
        m["gradients, of full"] < 0.1 > m["moments, of full"] and m["weights, of full"] >= 1
    ),
    weights=lambda m: m["weights, of full"] < 0.5,
    moments_only=lambda m: m["gradients, of full"] > 0.5 > m["moments, of full"],
    nothing=lambda m: m["gradients, of full"] > 0.5 < m["moments, of full"],
)
def what_lora_saves() -> Measured:
    """Take one step of full fine-tuning and one of LoRA, and compare the bytes of each part."""
    full, lora = _bytes_of_a_step("full"), _bytes_of_a_step("LoRA")
    return {
        f"{part}, of full": lora[part] / full[part] for part in ("weights", "gradients", "moments")
    }


@demo(
    right=lambda m: (
        m["weights, bytes for each parameter, frozen or not"] == 4
        and m["gradients, bytes for each trained parameter"] == 4
        and m["moments, bytes for each trained parameter"] == 8
        and m["activations, times with twice the tokens"] > 1.8
        and m["moments, times with twice the tokens"] == 1
    ),
    trained_weights_only=lambda m: m["weights, bytes for each parameter, frozen or not"] < 1,
    swapped=lambda m: (
        m["gradients, bytes for each trained parameter"]
        > m["moments, bytes for each trained parameter"]
    ),
    moments_by_tokens=lambda m: m["moments, times with twice the tokens"] > 1.8,
)
def what_each_part_grows_with() -> Measured:
    """Take a step of LoRA with 64 tokens and one with 128, and count the bytes of each part."""
    trained, every = ml.count_parameters(_model("LoRA"))
    once, twice = _bytes_of_a_step("LoRA"), _bytes_of_a_step("LoRA", rows=2)
    return {
        "weights, bytes for each parameter, frozen or not": once["weights"] / every,
        "gradients, bytes for each trained parameter": once["gradients"] / trained,
        "moments, bytes for each trained parameter": once["moments"] / trained,
        "moments, times with twice the tokens": twice["moments"] / once["moments"],
        "activations, times with twice the tokens": twice["activations"] / once["activations"],
    }


def _peak(method: str) -> float:
    """Bytes at the highest point of a training step with 8 rows, beside the weights."""
    config = ml.TrainConfig(steps=1, lr=1e-3)
    return ml.step_memory(ml.Training(_model(method), lambda rng: _batch(8), config))


def _in_order(m: Measured, *names: str) -> bool:
    return all(m[a] > m[b] for a, b in pairwise(f"{name}, bytes a parameter" for name in names))


@demo(
    right=lambda m: _in_order(m, "full, AdamW", "full, SGD", "LoRA", "QLoRA"),
    lora_above_sgd=lambda m: _in_order(m, "full, AdamW", "LoRA", "full, SGD", "QLoRA"),
    sgd_on_top=lambda m: _in_order(m, "full, SGD", "full, AdamW", "LoRA", "QLoRA"),
    qlora_above_lora=lambda m: _in_order(m, "full, AdamW", "full, SGD", "QLoRA", "LoRA"),
)
def rungs_of_the_ladder() -> Measured:
    """Count bytes of weights, gradients and moments of a small model, in 16 bits but moments, for
    four ways to train it; for QLoRA its matrices are stored in NF4."""
    full, lora = _bytes_of_a_step("full"), _bytes_of_a_step("LoRA")
    n = ml.count_parameters(_model("full"))[1]
    linears = [m.weight.data for _, m in _model("full").named_modules() if isinstance(m, ml.Linear)]
    stored = [quantize(W, nf4_levels()) for W in linears]
    saved = sum(W.nbytes / 2 for W in linears) - sum(
        packed(codes).nbytes + scales.nbytes for codes, scales in stored
    )
    two_of_each = full["weights"] / 2 + full["gradients"] / 2
    with_lora = lora["weights"] / 2 + lora["gradients"] / 2 + lora["moments"]
    return {
        "full, AdamW, bytes a parameter": (two_of_each + full["moments"]) / n,
        "full, SGD, bytes a parameter": two_of_each / n,
        "LoRA, bytes a parameter": with_lora / n,
        "QLoRA, bytes a parameter": (with_lora - saved) / n,
    }


@demo(
    activations=lambda m: (
        m["peak of a LoRA step, of full"] > 0.6
        and m["trained numbers, of full"] < 0.1
        and m["moments and gradients, of the full step's peak"] < 0.4
        and m["gradients of frozen weights, bytes"] == 0
    ),
    moments_of_frozen=lambda m: m["moments and gradients, of the full step's peak"] > 0.6,
    gradients_kept=lambda m: m["gradients of frozen weights, bytes"] > 0,
    a_and_b=lambda m: m["trained numbers, of full"] > 0.5,
)
def peak_of_a_step() -> Measured:
    """Measure the peak memory of a step of full fine-tuning and of LoRA on 512 tokens."""
    full, lora, peak = _bytes_of_a_step("full"), _bytes_of_a_step("LoRA"), _peak("full")
    trained = ml.count_parameters(_model("LoRA"))[0]
    return {
        "trained numbers, of full": trained / ml.count_parameters(_model("full"))[0],
        "peak of a LoRA step, of full": _peak("LoRA") / peak,
        "moments and gradients, of the full step's peak": (full["moments"] + full["gradients"])
        / peak,
        "gradients of frozen weights, bytes": lora["gradients"] - 4 * trained,
    }


class _Widen(ml.Module):
    """x + gelu(x U) D, as an MLP in a block.   U (16, 64), D (64, 16)"""

    def __init__(self, seed: int) -> None:
        rng = np.random.default_rng(seed)
        self.up, self.down = ml.Linear(16, 64, rng=rng), ml.Linear(64, 16, rng=rng)

    def __call__(self, x: ml.Tensor) -> ml.Tensor:
        return x + self.down(F.gelu(self.up(x)))


def _plain(layers: Sequence[_Widen], x: np.ndarray) -> None:
    h = ml.Tensor(x)
    for layer in layers:
        h = layer(h)
    (h * h).mean().backward()


def _checkpointed(layers: Sequence[_Widen], x: np.ndarray) -> None:
    """Keep each layer's input alone; on the way back compute the layer again from it."""
    inputs = [x]
    with ml.no_grad():
        for layer in layers:
            inputs.append(layer(ml.Tensor(inputs[-1])).data)
    y = ml.Tensor(inputs.pop(), requires_grad=True)
    (y * y).mean().backward()
    g = y.grad
    for layer in reversed(layers):
        h = ml.Tensor(inputs.pop(), requires_grad=True)
        layer(h).backward(g)
        g = h.grad


def _cost(step: Callable[[Sequence[_Widen], np.ndarray], None]) -> tuple[float, int, np.ndarray]:
    """Peak bytes of a step, the operations of its forward passes, and all gradients."""
    layers, x = [_Widen(seed) for seed in range(8)], _normal_weights(256, 16)
    was_tracing = tracemalloc.is_tracing()
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        tracemalloc.reset_peak()
        step(layers, x)
        peak = tracemalloc.get_traced_memory()[1] - before
    finally:
        if not was_tracing:
            tracemalloc.stop()
    params = [p for layer in layers for p in layer.parameters()]
    gradients = [p.grad.ravel() for p in params if p.grad is not None]
    with profile() as seen:
        step(layers, x)
    return peak, sum(c.forward_flops for c in seen.ops.values()), np.concatenate(gradients)


@demo(
    computes_again=lambda m: (
        m["peak memory, of the plain step's"] < 0.6
        and m["forward operations, of the plain step's"] == 2
        and m["gradients, relative difference"] < 1e-5
    ),
    approximates=lambda m: m["gradients, relative difference"] > 0.01,
    free=lambda m: m["forward operations, of the plain step's"] == 1,
    slower_and_as_large=lambda m: m["peak memory, of the plain step's"] > 0.9,
)
def activations_computed_again() -> Measured:
    """Take a step through eight MLPs that keeps everything, and one that keeps their inputs."""
    plain, saving = _cost(_plain), _cost(_checkpointed)
    off = np.linalg.norm(saving[2] - plain[2]) / np.linalg.norm(plain[2])
    return {
        "peak memory, of the plain step's": saving[0] / plain[0],
        "forward operations, of the plain step's": saving[1] / plain[1],
        "gradients, relative difference": float(off),
    }


@demo(
    moments=lambda m: (
        m["SGD's state, bytes for each parameter"] == 0
        and m["AdamW's state, bytes for each parameter"] == 8
        and m["gradients, bytes for each parameter"] == 4
    ),
    half=lambda m: (
        m["SGD's state, bytes for each parameter"]
        == m["AdamW's state, bytes for each parameter"] / 2
    ),
    gradients=lambda m: m["gradients, bytes for each parameter"] == 0,
    nothing=lambda m: (
        m["SGD's state, bytes for each parameter"] == m["AdamW's state, bytes for each parameter"]
    ),
)
def state_of_sgd() -> Measured:
    """Train one small model for two steps with SGD and one with AdamW, and count their bytes."""
    measured: Measured = {}
    makers: dict[str, Callable[..., ml.SGD | ml.AdamW]] = {"SGD": ml.SGD, "AdamW": ml.AdamW}
    for name, make in makers.items():
        model, (ids, targets) = _model("full"), _batch(1)
        optimizer, n = make(model.parameters(), lr=1e-3), ml.count_parameters(model)[1]
        for _ in range(2):
            optimizer.zero_grad()
            ml.cross_entropy(model(ids), targets).backward()
            optimizer.step()
        measured[f"{name}'s state, bytes for each parameter"] = optimizer.state_bytes / n
        gradients = sum(p.grad.nbytes for p in model.parameters() if p.grad is not None)
        measured["gradients, bytes for each parameter"] = gradients / n
    return measured


@demo(
    third=lambda m: (
        0.6 < m["operations of a LoRA step, of full"] < 0.8
        and m["forward operations, of full's forward"] > 0.95
    ),
    nearly_all=lambda m: m["operations of a LoRA step, of full"] < 0.1,
    forward_only=lambda m: m["operations of a LoRA step, of full"] < 0.4,
    nothing=lambda m: m["operations of a LoRA step, of full"] > 0.95,
)
def operations_of_a_step() -> Measured:
    """Count the operations of all matrix products in a step of full fine-tuning and of LoRA."""
    forward, every = {}, {}
    for method in ("full", "LoRA"):
        model, (ids, targets) = _model(method), _batch(4)
        with profile() as seen:
            ml.cross_entropy(model(ids), targets).backward()
        forward[method] = sum(cost.forward_flops for cost in seen.ops.values())
        every[method] = forward[method] + sum(cost.backward_flops for cost in seen.ops.values())
    return {
        "forward operations, of full's forward": forward["LoRA"] / forward["full"],
        "operations of a LoRA step, of full": every["LoRA"] / every["full"],
    }


@demo(
    half_a_bit=lambda m: (
        m["weights a scale"] * (m["bits for each weight"] - 4) == m["bits of a scale"]
    ),
    codes_only=lambda m: m["bits for each weight"] == 4,
    one_bit=lambda m: m["bits for each weight"] == 5,
    scale_each=lambda m: m["bits for each weight"] == 4 + m["bits of a scale"],
)
def bits_of_nf4() -> Measured:
    """Store 256 x 256 weights in NF4, two to a byte with a scale for each 64, and count bits."""
    codes, scales = quantize(_normal_weights(256, 256), nf4_levels())
    stored = packed(codes).nbytes + scales.nbytes
    return {
        "weights a scale": codes.size / scales.size,
        "bits of a scale": 8 * scales.itemsize,
        "bits for each weight": 8 * stored / codes.size,
    }


def _scales_in_8_bits(scales: np.ndarray) -> tuple[np.ndarray, int]:
    """The scales after they were stored in 8 bits, around their mean, with one float32 for each 256
    of them; and the bytes of that."""
    mean = scales.mean()
    groups = (scales - mean).reshape(-1, 256)
    second = np.abs(groups).max(1, keepdims=True)
    codes = np.round(groups / second * 127).astype(np.int8)
    restored = codes * (second / 127) + mean
    return restored.reshape(scales.shape).astype(np.float32), codes.nbytes + second.nbytes


@demo(
    scales=lambda m: (
        m["bits of scales for each weight, before"] == 0.5
        and m["bits of scales for each weight, after"] < 0.13
        and m["bits of codes for each weight, after"] == 4
        and m["error of the weights, times as large as before"] < 1.01
    ),
    weights=lambda m: m["bits of codes for each weight, after"] < 4,
    twice_as_exact=lambda m: m["error of the weights, times as large as before"] < 0.6,
    free_blocks=lambda m: (
        m["bits of scales for each weight, after"] >= m["bits of scales for each weight, before"]
    ),
)
def double_quantization() -> Measured:
    """Store the scales of 256 x 256 weights in 32 bits, then in 8, and compare size and error."""
    W, levels = _normal_weights(256, 256), nf4_levels()
    codes, scales = quantize(W, levels)
    again, stored = _scales_in_8_bits(scales)
    before, after = (
        difference_of_means(dequantize(codes, s, levels), W.reshape(-1, BLOCK))
        for s in (scales, again)
    )
    return {
        "bits of scales for each weight, before": 8 * scales.nbytes / W.size,
        "bits of scales for each weight, after": 8 * stored / W.size,
        "bits of codes for each weight, after": 8 * packed(codes).nbytes / W.size,
        "error of the weights, times as large as before": after / before,
    }


def difference_of_means(a: np.ndarray, b: np.ndarray) -> float:
    """The mean absolute difference."""
    return float(np.abs(a - b).mean())


@demo(
    a_quarter=lambda m: 32 < _gigabytes_of_65b(m) < 35,
    in_16_bits=lambda m: math.isclose(_gigabytes_of_65b(m), 130, rel_tol=0.02),
    a_byte_each=lambda m: math.isclose(_gigabytes_of_65b(m), 65, rel_tol=0.02),
    an_eighth=lambda m: math.isclose(_gigabytes_of_65b(m), 16, rel_tol=0.05),
)
def weights_of_65b() -> Measured:
    """Count the bits of 256 x 256 weights in NF4 with scales in 8 bits, to scale them up."""
    codes, scales = quantize(_normal_weights(256, 256), nf4_levels())
    return {
        "bits of codes for each weight": 8 * packed(codes).nbytes / codes.size,
        "bits of scales for each weight": 8 * _scales_in_8_bits(scales)[1] / codes.size,
    }


def _gigabytes_of_65b(m: Measured) -> float:
    return 65 * (m["bits of codes for each weight"] + m["bits of scales for each weight"]) / 8


@demo(
    partly_lost=lambda m: (
        m["merged into 4 bits, off W + ΔW, of ΔW"] > 0.5
        and m["merged into 32 bits, off W + ΔW, of ΔW"] < 1e-3
        and m["codes that the merge changed, per cent"] > 1
    ),
    exact=lambda m: m["merged into 4 bits, off W + ΔW, of ΔW"] < 0.01,
    not_at_all=lambda m: m["merged into 32 bits, off W + ΔW, of ΔW"] > 0.5,
    base_again=lambda m: m["codes that the merge changed, per cent"] == 0,
)
def merging_into_four_bits() -> Measured:
    """Add a ΔW a tenth as long as W to restored 4-bit weights, and store the sum in 4 bits."""
    levels, U, V = nf4_levels(), _normal_weights(64, 4, 1), _normal_weights(4, 64, 2)
    codes, scales = quantize(_normal_weights(64, 64), levels)
    W = dequantize(codes, scales, levels)
    delta = (U @ V).reshape(W.shape)
    delta *= 0.1 * np.linalg.norm(W) / np.linalg.norm(delta)
    again = quantize(W + delta, levels)

    def off(merged: np.ndarray) -> float:
        return float(np.linalg.norm(merged - (W + delta)) / np.linalg.norm(delta))

    return {
        "merged into 4 bits, off W + ΔW, of ΔW": off(dequantize(*again, levels)),
        "merged into 32 bits, off W + ΔW, of ΔW": off((W + delta).astype(np.float32)),
        "codes that the merge changed, per cent": float(100 * (again[0] != codes).mean()),
    }


@demo(
    quantiles=lambda m: (
        m["middle gap, of the outermost"] < 0.5
        and 0.7 < m["second largest level, of the largest"] < 0.75
        and m["rarest level of NF4, of the mean"] > 2 * m["rarest evenly spaced level, of the mean"]
        and m["error of NF4, of evenly spaced levels'"] < 0.95
    ),
    even=lambda m: math.isclose(m["middle gap, of the outermost"], 1, abs_tol=0.1),
    powers=lambda m: math.isclose(m["second largest level, of the largest"], 0.5, abs_tol=0.01),
    at_the_ends=lambda m: m["middle gap, of the outermost"] > 1.1,
)
def levels_of_nf4() -> Measured:
    """Quantize normal weights with NF4's levels and with 16 evenly spaced ones."""
    W, levels = _normal_weights(256, 256), nf4_levels()
    even = np.linspace(-1, 1, 16, dtype=np.float32)
    rarest, errors = [], []
    for chosen in (levels, even):
        codes, scales = quantize(W, chosen)
        rarest.append(np.bincount(codes.ravel(), minlength=16)[1:-1].min() / (codes.size / 16))
        errors.append(difference_of_means(dequantize(codes, scales, chosen), W.reshape(-1, BLOCK)))
    gaps = np.diff(levels)
    return {
        "middle gap, of the outermost": float(gaps.min() / gaps[0]),
        "second largest level, of the largest": float(levels[-2]),
        "rarest level of NF4, of the mean": float(rarest[0]),
        "rarest evenly spaced level, of the mean": float(rarest[1]),
        "error of NF4, of evenly spaced levels'": errors[0] / errors[1],
    }


class FourBitLinear(ml.Module):
    """x W with a frozen W (d_in, d_out) of 4 bits, which is restored whenever it is needed."""

    def __init__(self, W: np.ndarray) -> None:
        self.shape, self.levels = W.shape, nf4_levels()
        codes, self.scales = quantize(W, self.levels)
        self.packed, self.restored = packed(codes), 0  # how many numbers so far

    def weight(self) -> np.ndarray:
        """W (d_in, d_out) in 32 bits."""
        self.restored += math.prod(self.shape)
        codes = np.stack([self.packed >> 4, self.packed & 15], axis=1).reshape(-1, BLOCK)
        return dequantize(codes, self.scales, self.levels).reshape(self.shape)

    def __call__(self, x: ml.Tensor) -> ml.Tensor:
        """x (N, d_in) -> (N, d_out)"""
        return record(x.data @ self.weight(), (x, lambda g: g @ self.weight().T))


def _qlora(W: np.ndarray, steps: int) -> tuple[FourBitLinear, ml.Parameter, ml.Parameter, float]:
    """Two 4-bit layers with LoRA beside the first learn a random target. The second layer, its A
    and B, and the loss after, of before."""
    rng, (d, _) = np.random.default_rng(1), W.shape
    first, second = FourBitLinear(W), FourBitLinear(W[::-1])
    A = ml.Parameter((rng.uniform(-1, 1, (d, 4)) / math.sqrt(d)).astype(np.float32))
    B = ml.Parameter(np.zeros((4, d), np.float32))
    x, wanted = ml.Tensor(_normal_weights(64, d, 2)), _normal_weights(64, d, 3)
    left = minimize([A, B], lambda: squared(second(first(x) + x @ A @ B), wanted), steps, lr=1e-2)
    return second, A, B, left


@demo(
    frozen_base=lambda m: (
        m["bits of a base weight"] < 5
        and m["bits of A and B"] == 32
        and m["codes that training changed"] == 0
        and m["loss after, of before"] < 0.9
    ),
    everything=lambda m: m["bits of A and B"] < 5,
    adapter_only=lambda m: m["bits of A and B"] < m["bits of a base weight"],
    base_trains=lambda m: m["codes that training changed"] > 0,
)
def what_is_in_four_bits() -> Measured:
    """Train LoRA beside a layer of 4 bits for 30 steps, and look at every array it has."""
    W = _normal_weights(64, 64) / 8
    layer, A, B, left = _qlora(W, steps=30)
    start = packed(quantize(W[::-1], nf4_levels())[0])
    return {
        "bits of a base weight": 8 * (layer.packed.nbytes + layer.scales.nbytes) / W.size,
        "bits of A and B": 8 * (A.data.nbytes + B.data.nbytes) / (A.size + B.size),
        "codes that training changed": int((layer.packed != start).sum()),
        "loss after, of before": left,
    }


@demo(
    swallowed=lambda m: (
        m["weights in 4 bits that a step changes, per cent"] < 5
        and m["weights in 32 bits that a step changes, per cent"] > 95
        and m["a step, of the gap between two levels"] < 0.05
    ),
    no_gradient=lambda m: m["largest gradient of the weights"] == 0,
    too_large=lambda m: m["a step, of the gap between two levels"] > 1,
    it_works=lambda m: m["weights in 4 bits that a step changes, per cent"] > 95,
)
def a_step_on_four_bits() -> Measured:
    """Take one AdamW step on 64 x 64 weights in 32 bits, and round the result to 4 bits again."""
    model, levels = one_linear(64, 64), nf4_levels()
    codes, scales = quantize(model[0].weight.data, levels)
    W = dequantize(codes, scales, levels).reshape(64, 64)
    model[0].weight.data = W.copy()
    squared(model[0](_normal_weights(32, 64)), _normal_weights(32, 64, 1)).backward()
    gradient = model[0].weight.grad
    ml.AdamW(model.parameters(), lr=2e-4, weight_decay=0).step()
    stepped = model[0].weight.data
    again = quantize(stepped, levels)[0]
    gap = float((np.diff(levels).mean() * scales).mean())
    return {
        "largest gradient of the weights": difference(gradient, 0),
        "a step, of the gap between two levels": difference_of_means(stepped, W) / gap,
        "weights in 32 bits that a step changes, per cent": float(100 * (stepped != W).mean()),
        "weights in 4 bits that a step changes, per cent": float(100 * (again != codes).mean()),
    }


@demo(
    restores=lambda m: (
        m["weights restored in a later step, for each stored"] == 2
        and m["bytes of the stored weights, of 16 bits"] < 0.3
        and m["outputs, off those with the restored weights"] < 1e-5
    ),
    faster=lambda m: m["weights restored in the first step, for each stored"] == 0,
    once=lambda m: (
        m["weights restored in the first step, for each stored"]
        > m["weights restored in a later step, for each stored"]
    ),
    larger=lambda m: m["bytes of the stored weights, of 16 bits"] > 1,
)
def work_of_a_four_bit_step() -> Measured:
    """Count how many weights a 4-bit layer restores in training steps, forward and backward."""
    W = _normal_weights(64, 64) / 8
    first, five, six = (_qlora(W, steps)[0].restored for steps in (1, 5, 6))
    layer, x = FourBitLinear(W), _normal_weights(8, 64)
    return {
        "weights restored in the first step, for each stored": first / W.size,
        "weights restored in a later step, for each stored": (six - five) / W.size,
        "bytes of the stored weights, of 16 bits": (layer.packed.nbytes + layer.scales.nbytes)
        / (2 * W.size),
        "outputs, off those with the restored weights": difference(
            layer(ml.Tensor(x)), x @ layer.weight()
        ),
    }


def _three_steps(folder: Path | None) -> tuple[np.ndarray, np.ndarray, ml.AdamW]:
    """A weight before and after three AdamW steps, its moments in files of a folder or not."""
    model = one_linear(32, 32)
    start = model[0].weight.data.copy()
    optimizer = ml.AdamW(model.parameters(), lr=1e-2, weight_decay=0)
    if folder is not None:
        for name in ("m", "v"):
            (folder / name).write_bytes(getattr(optimizer, name).tobytes())  # zeros
            setattr(optimizer, name, np.memmap(folder / name, np.float32, "r+"))
    for _ in range(3):
        squared(model[0](_normal_weights(16, 32)), _normal_weights(16, 32, 1)).backward()
        optimizer.step()
        optimizer.zero_grad()
    return start, model[0].weight.data.copy(), optimizer


@demo(
    moved_out=lambda m: (
        m["weights that differ from those without paging"] == 0
        and m["moments that lie outside of main memory"] == 2
        and m["bits of a moment"] == 32
        and m["weights that three steps changed, per cent"] == 100
    ),
    fewer_bits=lambda m: m["bits of a moment"] < 32,
    parts=lambda m: m["weights that three steps changed, per cent"] < 100,
    approximate=lambda m: m["weights that differ from those without paging"] > 0,
)
def paging_the_moments() -> Measured:
    """Take three AdamW steps with the moments in memory, and three with them paged to files."""
    start, plain, _ = _three_steps(None)
    with temporary_folder() as scratch:
        _, paged, optimizer = _three_steps(scratch)
        outside = sum(isinstance(moment, np.memmap) for moment in (optimizer.m, optimizer.v))
        bits = 8 * optimizer.state_bytes / (2 * plain.size)
        del optimizer  # Windows deletes no file that is still mapped
    return {
        "weights that differ from those without paging": int((paged != plain).sum()),
        "moments that lie outside of main memory": outside,
        "bits of a moment": bits,
        "weights that three steps changed, per cent": float(100 * (paged != start).mean()),
    }
