"""One adapter out of several, each with its weight: ΔW = Σ w ΔW of each, or what TIES makes of it.

All is done with ΔW. Averaging A and B apart multiplies the A of one task with the B of another.
One adapter with weight 1 is that adapter, bit for bit, whatever its kind.
Sources: Ilharco et al. 2023 (task arithmetic, and negation: a weight below 0), Yadav et al. 2023
(TIES), Yu et al. 2024 (DARE). The names are those of PEFT's add_weighted_adapter.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from minilora.combining.low_rank import best_factors, svd_of_product
from minilora.combining.patterns import ranks_and_alphas
from minilora.lora import LowRank, adapters, disable_adapter, lora_layers, set_adapter
from minilora.lora_config import LoraConfig
from minilora.lora_targets import Adapter, CopiedParameter, check_new_name
from minilora.nn import Module, Parameter, Rng
from minilora.system.checks import is_number, require_rng, require_whole
from minilora.system.errors import UsageError

HOWS = ("cat", "svd", "ties_svd", "dare_linear_svd", "dare_ties_svd")
_APART = ("linear", "ties", "dare_linear", "dare_ties", "magnitude_prune")  # PEFT's, of A and B


def combine_adapters(
    model: Module,
    weights: Mapping[str, float],
    name: str,
    how: str = "cat",
    *,
    r: int | None = None,
    density: float | None = None,
    rng: Rng | None = None,
) -> dict[str, float]:
    """Add an adapter, active and trainable, that combines others of the model, kept as they are.

    weights: of each by name; below 0 takes away what an adapter does.
    how: "cat": Σ w ΔW exactly, A side by side and B one below the other, so that ranks add up.
        "svd": the matrix of rank r nearest to Σ w ΔW. "ties_svd": as that, but each number is the
        mean of those w ΔW that agree with their sum's sign, after all but the share `density`, the
        largest, of each ΔW are set to 0. "dare_linear_svd", "dare_ties_svd": numbers are dropped
        at random (rng) instead, and what stays is divided by density.
    Biases and modules_to_save are combined in the same way, as changes of the base's own.

    Returns what rank r leaves out of each layer, ‖ΔW - s A B‖ / ‖ΔW‖, by path: 0 for "cat".
    Raises ValueError, and changes nothing, for options that `how` does not have or lacks, for
    adapters that are not there, one whose ΔW is not of low rank (DoRA) in "cat", and for a matrix
    that one adapter adapts and another trains whole.
    """
    _check_options(how, r, density, rng)
    with disable_adapter(model):  # the base's own numbers are in their places
        check_new_name(name, adapters(model))
        _check_weights(weights, list(adapters(model)))
        if how == "cat" and list(weights.values()) == [1]:
            layers, adapter = _copied(model, *weights)
            errors = dict.fromkeys(layers, 0.0)
        else:
            found = _of_layers(model, weights, how, r, density, rng)
            layers = {path: one for path, (one, _) in found.items()}
            errors = {path: error for path, (_, error) in found.items()}
            config = _config(model, weights, layers)
            adapter = Adapter(config, _copies(model, weights, how, density, rng))
    places = lora_layers(model)
    for path, one in layers.items():
        places[path].adapters[name] = one
    adapters(model)[name] = adapter
    set_adapter(model, name)
    return errors


def _check_options(how: str, r: int | None, density: float | None, rng: Rng | None) -> None:
    if how in _APART:
        raise UsageError(
            f"PEFT's {how!r} combines A and B apart, and the product of two sums is not the sum of "
            f"the products; take one of {', '.join(HOWS)}, which combine ΔW"
        )
    if how not in HOWS:
        raise UsageError(f"how must be one of {', '.join(HOWS)}, got {how!r}")
    takes = {"r": how != "cat", "density": "ties" in how or "dare" in how, "rng": "dare" in how}
    for option, given in {"r": r, "density": density, "rng": rng}.items():
        if takes[option] and given is None:
            raise UsageError(f"how={how!r} needs {option}=…; see help(combine_adapters)")
        if not takes[option] and given is not None:
            raise UsageError(f"how={how!r} takes no {option}: leave it out")
    if r is not None:
        require_whole(1, r=r)
    if density is not None and not (is_number(density) and 0 < density <= 1):
        raise UsageError(f"density must lie in (0, 1], got {density!r}")
    if rng is not None:
        require_rng(rng)


def _check_weights(weights: Mapping[str, float], known: list[str]) -> None:
    if not isinstance(weights, Mapping) or not weights:
        raise UsageError(
            f'weights is a dict such as {{"a": 0.7, "b": -1.0}}, got {weights!r}; this model has: '
            f"{', '.join(known) or 'no adapter'}"
        )
    for name, weight in weights.items():
        if name not in known:
            raise UsageError(f"this model has no adapter {name!r}; it has: {', '.join(known)}")
        if not is_number(weight) or not math.isfinite(weight):
            raise UsageError(f"the weight of {name!r} must be a finite number, got {weight!r}")


def _copied(model: Module, name: str) -> tuple[dict[str, LowRank], Adapter]:
    """All of one adapter, again."""
    old = adapters(model)[name]
    layers = {
        path: copy.deepcopy(layer.adapters[name])
        for path, layer in lora_layers(model).items()
        if name in layer.adapters
    }
    for one in layers.values():
        one.zero_grad()
    copies = [
        CopiedParameter(c.owner, c.attribute, c.original, Parameter(c.copy.data.copy()))
        for c in old.copies
    ]
    return layers, Adapter(old.config, copies)


def _of_layers(
    model: Module, weights: Mapping[str, float], how: str, *options: Any
) -> dict[str, tuple[LowRank, float]]:
    """The new adapter of each layer that one of the old ones has, and its relative error."""
    found = {}
    for path, layer in lora_layers(model).items():
        W = layer.base.weight.data
        parts = [(w, layer.adapters[name]) for name, w in weights.items() if name in layer.adapters]
        if not parts:
            continue
        try:
            combined = _combined(W, parts, how, *options)
        except UsageError as error:
            raise UsageError(f"{path}: {error}") from None
        found[path] = combined
    return found


def _combined(
    W: np.ndarray,
    parts: list[tuple[float, LowRank]],
    how: str,
    r: int | None,
    density: float | None,
    rng: Rng | None,
) -> tuple[LowRank, float]:
    if how == "cat":
        return _concatenated(W, parts), 0.0
    assert r is not None
    thin = how == "svd" and all("m" not in one.factors(W) for _, one in parts)
    if thin:
        A, B, s = _side_by_side(W, parts)
        U, S, Vt = svd_of_product(s * A.astype(np.float64), B)
    else:
        deltas = [one.delta(W).astype(np.float64) for _, one in parts]
        merged = merged_changes(deltas, [w for w, _ in parts], how, density, rng)
        U, S, Vt = np.linalg.svd(merged, full_matrices=False)
    A, B, error = best_factors(U, S, Vt, r)
    return LowRank(A.astype(W.dtype), B.astype(W.dtype), 1.0), error


def _concatenated(W: np.ndarray, parts: list[tuple[float, LowRank]]) -> LowRank:
    if any("m" in one.factors(W) for _, one in parts):
        raise UsageError(
            'the ΔW of DoRA is not of low rank, so that "cat" cannot hold it; how="svd" with r=… '
            "gives the nearest of rank r"
        )
    A, B, s = _side_by_side(W, parts)
    if len(B) > min(W.shape):
        raise UsageError(
            f"the ranks add up to {len(B)}, more than a matrix of {W.shape} can have; "
            f'how="svd" with r={min(W.shape)} loses nothing'
        )
    return LowRank(A, B, s)


def _side_by_side(
    W: np.ndarray, parts: list[tuple[float, LowRank]]
) -> tuple[np.ndarray, np.ndarray, float]:
    """A (d_in, R), B (R, d_out) and s with s A B = Σ w ΔW. The scale is the largest of the parts';
    what a part has less of it, and its weight, goes into its rows of B."""
    factors = [one.factors(W) for _, one in parts]
    s = max((one.s for _, one in parts), key=abs)
    shares = [w * one.s / s for w, one in parts]
    A = np.concatenate([f["A"] for f in factors], axis=1)
    B = np.concatenate([share * f["B"] for share, f in zip(shares, factors, strict=True)])
    return A, B, s


def merged_changes(
    changes: list[np.ndarray],
    weights: list[float],
    how: str,
    density: float | None = None,
    rng: Rng | None = None,
) -> np.ndarray:
    """One change out of several of one shape, as `how` says; see combine_adapters."""
    if density is not None and "dare" in how:
        assert rng is not None
        changes = [c * (rng.random(c.shape) < density) / density for c in changes]
    elif density is not None and "ties" in how:
        changes = [_trimmed(c, density) for c in changes]
    weighted = np.stack([w * c for w, c in zip(weights, changes, strict=True)])
    total = weighted.sum(axis=0)
    if "ties" not in how:
        return total
    agrees = np.sign(weighted) == np.where(total >= 0, 1, -1)
    return (weighted * agrees).sum(axis=0) / np.maximum(agrees.sum(axis=0), 1)


def _trimmed(change: np.ndarray, density: float) -> np.ndarray:
    """The share `density` of the numbers that are largest in size; 0 for the others."""
    n = change.size - int(density * change.size)  # how many go
    kept = change.copy()
    smallest = np.argpartition(np.abs(change), min(n, change.size - 1), axis=None)[:n]
    kept.flat[smallest] = 0
    return kept


def _config(model: Module, weights: Mapping[str, float], layers: dict[str, LowRank]) -> LoraConfig:
    """What the new adapter is: plain LoRA, with what the old ones train whole."""
    old = [adapters(model)[name].config for name in weights]
    whole = dict.fromkeys(name for config in old for name in config.modules_to_save)
    ranks = {path: len(one.B.data) for path, one in layers.items()}
    scales = {path: one.s for path, one in layers.items()}
    return LoraConfig(
        target_modules=tuple(layers),
        modules_to_save=tuple(whole),
        bias=max((config.bias for config in old), key=("none", "lora_only", "all").index),
        **ranks_and_alphas(ranks, scales, use_rslora=False),
    )


def _copies(
    model: Module, weights: Mapping[str, float], how: str, density: float | None, rng: Rng | None
) -> list[CopiedParameter]:
    """The parameters that an old adapter trains whole, as the new one has them."""
    found: dict[tuple[int, str], list[tuple[float, CopiedParameter]]] = {}
    for name, weight in weights.items():
        for c in adapters(model)[name].copies:
            found.setdefault((id(c.owner), c.attribute), []).append((weight, c))
    adapted = {
        id(layer.base): path
        for path, layer in lora_layers(model).items()
        if not layer.adapters.keys().isdisjoint(weights)
    }
    copies = []
    for (owner, attribute), parts in found.items():
        if owner in adapted and attribute == "weight":
            raise UsageError(
                f"{adapted[owner]} is adapted by one adapter and trained whole by another: leave "
                "one of them out"
            )
        first = parts[0][1]
        base = first.original.data
        changes = [c.copy.data.astype(np.float64) - base for _, c in parts]
        change = merged_changes(changes, [w for w, _ in parts], how, density, rng)
        new = Parameter((base + change).astype(base.dtype))
        copies.append(CopiedParameter(first.owner, attribute, first.original, new))
    return copies
