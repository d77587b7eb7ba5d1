"""One batch in which each row has an adapter of its own: x W once for all, then each its own part.

The base's product, the costly one, reads W once however many adapters there are. Then the rows of
one adapter together get s (x A) B, and with DoRA the lengths of their columns. Source: Chen et al.
2023 (Punica) and Sheng et al. 2023 (S-LoRA), who do this for thousands of adapters on a GPU.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np

from minilora.lora import LoraLinear, adapters, disable_adapter, lora_layers
from minilora.nn import Module, Rng
from minilora.ops import as_tensor
from minilora.system.errors import StateError, UsageError
from minilora.tensor import Tensor, needs_grad


class Part(NamedTuple):
    """What some rows get: y = (x W + (x A) B) stretch + b."""

    rows: np.ndarray  # their numbers
    A: np.ndarray  # (d_in, r)
    B: np.ndarray  # (r, d_out), times s
    stretch: np.ndarray | None  # of DoRA, m / ‖W + s A B‖ (d_out,)


class RowsLinear(Module):
    """A LoraLinear, as its `base`, in which each row of the batch has an adapter of its own."""

    def __init__(self, base: LoraLinear, names: Sequence[str | None]) -> None:
        self.base, self.batch = base, len(names)
        self.parts = [
            _part(base, name, np.flatnonzero([one == name for one in names]))
            for name in dict.fromkeys(names)
            if name in base.adapters
        ]

    def __call__(self, x: Tensor, rng: Rng | None = None) -> Tensor:
        """x (rows, ..., d_in) -> (rows, ..., d_out)"""
        W, b = self.base.base.weight, self.base.base.bias
        x = as_tensor(x, W)
        if rng is not None or needs_grad(x):
            raise StateError("adapters_per_row is for using a model: train one adapter at a time")
        if len(x.data) != self.batch:
            raise UsageError(
                f"adapters_per_row was given {self.batch} names, and this batch has {len(x.data)} "
                "rows: name one adapter, or None, for each"
            )
        y = x.data.reshape(-1, W.shape[0]) @ W.data  # all rows in one product
        y = y.reshape(*x.shape[:-1], y.shape[-1])
        for rows, A, B, stretch in self.parts:
            own = y[rows] + (x.data[rows] @ A) @ B
            y[rows] = own if stretch is None else own * stretch
        if b is not None:
            y += b.data
        return Tensor(y)


def _part(layer: LoraLinear, name: str, rows: np.ndarray) -> Part:
    one, W = layer.adapters[name], layer.base.weight.data
    plain = one.factors(W)
    A, B, stretch = plain["A"], plain["B"] * one.s, None
    if "m" in plain:
        stretch = plain["m"] / np.linalg.norm(W + A @ B, axis=0)
    return Part(rows, A, B, stretch)


@contextmanager
def adapters_per_row(model: Module, names: Sequence[str | None]) -> Iterator[None]:
    """Within it, row i of every batch has the adapter names[i], or None for the base alone:

        with ml.adapters_per_row(model, ["a", "b", None, "a"]):
            logits = model(ids)      # ids (4, T)

    For using the model, with generate too, not for training. Up to rounding each row is what it is
    in a run of its own. Raises ValueError for a batch of another number of rows, for a name that
    the model does not have, while an adapter is merged, and for an adapter that trains biases or
    whole modules, which all rows share.
    """
    with disable_adapter(model):
        _check_names(model, names)
        places = {
            path: module for path, module in model.named_modules() if isinstance(module, LoraLinear)
        }
        rows = {path: RowsLinear(layer, names) for path, layer in places.items()}
        try:
            model.set_submodules(rows)
            yield
        finally:
            model.set_submodules(places)


def _check_names(model: Module, names: Sequence[str | None]) -> None:
    known = list(adapters(model))
    if isinstance(names, str) or not isinstance(names, Sequence) or not names:
        raise UsageError(
            f'names is a list such as ["a", None], one for each row, got {names!r}; this model '
            f"has: {', '.join(known) or 'no adapter'}"
        )
    if any(isinstance(module, RowsLinear) for _, module in model.named_modules()):
        raise StateError("each row has an adapter already: leave that adapters_per_row first")
    for name in dict.fromkeys(names):
        if name is None:
            continue
        if name not in known:
            raise UsageError(f"this model has no adapter {name!r}; it has: {', '.join(known)}")
        if adapters(model)[name].copies:
            raise UsageError(
                f"adapter {name!r} trains biases or whole modules (bias, modules_to_save), which "
                "all rows of a batch share: only A and B can be another in each row"
            )
    if not lora_layers(model):
        raise UsageError("no layer of this model is adapted; see add_adapter")
