"""A LoRA out of full fine-tuning: of each matrix the ΔW of rank r that is nearest to its change.

ΔW = W_tuned - W is cut to its r largest singular values (Eckart & Young 1936). Norms, biases and
embeddings are no part of a low-rank adapter; what of them is lost is said in numbers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from minilora.combining.low_rank import best_factors
from minilora.lora import LowRank, adapters, add_adapter, disable_adapter, lora_layers
from minilora.lora_config import DEFAULT, LoraConfig
from minilora.lora_targets import base_modules, check_new_name, find_targets, require_model
from minilora.nn import Module, Parameter
from minilora.system.cores import one_blas_thread
from minilora.system.errors import UsageError


@dataclass(frozen=True)
class Extracted:
    """What an extracted adapter holds of a fine-tuning. `print` says it in two sentences.

    errors: ‖ΔW - s A B‖ / ‖ΔW‖ of each adapted matrix, by path; 0 where nothing changed.
    share: of the squared size of all changes in the model, how much the adapter holds, in [0, 1].
    left_out: the share of each other parameter that changed, largest first, by its name.
    """

    errors: dict[str, float]
    share: float
    left_out: dict[str, float]

    def __str__(self) -> str:
        worst = max(self.errors, key=self.errors.__getitem__)
        said = (
            f"The adapter holds {self.share:.1%} of the squared size of what changed; furthest off "
            f"is {worst}, by {self.errors[worst]:.0%} of its ΔW."
        )
        if not self.left_out:
            return f"{said} Nothing else changed."
        name, share = next(iter(self.left_out.items()))
        others = f" and {len(self.left_out) - 1} more" if len(self.left_out) > 1 else ""
        whole = sum(self.left_out.values())
        return (
            f"{said} Left out, with {whole:.1%}: {name} ({share:.1%}){others}; modules_to_save and "
            "bias can take in norms and biases."
        )


@one_blas_thread()
def extract_adapter(
    base: Module, tuned: Module, config: LoraConfig, name: str = DEFAULT
) -> Extracted:
    """Add to `base` an adapter, active and trainable, that is as near to `tuned` as its rank lets.

    config: of plain LoRA, with the rank r and what to adapt. Its biases and modules_to_save are
    taken over exactly. tuned: the same model after full fine-tuning.
    Raises ValueError, and changes nothing, for two models of different parameters, for a tuned
    model with adapters, and for a configuration that is not plain LoRA or does not fit.
    """
    if isinstance(config, LoraConfig) and config.kind != "lora":
        raise UsageError(
            "extract_adapter makes plain LoRA: no use_dora, and init_lora_weights=True"
        )
    if adapters(require_model(tuned)):
        raise UsageError("the tuned model has adapters: call merge_and_unload(tuned) first")
    with disable_adapter(base):
        targets = find_targets(base, config)
        check_new_name(name, adapters(base))
        before, after = _arrays(base), _arrays(tuned)
    _require_same(before, after)
    changes = {n: float(_squared(after[n] - before[n].astype(np.float64))) for n in before}
    factors, errors = {}, {}
    for path in targets:
        r, s = config.rank_and_scale(path)
        delta = after[f"{path}.weight"].astype(np.float64) - before[f"{path}.weight"]
        U, S, Vt = np.linalg.svd(delta, full_matrices=False)
        A, B, errors[path] = best_factors(U, S, Vt, r, s)
        factors[path] = A, B
    add_adapter(base, config, name, rng=np.random.default_rng(0))
    layers = lora_layers(base)
    for path, (A, B) in factors.items():
        one: LowRank = layers[path].adapters[name]
        one.A.data[...], one.B.data[...] = A, B
    paths = {id(module): path for path, module in base_modules(base).items()}
    held = sum(changes[f"{p}.weight"] * (1 - error**2) for p, error in errors.items())
    rest = {
        n: size for n, size in changes.items() if size and n.removesuffix(".weight") not in errors
    }
    for c in adapters(base)[name].copies:
        own = f"{paths[id(c.owner)]}.{c.attribute}"
        c.copy.data[...] = after[own]
        held += rest.pop(own, 0.0)
    whole = sum(changes.values())
    left_out = {n: size / whole for n, size in sorted(rest.items(), key=lambda one: -one[1])}
    return Extracted(errors, held / whole if whole else 1.0, left_out)


def _arrays(model: Module) -> dict[str, np.ndarray]:
    """Every parameter of the plain model, by its name there."""
    return {
        f"{path}.{attribute}": p.data
        for path, module in base_modules(model).items()
        for attribute, p in vars(module).items()
        if isinstance(p, Parameter)
    }


def _require_same(before: Mapping[str, Any], after: Mapping[str, Any]) -> None:
    for name in {**before, **after}:
        shapes = [getattr(arrays.get(name), "shape", "missing") for arrays in (before, after)]
        if shapes[0] != shapes[1]:
            raise UsageError(
                f"{name} is {shapes[0]} in the base and {shapes[1]} in the tuned model: take the "
                "model that the base became"
            )


def _squared(change: np.ndarray) -> np.ndarray:
    return np.vdot(change, change)
