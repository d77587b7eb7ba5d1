"""Claims against PyTorch: the loss and every gradient of the whole model are PyTorch's.

The model is written here once more, in plain PyTorch, from the equations and our state_dict alone:
GPT-2's and Llama's layers, with LoRA as x W + s (x A) B. PyTorch's autograd does the rest. The two
share no code, so an error would have to be made twice. Per tensor, the largest difference counts,
relative to the largest gradient.
"""

import math

import numpy as np
import pytest

from minilora import functional as F
from minilora import lora as L
from minilora.lora_config import LoraConfig
from minilora.tensor import record
from minilora.transformer import Transformer, TransformerConfig

torch = pytest.importorskip("torch")
pytestmark = [pytest.mark.parity, pytest.mark.filterwarnings("ignore")]

SIZES = dict(vocab_size=37, block_size=16, n_layer=3, n_head=4, n_embd=32)
MODERN = dict(norm="rmsnorm", activation="swiglu", positions="rope", bias=False)
CONFIGS = {
    "gpt2": {},
    "gpt2 untied": dict(tie_embeddings=False, mlp_hidden=48),
    "llama": dict(**MODERN, n_kv_head=2, mlp_hidden=56, tie_embeddings=False),
    "llama tied, one kv head": dict(**MODERN, n_kv_head=1, mlp_hidden=56, rope_theta=500.0),
    "llama, all kv heads": dict(**MODERN, tie_embeddings=False, norm_eps=1e-6),
    "a mixture": dict(norm="rmsnorm", positions="rope", n_kv_head=2, norm_eps=1e-2),
}
TOLERANCE = {"float32": 1e-5, "float64": 1e-10}
CASES = pytest.mark.parametrize("options", CONFIGS.values(), ids=CONFIGS)
DTYPES = pytest.mark.parametrize("dtype", TOLERANCE)
IDS, TARGETS = np.random.default_rng(0).integers(37, size=(2, 4, 16))
TARGETS[0, :9] = TARGETS[2, 5] = TARGETS[3, -1] = -100  # positions that do not count


def make(options: dict, dtype: str) -> Transformer:
    rng = np.random.default_rng(1)
    model = Transformer(TransformerConfig(**SIZES, **options), rng=rng)
    for p in model.parameters():  # biases and norms away from zero and one
        p.data += rng.standard_normal(p.shape, dtype=np.float32) * np.float32(0.1)
    model.to(dtype)
    return model


class Twin:
    """The model in PyTorch. `weights` holds its parameters under our names."""

    def __init__(self, model: Transformer) -> None:
        self.config = model.config
        self.weights = {
            name: torch.tensor(p.data, requires_grad=p.requires_grad)
            for name, p in model.named_parameters()
        }
        self.scale = {path: m.adapters["default"].s for path, m in L.lora_layers(model).items()}

    def linear(self, path: str, x):
        own = f"{path}.base" if path in self.scale else path
        y = x @ self.weights[f"{own}.weight"]
        if f"{own}.bias" in self.weights:
            y = y + self.weights[f"{own}.bias"]
        if path in self.scale:
            A, B = (self.weights[f"{path}.adapters.default.{X}"] for X in "AB")
            y = y + self.scale[path] * ((x @ A) @ B)
        return y

    def norm(self, path: str, x):
        c, w = self.config, self.weights
        if c.norm == "layernorm":
            x = x - x.mean(-1, keepdim=True)
        x = x / torch.sqrt((x * x).mean(-1, keepdim=True) + c.norm_eps) * w[f"{path}.weight"]
        return x + w[f"{path}.bias"] if c.norm == "layernorm" else x

    def rope(self, x):
        """x (B, H, T, D): channel i and channel i + D/2 are a complex number; turn it."""
        T, half = x.shape[2], x.shape[3] // 2
        rate = self.config.rope_theta ** (-torch.arange(half, dtype=torch.float64) / half)
        angle = torch.arange(T, dtype=torch.float64)[:, None] * rate
        z = torch.complex(x[..., :half], x[..., half:])
        z = z * torch.polar(torch.ones_like(angle), angle).to(z.dtype)
        return torch.cat([z.real, z.imag], dim=-1)

    def attention(self, path: str, x):
        c, (B, T, C) = self.config, x.shape
        D = C // c.n_head
        q, k, v = (
            self.linear(f"{path}.{name}_proj", x).view(B, T, -1, D).transpose(1, 2)
            for name in "qkv"
        )
        if c.positions == "rope":
            q, k = self.rope(q), self.rope(k)
        group = c.n_head // (c.n_kv_head or c.n_head)
        k, v = (torch.repeat_interleave(t, group, dim=1) for t in (k, v))
        scores = q @ k.transpose(-1, -2) / math.sqrt(D)
        future = torch.ones(T, T, dtype=torch.bool).triu(1)
        y = scores.masked_fill(future, -math.inf).softmax(-1) @ v
        return self.linear(f"{path}.o_proj", y.transpose(1, 2).reshape(B, T, C))

    def mlp(self, path: str, x):
        up = self.linear(f"{path}.up_proj", x)
        if self.config.activation == "swiglu":
            h = torch.nn.functional.silu(self.linear(f"{path}.gate_proj", x)) * up
        else:
            h = torch.nn.functional.gelu(up, approximate="tanh")
        return self.linear(f"{path}.down_proj", h)

    def loss(self, ids, targets):
        c, w = self.config, self.weights
        x = w["tok_embed.weight"][ids]
        if c.positions == "learned":
            x = x + w["pos_embed.weight"][: ids.shape[1]]
        for i in range(c.n_layer):
            x = x + self.attention(f"layers.{i}.attn", self.norm(f"layers.{i}.attn_norm", x))
            x = x + self.mlp(f"layers.{i}.mlp", self.norm(f"layers.{i}.mlp_norm", x))
        x = self.norm("norm", x)
        logits = x @ w["tok_embed.weight"].T if c.tie_embeddings else self.linear("head", x)
        return torch.nn.functional.cross_entropy(
            logits.flatten(0, 1), targets.flatten(), ignore_index=-100
        )


def compare(model: Transformer, ids: np.ndarray, targets: np.ndarray, tolerance: float) -> set[str]:
    """Assert that loss and gradients are PyTorch's; return the names of what was compared."""
    twin = Twin(model)
    ours = F.cross_entropy(model(ids), targets)
    theirs = twin.loss(torch.tensor(ids), torch.tensor(targets))
    ours.backward()
    theirs.backward()
    assert abs(ours.item() - theirs.item()) <= tolerance * theirs.item()
    compared, sizes = set(), {n: p.size for n, p in model.named_parameters()}
    largest = max(np.abs(p.grad).max() for p in model.trainable_parameters())
    for name, p in model.named_parameters():
        expected = twin.weights[name].grad
        if expected is None:
            assert p.grad is None, f"{name} is frozen but has a gradient"
            continue
        expected = expected.numpy()
        assert p.grad.shape == expected.shape and p.grad.dtype == expected.dtype, name
        scale = np.abs(expected).max()
        if name.endswith("k_proj.bias") and model.config.positions == "learned":
            # Adds the same to all of a query's scores, so its gradient is zero but for rounding.
            assert scale < tolerance * largest, name
            scale = largest
        error = np.abs(p.grad - expected).max() / scale
        assert error <= tolerance, f"{name}: {error:.2e} of {scale:.2e}"
        compared.add(name)
    assert sum(sizes[n] for n in compared) == sum(p.size for p in model.trainable_parameters())
    return compared


@CASES
@DTYPES
def test_loss_and_all_gradients_of_full_fine_tuning_are_pytorchs(options, dtype):
    model = make(options, dtype)
    compared = compare(model, IDS, TARGETS, TOLERANCE[dtype])
    assert compared == set(model.state_dict())


LORA = {
    "q and v": dict(lora_alpha=12, target_modules=["q_proj", "v_proj"]),
    # s = 3. At s = 6 the rounding of float32 alone, ours and PyTorch's, adds up to 1e-5.
    "all-linear": dict(lora_alpha=6, target_modules="all-linear", use_rslora=True),
    "with biases and modules": dict(lora_alpha=12, bias="all", modules_to_save=["norm"]),
}


@CASES
@DTYPES
@pytest.mark.parametrize("lora", LORA.values(), ids=LORA)
@pytest.mark.parametrize("rows", [slice(None), slice(1, 2)], ids=["many rows", "few rows"])
def test_loss_and_all_gradients_of_lora_are_pytorchs(options, dtype, lora, rows):
    model = make(options, dtype)
    rng = np.random.default_rng(2)
    L.add_adapter(model, LoraConfig(r=4, **lora), rng=rng)
    for layer in L.lora_layers(model).values():
        B = layer.adapters["default"].B
        B.data[...] = rng.standard_normal(B.shape) * 0.1
    T = 16 if rows.start is None else 5  # 5 rows are fewer than any d_out: the unfused path
    compared = compare(model, IDS[rows, :T], TARGETS[rows, :T], TOLERANCE[dtype])
    assert compared == {n for n, p in model.named_parameters() if p.requires_grad}
    assert {name for name in compared if ".adapters." in name} == {
        f"{path}.adapters.default.{X}" for path in L.lora_layers(model) for X in "AB"
    }


@pytest.mark.parametrize("op", ["attention", "linear", "gelu", "layer_norm", "embedding"])
def test_a_gradient_wrong_by_one_part_in_ten_thousand_is_noticed(op, monkeypatch):
    real = getattr(F, op)

    def spoiled(*inputs):
        out = real(*inputs)
        return record(out.data, (out, lambda g: g * np.float32(1.0001)))

    monkeypatch.setattr(F, op, spoiled)
    model = make({}, "float32")
    with pytest.raises(AssertionError, match=r"(weight|bias): .*e-0\d of"):
        compare(model, IDS, TARGETS, TOLERANCE["float32"])
