"""LoRA, low-rank adaptation (Hu et al. 2021): y = x (W + s A B) + b with W frozen, A and B trained.

A (d_in, r) starts random and B (r, d_out) at zero, so the adapted model starts exactly at the base
model; s = lora_alpha / r. r (d_in + d_out) numbers train instead of d_in · d_out. After training
ΔW = s A B is merged into W, or kept beside it and swapped for another. LoRA wraps: `attn.q_proj`
becomes a LoraLinear that holds the frozen Linear. Names are PEFT's. The paper multiplies columns,
W x + s B A x: its A, B are ours transposed. Imports tensor, functional, nn, lora_config, lora_init.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np

from minilora import functional as F
from minilora.lora_config import CopiedParameter, LoraConfig, find_targets, parameters_to_copy
from minilora.lora_init import PART_OF_W, initial_factors
from minilora.nn import Linear, Module, Parameter, Rng
from minilora.system.errors import UsageError
from minilora.tensor import Tensor


class LoraLinear(Module):
    """A frozen Linear with low-rank adapters beside it, of which at most one is active."""

    def __init__(self, base: Linear) -> None:
        self.base = base
        self.lora_A: dict[str, Parameter] = {}
        self.lora_B: dict[str, Parameter] = {}
        self.scaling: dict[str, float] = {}
        self.dropout: dict[str, float] = {}
        self.lora_magnitude: dict[str, Parameter] = {}  # DoRA's m
        self.residual: dict[str, Tensor] = {}  # W without s A B as it started: PiSSA, OLoRA
        self.active: str | None = None
        self.unmerged_weight: np.ndarray | None = None  # W as it was before merging

    def add(self, name: str, path: str, config: LoraConfig, rng: Rng) -> None:
        W, (r, s) = self.base.weight.data, config.rank_and_scale(path)
        A, B = initial_factors(W, r, s, config.init_lora_weights, rng)
        self.lora_A[name], self.lora_B[name] = Parameter(A), Parameter(B)
        self.scaling[name], self.dropout[name] = s, config.lora_dropout
        if config.init_lora_weights in PART_OF_W:
            self.residual[name] = Tensor(W - A @ B * s)
        if config.use_dora:
            self.lora_magnitude[name] = Parameter(np.linalg.norm(W, axis=0))

    def __call__(self, x: Tensor, rng: Rng | None = None) -> Tensor:
        """x (..., d_in) -> (..., d_out). rng draws the adapter's dropout; None switches it off."""
        W, b, name = self.base.weight, self.base.bias, self.active
        if name is None or self.unmerged_weight is not None:
            return F.linear(x, W, b)
        A, B, s = self.lora_A[name], self.lora_B[name], self.scaling[name]
        frozen, m = self.residual.get(name, W), self.lora_magnitude.get(name)
        bias = b if m is None else None
        drops = rng is not None and self.dropout[name] > 0
        if drops or 16 * x.size < W.size:  # few rows: not forming all of A B is faster
            y = F.linear(x, frozen, bias) + (F.dropout(x, self.dropout[name], rng) @ A) @ B * s
        else:
            y = F.lora_linear(x, frozen, bias, A, B, s)  # the same as one fused op
        if m is not None:  # DoRA: y = x V · m / ‖V‖ + b with V = W + s A B; ‖V‖ has no gradient
            y = y * (m / np.linalg.norm(frozen.data + A.data @ B.data * s, axis=0))
        return y if bias is b else y + b

    def delta_weight(self, name: str) -> np.ndarray:
        """ΔW = s A B   (d_in, d_out); in general what the weight has become, minus W."""
        W = self.base.weight.data if self.unmerged_weight is None else self.unmerged_weight
        delta = self.lora_A[name].data @ self.lora_B[name].data * self.scaling[name]
        if name in self.residual:
            delta += self.residual[name].data - W
        if name in self.lora_magnitude:
            m = self.lora_magnitude[name].data / np.linalg.norm(W + delta, axis=0)
            delta = (W + delta) * m - W
        return delta

    def merge(self) -> None:
        if self.active is not None:
            self.unmerged_weight = self.base.weight.data
            self.base.weight.data = self.unmerged_weight + self.delta_weight(self.active)

    def unmerge(self) -> None:
        """Put the kept W back: subtracting ΔW again would leave rounding errors in most entries."""
        if self.unmerged_weight is not None:
            self.base.weight.data, self.unmerged_weight = self.unmerged_weight, None


@dataclass
class Adapter:
    """What a model knows of one adapter beside the layers' A and B."""

    config: LoraConfig
    copies: list[CopiedParameter]  # of biases and modules_to_save


def adapters(model: Module) -> dict[str, Adapter]:
    """The model's adapters by name; empty for a model without any."""
    return vars(model).setdefault("adapters", {})


def lora_layers(model: Module) -> dict[str, LoraLinear]:
    """Every wrapped layer by path."""
    return {path: m for path, m in model.named_modules() if isinstance(m, LoraLinear)}


def active_adapter(model: Module) -> str | None:
    """The name of the adapter in use, or None."""
    return next((m.active for m in lora_layers(model).values() if m.active), None)


def add_adapter(model: Module, config: LoraConfig, name: str = "default", *, rng: Rng) -> None:
    """Freeze the model, wrap every targeted Linear, and make the new adapter the active one.

    rng draws A. Raises ValueError, and changes nothing, for targets that match nothing, a rank too
    large, a tied embedding, a name already taken, or while an adapter is merged.
    """
    _require_unmerged(model)
    if name in adapters(model) or not name or "." in name:
        raise UsageError(f"an adapter cannot be named {name!r}: it is taken, empty or has a dot")
    there, targets = lora_layers(model), find_targets(model, config)
    layers = {path: there.get(path) or LoraLinear(base) for path, base in targets.items()}
    with disable_adapter(model):  # so that what is copied is the base's own
        copies = parameters_to_copy(model, config, targets)
    for path, layer in layers.items():
        layer.add(name, path, config, rng)
        model.set_submodule(path, layer)
    adapters(model)[name] = Adapter(config, copies)
    set_adapter(model, name)


def set_adapter(model: Module, name: str) -> None:
    """Use, and train, this adapter and no other."""
    _require_unmerged(model)
    _require_adapter(model, name)
    model.requires_grad_(False)  # before copies take the place of the base's own
    _activate(model, name)
    for layer in lora_layers(model).values():
        for kind in (layer.lora_A, layer.lora_B, layer.lora_magnitude):
            if name in kind:
                kind[name].requires_grad = True
    for slot in adapters(model)[name].copies:
        slot.copy.requires_grad = True


def delete_adapter(model: Module, name: str) -> None:
    """Forget an adapter. With the last one gone the model is the plain base, all trainable."""
    _require_unmerged(model)
    _require_adapter(model, name)
    if active_adapter(model) == name:
        _activate(model, None)
    del adapters(model)[name]
    for path, layer in lora_layers(model).items():
        for kept in [value for value in vars(layer).values() if isinstance(value, dict)]:
            kept.pop(name, None)
        if not layer.lora_A:
            model.set_submodule(path, layer.base)
    if not adapters(model):
        model.requires_grad_(True)


@contextmanager
def disable_adapter(model: Module) -> Iterator[None]:
    """Within it (`with disable_adapter(model): ...`) the model is exactly its base."""
    _require_unmerged(model)
    name = active_adapter(model)
    _activate(model, None)
    try:
        yield
    finally:
        _activate(model, name if name in adapters(model) else None)


def merge_adapter(model: Module) -> None:
    """W += s A B in every adapted layer: inference then costs what the base costs. Keeps W."""
    _require_unmerged(model)
    if active_adapter(model) is None:
        raise UsageError("there is no active adapter to merge; see add_adapter, set_adapter")
    for layer in lora_layers(model).values():
        layer.merge()


def unmerge_adapter(model: Module) -> None:
    """Undo merge_adapter, bit for bit. Raises ValueError if nothing is merged."""
    if not _is_merged(model):
        raise UsageError("no adapter is merged, so there is nothing to unmerge")
    for layer in lora_layers(model).values():
        layer.unmerge()


def merge_and_unload(model: Module) -> None:
    """Merge the active adapter for good: a plain model of the base's shape, and no adapters."""
    if not _is_merged(model):
        merge_adapter(model)
    for path, layer in lora_layers(model).items():
        model.set_submodule(path, layer.base)
    adapters(model).clear()
    model.requires_grad_(True)


def get_delta_weight(model: Module, path: str, name: str | None = None) -> np.ndarray:
    """ΔW = s A B (d_in, d_out) of one adapted layer, such as "layers.0.attn.q_proj", for the active
    adapter or a named one. Raises KeyError for a layer that this adapter does not have."""
    name, layers = name or active_adapter(model), lora_layers(model)
    if name is None or path not in layers or name not in layers[path].lora_A:
        raise KeyError(f"adapter {name!r} does not adapt {path!r}; adapted: {', '.join(layers)}")
    return layers[path].delta_weight(name)


def _activate(model: Module, name: str | None) -> None:
    """Let the layers and the copied parameters be those of one adapter, or (None) of the base."""
    for layer in lora_layers(model).values():
        layer.active = name if name in layer.lora_A else None
    for adapter in adapters(model).values():
        for slot in adapter.copies:
            setattr(slot.owner, slot.attribute, slot.original)
    for slot in adapters(model)[name].copies if name else []:
        setattr(slot.owner, slot.attribute, slot.copy)


def _is_merged(model: Module) -> bool:
    return any(layer.unmerged_weight is not None for layer in lora_layers(model).values())


def _require_unmerged(model: Module) -> None:
    if _is_merged(model):
        raise UsageError(
            f"adapter {active_adapter(model)!r} is already merged into the weights; "
            "call unmerge_adapter(model) first"
        )


def _require_adapter(model: Module, name: str) -> None:
    if name not in adapters(model):
        known = ", ".join(adapters(model)) or "none"
        raise UsageError(f"this model has no adapter {name!r}; it has: {known}")
