"""What the cards on training, scaling and forgetting say of PyTorch and PEFT is so there too."""

import os

os.environ["HF_HUB_OFFLINE"] = "1"

import numpy as np
import pytest

torch = pytest.importorskip("torch")
peft = pytest.importorskip("peft")

pytestmark = [pytest.mark.parity, pytest.mark.filterwarnings("ignore")]

D_IN, D_OUT, R = 400, 30, 4


class OneLayer(torch.nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.layer = torch.nn.Linear(D_IN, D_OUT, bias=False)

    def forward(self, x):
        return self.layer(x)


def adapted(model=None, **options):
    """The model with LoRA, its layer, and the layer's A (r, d_in) and B (d_out, r)."""
    config = peft.LoraConfig(**{"r": R, "lora_alpha": 8, "target_modules": ["layer"]} | options)
    model = peft.get_peft_model(OneLayer() if model is None else model, config)
    layer = model.base_model.model.layer
    return model, layer, layer.lora_A.default.weight, layer.lora_B.default.weight


def inputs(rows=16):
    return torch.randn(rows, D_IN, generator=torch.Generator().manual_seed(1))


def test_a_is_uniform_within_the_root_of_its_inputs_and_b_is_zero():
    _, _, A, B = adapted()
    assert 0.95 / D_IN**0.5 < A.abs().max() <= 1 / D_IN**0.5
    assert not B.any()


def test_without_initialization_b_is_random_too():
    assert adapted(init_lora_weights=False)[3].all()


@pytest.mark.parametrize(("rslora", "scale"), [(False, 8 / R), (True, 8 / R**0.5)])
def test_the_scale_is_alpha_by_the_rank_or_by_its_root(rslora, scale):
    assert adapted(use_rslora=rslora)[1].scaling["default"] == scale


def test_an_optimizer_made_before_the_adapter_trains_nothing_and_does_not_say_so():
    base = OneLayer()
    early = torch.optim.AdamW([p for p in base.parameters() if p.requires_grad])
    model, _, _, B = adapted(base)
    model(inputs()).square().mean().backward()
    early.step()
    assert B.grad.any() and not B.any()


def test_a_gradient_of_zero_does_not_keep_a_weight_from_decaying():
    W = torch.nn.Parameter(torch.ones(3))
    optimizer = torch.optim.AdamW([W], lr=0.1, weight_decay=0.5)
    W.grad = torch.zeros(3)
    optimizer.step()
    assert torch.allclose(W, torch.full((3,), 0.95))
    assert {"exp_avg", "exp_avg_sq"} <= optimizer.state[W].keys()


def test_dropout_is_of_single_inputs_of_the_adapter():
    model, layer, A, B = adapted(lora_dropout=0.5)
    x = inputs()
    model.train()
    assert torch.equal(model(x), layer.base_layer(x))  # B = 0: W sees all of x
    A.data.zero_()
    A.data[:, :R] = torch.eye(R)  # the first inputs come through, each on its own
    B.data.zero_()
    B.data[:R] = torch.eye(R)
    ones = torch.ones(64, D_IN)
    lost = (model(ones) - layer.base_layer(ones))[:, :R].abs() < 1e-5
    assert 0.3 < lost.float().mean() < 0.7 and not (lost == lost[0]).all()
    model.eval()
    assert not ((model(ones) - layer.base_layer(ones))[:, :R].abs() < 1e-5).any()


def test_a_merged_adapter_has_nothing_to_differentiate():
    model, *_ = adapted()
    model.merge_adapter()
    assert not model(inputs()).requires_grad


def test_without_its_adapter_the_model_is_the_base_bit_for_bit():
    model, _, _, B = adapted()
    base, x = OneLayer(), inputs()
    B.data.normal_()
    assert not torch.equal(model(x), base(x))
    with model.disable_adapter():
        assert torch.equal(model(x), base(x))


def test_lora_plus_gives_b_the_higher_rate():
    from peft.optimizers import create_loraplus_optimizer

    model, _, A, B = adapted()
    optimizer = create_loraplus_optimizer(
        model=model, optimizer_cls=torch.optim.AdamW, lr=1e-3, loraplus_lr_ratio=16
    )
    rate = {id(p): group["lr"] for group in optimizer.param_groups for p in group["params"]}
    assert rate[id(B)] == pytest.approx(16 * rate[id(A)])


def test_a_target_of_minus_100_counts_neither_in_the_mean_nor_in_the_gradient():
    logits = torch.randn(4, 7, generator=torch.Generator().manual_seed(0), requires_grad=True)
    targets = torch.tensor([-100, 3, -100, 5])
    loss = torch.nn.functional.cross_entropy(logits, targets)
    loss.backward()
    answers = torch.nn.functional.cross_entropy(logits[[1, 3]], targets[[1, 3]])
    assert torch.allclose(loss, answers)
    assert not logits.grad[[0, 2]].any() and logits.grad[[1, 3]].all()


@pytest.mark.parametrize(
    ("optimizer", "change", "factor"),
    [
        (torch.optim.SGD, "alpha", 4),
        (torch.optim.SGD, "rate", 2),
        (torch.optim.AdamW, "loss", 1),
        (torch.optim.AdamW, "alpha", 2),
    ],
)
def test_what_is_doubled_shows_in_the_first_update_as_the_card_says(optimizer, change, factor):
    def length(alpha=8, rate=1e-3, loss=1.0):
        torch.manual_seed(3)
        model, layer, *_ = adapted(lora_alpha=alpha)
        model.double()
        step = optimizer([p for p in model.parameters() if p.requires_grad], lr=rate)
        (loss * model(inputs().double()).square().mean()).backward()
        step.step()
        return float(layer.get_delta_weight("default").norm())

    doubled = {"alpha": {"alpha": 16}, "rate": {"rate": 2e-3}, "loss": {"loss": 2.0}}[change]
    assert np.isclose(length(**doubled) / length(), factor, rtol=0.01)
