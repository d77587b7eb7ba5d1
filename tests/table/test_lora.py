"""Claims about LoRA: where it starts, what it trains, what it leaves alone, and how it is undone.

Wherever something is claimed of a trained adapter, B is random and not zero: with B = 0 a merge
that did nothing would pass. `snapshot` is everything an error must leave as it was.
"""

import contextlib
import copy
import dataclasses
import gc
import inspect
import math
import weakref

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minilora import functional as F
from minilora import lora as L
from minilora.lora import LoraLinear
from minilora.lora_config import LoraConfig
from minilora.lora_targets import find_targets, plain_path
from minilora.methods.trainable import count_parameters, print_trainable_parameters
from minilora.nn import Linear, Module, Parameter
from minilora.tensor import Node, Tensor, grad
from minilora.testing import gradcheck
from minilora.transformer import Transformer, TransformerConfig

SIZES = dict(vocab_size=11, block_size=24, n_layer=3, n_head=4, n_embd=16)
OPTIONS = {
    "gpt2": dict(mlp_hidden=32),
    "llama": dict(
        n_kv_head=2,
        mlp_hidden=24,
        norm="rmsnorm",
        activation="swiglu",
        positions="rope",
        bias=False,
        tie_embeddings=False,
    ),
}
ATTENTION = ["q_proj", "k_proj", "v_proj", "o_proj"]
IDS = np.random.default_rng(1).integers(11, size=(2, 24))
TARGETS = np.roll(IDS, -1, axis=1)
FEW = IDS[:1, :5]  # 5 rows are fewer than any d_out here; the 48 of IDS are more than all of them


def make(family: str = "gpt2", seed: int = 0, **options) -> Transformer:
    """A model whose biases and norms are not the zeros and ones it would start with."""
    rng = np.random.default_rng(seed)
    model = Transformer(TransformerConfig(**SIZES, **{**OPTIONS[family], **options}), rng=rng)
    for p in model.parameters():
        p.data += rng.standard_normal(p.shape, dtype=np.float32) * np.float32(0.1)
    return model


def add(model: Module, name: str = "default", seed: int = 0, **options) -> None:
    config = LoraConfig(**{"r": 4, "lora_alpha": 12, **options})  # r ≠ alpha
    L.add_adapter(model, config, name, rng=np.random.default_rng(seed))


def randomize_B(model: Module, name: str = "default", seed: int = 9) -> None:
    rng = np.random.default_rng(seed)
    for layer in L.lora_layers(model).values():
        if name in layer.adapters:
            B = layer.adapters[name].B
            B.data[...] = rng.standard_normal(B.shape) * 0.1


def adapted(family: str = "gpt2", **options) -> Transformer:
    model = make(family)
    add(model, **options)
    randomize_B(model)
    return model


def loss_of(model: Transformer, ids: np.ndarray = IDS, rng=None) -> Tensor:
    return F.cross_entropy(model(ids, rng), TARGETS[: len(ids), : ids.shape[1]])


def sgd(model: Transformer, steps: int = 3, lr: float = 0.5) -> list[float]:
    losses = []
    for _ in range(steps):
        loss = loss_of(model)
        loss.backward()
        losses.append(loss.item())
        for p in model.trainable_parameters():
            p.data -= np.float32(lr) * p.grad
            p.grad = None
    return losses


def plain_name(name: str) -> str:
    return plain_path(name)


def frozen_bytes(model: Module) -> dict[str, bytes]:
    return {
        plain_name(name): p.data.tobytes()
        for name, p in model.named_parameters()
        if not p.requires_grad
    }


def snapshot(model: Module) -> tuple:
    """Everything about a model that an error must leave as it was."""
    return (
        [(path, id(m)) for path, m in model.named_modules()],
        [
            (name, id(p), p.data.tobytes(), p.requires_grad, p.grad is None)
            for name, p in model.named_parameters()
        ],
        [(p, m.active, id(m.unmerged_weight)) for p, m in L.lora_layers(model).items()],
        [
            (p, name, a.s, a.dropout)
            for p, m in L.lora_layers(model).items()
            for name, a in m.adapters.items()
        ],
        list(vars(model).get("lora_adapters", {}).items()),
    )


@contextlib.contextmanager
def refused(model: Module, error: type[Exception], sentence: str):
    before = snapshot(model)
    with pytest.raises(error, match=sentence):
        yield
    assert snapshot(model) == before


CONFIGS = {
    "q and v": {},
    "all-linear": dict(target_modules="all-linear"),
    "rank 1": dict(r=1, target_modules=["o_proj", "down_proj"]),
    "gaussian": dict(init_lora_weights="gaussian", use_rslora=True),
    "biases": dict(bias="all", lora_dropout=0.5),
    "whole modules": dict(modules_to_save=["norm", "mlp_norm"], layers_to_transform=[0, 2]),
}
FAMILIES = pytest.mark.parametrize("family", OPTIONS)
ALL_CONFIGS = pytest.mark.parametrize("options", CONFIGS.values(), ids=CONFIGS)


@FAMILIES
@ALL_CONFIGS
def test_adapted_model_equals_base_bit_for_bit_before_training(family, options):
    model = make(family)
    before = [model(ids).data.tobytes() for ids in (IDS, FEW)]
    add(model, **options)
    assert [model(ids).data.tobytes() for ids in (IDS, FEW)] == before
    assert model.trainable_parameters()


@FAMILIES
@ALL_CONFIGS
def test_training_leaves_every_frozen_byte_of_the_base_and_does_learn(family, options):
    model = make(family)
    original = {name: p.data.tobytes() for name, p in model.named_parameters()}
    add(model, **options)
    before = frozen_bytes(model)
    weights = {name: data for name, data in original.items() if name.endswith("_proj.weight")}
    assert weights.items() <= before.items()
    losses = sgd(model, steps=8)
    assert frozen_bytes(model) == before
    assert losses[-1] < losses[0] - 1e-3
    with L.disable_adapter(model):
        found = {plain_name(name): p.data.tobytes() for name, p in model.named_parameters()}
    assert original.items() <= found.items()


@FAMILIES
@ALL_CONFIGS
def test_merge_then_unmerge_is_bit_exact(family, options):
    model = adapted(family, **options)
    sgd(model, steps=2)
    state = model.state_dict()
    arrays = {name: id(p.data) for name, p in model.named_parameters()}
    logits = model(IDS).data.tobytes()
    L.merge_adapter(model)
    merged = model.state_dict()
    changed = {name for name in state if not np.array_equal(merged[name], state[name])}
    assert changed == {f"{path}.base.weight" for path in L.lora_layers(model)}
    L.unmerge_adapter(model)
    assert {name: p.data.tobytes() for name, p in model.named_parameters()} == {
        name: data.tobytes() for name, data in state.items()
    }
    assert {name: id(p.data) for name, p in model.named_parameters()} == arrays
    assert model(IDS).data.tobytes() == logits


@FAMILIES
@ALL_CONFIGS
@pytest.mark.parametrize("ids", [IDS, FEW], ids=["many rows", "few rows"])
def test_merged_and_unmerged_logits_agree(family, options, ids):
    model = adapted(family, **options)
    base = make(family)(ids).data
    unmerged = model(ids).data
    L.merge_adapter(model)
    np.testing.assert_allclose(model(ids).data, unmerged, atol=1e-4)
    assert np.abs(unmerged - base).max() > 1e-2  # the adapter does something


def test_a_merged_layer_costs_what_the_base_costs(monkeypatch):
    model = adapted()
    L.merge_adapter(model)
    monkeypatch.setattr(F, "lora_linear", lambda *_: pytest.fail("the adapter was computed"))
    monkeypatch.setattr(F, "dropout", lambda *_: pytest.fail("the adapter was computed"))
    layer = model.layers[0].attn.q_proj
    for rows in (1, 100):
        x = Tensor(np.ones((rows, 16), np.float32))
        np.testing.assert_array_equal(layer(x).data, layer.base(x).data)


def leaves_under(out: Tensor) -> set[int]:
    """The ids of the leaf tensors that the graph of `out` holds an edge to."""
    return {id(node) for node in graph_of(out) if isinstance(node, Tensor)}


def graph_of(out: Tensor) -> list[Node | Tensor]:
    """Every node and leaf under `out`, once."""
    nodes, stack = {}, [out.node]
    while stack:
        node = stack.pop()
        if id(node) not in nodes:
            nodes[id(node)] = node
            stack.extend(parent for parent, _ in getattr(node, "edges", ()))
    return list(nodes.values())


@FAMILIES
@ALL_CONFIGS
@pytest.mark.parametrize("ids", [IDS, FEW], ids=["many rows", "few rows"])
def test_the_graph_leads_to_the_trainable_parameters_and_to_no_frozen_one(family, options, ids):
    model = adapted(family, **options)
    loss = loss_of(model, ids)
    trainable = {id(p) for p in model.trainable_parameters()}
    assert leaves_under(loss) == trainable and trainable
    loss.backward()
    for name, p in model.named_parameters():
        assert (p.grad is not None) == p.requires_grad, name


class One(Module):
    def __init__(self, d_in: int, d_out: int, bias: bool = True, seed: int = 0) -> None:
        rng = np.random.default_rng(seed)
        self.proj = Linear(d_in, d_out, bias, rng=rng)
        if bias:
            self.proj.bias.data[...] = rng.standard_normal(d_out)


@pytest.mark.parametrize("rows", [100, 1])
def test_an_adapted_layer_is_one_op_that_leads_to_x_A_and_B_and_not_to_W(rows):
    model = One(6, 40)
    add(model, target_modules=["proj"])
    x = Tensor(np.ones((rows, 6), np.float32), requires_grad=True)
    graph = graph_of(model.proj(x))
    A, B = model.proj.adapters["default"].A, model.proj.adapters["default"].B
    assert {id(node) for node in graph if isinstance(node, Tensor)} == {id(x), id(A), id(B)}
    assert sum(isinstance(node, Node) for node in graph) == 1


@pytest.mark.parametrize("adapt", [False, True], ids=["frozen Linear", "other layer adapted"])
def test_a_frozen_linear_does_not_keep_its_input_alive(adapt):
    model = One(6, 5)
    model.requires_grad_(False)
    if adapt:
        model.other = Linear(6, 5, rng=np.random.default_rng(0))
        add(model, target_modules=["other"])
    leaf = Tensor(np.ones((20, 6), np.float32), requires_grad=True)
    gc.disable()
    try:
        x = leaf + np.ones((20, 6), np.float32)
        array = weakref.ref(x.data)
        y = model.proj(x)
        del x
        assert array() is None
        model.requires_grad_(True)
        x = leaf + np.ones((20, 6), np.float32)
        array = weakref.ref(x.data)
        trained = model.proj(x)
        del x
        assert array() is not None  # the same Linear, not frozen, needs it for dW
        trained.sum().backward()
        assert array() is None  # and lets go of it once used
    finally:
        gc.enable()
    y.sum().backward()
    np.testing.assert_allclose(
        leaf.grad, 2 * np.ones((20, 5)) @ model.proj.weight.data.T, rtol=1e-5
    )


def one_adapted(d_in=6, d_out=5, r=3, bias=True, **options) -> LoraLinear:
    """A single adapted float64 Linear with random B."""
    model = One(d_in, d_out, bias)
    model.to(np.float64)
    add(model, target_modules=["proj"], r=r, lora_alpha=7, **options)
    randomize_B(model)
    assert (
        model.proj.adapters["default"].A.dtype
        == model.proj.adapters["default"].B.dtype
        == np.float64
    )
    return model.proj


def unfused(layer: LoraLinear, x: Tensor) -> Tensor:
    A, B, s = layer.adapters["default"].A, layer.adapters["default"].B, layer.adapters["default"].s
    return F.linear(x, layer.base.weight, layer.base.bias) + (x @ A) @ B * s


def fused(layer: LoraLinear, x: Tensor) -> Tensor:
    A, B, s = layer.adapters["default"].A, layer.adapters["default"].B, layer.adapters["default"].s
    return F.lora_linear(x, layer.base.weight, layer.base.bias, A, B, s)


@pytest.mark.parametrize("shape", [(6,), (1, 6), (4, 6), (3, 7, 6)], ids=str)
@pytest.mark.parametrize("options", [{}, dict(bias=False), dict(use_rslora=True)], ids=str)
def test_fused_and_unfused_path_agree_in_value_and_gradient(shape, options):
    layer, rng = one_adapted(**options), np.random.default_rng(4)
    x = Tensor(rng.standard_normal(shape), requires_grad=True)
    wanted = [x, layer.adapters["default"].A, layer.adapters["default"].B]
    outs = [layer(x), fused(layer, x), unfused(layer, x)]
    cotangent = rng.standard_normal(outs[0].shape)
    grads = [grad((out * cotangent).sum(), wanted) for out in outs]
    for out, gradients in zip(outs[:2], grads[:2], strict=True):
        np.testing.assert_allclose(out.data, outs[2].data, rtol=1e-12, atol=1e-12)
        for name, found, expected in zip("xAB", gradients, grads[2], strict=True):
            np.testing.assert_allclose(found, expected, rtol=1e-11, atol=1e-12, err_msg=name)


@pytest.mark.parametrize(("rows", "is_merged"), [(1, False), (10, False), (11, True), (50, True)])
def test_only_where_rows_are_many_is_an_array_of_the_size_of_W_made(rows, is_merged):
    """From 2 · 6 · 64 = 768 numbers in x and y on, which 11 rows of 6 + 64 have."""
    model = One(6, 64)
    add(model, target_modules=["proj"])
    W = model.proj.base.weight.data
    out = model.proj(Tensor(np.ones((rows, 6), np.float32), requires_grad=True))
    to_x = out.node.edges[0][1]
    kept = inspect.getclosurevars(to_x).nonlocals["W"]()
    assert kept.shape == W.shape and (kept is not W) == is_merged


@pytest.mark.parametrize("rows", [2, 40], ids=["few rows", "many rows"])
@pytest.mark.parametrize("use_rslora", [False, True])
def test_gradients_follow_the_formulas(rows, use_rslora):
    layer, rng = one_adapted(use_rslora=use_rslora), np.random.default_rng(2)
    x = Tensor(rng.standard_normal((rows, 6)), requires_grad=True)
    G = rng.standard_normal((rows, 5))
    A, B = layer.adapters["default"].A, layer.adapters["default"].B
    W, b, s = layer.base.weight.data, layer.base.bias.data, 7 / (math.sqrt(3) if use_rslora else 3)
    y = layer(x)
    np.testing.assert_allclose(y.data, x.data @ W + b + s * (x.data @ A.data) @ B.data, rtol=1e-11)
    y.backward(G)
    same = dict(rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(B.grad, s * (x.data @ A.data).T @ G, **same)
    np.testing.assert_allclose(A.grad, s * x.data.T @ (G @ B.data.T), **same)
    np.testing.assert_allclose(x.grad, G @ W.T + s * (G @ B.data.T) @ A.data.T, **same)
    assert layer.base.weight.grad is None and layer.base.bias.grad is None


@FAMILIES
@pytest.mark.parametrize("ids", [IDS, FEW], ids=["many rows", "few rows"])
def test_gradients_of_an_adapted_model_agree_with_finite_differences(family, ids):
    options = {**SIZES, **OPTIONS[family], "n_layer": 1}
    model = Transformer(TransformerConfig(**options), rng=np.random.default_rng(0))
    model.to(np.float64)
    add(model, target_modules="all-linear", r=1, bias="lora_only")
    randomize_B(model)
    gradcheck(lambda *_: loss_of(model, ids), *model.trainable_parameters(), tol=1e-7)


@FAMILIES
def test_at_B_zero_only_B_moves_on_the_first_step_and_then_A_too(family):
    model = make(family)
    add(model, target_modules="all-linear")
    start = model.state_dict()
    moved = []
    for _ in range(2):
        sgd(model, steps=1)
        now = model.state_dict()
        moved.append({name for name in start if not np.array_equal(now[name], start[name])})
    B = {name for name in start if name.endswith(".B")}
    assert moved == [B, B | {name for name in start if name.endswith(".A")}]


def test_with_A_and_B_zero_nothing_ever_learns():
    model = make()
    add(model, target_modules="all-linear")
    for layer in L.lora_layers(model).values():
        layer.adapters["default"].A.data[...] = 0
    start = model.state_dict()
    losses = sgd(model, steps=5)
    assert len(set(losses)) == 1
    for name, data in model.state_dict().items():
        np.testing.assert_array_equal(data, start[name])


def test_A_starts_uniform_within_one_over_the_root_of_d_in_and_B_at_zero():
    model = One(400, 300)
    add(model, target_modules=["proj"], r=100)
    A, B = model.proj.adapters["default"].A.data, model.proj.adapters["default"].B.data
    bound = 1 / math.sqrt(400)
    assert A.shape == (400, 100) and B.shape == (100, 300) and A.dtype == B.dtype == np.float32
    assert np.abs(A).max() <= bound and np.abs(A).max() > 0.99 * bound
    assert A.std() == pytest.approx(bound / math.sqrt(3), rel=0.02)
    assert abs(A.mean()) < 0.02 * bound
    assert not B.any()


def test_gaussian_A_has_std_one_over_r_and_B_starts_at_zero():
    model = One(400, 300)
    add(model, target_modules=["proj"], r=100, init_lora_weights="gaussian")
    A = model.proj.adapters["default"].A.data
    assert A.std() == pytest.approx(1 / 100, rel=0.02)
    assert ((A * 100) ** 4).mean() == pytest.approx(3, rel=0.05)  # of a normal
    assert not model.proj.adapters["default"].B.data.any()


@FAMILIES
def test_init_false_draws_B_too_so_that_the_model_does_not_start_at_the_base(family):
    model = make(family)
    before = model(IDS).data
    add(model, init_lora_weights=False)
    assert np.abs(model(IDS).data - before).max() > 1e-2
    for layer in L.lora_layers(model).values():
        B = layer.adapters["default"].B.data
        assert B.std() == pytest.approx(1 / math.sqrt(4) / math.sqrt(3), rel=0.3)


def test_the_same_seed_draws_the_same_adapter_and_another_seed_another():
    first, again, other = make(), make(), make()
    add(first, seed=3), add(again, seed=3), add(other, seed=4)
    A = [model.layers[1].attn.v_proj.adapters["default"].A.data for model in (first, again, other)]
    np.testing.assert_array_equal(A[0], A[1])
    assert not np.array_equal(A[0], A[2])


def paths(*names: str, layers: tuple[int, ...] = (0, 1, 2)) -> list[str]:
    """Paths in a model's order."""
    parts = {**dict.fromkeys(ATTENTION, "attn")}
    return [f"layers.{i}.{parts.get(name, 'mlp')}.{name}" for i in layers for name in names]


@pytest.mark.parametrize(
    ("family", "options", "expected"),
    [
        ("gpt2", {}, paths("q_proj", "v_proj")),
        ("gpt2", dict(target_modules=("o_proj",)), paths("o_proj")),
        ("gpt2", dict(target_modules=["attn.k_proj"]), paths("k_proj")),
        ("gpt2", dict(target_modules=["layers.1.mlp.up_proj"]), paths("up_proj", layers=(1,))),
        ("gpt2", dict(target_modules="all-linear"), paths(*ATTENTION, "up_proj", "down_proj")),
        (
            "llama",
            dict(target_modules="all-linear"),
            paths(*ATTENTION, "gate_proj", "up_proj", "down_proj"),
        ),
        ("llama", dict(target_modules=["head"]), ["head"]),
        ("llama", dict(target_modules=["q_proj", "head"]), [*paths("q_proj"), "head"]),
        ("gpt2", dict(target_modules=r".*\.(q|o)_proj"), paths("q_proj", "o_proj")),
        (
            "gpt2",
            dict(target_modules=r"layers\.[12]\.mlp.*"),
            paths("up_proj", "down_proj", layers=(1, 2)),
        ),
        ("gpt2", dict(layers_to_transform=1), paths("q_proj", "v_proj", layers=(1,))),
        ("gpt2", dict(layers_to_transform=0), paths("q_proj", "v_proj", layers=(0,))),
        ("gpt2", dict(layers_to_transform=[0, 2]), paths("q_proj", "v_proj", layers=(0, 2))),
        (
            "llama",
            dict(target_modules=["q_proj", "head"], layers_to_transform=(2,)),
            [*paths("q_proj", layers=(2,)), "head"],
        ),
        (
            "gpt2",
            dict(target_modules="all-linear", exclude_modules=["attn.q_proj", "down_proj"]),
            paths(*ATTENTION[1:], "up_proj"),
        ),
        ("gpt2", dict(target_modules="all-linear", exclude_modules=r".*mlp.*"), paths(*ATTENTION)),
    ],
    ids=str,
)
def test_targets_are_chosen_as_the_config_says(family, options, expected):
    model = make(family)
    targets = find_targets(model, LoraConfig(**options))
    assert list(targets) == expected
    assert all(model.get_submodule(path) is linear for path, linear in targets.items())
    L.add_adapter(model, LoraConfig(r=2, **options), rng=np.random.default_rng(0))
    assert list(L.lora_layers(model)) == expected
    assert find_targets(model, LoraConfig(**options)) == targets  # also where already wrapped


def test_a_list_matches_whole_names_only():
    with pytest.raises(ValueError, match="matches no Linear"):
        find_targets(make(), LoraConfig(target_modules=["proj"]))


@pytest.mark.parametrize("use_rslora", [False, True])
def test_rank_and_alpha_patterns_are_exceptions_for_the_paths_they_match(use_rslora):
    model = make()
    add(
        model,
        r=4,
        lora_alpha=12,
        use_rslora=use_rslora,
        target_modules="all-linear",
        rank_pattern={"q_proj": 2, r"layers\.1\.mlp\..*": 9, "layers.[0-9].attn.q_proj": 3},
        alpha_pattern={"mlp.up_proj": 5, r"layers\.2\.attn\.q_proj": 1},
    )
    for path, layer in L.lora_layers(model).items():
        r = 2 if path.endswith("q_proj") else 9 if "1.mlp" in path else 4  # the first match counts
        alpha = 5 if "up_proj" in path else 1 if path == "layers.2.attn.q_proj" else 12
        assert layer.adapters["default"].A.shape[1] == layer.adapters["default"].B.shape[0] == r
        assert layer.adapters["default"].s == pytest.approx(alpha / (r**0.5 if use_rslora else r))


@pytest.mark.parametrize(("use_rslora", "scale"), [(False, 16 / 4), (True, 16 / 2)])
def test_the_scale_is_alpha_over_r_or_with_rslora_over_its_root(use_rslora, scale):
    config = LoraConfig(r=4, lora_alpha=16, use_rslora=use_rslora)
    assert config.rank_and_scale("layers.0.attn.q_proj") == (4, scale)


def test_numpy_numbers_in_a_config_do_not_turn_float32_weights_into_float64():
    model = make()
    add(model, r=np.int64(4), lora_alpha=np.float64(8), bias="all")
    randomize_B(model)
    assert {L.get_delta_weight(model, path).dtype for path in L.lora_layers(model)} == {
        np.dtype(np.float32)
    }
    L.merge_adapter(model)
    assert model(FEW).dtype == np.float32
    assert {p.dtype for p in model.parameters()} == {np.dtype(np.float32)}


def test_none_is_the_default_as_in_pefts_own_configuration():
    options = ("target_modules", "exclude_modules", "modules_to_save", "layers_to_transform")
    found = LoraConfig(**dict.fromkeys([*options, "rank_pattern", "alpha_pattern"]))
    assert found == LoraConfig()


def test_options_of_peft_that_have_no_effect_here_are_taken():
    without_effect = dict(
        task_type="CAUSAL_LM", inference_mode=False, layers_pattern="h", fan_in_fan_out=True,
        base_model_name_or_path="gpt2", revision="main",
    )  # fmt: skip
    found = LoraConfig(r=4, **without_effect)
    assert found == LoraConfig(r=4) and dataclasses.replace(found, r=8) == LoraConfig()


@pytest.mark.parametrize("kind", [list, tuple, set, iter], ids=lambda kind: kind.__name__)
def test_names_may_come_in_any_collection_also_a_generator(kind):
    config = LoraConfig(r=2, target_modules=kind(["o_proj"]), modules_to_save=kind(["norm"]))
    for _ in range(2):
        model = make()
        L.add_adapter(model, config, rng=np.random.default_rng(0))
        assert list(L.lora_layers(model)) == paths("o_proj")
    assert config.modules_to_save == ("norm",) == LoraConfig(modules_to_save="norm").modules_to_save


def test_defaults_are_pefts():
    config = LoraConfig()
    assert (config.r, config.lora_alpha, config.lora_dropout, config.bias) == (8, 8, 0, "none")
    assert config.init_lora_weights is True and config.use_rslora is False
    assert set(config.target_modules) == {"q_proj", "v_proj"}  # the paper's choice


def trainable_names(model: Module) -> set[str]:
    return {name for name, p in model.named_parameters() if p.requires_grad}


def AB(*targets: str) -> set[str]:
    return {f"{path}.adapters.default.{X}" for path in targets for X in "AB"}


def test_bias_none_trains_A_and_B_alone():
    model = adapted()
    assert trainable_names(model) == AB(*paths("q_proj", "v_proj"))


def test_bias_lora_only_trains_the_biases_of_adapted_linears_too():
    model, targets = adapted(bias="lora_only"), paths("q_proj", "v_proj")
    assert trainable_names(model) == AB(*targets) | {f"{path}.base.bias" for path in targets}


def test_bias_all_trains_every_bias_of_the_model_too():
    model = adapted(bias="all")
    biases = {name for name, _ in model.named_parameters() if name.endswith("bias")}
    assert "norm.bias" in biases and "layers.0.mlp.up_proj.bias" in biases
    assert trainable_names(model) == AB(*paths("q_proj", "v_proj")) | biases


@pytest.mark.parametrize("bias", ["all", "lora_only"])
def test_a_model_without_biases_has_none_to_train(bias):
    model = adapted("llama", bias=bias)
    assert trainable_names(model) == AB(*paths("q_proj", "v_proj"))


def test_modules_to_save_train_whole_as_copies_and_the_originals_stay():
    model = make("llama")
    head, norm = model.head.weight, model.norm.weight
    before = head.data.tobytes()
    add(model, modules_to_save=["head", "mlp_norm"])
    expected = {"head.weight"} | {f"layers.{i}.mlp_norm.weight" for i in range(3)}
    assert trainable_names(model) == AB(*paths("q_proj", "v_proj")) | expected
    assert model.head.weight is not head and model.norm.weight is norm
    sgd(model)
    assert not np.array_equal(model.head.weight.data, head.data)
    with L.disable_adapter(model):
        assert model.head.weight is head and head.data.tobytes() == before
    L.delete_adapter(model, "default")
    assert model.head.weight is head and head.data.tobytes() == before


def test_an_embedding_that_is_not_tied_can_be_trained_whole():
    model = make()
    add(model, modules_to_save=["pos_embed"])  # positions are never tied to the head
    assert "pos_embed.weight" in trainable_names(model)
    model = make("llama")
    add(model, modules_to_save=["tok_embed"])
    assert "tok_embed.weight" in trainable_names(model)


@pytest.mark.parametrize("rows", [2, 40], ids=["few rows", "many rows"])
def test_dropout_acts_only_with_a_generator_and_only_on_the_adapters_input(rows):
    layer = one_adapted(lora_dropout=0.5)
    x = Tensor(np.random.default_rng(0).standard_normal((rows, 6)), requires_grad=True)
    plain, first, again = layer(x), *(layer(x, np.random.default_rng(3)) for _ in range(2))
    np.testing.assert_allclose(plain.data, unfused(layer, x).data, rtol=1e-12)
    np.testing.assert_array_equal(first.data, again.data)
    mask = np.random.default_rng(3).random((rows, 6), dtype=np.float32) >= 0.5
    assert 0 < mask.sum() < mask.size
    expected = layer.base(x).data + (x.data * mask * 2) @ layer.delta_weight("default")
    np.testing.assert_allclose(first.data, expected, rtol=1e-10)


@pytest.mark.parametrize("name", [*ATTENTION, "gate_proj", "up_proj", "down_proj", "head"])
def test_the_generator_reaches_the_adapter_of_every_linear(name):
    model = adapted("llama", target_modules=[name], lora_dropout=0.5)
    dropped = model(IDS, np.random.default_rng(0)).data
    assert np.abs(dropped - model(IDS).data).max() > 1e-4


@FAMILIES
def test_dropout_changes_a_trained_model_and_not_one_at_the_start(family):
    model = make(family)
    before = model(IDS).data
    add(model, lora_dropout=0.5)
    np.testing.assert_array_equal(model(IDS, np.random.default_rng(0)).data, before)
    randomize_B(model)
    first, again = (model(IDS, np.random.default_rng(0)).data for _ in range(2))
    np.testing.assert_array_equal(first, again)
    assert np.abs(first - model(IDS).data).max() > 1e-3
    L.merge_adapter(model)
    np.testing.assert_array_equal(model(IDS, np.random.default_rng(0)).data, model(IDS).data)


def two_adapters(family: str = "gpt2") -> tuple[Transformer, dict[str, np.ndarray]]:
    """A model with adapters "one" and "two" on overlapping layers, "two" active, and the logits
    that belong to either and to the base."""
    model = make(family)
    logits = {"base": model(IDS).data}
    bias = dict(bias="all") if family == "gpt2" else dict(modules_to_save=["head"])
    add(model, "one", target_modules=["q_proj", "up_proj"], **bias)
    randomize_B(model, "one", seed=1)
    for slot in L.adapters(model)["one"].copies:
        slot.copy.data += 0.05
    logits["one"] = model(IDS).data
    add(model, "two", r=2, target_modules=["q_proj", "v_proj"], modules_to_save=["norm"], seed=5)
    np.testing.assert_array_equal(model(IDS).data, logits["base"])  # the new one starts at the base
    randomize_B(model, "two", seed=2)
    logits["two"] = model(IDS).data
    return model, logits


@FAMILIES
def test_several_adapters_are_independent_and_switched_bit_for_bit(family):
    model, logits = two_adapters(family)
    assert list(L.adapters(model)) == ["one", "two"] and L.active_adapter(model) == "two"
    assert len({data.tobytes() for data in logits.values()}) == 3
    for name in ("one", "two", "two", "one"):
        L.set_adapter(model, name)
        assert L.active_adapter(model) == name
        np.testing.assert_array_equal(model(IDS).data, logits[name])
        with L.disable_adapter(model):
            np.testing.assert_array_equal(model(IDS).data, logits["base"])


@FAMILIES
@pytest.mark.parametrize("options", [dict(bias="all"), dict(modules_to_save=["norm"])], ids=str)
def test_an_adapter_that_is_set_again_trains_what_it_trained_before(family, options):
    model = adapted(family, **options)
    first = {plain_name(name) for name in trainable_names(model)}
    add(model, "other", target_modules=["o_proj"])
    assert trainable_names(model) == {
        f"{path}.adapters.other.{X}" for path in paths("o_proj") for X in "AB"
    }
    L.set_adapter(model, "default")
    assert {plain_name(name) for name in trainable_names(model)} == first
    with L.disable_adapter(model):
        assert not [name for name in trainable_names(model) if ".adapters." not in name]


@FAMILIES
def test_only_the_active_adapter_trains_and_the_other_keeps_its_bytes(family):
    model, logits = two_adapters(family)
    for active, other in (("one", "two"), ("two", "one")):
        L.set_adapter(model, active)
        names = trainable_names(model)
        assert any(f".adapters.{active}." in name for name in names)
        assert not any(f".adapters.{other}." in name for name in names)
        sgd(model, steps=2)
    L.set_adapter(model, "one")
    assert np.abs(model(IDS).data - logits["one"]).max() > 1e-4
    before = frozen_bytes(model), [s.copy.data.tobytes() for s in L.adapters(model)["two"].copies]
    sgd(model, steps=2)
    assert (
        frozen_bytes(model),
        [s.copy.data.tobytes() for s in L.adapters(model)["two"].copies],
    ) == before
    with L.disable_adapter(model):
        np.testing.assert_array_equal(model(IDS).data, logits["base"])


@FAMILIES
def test_merging_one_of_two_adapters_merges_that_one(family):
    model, logits = two_adapters(family)
    L.set_adapter(model, "one")
    L.merge_adapter(model)
    np.testing.assert_allclose(model(IDS).data, logits["one"], atol=1e-4)
    L.unmerge_adapter(model)
    L.set_adapter(model, "two")
    np.testing.assert_array_equal(model(IDS).data, logits["two"])


def test_deleting_an_inactive_adapter_leaves_the_active_one_as_it_was():
    model, logits = two_adapters()
    trainable = trainable_names(model)
    L.delete_adapter(model, "one")
    assert list(L.adapters(model)) == ["two"] and L.active_adapter(model) == "two"
    assert list(L.lora_layers(model)) == paths("q_proj", "v_proj")
    assert trainable_names(model) == trainable
    assert not any(name.endswith(".one") for name, _ in model.named_parameters())
    np.testing.assert_array_equal(model(IDS).data, logits["two"])


def test_deleting_the_active_adapter_leaves_the_base_until_another_is_set():
    model, logits = two_adapters()
    L.delete_adapter(model, "two")
    assert L.active_adapter(model) is None
    np.testing.assert_array_equal(model(IDS).data, logits["base"])
    L.set_adapter(model, "one")
    np.testing.assert_array_equal(model(IDS).data, logits["one"])


@FAMILIES
def test_with_the_last_adapter_gone_the_model_is_the_plain_trainable_base(family):
    model, plain = two_adapters(family)[0], make(family)
    L.delete_adapter(model, "one")
    L.delete_adapter(model, "two")
    assert_plain(model, plain, plain.state_dict())
    add(model, "one")  # the name is free again


def assert_plain(model: Module, like: Module, state: dict[str, np.ndarray]) -> None:
    kinds = [(path, type(m)) for path, m in like.named_modules()]
    assert [(path, type(m)) for path, m in model.named_modules()] == kinds
    found = model.state_dict()
    assert list(found) == list(state)
    for name, data in state.items():
        np.testing.assert_array_equal(found[name], data, err_msg=name)
    assert len(model.trainable_parameters()) == len(state)
    assert not L.adapters(model) and L.active_adapter(model) is None


@FAMILIES
@pytest.mark.parametrize("merged_before", [False, True])
def test_merge_and_unload_yields_a_plain_model_of_merged_weights(family, merged_before):
    model, logits = two_adapters(family)
    L.set_adapter(model, "one")
    expected = make(family).state_dict()
    for path in paths("q_proj", "up_proj"):
        expected[f"{path}.weight"] += L.get_delta_weight(model, path)
    for name in expected:
        if name.endswith("bias") or name == "head.weight":
            expected[name] += np.float32(0.05)
    if merged_before:
        L.merge_adapter(model)
    L.merge_and_unload(model)
    assert_plain(model, make(family), expected)
    np.testing.assert_allclose(model(IDS).data, logits["one"], atol=1e-4)
    losses = sgd(model, steps=4, lr=0.1)  # full fine-tuning can go on from here
    assert losses[-1] < losses[0]
    add(model)


def test_disable_adapter_nests_and_restores_after_exceptions():
    model, logits = two_adapters()
    seen = []

    def fail_inside() -> None:
        with L.disable_adapter(model):
            with contextlib.suppress(KeyError), L.disable_adapter(model):
                seen.append(model(IDS).data)
                raise KeyError
            seen.append(model(IDS).data)  # the inner end must not bring the adapter back
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail_inside()
    assert len(seen) == 2
    for data in seen:
        np.testing.assert_array_equal(data, logits["base"])
    assert L.active_adapter(model) == "two"
    np.testing.assert_array_equal(model(IDS).data, logits["two"])


def test_disable_adapter_on_a_plain_model_changes_nothing():
    model = make()
    before = snapshot(model)
    with L.disable_adapter(model):
        pass
    assert snapshot(model) == before


@FAMILIES
@pytest.mark.parametrize("options", [dict(bias="all"), dict(modules_to_save=["norm"])], ids=str)
def test_the_base_shown_by_disable_adapter_is_frozen_too(family, options):
    model = adapted(family, **options)
    with L.disable_adapter(model):
        assert not [name for name in trainable_names(model) if ".adapters." not in name]
        assert not model(IDS).requires_grad


def test_get_delta_weight_is_s_times_A_times_B_of_the_active_or_a_named_adapter():
    model, _ = two_adapters()
    for name, r in (("one", 4), ("two", 2)):
        layer = model.layers[1].attn.q_proj
        expected = 12 / r * layer.adapters[name].A.data @ layer.adapters[name].B.data
        found = L.get_delta_weight(model, "layers.1.attn.q_proj", name)
        assert found.shape == (16, 16) and found.dtype == np.float32
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)
    np.testing.assert_array_equal(L.get_delta_weight(model, "layers.1.attn.q_proj"), found)


def test_get_delta_weight_is_what_a_merge_adds():
    model = adapted(target_modules="all-linear")
    before = model.state_dict()
    L.merge_adapter(model)
    for path, layer in L.lora_layers(model).items():
        added = layer.base.weight.data - before[f"{path}.base.weight"]
        np.testing.assert_allclose(added, L.get_delta_weight(model, path), atol=1e-6)


def test_get_delta_weight_says_what_there_is():
    model, _ = two_adapters()
    for path, name in (
        ("layers.1.attn.o_proj", None),
        ("layers.0.attn.v_proj", "one"),
        ("", "two"),
    ):
        with refused(model, KeyError, f"does not adapt {path!r}; adapted: layers.0.attn.q_proj, "):
            L.get_delta_weight(model, path, name)
    with refused(model, KeyError, "adapter 'three' does not adapt"):
        L.get_delta_weight(model, "layers.0.attn.q_proj", "three")
    with refused(make(), KeyError, "adapter None does not adapt"):
        L.get_delta_weight(make(), "layers.0.attn.q_proj")


BAD_CONFIGS = [
    (dict(r=0), "r must be a whole number of at least 1, got 0"),
    (dict(r=-1), "r must be a whole number of at least 1, got -1"),
    (dict(r=2.0), "r must be a whole number of at least 1, got 2.0"),
    (dict(r=True), "r must be a whole number of at least 1, got True"),
    (dict(r=None), "r must be a whole number of at least 1, got None"),
    (dict(lora_alpha=0), "lora_alpha must be a positive number, got 0"),
    (dict(lora_alpha=-1), "lora_alpha must be a positive number, got -1"),
    (dict(lora_alpha=math.nan), "lora_alpha must be a positive number, got nan"),
    (dict(lora_alpha=math.inf), "lora_alpha must be a positive number, got inf"),
    (dict(lora_alpha="8"), "lora_alpha must be a positive number, got '8'"),
    (dict(rank_pattern={"q_proj": 0}), r"rank_pattern\['q_proj'\] must be a whole number"),
    (dict(rank_pattern={"q_proj": 1.5}), r"rank_pattern\['q_proj'\] must be a whole number"),
    (dict(alpha_pattern={"q_proj": math.nan}), r"alpha_pattern\['q_proj'\] must be a positive"),
    (dict(rank_pattern=["q_proj"]), r"rank_pattern must be a dict by path, got \['q_proj'\]"),
    (dict(target_modules=[5]), r"target_modules must be a name or a list of names, got \[5\]"),
    (dict(target_modules=5), "target_modules must be a name or a list of names, got 5"),
    (dict(exclude_modules=[None]), "exclude_modules must be a name or a list of names"),
    (dict(target_modules={"q_proj": 1}), "target_modules must be a name or a list of names"),
    (dict(modules_to_save=3), "modules_to_save must be a name or a list of names, got 3"),
    (dict(layers_to_transform=[0.5]), "layers_to_transform must be a whole number .* got 0.5"),
    (dict(layers_to_transform=True), "layers_to_transform must be a whole number .* got True"),
    (dict(layers_to_transform=-1), "layers_to_transform must be a whole number .* got -1"),
    (dict(lora_dropout=math.nan), r"lora_dropout must lie in \[0, 1\), got nan"),
    (dict(lora_dropout=None), r"lora_dropout must lie in \[0, 1\), got None"),
    (dict(use_rslora=None), "use_rslora must be True or False, got None"),
    (dict(use_dora="yes"), "use_dora must be True or False, got 'yes'"),
    (dict(bias=None), "bias must be .* got None"),
    (dict(init_lora_weights=None), "init_lora_weights must be one of .* got None"),
    (dict(init_lora_weights=1), "init_lora_weights must be one of .* got 1"),
    (dict(init_lora_weights=np.ones(2)), "init_lora_weights must be one of"),
    (dict(rank_pattern={5: 2}), "rank_pattern must be a dict by path, got {5: 2}"),
    (dict(lora_alpha=10**400), "lora_alpha must be a positive number, got 1000"),
    (dict(lora_dropout=True), r"lora_dropout must lie in \[0, 1\), got True"),
    (dict(bias=["none"]), "bias must be"),
    (dict(layers_to_transform="0"), "layers_to_transform must be a whole number .* got '0'"),
    (dict(target_modules=b"q"), "target_modules must be a name or a list of names, got b'q'"),
    (dict(inference_mode=True), "inference_mode=True would freeze the adapter"),
    (dict(bias="some"), 'bias must be "none", "all" or "lora_only", got \'some\''),
    (dict(init_lora_weights="svd"), "init_lora_weights must be one of"),
    (dict(lora_dropout=1.0), r"lora_dropout must lie in \[0, 1\), got 1.0"),
    (dict(lora_dropout=-0.5), r"lora_dropout must lie in \[0, 1\), got -0.5"),
    (dict(target_modules="(q_proj"), "'\\(q_proj' is not a regular expression"),
    (dict(exclude_modules="*"), r"'\*' is not a regular expression: nothing to repeat"),
    (dict(rank_pattern={"[": 2}), r"'\[' is not a regular expression"),
    (dict(alpha_pattern={"a)": 2}), r"'a\)' is not a regular expression"),
]


@pytest.mark.parametrize(("options", "sentence"), BAD_CONFIGS, ids=str)
def test_a_config_outside_its_range_is_refused_with_a_reason(options, sentence):
    with pytest.raises(ValueError, match=sentence):
        LoraConfig(**options)


def test_a_config_cannot_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        LoraConfig().r = 3


NAMES = "q_proj, k_proj, v_proj, o_proj, up_proj, down_proj"
BAD_ADAPTERS = [
    (dict(target_modules=["query"]), rf"\['query'\] matches no Linear; this model has: {NAMES}"),
    (dict(target_modules=["q_proj", "query"]), r"\['query'\] matches no Linear"),
    (dict(target_modules="q_proj"), r"a regular expression .* use a list: \['q_proj'\]"),
    (dict(target_modules=[]), rf"\[\] matches no Linear; this model has: {NAMES}"),
    (dict(target_modules=["tok_embed"]), "tok_embed is an embedding and tied to the output head"),
    (dict(target_modules=["q_proj", "tok_embed"]), "tok_embed is an embedding and tied"),
    (dict(target_modules=["pos_embed"]), "pos_embed is an embedding; LoRA here adapts Linear"),
    (dict(target_modules=["head"]), "matches no Linear"),  # tied: there is no such layer
    (dict(exclude_modules=r".*"), "nothing is left to adapt of target_modules"),
    (dict(layers_to_transform=3), "layers_to_transform: this model has no layer 3"),
    (dict(layers_to_transform=[0, 7]), "layers_to_transform: this model has no layer 7"),
    (dict(exclude_modules="v_proj"), r"exclude_modules=\['v_proj'\] matches no Linear; this m"),
    (dict(exclude_modules=["proj"]), r"exclude_modules=\['proj'\] matches no Linear; this model"),
    (dict(rank_pattern={"c_attn": 2}), "rank_pattern='c_attn' matches nothing that is adapted"),
    (dict(rank_pattern={"o_proj": 2}), "rank_pattern='o_proj' matches nothing that is adapted"),
    (dict(alpha_pattern={"proj": 2}), "alpha_pattern='proj' matches nothing that is adapted"),
    (dict(modules_to_save="nrom"), "modules_to_save='nrom' is not in this model"),
    (dict(layers_to_transform=[]), r"nothing is left .* and layers_to_transform=\(\)"),
    (dict(r=17), r"r=17 is more than layers.0.attn.q_proj \(16 x 16\) can use: .* at most 16"),
    (dict(rank_pattern={"1.attn.v_proj": 20}), "r=20 is more than layers.1.attn.v_proj"),
    (dict(modules_to_save=["lm_head"]), "modules_to_save='lm_head' is not in this model"),
    (dict(modules_to_save=["norm", "head"]), "modules_to_save='head' is not in this model"),
    (dict(modules_to_save=["tok_embed"]), "'tok_embed' is an embedding to which the head is tied"),
    (dict(modules_to_save=["q_proj"]), "'q_proj' is, or holds, a target of LoRA"),
    (dict(modules_to_save=["norm", "attn"]), "'attn' is, or holds, a target of LoRA"),
    (dict(modules_to_save=["layers"]), "'layers' is, or holds, a target of LoRA"),
    (dict(name=""), "an adapter's name is a word without a dot, got ''"),
    (dict(name="a.b"), "an adapter's name is a word without a dot, got 'a.b'"),
    (dict(name=None), "an adapter's name is a word without a dot, got None"),
]


@pytest.mark.parametrize("has_adapter", [False, True], ids=["plain model", "adapted model"])
@pytest.mark.parametrize(("options", "sentence"), BAD_ADAPTERS, ids=str)
def test_an_adapter_that_cannot_be_is_refused_and_nothing_changed(has_adapter, options, sentence):
    model = make()
    if has_adapter:
        add(model, "first", bias="all", modules_to_save=["pos_embed"])
        randomize_B(model, "first")
    before = model(FEW).data
    with refused(model, ValueError, sentence):
        add(model, **options)
    np.testing.assert_array_equal(model(FEW).data, before)


def test_a_name_that_is_taken_is_refused():
    model, _ = two_adapters()
    for name in ("one", "two"):
        with refused(model, ValueError, f"has an adapter '{name}' already: take another name"):
            add(model, name)


def test_an_untied_embedding_is_refused_without_the_word_tied():
    model = make("llama")
    with refused(
        model, ValueError, "tok_embed is an embedding; LoRA here adapts Linear layers; this"
    ):
        add(model, target_modules=["tok_embed"])


def test_the_rank_may_be_all_that_a_matrix_can_have():
    model = make("llama")
    add(model, target_modules=["k_proj"], r=8)  # 16 x 8
    with refused(model, ValueError, r"k_proj \(16 x 8\) can use"):
        add(model, "more", target_modules=["k_proj"], r=9)
    add(model, "pattern", target_modules=["q_proj", "k_proj"], r=9, rank_pattern={"k_proj": 8})


def test_a_merged_adapter_is_neither_merged_again_nor_changed_nor_deleted():
    model, _ = two_adapters()
    L.merge_adapter(model)
    merged = "adapter 'two' is already merged: call unmerge_adapter"
    for act in (
        lambda: L.merge_adapter(model),
        lambda: L.delete_adapter(model, "two"),
        lambda: L.delete_adapter(model, "one"),
        lambda: L.set_adapter(model, "two"),
        lambda: L.set_adapter(model, "one"),
        lambda: add(model, "three"),
        lambda: L.disable_adapter(model).__enter__(),
    ):
        with refused(model, ValueError, merged):
            act()
    L.unmerge_adapter(model)
    with refused(model, ValueError, "no adapter is merged"):
        L.unmerge_adapter(model)


def test_training_a_merged_model_fails_instead_of_learning_nothing():
    model = adapted()
    L.merge_adapter(model)
    with refused(model, RuntimeError, "nothing to differentiate.*merged"):
        loss_of(model).backward()


def test_a_plain_model_has_nothing_to_merge_set_or_delete():
    model = make()
    with refused(model, ValueError, "there is no active adapter to merge"):
        L.merge_adapter(model)
    with refused(model, ValueError, "there is no active adapter to merge"):
        L.merge_and_unload(model)
    with refused(model, ValueError, "no adapter is merged"):
        L.unmerge_adapter(model)
    for act in (L.set_adapter, L.delete_adapter):
        with refused(model, ValueError, "no adapter 'default'; it has: none"):
            act(model, "default")


def test_an_unknown_adapter_is_refused_with_the_names_there_are():
    model, _ = two_adapters()
    for act in (L.set_adapter, L.delete_adapter):
        with refused(model, ValueError, "no adapter 'three'; it has: one, two"):
            act(model, "three")
    with refused(model, ValueError, "no active adapter to merge"), L.disable_adapter(model):
        L.merge_adapter(model)


@FAMILIES
def test_a_deep_copy_of_an_adapted_model_works_and_is_independent(family):
    model, logits = two_adapters(family)
    twin = copy.deepcopy(model)
    assert {id(p) for p in model.parameters()}.isdisjoint(id(p) for p in twin.parameters())
    assert trainable_names(twin) == trainable_names(model)
    before = snapshot(model)
    sgd(twin)
    L.set_adapter(twin, "one")
    np.testing.assert_array_equal(twin(IDS).data, logits["one"])
    L.merge_adapter(twin)
    L.unmerge_adapter(twin)
    L.delete_adapter(twin, "one")
    L.delete_adapter(twin, "two")
    assert_plain(twin, make(family), make(family).state_dict())
    assert snapshot(model) == before
    np.testing.assert_array_equal(model(IDS).data, logits["two"])


def test_state_dict_of_an_adapted_model_loads_into_another():
    model, other = adapted(), make(seed=3)
    add(other, seed=8)
    other.load_state_dict(model.state_dict())
    np.testing.assert_array_equal(other(IDS).data, model(IDS).data)


@FAMILIES
def test_adapting_keeps_the_order_and_the_paths_of_the_base(family):
    model = make(family)
    names = [name for name, _ in model.named_parameters()]
    add(model, target_modules="all-linear")
    found = [plain_name(n) for n, _ in model.named_parameters() if ".adapters." not in n]
    assert found == names


class _Zeros(np.random.Generator):
    """Draws arrays that are one zero seen everywhere, so that a model with billions of parameters
    can be counted without being stored."""

    def standard_normal(self, shape, dtype):
        return _OneNumber(np.broadcast_to(np.zeros((), dtype), shape))


class _OneNumber:
    """An array that stays a view of one number when multiplied."""

    def __init__(self, view: np.ndarray) -> None:
        self.view = view

    def __mul__(self, factor: float) -> np.ndarray:
        return self.view


def big(**options) -> Transformer:
    return Transformer(TransformerConfig(**options), rng=_Zeros(np.random.PCG64()))


GPT2 = dict(vocab_size=50257, block_size=1024, n_layer=12, n_head=12, n_embd=768)
LLAMA2_7B = dict(
    vocab_size=32000,
    block_size=4096,
    n_layer=32,
    n_head=32,
    n_embd=4096,
    mlp_hidden=11008,
    norm="rmsnorm",
    activation="swiglu",
    positions="rope",
    bias=False,
    tie_embeddings=False,
)


def test_print_trainable_parameters_prints_pefts_line_for_gpt2(capsys):
    model = big(**GPT2)
    print_trainable_parameters(model)
    add(
        model, r=8
    )  # q and v: as many numbers as PEFT's r=8 on c_attn, which shares A among q, k, v
    print_trainable_parameters(model)
    plain, lora = capsys.readouterr().out.splitlines()
    assert plain == (
        "trainable params: 124,439,808 || all params: 124,439,808 || trainable%: 100.0000"
    )
    assert lora == "trainable params: 294,912 || all params: 124,734,720 || trainable%: 0.2364"


def test_llama_2_7b_with_q_and_v_at_rank_8_trains_4194304_numbers():
    model = big(**LLAMA2_7B)
    assert count_parameters(model) == (6_738_415_616, 6_738_415_616)
    add(model, r=8)
    assert count_parameters(model) == (4_194_304, 6_738_415_616 + 4_194_304)


def test_gpt2_medium_with_q_and_v_at_rank_4_trains_393216_numbers():
    model = big(**{**GPT2, "n_layer": 24, "n_head": 16, "n_embd": 1024})
    add(model, r=4)
    assert count_parameters(model)[0] == 393_216


def test_gpt3_with_q_and_v_at_rank_1_trains_the_papers_4_7_million():
    sizes = dict(vocab_size=50257, block_size=2048, n_layer=96, n_head=96, n_embd=12288)
    model = big(**sizes)
    add(model, r=1)
    trainable, total = count_parameters(model)
    assert trainable == 4_718_592
    assert (total - trainable) / trainable == pytest.approx(37_142, rel=0.005)


def test_one_4096_matrix_at_rank_8_trains_65536_numbers_which_is_0_39_percent():
    model = One.__new__(One)
    model.proj = Linear(4096, 4096, bias=False, rng=_Zeros(np.random.PCG64()))
    add(model, target_modules=["proj"], r=8)
    trainable, total = count_parameters(model)
    assert trainable == 65_536 and total == 4096 * 4096 + 65_536
    assert round(100 * trainable / 4096**2, 2) == 0.39


@pytest.mark.parametrize("r", [1, 3, 8])
@FAMILIES
def test_every_adapted_matrix_trains_r_times_the_sum_of_its_sides(family, r):
    model = make(family)
    shapes = [m.weight.shape for _, m in model.named_modules() if isinstance(m, Linear)]
    if family == "llama":
        shapes.remove((16, 11))  # the head is not among "all-linear"
    add(model, target_modules="all-linear", r=r)
    assert count_parameters(model)[0] == sum(r * (d_in + d_out) for d_in, d_out in shapes)


@st.composite
def layers(draw):
    d_in, d_out = draw(st.integers(1, 12)), draw(st.integers(1, 12))
    return dict(
        d_in=d_in,
        d_out=d_out,
        r=draw(st.integers(1, min(d_in, d_out))),
        rows=draw(st.integers(1, 20)),
        alpha=draw(st.sampled_from([0.5, 1, 8, 31])),
        use_rslora=draw(st.booleans()),
        bias=draw(st.booleans()),
        seed=draw(st.integers(0, 10**6)),
    )


@settings(max_examples=150, deadline=None)
@given(layers())
def test_delta_weight_is_s_A_B_has_rank_r_at_most_and_is_what_the_layer_adds(case):
    d_in, d_out, r, seed = case["d_in"], case["d_out"], case["r"], case["seed"]
    model, rng = One(d_in, d_out, case["bias"], seed), np.random.default_rng(seed)
    model.to(np.float64)
    L.add_adapter(
        model,
        LoraConfig(
            r=r,
            lora_alpha=case["alpha"],
            use_rslora=case["use_rslora"],
            target_modules=["proj"],
            init_lora_weights=False,
        ),
        rng=rng,
    )
    layer = model.proj
    A, B = layer.adapters["default"].A.data, layer.adapters["default"].B.data
    assert A.shape == (d_in, r) and B.shape == (r, d_out)
    s = case["alpha"] / (math.sqrt(r) if case["use_rslora"] else r)
    delta = L.get_delta_weight(model, "proj")
    np.testing.assert_allclose(delta, s * (A @ B), rtol=1e-12, atol=1e-14)
    values = np.linalg.svd(delta, compute_uv=False)
    assert (values[r:] <= 1e-12 * values[0]).all()
    x = Tensor(rng.standard_normal((case["rows"], d_in)))
    y, base = layer(x).data, layer.base(x).data
    np.testing.assert_allclose(y - base, x.data @ delta, rtol=1e-9, atol=1e-10)
    L.merge_adapter(model)
    np.testing.assert_allclose(model.proj(x).data, y, rtol=1e-9, atol=1e-10)


def test_parameters_of_adapters_are_parameters():
    layer = one_adapted()
    assert isinstance(layer.adapters["default"].A, Parameter)
    assert [name for name, _ in layer.named_parameters()] == [
        "adapters.default.A",
        "adapters.default.B",
        "base.weight",
        "base.bias",
    ]
