"""Claims about the methods of fine-tuning: what each trains, where it starts, what it computes.

Each claim is made of every method, on a tiny GPT-2 and a tiny Llama; the numbers of parameters are
formulas in the sizes below. Prefix and prompt tuning are computed a second time in plain NumPy, or
with the base model's own blocks.
"""

import copy

import numpy as np
import pytest

from minilora.functional import cross_entropy
from minilora.lora import LoraConfig, adapters, lora_layers
from minilora.methods.additive import lora_size
from minilora.methods.registry import METHODS
from minilora.methods.trainable import count_parameters, print_trainable_parameters
from minilora.tensor import Tensor
from minilora.testing import gradcheck
from minilora.training.loop import TrainConfig, train
from minilora.transformer import Transformer, TransformerConfig

V, T, L, H, C, F = 13, 8, 2, 2, 8, 32
LLAMA_J, LLAMA_F = 1, 12
WIDTH = LLAMA_J * C // H  # of Llama's keys and values
LLAMA = dict(n_kv_head=LLAMA_J, mlp_hidden=LLAMA_F, norm="rmsnorm", activation="swiglu")
LLAMA |= dict(positions="rope", bias=False, tie_embeddings=False)
FAMILIES = {"gpt2": {}, "llama": LLAMA}
LORA = LoraConfig(r=2, lora_alpha=6, target_modules=("q_proj", "v_proj"))
KIN = ("lora", "rslora", "lora+", "dora", "pissa", "olora")
FROZEN_FACTORS = ("lora-fa", "vera", "lora-xs")
LOW_RANK = KIN + FROZEN_FACTORS
PAIRS = [(m, f) for m in METHODS for f in FAMILIES if (m, f) != ("bitfit", "llama")]
EVERY = pytest.mark.parametrize(("method", "family"), PAIRS, ids=["-".join(pair) for pair in PAIRS])
IDS = np.random.default_rng(5).integers(V, size=(3, T))


def make_base(family, dtype=np.float32, **sizes):
    """A model all of whose numbers are at work: no zero biases, no norms of weight one."""
    sizes = dict(vocab_size=V, block_size=T, n_layer=L, n_head=H, n_embd=C) | sizes
    rng = np.random.default_rng(0)
    model = Transformer(TransformerConfig(**FAMILIES[family] | sizes), rng=rng)
    for p in model.parameters():
        p.data += (0.3 * rng.standard_normal(p.shape)).astype(np.float32)
    return model.to(dtype)


def prepared(method, base, lora=LORA, seed=1):
    """A copy of the base that the method has made ready."""
    model = copy.deepcopy(base)
    METHODS[method].prepare(model, lora, np.random.default_rng(seed))
    return model


def stirred(model):
    """The same model, with what it trains moved away from where it starts (B = 0, U = 0)."""
    rng = np.random.default_rng(2)
    for p in model.trainable_parameters():
        p.data += (0.3 * rng.standard_normal(p.shape)).astype(p.dtype)
    return model


def trained_names(model):
    return {name for name, p in model.named_parameters() if p.requires_grad}


def each_layer(*names):
    return {f"layers.{i}.{name}" for i in range(L) for name in names}


def adapted(*parts):
    return each_layer(*(f"attn.{at}_proj.adapters.default.{part}" for at in "qv" for part in parts))


def batch(rng):
    return IDS[:, :-1], IDS[:, 1:]


@EVERY
def test_exactly_the_named_parameters_train(method, family):
    base = make_base(family)
    every = [name for name, _ in base.named_parameters()]
    factors = adapted("A", "B")
    expected = {
        "full": set(every),
        "head": {"norm.weight", "norm.bias", "tok_embed.weight"}
        if family == "gpt2"
        else {"norm.weight", "head.weight"},
        "last-block": {name for name in every if name.startswith("layers.1.")},
        "bitfit": {name for name in every if name.endswith(".bias")},
        "adapter": each_layer(
            *(
                f"{place}.{part}.{kind}"
                for place in ("attn.o_proj", "mlp.down_proj")
                for part in ("down", "up")
                for kind in ("weight", "bias")
            )
        ),
        "prompt": {"tok_embed.prompt"},
        "prefix": each_layer("attn.prefix_k", "attn.prefix_v"),
        "ia3": each_layer("attn.k_proj.l", "attn.v_proj.l", "mlp.down_proj.l"),
        "dora": factors | adapted("m"),
        "lora-fa": adapted("B"),
        "vera": adapted("d", "b"),
        "lora-xs": adapted("R"),
    }
    assert trained_names(prepared(method, base)) == expected.get(method, factors)


# Of GPT-2: attention has 4 C² + 4 C numbers, the MLP 2 C F + F + C, two norms 4 C.
# Of Llama: attention 2 C² + 2 C J D, the MLP 3 C F, two norms 2 C; no biases, a head of its own.
BLOCK = {
    "gpt2": 4 * C * C + 4 * C + 2 * C * F + F + C + 4 * C,
    "llama": 2 * C * C + 2 * C * WIDTH + 3 * C * LLAMA_F + 2 * C,
}
TOTAL = {
    "gpt2": V * C + T * C + L * BLOCK["gpt2"] + 2 * C,
    "llama": V * C + L * BLOCK["llama"] + C + V * C,
}
Q_AND_V = {"gpt2": 2 * (C + C), "llama": (C + C) + (C + WIDTH)}  # d_in + d_out
FACTORS = {family: LORA.r * L * Q_AND_V[family] for family in FAMILIES}


@EVERY
def test_as_many_numbers_train_as_the_formula_says(method, family):
    m, n = 2, {"gpt2": 4, "llama": 7}[family]  # of the bottleneck, of the prefix
    width = {"gpt2": C, "llama": WIDTH}[family]
    expected = {
        "full": TOTAL[family],
        "head": V * C + {"gpt2": 2 * C, "llama": C}[family],
        "last-block": BLOCK[family],
        "bitfit": L * (4 * C + F + C + 2 * C) + C,
        "adapter": L * 2 * (C * m + m + m * C + C),
        "prompt": FACTORS[family] // C * C,
        "prefix": L * 2 * n * width,
        "ia3": L * (2 * width + {"gpt2": F, "llama": LLAMA_F}[family]),
        "dora": FACTORS[family] + L * (C + width),
        "lora-fa": LORA.r * L * (C + width),
        "vera": L * (2 * LORA.r + C + width),
        "lora-xs": L * 2 * LORA.r**2,
    }.get(method, FACTORS[family])
    model = prepared(method, make_base(family))
    added = expected if METHODS[method].family in ("additive", "reparameterized") else 0
    assert count_parameters(model) == (expected, TOTAL[family] + added)


def test_bitfit_is_refused_where_there_are_no_biases_and_changes_nothing():
    base = make_base("llama")
    with pytest.raises(ValueError, match="BitFit trains biases, and this model has none; choose"):
        METHODS["bitfit"].prepare(base, LORA, np.random.default_rng(0))
    assert count_parameters(base) == (TOTAL["llama"], TOTAL["llama"])


@EVERY
def test_gradients_are_those_of_what_trains_and_of_nothing_else(method, family):
    model = stirred(prepared(method, make_base(family)))
    cross_entropy(model(IDS[:, :-1]), IDS[:, 1:]).backward()
    for name, p in model.named_parameters():
        assert (p.grad is not None) == p.requires_grad, name


BITWISE = ("full", "head", "last-block", "bitfit", "adapter", "ia3", "lora", "rslora", "lora+")
BITWISE += ("dora", *FROZEN_FACTORS)


@EVERY
def test_prepared_model_equals_base_before_training(method, family):
    """But not with a prefix or a prompt: their nature is that there is more to attend to."""
    base = make_base(family)
    before, after = base(IDS).data, prepared(method, base)(IDS).data
    if method in BITWISE:
        np.testing.assert_array_equal(after, before)
    elif method in ("pissa", "olora"):
        np.testing.assert_allclose(after, before, rtol=0, atol=1e-5)
    else:
        assert method in ("prompt", "prefix") and after.shape == before.shape
        assert np.abs(after - before).max() > 0.01


def small_model(method, family):
    """So small that every number's derivative can be measured, in float64."""
    sizes = dict(vocab_size=5, block_size=4, n_head=2, n_embd=4)
    lora = LoraConfig(r=1, lora_alpha=3, target_modules="all-linear")
    model = prepared(method, make_base(family, np.float64, **sizes), lora)
    return stirred(model.to(np.float64))


def check_gradients(model):
    gradcheck(lambda *params: model(IDS[:2, :4] % 5), *model.trainable_parameters())


@pytest.mark.parametrize(
    ("method", "family"), [pair for pair in PAIRS if pair[0] not in ("dora", "rslora", "lora+")]
)
def test_gradients_agree_with_central_differences(method, family):
    check_gradients(small_model(method, family))


@pytest.mark.parametrize("family", FAMILIES)
def test_doras_gradients_are_those_of_a_norm_that_is_held(family, monkeypatch):
    """Liu et al. 2024, section 4.3: ‖V‖ counts as a constant in the backward pass. The constants
    here are those of the first call: one for each Linear, always asked for in the same order."""
    model = small_model("dora", family)
    norm, held, asked = np.linalg.norm, [], 0
    n = len(lora_layers(model))

    def held_norm(*args, **options):
        nonlocal asked
        if len(held) < n:
            held.append(norm(*args, **options))
        asked += 1
        return held[(asked - 1) % n]

    with pytest.raises(AssertionError, match="central differences"):
        check_gradients(model)  # with a norm that moves, A and B have other derivatives
    with monkeypatch.context() as patch:
        patch.setattr(np.linalg, "norm", held_norm)
        check_gradients(model)
    assert asked > 2 * n


@EVERY
def test_three_steps_change_what_trains_and_leave_the_rest_byte_for_byte(method, family):
    model = prepared(method, make_base(family))
    layers = lora_layers(model).values()
    residuals = [vars(layer.adapters["default"]).get("residual") for layer in layers]
    before = {name: p.data.tobytes() for name, p in model.named_parameters()}
    rest = [kept.data.tobytes() for kept in residuals if kept is not None]
    ratio = METHODS[method].loraplus_lr_ratio
    train(model, batch, TrainConfig(steps=3, lr=1e-2, warmup=1, loraplus_lr_ratio=ratio))
    for name, p in model.named_parameters():
        assert (p.data.tobytes() != before[name]) == p.requires_grad, name
    assert [kept.data.tobytes() for kept in residuals if kept is not None] == rest
    assert len(rest) == (2 * L if method in ("pissa", "olora") else 0)


@EVERY
def test_training_lowers_the_loss(method, family):
    model = prepared(method, make_base(family))
    ratio = METHODS[method].loraplus_lr_ratio
    config = TrainConfig(steps=12, lr=3e-2, warmup=1, loraplus_lr_ratio=ratio)
    losses = train(model, batch, config).losses  # of one batch, again and again
    assert losses[-1] < losses[0] - 0.05


@EVERY
def test_a_later_symbol_does_not_change_earlier_logits(method, family):
    model = stirred(prepared(method, make_base(family)))
    before = model(IDS).data
    for t in range(1, T):
        changed = IDS.copy()
        changed[:, t:] = (changed[:, t:] + 1) % V
        after = model(changed).data
        np.testing.assert_allclose(after[:, :t], before[:, :t], rtol=0, atol=1e-5)
        assert np.abs(after[:, t:] - before[:, t:]).max() > 0.01


def turned(x, heads, theta):
    """RoPE as complex numbers: the two halves of a head are the two parts.   x (B, T, heads*D)"""
    rows, length, width = x.shape
    half = width // heads // 2
    x = x.reshape(rows, length, heads, 2, half)
    angle = np.arange(length)[:, None] * theta ** (-np.arange(half) / half)
    z = (x[..., 0, :] + 1j * x[..., 1, :]) * np.exp(1j * angle)[:, None]
    return np.concatenate([z.real, z.imag], axis=-1).reshape(rows, length, width)


def attention_by_hand(model, layer, x, prefix_k, prefix_v):
    """Query by query, head by head, with the prefix as the first keys and values."""
    c, attn = model.config, model.layers[layer].attn.base
    D, J = c.head_size, c.kv_heads

    def project(linear):
        y = x @ linear.weight.data
        return y if linear.bias is None else y + linear.bias.data

    q, k, v = project(attn.q_proj), project(attn.k_proj), project(attn.v_proj)
    if c.positions == "rope":
        q, k = turned(q, c.n_head, c.rope_theta), turned(k, J, c.rope_theta)
    out = np.zeros_like(q)
    for b, t, h in np.ndindex(len(x), x.shape[1], c.n_head):
        j = h // (c.n_head // J)
        K = np.concatenate([prefix_k, k[b, : t + 1]])[:, j * D : (j + 1) * D]
        U = np.concatenate([prefix_v, v[b, : t + 1]])[:, j * D : (j + 1) * D]
        weights = np.exp(K @ q[b, t, h * D : (h + 1) * D] / np.sqrt(D))
        out[b, t, h * D : (h + 1) * D] = weights @ U / weights.sum()
    y = out @ attn.o_proj.weight.data
    return y if attn.o_proj.bias is None else y + attn.o_proj.bias.data


@pytest.mark.parametrize("family", FAMILIES)
def test_prefix_tuning_is_attention_with_these_keys_and_values_in_front(family):
    model = prepared("prefix", make_base(family, np.float64))
    stirred(model)
    x = np.random.default_rng(3).standard_normal((2, 5, C))
    for layer in range(L):
        attn = model.layers[layer].attn
        found = attn(Tensor(x), None, None).data
        prefix = attn.prefix_k.data, attn.prefix_v.data
        by_hand = attention_by_hand(model, layer, x, *prefix)
        np.testing.assert_allclose(found, by_hand, rtol=0, atol=1e-12)
        nothing = np.zeros((0, attn.prefix_k.shape[1]))
        without = attention_by_hand(model, layer, x, nothing, nothing)
        assert np.abs(found - without).max() > 0.01


@pytest.mark.parametrize("family", FAMILIES)
def test_a_prefix_starts_as_the_keys_and_values_of_symbols_that_the_model_has_read(family):
    base = make_base(family, np.float64)
    model = prepared("prefix", base, seed=7)
    n = model.layers[0].attn.prefix_k.shape[0]
    symbols = np.random.default_rng(7).integers(0, V, (1, n))
    block = base.layers[0]
    x = base.tok_embed(symbols)
    if base.config.positions == "learned":
        x = x + base.pos_embed(np.arange(n))
    x = block.attn_norm(x)
    k, v = block.attn.k_proj(x).data[0], block.attn.v_proj(x).data[0]
    if base.config.positions == "rope":
        k = turned(k[None], base.config.kv_heads, base.config.rope_theta)[0]
    np.testing.assert_allclose(model.layers[0].attn.prefix_k.data, k, rtol=0, atol=1e-12)
    np.testing.assert_allclose(model.layers[0].attn.prefix_v.data, v, rtol=0, atol=1e-12)


@pytest.mark.parametrize("family", FAMILIES)
def test_prompt_tuning_is_the_base_model_on_the_prompt_and_the_text(family):
    base = make_base(family, np.float64)
    model = stirred(prepared("prompt", base))
    prompt, text = model.tok_embed.prompt.data, base.tok_embed.weight.data[IDS]
    if base.config.positions == "learned":  # of the text: the prompt has none
        text = text + base.pos_embed.weight.data[: IDS.shape[1]]
    n = len(prompt)
    x = Tensor(np.concatenate([np.broadcast_to(prompt, (len(IDS), n, C)), text], axis=1))
    for block in base.layers:
        x = block(x, None, None)
    head = base.tok_embed.weight.data.T if base.config.tie_embeddings else base.head.weight.data
    expected = base.norm(x).data[:, n:] @ head
    np.testing.assert_allclose(model(IDS).data, expected, rtol=0, atol=1e-12)
    assert np.abs(expected - base(IDS).data).max() > 0.01


def test_a_prompt_starts_as_rows_of_the_embedding():
    base = make_base("gpt2")
    prompt = prepared("prompt", base).tok_embed.prompt.data
    table = base.tok_embed.weight.data
    assert all(any((row == other).all() for other in table) for row in prompt)
    assert len(np.unique(prompt, axis=0)) > 1


BUDGETS = [
    LoraConfig(r=r, target_modules=targets)
    for r in (1, 2, 3, 4)
    for targets in ("all-linear", ("q_proj",), ("v_proj", "down_proj"))
]


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("lora", BUDGETS, ids=lambda c: f"{c.r}-{c.target_modules}")
def test_additive_methods_train_about_as_many_numbers_as_lora(lora, family):
    """To the nearest width of a bottleneck (its weights; biases come on top) and length of a
    prefix, and at most as many prompt vectors; never none of them, never a longer prefix than a
    text, nor more than twenty prompt vectors."""
    base = make_base(family)
    size = lora_size(base, lora)
    assert size == count_parameters(prepared("lora", base, lora))[0]
    width = base.config.kv_heads * base.config.head_size

    model = prepared("adapter", base, lora)
    m = model.layers[0].mlp.down_proj.down.weight.shape[1]
    assert abs(m * 4 * L * C - size) <= 2 * L * C or (m == 1 and size < 4 * L * C)

    n = prepared("prefix", base, lora).layers[0].attn.prefix_k.shape[0]
    assert abs(n * 2 * L * width - size) <= L * width or (n == T and size > T * 2 * L * width)

    n = prepared("prompt", base, lora).tok_embed.prompt.shape[0]
    assert 0 <= size - n * C < C or (n == 20 and size > 20 * C)


def test_size_counts_exceptions_to_the_rank():
    base = make_base("gpt2")
    lora = LoraConfig(r=1, target_modules=("q_proj", "up_proj"), rank_pattern={"up_proj": 3})
    assert lora_size(base, lora) == L * (2 * C + 3 * (C + F))


@pytest.mark.parametrize(
    ("method", "option", "value"),
    [
        ("rslora", "use_rslora", True),
        ("dora", "use_dora", True),
        ("pissa", "init_lora_weights", "pissa"),
        ("olora", "init_lora_weights", "olora"),
    ],
)
def test_kin_of_lora_change_one_option_of_the_configuration_each(method, option, value):
    config = adapters(prepared(method, make_base("gpt2")))["default"].config
    assert getattr(config, option) == value != getattr(LORA, option)
    assert (config.r, config.lora_alpha, config.target_modules) == (2, 6, ("q_proj", "v_proj"))


@pytest.mark.parametrize("method", METHODS)
def test_every_method_has_its_name_label_and_family(method):
    found = METHODS[method]
    assert found.name == method and found.label
    assert found.family in ("full", "selective", "additive", "reparameterized")
    assert (found.family == "reparameterized") == (method in LOW_RANK)
    assert found.loraplus_lr_ratio == (16 if method == "lora+" else 1)


def test_labels_are_different():
    assert len({found.label for found in METHODS.values()}) == len(METHODS) == 17


def test_parameters_are_printed_as_peft_prints_them(capsys):
    print_trainable_parameters(prepared("lora", make_base("gpt2")))
    total = TOTAL["gpt2"] + 128
    assert capsys.readouterr().out == (
        f"trainable params: 128 || all params: {total:,} || trainable%: {12800 / total:.4f}\n"
    )
