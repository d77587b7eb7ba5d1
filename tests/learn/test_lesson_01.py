"""Claims about what lesson 01 says in words: what a backward pass costs, how far descent gets."""

import numpy as np
import pytest
from test_lessons import committed, text_of

import minilora as ml
from minilora.analysis.profiler import profile

TEXT = " ".join(text_of(committed("01_autograd_from_scratch")).split())


def products(lora: bool) -> tuple[int, int]:
    """Operations in matrix products of a step of docs-tiny: (forward, backward)."""
    model = ml.load_model("docs-tiny")
    if lora:
        config = ml.LoraConfig(r=4, lora_alpha=8, target_modules="all-linear")
        ml.add_adapter(model, config, rng=np.random.default_rng(0))
    ids = np.random.default_rng(0).integers(0, 96, (12, 65))
    with profile() as counted:
        ml.cross_entropy(model(ids[:, :-1]), ids[:, 1:]).backward()
    costs = counted.ops.values()
    return sum(c.forward_flops for c in costs), sum(c.backward_flops for c in costs)


def test_the_backward_pass_costs_twice_the_forward_pass_and_with_lora_as_much():
    assert "With full fine-tuning the backward pass costs just twice the forward pass" in TEXT
    assert "With LoRA it costs about as much as the forward pass" in TEXT
    assert "So LoRA saves about a third of a whole step's multiplications" in TEXT
    full, lora = products(lora=False), products(lora=True)
    assert full[1] / full[0] == pytest.approx(2, abs=0.01)
    assert lora[1] / lora[0] == pytest.approx(1.04, abs=0.05)
    assert sum(lora) / sum(full) == pytest.approx(2 / 3, abs=0.04)


def test_no_rate_gets_below_the_noise_in_the_points():
    assert "None gets below about 0.05" in TEXT
    rng = np.random.default_rng(1)
    x = rng.uniform(-1, 1, (20, 1))
    y = 2 * x - 1 + 0.2 * rng.standard_normal((20, 1))
    residual = np.linalg.lstsq(np.hstack([x, np.ones((20, 1))]), y, rcond=None)[1]
    assert residual[0] / 20 == pytest.approx(0.05, abs=0.005)


def slope_error(h, kind) -> float:
    x, h = kind(1), kind(h)
    return abs(float((np.sin(x + h) - np.sin(x - h)) / (2 * h)) - np.cos(1.0))


@pytest.mark.parametrize(("kind", "best"), [(np.float64, 1e-5), (np.float32, 1e-2)])
def test_a_step_far_from_the_best_makes_the_slope_worse(kind, best):
    assert "about 10⁻⁵ in float64, the numbers with 16 digits, and 10⁻² in float32" in TEXT
    near = min(slope_error(best * factor, kind) for factor in (0.5, 1, 2))
    assert near < slope_error(100 * best, kind) / 10
    assert near < slope_error(best / 1000, kind) / 10
