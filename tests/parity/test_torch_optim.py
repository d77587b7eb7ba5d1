"""The optimizers give what PyTorch's give: on a small problem, with schedule and clipping.

The same two-layer network is trained in both, each with its own gradients.
"""

import math

import numpy as np
import pytest

from minilora import ops
from minilora.optim import SGD, AdamW, clip_grad_norm, warmup_cosine
from minilora.tensor import Tensor

pytestmark = [pytest.mark.parity, pytest.mark.filterwarnings("ignore")]
torch = pytest.importorskip("torch")

STEPS = 100
SHAPES = [(4, 8), (8,), (8, 3), (3,)]  # W1, b1, W2, b2
TOLERANCE = {np.float32: dict(rtol=1e-3, atol=1e-5), np.float64: dict(rtol=1e-9, atol=1e-12)}
DTYPES = pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=["float32", "float64"])


def problem(dtype):
    rng = np.random.default_rng(0)
    weights = [rng.standard_normal(shape).astype(dtype) for shape in SHAPES]
    x, y = rng.standard_normal((16, 4)).astype(dtype), rng.standard_normal((16, 3)).astype(dtype)
    return weights, x, y


def ours(dtype, make_optimizer, max_norm, rate):
    weights, x, y = problem(dtype)
    params = [Tensor(w.copy(), requires_grad=True) for w in weights]
    optimizer = make_optimizer(params)
    norms, path = [], []
    for step in range(STEPS):
        W1, b1, W2, b2 = params
        error = ops.tanh(Tensor(x) @ W1 + b1) @ W2 + b2 - Tensor(y)
        optimizer.zero_grad()
        (error * error).sum().backward()
        norms.append(clip_grad_norm(params, max_norm))
        optimizer.lr = rate(step)
        optimizer.step()
        path.append([p.data.copy() for p in params])
    return norms, path


def theirs(dtype, make_optimizer, max_norm, rate):
    weights, x, y = problem(dtype)
    params = [torch.nn.Parameter(torch.tensor(w)) for w in weights]
    optimizer = make_optimizer(params)
    norms, path = [], []
    for step in range(STEPS):
        W1, b1, W2, b2 = params
        error = torch.tanh(torch.tensor(x) @ W1 + b1) @ W2 + b2 - torch.tensor(y)
        optimizer.zero_grad()
        (error * error).sum().backward()
        norms.append(torch.nn.utils.clip_grad_norm_(params, max_norm).item())
        for group in optimizer.param_groups:
            group["lr"] = rate(step)
        optimizer.step()
        path.append([p.detach().numpy().copy() for p in params])
    return norms, path


def assert_same(found, expected, dtype):
    np.testing.assert_allclose(found[0], expected[0], **TOLERANCE[dtype], err_msg="norms")
    for step, (a, b) in enumerate(zip(found[1], expected[1], strict=True)):
        for i in range(len(SHAPES)):
            np.testing.assert_allclose(
                a[i], b[i], **TOLERANCE[dtype], err_msg=f"step {step}, parameter {i}"
            )


@DTYPES
def test_adamw_with_schedule_and_clipping_is_pytorchs(dtype):
    def rate(step):  # written out; test_optim.py holds warmup_cosine against numbers
        cosine = (1 + math.cos(math.pi * step / STEPS)) / 2
        return 0.03 * min(1, (step + 1) / 10) * (0.1 + 0.9 * cosine)

    def with_decay_for_matrices(params):
        groups = [
            dict(params=[p for p in params if p.ndim >= 2], weight_decay=0.2),
            dict(params=[p for p in params if p.ndim < 2], weight_decay=0.0),
        ]
        return torch.optim.AdamW(groups, lr=1.0, betas=(0.9, 0.99), eps=1e-8)

    expected = theirs(dtype, with_decay_for_matrices, 5.0, rate)
    assert min(expected[0]) < 5 < max(expected[0])  # clipped at some steps, not at others
    found = ours(
        dtype,
        lambda params: AdamW(params, 1.0, (0.9, 0.99), weight_decay=0.2),
        5.0,
        lambda step: 0.03 * warmup_cosine(step, STEPS, warmup=10),
    )
    assert_same(found, expected, dtype)


@DTYPES
@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_sgd_is_pytorchs(dtype, momentum):
    expected = theirs(
        dtype, lambda p: torch.optim.SGD(p, 0.01, momentum=momentum), 5.0, lambda step: 0.01
    )
    found = ours(dtype, lambda p: SGD(p, 0.01, momentum), 5.0, lambda step: 0.01)
    assert_same(found, expected, dtype)
