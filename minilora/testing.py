"""Is a derivative right? Compare it with what moving each input a little does to the output.

f(x + h) - f(x - h), divided by 2h, is the slope up to an error of h² (central differences). The
output is first weighted with random numbers: with all ones, softmax would pass with a backward
that returns zeros, because its outputs always sum to one.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from minilora.system.checks import require_positive
from minilora.system.errors import UsageError
from minilora.tensor import Tensor, grad, no_grad


def gradcheck(
    f: Callable[..., Tensor], *inputs: Tensor, eps: float = 1e-6, tol: float = 1e-6, seed: int = 0
) -> None:
    """Check d f(*inputs) / d input for every trainable float64 input, entry by entry.

    f: returns a Tensor of any shape and must give the same value each time it is called.
    Passes silently if |analytic - numeric| <= tol * max(1, |numeric|) everywhere; otherwise
    raises AssertionError naming the function, the input and the index. UsageError for float32
    inputs, whose rounding hides errors of the size that matters.
    """
    require_positive(eps=eps, tol=tol)
    name = getattr(f, "__name__", type(f).__name__)
    for i, t in enumerate(inputs):
        if not isinstance(t, Tensor):
            raise TypeError(f"input {i} is no Tensor but {type(t).__name__}; bind it in a lambda")
    trainable = [(i, t) for i, t in enumerate(inputs) if t.requires_grad]
    if not trainable:
        raise UsageError("no input has requires_grad=True: there is nothing to check")
    for i, t in trainable:
        if t.dtype != np.float64:
            raise UsageError(f"input {i} is {t.dtype}; pass float64 arrays to gradcheck")
    out = f(*inputs)
    if not isinstance(out, Tensor):
        raise TypeError(f"{name} returned {type(out).__name__}, which has no gradient, no Tensor")
    cotangent = np.random.default_rng(seed).standard_normal(out.shape)
    analytic = grad((out * cotangent).sum(), [t for _, t in trainable])

    def value(t: Tensor, index: tuple[int, ...], x: Any) -> float:
        before, t.data[index] = t.data[index], x
        try:
            with no_grad():
                return float((f(*inputs).data * cotangent).sum())
        finally:
            t.data[index] = before

    for (i, t), exact in zip(trainable, analytic, strict=True):
        for index in np.ndindex(t.shape):
            x = t.data[index]
            numeric = (value(t, index, x + eps) - value(t, index, x - eps)) / (2 * eps)
            if not abs(exact[index] - numeric) <= tol * max(1.0, abs(numeric)):
                raise AssertionError(
                    f"{name}: gradient of input {i} at index {index} is {exact[index]:.8g}, "
                    f"central differences give {numeric:.8g}"
                )
