"""What the engine's tests share: arrays in every memory layout, and one small call of every op.

`leaf` makes inputs whose entries keep away from zero (kinks, poles), `CASES` holds a call of each
public function of ops.py and functional.py, so that a claim about all ops is one test.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from minilora import functional as F
from minilora import ops
from minilora.tensor import Tensor, grad

few = settings(max_examples=25, deadline=None, derandomize=True)
seeds = st.integers(0, 2**16)
shapes = hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=3)
layouts = st.sampled_from(["contiguous", "transposed", "stepped", "reversed"])


def broadcastable(n):
    """n shapes that NumPy broadcasts together: scalars, size-1 and empty axes included."""
    pairs = hnp.mutually_broadcastable_shapes(num_shapes=n, max_dims=3, min_side=0, max_side=3)
    return pairs.map(lambda found: found.input_shapes)


def lay_out(x, layout):
    """The same values as a view that is transposed, skips memory, or runs through it backwards."""
    if layout == "transposed":
        return x.T.copy().T
    if layout == "stepped":
        wide = np.full([2 * n for n in x.shape], np.nan, x.dtype)
        view = wide[(..., *[slice(None, None, 2)] * x.ndim)]
        view[...] = x
        return view
    if layout == "reversed":
        backwards = (..., *[slice(None, None, -1)] * x.ndim)
        return x[backwards].copy()[backwards]
    return x


def leaf(shape, seed=0, *, positive=False, layout="contiguous", dtype=np.float64, train=True):
    """A tensor of this shape with magnitudes between 0.5 and 2."""
    rng = np.random.default_rng(seed)
    x = rng.uniform(0.5, 2, shape) * (1 if positive else rng.choice([-1, 1], shape))
    return Tensor(lay_out(np.asarray(x, dtype), layout), requires_grad=train)


def leaves(*shapes, seed=0, **kwargs):
    return [leaf(shape, seed + i, **kwargs) for i, shape in enumerate(shapes)]


def value_and_grads(f, *inputs, seed=7):
    """f(*inputs) as an array, and the gradients of its sum weighted with random numbers."""
    out = f(*inputs)
    cotangent = np.random.default_rng(seed).standard_normal(out.shape)
    return out.data, grad((out * cotangent).sum(), inputs)


@dataclass(frozen=True)
class Case:
    """f applied to trainable tensors of these shapes."""

    f: Callable[..., Tensor]
    shapes: tuple[tuple[int, ...], ...]
    positive: bool = False

    def inputs(self, **kwargs):
        return leaves(*self.shapes, positive=self.positive, **kwargs)


def lora_linear(x, b, A, B):
    W = leaf((3, 4), 9, dtype=x.dtype, train=False)
    W.data.flags.writeable = False
    return F.lora_linear(x, W, b, A, B, 2.5)


IDS = np.array([[1, 0, 1], [3, 1, 3]])
TARGETS = np.array([[1, -100, 0], [3, 3, -100]])
HALF = np.array([[True, False, True], [False, False, True]])

CASES = {
    "add": Case(ops.add, ((2, 3), (3,))),
    "sub": Case(ops.sub, ((1, 3), (2, 1))),
    "mul": Case(ops.mul, ((3,), (2, 3))),
    "div": Case(ops.div, ((2, 3), ())),
    "neg": Case(ops.neg, ((2, 3),)),
    "power": Case(lambda x: ops.power(x, 3), ((2, 3),)),
    "matmul": Case(ops.matmul, ((2, 2, 3), (3, 4))),
    "exp": Case(ops.exp, ((2, 3),)),
    "log": Case(ops.log, ((2, 3),), positive=True),
    "sqrt": Case(ops.sqrt, ((2, 3),), positive=True),
    "tanh": Case(ops.tanh, ((2, 3),)),
    "tensor_sum": Case(lambda x: ops.tensor_sum(x, axis=-1), ((2, 3),)),
    "mean": Case(lambda x: ops.mean(x, axis=(0, -1)), ((2, 2, 3),)),
    "tensor_max": Case(lambda x: ops.tensor_max(x, axis=1), ((2, 3),)),
    "reshape": Case(lambda x: ops.reshape(x, 3, -1), ((2, 3),)),
    "swapaxes": Case(lambda x: ops.swapaxes(x, 0, -1), ((2, 1, 3),)),
    "getitem": Case(
        lambda x: ops.getitem(x, (np.array([0, 1, 1]), slice(None, None, -1))), ((2, 3),)
    ),
    "concatenate": Case(lambda a, b: ops.concatenate([a, b], axis=1), ((2, 3), (2, 1))),
    "where": Case(lambda a, b: ops.where(HALF, a, b), ((2, 3), (3,))),
    "linear": Case(F.linear, ((2, 2, 3), (3, 4), (4,))),
    "lora_linear": Case(lora_linear, ((2, 2, 3), (4,), (3, 2), (2, 4))),
    "embedding": Case(lambda W: F.embedding(W, IDS), ((4, 3),)),
    "layer_norm": Case(F.layer_norm, ((2, 2, 4), (4,), (4,))),
    "rms_norm": Case(F.rms_norm, ((2, 2, 4), (4,))),
    "gelu": Case(F.gelu, ((2, 3),)),
    "silu": Case(F.silu, ((2, 3),)),
    "softmax": Case(F.softmax, ((2, 3),)),
    "cross_entropy": Case(lambda x: F.cross_entropy(x, TARGETS), ((2, 3, 4),)),
    "dropout": Case(lambda x: F.dropout(x, 0.4, np.random.default_rng(3)), ((3, 4),)),
    "rope": Case(lambda x: F.rope(x, 2, start=3), ((2, 3, 8),)),
    "attention": Case(
        lambda q, k, v: F.attention(q, k, v, 4, 2), ((2, 2, 8), (2, 3, 4), (2, 3, 4))
    ),
}
