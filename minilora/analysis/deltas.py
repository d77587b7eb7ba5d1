"""What training did to the weights: ΔW of any method, matrix by matrix."""

from __future__ import annotations

import numpy as np

from minilora.lora import lora_layers
from minilora.lora_targets import base_modules
from minilora.nn import Linear, Module
from minilora.system.errors import UsageError


def weight_matrices(model: Module) -> dict[str, np.ndarray]:
    """The weight (d_in, d_out) that each Linear of the blocks has in effect, in float64, by path.

    An active adapter counts, merged or not: W + ΔW. Paths are those of the plain model, such as
    "layers.0.attn.q_proj", whatever wraps the Linear as its `base`. Left out are the embeddings,
    the head, and what a wrapper does beside its base, as a bottleneck adapter or IA³ does.
    """
    found, adapted = {}, lora_layers(model)
    for path, module in base_modules(model).items():
        if isinstance(module, Linear) and path.startswith("layers."):
            found[path] = module.weight.data.astype(np.float64)
            layer = adapted.get(path)
            if layer is not None and layer.active and layer.unmerged_weight is None:
                found[path] += layer.delta_weight(layer.active)
    return found


def delta_weights(before: Module, after: Module) -> dict[str, np.ndarray]:
    """ΔW = W_after - W_before (d_in, d_out) of each Linear of the blocks, by path.

    Works for whatever the training method was. Raises ValueError, which names the matrices, if the
    two models do not have the same ones.
    """
    old, new = weight_matrices(before), weight_matrices(after)
    shapes = {p: [getattr(m.get(p), "shape", "missing") for m in (old, new)] for p in old | new}
    wrong = [f"{p} is {a} before and {b} after" for p, (a, b) in shapes.items() if a != b]
    if wrong:
        raise UsageError("compare two models of the same architecture: " + "; ".join(wrong))
    return {path: new[path] - old[path] for path in old}
