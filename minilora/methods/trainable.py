"""What trains in a model: how many numbers, and the arrays of an adapter.

count_parameters and print_trainable_parameters say what PEFT says; lora_state_dict is loralib's.
"""

from __future__ import annotations

import numpy as np

from minilora.lora import active_adapter, adapters, lora_layers
from minilora.lora_targets import base_modules
from minilora.nn import Module
from minilora.system.errors import UsageError


def count_parameters(model: Module) -> tuple[int, int]:
    """(how many numbers train, how many there are). One shared by several modules counts once."""
    trainable, every = model.trainable_parameters(), model.parameters()
    return sum(p.size for p in trainable), sum(p.size for p in every)


def print_trainable_parameters(model: Module) -> None:
    """Print count_parameters in PEFT's words. Raises ValueError for a model without parameters."""
    trainable, total = count_parameters(model)
    if total == 0:
        raise UsageError("this model has no parameters to count")
    share = f"trainable%: {100 * trainable / total:.4f}"
    print(f"trainable params: {trainable:,} || all params: {total:,} || {share}")


def lora_state_dict(model: Module, name: str | None = None) -> dict[str, np.ndarray]:
    """A copy of all that the active (or the named) adapter trains, by paths of the plain model.

    "layers.0.attn.q_proj.A" (d_in, r) and "....B" (r, d_out), with DoRA also "....m" (d_out,), and
    biases and modules_to_save under their own names, such as "norm.weight". Raises ValueError for
    an adapter that the model does not have.
    """
    name = active_adapter(model) if name is None else name
    if name not in adapters(model):
        known = ", ".join(adapters(model)) or "none (see add_adapter)"
        raise UsageError(f"this model has no adapter {name!r} in use; it has: {known}")
    state = {
        f"{path}.{part}": p.data.copy()
        for path, layer in lora_layers(model).items()
        if name in layer.adapters
        for part, p in layer.adapters[name].named_parameters()
    }
    paths = {id(module): path for path, module in base_modules(model).items()}
    for copied in adapters(model)[name].copies:
        state[f"{paths[id(copied.owner)]}.{copied.attribute}"] = copied.copy.data.copy()
    return state
