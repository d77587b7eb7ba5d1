"""From gradients to new weights: SGD, AdamW, the learning-rate schedule, gradient clipping.

AdamW keeps two running averages (moments) for every trained number, and this is where full
fine-tuning pays: its state is twice the size of what it trains. LoRA trains a few per cent of the
numbers and keeps moments for those alone.
Sources: Kingma & Ba 2015 (Adam), Loshchilov & Hutter 2019 (decoupled weight decay), 2017 (cosine).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from minilora.system.checks import require_between, require_positive, require_whole
from minilora.system.errors import StateError, UsageError
from minilora.tensor import Tensor

_BELOW_1 = math.nextafter(1, 0)
# AdamW updates so many numbers at a time, which stay in the cache from one operation to the next.
_BLOCK = 2**17


class SGD:
    """v = momentum · v + g;  p = p - lr · v.   Without momentum there is no state at all.

    params: trainable parameters; one that is given twice counts once. Raises ValueError for frozen
    parameters or none at all, and for numbers that make no sense.
    """

    def __init__(self, params: Iterable[Tensor], lr: float, momentum: float = 0.0) -> None:
        require_positive(lr=lr)
        require_between(0, _BELOW_1, momentum=momentum)
        self.params, self.lr, self.momentum = _trainable(params), lr, momentum
        self.velocity = [np.zeros_like(p.data) for p in self.params] if momentum else []

    @property
    def state_bytes(self) -> int:
        """Bytes of the velocities."""
        return sum(v.nbytes for v in self.velocity)

    def step(self) -> None:
        """Update every parameter. Raises RuntimeError for one without a gradient."""
        _check_rate(self.lr)
        gradients = [_gradient(p) for p in self.params]
        for i, (p, g) in enumerate(zip(self.params, gradients, strict=True)):
            if self.momentum:
                self.velocity[i] *= self.momentum
                self.velocity[i] += g
                g = self.velocity[i]
            p.data -= self.lr * g

    def zero_grad(self) -> None:
        """Forget the gradients."""
        for p in self.params:
            p.grad = None


class AdamW:
    """m = β₁ m + (1-β₁) g;  v = β₂ v + (1-β₂) g²;  p = (1 - lr·decay) p - lr · m̂ / (√v̂ + eps)

    with m̂ = m / (1-β₁ᵗ), v̂ = v / (1-β₂ᵗ). Only matrices decay, not biases or norms' weights.

    All parameters become views into one array, so that a step is a dozen operations on long blocks
    of it, in place, whatever the number of parameters: LoRA has many small ones. So the optimizer
    is bound to these arrays: after a parameter was given another one, `step` raises.

    params: trainable parameters of one dtype; one that is given twice counts once. lr_factors, one
    for each parameter, multiply lr (LoRA+). Raises ValueError for frozen parameters or none at all,
    and for numbers that make no sense.
    """

    def __init__(
        self,
        params: Iterable[Tensor],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.01,
        lr_factors: Sequence[float] | None = None,
    ) -> None:
        require_positive(lr=lr, eps=eps)
        check_adam(betas, weight_decay)
        distinct = _trainable(params)
        factors = [1.0] * len(distinct) if lr_factors is None else list(lr_factors)
        if len(factors) != len(distinct):
            raise UsageError(f"lr_factors are {len(factors)} for {len(distinct)} parameters")
        require_positive(**{f"lr_factors[{i}]": factor for i, factor in enumerate(factors)})
        dtypes = sorted({str(p.data.dtype) for p in distinct})
        if len(dtypes) > 1:
            raise UsageError(
                f"the optimizer's parameters mix {' and '.join(dtypes)}; use model.to(dtype)"
            )
        pairs = sorted(zip(distinct, factors, strict=True), key=lambda pair: pair[0].ndim < 2)
        self.params = [p for p, _ in pairs]  # matrices first
        self.lr, self.betas, self.eps, self.weight_decay = lr, betas, eps, weight_decay
        self.t = 0
        self.flat = np.concatenate([p.data.ravel() for p in self.params])
        self.m, self.v = np.zeros_like(self.flat), np.zeros_like(self.flat)
        self._factors = None
        if lr_factors is not None:
            sizes = [p.size for p in self.params]
            self._factors = np.repeat([f for _, f in pairs], sizes).astype(self.flat.dtype)
        self._decaying = sum(p.size for p in self.params if p.ndim >= 2)
        ends = np.cumsum([p.size for p in self.params])
        for p, end in zip(self.params, ends, strict=True):
            p.data = self.flat[end - p.size : end].reshape(p.shape)
        self._views = [p.data for p in self.params]

    @property
    def state_bytes(self) -> int:
        """Bytes of the two moments."""
        return self.m.nbytes + self.v.nbytes

    def step(self) -> None:
        """Update every parameter. Raises RuntimeError for one without a gradient, and for one whose
        array was replaced after this optimizer was made; then none has changed."""
        _check_rate(self.lr)
        for p, view in zip(self.params, self._views, strict=True):
            if p.data is not view:
                raise StateError(
                    f"a parameter of shape {p.shape} was given a new array after the optimizer was "
                    "made (by another optimizer, model.to or p.data = ...), so a step would not "
                    "reach it: make the optimizer, or the Training, anew"
                )
        gradients = [_gradient(p).ravel() for p in self.params]
        self.t += 1
        start = 0
        for g in _in_blocks(gradients):
            self._update(slice(start, start + g.size), g)
            start += g.size
        self._note_change()

    def _update(self, block: slice, g: np.ndarray) -> None:
        (beta1, beta2), p, m, v = self.betas, self.flat[block], self.m[block], self.v[block]
        if self.weight_decay:
            p[: max(0, self._decaying - block.start)] *= 1 - self.lr * self.weight_decay
        step = (1 - beta1) * g
        m *= beta1
        m += step
        v *= beta2
        np.multiply(g, g, out=step)
        step *= 1 - beta2
        v += step
        np.sqrt(v, out=step)
        step *= 1 / math.sqrt(1 - beta2**self.t)
        step += self.eps
        np.divide(m, step, out=step)
        step *= self.lr / (1 - beta1**self.t)
        if self._factors is not None:
            step *= self._factors[block]
        p -= step

    def zero_grad(self) -> None:
        """Forget the gradients."""
        for p in self.params:
            p.grad = None

    def state(self) -> dict[str, np.ndarray]:
        """All that a later step depends on: parameters, moments and the count of steps."""
        return {"flat": self.flat, "m": self.m, "v": self.v, "t": np.array(self.t)}

    def load_state(self, state: Mapping[str, np.ndarray]) -> None:
        """Go on from a state() of an optimizer of the same parameters; all or nothing.

        Raises ValueError, and changes nothing, if the arrays are not of these parameters or not
        finite.
        """
        own = self.state()
        if state.keys() != own.keys():
            raise UsageError(
                f"this is no state of AdamW: it has {', '.join(sorted(state))}, "
                f"not {', '.join(sorted(own))}"
            )
        for key, mine in own.items():
            found = state[key]
            if (found.shape, found.dtype) != (mine.shape, mine.dtype):
                raise UsageError(
                    f"{key} is {found.dtype} {found.shape} where these parameters need "
                    f"{mine.dtype} {mine.shape}"
                )
            if not np.isfinite(found).all() or (key in ("v", "t") and (found < 0).any()):
                raise UsageError(f"{key} has numbers that no step leaves behind")
        self.flat[:], self.m[:], self.v[:] = state["flat"], state["m"], state["v"]
        self.t = int(state["t"])
        self._note_change()

    def _note_change(self) -> None:
        """Tell the engine, which does not see `flat`, that losses computed before are outdated."""
        for p in self.params:
            p.version += 1


def warmup_cosine(step: int, steps: int, warmup: int = 20, final: float = 0.1) -> float:
    """The factor of the learning rate at a step: min(1, (step + 1) / warmup), times half a cosine
    over all steps from 1 down to `final`.

    Where steps is not much more than warmup, the product stays well below 1. Raises ValueError
    unless 0 <= step <= steps, 1 <= steps, 0 <= warmup and 0 <= final <= 1.
    """
    require_whole(0, step=step, warmup=warmup)
    require_whole(max(step, 1), steps=steps)
    require_between(0, 1, final=final)
    cosine = 0.5 * (1 + math.cos(math.pi * step / steps))
    return min(1.0, (step + 1) / max(warmup, 1)) * (cosine * (1 - final) + final)


def clip_grad_norm(params: Iterable[Tensor] | Tensor, max_norm: float) -> float:
    """Scale all gradients together so that their joint length is at most `max_norm`; returns the
    length before (Pascanu et al. 2013).

    Parameters without a gradient are passed over; math.inf only measures. Raises ValueError unless
    max_norm is positive.
    """
    if max_norm != math.inf:
        require_positive(max_norm=max_norm)
    given = [params] if isinstance(params, Tensor) else params
    trained = [p for p in _distinct(given) if p.grad is not None]
    grads = [p.grad.ravel() for p in trained if p.grad is not None]
    # np.vdot makes no array of the squares.
    norm = math.sqrt(sum(float(np.vdot(g, g)) for g in grads))
    if norm > max_norm:
        scale = max_norm / (norm + 1e-6)
        for p, g in zip(trained, grads, strict=True):
            # A new array: this one may be another parameter's too.
            p.grad = (g * scale).reshape(p.shape)
    return norm


def check_adam(betas: Any, weight_decay: Any) -> None:
    """Raise ValueError unless betas are two numbers in [0, 1) and weight_decay is at least 0."""
    if not isinstance(betas, Sequence) or len(betas) != 2:
        raise UsageError(f"betas must be two numbers, such as (0.9, 0.999), got {betas!r}")
    require_between(0, _BELOW_1, **{"betas[0]": betas[0], "betas[1]": betas[1]})
    require_between(0, math.inf, weight_decay=weight_decay)


def _distinct(params: Any) -> list[Tensor]:
    """The parameters in their order, each once. Raises ValueError for anything else."""
    wanted = "params must be parameters, such as model.trainable_parameters()"
    if isinstance(params, Tensor) or not isinstance(params, Iterable):
        raise UsageError(f"{wanted}, got one {type(params).__name__}")
    distinct = {id(p): p for p in params}
    for p in distinct.values():
        if not isinstance(p, Tensor):
            raise UsageError(f"{wanted}, got a {type(p).__name__} among them")
    return list(distinct.values())


def _trainable(params: Any) -> list[Tensor]:
    distinct = _distinct(params)
    if not distinct:
        raise UsageError("the optimizer was given no parameters: is everything frozen?")
    frozen = sum(not p.requires_grad for p in distinct)
    if frozen:
        raise UsageError(
            f"{frozen} of the optimizer's {len(distinct)} parameters are frozen; "
            "pass model.trainable_parameters()"
        )
    computed = [p for p in distinct if p.node is not None]
    if computed:
        raise UsageError(
            f"a Tensor of shape {computed[0].shape} is computed from others: optimizers change "
            "only parameters, from which the rest is computed anew"
        )
    return distinct


def _in_blocks(gradients: Sequence[np.ndarray]) -> Iterator[np.ndarray]:
    """The numbers of arrays (n,) in their order, small arrays joined and large ones cut."""
    waiting, size = [], 0
    for i, g in enumerate(gradients, start=1):
        waiting.append(g)
        size += g.size
        if size >= _BLOCK or i == len(gradients):
            joined = g if len(waiting) == 1 else np.concatenate(waiting)
            for start in range(0, size, _BLOCK):
                yield joined[start : start + _BLOCK]
            waiting, size = [], 0


def _check_rate(lr: float) -> None:
    if not 0 <= lr < math.inf:
        raise UsageError(f"the optimizer's lr was set to {lr}; it must be finite and at least 0")


def _gradient(p: Tensor) -> np.ndarray:
    g = p.grad
    if g is None:
        raise StateError(
            f"a parameter of shape {p.shape} has no gradient: call loss.backward() before step(), "
            "and check that the loss depends on every trained parameter"
            + ("" if p.requires_grad else "; it was frozen after the optimizer was made")
        )
    if g.shape != p.data.shape:
        raise StateError(f"a parameter of shape {p.shape} was given a gradient of shape {g.shape}")
    return g
