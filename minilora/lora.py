"""LoRA, low-rank adaptation (Hu et al. 2021): y = x (W + s A B) + b with W frozen.

Only A and B train: r (d_in + d_out) numbers instead of d_in · d_out. A (d_in, r) starts random
and B (r, d_out) at zero, so the adapted model starts exactly at the base; s = lora_alpha / r.
After training ΔW = s A B is merged into W, or kept beside it and swapped for another. LoRA
wraps: `attn.q_proj` becomes a LoraLinear that holds the frozen Linear. Names are PEFT's. The
paper multiplies columns, W x + s B A x: its A and B are ours transposed.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np

from minilora import functional as F
from minilora import lora_targets
from minilora.lora_config import DEFAULT, LoraConfig
from minilora.lora_init import initial_factors
from minilora.lora_targets import Adapter, plain_path, require_model
from minilora.nn import Linear, Module, Parameter, Rng
from minilora.ops import as_tensor
from minilora.system.errors import UsageError
from minilora.tensor import Tensor


class LowRank(Module):
    """One adapter of one Linear: ΔW = s A B.   A (d_in, r), B (r, d_out)"""

    def __init__(self, A: np.ndarray, B: np.ndarray, s: float, dropout: float = 0.0) -> None:
        self.A, self.B, self.s, self.dropout = Parameter(A), Parameter(B), s, dropout

    def __call__(self, x: Tensor, W: Tensor, b: Tensor | None, rng: Rng | None) -> Tensor:
        """x W + b + s (x A) B.   x (..., d_in) -> (..., d_out)"""
        if rng is None or self.dropout == 0:
            return F.lora_linear(x, W, b, self.A, self.B, self.s)
        x_A = F.dropout(x, self.dropout, rng) @ self.A  # (..., r)
        return F.linear(x, W, b) + self.s * (x_A @ self.B)

    def delta(self, W: np.ndarray) -> np.ndarray:
        """ΔW (d_in, d_out): what W becomes, minus W. Lies in memory as W does."""
        return np.matmul(self.A.data, self.B.data, out=np.empty_like(W)) * self.s

    def start(self, W: np.ndarray) -> None:
        """What other kinds of adapter (methods/variants.py) take from W when added."""

    def factors(self, W: np.ndarray) -> dict[str, np.ndarray]:
        """The arrays of the plain adapter of W that gives the same ΔW, as PEFT stores it."""
        return {name: p.data for name, p in self.named_parameters()}


class LoraLinear(Module):
    """A frozen Linear with low-rank adapters beside it, of which at most one is active."""

    one_line = True

    def __init__(self, base: Linear) -> None:
        self.adapters: dict[str, LowRank] = {}
        self.base = base
        self.active: str | None = None
        self.unmerged_weight: np.ndarray | None = None  # W as it was before merging

    def __call__(self, x: Tensor, rng: Rng | None = None) -> Tensor:
        """x (..., d_in) -> (..., d_out). rng draws dropout; None switches it off."""
        if self.active is None or self.unmerged_weight is not None:
            return self.base(x, rng)
        W, b = self.base.weight, self.base.bias
        return self.adapters[self.active](as_tensor(x, W), W, b, rng)

    def describe(self) -> str:
        line = "LoraLinear({} -> {}".format(*self.base.weight.shape)
        for name, adapter in self.adapters.items():
            line += f", {name}: r={len(adapter.B.data)}, s={adapter.s:g}"
            line += ", active" if name == self.active else ""
        return line + ")"

    def delta_weight(self, name: str) -> np.ndarray:
        """ΔW (d_in, d_out) of an adapter, merged or not."""
        return self.adapters[name].delta(self.original_weight())

    def original_weight(self) -> np.ndarray:
        """W (d_in, d_out) of the base, also while an adapter is merged."""
        return self.base.weight.data if self.unmerged_weight is None else self.unmerged_weight


KINDS: dict[str, type[LowRank]] = {"lora": LowRank}  # by LoraConfig.kind; variants.py has more


def adapters(model: Module) -> dict[str, Adapter]:
    """The model's adapters by name; empty for a model without any."""
    return vars(model).get("lora_adapters", {})


def lora_layers(model: Module) -> dict[str, LoraLinear]:
    """Every adapted layer, by its path in the plain model."""
    modules = require_model(model).named_modules()
    return {plain_path(path): m for path, m in modules if isinstance(m, LoraLinear)}


def active_adapter(model: Module) -> str | None:
    """The name of the adapter in use, or None."""
    return next((m.active for m in lora_layers(model).values() if m.active), None)


def add_adapter(model: Module, config: LoraConfig, name: str = DEFAULT, *, rng: Rng) -> None:
    """Freeze the model, adapt every targeted Linear, and make the new adapter the active one.

    rng draws A. Raises ValueError, and changes nothing, for targets that match nothing, a rank
    too large, a tied embedding, a name already taken, or while an adapter is merged.
    """
    _require_unmerged(model)
    lora_targets.check_new_name(name, adapters(model))
    targets = lora_targets.find_targets(model, config)
    with disable_adapter(model):  # so that what is copied is the base's own
        copies = lora_targets.parameters_to_copy(model, config, targets)
    new = {}
    for path, linear in targets.items():
        W, (r, s) = linear.weight.data, config.rank_and_scale(path)
        A, B = initial_factors(W, r, s, config.init_lora_weights, rng)
        new[path] = KINDS[config.kind](A, B, s, config.lora_dropout)
        new[path].start(W)
    places, layers = {id(m): path for path, m in model.named_modules()}, lora_layers(model)
    wrapped = {p: LoraLinear(linear) for p, linear in targets.items() if p not in layers}
    model.set_submodules({places[id(layer.base)]: layer for layer in wrapped.values()})
    for path, layer in (layers | wrapped).items():
        if path in new:
            layer.adapters[name] = new[path]
    vars(model).setdefault("lora_adapters", {})[name] = Adapter(config, copies)
    set_adapter(model, name)


def set_adapter(model: Module, name: str) -> None:
    """Use, and train, this adapter and no other."""
    _require_unmerged(model)
    _require_adapter(model, name)
    model.requires_grad_(False)  # before copies take the place of the base's own
    _activate(model, name)
    for layer in lora_layers(model).values():
        if layer.active:
            layer.adapters[name].requires_grad_(True)
    for copied in adapters(model)[name].copies:
        copied.copy.requires_grad = True


def delete_adapter(model: Module, name: str) -> None:
    """Forget an adapter. With the last one gone the model is the plain base, all trainable."""
    _require_unmerged(model)
    _require_adapter(model, name)
    if active_adapter(model) == name:
        _activate(model, None)
    del adapters(model)[name]
    for layer in lora_layers(model).values():
        if name in layer.adapters:
            del layer.adapters[name]
    _unwrap(model)


@contextmanager
def disable_adapter(model: Module) -> Iterator[None]:
    """Within it (`with disable_adapter(model): ...`) the model is exactly its base."""
    _require_unmerged(model)
    name = active_adapter(model)
    _activate(model, None)
    try:
        yield
    finally:
        if name in adapters(model) and active_adapter(model) is None:
            _activate(model, name)


def merge_adapter(model: Module) -> None:
    """W += s A B in every adapted layer: inference then costs what the base costs. Keeps W."""
    _require_unmerged(model)
    if active_adapter(model) is None:
        raise UsageError("there is no active adapter to merge; see add_adapter, set_adapter")
    for layer in lora_layers(model).values():
        if layer.active is not None:
            W, delta = layer.base.weight.data, layer.delta_weight(layer.active)
            layer.base.weight.data, layer.unmerged_weight = W + delta, W


def unmerge_adapter(model: Module) -> None:
    """Undo merge_adapter, bit for bit: W is put back, as subtracting ΔW would leave rounding
    errors. Raises ValueError if nothing is merged."""
    if not _is_merged(model):
        raise UsageError("no adapter is merged, so there is nothing to unmerge")
    for layer in lora_layers(model).values():
        if layer.unmerged_weight is not None:
            layer.base.weight.data, layer.unmerged_weight = layer.unmerged_weight, None


def merge_and_unload(model: Module) -> None:
    """Merge the active adapter for good: a plain model of the base's shape, no adapters."""
    if not _is_merged(model):
        merge_adapter(model)
    adapters(model).clear()
    for layer in lora_layers(model).values():
        layer.adapters.clear()
    _unwrap(model)


def get_delta_weight(model: Module, path: str, name: str | None = None) -> np.ndarray:
    """ΔW = s A B (d_in, d_out) of one adapted layer, such as "layers.0.attn.q_proj", for the
    active adapter or a named one. Raises KeyError for a layer this adapter does not have."""
    name, layers = name or active_adapter(model), lora_layers(model)
    if name is None or path not in layers or name not in layers[path].adapters:
        known = ", ".join(layers)
        raise KeyError(f"adapter {name!r} does not adapt {path!r}; adapted: {known}")
    return layers[path].delta_weight(name)


def _activate(model: Module, name: str | None) -> None:
    """Let layers and copied parameters be those of one adapter, or (None) of the base."""
    for layer in lora_layers(model).values():
        layer.active = name if name in layer.adapters else None
    for adapter in adapters(model).values():
        adapter.put(use_copies=False)
    if name is not None:
        adapters(model)[name].put(use_copies=True)


def _unwrap(model: Module) -> None:
    """Put the Linear back where no adapter is left; with none anywhere, let all train."""
    layers = {path: m for path, m in model.named_modules() if isinstance(m, LoraLinear)}
    model.set_submodules({path: m.base for path, m in layers.items() if not m.adapters})
    if not adapters(model):
        model.requires_grad_(True)


def _is_merged(model: Module) -> bool:
    return any(layer.unmerged_weight is not None for layer in lora_layers(model).values())


def _require_unmerged(model: Module) -> None:
    if _is_merged(model):
        name = active_adapter(model)
        what = f"adapter {name!r} is already merged"
        raise UsageError(f"{what}: call unmerge_adapter(model) first")


def _require_adapter(model: Module, name: str) -> None:
    if not isinstance(name, str) or name not in adapters(model):
        known = ", ".join(adapters(model)) or "none"
        raise UsageError(f"this model has no adapter {name!r}; it has: {known}")
